"""The texts that an experiment asks a classifier, over and over, in turns.

What takes seconds is a generator: it yields None where somebody else may go on, and values as they
come. `finish` runs one to its end, for a script or a test.
"""

from __future__ import annotations

from collections.abc import Generator, Iterator
from dataclasses import dataclass, field
from typing import TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor

from lora_core.batches import Batch, sorted_batches
from lora_core.classifier import Classifier, batched_logits
from lora_core.errors import LabError
from lora_core.model import GPT
from lora_core.scores import correct
from lora_core.tasks.task import Task

MAX_ROWS = 512  # of the test texts, the first ones: what bounds the time of every experiment
_ROWS_A_TURN, _TOKENS_A_TURN = 16, 1024  # some 50 ms of a core, for the bundled base

Value = TypeVar("Value")
Turns = Generator[None, None, Value]  # computes in turns, and returns its value


class ExperimentError(LabError, ValueError):
    """An experiment that cannot be made; the message says why."""


@dataclass(frozen=True)
class Exam:
    """Labelled texts as token ids, the shortest first; rows keep their order in what is returned.

    Make it with `Exam.of`; it fits every classifier with that tokenizer and those labels.
    """

    ids: tuple[tuple[int, ...], ...] = field(repr=False)
    truth: Tensor = field(repr=False)  # (rows,) int64

    @classmethod
    def of(cls, classifier: Classifier, task: Task | None, rows: int = MAX_ROWS) -> Exam:
        """The task's first test texts, at most `rows`. Raises `ExperimentError` without any."""
        if task is None or not task.test:
            raise ExperimentError(
                "The test texts of this adapter are not here. Choose a run that was trained here."
            )
        if set(task.labels) != set(classifier.labels):
            raise ExperimentError("This adapter's labels are not those of the test texts.")
        examples = task.test[:rows]
        order = [classifier.labels.index(label) for label in task.labels]
        ids = tuple(tuple(classifier.encode(row.text)) for row in examples)
        return cls(ids, torch.tensor([order[row.label] for row in examples]))

    @property
    def rows(self) -> int:
        """How many texts there are."""
        return len(self.ids)

    def probabilities(self, classifier: Classifier) -> Turns[Tensor]:
        """(rows, classes), float32, in the classifier's order of labels."""
        logits = yield from self.logits(classifier.model_at())
        return F.softmax(logits, -1)

    def logits(self, model: GPT) -> Turns[Tensor]:
        """(rows, classes), float32, as the model gives them. Nobody else may change it."""
        order: list[int] = []
        parts: list[Tensor] = []
        for batch in self.batches():
            parts.append(batched_logits(model, [self.ids[row] for row in batch.rows]))
            order += batch.rows
            yield
        return torch.cat(parts)[torch.tensor(order).argsort()]

    def right(self, classifier: Classifier) -> Turns[int]:
        """How many texts get their label."""
        probabilities = yield from self.probabilities(classifier)
        return self.correct(probabilities)

    def correct(self, probabilities: Tensor) -> int:
        """How many rows of (rows, classes) are largest at the truth."""
        return correct(probabilities, self.truth)

    def batches(self) -> Iterator[Batch]:
        """The texts as they are asked: so few that whoever trains hardly waits for one batch."""
        return sorted_batches(self.ids, self.truth.tolist(), _ROWS_A_TURN, _TOKENS_A_TURN)


def finish(turns: Generator[object, None, Value]) -> Value:
    """Run a computation to its end: what it returns."""
    while True:
        try:
            next(turns)
        except StopIteration as end:
            value: Value = end.value
            return value


def values(turns: Generator[Value | None, None, object]) -> Iterator[Value]:
    """What a computation yields besides its pauses."""
    return (value for value in turns if value is not None)
