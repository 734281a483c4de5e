"""The folder of this process for files that pass through: nobody else's, and gone when it ends.

    <temporary folder>/lora-lab-<user>/<process>-<random>/files     uploads and downloads, of Gradio
                                                         /scratch   everything else

A process that was killed cannot clean up; the next one does it. Which folders are left over is told
by a lock that ends with its process. Nothing here imports Gradio, which must find the folder's name
in its environment when it is imported.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import shutil
import stat
import tempfile
import time
from pathlib import Path
from typing import IO

try:
    import fcntl
except ImportError:  # Windows has no flock: a lock there is a file that is open
    fcntl = None  # type: ignore[assignment]

_LOCK = "lock"
_YOUNG = 60.0  # seconds in which a folder without a lock belongs to a process that starts


class OwnFolder:
    """A name at once; the folder between `open` and `close`."""

    def __init__(self) -> None:
        self.remark = ""  # a sentence for the host, when the place that was wanted cannot be used
        self._lock: IO[str] | None = None
        wanted = _not_of_a_parent(os.environ.get("GRADIO_TEMP_DIR"))
        self._home = _home(Path(wanted)) if wanted else None
        if self._home is None:
            self._home = _home(Path(tempfile.gettempdir()))
            if wanted:
                self.remark = f"GRADIO_TEMP_DIR={wanted} cannot be written to; "
        if self._home is None:  # the usual name there is somebody else's
            self._home = Path(tempfile.mkdtemp(prefix="lora-lab-"))
        self.path = self._home / f"{os.getpid()}-{secrets.token_urlsafe(12)}"
        if self.remark:
            self.remark += f"files go to {self._home} instead."

    @property
    def files(self) -> Path:
        """Where uploads and downloads lie; what is here is given out to who knows its path."""
        return self.path / "files"

    def open(self) -> None:
        """Make the folder, and empty those of processes that are no more. Raises `OSError`."""
        assert self._home is not None
        for left in self._home.iterdir():
            if _is_left_over(left):
                shutil.rmtree(left, ignore_errors=True)
        self.path.mkdir(mode=0o700)
        self._lock = (self.path / _LOCK).open("w")
        if fcntl is not None:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        self.files.mkdir()
        scratch = self.path / "scratch"
        scratch.mkdir()
        tempfile.tempdir = str(scratch)  # of the whole process: nothing lies outside

    def close(self) -> None:
        """Remove the folder with everything in it."""
        if self._lock is not None:
            self._lock.close()
            self._lock = None
            tempfile.tempdir = None
        shutil.rmtree(self.path, ignore_errors=True)


def _not_of_a_parent(wanted: str | None) -> str | None:
    """What was wanted by a person: a process that imported this gives its children its own folder,
    which may go before they end."""
    if wanted and Path(wanted).name == "files" and _name() == Path(wanted).parent.parent.name:
        return str(Path(wanted).parents[2])
    return wanted


def _name() -> str:
    """Of this user's folder."""
    return f"lora-lab-{os.getuid() if hasattr(os, 'getuid') else 'user'}"


def _home(parent: Path) -> Path | None:
    """The folder of this user below `parent`, made if need be; None where that cannot be."""
    home = parent / _name()
    try:
        parent.mkdir(parents=True, exist_ok=True)
        with contextlib.suppress(FileExistsError):
            home.mkdir(mode=0o700)
        status = home.lstat()
    except OSError:
        return None
    mine = stat.S_ISDIR(status.st_mode) and os.access(home, os.W_OK | os.X_OK)
    if hasattr(os, "getuid"):  # in a folder that all share, others may have taken the name
        mine = mine and status.st_uid == os.getuid() and not status.st_mode & 0o077
    return home.resolve() if mine else None


def _is_left_over(folder: Path) -> bool:
    """Whether the process of a folder is no more."""
    lock = folder / _LOCK
    try:
        if not lock.exists():
            return time.time() - folder.lstat().st_mtime > _YOUNG
        if fcntl is None:
            lock.unlink()  # refused while it is open
            return True
        with lock.open("r+") as file:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return True
    except OSError:
        return False


FOLDER = OwnFolder()  # of this process
