"""Files made for a visitor at a click: in a folder that nobody can guess, few, and not for long."""

from __future__ import annotations

import contextlib
import shutil
import tempfile
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from gradio.utils import get_upload_folder

from lora_core.limits import MEGABYTE, RunError
from lora_core.ui.text.catalogue import say

KEPT_SECONDS = 600.0
OF_ONE = 4  # files of one visitor, or of one run; a model has 30 MB and is made in a second
IN_ALL_MB = 1000


@dataclass(frozen=True)
class _Made:
    folder: Path
    owner: str
    when: float  # monotonic

    def bytes(self) -> int:
        return sum(path.stat().st_size for path in self.folder.glob("*") if path.is_file())


class Downloads:
    """Folders inside Gradio's own place for files, so that it serves them and makes no copy."""

    def __init__(self, seconds: float = KEPT_SECONDS) -> None:
        self.seconds = seconds
        self._made: list[_Made] = []  # oldest first
        self._in_work: set[Path] = set()  # nobody deletes what is being written
        self._lock = threading.RLock()

    def folder(self, owner: str) -> Path:
        """A new, empty folder. What is too old goes, and the oldest where there is too much."""
        place = Path(get_upload_folder()).resolve()
        place.mkdir(parents=True, exist_ok=True)
        with self._lock:
            of_one = [made for made in self._done() if made.owner == owner]
            self._forget(of_one[: max(0, len(of_one) - OF_ONE + 1)])
        self.sweep()
        folder = Path(tempfile.mkdtemp(prefix="made-", dir=place))
        with self._lock:
            self._made.append(_Made(folder, owner, time.monotonic()))
        return folder

    @contextlib.contextmanager
    def making(self, owner: str) -> Iterator[Path]:
        """A new folder that goes again at once if what is made in it fails: half a file would keep
        a full disk full. Raises `RunError` where the owner has `OF_ONE` of them in work."""
        with self._lock:
            owners = [made.owner for made in self._made if made.folder in self._in_work]
            if owners.count(owner) >= OF_ONE:
                raise RunError(say("take.in_work"))
            folder = self.folder(owner)
            self._in_work.add(folder)
        try:
            yield folder
        except BaseException:
            with self._lock:
                self._forget([made for made in self._made if made.folder == folder])
            raise
        finally:
            self._in_work.discard(folder)

    def sweep(self) -> None:
        """Delete what is older than `seconds`, and the oldest of more than `IN_ALL_MB`."""
        oldest = time.monotonic() - self.seconds
        with self._lock:
            self._forget([made for made in self._done() if made.when < oldest])
            size = sum(made.bytes() for made in self._made)
            for made in self._done():
                if size <= IN_ALL_MB * MEGABYTE:
                    break
                size -= made.bytes()
                self._forget([made])

    def _done(self) -> list[_Made]:
        return [made for made in self._made if made.folder not in self._in_work]

    def _forget(self, some: list[_Made]) -> None:
        for made in some:
            self._made.remove(made)
            shutil.rmtree(made.folder, ignore_errors=True)
