"""A file that somebody brought, as a table of text: columns, rows, remarks.

A file is untrusted: its size, rows and columns are bounded before it is parsed, nothing in it is
unpickled or evaluated, and whatever cannot be used raises `TaskError` with one sentence in the
words of the person who brought it. `textfiles` and `sheets` know the formats; what the columns mean
is for `tables` to say.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from lora_core.limits import Limits
from lora_core.tasks.binary_formats import SheetError, read_sheet
from lora_core.tasks.task import TaskError
from lora_core.tasks.text_formats import decode, read_csv, read_json

FORMATS = (".csv", ".tsv", ".txt", ".jsonl", ".ndjson", ".json", ".xlsx", ".parquet")
FORMAT_NAMES = "CSV, TSV, JSON Lines, XLSX or Parquet"

# What people call such columns, most telling first.
TEXT_NAMES = [
    "text",
    "message",
    "sentence",
    "review",
    "content",
    "comment",
    "body",
    "tweet",
    "utterance",
    "query",
    "question",
    "sms",
    "description",
    "title",
    "prompt",
    "document",
    "v2",
    "input",
]
LABEL_NAMES = [
    "label",
    "class",
    "category",
    "target",
    "intent",
    "topic",
    "sentiment",
    "tag",
    "type",
    "spam",
    "v1",
    "y",
    "rating",
    "output",
]

# First bytes of what people bring by mistake.
_OTHER_FILES = (
    (b"%PDF", "This is a PDF, not a table."),
    (b"\x1f\x8b", "This file is packed (gzip). Unpack it first."),
    (b"BZh", "This file is packed (bzip2). Unpack it first."),
    (b"\xfd7zXZ", "This file is packed (xz). Unpack it first."),
    (b"7z\xbc\xaf", "This file is packed (7-Zip). Unpack it first."),
    (b"\x28\xb5\x2f\xfd", "This file is packed (Zstandard). Unpack it first."),
    (b"Rar!", "This file is packed (RAR). Unpack it first."),
    (
        b"\xd0\xcf\x11\xe0",
        "This is an old Excel file (XLS) or one with a password. Save it as XLSX without one.",
    ),
    (b"SQLite format 3", "This is an SQLite database. Export the table as CSV."),
    (b"\x89PNG", "This is a picture, not a table."),
    (b"\xff\xd8\xff", "This is a picture, not a table."),
    (b"GIF8", "This is a picture, not a table."),
    (b"{\\rtf", "This is a document (RTF), not a table."),
    (b"ARROW1", "This is an Arrow or Feather file. Save it as Parquet or CSV."),
    (b"\x93NUMPY", "This is a NumPy array. Save the table as CSV."),
    (b"ORC", "This is an ORC file. Save it as Parquet or CSV."),
    (b"Obj\x01", "This is an Avro file. Save it as Parquet or CSV."),
)
_PICKLE = re.compile(rb"\x80[\x02-\x05][\x95c(}\]]")


@dataclass(frozen=True)
class Table:
    """A file's rows as text, before anybody has said what they mean."""

    name: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]  # each as long as `columns`; "" is an empty cell
    remarks: tuple[str, ...] = ()  # about reading it: encoding, sheets, rows left out
    has_header: bool = True


def read_table(path: str | Path, limits: Limits | None = None) -> Table:
    """The rows of a file, by its content rather than its name. Raises `TaskError`, in words."""
    path = Path(path)
    limits = limits or default_limits()
    try:
        size = path.stat().st_size
        if size > limits.upload_mb * 1_000_000:
            raise TaskError(
                f"This file has {size / 1e6:,.1f} MB; at most {limits.upload_mb:,} MB are taken."
            )
        data = path.read_bytes()
    except FileNotFoundError as error:
        raise TaskError(f"There is no file '{path.name}'.") from error
    except OSError as error:
        raise TaskError(f"The file '{path.name}' cannot be opened.") from error
    if not data.strip():
        raise TaskError("This file is empty. A table with texts and labels is needed.")
    bounds = {"max_rows": limits.max_rows, "max_columns": limits.max_columns}
    try:
        kind = _kind(path.suffix.lower(), data)
        if kind in ("XLSX", "Parquet"):
            most = limits.unpacked_mb * 1_000_000
            header, rows, remarks = read_sheet(path, kind, max_characters=most, **bounds)
        else:
            text, remarks = decode(data)
            read = read_json if kind == "JSON" else read_csv
            header, rows, more = read(text, **bounds)
            remarks += more
    except SheetError as error:
        raise TaskError(str(error)) from error
    return _table(path.stem or "table", header, rows, remarks, named=kind in ("JSON", "Parquet"))


def default_limits() -> Limits:
    """The caps of a server that was started without options."""
    return Limits()


def _kind(suffix: str, data: bytes) -> str:
    """XLSX, Parquet, JSON or CSV, by the file's first bytes. Raises `TaskError` for others."""
    if data.startswith(b"PAR1"):
        return "Parquet"
    if data.startswith(b"PK"):
        if b"xl/" in data:
            return "XLSX"
        if b"opendocument" in data[:200]:
            raise TaskError("This is an OpenDocument file. Save it as XLSX or CSV.")
        if b"word/" in data:
            raise TaskError("This is a Word document, not a table.")
        raise TaskError(f"This is a packed archive (ZIP). Unpack it and bring the {FORMAT_NAMES}.")
    for first, sentence in _OTHER_FILES:
        if data.startswith(first):
            raise TaskError(f"{sentence} What can be read is {FORMAT_NAMES}.")
    if _PICKLE.match(data):
        raise TaskError("This is a Python pickle, which could run code: it is never opened here.")
    if suffix in (".xlsx", ".parquet"):
        raise TaskError(
            f"The file's name ends in {suffix}, but it is not {suffix[1:].upper()} inside."
        )
    start = data[:300].lstrip(b"\xef\xbb\xbf \t\r\n").lower()
    if start.startswith((b"<!doctype html", b"<html", b"<?xml")):
        raise TaskError(
            "This is a web page or XML, not a table. Download the file itself, as CSV for instance."
        )
    looks = bool(re.match(rb'\{\s*"|\[\s*\{|\{\s*\}', start))
    if suffix in (".jsonl", ".ndjson", ".json") or (looks and suffix not in (".csv", ".tsv")):
        return "JSON"
    return "JSON" if re.match(rb'\{\s*"[^"]*"\s*:', start) else "CSV"


def _table(
    name: str, header: Sequence[str], rows: Sequence[Sequence[str]], remarks: list[str], named: bool
) -> Table:
    """Give every column a name of its own, see whether the first row is one of names."""
    if not header:
        raise TaskError("This table has no columns. One with texts and one with labels is needed.")
    header = [_clean(cell).strip()[:100] for cell in header]
    cleaned = [tuple(_clean(cell) for cell in row) for row in rows]
    width = max([len(header), *map(len, cleaned)])
    cleaned = [row + ("",) * (width - len(row)) for row in cleaned]
    header += [""] * (width - len(header))
    has_header = named or not _looks_like_data(header, cleaned)
    if not has_header:
        cleaned.insert(0, tuple(header))
        header = [""] * width
        remarks = [
            *remarks,
            "The first row looks like data, not like names of columns: the columns were numbered.",
        ]
    filled = [i for i in range(width) if header[i] or any(row[i].strip() for row in cleaned)]
    columns: list[str] = []
    for i in filled:
        column = unique = header[i] or f"column {i + 1}"
        again = 2
        while unique in columns:
            unique, again = f"{column} ({again})", again + 1
        columns.append(unique)
    if len(filled) < width:
        cleaned = [tuple(row[i] for i in filled) for row in cleaned]
    return Table(name, tuple(columns), tuple(cleaned), tuple(remarks), has_header)


def _looks_like_data(header: Sequence[str], rows: Sequence[Sequence[str]]) -> bool:
    """Whether the first row has no names: a label that comes again below, or a whole sentence."""
    names = {cell.casefold() for cell in header}
    if names & {*TEXT_NAMES, *LABEL_NAMES} or len(header) < 2:
        return False
    if any(len(cell) > 60 or len(cell.split()) > 7 for cell in header):
        return True
    return any(
        cell and sum(row[i].strip() == cell for row in rows[:1000]) > max(1, len(rows[:1000]) / 200)
        for i, cell in enumerate(header)
    )


def _clean(cell: str) -> str:
    """Without what no text may hold: zeros, and halves of characters, which no tokenizer takes."""
    if "\x00" in cell:
        cell = cell.replace("\x00", "")
    try:
        cell.encode("utf-8")
    except UnicodeEncodeError:
        cell = cell.encode("utf-8", "replace").decode("utf-8")
    return cell
