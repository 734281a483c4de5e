"""What is kept for visitors in memory, and what goes first when there is too much of it.

Curves and figures stay. Of weights, those of full fine-tuning go first, then the longest unused;
each visitor's newest run is spared as long as anything else can go. Whoever loses something is told
what and why. What lies in the store as well is only put out of memory, and nothing is lost.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from lora_core.limits import MEGABYTE, Limits
from lora_core.serving.nowhere import Nowhere
from lora_core.serving.recall import Recall
from lora_core.serving.run import Run, task_bytes
from lora_core.tasks.task import Task

_AGAIN = "Its curves and figures stay, and the same settings and seed make the same weights again."
_FULL = f"The weights of this full fine-tuning, the largest, were dropped to make room. {_AGAIN}"
_UNUSED = f"The weights of this run, the longest unused, were dropped to make room. {_AGAIN}"
_NOTICES = 20  # kept for each visitor


@dataclass
class Table:
    """A table that a visitor brought."""

    task: Task
    used: float


class Holdings:
    """Runs and tables of all visitors. Not thread-safe: the registry locks."""

    def __init__(self, limits: Limits, recall: Recall | None = None) -> None:
        self.limits = limits
        self.recall = recall or Recall(Nowhere())
        self.recall.lists_table = self._lists_table
        self.recalled: set[str] = set()  # visitors whose stored runs are here
        self.runs: dict[str, Run] = {}  # in the order of submission
        self.tables: dict[tuple[str, str], Table] = {}
        self.notices: dict[str, list[str]] = {}  # of each visitor: what was lost, and why
        self._brought: weakref.WeakKeyDictionary[Task, int] = weakref.WeakKeyDictionary()  # bytes

    # Of one visitor --------------------------------------------------------------------------

    def fetch(
        self, visitor: str | None, estimator: Callable[[Run], float | None], now: float
    ) -> list[Run]:
        """Bring a visitor's stored runs and tables to memory, once; the runs that came."""
        if not visitor or visitor in self.recalled:
            return []
        runs, tables = self.recall.runs_of(visitor), self.recall.tables_of(visitor)
        self.recalled.add(visitor)  # only now: what could not be read is tried again
        runs = [run for run in runs if run.id not in self.runs]
        for run in runs:
            run.estimator, run.used = estimator, now
            self.runs[run.id] = run
        for task in tables:
            self.bring(task)
            self.tables.setdefault((visitor, task.name), Table(task, now))
        return runs

    def of(self, visitor: str) -> list[Run]:
        """All runs of a visitor, oldest first."""
        return [run for run in self.runs.values() if run.visitor == visitor]

    def table(self, visitor: str, name: str, now: float) -> Task | None:
        """A visitor's table by its name, which is used now."""
        table = self.tables.get((visitor, name))
        if table is None:
            return None
        table.used = now
        return table.task

    def tables_of(self, visitor: str) -> list[Task]:
        """All tables of a visitor, oldest first."""
        return [table.task for (owner, _), table in self.tables.items() if owner == visitor]

    def _lists_table(self, run: Run) -> bool:
        """Whether the table of a run is in its visitor's list."""
        table = self.tables.get((run.visitor, run.task.name)) if run.task else None
        return table is not None and table.task is run.task

    def forget_tables(self, visitor: str) -> None:
        """Let go of a visitor's tables, and of what the visitor was told."""
        for key in [key for key in self.tables if key[0] == visitor]:
            del self.tables[key]
        self.notices.pop(visitor, None)

    def bring(self, task: Task) -> int:
        """Note that this table is a visitor's own; its bytes."""
        if task not in self._brought:
            self._brought[task] = task_bytes(task)
        return self._brought[task]

    def is_brought(self, task: Task | None) -> bool:
        """Whether a table is a visitor's own."""
        return task is not None and task in self._brought

    def forget(self, run: Run) -> None:
        """Let go of a run for good."""
        if self.runs.pop(run.id, None) is not None:
            self.recall.forget(run)

    # Memory ----------------------------------------------------------------------------------

    def held_bytes(self) -> int:
        """Memory kept for visitors: weights, events and tables, each table once."""
        held = sum(run.held_bytes for run in self.runs.values())
        return held + self._tables_bytes(self.runs.values())

    def waiting_table_bytes(self) -> int:
        """Of it, the tables of runs that are not over: those cannot be dropped."""
        tables = {run.task for run in self.runs.values() if not run.is_over}
        return sum(self._brought.get(task, 0) for task in tables if task is not None)

    def _tables_bytes(self, runs: Iterable[Run]) -> int:
        tables = {table.task for table in self.tables.values()}
        tables |= {run.task for run in runs if run.task is not None}
        return sum(self._brought.get(task, 0) for task in tables)

    def sweep_store(self, now: float) -> None:
        """Forget what is too old or too much in the store."""
        oldest = now - 3600.0 * self.limits.stored_hours
        for run_id in self.recall.store.sweep(oldest, self.limits.disk_mb * MEGABYTE):
            self.runs.pop(run_id, None)

    def sweep(self, now: float) -> None:
        """Forget what is too old or too much."""
        oldest = now - 60.0 * self.limits.idle_minutes
        over = sorted((r for r in self.runs.values() if r.is_over), key=lambda r: -r.used)
        runs_of: dict[str, int] = {}
        for run in over:
            runs_of[run.visitor] = runs_of.get(run.visitor, 0) + 1
            unused = run.used < oldest and not self.recall.has(run)
            if unused or runs_of[run.visitor] > self.limits.runs_kept:
                self.forget(run)
        here = {r.visitor for r in self.runs.values() if not r.is_over or r.used >= oldest}
        self._put_away(here)
        newest = sorted(self.tables.items(), key=lambda item: -item[1].used)
        tables: dict[str, int] = {}
        for (visitor, name), table in newest:
            tables[visitor] = tables.get(visitor, 0) + 1
            if tables[visitor] > self.limits.tables_kept:
                self._delete_table(visitor, name)
            elif table.used < oldest and visitor not in here:  # it would come back, or be missed
                del self.tables[visitor, name]
        known = {run.visitor for run in self.runs.values()} | {owner for owner, _ in self.tables}
        for visitor in self.notices.keys() - known:
            del self.notices[visitor]
        self._make_room()

    def _delete_table(self, visitor: str, name: str) -> None:
        del self.tables[visitor, name]
        self.recall.store.delete_table(visitor, name)

    def _put_away(self, here: set[str]) -> None:
        """Let go of the stored runs of visitors who have been away: the store has them."""
        for visitor in self.recalled - here:
            self.recalled.discard(visitor)
            for run in self.of(visitor):
                del self.runs[run.id]

    def _make_room(self) -> None:
        cap = self.limits.memory_mb * MEGABYTE
        excess = self.held_bytes() - cap
        if excess <= 0:
            return
        for _, _, drop in sorted(self._droppable(), key=lambda item: item[:2]):
            drop()
            if self.held_bytes() <= cap:
                return

    def _droppable(self) -> list[tuple[int, float, Callable[[], object]]]:
        """(order of going, when last used, how to drop it) of all that can go."""
        over = [run for run in self.runs.values() if run.is_over]
        newest = {run.visitor: run for run in over if run.loaded is not None}
        last_table = {}
        for key, table in sorted(self.tables.items(), key=lambda item: item[1].used):
            last_table[key[0]] = table
        droppable: list[tuple[int, float, Callable[[], object]]] = []
        for run in over:
            full = run.train_config is not None and run.train_config.method == "full"
            spared = newest.get(run.visitor) is run
            if run.loaded is not None:
                order = (2 if full else 3) if spared else (0 if full else 1)
                droppable.append((order, run.used, lambda r=run, f=full: self._drop_weights(r, f)))  # type: ignore[misc]
            # What is left of it is small, and goes last.
            droppable.append((5 if spared else 4, run.used, lambda r=run: self._drop_run(r)))  # type: ignore[misc]
        for key, table in self.tables.items():
            order = 3 if last_table[key[0]] is table else 1
            droppable.append((order, table.used, lambda k=key: self._drop_table(k)))  # type: ignore[misc]
        return droppable

    def _drop_weights(self, run: Run, full: bool) -> None:
        run.loaded = None
        if run.loader is None:
            run.lost = _FULL if full else _UNUSED
        run.weigh()

    def _drop_run(self, run: Run) -> None:
        if run.loader is None and not self.recall.has(run):
            self.forget(run)
            self._notice(
                run.visitor, "A run that was not used for long was forgotten to make room."
            )

    def _drop_table(self, key: tuple[str, str]) -> None:
        visitor, name = key
        self._delete_table(visitor, name)
        self._notice(visitor, f"The table '{name}' was forgotten to make room: bring it again.")

    def _notice(self, visitor: str, sentence: str) -> None:
        notices = self.notices.setdefault(visitor, [])
        notices.append(sentence)
        del notices[:-_NOTICES]
