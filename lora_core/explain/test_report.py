"""How a classifier does on its task's test texts, one by one: confusion, mistakes, hard ones."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from lora_core.classifier import Classifier
from lora_core.scores import Answers, Confusion, confusion, right
from lora_core.tasks.task import Task

BINS = 10  # of equal width, over the probability of the answer
_ROWS_A_TURN = 16  # then the classifier is handed to whoever waits for an answer


@dataclass(frozen=True)
class Judged:
    """One test text, what it is and what the classifier took it for."""

    text: str
    truth: str  # its label
    said: str  # the classifier's
    probability: float  # of what it said

    @property
    def right(self) -> bool:
        """Whether the classifier was right."""
        return self.truth == self.said


@dataclass(frozen=True)
class Bin:
    """The answers that were said with a probability from `low` to `low` + 1 / BINS."""

    low: float
    count: int
    confidence: float  # their mean probability, 0 when there are none
    accuracy: float  # the share of them that was right, 0 when there are none


@dataclass(frozen=True)
class TestReport:
    """All test texts of a task, judged at strength 1."""

    __test__ = False  # not one of pytest's

    labels: tuple[str, ...]
    confusion: Confusion
    judged: tuple[Judged, ...]  # the least probable answer first

    @property
    def correct(self) -> int:
        """How many were right."""
        return right(self.confusion)

    @property
    def mistakes(self) -> list[Judged]:
        """The wrong ones, the most confident first."""
        return [judged for judged in reversed(self.judged) if not judged.right]

    @property
    def reliability(self) -> tuple[Bin, ...]:
        """The answers in `BINS` bins by their probability: said and right, side by side."""
        return reliability([(one.probability, one.right) for one in self.judged])

    @property
    def calibration_error(self) -> float:
        """How far said and right are apart, on average over the answers (ECE, 0 to 1)."""
        return calibration_error(self.reliability)

    @property
    def barely_right(self) -> list[Judged]:
        """The right ones, the least confident first."""
        return [judged for judged in self.judged if judged.right]


def reliability(answers: Sequence[tuple[float, bool]]) -> tuple[Bin, ...]:
    """(probability 0 to 1, whether right) of each answer -> `BINS` bins of equal width."""
    members: list[list[tuple[float, bool]]] = [[] for _ in range(BINS)]
    for probability, hit in answers:
        members[min(BINS - 1, int(probability * BINS))].append((probability, hit))
    return tuple(
        Bin(
            i / BINS,
            len(inside),
            sum(p for p, _ in inside) / max(1, len(inside)),
            sum(hit for _, hit in inside) / max(1, len(inside)),
        )
        for i, inside in enumerate(members)
    )


def calibration_error(bins: Sequence[Bin]) -> float:
    """Expected calibration error: mean of |confidence - accuracy|, each bin by its answers."""
    total = sum(b.count for b in bins)
    return sum(b.count * abs(b.confidence - b.accuracy) for b in bins) / max(1, total)


def report_on_test(classifier: Classifier, task: Task) -> TestReport | None:
    """Judge every test text; None when task and classifier do not have the same labels."""
    if classifier.labels != task.labels or not task.test:
        return None
    probabilities = _probabilities(classifier, [example.text for example in task.test])
    highest, said = probabilities.max(-1)
    return report_of(Answers(said, highest), task)


def report_of(answers: Answers, task: Task) -> TestReport:
    """The same, where the test texts of `task` have been answered already, in their order."""
    truths = torch.tensor([example.label for example in task.test])
    counts = confusion(answers.said, truths, len(task.labels))
    said, highest = answers.said.tolist(), answers.probabilities.tolist()
    judged = [
        Judged(example.text, task.labels[example.label], task.labels[answer], p)
        for example, answer, p in zip(task.test, said, highest, strict=True)
    ]
    judged.sort(key=lambda one: one.probability)
    return TestReport(task.labels, counts, tuple(judged))


def _probabilities(classifier: Classifier, texts: Sequence[str]) -> Tensor:
    """(n, classes); in turns, so that nobody who types waits for all of them."""
    ids = [classifier.encode(text) for text in texts]
    order = sorted(range(len(ids)), key=lambda row: len(ids[row]))  # little padding
    out = torch.empty(len(ids), len(classifier.labels))
    for start in range(0, len(order), _ROWS_A_TURN):
        rows = order[start : start + _ROWS_A_TURN]
        out[rows] = classifier.probabilities([ids[row] for row in rows])
        time.sleep(0.001)  # a lock goes to whoever asks first: let the others ask
    return out
