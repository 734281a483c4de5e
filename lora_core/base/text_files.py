"""Small text files that others have written and perhaps edited: JSON of bounded size."""

from __future__ import annotations

import codecs
import json
from pathlib import Path
from typing import Any

_MARKS = (
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)


def read_text(path: Path, most_bytes: int) -> str:
    """UTF-8, or what a byte order mark says: editors of Windows put one in front.

    Raises `OSError`, or `ValueError` for a file that is too large or not UTF-8.
    """
    with path.open("rb") as file:
        raw = file.read(most_bytes + 1)
    if len(raw) > most_bytes:
        raise ValueError(f"it is larger than {most_bytes / 2**20:.0f} MB")
    encoding = next((name for mark, name in _MARKS if raw.startswith(mark)), "utf-8")
    return raw.decode(encoding)


def is_lfs_pointer(path: Path) -> bool:
    """Whether this is Git LFS's note of where the real file is: cloned without `git lfs pull`."""
    with path.open("rb") as file:
        return file.read(40).startswith(b"version https://git-lfs.github.com")


LFS_POINTER = (
    "is only a note of Git LFS about the file, not the file: fetch it with `git lfs pull`, or "
    "download it from its web page."
)


def read_json(path: Path, most_bytes: int) -> Any:
    """What a JSON file holds. Raises `OSError` or `ValueError`."""
    try:
        return json.loads(read_text(path, most_bytes))
    except RecursionError as error:
        raise ValueError("it is nested too deeply") from error
