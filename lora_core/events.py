"""What a run says while it trains: frozen records, in the order of `fine_tune`."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from lora_core.classifier import Classifier
from lora_core.config import Method
from lora_core.devices import Device
from lora_core.parameters import ParameterCount

Outcome = Literal["completed", "stopped", "diverged", "failed"]


@dataclass(frozen=True)
class Started:
    """The first event: what is about to happen."""

    steps: int
    batch_size: int
    learning_rate: float  # peak
    method: Method
    parameters: ParameterCount
    device: Device
    train_rows: int
    validation_rows: int
    epochs: float  # passes over the training texts
    step: int = 0


@dataclass(frozen=True)
class Step:
    """One optimiser step; `step` counts from 1."""

    step: int
    loss: float  # mean cross-entropy of this batch, nats, before the step
    learning_rate: float
    tokens_per_second: float  # real tokens, of the training steps so far
    seconds: float  # since the start


@dataclass(frozen=True)
class Evaluated:
    """Loss and accuracy after `step` steps; at step 0 the untrained classifier."""

    step: int
    train_loss: float
    train_accuracy: float
    validation_loss: float
    validation_accuracy: float
    best: bool  # the highest validation accuracy so far, or as high at a lower loss: kept
    seconds: float


@dataclass(frozen=True)
class Watched:
    """Probabilities of the watched texts after `step` steps: one tuple (classes) a text."""

    step: int
    probabilities: tuple[tuple[float, ...], ...]


@dataclass(frozen=True)
class Diverged:
    """The loss became NaN or ran away; the run ends and keeps its best weights."""

    step: int
    loss: float
    message: str


@dataclass(frozen=True)
class Finished:
    """The last event, however the run ended. `classifier` has the best validated weights.

    A run that an error broke off after its first evaluation ends with the outcome "failed"; the
    error itself is raised when the next event is asked for.
    """

    step: int  # steps done
    outcome: Outcome
    best_step: int
    validation_accuracy: float  # of the best weights
    seconds: float
    classifier: Classifier = field(repr=False)


Event = Started | Step | Evaluated | Watched | Diverged | Finished
