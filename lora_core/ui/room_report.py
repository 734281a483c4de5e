"""What remains of a lesson: a CSV and one page of HTML with its figures in it. No texts.

The page needs no network and no script.
"""

from __future__ import annotations

import html
from collections.abc import Iterable
from datetime import datetime

from lora_core.room.exercises import Exercise
from lora_core.room.room import Room
from lora_core.room.runs import OWN_TABLE, Record, groups, pareto_front, points
from lora_core.room.table import as_csv
from lora_core.ui.drawing.browser_part import ASSETS
from lora_core.ui.drawing.colours import COLOURS
from lora_core.ui.drawing.room_figures import group_name, scatter, votes
from lora_core.ui.room_views import election
from lora_core.ui.text import words
from lora_core.ui.text.catalogue import say

_FOLDER = ASSETS / "room"


def csv_of(room: Room) -> str:
    """One row a run."""
    exercises = {exercise.number: exercise.title for exercise in room.exercises}
    return as_csv(room.records(), _names(room), exercises)


def report(room: Room) -> str:
    """The lesson as one HTML page. Test accuracies are in it once they are revealed."""
    records = room.records()
    date = datetime.fromtimestamp(room.lesson.begun).strftime("%d %B %Y, %H:%M").lstrip("0")
    pupils = len({record.pupil for record in records})
    parts = [
        f"<h1>{say('room.report_title')}</h1>",
        f'<p class="sum">{say("room.report_begun", date=date)} · '
        f"{say('room.report_sum', n=len(records), pupils=pupils)}</p>",
    ]
    if not records:
        parts.append(f"<p>{say('room.report_none')}</p>")
    for task in dict.fromkeys(r.task for r in records if r.task != OWN_TABLE):
        parts.append(_section(room, task, records))
    if records:
        parts += [f"<h2>{say('room.report_each')}</h2>", _each(room, records)]
    parts.append(f'<p class="foot">{say("room.report_foot")}</p>')
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{say('room.report_title')}</title><style>{_style()}</style></head>"
        f"<body><main>{''.join(parts)}</main></body></html>\n"
    )


def _section(room: Room, task: str, records: list[Record]) -> str:
    revealed = room.lesson.revealed
    some = points(records, task, revealed)
    asked = _exercise_with_goal(room, task, records)
    most = asked.most_trained if asked else None
    found = groups(some)
    parts = [f"<h2>{say('room.report_task', task=task)}</h2>"]
    if some:
        figure = scatter(
            some,
            found,
            revealed=revealed,
            habit=room.task(task).majority[0],
            front=pareto_front(some) if most else (),
            most_trained=most,
            names=_names(room),
        )
        parts.append(f"<figure>{figure}</figure>")
    curve, median = election(room, task)
    if len(curve) > 1:
        said = say(
            "room.report_vote",
            n=len(curve),
            accuracy=words.accuracy(curve[-1]),
            median=words.accuracy(median),
        )
        parts.append(f"<h3>{say('room.votes')}</h3><p>{said}</p>")
        parts.append(f"<figure>{votes(curve, median)}</figure>")
    if found:
        head = ("group", "trained", "runs", "median", "low", "high")
        rows = [
            (
                group_name(g.name),
                f"{g.trained:,.0f}",
                g.runs,
                words.accuracy(g.median),
                words.accuracy(g.low),
                words.accuracy(g.high),
            )
            for g in found
        ]
        parts += [f"<h3>{say('room.report_groups')}</h3>", _table(head, rows)]
    return "<section>" + "".join(parts) + "</section>"


def _each(room: Room, records: list[Record]) -> str:
    names = _names(room)
    revealed = room.lesson.revealed
    head = ["pupil", "exercise", "settings", "trained", "validation"]
    head += ["test"] if revealed else []
    head += ["processor", "seconds", "state"]
    rows = []
    for r in records:
        exercise = room.exercise_numbered(r.exercise)
        task = say("room.own_table") if r.task == OWN_TABLE else r.task
        row = [
            names.get(r.pupil, ""),
            exercise.title if exercise else "",
            f"{task}, {_settings(r)}",
            f"{r.trained:,}" if r.trained else "",
            _accuracy(r.validation),
        ]
        row += [_accuracy(r.test)] if revealed else []
        processor = f"{r.processor_seconds:.1f}" if r.processor_seconds else ""
        rows.append([*row, processor, f"{r.seconds:.1f}", r.state])
    return _table(head, rows)


def _settings(record: Record) -> str:
    parts = [group_name(record.group)]
    if record.method == "lora":
        parts.append(say("names.alpha", alpha=words.exact(record.alpha)))
    parts += [
        say("names.steps", value=str(record.steps)),
        say("names.seed", value=str(record.seed)),
    ]
    return ", ".join(parts)


def _accuracy(share: float | None) -> str:
    return "" if share is None else words.accuracy(share)


def _exercise_with_goal(room: Room, task: str, records: list[Record]) -> Exercise | None:
    """The exercise whose goal the figure of a task shows: the last one that somebody ran."""
    numbers = [r.exercise for r in records if r.task == task]
    asked = [room.exercise_numbered(number) for number in reversed(numbers)]
    return next((one for one in asked if one is not None and one.most_trained), None)


def _names(room: Room) -> dict[int, str]:
    return {pupil.number: str(pupil.name) for pupil in room.everybody()}


def _table(head: Iterable[str], rows: Iterable[Iterable[object]]) -> str:
    titles = "".join(f'<th scope="col">{say(f"room.report_{name}")}</th>' for name in head)
    lines = "".join(
        "<tr>" + "".join(f"<td>{html.escape(str(cell))}</td>" for cell in row) + "</tr>"
        for row in rows
    )
    table = f"<table><thead><tr>{titles}</tr></thead><tbody>{lines}</tbody></table>"
    return f'<div class="scroll" tabindex="0">{table}</div>'


def _style() -> str:
    light, dark = (" ".join(f"--{n}: {pair[i]};" for n, pair in COLOURS.items()) for i in (0, 1))
    by_day = f":root {{ {light} color-scheme: light dark; }}"
    by_night = f"@media (prefers-color-scheme: dark) {{ :root {{ {dark} }} }}"
    own = [(_FOLDER / name).read_text(encoding="utf-8") for name in ("figures.css", "report.css")]
    return "\n".join([by_day, by_night, *own])
