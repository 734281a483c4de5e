"""A room over a real registry, and its routes on a free port, without Gradio: starts at once."""

from __future__ import annotations

import contextlib
import json
import socket
import threading
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import httpx
import uvicorn
from starlette.applications import Starlette
from starlette.middleware import Middleware

import lora_core as lc
from lora_core.base.checkpoint import Base
from lora_core.limits import Limits
from lora_core.room.exercises import Exercise
from lora_core.room.key import Key
from lora_core.room.room import Room
from lora_core.serving.registry import Registry, Run
from lora_core.ui.gate import Gate
from lora_core.ui.room_routes import Routes
from lora_core.ui.room_setup import exercises_of

SECRET = "a key that nobody can guess"
WAIT = 120.0  # seconds after which a wait is a failure
TASK = "sentiment"


def room_over(registry: Registry, folder: Path | None = None, **options: Any) -> Room:
    """With the exercises that come along."""
    exercises: list[Exercise] = options.pop("exercises", exercises_of(None, Limits()))
    return Room(registry, Key(SECRET), exercises, folder=folder, bases={"tiny"}, **options)


def pupil(number: int) -> str:
    """A token."""
    return f"token of pupil number {number}"


def submit(
    registry: Registry, base: Base, visitor: str, task: lc.Task | None = None, **settings: Any
) -> Run:
    """A short run on a bundled task."""
    rank = settings.pop("rank", 2)
    watch = settings.pop("watch", ())
    train = lc.TrainConfig(**{"steps": 2, "batch_size": 4, "evaluations": 1, **settings})
    lora = lc.LoRAConfig(rank=rank)
    return registry.submit(
        visitor, base, task or lc.load_task(TASK), lora, train, watch_texts=watch
    )


def until(true: Any, what: str = "") -> None:
    """Wait for a condition of another thread."""
    end = time.monotonic() + WAIT
    while not true():
        assert time.monotonic() < end, what or "waited in vain"
        time.sleep(0.01)


@contextlib.contextmanager
def routes_served(room: Room) -> Iterator[str]:
    """The address, without a slash at the end."""
    # Bound here, to a port that the system chooses: nobody can take it before the thread runs.
    listener = socket.create_server(("127.0.0.1", 0))
    port = listener.getsockname()[1]
    middleware = [Middleware(Gate, room=True)]
    app = Starlette(routes=Routes(room).routes(), middleware=middleware)
    server = uvicorn.Server(uvicorn.Config(app, log_level="warning"))
    thread = threading.Thread(target=server.run, args=([listener],), daemon=True)
    thread.start()
    until(lambda: server.started)
    try:
        yield f"http://127.0.0.1:{port}"
    finally:
        room.close()
        server.should_exit = True
        thread.join(WAIT)


class Line:
    """A page's line to the server, read by a thread: `state` is what the page would show."""

    def __init__(self, url: str, cookies: Mapping[str, str] | None = None) -> None:
        self.state: dict[str, Any] = {}
        self.raw: list[str] = []
        self.times: list[float] = []
        self._new = threading.Condition()
        self._client = httpx.Client(timeout=None, cookies=dict(cookies or {}))
        self._stream = self._client.stream("GET", url)
        self.answer = self._stream.__enter__()
        self._thread = threading.Thread(target=self._read, daemon=True)
        self._thread.start()

    def _read(self) -> None:
        with contextlib.suppress(httpx.HTTPError, httpx.StreamError, RuntimeError):
            for text in self.answer.iter_lines():
                if not text.startswith("data: "):
                    continue
                with self._new:
                    self.raw.append(text)
                    self.times.append(time.monotonic())
                    self.state.update(json.loads(text[6:]))
                    self._new.notify_all()

    def wait(self, true: Any, seconds: float = WAIT) -> dict[str, Any]:
        """Until what it shows is as wanted."""
        with self._new:
            found = self._new.wait_for(lambda: self.state and true(self.state), seconds)
            assert found, self.state
            return dict(self.state)

    def close(self) -> None:
        """Cut it, as a network does."""
        with contextlib.suppress(OSError):
            stream = self.answer.extensions["network_stream"]
            stream.get_extra_info("socket").shutdown(socket.SHUT_RDWR)
        self._thread.join(WAIT)
        self._client.close()
