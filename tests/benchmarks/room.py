"""A whole lesson with scripted pupils against a real server: waits, lags, losses, leaks.

    python -m tests.benchmarks.room --pupils 30             the lesson, and the page beside it
    python -m tests.benchmarks.room --pupils 60 --steps 20  a larger class, fewer and shorter runs

Each pupil joins, chooses a name, keeps its page's line open, types texts, and trains what each
exercise asks for; some bring a table of their own. The teacher offers exercises, sets the clock,
pauses, shows names, reveals and ends. Two boards are open; the line of one is cut in the middle.
What takes the time is the training: runs times seconds, through as many workers as there are cores.
So a class of more than thirty trains in as many exercises as make about 120 runs, unless `--rounds`
says otherwise; how far it is, is printed.
Everything that is sent is kept and searched for what a visitor typed, for tokens, for ids and for
the key.

How late a run is on the board is counted from the last moment at which `/watch` may not have known
its end, so it is an upper bound. Exit status 1 unless 95 % of all changes are on the board within a
second, nothing is lost, nothing leaks, and with a room the page and an answer take at most a tenth
longer than without.
"""

from __future__ import annotations

import argparse
import contextlib
import csv
import io
import json
import os
import random
import secrets
import statistics
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import httpx

from lora_core.limits import Limits
from lora_core.room.exercises import Exercise
from lora_core.room.key import VARIABLE
from lora_core.ui.api import POLL_SECONDS
from lora_core.ui.room_setup import exercises_of
from lora_core.ui.settings import Settings
from tests.benchmarks.load import row
from tests.benchmarks.served import server
from tests.room.served import Line
from tests.servers import free_port

_PATIENCE = 1800.0  # seconds for everybody's runs of one exercise
_WITHIN = 1.0  # seconds in which a change is to be on the board
_TENTH = 1.1
_RUNS = 120  # of a lesson, about
_NEWS = 15.0  # seconds between two lines of progress


@dataclass
class Lesson:
    """What the teacher and all pupils share."""

    url: str
    steps: int
    exercises: list[Exercise]
    typed: list[str] = field(default_factory=list)  # what must be in nothing that is sent
    ends: list[float] = field(default_factory=list)  # when pupils learnt of their runs' ends
    results: dict[str, float] = field(default_factory=dict)  # validation accuracy, by seed and rank
    runs: int = 0
    voters: set[str] = field(default_factory=set)  # whose adapters vote on the last task
    errors: list[str] = field(default_factory=list)
    lock: threading.Lock = field(default_factory=threading.Lock)


def call(client: httpx.Client, name: str, data: list[Any]) -> Iterator[tuple[str, Any]]:
    """An endpoint of the web API, as curl calls it: (event, data) as they come."""
    address = f"/gradio_api/call/{name}"
    made = client.post(address, json={"data": data}).json()
    with client.stream("GET", f"{address}/{made['event_id']}") as answer:
        event = ""
        for text in answer.iter_lines():
            if text.startswith("event: "):
                event = text[7:]
            elif text.startswith("data: "):
                yield event, json.loads(text[6:])
                if event in ("complete", "error"):
                    return


def fine_tune(lesson: Lesson, client: httpx.Client, token: str, settings: Settings) -> None:
    """One run from the click to its end, with a text that is followed."""
    text = f"typed {secrets.token_hex(8)}"
    rows: list[list[str]] = []
    name = settings.task
    if settings.seed % 50 == 42:  # a table of one's own, with a name and labels that are texts
        name, labels = f"table {secrets.token_hex(8)}", [secrets.token_hex(8) for _ in range(2)]
        rows = [[f"{secrets.token_hex(4)} {'ab'[i % 2]}", labels[i % 2]] for i in range(60)]
        with lesson.lock:
            lesson.typed += [name, *labels]
    s = settings
    data = [name, s.base, s.method, s.rank, s.alpha, list(s.targets), s.scaling, s.head, s.dropout]
    data += [s.learning_rate, s.steps, s.batch_size, s.seed, [text], rows, token]
    *_, (event, answer) = call(client, "fine_tune", data)
    if event != "complete":
        raise RuntimeError(f"refused: {answer}")
    run = answer[0]
    with lesson.lock:
        lesson.typed += [text, run]
        lesson.runs += 1
    for event, _ in call(client, "watch", [run, 0]):
        if event == "complete":
            break
    ended = time.monotonic()
    (_, (update,)), *_ = list(call(client, "watch", [run, 0]))
    best = [e for e in update["events"] if e["kind"] == "evaluated" and e["best"]]
    with lesson.lock:
        lesson.ends.append(ended)
        key = f"{'own table' if rows else name} r{s.rank} seed {s.seed} steps {s.steps}"
        lesson.results[key] = best[-1]["validation_accuracy"] if best else -1.0
        if name == "sentiment":
            lesson.voters.add(token)
    *_, (event, answer) = call(client, "classify", [run, [text], 1])
    if event != "complete" or not answer[0][0]["label"]:
        raise RuntimeError(f"no answer: {answer}")


class Pupil:
    """A scripted one, in a thread of its own."""

    def __init__(self, lesson: Lesson, number: int) -> None:
        self.lesson, self.number = lesson, number
        self.token = secrets.token_urlsafe(32)
        self.chance = random.Random(number)
        self.client = httpx.Client(base_url=lesson.url, timeout=_PATIENCE)
        with lesson.lock:
            lesson.typed.append(self.token)
        ticket = self.client.post("/room/join", json={"visitor": self.token}).json()["ticket"]
        names = self.client.post("/room/name", json={"ticket": ticket}).json()["names"]
        chosen = {"ticket": ticket, "name": self.chance.choice(names)["name"]}
        self.client.post("/room/name", json=chosen)
        self.line = Line(f"{lesson.url}/room/pupil?ticket={ticket}")
        self.line.wait(lambda s: "me" in s)

    def does(self, exercise: Exercise) -> None:
        """Wait until it is offered here, then train within what it leaves open."""
        try:
            self.line.wait(
                lambda s: s["exercise"] and s["exercise"]["number"] == exercise.number, _PATIENCE
            )
            open_to = exercise.may_change or ()
            given = {**exercise.settings, "steps": self.lesson.steps + self.number % 7}
            given["seed"] = 10 * self.number + exercise.number
            if "rank" in open_to:
                most = 4 if exercise.most_trained else 64
                given["rank"] = self.chance.choice([r for r in (1, 2, 4, 8, 16, 32) if r <= most])
            fine_tune(self.lesson, self.client, self.token, Settings.read(given))
        except Exception as error:
            with self.lesson.lock:
                self.lesson.errors.append(f"pupil {self.number}: {type(error).__name__}: {error}")


class Teacher:
    """At the desk; notes how long each change takes to both boards and to all pupils."""

    def __init__(self, url: str, key: str, lines: Callable[[], list[Line]]) -> None:
        self.client = httpx.Client(base_url=url, timeout=120)
        assert self.client.post("/room/enter", json={"key": key}).status_code == 200
        self.lines, self.lags = lines, list[float]()

    def does(self, what: str, value: object, seen: Callable[[dict[str, Any]], bool]) -> None:
        """Press a button, and wait until everybody has seen it."""
        lines = self.lines()
        begin = time.monotonic()
        answer = self.client.post("/room/do", json={"do": what, "value": value})
        assert answer.status_code == 200, answer.text
        for line in lines:
            line.wait(seen)
            first = next(t for t in reversed(line.times) if t >= begin)
            for raw, at in zip(line.raw, line.times, strict=False):
                if at >= begin and seen_in(line, raw, seen):
                    first = at
                    break
            self.lags.append(first - begin)


def seen_in(line: Line, raw: str, seen: Callable[[dict[str, Any]], bool]) -> bool:
    """Whether one message brought what was waited for."""
    with contextlib.suppress(KeyError, TypeError):
        return seen(json.loads(raw[6:]))
    return False


def lesson(pupils: int, steps: int, rounds: int) -> list[str]:
    """Play it, with runs in the last `rounds` of its exercises; what went wrong, in sentences."""
    key = secrets.token_urlsafe(24)
    os.environ[VARIABLE] = key
    wrong: list[str] = []
    with server(free_port(), "--room") as (url, _):
        played = Lesson(url, steps, exercises_of(None, Limits()))
        played.typed.append(key)
        boards = [Line(f"{url}/room/board") for _ in range(2)]
        begin = time.monotonic()
        class_ = [Pupil(played, number) for number in range(pupils)]
        lines = lambda: [*boards, *(pupil.line for pupil in class_)]  # noqa: E731
        teacher = Teacher(url, key, lambda: boards)
        desk = Line(f"{url}/room/desk", cookies=teacher.client.cookies)
        boards[0].wait(lambda s: s["counts"]["here"] == pupils)
        teacher.does("clock", 1800, lambda s: bool(s["clock"]["ends"]))
        cut: list[str] = []
        trained = [e.number for e in played.exercises if e.settings.get("steps")]
        trained = trained[max(0, len(trained) - rounds) :]
        print(
            f"{pupils} pupils have joined after {time.monotonic() - begin:.0f} s; they train in "
            f"exercises {', '.join(map(str, trained))}: {pupils * len(trained)} runs",
            flush=True,
        )
        for exercise in played.exercises:
            title = exercise.title
            teacher.does("offer", exercise.number, lambda s, t=title: s["lesson"]["title"] == t)  # type: ignore[misc]
            if exercise.number not in trained:
                continue  # one to look at and talk about
            threads = [threading.Thread(target=p.does, args=(exercise,)) for p in class_]
            for thread in threads:
                thread.start()
            teacher.does("pause", True, lambda s: s["lesson"]["paused"])
            teacher.does("pause", False, lambda s: not s["lesson"]["paused"])
            if exercise.most_trained:  # the line of one board is cut
                cut += boards[1].raw
                boards[1].close()
                boards[1] = Line(f"{url}/room/board")
            follow(threads, f"exercise {exercise.number}", begin)
        teacher.does("names", True, lambda s: bool(s["pupils"]))
        boards[0].wait(lambda s: s["counts"]["ended"] == played.runs)
        for board in boards:
            board.wait(lambda s: s["votes"]["n"] == len(played.voters))
        teacher.does("reveal", True, lambda s: s["runs"]["revealed"])
        teacher.does("end", None, lambda s: s["lesson"]["over"])
        seconds = time.monotonic() - begin
        table = teacher.client.get("/room/runs.csv").text
        page = teacher.client.get("/room/report.html").text
        states = [{k: v for k, v in b.state.items() if k != "now"} for b in boards]
        if states[0] != states[1]:
            wrong.append("the board whose line was cut shows something else than the other")
        sent = [*cut, *(raw for line in [*lines(), desk] for raw in line.raw), table, page]
        for line in [*lines(), desk]:
            line.close()
    leaks = sum(text in one for one in sent for text in played.typed)
    rows = list(csv.DictReader(io.StringIO(table)))
    lost = abs(played.runs - len(rows)) + len(played.errors) + lost_results(played, rows)
    ends = arrivals(boards[0])
    late = [
        max(0.0, at - ended + POLL_SECONDS)
        for at, ended in zip(ends, sorted(played.ends), strict=False)
    ]
    report(pupils, played, rows, seconds, late, teacher.lags, lost, leaks, sent)
    every = sorted([*late, *teacher.lags])
    share = sum(lag <= _WITHIN for lag in every) / max(1, len(every))
    if share < 0.95:
        wrong.append(f"only {share:.0%} of the changes were on the board within a second")
    if lost or len(ends) != played.runs:
        wrong.append(f"lost: {lost}; ends on the board: {len(ends)} of {played.runs}")
    if leaks:
        wrong.append(f"{leaks} texts leaked")
    return [*wrong, *played.errors]


def follow(threads: list[threading.Thread], what: str, begin: float) -> None:
    """Wait for all, and print how far they are."""
    start = news = time.monotonic()
    while any(thread.is_alive() for thread in threads):
        next(thread for thread in threads if thread.is_alive()).join(1)
        now = time.monotonic()
        ended = sum(not thread.is_alive() for thread in threads)
        if now - news >= _NEWS or ended == len(threads):
            news = now
            print(
                f"{now - begin:4.0f} s: {what}, {ended} of {len(threads)} runs, "
                f"{(now - start) / max(1, ended):.1f} s a run",
                flush=True,
            )


def lost_results(played: Lesson, rows: list[dict[str, str]]) -> int:
    """Runs whose figures in the table are not those that the pupil got."""
    found = {
        f"{r['task']} r{r['rank']} seed {r['seed']} steps {r['steps']}": r["validation_accuracy"]
        for r in rows
    }
    return sum(found.get(key) != f"{value:.4f}" for key, value in played.results.items())


def arrivals(board: Line) -> list[float]:
    """When the board showed the first, the second, … end of a run."""
    times: list[float] = []
    for raw, at in zip(board.raw, board.times, strict=True):
        counts = json.loads(raw[6:]).get("counts")
        if counts:
            times += [at] * (counts["ended"] - len(times))
    return times


def report(
    pupils: int,
    played: Lesson,
    rows: list[dict[str, str]],
    seconds: float,
    late: list[float],
    pressed: list[float],
    lost: int,
    leaks: int,
    sent: list[str],
) -> None:
    """The table."""
    print(
        f"\n{pupils} pupils, {played.runs} runs of {played.steps} to {played.steps + 6} steps in "
        f"{seconds:.0f} s; {os.cpu_count()} cores\n"
    )
    print("| | median | 95 % | worst |\n|---|---|---|---|")
    waits = [float(r["seconds_waited"]) for r in rows]
    print(row("waiting for the first step", waits, "s"))
    print(row("training", [float(r["seconds_trained"]) for r in rows], "s"))
    print(row("the end of a run on the board, at most", [1000 * t for t in late], "ms"))
    print(row("a press at the desk on both boards", [1000 * t for t in pressed], "ms"))
    size = sum(map(len, sent)) / 1e6
    print(f"\nlosses: {lost}; texts leaked: {leaks}, in {len(sent):,} messages of {size:.1f} MB")


def beside(pupils: int, asked: int) -> list[str]:
    """The page and an answer with a room that is in use, against a server without one, in turns."""
    key = os.environ[VARIABLE]
    with server(free_port()) as (plain, _), server(free_port(), "--room") as (url, _):
        played = Lesson(url, 5, [])
        lines = [Pupil(played, number).line for number in range(pupils)]
        lines += [Line(f"{url}/room/board") for _ in range(2)]
        teacher = Teacher(url, key, lambda: lines[-2:])
        lines.append(Line(f"{url}/room/desk", cookies=teacher.client.cookies))
        ask = []
        for address in (plain, url):
            client = httpx.Client(base_url=address, timeout=_PATIENCE)
            settings = ["sms-spam", "bundled", "lora", 8, 16, ["*"], "alpha/rank", "train", 0, 0]
            *_, (_, (run,)) = call(client, "fine_tune", [*settings, 5, 8, 0, [], [], ""])
            for _ in call(client, "watch", [run, 0]):
                pass
            ask.append(
                {
                    "an answer": lambda c=client, r=run: list(  # type: ignore[misc]
                        call(c, "classify", [r, ["a good film"], 1])
                    ),
                    "the page": lambda c=client: c.get("/"),  # type: ignore[misc]
                }
            )
        took: dict[tuple[str, int], list[float]] = {}
        for turn in range(asked):
            if turn % 10 == 0:
                names = turn % 20 == 0
                teacher.client.post("/room/do", json={"do": "names", "value": names})
            for what in ask[0]:
                for side in (0, 1) if turn % 2 else (1, 0):
                    begin = time.perf_counter()
                    ask[side][what]()
                    if turn > 2:
                        took.setdefault((what, side), []).append(time.perf_counter() - begin)
        for line in lines:
            line.close()
    wrong = []
    print("\n| | without a room | with one | |\n|---|---|---|---|")
    for what in ask[0]:
        without, within = (1000 * statistics.median(took[what, side]) for side in (0, 1))
        print(f"| {what} | {without:.1f} ms | {within:.1f} ms | {within / without - 1:+.1%} |")
        if within > _TENTH * without:
            wrong.append(f"with a room, {what} takes {within / without - 1:+.1%}")
    return wrong


def main() -> int:
    """The command line; 0 when everything is as promised."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--pupils", type=int, default=30, help="scripted pupils (default 30)")
    parser.add_argument("--steps", type=int, default=40, help="steps of a run (default 40)")
    parser.add_argument(
        "--rounds", type=int, help=f"exercises with runs (default: as many as make {_RUNS} runs)"
    )
    parser.add_argument("--asked", type=int, default=100, help="answers with and without a room")
    options = parser.parse_args()
    rounds = options.rounds or max(1, min(4, round(_RUNS / options.pupils)))
    wrong = lesson(options.pupils, options.steps, rounds)
    if options.asked:
        wrong += beside(options.pupils, options.asked)
    for sentence in wrong:
        print(f"not met: {sentence}")
    return min(1, len(wrong))


if __name__ == "__main__":
    sys.exit(main())
