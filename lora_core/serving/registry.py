"""Many visitors on one machine: every run in a registry, executed by a pool of workers.

A run is not a web request. A visitor submits one, gets an unguessable id, and watches it from any
event on: after a reload, a closed tab or a broken connection it is still there. The workers are as
many as cores and train with one torch thread each, also for a visitor who is alone: two threads on
a pair of busy cores wait for each other at every product (`tests/benchmarks/threads.py`).

Knows nothing about the page. All public methods may be called from any thread.
"""

from __future__ import annotations

import os
import threading
import time
import weakref
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from lora_core.base.checkpoint import Base
from lora_core.classifier import Classifier
from lora_core.config import LoRAConfig, TrainConfig
from lora_core.limits import MEGABYTE, Limits, RunError
from lora_core.serving import log
from lora_core.serving.admission import check_run
from lora_core.serving.fair_queue import Turns
from lora_core.serving.run import (
    Run,
    State,
    TestScore,
    classifier_bytes,
    new_id,
    new_visitor,
    task_bytes,
)
from lora_core.serving.worker import execute, use_one_thread, why
from lora_core.tasks.task import Task

NOT_HERE = (
    "This run is not here: its name is wrong, or it was not used for a long time and has been "
    "forgotten to make room."
)
CLOSING = "The server is ending, so no new runs are taken. Please come back in a few minutes."
_JANITOR_SECONDS = 30.0

__all__ = ["Limits", "Registry", "Run", "RunError", "State", "TestScore", "new_visitor"]


class Registry:
    """All runs and tables of all visitors, and the workers that train.

    Use it as a context manager, or call `close`: otherwise the interpreter waits at its end for
    the runs that are still training.
    """

    def __init__(
        self,
        limits: Limits | None = None,
        workers: int | None = None,
        *,
        clock: Callable[[], float] = time.time,
    ) -> None:
        """`workers` defaults to the number of cores that this process may use."""
        self.limits = limits or Limits()
        self.workers = workers or available_cores()
        self._clock = clock
        self._lock = threading.RLock()
        self._runs: dict[str, Run] = {}  # in the order of submission
        self._turns: Turns[Run] = Turns()
        self._running: list[Run] = []
        self._tables: dict[tuple[str, str], _Table] = {}
        self._brought: weakref.WeakKeyDictionary[Task, int] = weakref.WeakKeyDictionary()  # bytes
        self._speeds: dict[tuple[str, str], float] = {}  # (base, method) -> seconds a unit of work
        self._closing = threading.Event()
        self._pool = ThreadPoolExecutor(self.workers, "lora-lab", initializer=use_one_thread)
        threading.Thread(target=self._janitor, name="lora-lab-janitor", daemon=True).start()

    def __enter__(self) -> Registry:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    # Runs ------------------------------------------------------------------------------------

    def submit(
        self,
        visitor: str,
        base: Base,
        task: Task,
        lora_config: LoRAConfig,
        train_config: TrainConfig,
        *,
        watch_texts: Sequence[str] = (),
        name: str = "",
        own_table: bool = False,
    ) -> Run:
        """Queue a run; it starts when it is this visitor's turn. Raises `RunError`, in words.

        `own_table`: the task is the visitor's own, though not kept by `add_task`.
        """
        _check_visitor(visitor)
        check_run(self.limits, base, task, lora_config, train_config, watch_texts)
        watched = tuple(watch_texts)
        run = Run(new_id(), visitor, name, base, task, lora_config, train_config, watched)
        with self._lock:
            if self._closing.is_set():
                raise RunError(CLOSING)
            own, everybody = self._turns.waiting(visitor), len(self._turns)
            if own >= self.limits.waiting_a_visitor:
                raise RunError(
                    f"You have {own} runs waiting, as many as this server takes from one visitor. "
                    "Stop one of them, or wait until one has started."
                )
            if everybody >= self.limits.waiting_in_all:
                raise RunError(
                    f"The queue is full: {everybody} runs are waiting. "
                    "Try again in a minute or two; your settings stay as they are."
                )
            if own_table:
                self._brought[task] = task_bytes(task)
            self._keep(run)
            self._turns.add(visitor, run)
            self._number_places()
            self._sweep()
            self._pool.submit(self._work)
        return run

    def add_classifier(
        self, visitor: str, classifier: Classifier, task: Task | None = None, name: str = ""
    ) -> Run:
        """Keep an adapter that a visitor brought along as a run of its own, "loaded"."""
        _check_visitor(visitor)
        if classifier_bytes(classifier) > self.limits.memory_mb * MEGABYTE:
            raise RunError("This adapter is larger than this server can keep.")
        run = Run(
            new_id(),
            visitor,
            name,
            None,
            task,
            classifier.lora_config,
            classifier.train_config,
            state="loaded",
            classifier=classifier,
        )
        run.weigh()
        with self._lock:
            if self._closing.is_set():
                raise RunError(CLOSING)
            run.ended = self._clock()
            self._keep(run)
            self._sweep()
        return run

    def get(self, visitor: str, run_id: str) -> Run:
        """A visitor's own run. `RunError` for any other, always the same one."""
        with self._lock:
            run = self._runs.get(run_id) if isinstance(run_id, str) else None
            if run is None or run.visitor != visitor:
                raise RunError(NOT_HERE)
            run.used = self._clock()
            return run

    def find(self, run_id: str) -> Run:
        """A run by its id alone: who has the id may use the run. Raises `RunError`."""
        with self._lock:
            run = self._runs.get(run_id) if isinstance(run_id, str) else None
            if run is None:
                raise RunError(NOT_HERE)
            run.used = self._clock()
            return run

    def touch(self, run: Run) -> None:
        """Note that somebody is looking at this run."""
        run.used = self._clock()

    def runs(self, visitor: str) -> list[Run]:
        """All runs of a visitor, oldest first."""
        with self._lock:
            return [run for run in self._runs.values() if run.visitor == visitor]

    def stop(self, visitor: str, run_id: str) -> None:
        """End a run at its next step, keeping its best weights; a waiting one never starts.

        Nothing happens to a run that is over. Raises `RunError` when it is not this visitor's.
        """
        self._stop_run(self.get(visitor, run_id), "You stopped this run.")

    def remove(self, visitor: str, run_id: str) -> None:
        """Forget a run, stopping it first. Raises `RunError` when it is not this visitor's."""
        with self._lock:
            run = self.get(visitor, run_id)
            self._stop_run(run, "You removed this run.")
            self._forget(run)

    # Tables ----------------------------------------------------------------------------------

    def add_task(self, visitor: str, task: Task) -> None:
        """Keep a table that a visitor brought; one of the same name is replaced."""
        _check_visitor(visitor)
        rows = len(task.train) + len(task.validation) + len(task.test)
        self.limits.check_rows(rows)
        size = task_bytes(task)
        if size > self.limits.memory_mb * MEGABYTE:
            raise RunError("This table is larger than this server can keep.")
        with self._lock:
            self._tables[visitor, task.name] = _Table(task, self._clock())
            self._brought[task] = size
            self._sweep()

    def task(self, visitor: str, name: str) -> Task | None:
        """A table that this visitor brought, or None."""
        with self._lock:
            table = self._tables.get((visitor, name))
            if table is None:
                return None
            table.used = self._clock()
            return table.task

    def tasks(self, visitor: str) -> list[Task]:
        """All tables of a visitor, oldest first."""
        with self._lock:
            return [table.task for (owner, _), table in self._tables.items() if owner == visitor]

    # The server ------------------------------------------------------------------------------

    def close(self) -> None:
        """End gracefully: running steps end, best weights stay, waiting runs never start.

        Every visitor's run says why. Returns when all workers have ended; may be called again.
        """
        reason = "The server is ending; the best weights so far were kept."
        with self._lock:
            self._closing.set()
            for run in self._turns.order():
                self._stop_run(run, "The server is ending; this run had not started.")
            for run in self._running:
                self._stop_run(run, reason)
        self._pool.shutdown(wait=True)

    def sweep(self) -> None:
        """Forget what is too old or too much; called by itself, and often."""
        with self._lock:
            self._sweep()

    def held_bytes(self) -> int:
        """Memory kept for visitors: weights, events and tables, each table once."""
        with self._lock:
            tables = {table.task for table in self._tables.values()}
            tables |= {run.task for run in self._runs.values() if run.task is not None}
            held = sum(run.held_bytes for run in self._runs.values())
            return held + sum(self._brought.get(task, 0) for task in tables)

    def counts(self) -> dict[str, int]:
        """How many runs are in each state."""
        with self._lock:
            states = [run.state for run in self._runs.values()]
        return {state: states.count(state) for state in dict.fromkeys(states)}

    def estimate(self, run: Run) -> float | None:
        """See `Run.estimate_seconds`."""
        with self._lock:
            left = {id(other): self._seconds_left(other) for other in self._running}
            if run.is_over:
                return None
            if id(run) in left:
                return left[id(run)]
            ends = [0.0] * (self.workers - len(left))
            for seconds in left.values():
                if seconds is None:
                    return None
                ends.append(seconds)
            for other in self._turns.order():
                ends.sort()
                if other is run:
                    return ends[0]
                seconds = self._seconds_in_all(other)
                if seconds is None:
                    return None
                ends[0] += seconds
            return None

    # Inside, with the lock held --------------------------------------------------------------

    def _keep(self, run: Run) -> None:
        run.estimator = self.estimate
        run.created = run.used = self._clock()
        self._runs[run.id] = run

    def _forget(self, run: Run) -> None:
        self._runs.pop(run.id, None)

    def _number_places(self) -> None:
        for place, run in enumerate(self._turns.order(), start=1):
            run.place = place

    def _stop_run(self, run: Run, reason: str) -> None:
        with self._lock:
            if run.is_over or run.stopping.is_set():
                return
            run.reason = reason
            run.stopping.set()
            if self._turns.discard(run.visitor, run):
                self._end(run, "stopped")
                self._number_places()

    def _end(self, run: Run, state: State, reason: str = "") -> None:
        run.place = 0
        run.ended = run.used = self._clock()
        run.reason = reason or ("" if state == "finished" else run.reason)
        run.weigh()
        run.state = state
        log.ended(run, own_table=run.task is not None and run.task in self._brought)

    def _seconds_in_all(self, run: Run) -> float | None:
        assert run.base is not None and run.train_config is not None
        speed = self._speeds.get((run.base.name, run.train_config.method))
        return None if speed is None else speed * run.work()

    def _seconds_left(self, run: Run) -> float | None:
        assert run.started is not None and run.train_config is not None
        gone = self._clock() - run.started
        if run.step:
            return gone / run.step * (run.train_config.steps - run.step)
        whole = self._seconds_in_all(run)
        return None if whole is None else max(0.0, whole - gone)

    def _sweep(self) -> None:
        now = self._clock()
        oldest = now - 60.0 * self.limits.idle_minutes
        over = sorted((r for r in self._runs.values() if r.is_over), key=lambda r: r.used)
        kept: dict[str, int] = {}
        for run in reversed(over):
            kept[run.visitor] = kept.get(run.visitor, 0) + 1
            if run.used < oldest or kept[run.visitor] > self.limits.runs_kept:
                self._forget(run)
        newest = sorted(self._tables.items(), key=lambda item: -item[1].used)
        tables: dict[str, int] = {}
        for (visitor, name), table in newest:
            tables[visitor] = tables.get(visitor, 0) + 1
            if table.used < oldest or tables[visitor] > self.limits.tables_kept:
                del self._tables[visitor, name]
        self._make_room(over)

    def _make_room(self, over: Sequence[Run]) -> None:
        """Drop ended runs and tables, the longest unused first, until memory is within bounds."""
        excess = self.held_bytes() - self.limits.memory_mb * MEGABYTE
        if excess <= 0:
            return
        idle: list[tuple[float, Callable[[], object]]] = []
        for run in over:
            if run.id in self._runs:
                idle.append((run.used, lambda run=run: self._forget(run)))  # type: ignore[misc]
        for key, table in self._tables.items():
            idle.append((table.used, lambda key=key: self._tables.pop(key)))  # type: ignore[misc]
        for _, drop in sorted(idle, key=lambda item: item[0]):
            drop()
            if self.held_bytes() <= self.limits.memory_mb * MEGABYTE:
                return

    def _janitor(self) -> None:
        """Forgets on a quiet server, too: what visitors brought must not stay for ever."""
        while not self._closing.wait(_JANITOR_SECONDS):
            self.sweep()

    # Workers ---------------------------------------------------------------------------------

    def _work(self) -> None:
        """Execute the next run; one call is queued for each submitted run."""
        with self._lock:
            run = self._turns.take()
            if run is None:  # it was stopped while it waited
                return
            self._running.append(run)
            run.place, run.started, run.state = 0, self._clock(), "running"
            self._number_places()
        try:
            state, reason, finished = execute(run, self._measure)
        except Exception as error:
            state, reason, finished = "failed", why(error), None
            log.broke(run, error)
        with self._lock:
            self._running.remove(run)
            if finished is not None:
                run.classifier = finished.classifier
                run.events.append(finished)
            self._end(run, state, reason)
            self._sweep()

    def _measure(self, run: Run) -> None:
        """Learn how fast this machine is at present: a running mean over the steps of all runs."""
        assert run.base is not None and run.train_config is not None and run.started is not None
        key = (run.base.name, run.train_config.method)
        share = run.step / run.train_config.steps
        speed = (self._clock() - run.started) / (share * run.work())
        with self._lock:
            self._speeds[key] = 0.9 * self._speeds.get(key, speed) + 0.1 * speed


@dataclass
class _Table:
    task: Task
    used: float


def available_cores(quota: Path = Path("/sys/fs/cgroup/cpu.max")) -> int:
    """Cores that this process may use: its affinity, and a container's share of processor time."""
    affinity = getattr(os, "sched_getaffinity", None)
    cores = len(affinity(0)) if affinity else os.cpu_count() or 1
    try:
        allowed, period = quota.read_text().split()
        cores = min(cores, round(int(allowed) / int(period)))
    except (OSError, ValueError):  # no Linux, no container, or "max": no quota
        pass
    return max(1, cores)


def _check_visitor(visitor: object) -> None:
    if not isinstance(visitor, str) or not 16 <= len(visitor) <= 200:
        raise RunError("A visitor's token is a secret text of 16 to 200 characters.")
