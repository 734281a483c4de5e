"""What board, desk and a pupil's page are sent: plain data, figures and the words for them.

Nothing that a visitor typed is known here: no text, no name of a table, no label of one, no reason
of a failed run. Times of the clock are milliseconds since 1970, by the server's clock.
"""

from __future__ import annotations

import functools
import statistics
import threading
from typing import Any

import segno

from lora_core.room.exercises import Exercise
from lora_core.room.people import Pupil
from lora_core.room.pseudonyms import COLOURS
from lora_core.room.room import Live, Room
from lora_core.room.runs import OWN_TABLE, best_within, groups, pareto_front, points
from lora_core.ui.drawing.room_figures import scatter, votes
from lora_core.ui.settings import Settings
from lora_core.ui.text import words
from lora_core.ui.text.catalogue import say

_QUEUE = 3  # of those that wait, named one by one

View = dict[str, Any]


class Results:
    """The figures of the board: drawn once for all boards, and again only when they have changed.

    May be asked from any thread.
    """

    def __init__(self, room: Room) -> None:
        self._room = room
        self._lock = threading.Lock()
        self._known: Any = None
        self._drawn: View = {}

    def now(self) -> View:
        """The entries "runs", "scatter" and "votes" of a board."""
        room, lesson = self._room, self._room.lesson
        names = {p.number: str(p.name) for p in room.pupils()} if lesson.names_shown else {}
        with self._lock:
            known = room.results, room.shown_task(), lesson.exercise, lesson.revealed, names
            if known != self._known:
                self._drawn = _results(room, names)
                self._known = known
            return self._drawn


def board(room: Room, address: str, results: Results | None = None) -> View:
    """What the projector shows. `address`: where pupils find the page. `results`: shared with
    other boards."""
    live = room.live()
    return {
        "lesson": _lesson(room),
        "clock": _clock(room),
        "join": _join(address),
        "counts": _counts(room, live),
        "pupils": _pupils(room, live) if room.lesson.names_shown else [],
        "queue": _queue(room, live),
        **(results or Results(room)).now(),
    }


def desk(room: Room, address: str) -> View:
    """What the teacher's page shows."""
    live = room.live()
    lesson = room.lesson
    best: dict[int, float] = {}
    number: dict[int, int] = {}
    for record in room.records():
        number[record.pupil] = number.get(record.pupil, 0) + 1
        if record.validation is not None:
            best[record.pupil] = max(best.get(record.pupil, 0.0), record.validation)
    return {
        "lesson": {
            **_lesson(room),
            "offered": lesson.exercise,
            "names": lesson.names_shown,
            "revealed": lesson.revealed,
        },
        "clock": _clock(room),
        "join": {"address": address},
        "counts": _counts(room, live),
        "exercises": [_exercise(exercise) for exercise in room.exercises],
        "pupils": [
            {
                **pupil,
                "runs": number.get(pupil["number"], 0),
                "best": words.accuracy(best[pupil["number"]]) if pupil["number"] in best else "",
            }
            for pupil in _pupils(room, live)
        ],
    }


def band(room: Room, pupil: Pupil) -> View:
    """What a pupil's page shows of the room."""
    exercise, used = room.exercise, room.used_by(pupil)
    return {
        "me": {"name": str(pupil.name), "colour": pupil.name.colour},
        "lesson": {"paused": room.lesson.paused, "over": room.lesson.over is not None},
        "clock": _clock(room),
        "exercise": None
        if exercise is None or room.lesson.over is not None
        else {
            **_exercise(exercise),
            "offer": room.lesson.offered,
            "locked": locked(exercise),
        },
        "using": None if used is None else {"offer": pupil.offer, "locked": locked(used)},
    }


def _lesson(room: Room) -> View:
    exercise, lesson = room.exercise, room.lesson
    goal = exercise.most_trained if exercise else None
    return {
        "title": exercise.title if exercise else "",
        "question": exercise.question if exercise else "",
        "goal": say("room.goal_line", most=goal) if goal else "",
        "paused": lesson.paused,
        "over": lesson.over is not None,
    }


def _exercise(exercise: Exercise) -> View:
    change = exercise.may_change
    if change is None:
        may = ""
    elif not change:
        may = say("room.may_change_nothing")
    else:
        names = [name.replace("_", " ") for name in change]
        may = say("room.may_change", names=", ".join(names))
    return {
        "number": exercise.number,
        "title": exercise.title,
        "question": exercise.question,
        "minutes": exercise.minutes,
        "goal": exercise.most_trained,
        "may": may,
    }


def _clock(room: Room) -> View:
    ends = room.lesson.ends_at
    return {"ends": None if ends is None else round(1000 * ends)}


@functools.lru_cache(maxsize=64)  # a code takes 15 ms
def _join(address: str) -> View:
    code = segno.make(address, micro=False)
    return {
        "address": address.removeprefix("http://").removeprefix("https://").rstrip("/"),
        "code": code.svg_inline(border=1, omitsize=True, svgclass="qr", lineclass="", dark="#000"),
    }


def _counts(room: Room, live: list[Live]) -> View:
    waiting = sum(one.run.state == "waiting" for one in live)
    return {
        "here": len(room.pupils()),
        "training": sum(one.run.state == "running" for one in live),
        "waiting": waiting,
        "ended": len(room.records()),
    }


def _pupils(room: Room, live: list[Live]) -> list[View]:
    does: dict[int, str] = {}
    for one in live:
        if one.run.state == "running":
            does[one.pupil.number] = "training"
        elif one.run.state == "waiting":
            does.setdefault(one.pupil.number, "waiting")
    return [
        {
            "number": pupil.number,
            "name": str(pupil.name),
            "colour": pupil.name.colour,
            "state": does.get(pupil.number) or ("idle" if pupil.streams else "away"),
        }
        for pupil in sorted(room.pupils(), key=lambda p: p.number)
    ]


def _queue(room: Room, live: list[Live]) -> View:
    waiting = sorted(
        (one for one in live if one.run.state == "waiting"), key=lambda one: one.run.place
    )
    shown = []
    for one in waiting[:_QUEUE]:
        seconds = one.run.estimate_seconds
        pupil = one.pupil
        shown.append(
            {
                "name": str(pupil.name) if room.lesson.names_shown else "",
                "colour": pupil.name.colour if room.lesson.names_shown else "",
                "when": _when(seconds, one.run.place),
            }
        )
    rest = waiting[_QUEUE:]
    last = rest[-1].run.estimate_seconds if rest else None
    return {
        "next": shown,
        "more": len(rest),
        "last": _when(last, 99) if rest else "",
    }


def _when(seconds: float | None, place: int) -> str:
    if seconds is None:
        return say("room.at_once") if place <= 1 else ""
    # In steps, so that the board does not flicker: a glance from the back needs no seconds.
    rounded = 5 * round(seconds / 5) if seconds < 60 else 30 * round(seconds / 30)
    return say("room.in_time", time=words.duration(rounded)) if rounded else say("room.soon")


def _results(room: Room, names: dict[int, str]) -> View:
    """The figures of the task that the board is about. `names`: those that are shown."""
    task, exercise, revealed = room.shown_task(), room.exercise, room.lesson.revealed
    records = room.records()
    some = points(records, task, revealed)
    most = exercise.most_trained if exercise is not None else None
    front = pareto_front(some)
    drawn = scatter(
        some,
        groups(some),
        revealed=revealed,
        habit=room.task(task).majority[0],
        front=front if most else (),
        most_trained=most,
        names=names,
        newest=some[-1].number if some else 0,
    )
    return {
        "runs": {
            "task": task,
            "n": len(some),
            "own": sum(record.task == OWN_TABLE for record in records),
            "revealed": revealed,
            "leader": leader(some, most, names),
        },
        "scatter": drawn if some else "",
        "votes": _votes(room, task),
    }


def leader(some: Any, most: int | None, names: dict[int, str]) -> str:
    """Who is ahead where there is a goal, in a sentence; "" where there is none."""
    if not most:
        return ""
    best = best_within(some, most)
    if best is None:
        return say("room.nobody_yet")
    figures = {"accuracy": words.accuracy(best.accuracy), "trained": best.trained}
    name = names.get(best.pupil)
    if name:
        return say("room.leader_named", name=name, **figures)
    return say("room.leader", **figures)


def _votes(room: Room, task: str) -> View:
    curve, median = election(room, task)
    if not curve:
        return {"n": 0, "accuracy": "", "line": say("room.votes_none"), "figure": "", "narrow": ""}
    return {
        "n": len(curve),
        "accuracy": words.accuracy(curve[-1]),
        "line": say("room.votes_line", n=len(curve), median=_unbroken(words.accuracy(median))),
        "figure": votes(curve, median) if len(curve) > 1 else "",
        "narrow": votes(curve, median, narrow=True) if len(curve) > 1 else "",
    }


def _unbroken(figure: str) -> str:
    return figure.replace(" ", "\u00a0")


def election(room: Room, task: str) -> tuple[list[float], float]:
    """Accuracy, 0 to 1, of the mean of the first n voters for each n, and the median of the single
    voters; ([], 0) where nobody voted yet."""
    voters = room.voters(task)
    curve = room.votes.curve(task, [record.number for record in voters])
    alone = [record.validation for record in voters if record.validation is not None]
    return curve, statistics.median(alone) if curve else 0.0


def locked(exercise: Exercise) -> list[str]:
    """The settings that an exercise fixes."""
    if exercise.may_change is None:
        return []
    return [name for name in Settings.names() if name not in exercise.may_change]


def pupil_colours() -> str:
    """The colours of the pseudonyms as CSS custom properties, for both themes."""
    light = " ".join(f"--pupil-{name}: {pair[0]};" for name, pair in COLOURS.items())
    dark = " ".join(f"--pupil-{name}: {pair[1]};" for name, pair in COLOURS.items())
    return f":root {{ {light} }}\n:root.dark, :root .dark {{ {dark} }}"
