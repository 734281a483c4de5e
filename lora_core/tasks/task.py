"""A classification task: labelled texts, split once into three parts, reproducibly."""

from __future__ import annotations

import functools
import random
import re
import unicodedata
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

from lora_core.config import MAX_CLASSES
from lora_core.errors import LabError

SPLIT = (0.7, 0.1, 0.2)  # train, validation, test: the book's


class TaskError(LabError, ValueError):
    """A table that cannot be used; the message says what is wrong and what is needed."""


class Example(NamedTuple):
    """One text and the index of its label in `Task.labels`."""

    text: str
    label: int


@dataclass(frozen=True, eq=False)
class Task:
    """A classification task, split into three parts that share no text."""

    name: str
    labels: tuple[str, ...]
    train: tuple[Example, ...]
    validation: tuple[Example, ...]
    test: tuple[Example, ...]
    title: str = ""
    warnings: tuple[str, ...] = ()

    @functools.cached_property
    def majority(self) -> tuple[float, str]:
        """(share, label) of the commonest label of the validation texts: what habit alone reaches.

        Of the training texts where there are none to validate on.
        """
        rows = self.validation or self.train
        counts = Counter(example.label for example in rows)
        label, number = min(counts.items(), key=lambda pair: (-pair[1], pair[0]))
        return number / len(rows), self.labels[label]


def make_task(name: str, rows: Sequence[tuple[str, str]], seed: int = 0, title: str = "") -> Task:
    """Split (text, label) rows 70/10/20 within each label; of equal texts the last one is kept.

    Raises `TaskError` for fewer than two labels, or more than a hundred.
    """
    labels = tuple(sorted({label for _, label in rows}))
    if not 2 <= len(labels) <= MAX_CLASSES:
        raise TaskError(f"Two to {MAX_CLASSES} different labels are needed, not {len(labels)}.")
    index = {label: i for i, label in enumerate(labels)}
    unique = {normalise(text): Example(text, index[label]) for text, label in rows}
    parts: tuple[list[Example], list[Example], list[Example]] = ([], [], [])
    shuffler = random.Random(seed)
    for label in range(len(labels)):
        group = sorted(e for e in unique.values() if e.label == label)
        shuffler.shuffle(group)
        cut1, cut2 = _cuts(len(group))
        for part, piece in zip(parts, (group[:cut1], group[cut1:cut2], group[cut2:]), strict=True):
            part.extend(piece)
    for part in parts:
        shuffler.shuffle(part)
    train, validation, test = (tuple(part) for part in parts)
    return Task(name, labels, train, validation, test, title or name)


def _cuts(rows: int) -> tuple[int, int]:
    """Where train and validation of one label end; a few rows are shared out to all three."""
    if rows < 10:
        kept = max(1, rows - 2) if rows < 8 else rows - 3
        return kept, min(rows, kept + 1)
    return round(SPLIT[0] * rows), round((SPLIT[0] + SPLIT[1]) * rows)


def normalise(text: str) -> str:
    """Letters and digits only, lower case: two texts with the same result are the same text."""
    folded = unicodedata.normalize("NFKC", text).casefold()
    return " ".join(re.findall(r"\w+", folded)) or folded.strip()
