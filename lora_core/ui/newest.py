"""Of the questions that a page asks about one thing, only the newest one gets an answer.

Gradio has two ways of its own, and both lose what a visitor chose while an answer was on its way:
"once" ignores the choice without a word, and "always_last" asks afterwards with what the page shows
by then, which is what the older answer has put back. So a function whose answer sets the controls
that asked for it takes every question ("multiple"), and asks here which one still counts.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Hashable
from dataclasses import dataclass, field
from typing import TypeVar

Answer = TypeVar("Answer")


@dataclass
class _Line:
    """The questions of one page that have no answer yet; at most one is being worked on."""

    turn: asyncio.Lock = field(default_factory=asyncio.Lock)
    number: int = 0  # of the newest question
    question: Hashable = None  # the newest one; None: whatever was asked does not count any more
    waiting: int = 0


class Newest:
    """For one thing that pages ask about. Call it on one event loop."""

    def __init__(self) -> None:
        self._lines: dict[str, _Line] = {}

    async def answer(
        self, page: str, question: Hashable, work: Callable[[], Awaitable[Answer]]
    ) -> Answer | None:
        """What `work` returns; None where this page has asked something newer meanwhile, or where
        the very same question is being answered. Raises what `work` raises.

        A question waits until the one before it is over, and is not worked on at all where a newer
        one came meanwhile.
        """
        line = self._lines.setdefault(page, _Line())
        if line.waiting and line.question == question:
            return None
        line.number += 1
        line.question = question
        number = line.number
        line.waiting += 1
        try:
            async with line.turn:
                if line.number != number:
                    return None
                result = await work()
                return result if line.number == number else None
        finally:
            line.waiting -= 1
            if not line.waiting:
                del self._lines[page]

    def forget(self, page: str) -> None:
        """What this page has asked so far needs no answer any more."""
        line = self._lines.get(page)
        if line is not None:
            line.number += 1
            line.question = None
