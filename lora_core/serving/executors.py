"""Where runs execute: the shape of `concurrent.futures.Executor`, for runs.

A filling takes a `Job`, reports its events and best weights as they come, and answers with a
future `Outcome`. The registry does not know which filling it has: threads of this process here,
processes beside it in `processes.py`, other machines in `machines.py`.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Protocol

from lora_core.serving.worker import Job, Outcome, Progress, Report, train, use_one_thread


class WorkerLostError(RuntimeError):
    """The worker ended while it trained; raised by the future of its run."""

    def __init__(self, message: str, progress: Progress) -> None:
        super().__init__(message)
        self.progress = progress  # what it had reported


class Executor(Protocol):
    """May be called from any thread; reports come from threads of its own."""

    @property
    def workers(self) -> int:
        """How many runs execute at once; may change as machines come and go."""

    def submit(self, job: Job, report: Callable[[Report], None]) -> Future[Outcome]:
        """Begin a run; the future may raise `WorkerLostError`, or a `LabError` in words."""

    def stop(self, job_id: str) -> None:
        """End a run at its next step; nothing happens when it is over."""

    def on_more_workers(self, callback: Callable[[], None]) -> None:
        """Call this, from a thread that holds no lock, whenever `workers` has grown."""

    def shutdown(self) -> None:
        """Return when all runs have ended; whoever calls has stopped them."""


class Threads:
    """Threads of this process; each run computes with its share of the cores.

    One where all workers are busy; a run that is alone uses them all, as long as that is faster
    (`cores.Cores`), and gives the same adapter.
    """

    def __init__(self, workers: int | None = None) -> None:
        """`workers` defaults to the number of cores that this process may use."""
        self.workers = workers or available_cores()
        self._stops: dict[str, threading.Event] = {}
        self._pool = ThreadPoolExecutor(self.workers, "lora-lab", initializer=use_one_thread)

    def submit(self, job: Job, report: Callable[[Report], None]) -> Future[Outcome]:
        """See `Executor`."""
        stop = self._stops[job.id] = threading.Event()
        future = self._pool.submit(train, job, report, stop.is_set, self._free_cores)
        future.add_done_callback(lambda _: self._stops.pop(job.id, None))
        return future

    def _free_cores(self) -> int:
        """A run's share of the cores now."""
        return self.workers // max(1, len(self._stops))

    def stop(self, job_id: str) -> None:
        """See `Executor`."""
        stop = self._stops.get(job_id)
        if stop is not None:
            stop.set()

    def on_more_workers(self, callback: Callable[[], None]) -> None:
        """See `Executor`; threads are always as many."""

    def shutdown(self) -> None:
        """See `Executor`."""
        self._pool.shutdown(wait=True)


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
