// Step 3: both answers, the words that mattered, the pinned text along the run, the test texts.
// Every text, typed or not, becomes a text node; nothing here is ever read as HTML.
(() => {
  const { define, node, svg, say, emit, isStill } = LoraLab;
  const SETTLED = 220; // ms without a new answer before words are weighed
  const LIVE = 600; // ms between two looks at the pinned text while something trains
  const PLAIN = 1.0; // nats that give the full colour where no word weighs more

  /** 0.973 -> "97.3 %"; never 0 or 100 for what is not. */
  function percent(p) {
    if (p > 0.999 && p < 1) return "> 99.9 %";
    if (p < 0.001 && p > 0) return "< 0.1 %";
    return `${(100 * p).toFixed(1)} %`;
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
      list.replaceChildren(...(value.examples ?? []).map((example) => {
        const about = example.said === undefined ? `Labelled ${example.mark}.`
          : `The model said ${example.said} (${percent(example.p)}).`;
        return node("li", {}, node("button",
          { type: "button", class: `try ${example.kind}`, title: `${about} ${example.text}`,
            onclick: () => fill(example.text) },
          node("span", { class: "mark" }, example.mark),
          node("span", { class: "start" }, example.text)));
      }));
    });
  });

  // ---- Base and adapted, side by side
  define("answer", ({ element, draw, trigger }) => {
    const problem = node("p", { class: "answer-problem", role: "alert" });
    const verdict = node("p", { class: "verdict", role: "status" });
    const adaptedHead = node("span", {});
    const body = node("tbody", {});
    const table = node("table", { class: "answers" },
      node("caption", { class: "visually-hidden" }, "Probability of each label"),
      node("thead", {}, node("tr", {},
        node("th", { scope: "col" }, node("span", { class: "visually-hidden" }, "Label")),
        node("th", { scope: "col", class: "base" }, "Base, before training"),
        node("th", { scope: "col", class: "adapted" }, adaptedHead))),
      body);
    const note = node("p", { class: "hint answer-note" });
    element.append(verdict, problem, table, note);
    let rows = [];
    let settled = 0;

    function side(kind) {
      const bar = node("i", {});
      const figure = node("span", { class: "p" });
      return { bar, figure, cell: node("td", { class: kind },
        node("span", { class: "meter" }, bar), figure) };
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

    draw((value) => {
      say(problem, value.problem ?? "");
      problem.hidden = !value.problem;
      verdict.hidden = Boolean(value.problem);
      emit("refused", Boolean(value.problem));
      if (value.problem) {
        clearTimeout(settled);
        for (const made of rows) for (const shown of [made.base, made.adapted]) show(shown, null, false);
        say(note, "");
        return;
      }
      if (!value.rows) return;
      if (rows.length !== value.rows.length) make(value.rows.length);
      const trained = value.adapted !== null;
      value.rows.forEach(([label, base, adapted], i) => {
        say(rows[i].name, label);
        rows[i].name.title = label;
        show(rows[i].base, base, label === value.base);
        show(rows[i].adapted, adapted, trained && label === value.adapted);
      });
      const of = (label, column) => value.rows.find((row) => row[0] === label)?.[column];
      say(adaptedHead, trained ? `Adapted, strength ${value.strength.toFixed(2).replace(/0$/, "")}` : "Adapted: not trained yet");
      const strong = (label, kind) => node("b", { class: kind }, label);
      const known = of(value.base, 1);
      const start = known === undefined ? "" : `, ${percent(known)}`;
      if (trained)
        verdict.replaceChildren("Adapted: ", strong(value.adapted, "adapted"), `, ${percent(of(value.adapted, 2))}.`,
          " Before training: ", strong(value.base, "base"), `${start}.`);
      else
        verdict.replaceChildren("The base guesses ", strong(value.base, "base"), `${start}.`);
      const cut = value.truncated ? ` The text is longer than the model reads: only its first ${value.tokens} tokens count.` : "";
      say(note, (trained ? `Model: ${value.model}. ${value.tokens} token${value.tokens === 1 ? "" : "s"} read.`
        : "It is a coin toss: its classification head is new and random, and has learnt nothing yet. Fine-tune in step 2, then look again.") + cut);
      clearTimeout(settled);
      settled = setTimeout(() => trigger("submit"), SETTLED);
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
    const fold = node("details", { class: "fold" }, node("summary", {}, "Every word in numbers"),
      node("div", { class: "scroll", tabindex: "0", role: "region", "aria-label": "Every word in numbers" },
        node("table", { class: "weights" },
          node("thead", {}, node("tr", {}, ...["Word", "Weight", "Without it"].map(
            (name) => node("th", { scope: "col" }, name)))), body)));
    const full = node("div", { class: "evidence-full" }, legend, text, about, spoken, fold);
    element.append(title, full);
    let value = null;

    const speaks = (weight) => (weight >= 0 ? "for" : "against");
    const sign = (weight) => `${weight >= 0 ? "+" : "−"}${Math.abs(weight).toFixed(2)}`;

    function tell(piece) {
      say(about, piece ? `Without ${quoted(piece[0])}: ${value.label} ${percent(piece[2])} instead of ${percent(value.probability)}`
        : "Point at a word to read what the answer would be without it.");
    }

    on("refused", (refused) => {
      element.classList.toggle("empty", refused || !value?.shown);
      full.hidden = refused || !value?.shown;
      if (refused) say(title, "Words that mattered");
    });
    draw((given) => {
      value = given;
      const { shown } = value;
      element.classList.toggle("empty", !shown);
      title.replaceChildren(...(shown ? ["Words that mattered for ", node("b", { class: "adapted" }, value.label)]
        : ["Words that mattered"]));
      if (!shown) {
        full.hidden = true;
        say(title, value.trained ? "Words that mattered" : "Words that mattered: shown here once something is trained");
        return;
      }
      full.hidden = false;
      const words = value.pieces.filter((piece) => piece.length > 1);
      const most = Math.max(PLAIN, ...words.map((piece) => Math.abs(piece[1])));
      legend.replaceChildren(
        node("span", { class: "word against", style: "--weight: 0.8" }, "against"), " ",
        node("span", {}, "no matter"), " ",
        node("span", { class: "word", style: "--weight: 0.5" }, "for"), " ",
        node("span", { class: "word", style: "--weight: 1" }, `strongly for ${value.label}`));
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
        text.append(node("span", { class: "unread" }, ` … ${thousands(value.unread)} more characters that the model does not read`));
      tell(null);
      const list = (chosen) => chosen.map((piece) => `${quoted(piece[0])} (without it ${percent(piece[2])})`).join(", ");
      const order = [...words].sort((a, b) => b[1] - a[1]);
      const pro = order.filter((piece) => piece[1] > 0.05).slice(0, 3);
      const contra = order.filter((piece) => piece[1] < -0.05).reverse().slice(0, 2);
      const what = value.group > 1 ? `Groups of ${value.group} words are erased together, because the text is long. ` : "";
      say(spoken, what + (pro.length ? `Most for ${value.label}: ${list(pro)}. ` : `No word alone speaks for ${value.label}. `)
        + (contra.length ? `Most against: ${list(contra)}.` : ""));
      body.replaceChildren(...order.map((piece) => node("tr", {},
        node("th", { scope: "row" }, quoted(piece[0])),
        node("td", {}, sign(piece[1])), node("td", {}, percent(piece[2])))));
    });
  });

  // ---- The pinned text along the run
  define("pinned", ({ element, draw, trigger }) => {
    const title = node("h3", {});
    const figure = node("figure", { role: "img", "aria-label": "Probability of the pinned text along the run" });
    const line = node("p", { class: "hint", role: "status" });
    element.append(title, figure, line);
    let value = { text: "" };

    function plot() {
      const width = Math.max(240, figure.clientWidth);
      const [height, left, top, bottom] = [150, 44, 10, 24];
      const longest = Math.max(...value.labels.map((label) => label.length));
      const right = Math.min(130, 16 + 7.2 * longest);
      const last = Math.max(value.total, value.steps.at(-1)) || 1;
      const x = (step) => left + (step / last) * (width - left - right);
      const y = (p) => top + (1 - p) * (height - top - bottom);
      const drawing = svg("svg", { width, height, "aria-hidden": "true" });
      for (const p of [0, 0.5, 1]) {
        drawing.append(svg("line", { x1: left, x2: width - right, y1: y(p), y2: y(p), class: "grid" }),
          svg("text", { x: left - 6, y: y(p) + 4, "text-anchor": "end" }, `${100 * p} %`));
      }
      for (const step of [0, last])
        drawing.append(svg("text", { x: x(step), y: height - 6, "text-anchor": step ? "end" : "start" },
          step ? `step ${last}` : "0: the base"));
      value.lines.forEach((probabilities, i) => {
        const points = probabilities.map((p, k) => `${x(value.steps[k]).toFixed(1)},${y(p).toFixed(1)}`);
        drawing.append(svg("polyline", { points: points.join(" "), class: i ? "path other" : "path" }));
      });
      const ends = value.lines.map((line, i) => ({ i, at: y(line.at(-1)) })).sort((a, b) => a.at - b.at);
      ends.forEach((end, k) => { if (k) end.at = Math.max(end.at, ends[k - 1].at + 14); });
      for (const end of ends)
        drawing.append(svg("text", { x: width - right + 8, y: end.at + 4, class: end.i ? "name other" : "name" },
          value.labels[end.i]));
      const first = value.lines[0];
      drawing.append(svg("circle", { cx: x(0), cy: y(first[0]), r: 4.5, class: "base" }),
        svg("circle", { cx: x(value.steps.at(-1)), cy: y(first.at(-1)), r: 4.5, class: "adapted" }));
      figure.replaceChildren(drawing);
    }

    setInterval(() => {
      const state = document.querySelector("#status .lab-status")?.dataset.state;
      if (value.text && state === "running" && !document.hidden) trigger("submit");
    }, LIVE);
    new ResizeObserver(() => { if (value.steps?.length) plot(); }).observe(figure);
    draw((given) => {
      value = given;
      const drawn = value.steps?.length > 0;
      element.hidden = !drawn && !value.text;
      figure.hidden = !drawn;
      if (element.hidden) return;
      const waiting = value.text && value.text !== value.watched;
      say(title, `Pinned: ${quoted(drawn ? value.watched : value.text)}`);
      if (drawn) plot();
      const path = drawn ? value.labels.map((label, i) =>
        `${label} from ${percent(value.lines[i][0])} at step 0 to ${percent(value.lines[i].at(-1))} at step ${value.steps.at(-1)}`).join("; ") : "";
      if (drawn) figure.setAttribute("aria-label", `Probability of the pinned text along ${value.model}: ${path}`);
      say(line, (drawn ? `Along ${value.model}: ${path.split("; ")[0]}.` : "")
        + (waiting ? ` ${drawn ? `${quoted(value.text)} is pinned now. ` : ""}The next run will draw how its probability moves, step by step.` : ""));
    });
  });

  // ---- The test texts: confusion matrix and mistakes
  define("judged", ({ element, draw }) => {
    const title = node("h3", {});
    const line = node("p", { class: "hint", role: "status" });
    const left = node("div", { class: "confusion" });
    const right = node("div", { class: "mistakes" });
    element.append(node("div", { class: "judged-head" }, title, line), left, right);

    function matrix({ labels, confusion }) {
      const totals = confusion.map((row) => row.reduce((a, b) => a + b, 0));
      return node("div", { class: "scroll", tabindex: "0", role: "region", "aria-label": "Confusion matrix" },
        node("table", { class: "matrix", style: `--classes: ${labels.length}` },
          node("caption", {}, "Rows: what it was. Columns: what the model said."),
          node("thead", {},
            node("tr", {}, node("td", {}), ...labels.map((label) => node("th", { scope: "col", title: label }, label)))),
          node("tbody", {}, ...confusion.map((row, i) => node("tr", {},
            node("th", { scope: "row", title: labels[i] }, labels[i]),
            ...row.map((count, j) => node("td", {
              class: i === j ? "right" : count ? "wrong" : "none",
              style: `--share: ${(totals[i] ? count / totals[i] : 0).toFixed(3)}` }, thousands(count))))))));
    }

    const most = (pairs) => node("ul", {}, ...pairs.map(([count, truth, said]) =>
      node("li", {}, `${count} × ${truth} taken for ${said}`)));

    draw((value) => {
      element.hidden = !value.rows;
      if (!value.rows) return;
      element.classList.toggle("wide", (value.confusion?.length ?? 0) > 4);
      say(title, "On texts it has never seen");
      say(line, `${thousands(value.correct)} of ${thousands(value.rows)} test texts right (${percent(value.correct / value.rows)}), at strength 1.`);
      left.replaceChildren(value.confusion ? matrix(value) : node("div", {}, node("h4", {}, "Most often confused"), most(value.pairs)));
      const shown = value.mistakes.length;
      right.replaceChildren(
        node("h4", {}, value.wrong === 0 ? "No mistakes" : `Most confident mistakes${shown < value.wrong ? ` (${shown} of ${value.wrong})` : ""}`),
        node("p", { class: "hint" }, value.wrong === 0 ? "Not one test text was missed. Write one that fools it." : "Surest first. Press one to look at it in the box above."),
        node("ol", { class: "misses" }, ...value.mistakes.map((miss) => node("li", {},
          node("button", { type: "button", class: "miss", title: miss.text, onclick: () => fill(miss.text, true) },
            node("span", { class: "mark" }, `${miss.truth}, said ${miss.said} ${percent(miss.p)}`),
            node("span", { class: "start" }, miss.text))))));
    });
  });

  LoraLab.fill = fill;
  LoraLab.percent = percent;
})();
