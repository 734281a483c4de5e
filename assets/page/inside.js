// Step 4: every layer's change as a bar, one layer's singular values and heat map, the two digests.
(() => {
  const { define, node, say, colour, t, rich } = LoraLab;
  const GROUP = 4; // hexadecimal digits between two gaps

  // ---- The frozen weights, before and after
  define("proof", ({ element, draw }) => {
    const sign = node("span", { class: "sign", "aria-hidden": "true" });
    const before = digest(t("proof.before"));
    const after = digest(t("proof.now"));
    const sentence = node("p", { class: "proof-line", role: "status" });
    const more = node("button", { type: "button", class: "toggle expert", "aria-expanded": "false",
      onclick: () => {
        const open = element.classList.toggle("whole");
        more.setAttribute("aria-expanded", String(open));
        say(more, open ? t("proof.shorten") : t("proof.whole"));
        write();
      } }, t("proof.whole"));
    element.append(sentence, node("div", { class: "digests" }, before.box, sign, after.box, more));
    let value = null;

    function digest(title) {
      const code = node("code", {});
      const name = node("span", { class: "digest-name" }, title);
      return { code, name, box: node("div", { class: "digest" }, name, code) };
    }

    function write() {
      const whole = element.classList.contains("whole");
      for (const [{ code }, text] of [[before, value.before], [after, value.after]]) {
        const groups = text.match(new RegExp(`.{${GROUP}}`, "g"));
        say(code, whole ? groups.join(" ") : `${groups[0]} ${groups[1]} … ${groups.at(-1)}`);
        code.title = text;
      }
    }

    draw((given) => {
      value = given;
      element.classList.toggle("differs", !value.equal);
      say(sign, value.equal ? "=" : "≠");
      say(before.name, value.trained ? t("proof.before") : t("proof.frozen"));
      say(after.name, t("proof.now"));
      after.box.hidden = sign.hidden = !value.trained;
      before.box.hidden = more.hidden = !value.before;
      say(sentence, value.sentence);
      if (value.before) write();
    });
  });

  // ---- Every layer: kinds by blocks; a cell is a bar and a button
  define("layers", ({ element, draw, trigger }) => {
    const title = node("h3", {}, ...rich("layers.title"));
    const line = node("p", { class: "hint", role: "status" });
    const table = node("table", { class: "grid" });
    const scroll = node("div", { class: "scroll", role: "region", tabindex: "0", "aria-label": t("layers.region") }, table);
    element.append(title, line, scroll);
    let cells = []; // rows of buttons or null, for the arrow keys
    let selected = "";
    LoraLab.pressedLayer = () => selected;

    function choose(button) {
      selected = button.dataset.name;
      for (const other of cells.flat()) {
        if (!other) continue;
        other.setAttribute("aria-pressed", String(other === button));
        other.tabIndex = other === button ? 0 : -1;
      }
    }

    function cell(data, most) {
      if (!data) return null;
      const bar = node("i", { style: `height: ${most ? Math.max(2, (100 * data.ratio) / most) : 0}%` });
      return node("button", { type: "button", class: "cell", "data-name": data.name, tabindex: "-1",
        "aria-pressed": "false", "aria-label": `${data.title}: ${data.words}`, title: t("layers.cell", { layer: data.title, share: data.words }),
        onclick: (event) => { choose(event.currentTarget); trigger("select", {}); } },
      node("span", { class: "column-bar" }, bar), node("span", { class: "share" }, data.words));
    }

    table.addEventListener("keydown", (event) => {
      const move = { ArrowUp: [-1, 0], ArrowDown: [1, 0], ArrowLeft: [0, -1], ArrowRight: [0, 1] }[event.key];
      const row = cells.findIndex((buttons) => buttons.includes(document.activeElement));
      if (!move || row < 0) return;
      event.preventDefault();
      let [i, j] = [row, cells[row].indexOf(document.activeElement)];
      do { i += move[0]; j += move[1]; } while (cells[i]?.[j] === null);
      const next = cells[i]?.[j];
      if (!next) return;
      next.focus();
      next.click();
    });

    draw((value) => {
      say(line, value.sentence);
      element.classList.toggle("flat", !value.most);
      const head = node("tr", {}, node("td", {}));
      for (let block = 0; block < value.blocks; block += 1)
        head.append(node("th", { scope: "col" }, value.blocks > 8 ? String(block) : t("layer.block", { block })));
      cells = value.rows.map((row) => row.cells.map((data) => cell(data, value.most)));
      const body = value.rows.map((row, i) => node("tr", {}, node("th", { scope: "row" }, row.kind),
        ...cells[i].map((button) => node("td", {}, button ?? node("span", { class: "untouched" },
          node("span", { class: "column-bar" }), node("span", { class: "share" }, value.trained ? t("layers.frozen") : "0 %"))))));
      for (const { kind, cell: data } of value.outside) {
        const button = cell(data, value.most);
        cells.push([button]);
        body.push(node("tr", {}, node("th", { scope: "row" }, kind), node("td", {}, button)));
      }
      table.replaceChildren(node("caption", { class: "visually-hidden" }, t("layers.region")),
        node("thead", {}, head), node("tbody", {}, ...body));
      const every = cells.flat().filter(Boolean);
      const first = every.find((button) => button.dataset.name === value.selected) ?? every[0];
      if (first) choose(first);
    });
  });

  // ---- One layer: its singular values and its heat map
  define("layer", ({ element, draw }) => {
    const title = node("h3", {});
    const line = node("p", { class: "hint spoken", role: "status" });
    const bars = node("div", { class: "bars", "aria-hidden": "true" });
    const ends = node("div", { class: "bar-ends", "aria-hidden": "true" });
    const spectrum = node("figure", { role: "img", class: "spectrum", "aria-label": t("layer_view.no_spectrum") }, bars, ends);
    const canvas = node("canvas", { "aria-hidden": "true" });
    const rows = node("span", { class: "axis rows" });
    const columns = node("span", { class: "axis columns" });
    const low = node("span", {});
    const high = node("span", {});
    const ramp = node("i", {});
    const map = node("figure", { role: "img", class: "map", "aria-label": t("layer_view.no_map") },
      node("div", { class: "canvas-frame" }, rows, canvas, columns),
      node("figcaption", { class: "ramp" }, low, ramp, high));
    const mapLine = node("p", { class: "hint" });
    const full = node("div", { class: "layer-figures" },
      node("div", {}, node("h4", {}, ...rich("layer_view.spectrum")), spectrum, line),
      node("div", {}, node("h4", {}, ...rich("layer_view.map")), map, mapLine));
    element.append(title, full);

    /** Paint: orange for what was added, the colour of the text for what was taken away. */
    function paint(cells) {
      const probe = document.createElement("canvas").getContext("2d", { willReadFrequently: true });
      const rgb = (name) => {
        probe.fillStyle = colour(name);
        probe.fillRect(0, 0, 1, 1);
        return probe.getImageData(0, 0, 1, 1).data;
      };
      const [zero, plus, minus] = [rgb("sunk"), rgb("trainable"), rgb("ink")];
      canvas.height = cells.length;
      canvas.width = cells[0].length;
      const context = canvas.getContext("2d");
      const image = context.createImageData(canvas.width, canvas.height);
      cells.flat().forEach((level, i) => {
        const share = Math.abs(level) / 127;
        const end = level >= 0 ? plus : minus;
        for (let c = 0; c < 3; c += 1) image.data[4 * i + c] = zero[c] + share * (end[c] - zero[c]);
        image.data[4 * i + 3] = 255;
      });
      context.putImageData(image, 0, 0);
    }

    draw((value) => {
      full.hidden = !value.name;
      element.parentElement.classList.toggle("nothing", !value.name);
      if (!value.name) {
        say(title, "");
        return;
      }
      const [down, across] = value.axes;
      say(title, t("layer_view.title", { layer: value.title, rows: value.shape[0], columns: value.shape[1] }));
      const top = value.values[0] || 1;
      bars.classList.toggle("many", value.values.length > 24);
      bars.replaceChildren(...value.values.map((sigma, i) => node("i", {
        style: `height: ${Math.max(0.8, (100 * sigma) / top)}%`, title: `σ${i + 1} = ${sigma.toPrecision(3)}` })));
      const shown = value.values.length;
      ends.replaceChildren(node("span", {}, `σ1 = ${value.values[0].toPrecision(3)}`),
        node("span", {}, shown < value.count ? t("layer_view.first", { n: shown, all: value.count }) : shown > 1 ? `σ${shown} = ${value.values.at(-1).toPrecision(3)}` : ""));
      say(line, value.spectrum);
      spectrum.setAttribute("aria-label", t("layer_view.spectrum_words", { layer: value.title, words: value.spectrum }));
      paint(value.cells);
      say(rows, down);
      say(columns, across);
      say(low, `−${value.largest_words}`);
      say(high, `+${value.largest_words}`);
      say(mapLine, value.map);
      map.setAttribute("aria-label", t("layer_view.map_words", { layer: value.title, down, across, most: value.largest_words }));
    });
  });
})();
