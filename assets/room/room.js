// What board, desk and a pupil's page share: a line to the server that comes back by itself, and a clock.
window.LabRoom = (() => {
  const { node, say } = LoraLab;
  let offset = 0; // the server's clock minus this one, in milliseconds

  const SILENCE = 40000; // milliseconds: the server says something every 15 s

  /** Listen to `address`; show(state, changed) gets all entries and the names of those that are new.
   *  A line that is cut or silent is made again; what comes first on it is everything. */
  function listen(address, show, { lost = () => {}, refused = () => {} } = {}) {
    let state = {};
    let source = null;
    let again = 0;
    let closed = false;
    let heard = 0;

    function open() {
      clearTimeout(again);
      if (closed) return;
      heard = Date.now();
      source?.close();
      source = new EventSource(address());
      source.onopen = () => { state = {}; };
      source.onmessage = (event) => {
        const { now, ...entries } = JSON.parse(event.data);
        heard = Date.now();
        offset = now - Date.now();
        state = { ...state, ...entries };
        lost(false);
        show(state, Object.keys(entries));
      };
      source.onerror = () => {
        lost(true);
        if (source.readyState !== EventSource.CLOSED) return; // the browser tries by itself
        refused();
        again = setTimeout(open, 1500);
      };
    }

    open();
    // A network that went away says nothing, and a browser waits for ever.
    setInterval(() => {
      if (closed || Date.now() - heard < SILENCE) return;
      lost(true);
      open();
    }, 5000);
    return {
      close() { closed = true; clearTimeout(again); source?.close(); },
      reopen() { closed = false; open(); },
    };
  }

  /** Minutes and seconds until `ends` (milliseconds since 1970, by the server's clock), null without. */
  function left(ends) {
    if (ends === null || ends === undefined) return null;
    return Math.max(0, Math.ceil((ends - Date.now() - offset) / 1000));
  }

  const spelled = (seconds) => `${Math.floor(seconds / 60)}:${String(seconds % 60).padStart(2, "0")}`;

  /** Keep `element` at the time that is left; call the result with each new clock. */
  function clock(element, without = "") {
    let ends = null;
    let timer = 0;
    function tick() {
      clearTimeout(timer);
      const seconds = left(ends);
      element.hidden = seconds === null && !without;
      element.classList.toggle("none", seconds === null);
      element.classList.toggle("late", seconds !== null && seconds <= 60);
      say(element, seconds === null ? without : spelled(seconds));
      if (seconds) timer = setTimeout(tick, 1000 - ((Date.now() + offset) % 1000) || 1000);
    }
    tick();
    return (value) => { ends = value?.ends ?? null; tick(); };
  }

  async function ask(path, body) {
    const prefix = new URL(".", document.baseURI).pathname.slice(0, -1);
    const headers = { "Content-Type": "application/json" };
    if (prefix) headers["X-Forwarded-Prefix"] = prefix;
    const answer = await fetch(path, { method: "POST", headers, body: JSON.stringify(body) });
    const said = await answer.json().catch(() => ({}));
    return { ok: answer.ok, status: answer.status, ...said };
  }

  const swatch = (colour) => {
    const made = node("span", { class: "swatch", "aria-hidden": "true" });
    made.style.setProperty("--hue", `var(--pupil-${colour})`);
    return made;
  };

  return { listen, clock, ask, swatch };
})();
