"""A table of the Hub in the page: what was guessed is shown, and changed where it was wrong."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from playwright.sync_api import BrowserContext, Locator, Page, expect

from tests.browser.conftest import Log
from tests.servers import served
from tests.serving.hub_server import Hub, table_of


@pytest.fixture
def hub() -> Iterator[Hub]:
    made = Hub()
    try:
        yield made
    finally:
        made.end()


@pytest.fixture
def page(context: BrowserContext, hub: Hub, log: Log) -> Iterator[Page]:
    """A page of a server that asks our Hub, with the Hub's corner open."""
    settings = {"HF_ENDPOINT": hub.address, "HF_HUB_OFFLINE": "0", "HF_HUB_DISABLE_XET": "1"}
    with served("--data", "none", **settings) as server:
        opened = context.new_page()
        log.watch(opened)
        opened.goto(f"{server.address}/?view=full")
        opened.wait_for_selector("#numbers .headline b")
        opened.wait_for_function("localStorage.getItem('lora-lab-visitor') !== null")
        opened.click("#hub button.label-wrap")
        yield opened
        opened.close()


def load(page: Page, name: str) -> None:
    page.get_by_label("Table of texts", exact=True).check()
    page.get_by_label("Its name", exact=True).fill(name)
    page.click("#hub-load")


def control(page: Page, name: str) -> Locator:
    """One of the four; those of step 1 are called the same."""
    return page.locator(f"#hub-{name} input")


def choose(page: Page, name: str, option: str) -> None:
    control(page, name).click()
    page.get_by_role("option", name=option, exact=True).click()


def test_a_guess_that_fails_is_overruled(page: Page, hub: Hub, log: Log) -> None:
    """The first configuration has no labels; the column that is guessed is not the one meant."""
    hub.repositories[("dataset", "some/things")] = {
        "a/train.csv": b"text,label,mood\nhello,,\nthere,,\n",
        "b/train.csv": table_of("text", "label", "mood"),
        "b/test.csv": table_of("text", "label", "mood", last=10),
    }
    note, task = page.locator("#hub-note"), page.get_by_label("Task", exact=True)
    before = task.input_value()
    load(page, "some/things")
    expect(note).to_contain_text("No row has both a text in 'text' and a label in 'label'")
    assert task.input_value() == before
    expect(control(page, "configuration")).to_have_value("a")
    expect(control(page, "label")).to_have_value("label")
    choose(page, "configuration", "b")
    expect(note).to_contain_text("some/things is chosen in step 1")
    expect(task).to_have_value("some/things (yours)")
    expect(control(page, "configuration")).to_have_value("b")
    expect(control(page, "split")).to_have_value("train")
    count = page.locator("#numbers .counts b").first
    two = count.inner_text()
    choose(page, "label", "mood")  # three classes: step 1 hears of it
    expect(task).to_have_value("some/things 2 (yours)")
    expect(count).not_to_have_text(two)
    expect(control(page, "label")).to_have_value("mood")
    assert not log.failures
