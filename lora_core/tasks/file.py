"""A file that somebody brought, as a table of text: columns, rows, remarks.

A file is untrusted: its size, rows and columns are bounded before it is parsed, nothing in it is
unpickled or evaluated, and whatever cannot be used raises `TaskError` with one sentence in the
words of the person who brought it. `delimited`, `json_records` and `binary_formats` know the
formats, `encodings` and `header` guess; what was guessed is in `Table.reading`, and a caller
who knows better says so in a `Reading` of their own. What columns mean is for `own_table` to say.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from lora_core.limits import Limits
from lora_core.tasks.binary_formats import BusyError, read_sheet
from lora_core.tasks.binary_program import RawTable, SheetError, check_columns, check_rows
from lora_core.tasks.delimited import read_csv
from lora_core.tasks.encodings import decode
from lora_core.tasks.header import TEXT_NAMES, Header, find_header, header_at
from lora_core.tasks.json_records import read_json
from lora_core.tasks.kinds import FORMAT_NAMES as FORMAT_NAMES
from lora_core.tasks.kinds import kind_by_content
from lora_core.tasks.one_hot import with_label
from lora_core.tasks.separators import shown
from lora_core.tasks.task import TaskError, normalise

_HEADERS = 30  # rows that are offered as the one of names


@dataclass(frozen=True)
class Reading:
    """How a file is read, where a person says it; None: it is found out.

    In `Table.reading` it is how the file was read.
    """

    header: int | None = None  # line or row of the names, from 1; 0: there are none
    sheet: str | None = None  # of a workbook; the list inside a JSON object
    encoding: str | None = None  # a name that Python knows, such as cp1250
    separator: str | None = None  # of CSV: one character or a few


@dataclass(frozen=True)
class Table:
    """A file's rows as text, before anybody has said what they mean."""

    name: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]  # each as long as `columns`; "" is an empty cell
    remarks: tuple[str, ...] = ()  # about reading it: encoding, sheets, rows left out
    kind: str = "CSV"  # or JSON, XLSX, Parquet
    reading: Reading = field(default_factory=Reading)  # as it was read
    sheets: tuple[str, ...] = ()  # that can be chosen among; empty: there is one
    tops: tuple[tuple[int, str], ...] = ()  # rows that may hold the names: number, how it begins
    notes: dict[str, str] = field(default_factory=dict)  # column -> why cells of it are empty


def read_table(
    path: str | Path,
    limits: Limits | None = None,
    reading: Reading | None = None,
    *,
    wait: bool = True,
) -> Table:
    """The rows of a file, by its content rather than its name. Raises `TaskError`, in words.

    Without `wait`: `TableBusyError` at once, when as many workbooks are being read as may be.
    """
    path = Path(path)
    limits = limits or default_limits()
    reading = reading or Reading()
    data = _bytes(path, limits)
    bounds = {"max_rows": limits.max_rows, "max_columns": limits.max_columns}
    try:
        kind = kind_by_content(path.suffix.lower(), data)
        if kind in ("XLSX", "Parquet"):
            most = limits.unpacked_mb * 1_000_000
            part = reading.sheet if kind == "XLSX" else None
            raw = read_sheet(path, kind, part=part, max_characters=most, wait=wait, **bounds)
            encoding = None
        else:
            text, encoding, remarks = decode(data, reading.encoding)
            if not text.strip():
                raise SheetError("This table has no columns: the file holds nothing but blanks.")
            if kind == "JSON":
                raw = read_json(text, part=reading.sheet, **bounds)
            else:
                raw = read_csv(text, separator=reading.separator, **bounds)
            raw.remarks = [*remarks, *raw.remarks]
        try:
            return _table(path.stem or "table", kind, raw, encoding, reading.header, limits)
        except (SheetError, TaskError) as error:
            raise SheetError(str(error), raw.parts, raw.part) from error
    except BusyError as error:
        raise TableBusyError(str(error)) from error
    except SheetError as error:
        if error.parts:
            raise PartError(str(error), kind, error.parts, error.part) from error
        raise TaskError(str(error)) from error


class PartError(TaskError):
    """One sheet of a workbook, or one list of a JSON object, cannot be used; there are others."""

    def __init__(
        self, sentence: str, kind: str, sheets: tuple[str, ...], sheet: str | None
    ) -> None:
        others = [name for name in sheets if name != sheet]
        if sheet is not None and others:
            what = "list" if kind == "JSON" else "sheet"
            shown = ", ".join(f"“{name[:40]}”" for name in others[:3])
            more = f" and {len(others) - 3} more" if len(others) > 3 else ""
            sentence += f" That is the {what} “{sheet[:40]}”; there is also {shown}{more}."
        super().__init__(sentence)
        self.sheets, self.sheet = sheets, sheet


class TableBusyError(TaskError):
    """As many workbooks are being read as may be at once: to be tried again in a moment."""


def _bytes(path: Path, limits: Limits) -> bytes:
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
    return data


def joined(name: str, tables: Sequence[Table], limits: Limits | None = None) -> Table:
    """Tables of the same columns, such as shards of one, as a single one. Raises `TaskError`.

    Its `reading` is what all of them were read with.
    """
    columns = list(dict.fromkeys(column for table in tables for column in table.columns))
    rows: list[tuple[str, ...]] = []
    for table in tables:
        places = [table.columns.index(c) if c in table.columns else None for c in columns]
        rows += [tuple("" if i is None else row[i] for i in places) for row in table.rows]
    try:
        check_rows(len(rows), (limits or default_limits()).max_rows)
        check_columns(len(columns), (limits or default_limits()).max_columns)
    except SheetError as error:
        raise TaskError(str(error)) from error
    remarks = tuple(dict.fromkeys(remark for table in tables for remark in table.remarks))
    ways = [vars(table.reading).items() for table in tables]
    return replace(
        tables[0],
        name=name,
        columns=tuple(columns),
        rows=tuple(rows),
        remarks=remarks,
        reading=Reading(**dict(way for way in ways[0] if all(way in others for others in ways))),
        sheets=tuple(dict.fromkeys(sheet for table in tables for sheet in table.sheets)),
    )


def kind_of(path: str | Path) -> str:
    """CSV, JSON, XLSX or Parquet; "" for what is none of them."""
    path = Path(path)
    try:
        return kind_by_content(path.suffix.lower(), path.read_bytes())
    except (OSError, TaskError):
        return ""


def default_limits() -> Limits:
    """The caps of a server that was started without options."""
    return Limits()


def _table(
    name: str, kind: str, raw: RawTable, encoding: str | None, header: int | None, limits: Limits
) -> Table:
    """Give every column a name of its own, and take away what stands above and below the names."""
    what = {"XLSX": "row", "JSON": "item"}.get(kind, "line")
    rows = [[_clean(cell) for cell in row] for row in raw.rows]
    remarks = list(raw.remarks)
    tops: tuple[tuple[int, str], ...] = ()
    if raw.columns is not None:
        names, header_row = [_clean(column) for column in raw.columns], Header(None, 0)
    elif not rows:
        raise TaskError("This table has no columns. One with texts and one with labels is needed.")
    else:
        tops = tuple(
            (number, _beginning(row))
            for number, row in zip(raw.numbers[:_HEADERS], rows, strict=False)
        )
        guessed = header is None
        header_row = (
            find_header(rows, raw.numbers, what) if guessed else header_at(header or 0, raw.numbers)
        )
        remarks += header_row.remarks
        names = [] if header_row.names is None else rows[header_row.names]
        rows, numbers = rows[header_row.data :], raw.numbers[header_row.data :]
        rows, numbers, more = _without_names(names, rows, numbers, what)
        remarks += more
        if kind == "CSV" and names:
            names, more = _with_row_names(names, rows)
            remarks += more
        rows, more = _as_wide(names, rows, numbers, raw.separator, what)
        remarks += more
    check_rows(len(rows), limits.max_rows)
    width = max([len(names), *map(len, rows)])
    check_columns(width, limits.max_columns)
    names = [normalise(cell)[:100] for cell in names] + [""] * (width - len(names))
    if raw.columns is None and not any(names) and not any(map(any, rows)):
        raise TaskError("This table has no columns. One with texts and one with labels is needed.")
    full = [row + [""] * (width - len(row)) for row in rows]
    filled = [i for i in range(width) if names[i] or any(row[i].strip() for row in full)]
    columns: list[str] = []
    for i in filled:
        column = unique = names[i] or f"column {i + 1}"
        again = 2
        while unique in columns:
            unique, again = f"{column} ({again})", again + 1
        columns.append(unique)
    if not columns:
        raise TaskError("This table has no columns. One with texts and one with labels is needed.")
    number = None  # of the names' row
    if raw.columns is None:
        number = 0 if header_row.names is None else raw.numbers[header_row.names]
    cells = [tuple(row[i] for i in filled) for row in full]
    named = {columns[filled.index(i)]: note for i, note in raw.notes.items() if i in filled}
    columns, cells, remark = with_label(columns, cells)
    remarks += [remark] if remark else []
    return Table(
        name,
        tuple(columns),
        tuple(cells),
        tuple(remarks),
        kind,
        Reading(number, raw.part, encoding, raw.separator),
        raw.parts,
        tops,
        named,
    )


def _without_names(
    names: list[str], rows: list[list[str]], numbers: list[int], what: str
) -> tuple[list[list[str]], list[int], list[str]]:
    """Rows without those that are the names again, as in files that were put one behind another."""
    sought = _stripped(names)
    if len(sought) < 2:
        return rows, numbers, []
    again = [i for i, row in enumerate(rows) if _stripped(row) == sought]
    if not again:
        return rows, numbers, []
    left_out = set(again)
    lines = _listed([numbers[i] for i in again])
    many = f"{what} {lines}" if len(again) == 1 else f"{what}s {lines}"
    return (
        [row for i, row in enumerate(rows) if i not in left_out],
        [number for i, number in enumerate(numbers) if i not in left_out],
        [f"The names of the columns come again ({many}) and were left out there."],
    )


def _stripped(row: Sequence[str]) -> list[str]:
    """The cells of a row without blanks around them, up to the last one that has a text."""
    cells = [cell.strip() for cell in row]
    while cells and not cells[-1]:
        cells.pop()
    return cells


def _listed(numbers: Sequence[int]) -> str:
    more = f" and {len(numbers) - 5:,} more" if len(numbers) > 5 else ""
    return ", ".join(f"{number:,}" for number in numbers[:5]) + more


def _with_row_names(names: list[str], rows: list[list[str]]) -> tuple[list[str], list[str]]:
    """One name too few, as R writes: the first column then numbers or names the rows."""
    widths = Counter(map(len, rows))
    if len(rows) < 2 or widths[len(names) + 1] < 0.95 * len(rows):
        return names, []
    last = [row[len(names)].strip() for row in rows if len(row) > len(names)]
    if last.count("") > 0.5 * len(last):  # a separator at the end of each line
        return names, []
    for place, name in enumerate(names, 1):  # texts do not come again and again
        cells = {row[place].strip() for row in rows if len(row) > place}
        if name.strip().casefold() in TEXT_NAMES and len(cells) < 0.5 * len(rows):
            return names, []
    first = [row[0].strip() for row in rows]
    counted = first == [str(i) for i in range(1, len(rows) + 1)]
    # unquoted commas in texts look alike, but leave a blank behind the comma
    spaced = sum(len(row) > 1 and row[1].startswith(" ") for row in rows)
    if not counted and (len(set(first)) < len(first) or spaced or max(map(len, first)) > 40):
        return names, []
    remark = "The names are one fewer than the cells: the first column was taken for names of rows."
    return ["", *names], [remark]


def _as_wide(
    names: list[str], rows: list[list[str]], numbers: list[int], separator: str | None, what: str
) -> tuple[list[list[str]], list[str]]:
    """Rows as wide as the names; wider ones are left out, with their lines. Raises `SheetError`."""
    if not names:
        width = max(Counter(map(len, rows)).items(), key=lambda c: (c[1], c[0]), default=(0, 0))[0]
    else:
        width = len(names)
    fitting: list[list[str]] = []
    wide: list[int] = []
    for row, number in zip(rows, numbers, strict=True):
        if any(cell.strip() for cell in row[width:]):
            wide.append(number)
        else:
            fitting.append(row[:width])
    sign = shown(separator or ",")
    if wide and separator is None:  # a sheet: what stands beside the table has no name
        return rows, []
    if len(wide) > len(fitting):
        raise SheetError(
            "Most rows have more cells than the first has names. Texts that contain "
            f"“{sign}” need quotation marks around them; or a column has no name."
        )
    if not wide:
        return fitting, []
    have = "1 row has" if len(wide) == 1 else f"{len(wide):,} rows have"
    was = "was" if len(wide) == 1 else "were"
    return fitting, [
        f"{have} more cells than there are columns and {was} left out ({what} {_listed(wide)}): a "
        f"text that contains “{sign}” needs quotation marks around it."
    ]


def _beginning(row: Sequence[str]) -> str:
    """How a row begins, to be told from others in a list."""
    return " · ".join(cell.strip()[:24] for cell in row if cell.strip())[:60]


def _clean(cell: str) -> str:
    """Without what no text may hold: zeros, and halves of characters, which no tokenizer takes."""
    if "\x00" in cell:
        cell = cell.replace("\x00", "")
    try:
        cell.encode("utf-8")
    except UnicodeEncodeError:
        cell = cell.encode("utf-8", "replace").decode("utf-8")
    return cell
