"""Who follows runs live, and how many may: watching must not use up what answering needs.

A watcher is a place that an open page or a program holds while it follows runs. Each visitor, each
run and the server have a bound; where one is met, the oldest watcher of whoever has most gives way,
for a closed tab or a broken line leaves an old one behind.
"""

from __future__ import annotations

import threading
from collections import Counter

WATCHERS = 384  # in all
WATCHERS_OF_ONE = 8  # of one visitor's pages, or of one run
# After which a stream that nobody opened ends. A browser opens it when it has been told that its
# question was taken, and on a busy machine, or with its few lines to a server in use, it does so
# seconds later.
NEVER_READ_SECONDS = 30.0
UNREAD_SECONDS = 60.0  # and one that was read: a broken line may come back


class Watcher:
    """One place; `ended` is set when it has to be given up."""

    def __init__(self, owner: str, address: str) -> None:
        self.owner, self.address = owner, address
        self.ended = threading.Event()
        self._unread = 0.0
        self._was_read = False

    def gone(self, unread: bool, seconds: float) -> bool:
        """Whether to end: told to, or what was sent lay unread at each look for a while.

        `seconds` since the last look; only looks count, so a halted server ends nobody.
        """
        self._unread = self._unread + seconds if unread else 0.0
        self._was_read = self._was_read or not unread
        patience = UNREAD_SECONDS if self._was_read else NEVER_READ_SECONDS
        return self.ended.is_set() or self._unread > patience


class Watchers:
    """All watchers of the server. May be called from any thread."""

    def __init__(self, in_all: int = WATCHERS, of_one: int = WATCHERS_OF_ONE) -> None:
        self.in_all, self.of_one = in_all, of_one
        self._lock = threading.Lock()
        self._watchers: list[Watcher] = []  # oldest first

    def __len__(self) -> int:
        with self._lock:
            return len(self._watchers)

    def admit(self, owner: str, address: str = "") -> Watcher:
        """A place for one more watcher of this visitor or run; an older one may lose its own.

        In a full house it is one from the `address` that has the most: anybody can invent visitors.
        """
        watcher = Watcher(owner, address or owner)
        with self._lock:
            counts = Counter(w.owner for w in self._watchers)
            if counts[owner] >= self.of_one:
                self._end_oldest(owner)
            elif len(self._watchers) >= self.in_all:
                addresses = Counter(w.address for w in self._watchers)
                most = max(addresses, key=addresses.__getitem__)
                counts = Counter(w.owner for w in self._watchers if w.address == most)
                self._end_oldest(max(counts, key=counts.__getitem__))
            self._watchers.append(watcher)
        return watcher

    def leave(self, watcher: Watcher) -> None:
        """Give a place back; may be called again."""
        with self._lock:
            if watcher in self._watchers:
                self._watchers.remove(watcher)

    def _end_oldest(self, owner: str) -> None:
        oldest = next(w for w in self._watchers if w.owner == owner)
        oldest.ended.set()
        self._watchers.remove(oldest)
