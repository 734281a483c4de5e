// Step 2: the live curves. Loss above, accuracy below on its own axis, one shared axis of steps.
(() => {
  const { define, node, say, colour, tint, layout, plotOptions, on, t, whenPlotly, series, insist } = LoraLab;
  const DASHES = ["solid", "dash", "longdash", "dashdot"];

  define("curves", ({ element, draw }) => {
    const hidden = new Set(); // runs that the reader switched off
    let others = false; // whether runs of other tasks are shown
    let data = { runs: {}, order: [] };
    let baseline = null;
    let logarithmic = false;
    let listening = false;
    let drawn = "";
    let busy = false;
    let waiting = false;
    let zoom = 0; // counts how often the reader asked for the whole run again

    const plot = node("div", { class: "plot" });
    const figure = node("figure", { role: "img", "aria-label": t("curves.figure") }, plot);
    const chips = node("div", { class: "chips", role: "group", "aria-label": t("curves.chips") });
    const log = node("button", { type: "button", class: "toggle expert", "aria-pressed": "false",
      onclick: () => {
        logarithmic = !logarithmic;
        log.setAttribute("aria-pressed", String(logarithmic));
        render();
      } }, t("curves.log"));
    const whole = node("button", { type: "button", class: "toggle", hidden: true,
      onclick: () => { zoom += 1; whole.hidden = true; render(); } }, t("curves.whole"));
    const key = node("div", { class: "line-key" });
    for (const kind of ["raw", "smooth", "validation"])
      key.append(node("span", { class: `line ${kind}` }, ...LoraLab.rich(`curves.${kind}`)));
    const readout = node("p", { class: "readout", "aria-hidden": "true" });
    const newest = node("p", { class: "visually-hidden", role: "status" });
    element.append(node("div", { class: "chart-head" }, key, whole, log), figure, readout, chips, newest);

    const task = () => LoraLab.state.settings?.task ?? baseline?.task;
    const mine = (run) => !task() || run.task === task();
    const runs = () => data.order.filter((id) => data.runs[id]);
    const shown = () => runs().filter((id) => !hidden.has(id) && (others || mine(data.runs[id])));

    function traces() {
      const made = [{ x: [], y: [], yaxis: "y2", hoverinfo: "skip" }]; // both axes, even when empty
      const visible = shown();
      const current = visible.find((id) => data.runs[id].state === "running")
        ?? visible.findLast((id) => data.runs[id].at.length); // drawn boldest
      for (const id of visible) {
        const run = data.runs[id];
        const { colour: line, round } = series(run.series);
        const dash = DASHES[round % DASHES.length];
        const strong = id === current;
        const quiet = { hoverinfo: "none", name: run.name, opacity: mine(run) ? 1 : 0.4 };
        if (strong && run.step.length)
          made.push({ ...quiet, x: run.step, y: run.loss, mode: "lines", line: { color: tint(line, 0.32), width: 1 }, uid: `${id}-raw` });
        if (run.step.length)
          made.push({ ...quiet, x: run.step, y: run.smooth, mode: "lines", line: { color: line, dash, width: strong ? 2.5 : 1.5 }, uid: `${id}-smooth` });
        if (!run.at.length) continue;
        for (const [axis, key] of run.band ? [["y", "validation_loss"], ["y2", "validation_accuracy"]] : []) {
          const [least, most] = run.band[key]; // of the seeds
          const edge = [...least, ...[...most].reverse()];
          made.push({ ...quiet, x: [...run.at, ...[...run.at].reverse()], y: axis === "y2" ? percents(edge) : edge, yaxis: axis, mode: "lines",
            fill: "toself", fillcolor: tint(line, 0.16), line: { width: 0, color: tint(line, 0) }, hoverinfo: "skip", uid: `${id}-band-${axis}` });
        }
        const marker = { color: colour("card"), size: strong ? 7 : 5, line: { color: line, width: 1.5 } };
        made.push({ ...quiet, x: run.at, y: run.validation_loss, mode: "lines+markers", uid: `${id}-validation`,
          line: { color: line, width: strong ? 1.5 : 1, dash: "dot" }, marker });
        made.push({ ...quiet, x: run.at, y: percents(run.validation_accuracy), mode: "lines+markers", yaxis: "y2", uid: `${id}-accuracy`,
          line: { color: line, width: strong ? 2 : 1.2, dash: "dot" }, marker });
        if (strong)
          made.push({ ...quiet, x: run.at, y: percents(run.train_accuracy), mode: "lines", yaxis: "y2", uid: `${id}-train-accuracy`,
            line: { color: tint(line, 0.5), width: 1.2 } });
      }
      return made;
    }

    const percents = (shares) => shares.map((share) => (share === null ? null : 100 * share));
    const escape = (text) => text.replaceAll("&", "&amp;").replaceAll("<", "&lt;").replaceAll("%", "&#37;");
    const known = (values) => values.filter((value) => value !== null && isFinite(value));

    /** The axes that show all of what is drawn, and no more than that. */
    function bounds() {
      const visible = shown().map((id) => data.runs[id]);
      const steps = Math.max(1, ...visible.map((run) => run.total || 0), visible.length ? 0 : Number(LoraLab.state.settings?.steps) || baseline?.steps || 1);
      const accuracies = known(visible.flatMap((run) => [...run.validation_accuracy, ...run.train_accuracy]));
      const lowest = Math.min(baseline?.majority ?? 0.5, ...accuracies);
      const losses = known(visible.flatMap((run) => [...run.loss, ...run.validation_loss]));
      const top = Math.max(1.1 * (baseline?.loss ?? 0.7), 1.05 * Math.max(0, ...losses));
      const low = Math.min(0.05, ...losses.filter((value) => value > 0));
      return { steps, top, low, lowest: Math.max(0, Math.floor(lowest * 10 - 0.5) / 10) };
    }

    function render() {
      if (!window.Plotly || !element.isConnected) return;
      if (busy) { waiting = true; return; } // drawn as soon as the drawing at hand is done
      const { steps, top, low, lowest } = bounds();
      const shapes = [];
      const annotations = [];
      const mark = (yref, y, text) => {
        shapes.push({ type: "line", xref: "paper", x0: 0, x1: 1, yref, y0: y, y1: y,
          line: { color: colour("edge"), width: 1, dash: "4px 4px" } });
        annotations.push({ xref: "paper", x: 1, yref, y: yref === "y" && logarithmic ? Math.log10(y) : y,
          xanchor: "right", yanchor: "bottom", showarrow: false, text: escape(text),
          font: { size: 11, color: colour("muted") }, bgcolor: tint("card", 0.82), borderpad: 1 });
      };
      if (baseline) {
        mark("y", baseline.loss, baseline.loss_words);
        mark("y2", 100 * baseline.majority, baseline.majority_words);
      }
      if (!shown().length)
        annotations.push({ xref: "paper", x: 0.5, yref: "paper", y: 0.72, showarrow: false, align: "center",
          text: escape(t("curves.empty")), font: { size: 14, color: colour("muted") }, bgcolor: colour("card"), borderpad: 6 });
      const spare = steps * 0.02;
      const title = (key) => ({ text: t(key), standoff: 4 });
      const plan = layout({
        margin: { l: 46, r: 8, t: 6, b: 34 }, hovermode: "x", shapes, annotations,
        xaxis: { range: [-spare, steps + spare], anchor: "y2", title: title("curves.step"), zeroline: false, showspikes: true,
          spikemode: "across", spikethickness: 1, spikedash: "solid", spikecolor: colour("edge"), spikesnap: "cursor" },
        yaxis: { domain: [0.4, 1], title: title("curves.loss"), type: logarithmic ? "log" : "linear",
          range: logarithmic ? [Math.log10(low * 0.8), Math.log10(top)] : [0, top], zeroline: false, nticks: 6 },
        yaxis2: { domain: [0, 0.31], title: title("curves.accuracy"), range: [100 * lowest, 102],
          ticksuffix: "\u00a0%", zeroline: false, nticks: 4 },
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
          if (Object.keys(change).some((name) => name.includes(".range"))) whole.hidden = false;
        });
        plot.on("plotly_doubleclick", () => { whole.hidden = true; });
        plot.on("plotly_hover", ({ xvals }) => read(xvals?.[0]));
        plot.on("plotly_unhover", () => read(null));
      });
    }

    /** The figures at one step, below the chart, where they cover nothing. */
    function read(step) {
      const ids = shown();
      if (step === null || step === undefined || !ids.length) {
        say(readout, ids.length ? t("curves.point") : "");
        return;
      }
      const nearest = (steps) => steps.reduce((best, s, i) =>
        (Math.abs(s - step) < Math.abs(steps[best] - step) ? i : best), 0);
      const id = ids.find((one) => data.runs[one].state === "running") ?? ids.at(-1);
      const run = data.runs[id];
      if (!run.at.length) return;
      const i = nearest(run.at);
      say(readout, t("curves.read", { name: run.name, step: run.at[i],
        loss: run.validation_loss[i]?.toFixed(3) ?? "–",
        accuracy: `${(100 * run.validation_accuracy[i]).toFixed(1)} %` }));
    }

    function list() {
      const ids = runs();
      const away = ids.filter((id) => !mine(data.runs[id]));
      const key = JSON.stringify([task(), others, ids.map((id) => [id, data.runs[id].name, hidden.has(id)])]);
      if (key === drawn) return;
      drawn = key;
      const focused = document.activeElement?.dataset?.run;
      const listed = ids.filter((id) => others || mine(data.runs[id]));
      const short = (id) => { // among the runs of its task
        const peers = listed.filter((other) => data.runs[other].task === data.runs[id].task);
        return LoraLab.brief(peers.map((other) => data.runs[other].name))[peers.indexOf(id)];
      };
      const made = listed.map((id) => {
        const run = data.runs[id];
        const chip = node("button", { type: "button", class: `chip mark-${LoraLab.series(run.series).round % 4}${mine(run) ? "" : " away"}`, "data-run": id,
          "aria-pressed": String(!hidden.has(id)), title: `${run.name}. ${t("curves.chip")}`,
          onclick: () => {
            hidden.has(id) ? hidden.delete(id) : hidden.add(id);
            list();
            render();
          } }, mine(run) ? short(id) : t("curves.away", { name: short(id), task: run.task }));
        chip.style.setProperty("--line", LoraLab.series(run.series).variable);
        return chip;
      });
      if (away.length)
        made.push(node("button", { type: "button", class: "toggle", "aria-pressed": String(others), "data-run": "others",
          onclick: () => { others = !others; list(); render(); } }, t("curves.others", { n: away.length })));
      chips.replaceChildren(...made);
      if (focused) chips.querySelector(`[data-run="${CSS.escape(focused)}"]`)?.focus();
    }

    draw((value) => {
      data = value;
      list();
      render();
      read(null);
      const run = data.runs[data.order.at(-1)];
      figure.setAttribute("aria-label", value.words);
      if (run && value.spoken) say(newest, value.spoken);
    });
    on("baseline", (value) => { baseline = value; list(); render(); });
    on("settings", () => { list(); render(); });
    if (LoraLab.state.baseline) baseline = LoraLab.state.baseline;
    whenPlotly(render);
  });

  // What chance and habit would reach on the chosen task: lines in the charts, nothing of its own.
  define("baseline", ({ draw }) => draw((value) => LoraLab.emit("baseline", value)));

  // One line on how it goes, a bar, and what the last run showed.
  define("status", ({ element, draw, trigger }) => {
    // A press is answered, and what trains is heard of several times a second; what waits is not.
    const patience = insist(() => trigger("select", {}));
    document.addEventListener("click", ({ target }) => { if (target.closest("#start, #sweep, #go-on")) patience.heard(); });
    const words = node("span", {});
    const detail = node("span", { class: "status-detail expert" });
    const line = node("p", { class: "status-line", role: "status" }, words, " ", detail);
    const reason = node("p", { class: "hint reason expert" });
    const sentence = node("p", { class: "conclusion", role: "status" });
    const bar = node("div", { class: "progress", role: "progressbar", "aria-label": t("status.progress"),
      "aria-valuemin": 0, "aria-valuemax": 100 }, node("i"));
    // What Fine-tune trains is said where one presses: a table that was dropped, and not taken yet.
    const table = node("span", {});
    const back = node("button", { type: "button", class: "toggle",
      onclick: () => document.querySelector("#own-file button[aria-label]")?.click() });
    const dropped = node("p", { class: "shown-state", role: "status", hidden: true }, table, " ", back);
    on("dropped", (title) => {
      dropped.hidden = !title;
      if (!title) return;
      say(table, t("finetune.dropped", { table: title }));
      say(back, t("finetune.keep", { task: LoraLab.state.task?.title ?? "" }));
    });
    // What a run of another task showed is said to be of that one.
    let shown = {};
    function conclude() {
      const chosen = LoraLab.state.settings?.task;
      const away = Boolean(shown.sentence && shown.task && chosen && shown.task !== chosen);
      say(sentence, away ? t("status.of_other", { task: shown.title, sentence: shown.sentence }) : shown.sentence ?? "");
      sentence.classList.toggle("other", away);
    }
    on("settings", conclude);
    // Several runs are said in more words: the room for these is taken when one presses, not later.
    document.addEventListener("click", ({ target }) => {
      if (target.closest("#sweep") || (target.closest("#start") && LoraLab.state.compared?.length)) element.classList.add("several");
    });
    const kept = node("p", { class: "shown-state waits", role: "status", hidden: true });
    const wait = (words) => { kept.hidden = !words; say(kept, words); };
    on("kept", wait);
    wait(LoraLab.state.kept);
    element.append(kept, dropped, bar, line, reason, sentence);
    draw((value) => {
      say(words, value.line);
      say(detail, value.detail ?? "");
      say(reason, value.reason ?? "");
      shown = value;
      if (value.several) element.classList.add("several");
      conclude();
      const percent = Math.round(100 * (value.share ?? 0));
      bar.firstChild.style.width = `${100 * (value.share ?? 0)}%`;
      bar.setAttribute("aria-valuenow", percent);
      element.dataset.state = value.state;
      value.state === "running" ? patience.heard() : patience.over();
      LoraLab.emit("status", value.state);
    });
  });
})();
