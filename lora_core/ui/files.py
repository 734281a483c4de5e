"""Files made for a visitor at a click: in a folder that nobody can guess, and not for long."""

from __future__ import annotations

import shutil
import tempfile
import threading
import time
from pathlib import Path

from gradio.utils import get_upload_folder

KEPT_SECONDS = 600.0


class Downloads:
    """Folders inside Gradio's own place for files, so that it serves them and makes no copy."""

    def __init__(self, seconds: float = KEPT_SECONDS) -> None:
        self.seconds = seconds
        self._made: list[tuple[float, Path]] = []
        self._lock = threading.Lock()

    def folder(self) -> Path:
        """A new, empty folder; older ones whose time is over are deleted."""
        self.sweep()
        place = Path(get_upload_folder()).resolve()
        place.mkdir(parents=True, exist_ok=True)
        folder = Path(tempfile.mkdtemp(prefix="take-", dir=place))
        with self._lock:
            self._made.append((time.monotonic(), folder))
        return folder

    def sweep(self) -> None:
        """Delete what is older than `seconds`."""
        oldest = time.monotonic() - self.seconds
        with self._lock:
            old = [folder for made, folder in self._made if made < oldest]
            self._made = [(made, folder) for made, folder in self._made if made >= oldest]
        for folder in old:
            shutil.rmtree(folder, ignore_errors=True)
