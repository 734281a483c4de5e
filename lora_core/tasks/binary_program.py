"""XLSX and Parquet as rows of text: the program that `binary_formats.read_sheet` starts.

It imports nothing of `lora_core`, so that it starts quickly. The readers of text formats share its
`RawTable`, its bounds and its way to write a cell.
"""

from __future__ import annotations

import bisect
import contextlib
import datetime
import io
import json
import os
import re
import sys
import zipfile
from collections import Counter
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

_MEMORY = 2_000_000_000  # bytes of address space, of which libraries reserve most and use little
_EXCEL_ROWS = 1_048_576  # the last row of a sheet, by the format
_ENTRIES = 2_000  # files in the archive that an XLSX is; ordinary ones have a dozen
DAMAGED = "This file is damaged, or is not really {kind}: it could not be read."


class SheetError(ValueError):
    """A file that cannot be used; the message is a sentence for the person who brought it.

    Not a `LabError`, which this program does not know: `file.read_table` makes it one. Where a file
    has several `parts`, such as sheets, `part` is the one that cannot be used.
    """

    def __init__(self, sentence: str, parts: tuple[str, ...] = (), part: str | None = None) -> None:
        super().__init__(sentence)
        self.parts, self.part = parts, part


@dataclass
class RawTable:
    """What a reader finds in a file, before anybody has said which row holds names."""

    rows: list[list[str]]
    numbers: list[int]  # of each row's line or row in the file, from 1
    columns: list[str] | None = None  # names, where the format has them
    remarks: list[str] = field(default_factory=list)
    separator: str | None = None  # of CSV
    parts: tuple[str, ...] = ()  # sheets of a workbook, lists of a JSON object: if several
    part: str | None = None  # the one that was read
    notes: dict[int, str] = field(default_factory=dict)  # column number -> why it is empty


def rows_of(
    path: Path,
    kind: str,
    max_rows: int,
    max_columns: int,
    max_characters: int,
    part: str | None = None,
) -> RawTable:
    """What the program answers. Raises `SheetError`."""
    bounds = _Bounds(max_rows, max_columns, max_characters)
    try:
        return _xlsx(path, bounds, part) if kind == "XLSX" else _parquet(path, bounds)
    except SheetError:
        raise
    except ImportError as error:
        raise SheetError(f"{kind} needs a library that is missing here. Save it as CSV.") from error
    except Exception as error:  # the libraries raise nearly anything for what is damaged
        raise SheetError(DAMAGED.format(kind=kind)) from error


@dataclass
class _Bounds:
    """Caps, checked while rows are read; some rows may be names: a few more than of data."""

    rows: int
    columns: int
    characters: int
    seen: int = 0

    def check(self, cells: list[str], count: int) -> None:
        self.seen += sum(map(len, cells))
        check_rows(count - 50, self.rows)
        if self.seen > self.characters:
            raise self.too_much()

    def too_much(self) -> SheetError:
        return SheetError(
            f"This table holds more than {self.characters:,} characters once unpacked; that is "
            "more than is taken. Keep the columns of texts and labels only."
        )


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
    if isinstance(value, list | tuple) and len(value) < 2:
        return cell_text(value[0]) if value else ""
    if isinstance(value, list | dict):
        return json.dumps(value, ensure_ascii=False, default=str)
    return str(value)


def flattened(
    record: dict[str, Any], prefix: str = "", depth: int = 6
) -> Iterator[tuple[str, str]]:
    """Name and text of each value of a record; of records inside it under dotted names.

    A list of one element is that element; a list of turns is one value a role; texts and pieces of
    text are joined; of several records inside, such as those of annotators, each value is listed,
    once where they agree.
    """
    for key, value in record.items():
        name = prefix + str(key)
        if isinstance(value, list) and len(value) == 1:
            value = value[0]
        if isinstance(value, list) and value:
            roles = dict(filter(None, map(_turn, value)))
            value = roles if len(roles) == len(value) else _joined(value)
        if isinstance(value, dict) and value and depth:
            yield from flattened(value, f"{name}.", depth - 1)
        else:
            yield name, cell_text(value)


def _joined(values: list[Any]) -> Any:
    """A list of pieces as one text; of records as one record of lists; another as it is."""
    if any(isinstance(value, str) for value in values):
        pieces = [value.get("text") if isinstance(value, dict) else value for value in values]
        texts = [piece for piece in pieces if isinstance(piece, str)]
        mixed = any(isinstance(value, dict) for value in values)
        return "".join(texts) if mixed and len(texts) == len(values) else values
    if not all(isinstance(value, dict) for value in values):
        return values
    together: dict[str, list[str]] = {}
    for value in values:
        for name, text in flattened(value, depth=3):
            together.setdefault(name, []).append(text)
    return {name: texts[0] if len(set(texts)) == 1 else texts for name, texts in together.items()}


def cells_of(record: dict[str, Any], columns: dict[str, int]) -> list[str]:
    """A record as a row; names that `columns` (name -> place) does not have yet are added to it."""
    cells = [""] * len(columns)
    for name, text in flattened(record):
        if name not in columns:
            columns[name] = len(columns)
            cells.append("")
        cells[columns[name]] = text
    return cells


def _turn(value: Any) -> tuple[str, Any] | None:
    """Role and content of a turn of a conversation, as several programs write it."""
    if not isinstance(value, dict):
        return None
    role = value.get("role", value.get("from"))
    content = next((value[key] for key in ("content", "value", "parts") if key in value), None)
    return (role, content) if isinstance(role, str) and content is not None else None


# Workbooks ---------------------------------------------------------------------------------


def _xlsx(path: Path, bounds: _Bounds, part: str | None) -> RawTable:
    with zipfile.ZipFile(path) as archive:
        entries = archive.infolist()
    if len(entries) > _ENTRIES or sum(e.file_size for e in entries) > 3 * bounds.characters:
        raise SheetError(
            "This XLSX file unpacks to far more than a table needs, so it was not opened. Save "
            "the one sheet as CSV."
        )
    # The format knows no others, and of bzip2 a few kilobytes come out as a gigabyte at once.
    if any(e.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED) for e in entries):
        raise SheetError(DAMAGED.format(kind="XLSX"))
    # 0.3 s, only for who brings an XLSX
    from openpyxl import load_workbook

    # opened here, as the library would go by the name of the file
    data = path.read_bytes()
    book = load_workbook(io.BytesIO(data), read_only=True, data_only=True, keep_links=False)
    if not book.worksheets:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            strict = b"purl.oclc.org/ooxml" in archive.read("xl/workbook.xml")
        raise SheetError(
            "This workbook is of a rare kind (Strict Open XML). Save it as an ordinary Excel "
            "workbook, or as CSV."
            if strict
            else "This workbook has no sheet with a table."
        )
    sheet, remarks = _sheet(book.worksheets, part)
    raw = RawTable([], [], remarks=remarks, part=sheet.title)
    raw.parts = _titles(book.worksheets)
    try:
        _read_sheet(data, sheet, raw, bounds)
    except SheetError as error:
        raise SheetError(str(error), raw.parts, raw.part) from error
    except Exception as error:
        raise SheetError(DAMAGED.format(kind="XLSX"), raw.parts, raw.part) from error
    return raw


def _titles(sheets: list[Any]) -> tuple[str, ...]:
    """The names of sheets that can be chosen among; of a single one none."""
    return tuple(sheet.title for sheet in sheets) if len(sheets) > 1 else ()


def _read_sheet(data: bytes, sheet: Any, raw: RawTable, bounds: _Bounds) -> None:
    """Add the rows of a sheet to `raw`."""
    source = _source(data, sheet)
    merged = _merged(source)
    # One column and row more than are taken, so that too many are noticed; a sheet's own word
    # about its size is not trusted.
    sheet.reset_dimensions()
    # Rows that only have a format are passed over, up to the last one that Excel itself can have.
    grid = sheet.iter_rows(max_row=_EXCEL_ROWS, max_col=bounds.columns + 1, values_only=True)
    filled = 0
    widest = 0
    for number, values in enumerate(grid, 1):
        if not merged and values.count(None) == len(values):
            continue
        cells = [_excel_text(value) for value in values]
        for first, column in merged.get(number, ()):
            if first < number and column <= len(cells) and not cells[column - 1]:
                cells[column - 1] = _top(raw, first, column)
                filled += bool(cells[column - 1])
        while cells and not cells[-1]:
            cells.pop()
        if not cells:
            continue
        raw.rows.append(cells)
        raw.numbers.append(number)
        widest = max(widest, len(cells))
        check_columns(widest, bounds.columns)
        bounds.check(cells, len(raw.rows))
    raw.rows = [cells + [""] * (widest - len(cells)) for cells in raw.rows]
    if filled:
        cells_were = "1 cell was" if filled == 1 else f"{filled:,} cells were"
        raw.remarks.append(f"{cells_were} filled from the merged cell above.")
    if b"<f" in source:
        raw.notes = _formulas_without_values(data, sheet.title, raw, bounds.columns)


def _sheet(sheets: list[Any], part: str | None) -> tuple[Any, list[str]]:
    """The sheet called `part`, or the first visible one that is a table; and which there are."""
    names = [sheet.title for sheet in sheets]
    if part is not None:
        if part not in names:
            shown = ", ".join(f"“{name[:40]}”" for name in names[:8])
            raise SheetError(
                f"This workbook has no sheet “{part[:40]}”. It has: {shown}.", _titles(sheets)
            )
        return sheets[names.index(part)], []
    visible = [sheet for sheet in sheets if sheet.sheet_state == "visible"] or sheets
    chosen = next((sheet for sheet in visible[:50] if _is_table(sheet)), None)
    if chosen is None:
        hidden = [sheet for sheet in sheets if sheet not in visible]
        chosen = next((sheet for sheet in hidden[:50] if _is_table(sheet)), visible[0])
    if len(sheets) == 1:
        return chosen, []
    which = "the first, " if chosen is sheets[0] else ""
    return chosen, [
        f"The workbook has {len(sheets)} sheets; {which}“{chosen.title[:60]}”, was read."
        if which
        else f"The workbook has {len(sheets)} sheets; “{chosen.title[:60]}” was read."
    ]


def _is_table(sheet: Any) -> bool:
    """Whether a sheet's first rows hold several of two cells and more."""
    rows = sheet.iter_rows(max_row=60, max_col=50, values_only=True)
    try:
        return sum(sum(value is not None for value in row) > 1 for row in rows) > 2
    except Exception:  # damaged, which is no reason not to read another one
        return False


def _source(data: bytes, sheet: Any) -> bytes:
    """The XML of a sheet."""
    # The library reads merged cells only of a workbook held in memory as a whole.
    name = str(getattr(sheet, "_worksheet_path", "")).lstrip("/")
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        return archive.read(name) if name in archive.namelist() else b""


def _merged(source: bytes) -> dict[int, list[tuple[int, int]]]:
    """For each row the merged cells that reach into it from above: first row, column."""
    reaching: dict[int, list[tuple[int, int]]] = {}
    size = 0
    for match in re.finditer(rb'<(?:\w+:)?mergeCell ref="([A-Z]{1,3})(\d+):[A-Z]+(\d+)"', source):
        first, last = int(match[2]), int(match[3])
        column = 0
        for letter in match[1]:
            column = 26 * column + letter - 64
        size += last - first
        if size > 200_000:
            break
        for row in range(first + 1, last + 1):
            reaching.setdefault(row, []).append((first, column))
    return reaching


def _top(raw: RawTable, row: int, column: int) -> str:
    """The text of a cell that was read before, by its row and column in the sheet."""
    place = bisect.bisect_left(raw.numbers, row)
    if place == len(raw.numbers) or raw.numbers[place] != row:
        return ""
    cells = raw.rows[place]
    return cells[column - 1] if column <= len(cells) else ""


def _excel_text(value: object) -> str:
    """A cell of a sheet as its reader sees it: TRUE; and _x000D_ undone, which is how the format
    writes a character that XML cannot hold."""
    text = cell_text(value).upper() if isinstance(value, bool) else cell_text(value)
    if "_x" in text:
        text = _ESCAPED.sub(lambda match: chr(int(match[1], 16)), text).replace("\r\n", "\n")
    return text


_ESCAPED = re.compile(r"_x([0-9A-Fa-f]{4})_")


def _formulas_without_values(
    data: bytes, title: str, raw: RawTable, columns: int
) -> dict[int, str]:
    """Columns whose formulas have no stored results, as programs write them before Excel has."""
    from openpyxl import load_workbook

    book = load_workbook(io.BytesIO(data), read_only=True, data_only=False, keep_links=False)
    sheet = next(s for s in book.worksheets if s.title == title)
    sheet.reset_dimensions()
    last = raw.numbers[-1] if raw.numbers else 1
    read = dict(zip(raw.numbers, raw.rows, strict=True))
    without: Counter[int] = Counter()
    grid = sheet.iter_rows(max_row=max(last, 1000), max_col=columns, values_only=True)
    for number, values in enumerate(grid, 1):
        cells = read.get(number, [])
        for column, value in enumerate(values):
            formula = isinstance(value, str) and value.startswith("=")
            if formula or type(value).__name__ == "ArrayFormula":
                without[column] += column >= len(cells) or not cells[column]
    return {
        column: f"{count:,} of its cells hold a formula whose result is not stored in the file: "
        "open it in Excel or LibreOffice, save it there, and bring it again."
        for column, count in without.items()
        if count
    }


# Parquet -----------------------------------------------------------------------------------


def _parquet(path: Path, bounds: _Bounds) -> RawTable:
    # 0.4 s, only for who brings a Parquet file
    import pyarrow as pa
    import pyarrow.parquet as pq

    pa.set_cpu_count(1)
    file = pq.ParquetFile(
        path, thrift_string_size_limit=10_000_000, thrift_container_size_limit=100_000
    )
    footer = file.metadata
    check_rows(footer.num_rows, bounds.rows)
    check_columns(len(file.schema_arrow.names), bounds.columns)
    groups = [footer.row_group(i) for i in range(footer.num_row_groups)]
    chunks = [g.column(i) for g in groups for i in range(footer.num_columns)]
    size = sum(chunk.total_uncompressed_size for chunk in chunks)
    # A million equal values of a list take a few bytes even here, and a character each as text.
    values_in_all = sum(chunk.num_values for chunk in chunks)
    if size > 4 * bounds.characters or values_in_all > bounds.characters:
        raise SheetError(
            f"This Parquet file unpacks to {size / 1e6:,.0f} MB; that is more than is taken. Keep "
            "the columns of texts and labels only."
        )
    classes = _class_names(file.schema_arrow.metadata)
    columns: dict[str, int] = {}
    raw = RawTable([], [])
    number = 0
    batch_rows = 500_000 * footer.num_rows // max(values_in_all, 1)  # fewer, where lists are long
    for batch in file.iter_batches(batch_size=min(max(batch_rows, 1), 64), use_threads=False):
        if batch.nbytes > 4 * bounds.characters:  # lists, before they become objects of Python
            raise bounds.too_much()
        names = [str(name) for name in batch.schema.names]
        lists = [_values(pa, column) for column in batch.columns]
        for values in zip(*lists, strict=True):
            number += 1
            record = {
                name: _named(value, classes[name]) if name in classes else value
                for name, value in zip(names, values, strict=True)
            }
            cells = cells_of(record, columns)
            check_columns(len(columns), bounds.columns)
            if any(cells):
                raw.rows.append(cells)
                raw.numbers.append(number)
                bounds.check(cells, len(raw.rows))
    width = len(columns)
    raw.rows = [cells + [""] * (width - len(cells)) for cells in raw.rows]
    raw.columns = list(columns) or [str(name) for name in file.schema_arrow.names]
    raw.remarks = [
        f"The numbers in '{name}' are shown by the names that the file gives them."
        for name in raw.columns
        if name in classes
    ]
    return raw


def _values(pa: Any, column: Any) -> list[object]:
    """The values of an Arrow array; dates and the like as the text that Arrow writes."""
    kind = column.type
    if pa.types.is_temporal(kind) or pa.types.is_decimal(kind):
        column = column.cast(pa.string())
    values: list[object] = column.to_pylist()
    return values


def _named(value: object, names: list[str]) -> object:
    """A numbered label by its name; -1 is the datasets library's word for no label."""
    if isinstance(value, list):
        return [_named(one, names) for one in value]
    if isinstance(value, int):
        if value == -1:
            return None
        return names[value] if 0 <= value < len(names) else value
    return value


def _class_names(metadata: dict[bytes, bytes] | None) -> dict[str, list[str]]:
    """Names of numbered labels, where a file of the Hugging Face datasets library has them."""
    names = {}
    with contextlib.suppress(ValueError, TypeError, AttributeError, KeyError):
        features = json.loads((metadata or {})[b"huggingface"])["info"]["features"]
        for column, feature in features.items():
            inner = feature[0] if isinstance(feature, list) and feature else feature
            if "feature" in inner and isinstance(inner["feature"], dict):  # a list of such
                inner = inner["feature"]
            class_names = inner.get("names")
            if inner.get("_type") == "ClassLabel" and isinstance(class_names, list):
                names[column] = [str(name) for name in class_names]
    return names


def main(arguments: list[str]) -> int:
    """Write the answer for `path kind max_rows max_columns max_characters part` as JSON."""
    with contextlib.suppress(ImportError, ValueError, OSError):  # not everywhere
        import resource

        resource.setrlimit(resource.RLIMIT_AS, (_MEMORY, _MEMORY))
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    with contextlib.suppress(AttributeError, OSError):  # not on Windows
        os.nice(10)  # whoever classifies meanwhile goes first
    path, kind, rows, columns, characters, part = arguments
    bounds = int(rows), int(columns), int(characters)
    try:
        answer: dict[str, Any] = asdict(rows_of(Path(path), kind, *bounds, json.loads(part)))
    except SheetError as error:
        answer = {"error": str(error), "parts": error.parts, "part": error.part}
    sys.stdout.buffer.write(json.dumps(answer).encode("ascii"))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
