"""The room votes: the mean of everybody's probabilities, growing with each adapter.

One vote a person, whatever they trained and however often: the room asks their best adapter only
(`runs.best_of_each`). It answers the validation texts of its task once, in a thread of its own,
over a private copy, so nobody who types waits for it. Only the probabilities stay.
"""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Sequence
from dataclasses import replace

import torch
from torch import Tensor

from lora_core.classifier import Classifier
from lora_core.errors import LabError
from lora_core.explain.exam import Exam, finish
from lora_core.serving import log
from lora_core.serving.worker import use_one_thread
from lora_core.tasks.task import Task

Find = Callable[[], Classifier | None]


class Votes:
    """Probabilities of a room's runs by their numbers. May be called from any thread."""

    def __init__(self, task_named: Callable[[str], Task], counted: Callable[[], None]) -> None:
        """`counted` is called after each ballot that was counted."""
        self._task_named, self._counted = task_named, counted
        self._lock = threading.Lock()
        self._cast: dict[int, Tensor] = {}  # (rows, classes), classes in the task's order
        self._asked: set[int] = set()
        self._waiting: queue.SimpleQueue[tuple[int, str, Find] | None] = queue.SimpleQueue()
        self._thread: threading.Thread | None = None
        self._closed = False

    def ask(self, number: int, task: str, find: Find) -> None:
        """Let the run `number` vote on its task, when its turn has come; once only."""
        with self._lock:
            if number in self._asked:
                return
            self._asked.add(number)
            if self._thread is None:
                self._thread = threading.Thread(
                    target=self._work, name="lora-lab-votes", daemon=True
                )
                self._thread.start()
        self._waiting.put((number, task, find))

    def forget(self, number: int | None = None) -> None:
        """Drop a run's ballot, or all."""
        with self._lock:
            if number is None:
                self._cast.clear()
                self._asked.clear()
            else:
                self._cast.pop(number, None)
                self._asked.discard(number)

    def cast(self) -> frozenset[int]:
        """The runs whose ballots are counted."""
        with self._lock:
            return frozenset(self._cast)

    def curve(self, task: str, numbers: Sequence[int]) -> list[float]:
        """Accuracy, 0 to 1, of the mean of the first n ballots of these runs, for n from 1 on."""
        with self._lock:
            cast = [self._cast[number] for number in numbers if number in self._cast]
        if not cast:
            return []
        truth = torch.tensor([row.label for row in self._task_named(task).validation])
        sums = torch.stack(cast).double().cumsum(0)  # (n, rows, classes)
        rights: list[int] = (sums.argmax(-1) == truth).sum(-1).tolist()
        return [right / len(truth) for right in rights]

    def close(self, seconds: float = 10.0) -> None:
        """Count no more: the ballot being counted is the last one."""
        self._closed = True
        self._waiting.put(None)
        if self._thread is not None:
            self._thread.join(seconds)

    def _work(self) -> None:
        use_one_thread()
        while (item := self._waiting.get()) is not None and not self._closed:
            number, task, find = item
            try:
                ballot = self._ballot(self._task_named(task), find())
            except LabError:
                continue  # its labels are not the task's, or its weights are gone: it has no vote
            except Exception as error:
                log.question_broke(error)
                continue
            if ballot is not None:
                with self._lock:
                    if number not in self._asked:
                        continue  # it was removed meanwhile
                    self._cast[number] = ballot
                self._counted()
            del item, find

    def _ballot(self, task: Task, classifier: Classifier | None) -> Tensor | None:
        if classifier is None or not task.validation:
            return None
        rows = len(task.validation)
        exam = Exam.of(classifier, replace(task, test=task.validation), rows)
        probabilities = finish(exam.probabilities(classifier))
        return probabilities[:, [classifier.labels.index(label) for label in task.labels]]
