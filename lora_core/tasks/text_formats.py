"""CSV, TSV and JSON Lines as rows of text, whatever their encoding, separator and line ends.

Bytes come in, columns and rows of strings go out; what they mean is for `tables` to say. Bounded
while reading: the number of rows and columns, and the size of a cell.
"""

from __future__ import annotations

import codecs
import csv
import io
import itertools
import json
import re
from collections import Counter
from collections.abc import Iterator

from lora_core.tasks.binary_formats import SheetError, cell_text, check_columns, check_rows

CELL = 131_072  # characters; the csv module's own bound
_SAMPLE = 100_000  # characters or bytes that guesses look at
_DELIMITERS = ("\t", ",", ";", "|")  # the first that fits
_BOMS = (
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF32_LE, "utf-32"),  # before UTF-16, whose mark is the first half of it
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)
# What people's tables are in when they are not Unicode; a free choice among a hundred errs more.
_ENCODINGS = ["cp1252", "cp1250", "cp1251", "cp1253", "cp1254", "cp932", "gb18030", "big5", "cp949"]
_BINARY = (
    "This file does not hold text. A table as CSV, TSV, JSON Lines, XLSX or Parquet is needed."
)

Rows = tuple[list[str], list[list[str]], list[str]]  # columns, rows, remarks


def decode(data: bytes) -> tuple[str, list[str]]:
    """The text of a file, and a remark where its encoding was guessed. Raises `SheetError`."""
    for mark, encoding in _BOMS:
        if data.startswith(mark):
            text = data.decode(encoding, "replace")
            return _checked(text), _replaced(text, encoding.removesuffix("-sig").upper())
    zeros = data[:_SAMPLE].count(0)
    if zeros:
        # UTF-16 without its mark: in most tables every other byte is zero
        odd = data[1:_SAMPLE:2].count(0) > zeros / 2
        if zeros < 0.2 * len(data[:_SAMPLE]):
            raise SheetError(_BINARY)
        text = data.decode("utf-16-le" if odd else "utf-16-be", "replace")
        return _checked(text), _replaced(text, "UTF-16")
    try:
        return _checked(data.decode("utf-8")), []
    except UnicodeDecodeError:
        pass
    text = data.decode("utf-8", "replace")
    wrong = text.count("\ufffd")
    beyond = sum(1 for character in text if character > "\x7f")
    if 4 * wrong < beyond:  # UTF-8 all the same, with a few broken letters
        return _checked(text), _replaced(text, "UTF-8")
    encoding = _guess(data)
    remark = (
        f"The file is not in UTF-8; it was read as {_NAMES.get(encoding, encoding)}. If letters "
        "look wrong in the preview, save it as UTF-8."
    )
    return _checked(data.decode(encoding, "replace")), [remark]


_NAMES = {
    "cp1252": "Windows-1252 (Western European)",
    "cp1250": "Windows-1250 (Central European)",
    "cp1251": "Windows-1251 (Cyrillic)",
    "cp1253": "Windows-1253 (Greek)",
    "cp1254": "Windows-1254 (Turkish)",
    "cp932": "Shift-JIS (Japanese)",
    "gb18030": "GB 18030 (Chinese)",
    "big5": "Big5 (Chinese)",
    "cp949": "EUC-KR (Korean)",
    "latin-1": "Latin-1",
}


def _guess(data: bytes) -> str:
    """The name of a codec for bytes that are not Unicode."""
    high = data.translate(None, bytes(range(128)))[:_SAMPLE]
    try:
        western = high.decode("cp1252")
    except UnicodeDecodeError:
        western = ""
    usual = sum(
        1 for c in western if c in "€‚„…‘’“”•–—™ £§©«°»´" or (c.isalpha() and c not in "ÐÞþð")
    )
    # few letters with accents among many plain ones: a Western European language
    if western and len(high) < 0.2 * len(data) and usual > 0.9 * len(western):
        return "cp1252"
    japanese = data.decode("cp932", "replace")[:_SAMPLE]
    beyond = [c for c in japanese if c > "\x7f"]
    if sum("\u3040" <= c <= "\u30ff" for c in beyond) > 0.2 * len(beyond):  # kana
        return "cp932"
    from charset_normalizer import from_bytes

    best = from_bytes(data[:_SAMPLE], cp_isolation=_ENCODINGS, threshold=0.4).best()
    return best.encoding if best else "latin-1"


def _replaced(text: str, encoding: str) -> list[str]:
    wrong = text.count("\ufffd")
    return [f"{wrong:,} letters are broken: they are not {encoding}."] if wrong else []


_CONTROL = re.compile(r"[\x00-\x08\x0e-\x1a\x1c-\x1f\x7f]")


def _checked(text: str) -> str:
    """The text itself; `SheetError` when it is full of what no text has."""
    text = text.removeprefix("\ufeff")
    sample = text[:_SAMPLE]
    if len(_CONTROL.findall(sample)) > 0.01 * len(sample) + 1:
        raise SheetError(_BINARY)
    return text


def read_json(text: str, *, max_rows: int, max_columns: int) -> Rows:
    """One JSON object a line, or one list of objects. Raises `SheetError`."""
    found = _json_list(text) if text.lstrip().startswith("[") else _json_lines(text)
    columns: dict[str, int] = {}
    rows: list[list[str]] = []
    for place, item in found:
        if not isinstance(item, dict):
            raise SheetError(
                f'{place} is not an object with named values: {{"text": "…", "label": "…"}}.'
            )
        for name in item:
            columns.setdefault(str(name), len(columns))
        check_columns(len(columns), max_columns)
        cells = [""] * len(columns)
        for name, value in item.items():
            cells[columns[name]] = cell_text(value)
        rows.append(cells)
        check_rows(len(rows), max_rows)
    width = len(columns)
    return list(columns), [row + [""] * (width - len(row)) for row in rows], []


def _json_list(text: str) -> Iterator[tuple[str, object]]:
    items = _parsed(text, "The file")
    assert isinstance(items, list)
    return ((f"Item {number:,} of the list", item) for number, item in enumerate(items, 1))


def _json_lines(text: str) -> Iterator[tuple[str, object]]:
    for number, line in enumerate(io.StringIO(text, newline=None), 1):
        if line.strip():
            yield f"Line {number:,}", _parsed(line, f"Line {number:,}")


def _parsed(text: str, place: str) -> object:
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise SheetError(
            f"{place} is not valid JSON. JSON Lines needs one whole object on each line, such as "
            '{"text": "…", "label": "…"}.'
        ) from error


def read_csv(text: str, *, max_rows: int, max_columns: int) -> Rows:
    """Values separated by commas, semicolons, tabs or bars, quoted or not. Raises `SheetError`."""
    text = text.replace("\x00", "")
    first = re.match(r"sep=(.)\r?\n", text)  # Excel's own way to name the separator
    delimiter = first[1] if first else _delimiter(text[:_SAMPLE])
    if first:
        text = text[first.end() :]
    unquoted = delimiter == "\t" and _unquoted(text)
    lines = _Lines(text)
    quoting = csv.QUOTE_NONE if unquoted else csv.QUOTE_MINIMAL
    reader = csv.reader(lines, delimiter=delimiter, quoting=quoting)  # type: ignore[arg-type]
    header: list[str] = []
    rows: list[list[str]] = []
    wide = 0
    begins = 1
    try:
        for row in reader:
            begins, begun = lines.number + 1, begins
            if not any(cell.strip() for cell in row):
                continue
            if not header:
                header = row
                check_columns(len(header), max_columns)
            elif len(row) > len(header) and any(row[len(header) :]):
                wide += 1
            else:
                rows.append(row[: len(header)] + [""] * (len(header) - len(row)))
                check_rows(len(rows), max_rows)
            if not unquoted and lines.ended and _never_closed(text, begun, lines):
                raise SheetError(_OPEN.format(begun))
    except csv.Error as error:
        if "field larger" in str(error):
            raise SheetError(
                f"Line {begins:,} begins a cell of more than {CELL:,} characters. Perhaps a "
                "quotation mark is never closed."
            ) from error
        raise SheetError(
            f"Line {begins:,} cannot be read as a row of a table ({error})."
        ) from error
    if wide > len(rows):
        raise SheetError(
            f"Most rows have more cells than the first has names. Texts that contain "
            f"“{_shown(delimiter)}” need quotation marks around them."
        )
    remarks = []
    if wide:
        remarks.append(
            f"{wide:,} rows have more cells than there are columns and were left out: a text that "
            f"contains “{_shown(delimiter)}” needs quotation marks around it."
        )
    return header, rows, remarks


_OPEN = (
    "A quotation mark that opens on line {:,} is never closed, so all that follows would be one "
    "text. Close it, or double it if it is meant."
)


class _Lines:
    """The lines of a text, counted as the csv reader takes them."""

    def __init__(self, text: str) -> None:
        self._lines = io.StringIO(text, newline="")
        self._next = next(self._lines, "")
        self.number = 0

    @property
    def ended(self) -> bool:
        return not self._next

    def __iter__(self) -> _Lines:
        return self

    def __next__(self) -> str:
        line = self._next
        if not line:
            raise StopIteration
        self._next = next(self._lines, "")
        self.number += 1
        return line


def _never_closed(text: str, begun: int, lines: _Lines) -> bool:
    """Whether the last row, from line `begun` to the end, spans lines with an odd quote in it."""
    if lines.number == begun:
        return False
    last = "".join(itertools.islice(io.StringIO(text, newline=""), begun - 1, None))
    return last.count('"') % 2 == 1


def _delimiter(sample: str) -> str:
    """The separator under which the first rows look most like a table with texts and labels."""

    def score(delimiter: str) -> tuple[bool, bool, bool]:
        reader = csv.reader(io.StringIO(sample, newline=""), delimiter=delimiter)
        try:
            rows = [row for row in itertools.islice(reader, 60) if row]
        except csv.Error:
            rows = []
        if not rows or len(rows[0]) < 2:
            return (False, False, False)
        names = {cell.strip().casefold() for cell in rows[0]}
        same = sum(len(row) == len(rows[0]) for row in rows) / len(rows)
        return ({"text", "label"} <= names, same > 0.9, True)

    return max(_DELIMITERS, key=score)


def _unquoted(text: str) -> bool:
    """Whether quotes in a file with tabs are part of the texts, as in the SMS Spam Collection.

    So it is when each line has as many tabs as the first, and some cell opens a quote without
    closing it.
    """
    lines = text.splitlines()
    tabs = Counter(line.count("\t") for line in lines if line.strip())
    if len(tabs) != 1:
        return False
    cells = (cell for line in lines for cell in line.split("\t") if cell.startswith('"'))
    return any(len(cell) < 2 or not cell.endswith('"') for cell in cells)


def _shown(delimiter: str) -> str:
    return "tab" if delimiter == "\t" else delimiter
