"""Readers of visitors' tables: few at once, a line with an end, and no thread that waits."""

from __future__ import annotations

import asyncio
import threading

import pytest

from lora_core.limits import RunError
from lora_core.serving.table_readers import (
    AT_ONCE,
    IN_LINE,
    OF_A_VISITOR,
    OF_AN_ADDRESS,
    TableReaders,
)
from lora_core.tasks import binary_formats
from lora_core.tasks.file import TableBusyError, read_table


def test_who_comes_when_the_line_is_full_is_told_at_once() -> None:
    readers, go = TableReaders(), threading.Event()
    reading: list[int] = []

    def read(number: int) -> int:
        reading.append(number)
        go.wait(60)
        return number

    async def rush() -> tuple[list[object], int]:
        asked = [
            asyncio.ensure_future(readers.run(f"visitor {n}", lambda n=n: read(n)))
            for n in range(3 * IN_LINE)
        ]
        done, waiting = await asyncio.wait(asked, return_when=asyncio.FIRST_COMPLETED)
        while len(done) < 2 * IN_LINE:
            more, waiting = await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
            done |= more
        held = len(reading)
        go.set()
        return await asyncio.gather(*asked, return_exceptions=True), held

    answers, held = asyncio.run(rush())
    assert answers[:IN_LINE] == list(range(IN_LINE)) and held <= AT_ONCE
    assert all(isinstance(answer, RunError) for answer in answers[IN_LINE:])
    assert asyncio.run(readers.run("again", lambda: 1)) == 1  # the line is empty again


def test_one_visitor_does_not_fill_the_line() -> None:
    readers, go = TableReaders(), threading.Event()

    async def rush() -> list[object]:
        asked = [asyncio.ensure_future(readers.run("one", lambda: go.wait(60))) for _ in range(9)]
        other = asyncio.ensure_future(readers.run("two", lambda: "read"))
        await asyncio.sleep(0)  # all have come
        go.set()
        return [*await asyncio.gather(*asked, return_exceptions=True), await other]

    *mine, other = asyncio.run(rush())
    assert mine.count(True) == OF_A_VISITOR and other == "read"


def test_who_invents_a_visitor_for_every_table_does_not_fill_the_line() -> None:
    readers, go = TableReaders(), threading.Event()

    async def rush() -> list[object]:
        asked = [
            asyncio.ensure_future(readers.run(f"invented {n}", lambda: go.wait(60), "192.0.2.1"))
            for n in range(2 * IN_LINE)
        ]
        other = asyncio.ensure_future(readers.run("ann", lambda: "read", "192.0.2.2"))
        await asyncio.sleep(0)  # all have come
        go.set()
        return [*await asyncio.gather(*asked, return_exceptions=True), await other]

    *invented, other = asyncio.run(rush())
    assert invented.count(True) == OF_AN_ADDRESS and other == "read"


def test_what_a_reader_raises_reaches_its_visitor() -> None:
    def fail() -> None:
        raise RunError("no.")

    readers = TableReaders()
    for _ in range(2 * OF_A_VISITOR):  # and leaves the line
        with pytest.raises(RunError, match=r"no\."):
            asyncio.run(readers.run("one", fail))


def test_a_workbook_is_not_waited_for_where_a_page_asks(tmp_path, monkeypatch) -> None:
    path = tmp_path / "a.xlsx"
    path.write_bytes(b"PK\x03\x04 xl/ and no more")
    monkeypatch.setattr(binary_formats, "PROGRAMS", threading.BoundedSemaphore(1))
    with binary_formats.PROGRAMS, pytest.raises(TableBusyError, match="Try again"):
        read_table(path, wait=False)
