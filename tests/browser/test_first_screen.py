"""The first thirty seconds: what is there at once, what is explained, how a finger meets it."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import pytest
from playwright.sync_api import Browser, BrowserContext, Page, Route, expect

from .conftest import SIZES, wait_for_state
from .test_own_table import csv_file, drop

Visit = Callable[..., Page]
# What one presses and is less than 44 px; a word that is explained within a sentence is none.
SMALL = """() => [...document.querySelectorAll(
        ".banner button, .guide button, .card :is(button, summary, input, select, textarea)")]
      .filter((e) => e.checkVisibility({ visibilityProperty: true })
        && !e.matches(".term, [aria-label*=Reset], .reset-button, [type=file]"))
      .map((e) => (e.matches("[type=checkbox], [type=radio]") ? e.closest("label") : e))
      .map((e) => [e.outerHTML.slice(0, 90), e.getBoundingClientRect()])
      .filter(([, box]) => box.width > 0 && Math.min(box.width, box.height) < 43.5)
      .map(([name, box]) => [name, box.width, box.height])"""
SEVERAL = [
    "r 1, α 16, 10 steps, 3 seeds",
    "r 8, α 16, 10 steps, seed 0",
    "r 8, α 16, 300 steps, seed 0",
    "r 8, α 64, 10 steps, seed 0",
    "full fine-tuning",
    "full fine-tuning (2)",
]


def test_the_view_is_kept_and_stands_in_the_link(visit: Visit, server: str) -> None:
    page = visit("view=simple")
    expect(page.locator("#more")).to_be_hidden()
    expect(page.locator(".set-method")).to_be_hidden()
    expect(page.locator(".form:has(> .set-method)")).to_be_hidden()  # nor is there a gap for it
    page.get_by_role("button", name="Full", exact=True).click()
    expect(page.locator("#more")).to_be_visible()
    assert "view=full" in page.url
    page.goto(f"{server}/")  # without the link: this visitor's choice
    expect(page.locator("#more")).to_be_visible()


@pytest.mark.parametrize("query", ["", "rank=2&steps=10&batch_size=4"])
def test_a_press_before_the_server_has_answered_waits_for_it(
    context: BrowserContext, server: str, query: str
) -> None:
    """Else the link's settings are not yet those of the controls, and the visitor has no name."""
    page = context.new_page()
    held: list[Route] = []
    page.route("**/queue/join*", lambda route: held.append(route))
    page.goto(f"{server}/?{query}", wait_until="commit")
    page.wait_for_selector("#start", state="attached")
    page.wait_for_function("window.LoraLab?.state.stands && !LoraLab.state.restored")
    assert page.evaluate("'loading' in document.documentElement.dataset") == bool(query)
    page.evaluate("document.getElementById('start').click()")
    for route in held:
        route.continue_()
    page.unroute("**/queue/join*")
    line = page.locator("#status .status-line")
    expect(line).to_contain_text("r 2:" if query else "r 8:")
    expect(page.locator("#rank output")).to_have_text("2" if query else "8")
    page.click("#stop")


def test_names_are_as_short_as_they_are_told_apart(visit: Visit) -> None:
    brief = visit().evaluate("(names) => LoraLab.brief(names)", SEVERAL)
    assert brief == [
        *("r 1", "r 8, α 16, 10 steps", "r 8, 300 steps", "r 8, α 64"),
        *("full fine-tuning", "full fine-tuning (2)"),
    ]


def test_a_phone_s_first_two_screens(browser: Browser, server: str) -> None:
    width, height = SIZES["phone"]
    context = browser.new_context(viewport={"width": width, "height": height})
    page = context.new_page()
    page.goto(server)
    page.wait_for_selector("#answer tbody tr")
    for part in (
        "#about .sample",
        "#drawing svg",
        "#numbers .percent",
        "#curves",
        "#text",
        "#answer .verdict",
    ):
        box = page.locator(part).first.bounding_box()
        assert box and box["y"] < 2 * height, part
    expect(page.locator("#start")).to_be_in_viewport()
    page.locator("#take").scroll_into_view_if_needed()
    expect(page.locator("#start")).to_be_in_viewport()
    context.close()


def test_a_term_is_explained_by_mouse_keyboard_and_finger(visit: Visit) -> None:
    page = visit("view=simple")
    tip = page.locator(".tip")
    expect(tip).to_be_hidden()
    term = page.locator('.banner .term[data-term="frozen"]')
    term.hover()
    expect(tip).to_have_text("Read in training and never changed.")
    page.mouse.move(600, 500)
    expect(tip).to_be_hidden()
    term.focus()
    expect(tip).to_be_visible()
    page.keyboard.press("Escape")
    expect(tip).to_be_hidden()


def test_the_guided_start_by_a_link_shows_the_box_on_a_phone(browser: Browser, server: str) -> None:
    context = browser.new_context(
        viewport={"width": 320, "height": 640}, has_touch=True, is_mobile=True
    )
    page = context.new_page()
    page.goto(f"{server}/?tour=1")
    expect(page.locator(".guide")).to_contain_text("1 of 7")
    page.wait_for_function(  # above the card, where one can write
        """() => document.querySelector("#text textarea").getBoundingClientRect().bottom
             <= document.querySelector(".guide").getBoundingClientRect().top"""
    )
    expect(page.locator("#text textarea")).to_be_in_viewport()
    context.close()


def test_the_guided_start(visit: Visit) -> None:
    page = visit("view=simple&tour=1&steps=10&batch_size=4")
    guide = page.locator(".guide")
    expect(guide).to_contain_text("1 of 7")
    page.fill("#text textarea", "see you tonight")
    expect(guide).to_have_class("guide done")
    guide.get_by_role("button", name="Next").click()
    page.locator("#about .sample").first.click()
    expect(guide).to_have_class("guide done")
    guide.get_by_role("button", name="Next").click()
    page.get_by_role("slider", name="Rank r").press("ArrowRight")
    expect(guide).to_have_class("guide done")
    guide.get_by_role("button", name="Leave").click()
    expect(guide).to_be_hidden()
    assert "tour" not in page.url
    page.click("#guide-start")
    expect(guide).to_contain_text("1 of 7")
    page.keyboard.press("Escape")
    expect(guide).to_be_hidden()


@pytest.mark.parametrize("width", [320, 390])
def test_targets_are_as_large_as_a_thumb(browser: Browser, server: str, width: int) -> None:
    context = browser.new_context(
        viewport={"width": width, "height": 800}, has_touch=True, is_mobile=True
    )
    page = context.new_page()
    page.goto(server)
    page.wait_for_selector("#answer tbody tr")
    assert page.evaluate(SMALL) == []
    thumb = page.locator("#strength input[type=range]").bounding_box()  # at both ends, too
    assert thumb and thumb["x"] >= 0 and thumb["x"] + thumb["width"] <= width
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    context.close()


@pytest.mark.parametrize("width", [320, 390])
def test_what_is_opened_is_as_large_as_a_thumb_too(
    browser: Browser, server: str, width: int, tmp_path: Path
) -> None:
    """The layers' cells, the settings in the fold, a file that was dropped and how it is read."""
    context = browser.new_context(
        viewport={"width": width, "height": 800}, has_touch=True, is_mobile=True
    )
    page = context.new_page()
    page.goto(f"{server}/?view=full&steps=10&batch_size=4&tour=1")
    expect(page.locator(".guide")).to_contain_text("1 of 7")
    assert page.evaluate(SMALL) == []
    page.locator(".guide").get_by_role("button", name="Leave").click()
    page.click("#start")
    wait_for_state(page, "finished")
    expect(page.locator(".lab-part .cell").first).to_be_visible()
    page.click("#more button")
    expect(page.get_by_label("Seed", exact=True)).to_be_visible()
    drop(page, csv_file(tmp_path, "mine.csv"))
    expect(page.locator("#own-reading input").first).to_be_visible()
    assert page.evaluate(SMALL) == []
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    context.close()


def test_figures_for_experts_are_one_level_down(visit: Visit) -> None:
    page = visit("view=simple&steps=10&batch_size=4")
    page.click("#start")
    wait_for_state(page, "finished")
    detail = page.locator("#status .status-detail")
    expect(detail).to_have_text(re.compile("best weights, of step"))
    expect(detail).to_be_hidden()
    page.get_by_role("button", name="Full", exact=True).click()
    expect(detail).to_be_visible()


def test_a_text_in_another_script_is_answered_with_a_doubt(visit: Visit) -> None:
    page = visit("view=simple")
    doubt = page.get_by_text("taught English only")
    expect(doubt).to_be_hidden()
    page.fill("#text textarea", "Привет, встретимся вечером?")
    expect(doubt).to_be_visible()
    page.fill("#text textarea", "see you tonight")
    expect(doubt).to_be_hidden()
