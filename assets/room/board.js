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
  const votes = node("section", { class: "card votes-row", "aria-label": t("room.votes") },
    node("div", {}, node("h2", {}, t("room.votes")), big, voteLine), voteFigure);
  const smallCode = node("div");
  const smallAddress = node("p", { class: "address" });
  const join = node("section", { class: "card join" }, smallCode, smallAddress);
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
    pupils({ pupils }) {
      who.classList.toggle("some", pupils.length > 14);
      who.classList.toggle("many", pupils.length > 34);
      names.hidden = !pupils.length;
      names.replaceChildren(...pupils.map((pupil) => node("li", { "data-state": pupil.state },
        swatch(pupil.colour), node("span", {}, pupil.name),
        pupil.state === "training" || pupil.state === "waiting"
          ? node("span", { class: "state" }, t(`room.state_${pupil.state}`)) : null)));
    },
    queue({ queue: value }) {
      queue.hidden = !value.next.length;
      side.classList.toggle("calm", queue.hidden); // then the names are larger
      turns.replaceChildren(...value.next.map((one, index) => node("li", {},
        one.colour ? swatch(one.colour) : null, node("span", {}, one.name || `${index + 1}.`),
        node("span", { class: "when" }, one.when))),
      ...(value.more ? [node("li", {}, node("span", {}, t("room.queue_more", { n: value.more })),
        node("span", { class: "when" }, value.last))] : []));
    },
    runs({ runs }) {
      what.replaceChildren(node("b", {}, runs.task), ` · ${t("room.ended", { n: runs.n })}`,
        ...(runs.own ? [` · ${t("room.own_tables", { n: runs.own })}`] : []));
      say(leader, runs.leader);
      chartHead.hidden = !runs.n;
      votes.hidden = !runs.n;
      join.hidden = !runs.n; // the large one is there
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
    },
  };

  listen(() => "room/board", (state, changed) => {
    for (const name of changed) drawers[name]?.(state);
  }, { lost: (is) => { lost.hidden = !is; } });
})();
