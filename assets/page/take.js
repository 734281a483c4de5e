// Step 5: the shelf to scale, what is in the file, programs to copy, and saving files.
(() => {
  const { define, node, say, colour, clip, t } = LoraLab;

  define("shelf", ({ element, trigger, draw }) => {
    const summary = node("h3", { class: "shelf-summary" });
    const detail = node("p", { class: "hint" });
    const list = node("ul", { class: "shelf" });
    element.append(summary, detail, list);

    const bar = (share, kind) => {
      const made = node("i", { class: `shelf-bar ${kind}`, "aria-hidden": "true" });
      made.style.setProperty("--share", `${Math.max(0.4, 100 * share)}%`);
      return made;
    };

    draw((value) => {
      say(summary, value.summary);
      say(detail, value.detail);
      const focused = document.activeElement?.closest?.(".shelf [data-id]")?.dataset.id;
      const rows = [];
      if (value.base)
        rows.push(node("li", { class: "shelf-base" },
          node("span", { class: "shelf-name" }, value.base.name),
          node("span", { class: "shelf-track" }, bar(value.base.share, "frozen")),
          node("span", { class: "shelf-size" }, value.base.size), node("span")));
      for (const item of value.items)
        rows.push(node("li", { class: item.shown ? "shown" : null },
          node("button", { type: "button", class: "shelf-name pick", "data-id": item.id,
            "aria-pressed": String(item.shown), title: t("runs.pick"),
            onclick: () => trigger("select", { id: item.id, act: "show" }) }, item.name),
          node("span", { class: "shelf-track" }, bar(item.share, "trainable")),
          node("span", { class: "shelf-size" }, item.size),
          node("button", { type: "button", class: "shelf-remove", "data-id": `${item.id}-remove`,
            "aria-label": t("take.remove_one", { name: item.name }), title: t("take.remove"),
            onclick: () => trigger("select", { id: item.id, act: "remove" }) }, "×")));
      list.replaceChildren(...rows);
      if (focused) list.querySelector(`[data-id="${CSS.escape(focused)}"]`)?.focus();
    });
  });

  define("note", ({ element, draw }) => {
    const line = node("p", { role: "status", class: "take-note" });
    element.append(line);
    draw((value) => {
      line.classList.toggle("bad", Boolean(value.bad));
      say(line, value.text ? (value.bad ? t("take.not_done", { text: value.text }) : value.text) : "");
    });
  });

  define("about", ({ element, draw }) => {
    const title = node("h3");
    const text = node("p", { class: "hint" });
    element.append(title, text);
    draw((value) => {
      say(title, value.title);
      say(text, value.text);
    });
  });

  define("contents", ({ element, draw }) => {
    const summary = node("summary", {}, t("take.contents"));
    const note = node("p", { class: "hint" });
    const body = node("tbody");
    const titles = ["tensor", "shape", "numbers", "bytes"].map((name) => t(`take.column_${name}`));
    const table = node("table", {},
      node("caption", { class: "visually-hidden" }, t("take.contents_about")),
      node("thead", {}, node("tr", {}, ...titles.map((title, i) =>
        node("th", { scope: "col", class: i ? "number" : null }, title)))), body);
    const scroll = node("div", { class: "scroll", tabindex: "0", role: "region", "aria-label": t("take.contents_about") }, table);
    element.append(node("details", { class: "fold expert" }, summary, note, scroll));
    draw((value) => {
      say(note, value.note);
      scroll.hidden = !value.rows.length;
      body.replaceChildren(...value.rows.map((cells) => node("tr", {}, ...cells.map((cell, i) =>
        i ? node("td", { class: "number" }, cell) : node("th", { scope: "row" }, cell)))));
    });
  });

  define("programs", ({ element, draw, trigger, on }) => {
    let chosen = "use";
    let programs = [];
    const tabs = node("div", { class: "chips", role: "group", "aria-label": t("take.which_program") });
    const note = node("p", { class: "hint" });
    const code = node("code");
    const block = node("pre", { class: "scroll", tabindex: "0", role: "region", "aria-label": t("take.program") }, code);
    const copy = node("button", { type: "button", class: "chip-plain", onclick: async () => {
      const done = await clip(code.textContent);
      copy.textContent = done ? t("page.copied") : t("take.copy_by_hand");
      setTimeout(() => { copy.textContent = t("take.copy"); }, 1800);
    } }, t("take.copy"));
    // What is not looked at is not asked for.
    const fold = node("details", { class: "fold expert", ontoggle: () => ask() }, node("summary", {}, t("take.python")), tabs,
      node("div", { class: "program-head" }, note, copy), block);
    element.append(fold);
    let asked = 0;
    function ask() {
      clearTimeout(asked);
      if (fold.open) asked = setTimeout(() => trigger("submit"), 200);
    }
    on("settings", ask);
    on("ready", ask);

    function render() {
      const shown = programs.find((program) => program.key === chosen) ?? programs[0];
      tabs.replaceChildren(...programs.map((program) => node("button", {
        type: "button", class: "toggle", "aria-pressed": String(program === shown),
        onclick: () => {
          chosen = program.key;
          render();
          [...tabs.children].find((tab) => tab.getAttribute("aria-pressed") === "true").focus();
        } }, program.title)));
      say(note, shown.note);
      if (code.textContent !== shown.code) code.replaceChildren(...coloured(shown.code));
    }

    draw((value) => { programs = value.programs; render(); });
  });

  /** Comments in their own colour; everything else as it is. */
  function coloured(text) {
    return text.split(/(#[^\n]*)/).map((piece) =>
      piece.startsWith("#") ? node("span", { class: "comment" }, piece) : piece);
  }

  function download(url, name) {
    const link = node("a", { href: url, download: name });
    document.body.append(link);
    link.click();
    link.remove();
  }

  LoraLab.offer("take", {
    /** Save a file that the server has just made. */
    save(file) {
      if (file?.url) download(file.url, file.orig_name ?? "");
    },

    /** Save the curves as they are on the screen, on the page's own background. */
    async figure(format) {
      const plot = document.querySelector("#curves .js-plotly-plot");
      if (!window.Plotly || !plot?.data?.length)
        return { text: t("take.no_curves"), bad: true };
      const { width, height } = plot.getBoundingClientRect();
      const layout = { ...plot.layout, paper_bgcolor: colour("card"), plot_bgcolor: colour("card") };
      const url = await Plotly.toImage({ data: plot.data, layout },
        { format, width: Math.round(width), height: Math.round(height), scale: 2 });
      download(url, `curves.${format}`);
      return { text: "", bad: false };
    },

    /** Copy the address: it holds the settings. */
    async link() {
      const text = (await clip(location.href)) ? t("take.link_copied") : t("take.link", { url: location.href });
      return { text, bad: false };
    },
  });
})();
