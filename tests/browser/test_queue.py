"""The page behind a bad line: a proxy of our own between the browser and the server.

What it does to the line is what a busy machine or a weak network does now and then, at the worst
moment and every time.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

import pytest
from playwright.sync_api import BrowserContext, expect
from starlette.requests import Request

from tests.browser.proxy import Line

from .conftest import ENDLESS, PATIENCE, wait_for_state


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
    page.goto(f"http://127.0.0.1:{line.port}/?{ENDLESS}")
    page.wait_for_function("localStorage.getItem('lora-lab-visitor')")
    page.wait_for_load_state("networkidle")
    page.click("#start")
    expect(page.locator("#status")).to_contain_text("tokens/s", timeout=PATIENCE)
    page.evaluate("window.before = true")
    line.cut = True
    page.wait_for_function("!window.before")  # Gradio reloads the page as soon as it can
    expect(page.locator("#status")).to_contain_text("tokens/s", timeout=PATIENCE)
    assert not line.cut
    page.click("#stop")
    wait_for_state(page, "stopped")
