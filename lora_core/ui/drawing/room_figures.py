"""The pictures of a room as SVG: for the board, which is read from the back, and for the report.

Colours are classes, so both themes are the stylesheet's affair. No text of a visitor is drawn.
"""

from __future__ import annotations

import html
import math
from collections.abc import Callable, Mapping, Sequence

from lora_core.room.runs import Group, Point, best_within
from lora_core.ui.text import words
from lora_core.ui.text.catalogue import say

WIDTH, HEIGHT = 1320, 500  # of the scatter: pixels on a projector of 1920 x 1080
VOTES_WIDTH, VOTES_HEIGHT = 1000, 210
NARROW_WIDTH, NARROW_HEIGHT = 440, 130  # of the vote, where names need the room
_LEFT, _RIGHT, _TOP, _BOTTOM = 92, 28, 72, 68
_JITTER = 26  # pixels over which dots of one place are spread, so that each is seen
_BESIDE = 19  # between a dot and its name: clear of the ring around the newest
_LABEL = 74  # pixels that a label over a column needs


def _tag(name: str, text: str | None = None, **attributes: object) -> str:
    made = " ".join(
        f'{key.rstrip("_").replace("_", "-")}="{html.escape(_short(value))}"'
        for key, value in attributes.items()
    )
    return f"<{name} {made}/>" if text is None else f"<{name} {made}>{html.escape(text)}</{name}>"


def _short(value: object) -> str:
    return f"{value:.1f}".rstrip("0").rstrip(".") if isinstance(value, float) else str(value)


def _svg(width: int, height: int, label: str, parts: Sequence[str], kind: str) -> str:
    return (
        f'<svg class="room-figure {kind}" viewBox="0 0 {width} {height}" role="img" '
        f'aria-label="{html.escape(label)}">{"".join(parts)}</svg>'
    )


def group_name(name: str) -> str:
    """What a column of runs is called: "r 8", or the method."""
    return say("names.rank", rank=name) if name.isdigit() else words.METHOD_NAMES[name]  # type: ignore[index]


def scatter(
    some: Sequence[Point],
    columns: Sequence[Group],
    *,
    revealed: bool,
    habit: float,
    front: Sequence[Point] = (),
    most_trained: int | None = None,
    names: Mapping[int, str] | None = None,
    newest: int = 0,
) -> str:
    """Accuracy against trained numbers; median and spread of each rank.

    `habit`: accuracy of the commonest label, 0 to 1. `front` and `most_trained` are drawn where the
    exercise has a goal; `names` are the pupils' by their numbers, where they are shown.
    """
    least, most = _extent([*(p.trained for p in some), *([most_trained] if most_trained else [])])
    low = _floor(min([*(p.accuracy for p in some), 0.85]))
    right, bottom = WIDTH - _RIGHT, HEIGHT - _BOTTOM

    def x(trained: float) -> float:
        share = math.log(trained / least) / math.log(most / least)
        return _LEFT + share * (right - _LEFT)

    def y(accuracy: float) -> float:
        return bottom - (accuracy - low) / (1 - low) * (bottom - _TOP)

    parts = _grid(low, y, right)
    for tick in _ticks(least, most):
        parts.append(_tag("line", class_="tick", x1=x(tick), x2=x(tick), y1=bottom, y2=bottom + 8))
        parts.append(_tag("text", f"{tick:,}", class_="axis mid", x=x(tick), y=bottom + 31))
    axis = say("room.axis_test" if revealed else "room.axis_validation")
    parts.append(_tag("text", say("room.axis_trained"), class_="end", x=right, y=HEIGHT - 6))
    parts.append(_tag("text", axis, x=_LEFT, y=24))
    if habit >= low:
        at = y(habit)
        parts.append(_tag("line", class_="habit", x1=_LEFT, x2=right, y1=at, y2=at))
        text = say("room.habit", share=words.percent(100 * habit))
        above = at + 34 > bottom  # under the lowest line are the numbers of the axis
        parts.append(
            _tag(
                "text", text, class_="end habit-name", x=right - 6, y=at - 10 if above else at + 28
            )
        )
    if most_trained:
        at = x(most_trained)
        parts.append(
            _tag("rect", class_="within", x=_LEFT, y=_TOP, width=at - _LEFT, height=bottom - _TOP)
        )
        parts.append(_tag("line", class_="goal", x1=at, x2=at, y1=_TOP, y2=bottom))
        text = say("room.goal", most=most_trained)
        parts.append(_tag("text", text, class_="goal-name", x=at + 10, y=bottom - 14))
    parts += _columns(columns, x, y)
    if most_trained and len(front) > 1:
        steps = [f"M{x(front[0].trained):.1f} {y(front[0].accuracy):.1f}"]
        steps += [f"H{x(p.trained):.1f}V{y(p.accuracy):.1f}" for p in front[1:]]
        parts.append(_tag("path", class_="front", d="".join(steps)))
    places = {p.number: (x(p.trained) + _aside(p.number), y(p.accuracy)) for p in some}
    on_front = {p.number for p in front} if most_trained else set()
    for p in some:
        kind = "dot" if p.group.isdigit() else f"dot {p.group}"
        kind += " best" if p.number in on_front else ""
        cx, cy = places[p.number]
        parts.append(_tag("circle", class_=kind, cx=cx, cy=cy, r=9 if p.number in on_front else 8))
    named = [p for p in some if p.number == newest]
    named += [p for p in front if p.number != newest and on_front]
    ahead = best_within(some, most_trained) if most_trained else None
    if ahead is not None:  # its name goes before all others
        named = [*(p for p in named if p != ahead), ahead]
    if newest in places:
        cx, cy = places[newest]
        parts.append(_tag("circle", class_="newest", cx=cx, cy=cy, r=15))
    parts += _names(named, places, names or {}, right)
    label = say("room.scatter_words", n=len(some), columns=_spoken(columns))
    return _svg(WIDTH, HEIGHT, label, parts, "scatter")


def votes(curve: Sequence[float], median: float | None, *, narrow: bool = False) -> str:
    """Accuracy of the mean of n adapters' probabilities against n; `median` of single ones.
    `narrow`: beside the scatter and not below it, so with fewer words."""
    width, height = (NARROW_WIDTH, NARROW_HEIGHT) if narrow else (VOTES_WIDTH, VOTES_HEIGHT)
    right, bottom, left, top = width - (24 if narrow else 144), height - 44, _LEFT, 18
    low = _floor(min([*curve, median or 1.0, 0.85]))
    n = max(2, len(curve))

    def x(number: int) -> float:
        return left + (number - 1) / (n - 1) * (right - left)

    def y(accuracy: float) -> float:
        return bottom - (accuracy - low) / (1 - low) * (bottom - top)

    parts = []
    step = 0.2 if low < 0.6 else 0.1
    for share in [1 - step * i for i in range(6) if 1 - step * i >= low - 1e-9]:
        parts.append(_tag("line", class_="grid", x1=left, x2=right, y1=y(share), y2=y(share)))
        parts.append(
            _tag("text", f"{100 * share:.0f} %", class_="axis end", x=left - 12, y=y(share) + 7)
        )
    for number in sorted({1, 1 if narrow else (1 + len(curve)) // 2, len(curve)}):
        parts.append(_tag("text", f"{number:,}", class_="axis mid", x=x(number), y=bottom + 28))
    at = bottom + 30
    if narrow:
        middle = (left + right) / 2
        parts.append(_tag("text", say("room.axis_voters"), class_="mid", x=middle, y=at))
    else:
        parts.append(_tag("text", say("room.axis_voters"), class_="end", x=width - 4, y=at))
    if median is not None:
        parts.append(_tag("line", class_="median", x1=left, x2=right, y1=y(median), y2=y(median)))
        if not narrow:
            parts.append(_tag("text", say("room.one_alone"), x=right + 14, y=y(median) + 8))
    line = " ".join(f"{x(i):.1f},{y(value):.1f}" for i, value in enumerate(curve, start=1))
    parts.append(_tag("polyline", class_="vote", points=line))
    if curve:
        parts.append(_tag("circle", class_="vote-end", cx=x(len(curve)), cy=y(curve[-1]), r=9))
    label = say(
        "room.votes_words",
        n=len(curve),
        accuracy=words.accuracy(curve[-1]) if curve else "",
    )
    return _svg(width, height, label, parts, "votes")


def _grid(low: float, y: Callable[[float], float], right: float) -> list[str]:
    step = 0.1 if low <= 0.6 else 0.05 if low <= 0.8 else 0.02
    parts, share = [], 1.0
    while share >= low - 1e-9:
        at = y(share)
        parts.append(_tag("line", class_="grid", x1=_LEFT, x2=right, y1=at, y2=at))
        text = f"{100 * share:.0f} %"
        parts.append(_tag("text", text, class_="axis end", x=_LEFT - 12, y=at + 7))
        share -= step
    return parts


def _columns(
    columns: Sequence[Group], x: Callable[[float], float], y: Callable[[float], float]
) -> list[str]:
    parts, last = [], -math.inf
    for column in columns:
        at = x(column.trained)
        if column.runs > 1:
            top, height = y(column.high) - 12, y(column.low) - y(column.high) + 24
            parts.append(
                _tag("rect", class_="spread", x=at - 22, y=top, width=44, height=height, rx=10)
            )
            middle = y(column.median)
            parts.append(
                _tag("line", class_="middle", x1=at - 30, x2=at + 30, y1=middle, y2=middle)
            )
        if at - last >= _LABEL:
            last = at
            parts.append(_tag("text", group_name(column.name), class_="column", x=at, y=_TOP - 14))
    return parts


def _names(
    named: Sequence[Point],
    places: Mapping[int, tuple[float, float]],
    names: Mapping[int, str],
    right: float,
) -> list[str]:
    """Names beside their dots, as far as none stands in another's way."""
    parts: list[str] = []
    taken: list[tuple[float, float, float]] = []
    for p in reversed(named):  # the best first: it keeps its name
        name = names.get(p.pupil)
        if not name:
            continue
        cx, cy = places[p.number]
        wide = 14.2 * len(name)
        begins = cx + _BESIDE if cx + _BESIDE + wide < right else cx - _BESIDE - wide
        if any(abs(cy - y) < 27 and begins < x + w and x < begins + wide for x, y, w in taken):
            continue
        taken.append((begins, cy, wide))
        parts.append(
            _tag("text", name, class_="name", x=begins, y=cy - 14 if cy > _TOP + 40 else cy + 36)
        )  # beside the front's line
    return parts


def _spoken(columns: Sequence[Group]) -> str:
    return "; ".join(
        say(
            "room.column_words",
            name=group_name(column.name),
            median=words.accuracy(column.median),
            n=column.runs,
        )
        for column in columns
    )


def _aside(number: int) -> float:
    """Always the same for a run, so that no dot moves when another comes."""
    return ((number * 0.61803398875) % 1 - 0.5) * _JITTER


def _extent(trained: Sequence[float]) -> tuple[float, float]:
    least, most = min(trained, default=10_000), max(trained, default=1_000_000)
    least, most = least / 1.7, most * 1.7
    if most / least < 30:  # few sizes: around them, not from edge to edge
        middle = math.sqrt(least * most)
        least, most = middle / math.sqrt(30), middle * math.sqrt(30)
    return max(1.0, least), most


def _floor(lowest: float) -> float:
    """Where the axis begins: under everything that is drawn, on a round number."""
    return max(0.0, math.floor(10 * (lowest - 0.01)) / 10)


def _ticks(least: float, most: float) -> list[int]:
    factors = (1, 2, 5) if most / least < 300 else (1,)
    made = [f * 10**e for e in range(0, 13) for f in factors]
    return [tick for tick in made if least * 1.05 <= tick <= most / 1.05]
