"""How good answers are: how many are right, what is taken for what, the loss, the confidence."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

Confusion = tuple[tuple[int, ...], ...]  # [true label][predicted label], in the task's order

HOTTEST = 16.0  # temperatures lie between 1 / HOTTEST and HOTTEST
_DOUBT = 2.0  # nats that a temperature of e costs: a handful of texts moves it little


@dataclass(frozen=True)
class Score:
    """Loss and accuracy over a labelled set."""

    loss: float  # mean cross-entropy in nats
    accuracy: float  # 0 to 1


class Answers(NamedTuple):
    """What a classifier says of texts, in their order."""

    said: Tensor  # (rows,) int64, the labels
    probabilities: Tensor  # (rows,) float32, of what was said


def score(logits: Tensor, truth: Tensor) -> Score:
    """Of (rows, classes) logits against (rows,) labels."""
    return Score(F.cross_entropy(logits, truth).item(), correct(logits, truth) / len(truth))


def correct(answers: Tensor, truth: Tensor) -> int:
    """How many rows of (rows, classes) logits or probabilities are largest at the truth (rows,)."""
    return int((answers.argmax(-1) == truth).sum())


def confusion(predicted: Tensor, truth: Tensor, classes: int) -> Confusion:
    """Of (rows,) predicted labels against (rows,) true ones: how many of each pair."""
    counts = torch.bincount(truth * classes + predicted, minlength=classes * classes)
    return tuple(map(tuple, counts.view(classes, classes).tolist()))


def right(counts: Confusion) -> int:
    """How many answers of a confusion matrix are right: its diagonal."""
    return sum(row[label] for label, row in enumerate(counts))


def best_temperature(logits: Tensor, truth: Tensor) -> float:
    """What to divide (rows, classes) logits by, so that a probability of 90 % is right nine times
    in ten (Guo et al. 2017, arXiv:1706.04599).

    The least summed cross-entropy on texts that were not trained on, plus `_DOUBT` times the
    square of the temperature's logarithm: without it three texts, all right, would ask for
    certainty. Golden section over the logarithm; the sum has one valley there.
    """

    def cost(exponent: float) -> float:
        loss = F.cross_entropy(logits.double() / math.exp(exponent), truth, reduction="sum")
        return loss.item() + _DOUBT * exponent * exponent

    low, high = -math.log(HOTTEST), math.log(HOTTEST)
    golden = (math.sqrt(5.0) - 1.0) / 2.0
    for _ in range(40):
        left, right_ = high - golden * (high - low), low + golden * (high - low)
        low, high = (low, right_) if cost(left) < cost(right_) else (left, high)
    return math.exp((low + high) / 2.0)
