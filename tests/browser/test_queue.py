"""The page behind a bad line: a proxy of our own between the browser and the server.

What it does to the line is what a busy machine or a weak network does now and then, at the worst
moment and every time.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import AsyncIterator, Iterator

import httpx
import pytest
import uvicorn
from playwright.sync_api import BrowserContext, expect
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import StreamingResponse
from starlette.routing import Route

from tests.browser.conftest import free_port

_HOP = ("connection", "content-length", "host", "transfer-encoding")  # not to be passed on


class Line:
    """A reverse proxy in a thread; subclasses disturb what passes."""

    def __init__(self, server: str) -> None:
        self.client = httpx.AsyncClient(base_url=server, timeout=None)
        self.port = free_port()
        route = Route("/{path:path}", self.forward, methods=["GET", "HEAD", "POST"])
        config = uvicorn.Config(Starlette(routes=[route]), port=self.port, log_level="warning")
        self.proxy = uvicorn.Server(config)
        threading.Thread(target=self.proxy.run, daemon=True).start()
        while not self.proxy.started:
            time.sleep(0.05)

    async def forward(self, request: Request) -> StreamingResponse:
        """Ask the server the same, and pass its answer on as it comes."""
        url = str(request.url.replace(scheme="", netloc=""))
        headers = [(k, v) for k, v in request.headers.items() if k not in _HOP]
        body = await request.body()
        await self.before(request)
        asked = self.client.build_request(request.method, url, content=body, headers=headers)
        answer = await self.client.send(asked, stream=True)
        kept = {k: v for k, v in answer.headers.items() if k not in _HOP}

        async def chunks() -> AsyncIterator[bytes]:
            try:
                async for chunk in answer.aiter_raw():
                    await self.passing(request, chunk)
                    yield chunk
            finally:
                await answer.aclose()

        return StreamingResponse(chunks(), answer.status_code, kept)

    async def before(self, request: Request) -> None:
        """Called before a request is passed on."""

    async def passing(self, request: Request, chunk: bytes) -> None:
        """Called before a part of an answer is passed on."""


class LateFarewell(Line):
    """The second request of the queue is joined after the first farewell, and answered before it
    is read."""

    def __init__(self, server: str) -> None:
        self.joined = 0
        self.farewell, self.answered = asyncio.Event(), asyncio.Event()
        super().__init__(server)

    async def before(self, request: Request) -> None:
        if request.url.path.endswith("/queue/join"):
            self.joined += 1
            if self.joined == 2:
                await self.farewell.wait()

    async def passing(self, request: Request, chunk: bytes) -> None:
        if request.url.path.endswith("/queue/join") and self.joined == 2:
            self.answered.set()
        if b"close_stream" in chunk and not self.farewell.is_set():
            self.farewell.set()
            await self.answered.wait()
            await asyncio.sleep(2)  # until the page has read it, however busy it is


class CutOff(Line):
    """The answers of the queue break off in the middle, once, when asked to."""

    cut = False

    async def passing(self, request: Request, chunk: bytes) -> None:
        if self.cut and request.url.path.endswith("/queue/data"):
            self.cut = False
            raise ConnectionError


@pytest.fixture
def line(request: pytest.FixtureRequest, server: str) -> Iterator[Line]:
    """The proxy of the class in the parameter."""
    made: Line = request.param(server)
    yield made
    made.proxy.should_exit = True


@pytest.mark.parametrize("line", [LateFarewell], indirect=True)
def test_an_answer_after_the_farewell_is_heard(context: BrowserContext, line: LateFarewell) -> None:
    page = context.new_page()
    page.goto(f"http://127.0.0.1:{line.port}/")
    page.wait_for_function("localStorage.getItem('lora-lab-visitor')")
    assert line.answered.is_set()
    page.wait_for_load_state("networkidle")  # nothing pending, nothing connected


@pytest.mark.parametrize("line", [CutOff], indirect=True)
def test_the_page_comes_back_when_the_line_breaks(context: BrowserContext, line: CutOff) -> None:
    page = context.new_page()
    page.goto(f"http://127.0.0.1:{line.port}/?steps=60")
    page.wait_for_function("localStorage.getItem('lora-lab-visitor')")
    page.wait_for_load_state("networkidle")
    page.click("#start")
    expect(page.locator("#status")).to_contain_text("tokens/s")
    page.evaluate("window.before = true")
    line.cut = True
    page.wait_for_function("!window.before")  # Gradio reloads the page as soon as it can
    expect(page.locator("#status")).to_contain_text("done in")
    assert not line.cut
