"""The state of a room: its pupils, its runs, and what the teacher has set.

It listens to the registry and keeps figures only. All public methods may be called from any thread.
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections import Counter
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeGuard

from lora_core.classifier import Classifier
from lora_core.limits import RunError
from lora_core.room import RoomError
from lora_core.room.exercises import Exercise
from lora_core.room.key import Key
from lora_core.room.memory import Memory
from lora_core.room.people import People, Pupil
from lora_core.room.pseudonyms import Pseudonym
from lora_core.room.runs import OTHER_BASE, OWN_TABLE, Record, best_of_each
from lora_core.room.votes import Votes
from lora_core.serving.admission import check_visitor
from lora_core.serving.registry import Registry, Run
from lora_core.tasks.bundled import load_task, task_names
from lora_core.tasks.task import Task

MOST_RUNS = 3000  # of a lesson: the first ones go, where a room stays open for weeks
LONGEST_CLOCK = 180 * 60  # seconds
_KEPT = 18 * 3600.0  # seconds after which a lesson is one of another day
STOPPED = "Your teacher stopped all runs; the best weights so far were kept."
ENDED = "This lesson has ended. Begin a new one first."


@dataclass
class Lesson:
    """What the teacher has set. Times are those of the wall clock, seconds since 1970."""

    exercise: int = 0  # number of the one that is offered; 0: none
    offered: int = 0  # how many were offered so far: an exercise offered again is a new offer
    paused: bool = False
    ends_at: float | None = None  # of the clock
    names_shown: bool = False
    revealed: bool = False  # test accuracies
    begun: float = 0.0
    over: float | None = None


@dataclass(frozen=True)
class Live:
    """A run that waits or trains."""

    run: Run
    pupil: Pupil
    exercise: int
    task: str


class Room:
    """One room of one server."""

    def __init__(
        self,
        registry: Registry,
        key: Key,
        exercises: Sequence[Exercise],
        *,
        folder: Path | None = None,
        bases: Collection[str] = ("bundled",),
        clock: Callable[[], float] = time.time,
    ) -> None:
        """`folder`: where the room outlives the process. `bases`: names that may be shown; others
        were typed by a visitor."""
        self.registry, self.key, self.exercises = registry, key, tuple(exercises)
        self._bases, self._clock = frozenset(bases), clock
        self._lock = threading.RLock()
        self._tasks: dict[str, Task] = {}
        self._listeners: list[tuple[Callable[[], None], bool]] = []
        self.people = People()
        self.lesson = Lesson(begun=clock())
        self.closed = False
        self.version = 0  # counts up with every change
        self.results = 0  # counts up with every change of what has ended
        self._live: dict[str, Live] = {}
        self._over: dict[str, Record] = {}  # by the ids of the runs, in the order of their ends
        self._last = 0
        self.votes = Votes(self.task, self._on_ballot)
        self._memory = Memory(folder, self._picture)
        self._take_up()
        registry.on_change(self._on_change)

    # Reading ---------------------------------------------------------------------------------

    @property
    def exercise(self) -> Exercise | None:
        """The one that is offered."""
        return self.exercise_numbered(self.lesson.exercise)

    def exercise_numbered(self, number: int) -> Exercise | None:
        """The exercise of a number, if there is one."""
        return self.exercises[number - 1] if 1 <= number <= len(self.exercises) else None

    def task(self, name: str) -> Task:
        """A bundled task."""
        with self._lock:
            if name not in self._tasks:
                self._tasks[name] = load_task(name)
            return self._tasks[name]

    def records(self) -> list[Record]:
        """All runs that are over, in the order in which they ended."""
        with self._lock:
            return list(self._over.values())

    def voters(self, task: str) -> list[Record]:
        """Who votes on a task: the best run of each pupil among those whose ballots are counted."""
        cast = self.votes.cast()
        return best_of_each(r for r in self.records() if r.task == task and r.number in cast)

    def live(self) -> list[Live]:
        """All runs that wait or train."""
        with self._lock:
            return list(self._live.values())

    def pupils(self) -> list[Pupil]:
        """Who is here: has a page open, or has run something."""
        with self._lock:
            busy = {live.pupil.number for live in self._live.values()}
            return [p for p in self.people if p.streams or p.has_run or p.number in busy]

    def everybody(self) -> list[Pupil]:
        """Who is here or was: whose names the runs have."""
        with self._lock:
            return list(self.people)

    def shown_task(self) -> str:
        """The task that the board is about: the exercise's, else the one with most runs."""
        exercise = self.exercise
        if exercise is not None and exercise.task:
            return exercise.task
        counts = Counter(r.task for r in self.records() if r.task != OWN_TABLE)
        return counts.most_common(1)[0][0] if counts else "sms-spam"

    def now(self) -> float:
        """Seconds since 1970."""
        return self._clock()

    # Pupils ----------------------------------------------------------------------------------

    def join(self, visitor: object) -> Pupil:
        """A pupil's page says who it is. Raises `RoomError`."""
        try:
            if not isinstance(visitor, str):
                raise RunError("A visitor's token is a text.")
            check_visitor(visitor)
        except RunError as error:
            raise RoomError(str(error)) from error
        with self._lock:
            return self.people.join(visitor)

    def names_for(self, ticket: object) -> list[Pseudonym]:
        """Free names that a pupil may choose from. Raises `RoomError`."""
        with self._lock:
            return list(self.people.offer(self.people.of_ticket(ticket)))

    def rename(self, ticket: object, name: object) -> None:
        """A pupil chooses one of the names that are offered. Raises `RoomError`."""
        with self._lock:
            self.people.rename(self.people.of_ticket(ticket), name)
        self._changed()

    def pupil(self, ticket: object) -> Pupil:
        """Whose page this is. Raises `RoomError` for who is not known, or has too many tabs."""
        with self._lock:
            pupil = self.people.of_ticket(ticket)
            self.people.check_streams(pupil)
            return pupil

    def use(self, visitor: object) -> Pupil:
        """A pupil takes the settings of the exercise that is offered: their page is to fix what it
        fixes, after a reload and in another tab, too. Raises `RoomError`."""
        pupil = self.join(visitor)
        with self._lock:
            pupil.offer, pupil.exercise = self.lesson.offered, self.lesson.exercise
        self._changed()
        return pupil

    def used_by(self, pupil: Pupil) -> Exercise | None:
        """The exercise whose settings a pupil took; None while none is offered."""
        if self.exercise is None or self.lesson.over is not None:
            return None
        return self.exercise_numbered(pupil.exercise)

    def opened(self, pupil: Pupil) -> None:
        """A pupil's page begins to listen; call `left` at its end."""
        with self._lock:
            self.people.open(pupil)
        self._changed(lesson=False)

    def left(self, pupil: Pupil) -> None:
        """It listens no more."""
        with self._lock:
            self.people.close(pupil)
        self._changed(lesson=False)

    # The desk --------------------------------------------------------------------------------

    def offer(self, number: object) -> None:
        """Offer an exercise on every page; 0: none. Raises `RoomError`."""
        self._check_open()
        if not _is_whole(number) or (number and self.exercise_numbered(number) is None):
            raise RoomError("There is no such exercise.")
        with self._lock:
            self.lesson.exercise = number
            self.lesson.offered += 1
            if not number:
                self.people.use_none()
        self._changed()

    def pause(self, paused: bool) -> None:
        """Let no waiting run start, or let them start again."""
        self._check_open()
        self._pause(paused)
        self._changed()

    def stop_all(self) -> None:
        """Stop all runs, waiting and running ones."""
        self._check_open()
        self.registry.stop_all(STOPPED)
        self._changed()

    def set_clock(self, seconds: object, *, more: bool = False) -> None:
        """Show a clock on all pages; 0 takes it away. `more`: add to what is left, so that two
        presses in a row count twice. Raises `RoomError`."""
        self._check_open()
        if not _is_whole(seconds) or not 0 <= seconds <= LONGEST_CLOCK:
            raise RoomError(f"A clock goes from 0 to {LONGEST_CLOCK // 60} minutes.")
        with self._lock:
            now, ends = self._clock(), self.lesson.ends_at
            left = max(0.0, ends - now) if more and ends is not None else 0.0
            self.lesson.ends_at = now + min(LONGEST_CLOCK, left + seconds) if seconds else None
        self._changed()

    def show_names(self, shown: bool) -> None:
        """Whether the board has the pseudonyms."""
        with self._lock:
            self.lesson.names_shown = bool(shown)
        self._changed()

    def reveal(self, revealed: bool) -> None:
        """Whether the board has test accuracies."""
        with self._lock:
            self.lesson.revealed = bool(revealed)
        self._changed()

    def end(self) -> None:
        """End the lesson: what is shown stays as it is, and runs start again."""
        if self.lesson.over is not None:
            return
        self._pause(False)
        with self._lock:
            self.lesson.over = self._clock()
            self.lesson.ends_at = None
        self._changed()

    def begin(self) -> None:
        """A new lesson: without the runs of the last one. Raises `RoomError` before its end."""
        with self._lock:
            if self.lesson.over is None:
                raise RoomError("End this lesson first.")
            self._over.clear()
            self._last = 0
            self.results += 1
            self.people.start_anew()
            offered = self.lesson.offered
            self.lesson = Lesson(begun=self._clock(), offered=offered)
        self.votes.forget()
        self._changed()

    def _pause(self, paused: bool) -> None:
        with self._lock:
            self.lesson.paused = bool(paused)
        if paused:
            self.registry.pause()
        else:
            self.registry.unpause()

    def _check_open(self) -> None:
        if self.lesson.over is not None:
            raise RoomError(ENDED)

    # Changes ---------------------------------------------------------------------------------

    def listen(self, wake: Callable[[], None], *, lesson: bool = False) -> None:
        """Call this after each change, from any thread; it must not block. `lesson`: after those
        only that pupils' pages show."""
        with self._lock:
            self._listeners.append((wake, lesson))

    def unlisten(self, wake: Callable[[], None]) -> None:
        """Call it no more."""
        with self._lock:
            self._listeners = [(one, lesson) for one, lesson in self._listeners if one != wake]

    @property
    def listeners(self) -> int:
        """How many are told of changes."""
        return len(self._listeners)

    def close(self) -> None:
        """The server ends: all who listen are told, and what is left is written."""
        self.closed = True
        self._changed()
        self.votes.close()
        self._memory.close()

    def _changed(self, *, lesson: bool = True) -> None:
        """`lesson`: whether it is something that pupils' pages show."""
        with self._lock:
            self.version += 1
            wakes = [wake for wake, lesson_only in self._listeners if lesson or not lesson_only]
        for wake in wakes:
            with contextlib.suppress(RuntimeError):  # the loop that it wakes has ended
                wake()
        self._memory.changed()

    def _on_ballot(self) -> None:
        with self._lock:
            self.results += 1
        self._changed(lesson=False)

    def _on_change(self, run: Run) -> None:
        """From the registry: a run was queued, starts, is evaluated, ends or is removed."""
        if run.train_config is None or run.state == "loaded":
            return  # an adapter that was brought along
        with self._lock:
            if self.lesson.over is not None and run.id not in self._live:
                return
            if not self._is_there(run):
                self._live.pop(run.id, None)
                gone = self._over.pop(run.id, None)
                if gone is not None:
                    self.results += 1
                    self.votes.forget(gone.number)
                    self._ask(gone.pupil, gone.task)
            elif run.id in self._over:
                return  # an earlier change of a run that was already over when it was told
            else:
                live = self._live.get(run.id) or self._new(run)
                if live is not None and run.is_over:
                    self._end(live)
        self._changed(lesson=False)

    def _new(self, run: Run) -> Live | None:
        try:
            pupil = self.people.join(run.share or run.visitor)
        except RoomError:
            return None
        pupil.has_run = True
        live = self._live[run.id] = Live(run, pupil, self.lesson.exercise, self._task_of(run))
        return live

    def _end(self, live: Live) -> None:
        run = live.run
        del self._live[run.id]
        self._last += 1
        base = run.base.name if run.base is not None else ""
        record = Record.of(
            run,
            self._last,
            live.pupil.number,
            live.exercise,
            live.task,
            base if base in self._bases else OTHER_BASE,
        )
        self._over[run.id] = record
        self.results += 1
        while len(self._over) > MOST_RUNS:
            first = self._over.pop(next(iter(self._over)))
            self.votes.forget(first.number)
        self._ask(record.pupil, record.task)

    def _ask(self, pupil: int, task: str) -> None:
        """Let the best run of a pupil that still has its weights vote on a task."""
        if task == OWN_TABLE:
            return
        ids = {
            record.number: run_id
            for run_id, record in self._over.items()
            if record.pupil == pupil and record.task == task and self._has_weights(run_id)
        }
        for best in best_of_each(r for r in self._over.values() if r.number in ids):
            run_id = ids[best.number]

            def find(run_id: str = run_id) -> Classifier | None:
                return self.registry.find(run_id).classifier

            self.votes.ask(best.number, task, find)

    def _has_weights(self, run_id: str) -> bool:
        try:
            return self.registry.find(run_id).has_weights
        except RunError:
            return False

    def _is_there(self, run: Run) -> bool:
        try:
            self.registry.find(run.id)
        except RunError:
            return False
        return True

    def _task_of(self, run: Run) -> str:
        """The name of a bundled task; OWN_TABLE for any other, whatever it is called."""
        name = run.task.name if run.task is not None else ""
        if run.task is None or name not in task_names():
            return OWN_TABLE
        bundled = self.task(name)
        same = run.task.labels == bundled.labels and run.task.test == bundled.test
        return name if same and run.task.train == bundled.train else OWN_TABLE

    # After a restart -------------------------------------------------------------------------

    def _picture(self) -> dict[str, Any]:
        with self._lock:
            return {
                "lesson": dict(vars(self.lesson)),
                "pupils": self.people.kept(),
                "runs": {run_id: record.kept() for run_id, record in self._over.items()},
                "exercises": [exercise.title for exercise in self.exercises],
            }

    def _take_up(self) -> None:
        picture = self._memory.read()
        if picture is None:
            return
        try:
            lesson = Lesson(**picture["lesson"])
            runs = {run_id: Record.read(record) for run_id, record in picture["runs"].items()}
            people = People()
            people.take_up(picture["pupils"])
        except (KeyError, TypeError, ValueError, AttributeError):
            return  # of another version: the lesson begins anew
        if picture.get("exercises") != [exercise.title for exercise in self.exercises]:
            lesson.exercise = 0  # another file: its numbers mean others
            people.use_none()
        old = self._clock() - _KEPT
        if lesson.begun < old or (lesson.over is not None and lesson.over < old):
            return  # another day
        self.lesson, self._over, self.people = lesson, runs, people
        self._last = max((record.number for record in runs.values()), default=0)
        if lesson.paused and lesson.over is None:
            self.registry.pause()

    def recount(self) -> None:
        """After a restart, once the registry has taken up its runs: they vote again."""
        with self._lock:
            for pupil, task in {(record.pupil, record.task) for record in self._over.values()}:
                self._ask(pupil, task)


def _is_whole(value: object) -> TypeGuard[int]:
    return isinstance(value, int) and not isinstance(value, bool)
