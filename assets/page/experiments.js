// Experiments: a row of questions, one open at a time; each answer with a figure and a sentence.
(() => {
  const { define, node, svg, say, on, emit, t, insist } = LoraLab;
  const HEIGHT = 250;
  const PAUSE = 180; // milliseconds after the last key before the typed text is asked about

  let asked = {}; // what the next event carries; the server gets it as it is then
  let askedAside = {};
  let mark = 0; // counts the presses, so that an answer that comes late is known
  LoraLab.experiment = () => asked;
  LoraLab.experimentAside = () => askedAside;
  const typed = () => document.querySelector("#text textarea")?.value ?? "";
  const percent = (share) => `${(100 * share).toFixed(1)} %`;

  define("experiments", ({ element, draw, trigger }) => {
    const card = element.closest(".card");
    const row = node("div", { class: "questions", role: "group", "aria-label": "Questions" });
    const about = node("p", { class: "hint about" });
    const line = node("p", { class: "experiment-line", role: "status" });
    const controls = node("div", { class: "experiment-controls" });
    const figure = node("figure", { class: "experiment-figure" });
    const note = node("p", { class: "hint experiment-note" });
    const panel = node("section", { class: "experiment", hidden: true }, about, line, controls, figure, note);
    element.append(row, panel);

    let value = null;
    let open = "";
    let answer = null; // the newest one of the open question
    let off = new Set(); // parts that are switched off
    let pair = []; // settings to be compared
    let ticked = null; // runs that vote
    let kept = null; // how many directions the knife leaves; null: all
    let menu = { kind: "ranks", seeds: 1 };
    let texts = null; // what the typed text is called, by rank or for the switches
    let shownRun = "";
    let controlsKey = "";

    const patience = insist(() => send());

    function ask(extra = {}) {
      send(extra);
      patience.heard();
    }

    function send(extra = {}) {
      mark += 1;
      const own = { luck: { pair }, rate: { kind: menu.kind }, vote: { ids: ticked ?? [] }, layers: { off: [...off] } };
      asked = { question: open, mark, ...own[open], ...extra };
      trigger("select", {});
    }

    function askAside(kind, extra = {}) {
      askedAside = { kind, mark, text: typed(), off: [...off], ...extra };
      emit("experiment-aside", askedAside);
    }

    function choose(id) {
      open = open === id ? "" : id;
      answer = null;
      texts = null;
      kept = null;
      off = new Set();
      pair = [];
      controlsKey = "";
      panel.hidden = !open;
      for (const button of row.children) button.setAttribute("aria-expanded", String(button.dataset.id === open));
      if (!open) { patience.over(); return; }
      panel.setAttribute("aria-label", t(`experiments.${open}`));
      for (const part of [about, line, note]) say(part, "");
      controls.replaceChildren();
      figure.replaceChildren();
      say(line, t("experiments.computing"));
      ask();
      follow();
    }

    /** Ask about the typed text, where the open question has an answer for it. */
    function follow() {
      if (open === "knife" || open === "layers") askAside(open);
    }

    let waiting = 0;
    document.addEventListener("input", (event) => {
      if (!event.target.matches?.("#text textarea") || !open) return;
      clearTimeout(waiting);
      waiting = setTimeout(follow, PAUSE);
    });

    on("ready", (id) => {
      card.classList.toggle("in-sight", Boolean(id));
      if (id === shownRun) return;
      shownRun = id;
      if (id && open) { const again = open; open = ""; choose(again); }
    });

    on("experiment-said", (said) => {
      if (said.kind === "trains") {
        if (open !== "forgot" || !find(".trains")) return;
        say(find(".trains"), said.problem ?? said.words);
        find(".train-other").disabled = !said.problem;
        return;
      }
      if (said.kind === "keep") { say(find(".kept"), said.problem ?? said.words); return; }
      if (said.kind !== open) return;
      texts = said.problem ? [said.problem] : said.words;
      write();
    });

    new ResizeObserver(() => { if (answer?.figure) drawFigure(); }).observe(panel);

    draw((given) => {
      value = given;
      if (row.childElementCount !== given.questions.length)
        row.replaceChildren(...given.questions.map(({ id, title }) => node("button", {
          type: "button", class: "question-button", "data-id": id, "aria-expanded": "false", onclick: () => choose(id) }, title)));
      const newest = given.answer;
      if (!newest || newest.question !== open || newest.mark !== mark) {
        if (answer?.figure) drawFigure(); // another theme
        return;
      }
      newest.state === "waiting" ? patience.heard() : patience.over();
      // What was refused leaves the controls and the figure as they were: the sentence says why.
      answer = newest.state === "failed" && answer ? { ...answer, state: "failed", sentence: newest.sentence } : newest;
      write();
      drawFigure();
    });

    // ---- Words and controls of the open question
    function write() {
      if (!answer) return;
      panel.dataset.state = answer.state;
      say(about, answer.about ? t("experiments.about", { name: answer.about }) : "");
      const waits = answer.state === "waiting" && !answer.sentence;
      const sentence = waits ? answer.waits ?? t("experiments.computing") : answer.sentence ?? "";
      say(line, sentence);
      say(note, answer.note ?? "");
      (CONTROLS[open] ?? (() => {}))();
    }

    /** Build a question's controls once; afterwards only their texts change. */
    function build(key, make) {
      if (controlsKey === key) return;
      controlsKey = key;
      controls.replaceChildren(...make());
    }

    const button = (text, press, extra = {}) => node("button", { type: "button", class: "toggle", onclick: press, ...extra }, text);
    const find = (name) => controls.querySelector(name);

    const CONTROLS = {
      knife() {
        const rank = answer.rank;
        if (!rank) return;
        build(`knife ${rank}`, () => {
          const slider = node("input", { type: "range", min: 0, max: rank, step: 1, value: kept ?? rank, id: "knife-slider",
            oninput: (event) => { kept = Number(event.target.value); CONTROLS.knife(); drawFigure(); } });
          return [node("label", { for: "knife-slider" }, t("experiments.knife_slider")), slider,
            node("output", { class: "knife-at", for: "knife-slider" }), node("p", { class: "text-says" }),
            button("", () => askAside("keep", { rank: kept ?? rank }), { class: "toggle keep" }),
            node("p", { class: "hint kept", role: "status" })];
        });
        const k = kept ?? rank;
        const cut = answer.cuts.find((one) => one.rank === k);
        find("input").style.setProperty("--filled", `${(100 * k) / rank}%`);
        say(find(".knife-at"), t("experiments.knife_at", { k, r: rank, accuracy: cut ? percent(cut.accuracy) : "…" }));
        say(find(".text-says"), texts?.length === 1 ? texts[0] : texts?.[k] ?? "");
        say(find(".keep"), t("experiments.knife_keep", { k }));
        find(".keep").disabled = k === 0 || k === rank;
        if (find(".kept").dataset.rank !== String(k)) say(find(".kept"), ""); // it was about another rank
        find(".kept").dataset.rank = k;
      },

      layers() {
        if (!answer.parts) return;
        build("layers", () => [
          button(t("experiments.layers_reset"), () => { off = new Set(); switched(); }, { class: "toggle reset" }),
          button(t("experiments.layers_adapter_off"), () => {
            off = new Set(answer.parts.map((part) => part.name).filter((name) => name !== "head"));
            switched();
          }, { class: "toggle adapter-off" }),
          node("p", { class: "off-line", role: "status" }), node("p", { class: "text-says" })]);
        find(".adapter-off").disabled = answer.state !== "done";
        const known = answer.whole === null || answer.whole === undefined ? "…" : percent(answer.whole);
        const line = off.size ? answer.off_words ?? "…" : t("experiments.layers_all_on", { whole: known, rows: answer.rows ?? "…" });
        say(find(".off-line"), line);
        say(find(".text-says"), texts ? texts[0] : "");
      },

      forgot() {
        const { other, trains } = answer;
        build(`forgot ${other}`, () => other ? [
          button(t(`experiments.forgot_train_${other}`), (event) => { event.target.disabled = true; emit("experiment-train", other); }, { class: "toggle train-other" }),
          node("p", { class: "hint trains", role: "status" })] : []);
        if (!other) return;
        if (trains) { find(".train-other").disabled = true; say(find(".trains"), t("experiments.forgot_trains")); }
      },

      vote() {
        if (!answer.voters) return;
        build(`vote ${JSON.stringify(answer.voters.map((voter) => voter.id))}`, () => answer.voters.map((voter) => {
          const box = node("input", { type: "checkbox", onchange: (event) => {
            ticked = ticked ?? [];
            ticked = event.target.checked ? [...ticked, voter.id] : ticked.filter((id) => id !== voter.id);
            ask();
          } });
          box.checked = voter.on;
          return node("label", { class: "voter" }, box, node("span", {}, voter.name), node("span", { class: "hint alone" }));
        }));
        [...controls.querySelectorAll(".alone")].forEach((one, i) => {
          const { alone } = answer.voters[i];
          say(one, alone === undefined ? "" : t("experiments.vote_alone", { share: percent(alone) }));
        });
      },

      luck() {
        build("luck", () => [node("span", {}, t("experiments.luck_train")),
          ...[3, 5].map((seeds) => button(String(seeds), (event) => { event.target.disabled = true; ask({ start: true, kind: "seeds", seeds }); }, { class: "toggle train", "aria-label": `${t("experiments.luck_train")}: ${seeds}` })),
          node("span", { class: "hint progress-line", role: "status" })]);
        const sweep = answer.sweep;
        for (const one of controls.querySelectorAll(".train")) one.disabled = Boolean(sweep?.running);
        say(find(".progress-line"), sweep ? sweep.progress : "");
      },

      rate() {
        const { kinds, seeds, about: settings } = answer.menu ?? {};
        if (!kinds) return;
        build("rate", () => {
          const choice = node("select", { id: "sweep-kind", onchange: (event) => { menu.kind = event.target.value; ask(); } },
            ...kinds.map(({ id, title }) => node("option", { value: id, selected: id === menu.kind }, title)));
          const group = node("span", { class: "seed-choice", role: "group", "aria-label": t("experiments.seeds") }, t("experiments.seeds"),
            ...seeds.map((number) => button(String(number), () => { menu.seeds = number; CONTROLS.rate(); }, { "data-seeds": number })));
          return [node("label", { for: "sweep-kind" }, t("experiments.sweep")), choice, group,
            button("", (event) => { event.target.disabled = true; ask({ start: true, seeds: menu.seeds }); }, { class: "toggle go" }),
            button(t("experiments.stop"), (event) => { event.target.disabled = true; ask({ stop: true }); }, { class: "toggle halt" }),
            node("p", { class: "hint progress-line", role: "status" }), node("p", { class: "hint sweep-about" })];
        });
        const runs = kinds.find(({ id }) => id === menu.kind).runs * menu.seeds;
        for (const one of controls.querySelectorAll("[data-seeds]"))
          one.setAttribute("aria-pressed", String(Number(one.dataset.seeds) === menu.seeds));
        say(find(".go"), t("experiments.start", { n: runs }));
        find(".go").disabled = answer.running || runs > 80;
        find(".halt").disabled = !answer.running;
        say(find(".progress-line"), answer.progress ?? "");
        say(find(".sweep-about"), settings);
      },
    };

    function switched() {
      ask();
      follow();
      drawFigure();
      CONTROLS.layers();
    }

    // ---- Figures
    function drawFigure() {
      const drawn = answer?.figure;
      panel.classList.toggle("with-figure", Boolean(drawn));
      if (!drawn) { figure.replaceChildren(); return; }
      const width = Math.max(260, Math.min(760, figure.clientWidth));
      const made = { lines, dots, heat, parts }[drawn.kind](drawn, width);
      const focused = figure.contains(document.activeElement) ? document.activeElement.dataset.key : null;
      figure.replaceChildren(...made);
      if (focused) figure.querySelector(`[data-key="${CSS.escape(focused)}"]`)?.focus();
    }

    function ticksOf(low, high, count) {
      const rough = (high - low) / count;
      const power = 10 ** Math.floor(Math.log10(rough));
      const step = [1, 2, 5, 10].map((n) => n * power).find((n) => n >= 0.75 * rough);
      const ticks = [];
      for (let at = Math.ceil(low / step - 1e-9) * step; at <= high + 1e-9 * step; at += step) ticks.push(Number(at.toPrecision(12)));
      return ticks;
    }

    /** 0.001, 0.003, 0.01 …: what lies between two powers of ten, given as logarithms. */
    function powers(left, right) {
      const tens = Array.from({ length: Math.ceil(right) - Math.floor(left) + 1 }, (_, i) => Math.floor(left) + i);
      return tens.flatMap((ten) => [1, 3].map((n) => Number(`${n}e${ten}`))).filter((x) => Math.log10(x) >= left - 0.02 && Math.log10(x) <= right + 0.02);
    }

    function extent(numbers, percentages) {
      let [low, high] = [Math.min(...numbers), Math.max(...numbers)];
      const room = Math.max(0.12 * (high - low), percentages ? 0.01 : 1e-3 * Math.abs(high));
      [low, high] = [low - room, high + room];
      return percentages ? [Math.max(0, low), Math.min(1, high)] : [low, high];
    }

    /** How a number beside an axis is written: as many digits as its neighbours need. */
    const digitsOf = (ticks) => Math.max(0, ...ticks.map((at) => (String(Number(at.toPrecision(9))).split(".")[1] ?? "").length));

    /** Curves over a number: with bands, marked steps, a level to compare with. */
    function lines(drawn, width) {
      const marks = drawn.marks ?? []; // their names stand above the curves, in no one's way
      const box = { left: 56, right: 14, top: 12 + 16 * marks.length, bottom: 40 };
      const single = drawn.points ?? []; // measured once, with an interval
      const all = [...drawn.series.flatMap((one) => [...one.y, ...(one.low ?? []), ...(one.high ?? [])]), ...single.flatMap((one) => [one.low, one.high])];
      const xs = drawn.series.flatMap((one) => one.x);
      if (drawn.level !== undefined) all.push(drawn.level);
      if (!xs.length) return [];
      const [low, high] = extent(all, drawn.percent);
      const scaled = (x) => (drawn.log ? Math.log10(x) : x);
      let [left, right] = [Math.min(...xs.map(scaled)), Math.max(...xs.map(scaled))];
      if (open === "knife") [left, right] = [0, answer.rank];
      if (open === "forgot") [left, right] = [0, 2];
      if (left === right) [left, right] = [left - 1, right + 1];
      const X = (x) => box.left + ((scaled(x) - left) / (right - left)) * (width - box.left - box.right);
      const Y = (y) => HEIGHT - box.bottom - ((y - low) / (high - low)) * (HEIGHT - box.top - box.bottom);
      const picture = svg("svg", { viewBox: `0 0 ${width} ${HEIGHT}`, width, height: HEIGHT, "aria-hidden": "true" });
      const words = (y) => (drawn.percent ? `${Number((100 * y).toFixed(2))} %` : String(Number(y.toPrecision(4))));
      const levels = ticksOf(low, high, 5);
      const digits = digitsOf(levels.map((y) => (drawn.percent ? 100 * y : y)));
      for (const y of levels) {
        picture.append(svg("line", { x1: box.left, x2: width - box.right, y1: Y(y), y2: Y(y), class: "grid-line" }),
          svg("text", { x: box.left - 7, y: Y(y) + 4, "text-anchor": "end" }, drawn.percent ? `${(100 * y).toFixed(digits)} %` : y.toFixed(digits)));
      }
      const whole = xs.every(Number.isInteger);
      const places = drawn.log ? powers(left, right) : ticksOf(left, right, Math.min(8, Math.max(2, width / 60))).filter((x) => !whole || Number.isInteger(x));
      for (const x of places)
        picture.append(svg("text", { x: X(x), y: HEIGHT - box.bottom + 17, "text-anchor": "middle" }, String(x)));
      picture.append(svg("text", { x: (box.left + width - box.right) / 2, y: HEIGHT - 5, "text-anchor": "middle", class: "axis-name" }, drawn.x));
      if (drawn.level !== undefined)
        picture.append(svg("line", { x1: box.left, x2: width - box.right, y1: Y(drawn.level), y2: Y(drawn.level), class: "level" }));
      if (drawn.gap && drawn.series.length === 2) {
        const [upper, under] = drawn.series;
        const there = upper.x.map((x, i) => `${X(x)},${Y(upper.y[i])}`);
        const back = under.x.map((x, i) => `${X(x)},${Y(under.y[i])}`).reverse();
        picture.append(svg("polygon", { points: [...there, ...back].join(" "), class: "gap" }));
      }
      if (drawn.from !== null && drawn.from !== undefined)
        picture.append(svg("rect", { x: X(drawn.from), y: box.top, width: Math.max(0, width - box.right - X(drawn.from)), height: HEIGHT - box.top - box.bottom, class: "memorises" }));
      marks.forEach(({ x, label }, i) => {
        const end = X(x) > width / 2;
        const line = 14 + 16 * i;
        picture.append(svg("line", { x1: X(x), x2: X(x), y1: line - 9, y2: HEIGHT - box.bottom, class: "mark" }),
          svg("text", { x: X(x) + (end ? -5 : 5), y: line, "text-anchor": end ? "end" : "start", class: "mark-name" }, label));
      });
      for (const one of drawn.series) {
        const stroke = `var(--${one.colour})`;
        if (one.low) {
          const there = one.x.map((x, i) => `${X(x)},${Y(one.low[i])}`);
          const back = one.x.map((x, i) => `${X(x)},${Y(one.high[i])}`).reverse();
          picture.append(svg("polygon", { points: [...there, ...back].join(" "), style: `fill: ${stroke}`, class: "spread" }));
          for (let i = 0; i < one.x.length; i += 1)
            picture.append(svg("line", { x1: X(one.x[i]), x2: X(one.x[i]), y1: Y(one.low[i]), y2: Y(one.high[i]), style: `stroke: ${stroke}`, class: "interval" }));
        }
        picture.append(svg("polyline", { points: one.x.map((x, i) => `${X(x)},${Y(one.y[i])}`).join(" "), style: `stroke: ${stroke}`, class: "curve" }));
        for (const [x, y] of one.spots ?? []) picture.append(svg("circle", { cx: X(x), cy: Y(y), r: 5, style: `stroke: ${stroke}`, class: "spot" }));
        one.x.forEach((x, i) => {
          const now = open === "knife" && x === (kept ?? answer.rank);
          const dot = svg("circle", { cx: X(x), cy: Y(one.y[i]), r: now ? 6.5 : 3.5, style: `fill: ${stroke}`, class: now ? "now" : "" });
          dot.append(svg("title", {}, `${one.name} ${x}: ${words(one.y[i])}`.trim()));
          picture.append(dot);
        });
      }
      for (const { x, y, low: least, high: most, label } of single) {
        const [cx, above, under] = [X(x), Y(most), Y(least)];
        const mark = svg("g", { class: "measured" });
        mark.append(svg("title", {}, label), svg("path", { d: `M${cx - 5},${above}h10m-5,0V${under}m-5,0h10` }), svg("circle", { cx, cy: Y(y), r: 4.5 }));
        picture.append(mark);
      }
      const named = drawn.series.filter((one) => one.name && drawn.series.length > 1);
      const key = named.map((one) => node("span", { class: "line", style: `--line: var(--${one.colour})` }, one.name));
      if (drawn.level_name) key.push(node("span", { class: "key-level" }, drawn.level_name));
      if (drawn.gap) key.push(node("span", { class: "key-gap" }, drawn.gap));
      for (const { label } of single) key.push(node("span", { class: "key-measured" }, label));
      const head = node("div", { class: "chart-head" }, node("span", { class: "axis-name" }, drawn.y), node("span", { class: "line-key" }, ...key));
      const spoken = [...drawn.series, ...single.map((one) => ({ name: one.label, x: [one.x], y: [one.y] }))].map((one) => `${one.name} ${one.x.map((x, i) => `${x}: ${words(one.y[i])}`).join(", ")}`).join(". ");
      return [head, node("div", { role: "img", "aria-label": `${drawn.y} by ${drawn.x}. ${spoken}` }, picture)];
    }

    /** One setting a row: the mean, its interval, a small mark a seed. In `luck` rows can be chosen. */
    function dots(drawn) {
      const all = drawn.rows.flatMap((one) => [one.low, one.high, ...one.values]);
      const [low, high] = extent(all, true);
      const at = (share) => `${(100 * (share - low)) / (high - low)}%`;
      const rows = drawn.rows.map((one, i) => {
        const track = node("span", { class: "track" },
          node("i", { class: "range", style: `left: ${at(one.low)}; right: calc(100% - ${at(one.high)})` }),
          ...one.values.map((share) => node("i", { class: "seed", style: `left: ${at(share)}` })),
          node("i", { class: "mean", style: `left: ${at(one.mean)}` }));
        const inside = [node("span", { class: "dot-name" }, one.name), track, node("span", { class: "dot-words" }, one.words)];
        const on = drawn.chosen.includes(i);
        if (open !== "luck") return node("li", { class: "dot-row" }, ...inside);
        return node("li", {}, node("button", { type: "button", class: "dot-row", "data-key": `row-${i}`, "aria-pressed": String(on),
          onclick: () => { pair = [...(pair.length ? pair : drawn.chosen).filter((j) => j !== i), i].slice(-2); ask(); } }, ...inside));
      });
      const scale = node("div", { class: "dot-scale", "aria-hidden": "true" }, node("span", {}), node("span", { class: "track" },
        ...ticksOf(low, high, 5).map((share) => node("i", { style: `left: ${at(share)}` }, `${Number((100 * share).toFixed(2))} %`))), node("span", {}));
      return [node("ul", { class: "dots" }, ...rows), scale];
    }

    /** Ranks by alphas; equal scales are joined. */
    function heat(drawn) {
      const known = drawn.cells.flat().filter(Boolean).map((cell) => cell.value);
      const [low, high] = [Math.min(...known), Math.max(...known)];
      const shade = (cell) => Math.round(6 + (high > low ? 40 * ((cell.value - low) / (high - low)) : 20));
      const [high_, wide] = [drawn.rows.length, drawn.columns.length];
      const joins = svg("svg", { viewBox: `0 0 ${wide} ${high_}`, preserveAspectRatio: "none", class: "joins", "aria-hidden": "true" });
      drawn.scales.forEach((scales, i) => scales.forEach((scale, j) => {
        // The next cell of the same scale, whatever the rule of scaling makes of a diagonal.
        const below = drawn.scales.findIndex((others, row) => row > i && others.includes(scale));
        if (below < 0) return;
        const [down, right] = [below - i, drawn.scales[below].indexOf(scale) - j];
        const trim = 0.22 / Math.max(down, Math.abs(right)); // short of the cells' words
        joins.append(svg("line", { x1: j + 0.5 + trim * right, y1: i + 0.5 + trim * down * 1.4, x2: j + 0.5 + (1 - trim) * right, y2: i + 0.5 + (1 - trim * 1.4) * down }));
      }));
      const head = node("tr", {}, node("td", {}), ...drawn.columns.map((name) => node("th", { scope: "col" }, name)));
      const body = drawn.rows.map((name, i) => node("tr", {}, node("th", { scope: "row" }, name),
        ...drawn.cells[i].map((cell, j) => node("td", { class: "heat", style: cell ? `--shade: ${shade(cell)}%` : null },
          node("b", {}, cell ? cell.words : "…"), node("small", {}, t("experiments.heat_scale", { scale: drawn.scales[i][j] }))))));
      const table = node("table", { class: "heat-map" }, node("thead", {}, head), node("tbody", {}, ...body));
      const frame = node("div", { class: "heat-frame", style: `--columns: ${wide}` }, table, joins);
      requestAnimationFrame(() => {
        const cells = table.querySelectorAll("td.heat");
        if (!cells.length || !frame.isConnected) return;
        const [outer, first, last] = [frame, cells[0], cells[cells.length - 1]].map((one) => one.getBoundingClientRect());
        Object.assign(joins.style, { left: `${first.left - outer.left}px`, top: `${first.top - outer.top}px`,
          width: `${last.right - first.left}px`, height: `${last.bottom - first.top}px` });
      });
      return [frame];
    }

    /** Every part as a switch with a bar: what is lost without it. */
    function parts() {
      const found = answer.parts ?? [];
      const most = Math.max(0.001, ...found.map((part) => Math.abs(part.lost)));
      const inBlock = (name) => /^blocks\.(\d+)\.(.+)$/.exec(name);
      const blocks = [...new Set(found.map((part) => inBlock(part.name)?.[1]).filter(Boolean))];
      const kinds = [...new Set(found.map((part) => inBlock(part.name)?.[2]).filter(Boolean))];
      const flip = (names) => {
        const some = names.some((name) => !off.has(name));
        for (const name of names) some ? off.add(name) : off.delete(name);
        switched();
      };
      const cell = (part) => {
        if (!part) return node("span", { class: "untouched" }, "–");
        return node("button", { type: "button", class: "part", "data-key": part.name, "aria-pressed": String(!off.has(part.name)),
          "aria-label": `${part.title}: ${part.words}`, title: `${part.title}: ${part.words}`, onclick: () => flip([part.name]) },
        node("i", { class: part.lost < 0 ? "bar gained" : "bar", style: `width: ${(100 * Math.abs(part.lost)) / most}%` }), node("span", {}, part.words));
      };
      const byName = new Map(found.map((part) => [part.name, part]));
      const head = node("tr", {}, node("td", {}), ...blocks.map((block) => node("th", { scope: "col" },
        node("button", { type: "button", class: "block-switch", "data-key": `block-${block}`,
          onclick: () => flip(found.filter((part) => inBlock(part.name)?.[1] === block).map((part) => part.name)) }, t("layer.block", { block })))));
      const name = (kind) => t(`layer.${kind.replace(".", "_")}`);
      const body = kinds.map((kind) => node("tr", {}, node("th", { scope: "row" }, name(kind)),
        ...blocks.map((block) => node("td", {}, cell(byName.get(`blocks.${block}.${kind}`))))));
      const outside = found.filter((part) => !inBlock(part.name)).map((part) => node("tr", {}, node("th", { scope: "row" }, part.title), node("td", {}, cell(part))));
      const table = node("table", { class: "parts" }, node("thead", {}, head), node("tbody", {}, ...body, ...outside));
      return [node("div", { class: "scroll", role: "region", tabindex: "0", "aria-label": t("experiments.parts_region") }, table)];
    }
  });

  // Beside the checksum of step 4: is merging free?
  define("merging", ({ element, draw, trigger }) => {
    const button = node("button", { type: "button", class: "toggle", onclick: () => trigger("select", {}) }, t("experiments.merging_check"));
    const line = node("p", { class: "proof-line", role: "status" });
    let run = "";
    element.hidden = true;
    element.append(button, line);
    const about = (id) => { if (id !== run) say(line, ""); run = id; element.hidden = !id; };
    on("ready", about);
    draw((value) => { if (value.run === run || !run) say(line, value.sentence); });
  });

  /** Hand an answer on once: a value is drawn again with another theme. */
  function answerOnce() {
    let last = "";
    return (said) => {
      const key = JSON.stringify(said);
      if (key === last || !(said.kind || said.problem)) return;
      last = key;
      emit("experiment-said", said);
    };
  }

  // The run that a question would like to compare with: an event and a value of their own, too.
  define("experiment-run", ({ draw, trigger }) => {
    on("experiment-train", () => trigger("select", {}));
    draw(answerOnce());
  });

  // The quick answers beside the open question: an event and a value of their own.
  define("experiment-side", ({ draw, trigger }) => {
    on("experiment-aside", () => trigger("select", {}));
    draw(answerOnce());
  });
})();
