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

    Texts of a label that differ in capitals and punctuation only come into the same part, so that
    what is tested was not trained on. Raises `TaskError` for fewer than two labels, or more than a
    hundred.
    """
    labels = tuple(sorted({label for _, label in rows}))
    if not 2 <= len(labels) <= MAX_CLASSES:
        raise TaskError(f"Two to {MAX_CLASSES} different labels are needed, not {len(labels)}.")
    index = {label: i for i, label in enumerate(labels)}
    unique = {normalise(text): Example(text, index[label]) for text, label in rows}
    parts: tuple[list[Example], list[Example], list[Example]] = ([], [], [])
    shuffler = random.Random(seed)
    for label in range(len(labels)):
        families = _families(sorted(e for e in unique.values() if e.label == label))
        shuffler.shuffle(families)
        cut1, cut2 = _cuts(sum(map(len, families)))
        placed = 0
        for family in families:
            parts[0 if placed < cut1 else 1 if placed < cut2 else 2].extend(family)
            placed += len(family)
    for part in parts:
        shuffler.shuffle(part)
    train, validation, test = (tuple(part) for part in parts)
    return Task(name, labels, train, validation, test, title or name)


def _families(examples: list[Example]) -> list[list[Example]]:
    """Texts that are nearly the same, together; each alone where fewer than three would be left."""
    families: dict[str, list[Example]] = {}
    for example in examples:
        families.setdefault(_nearly(example.text), []).append(example)
    alone = len(families) < 3
    return [[example] for example in examples] if alone else list(families.values())


def _cuts(rows: int) -> tuple[int, int]:
    """Where train and validation of one label end; a few rows are shared out to all three."""
    if rows < 10:
        train_end = max(1, rows - 2) if rows < 8 else rows - 3
        return train_end, min(rows, train_end + 1)
    return round(SPLIT[0] * rows), round((SPLIT[0] + SPLIT[1]) * rows)


# Marks that show nothing by themselves: soft hyphen, zero widths, directions, byte order.
_UNSEEN = re.compile(
    "[\u00ad\u034f\u061c\u180e\u200b\u200e\u200f\u202a-\u202e\u2060-\u2064\u2066-\u2069\ufeff]"
    # joiners show between letters that join and between emoji, not beside Latin ones
    "|(?<![^\x00-\u024f])[\u200c\u200d]+(?![^\x00-\u024f])"
)
_BLANKS = re.compile("[\\s\u115f\u1160\u2800\u3164\uffa0]+")


def normalise(text: str) -> str:
    """A text as its reader sees it: two with the same result are the same text.

    Accents composed or not, marks that show nothing, and the kind and number of blanks make no
    difference; letters, capitals, signs, emoji and punctuation do.
    """
    if text.isascii():
        return " ".join(text.split())
    seen = _UNSEEN.sub("", unicodedata.normalize("NFC", text))
    return _BLANKS.sub(" ", unicodedata.normalize("NFC", seen)).strip()


def _nearly(text: str) -> str:
    """The text without capitals and punctuation, which tell apart too little for a fair test."""
    folded = unicodedata.normalize("NFKC", normalise(text)).casefold()
    if not folded.isascii():
        marks = {c for c in folded if unicodedata.category(c) in _PUNCTUATION}
        folded = folded.translate({ord(mark): " " for mark in marks})
    else:
        folded = folded.translate(_ASCII_PUNCTUATION)
    return " ".join(folded.split()) or normalise(text)


_PUNCTUATION = ("Po", "Pd", "Ps", "Pe", "Pi", "Pf")
_ASCII_PUNCTUATION = {
    code: " " for code in range(128) if unicodedata.category(chr(code)) in _PUNCTUATION
}
