"""Where waiting runs meet free workers: whose turn it is, how many train, and how long it takes.

It stands between the registry, which knows everybody's runs, and an executor, which trains one.
Not thread-safe but for what is said to be: the registry locks, with the lock that it shares.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import Future
from functools import partial

from lora_core.serving.estimates import Speeds
from lora_core.serving.executors import Executor
from lora_core.serving.fair_queue import Rounds
from lora_core.serving.run import Run
from lora_core.serving.worker import Job, Outcome, Report


class Dispatcher:
    """The runs that wait, in their turns, and those that train."""

    def __init__(
        self,
        executor: Executor,
        lock: threading.RLock,
        clock: Callable[[], float],
        *,
        started: Callable[[Run], None],
        reported: Callable[[Run, Report], None],
        ended: Callable[[Run, Future[Outcome]], None],
    ) -> None:
        """`started` is called with the lock held, `reported` and `ended` without it."""
        self.executor = executor
        self.running: list[Run] = []
        self.paused = False
        self._lock, self._clock = lock, clock
        self._started, self._reported, self._ended = started, reported, ended
        self._turns: Rounds[Run] = Rounds()
        self._speeds = Speeds()
        self._idle = threading.Condition(lock)  # told when a run has ended
        executor.on_more_workers(self.dispatch)

    def __len__(self) -> int:
        return len(self._turns)

    def waiting(self, share: str) -> int:
        """How many runs of this share wait."""
        return self._turns.waiting(share)

    def waiting_at(self, address: str) -> int:
        """How many runs of this address wait."""
        return self._turns.waiting_at(address)

    def order(self) -> list[Run]:
        """The runs that wait, in the order in which they will start."""
        return self._turns.order()

    def add(self, run: Run) -> None:
        """Put a run at the end of its line; `dispatch` starts it."""
        self._turns.add(run.address, run.share, run)
        self._number_places()

    def stop(self, run: Run) -> bool:
        """Ask a run that trains to end. True: it had not started, and never will."""
        if self._turns.discard(run.address, run.share, run):
            self._number_places()
            return True
        self.executor.stop(run.id)
        return False

    def dispatch(self) -> None:
        """Hand runs to the executor as long as it has workers free. From any thread."""
        with self._lock:
            while not self.paused and len(self.running) < self.executor.workers:
                run = self._turns.take()
                if run is None:
                    return
                self._start(run)

    def estimate(self, run: Run | None) -> float | None:
        """Seconds until a run starts or ends; without one, until one more would start."""
        workers = self.executor.workers
        return self._speeds.until(run, self.running, self.order(), workers, self._clock())

    def measure(self, run: Run) -> None:
        """Learn from a run that has just done a step."""
        self._speeds.measure(run, self._clock())

    def shutdown(self) -> None:
        """Wait until no run trains, then end the executor. From any thread."""
        with self._lock:
            self._idle.wait_for(lambda: not self.running)
        self.executor.shutdown()

    def _start(self, run: Run) -> None:
        assert run.base and run.task and run.lora_config and run.train_config
        self.running.append(run)
        run.place, run.started, run.state = 0, self._clock(), "running"
        self._number_places()
        job = Job(
            run.id,
            run.base,
            run.task,
            run.lora_config,
            run.train_config,
            run.watch_texts,
            run.best,
        )
        future = self.executor.submit(job, partial(self._reported, run))
        self._started(run)
        future.add_done_callback(partial(self._done, run))

    def _done(self, run: Run, future: Future[Outcome]) -> None:
        try:
            self._ended(run, future)
        finally:  # whatever happened to this one, the next run has its turn
            with self._lock:
                self.running.remove(run)
                self._idle.notify_all()
                self.dispatch()

    def _number_places(self) -> None:
        for place, run in enumerate(self._turns.order(), start=1):
            run.place = place
