"""Files of weights in one folder: each is written under another name, flushed and renamed.

Their names are drawn here, and nothing that is called otherwise is ever touched: the folder may be
one that somebody had, and that is called `weights` by chance.
"""

from __future__ import annotations

import contextlib
import os
import re
import secrets
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from safetensors.torch import load_file, save_file
from torch import Tensor

_OURS = re.compile(r"[0-9a-f]{32}\.(safetensors|zip)(\.part)?")


@dataclass(frozen=True)
class Weights:
    """What a run has learnt after `step` steps, and how its file is written."""

    step: int
    suffix: str
    write: Callable[[Path], object]


def weights_of(step: int, tensors: Mapping[str, Tensor]) -> Weights:
    """Weights that `WeightFiles.read` gives back."""
    whole = {name: tensor.contiguous() for name, tensor in tensors.items()}
    return Weights(step, ".safetensors", lambda path: save_file(whole, path))


class WeightFiles:
    """The files of one folder. Raises what the disk and safetensors raise."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir(mode=0o700, exist_ok=True)

    def path(self, name: str) -> Path:
        """Where a file lies."""
        return self.folder / Path(str(name)).name  # a damaged row names what is no text

    @contextlib.contextmanager
    def new(self, weights: Weights | None) -> Iterator[str]:
        """The name of a new file with these weights, "" without any. What fails within, such as
        the row that was to name it, takes the file with it."""
        if weights is None:
            yield ""
            return
        path = self.path(secrets.token_hex(16) + weights.suffix)
        draft = self.path(path.name + ".part")
        try:
            weights.write(draft)
            _flush(draft)
            draft.replace(path)
            _flush(self.folder)
            yield path.name
        except BaseException:
            self.remove(draft.name)
            self.remove(path.name)
            raise

    def read(self, name: str) -> dict[str, Tensor]:
        """The tensors of a file."""
        return dict(load_file(self.path(name)))

    def size(self, name: str) -> int:
        """Bytes of a file."""
        return self.path(name).stat().st_size

    def remove(self, name: str) -> None:
        """Delete a file. One that cannot be deleted goes with the next `sweep`."""
        with contextlib.suppress(OSError, ValueError):
            self.path(name).unlink(missing_ok=True)

    def sweep(self, named: Collection[str]) -> None:
        """Delete what a killed process left half written, and what no row names."""
        for name in self._ours():
            if name not in named:
                self.remove(name)

    def set_aside(self, folder: Path) -> bool:
        """Move all files there; whether there were any."""
        names = self._ours()
        if names:
            folder.mkdir(mode=0o700, exist_ok=True)
        for name in names:
            self.path(name).rename(folder / name)
        return bool(names)

    def _ours(self) -> list[str]:
        return [
            path.name
            for path in self.folder.iterdir()
            if _OURS.fullmatch(path.name) and path.is_file()
        ]


def _flush(path: Path) -> None:
    """See to it that a file, or a folder's names, are on the disk."""
    if path.is_dir() and os.name == "nt":  # Windows opens no folder
        return
    handle = os.open(path, os.O_RDWR if path.is_file() else os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
