// The runs compared: dots of what was reached against what was trained, and a table that sorts. Both
// show the chosen task's runs, and what a sweep of it would train.
(() => {
  const { define, node, svg, say, on, emit, state, t, series } = LoraLab;

  const task = () => state.settings?.task ?? state.task?.name;
  const planned = (groups) => {
    const sizes = new Set(groups.filter((group) => group.task === task()).map((group) => group.trainable));
    return (state.planned ?? []).filter((plan) => !sizes.has(plan.trainable));
  };

  define("runs", ({ element, draw, trigger }) => {
    let value = { rows: [], columns: [], groups: [] };
    let shown = ""; // the run of steps 3 to 5
    let others = false; // whether runs of other tasks are listed, too
    let order = { key: null, down: true };
    let drawn = "";
    const head = node("tr");
    const body = node("tbody");
    const table = node("table", { class: "runs" },
      node("caption", { class: "visually-hidden" }, t("runs.caption")),
      node("thead", {}, head), body);
    const scroll = node("div", { class: "scroll", tabindex: "0", role: "region", "aria-label": t("runs.region") }, table);
    const more = node("button", { type: "button", class: "toggle", hidden: true, onclick: () => { others = !others; render(); } });
    element.append(scroll, more);
    const cue = LoraLab.cue(scroll);

    function sorted(rows) {
      if (!order.key) return rows;
      return [...rows].sort((a, b) => {
        const [x, y] = [a.sort[order.key] ?? null, b.sort[order.key] ?? null];
        if (x === null || y === null) return x === y ? 0 : x === null ? 1 : -1; // empty ones last
        const way = typeof x === "string" ? x.localeCompare(y) : x - y;
        return order.down ? -way : way;
      });
    }

    function header({ key, title, about, number, expert }) {
      const chosen = order.key === key;
      return node("th", { scope: "col", class: [number && "number", expert && "expert"].filter(Boolean).join(" ") || null, title: about,
        "aria-sort": chosen ? (order.down ? "descending" : "ascending") : "none" },
        node("button", { type: "button", "data-key": key, onclick: () => {
          order = { key, down: chosen ? !order.down : Boolean(number) };
          render();
          head.querySelector(`[data-key="${key}"]`).focus();
        } }, title, node("span", { "aria-hidden": "true" }, chosen ? (order.down ? " ↓" : " ↑") : "")));
    }

    function line(row) {
      const away = row.task !== undefined && row.task !== task();
      const cells = value.columns.map(({ key, number, expert }, i) => {
        const text = row.cells[key] ?? "";
        if (i > 0) return node("td", { class: [number && "number", expert && "expert"].filter(Boolean).join(" ") || null }, text);
        const name = away ? t("curves.away", { name: text, task: row.task_title }) : text;
        const content = row.pick
          ? node("button", { type: "button", class: "pick", "data-row": row.id,
              "aria-pressed": String((row.ids ?? [row.id]).includes(shown)), title: t("runs.pick"),
              onclick: () => trigger("select", { id: row.id }) }, name)
          : node("span", { "data-row": row.id }, name);
        const dot = node("i", { class: row.series === null ? "dot" : `dot mark-${series(row.series).round % 4}`, "aria-hidden": "true" });
        if (row.series !== null) dot.style.setProperty("--line", series(row.series).variable);
        return node("th", { scope: "row" }, dot, content);
      });
      const kind = [(row.ids ?? [row.id]).includes(shown) && "picked", row.planned && "planned", away && "away"];
      return node("tr", { class: kind.filter(Boolean).join(" ") || null }, ...cells);
    }

    function render() {
      const away = value.rows.filter((row) => row.task !== task()).length;
      const rows = value.rows.filter((row) => others || row.task === task());
      const plans = planned(value.groups).map((plan) => ({
        id: plan.name, series: null, pick: false, planned: true,
        cells: { name: plan.name, trainable: plan.trainable.toLocaleString("en"), percent: plan.percent, state: t("state.planned") },
        sort: { name: plan.name, trainable: plan.trainable, percent: plan.trainable, state: "planned" },
      }));
      const key = JSON.stringify([rows, plans, shown, order, others, away, task()]);
      if (key === drawn) return;
      drawn = key;
      const focused = document.activeElement?.closest?.("[data-row]")?.dataset.row;
      head.replaceChildren(...value.columns.map(header));
      body.replaceChildren(...sorted([...rows, ...plans]).map(line));
      more.hidden = !away;
      more.setAttribute("aria-pressed", String(others));
      if (away) say(more, t("curves.others", { n: away }));
      if (focused) body.querySelector(`[data-row="${CSS.escape(focused)}"]`)?.focus();
      cue();
    }

    on("ready", (id) => { shown = id; render(); });
    for (const name of ["settings", "task", "planned", "view"]) on(name, render);
    draw((given) => { value = given; emit("compared", value.groups); render(); });
  });

  // What was reached against what was trained: a dot for each group of runs that differ in their seed.
  define("dots", ({ element }) => {
    const figure = node("figure", { role: "img", "aria-label": t("dots.none") });
    const readout = node("p", { class: "readout", "aria-hidden": "true" });
    element.append(figure, readout);
    const MARGIN = { left: 52, right: 20, top: 30, bottom: 44 };

    const percent = (share) => `${(100 * share).toFixed(1)}\u00a0%`;
    const short = (n) => (n >= 1e6 ? `${+(n / 1e6).toPrecision(3)}M` : n >= 1e3 ? `${+(n / 1e3).toPrecision(3)}k` : String(n));

    /** Round steps of an axis from `low` to `high`, about `count` of them. */
    function steps(low, high, count) {
      const rough = (high - low) / count;
      const power = 10 ** Math.floor(Math.log10(rough));
      const step = [1, 2, 5, 10].map((factor) => factor * power).find((size) => size >= rough);
      const out = [];
      for (let at = Math.ceil(low / step - 1e-9) * step; at <= high + 1e-9; at += step) out.push(at);
      return out;
    }

    /** Shapes that stay apart where colours repeat. */
    function shape(x, y, round, attributes) {
      if (round % 4 === 0) return svg("circle", { cx: x, cy: y, r: 6.5, ...attributes });
      const size = round % 4 === 1 ? 6 : 7.5;
      const corners = [[[-1, -1], [1, -1], [1, 1], [-1, 1]], [[0, -1], [1, 0], [0, 1], [-1, 0]], [[0, -1], [1, 0.8], [-1, 0.8]]];
      const points = corners[(round % 4) - 1].map(([a, b]) => `${x + a * size},${y + b * size}`).join(" ");
      return svg("polygon", { points, ...attributes });
    }

    /** A place for each name near its dot where it covers no other name, no dot and not what is
     *  written besides. */
    function names(dots, width, height, also) {
      const taken = dots.map(({ x, y, ends = [y, y] }) => [x - 8, Math.min(...ends, y) - 8, x + 8, Math.max(...ends, y) + 8]);
      taken.push(also);
      const free = ([l, u, r, d]) => l >= 2 && r <= width - 2 && u >= 0 && d <= height - MARGIN.bottom
        && taken.every(([a, b, c, e]) => r <= a || l >= c || d <= b || u >= e);
      return dots.map(({ x, y, name }) => {
        const wide = 6.4 * name.length + 4;
        const places = [];
        for (const away of [13, 27, 41, 55])
          for (const side of [-1, 1])
            for (const [anchor, left] of [["middle", x - wide / 2], ["start", x - 8], ["end", x + 8 - wide]])
              places.push({ anchor, tx: anchor === "middle" ? x : anchor === "start" ? x - 8 : x + 8, ty: y + side * away + 4,
                box: [left, y + side * away - 7, left + wide, y + side * away + 7] });
        for (const [anchor, left] of [["start", x + 11], ["end", x - 11 - wide]]) // beside a long interval
          places.push({ anchor, tx: anchor === "start" ? left + 2 : left + wide - 2, ty: y + 4, box: [left, y - 7, left + wide, y + 7] });
        const place = places.find(({ box }) => free(box));
        if (place) taken.push(place.box);
        return place; // none: the name is in the read-out and in the table
      });
    }

    function render() {
      if (!element.isConnected || !state.compared) return;
      const groups = state.compared.filter((group) => group.task === task());
      const plans = planned(state.compared);
      const floor = state.task?.floor;
      const [width, height] = [Math.max(260, figure.clientWidth), 290];
      const sizes = [...groups, ...plans].map((entry) => entry.trainable);
      if (!sizes.length || !floor) return;
      const [least, most] = [Math.log10(Math.min(...sizes) / 1.6), Math.log10(Math.max(...sizes) * 1.8)];
      const reached = groups.flatMap((group) => group.scores);
      if (reached.length && floor.accuracy > Math.max(...reached)) reached.push(floor.accuracy); // in sight
      // Scaled to what was reached; before any run, from habit to all right.
      const span = reached.length ? Math.max(0.04, Math.max(...reached) - Math.min(...reached)) : 1;
      const low = reached.length ? Math.max(0, Math.min(...reached) - 0.35 * span) : Math.max(0, floor.accuracy - 0.25);
      const high = reached.length ? Math.min(1.005, Math.max(...reached) + 0.35 * span) : 1;
      const x = (n) => MARGIN.left + ((Math.log10(n) - least) / (most - least)) * (width - MARGIN.left - MARGIN.right);
      const y = (share) => MARGIN.top + ((high - share) / (high - low)) * (height - MARGIN.top - MARGIN.bottom);
      const drawing = svg("svg", { viewBox: `0 0 ${width} ${height}`, width, height, "aria-hidden": "true" });
      for (const at of steps(low, Math.min(1, high), 5)) { // no more than all can be right
        drawing.append(svg("line", { x1: MARGIN.left, x2: width - MARGIN.right, y1: y(at), y2: y(at), class: "grid" }),
          svg("text", { x: MARGIN.left - 8, y: y(at) + 4, "text-anchor": "end" }, `${+(100 * at).toFixed(1)}\u00a0%`));
      }
      for (let power = Math.ceil(least); power <= most; power += 1)
        drawing.append(svg("line", { x1: x(10 ** power), x2: x(10 ** power), y1: MARGIN.top, y2: height - MARGIN.bottom, class: "grid" }),
          svg("text", { x: x(10 ** power), y: height - MARGIN.bottom + 16, "text-anchor": "middle" }, short(10 ** power)));
      drawing.append(
        svg("text", { x: (MARGIN.left + width - MARGIN.right) / 2, y: height - 6, "text-anchor": "middle", class: "axis" }, t("dots.trained")),
        svg("text", { x: 2, y: 12, class: "axis" }, t("dots.reached")));
      const habit = t("dots.habit", { label: floor.label, share: percent(floor.accuracy) });
      if (floor.accuracy >= low)
        drawing.append(svg("line", { x1: MARGIN.left, x2: width - MARGIN.right, y1: y(floor.accuracy), y2: y(floor.accuracy), class: "floor" }));
      const written = floor.accuracy >= low ? habit : t("dots.habit_below", { habit });
      const dots = [];
      for (const plan of plans) dots.push({ x: x(plan.trainable), y: height - MARGIN.bottom - (floor.accuracy >= low ? 8 : 26), name: plan.name, plan });
      for (const group of groups) dots.push({ x: x(group.trainable), y: y(group.mean), ends: [y(Math.max(...group.scores)), y(Math.min(...group.scores))], name: group.name, group });
      LoraLab.brief(dots.map(({ name }) => name)).forEach((name, i) => { dots[i].name = name; });
      // The line's name: at the right end above it, or where it runs through no dot.
      const level = floor.accuracy >= low ? y(floor.accuracy) : height - MARGIN.bottom - 2;
      const wide = 6.2 * written.length;
      const ends = [["end", width - MARGIN.right - wide], ["start", MARGIN.left + 4]];
      const spots = [-4, 14, -24].flatMap((below) => ends.map(([anchor, left]) => ({ anchor, left, base: level + below })));
      const bare = ({ left, base }) => base < height - MARGIN.bottom && dots.every(({ x: at, y: mid, ends: [up, down] = [mid, mid] }) =>
        at + 8 < left || at - 8 > left + wide || Math.max(down, mid) + 8 < base - 11 || Math.min(up, mid) - 8 > base + 3);
      const { anchor, left, base } = spots.find(bare) ?? spots[0];
      drawing.append(svg("text", { x: anchor === "end" ? left + wide : left, y: base, "text-anchor": anchor, class: "floor-name" }, written));
      const placed = names(dots, width, height, [left, base - 10, left + wide, base + 3]);
      dots.forEach(({ x: cx, y: cy, name, plan, group }, i) => {
        const made = svg("g", { class: plan ? "plan" : "reached" });
        if (plan) made.append(svg("circle", { cx, cy, r: 4.5 }));
        else {
          const { variable, round } = series(group.series);
          const [worst, best] = [Math.min(...group.scores), Math.max(...group.scores)];
          if (group.scores.length > 1)
            made.append(svg("path", { d: `M${cx - 6},${y(best)}h12m-6,0V${y(worst)}m-6,0h12`, class: "interval", style: `stroke: ${variable}` }));
          made.append(shape(cx, cy, round, { style: `fill: ${variable}` }));
        }
        if (placed[i]) made.append(svg("text", { x: placed[i].tx, y: placed[i].ty, "text-anchor": placed[i].anchor, class: "name" }, name));
        made.append(svg("circle", { cx, cy, r: 16, class: "target" }));
        made.addEventListener("pointerenter", () => say(readout, read(plan ?? group, Boolean(plan))));
        made.addEventListener("pointerleave", () => say(readout, rest(groups)));
        drawing.append(made);
      });
      figure.replaceChildren(drawing);
      say(readout, rest(groups));
      figure.setAttribute("aria-label", groups.length
        ? t("dots.words", { runs: groups.map((group) => read(group, false)).join(" ") }) : t("dots.none"));
    }

    const rest = (groups) => (groups.length ? t("dots.point") : t("dots.invitation"));

    function read(entry, isPlan) {
      if (isPlan) return t("dots.read_plan", { name: entry.name, trained: entry.trainable });
      const places = { name: entry.name, trained: entry.trainable, accuracy: percent(entry.mean) };
      if (entry.scores.length === 1) return t("dots.read", places);
      return t("dots.read_seeds", { ...places, n: entry.scores.length,
        low: percent(Math.min(...entry.scores)), high: percent(Math.max(...entry.scores)) });
    }

    for (const name of ["compared", "settings", "task", "planned", "theme"]) on(name, render);
    new ResizeObserver(render).observe(figure);
    render();
  });
})();
