"""Labels that a table spreads over columns: a 1 under the name of each row's label.

So write `pandas.get_dummies`, spaCy's `cats` and many hands. One column of labels is made of them,
where the table has no other.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from itertools import groupby

from lora_core.config import MAX_CLASSES
from lora_core.tasks.header import LABEL_NAMES

_ON = {"1", "1.0", "true", "x", "✓", "✔"}
_OFF = {"", "0", "0.0", "false"}
_SINGLE = 0.6  # of the rows have exactly one; several labels at once are another task

Rows = Sequence[tuple[str, ...]]


def with_label(columns: Sequence[str], rows: Rows) -> tuple[list[str], list[tuple[str, ...]], str]:
    """A table with a column `label` more, where it is spread over several; and a remark, or ""."""
    places = _spread(columns, rows)
    if not places:
        return list(columns), list(rows), ""
    names = _without_prefix([columns[place] for place in places])
    named = list(zip(names, places, strict=True))
    labels = [_label([name for name, place in named if _is_on(row[place])]) for row in rows]
    shown = ", ".join(f"'{columns[place][:30]}'" for place in places[:4])
    shown += f" and {len(places) - 4} more" if len(places) > 4 else ""
    remark = f"The column 'label' was made of {shown}: the name of the one that is marked in a row."
    return (
        [*columns, "label"],
        [(*row, label) for row, label in zip(rows, labels, strict=True)],
        remark,
    )


def _spread(columns: Sequence[str], rows: Rows) -> list[int]:
    """Places of neighbouring columns of which each row marks one; none where another has labels."""
    marks = [_marks(row[place] for row in rows) for place in range(len(columns))]
    runs = [
        [place for place, _ in group]
        for marked, group in groupby(enumerate(marks), key=lambda pair: pair[1])
        if marked
    ]
    for run in sorted(runs, key=len, reverse=True):
        others = [name for place, name in enumerate(columns) if place not in run]
        if any(name.strip().casefold().rpartition(".")[2] in LABEL_NAMES for name in others):
            continue
        counts = [sum(_is_on(row[place]) for place in run) for row in rows]
        single = counts.count(1) / len(counts)
        if 2 <= len(run) <= MAX_CLASSES and single >= (1 if len(run) == 2 else _SINGLE):
            return run
    return []


def _marks(cells: Iterable[str]) -> bool:
    """Whether a column has marks in some rows, and nothing else in the others."""
    seen = {cell.strip().casefold() for cell in cells}
    return bool(seen & _ON) and bool(seen & _OFF) and seen <= _ON | _OFF


def _is_on(cell: str) -> bool:
    return cell.strip().casefold() in _ON


def _label(names: list[str]) -> str:
    return names[0] if len(names) == 1 else json.dumps(names, ensure_ascii=False) if names else ""


def _without_prefix(names: list[str]) -> list[str]:
    """cats.good and cats.bad as good and bad; label_good likewise, but not very_good."""
    for sign in "._":
        first = names[0].rpartition(sign)[0]
        if (
            first
            and (sign == "." or first.casefold() in LABEL_NAMES)
            and all(name.startswith(first + sign) for name in names)
        ):
            return [name.removeprefix(first + sign) for name in names]
    return names
