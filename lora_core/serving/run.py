"""What the registry keeps of one run, and how much memory that is."""

from __future__ import annotations

import secrets
import sys
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Literal

from torch import Tensor

from lora_core.base.checkpoint import Base
from lora_core.classifier import Classifier
from lora_core.config import LoRAConfig, TrainConfig
from lora_core.errors import LabError
from lora_core.events import Evaluated, Event
from lora_core.lora import lora_layers
from lora_core.scores import Answers, Confusion
from lora_core.tasks.task import Task

State = Literal["waiting", "running", "finished", "stopped", "failed", "loaded"]
ENDED = ("finished", "stopped", "failed", "loaded")

_EVENT_BYTES = 300  # of one event record, about
_ROW_BYTES = 72  # of one row of a table besides its text: a pair, and the place where it is listed


def new_visitor() -> str:
    """A visitor's token: a secret string of 43 characters that cannot be guessed."""
    return secrets.token_urlsafe(32)


def new_id() -> str:
    """A run's id: 128 random bits in 22 characters."""
    return secrets.token_urlsafe(16)


@dataclass(frozen=True)
class TestScore:
    """How a trained classifier does on texts that training never looked at."""

    __test__ = False  # not one of pytest's

    accuracy: float  # 0 to 1
    rows: int
    confusion: Confusion
    # Text by text; None where it was read from a store, which keeps the counts alone.
    answers: Answers | None = field(default=None, repr=False, compare=False)


@dataclass(frozen=True)
class Best:
    """The best weights so far, after `step` steps, by the names of the trained parameters."""

    step: int
    weights: Mapping[str, Tensor] = field(repr=False)


@dataclass(eq=False)
class Run:
    """One run of one visitor. Read it from any thread; only the registry changes it.

    `state` goes from "waiting" over "running" to "finished", "stopped" or "failed"; an adapter
    that was brought along is "loaded" from the start. A run that diverged is "failed" but keeps the
    classifier with its best weights, as a stopped one does. `Finished` is the last event of each
    run that has a classifier; it comes after the test score, just before the state. So: read
    `is_over` first and the events after it, and none is missed.
    """

    id: str = field(repr=False)  # a secret, too: who knows it may use the run over the web API
    visitor: str = field(repr=False)
    name: str = field(repr=False)
    base: Base | None = field(repr=False)
    task: Task | None = field(repr=False)
    lora_config: LoRAConfig | None
    train_config: TrainConfig | None
    watch_texts: tuple[str, ...] = field(default=(), repr=False)
    state: State = "waiting"
    reason: str = ""  # a sentence, for a run that failed or was stopped
    place: int = 0  # 0: running or ended; 1: starts next
    events: list[Event] = field(default_factory=list, repr=False)  # only ever appended to
    loaded: Classifier | None = field(default=None, repr=False)  # `classifier` is how to ask
    loader: Callable[[], Classifier] | None = field(default=None, repr=False)  # from the store
    lost: str = ""  # a sentence, where something of it was dropped to make room
    test_score: TestScore | None = field(default=None, repr=False)
    share: str = field(default="", repr=False)  # with whom it shares its turns; the visitor
    address: str = field(default="", repr=False)  # whose turns it shares with others; its `share`
    interrupted: bool = False  # the server ended while it trained; it can go on
    durable: bool = True  # whether it is to outlive the process, where there is a store
    written: int = field(default=0, repr=False)  # events that are in the store
    behind: bool = False  # whether the store could not take what it has come to
    replaces: str = field(default="", repr=False)  # the stored run that it goes on from
    stored_base: tuple[str, str] = "", ""  # name and digest of its base, where that is not loaded
    first_step: int = 0  # steps that an earlier part of the run had done
    best: Best | None = field(default=None, repr=False)  # while it can go on from there
    created: float = 0.0  # seconds of the registry's clock: awake, not since 1970
    started: float | None = None
    ended: float | None = None
    used: float = field(default=0.0, repr=False)  # when it was last asked for
    step: int = 0  # optimiser steps done
    processor_seconds: float = 0.0  # of the thread that trained it: others' runs are not in it
    held_bytes: int = 0  # memory that it occupies by itself once it is over: weights and events
    stopping: threading.Event = field(default_factory=threading.Event, repr=False)
    estimator: Callable[[Run], float | None] = field(default=lambda run: None, repr=False)

    def curve(self) -> list[Event]:
        """The events that count, in order: `Evaluated` of a step that was evaluated before voids
        those from there on, as another machine began the run anew."""
        kept: list[Event] = []
        for event in list(self.events):
            if isinstance(event, Evaluated):
                pairs = enumerate(kept)
                later = (n for n, e in pairs if isinstance(e, Evaluated) and e.step >= event.step)
                del kept[next(later, len(kept)) :]
            kept.append(event)
        return kept

    def events_since(self, n: int) -> list[Event]:
        """The events from number `n` (from 0) on; a copy."""
        return self.events[max(0, n) :]

    @property
    def classifier(self) -> Classifier | None:
        """What it has learnt; read from the store where it is not in memory any more."""
        if self.loaded is None and self.loader is not None:
            try:
                self.loaded = self.loader()
            except LabError as error:
                self.loader, self.lost = None, str(error)
            self.weigh()
        return self.loaded

    @property
    def has_weights(self) -> bool:
        """Whether there is a classifier, without reading it."""
        return self.loaded is not None or self.loader is not None

    @property
    def is_over(self) -> bool:
        """Whether nothing will be added any more."""
        return self.state in ENDED

    @property
    def estimate_seconds(self) -> float | None:
        """Seconds until a waiting run starts or a running one ends; None while unknown.

        From the measured speed of the runs of this server; nothing is known before its first steps.
        """
        return self.estimator(self)

    def weigh(self) -> None:
        """Set `held_bytes` from what the run holds now."""
        self.held_bytes = classifier_bytes(self.loaded) + _EVENT_BYTES * len(self.events)

    def work(self) -> float:
        """How much there is to compute, in characters: steps x batch x length of a text."""
        assert self.base is not None and self.task is not None and self.train_config is not None
        sample = self.task.train[:200]
        longest = 6 * self.base.config.context_length  # what lies beyond it is not computed
        characters = sum(min(len(row.text), longest) for row in sample) / max(1, len(sample))
        return self.train_config.steps * self.train_config.batch_size * max(1.0, characters)


def classifier_bytes(classifier: Classifier | None) -> int:
    """Bytes of what a classifier does not share with its base: adapters, and each tensor trained
    in full three times (as it is, as it was, as it became)."""
    if classifier is None:
        return 0
    own = {id(p): p for _, layer in lora_layers(classifier.model) for p in layer.lora.parameters()}
    parameters = dict(classifier.model.named_parameters())
    own |= {id(p): p for n, p in parameters.items() if n in classifier.initial}
    size = sum(p.nbytes for p in own.values())
    return size + 2 * sum(tensor.nbytes for tensor in classifier.initial.values())


def task_bytes(task: Task) -> int:
    """Bytes of a table in memory."""
    rows = (*task.train, *task.validation, *task.test)
    return sum(sys.getsizeof(row.text) + _ROW_BYTES for row in rows)
