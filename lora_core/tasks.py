"""Labelled text: the bundled tasks, and anybody's own table; split once, reproducibly."""

from __future__ import annotations

import csv
import random
import re
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from lora_core.config import MAX_CLASSES

BUNDLED_TASKS = Path(__file__).resolve().parent.parent / "assets" / "tasks"
SPLIT = (0.7, 0.1, 0.2)  # train, validation, test: the book's


class TaskError(ValueError):
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


def task_names() -> list[str]:
    """Names of the bundled tasks."""
    return sorted(path.stem for path in BUNDLED_TASKS.glob("*.csv"))


def load_task(name: str) -> Task:
    """A bundled task by name, such as "sms-spam". Raises `TaskError` with the names there are."""
    path = BUNDLED_TASKS / f"{name}.csv"
    if name not in task_names():
        raise TaskError(f"There is no task called '{name}'. There are: {', '.join(task_names())}.")
    return read_task(path)


def read_task(path: str | Path, seed: int = 0) -> Task:
    """A CSV with the columns `text` and `label` as a task, split 70/10/20, stratified."""
    path = Path(path)
    with path.open(encoding="utf-8-sig", newline="") as file:
        reader = csv.DictReader(file)
        columns = reader.fieldnames or []
        if "text" not in columns or "label" not in columns:
            raise TaskError(
                f"Columns 'text' and 'label' are needed; this has {', '.join(columns)}."
            )
        rows = [(row["text"], row["label"]) for row in reader if row["text"] and row["label"]]
    return make_task(path.stem, rows, seed)


def make_task(name: str, rows: Sequence[tuple[str, str]], seed: int = 0, title: str = "") -> Task:
    """Split (text, label) rows; texts that are the same after normalisation stay together once."""
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
        cut1 = round(SPLIT[0] * len(group))
        cut2 = round((SPLIT[0] + SPLIT[1]) * len(group))
        for part, piece in zip(parts, (group[:cut1], group[cut1:cut2], group[cut2:]), strict=True):
            part.extend(piece)
    for part in parts:
        shuffler.shuffle(part)
    train, validation, test = (tuple(part) for part in parts)
    return Task(name, labels, train, validation, test, title or name)


def normalise(text: str) -> str:
    """Letters and digits only, lower case: two texts with the same result are the same text."""
    folded = unicodedata.normalize("NFKC", text).casefold()
    return " ".join(re.findall(r"\w+", folded)) or folded.strip()
