"""Learned or memorised: a run's accuracy on texts that it trained on against that on others."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from lora_core.events import Evaluated, Event


@dataclass(frozen=True)
class Memorising:
    """What the evaluations along one run say. Accuracies from 0 to 1, losses in nats."""

    steps: tuple[int, ...]
    train_accuracy: tuple[float, ...]  # on a sample of the texts that it trains on
    validation_accuracy: tuple[float, ...]
    train_loss: tuple[float, ...]
    validation_loss: tuple[float, ...]
    best_step: int  # whose weights are kept
    turn: int | None  # the step from which on it memorises; None: it does not

    @property
    def gap(self) -> tuple[float, ...]:
        """Training minus validation accuracy, at each step."""
        pairs = zip(self.train_accuracy, self.validation_accuracy, strict=True)
        return tuple(train - validation for train, validation in pairs)


def memorising(events: Sequence[Event]) -> Memorising | None:
    """Read a run's events; None before its first evaluation."""
    evaluations = [event for event in events if isinstance(event, Evaluated)]
    if not evaluations:
        return None
    return Memorising(
        tuple(e.step for e in evaluations),
        tuple(e.train_accuracy for e in evaluations),
        tuple(e.validation_accuracy for e in evaluations),
        tuple(e.train_loss for e in evaluations),
        tuple(e.validation_loss for e in evaluations),
        next((e.step for e in reversed(evaluations) if e.best), 0),
        _turn(evaluations),
    )


def _turn(evaluations: Sequence[Evaluated]) -> int | None:
    """The step of the lowest validation loss, if it rises for good after it while the training
    loss still falls: at least two evaluations follow, and the last is a twentieth above it."""
    lowest = min(range(len(evaluations)), key=lambda i: evaluations[i].validation_loss)
    low, last = evaluations[lowest], evaluations[-1]
    if len(evaluations) - lowest < 3 or last.validation_loss < 1.05 * low.validation_loss:
        return None
    return low.step if last.train_loss < low.train_loss else None
