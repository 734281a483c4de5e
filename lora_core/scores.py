"""How good answers are: how many are right, what is taken for what, the loss."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

Confusion = tuple[tuple[int, ...], ...]  # [true label][predicted label], in the task's order


@dataclass(frozen=True)
class Score:
    """Loss and accuracy over a labelled set."""

    loss: float  # mean cross-entropy in nats
    accuracy: float  # 0 to 1


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
