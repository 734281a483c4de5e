"""What a visitor asks of a finished run and takes seconds: one worker, in turns, kept once known.

A computation is a generator that pauses often (`explain.exam`). The worker gives each visitor a
slice in turn, so nobody waits for another's long question. While runs train on every core it
computes for a small share of the time only, however many ask, and rests for the remainder: a low
priority alone does not do, because a thread that holds Python's lock and waits for a core holds up
all others. A computation that nobody looks at any more is dropped; what is done is kept as long as
the thing that it is about.
"""

from __future__ import annotations

import contextlib
import math
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
OF_THE_MACHINE = 0.05  # share of all cores' time, while runs train on every one of them
NICENESS = 4  # of its thread: whoever classifies goes first, also while no run trains
_LOOK = 0.1  # seconds of rest between two looks whether all of a core is free again
OF_A_VISITOR = 6  # unfinished computations that somebody looks at
IN_ALL = 80
KEPT = 64  # about one thing; the oldest that is over goes first

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

    @property
    def is_known(self) -> bool:
        """Whether there is an answer, or a reason why there is none."""
        return self.state in ("done", "failed")

    def leave(self) -> None:
        """Drop it at its next turn, unless somebody looks meanwhile."""
        self.used = -math.inf


class Computations:
    """All questions of a server. All public methods may be called from any thread."""

    def __init__(self, share: Callable[[], float] = lambda: 1.0) -> None:
        """`share`: of a core's time that questions may take now, above 0 and up to 1."""
        self.share = share
        self._lock = threading.Condition()
        self._turns: Turns[tuple[Computation, Make]] = Turns()
        self._known: weakref.WeakKeyDictionary[Any, dict[Hashable, Computation]] = (
            weakref.WeakKeyDictionary()
        )
        self._open: list[Computation] = []
        self._thread: threading.Thread | None = None
        self._closed = False

    def close(self, seconds: float = 10.0) -> None:
        """The server ends: the worker ends after its present slice, and `ask` begins nothing.

        Python would tear a thread out of its computation at the end of the process, and C++ code
        that is torn out of a function aborts the whole process.
        """
        with self._lock:
            self._closed = True
            self._lock.notify_all()
        if self._thread is not None:
            self._thread.join(seconds)

    def ask(self, visitor: str, about: object, key: Hashable, make: Make) -> Computation:
        """The computation `key` about an object, begun or found. Ask again to keep it going.

        `make` begins it, on the worker; what it raises becomes the computation's reason. Raises
        `RunError` when this visitor, or everybody, has too many unfinished ones.
        """
        with self._lock:
            earlier = self.known(about, key)
            if earlier is not None:
                return earlier
            if self._closed:
                raise RunError("The server is ending.")
            known = self._known.setdefault(about, {})
            recent = time.monotonic() - ABANDONED
            mine = sum(1 for one in self._open if one.visitor == visitor and one.used >= recent)
            if mine >= OF_A_VISITOR or len(self._open) >= IN_ALL:
                raise RunError("Too many questions are being computed; wait for one to be done.")
            over = [one for one, computed in known.items() if computed.is_over]
            for one in over[: max(0, len(known) - KEPT)]:
                del known[one]
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

    def known(self, about: object, key: Hashable) -> Computation | None:
        """The computation `key` about an object if it has been begun, as `ask` finds it."""
        with self._lock:
            earlier = self._known.get(about, {}).get(key)
            if earlier is None or earlier.state not in ("waiting", "done"):
                return None
            earlier.used = time.monotonic()
            return earlier

    def _work(self) -> None:
        use_one_thread()
        if sys.platform == "linux":  # there a thread has a priority of its own
            with contextlib.suppress(OSError):  # a host may forbid it; then it is like the others
                mine = threading.get_native_id()
                nice = os.getpriority(os.PRIO_PROCESS, mine) + NICENESS
                os.setpriority(os.PRIO_PROCESS, mine, min(19, nice))
        while True:
            with self._lock:
                taken = self._turns.take()
                while taken is None and not self._closed:
                    self._lock.wait()
                    taken = self._turns.take()
            if taken is None or self._closed:
                return
            computation, make = taken
            del taken
            spent = self._slice(computation, make)
            with self._lock:
                if computation.is_over:
                    computation.turns = None
                    self._open.remove(computation)
                else:
                    self._turns.add(computation.visitor, (computation, make))
            del computation, make  # an idle worker keeps nobody's run alive
            rest(spent, self.share)

    def _slice(self, computation: Computation, make: Make) -> float:
        """Processor seconds of it."""
        begin, processor = time.monotonic(), time.thread_time()
        if begin - computation.used > ABANDONED:
            computation.state = "dropped"
            return 0.0
        try:
            if computation.turns is None:
                computation.turns = make()
            while True:
                value = next(computation.turns)
                if value is not None:
                    computation.value = value
                    computation.changes += 1
                if time.monotonic() - begin >= SLICE * self.share():
                    break
        except StopIteration as end:
            computation.value = end.value
            computation.state = "done"
            computation.changes += 1
        except Exception as error:
            computation.reason, computation.state = why(error), "failed"
            computation.changes += 1
            if not isinstance(error, LabError):
                log.question_broke(error)
        return time.thread_time() - processor


def share_of_core(running: int, cores: int) -> float:
    """Of a core's time for questions: all of one that is free, else little of the machine's."""
    return 1.0 if running < cores else min(1.0, OF_THE_MACHINE * cores)


def rest(
    spent: float,
    share: Callable[[], float],
    clock: Callable[[], float] = time.monotonic,
    sleep: Callable[[float], None] = time.sleep,
) -> None:
    """Rest until `spent` processor seconds are no more than their share of the time."""
    begin = clock()
    while (left := begin + spent * (1.0 / share() - 1.0) - clock()) > 0:
        sleep(min(left, _LOOK))
