// Step 2, below the curves: the runs as a table that sorts, and accuracy against what was trained.
(() => {
  const { define, node, colour, layout, plotOptions, tint } = LoraLab;

  define("runs", ({ element, draw, trigger, on }) => {
    let rows = [];
    let shown = ""; // the run of steps 3 to 5
    let columns = [];
    let order = { key: null, down: true };
    const head = node("tr");
    const body = node("tbody");
    const table = node("table", { class: "runs" },
      node("caption", { class: "visually-hidden" }, "Runs: press a column's title to sort"),
      node("thead", {}, head), body);
    element.append(node("div", { class: "scroll", tabindex: "0", role: "region", "aria-label": "Table of runs" }, table));

    function sorted() {
      if (!order.key) return rows;
      const value = (row) => row.sort[order.key];
      return [...rows].sort((a, b) => {
        const [x, y] = [value(a), value(b)];
        if (x === null || y === null) return x === y ? 0 : x === null ? 1 : -1; // empty ones last
        const way = typeof x === "string" ? x.localeCompare(y) : x - y;
        return order.down ? -way : way;
      });
    }

    function render() {
      head.replaceChildren(...columns.map(({ key, title, number }) => {
        const on = order.key === key;
        return node("th", { scope: "col", class: number ? "number" : null,
          "aria-sort": on ? (order.down ? "descending" : "ascending") : "none" },
          node("button", { type: "button", "data-key": key, onclick: () => {
            order = { key, down: on ? !order.down : Boolean(number) };
            render();
            head.querySelector(`[data-key="${key}"]`).focus();
          } }, title, node("span", { "aria-hidden": "true" }, on ? (order.down ? " ↓" : " ↑") : "")));
      }));
      const focused = document.activeElement?.closest?.("[data-row]")?.dataset.row;
      body.replaceChildren(...sorted().map((row) => {
        const cells = columns.map(({ key, number }, i) => {
          const text = row.cells[key] ?? "";
          if (i > 0) return node("td", { class: number ? "number" : null }, text);
          const content = row.pick
            ? node("button", { type: "button", class: "pick", "data-row": row.id,
                "aria-pressed": String(row.id === shown), title: "Show this run in steps 3 to 5",
                onclick: () => trigger("select", { id: row.id }) }, text)
            : node("span", { "data-row": row.id }, text);
          const cell = node("th", { scope: "row" }, node("i", { class: "dot", "aria-hidden": "true" }), content);
          if (row.colour !== null) cell.style.setProperty("--line", `var(--run-${row.colour})`);
          return cell;
        });
        return node("tr", { class: [row.id === shown && "picked", row.planned && "planned"].filter(Boolean).join(" ") || null }, ...cells);
      }));
      if (focused) body.querySelector(`[data-row="${CSS.escape(focused)}"]`)?.focus();
    }

    on("ready", (id) => { shown = id; render(); });

    draw((value) => {
      const key = JSON.stringify(value.rows);
      if (key === table.dataset.key) return;
      table.dataset.key = key;
      rows = value.rows;
      columns = value.columns;
      render();
    });
  });

  define("scatter", ({ element, draw }) => {
    const plot = node("div", { class: "plot" });
    const figure = node("figure", { role: "img", "aria-label": "Accuracy against trainable parameters" }, plot);
    element.append(figure);

    draw((value) => {
      if (!window.Plotly || !element.isConnected) return;
      figure.setAttribute("aria-label", value.words);
      const done = value.points.filter((point) => point.accuracy !== null);
      const planned = value.points.filter((point) => point.accuracy === null);
      const floor = Math.min(value.floor, ...done.map((point) => point.accuracy));
      const low = Math.max(0, Math.floor(floor * 20 - 2) / 20); // room for what has not run yet
      // Names of neighbours go above and below in turn, or they would cover each other.
      const inOrder = [...done].sort((a, b) => a.trainable - b.trainable);
      const side = (point) => (inOrder.indexOf(point) % 2 ? "bottom center" : "top center");
      const text = (point) => point.name.replaceAll("&", "&amp;").replaceAll("<", "&lt;");
      const made = [{
        x: done.map((point) => point.trainable), y: done.map((point) => point.accuracy),
        text: done.map(text), mode: "markers+text", textposition: done.map(side),
        textfont: { size: 11, color: colour("ink") }, cliponaxis: false,
        marker: { size: 12, color: done.map((point) => colour(`run-${point.colour}`)), line: { color: colour("card"), width: 1.5 } },
        hovertemplate: "%{text}<br>%{x:,} trainable<br>%{y:.1%} validation accuracy<extra></extra>",
      }, {
        x: planned.map((point) => point.trainable), y: planned.map(() => low + 0.05 * (1.02 - low)),
        text: planned.map(text), mode: "markers+text", textposition: "top center", cliponaxis: false,
        textfont: { size: 11, color: colour("muted") },
        marker: { size: 9, symbol: "circle-open", color: colour("edge"), line: { width: 1.5 } },
        hovertemplate: "%{text}<br>%{x:,} trainable<br>not run yet<extra></extra>",
      }];
      const sizes = value.points.map((point) => point.trainable);
      const [least, most] = [Math.min(...sizes), Math.max(...sizes)];
      Plotly.react(plot, made, layout({
        margin: { l: 50, r: 16, t: 14, b: 38 },
        xaxis: { type: "log", title: { text: "trainable parameters", standoff: 4 },
          range: [Math.log10(least / 1.9), Math.log10(most * 1.9)], dtick: 1, tickformat: "~s", zeroline: false },
        yaxis: { title: { text: "validation accuracy", standoff: 6 }, tickformat: ".0%", range: [low, 1.03], zeroline: false, nticks: 6 },
        shapes: [{ type: "line", xref: "paper", x0: 0, x1: 1, yref: "y", y0: value.floor, y1: value.floor,
          line: { color: colour("edge"), width: 1, dash: "4px 4px" } }],
        annotations: [{ xref: "paper", x: 1, yref: "y", y: value.floor, xanchor: "right", yanchor: "bottom",
          showarrow: false, text: value.floor_words.replaceAll("<", "&lt;"), font: { size: 11, color: colour("muted") } }],
      }), plotOptions);
    });
  });
})();
