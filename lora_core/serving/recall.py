"""Between the registry and the store: runs become rows, and rows become runs again.

A visitor's runs are read when the visitor is first seen, weights when they are first needed, so a
start with many stored runs takes no longer than an empty one.
"""

from __future__ import annotations

import threading
import weakref
from collections.abc import Callable, Iterable, Iterator
from typing import Any, TypeVar

from lora_core.adapters.adapter import load_adapter, zip_adapter
from lora_core.base.checkpoint import Base, load_base
from lora_core.classifier import Classifier
from lora_core.errors import LabError
from lora_core.events import Evaluated, Finished
from lora_core.preparation import trained_weights
from lora_core.serving import log, records
from lora_core.serving.nowhere import Nowhere
from lora_core.serving.run import ENDED, Best, Run, new_id
from lora_core.serving.store import Row, Store, StoreError
from lora_core.serving.weight_files import Weights, weights_of
from lora_core.serving.worker import Job, rebuild
from lora_core.tasks.bundled import load_task, task_names
from lora_core.tasks.task import Task, TaskError

INTERRUPTED = (
    "The server ended while this run trained, after step {step}. Its best weights are those of "
    "step {best}: go on from there, or start anew with the same settings."
)
INTERRUPTED_EARLY = "The server ended before weights of this run were written: start it anew."
NOT_WRITTEN = (
    "The weights of this run could not be written when it ended, and the server has ended since. "
    "Its curves and figures stay, and the same settings and seed make the same weights again."
)
NO_TABLE = "The table of this run is not kept any more."
_Stored = TypeVar("_Stored")
_T = TypeVar("_T")


class Recall:
    """May be called from any thread; what it returns belongs to the registry."""

    def __init__(self, store: Store) -> None:
        self.store = store
        self.keeps = not isinstance(store, Nowhere)
        self.bases: Callable[[str, str], Base] = self._load  # finds one by its name and digest
        self.lists_table: Callable[[Run], bool] = lambda run: False  # whether its visitor does
        self._lock = threading.Lock()
        self._loaded: dict[str, Base] = {}
        self._bundled: dict[str, tuple[Task, str]] = {}
        self._digests: weakref.WeakKeyDictionary[Base | Task, str] = weakref.WeakKeyDictionary()

    def _load(self, name: str, _: str) -> Base:
        if name not in self._loaded:
            self._loaded[name] = load_base(name)
        return self._loaded[name]

    # Writing ---------------------------------------------------------------------------------

    def save(self, run: Run, best: Best | None = None) -> None:
        """Write a run as it is now, with the events that were not written yet, and with new best
        weights, if there are any."""
        self._put(run, run.state, weights_of(best.step, best.weights) if best else None)

    def ended(self, run: Run) -> None:
        """Write a run that is over, or was brought along, and know how to read its classifier
        again."""
        if not self.has(run):
            return
        weights = self._final_weights(run)
        state = "interrupted" if run.interrupted else run.state
        if self._put(run, state, weights) and weights is not None:
            self._attach(run, self._record(run, None))

    def catch_up(self, runs: Iterable[Run]) -> None:
        """Write what could not be written, up to the first that still cannot. What trains is
        written with its next evaluation."""
        for run in [run for run in runs if run.behind and run.state != "running"]:
            if run.is_over:
                self.ended(run)
            else:
                self.save(run, run.best)
            if run.behind:
                return

    def forget(self, run: Run) -> None:
        """Delete a run, for good: a worker that still trains it writes nothing any more."""
        with self._lock:
            if run.durable:
                run.durable = False
                self.store.delete(run.id)

    def has(self, run: Run) -> bool:
        """Whether a run is the store's to keep."""
        return self.keeps and run.durable

    def _put(self, run: Run, state: str, weights: Weights | None) -> bool:
        """Write it all; whether that was done. Where there is no room for the weights, the rest is
        written without them. A run that is over has none then: those before are not what its
        figures tell of. What goes on from a stored run is written with its weights or not at all.
        """
        table, final = None, run.is_over and not run.interrupted
        if not self.has(run):
            return False
        if run.task is not None and self._bundled_name(run.task) is None:
            content = records.task_record(run.task)
            table = self._digest(run.task), content, self.lists_table(run)
        record = self._record(run, table[0] if table else None)
        with self._lock:
            if not run.durable:
                return False
            events = run.events[run.written :]

            def put(weights: Weights | None, **also: Any) -> bool:
                return self.store.put(
                    run.id,
                    run.visitor,
                    state,
                    record,
                    run.used,
                    events=[records.event_record(event) for event in events],
                    first=run.written,
                    table=table,
                    weights=weights,
                    **also,
                )

            whole = put(weights, replaces=run.replaces if weights else "")
            if whole and weights:
                run.replaces = ""
            if whole or (weights and not run.replaces and put(None, without_weights=final)):
                run.written += len(events)
            run.behind = not whole
        return whole

    def _final_weights(self, run: Run) -> Weights | None:
        classifier = run.loaded
        if classifier is None:
            return None
        if run.state == "loaded":
            return Weights(0, ".zip", lambda path: zip_adapter(classifier, path))
        # Not the best weights as they were, for its head was cooled; nor the model's own alone, for
        # somebody may be looking at it with another strength.
        weights = {**trained_weights(classifier.model), **classifier.trained}
        finished = [e.best_step for e in run.events if isinstance(e, Finished)]
        return weights_of(finished[-1] if finished else run.step, weights)

    def _record(self, run: Run, table: str | None) -> dict[str, Any]:
        classifier = run.loaded
        best = [e for e in run.events if isinstance(e, Evaluated) and e.best]
        scores = {}
        if best:
            accuracy, loss = best[-1].validation_accuracy, best[-1].validation_loss
            scores = {"validation_accuracy": accuracy, "validation_loss": loss}
        if classifier is not None:
            scores = classifier.scores
        name, digest = run.stored_base
        if run.base is not None:
            name, digest = run.base.name, self._digest(run.base)
        elif classifier is not None:
            name = classifier.base_name
        return {
            "name": run.name,
            "share": run.share if run.share != run.visitor else "",
            "base": name,
            "base_digest": digest,
            "task": self._bundled_name(run.task) if run.task else None,
            "table": table,
            **records.settings_record(run.lora_config, run.train_config),
            "reason": run.reason,
            "lost": run.lost,
            "test": records.score_record(run.test_score),
            "times": [run.created, run.started, run.ended],
            "step": run.step,
            "first_step": run.first_step,
            "best_step": best[-1].step if best else run.first_step,
            "scores": scores,
            "has_weights": run.has_weights or run.best is not None,
            "processor_seconds": run.processor_seconds,
        }

    def _digest(self, thing: Base | Task) -> str:
        if thing not in self._digests:
            self._digests[thing] = (
                thing.digest()
                if isinstance(thing, Base)
                else records.task_digest(records.task_record(thing))
            )
        return self._digests[thing]

    def _bundled_name(self, task: Task) -> str | None:
        """The name of a task that comes with the app and is exactly this one."""
        if task.name not in task_names():
            return None
        return task.name if self._bundled_task(task.name)[1] == self._digest(task) else None

    def _bundled_task(self, name: str) -> tuple[Task, str]:
        if name not in self._bundled:
            task = load_task(name)
            self._bundled[name] = task, records.task_digest(records.task_record(task))
        return self._bundled[name]

    # Reading ---------------------------------------------------------------------------------

    def runs_of(self, visitor: str) -> list[Run]:
        """A visitor's stored runs, oldest first; without those that make no sense."""
        return list(self._readable(self._run, self.store.of(visitor)))

    def tables_of(self, visitor: str) -> list[Task]:
        """A visitor's stored tables, without those that make no sense."""
        tables = self._readable(self._table, self.store.own_tables(visitor))
        return [table for table in tables if table is not None]

    def _readable(self, read: Callable[[_Stored], _T], stored: Iterable[_Stored]) -> Iterator[_T]:
        """What `read` makes of each; what makes no sense is left out, with a line in the log."""
        for one in stored:
            try:
                result = read(one)
            except StoreError:
                raise  # the store is in trouble, not this one
            except Exception as error:  # of a damaged row, of another version: of any kind
                name = str(getattr(one, "id", one))
                log.once(f"What is stored as {log.short(name)} cannot be read, and is left out.")
                log.broke(name, error)
            else:
                yield result

    def weights(self, run: Run) -> Best | None:
        """The best weights of a run that can go on. Raises `StoreError`."""
        tensors = self.store.weights(run.id)
        if not tensors:
            if run.first_step:  # it was killed before it had them
                raise StoreError(INTERRUPTED_EARLY)
            return None
        step = self.store.weights_step(run.id)
        if step is None:  # an older version wrote them
            best = [e.step for e in run.events if isinstance(e, Evaluated) and e.best]
            step = max([run.first_step, *best])
        return Best(step, tensors)

    def _run(self, row: Row) -> Run:
        record = row.record
        lora, train = records.settings_of(record)
        interrupted = row.state in ("interrupted", "running")  # nobody trains it any more
        state: Any = "stopped" if interrupted else row.state
        if state not in ("waiting", *ENDED) or not isinstance(row.visitor, str):
            raise ValueError("no run has such a state, or such a visitor")
        run = Run(row.id, row.visitor, record["name"], None, self._task(record), lora, train)
        run.state, run.interrupted = state, interrupted
        run.share = run.address = record["share"] or row.visitor
        run.events = [records.event_of(event) for event in self.store.events(row.id)]
        run.written = len(run.events)
        run.stored_base = record["base"], record["base_digest"]
        run.reason, run.lost = record["reason"], record["lost"]
        run.test_score = records.score_of(record["test"])
        run.processor_seconds = record.get("processor_seconds", 0.0)  # older versions kept none
        run.created, run.started, run.ended = record["times"]
        run.step, run.first_step, run.used = record["step"], record["first_step"], float(row.used)
        if interrupted:
            run.ended = run.used
            step = max((event.step for event in run.events), default=0)
            sentence = INTERRUPTED if row.weights else INTERRUPTED_EARLY
            best = record["best_step"] if row.weights_step is None else row.weights_step
            run.reason = run.reason or sentence.format(step=step, best=best)
            run.step = step
        if row.state == "waiting" or record["base"] == "bundled":
            try:
                run.base = self._base(record)
            except LabError as error:
                if row.state == "waiting":
                    run.state, run.reason = "failed", str(error)
                else:
                    run.lost = str(error)
        if row.state == "waiting" and run.task is None:
            run.state, run.reason = "failed", NO_TABLE
        run.behind = run.state != state
        if run.is_over and not run.lost:
            if row.weights:
                self._attach(run, record)
            elif record["has_weights"] and not interrupted:
                run.lost = NOT_WRITTEN
        run.weigh()
        return run

    def _attach(self, run: Run, record: dict[str, Any]) -> None:
        """Let `run.classifier` read the store when it is not in memory."""
        run.loader = lambda: self._classifier(run, record)

    def _classifier(self, run: Run, record: dict[str, Any]) -> Classifier:
        """Raises `LabError`: the file is damaged, or the base is another one than then."""
        base = self._base(record)
        if run.state == "loaded":
            rows = [row for row in self.store.of(run.visitor) if row.id == run.id]
            if not rows or not rows[0].weights:
                raise StoreError("This adapter was not kept.")
            return load_adapter(self.store.weights_path(rows[0].weights), base)
        if run.task is None or run.train_config is None or run.lora_config is None:
            raise StoreError(NO_TABLE)
        weights = self.store.weights(run.id)
        if not weights:
            raise StoreError(NOT_WRITTEN)
        run.base = base
        job = Job(run.id, base, run.task, run.lora_config, run.train_config)
        return rebuild(job, weights, record["scores"])

    def _base(self, record: dict[str, Any]) -> Base:
        base = self.bases(record["base"], record["base_digest"])
        if record["base_digest"] not in ("", self._digest(base)):
            raise StoreError(
                f"The base '{base.name}' has changed since this run, so its weights do not fit any "
                "more. Its curves and figures stay."
            )
        return base

    def _task(self, record: dict[str, Any]) -> Task | None:
        try:
            if record["task"] is not None:
                return self._bundled_task(record["task"])[0]
        except TaskError as error:
            log.once(str(error))
            return None
        return self._table(record["table"]) if record["table"] else None

    def _table(self, digest: str) -> Task | None:
        content = self.store.table(digest)
        return records.task_of(content) if content is not None else None


def brought_run(visitor: str, classifier: Classifier, task: Task | None, name: str) -> Run:
    """The run of an adapter that a visitor brought along."""
    lora, train = classifier.lora_config, classifier.train_config
    run = Run(new_id(), visitor, name, None, task, lora, train, state="loaded", share=visitor)
    run.loaded = classifier
    run.weigh()
    return run


def continued_run(old: Run, best: Best) -> Run:
    """The rest of an interrupted run, from its best weights on, with the events until there."""
    lora, train = old.lora_config, old.train_config
    run = Run(new_id(), old.visitor, old.name, old.base, old.task, lora, train)
    run.share, run.address, run.best = old.share, old.address, best
    run.first_step = run.step = best.step
    run.replaces = old.id
    for event in old.curve():
        evaluated_anew = isinstance(event, Evaluated) and event.step == best.step
        if evaluated_anew or event.step > best.step or isinstance(event, Finished):
            break
        run.events.append(event)
    return run
