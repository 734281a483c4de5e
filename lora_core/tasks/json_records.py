"""JSON in the shapes that programs write tables in, as rows of text.

One object a line, a list of objects or of rows, pandas' five forms, objects by their keys, texts by
their label, an object that holds the list, objects with objects inside (`data.text`). Lists of one
element are that element; of several texts in one record each is a row.
"""

from __future__ import annotations

import contextlib
import json
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from lora_core.config import MAX_CLASSES
from lora_core.tasks.binary_program import (
    RawTable,
    SheetError,
    cell_text,
    cells_of,
    check_columns,
    check_rows,
)
from lora_core.tasks.header import LABEL_NAMES, TEXT_NAMES, TEXTS_NAMES

_DEPTH = 3  # objects around a list that is looked for


def read_json(text: str, *, part: str | None = None, max_rows: int, max_columns: int) -> RawTable:
    """The records of a JSON text; of several lists inside, `part` or the longest.

    Raises `SheetError`.
    """
    values = list(_values(text, max_rows))
    numbers = [line for line, _ in values]
    found = _Found([value for _, value in values])
    place = "Line"
    if len(values) == 1:
        found = _records(found.items[0], part)
        numbers, place = list(range(1, len(found.items) + 1)), "Item"
    try:
        return _raw_table(found, numbers, place, max_rows, max_columns)
    except SheetError as error:
        raise SheetError(str(error), found.parts, found.part) from error


@dataclass
class _Found:
    """Values that are rows; where several lists were there, their names and the one taken."""

    items: list[Any]
    parts: tuple[str, ...] = ()
    part: str | None = None
    remarks: tuple[str, ...] = ()


def _raw_table(
    found: _Found, numbers: list[int], place: str, max_rows: int, max_columns: int
) -> RawTable:
    items, key = found.items, _texts_together(found.items)
    remarks = list(found.remarks)
    if key is not None:
        items, numbers = _spread(items, numbers, key)
        remarks.append(f"Each of several texts in '{key[:30]}' was taken as a row of its own.")
    check_rows(len(items), max_rows)
    raw = RawTable([], numbers, remarks=remarks, parts=found.parts, part=found.part)
    listed = bool(items) and all(isinstance(item, list) for item in items)
    if listed and any(isinstance(value, dict) for item in items[:50] for value in item):
        # such as [text, {"cats": …}] of spaCy
        items = [{f"column {i}": value for i, value in enumerate(item, 1)} for item in items]
    elif listed:
        raw.rows = [[cell_text(value) for value in item] for item in items]
        return raw
    columns: dict[str, int] = {}
    for number, item in zip(numbers, items, strict=True):
        if not isinstance(item, dict):
            at = f"{place} {number:,}" + ("" if place == "Line" else " of the list")
            raise SheetError(
                f'{at} is not an object with named values: {{"text": "…", "label": "…"}}.'
            )
        cells = cells_of(item, columns)
        check_columns(len(columns), max_columns)
        raw.rows.append(cells)
    width = len(columns)
    raw.rows = [row + [""] * (width - len(row)) for row in raw.rows]
    raw.columns = list(columns)
    return raw


def _texts_together(items: Sequence[Any]) -> str | None:
    """The key under which records hold lists of texts, such as the patterns of an intent."""
    records = [item for item in items if isinstance(item, dict)]
    for key in dict.fromkeys(key for record in records[:1000] for key in record):
        if key.casefold() not in TEXTS_NAMES:
            continue
        values = [record[key] for record in records if key in record]
        texts = all(isinstance(v, list) and all(isinstance(t, str) for t in v) for v in values)
        if texts and any(len(value) > 1 for value in values):
            return key
    return None


def _spread(items: list[Any], numbers: list[int], key: str) -> tuple[list[Any], list[int]]:
    """A record for each of the texts under `key`; one without any stays as it is."""
    spread: list[Any] = []
    spread_numbers = []
    for item, number in zip(items, numbers, strict=True):
        texts = item.get(key) if isinstance(item, dict) else None
        several = [{**item, key: text} for text in texts] if texts else [item]
        spread += several
        spread_numbers += [number] * len(several)
    return spread, spread_numbers


def _values(text: str, max_rows: int) -> Iterator[tuple[int, Any]]:
    """Each value of the text and the line it begins on: one, or one after another."""
    decoder = json.JSONDecoder()
    place, line, count = 0, 1, 0
    several_lines = False  # has a value
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
            lines_of_one = count > 1 and not several_lines  # the value ought to end where it begins
            if text.find("\n", place, at) >= 0 and text[place] in "{[" and not lines_of_one:
                at_line = line + text.count("\n", place, at)
            else:
                at_line = line
            raise SheetError(_broken(text, at_line, count, at)) from error
        several_lines = several_lines or text.find("\n", place, end) >= 0
        yield line, value
        count += 1
        check_rows(count, max_rows)
        line += text.count("\n", place, end)
        place = end


_BETWEEN = re.compile(r"[\s,]*")


def _broken(text: str, line: int, before: int, at: int) -> str:
    if re.match(r"\s*(?:\[\s*)?\{\s*'", text):
        return (
            "The names in this file are in single quotes, as Python prints them; JSON has double "
            "ones. Write it with Python's json.dump."
        )
    if re.search(r",\s*$", text[max(0, at - 100) : at]) and text[at : at + 1] in "]}":
        return f"Line {line:,} is not valid JSON: before its bracket there is a comma too many."
    if not before and text.lstrip()[:1] == "[":
        return f"The file is not valid JSON: line {line:,} breaks its rules. Is it cut off?"
    return (
        f"Line {line:,} is not valid JSON. JSON Lines needs one whole object on each line, such as "
        '{"text": "…", "label": "…"}.'
    )


def _records(value: Any, part: str | None) -> _Found:
    """The rows inside a single value."""
    if isinstance(value, str):  # JSON that was written as JSON once more
        with contextlib.suppress(ValueError, RecursionError):
            inner = json.loads(value)
            return _records(inner, part) if isinstance(inner, dict | list) else _Found([value])
    if isinstance(value, list):
        return _Found(value)
    if not isinstance(value, dict):
        return _Found([value])
    if part is None:
        whole = _of_pandas(value) or _of_records(value) or _of_texts(value)
        if whole is not None:
            return _Found(whole)
        labelled = _of_labels(value)
        if labelled is not None:
            return _Found(labelled, remarks=(_LABELLED,))
    inside = list(_lists(value, "", _DEPTH))
    lists = {name: rows for name, rows, _ in inside}
    if not lists:
        return _Found([value])
    names = tuple(lists) if len(lists) > 1 else ()
    if part is not None and part not in lists:
        shown = ", ".join(lists)[:150]
        raise SheetError(f"This JSON has no list '{part[:40]}'. It has: {shown}.", names)
    if part is None and names and _named_by_label(lists):
        joined = [{**item, "label": name} for name, items in lists.items() for item in items]
        return _Found(joined, names, None, (_LABELLED,))
    longest = max(lists, key=lambda name: len(lists[name]))
    chosen = part or next((name for name in lists if name.split(".")[-1] == "train"), longest)
    remarks = tuple(_LABELLED for name, _, labelled in inside if labelled and name == chosen)
    if names:
        shown = ", ".join(names)[:100]
        remarks += (f"This JSON holds {len(names)} lists: {shown}. “{chosen}” was read.",)
    return _Found(lists[chosen], names, chosen, remarks)


_LABELS = [name for name in LABEL_NAMES if name != "spam"]  # which is a label, too
_LABELLED = "The name of each list was taken as the label of the texts in it."
_SPLITS = {"train", "training", "test", "testing", "validation", "valid", "val", "dev", "eval"}


def _named(keys: Sequence[str], names: Sequence[str]) -> bool:
    return any(key.strip().casefold() in names for key in keys)


def _of_labels(value: dict[str, Any]) -> list[Any] | None:
    """Records of texts under their label: {"spam": ["…", "…"], "ham": ["…"]}."""
    lists = {name: inner for name, inner in value.items() if isinstance(inner, list)}
    others = [name for name in value if name not in lists]
    if not 2 <= len(lists) <= MAX_CLASSES or any(isinstance(value[name], dict) for name in others):
        return None
    if _named(others, TEXT_NAMES):
        return None  # a single record
    if _SPLITS & {name.casefold() for name in lists}:
        return None
    texts = [text for inner in lists.values() for text in inner]
    if not all(lists.values()) or not all(isinstance(text, str) for text in texts):
        return None
    if len({len(inner) for inner in lists.values()}) == 1 and (
        _named(list(lists), [*TEXT_NAMES, *_LABELS, "id", "index"])
        or any(len(set(inner)) < 0.9 * len(inner) for inner in lists.values())
    ):
        return None  # columns, rather, of which one holds what comes again as labels do
    if _named(list(lists), TEXT_NAMES) and _named(list(lists), _LABELS):
        return None  # of unequal length: broken
    return [{"text": text, "label": name} for name, inner in lists.items() for text in inner]


def _named_by_label(lists: dict[str, list[Any]]) -> bool:
    """Whether lists of records are called by the labels that the records themselves lack."""
    if len(lists) > MAX_CLASSES or _SPLITS & {name.split(".")[-1].casefold() for name in lists}:
        return False
    records = [item for items in lists.values() for item in items]
    if not all(isinstance(record, dict) for record in records):
        return False
    keys = [{key for item in items for key in item} for items in lists.values()]
    return all(_named(list(k), TEXT_NAMES) and not _named(list(k), LABEL_NAMES) for k in keys)


def _of_pandas(value: dict[str, Any]) -> list[Any] | None:
    """Records of what `DataFrame.to_json` and `to_dict` write, in each form but by index."""
    if isinstance(value.get("columns"), list) and isinstance(value.get("data"), list):
        names = [cell_text(name) for name in value["columns"]]
        rows = value["data"]
        if all(isinstance(row, list) and len(row) == len(names) for row in rows):
            return [dict(zip(names, row, strict=True)) for row in rows]  # split
    inner = list(value.values())
    if len(inner) > 1 and all(isinstance(column, list) for column in inner):
        flat = all(not isinstance(c, dict | list) for column in inner for c in column[:20])
        if flat and len({len(column) for column in inner}) == 1 and _of_labels(value) is None:
            return [dict(zip(value, row, strict=True)) for row in zip(*inner, strict=True)]
    if not inner or not all(isinstance(part, dict) and part for part in inner):
        return None
    keys = list(inner[0])
    if not all(_scalar(part) and list(part) == keys for part in inner):
        return None
    outside = _named(list(value), TEXT_NAMES) and _named(list(value), LABEL_NAMES)
    inside = _named(keys, TEXT_NAMES) and _named(keys, LABEL_NAMES)
    if outside or (len(inner) <= len(keys) and not inside):  # columns
        return [{name: value[name][key] for name in value} for key in keys]
    return None


def _of_texts(value: dict[str, Any]) -> list[Any] | None:
    """Records of labels under their texts: {"You won": "spam", "See you": "ham", …}."""
    labels = list(value.values())
    if len(labels) < 10 or not all(isinstance(label, str | int) for label in labels):
        return None
    few = 2 <= len(set(map(str, labels))) <= min(MAX_CLASSES, len(labels) / 3)
    return [{"text": text, "label": label} for text, label in value.items()] if few else None


def _scalar(record: dict[str, Any]) -> bool:
    return all(not isinstance(value, dict | list) for value in list(record.values())[:20])


def _of_records(value: dict[str, Any]) -> list[Any] | None:
    """Records under keys of their own, as databases and `DataFrame.to_json` by index write them."""
    inner = list(value.values())
    if len(inner) < 2 or not all(isinstance(record, dict) for record in inner):
        return None
    counts = Counter(key for record in inner for key in record)
    if any(len(text) > 1 for text in _lists_of_texts(inner)):
        return None  # columns inside, such as those of a split
    if any(key.casefold() in TEXTS_NAMES for key in counts) and not _named(
        list(counts), LABEL_NAMES
    ):
        return [{"label": name, **record} for name, record in value.items()]
    shared = [key for key, count in counts.items() if count > 0.5 * len(inner)]
    named = _named(list(counts), TEXT_NAMES) and _named(list(counts), LABEL_NAMES)
    numbered = all(key.isdigit() for key in value)
    alike = all(map(_scalar, inner)) and len(shared) > 1
    return inner if named or numbered or alike else None


def _lists_of_texts(records: list[dict[str, Any]]) -> Iterator[list[Any]]:
    """Lists under names of a single text."""
    for record in records:
        for key, inner in record.items():
            name = key.casefold()
            if isinstance(inner, list) and name in TEXT_NAMES and name not in TEXTS_NAMES:
                yield inner


def _lists(value: dict[str, Any], prefix: str, depth: int) -> Iterator[tuple[str, list[Any], bool]]:
    """Lists of objects inside an object, by their dotted names; whether a name became a label."""
    for key, inner in value.items():
        if isinstance(inner, list) and inner and all(isinstance(i, dict | list) for i in inner):
            yield prefix + key, inner, False
        elif isinstance(inner, dict) and depth:
            table, labelled = _inside(inner), _of_labels(inner)
            if table is not None:
                yield prefix + key, table, False
            elif labelled is not None:
                yield prefix + key, labelled, True
            else:
                yield from _lists(inner, f"{prefix}{key}.", depth - 1)


def _inside(value: dict[str, Any]) -> list[Any] | None:
    """The rows of an object inside another one, where its names say that it is a table."""
    inner = list(value.values())
    named = _named(list(value), TEXT_NAMES) and _named(list(value), LABEL_NAMES)
    if named and all(isinstance(column, list) for column in inner):
        return _of_pandas(value)
    records = [record for record in inner if isinstance(record, dict)]
    keys = {key for record in records for key in record}
    if len(records) == len(inner) and _named(list(keys), TEXT_NAMES):
        return _of_records(value)
    return None
