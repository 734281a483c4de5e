"""Streams that nobody reads end within seconds, and watching leaves room for answers."""

from __future__ import annotations

import threading
from typing import Any

import gradio as gr
import httpx
import pytest

from lora_core.ui.readers import make_room
from tests.serving.registry import WAIT
from tests.ui.test_api import SHORT, serving


def until(true: Any) -> None:
    ticker = threading.Event()
    for _ in range(int(WAIT / 0.05)):
        if true():
            return
        ticker.wait(0.05)
    raise AssertionError("it never came true")


def call(url: str, name: str, *data: Any) -> str:
    answer = httpx.post(f"{url}/gradio_api/call/{name}", json={"data": list(data)}, timeout=60)
    return answer.json()["event_id"]


@pytest.fixture
def held(tiny, gate):
    """A server with a run that is being held, and one that waits."""
    with serving(tiny) as (url, registry):
        settings = ["mine", "bundled", "lora", 2, 16.0, ["*"], "alpha/rank", "train", 0.0, 0.02, 3]
        settings += [4, 0, [], SHORT["rows"], ""]
        ids = []
        for _ in range(2):
            stream = f"{url}/gradio_api/call/fine_tune/{call(url, 'fine_tune', *settings)}"
            ids.append(httpx.get(stream, timeout=60).text.split('["')[1].split('"]')[0])
        yield url, registry, ids
        gate.opened.set()


def test_a_closed_stream_gives_its_place_back(held) -> None:
    url, registry, ids = held
    event = call(url, "watch", ids[1], 0)
    with httpx.stream("GET", f"{url}/gradio_api/call/watch/{event}", timeout=60) as stream:
        assert "generating" in next(stream.iter_lines())
        assert len(registry.watchers) == 1
    until(lambda: len(registry.watchers) == 0)


def test_a_stream_that_nobody_opens_gives_its_place_back(held) -> None:
    url, registry, ids = held
    for _ in range(3):
        call(url, "watch", ids[1], 0)
    until(lambda: len(registry.watchers) == 3)
    until(lambda: len(registry.watchers) == 0)


def test_watchers_of_a_run_are_bounded_and_the_oldest_is_told(held) -> None:
    url, registry, ids = held
    registry.watchers.of_one = 1
    event = call(url, "watch", ids[1], 0)
    said: list[str] = []
    with httpx.stream("GET", f"{url}/gradio_api/call/watch/{event}", timeout=60) as stream:
        lines = stream.iter_lines()
        next(lines)
        call(url, "watch", ids[1], 0)
        said = list(lines)
    assert "watched from many places" in " ".join(said) and "event: error" in said


def test_two_hundred_watchers_leave_room_for_answers(held) -> None:
    url, registry, ids = held
    blocks = next(b for b in gr.Blocks.instances if b.local_url and b.local_url.startswith(url))
    make_room(blocks, registry.watchers)
    registry.watchers.of_one = 200
    for _ in range(200):
        call(url, "watch", ids[1], 0)
    answer = httpx.get(f"{url}/gradio_api/call/stop/{call(url, 'stop', ids[0])}", timeout=60)
    assert "event: complete" in answer.text
