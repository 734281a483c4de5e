"""JSON in the shapes that programs write tables in, as rows of text.

One object a line, a list of objects or of rows, pandas' five forms, an object that holds the list,
objects with objects inside (`data.text`). Lists of one element are that element.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any

from lora_core.tasks.binary_program import (
    RawTable,
    SheetError,
    cell_text,
    cells_of,
    check_columns,
    check_rows,
)

_DEPTH = 3  # objects around a list that is looked for


def read_json(text: str, *, part: str | None = None, max_rows: int, max_columns: int) -> RawTable:
    """The records of a JSON text; of several lists inside, `part` or the longest.

    Raises `SheetError`.
    """
    values = list(_values(text, max_rows))
    numbers = [line for line, _ in values]
    items = [value for _, value in values]
    parts: tuple[str, ...] = ()
    place = "Line"
    if len(items) == 1:
        items, parts, part = _records(items[0], part)
        numbers, place = list(range(1, len(items) + 1)), "Item"
    check_rows(len(items), max_rows)
    remarks = []
    if parts:
        remarks.append(
            f"This JSON holds {len(parts)} lists: {', '.join(parts)[:100]}. “{part}” was read."
        )
    if items and all(isinstance(item, list) for item in items):
        rows = [[cell_text(value) for value in item] for item in items]
        return RawTable(rows, numbers, remarks=remarks, parts=parts, part=part)
    columns: dict[str, int] = {}
    rows = []
    for number, item in zip(numbers, items, strict=True):
        if not isinstance(item, dict):
            where = f"{place} {number:,}" + ("" if place == "Line" else " of the list")
            raise SheetError(
                f'{where} is not an object with named values: {{"text": "…", "label": "…"}}.'
            )
        cells = cells_of(item, columns)
        check_columns(len(columns), max_columns)
        rows.append(cells)
    width = len(columns)
    full = [row + [""] * (width - len(row)) for row in rows]
    return RawTable(full, numbers, list(columns), remarks, parts=parts, part=part)


def _values(text: str, max_rows: int) -> Iterator[tuple[int, Any]]:
    """Each value of the text and the line it begins on: one, or one after another."""
    decoder = json.JSONDecoder()
    place, line, count = 0, 1, 0
    while True:
        match = _BETWEEN.match(text, place)
        assert match
        line += text.count("\n", place, match.end()) or 0
        place = match.end()
        if place >= len(text):
            return
        try:
            value, end = decoder.raw_decode(text, place)
        except (ValueError, RecursionError) as error:
            at = getattr(error, "pos", place)
            if text.find("\n", place, at) >= 0 and text[place] in "{[":
                at_line = line + text.count("\n", place, at)
            else:
                at_line = line
            raise SheetError(_broken(text, at_line, count)) from error
        yield line, value
        count += 1
        check_rows(count, max_rows)
        line += text.count("\n", place, end)
        place = end


_BETWEEN = re.compile(r"[\s,]*")


def _broken(text: str, line: int, before: int) -> str:
    if re.match(r"\s*(?:\[\s*)?\{\s*'", text):
        return (
            "The names in this file are in single quotes, as Python prints them; JSON has double "
            "ones. Write it with Python's json.dump."
        )
    if not before and text.lstrip()[:1] == "[":
        return f"The file is not valid JSON: line {line:,} breaks its rules. Is it cut off?"
    return (
        f"Line {line:,} is not valid JSON. JSON Lines needs one whole object on each line, such as "
        '{"text": "…", "label": "…"}.'
    )


def _records(value: Any, part: str | None) -> tuple[list[Any], tuple[str, ...], str | None]:
    """The rows inside a single value; the names of its lists where there are several."""
    if isinstance(value, list):
        return value, (), None
    if not isinstance(value, dict):
        return [value], (), None
    pandas = _of_pandas(value)
    if pandas is not None:
        return pandas, (), None
    lists = dict(_lists(value, "", _DEPTH))
    if not lists:
        return [value], (), None
    if part is not None and part not in lists:
        raise SheetError(f"This JSON has no list '{part[:40]}'. It has: {', '.join(lists)[:150]}.")
    longest = max(lists, key=lambda name: len(lists[name]))
    chosen = part or next((name for name in lists if name.split(".")[-1] == "train"), longest)
    return lists[chosen], tuple(lists) if len(lists) > 1 else (), chosen


def _of_pandas(value: dict[str, Any]) -> list[Any] | None:
    """Records of what `DataFrame.to_json` and `to_dict` write, in each of their forms."""
    if isinstance(value.get("columns"), list) and isinstance(value.get("data"), list):
        names = [cell_text(name) for name in value["columns"]]
        rows = value["data"]
        if all(isinstance(row, list) and len(row) == len(names) for row in rows):
            return [dict(zip(names, row, strict=True)) for row in rows]  # split
    inner = list(value.values())
    if not inner:
        return None
    if len(inner) > 1 and all(isinstance(column, list) for column in inner):
        flat = all(not isinstance(c, dict | list) for column in inner for c in column[:20])
        if flat and len({len(column) for column in inner}) == 1:
            return [dict(zip(value, row, strict=True)) for row in zip(*inner, strict=True)]
    if not all(isinstance(part, dict) and part for part in inner):
        return None
    scalar = [not isinstance(c, dict | list) for part in inner for c in list(part.values())[:20]]
    if not all(scalar):
        return None
    keys = list(inner[0])
    if all(list(part) == keys for part in inner) and len(inner) <= len(keys):  # columns
        return [{name: value[name][key] for name in value} for key in keys]
    numbered = all(key.isdigit() for key in value)
    if numbered or all(set(part) <= {*keys} for part in inner):  # index
        return inner
    return None


def _lists(value: dict[str, Any], prefix: str, depth: int) -> Iterator[tuple[str, list[Any]]]:
    """Lists of objects inside an object, by their dotted names."""
    for key, inner in value.items():
        if isinstance(inner, list) and inner and all(isinstance(i, dict | list) for i in inner):
            yield prefix + key, inner
        elif isinstance(inner, dict) and depth:
            yield from _lists(inner, f"{prefix}{key}.", depth - 1)
