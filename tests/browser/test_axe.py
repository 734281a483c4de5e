"""axe-core looks at the page in its states: nothing of ours keeps anybody out."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, Page, expect

from .conftest import come_to_rest, wait_for_state
from .test_own_table import csv_file, drop

Visit = Callable[..., Page]
THEMES = ("light", "dark")
RULES = {"runOnly": ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa"]}


def complaints(page: Page) -> list[tuple[str, str, str]]:
    """(rule, target, what to do), of the page as it stands once nothing moves any more."""
    page.wait_for_load_state("networkidle")
    come_to_rest(page)
    return [
        (v["id"], str(node["target"]), node.get("failureSummary", "")[:300])
        for v in Axe().run(page, options=RULES).response["violations"]
        for node in v["nodes"]
    ]


@pytest.mark.parametrize("theme", THEMES)
def test_of_a_run_and_all_folds(visit: Visit, theme: str) -> None:
    page = visit(f"__theme={theme}&steps=10&batch_size=4")
    page.click("#start")
    wait_for_state(page, "finished")
    for fold in page.locator("details.fold > summary:visible").all():
        fold.click()
    page.click("#more button")
    expect(page.get_by_label("Seed", exact=True)).to_be_visible()
    assert complaints(page) == []


@pytest.mark.parametrize("theme", THEMES)
def test_of_a_table_of_ones_own(visit: Visit, theme: str, tmp_path: Path) -> None:
    page = visit(f"__theme={theme}&view=simple")
    drop(page, csv_file(tmp_path, "mine.csv", labels=24))
    expect(page.locator("#own-report div.own-classes > ul > li")).to_have_count(24)
    assert complaints(page) == []
    page.click("#own-use")
    expect(page.locator("#own-report .own-done")).to_be_visible()
    expect(page.locator("#answer .others")).to_be_visible()
    page.click("#answer .others")
    assert complaints(page) == []


@pytest.mark.parametrize("theme", THEMES)
def test_of_a_phone_with_the_tour(browser: Browser, server: str, theme: str) -> None:
    context = browser.new_context(
        viewport={"width": 390, "height": 844}, has_touch=True, is_mobile=True
    )
    page = context.new_page()
    page.goto(f"{server}/?tour=1&__theme={theme}")
    expect(page.locator(".guide")).to_contain_text("1 of 7")
    assert complaints(page) == []
    page.click(".guide-next")
    page.locator("#about .sample").first.click()
    expect(page.locator(".guide")).to_have_class("guide done")
    assert complaints(page) == []
    context.close()
