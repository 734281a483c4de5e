"""Whatever is raised reaches a person as one sentence, and what they typed is never HTML."""

from __future__ import annotations

import asyncio
import errno
import logging
from collections.abc import AsyncIterator, Iterator
from typing import Any

import gradio as gr
import pytest

from lora_core.errors import LabError
from lora_core.serving.registry import Registry
from lora_core.ui import sentences
from lora_core.ui.page import build_page
from tests.test_architecture import PAGE

MARKUP = "<form action=https://evil.example><img src=x onerror=alert(1)>"


def _raised(error: BaseException) -> str:
    def broken() -> None:
        raise error

    with pytest.raises(gr.Error) as seen:
        sentences.in_words(broken)()
    assert not seen.value.print_exception
    return str(seen.value.message)


def test_what_was_typed_is_no_html() -> None:
    said = _raised(LabError(f"There is no {MARKUP}"))
    assert "<" not in said and "&lt;form" in said
    assert len(_raised(LabError("x" * 10_000))) < 500


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (OSError(errno.ENOSPC, "No space left on device", "/secret/path"), "disk is full"),
        (PermissionError(errno.EACCES, "denied", "/secret/path"), "may not write"),
        (OSError(errno.EMFILE, "too many"), "open files"),
        (MemoryError("secret"), "no memory left"),
        (KeyError("secret"), "log says where"),
        (RuntimeError("secret"), "log says where"),
    ],
)
def test_each_fault_has_its_sentence_and_the_log_its_place(
    error: Exception, said: str, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.ERROR):
        sentence = _raised(error)
    assert said in sentence and "secret" not in sentence
    assert type(error).__name__ in caplog.text and "secret" not in caplog.text
    assert "test_sentences.py" in caplog.text


def test_generators_and_coroutines_are_covered_and_go_on_until_they_fail() -> None:
    def steps() -> Iterator[int]:
        yield 1
        raise LabError("two")

    async def stream() -> AsyncIterator[int]:
        yield 1
        raise LabError("two")

    async def awaited() -> int:
        raise LabError("two")

    seen: list[Any] = []
    with pytest.raises(gr.Error, match="two"):
        seen.extend(sentences.in_words(steps)())

    async def listen() -> None:
        async for item in sentences.in_words(stream)():
            seen.append(item)

    with pytest.raises(gr.Error, match="two"):
        asyncio.run(listen())
    with pytest.raises(gr.Error, match="two"):
        asyncio.run(sentences.in_words(awaited)())
    assert seen == [1] or seen == [1, 1]


def test_every_function_of_the_page_is_covered() -> None:
    with Registry(workers=1) as registry:
        page = build_page(registry)
    functions = [event.fn for event in page.fns.values() if event.fn is not None]
    assert len(functions) > 20
    for function in functions:
        assert function.__code__.co_filename == sentences.__file__, function


def test_no_other_module_speaks_to_gradio() -> None:
    for path in PAGE.rglob("*.py"):
        if path.name != "sentences.py":
            text = path.read_text(encoding="utf-8")
            assert not any(f"gr.{kind}(" in text for kind in ("Error", "Warning", "Info")), path
