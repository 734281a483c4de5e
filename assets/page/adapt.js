// Step 1: sliders with notches, the drawing of one adapted layer, and the numbers that follow them.
// Every number shown was computed by the server for every notch; here they are only looked up, so
// that a moved slider is answered at once.
(() => {
  const { define, node, svg, say, emit, state, preset, t, rich } = LoraLab;

  // What the chosen task is, in a line, and one example of each label to try.
  define("task", ({ element, draw }) => {
    const line = node("p", { class: "hint" });
    const list = node("ul", { class: "samples" });
    element.append(line, list);
    draw((value) => {
      say(line, value.line);
      list.replaceChildren(...value.examples.map(([text, label]) => node("li", {},
        node("button", { type: "button", class: "sample", title: t("task.try", { text }), onclick: () => { LoraLab.fill(text); emit("touched", (state.touched ?? 0) + 1); } },
          node("span", { class: "mark" }, label), node("span", { class: "start" }, text)))),
      ...(value.more ? [node("li", { class: "hint" }, t("task.more", { n: value.more }))] : []));
      emit("task", value);
    });
  });

  // A slider over a few given values: rank and alpha.
  define("notches", ({ element, props, trigger, draw, on }) => {
    const id = `notch-${props.name}`;
    let choices = [...props.choices];
    const input = node("input", { type: "range", id, min: 0, step: 1, "aria-describedby": `${id}-hint` });
    const output = node("output", { for: id });
    const ticks = node("div", { class: "notch-ticks", "aria-hidden": "true" });
    const symbol = node("i", {}, props.symbol);
    element.append(
      node("div", { class: "notch-head" },
        node("span", { class: "notch-name" }, node("label", { for: id }, t(`adapt.${props.name}`), " ", symbol),
          node("button", { type: "button", class: "term about", "data-term": props.name, "aria-expanded": "false",
            "aria-label": t("term.about", { term: t(`adapt.${props.name}`) }) }, "?")), output),
      input, ticks,
      node("p", { class: "hint", id: `${id}-hint` }, t(`adapt.${props.name}_hint`)),
    );
    let pending = 0;

    function show(value) {
      const index = choices.indexOf(value);
      input.max = choices.length - 1;
      input.value = index;
      const percent = choices.length > 1 ? (100 * index) / (choices.length - 1) : 0;
      input.style.setProperty("--filled", `${percent}%`);
      input.setAttribute("aria-valuetext", String(value));
      say(output, String(value));
      if (ticks.childElementCount !== choices.length || ticks.dataset.of !== choices.join())
        ticks.replaceChildren(...choices.map((choice) => node("span", {}, String(choice))));
      ticks.dataset.of = choices.join();
      [...ticks.children].forEach((tick, i) => tick.classList.toggle("on", i === index));
    }

    input.addEventListener("input", () => {
      const value = choices[Number(input.value)];
      show(value);
      emit(props.name, value);
      clearTimeout(pending);
      pending = setTimeout(() => { props.value = value; }, 60); // the server hears where it stops
    });
    ticks.addEventListener("click", (event) => {
      const index = [...ticks.children].indexOf(event.target);
      if (index < 0 || input.disabled) return;
      input.value = index;
      input.dispatchEvent(new Event("input"));
      input.focus();
    });
    draw((given) => {
      const value = Number(given);
      choices = [...new Set([...props.choices, value])].sort((a, b) => a - b);
      show(value);
      if (state[props.name] !== value) emit(props.name, value);
    });
    input.disabled = preset("lock").includes(props.name); // before any method is told
    const allow = () => {
      input.disabled = (state.method ?? "lora") !== "lora" || preset("lock").includes(props.name);
      element.classList.toggle("off", input.disabled);
    };
    on("method", allow);
    on("locked", allow);
  });

  // W, A and B of one layer, to scale.
  define("drawing", ({ element, draw, on }) => {
    let data = null;
    let shown = "";
    const picture = svg("svg", { role: "img", class: "layer" });
    const rects = {};
    for (const name of ["W", "AB", "A", "B"]) {
      rects[name] = svg("rect", { class: `m-${name}`, rx: 1 });
      picture.append(rects[name]);
    }
    const labels = {};
    for (const name of ["W", "AB", "A", "B", "plus", "times", "wcap", "abcap"]) {
      labels[name] = svg("text", { class: `t-${name}` });
      picture.append(labels[name]);
    }
    const picker = node("select", { id: "drawing-layer", "aria-label": t("drawing.picker") });
    picker.addEventListener("change", () => { shown = picker.value; update(); });
    const scale = node("p", { class: "scale", role: "status" });
    element.append(
      node("div", { class: "drawing-head" },
        node("span", { class: "key frozen" }, ...rich("drawing.frozen")),
        node("span", { class: "key trainable" }, ...rich("drawing.trainable")),
        picker),
      picture, scale);

    function place(rect, [x, y, width, height]) {
      for (const [name, value] of Object.entries({ x, y, width, height })) {
        rect.setAttribute(name, value);
        rect.style[name] = `${value}px`; // a CSS property too, so that it can glide
      }
    }

    /** A name in the middle of its matrix, or beside one that is too thin for it. */
    function name(label, [x, y, width, height], text) {
      const inside = width >= 12 * text.length;
      put(label, inside ? x + width / 2 : x + width + 4, y + height / 2 + 6, text, inside ? "middle" : "start");
    }

    function put(label, x, y, text, anchor = "middle") {
      label.setAttribute("x", x);
      label.setAttribute("y", y);
      label.setAttribute("text-anchor", anchor);
      label.textContent = text;
    }

    function update() {
      if (!data) return;
      const rank = String(state.rank);
      const layer = data.layers.find((entry) => entry.name === shown) ?? data.layers[0];
      const shape = data.shapes[layer.shape];
      const drawing = shape.by_rank[rank];
      const [width, height] = data.size;
      const lora = data.method === "lora" && layer.adapted && drawing;
      const place_of = drawing ?? Object.values(shape.by_rank)[0];
      picture.setAttribute("viewBox", `0 0 ${width} ${height}`);
      picture.classList.toggle("lora", Boolean(lora));
      picture.classList.toggle("full", data.method === "full");
      for (const name of ["W", "AB", "A", "B"]) place(rects[name], place_of[name]);
      const W = place_of.W, AB = place_of.AB, A = place_of.A, B = place_of.B;
      name(labels.W, W, "W");
      // Two captions that are too long for one line; where numbers are that large, W is thin.
      const crowded = lora && shape.caption.length + drawing.caption.length > 56;
      put(labels.wcap, crowded ? W[0] + W[2] + 4 : W[0], height - (crowded ? 19 : 3), shape.caption, "start");
      const middle = AB[1] + AB[3] / 2;
      const scaled = data.scales[rank]?.find((entry) => entry.alpha === state.alpha);
      for (const name of ["AB", "A", "B", "plus", "times", "abcap"]) labels[name].textContent = "";
      if (lora) {
        name(labels.AB, AB, "A·B");
        put(labels.A, A[0] - 5, AB[1] + 12, "A", "end");
        put(labels.B, B[0] + 2, B[1] - 4, "B", "start");
        const between = (W[0] + W[2] + A[0]) / 2;
        put(labels.plus, between, middle - 6, "+");
        put(labels.times, between, middle + 12, `${scaled?.short ?? ""} ×`);
        put(labels.abcap, width - 1, height - 3, drawing.caption, "end");
        rects.AB.style.fillOpacity = scaled ? scaled.weight : 0.3;
      }
      picture.setAttribute("aria-label", lora ? drawing.words : shape.words[data.method] ?? shape.words.head);
      const sentence = data.method === "lora"
        ? (layer.adapted ? scaled?.sentence : data.notes.untouched)
        : data.notes[data.method];
      say(scale, sentence ?? "");
    }

    draw((value) => {
      data = value;
      const names = value.layers.map((layer) => layer.name);
      const options = value.layers.map((layer) => layer.label).join();
      if (picker.dataset.of !== options) {
        picker.replaceChildren(...value.layers.map((layer) =>
          node("option", { value: layer.name }, layer.label)));
        picker.dataset.of = options;
        if (!names.includes(shown)) shown = value.first;
        picker.value = shown;
      }
      emit("method", value.method);
      update();
    });
    on("rank", update);
    on("alpha", update);
  });

  // How much is trained: the model as one bar, the counts, what they cost, every layer on demand.
  define("numbers", ({ element, draw, on }) => {
    let data = null;
    const bar = node("div", { class: "bar", role: "img" });
    const headline = node("p", { class: "headline" });
    const trainable = node("b", { class: "trainable-ink" });
    const total = node("span", { class: "frozen-ink" });
    const percent = node("b", { class: "trainable-ink percent" });
    headline.append(percent, node("span", { class: "counts" }, ...rich("numbers.headline", { trainable, total })));
    const facts = node("dl", { class: "facts" });
    const fact = {};
    for (const name of ["file", "memory"]) {
      fact[name] = { value: node("b"), against: node("span", { class: "against" }) };
      facts.append(node("div", { class: name === "memory" ? "expert" : null }, node("dt", {}, t(`numbers.${name}`)),
        node("dd", {}, fact[name].value, " ", fact[name].against)));
    }
    const warning = node("p", { class: "warning", role: "status", hidden: true });
    const body = node("tbody");
    const table = node("details", { class: "fold layers expert" },
      node("summary", {}, t("numbers.layers")),
      node("div", { class: "scroll", tabindex: "0", role: "region", "aria-label": t("numbers.layers_about") },
        node("table", {},
          node("thead", {}, node("tr", {}, ...["layer", "shape", "frozen", "trainable"].map((name) =>
            node("th", { scope: "col" }, t(`numbers.column_${name}`))))),
          body)));
    table.addEventListener("toggle", () => update());
    element.append(headline, bar, facts, warning, table);

    function update() {
      const now = data?.by_rank[String(state.rank)] ?? data?.by_rank.any;
      if (!now) return;
      say(trainable, now.trainable);
      say(total, now.total);
      say(percent, now.percent);
      say(fact.file.value, now.file);
      say(fact.file.against, t("numbers.file_against", { model: now.model }));
      say(fact.memory.value, now.memory);
      say(fact.memory.against, data.method === "full" ? t("numbers.memory_full") : t("numbers.memory_against", { memory: now.full_memory }));
      say(warning, now.warning);
      warning.hidden = !now.warning;
      bar.setAttribute("aria-label", now.words);
      if (bar.childElementCount !== now.segments.length)
        bar.replaceChildren(...now.segments.map(() => node("span", {}, node("i"))));
      now.segments.forEach(([label, size, share], i) => {
        const segment = bar.children[i];
        segment.style.flexGrow = size;
        segment.title = label;
        segment.firstChild.style.width = `${100 * share}%`;
      });
      if (table.open)
        body.replaceChildren(...now.layers.map(([name, shape, frozen, trained, outsized]) =>
          node("tr", { class: outsized ? "outsized" : null },
            node("th", { scope: "row" }, name), node("td", {}, shape), node("td", {}, frozen),
            node("td", { class: trained === "0" ? "none" : "trainable-ink" }, trained))));
    }

    draw((value) => {
      // Settings that cannot be used: say why, and leave the numbers of the last ones that can.
      if (value.problem) { say(warning, value.problem); warning.hidden = false; return; }
      data = value;
      emit("planned", value.planned);
      update();
    });
    on("rank", update);
  });
})();
