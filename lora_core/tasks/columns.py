"""Which columns of a table hold texts and labels: as somebody says, or as names and cells suggest.

A guess is shown beside the control that changes it. A column of addresses is long but no text, a
key comes again but is no label, and numbered labels often have a column beside them that says them
in words.
"""

from __future__ import annotations

import random
import re
from collections.abc import Sequence

from lora_core.config import MAX_CLASSES
from lora_core.tasks.file import Table
from lora_core.tasks.header import ABOUT_NAMES, LABEL_NAMES, TEXT_NAMES
from lora_core.tasks.task import TaskError, normalise


def choose_columns(table: Table, text: str | None, label: str | None) -> tuple[str, str]:
    """The columns of texts and labels: as named, else those called text and label.

    Raises `TaskError` that says which columns there are.
    """
    chosen = []
    for named, wanted in ((text, "text"), (label, "label")):
        folded = {column.strip().casefold(): column for column in reversed(table.columns)}
        if named is not None:
            seen = normalise(named)  # as the names of columns are
            named = named if named in table.columns else seen
            if named not in table.columns:
                raise TaskError(f"There is no column '{seen}'. {_columns(table)}")
        name = named if named is not None else folded.get(wanted)
        if name is None:
            raise TaskError(needed(table))
        chosen.append(name)
    if chosen[0] == chosen[1]:
        raise TaskError(f"Texts and labels cannot both be in the column '{chosen[0]}'.")
    return chosen[0], chosen[1]


def guess_columns(
    table: Table, text: str | None = None, label: str | None = None
) -> tuple[str | None, str | None]:
    """Which columns look like texts and labels; None where nothing does."""
    if len(table.columns) < 2:
        return None, None
    sample = table.rows
    if len(sample) > 2000:  # at random: every other row may have the same label
        sample = tuple(random.Random(0).sample(sample, 2000))
    cells = {
        column: [row[index].strip() for row in sample if row[index].strip()]
        for index, column in enumerate(table.columns)
    }
    width = {column: sum(map(_wording, some)) / max(1, len(some)) for column, some in cells.items()}
    different = {column: len(set(some)) for column, some in cells.items()}
    folded: dict[str, str] = {}
    for whole in (False, True):  # data.text counts as text, where no column is called so
        for column in reversed(table.columns):  # the first of equals
            name = column.strip().casefold()
            folded[name if whole else name.rpartition(".")[2]] = column

    def by_name(names: Sequence[str], taken: str | None) -> list[str]:
        """Columns of these names, the most telling first."""
        return [folded[name] for name in names if name in folded and folded[name] != taken]

    named = by_name(TEXT_NAMES, label)
    widest = max(table.columns, key=lambda column: (column != label) * width[column])
    if text is None:
        texts = (c for c in named if different[c] > 1)
        text = next((c for c in texts if not _is_heading(c, width[c], width[widest])), None)
        text = text or (widest if widest != label and width[widest] else next(iter(named), None))
    if label is None:
        named = by_name(LABEL_NAMES, text)
        repeating = [
            column
            for column in table.columns
            if column != text
            and 2 <= different[column] <= min(MAX_CLASSES, len(cells[column]) / 2)
            and _unlike_a_label(column)[:2] < (True, True)
        ]
        label = next((c for c in named if different[c] > 1), None)
        label = label or min(
            repeating,
            key=lambda c: (*_unlike_a_label(c), different[c]),
            default=next(iter(named), None),
        )
        label = _in_words(label, repeating, cells) if label else None
    return text, label


_NO_WORDS = re.compile(r"<[^<>]*>|[!-~]*(?:://|www\.|@|\d)[!-~]*|[^\w\s]|_")


def _wording(cell: str) -> int:
    """Characters of a cell that are words: not addresses, numbers, keys, tags."""
    return len(_NO_WORDS.sub("", cell[:5000]))


def _is_heading(column: str, width: float, widest: float) -> bool:
    """Whether a column is called title, and another holds what is under the title."""
    return column.strip().casefold().endswith("title") and 2 * width < widest


def _unlike_a_label(column: str) -> tuple[bool, bool, bool]:
    """Whether a column's name ends as a key's does; whether none of its words means a label;
    whether one says where a row belongs or comes from."""
    words = re.findall(r"[A-Z]?[^\W\d_A-Z]+|[A-Z]+(?![a-z])", column)
    folded = [word.casefold() for word in words]
    return (
        folded[-1:] == ["id"],
        not any(word in LABEL_NAMES for word in folded),
        any(word in ABOUT_NAMES for word in folded),
    )


def _in_words(label: str, columns: Sequence[str], cells: dict[str, list[str]]) -> str:
    """The column that says in words what numbered labels mean, such as label_text beside label."""
    if not all(cell.lstrip("-").isdigit() for cell in cells[label]):
        return label
    stem = label.strip().casefold().removesuffix("id").rstrip("_. ")
    for column in columns:
        name = column.strip().casefold()
        if name == label.strip().casefold() or not name.startswith(stem):
            continue
        if name[len(stem) :].strip("_. ") not in _WORDED or len(cells[column]) != len(cells[label]):
            continue
        pairs = set(zip(cells[label], cells[column], strict=True))
        if len(pairs) == len(set(cells[label])) == len(set(cells[column])):
            return column
    return label


_WORDED = {"text", "name", "names", "desc", "description", "str", "string", "title", "value"}


def _columns(table: Table) -> str:
    shown = ", ".join(f"'{column[:30]}'" for column in table.columns[:8])
    more = f" and {len(table.columns) - 8} more" if len(table.columns) > 8 else ""
    one = len(table.columns) == 1
    return f"This table has {'only the column' if one else 'the columns'} {shown}{more}."


def needed(table: Table) -> str:
    """Which columns there are, and what is needed."""
    sentence = f"{_columns(table)} One column 'text' and one 'label' are needed"
    if len(table.columns) < 2:
        how = ", separated by commas, semicolons or tabs" if table.kind == "CSV" else ""
        return f"{sentence}{how}."
    return f"{sentence}, or say which two of these they are."
