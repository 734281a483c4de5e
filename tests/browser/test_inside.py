"""Step 4 in a browser: every layer's bar, one layer's figures, and the digests."""

from __future__ import annotations

import json
from collections.abc import Callable

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Page, Route, expect

import lora_core as lc
from lora_core.explain.changes import layer_changes

from .conftest import PATIENCE, Log, come_to_rest

Visit = Callable[..., Page]
Trained = tuple[Page, Log]


def digests(page: Page) -> list[str]:
    page.click("#proof .toggle")
    shown = page.locator("#proof code").all_inner_texts()
    page.click("#proof .toggle")
    return [text.replace(" ", "") for text in shown]


def test_before_training(visit: Visit, base: lc.Base) -> None:
    page = visit()
    assert digests(page)[0] == base.digest()
    size = sum(p.numel() for p in base.model.parameters())
    expect(page.locator("#proof .proof-line")).to_contain_text(f"{size:,} numbers")
    expect(page.locator("#layers .hint")).to_contain_text("every change A·B is zero")
    assert set(page.locator("#layers .share").all_inner_texts()) == {"0 %"}


def test_after_lora(trained: Trained, base: lc.Base, twin: lc.Classifier) -> None:
    page, log = trained
    # Claim 2: what is frozen has not changed by one bit, seen from another process.
    expect(page.locator("#proof .sign")).to_have_text("=")
    expect(page.locator("#proof .proof-line")).to_contain_text("not one bit differs")
    assert digests(page) == [base.digest(), base.digest()]

    # The bars are those of the same run, trained here.
    expected = {c.name: c.ratio for c in layer_changes(twin)}
    cells = page.locator("#layers .cell")
    shown = {
        cell.get_attribute("data-name"): float(cell.locator(".share").inner_text().rstrip(" %"))
        / 100
        for cell in cells.all()
    }
    assert shown == {name: pytest.approx(ratio, rel=0.1) for name, ratio in expected.items()}

    # One layer by keyboard: the pressed cell moves, and the figures follow.
    pressed = page.locator("#layers .cell[aria-pressed=true]")
    assert pressed.get_attribute("data-name") == max(shown, key=lambda n: shown[n])
    cells.first.click()
    expect(page.locator("#layer h3")).to_contain_text("block 0, query")
    page.keyboard.press("ArrowRight")
    expect(page.locator("#layer h3")).to_contain_text("block 1, query")
    page.keyboard.press("ArrowDown")
    expect(page.locator("#layer h3")).to_contain_text("block 1, key")
    assert page.locator("#layers .cell[tabindex='0']").count() == 1
    assert page.locator("#layer .bars i").count() == 4, "a singular value a rank"
    expect(page.locator("#layer .spoken")).to_contain_text("of 4 directions are in use")
    ends = page.locator("#layer .ramp span").all_inner_texts()
    assert ends[0][0] == "−" and ends[1] == f"+{ends[0][1:]}"
    pixels = page.evaluate(
        """() => { const c = document.querySelector("#layer canvas");
             const d = c.getContext("2d").getImageData(0, 0, c.width, c.height).data;
             return JSON.stringify([c.width, c.height, new Set(d).size]); }"""
    )
    width, height, colours = json.loads(pixels)
    assert (width, height) == (64, 64) and colours > 50, "a picture, not an empty canvas"
    assert not log.console


def test_the_layer_pressed_last_is_shown_by_a_busy_server(trained: Trained) -> None:
    """The first answer is held back while two more are pressed."""
    page, _ = trained
    asked = "**/gradio_api/run/predict*"
    cells, shown = page.locator("#layers .cell"), page.locator("#layer h3")
    cells.nth(3).click()
    expect(shown).to_contain_text("block 3, query")
    held: list[Route] = []
    page.route(asked, lambda route: route.continue_() if held else held.append(route))
    with page.expect_request(asked):
        cells.nth(0).click()
    cells.nth(1).click()
    cells.nth(2).click()
    held[0].continue_()
    expect(shown).to_contain_text("block 2, query")
    page.unroute(asked)
    page.wait_for_load_state("networkidle")
    expect(shown).to_contain_text("block 2, query")
    expect(cells.nth(2)).to_have_attribute("aria-pressed", "true")


@pytest.mark.parametrize(
    ("method", "proof", "layers"),
    [
        ("head", "not one bit differs", "Only the classification head was trained"),
        ("full", "trained a copy of all", "Most in "),
    ],
)
def test_other_methods(visit: Visit, base: lc.Base, method: str, proof: str, layers: str) -> None:
    page = visit(f"steps=10&batch_size=8&method={method}")
    page.click("#start")
    page.wait_for_selector("#judged h3:visible", timeout=5 * PATIENCE)
    expect(page.locator("#proof .proof-line")).to_contain_text(proof)
    expect(page.locator("#layers .hint").first).to_contain_text(layers)
    assert digests(page) == [base.digest(), base.digest()]


@pytest.mark.parametrize("dark", [False, True])
def test_axe(trained: Trained, dark: bool) -> None:
    page, _ = trained
    page.evaluate("(dark) => document.body.classList.toggle('dark', dark)", dark)
    page.evaluate(
        """document.querySelectorAll("#evidence-card details, #inside details")
             .forEach((d) => { d.open = true; })"""
    )
    come_to_rest(page)
    for part in ("#classify", "#evidence-card", "#inside"):
        violations = Axe().run(page, context=part).response["violations"]
        ours = [(v["id"], [n["html"][:120] for n in v["nodes"]]) for v in violations]
        assert ours == []
