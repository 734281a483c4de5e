"""Many visitors on one machine: every run in a registry, executed by a pool of workers.

A run is not a web request. A visitor submits one, gets an unguessable id, and watches it from any
event on: after a reload, a closed tab or a broken connection it is still there. Where runs execute
is the executor's affair (`executors.py`), what is kept in memory that of `holdings.py`.

Knows nothing about the page. All public methods may be called from any thread.
"""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from functools import partial

from lora_core.base.checkpoint import Base
from lora_core.classifier import Classifier
from lora_core.config import LoRAConfig, TrainConfig
from lora_core.events import Evaluated, Step
from lora_core.limits import MEGABYTE, Limits, RunError
from lora_core.serving import log
from lora_core.serving.admission import check_room, check_run, check_visitor
from lora_core.serving.clock import AwakeClock
from lora_core.serving.estimates import Speeds, about
from lora_core.serving.executors import Executor, Threads
from lora_core.serving.fair_queue import Turns
from lora_core.serving.holdings import Holdings, Table
from lora_core.serving.recall import Recall, earlier_events
from lora_core.serving.records import without_classifier
from lora_core.serving.run import (
    Best,
    Run,
    State,
    TestScore,
    classifier_bytes,
    new_id,
    new_visitor,
)
from lora_core.serving.store import Store
from lora_core.serving.watchers import Watchers
from lora_core.serving.worker import Job, Outcome, Report, why
from lora_core.tasks.task import Task

NOT_HERE = (
    "This run is not here: its name is wrong, or it was not used for a long time and has been "
    "forgotten to make room."
)
CLOSING = "The server is ending, so no new runs are taken. Please come back in a few minutes."
_JANITOR_SECONDS = 30.0

__all__ = ["Limits", "Registry", "Run", "RunError", "State", "TestScore", "new_visitor"]


class Registry:
    """All runs and tables of all visitors, and the executor that trains.

    Use it as a context manager, or call `close`: otherwise the interpreter waits at its end for
    the runs that are still training.
    """

    def __init__(
        self,
        limits: Limits | None = None,
        workers: int | None = None,
        *,
        executor: Executor | None = None,
        store: Store | None = None,
        bases: Callable[[str], Base] | None = None,
        clock: Callable[[], float] | None = None,
    ) -> None:
        """`workers`: threads that train, as many as cores unless said; or an `executor`.

        `store`: where runs outlive the process; `bases` finds the bases of stored runs by name, and
        may come later, with `take_up`.
        """
        self.limits = limits or Limits()
        self.executor = executor or Threads(workers)
        self.watchers = Watchers()
        self._recall = Recall(store) if store is not None else None
        self._clock = clock or AwakeClock(store.clock() if store is not None else 0.0)
        self._lock = threading.RLock()
        self._held = Holdings(self.limits, self._gone)
        self._turns: Turns[Run] = Turns()
        self._running: list[Run] = []
        self._speeds = Speeds()
        self._observers: list[Callable[[Run], None]] = []
        self._changes: queue.SimpleQueue[Run | None] = queue.SimpleQueue()
        self._closing = threading.Event()
        self._idle = threading.Condition(self._lock)  # told when a run has ended
        self._paused = False
        if bases is not None:
            self.take_up(bases)
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
        share: str = "",
        durable: bool = True,
    ) -> Run:
        """Queue a run; it starts when it is this visitor's turn. Raises `RunError`, in words.

        `own_table`: the task is the visitor's own, though not kept by `add_task`. `share`: with
        whom the run shares its turns and its places, where that is not the visitor alone.
        `durable`: whether it is to outlive the process, where there is a store.
        """
        check_visitor(visitor)
        check_run(self.limits, base, task, lora_config, train_config, watch_texts)
        watched = tuple(watch_texts)
        run = Run(new_id(), visitor, name, base, task, lora_config, train_config, watched)
        run.share, run.durable = share or visitor, durable
        with self._lock:
            self._fetch(visitor)
            self._check_queue(run.share)
            own = own_table or self._held.is_brought(task)
            check_room(self.limits, self._held.waiting_table_bytes(), task if own else None)
            if own:
                self._held.bring(task)
            self._queue(run)
        return run

    def add_classifier(
        self, visitor: str, classifier: Classifier, task: Task | None = None, name: str = ""
    ) -> Run:
        """Keep an adapter that a visitor brought along as a run of its own, "loaded"."""
        check_visitor(visitor)
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
            loaded=classifier,
            share=visitor,
        )
        run.weigh()
        with self._lock:
            if self._closing.is_set():
                raise RunError(CLOSING)
            self._fetch(visitor)
            run.ended = self._clock()
            self._keep(run)
            if self._recall is not None:
                self._recall.save(run)
                self._recall.save_adapter(run)
            self._held.sweep(self._clock())
        self._changed(run)
        return run

    def go_on(self, visitor: str, run_id: str) -> Run:
        """Queue what an interrupted run had left, from its best weights on, in its place.

        The same texts and learning rates follow; AdamW's moments start anew. Raises `RunError`.
        """
        with self._lock:
            old = self.get(visitor, run_id)
            best = self._recall.weights(old) if self._recall and old.interrupted else None
            if best is None or not (old.task and old.lora_config and old.train_config):
                raise RunError("This run cannot go on: nothing was kept to go on from.")
            if old.base is None and old.classifier is None:  # which loads the base
                raise RunError(old.lost or NOT_HERE)
            self._check_queue(old.share)
            run = Run(
                new_id(), visitor, old.name, old.base, old.task, old.lora_config, old.train_config
            )
            run.share, run.best = old.share, best
            run.first_step = run.step = best.step
            run.events = earlier_events(old, best.step)
            self._queue(run)
            if self._recall is not None:
                self._recall.save_best(run)
            self._held.forget(old)
        return run

    def get(self, visitor: str, run_id: str) -> Run:
        """A visitor's own run. `RunError` for any other, always the same one."""
        run = self.find(run_id)
        if run.visitor != visitor:
            raise RunError(NOT_HERE)
        return run

    def find(self, run_id: str) -> Run:
        """A run by its id alone: who has the id may use the run. Raises `RunError`."""
        with self._lock:
            run = self._held.runs.get(run_id) if isinstance(run_id, str) else None
            if run is None and self._recall is not None and isinstance(run_id, str):
                self._fetch(self._recall.store.visitor_of(run_id))
                run = self._held.runs.get(run_id)
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
            self._fetch(visitor)
            return self._held.of(visitor)

    def all_runs(self) -> list[Run]:
        """The runs of all visitors that are in memory, oldest first: for the host."""
        with self._lock:
            return list(self._held.runs.values())

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
            self._held.forget(run)
        self._changed(run)

    def remove_all(self, visitor: str) -> None:
        """Forget all that is a visitor's, here and in the store: runs, weights and tables."""
        with self._lock:
            for run in self.runs(visitor):
                self.remove(visitor, run.id)
            for key in [key for key in self._held.tables if key[0] == visitor]:
                del self._held.tables[key]
            self._held.notices.pop(visitor, None)
            if self._recall is not None:
                self._recall.store.delete_visitor(visitor)

    # Tables ----------------------------------------------------------------------------------

    def add_task(self, visitor: str, task: Task) -> None:
        """Keep a table that a visitor brought; one of the same name is replaced."""
        check_visitor(visitor)
        rows = len(task.train) + len(task.validation) + len(task.test)
        self.limits.check_rows(rows)
        with self._lock:
            self._fetch(visitor)
            if self._held.bring(task) > self.limits.memory_mb * MEGABYTE:
                raise RunError("This table is larger than this server can keep.")
            self._held.tables[visitor, task.name] = Table(task, self._clock())
            self._held.sweep(self._clock())

    def task(self, visitor: str, name: str) -> Task | None:
        """A table that this visitor brought, or None."""
        with self._lock:
            self._fetch(visitor)
            table = self._held.tables.get((visitor, name))
            if table is None:
                return None
            table.used = self._clock()
            return table.task

    def tasks(self, visitor: str) -> list[Task]:
        """All tables of a visitor, oldest first."""
        with self._lock:
            self._fetch(visitor)
            tables = self._held.tables.items()
            return [table.task for (owner, _), table in tables if owner == visitor]

    def notices(self, visitor: str) -> list[str]:
        """Sentences about what this visitor has lost besides weights (`Run.lost`), and why."""
        with self._lock:
            return list(self._held.notices.get(visitor, ()))

    # The server ------------------------------------------------------------------------------

    def take_up(self, bases: Callable[[str], Base]) -> None:
        """At a start, once: what waited when the last server ended waits again, in its order, and
        what trained is interrupted. `bases` finds a base by its name, as late as possible."""
        with self._lock:
            if self._recall is None:
                return
            self._recall.bases = bases
            self._recall.store.interrupt()
            waited = self._recall.store.waiting()
            for visitor in dict.fromkeys(row.visitor for row in waited):
                self._fetch(visitor)
            for run in filter(None, (self._held.runs.get(row.id) for row in waited)):
                if run.state == "waiting":
                    run.best = self._recall.weights(run)
                    self._turns.add(run.share, run)
            self._number_places()
            self._dispatch()

    @property
    def workers(self) -> int:
        """How many runs train at once."""
        return self.executor.workers

    def on_change(self, callback: Callable[[Run], None]) -> None:
        """Call this whenever a run is queued, starts, is evaluated, ends or is removed.

        From any thread, never under the registry's lock; it should take no time.
        """
        with self._lock:
            self._observers.append(callback)
            if len(self._observers) == 1:
                threading.Thread(target=self._tell, name="lora-lab-observer", daemon=True).start()

    @property
    def paused(self) -> bool:
        """Whether waiting runs are held back."""
        return self._paused

    def pause(self) -> None:
        """Let no waiting run start; those that train go on."""
        self._paused = True

    def unpause(self) -> None:
        """Let waiting runs start again."""
        with self._lock:
            self._paused = False
            self._dispatch()

    def stop_all(self, reason: str = "The host stopped all runs.") -> None:
        """Stop the runs of all visitors, waiting and running ones."""
        with self._lock:
            for run in [*self._turns.order(), *self._running]:
                self._stop_run(run, reason)

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
            self._idle.wait_for(lambda: not self._running)
        self.executor.shutdown()
        self._changes.put(None)
        if self._recall is not None:
            self._note_use(self._recall.store)
            self._recall.store.close()
            self._recall = None

    def sweep(self) -> None:
        """Forget what is too old or too much; called by itself, and often."""
        with self._lock:
            if self._recall is not None:
                self._note_use(self._recall.store)
                oldest = self._clock() - 3600.0 * self.limits.stored_hours
                for run_id in self._recall.store.sweep(oldest, self.limits.disk_mb * MEGABYTE):
                    self._held.runs.pop(run_id, None)
            self._held.sweep(self._clock())

    def held_bytes(self) -> int:
        """Memory kept for visitors: weights, events and tables, each table once."""
        with self._lock:
            return self._held.held_bytes()

    def counts(self) -> dict[str, int]:
        """How many runs are in each state."""
        with self._lock:
            states = [run.state for run in self._held.runs.values()]
        return {state: states.count(state) for state in dict.fromkeys(states)}

    def estimate(self, run: Run | None) -> float | None:
        """See `Run.estimate_seconds`; without a run, for one that would be queued now."""
        with self._lock:
            if run is not None and run.is_over:
                return None
            order = self._turns.order()
            return self._speeds.until(run, self._running, order, self.workers, self._clock())

    # Inside, with the lock held --------------------------------------------------------------

    def _check_queue(self, share: str) -> None:
        if self._closing.is_set():
            raise RunError(CLOSING)
        own, everybody = self._turns.waiting(share), len(self._turns)
        if own >= self.limits.waiting_a_visitor:
            raise RunError(
                f"You have {own} runs waiting, as many as this server takes from one visitor. "
                "Stop one of them, or wait until one has started."
            )
        if everybody >= self.limits.waiting_in_all:
            seconds = self.estimate(None)
            last = "" if seconds is None else f", and the last starts in {about(seconds)}"
            raise RunError(
                f"The queue is full: {everybody} runs are waiting{last}. "
                "Try again later; your settings stay as they are."
            )

    def _fetch(self, visitor: str | None) -> None:
        """Bring a visitor's stored runs and tables to memory, once."""
        if self._recall is None or not visitor or visitor in self._held.recalled:
            return
        self._held.recalled.add(visitor)
        for run in self._recall.runs_of(visitor):
            if run.id not in self._held.runs:
                run.estimator = self.estimate
                run.used = self._clock()
                self._held.runs[run.id] = run
        for task in self._recall.tables_of(visitor):
            self._held.bring(task)
            self._held.tables.setdefault((visitor, task.name), Table(task, self._clock()))

    def _note_use(self, store: Store) -> None:
        durable = [run for run in self._held.runs.values() if run.durable]
        store.use({run.id: run.used for run in durable}, self._clock())

    def _gone(self, run: Run) -> None:
        if self._recall is not None:
            self._recall.forget(run)

    def _queue(self, run: Run) -> None:
        self._keep(run)
        if self._recall is not None:
            key = (run.visitor, run.task.name if run.task else "")
            self._recall.save(run, keeps_table=key in self._held.tables)
        self._turns.add(run.share, run)
        self._number_places()
        self._held.sweep(self._clock())
        self._dispatch()
        self._changed(run)

    def _keep(self, run: Run) -> None:
        run.estimator = self.estimate
        run.created = run.used = self._clock()
        self._held.runs[run.id] = run

    def _number_places(self) -> None:
        for place, run in enumerate(self._turns.order(), start=1):
            run.place = place

    def _stop_run(self, run: Run, reason: str) -> None:
        with self._lock:
            if run.is_over or run.stopping.is_set():
                return
            run.reason = reason
            run.stopping.set()
            if self._turns.discard(run.share, run):
                self._end(run, "stopped")
                self._number_places()
            else:
                self.executor.stop(run.id)

    def _end(self, run: Run, state: State, reason: str = "") -> None:
        run.place = 0
        run.ended = run.used = self._clock()
        run.reason = reason or ("" if state == "finished" else run.reason)
        run.weigh()
        run.state = state
        log.ended(run, own_table=self._held.is_brought(run.task))
        goes_on = self._closing.is_set() and state == "stopped"  # at the next start
        if self._recall is not None and not goes_on:
            self._recall.ended(run)
        self._changed(run)

    def _janitor(self) -> None:
        """Forgets on a quiet server, too: what visitors brought must not stay for ever."""
        while not self._closing.wait(_JANITOR_SECONDS):
            if isinstance(self._clock, AwakeClock):
                self._clock.look(_JANITOR_SECONDS)
            self.sweep()

    def _changed(self, run: Run) -> None:
        if self._observers:
            self._changes.put(run)

    def _tell(self) -> None:
        """Calls the observers from a thread of its own, so that none can hold up a run."""
        while (run := self._changes.get()) is not None:
            for observer in self._observers:
                try:
                    observer(run)
                except Exception as error:
                    log.broke(run.id, error)

    # Executing -------------------------------------------------------------------------------

    def _dispatch(self) -> None:
        """Hand runs to the executor as long as it has workers free; with the lock held."""
        while not self._paused and len(self._running) < self.workers:
            run = self._turns.take()
            if run is None:
                return
            assert run.base and run.task and run.lora_config and run.train_config
            self._running.append(run)
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
            future = self.executor.submit(job, partial(self._report, run))
            if self._recall is not None:
                self._recall.save(run)
            future.add_done_callback(partial(self._done, run))
            self._changed(run)

    def _report(self, run: Run, item: Report) -> None:
        """What a worker says while it trains."""
        if isinstance(item, Best):
            run.best = item
            return
        run.events.append(item)
        if isinstance(item, Step):
            run.step = item.step
            with self._lock:
                self._speeds.measure(run, self._clock())
        elif isinstance(item, Evaluated):
            if self._recall is not None:
                if item.best:
                    self._recall.save_best(run)
                self._recall.save(run)
            self._changed(run)

    def _done(self, run: Run, future: Future[Outcome]) -> None:
        error = future.exception()
        outcome = Outcome("failed", why(error)) if error is not None else future.result()
        with self._lock:
            self._running.remove(run)
            if outcome.finished is not None:
                run.loaded = outcome.finished.classifier
                run.events.append(without_classifier(outcome.finished))
            run.test_score, run.best = outcome.test_score, None
            run.processor_seconds = outcome.processor_seconds
            self._end(run, outcome.state, outcome.reason)
            self._held.sweep(self._clock())
            self._dispatch()
            self._idle.notify_all()
