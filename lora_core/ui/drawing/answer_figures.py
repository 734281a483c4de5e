"""What the answers of Experiments are drawn from: plain JSON for `assets/page/experiments.js`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

Answer = dict[str, Any]


def pc(share: float) -> str:
    """0.959 -> 95.9 %."""
    return f"{100 * share:.1f} %"


def signed(share: float) -> str:
    """-0.012 -> −1.2; a plus where it is above zero."""
    return f"{100 * share:+.1f}".replace("-", "−")


def points(share: float) -> str:
    """0.011 -> 1.1."""
    return f"{100 * share:.1f}"


def series(name: str, pairs: Sequence[tuple[float, float]], colour: str = "trainable") -> Answer:
    """One curve; `colour` is the name of a colour of the page."""
    return {"name": name, "colour": colour, "x": [x for x, _ in pairs], "y": [y for _, y in pairs]}


def lines(curves: list[Answer], x: str, y: str, *, percent: bool = True) -> Answer:
    """Curves over a number, with the names of both axes."""
    return {"kind": "lines", "series": curves, "x": x, "y": y, "percent": percent}
