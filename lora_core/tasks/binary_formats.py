"""XLSX and Parquet as rows of text, read in a process of its own.

Both are archives that can unpack to thousands of times their size, and Parquet is read by compiled
code. So `read_sheet` starts this file as a program: bounded in time and, on Linux, in memory, and
whatever becomes of it, the server goes on. It imports nothing of `lora_core`, so that it starts
quickly.
"""

from __future__ import annotations

import contextlib
import datetime
import io
import json
import os
import subprocess
import sys
import threading
import zipfile
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

SECONDS = 40.0  # for one file; ordinary ones take about one
_MEMORY = 2_000_000_000  # bytes of address space, of which libraries reserve most and use little
_EXCEL_ROWS = 1_048_576  # the last row of a sheet, by the format
_ENTRIES = 2_000  # files in the archive that an XLSX is; ordinary ones have a dozen
_AT_ONCE = threading.BoundedSemaphore(2)  # such programs, whoever asks
DAMAGED = "This file is damaged, or is not really {kind}: it could not be read."


class SheetError(ValueError):
    """A file that cannot be used; the message is a sentence for the person who brought it."""


def read_sheet(
    path: Path, kind: str, *, max_rows: int, max_columns: int, max_characters: int
) -> tuple[list[str], list[list[str]], list[str]]:
    """Columns, rows and remarks of an "XLSX" or "Parquet" file. Raises `SheetError`.

    `max_characters` bounds all cells together.
    """
    limits = [str(max_rows), str(max_columns), str(max_characters)]
    # -P: this file's folder must not come before the standard library on the path
    command = [sys.executable, "-P", __file__, str(path), kind, *limits]
    environment = {**os.environ, "ARROW_DEFAULT_MEMORY_POOL": "system", "OMP_NUM_THREADS": "1"}
    try:
        with _AT_ONCE:
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
    try:
        answer = json.loads(done.stdout)
    except ValueError as error:  # it was killed, or crashed, or ran out of memory
        raise SheetError(DAMAGED.format(kind=kind)) from error
    if "error" in answer:
        raise SheetError(answer["error"])
    return answer["columns"], answer["rows"], answer["remarks"]


def rows_of(
    path: Path, kind: str, max_rows: int, max_columns: int, max_characters: int
) -> dict[str, Any]:
    """What the program answers: columns, rows, remarks. Raises `SheetError`."""
    reader = {"XLSX": _xlsx, "Parquet": _parquet}[kind]
    try:
        columns, found, remarks = reader(path, max_rows, max_columns, max_characters)
        rows: list[list[str]] = []
        characters = 0
        for row in found:
            values = list(row)
            if values.count(None) == len(values):
                continue
            cells = [cell_text(value) for value in values]
            if not any(cells):
                continue
            rows.append(cells)
            characters += sum(map(len, cells))
            check_rows(len(rows), max_rows)
            if characters > max_characters:
                raise SheetError(
                    f"This table holds more than {max_characters:,} characters once unpacked; "
                    "that is more than is taken. Keep the columns of texts and labels only."
                )
    except SheetError:
        raise
    except ImportError as error:
        raise SheetError(f"{kind} needs a library that is missing here. Save it as CSV.") from error
    except Exception as error:  # the libraries raise nearly anything for what is damaged
        raise SheetError(DAMAGED.format(kind=kind)) from error
    return {"columns": columns, "rows": rows, "remarks": remarks}


def check_rows(rows: int, most: int) -> None:
    """Raise `SheetError` for more rows than are taken."""
    if rows > most:
        raise SheetError(f"This table has more than {most:,} rows, the most that is taken.")


def check_columns(columns: int, most: int) -> None:
    """Raise `SheetError` for more columns than are taken."""
    if columns > most:
        raise SheetError(
            f"This table has {columns:,} columns; at most {most:,} are taken. Two are needed: one "
            "with texts, one with labels."
        )


def cell_text(value: object) -> str:
    """A cell as text: 3.0 as 3, true, 2024-05-01, nothing for an empty one."""
    if value is None or value != value:  # not a number
        return ""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, float):
        return str(int(value)) if value.is_integer() and abs(value) < 1e15 else repr(value)
    if isinstance(value, datetime.datetime):
        return str(value.date() if value.time() == datetime.time() else value)
    if isinstance(value, bytes):
        return value.decode("utf-8", "replace")
    if isinstance(value, list | dict):
        return json.dumps(value, ensure_ascii=False, default=str)
    return str(value)


Found = tuple[list[str], Iterable[Iterable[object]], list[str]]


def _xlsx(path: Path, max_rows: int, max_columns: int, max_characters: int) -> Found:
    with zipfile.ZipFile(path) as archive:
        entries = archive.infolist()
    if len(entries) > _ENTRIES or sum(e.file_size for e in entries) > 3 * max_characters:
        raise SheetError(
            "This XLSX file unpacks to far more than a table needs, so it was not opened. Save "
            "the one sheet as CSV."
        )
    from openpyxl import load_workbook

    # opened here, as the library would go by the name of the file
    opened = io.BytesIO(path.read_bytes())
    book = load_workbook(opened, read_only=True, data_only=True, keep_links=False)
    sheets = book.worksheets
    if not sheets:
        raise SheetError("This workbook has no sheet with a table.")
    remarks = []
    if len(sheets) > 1:
        remarks.append(
            f"The workbook has {len(sheets)} sheets; the first, “{sheets[0].title[:60]}”, was read."
        )
    # One column and row more than are taken, so that too many are noticed; a sheet's own word
    # about its size is not trusted.
    sheets[0].reset_dimensions()
    # Rows that only have a format are passed over, up to the last one that Excel itself can have.
    grid = sheets[0].iter_rows(max_row=_EXCEL_ROWS, max_col=max_columns + 1, values_only=True)
    rows = iter(grid)
    header: list[str] = []
    for row in rows:
        header = [cell_text(value) for value in row]
        while header and not header[-1]:
            header.pop()
        if header:
            break
    check_columns(len(header), max_columns)
    return header, (row[:max_columns] for row in rows), remarks


def _parquet(path: Path, max_rows: int, max_columns: int, max_characters: int) -> Found:
    import pyarrow as pa
    import pyarrow.parquet as pq

    pa.set_cpu_count(1)
    file = pq.ParquetFile(
        path, thrift_string_size_limit=10_000_000, thrift_container_size_limit=100_000
    )
    footer = file.metadata
    check_rows(footer.num_rows, max_rows)
    check_columns(len(file.schema_arrow.names), max_columns)
    groups = [footer.row_group(i) for i in range(footer.num_row_groups)]
    size = sum(
        g.column(i).total_uncompressed_size for g in groups for i in range(footer.num_columns)
    )
    if size > 4 * max_characters:
        raise SheetError(
            f"This Parquet file unpacks to {size / 1e6:,.0f} MB; that is more than is taken. Keep "
            "the columns of texts and labels only."
        )
    names = _class_names(file.schema_arrow.metadata)
    columns = [str(name) for name in file.schema_arrow.names]

    def rows() -> Iterator[list[object]]:
        for batch in file.iter_batches(batch_size=64, use_threads=False):
            lists = [_values(pa, column) for column in batch.columns]
            for row in zip(*lists, strict=True):
                yield [
                    names[name][value]
                    if name in names and isinstance(value, int) and 0 <= value < len(names[name])
                    else value
                    for name, value in zip(columns, row, strict=True)
                ]

    remarks = [
        f"The numbers in '{name}' are shown by the names that the file gives them."
        for name in columns
        if name in names
    ]
    return columns, rows(), remarks


def _values(pa: Any, column: Any) -> list[object]:
    """The values of an Arrow array; dates and the like as the text that Arrow writes."""
    kind = column.type
    if pa.types.is_temporal(kind) or pa.types.is_decimal(kind):
        column = column.cast(pa.string())
    values: list[object] = column.to_pylist()
    return values


def _class_names(metadata: dict[bytes, bytes] | None) -> dict[str, list[str]]:
    """Names of numbered labels, where a file of the Hugging Face datasets library has them."""
    names = {}
    with contextlib.suppress(ValueError, TypeError, AttributeError, KeyError):
        features = json.loads((metadata or {})[b"huggingface"])["info"]["features"]
        for column, feature in features.items():
            found = feature.get("names")
            if feature.get("_type") == "ClassLabel" and isinstance(found, list):
                names[column] = [str(name) for name in found]
    return names


def main(arguments: list[str]) -> int:
    """Write the answer for `path kind max_rows max_columns max_characters` as JSON."""
    with contextlib.suppress(ImportError, ValueError, OSError):  # not everywhere
        import resource

        resource.setrlimit(resource.RLIMIT_AS, (_MEMORY, _MEMORY))
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    path, kind, *limits = arguments
    try:
        answer = rows_of(Path(path), kind, *map(int, limits))
    except SheetError as error:
        answer = {"error": str(error)}
    sys.stdout.buffer.write(json.dumps(answer).encode("ascii"))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
