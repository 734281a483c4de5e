// The board, for the projector. Everything that it shows is a figure; the pictures come drawn.
(() => {
  const { node, say, t } = LoraLab;
  const { listen, clock, swatch } = LabRoom;
  const board = document.getElementById("board");

  const title = node("h1");
  const question = node("p", { class: "question" });
  const goal = node("p", { class: "goal" });
  const notice = node("p", { class: "notice", role: "status" });
  const time = node("p", { class: "clock", role: "timer", "aria-label": t("room.clock") });
  const setClock = clock(time);
  const what = node("span");
  const leader = node("span", { class: "leader" });
  const figure = node("div", { class: "figure" });
  const code = node("div");
  const address = node("p", { class: "address" });
  const chartHead = node("p", { class: "chart-head" }, what, leader);
  const welcome = node("div", { class: "welcome" }, code,
    node("div", { class: "words" }, node("h2", {}, t("room.welcome")), address,
      node("p", {}, t("room.welcome_text")), node("p", {}, t("room.first_run"))));
  const big = node("p", { class: "big" });
  const voteLine = node("p");
  const voteFigure = node("div", { class: "figure" });
  const voteNarrow = node("div", { class: "narrow" });
  const votes = node("section", { class: "card votes-row", "aria-label": t("room.votes") },
    node("div", {}, node("h2", {}, t("room.votes")), big, voteLine), voteFigure, voteNarrow);
  const smallCode = node("div");
  const smallAddress = node("p", { class: "address" });
  const MOST_NAMES = 64; // eight rows of eight
  const joinText = node("div", {}, smallAddress);
  const join = node("section", { class: "card join" }, smallCode, joinText);
  const tally = node("p", { class: "tally" });
  const names = node("ul");
  const who = node("section", { class: "card who" }, node("h2", {}, t("room.who")), tally, names);
  const turns = node("ol");
  const queue = node("section", { class: "card turns" }, node("h2", {}, t("room.queue")), turns);
  const lost = node("p", { class: "lost", role: "alert", hidden: true }, t("room.lost"));
  const theme = node("button", { type: "button", class: "corner", onclick: () => LoraLab.toggleTheme() }, t("room.theme"));
  const side = node("aside", { class: "board-side" }, join, who, queue);
  board.append(
    node("header", { class: "board-head" }, node("div", { class: "what" }, title, question, goal), notice, time),
    node("main", { class: "board-main" },
      node("section", { class: "card chart" }, chartHead, figure, welcome), votes),
    side);
  document.body.append(lost, theme);

  let strip = false; // many names lie below everything, in rows
  let full = false; // and leave little for anything else
  let runs = 0;

  /** The small code is there once the large one is not. */
  function showJoin() {
    join.classList.toggle("plain", !runs);
    join.hidden = !runs && !strip;
  }

  const drawers = {
    lesson({ lesson }) {
      say(title, lesson.title || t("room.title"));
      say(question, lesson.question || t("room.no_exercise"));
      say(goal, lesson.goal);
      goal.hidden = !lesson.goal;
      notice.hidden = !lesson.over && !lesson.paused;
      say(notice, lesson.over ? t("room.over") : t("room.paused"));
    },
    clock({ clock: value }) { setClock(value); },
    join({ join: value }) {
      say(address, value.address);
      say(smallAddress, value.address);
      code.innerHTML = value.code; // the server's own drawing
      smallCode.innerHTML = value.code;
    },
    counts({ counts }) {
      tally.replaceChildren(...["here", "training", "waiting"].filter((name) => counts[name] || name === "here")
        .map((name) => node("span", { class: name }, t(`room.${name}`, { n: counts[name] }))));
    },
    pupils({ pupils, queue: value }) {
      strip = pupils.length > 20;
      board.classList.toggle("strip", strip);
      full = pupils.length > 32;
      board.classList.toggle("full", full);
      who.classList.toggle("some", pupils.length > 8);
      who.classList.toggle("count", !pupils.length);
      if (strip) joinText.append(tally);
      else names.before(tally);
      showJoin();
      names.hidden = !pupils.length;
      const shown = pupils.length > MOST_NAMES ? pupils.slice(0, MOST_NAMES - 1) : pupils;
      names.replaceChildren(...shown.map((pupil) => node("li", { "data-state": pupil.state },
        swatch(pupil.colour), node("span", {}, pupil.name),
        pupil.state === "training" || pupil.state === "waiting"
          ? node("span", { class: "state" }, t(`room.state_${pupil.state}`)) : null)),
      ...(shown === pupils ? [] : [node("li", {}, t("room.queue_more", { n: pupils.length - shown.length }))]));
      drawers.queue({ queue: value });
    },
    queue({ queue: value }) {
      const next = value.next.slice(0, full ? 1 : undefined);
      const more = value.more + value.next.length - next.length;
      queue.hidden = !value.next.length;
      board.classList.toggle("calm", queue.hidden);
      turns.replaceChildren(...next.map((one, index) => node("li", {},
        one.colour ? swatch(one.colour) : null, node("span", {}, one.name || `${index + 1}.`),
        node("span", { class: "when" }, one.when))),
      ...(more ? [node("li", {}, node("span", {}, t("room.queue_more", { n: more })),
        node("span", { class: "when" }, value.last || value.next.at(-1).when))] : []));
    },
    runs({ runs: value }) {
      what.replaceChildren(node("b", {}, value.task), ` · ${t("room.ended", { n: value.n })}`,
        ...(value.own ? [` · ${t("room.own_tables", { n: value.own })}`] : []));
      say(leader, value.leader);
      runs = value.n;
      chartHead.hidden = !runs;
      votes.hidden = !runs;
      showJoin();
    },
    scatter({ scatter }) {
      figure.innerHTML = scatter;
      figure.hidden = !scatter;
      welcome.hidden = Boolean(scatter);
    },
    votes({ votes: value }) {
      say(big, value.accuracy);
      say(voteLine, value.line);
      voteFigure.innerHTML = value.figure;
      voteNarrow.innerHTML = value.narrow;
    },
  };

  listen(() => "room/board", (state, changed) => {
    for (const name of changed) drawers[name]?.(state);
  }, { lost: (is) => { lost.hidden = !is; } });
})();
