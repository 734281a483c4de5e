// Step 1, a table of one's own: what is in it, before anything is trained on it.
(() => {
  const { define, node, on, state, t } = LoraLab;

  // Fine-tune trains what lies there: a table that was dropped is taken first, then the press goes on.
  let pressed = null; // {button, task}: what was pressed, and the task until then
  addEventListener("click", (event) => {
    const button = event.isTrusted && state.dropped && event.target.closest?.("#start, #sweep");
    if (!button) return;
    event.stopPropagation();
    if (!pressed) document.querySelector("#own-use").click();
    pressed = { button, task: state.settings?.task };
  }, true);
  on("settings", ({ task }) => {
    if (!pressed || pressed.task === task) return;
    pressed.button.click();
    pressed = null;
  });

  function preview(value) {
    const role = (column) =>
      column === value.text ? "text" : column === value.label ? "label" : null;
    const head = value.columns.map((column) =>
      node("th", { scope: "col", class: role(column) && `is-${role(column)}` }, column,
        role(column) && node("span", { class: "own-role" }, t(`own.${role(column)}s_here`))));
    const rows = value.preview.map((cells) =>
      node("tr", {}, ...cells.map((cell, i) =>
        node("td", { class: role(value.columns[i]) && `is-${role(value.columns[i])}`, title: cell.length > 40 ? cell : null },
          cell === "" ? node("span", { class: "own-empty" }, t("own.empty")) : cell))));
    return node("div", { class: "scroll own-preview", tabindex: "0", role: "region", "aria-label": t("own.preview") },
      node("table", {}, node("thead", {}, node("tr", {}, ...head)), node("tbody", {}, ...rows)));
  }

  function classes(value) {
    const most = Math.max(...value.classes.map(([, count]) => count));
    const list = value.classes.map(([label, count, words]) =>
      node("li", {},
        node("span", { class: "own-label", title: label }, label),
        node("span", { class: "own-bar" }, Object.assign(node("i"), { style: `width:${(100 * count) / most}%` })),
        node("span", { class: "own-count" }, words)));
    return node("div", {},
      node("h4", {}, value.classes_title),
      node("div", { class: "own-classes", tabindex: "0", role: "region", "aria-label": value.classes_title }, node("ul", {}, ...list)));
  }

  function lengths(value) {
    const { edges, counts, title, words, cut } = value.lengths;
    const most = Math.max(...counts, 1);
    const bars = counts.map((count, i) =>
      Object.assign(node("i", {
        title: t("own.bar", { low: edges[i] + 1, high: edges[i + 1], n: count }), class: cut && i === counts.length - 1 ? "cut" : null,
      }), { style: `height:${(100 * count) / most}%` }));
    return node("div", {},
      node("h4", {}, title),
      node("div", { class: "own-lengths", role: "img", "aria-label": words }, ...bars),
      node("div", { class: "own-ends", "aria-hidden": "true" },
        node("span", {}, "1"), node("span", {}, t(cut ? "own.longest_cut" : "own.longest", { n: edges.at(-1) }))));
  }

  define("table", ({ element, draw }) => {
    element.setAttribute("aria-live", "polite");
    draw((value) => {
      if (element.closest("#own-report"))
        LoraLab.emit("dropped", value.columns?.length && !value.problem ? value.title : "");
      if (value.problem) pressed = null; // it was not taken, and nothing is trained in its place
      const children = [];
      if (value.title) children.push(node("p", { class: "own-title" }, value.title));
      if (value.problem) children.push(node("p", { class: "own-problem", role: "alert" }, value.problem));
      if (value.done) children.push(node("p", { class: "own-done", role: "status" }, value.done));
      if (value.columns?.length) children.push(preview(value));
      const figures = [];
      if (value.classes?.length) figures.push(classes(value));
      if (value.lengths) figures.push(lengths(value));
      if (figures.length) children.push(node("div", { class: "own-figures" }, ...figures));
      if (value.warnings?.length)
        children.push(node("ul", { class: "own-warnings", "aria-label": t("own.warnings") },
          ...value.warnings.map((warning) => node("li", {}, warning))));
      element.replaceChildren(...children);
    });
  });
})();
