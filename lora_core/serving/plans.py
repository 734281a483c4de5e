"""A plan: many runs that answer one question together, such as ranks by alphas by seeds.

A plan keeps figures, not adapters, and hands the registry no more runs at a time than there are
workers. So a plan of eighty runs takes no room from its visitor's own runs, fills no queue, and
holds up another visitor by one run, as every visitor does. It has a line of its own beside
its visitor's: a run that the visitor starts meanwhile does not wait for the plan.
"""

from __future__ import annotations

import contextlib
import hashlib
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from lora_core.base.checkpoint import Base
from lora_core.config import LoRAConfig, TrainConfig
from lora_core.events import Finished, Started
from lora_core.limits import RunError
from lora_core.serving.admission import check_run, check_visitor
from lora_core.serving.registry import Registry
from lora_core.serving.run import Run, new_id
from lora_core.tasks.task import Task

MAX_RUNS = 80  # of one plan
KEPT = 4  # ended plans of one visitor; the oldest goes first
KEPT_IN_ALL = 400  # and of all: anybody can be a new visitor
State = Literal["running", "done", "stopped"]
_LOOK = 0.2  # seconds between two looks at the runs, while there is a plan to be fed


@dataclass(frozen=True)
class Result:
    """How one run of a plan ended; None where it gave no figure."""

    state: str
    validation: float | None  # accuracy of the best weights, 0 to 1
    test: float | None  # accuracy, 0 to 1
    rows: int  # of the test texts
    trainable: int | None
    seconds: float | None


@dataclass(frozen=True)
class Cell:
    """One run that a plan wants: its settings, and what the asker calls it."""

    about: Any  # of the asker: handed back with the result
    lora_config: LoRAConfig
    train_config: TrainConfig


@dataclass(eq=False)
class Plan:
    """Read it from any thread; only `Plans` changes it."""

    id: str = field(repr=False)
    visitor: str = field(repr=False)
    kind: str
    task_name: str
    cells: tuple[Cell, ...] = field(repr=False)
    results: list[Result | None] = field(repr=False)  # beside `cells`
    base: Base | None = field(repr=False)  # while it runs: a table of 20 MB goes with its last run
    task: Task | None = field(repr=False)
    address: str = field(default="", repr=False)  # from where it was asked for
    state: State = "running"
    reason: str = ""  # a sentence, where the plan could not go on
    running: dict[int, Run] = field(default_factory=dict, repr=False)  # by cell
    began: float = field(default_factory=time.monotonic, repr=False)

    @property
    def done(self) -> int:
        """Runs that are over."""
        return sum(result is not None for result in self.results)

    def seconds_left(self) -> float | None:
        """From how fast it has gone so far; None before its first result, or when it is over."""
        if not self.done or self.state != "running":
            return None
        gone = time.monotonic() - self.began
        return gone / self.done * (len(self.cells) - self.done)


class Plans:
    """All plans of a server. All public methods may be called from any thread."""

    def __init__(self, registry: Registry) -> None:
        self._registry = registry
        self._lock = threading.RLock()
        self._plans: dict[str, Plan] = {}  # in the order of submission
        self._thread: threading.Thread | None = None

    def submit(
        self,
        visitor: str,
        kind: str,
        base: Base,
        task: Task,
        cells: Sequence[Cell],
        *,
        address: str = "",
    ) -> Plan:
        """Begin a plan. Raises `RunError`, in words: one plan of a visitor at a time, and each of
        its runs must be one that this server takes. `address`: see `Registry.submit`."""
        check_visitor(visitor)
        if not 1 <= len(cells) <= MAX_RUNS:
            raise RunError(
                f"This would be {len(cells)} runs; a sweep has 1 to {MAX_RUNS}. Take fewer seeds."
            )
        for cell in cells:
            check_run(self._registry.limits, base, task, cell.lora_config, cell.train_config)
        with self._lock:
            if any(p.state == "running" for p in self.of(visitor)):
                raise RunError("Another sweep of yours is running. Stop it first, or wait for it.")
            plan = Plan(
                new_id(), visitor, kind, task.name, tuple(cells), [None] * len(cells), base, task
            )
            plan.address = address
            self._advance(plan)  # what it raises, the visitor reads at once
            self._plans[plan.id] = plan
            over = [p for p in self._plans.values() if p.state != "running"]
            for old in [*self.of(visitor)[:-KEPT], *over[:-KEPT_IN_ALL]]:
                self._plans.pop(old.id, None)
            if self._thread is None:
                self._thread = threading.Thread(
                    target=self._feed, name="lora-lab-plans", daemon=True
                )
                self._thread.start()
            return plan

    def of(self, visitor: str) -> list[Plan]:
        """A visitor's plans, oldest first."""
        with self._lock:
            return [plan for plan in self._plans.values() if plan.visitor == visitor]

    def find(self, plan_id: str) -> Plan:
        """A plan by its id: who has the id may use it. Raises `RunError`."""
        with self._lock:
            plan = self._plans.get(plan_id) if isinstance(plan_id, str) else None
            if plan is None:
                raise RunError("This sweep is not here: its name is wrong, or it was forgotten.")
            return plan

    def stop(self, plan: Plan) -> None:
        """End a plan; what is known stays. Nothing happens to one that is over."""
        with self._lock:
            if plan.state != "running":
                return
            self._end(plan, "stopped")
            for run in plan.running.values():
                self._drop(run)
            plan.running.clear()

    # Inside, with the lock held --------------------------------------------------------------

    def _feed(self) -> None:
        while True:
            time.sleep(_LOOK)
            with self._lock:
                active = [plan for plan in self._plans.values() if plan.state == "running"]
                for plan in active:
                    try:
                        self._advance(plan)
                    except RunError as error:
                        # A full queue empties again; anything else ends the plan, in words.
                        if not plan.running and "queue is full" not in str(error):
                            plan.reason = str(error)
                            self.stop(plan)
                if not active:
                    self._thread = None
                    return

    def _advance(self, plan: Plan) -> None:
        """Collect what has ended, and submit as many runs as there are workers for."""
        for index, run in list(plan.running.items()):
            if run.is_over:
                plan.results[index] = _result(run)
                del plan.running[index]
                self._drop(run)
        assert plan.base is not None and plan.task is not None, "it runs"
        for index, cell in enumerate(plan.cells):
            if len(plan.running) >= self._registry.workers:
                return
            if plan.results[index] is None and index not in plan.running:
                plan.running[index] = self._registry.submit(
                    _line(plan.visitor),
                    plan.base,
                    plan.task,
                    cell.lora_config,
                    cell.train_config,
                    address=plan.address,
                    durable=False,
                )
        if not plan.running:
            self._end(plan, "done")

    def _end(self, plan: Plan, state: State) -> None:
        plan.state, plan.base, plan.task = state, None, None

    def _drop(self, run: Run) -> None:
        with contextlib.suppress(RunError):  # it was forgotten already
            self._registry.remove(run.visitor, run.id)


def _line(visitor: str) -> str:
    """The line in which a visitor's plans wait: as hard to guess as the visitor's token."""
    return "plan-" + hashlib.sha256(visitor.encode()).hexdigest()[:43]


def _result(run: Run) -> Result:
    started = next((e for e in run.events if isinstance(e, Started)), None)
    finished = next((e for e in reversed(run.events) if isinstance(e, Finished)), None)
    score = run.test_score
    return Result(
        run.state,
        finished.validation_accuracy if finished else None,
        score.accuracy if score else None,
        score.rows if score else 0,
        started.parameters.trainable if started else None,
        finished.seconds if finished else None,
    )
