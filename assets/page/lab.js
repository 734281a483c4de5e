// What every part of the page shares: a registry of parts, colours, plot layouts, the theme switch.
// Parts are defined with LoraLab.define(kind, setup) and mounted by lora_core/ui/drawing/browser_part.py.
// It stands before Gradio's scripts: they call it, and forget without a word what they called in vain.
window.LoraLab ??= (() => {
  const parts = new Map();
  const waiting = new Map(); // kind -> mounts that came before their script
  const state = {}; // what the sliders of step 1 say right now, before the server knows
  const listeners = new Map();

  /** Define a part: setup({element, props, trigger, draw, on}) is called once for each of them. */
  function define(kind, setup) {
    parts.set(kind, setup);
    for (const mounted of waiting.get(kind) ?? []) start(kind, mounted);
    waiting.delete(kind);
  }

  function mount(kind, script, element, props, trigger, watch) {
    begin();
    const mounted = { element, props, trigger, watch };
    if (parts.has(kind)) start(kind, mounted);
    else waiting.set(kind, [...(waiting.get(kind) ?? []), mounted]);
  }

  function start(kind, { element, props, trigger, watch }) {
    const root = element.querySelector(`.lab-${kind}`);
    const draw = (callback) => {
      const safely = () => {
        const value = props.value; // "" stands for none in gr.HTML
        if (value !== null && value !== undefined && value !== "") callback(value);
      };
      watch("value", safely);
      on("theme", safely);
      safely();
    };
    parts.get(kind)({ element: root, props, trigger, draw, on });
    root.dataset.drawn = "";
  }

  const KEPT = ["view", "lock", "hide", "tour"]; // what an address may hold besides the settings
  const isSetting = (name) => !name.startsWith("__") && !KEPT.includes(name);
  const asksForSettings = [...new URLSearchParams(location.search).keys()].some(isSetting);

  /** The page appears, whole, in its own font and with what its link asks for, when all of its first
   *  screen is there. */
  function appear() {
    const controls = document.querySelectorAll(".set-task input, #start, #text textarea, #strength input[type=range], #followed .lab-part");
    const missing = document.querySelector(".banner .lab-part:not([data-drawn]), .bench .lab-part:not([data-drawn])");
    if (controls.length >= 5 && !missing && (state.restored || !asksForSettings))
      document.fonts.ready.then(() => { delete document.documentElement.dataset.loading; emit("appeared", true); });
    else requestAnimationFrame(appear);
  }

  /** Listen to a message between parts ("theme", "rank", "alpha", ...). */
  function on(name, callback) {
    listeners.set(name, [...(listeners.get(name) ?? []), callback]);
  }

  function emit(name, value) {
    state[name] = value;
    for (const callback of listeners.get(name) ?? []) callback(value);
  }

  const offered = new Map();

  /** What another script offers to Gradio's functions: offer("take", {...}) there, and here
   *  `(await LoraLab.offer("take")).link()`: the press may come before that script. */
  function offer(name, made) {
    if (!offered.has(name)) {
      let give;
      offered.set(name, { there: new Promise((resolve) => { give = resolve; }), give });
    }
    if (made) offered.get(name).give(made);
    return offered.get(name).there;
  }

  /** A sentence of the catalogue, in plain text: t("curves.log"), t("answer.base", {label, p}). */
  const t = (key, places = {}) => fill(key, places).map(([text, , place]) => place ?? text).join("");

  /** The same as nodes: what stands in a place may be an element, and terms can be pointed at. */
  const rich = (key, places = {}) => fill(key, places).map(([text, id, place]) =>
    place ?? (id ? node("button", { type: "button", class: "term", "data-term": id, "aria-expanded": "false" }, text) : text));

  /** A sentence cut at its places and terms: [text, term, what stands in the place]. */
  function fill(key, places) {
    let text = window.LabSentences[key];
    if (text === undefined) throw new Error(`No sentence is called ${key}.`);
    if (typeof text === "object") text = places.n === 1 ? text.one : text.other;
    return text.replaceAll("} %", "}\u00a0%").split(/(\{[a-z_]+\}|\[\[[a-z-]+\|[^\]]+\]\])/).filter(Boolean).map((piece) => {
      const name = /^\{([a-z_]+)\}$/.exec(piece)?.[1];
      if (name) {
        const value = places[name];
        if (value === undefined) throw new Error(`${key} needs ${name}.`);
        return [piece, null, typeof value === "number" ? value.toLocaleString("en") : joined(value)];
      }
      const term = /^\[\[([a-z-]+)\|([^\]]+)\]\]$/.exec(piece);
      return term ? [term[2], term[1]] : [piece];
    });
  }

  /** The present value of a colour of theme.py. */
  function colour(name) {
    return getComputedStyle(document.body).getPropertyValue(`--${name}`).trim();
  }

  /** The same colour, see-through: alpha from 0 to 1. */
  function tint(name, alpha) {
    const hex = name.startsWith("#") ? name : colour(name);
    const [r, g, b] = [1, 3, 5].map((i) => parseInt(hex.slice(i, i + 2), 16));
    return `rgba(${r},${g},${b},${alpha})`;
  }

  const RUN_COLOURS = 8;

  /** How the run that was started as number `index` is drawn: eight colours, then the same eight with
   *  another dash and another shape. */
  function series(index) {
    const name = `run-${index % RUN_COLOURS}`;
    return { colour: colour(name), variable: `var(--${name})`, round: Math.floor(index / RUN_COLOURS) };
  }

  const isDark = () => document.body.classList.contains("dark");
  const isStill = () => matchMedia("(prefers-reduced-motion: reduce)").matches;

  const fontFamily = () => getComputedStyle(document.querySelector(".gradio-container")).fontFamily;

  /** A Plotly layout in the page's look, with `extra` merged over it (one level deep). */
  function layout(extra = {}) {
    const axis = {
      gridcolor: colour("rule"), zerolinecolor: colour("rule"), linecolor: colour("edge"),
      ticks: "outside", tickcolor: colour("rule"), ticklen: 4, automargin: true,
    };
    const base = {
      font: { family: fontFamily(), size: 12, color: colour("muted") },
      paper_bgcolor: "rgba(0,0,0,0)", plot_bgcolor: "rgba(0,0,0,0)",
      margin: { l: 46, r: 12, t: 10, b: 36 }, showlegend: false, uirevision: "kept",
      hoverlabel: {
        bgcolor: colour("card"), bordercolor: colour("edge"),
        font: { color: colour("ink"), family: fontFamily(), size: 12 },
      },
    };
    const merged = { ...base, ...extra };
    for (const key of Object.keys(merged))
      if (/^[xy]axis\d*$/.test(key)) merged[key] = { ...axis, ...merged[key] };
    return merged;
  }

  /** Options of every Plotly figure here. */
  const plotOptions = {
    responsive: true, displayModeBar: false, doubleClick: "reset",
  };

  /** Make an element: node("p", {class: "x"}, "text", child, ...). Text is never read as HTML. */
  function node(tag, attributes = {}, ...children) {
    const made = document.createElement(tag);
    for (const [name, value] of Object.entries(attributes)) {
      if (name.startsWith("on")) made.addEventListener(name.slice(2), value);
      else if (value === true) made.setAttribute(name, "");
      else if (value !== false && value !== null && value !== undefined)
        made.setAttribute(name, value);
    }
    made.append(...children.filter((child) => child !== null && child !== undefined));
    return made;
  }

  /** Make a part of a drawing: svg("text", {x: 1, y: 2}, "W"). */
  function svg(tag, attributes = {}, text = null) {
    const made = document.createElementNS("http://www.w3.org/2000/svg", tag);
    for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, value);
    if (text !== null) made.textContent = text;
    return made;
  }

  /** Put a text on the clipboard; false where the browser does not allow it. */
  async function clip(text) {
    try {
      await navigator.clipboard.writeText(text);
      return true;
    } catch {
      return false;
    }
  }

  /** "95.9 %" with a space that no line is broken at: a unit never begins a line. */
  function joined(text) {
    return typeof text === "string" ? text.replaceAll(/(\d) (?=%|(?:[kMG]B|bytes|s|min|h)\b)/g, "$1\u00a0") : text;
  }

  /** The same names, as short as they are told apart: rank or method, and of those alike in it what
   *  makes the difference. "r 8, α 16, 300 steps" is "r 8" where no other has that rank. */
  function brief(names) {
    const cut = names.map((name) => name.split(", "));
    return cut.map(([first, ...rest], i) => {
      const alike = cut.filter((parts, j) => j !== i && parts[0] === first);
      const tells = (chosen) => alike.every((parts) => !chosen.every((part) => parts.includes(part)));
      const pairs = rest.flatMap((a, k) => rest.slice(k + 1).map((b) => [a, b]));
      const chosen = [[], ...rest.map((part) => [part]), ...pairs].find(tells) ?? rest;
      return [first, ...chosen].join(", ");
    });
  }

  const SILENCE = 20000; // ms after which an answer that is awaited may have been lost on its way

  /** Ask again where nothing is heard of what is awaited: a stream may end unread, and says nothing of
   *  it. Each time it waits twice as long; `heard` begins anew, `over` ends it. */
  function insist(again) {
    let pause = SILENCE;
    let timer = 0;
    const over = () => clearTimeout(timer);
    function wait() {
      over();
      timer = setTimeout(() => { pause *= 2; wait(); again(); }, pause);
    }
    return { over, heard: () => { pause = SILENCE; wait(); } };
  }

  /** The right edge of a table fades while there is more of it to the right. */
  function cue(scroll) {
    const look = () => scroll.classList.toggle("more", scroll.scrollLeft + scroll.clientWidth < scroll.scrollWidth - 2);
    scroll.addEventListener("scroll", look);
    new ResizeObserver(look).observe(scroll);
    return look;
  }

  /** Write text only when it changed, so that nothing flickers and readers are not interrupted. */
  function say(element, text) {
    const written = joined(text ?? "");
    if (element.textContent !== written) element.textContent = written;
  }

  /** A teacher's link: `lock=rank,alpha` fixes settings, `hide=method,inside` hides them or panels. */
  function preset(kind) {
    const asked = new URLSearchParams(location.search).get(kind) ?? "";
    const exercise = kind === "lock" ? state.locked ?? [] : []; // in a room
    return [...asked.split(","), ...exercise].filter((name) => /^[a-z_]+$/.test(name));
  }

  function hideAsked() {
    const names = preset("hide");
    if (!names.length) return;
    const rules = names.map((name) => `.set-${name}, #${name}:is(.card, .fold, button)`);
    document.head.append(node("style", {}, `${rules.join(", ")} { display: none !important; }`));
  }

  /** What the controls of step 1 hold: told to the parts, and put into the address where it differs
   *  from the defaults. */
  function settings({ names, defaults }, values) {
    const query = new URLSearchParams();
    const chosen = {};
    names.forEach((name, i) => {
      const value = values[i] === null || values[i] === "" ? defaults[i] : values[i];
      chosen[name] = value;
      if (String(value) !== String(defaults[i])) query.set(name, String(value));
    });
    setAddress(query);
    emit("settings", chosen);
  }

  /** Replace the settings in the address; what is not one stays (the theme, for instance). */
  function setAddress(query) {
    for (const [name, value] of new URLSearchParams(location.search))
      if (!isSetting(name)) query.append(name, value);
    writeAddress(query);
  }

  function writeAddress(query) {
    const text = query.toString().replaceAll("%2C", ",").replaceAll("%2F", "/");
    const url = location.pathname + (text ? `?${text}` : "") + location.hash;
    if (url !== location.pathname + location.search + location.hash)
      history.replaceState(history.state, "", url);
  }

  /** "simple" or "full": kept for this visitor, and in the link. */
  function setView(view) {
    document.documentElement.dataset.view = view;
    try { localStorage.setItem("lora-lab-view", view); } catch { /* private */ }
    const query = new URLSearchParams(location.search);
    query.set("view", view);
    writeAddress(query);
    emit("view", view);
    dispatchEvent(new Event("resize")); // figures measure themselves again
  }

  /** Copy the address of the page, and say so on the button for a moment. */
  async function copyLink(id) {
    const button = document.getElementById(id);
    const copied = await clip(location.href);
    const { name = button.textContent, timer } = button.dataset; // a name: it is pressed again
    clearTimeout(timer);
    button.textContent = t(copied ? "page.copied" : "page.copy_by_hand");
    button.dataset.name = name;
    button.dataset.timer = setTimeout(() => {
      button.textContent = name;
      delete button.dataset.name;
    }, copied ? 1800 : 5000);
  }

  function toggleTheme() {
    document.body.classList.toggle("dark");
    try { localStorage.setItem("lora-lab-theme", isDark() ? "dark" : "light"); } catch { /* private */ }
  }

  function restoreTheme() {
    if (new URLSearchParams(location.search).has("__theme")) return;
    let kept = null;
    try { kept = localStorage.getItem("lora-lab-theme"); } catch { /* private */ }
    if (kept) document.body.classList.toggle("dark", kept === "dark");
  }

  // plotly.js is four megabytes: it is fetched when the page stands and nobody waits for it.
  let plotly = null;
  function whenPlotly(callback) {
    plotly ??= new Promise((ready) => {
      const fetch = () => document.head.append(
        node("script", { src: window.LabPlotly, onload: ready, async: true }));
      const idle = window.requestIdleCallback ?? ((call) => setTimeout(call, 200));
      document.readyState === "complete" ? idle(fetch) : addEventListener("load", () => idle(fetch));
    });
    plotly.then(callback);
  }

  define("view", ({ element }) => {
    const buttons = ["simple", "full"].map((view) => node("button", {
      type: "button", class: "view-choice", "data-view": view, title: t(`page.view_${view}_about`),
      onclick: () => setView(view) }, t(`page.view_${view}`)));
    const mark = () => buttons.forEach((button) => button.setAttribute("aria-pressed",
      String(button.dataset.view === document.documentElement.dataset.view)));
    element.append(node("div", { class: "view", role: "group", "aria-label": t("page.view") }, ...buttons));
    on("view", mark);
    mark();
  });

  /** Remember the text that the next runs follow, too; "" for none. For Gradio: values of the hidden
   *  text and of the button that ends it. */
  function pin(text) {
    const kept = (text ?? "").trim() ? text : "";
    emit("pinned", kept);
    return [kept, { __type__: "update", interactive: Boolean(kept) }];
  }

  let begun = false;
  function begin() { // with the first part: Gradio has set its theme by then
    if (begun) return;
    begun = true;
    restoreTheme();
    new MutationObserver(() => emit("theme", isDark()))
      .observe(document.body, { attributes: true, attributeFilter: ["class"] });
  }

  hideAsked();
  on("stands", appear);
  if (document.body) begin(); // a page of the room's, without Gradio

  return {
    define, mount, on, emit, state, offer, colour, tint, series, layout, plotOptions, node, svg, clip, say, joined, brief, cue, t, rich, settings,
    setView, writeAddress, whenPlotly, pin, copyLink, toggleTheme, isDark, isStill, preset, insist,
  };
})();
