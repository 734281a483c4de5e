// Step 3: both answers, the words that mattered, the pinned text along the run, the test texts.
// Every text, typed or not, becomes a text node; nothing here is ever read as HTML.
(() => {
  const { define, node, svg, say, emit, state, isStill, t, rich } = LoraLab;
  const SETTLED = 220; // ms without a new answer before words are weighed
  const PLAIN = 1.0; // nats that give the full colour where no word weighs more

  /** 0.973 -> "97.3 %"; never 0 or 100 for what is not. */
  function percent(p) {
    if (p > 0.999 && p < 1) return ">\u00a099.9\u00a0%";
    if (p < 0.001 && p > 0) return "<\u00a00.1\u00a0%";
    return `${(100 * p).toFixed(1)}\u00a0%`;
  }

  const quoted = (text) => `“${text.length > 40 ? `${text.slice(0, 38)}…` : text}”`;
  const thousands = (value) => value.toLocaleString("en");

  /** Put a text into the box of step 3, as if it had been typed. */
  function fill(text, away) {
    const box = document.querySelector("#text textarea");
    if (!box) return;
    box.value = text;
    box.dispatchEvent(new Event("input", { bubbles: true }));
    if (!away) return;
    box.scrollIntoView({ block: "center", behavior: isStill() ? "auto" : "smooth" });
    box.focus({ preventScroll: true });
  }

  // ---- Texts to try
  define("examples", ({ element, draw }) => {
    const line = node("p", { class: "hint" });
    const list = node("ul", { class: "tries" });
    element.append(line, list);
    draw((value) => {
      say(line, value.line ?? "");
      element.hidden = !value.examples?.length;
      list.replaceChildren(...(value.examples ?? []).map((example) => {
        const about = t("examples.said", { label: example.said, p: percent(example.p) });
        return node("li", {}, node("button",
          { type: "button", class: `try ${example.kind}`, title: `${about} ${example.text}`,
            onclick: () => fill(example.text, true) },
          node("span", { class: "mark" }, example.mark),
          node("span", { class: "start" }, example.text)));
      }));
    });
  });

  // ---- Which model answers, where it is not the chosen task's; and the button that trains that one
  define("shown", ({ element, draw }) => {
    const line = node("span", {});
    const button = node("button", { type: "button", class: "toggle",
      onclick: () => document.getElementById("start").click() });
    const box = node("p", { class: "shown-state", role: "status", hidden: true }, line, " ", button);
    element.append(box);
    draw((value) => {
      box.hidden = !value.sentence;
      say(line, value.sentence);
      button.hidden = !value.button;
      say(button, value.button);
    });
  });

  // ---- Base and adapted, side by side; while a run follows the text, what it says at present
  define("answer", ({ element, draw, trigger, on }) => {
    const problem = node("p", { class: "answer-problem", role: "alert" });
    const verdict = node("p", { class: "verdict", role: "status" });
    const doubt = node("p", { class: "warning", role: "status", hidden: true });
    const adaptedHead = node("span", {});
    const body = node("tbody", {});
    const table = node("table", { class: "answers" },
      node("caption", { class: "visually-hidden" }, t("answer.caption")),
      node("thead", {}, node("tr", {},
        node("th", { scope: "col" }, node("span", { class: "visually-hidden" }, t("answer.label"))),
        node("th", { scope: "col", class: "base" }, ...rich("answer.head_base")),
        node("th", { scope: "col", class: "adapted" }, adaptedHead))),
      body);
    const note = node("p", { class: "hint answer-note" });
    const frame = node("div", { class: "answers-frame", role: "region", "aria-label": t("answer.caption") }, table);
    // Every label, within a frame that scrolls: the cards beside stay as high as they are.
    const more = node("button", { type: "button", class: "toggle others", hidden: true, "aria-expanded": "false",
      onclick: () => { open = !open; rows = []; render(); frame.scrollTop = 0; } });
    element.append(verdict, doubt, problem, frame, more, note);
    let rows = [];
    let settled = 0;
    let value = {};
    let live = null; // the followed texts of a run, or none
    let open = false; // whether every label is shown

    function side(kind) {
      const bar = node("i", {});
      const figure = node("span", { class: "p" });
      return { bar, figure, cell: node("td", { class: kind }, node("span", { class: "meter" }, bar), figure) };
    }

    function make(count) {
      rows = Array.from({ length: count }, () => {
        const name = node("th", { scope: "row" });
        const base = side("base");
        const adapted = side("adapted");
        return { name, base, adapted, row: node("tr", {}, name, base.cell, adapted.cell) };
      });
      body.replaceChildren(...rows.map((made) => made.row));
    }

    function show({ bar, figure, cell }, p, best) {
      bar.style.width = p === null ? "0" : `${100 * p}%`;
      say(figure, p === null ? "–" : percent(p));
      cell.classList.toggle("best", best);
    }

    /** What the run at hand says of the text in the box, if it follows it. */
    function following() {
      if (!live?.running) return null;
      return live.texts.find((one) => one.text === value.text)?.now ?? null;
    }

    function render() {
      say(problem, value.problem ?? "");
      problem.hidden = !value.problem;
      verdict.hidden = Boolean(value.problem);
      say(doubt, value.note ?? "");
      doubt.hidden = !value.note;
      if (value.problem) {
        for (const made of rows) for (const shown of [made.base, made.adapted]) show(shown, null, false);
        say(note, "");
        return;
      }
      if (!value.rows) return;
      const every = [...value.rows, ...value.others];
      const now = following();
      const listed = open ? every : value.rows;
      const fits = now && every.every(([label]) => label in now);
      const adaptedOf = ([label, , p]) => (fits ? now[label] : p);
      const lead = fits ? Object.keys(now).reduce((a, b) => (now[b] > now[a] ? b : a)) : value.adapted;
      if (rows.length !== listed.length) make(listed.length);
      const others = value.others.length;
      more.hidden = !others;
      more.setAttribute("aria-expanded", String(open));
      if (others) say(more, open ? t("answer.fewer") : t("answer.others", { n: others }));
      frame.classList.toggle("open", open);
      open ? frame.setAttribute("tabindex", "0") : frame.removeAttribute("tabindex");
      listed.forEach((row, i) => {
        const [label, base] = row;
        say(rows[i].name, label);
        rows[i].name.title = label;
        show(rows[i].base, base, label === value.base);
        show(rows[i].adapted, adaptedOf(row), label === lead);
      });
      const trained = value.adapted !== null || fits;
      say(adaptedHead, fits ? t("answer.head_live", { step: live.steps.at(-1) })
        : trained ? t("answer.head_adapted", { strength: value.strength.toFixed(2).replace(/0$/, "") }) : t("answer.head_untrained"));
      const strong = (label, kind) => node("b", { class: kind }, label);
      const places = { base: strong(value.base, "base"), base_p: percent(value.base_p) };
      if (trained) Object.assign(places, { adapted: strong(lead, "adapted"), adapted_p: percent(fits ? now[lead] : value.adapted_p) });
      verdict.replaceChildren(...rich(fits ? "answer.live" : trained ? "answer.adapted" : "answer.base", places));
      const about = trained ? t("answer.model", { model: value.model, n: value.tokens }) : t("answer.guess");
      say(note, fits ? t("answer.following") : value.truncated ? t("answer.cut", { about, n: value.tokens }) : about);
    }

    on("followed", (given) => { live = given; render(); });
    draw((given) => {
      const count = (given.rows?.length ?? 0);
      // A problem brings no rows: those that stand lose their figures.
      if (!given.problem && (count !== value.rows?.length || given.others?.length !== value.others?.length)) { rows = []; open = false; }
      value = given;
      table.classList.toggle("long", [...(value.rows ?? []), ...(value.others ?? [])].some(([label]) => label.length > 9));
      emit("refused", Boolean(value.problem));
      clearTimeout(settled);
      render();
      if (!state.stands) emit("stands", true);
      if (!value.problem && value.rows) settled = setTimeout(() => trigger("submit"), SETTLED);
    });
  });

  // ---- The words that mattered, on the text itself
  define("evidence", ({ element, draw, on }) => {
    const title = node("h3", {});
    const legend = node("p", { class: "legend", "aria-hidden": "true" });
    const text = node("p", { class: "weighed", dir: "auto" });
    const about = node("p", { class: "hint word-about", "aria-hidden": "true" });
    const spoken = node("p", { class: "hint spoken", role: "status" });
    const body = node("tbody", {});
    const fold = node("details", { class: "fold expert" }, node("summary", {}, t("evidence.table")),
      node("div", { class: "scroll", tabindex: "0", role: "region", "aria-label": t("evidence.table") },
        node("table", { class: "weights" },
          node("thead", {}, node("tr", {}, ...["word", "weight", "without"].map(
            (name) => node("th", { scope: "col" }, t(`evidence.column_${name}`))))), body)));
    const full = node("div", { class: "evidence-full" }, legend, text, about, spoken, fold);
    element.append(title, full);
    let value = null;

    const speaks = (weight) => (weight >= 0 ? "for" : "against");
    const sign = (weight) => `${weight >= 0 ? "+" : "−"}${Math.abs(weight).toFixed(2)}`;

    function tell(piece) {
      say(about, piece ? t("evidence.without", { word: quoted(piece[0]), label: value.label, p: percent(piece[2]), now: percent(value.probability) })
        : t("evidence.point"));
    }

    on("refused", (refused) => {
      element.classList.toggle("empty", refused || !value?.shown);
      full.hidden = refused || !value?.shown;
      if (refused) say(title, t("evidence.title"));
    });
    draw((given) => {
      value = given;
      const { shown } = value;
      element.classList.toggle("empty", !shown);
      if (!shown) {
        full.hidden = true;
        say(title, value.trained ? t("evidence.title") : t("evidence.later"));
        return;
      }
      title.replaceChildren(...rich("evidence.title_for", { label: node("b", { class: "adapted" }, value.label) }));
      full.hidden = false;
      const words = value.pieces.filter((piece) => piece.length > 1);
      const most = Math.max(PLAIN, ...words.map((piece) => Math.abs(piece[1])));
      legend.replaceChildren(
        node("span", { class: "word against", style: "--weight: 0.8" }, t("evidence.against")), " ",
        node("span", {}, t("evidence.neutral")), " ",
        node("span", { class: "word", style: "--weight: 0.5" }, t("evidence.for")), " ",
        node("span", { class: "word", style: "--weight: 1" }, t("evidence.strongly", { label: value.label })));
      text.replaceChildren(...value.pieces.map((piece) => {
        if (piece.length === 1) return piece[0];
        const weight = Math.abs(piece[1]) / most;
        const made = node("span", { class: `word ${speaks(piece[1])}${weight < 0.06 ? " faint" : ""}`,
          style: `--weight: ${weight.toFixed(3)}` }, piece[0]);
        made.addEventListener("pointerenter", () => tell(piece));
        made.addEventListener("pointerleave", () => tell(null));
        return made;
      }));
      if (value.unread > 0)
        text.append(node("span", { class: "unread" }, t("evidence.unread", { n: value.unread })));
      tell(null);
      const list = (chosen) => chosen.map((piece) => t("evidence.one", { word: quoted(piece[0]), p: percent(piece[2]) })).join(", ");
      const order = [...words].sort((a, b) => b[1] - a[1]);
      const pro = order.filter((piece) => piece[1] > 0.05).slice(0, 3);
      const contra = order.filter((piece) => piece[1] < -0.05).reverse().slice(0, 2);
      const sentences = [pro.length ? t("evidence.most_for", { label: value.label, words: list(pro) }) : t("evidence.none_for", { label: value.label })];
      if (value.group > 1) sentences.unshift(t("evidence.groups", { n: value.group }));
      if (contra.length) sentences.push(t("evidence.most_against", { words: list(contra) }));
      say(spoken, sentences.join(" "));
      body.replaceChildren(...order.map((piece) => node("tr", {},
        node("th", { scope: "row" }, quoted(piece[0])),
        node("td", {}, sign(piece[1])), node("td", {}, percent(piece[2])))));
    });
  });

  // ---- The followed text along the run
  define("followed", ({ element, draw, on }) => {
    const title = node("h3", {});
    const figure = node("figure", { role: "img", "aria-label": t("followed.figure") });
    const line = node("p", { class: "hint", role: "status" });
    element.append(title, figure, line);
    let run = { texts: [] };
    let pinned = "";
    let value = null; // the text that is drawn: the pinned one, or the first that is followed

    const short = (label) => (label.length > 17 ? `${label.slice(0, 16)}…` : label);

    function plot() {
      const drawn = value ?? { labels: [], lines: [], steps: [], total: Number(LoraLab.state.settings?.steps) || LoraLab.state.baseline?.steps || 1 };
      const width = Math.max(240, figure.clientWidth);
      const [left, top, bottom] = [44, 8, 22];
      const height = figure.clientHeight || 124;
      const longest = Math.max(0, ...drawn.labels.map((label) => label.length));
      const right = Math.min(130, 16 + 7.2 * longest);
      const last = Math.max(drawn.total, drawn.steps.at(-1) ?? 0) || 1;
      const x = (step) => left + (step / last) * (width - left - right);
      const y = (p) => top + (1 - p) * (height - top - bottom);
      const drawing = svg("svg", { width, height, "aria-hidden": "true" });
      for (const p of [0, 0.5, 1]) {
        drawing.append(svg("line", { x1: left, x2: width - right, y1: y(p), y2: y(p), class: "grid" }),
          svg("text", { x: left - 6, y: y(p) + 4, "text-anchor": "end" }, `${100 * p}\u00a0%`));
      }
      for (const step of [0, last])
        drawing.append(svg("text", { x: x(step), y: height - 6, "text-anchor": step ? "end" : "start" },
          step ? t("followed.step", { step: last }) : t("followed.start")));
      drawn.lines.forEach((probabilities, i) => {
        const points = probabilities.map((p, k) => `${x(drawn.steps[k]).toFixed(1)},${y(p).toFixed(1)}`);
        drawing.append(svg("polyline", { points: points.join(" "), class: i ? "path other" : "path" }));
      });
      figure.replaceChildren(drawing);
      if (!drawn.lines.length) return; // the axes alone, until a run follows a text
      const ends = drawn.lines.map((line, i) => ({ i, at: y(line.at(-1)) })).sort((a, b) => a.at - b.at);
      ends.forEach((end, k) => { if (k) end.at = Math.max(end.at, ends[k - 1].at + 14); });
      for (const end of ends)
        drawing.append(svg("text", { x: width - right + 8, y: end.at + 4, class: end.i ? "name other" : "name" },
          short(drawn.labels[end.i])));
      const first = drawn.lines[0];
      drawing.append(svg("circle", { cx: x(0), cy: y(first[0]), r: 4.5, class: "base" }),
        svg("circle", { cx: x(drawn.steps.at(-1)), cy: y(first.at(-1)), r: 4.5, class: "adapted" }));
      figure.replaceChildren(drawing);
    }

    new ResizeObserver(() => plot()).observe(figure);

    function render() {
      const one = run.texts.find(({ text }) => text === pinned) ?? run.texts[0];
      value = one ? { ...one, steps: run.steps, total: run.total } : null;
      if (!value) {
        plot();
        say(title, t("followed.title"));
        say(line, pinned ? t("followed.pinned", { text: quoted(pinned) }) : t("followed.invitation"));
        return;
      }
      say(title, t("followed.title_of", { text: quoted(value.text) }));
      plot();
      const [from, to] = [value.lines[0][0], value.lines[0].at(-1)].map(percent);
      const path = t(run.running ? "followed.path_live" : "followed.path", { label: value.labels[0], from, to, step: value.steps.at(-1), name: run.name });
      figure.setAttribute("aria-label", path);
      say(line, pinned && pinned !== value.text ? t("followed.path_and_pinned", { path, text: quoted(pinned) }) : path);
    }

    on("pinned", (text) => { pinned = text; render(); });
    on("settings", () => { if (!value) plot(); }); // how many steps there will be
    draw((given) => { run = given; emit("followed", given); render(); });
  });

  // ---- The test texts: confusion matrix and mistakes
  const NAMED_COLUMNS = 12; // classes whose columns have room for their names
  const NAMED_NARROW = 4; // on a phone
  define("judged", ({ element, draw }) => {
    const title = node("h3", {});
    const line = node("p", { class: "hint", role: "status" });
    const left = node("div", { class: "confusion" });
    const narrow = matchMedia("(max-width: 700px)");
    const right = node("div", { class: "mistakes" });
    element.append(node("div", { class: "judged-head" }, title, line), left, right);

    /** The confusion matrix, each cell as dark as it is full. Of many classes: small cells, the columns in
     *  the rows' order, only the counts that are not zero. */
    function matrix({ labels, confusion }) {
      const totals = confusion.map((row) => row.reduce((a, b) => a + b, 0));
      const worst = Math.max(1, ...confusion.flatMap((row, i) => row.filter((_, j) => i !== j)));
      const small = labels.length > (narrow.matches ? NAMED_NARROW : NAMED_COLUMNS);
      const cell = (i, count, j) => node("td", {
        class: i === j ? "right" : count ? "wrong" : "none",
        title: small ? t("judged.cell", { n: count, truth: labels[i], said: labels[j] }) : null,
        style: `--share: ${(i === j ? count / Math.max(1, totals[i]) : count / worst).toFixed(3)}` }, small && !count ? "" : thousands(count));
      const heads = node("tr", {}, node("td", {}), ...labels.map((label) => node("th", { scope: "col", title: label }, label)));
      const frame = node("div", { class: "scroll", tabindex: "0", role: "region", "aria-label": t("judged.matrix") },
        node("table", { class: small ? "matrix small" : "matrix", style: `--classes: ${labels.length}` },
          node("caption", {}, t(small ? "judged.caption_small" : "judged.caption")),
          small ? null : node("thead", {}, heads),
          node("tbody", {}, ...confusion.map((row, i) => node("tr", {},
            node("th", { scope: "row", title: labels[i] }, labels[i]),
            ...row.map((count, j) => cell(i, count, j)))))));
      LoraLab.cue(frame);
      return frame;
    }

    const most = (pairs) => node("ul", {}, ...pairs.map(([count, truth, said]) =>
      node("li", {}, t("judged.pair", { n: count, truth, said }))));

    // Each dot a tenth of the answers' probabilities: how sure the model was, how often it was right.
    function honest({ reliability, apart }) {
      const about = t("judged.honest_about", { points: (100 * apart).toFixed(1) });
      const at = (share) => 4 + 112 * share;
      const most = Math.max(1, ...reliability.map(([, , count]) => count));
      const drawing = svg("svg", { viewBox: "0 0 120 120", role: "img", "aria-label": about });
      drawing.append(svg("rect", { x: 4, y: 4, width: 112, height: 112 }), svg("path", { d: "M4 116 116 4" }),
        ...reliability.map(([said, right, count]) => {
          const dot = svg("circle", { cx: at(said), cy: 120 - at(right), r: 2 + 5 * Math.sqrt(count / most) });
          dot.append(svg("title", {}, t("judged.honest_dot", { said: percent(said), right: percent(right), n: thousands(count) })));
          return dot;
        }));
      return node("figure", { class: "honest" },
        node("figcaption", {}, t("judged.honest")), drawing, node("p", { class: "hint" }, about));
    }

    let value = { rows: 0 };
    narrow.addEventListener("change", () => render());
    draw((given) => { value = given; render(); });

    function render() {
      element.hidden = !value.rows;
      if (!value.rows) return;
      element.classList.toggle("wide", (value.confusion?.length ?? 0) > 4);
      say(title, t("judged.title"));
      say(line, t("judged.line", { correct: value.correct, rows: value.rows, p: percent(value.correct / value.rows) }));
      const listed = (value.labels.length > NAMED_COLUMNS && value.pairs.length) || !value.confusion;
      const beside = node("div", { class: "confusion-side" });
      if (listed) beside.append(node("div", { class: "pairs" }, node("h4", {}, t("judged.pairs")), most(value.pairs)));
      if (value.reliability.length) beside.append(honest(value));
      left.replaceChildren(...[value.confusion && matrix(value), beside].filter(Boolean));
      const shown = value.mistakes.length;
      right.replaceChildren(
        node("h4", {}, value.wrong === 0 ? t("judged.no_mistakes") : t("judged.mistakes", { shown, wrong: value.wrong })),
        node("p", { class: "hint" }, value.wrong === 0 ? t("judged.fool_it") : t("judged.press")),
        node("ol", { class: "misses" }, ...value.mistakes.map((miss) => node("li", {},
          node("button", { type: "button", class: "miss", title: miss.text, onclick: () => fill(miss.text, true) },
            node("span", { class: "mark" }, t("judged.miss", { truth: miss.truth, said: miss.said, p: percent(miss.p) })),
            node("span", { class: "start" }, miss.text))))));
    }
  });

  LoraLab.fill = fill;
  LoraLab.percent = percent;
})();
