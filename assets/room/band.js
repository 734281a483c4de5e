// A pupil's part of the room: who one is, the exercise that is offered, the clock.
(() => {
  const { define, node, say, t, on, emit } = LoraLab;
  const { listen, clock, ask, swatch } = LabRoom;

  define("band", ({ element, trigger }) => {
    const hue = node("span");
    const name = node("b", { class: "band-name" });
    const rename = node("button", { type: "button", class: "toggle", "aria-expanded": "false", onclick: choose }, t("room.rename"));
    const names = node("div", { class: "band-names", role: "group", "aria-label": t("room.rename_choose"), hidden: true });
    const title = node("b");
    const question = node("span", { class: "band-question" });
    const may = node("span", { class: "band-may" });
    const use = node("button", { type: "button", class: "band-use", title: t("room.use_hint"), onclick: apply }, t("room.use"));
    const exercise = node("div", { class: "band-exercise", hidden: true },
      node("p", {}, title, " ", question, " ", may), use);
    const notice = node("p", { class: "band-notice", role: "status", hidden: true });
    const time = node("p", { class: "band-clock", role: "timer", "aria-label": t("room.clock") });
    const setClock = clock(time);
    const strip = node("section", { class: "band", "aria-label": t("room.title"), hidden: true },
      node("div", { class: "band-me" }, node("span", { class: "band-you" }, t("room.you_are")), hue, name, rename, names),
      exercise, notice, time);
    element.append(strip);

    let ticket = "";
    let visitor = "";
    let line = null;
    let held = 0; // the offer whose settings these controls have
    let asked = 0; // until when the server may not know yet of a press here
    let now = null;

    function show(state) {
      now = state;
      strip.hidden = false;
      hue.replaceChildren(swatch(state.me.colour));
      say(name, state.me.name);
      const { exercise: one, lesson, using } = state;
      if (using?.offer === held) asked = 0;
      else if (Date.now() > asked) hold(using);
      exercise.hidden = !one;
      if (one) {
        say(title, one.title);
        say(question, one.question);
        say(may, one.may);
        const inUse = held === one.offer;
        say(use, t(inUse ? "room.used" : "room.use"));
        use.classList.toggle("done", inUse);
      }
      notice.hidden = !lesson.paused && !lesson.over;
      say(notice, lesson.over ? t("room.over") : lesson.paused ? t("room.paused") : "");
      setClock(state.clock);
    }

    function apply() {
      held = now.exercise.offer;
      asked = Date.now() + 10000;
      emit("locked", now.exercise.locked);
      trigger("select", { act: "take" });
      show(now);
    }

    /** Fix what the exercise in use fixes: after a reload, in another tab. Without one nothing is. */
    function hold(using) {
      if (!using && !held) return;
      held = using?.offer ?? 0;
      emit("locked", using?.locked ?? []);
      trigger("select", { act: "hold" });
    }

    async function choose() {
      if (!names.hidden) return shut();
      const answer = await ask("room/name", { ticket });
      if (!answer.ok) return join();
      names.replaceChildren(...answer.names.map((one) => node("button", { type: "button", class: "toggle",
        onclick: () => take(one.name) }, swatch(one.colour), ` ${one.name}`)));
      names.hidden = false;
      rename.setAttribute("aria-expanded", "true");
      names.firstElementChild?.focus();
    }

    async function take(chosen) {
      const answer = await ask("room/name", { ticket, name: chosen });
      shut();
      if (!answer.ok) choose(); // somebody was faster: others are offered
    }

    function shut() {
      if (!names.hidden && names.contains(document.activeElement)) rename.focus();
      names.hidden = true;
      rename.setAttribute("aria-expanded", "false");
    }
    names.addEventListener("keydown", (event) => { if (event.key === "Escape") shut(); });

    async function join() {
      line?.close();
      const answer = await ask("room/join", { visitor }).catch(() => null);
      if (!answer?.ok) { setTimeout(join, 4000); return; }
      ticket = answer.ticket;
      line = listen(() => `room/pupil?ticket=${encodeURIComponent(ticket)}`, show, { refused: () => { line.close(); setTimeout(join, 3000); } });
      if (document.hidden) line.close();
    }

    // A tab that nobody sees holds no connection: a browser has six for one host.
    document.addEventListener("visibilitychange", () => {
      if (document.hidden) line?.close();
      else line?.reopen();
    });
    on("visitor", (token) => {
      if (!token || token === visitor) return;
      visitor = token;
      join();
    });
    if (LoraLab.state.visitor) { visitor = LoraLab.state.visitor; join(); }
  });
})();
