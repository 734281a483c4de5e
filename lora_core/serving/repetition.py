"""A run that another worker begins again: what was reported of it before is reported once.

With the same seed, number format and kind of processor it makes the same steps, bit for bit, so
that nobody sees where it was broken off. Another kind of processor adds in another order, and so
makes another run: its first report that differs shows it, and all of it is reported from its
`Started` on, which begins the curve anew (`Run.curve`).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

from lora_core.events import Event, Started
from lora_core.serving import records
from lora_core.serving.run import Best
from lora_core.serving.worker import Job, Outcome, Progress, Report

_BESIDE = ("seconds", "tokens_per_second", "device")  # may differ in the same run


class Repetition:
    """Takes the reports of all who train a run, one after the other. Not thread-safe."""

    def __init__(
        self, job: Job, report: Callable[[Report], None], is_stopped: Callable[[], bool]
    ) -> None:
        """`report` is told what was not reported yet; `is_stopped` says whether the run is to end:
        who repeats it has nothing to add then."""
        self.progress = Progress(job)  # of what was reported
        self.is_behind = False  # whether who trains it now repeats what was reported
        self._job, self._report, self._is_stopped = job, report, is_stopped
        self._reported: list[Event] = []
        self._repeated: list[Event] = []
        self._best: Best | None = None  # of the repetition

    def __call__(self, item: Report) -> None:
        """Take a report; each who trains begins with `Started`."""
        if isinstance(item, Started) and self._reported:
            self.is_behind, self._repeated, self._best = True, [], None
        if not self.is_behind:
            self._hand_on(item)
        elif self._is_stopped():
            return
        elif isinstance(item, Best):
            self._best = item
        else:
            known = self._reported[len(self._repeated)]
            self._repeated.append(item)
            if _content(item) != _content(known):
                self._begin_anew()
            else:
                self.is_behind = len(self._repeated) < len(self._reported)

    def outcome(self, outcome: Outcome) -> Outcome:
        """How the run ended: with no less than was reported of it."""
        if not self.is_behind or outcome.state == "finished":
            return outcome
        return replace(outcome, finished=self.progress.finished(outcome.state))

    def stopped(self) -> Outcome:
        """The end of a run that nobody trains any more, or nobody who answers."""
        return Outcome("stopped", "", self.progress.finished("stopped"))

    def _hand_on(self, item: Report) -> None:
        if not isinstance(item, Best):
            self._reported.append(item)
        self.progress.note(item)
        self._report(item)

    def _begin_anew(self) -> None:
        self.progress, self._reported, self.is_behind = Progress(self._job), [], False
        started, *later = self._repeated
        best = [self._best] if self._best is not None else []
        for item in (started, *best, *later):  # weights come before the evaluation that keeps them
            self._hand_on(item)


def _content(event: Event) -> str:
    """What tells events apart, as text: NaN is not equal to itself."""
    facts: dict[str, Any] = records.event_record(event)
    return repr({name: value for name, value in facts.items() if name not in _BESIDE})
