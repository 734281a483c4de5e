"""XLSX and Parquet as rows of text, read in a process of its own.

Both are archives that can unpack to thousands of times their size, and Parquet is read by compiled
code. So `binary_program` is started as a program: bounded in time and, on Linux, in memory, and
whatever becomes of it, the server goes on.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from pathlib import Path

from lora_core.tasks import binary_program
from lora_core.tasks.binary_program import DAMAGED, RawTable, SheetError

SECONDS = 40.0  # for one file; ordinary ones take about one
PROGRAMS = threading.BoundedSemaphore(2)  # such programs, whoever asks


class BusyError(SheetError):
    """As many files are being read as may be at once, and the caller does not wait."""


def read_sheet(
    path: Path,
    kind: str,
    *,
    part: str | None = None,
    max_rows: int,
    max_columns: int,
    max_characters: int,
    wait: bool = True,
) -> RawTable:
    """The rows of an "XLSX" or "Parquet" file, of the sheet `part` or the first that is a table.

    `max_characters` bounds all cells together. Without `wait`: `BusyError` at once when two others
    are being read. Raises `SheetError`.
    """
    limits = [str(max_rows), str(max_columns), str(max_characters)]
    program = str(binary_program.__file__)
    # -P: its folder must not come before the standard library on the path
    command = [sys.executable, "-P", program, str(path), kind, *limits, json.dumps(part)]
    environment = {**os.environ, "ARROW_DEFAULT_MEMORY_POOL": "system", "OMP_NUM_THREADS": "1"}
    if not PROGRAMS.acquire(blocking=wait):
        raise BusyError(
            "Other tables are being read on this machine at the moment. Try again in a few seconds."
        )
    try:
        done = subprocess.run(
            command, capture_output=True, timeout=SECONDS, check=False, env=environment
        )
    except subprocess.TimeoutExpired as error:
        raise SheetError(
            f"Reading this {kind} file took longer than {SECONDS:.0f} seconds, so it was given "
            "up. Save it as CSV."
        ) from error
    except OSError as error:
        raise SheetError(f"{kind} files cannot be read on this machine. Save it as CSV.") from error
    finally:
        PROGRAMS.release()
    try:
        answer = json.loads(done.stdout)
    except ValueError as error:  # it was killed, or crashed, or ran out of memory
        raise SheetError(DAMAGED.format(kind=kind)) from error
    if "error" in answer:
        raise SheetError(answer["error"], tuple(answer["parts"]), answer["part"])
    notes = {int(column): note for column, note in answer.pop("notes").items()}
    return RawTable(**{**answer, "notes": notes, "parts": tuple(answer["parts"])})
