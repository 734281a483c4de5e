"""Streams that nobody reads end within seconds, and watching leaves room for answers."""

from __future__ import annotations

import threading
from typing import Any

import gradio as gr
import httpx
import pytest

from lora_core.ui.readers import KEPT_MESSAGES, KEPT_SECONDS, Unread, make_room
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


def page_at(url: str) -> Any:
    """The page that is served there now; others were, before."""
    pages = [b for b in gr.Blocks.instances if b.local_url and b.local_url.startswith(url)]
    return next(b for b in pages if b.is_running)


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
    make_room(page_at(url), registry.watchers)
    registry.watchers.of_one = 200
    for _ in range(200):
        call(url, "watch", ids[1], 0)
    answer = httpx.get(f"{url}/gradio_api/call/stop/{call(url, 'stop', ids[0])}", timeout=60)
    assert "event: complete" in answer.text


def join(url: str, session: str, name: str = "count_parameters") -> None:
    """A call as the page makes it, into a session."""
    blocks = page_at(url)
    number = next(n for n, f in blocks.fns.items() if f.api_name == name)
    body = {"data": [], "fn_index": number, "session_hash": session}
    assert httpx.post(f"{url}/gradio_api/queue/join", json=body, timeout=60).status_code == 200


def test_answers_that_nobody_fetches_are_forgotten_and_others_come(tiny) -> None:
    with serving(tiny) as (url, _):
        blocks = page_at(url)
        sessions, events = (
            blocks._queue.pending_messages_per_session,
            blocks._queue.event_ids_to_events,
        )
        unread = Unread(blocks)
        for session in ("left", "late"):
            join(url, session)
            until(lambda session=session: not sessions[session].empty())
        until(lambda: all(job is None for job in blocks._queue.active_jobs))
        assert unread.look(KEPT_SECONDS) == []  # seen for the first time
        assert unread.look(KEPT_SECONDS / 2) == []
        stream = f"{url}/gradio_api/queue/data?session_hash="
        assert "process_completed" in httpx.get(stream + "late", timeout=60).text
        join(url, "late")
        until(lambda: not sessions["late"].empty())
        assert unread.look(KEPT_SECONDS / 2) == ["left"]
        assert "left" not in sessions and "late" in sessions
        assert {event.session_hash for event in events.values()} <= {"late"}
        with pytest.raises(httpx.RemoteProtocolError):  # Gradio breaks off once it has said so
            httpx.get(stream + "left", timeout=60)
        join(url, "left")  # a page that comes back is served as a new one
        assert "process_completed" in httpx.get(stream + "left", timeout=60).text


def test_who_asks_and_never_fetches_cannot_fill_the_memory(tiny, monkeypatch) -> None:
    monkeypatch.setattr("lora_core.ui.readers.KEPT_MESSAGES", 20)
    assert KEPT_MESSAGES > 1000
    with serving(tiny) as (url, _):
        sessions = page_at(url)._queue.pending_messages_per_session
        unread = Unread(page_at(url))
        join(url, "one")
        until(lambda: not sessions["one"].empty())
        assert unread.look(1) == []
        for _ in range(15):
            join(url, "flood")
        until(lambda: len(list(sessions["flood"]._queue)) > 20)
        unread.look(1)
        assert "flood" not in sessions or sum(len(list(q._queue)) for q in sessions.values()) <= 20
