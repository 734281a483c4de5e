"""A real server, as a person starts it, and a real Chromium. A missing browser is a failure.

The server is `app.py` in a process of its own, one for the whole session; each test has a browser
context of its own, and so is a visitor of its own. Every test's console and network are watched:
a message of ours or a request that leaves the machine fails it (`quiet`).
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from playwright.sync_api import Browser, BrowserContext, Page, expect, sync_playwright

import lora_core as lc
from tests.servers import served

ROOT = Path(__file__).resolve().parents[2]
FLAGS = [
    *("--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"),
    *("--disable-background-networking", "--disable-component-update", "--disable-sync"),
]
SIZES = {"laptop": (1280, 800), "desktop": (1920, 1080), "phone": (390, 844)}
PATIENCE = 120_000  # milliseconds for what trains; the tests run on busy machines, too
# All of the first screen is drawn, and the server has named the visitor and set the controls.
READY = "LoraLab.state.restored && !('loading' in document.documentElement.dataset)"
ENDLESS = "steps=2000&batch_size=32"  # a minute or more, for a run that a test stops

expect.set_options(timeout=60_000)


def chromium_path() -> str:
    """The machine's Chromium: `CHROMIUM`, or one of the usual names."""
    names = ("chromium", "chromium-browser", "google-chrome")
    path = os.environ.get("CHROMIUM") or next(filter(None, map(shutil.which, names)), None)
    assert path, "Chromium is needed: apt-get install chromium, or set CHROMIUM to its path."
    return path


@pytest.fixture(scope="session")
def server() -> Iterator[str]:
    """The address of the app."""
    with served() as started:
        yield started.address


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    """Chromium, started once."""
    with sync_playwright() as playwright:
        running = playwright.chromium.launch(executable_path=chromium_path(), args=FLAGS)
        yield running
        running.close()


# Gradio's client, about a stream that ends because its page goes.
LEFT_STREAMS = ("AbortError", "Unexpected error Connection errored out")


@dataclass
class Log:
    """What the browser complained about, and where it wanted to go."""

    console: list[str] = field(default_factory=list)
    requests: list[str] = field(default_factory=list)
    failures: list[str] = field(default_factory=list)

    def watch(self, page: Page) -> None:
        """Listen to one tab."""
        page.on(
            "console",
            lambda m: self.console.append(m.text) if m.type in ("error", "warning") else None,
        )
        page.on("pageerror", lambda e: self.console.append(f"uncaught: {e}"))
        page.on("request", lambda r: self.requests.append(r.url))
        page.on("response", lambda r: self.failures.append(r.url) if r.status >= 400 else None)

    def reload(self, page: Page) -> None:
        """Reload a tab. What Gradio says of the streams that the old page leaves is no fault."""
        before = len(self.console)
        page.reload()
        said = self.console[before:]
        self.console[before:] = [line for line in said if not line.startswith(LEFT_STREAMS)]


@pytest.fixture
def log() -> Log:
    """The log of the tabs of one test."""
    return Log()


@pytest.fixture
def context(browser: Browser) -> Iterator[BrowserContext]:
    """A visitor of its own, with a laptop."""
    width, height = SIZES["laptop"]
    made = browser.new_context(viewport={"width": width, "height": height})
    made.set_default_timeout(PATIENCE)
    yield made
    made.close()


@pytest.fixture
def visit(context: BrowserContext, server: str, log: Log) -> Callable[..., Page]:
    """Open the page, with a query if wanted, and wait until it is alive."""

    def open_page(query: str = "") -> Page:
        page = context.new_page()
        log.watch(page)
        # Most tests look at everything; a new visitor's view is simple.
        view = "" if "view=" in query else "view=full&"
        page.goto(f"{server}/?{view}{query}")
        page.wait_for_selector("#numbers .headline b")
        page.wait_for_selector("#curves .main-svg")
        page.wait_for_selector("#scatter svg")
        page.wait_for_function(READY)
        return page

    return open_page


PINNED = "you have won a prize"


@pytest.fixture(scope="session")
def trained(browser: Browser, server: str) -> Iterator[tuple[Page, Log]]:
    """A page on which one short run has ended, with a pinned text; for the tests of what it shows.

    Its settings are those of `twin`. The tests share it, so each starts by typing what it needs.
    """
    context = browser.new_context(
        viewport={"width": SIZES["laptop"][0], "height": SIZES["laptop"][1]}
    )
    context.set_default_timeout(PATIENCE)
    page, log = context.new_page(), Log()
    log.watch(page)
    page.goto(f"{server}/?view=full&steps=10&batch_size=8&rank=4&seed=3")
    page.wait_for_selector("#answer tbody tr")
    page.wait_for_function(READY)
    page.fill("#text textarea", PINNED)
    page.click("#pin")
    page.wait_for_function("LoraLab.state.pinned")
    page.click("#start")
    page.wait_for_selector('#status .lab-status[data-state="finished"]', timeout=5 * PATIENCE)
    page.wait_for_selector("#judged h3:visible", timeout=PATIENCE)
    yield page, log
    context.close()


@pytest.fixture(scope="session")
def twin(base: lc.Base) -> lc.Classifier:
    """The classifier that the page's run makes, trained here with the same settings and seed."""
    settings = lc.LoRAConfig(rank=4), lc.TrainConfig(steps=10, batch_size=8, seed=3)
    *_, last = lc.fine_tune(base, lc.load_task("sms-spam"), *settings)
    assert isinstance(last, lc.Finished)
    return last.classifier


def wait_for_state(page: Page, state: str) -> None:
    """Until the status line belongs to a run in this state."""
    page.wait_for_selector(f'#status .lab-status[data-state="{state}"]', timeout=PATIENCE)


def come_to_rest(page: Page) -> None:
    """Until no colour or size is on its way to another: axe would measure what is in between."""
    page.wait_for_function("document.getAnimations().every((one) => one.playState !== 'running')")
