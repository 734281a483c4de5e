// The desk: what the teacher sets. The key is in the part of the link that no browser sends; it goes
// to the server once, in a request's body, and out of the address at once.
(() => {
  const { node, say, t } = LoraLab;
  const { listen, clock, ask, swatch } = LabRoom;
  const desk = document.getElementById("desk");
  const key = unescaped(location.hash.slice(1));
  if (key) history.replaceState(null, "", location.pathname + location.search);

  function unescaped(text) {
    try { return decodeURIComponent(text); } catch { return text; }
  }

  addEventListener("hashchange", () => { if (location.hash.length > 1) location.reload(); }); // the link again

  let drawn = null;
  let line = null;

  function closed() {
    line?.close();
    drawn = null;
    desk.replaceChildren(node("p", { class: "desk-closed" }, t("room.desk_closed")));
  }

  async function enter() {
    if (key) await ask("room/enter", { key }).catch(() => null);
    line = listen(() => "room/desk", show, {
      lost: (is) => { if (drawn) drawn.lost.hidden = !is; },
      refused: async () => { // by a server that does not know this desk, or by one that is away
        const found = await fetch("room/runs.csv", { method: "HEAD" }).catch(() => null);
        if (found?.status !== 404) return;
        if (key && (await ask("room/enter", { key }).catch(() => null))?.ok) return;
        closed();
      },
    });
  }

  function build() {
    const said = node("p", { class: "desk-said", role: "alert" });
    async function act(what, value) {
      const answer = await ask("room/do", { do: what, value }).catch(() => ({ detail: t("room.lost") }));
      say(said, answer.ok ? "" : answer.detail ?? "");
    }
    const button = (words, act_, kind = "") => node("button", { type: "button", class: `does ${kind}`, onclick: act_ }, words);
    /** A button that asks once more, on itself. */
    function grave(words, sure, act_) {
      let timer = 0;
      const made = button(words, () => {
        clearTimeout(timer);
        if (made.classList.contains("sure")) { calm(); act_(); return; }
        made.classList.add("sure");
        say(made, sure);
        timer = setTimeout(calm, 4000);
      }, "grave");
      function calm() { made.classList.remove("sure"); say(made, words); }
      return made;
    }

    let state = {};
    const tally = node("p", { class: "tally" });
    const lost = node("p", { class: "lost", role: "alert", hidden: true }, t("room.lost"));
    const exercises = node("ul", { class: "exercises" });
    const none = button(t("room.desk_none"), () => act("offer", 0));
    const time = node("p", { class: "desk-clock", role: "timer", "aria-label": t("room.clock") });
    const setClock = clock(time, t("room.desk_clock_none"));
    const add = (n) => button(t("room.desk_clock_add", { n }), () => act("more", 60 * n));
    const clockOff = button(t("room.desk_clock_off"), () => act("clock", 0));
    const pause = button("", () => act("pause", !state.lesson.paused));
    const stop = grave(t("room.desk_stop"), t("room.desk_stop_sure"), () => act("stop"));
    const namesButton = button("", () => act("names", !state.lesson.names));
    const reveal = button("", () => act("reveal", !state.lesson.revealed));
    const boardState = node("p", { class: "hint" });
    const end = grave(t("room.desk_end"), t("room.desk_end_sure"), () => act("end"));
    const begin = grave(t("room.desk_begin"), t("room.desk_begin_sure"), () => act("begin"));
    const over = node("p", { class: "hint" }, t("room.over"));
    const rows = node("tbody");
    const nobody = node("p", { class: "hint" }, t("room.desk_nobody"));
    const table = node("table", { class: "pupils" }, node("thead", {}, node("tr", {},
      ...["name", "state", "number", "best"].map((name) => node("th", { scope: "col" }, t(`room.desk_${name}`))))), rows);
    const link = node("b");
    const card = (title, ...inside) => node("section", { class: "card" }, node("h2", {}, t(title)), ...inside);
    desk.replaceChildren(
      node("header", { class: "desk-head" }, node("h1", {}, t("room.desk")), tally,
        node("a", { class: "does", href: "board", target: "_blank", rel: "noopener" }, t("room.desk_open_board")),
        button(t("room.theme"), () => LoraLab.toggleTheme())),
      said,
      node("main", { class: "desk-grid" },
        node("div", {},
          card("room.desk_exercises", exercises, node("div", { class: "doing" }, none)),
          card("room.desk_pupils", nobody, table)),
        node("div", {},
          card("room.desk_clock", time, node("div", { class: "doing" }, add(1), add(5), add(10), clockOff)),
          card("room.desk_runs", node("div", { class: "doing" }, pause, stop)),
          card("room.desk_board", node("div", { class: "doing" }, namesButton, reveal), boardState,
            node("p", { class: "hint" }, t("room.desk_link"), ": ", link)),
          card("room.desk_remains", node("div", { class: "doing" },
            node("a", { class: "does", href: "room/runs.csv" }, t("room.desk_csv")),
            node("a", { class: "does", href: "room/report.html" }, t("room.desk_report"))),
          node("p", { class: "hint" }, t("room.desk_remains_text"))),
          node("section", { class: "card" }, node("div", { class: "doing" }, end, begin), over))),
      lost);

    const offers = new Map();
    function draw(now, changed) {
      state = now;
      const { lesson } = now;
      if (changed.includes("exercises")) {
        offers.clear();
        exercises.replaceChildren(...now.exercises.map((one) => {
          const on = node("span", { class: "on" });
          const offer = button(t("room.desk_offer"), () => act("offer", one.number));
          const about = [one.minutes ? t("room.desk_minutes", { n: one.minutes }) : "", one.goal ? t("room.desk_goal", { most: one.goal }) : ""].filter(Boolean).join(" · ");
          const row = node("li", {}, node("div", {}, node("b", {}, `${one.number}. ${one.title}`), node("p", {}, one.question),
            node("p", {}, about, about ? " " : "", on)), offer);
          offers.set(one.number, { row, offer, on });
          return row;
        }));
      }
      for (const [number, { row, offer, on }] of offers) {
        const offered = lesson.offered === number;
        row.dataset.on = String(offered);
        say(on, offered ? t("room.desk_offered") : "");
        say(offer, t(offered ? "room.desk_again" : "room.desk_offer"));
        offer.classList.toggle("main", !offered);
        offer.disabled = lesson.over;
      }
      none.disabled = lesson.over || !lesson.offered;
      tally.replaceChildren(...["here", "training", "waiting", "ended"].map((name) => node("span", {}, t(`room.${name}`, { n: now.counts[name] }))));
      setClock(now.clock);
      clockOff.disabled = !now.clock.ends;
      say(pause, t(lesson.paused ? "room.desk_unpause" : "room.desk_pause"));
      pause.classList.toggle("main", lesson.paused);
      for (const one of [pause, stop, end]) one.disabled = lesson.over;
      begin.hidden = !lesson.over;
      end.hidden = lesson.over;
      over.hidden = !lesson.over;
      say(namesButton, t(lesson.names ? "room.desk_names_hide" : "room.desk_names_show"));
      say(reveal, t(lesson.revealed ? "room.desk_conceal" : "room.desk_reveal"));
      say(boardState, `${t(lesson.names ? "room.desk_names_state_on" : "room.desk_names_state")} ${t(lesson.revealed ? "room.desk_test_state_on" : "room.desk_test_state")}`);
      say(link, now.join.address);
      nobody.hidden = Boolean(now.pupils.length);
      table.hidden = !now.pupils.length;
      if (changed.includes("pupils"))
        rows.replaceChildren(...now.pupils.map((one) => node("tr", {},
          node("td", {}, swatch(one.colour), one.name), node("td", {}, t(`room.state_${one.state}`)),
          node("td", {}, String(one.runs)), node("td", {}, one.best))));
    }
    return { draw, lost };
  }

  function show(state, changed) {
    const first = drawn === null;
    drawn ??= build();
    drawn.draw(state, first ? Object.keys(state) : changed);
  }

  enter();
})();
