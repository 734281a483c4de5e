"""Many visitors on one machine: every run in a registry, executed by a pool of workers.

A run is not a web request. A visitor submits one, gets an unguessable id, and watches it from any
event on: after a reload, a closed tab or a broken connection it is still there. A registry, a store
(`store.py`) and a place where runs execute (`executors.py`); between them `recall.py` and
`dispatcher.py`. What is kept in memory is the affair of `holdings.py`.

Knows nothing about the page. All public methods may be called from any thread.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future

from lora_core.base.checkpoint import Base
from lora_core.classifier import Classifier
from lora_core.config import LoRAConfig, TrainConfig
from lora_core.events import Evaluated, Step
from lora_core.limits import MEGABYTE, Limits, RunError
from lora_core.serving import log
from lora_core.serving.admission import check_queue, check_room, check_run, check_visitor
from lora_core.serving.clock import AwakeClock
from lora_core.serving.dispatcher import Dispatcher
from lora_core.serving.executors import Executor, Threads, WorkerLostError
from lora_core.serving.holdings import Holdings, Table
from lora_core.serving.nowhere import Nowhere
from lora_core.serving.observers import Observers
from lora_core.serving.recall import Recall, brought_run, continued_run
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
from lora_core.serving.store import Store, StoreError
from lora_core.serving.watchers import Watchers
from lora_core.serving.worker import Outcome, Report, why
from lora_core.tasks.task import Task

NOT_HERE = (
    "This run is not here: its name is wrong, or it was not used for a long time and has been "
    "forgotten to make room."
)
CLOSING = "The server is ending, so no new runs are taken. Please come back in a few minutes."
LOST = (
    "The process that trained this run ended, and only that one: it may have run out of memory. "
    "Go on from its best weights, or start anew with a smaller batch, a lower rank or LoRA."
)
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
        bases: Callable[[str, str], Base] | None = None,
        clock: Callable[[], float] | None = None,
    ) -> None:
        """`workers`: threads that train, as many as cores unless said; or an `executor`.

        `store`: where runs outlive the process; `bases` finds the bases of stored runs by name and
        digest, and may come later, with `take_up`.
        """
        self.limits = limits or Limits()
        self.watchers = Watchers()
        store = store or Nowhere()
        self._recall = Recall(store)
        self._clock = clock or AwakeClock(store.clock())
        self._lock = threading.RLock()
        self._held = Holdings(self.limits, self._recall)
        self._observers = Observers()
        self._closing = threading.Event()
        self._when_closed: list[Callable[[], None]] = []
        self._dispatcher = Dispatcher(
            executor or Threads(workers),
            self._lock,
            self._clock,
            started=self._started,
            reported=self._reported,
            ended=self._ended,
        )
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
        address: str = "",
        durable: bool = True,
    ) -> Run:
        """Queue a run; it starts when it is this visitor's turn. Raises `RunError`, in words.

        `own_table`: the task is the visitor's own, though not kept by `add_task`. `share`: with
        whom the run shares its turns and its places, where that is not the visitor alone.
        `address`: from where it was asked for; addresses take turns, then the visitors of each.
        `durable`: whether it is to outlive the process, where there is a store.
        """
        check_visitor(visitor)
        train_config = train_config.for_labels(len(task.labels), self.limits.max_steps)
        check_run(self.limits, base, task, lora_config, train_config, watch_texts)
        watched = tuple(watch_texts)
        run = Run(new_id(), visitor, name, base, task, lora_config, train_config, watched)
        run.share, run.durable = share or visitor, durable
        run.address = address or run.share
        with self._lock:
            self._fetch(visitor)
            self._check_queue(run)
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
        run = brought_run(visitor, classifier, task, name)
        with self._lock:
            if self._closing.is_set():
                raise RunError(CLOSING)
            self._fetch(visitor)
            run.ended = self._clock()
            self._keep(run)
            self._recall.ended(run)
            self._held.sweep(self._clock())
        self._observers.tell(run)
        return run

    def go_on(self, visitor: str, run_id: str) -> Run:
        """Queue what an interrupted run had left, from its best weights on, in its place.

        The same texts and learning rates follow; AdamW's moments start anew. Raises `RunError`.
        """
        old = self.get(visitor, run_id)
        if old.interrupted and old.has_weights and old.base is None and old.classifier is None:
            raise RunError(old.lost or NOT_HERE)  # its base, which that loads, is not to be had
        with self._lock:
            old = self.get(visitor, run_id)
            best = (old.best or self._recall.weights(old)) if old.interrupted else None
            if best is None or not (old.base and old.task and old.lora_config and old.train_config):
                raise RunError("This run cannot go on: nothing was kept to go on from.")
            self._check_queue(old)
            run = continued_run(old, best)
            del self._held.runs[old.id]  # the store lets go of it when it has the new one
            self._queue(run)
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
            if run is None and isinstance(run_id, str):
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
        self._observers.tell(run)

    def remove_all(self, visitor: str) -> bool:
        """Forget all that is a visitor's, here and in the store: runs, weights and tables.

        False: the disk had no room to delete all of it; nobody is shown the rest, and it goes as
        soon as there is some.
        """
        with self._lock:
            for run in self.runs(visitor):
                self.remove(visitor, run.id)
            self._held.forget_tables(visitor)
            return self._recall.store.delete_visitor(visitor)

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

    def remove_task(self, visitor: str, name: str) -> None:
        """Forget a table that a visitor brought; a run that was trained on it keeps it."""
        with self._lock:
            self._held.tables.pop((visitor, name), None)

    def task(self, visitor: str, name: str) -> Task | None:
        """A table that this visitor brought, or None."""
        with self._lock:
            self._fetch(visitor)
            return self._held.table(visitor, name, self._clock())

    def tasks(self, visitor: str) -> list[Task]:
        """All tables of a visitor, oldest first."""
        with self._lock:
            self._fetch(visitor)
            return self._held.tables_of(visitor)

    def notices(self, visitor: str) -> list[str]:
        """Sentences about what this visitor has lost besides weights (`Run.lost`), and why."""
        with self._lock:
            return list(self._held.notices.get(visitor, ()))

    # The server ------------------------------------------------------------------------------

    def take_up(self, bases: Callable[[str, str], Base]) -> None:
        """At a start, once: what waited when the last server ended waits again, in its order, and
        what trained is interrupted. `bases` finds a base by its name and digest, as late as
        possible."""
        with self._lock:
            self._recall.bases = bases
            self._recall.store.interrupt()
            waited: list[str | None] = []
            with _said():
                waited = [row.visitor for row in self._recall.store.waiting()]
            for visitor in dict.fromkeys(waited):
                with _said():  # tried again when the visitor comes
                    self._fetch(visitor)

    @property
    def executor(self) -> Executor:
        """Where runs execute."""
        return self._dispatcher.executor

    @property
    def workers(self) -> int:
        """How many runs train at once."""
        return self.executor.workers

    def on_change(self, callback: Callable[[Run], None]) -> None:
        """Call this whenever a run is queued, starts, is evaluated, ends or is removed.

        From any thread, never under the registry's lock; it should take no time.
        """
        self._observers.add(callback)

    @property
    def paused(self) -> bool:
        """Whether waiting runs are held back."""
        return self._dispatcher.paused

    def pause(self) -> None:
        """Let no waiting run start; those that train go on."""
        self._dispatcher.paused = True

    def unpause(self) -> None:
        """Let waiting runs start again."""
        self._dispatcher.paused = False
        self._dispatcher.dispatch()

    def stop_all(self, reason: str = "The host stopped all runs.") -> None:
        """Stop the runs of all visitors, waiting and running ones."""
        with self._lock:
            for run in [*self._dispatcher.order(), *self._dispatcher.running]:
                self._stop_run(run, reason)

    def when_closed(self, end: Callable[[], None]) -> None:
        """Call `end` when this registry has been closed: for what computes beside its runs."""
        self._when_closed.append(end)

    def close(self) -> None:
        """End gracefully: running steps end, best weights stay, waiting runs never start.

        Every visitor's run says why. Returns when all workers have ended; may be called again.
        """
        reason = "The server is ending; the best weights so far were kept."
        with self._lock:
            self._catch_up()
            self._closing.set()
            for run in self._dispatcher.order():
                self._stop_run(run, "The server is ending; this run had not started.")
            for run in self._dispatcher.running:
                self._stop_run(run, reason)
        self._dispatcher.shutdown()
        self._observers.close()
        for end in self._when_closed:
            end()
        with self._lock:
            self._note_use()
            self._recall.store.close()
            self._recall = self._held.recall = Recall(Nowhere())

    def sweep(self) -> None:
        """Forget what is too old or too much; called by itself, and often."""
        with self._lock:
            self._note_use()
            self._catch_up()
            self._held.sweep_store(self._clock())
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
            return self._dispatcher.estimate(run)

    # Inside, with the lock held --------------------------------------------------------------

    def _check_queue(self, run: Run) -> None:
        if self._closing.is_set():
            raise RunError(CLOSING)
        waiting = self._dispatcher
        own, at_address = waiting.waiting(run.share), waiting.waiting_at(run.address)
        check_queue(self.limits, own, at_address, len(waiting), waiting.estimate)

    def _fetch(self, visitor: str | None) -> None:
        waited = self._held.fetch(visitor, self.estimate, self._clock())
        for run in waited if not self._closing.is_set() else ():
            if run.state == "waiting" or run.behind:
                self._take_up_run(run)
                self._dispatcher.dispatch()

    def _catch_up(self) -> None:
        if not self._closing.is_set():  # what is stopped then goes on at the next start
            self._recall.catch_up(list(self._held.runs.values()))

    def _note_use(self) -> None:
        durable = [run for run in self._held.runs.values() if run.durable]
        self._recall.store.use({run.id: run.used for run in durable}, self._clock())

    def _queue(self, run: Run) -> None:
        self._keep(run)
        self._recall.save(run, run.best)
        self._dispatcher.add(run)
        self._held.sweep(self._clock())
        self._dispatcher.dispatch()
        self._observers.tell(run)

    def _take_up_run(self, run: Run) -> None:
        """Let a run that waited wait again; one that cannot be trained any more has failed."""
        if run.state == "waiting":
            try:
                run.best = self._recall.weights(run)
            except StoreError as error:
                run.reason = str(error)
            else:
                self._dispatcher.add(run)
                return
        self._end(run, "failed")

    def _keep(self, run: Run) -> None:
        run.estimator = self.estimate
        run.created = run.used = self._clock()
        self._held.runs[run.id] = run

    def _stop_run(self, run: Run, reason: str) -> None:
        with self._lock:
            if run.is_over or run.stopping.is_set():
                return
            run.reason = reason
            run.stopping.set()
            if self._dispatcher.stop(run):
                self._end(run, "stopped")

    def _end(self, run: Run, state: State, reason: str = "") -> None:
        run.place = 0
        run.ended = run.used = self._clock()
        run.reason = reason or ("" if state == "finished" else run.reason)
        run.weigh()
        run.state = state
        log.ended(run, own_table=self._held.is_brought(run.task))
        goes_on = self._closing.is_set() and state == "stopped"  # at the next start
        if not goes_on:
            self._recall.ended(run)
        self._observers.tell(run)

    def _janitor(self) -> None:
        """Forgets on a quiet server, too: what visitors brought must not stay for ever."""
        while not self._closing.wait(_JANITOR_SECONDS):
            if isinstance(self._clock, AwakeClock):
                self._clock.look(_JANITOR_SECONDS)
            self.sweep()

    # What the dispatcher says -----------------------------------------------------------------

    def _started(self, run: Run) -> None:
        self._recall.save(run)
        self._observers.tell(run)

    def _reported(self, run: Run, item: Report) -> None:
        """What a worker says while it trains; from a thread of the executor."""
        if isinstance(item, Best):
            run.best = item
            return
        run.events.append(item)
        if isinstance(item, Step):
            run.step = item.step
            with self._lock:
                self._dispatcher.measure(run)
        elif isinstance(item, Evaluated):
            self._recall.save(run, run.best if item.best else None)
            self._observers.tell(run)

    def _ended(self, run: Run, future: Future[Outcome]) -> None:
        """How a run ended; from a thread of the executor. An error on the way ends it, too."""
        try:
            outcome = _outcome(run, future)
            with self._lock:
                if outcome.finished is not None:
                    run.loaded = outcome.finished.classifier
                    run.events.append(without_classifier(outcome.finished))
                run.test_score = outcome.test_score
                run.best = run.best if run.interrupted else None
                run.processor_seconds = outcome.processor_seconds
                self._end(run, outcome.state, outcome.reason)
                self._held.sweep(self._clock())
        except BaseException as error:
            log.broke(run.id, error)
            with self._lock:
                if not run.is_over:
                    self._end(run, "failed", why(error))


@contextlib.contextmanager
def _said() -> Iterator[None]:
    """What the store cannot read now is said in the log, and ends nothing."""
    try:
        yield
    except StoreError as error:
        log.once(str(error))


def _outcome(run: Run, future: Future[Outcome]) -> Outcome:
    """What a worker answered, or what is known of a run whose worker is gone. No lock is held: a
    model may have to be built."""
    error = future.exception()
    if not isinstance(error, WorkerLostError):
        return future.result() if error is None else Outcome("failed", why(error))
    log.broke(run.id, error)
    outcome = Outcome("failed", LOST, error.progress.finished("failed"))
    run.interrupted = outcome.finished is not None
    return outcome
