"""From a run's events to what is drawn of it: points, a status line, a row of the table.

Plain data in, plain data out; nothing here knows gradio.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import Any

from lora_core.events import Evaluated, Event, Finished, Started, Step

MAX_POINTS = 600  # of a raw loss curve: beyond, neighbouring steps are averaged


_PAST = 0.9  # weight of the past in a smoothed loss


def smooth(losses: Sequence[float | None]) -> list[float | None]:
    """The running mean of the losses, corrected for its start; None where a loss is None."""
    smoothed: list[float | None] = []
    mean = weight = 0.0
    for loss in losses:
        if loss is not None:
            mean = _PAST * mean + (1 - _PAST) * loss
            weight = _PAST * weight + (1 - _PAST)
        smoothed.append(None if loss is None else round(mean / weight, 5))
    return smoothed


class Curve:
    """The points of one run. Feed it events as they come; `data()` is what the browser gets."""

    def __init__(self) -> None:
        self.started: Started | None = None
        self.step: Step | None = None
        self.evaluated: list[Evaluated] = []
        self.finished: Finished | None = None
        self._steps: list[int] = []
        self._losses: list[float] = []
        self._bucket: list[float] = []

    def feed(self, events: Iterable[Event]) -> None:
        """Take in further events, in order."""
        for event in events:
            if isinstance(event, Started):
                self.started = event
            elif isinstance(event, Step):
                self.step = event
                self._add(event)
            elif isinstance(event, Evaluated):
                if self.evaluated and event.step <= self.evaluated[-1].step:
                    self._begin_anew(event.step)
                self.evaluated.append(event)
            elif isinstance(event, Finished):
                self.finished = event
                self._point(event.step)  # of a run that was stopped within a bucket

    def _begin_anew(self, step: int) -> None:
        """Forget what came after this step: another machine makes those steps once more."""
        self.evaluated = [e for e in self.evaluated if e.step < step]
        done = sum(number <= step for number in self._steps)
        del self._steps[done:], self._losses[done:]
        self.step, self._bucket = None, []

    def _add(self, event: Step) -> None:
        total = self.started.steps if self.started else 1
        size = max(1, math.ceil(total / MAX_POINTS))
        self._bucket.append(event.loss)
        if len(self._bucket) == size or event.step == total:
            self._point(event.step)

    def _point(self, step: int) -> None:
        """The mean of what is gathered, if there is something, as the point at `step`."""
        if self._bucket:
            self._steps.append(step)
            self._losses.append(round(sum(self._bucket) / len(self._bucket), 5))
            self._bucket = []

    def data(self) -> dict[str, Any]:
        """Lists of numbers by the chart's names; new lists at each call."""
        losses = [loss if math.isfinite(loss) else None for loss in self._losses]
        return {
            "step": list(self._steps),
            "loss": losses,
            "smooth": smooth(losses),
            "at": [e.step for e in self.evaluated],
            "train_loss": [_round(e.train_loss) for e in self.evaluated],
            "validation_loss": [_round(e.validation_loss) for e in self.evaluated],
            "train_accuracy": [_round(e.train_accuracy) for e in self.evaluated],
            "validation_accuracy": [_round(e.validation_accuracy) for e in self.evaluated],
        }

    @property
    def best(self) -> Evaluated | None:
        """The evaluation whose weights are kept."""
        return next((e for e in reversed(self.evaluated) if e.best), None)

    def seconds_left(self) -> float | None:
        """From the pace so far; None before the first step."""
        if self.started is None or self.step is None:
            return None
        return self.step.seconds / self.step.step * (self.started.steps - self.step.step)


def _round(value: float) -> float | None:
    return round(value, 5) if math.isfinite(value) else None
