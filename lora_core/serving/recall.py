"""Between the registry and the store: runs become rows, and rows become runs again.

A visitor's runs are read when the visitor is first seen, weights when they are first needed, so a
start with many stored runs takes no longer than an empty one.
"""

from __future__ import annotations

import threading
import weakref
from collections.abc import Callable
from typing import Any

from lora_core.adapters.adapter import load_adapter, zip_adapter
from lora_core.base.checkpoint import Base, load_base
from lora_core.classifier import Classifier
from lora_core.errors import LabError
from lora_core.events import Evaluated, Finished
from lora_core.preparation import trained_weights
from lora_core.serving import log, records
from lora_core.serving.nowhere import Nowhere
from lora_core.serving.run import Best, Run, new_id
from lora_core.serving.store import Row, Store, StoreError
from lora_core.serving.worker import Job, rebuild
from lora_core.tasks.bundled import load_task, task_names
from lora_core.tasks.task import Task, TaskError

INTERRUPTED = (
    "The server ended while this run trained, after step {step}. Its best weights are those of "
    "step {best}: go on from there, or start anew with the same settings."
)
INTERRUPTED_EARLY = "The server ended before this run was evaluated: start it anew."


class Recall:
    """May be called from any thread; what it returns belongs to the registry."""

    def __init__(self, store: Store) -> None:
        self.store = store
        self.keeps = not isinstance(store, Nowhere)
        self.bases: Callable[[str], Base] = self._load  # finds a base by its name
        self._lock = threading.Lock()
        self._loaded: dict[str, Base] = {}
        self._bundled: dict[str, tuple[Task, str]] = {}
        self._digests: weakref.WeakKeyDictionary[Base | Task, str] = weakref.WeakKeyDictionary()

    def _load(self, name: str) -> Base:
        if name not in self._loaded:
            self._loaded[name] = load_base(name)
        return self._loaded[name]

    # Writing ---------------------------------------------------------------------------------

    def save(self, run: Run, *, keeps_table: bool = False, state: str = "") -> None:
        """Write a run as it is now, with the events that were not written yet."""
        table = None
        if not (self.keeps and run.durable):
            return
        if run.task is not None and self._bundled_name(run.task) is None:
            table = self._digest(run.task), records.task_record(run.task), keeps_table
        with self._lock:
            if not run.durable:
                return
            events = run.events[run.written :]
            self.store.put(
                run.id,
                run.visitor,
                state or run.state,
                self._record(run, table[0] if table else None),
                run.used,
                events=[records.event_record(event) for event in events],
                first=run.written,
                table=table,
            )
            run.written += len(events)

    def save_best(self, run: Run) -> None:
        """Write the best weights of a run that trains."""
        with self._lock:
            if run.durable and run.best is not None:
                self.store.put_weights(run.id, run.best.weights)

    def forget(self, run: Run) -> None:
        """Delete a run, for good: a worker that still trains it writes nothing any more."""
        with self._lock:
            if run.durable:
                run.durable = False
                self.store.delete(run.id)

    def save_adapter(self, run: Run) -> None:
        """Write an adapter that was brought along, and know how to read it again."""
        classifier = run.loaded
        assert classifier is not None
        if self.store.put_file(run.id, lambda path: zip_adapter(classifier, path)):
            self._attach(run, self._record(run, None))

    def ended(self, run: Run) -> None:
        """Write a run that is over, and know how to read its classifier again."""
        if not (self.keeps and run.durable):
            return
        written, state = False, "interrupted" if run.interrupted else ""
        if run.loaded is not None:  # not the best weights as they were: its head was cooled
            with self._lock:
                weights = trained_weights(run.loaded.model)
                written = run.durable and self.store.put_weights(run.id, weights)
        self.save(run, state=state)
        if written:
            self._attach(run, self._record(run, None))

    def _record(self, run: Run, table: str | None) -> dict[str, Any]:
        classifier = run.loaded
        best = [e for e in run.events if isinstance(e, Evaluated) and e.best]
        scores = {}
        if best:
            accuracy, loss = best[-1].validation_accuracy, best[-1].validation_loss
            scores = {"validation_accuracy": accuracy, "validation_loss": loss}
        if classifier is not None:
            scores = classifier.scores
        name = run.base.name if run.base else classifier.base_name if classifier else ""
        return {
            "name": run.name,
            "share": run.share if run.share != run.visitor else "",
            "base": name,
            "base_digest": self._digest(run.base) if run.base else "",
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
        """A visitor's stored runs, oldest first."""
        return [self._run(row) for row in self.store.of(visitor)]

    def waiting(self) -> list[Run]:
        """Runs that waited when the last server ended, in their order, with their bases."""
        return [self._run(row) for row in self.store.waiting()]

    def tables_of(self, visitor: str) -> list[Task]:
        """A visitor's stored tables."""
        tables = [self.store.table(digest) for digest in self.store.own_tables(visitor)]
        return [records.task_of(record) for record in tables if record is not None]

    def weights(self, run: Run) -> Best | None:
        """The best weights of an interrupted run. Raises `StoreError`."""
        tensors = self.store.weights(run.id)
        best = [e.step for e in run.events if isinstance(e, Evaluated) and e.best]
        return Best(best[-1], tensors) if best and tensors else None

    def _run(self, row: Row) -> Run:
        record = row.record
        lora, train = records.settings_of(record)
        interrupted = row.state == "interrupted"
        state: Any = "stopped" if interrupted else row.state
        run = Run(row.id, row.visitor, record["name"], None, self._task(record), lora, train)
        run.state, run.interrupted = state, interrupted
        run.share = run.address = record["share"] or row.visitor
        run.events = [records.event_of(event) for event in self.store.events(row.id)]
        run.written = len(run.events)
        run.reason, run.lost = record["reason"], record["lost"]
        run.test_score = records.score_of(record["test"])
        run.created, run.started, run.ended = record["times"]
        run.step, run.first_step, run.used = record["step"], record["first_step"], row.used
        if interrupted:
            run.ended = run.used
            step = max((event.step for event in run.events), default=0)
            sentence = INTERRUPTED if row.weights else INTERRUPTED_EARLY
            run.reason = run.reason or sentence.format(step=step, best=record["best_step"])
            run.step = step
        if row.state == "waiting" or record["base"] == "bundled":
            try:
                run.base = self._base(record)
            except LabError as error:
                run.lost = str(error)
                if row.state == "waiting":
                    run.state, run.reason = "failed", str(error)
        if run.is_over and not run.lost and (record["has_weights"] or row.weights):
            self._attach(run, record)
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
            raise StoreError("The table of this run is not kept any more.")
        run.base = base
        job = Job(run.id, base, run.task, run.lora_config, run.train_config)
        return rebuild(job, self.store.weights(run.id) or None, record["scores"])

    def _base(self, record: dict[str, Any]) -> Base:
        base = self.bases(record["base"])
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
        content = self.store.table(record["table"]) if record["table"] else None
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
    for event in old.events:
        later = isinstance(event, Evaluated) and event.step >= best.step
        if later or isinstance(event, Finished):
            break
        run.events.append(event)
    return run
