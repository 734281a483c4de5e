"""Time that the server was awake: what idleness is measured in.

The wall clock jumps: it is set right, or a lid was closed over lunch. `time.monotonic` does not
jump, and on Linux and macOS it stands still while the machine sleeps; on Windows it goes on, and a
process that is halted (SIGSTOP) sees it go on anywhere. So whoever looks in regularly says so, and
what a look came too late by does not count.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

_LATE = 10.0  # seconds by which a look may come late on a busy machine


class AwakeClock:
    """Seconds awake, from `start` on."""

    def __init__(self, start: float = 0.0, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._monotonic = monotonic
        self._lock = threading.Lock()
        self._looked = monotonic()
        self._offset = start - self._looked  # to be added to the monotonic time

    def __call__(self) -> float:
        """Seconds awake until now."""
        with self._lock:
            return self._monotonic() + self._offset

    def look(self, expected: float) -> None:
        """Called about every `expected` seconds: a much longer gap was sleep."""
        with self._lock:
            now = self._monotonic()
            gap = now - self._looked
            if gap > expected + _LATE:
                self._offset -= gap - expected
            self._looked = now
