"""How a file is read, in four controls: each says what was found out, and offers the others.

A file that was dropped and a table of the Hub are read alike, so both corners show the same ones,
each only where that kind of file leaves something to choose.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import gradio as gr

from lora_core.tasks.encodings import ENCODINGS, encoding_name
from lora_core.tasks.file import PartError, Reading, kind_of
from lora_core.tasks.own_table import TableReport
from lora_core.tasks.separators import SEPARATORS
from lora_core.tasks.separators import shown as separator_shown
from lora_core.tasks.task import TaskError
from lora_core.ui.text.catalogue import say

FOUND_OUT = "(auto)"  # the choice of who leaves a guess as it is
WAYS = ("header", "sheet", "encoding", "separator")
_TYPED = ("header", "encoding", "separator")  # where another one than is offered may be typed


def reading_controls(corner: str) -> list[gr.Dropdown]:
    """The four, in `WAYS`' order, hidden as long as there is no file. `corner` begins their ids."""
    return [
        gr.Dropdown(
            [],
            label=say(f"own.{name}"),
            visible=False,
            elem_id=f"{corner}-{name}",
            min_width=110,
            allow_custom_value=name in _TYPED,
        )
        for name in WAYS
    ]


def reading_of(chosen: Sequence[str | None]) -> Reading:
    """What was chosen in the four controls as a way of reading; no choice leaves the guess.

    Raises `TaskError` for a row of names that is no number.
    """
    header, sheet, encoding, separator = [
        None if value in (None, "", FOUND_OUT) else value for value in [*chosen, *[None] * 4][:4]
    ]
    number = re.search(r"\d{1,9}", header) if header else None
    if header and not number:
        raise TaskError(say("own.no_number", value=header[:30]))
    return Reading(int(number[0]) if number else None, sheet, encoding, separator)


def unread(path: str | Path, error: Exception) -> TableReport:
    """What is known of a file that was refused. The way of reading may be what is wrong, so it
    stays to be changed."""
    nothing = TableReport("", (), 0, None, None, (), kind=kind_of(path))
    if isinstance(error, PartError):  # another sheet may be fit
        return replace(nothing, sheets=error.sheets, reading=Reading(sheet=error.sheet))
    return nothing


def reading_shown(report: TableReport | None, asked: Reading) -> list[gr.Dropdown]:
    """The four controls of a table that was read as `asked`; of none, they are hidden."""
    if report is None:
        return [gr.Dropdown(visible=False, value=None) for _ in WAYS]
    kind, read = report.kind, report.reading
    what = "own.row" if kind == "XLSX" else "own.line"
    tops = report.tops or tuple((number, "") for number in range(1, 6))
    headers = {"0": say("own.no_header")} | {
        str(number): say(what, number=number) + (f": {top}" if top else "") for number, top in tops
    }
    separators = {sign: f"{name} {sign}".strip() for sign, name in SEPARATORS.items()}
    for sign in (read.separator, asked.separator):
        if sign and sign not in separators:
            separators[sign] = separator_shown(sign)
    has_names = kind == "CSV" or kind == "XLSX" or (kind == "JSON" and bool(report.tops))
    pages = dict(ENCODINGS)
    for page in (read.encoding, asked.encoding):
        if page:
            pages.setdefault(page, encoding_name(page))
    sheets = {name: name for name in report.sheets or ([asked.sheet] if asked.sheet else [])}
    header = None if read.header is None else str(read.header)
    asked_header = None if asked.header is None else str(asked.header)
    for line in (header, asked_header):
        if line:
            headers.setdefault(line, say(what, number=line))
    return [
        _way(headers, header, asked_header, visible=has_names),
        _way(
            sheets,
            read.sheet,
            asked.sheet,
            visible=bool(sheets),
            label=say("own.list" if kind == "JSON" else "own.sheet"),
        ),
        _way(pages, read.encoding, asked.encoding, visible=kind in ("CSV", "JSON")),
        _way(separators, read.separator, asked.separator, visible=kind == "CSV"),
    ]


def _way(
    names: dict[str, str], detected: str | None, asked: str | None, *, visible: bool, **more: Any
) -> gr.Dropdown:
    """One such control; its first choice leaves it to the app, and says what it found."""
    said = re.split(r": | \(| [,;|]$", names.get(detected or "", detected or ""))[0]
    shown = say("own.found", value=said) if detected and asked is None else say("own.find_out")
    value = asked if asked in names else FOUND_OUT
    choices = [(shown, FOUND_OUT), *((name, key) for key, name in names.items())]
    return gr.Dropdown(choices=choices, value=value, visible=visible, **more)
