"""A press that comes before the page is ready is done once when it is, or the page says why not."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from playwright.sync_api import BrowserContext, Page, Request, Route, expect

import lora_core as lc
from lora_core.adapters.adapter import zip_adapter
from tests.peers.stranger import adapted

from .conftest import PATIENCE, READY, Log, wait_for_state

Visit = Callable[..., Page]
NAMED = "localStorage.getItem('lora-lab-visitor') !== null"
STANDS = "window.LoraLab?.state.stands && !LoraLab.state.restored"
BRIEF = "steps=10&batch_size=4"


class Held:
    """Requests that are kept back until they are released."""

    def __init__(self, page: Page, pattern: str) -> None:
        self.page, self.pattern = page, pattern
        self.routes: list[Route] = []
        page.route(pattern, lambda route: self.routes.append(route))

    def release(self) -> None:
        """Let them go, and all that come later."""
        for route in self.routes:
            route.continue_()
        self.page.unroute(self.pattern)


@pytest.fixture
def tab(context: BrowserContext, log: Log) -> Iterator[Page]:
    """A tab in which nothing is opened yet."""
    page = context.new_page()
    log.watch(page)
    yield page


def open_unanswered(page: Page, server: str, query: str = "") -> Held:
    """The page as it is before the server has answered its first question."""
    held = Held(page, "**/queue/join*")
    page.goto(f"{server}/?{query}", wait_until="commit")
    page.wait_for_function(STANDS)
    page.wait_for_selector("#start")
    return held


def started(page: Page) -> Callable[[], int]:
    """Counts the runs that were asked for."""
    asked: list[str] = []

    def note(request: Request) -> None:
        # Only these events send all of step 1 over the queue.
        if "/queue/join" in request.url and "attention.output" in (request.post_data or ""):
            asked.append(request.url)

    page.on("request", note)
    return lambda: len(asked)


def test_a_stream_that_comes_late_loses_nothing(tab: Page, server: str) -> None:
    """A browser opens the stream of an answer after it has asked, on a busy machine much later."""
    tab.goto(f"{server}/?view=full&rank=4&{BRIEF}")
    tab.wait_for_function(READY)
    for act in (lambda: tab.click("#start"), lambda: tab.click('[data-id="knife"]')):
        held = Held(tab, "**/queue/data*")
        act()
        tab.wait_for_timeout(8000)
        held.release()
        wait_for_state(tab, "finished")
    expect(tab.locator(".experiment-line")).to_contain_text("direction", timeout=PATIENCE)


def test_an_answer_that_never_comes_is_asked_for_again(tab: Page, server: str) -> None:
    """Whatever lost it: a run is found and followed, a question is answered."""
    tab.goto(f"{server}/?view=full&rank=4&{BRIEF}")
    tab.wait_for_function(READY)
    tab.click("#start")
    wait_for_state(tab, "finished")
    tab.route("**/queue/join*", lambda route: route.fulfill(json={"event_id": "lost"}), times=1)
    tab.click('[data-id="knife"]')
    expect(tab.locator(".experiment-line")).to_contain_text("direction", timeout=PATIENCE)
    # The server trains, and the page that asked for it hears nothing.
    held = Held(tab, "**/queue/join*")
    tab.click("#start")
    for _ in range(PATIENCE // 100):
        if held.routes:
            break
        tab.wait_for_timeout(100)
    (lost,) = held.routes
    lost.fetch()
    lost.fulfill(json={"event_id": "lost, too"})
    tab.unroute("**/queue/join*")
    expect(tab.locator("#runs tbody tr:not(.planned)")).to_have_count(2, timeout=PATIENCE)


@pytest.mark.parametrize("script", ["lab.js", "ready.js", "curves.js", "adapt.js"])
def test_a_script_of_ours_that_comes_late_loses_no_press(
    tab: Page, server: str, script: str
) -> None:
    """What Gradio calls in the browser is there before Gradio, however slow the network is."""
    held = Held(tab, f"**/lab/{script}*")
    tab.goto(f"{server}/?view=full&{BRIEF}", wait_until="commit")
    # Whichever comes: the server's answer, without the script, or a page that waits for the script.
    tab.wait_for_function(
        f"{NAMED} || (!document.body && document.querySelector('script[src*=\"{script}\"]'))",
        polling=100,
    )
    held.release()
    tab.click("#start")
    wait_for_state(tab, "finished")


@pytest.mark.parametrize("button", ["start", "sweep"])
def test_a_press_is_done_once_the_server_has_answered(tab: Page, server: str, button: str) -> None:
    """Also in a tab in the background, where no frame is drawn, and though it was pressed twice."""
    runs = started(tab)
    held = open_unanswered(tab, server)
    tab.evaluate("window.requestAnimationFrame = () => 0")
    for _ in range(2):
        tab.evaluate("(id) => document.getElementById(id).click()", button)
    expect(tab.locator(f"#{button}")).to_have_attribute("aria-busy", "true")
    held.release()
    first = "r 1, 150 steps:" if button == "sweep" else "r 8:"
    expect(tab.locator("#status .status-line")).to_contain_text(first)
    expect(tab.locator(f"#{button}")).not_to_have_attribute("aria-busy", "true")
    assert runs() == 1
    tab.click("#stop")


def test_all_that_was_pressed_is_done(tab: Page, server: str) -> None:
    held = open_unanswered(tab, server)
    for button in ("start", "sweep"):
        tab.evaluate("(id) => document.getElementById(id).click()", button)
    held.release()
    rows = tab.locator("#runs tbody tr:not(.planned)")
    expect(rows).to_have_count(6)  # the sweep is four ranks and full fine-tuning
    tab.click("#stop")


def test_who_waits_for_the_server_is_told_so(tab: Page, server: str) -> None:
    held = open_unanswered(tab, server)
    waits = tab.get_by_text("What you pressed is done as soon as it does")
    expect(waits).to_be_hidden()
    tab.click("#start")
    expect(waits).to_be_visible()
    held.release()
    expect(tab.locator("#status .status-line")).to_contain_text("r 8:")
    expect(waits).to_be_hidden()
    tab.click("#stop")


def test_a_server_that_cannot_answer_is_no_silence(tab: Page, server: str) -> None:
    runs = started(tab)
    busy = {"status": 503, "json": {"detail": "Busy."}}
    tab.route("**/queue/join*", lambda route: route.fulfill(**busy))
    tab.goto(f"{server}/", wait_until="commit")
    sentence = tab.get_by_text("The server could not open this page for you. Reload it")
    expect(sentence).to_be_visible()
    tab.click("#start")
    tab.unroute("**/queue/join*")
    assert runs() == 0
    tab.reload()
    tab.click("#start")
    expect(tab.locator("#status .status-line")).to_contain_text("r 8:")
    expect(sentence).to_be_hidden()
    tab.click("#stop")


def test_a_script_that_does_not_arrive_is_no_silence(tab: Page, server: str) -> None:
    tab.route("**/lab/curves.js*", lambda route: route.abort())
    tab.goto(f"{server}/", wait_until="commit")
    expect(tab.get_by_role("alert").filter(has_text="did not arrive. Reload it.")).to_be_visible()


@pytest.mark.parametrize("way", ["chosen", "dropped"])
def test_a_file_that_comes_early_is_its_visitor_s(
    tab: Page, server: str, base: lc.Base, tmp_path: Path, way: str
) -> None:
    classifier = adapted(base, lc.LoRAConfig(4, 8), classes=2, bias=True)
    classifier.labels, classifier.task_name = ("ham", "spam"), "first task"
    archive = zip_adapter(classifier, tmp_path / "first.zip")
    held = open_unanswered(tab, server)
    if way == "chosen":
        tab.set_input_files("#bring input[type=file]", archive)
    else:
        tab.evaluate(
            """(bytes) => {
              const data = new DataTransfer();
              data.items.add(new File([new Uint8Array(bytes)], "first.zip"));
              document.querySelector("#bring button").dispatchEvent(
                new DragEvent("drop", { dataTransfer: data, bubbles: true, cancelable: true }));
            }""",
            list(archive.read_bytes()),
        )
    held.release()
    expect(tab.locator("#shelf")).to_contain_text("first task")
    expect(tab.locator("#take-adapter")).to_be_enabled()
    tab.reload()
    expect(tab.locator("#shelf")).to_contain_text("first task")


def test_the_guided_start_waits_for_its_script(tab: Page, server: str) -> None:
    held = Held(tab, "**/lab/guide.js*")
    tab.goto(f"{server}/", wait_until="commit")
    tab.click("#guide-start")
    held.release()
    expect(tab.locator(".guide")).to_contain_text("1 of 7")


def test_copying_the_link_waits_for_its_script(tab: Page, server: str) -> None:
    held = Held(tab, "**/lab/take.js*")
    tab.goto(f"{server}/", wait_until="commit")
    tab.click("#take-link")
    held.release()
    expect(tab.locator("#take-note")).to_contain_text(re.compile("link is copied|http://"))


def test_a_press_in_the_moment_in_which_the_button_comes(tab: Page, server: str) -> None:
    tab.add_init_script(
        """new MutationObserver((_, watch) => {
          const button = document.getElementById("start");
          if (button) { watch.disconnect(); button.click(); }
        }).observe(document, { childList: true, subtree: true });"""
    )
    tab.goto(f"{server}/?{BRIEF}")
    wait_for_state(tab, "finished")
    tab.reload()  # it is this visitor's
    wait_for_state(tab, "finished")
