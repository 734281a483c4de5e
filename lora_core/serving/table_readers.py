"""Two threads for what is long: a visitor's table to read, many texts to classify; and a line in
front of them that has an end.

Reading a table takes seconds and up to a gigabyte, so few are read at once. Who waits for that
holds no thread of the server's, and who comes when the line is full is told so at once.
"""

from __future__ import annotations

import asyncio
import threading
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from lora_core.limits import RunError

AT_ONCE = 2
IN_LINE = 40  # waiting and being read: a class that drops its files in the same minute
OF_A_VISITOR = 3
OF_AN_ADDRESS = 30  # a class behind one router, or one who invents visitors
BUSY = "Many tables are being read at the moment. Try again in a few seconds."

Answer = TypeVar("Answer")


class TableReaders:
    """The readers of a server. `run` may be awaited from any event loop."""

    def __init__(self, name: str = "tables", busy: str = BUSY) -> None:
        """`busy`: the sentence for who finds the line full."""
        self._pool = ThreadPoolExecutor(AT_ONCE, f"lora-lab-{name}")
        self._busy = busy
        self._lock = threading.Lock()
        # Tables waiting or being read, by (visitor, address).
        self._line: Counter[tuple[str, str]] = Counter()

    async def run(self, visitor: str, read: Callable[[], Answer], address: str = "") -> Answer:
        """What `read` returns, called on a reader's thread. Raises what it raises.

        `RunError` at once when the line is full, or this visitor's or this address's part of it.
        """
        place = visitor, address or visitor
        with self._lock:
            own = sum(n for (who, _), n in self._line.items() if who == visitor)
            there = sum(n for (_, where), n in self._line.items() if where == place[1])
            if self._line.total() >= IN_LINE or own >= OF_A_VISITOR or there >= OF_AN_ADDRESS:
                raise RunError(self._busy)
            self._line[place] += 1

        def counted() -> Answer:
            try:
                return read()
            finally:
                self._left(place)

        future = self._pool.submit(counted)
        try:
            return await asyncio.wrap_future(future)
        except asyncio.CancelledError:  # the visitor went away
            if future.cancelled():
                self._left(place)
            raise

    def _left(self, place: tuple[str, str]) -> None:
        with self._lock:
            self._line[place] -= 1
            self._line += Counter()  # forgets who has none
