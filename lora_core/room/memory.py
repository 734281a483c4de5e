"""What a room is after a restart: one small file beside the runs, written after each change."""

from __future__ import annotations

import contextlib
import json
import os
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

from lora_core.serving import log

_FILE = "room.json"
_PAUSE = 0.3  # seconds in which changes are gathered


class Memory:
    """Writes what `picture()` gives, in a thread of its own, soon after each `changed()`."""

    def __init__(self, folder: Path | None, picture: Callable[[], dict[str, Any]]) -> None:
        self._path = folder / _FILE if folder is not None else None
        self._picture = picture
        self._changed, self._ended = threading.Event(), threading.Event()
        self._thread = threading.Thread(target=self._work, name="lora-lab-room", daemon=True)
        if self._path is not None:
            self._thread.start()

    def read(self) -> dict[str, Any] | None:
        """What was written last; None for nothing that can be read."""
        if self._path is None:
            return None
        with contextlib.suppress(OSError, ValueError):
            content = json.loads(self._path.read_text(encoding="utf-8"))
            return content if isinstance(content, dict) else None
        return None

    def changed(self) -> None:
        """Write soon."""
        self._changed.set()

    def close(self) -> None:
        """Write what is left."""
        self._ended.set()
        self._changed.set()
        if self._path is not None:
            self._thread.join(10)

    def _work(self) -> None:
        while True:
            self._changed.wait()
            self._ended.wait(_PAUSE)
            self._changed.clear()
            try:
                self._write(self._picture())
            except OSError:
                log.once("The room cannot be written to its folder; it goes on without.")
            if self._ended.is_set() and not self._changed.is_set():
                return

    def _write(self, picture: dict[str, Any]) -> None:
        assert self._path is not None
        draft = self._path.with_suffix(".draft")
        handle = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            json.dump(picture, file)
            file.flush()
            os.fsync(file.fileno())
        draft.replace(self._path)
