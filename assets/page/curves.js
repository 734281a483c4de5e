// Step 2: the live curves. Loss above, accuracy below on its own axis, one shared axis of steps.
(() => {
  const { define, node, say, colour, tint, layout, plotOptions, on } = LoraLab;

  define("curves", ({ element, draw, on, props }) => {
    const hidden = new Set();
    let data = { runs: {}, order: [] };
    let baseline = null;
    let logarithmic = false;
    let listening = false;
    let drawn = "";
    let busy = false;
    let waiting = false;
    let zoom = 0; // counts how often the reader asked for the whole run again

    const plot = node("div", { class: "plot" });
    const figure = node("figure", { role: "img", "aria-label": "Loss and accuracy along the run" }, plot);
    const chips = node("div", { class: "chips", role: "group", "aria-label": "Runs shown" });
    const log = node("button", { type: "button", class: "toggle", "aria-pressed": "false",
      onclick: () => {
        logarithmic = !logarithmic;
        log.setAttribute("aria-pressed", String(logarithmic));
        render();
      } }, "log scale");
    const whole = node("button", { type: "button", class: "toggle", hidden: true,
      onclick: () => { zoom += 1; whole.hidden = true; render(); } }, "whole run");
    const key = node("div", { class: "line-key", "aria-hidden": "true" });
    for (const [kind, text] of [["raw", "each batch"], ["smooth", "smoothed"], ["validation", "validation"]])
      key.append(node("span", { class: `line ${kind}` }, text));
    const newest = node("p", { class: "visually-hidden", role: "status" });
    element.append(
      node("div", { class: "chart-head" }, key, whole, log), figure, chips, newest);

    const colourOf = (run) => colour(`run-${run.colour}`);

    function traces() {
      const made = [{ x: [], y: [], yaxis: "y2", hoverinfo: "skip" }]; // both axes, even when empty
      const shown = data.order.filter((id) => data.runs[id] && !hidden.has(id));
      const current = shown.find((id) => data.runs[id].state === "running")
        ?? shown.findLast((id) => data.runs[id].at.length); // drawn boldest
      for (const id of shown) {
        const run = data.runs[id];
        const line = colourOf(run);
        const strong = id === current;
        const name = run.name;
        if (strong && run.step.length)
          made.push({ x: run.step, y: run.loss, mode: "lines", line: { color: tint(line, 0.32), width: 1 },
            name: `${name}, batch`, hovertemplate: "batch loss %{y:.3f}<extra></extra>", uid: `${id}-raw` });
        if (run.step.length)
          made.push({ x: run.step, y: run.smooth, mode: "lines", line: { color: line, width: strong ? 2.5 : 1.5 },
            name, hovertemplate: `loss %{y:.3f}<extra>${escape(name)}</extra>`, uid: `${id}-smooth` });
        if (run.at.length) {
          made.push({ x: run.at, y: run.validation_loss, mode: "lines+markers", uid: `${id}-validation`,
            line: { color: line, width: strong ? 1.5 : 1, dash: "dot" },
            marker: { color: colour("card"), size: strong ? 7 : 5, line: { color: line, width: 1.5 } },
            name: `${name}, validation`, hovertemplate: `validation loss %{y:.3f}<extra>${escape(name)}</extra>` });
          made.push({ x: run.at, y: run.validation_accuracy, mode: "lines+markers", yaxis: "y2", uid: `${id}-accuracy`,
            line: { color: line, width: strong ? 2 : 1.2, dash: "dot" },
            marker: { color: colour("card"), size: strong ? 7 : 5, line: { color: line, width: 1.5 } },
            name: `${name}, accuracy`, hovertemplate: `validation accuracy %{y:.1%}<extra>${escape(name)}</extra>` });
          if (strong)
            made.push({ x: run.at, y: run.train_accuracy, mode: "lines", yaxis: "y2", uid: `${id}-train-accuracy`,
              line: { color: tint(line, 0.5), width: 1.2 }, name: `${name}, training accuracy`,
              hovertemplate: "training accuracy %{y:.1%}<extra></extra>" });
        }
      }
      return made;
    }

    const escape = (text) => text.replaceAll("&", "&amp;").replaceAll("<", "&lt;").replaceAll("%", "&#37;");

    function bounds() {
      const shown = data.order.filter((id) => data.runs[id] && !hidden.has(id)).map((id) => data.runs[id]);
      const steps = Math.max(1, ...shown.map((run) => run.total || 0), shown.length ? 0 : baseline?.steps ?? 300);
      const lowest = Math.min(baseline?.majority ?? 0.5, ...shown.flatMap((run) => run.validation_accuracy).filter((v) => v !== null));
      return { steps, lowest: Math.max(0, Math.floor(lowest * 10 - 0.5) / 10) };
    }

    function render() {
      if (!window.Plotly || !element.isConnected) return;
      if (busy) { waiting = true; return; } // drawn as soon as the drawing at hand is done
      const { steps, lowest } = bounds();
      const shapes = [];
      const annotations = [];
      const mark = (yref, y, text) => {
        shapes.push({ type: "line", xref: "paper", x0: 0, x1: 1, yref, y0: y, y1: y,
          line: { color: colour("edge"), width: 1, dash: "4px 4px" } });
        annotations.push({ xref: "paper", x: 1, yref, y: yref === "y" && logarithmic ? Math.log10(y) : y,
          xanchor: "right", yanchor: "bottom", showarrow: false, text: escape(text),
          font: { size: 11, color: colour("muted") } });
      };
      if (baseline) {
        mark("y", baseline.loss, baseline.loss_words);
        mark("y2", baseline.majority, baseline.majority_words);
      }
      if (!data.order.length)
        annotations.push({ xref: "paper", x: 0.5, yref: "paper", y: 0.7, showarrow: false, align: "center",
          text: "Press Fine-tune and the curves start here,<br>at step 0, with the base as it is.",
          font: { size: 14, color: colour("muted") }, bgcolor: colour("card"), borderpad: 6 });
      const spare = steps * 0.02;
      const losses = data.order.filter((id) => data.runs[id] && !hidden.has(id))
        .flatMap((id) => [...data.runs[id].loss, ...data.runs[id].validation_loss]).filter((v) => v !== null && isFinite(v));
      const top = Math.max(1.1 * (baseline?.loss ?? 0.7), 1.05 * Math.max(0, ...losses));
      const low = Math.min(0.05, ...losses.filter((v) => v > 0));
      const plan = layout({
        margin: { l: 50, r: 10, t: 6, b: 34 }, hovermode: "x unified",
        shapes, annotations,
        xaxis: { range: [-spare, steps + spare], anchor: "y2", title: { text: "step", standoff: 4 }, zeroline: false },
        yaxis: { domain: [0.4, 1], title: { text: "loss", standoff: 6 }, type: logarithmic ? "log" : "linear",
          range: logarithmic ? [Math.log10(low * 0.8), Math.log10(top)] : [0, top], zeroline: false, nticks: 6 },
        yaxis2: { domain: [0, 0.31], title: { text: "accuracy", standoff: 6 }, range: [lowest, 1.02],
          tickformat: ".0%", zeroline: false, nticks: 4 },
      });
      // A zoom belongs to the reader: kept while points come in, given up when the scale changes.
      plan.uirevision = `${logarithmic}${zoom}`;
      busy = true;
      Plotly.react(plot, traces(), plan, plotOptions).then(() => {
        busy = false;
        if (waiting) { waiting = false; render(); }
        if (listening) return;
        listening = true;
        plot.on("plotly_relayout", (change) => {
          if (Object.keys(change).some((key) => key.includes(".range"))) whole.hidden = false;
        });
        plot.on("plotly_doubleclick", () => { whole.hidden = true; });
      });
    }

    function list() {
      const key = data.order.map((id) => data.runs[id] && `${id}${data.runs[id].name}${hidden.has(id)}`).join();
      if (key === drawn) return;
      drawn = key;
      const focused = document.activeElement?.dataset?.run;
      chips.replaceChildren(...data.order.filter((id) => data.runs[id]).map((id) => {
        const run = data.runs[id];
        const chip = node("button", { type: "button", class: "chip", "data-run": id,
          "aria-pressed": String(!hidden.has(id)), title: "Show or hide this run",
          onclick: () => {
            hidden.has(id) ? hidden.delete(id) : hidden.add(id);
            LoraLab.emit("hidden", hidden);
            list();
            render();
          } }, run.name);
        chip.style.setProperty("--line", `var(--run-${run.colour})`);
        return chip;
      }));
      if (focused) chips.querySelector(`[data-run="${CSS.escape(focused)}"]`)?.focus();
    }

    draw((value) => {
      data = value;
      list();
      render();
      const run = data.runs[data.order.at(-1)];
      figure.setAttribute("aria-label", value.words);
      if (run && value.spoken) say(newest, value.spoken);
    });
    on("baseline", (value) => { baseline = value; render(); });
    if (LoraLab.state.baseline) { baseline = LoraLab.state.baseline; render(); }
  });

  // What chance and habit would reach on the chosen task: lines in the chart, nothing of its own.
  define("baseline", ({ draw }) => draw((value) => LoraLab.emit("baseline", value)));

  // One line on how it goes, and a bar.
  define("status", ({ element, draw }) => {
    const line = node("p", { class: "status-line" });
    const reason = node("p", { class: "hint" });
    const bar = node("div", { class: "progress", role: "progressbar", "aria-label": "Progress of the run",
      "aria-valuemin": 0, "aria-valuemax": 100 }, node("i"));
    element.append(bar, line, reason);
    draw((value) => {
      say(line, value.line);
      say(reason, value.reason ?? "");
      const percent = Math.round(100 * (value.share ?? 0));
      bar.firstChild.style.width = `${100 * (value.share ?? 0)}%`;
      bar.setAttribute("aria-valuenow", percent);
      element.dataset.state = value.state;
    });
  });
})();
