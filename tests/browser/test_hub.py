"""A table of the Hub in the page: what was guessed is shown, and changed where it was wrong."""

from __future__ import annotations

import io
from collections.abc import Iterator

import openpyxl
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
    """Of what was guessed; those of step 1 are called the same."""
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


def czech() -> bytes:
    """As Excel writes a CSV in Prague."""
    rows = [f"Žluťoučký kůň č. {i}, {word};{word}" for i in range(30) for word in ("šek", "účet")]
    return "\n".join(["Zpráva;Oddělení", *rows, ""]).encode("cp1250")


def test_how_a_file_is_written_is_overruled(page: Page, hub: Hub, log: Log) -> None:
    """Header, encoding and separator of a CSV: as found, changed, misnamed; fetched once."""
    hub.repositories[("dataset", "some/letters")] = {"train.csv": czech()}
    note, preview = page.locator("#hub-note"), page.locator("#hub-report")
    load(page, "some/letters")
    expect(control(page, "encoding")).to_have_value("Windows-1250 (found)")
    expect(control(page, "separator")).to_have_value("semicolon (found)")
    expect(control(page, "header")).to_have_value("line 1 (found)")
    expect(control(page, "sheet")).to_have_count(0)
    expect(preview.locator("td").first).to_contain_text("Žluťoučký kůň č. 0")
    choose(page, "encoding", "Windows-1252 (Western European)")
    expect(preview.locator("td").first).to_contain_text("kùò è. 0")
    choose(page, "header", "none")
    expect(preview.locator("th").first).to_contain_text("column 1")
    expect(control(page, "text")).to_have_value("column 1")
    expect(control(page, "encoding")).to_have_value("Windows-1252 (Western European)")
    control(page, "header").fill("the first")
    control(page, "header").press("Enter")
    control(page, "header").blur()
    expect(note).to_contain_text("“the first” is no number of a line")
    choose(page, "header", "line 1: Zpráva · Oddìlení")
    expect(preview.locator("th").first).to_contain_text("Zpráva")
    choose(page, "separator", "tab")
    expect(note).to_contain_text("only the column")
    expect(control(page, "separator")).to_have_value("tab")
    choose(page, "separator", "find out")
    expect(note).to_contain_text("some/letters is chosen in step 1")
    assert hub.fetched == ["train.csv"]
    assert not page.locator(".toast-body").all_inner_texts()
    assert not log.failures


def test_another_sheet_is_taken_when_it_is_chosen(page: Page, hub: Hub, log: Log) -> None:
    book, file = openpyxl.Workbook(), io.BytesIO()
    book.active.append(["See the other sheets."])
    for name, labels in (("This year", 2), ("Last year", 3)):
        sheet = book.create_sheet(name)
        sheet.append(["text", "label"])
        for i in range(60):
            sheet.append([f"about topic {i % labels} in sentence {i}", f"kind {i % labels}"])
    book.save(file)
    hub.repositories[("dataset", "some/answers")] = {"train.xlsx": file.getvalue()}
    page.set_viewport_size({"width": 390, "height": 844})
    load(page, "some/answers")
    expect(control(page, "sheet")).to_have_value("This year (found)")
    expect(control(page, "encoding")).to_have_count(0)
    labels = page.locator("#hub-report .own-classes li")
    expect(labels).to_have_count(2)
    choose(page, "sheet", "Sheet")  # the first: no table
    expect(page.locator("#hub-note .bad")).to_be_visible()
    expect(control(page, "sheet")).to_have_value("Sheet")
    choose(page, "sheet", "Last year")
    expect(labels).to_have_count(3)
    expect(page.get_by_label("Task", exact=True)).to_have_value("some/answers 2 (yours)")
    assert page.evaluate("document.documentElement.scrollWidth") == 390
    assert not log.failures
