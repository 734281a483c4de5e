"""CSV, TSV and the like as rows of text: which separator, which way of quoting, and no row lost.

People's files break the rules: a quotation mark that is never closed, one written as backslash and
quote, a blank before the quoted cell. A row that breaks them is read in the way that gives it as
many cells as the others; what cannot be read so is counted, with its lines. Which row holds names
is for `header` to say.
"""

from __future__ import annotations

import csv
import io
import re
import sys
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from lora_core.tasks.binary_program import RawTable, SheetError, check_columns, check_rows
from lora_core.tasks.labelled_lines import labelled_lines
from lora_core.tasks.separators import (
    GUESSED,
    RARE,
    STANDS_FOR,
    checked_separator,
    several_signs,
    shown,
)

CELL = 2_000_000  # characters: a book
csv.field_size_limit(CELL)
_SAMPLE_LINES = 300
_LONG = 30  # lines of one cell that are worth a remark
_LONGEST = 500  # lines of one cell whose quotes are not as they should be
_EFFORT = 5_000_000  # characters looked at again because of such cells, in one file
_ALWAYS = 131_072  # that are looked at for one row all the same
_SHOWN = 5  # lines named in a remark


def read_csv(
    text: str, *, separator: str | None = None, max_rows: int, max_columns: int
) -> RawTable:
    """Rows of cells with the lines they begin on, under `separator` or the one that fits best.

    Raises `SheetError`.
    """
    text, named = _without_sep_line(text)
    first_line = 2 if named else 1
    lines = _lines(text)
    marked = labelled_lines(lines) if separator is None else None
    if marked:
        return marked
    lines, wrapped = _unwrapped(lines)
    delimiter = checked_separator(separator) if separator else named or _delimiter(lines)
    written = delimiter
    if len(delimiter) > 1:
        delimiter = next((sign for sign in STANDS_FOR if sign not in text), "")
        if not delimiter:
            raise SheetError(f"This file cannot be split at “{written}”: it is no table of texts.")
        lines = [line.replace(written, delimiter) for line in lines]
    records = _best(lines, delimiter)
    rows = [row for row in records.rows if any(cell.strip() for cell in row.cells)]
    drawn = [row for row in rows if _is_border(row.cells)] if "--" in text else []
    if drawn:
        rows = [row for row in rows if not _is_border(row.cells)]
    # Some rows may be names or notes: a few more than are taken as data.
    check_rows(len(rows) - 50, max_rows)
    check_columns(min(_width(rows), max((len(row.cells) for row in rows), default=0)), max_columns)
    long = next((row for row in rows if any(len(cell) > CELL for cell in row.cells)), None)
    if long:
        raise _too_long(long.begin + first_line)
    remarks = [_UNWRAPPED] if wrapped else []
    remarks += records.remarks
    if drawn:
        where = _on_lines([row.begin for row in drawn], first_line)
        remarks.append(f"{where} only a border is drawn: left out.")
    if records.literal:
        remarks.append(
            f"{_on_lines(records.literal, first_line)} a quotation mark was taken as part of the "
            "text: it opens or closes nothing."
        )
    if records.long:
        longest = sorted(records.long, key=lambda span: span[0] - span[1])[:_SHOWN]
        spans = [f"{begin + first_line:,} to {end + first_line:,}" for begin, end in longest]
        more = f" and {len(records.long) - _SHOWN:,} more" if len(records.long) > _SHOWN else ""
        one = len(records.long) == 1
        remarks.append(
            f"{'One cell goes' if one else 'Cells go'} on over several lines: {', '.join(spans)}"
            f"{more}. If those are rows of their own, a quotation mark is missing."
        )
    cells, numbers = [row.cells for row in rows], [row.begin + first_line for row in rows]
    if written != delimiter:  # one within quotation marks separated nothing
        cells = [[cell.replace(delimiter, written) for cell in row] for row in cells]
    if '="' in text:  # which makes Excel leave 007 as it is
        cells = [[_AS_TEXT.sub(r"\1", cell) for cell in row] for row in cells]
    return RawTable(cells, numbers, remarks=remarks, separator=written)


_AS_TEXT = re.compile(r'^="([^"]*)"$')
_BORDER = re.compile(r"[-=+:]{2,}")


def _is_border(cells: Sequence[str]) -> bool:
    """Whether a row only draws: the dashes of Markdown and of what databases print."""
    filled = [cell.strip() for cell in cells if cell.strip()]
    return all(_BORDER.fullmatch(cell) for cell in filled) and any("--" in c for c in filled)


def _lines(text: str) -> list[str]:
    """Lines with their ends; a few bare carriage returns among others end none."""
    returns = text.count("\r") - text.count("\r\n")
    if 0 < returns < 0.1 * text.count("\n"):
        return [line for line in re.split(r"(?<=\n)", text) if line]
    return list(io.StringIO(text, newline=""))


def _without_sep_line(text: str) -> tuple[str, str | None]:
    """Excel's own way to name the separator: a first line such as sep=; in quotes or not."""
    first = re.match(r'"?sep=(\\t|[^\r\n"])"?[,;\t|]*(?:\r\n|\n|\r)', text, re.IGNORECASE)
    if not first:
        return text, None
    return text[first.end() :], first[1].replace("\\t", "\t")


_UNWRAPPED = "Each line as a whole stands in quotation marks; they were taken off."


def _unwrapped(lines: list[str]) -> tuple[list[str], bool]:
    """Lines without the quotation marks that a program put around each of them as one cell.

    That of the names may have none.
    """
    filled = [line for line in lines if line.strip()]
    inner = [one for line in filled if (one := _inside_quotes(line)) is not None]
    if len(inner) < 2 or len(inner) < 0.9 * (len(filled) - 1):
        return lines, False
    for sign in GUESSED:
        widths = Counter(len(row.cells) for row in _records(inner[:_SAMPLE_LINES], sign).rows)
        width, count = widths.most_common(1)[0]
        if width > 1 and count > 0.9 * widths.total():
            break
    else:
        return lines, False
    inside = map(_inside_quotes, lines)
    return [
        line if one is None else one + "\n" for line, one in zip(lines, inside, strict=True)
    ], True


def _inside_quotes(line: str) -> str | None:
    """The text of a line that is a single cell in quotation marks."""
    line = line.strip()
    if len(line) < 2 or line[0] != '"' or line[-1] != '"':
        return None
    inner = line[1:-1]
    return None if '"' in inner.replace('""', "") else inner.replace('""', '"')


# Records ---------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Row:
    begin: int  # number of its first line, from 0
    end: int  # of its last one
    cells: list[str]


@dataclass
class _Reading:
    """Rows of a text under one way of quoting, and what was odd about them."""

    rows: list[_Row]
    remarks: list[str] = field(default_factory=list)
    literal: list[int] = field(default_factory=list)  # lines whose quotes were taken literally
    long: list[tuple[int, int]] = field(default_factory=list)  # lines of very long cells

    def oddities(self) -> int:
        """How many rows look wrong: another width, stray quotes, a blank before a quote."""
        width = _width(self.rows)
        wrong = sum(len(row.cells) > width or len(row.cells) < width > 1 for row in self.rows)
        stray = sum(
            any(_STRAY.search(cell) for cell in row.cells if '"' in cell) for row in self.rows
        )
        return wrong + stray + 2 * len(self.literal) + len(self.long)


_STRAY = re.compile(r'^\s+".*"\s*$|\\"|^".*"$', re.DOTALL)


def _best(lines: list[str], delimiter: str) -> _Reading:
    """The rows under the way of quoting that leaves least to wonder at; the usual one first."""
    if delimiter == "\t" and _unquoted(lines):
        return _Reading([_Row(i, i, _split(line, delimiter)) for i, line in enumerate(lines)])
    best = _quoted(lines, delimiter)
    opened = sum(_has_single(line.strip(), delimiter) for line in lines)
    if not opened:
        return _typographic(lines, delimiter, best)
    # Quoted by ' as databases do: read with both marks exchanged.
    other = _quoted([line.translate(_EXCHANGED) for line in lines], delimiter)
    least, odd = best.oddities(), other.oddities()
    filled = sum(bool(line.strip()) for line in lines)
    if odd > least or (odd == least and opened < 0.9 * filled):
        return best
    other.rows = [
        _Row(row.begin, row.end, [cell.translate(_EXCHANGED) for cell in row.cells])
        for row in other.rows
    ]
    other.remarks = ["Single quotation marks around cells were taken as CSV's double ones."]
    return other


_TYPOGRAPHIC = ("“”", "„“", "„”", "«»", "»«", "「」", "``")


def _typographic(lines: list[str], delimiter: str, best: _Reading) -> _Reading:
    """The rows where a word processor has made other marks of the quotation marks around cells."""
    if any('"' in line for line in lines) or not (least := best.oddities()):
        return best
    sign = re.escape(delimiter)
    for pair in _TYPOGRAPHIC:
        opening, closing = pair[0], pair[1]
        around = re.compile(rf"(?:^|(?<={sign}))[ ]*{opening}|{closing}[ ]*(?={sign}|[\r\n]|$)")
        if sum(bool(around.search(line)) for line in lines) < 2:
            continue
        other = _quoted([around.sub('"', line) for line in lines], delimiter)
        if other.oddities() < least:
            other.remarks.append(
                f"The marks {opening} and {closing} around cells were taken as CSV's own."
            )
            return other
    return best


_EXCHANGED = {ord('"'): "'", ord("'"): '"'}


def _has_single(line: str, delimiter: str) -> bool:
    """Whether a cell seems to be in single quotation marks."""
    opens = line.startswith("'") or f"{delimiter}'" in line or f"{delimiter} '" in line
    return opens and (line.endswith("'") or f"'{delimiter}" in line)


def _quoted(lines: list[str], delimiter: str) -> _Reading:
    """The rows under the best way of quoting by double quotation marks."""
    best = _records(lines, delimiter)
    least = best.oddities()
    if not least:
        return best
    if any(f'{delimiter} "' in line or f'" {delimiter}' in line for line in lines):
        other = _records(lines, delimiter, blanks=True)
        if other.oddities() < least:
            best, least = other, other.oddities()
    if any('\\"' in line for line in lines):
        # an odd number of backslashes before a quote: the last of them belongs to the quote
        text = [_BACKSLASHED.sub(_doubled, line) for line in lines]
        other = _records(text, delimiter)
        if other.oddities() < least:
            other.remarks.append('Quotation marks inside texts are written \\" in this file.')
            best, least = other, other.oddities()
    if any("\\" + delimiter in line for line in lines):
        escaped = _escaped(lines, delimiter)
        if escaped is not None and escaped.oddities() < least:
            best = escaped
    return best


def _escaped(lines: list[str], delimiter: str) -> _Reading | None:
    """The rows where a backslash makes the next sign, such as a separator, part of the text."""
    free = [sign for sign in STANDS_FOR if not any(sign in line for line in lines)]
    stands_for = dict(zip(["\\" + delimiter, '\\"', "\\\\"], free, strict=False))
    if len(stands_for) < 3:
        return None
    pair = re.compile(r"\\[^\r\n]")
    text = [pair.sub(lambda m: stands_for.get(m[0], m[0]), line) for line in lines]
    reading = _records(text, delimiter)
    meant = {ord(sign): written[1] for written, sign in stands_for.items()}
    reading.rows = [
        _Row(row.begin, row.end, [cell.translate(meant) for cell in row.cells])
        for row in reading.rows
    ]
    reading.remarks.append(
        f"Where a text contains “{shown(delimiter)}”, a backslash stands before it in this file."
    )
    return reading


_BACKSLASHED = re.compile(r'(\\+)"')


def _doubled(match: re.Match[str]) -> str:
    slashes = match[1]
    return slashes[:-1] + '""' if len(slashes) % 2 else match[0]


def _records(lines: list[str], delimiter: str, *, blanks: bool = False) -> _Reading:
    """Every row, by the rules of CSV; by the fewest exceptions where they are broken.

    `blanks` may stand between a separator and a quotation mark.
    """
    if not any('"' in line for line in lines):
        rows = [_Row(i, i, _split(line, delimiter)) for i, line in enumerate(lines)]
        return _Reading(rows)
    scan = _Scan(lines, delimiter, blanks)
    first = scan.run()
    several = any(row.end > row.begin for row in first.rows)
    if not several and not first.literal:
        return first
    # Once more, now that it is known how many cells a row has and which values come again.
    single = [row for row in first.rows if row.end == row.begin]
    width = _width(single or first.rows)
    again: dict[int, set[str]] = defaultdict(set)
    for place in range(width):
        values = Counter(row.cells[place].strip() for row in single if len(row.cells) == width)
        again[place] = {v for v, count in values.items() if v and count > 1 and len(v) <= 100}
    scan.width, scan.again = width, again
    return scan.run()


class _Scan:
    """One way through the lines of a file.

    `width` 0: nothing is known yet of what a row looks like. `again`: for each column the values
    that come more than once, such as labels.
    """

    def __init__(self, lines: list[str], delimiter: str, blanks: bool) -> None:
        self.lines, self.delimiter, self.blanks = lines, delimiter, blanks
        self.width = 0
        self.again: dict[int, set[str]] = {}
        self._effort = 0  # characters looked at for rows that break the rules

    def run(self) -> _Reading:
        """All rows, in order."""
        records = _Reading([])
        self._effort = 0
        i = 0
        while i < len(self.lines):
            line = self.lines[i]
            if '"' not in line:
                records.rows.append(_Row(i, i, _split(line, self.delimiter)))
                i += 1
                continue
            cells, used = self._strict(i)
            if cells is None or (used > 1 and self.width and self._swallowed(i, i + used)):
                cells, used, literal = self._lenient(i)
                if literal:
                    records.literal.append(i)
            if used > _LONG or (used > 1 and self._doubtful(i, i + used)):
                records.long.append((i, i + used - 1))
            records.rows.append(_Row(i, i + used - 1, cells))
            i += used
        return records

    def _strict(self, i: int) -> tuple[list[str] | None, int]:
        """The row that begins on line i by the rules, and its number of lines; None for none."""
        reader = csv.reader(
            self._from(i), delimiter=self.delimiter, strict=True, skipinitialspace=self.blanks
        )
        try:
            return next(reader, []), max(1, reader.line_num)
        except csv.Error as error:
            if "field larger" in str(error) and len(self.lines[i]) > CELL:
                raise _too_long(i + 1) from error
            self._effort += sum(map(len, self.lines[i : i + reader.line_num]))
            return None, 1

    def _from(self, i: int) -> Iterator[str]:
        """Lines from i on: as many as a cell may have, unless many rows were looked at in vain."""
        room = CELL if self._effort < _EFFORT else _ALWAYS
        while i < len(self.lines) and room > 0:
            yield self.lines[i]
            room -= len(self.lines[i])
            i += 1

    def _swallowed(self, begin: int, end: int) -> bool:
        """Whether a cell of several lines is rows that a stray quote swallowed.

        So it is where each of its lines alone has as many cells as a row, and all but the first
        hold a value that the same column has elsewhere; or the first and the last do in one column,
        and the others have nothing there, or something short.
        """
        rows = self._lines_alone(begin, end)
        if any(len(cells) != self.width for cells in rows):
            return False
        if all(self._has_known(cells) for cells in rows[1:]):
            return True
        return any(
            rows[0][place].strip() in known
            and rows[-1][place].strip() in known
            and all(len(cells[place]) <= 40 and cells[place][:1] != " " for cells in rows[1:-1])
            for place, known in self.again.items()
        )

    def _doubtful(self, begin: int, end: int) -> bool:
        """Whether a cell of several lines may be rows of their own: not said, but named."""
        if not self.width:
            return False
        rows = self._lines_alone(begin, end)
        fitting = [cells for cells in rows if len(cells) == self.width]
        return len(fitting) == len(rows) > 1 or sum(map(self._has_known, fitting)) > 1

    def _lines_alone(self, begin: int, end: int) -> list[list[str]]:
        return [self._loosely(line) for line in self.lines[begin:end] if line.strip()]

    def _has_known(self, cells: list[str]) -> bool:
        """Whether a row of the usual width holds a value that its column has elsewhere."""
        return any(cell.strip() in self.again[place] for place, cell in enumerate(cells))

    def _lenient(self, i: int) -> tuple[list[str], int, bool]:
        """A row whose quotes break the rules: cells, lines, whether a quote became text."""
        alone = self._loosely(self.lines[i])
        if not self.width or len(alone) == self.width:
            return alone, 1, _has_opening(alone)
        size = len(self.lines[i])
        for end in range(i + 2, min(len(self.lines), i + _LONGEST) + 1):
            # a proper cell of several lines with a quote inside that should have been doubled
            size += len(self.lines[end - 1])
            if size > CELL or self._effort > _EFFORT:
                break
            if '"' not in self.lines[end - 1]:
                continue
            self._effort += size
            whole = self._loosely("".join(self.lines[i:end]), self.width)
            if len(whole) == self.width and not _has_opening(whole):
                if self._swallowed(i, end):
                    break
                return whole, end - i, False
        literal = _split(self.lines[i], self.delimiter)
        return (literal if len(literal) == self.width else alone), 1, True

    def _loosely(self, line: str, most: int = sys.maxsize) -> list[str]:
        """Cells of a row in which only a quote before a separator, or at the end, closes a cell.

        Of more than `most` cells some are left out.
        """
        line = line.rstrip("\r\n")
        cells: list[str] = []
        start = 0
        closes = True  # there may be a quote ahead that closes a cell
        while len(cells) <= most:
            opening = start
            while self.blanks and line.startswith(" ", opening):
                opening += 1
            if closes and line.startswith('"', opening):
                end, after = self._closing(line, opening + 1)
                closes = end >= 0
                if closes:
                    cells.append(line[opening + 1 : end].replace('""', '"'))
                    if after >= len(line):
                        return cells
                    start = after + 1
                    continue
            end = line.find(self.delimiter, start)
            if end < 0:
                return [*cells, line[start:]]
            cells.append(line[start:end])
            start = end + 1
        return cells

    def _closing(self, line: str, start: int) -> tuple[int, int]:
        """Where a quoted cell ends: at a quote, not doubled, before a separator or the end.

        The place of the quote and that of the separator; -1 for none.
        """
        place = line.find('"', start)
        while place >= 0:
            after = place + 1
            while self.blanks and line.startswith(" ", after):
                after += 1
            if after == len(line) or line[after] == self.delimiter:
                return place, after
            place = line.find('"', place + (2 if line[place + 1] == '"' else 1))
        return -1, -1


def _has_opening(cells: list[str]) -> bool:
    """Whether a cell begins with a quote that closes nowhere before the cell's end."""
    return any(cell.lstrip().startswith('"') for cell in cells)


def _split(line: str, delimiter: str) -> list[str]:
    return line.rstrip("\r\n").split(delimiter)


def _too_long(line: int) -> SheetError:
    return SheetError(
        f"Line {line:,} begins a cell of more than {CELL:,} characters. Perhaps a quotation "
        "mark is never closed."
    )


# Shape -----------------------------------------------------------------------------------------


def _width(rows: Sequence[_Row]) -> int:
    """How many cells most rows have; blank lines do not count."""
    counts = Counter(len(row.cells) for row in rows if any(row.cells))
    return max(counts, key=lambda width: (counts[width], width), default=0)


def _delimiter(lines: list[str]) -> str:
    """The separator under which the first rows look most like a table with texts and labels."""
    sample = lines[:_SAMPLE_LINES]
    if _spaced(sample):
        return " "
    while len(sample) > 1 and sum(map(len, sample)) > 300_000:
        sample = sample[: len(sample) // 2]

    def score(delimiter: str, lines: list[str] = sample) -> tuple[bool, bool, float]:
        rows = [row for row in _records(lines, delimiter).rows if any(row.cells)]
        width = _width(rows)
        if width < 2:
            return (False, False, 0.0)
        named = any(
            {"text", "label"} <= {cell.strip(' "').casefold() for cell in row.cells}
            for row in rows[:30]
        )
        same = sum(len(row.cells) == width for row in rows) / len(rows)
        return (named, same > 0.9, round(same, 3))

    scores = {delimiter: score(delimiter) for delimiter in GUESSED}
    best = max(scores, key=lambda delimiter: scores[delimiter])
    if not any(scores[best][:2]):
        scores |= {sign: fits for sign in RARE if (fits := score(sign))[1]}
        best = max(scores, key=lambda delimiter: scores[delimiter])
    several = several_signs(sample)
    if several:  # it must do better than a single one, unless it is made of that
        alike = [line.replace(several, STANDS_FOR[0]) for line in sample]
        if score(STANDS_FOR[0], alike) > scores[best] or best in several:
            return several
    return best if any(scores[best]) else ","


_SPACED = re.compile(
    r"""(?=.*")(?:"(?:[^"\\]|\\.|"")*"|[^\s",;]+)(?:[ ](?:"(?:[^"\\]|\\.|"")*"|[^\s",;]+))+\s*"""
)


def _spaced(lines: list[str]) -> bool:
    """Whether cells have one blank between them and texts have quotes, as R writes tables."""
    filled = [line for line in lines if line.strip()]
    fitting = sum(bool(_SPACED.fullmatch(line)) for line in filled)
    return len(filled) > 1 and fitting >= 0.95 * len(filled)


def _unquoted(lines: list[str]) -> bool:
    """Whether quotes in a file with tabs are part of the texts, as in the SMS Spam Collection.

    So it is when each line has as many tabs as the first, and some cell opens a quote without
    closing it.
    """
    tabs = Counter(line.count("\t") for line in lines if line.strip())
    if len(tabs) != 1:
        return False
    cells = (c for line in lines for c in _split(line, "\t") if c.startswith('"'))
    return any(len(cell) < 2 or not cell.endswith('"') for cell in cells)


def _on_lines(numbers: list[int], first_line: int) -> str:
    shown = ", ".join(f"{number + first_line:,}" for number in numbers[:_SHOWN])
    if len(numbers) == 1:
        return f"On line {shown}"
    more = f" and {len(numbers) - _SHOWN:,} more" if len(numbers) > _SHOWN else ""
    return f"On lines {shown}{more}"
