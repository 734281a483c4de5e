"""Files of the Hub that were fetched a moment ago, so that to read them another way fetches none.

Few, and not for long: a person looks at a table, changes how it is read, and trains on it.
"""

from __future__ import annotations

import contextlib
import tempfile
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from lora_core.limits import MEGABYTE

KEPT_SECONDS = 600.0
IN_ALL_MB = 200


@dataclass(eq=False)
class _Kept:
    folder: tempfile.TemporaryDirectory[str] = field(
        default_factory=lambda: tempfile.TemporaryDirectory(prefix="lora-lab-")
    )
    readers: int = 0
    when: float = 0.0  # monotonic, of the last use

    def bytes(self) -> int:
        files = Path(self.folder.name).rglob("*")
        return sum(path.stat().st_size for path in files if path.is_file())


class HubCache:
    """A folder for each commit of a repository; the longest unused go first."""

    def __init__(self, seconds: float = KEPT_SECONDS, megabytes: float = IN_ALL_MB) -> None:
        self._seconds, self._most = seconds, megabytes * MEGABYTE
        self._kept: dict[tuple[str, str], _Kept] = {}  # the longest unused first
        self._lock = threading.Lock()

    @contextlib.contextmanager
    def folder(self, name: str, commit: str) -> Iterator[str]:
        """Where the files of this commit lie, or are put; nobody removes them meanwhile."""
        key = name, commit
        with self._lock:
            kept = self._kept.pop(key, None)
            self._forget_old()
            kept = self._kept[key] = kept or _Kept()
            kept.readers += 1
        try:
            yield kept.folder.name
        except OSError:  # half a file would keep a full disk full
            with self._lock:
                if self._kept.get(key) is kept:
                    del self._kept[key]
            raise
        finally:
            with self._lock:
                kept.readers -= 1
                kept.when = time.monotonic()
                if not kept.readers and self._kept.get(key) is not kept:
                    kept.folder.cleanup()
                self._forget_many()

    def _forget_old(self) -> None:
        oldest = time.monotonic() - self._seconds
        self._forget([key for key, kept in self._unread() if kept.when <= oldest])

    def _forget_many(self) -> None:
        size = sum(kept.bytes() for kept in self._kept.values())
        for key, kept in self._unread():
            if size <= self._most:
                return
            size -= kept.bytes()
            self._forget([key])

    def _unread(self) -> list[tuple[tuple[str, str], _Kept]]:
        return [(key, kept) for key, kept in self._kept.items() if not kept.readers]

    def _forget(self, keys: list[tuple[str, str]]) -> None:
        for key in keys:
            self._kept.pop(key).folder.cleanup()
