"""Tables that the cases are made of, and the way that a page takes one."""

from __future__ import annotations

from pathlib import Path

import openpyxl

import lora_core as lc
from lora_core.tasks.file import Reading
from lora_core.tasks.own_table import inspect_table

PLACES = ["park", "lake", "bridge", "tower", "market", "museum", "harbour", "station", "garden"]


def rows(count: int = 60) -> list[tuple[str, str]]:
    """(text, label), all different."""
    kinds = (("calm", "good"), ("closed", "bad"))
    return [
        (f"the {PLACES[i % 9]} was {kinds[i % 2][0]} on visit {i}", kinds[i % 2][1])
        for i in range(count)
    ]


def lines(data, header: str = "text,label", separator: str = ",") -> str:
    return "\n".join([header, *(separator.join(row) for row in data)]) + "\n"


def write(folder: Path, name: str, content: bytes | str) -> Path:
    path = folder / name
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


def taken(path: Path, **reading) -> lc.Task:
    """As the page does: look, take the columns that it proposes."""
    report = inspect_table(path, reading=Reading(**reading))
    assert not report.problem, report.problem
    return lc.read_task(
        path, text_column=report.text_column, label_column=report.label_column, **reading
    )


def examples(task: lc.Task) -> set[tuple[str, str]]:
    parts = (task.train, task.validation, task.test)
    return {(e.text, task.labels[e.label]) for part in parts for e in part}


def workbook(**sheets) -> openpyxl.Workbook:
    book = openpyxl.Workbook()
    book.remove(book.active)
    for name, content in sheets.items():
        sheet = book.create_sheet(name)
        for row in content:
            sheet.append(row)
    return book


TABLE = [("text", "label"), *rows()]
