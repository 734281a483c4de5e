"""Streams that nobody reads end within seconds, and watching leaves room for answers."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from typing import Any

import gradio as gr
import httpx
import pytest

import lora_core as lc
from lora_core.serving.bases import Bases
from lora_core.serving.plans import Plans
from lora_core.serving.registry import Registry
from lora_core.ui import api, api_experiments, sentences
from lora_core.ui.context import Context, Lab
from lora_core.ui.experiments import Experiments
from lora_core.ui.readers import KEPT_MESSAGES, KEPT_SECONDS, Unread, make_room
from lora_core.ui.settings import Settings
from tests.serving.registry import WAIT, wait
from tests.ui.strangers import page_served
from tests.ui.test_api import SHORT, serving

VISITOR = "a visitor of the tests, secret"


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


def test_a_stream_that_nobody_opens_gives_its_place_back(held, monkeypatch) -> None:
    monkeypatch.setattr("lora_core.serving.watchers.NEVER_READ_SECONDS", 2.0)
    url, registry, ids = held
    for _ in range(2):
        call(url, "watch", ids[1], 0)
    late = call(url, "watch", ids[1], 0)
    until(lambda: len(registry.watchers) == 3)
    until(lambda: len(registry.watchers) == 0)
    # Who comes to read after all is not left waiting for what has ended.
    answer = httpx.get(f"{url}/gradio_api/call/watch/{late}", timeout=60).text
    assert "event: error" in answer and "Nobody fetched what was sent here" in answer


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


def stopped(url: str, run_id: str) -> str:
    """What `/stop` answers, which everybody must be able to call."""
    return httpx.get(f"{url}/gradio_api/call/stop/{call(url, 'stop', run_id)}", timeout=60).text


def test_questions_that_wait_leave_room_for_answers(tiny, words) -> None:
    """Programs that ask what takes long wait for it; nobody else waits for them."""
    with Registry(workers=1) as registry:
        lab = Lab(registry, bases=Bases(held={"bundled": tiny}), tasks={words.name: words})
        experiments = Experiments(lab, Plans(registry))
        with gr.Blocks(analytics_enabled=False) as page:
            unused: Any = None
            api.build(Context(lab, page, visitor=unused, ready=unused, text=unused, pinned=unused))
            api_experiments.build(experiments)
        sentences.protect(page)
        page.queue(default_concurrency_limit=None)
        _, url, _ = page.launch(prevent_thread_lock=True, quiet=True, max_threads=8)
        url = url.rstrip("/")
        make_room(page, registry.watchers)
        run = registry.submit(
            VISITOR, tiny, words, lc.LoRAConfig(rank=2), lc.TrainConfig(steps=2, batch_size=4)
        )
        wait(run)
        released = threading.Event()

        def endless() -> Iterator[None]:
            released.wait(WAIT)
            yield

        try:
            experiments.computations.ask("another visitor", run, "endless", endless)
            asked = [call(url, "merging", run.id) for _ in range(12)]
            other = httpx.stream("GET", f"{url}/gradio_api/call/merging/{asked[-1]}", timeout=60)
            until(lambda: len(registry.watchers) == 12)
            assert "event: complete" in stopped(url, run.id)
            with other as answer:
                released.set()
                assert "event: complete" in "".join(answer.iter_text())
        finally:
            released.set()
            page.close(verbose=False)


def test_pages_that_ask_leave_room_for_answers(tiny) -> None:
    """The questions of many tabs while one sweep runs."""
    with page_served(watchers=10) as url:
        config = httpx.get(f"{url}/config", timeout=60).json()
        (board,) = [
            c["id"] for c in config["components"] if c["props"].get("elem_id") == "experiment-board"
        ]
        ask = next(d for d in config["dependencies"] if [board, "select"] in d["targets"])
        values = {c["id"]: c["props"].get("value") for c in config["components"]}
        visitor = "v" * 40
        data = [visitor, "", *[values[number] for number in ask["inputs"][2:]]]
        data[2 + Settings.names().index("steps")] = 1000

        def press(session: str, **wanted: Any) -> None:
            body = {"data": [*data[:-1], {"question": "rate", **wanted}], "session_hash": session}
            sent = httpx.post(
                f"{url}/gradio_api/queue/join", json=body | {"fn_index": ask["id"]}, timeout=60
            )
            assert sent.status_code == 200

        press("first", kind="ranks", start=True)
        for number in range(60):
            press(f"tab {number}")
        session = f"{url}/gradio_api/queue/data?session_hash=tab 59"
        with httpx.stream("GET", session, timeout=60) as stream:
            first = next(line for line in stream.iter_lines() if "process_generating" in line)
            assert '"running":true' in first.replace(" ", "")
            assert "event: error" in stopped(url, "a run that nobody has")


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
