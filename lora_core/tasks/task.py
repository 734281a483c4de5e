"""Labelled text: the bundled tasks, and anybody's own table; split once, reproducibly."""

from __future__ import annotations

import csv
import random
import re
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from lora_core.config import MAX_CLASSES
from lora_core.errors import LabError

if TYPE_CHECKING:
    from lora_core.limits import Limits

BUNDLED_TASKS = Path(__file__).resolve().parents[2] / "assets" / "tasks"
TITLES = {
    "sms-spam": "SMS: spam or ham",
    "sentiment": "Reviews: good or bad",
    "support-topic": "Support mail: topic",
    "prompt-injection": "Prompts: injection or not",
}
COLLECTION = "sms-spam-collection"  # downloaded when asked for, see `downloads`
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


def task_names() -> list[str]:
    """Names of the bundled tasks."""
    return sorted(path.stem for path in BUNDLED_TASKS.glob("*.csv"))


def load_task(name: str) -> Task:
    """A task by its name, split 70/10/20 into train, validation and test, always the same way.

    Bundled, written for this project, each with a card beside it in `assets/tasks`: "sms-spam",
    "sentiment", "support-topic", "prompt-injection" (`task_names()` lists them). Besides,
    "sms-spam-collection" is the real SMS Spam Collection, downloaded from UCI when first asked for.

        task = lc.load_task("sms-spam")
        task.labels              # ("ham", "spam")
        task.train[0]            # Example(text="…", label=0): the index of its label
        len(task.train), len(task.validation), len(task.test)

    Raises `TaskError`, a sentence: for another name with those that there are, and for a download
    that failed.
    """
    if name == COLLECTION:
        from lora_core.tasks.sms_collection import sms_spam_collection

        return sms_spam_collection()
    if name not in task_names():
        raise TaskError(f"There is no task called '{name}'. There are: {', '.join(task_names())}.")
    with (BUNDLED_TASKS / f"{name}.csv").open(encoding="utf-8", newline="") as file:
        rows = [(row["text"], row["label"]) for row in csv.DictReader(file)]
    return make_task(name, rows, title=TITLES.get(name, name))


def read_task(
    path: str | Path,
    *,
    text_column: str | None = None,
    label_column: str | None = None,
    seed: int = 0,
    limits: Limits | None = None,
) -> Task:
    """Somebody's own table as a task: a CSV, TSV, JSON Lines, XLSX or Parquet file.

        task = lc.read_task("mine.csv")                     # columns called text and label
        task = lc.read_task("mine.xlsx", text_column="Message", label_column="Desk")
        print(*task.warnings, sep="\n")                     # what was left out, what looks odd
        *_, end = lc.fine_tune(lc.load_base(), task, lc.LoRAConfig(), lc.TrainConfig())

    Columns called `text` and `label`, in capitals or not, are taken; others are named. A label may
    be a word or a number; there must be two to a hundred different ones. Encodings, separators and
    quotes are found out. Left out, and counted in `Task.warnings`: rows without a text or a label,
    texts that came before, texts under two labels.

    The split is 70/10/20, stratified; the same `seed` and rows give the same one. `limits` bound
    the file: `lora_core.limits.Limits(upload_mb=200, max_rows=1_000_000)` for a larger one.
    To look at a file first: `lora_core.tasks.own_table.inspect_table(path)`.

    Raises `TaskError`: one sentence that says what is wrong with the file and what is needed.
    """
    from lora_core.tasks.own_table import read_own_task  # it is made of the things in this file

    return read_own_task(path, text_column, label_column, seed, limits)


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
