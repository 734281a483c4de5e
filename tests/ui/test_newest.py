"""What a visitor chose last is what the page answers, however quickly it was chosen."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import pytest

from lora_core.ui.newest import Newest

PAGE = "a page"


class Work:
    """Questions that are worked on until they are let go."""

    def __init__(self) -> None:
        self.begun: list[str] = []
        self.go = asyncio.Event()

    def of(self, question: str) -> Callable[[], Awaitable[str]]:
        async def work() -> str:
            self.begun.append(question)
            await self.go.wait()
            return f"answer to {question}"

        return work


async def asked(newest: Newest, work: Work, *questions: str) -> list[asyncio.Task[str | None]]:
    """Ask one after the other, the first of which is being worked on."""
    tasks = []
    for question in questions:
        tasks.append(asyncio.ensure_future(newest.answer(PAGE, question, work.of(question))))
        await asyncio.sleep(0)
    return tasks


def test_the_newest_question_is_answered_and_no_other() -> None:
    async def ask() -> None:
        newest, work = Newest(), Work()
        tasks = await asked(newest, work, "first", "second", "third")
        work.go.set()
        assert await asyncio.gather(*tasks) == [None, None, "answer to third"]
        assert work.begun == ["first", "third"]  # the second one was of no use any more
        assert await newest.answer(PAGE, "third", work.of("third")) == "answer to third"

    asyncio.run(ask())


def test_the_same_question_is_worked_on_once() -> None:
    async def ask() -> None:
        newest, work = Newest(), Work()
        tasks = await asked(newest, work, "first", "first")
        work.go.set()
        assert await asyncio.gather(*tasks) == ["answer to first", None]
        assert work.begun == ["first"]

    asyncio.run(ask())


def test_back_to_the_first_one() -> None:
    async def ask() -> None:
        newest, work = Newest(), Work()
        tasks = await asked(newest, work, "first", "second", "first")
        work.go.set()
        assert await asyncio.gather(*tasks) == [None, None, "answer to first"]

    asyncio.run(ask())


def test_what_is_forgotten_has_no_answer_and_may_be_asked_again() -> None:
    async def ask() -> None:
        newest, work = Newest(), Work()
        tasks = await asked(newest, work, "first")
        newest.forget(PAGE)
        newest.forget("a page that asked nothing")
        tasks += await asked(newest, work, "first")
        work.go.set()
        assert await asyncio.gather(*tasks) == [None, "answer to first"]

    asyncio.run(ask())


def test_two_pages_do_not_meet() -> None:
    async def ask() -> None:
        newest, work = Newest(), Work()
        work.go.set()
        pages = [newest.answer(name, "same", work.of("same")) for name in ("one", "two")]
        assert await asyncio.gather(*pages) == ["answer to same"] * 2

    asyncio.run(ask())


def test_an_error_is_handed_on_and_blocks_nobody() -> None:
    async def broken() -> str:
        raise ValueError("no")

    async def ask() -> None:
        newest, work = Newest(), Work()
        work.go.set()
        with pytest.raises(ValueError, match="no"):
            await newest.answer(PAGE, "first", broken)
        assert await newest.answer(PAGE, "first", work.of("first")) == "answer to first"

    asyncio.run(ask())
