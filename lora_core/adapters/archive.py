"""Zip archives: folders out, and single files in, from people whom nobody knows.

Reading is bounded before anything is unpacked: number of members, bytes declared and bytes that
really come. A member is written under a name that we chose, never under its own, so that no name
can lead out of the folder. Nothing inside an archive is opened as an archive again.
"""

from __future__ import annotations

import re
import stat
import zipfile
import zlib
from collections.abc import Mapping
from pathlib import Path, PurePosixPath

from lora_core.adapters.files import WHOLE_MODEL
from lora_core.errors import LabError

MAX_MEMBERS = 200
MAX_DIRECTORY = 2**20  # bytes of an archive's table of contents
_CHUNK = 2**20
_PICKLES = (".bin", ".pt", ".pth", ".pkl", ".pickle", ".ckpt")
_END = b"PK\x05\x06"  # the record at an archive's end: where its table of contents lies
_CHECKPOINT = re.compile(r"(?:^|[/\\])checkpoint-\d+[/\\]")
_METHODS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)


class ArchiveError(LabError, ValueError):
    """An archive that cannot be used; the message says why."""


def pack_folder(folder: Path, path: Path) -> Path:
    """All files below `folder` as one zip at `path`, without machine-dependent details."""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive:
        for file in sorted(p for p in folder.rglob("*") if p.is_file()):
            info = zipfile.ZipInfo(file.relative_to(folder).as_posix())  # dated 1980: reproducible
            info.compress_type = zipfile.ZIP_DEFLATED
            info.external_attr = 0o644 << 16
            with file.open("rb") as source, archive.open(info, "w", force_zip64=False) as target:
                while chunk := source.read(_CHUNK):
                    target.write(chunk)
    return path


def unpack_archive(path: Path, folder: Path, wanted: Mapping[str, int]) -> list[str]:
    """Unpack the files `wanted` (name -> most bytes) into `folder`; the names that were there.

    They may lie in one folder of the archive, as when a folder was zipped. Other members are left
    alone. Raises `ArchiveError`, in words, for an archive that is damaged, encrypted, too large,
    ambiguous, or tries to lead elsewhere.
    """
    try:
        _check_directory(path)
        with zipfile.ZipFile(path) as archive:
            chosen = _choose(archive.infolist(), wanted)
            for name, info in chosen.items():
                _extract(archive, info, folder / name, wanted[name])
    except ArchiveError:
        raise
    # What zipfile raises for damaged archives, as its source and the fuzz have it.
    except (zipfile.BadZipFile, zlib.error, NotImplementedError, RuntimeError) as error:
        raise ArchiveError(
            "This zip archive is damaged or of a kind that cannot be read."
        ) from error
    except (OSError, EOFError, ValueError, UnicodeError, OverflowError) as error:
        raise ArchiveError("This file is not a zip archive that can be read.") from error
    return sorted(chosen)


def _check_directory(path: Path) -> None:
    """Refuse what is no zip, and one whose table of contents alone would fill the memory."""
    size = path.stat().st_size
    with path.open("rb") as file:
        file.seek(max(0, size - 2**16 - 22))
        tail = file.read()
    at = tail.rfind(_END)
    if at < 0 or len(tail) < at + 22:
        raise ArchiveError("This file is not a zip archive.")
    members = int.from_bytes(tail[at + 10 : at + 12], "little")
    directory = int.from_bytes(tail[at + 12 : at + 16], "little")
    if members > MAX_MEMBERS or directory > MAX_DIRECTORY:
        raise ArchiveError(
            f"This archive holds more than {MAX_MEMBERS} files: an adapter has two or three."
        )


def _choose(
    members: list[zipfile.ZipInfo], wanted: Mapping[str, int]
) -> dict[str, zipfile.ZipInfo]:
    if len(members) > MAX_MEMBERS:
        raise ArchiveError(
            f"This archive holds more than {MAX_MEMBERS} files: an adapter has two or three."
        )
    chosen: dict[str, zipfile.ZipInfo] = {}
    several: dict[str, list[zipfile.ZipInfo]] = {}
    seen: set[str] = set()
    for info in members:
        name = info.filename
        parts = PurePosixPath(name.replace("\\", "/")).parts
        if not parts or parts[0].startswith("/") or ".." in parts or ":" in name or "\0" in name:
            raise ArchiveError(f"The archive holds a file that leads elsewhere: {name[:80]!r}.")
        if stat.S_ISLNK(info.external_attr >> 16):
            raise ArchiveError(f"The archive holds a link ({name[:80]!r}); only files are taken.")
        if name in seen:
            raise ArchiveError(f"The archive holds {name[:80]!r} twice: which one is meant?")
        seen.add(name)
        last = parts[-1]
        if last in wanted and not info.is_dir() and not last.startswith("__MACOSX"):
            if "__MACOSX" in parts:
                continue
            several.setdefault(last, []).append(info)
    for last, infos in several.items():
        # A trainer's last state lies above the checkpoints on the way to it.
        final = [info for info in infos if not _CHECKPOINT.search(info.filename)] or infos
        if len(final) > 1:
            raise ArchiveError(f"The archive holds more than one {last}: which one is meant?")
        chosen[last] = final[0]
    if not chosen:
        raise ArchiveError(_what_is_missing(members, list(wanted)))
    if len({PurePosixPath(info.filename).parent for info in chosen.values()}) > 1:
        raise ArchiveError("The files of the adapter lie in different folders of the archive.")
    return chosen


def _what_is_missing(members: list[zipfile.ZipInfo], wanted: list[str]) -> str:
    names = [info.filename.lower() for info in members]
    folders = {name.rpartition("/")[0] for name in names if name.endswith(".safetensors")}
    if any(name in names for name in (f"{folder}/config.json".lstrip("/") for folder in folders)):
        return WHOLE_MODEL
    if any(name.endswith(_PICKLES) for name in names):
        return (
            "The archive holds pickled weights, which could run any program and are never opened. "
            "Save the adapter again as safetensors."
        )
    if any(name.endswith((".zip", ".tar", ".gz", ".7z")) for name in names):
        return "The archive holds another archive. Unpack that one first."
    return f"The archive holds neither of {' and '.join(wanted)}."


def _extract(archive: zipfile.ZipFile, info: zipfile.ZipInfo, target: Path, limit: int) -> None:
    """Copy one member, counting what really comes: a declared size is only a claim."""
    if info.flag_bits & 0x1:
        raise ArchiveError("The archive is encrypted.")
    if info.compress_type not in _METHODS:
        raise ArchiveError("The archive is compressed in an unusual way; use plain zip (deflate).")
    too_large = ArchiveError(f"{target.name} is larger than {limit / 2**20:.0f} MB unpacked.")
    if info.file_size > limit:
        raise too_large
    left = limit
    with archive.open(info) as source, target.open("wb") as file:
        while chunk := source.read(_CHUNK):
            left -= len(chunk)
            if left < 0:
                raise too_large
            file.write(chunk)
