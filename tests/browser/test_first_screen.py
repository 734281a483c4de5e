"""The first thirty seconds: what is there at once, what is explained, how a finger meets it."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from playwright.sync_api import Browser, BrowserContext, Page, Route, expect

from .conftest import SIZES

Visit = Callable[..., Page]
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
    small = page.evaluate(
        """() => [...document.querySelectorAll(
            ".banner button, .card :is(button, summary, input[type=range])")]
          .filter((e) => e.offsetParent && !e.matches(".term, [aria-label*=Reset], .reset-button"))
          .map((e) => [e.outerHTML.slice(0, 90), e.getBoundingClientRect()])
          .filter(([, box]) => Math.min(box.width, box.height) < 43.5)
          .map(([name, box]) => [name, box.width, box.height])"""
    )
    assert small == []
    thumb = page.locator("#strength input[type=range]").bounding_box()  # at both ends, too
    assert thumb and thumb["x"] >= 0 and thumb["x"] + thumb["width"] <= width
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    context.close()
