"""Who wants to hear of every change of a run: told from a thread of its own, so none holds one up.

Knows nothing of the registry. All public methods may be called from any thread.
"""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable

from lora_core.serving import log
from lora_core.serving.run import Run


class Observers:
    """Callbacks, and the changes that they have not heard of yet."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._callbacks: list[Callable[[Run], None]] = []
        self._changes: queue.SimpleQueue[Run | None] = queue.SimpleQueue()

    def add(self, callback: Callable[[Run], None]) -> None:
        """Call this of every change from now on."""
        with self._lock:
            self._callbacks.append(callback)
            if len(self._callbacks) == 1:
                threading.Thread(target=self._work, name="lora-lab-observer", daemon=True).start()

    def tell(self, run: Run) -> None:
        """Say that a run has changed; returns at once."""
        if self._callbacks:
            self._changes.put(run)

    def close(self) -> None:
        """Tell what is left, then no more."""
        self._changes.put(None)

    def _work(self) -> None:
        while (run := self._changes.get()) is not None:
            for callback in self._callbacks:
                try:
                    callback(run)
                except Exception as error:
                    log.broke(run.id, error)
