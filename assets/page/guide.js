// Terms that are explained when pointed at, and the guided start: seven stops, each with something to do.
(() => {
  const { define, node, say, on, t, rich, isStill, state } = LoraLab;

  // ---- Terms: one line each, beside the word
  const tip = node("div", { class: "tip", role: "tooltip", id: "term-tip", hidden: true });
  document.body.append(tip);
  let about = null; // the term that is explained now

  function explain(term) {
    about?.setAttribute("aria-expanded", "false");
    about?.removeAttribute("aria-describedby");
    about = term;
    tip.hidden = !term;
    if (!term) return;
    say(tip, t(`term.${term.dataset.term}`));
    term.setAttribute("aria-expanded", "true");
    term.setAttribute("aria-describedby", "term-tip");
    const box = term.getBoundingClientRect();
    const [width, height] = [tip.offsetWidth, tip.offsetHeight];
    const left = Math.min(Math.max(8, box.left + box.width / 2 - width / 2), innerWidth - width - 8);
    const top = box.top - height - 8 > 8 ? box.top - height - 8 : box.bottom + 8;
    tip.style.left = `${left}px`;
    tip.style.top = `${top}px`;
  }

  const termOf = (event) => event.target.closest?.(".term");
  document.addEventListener("pointerover", (event) => {
    if (event.pointerType === "mouse" && !event.target.closest?.(".tip")) explain(termOf(event) ?? null);
  });
  document.addEventListener("focusin", (event) => explain(termOf(event) ?? null));
  document.addEventListener("click", (event) => {
    const term = termOf(event);
    explain(term ?? null);
    if (term) event.preventDefault(); // within a summary or a label: explained, not pressed
  });
  document.addEventListener("keydown", (event) => { if (event.key === "Escape") explain(null); });
  addEventListener("scroll", () => { if (about) explain(null); }, { passive: true, capture: true });

  // ---- The guided start
  const typed = () => document.querySelector("#text textarea")?.value ?? "";
  // Where each stop looks, and how it sees that its task was done.
  const STOPS = [
    { name: "text", where: "#classify", from: "#text", begin: () => typed(), done: (before) => typed() !== before && typed().trim() },
    { name: "task", where: "#about", begin: () => state.touched ?? 0, done: (before) => (state.touched ?? 0) > before },
    { name: "rank", where: "#rank", begin: () => state.rank, done: (before) => state.rank !== before },
    { name: "alpha", where: "#alpha", begin: () => state.alpha, done: (before) => state.alpha !== before },
    { name: "train", where: "#finetune", begin: () => null, done: () => ["running", "waiting"].includes(state.status) || state.status === "finished" },
    { name: "answer", where: "#followed", begin: () => null, done: () => ["finished", "stopped"].includes(state.status) },
    { name: "compare", where: "#compare", begin: () => (state.compared ?? []).length, done: (before) => (state.compared ?? []).length > before || state.status === "running" },
  ];

  define("guide", ({ element }) => {
    const title = node("h2", { id: "guide-title" });
    const text = node("p", {});
    const todo = node("p", { class: "guide-todo", role: "status" });
    const place = node("span", { class: "guide-place" });
    const button = (key, act, kind) => node("button", { type: "button", class: kind, onclick: act }, t(key));
    const back = button("guide.back", () => go(at - 1), "toggle");
    const next = button("guide.next", () => (at + 1 < STOPS.length ? go(at + 1) : leave()), "guide-next");
    const away = node("button", { type: "button", class: "guide-leave", "aria-label": t("guide.leave"), title: t("guide.leave"), onclick: () => leave() }, "×");
    const card = node("section", { class: "guide", role: "dialog", "aria-labelledby": "guide-title", hidden: true },
      node("div", { class: "guide-head" }, place, away), title, text, todo,
      node("div", { class: "guide-foot" }, back, next));
    element.append(card);
    let at = -1;
    let before = null;
    let lit = null;

    function light(target) {
      lit?.classList.remove("guide-lit");
      lit = target;
      lit?.classList.add("guide-lit");
    }

    function go(stop) {
      at = Math.max(0, stop);
      const { name, where, from, begin } = STOPS[at];
      card.hidden = false;
      document.body.classList.add("guided");
      say(place, t("guide.place", { stop: at + 1, stops: STOPS.length }));
      say(title, t(`guide.${name}`));
      text.replaceChildren(...rich(`guide.${name}_text`));
      before = begin();
      back.disabled = at === 0;
      say(next, t(at + 1 < STOPS.length ? "guide.next" : "guide.end"));
      const target = document.querySelector(where);
      light(target);
      // Never over what it speaks about.
      const box = target?.getBoundingClientRect();
      document.getElementById("guide").classList.toggle("left", Boolean(box && box.left > innerWidth / 2));
      // On a phone the card is below, so what it speaks about is above.
      const seen = innerWidth > 700 || !from ? target : document.querySelector(from);
      seen?.scrollIntoView({ block: innerWidth > 700 ? "center" : "start", behavior: isStill() ? "auto" : "smooth" });
      look();
      next.focus({ preventScroll: true });
    }

    function look() {
      if (at < 0) return;
      const { name, done } = STOPS[at];
      const ready = Boolean(done(before));
      card.classList.toggle("done", ready);
      say(todo, ready ? t(`guide.${name}_done`) : t(`guide.${name}_todo`));
    }

    function leave() {
      at = -1;
      card.hidden = true;
      document.body.classList.remove("guided");
      light(null);
      const query = new URLSearchParams(location.search);
      query.delete("tour");
      LoraLab.writeAddress(query);
      document.getElementById("guide-start")?.focus();
    }

    for (const name of ["rank", "alpha", "status", "compared", "settings", "touched"]) on(name, look);
    document.addEventListener("input", look);
    document.addEventListener("keydown", (event) => { if (event.key === "Escape" && at >= 0) leave(); });
    on("guide", () => go(0));
    if (state.guide) go(0); // pressed before this script was there
    // By a link: when the page is whole, or the first stop would scroll to where nothing is yet.
    const begin = () => at < 0 && go(0);
    if (new URLSearchParams(location.search).has("tour")) state.appeared ? begin() : on("appeared", begin);
  });
})();
