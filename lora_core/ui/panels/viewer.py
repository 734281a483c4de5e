"""Which classifier steps 3 and 4 show: the chosen run's, or before any run the untrained base's."""

from __future__ import annotations

import threading
import weakref
from collections import OrderedDict
from dataclasses import dataclass
from typing import Any

import torch

from lora_core.base.checkpoint import Base
from lora_core.classifier import Classifier
from lora_core.config import ConfigError, LoRAConfig
from lora_core.explain.test_report import TestReport, report_of, report_on_test
from lora_core.preparation import build_model
from lora_core.scores import Answers
from lora_core.serving.registry import Run, RunError
from lora_core.tasks.task import Task
from lora_core.ui.context import Context, Lab
from lora_core.ui.names import long_name
from lora_core.ui.settings import Settings
from lora_core.ui.text.catalogue import say

_UNTRAINED_KEPT = 16  # untrained classifiers: a head each, over the shared base
_NEEDED = ("task", "base", "seed")  # the settings on which an untrained classifier depends


@dataclass(frozen=True, eq=False)
class Shown:
    """A classifier with what belongs to it."""

    classifier: Classifier
    task: Task | None  # None: an adapter that was brought along without its texts
    base: Base | None  # None: the same, over a base that is not loaded here
    run: Run | None  # None: nothing is trained yet
    name: str  # for the page: "sms-spam, r 8, α 16"

    @property
    def trained(self) -> bool:
        """Whether there is anything beside the base and its random head."""
        return self.run is not None


class Viewer:
    """Finds what is shown, and keeps what is costly to compute. Safe to call from any thread."""

    def __init__(self, context: Context) -> None:
        self.lab: Lab = context.lab
        names = Settings.names()
        self.inputs = [context.controls[names.index(name)] for name in _NEEDED]
        self._lock = threading.Lock()
        self._untrained: OrderedDict[tuple[str, tuple[str, ...], int], Classifier] = OrderedDict()
        self.lab.bases.when_let_go.append(self._forget)
        self._reports: weakref.WeakKeyDictionary[Classifier, TestReport | None] = (
            weakref.WeakKeyDictionary()
        )
        self._judging: weakref.WeakKeyDictionary[Classifier, threading.Lock] = (
            weakref.WeakKeyDictionary()
        )

    def find(self, visitor: str, run_id: str, values: tuple[Any, ...]) -> Shown:
        """The run `run_id` of this visitor, or the untrained base under the settings `values`.

        `values` are those of `self.inputs`. A run that has been forgotten counts as none. Raises
        `TaskError`, `BaseError` or `ConfigError`, in words.
        """
        if run_id:
            try:
                run = self.lab.registry.get(visitor, run_id)
            except RunError:
                run = None
            if run is not None and run.classifier is not None:
                base = run.base or self.lab.bases.loaded(run.classifier.base_name)
                return Shown(run.classifier, run.task, base, run, long_name(run))
        chosen = dict(zip(_NEEDED, values, strict=True))
        default = Settings()
        base_name = str(chosen["base"] or default.base)
        if base_name != "bundled" and base_name not in self.lab.bases:
            raise ConfigError(say("shown.base_later", base=base_name))
        base = self.lab.base(base_name)
        task = self.lab.task(str(chosen["task"] or default.task), visitor)
        try:
            seed = int(chosen["seed"] or 0)
        except (TypeError, ValueError, OverflowError):
            seed = 0
        return Shown(
            self._guesser(base, task, seed % 2**31), task, base, None, f"{task.name}, untrained"
        )

    def _forget(self, base_name: str) -> None:
        """Let the untrained classifiers over a base go, as it is not used otherwise."""
        with self._lock:
            for key in [key for key in self._untrained if key[0] == base_name]:
                del self._untrained[key]

    def _guesser(self, base: Base, task: Task, seed: int) -> Classifier:
        """The base under a random head: to the bit what a run with this seed starts from."""
        key = (base.name, task.labels, seed)
        with self._lock:
            if key not in self._untrained:
                generator = torch.Generator().manual_seed(seed)
                model = build_model(base, len(task.labels), LoRAConfig(), "head", generator)
                self._untrained[key] = Classifier(
                    model, base.tokenizer, task.labels, base_name=base.name, task_name=task.name
                )
            self._untrained.move_to_end(key)
            while len(self._untrained) > _UNTRAINED_KEPT:
                self._untrained.popitem(last=False)
            return self._untrained[key]

    def report(self, shown: Shown) -> TestReport | None:
        """The test texts, judged once a classifier however many ask; None before training or
        without the texts."""
        if not shown.trained or shown.task is None:
            return None
        with self._lock:
            own = self._judging.setdefault(shown.classifier, threading.Lock())
        with own:  # of this classifier alone: it takes seconds
            with self._lock:
                report = self._reports.get(shown.classifier)
            if report is None:
                answers = _answers(shown)
                if answers is None:
                    report = report_on_test(shown.classifier, shown.task)
                else:
                    report = report_of(answers, shown.task)
                with self._lock:
                    self._reports[shown.classifier] = report
            return report


def _answers(shown: Shown) -> Answers | None:
    """What the test at the end of the run found; None where the texts must be read once more."""
    run = shown.run
    if run is None or run.test_score is None or run.task is not shown.task:
        return None
    return run.test_score.answers
