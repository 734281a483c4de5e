"""What a visitor asks of a finished run and takes seconds: one worker, in turns, kept once known.

A computation is a generator that pauses often (`explain.exam`). The worker gives each visitor a
slice in turn, so nobody waits for another's long question. It has a low priority: what is asked out
of curiosity takes what training leaves, and little more. A computation that nobody looks at any
more is dropped; what is done is kept as long as the thing that it is about.
"""

from __future__ import annotations

import contextlib
import os
import sys
import threading
import time
import weakref
from collections.abc import Callable, Generator, Hashable
from dataclasses import dataclass, field
from typing import Any, Literal

from lora_core.errors import LabError
from lora_core.limits import RunError
from lora_core.serving import log
from lora_core.serving.fair_queue import Turns
from lora_core.serving.worker import use_one_thread, why

SLICE = 0.25  # seconds of one visitor before the next one's turn
ABANDONED = 20.0  # seconds after which a computation that nobody asks for is dropped
NICENESS = 8  # of its thread: a seventh of a core that training wants, all of one that is free
OF_A_VISITOR = 6  # unfinished computations
IN_ALL = 80

Make = Callable[[], Generator[Any, None, Any]]


@dataclass(eq=False)
class Computation:
    """One question being computed. Read it from any thread."""

    visitor: str = field(repr=False)
    state: Literal["waiting", "done", "failed", "dropped"] = "waiting"
    value: Any = None  # what is known so far; grows until `state` is "done"
    reason: str = ""  # a sentence, for one that failed
    changes: int = 0  # counts up whenever `value` or `state` changes
    used: float = field(default_factory=time.monotonic, repr=False)
    turns: Generator[Any, None, Any] | None = field(default=None, repr=False)

    @property
    def is_over(self) -> bool:
        """Whether nothing will change any more."""
        return self.state != "waiting"


class Computations:
    """All questions of a server. All public methods may be called from any thread."""

    def __init__(self) -> None:
        self._lock = threading.Condition()
        self._turns: Turns[tuple[Computation, Make]] = Turns()
        self._known: weakref.WeakKeyDictionary[Any, dict[Hashable, Computation]] = (
            weakref.WeakKeyDictionary()
        )
        self._open: list[Computation] = []
        self._thread: threading.Thread | None = None

    def ask(self, visitor: str, about: object, key: Hashable, make: Make) -> Computation:
        """The computation `key` about an object, begun or found. Ask again to keep it going.

        `make` begins it, on the worker; what it raises becomes the computation's reason. Raises
        `RunError` when this visitor, or everybody, has too many unfinished ones.
        """
        with self._lock:
            known = self._known.setdefault(about, {})
            earlier = known.get(key)
            if earlier is not None and earlier.state in ("waiting", "done"):
                earlier.used = time.monotonic()
                return earlier
            mine = sum(1 for other in self._open if other.visitor == visitor)
            if mine >= OF_A_VISITOR or len(self._open) >= IN_ALL:
                raise RunError("Too many questions are being computed; wait for one to be done.")
            made = known[key] = Computation(visitor)
            self._open.append(made)
            self._turns.add(visitor, (made, make))
            if self._thread is None:
                self._thread = threading.Thread(
                    target=self._work, name="lora-lab-questions", daemon=True
                )
                self._thread.start()
            self._lock.notify_all()
            return made

    def _work(self) -> None:
        use_one_thread()
        if sys.platform == "linux":  # there a thread has a priority of its own
            with contextlib.suppress(OSError):  # a host may forbid it; then it is like the others
                mine = threading.get_native_id()
                nice = os.getpriority(os.PRIO_PROCESS, mine) + NICENESS
                os.setpriority(os.PRIO_PROCESS, mine, min(19, nice))
        while True:
            with self._lock:
                while (taken := self._turns.take()) is None:
                    self._lock.wait()
            computation, make = taken
            del taken
            self._slice(computation, make)
            with self._lock:
                if computation.is_over:
                    computation.turns = None
                    self._open.remove(computation)
                else:
                    self._turns.add(computation.visitor, (computation, make))
            del computation, make  # an idle worker keeps nobody's run alive

    def _slice(self, computation: Computation, make: Make) -> None:
        begin = time.monotonic()
        if begin - computation.used > ABANDONED:
            computation.state = "dropped"
            return
        try:
            if computation.turns is None:
                computation.turns = make()
            while True:
                value = next(computation.turns)
                if value is not None:
                    computation.value = value
                    computation.changes += 1
                if time.monotonic() - begin >= SLICE:
                    return
        except StopIteration as end:
            computation.value = end.value
            computation.state = "done"
            computation.changes += 1
        except Exception as error:
            computation.reason, computation.state = why(error), "failed"
            computation.changes += 1
            if not isinstance(error, LabError):
                log.question_broke(error)
