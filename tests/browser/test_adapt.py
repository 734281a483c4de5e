"""Step 1 in a browser: what is shown is what the model object says."""

from __future__ import annotations

import re
from collections.abc import Callable

from playwright.sync_api import Page, expect

import lora_core as lc
from lora_core.ui.names import layer_name
from lora_core.ui.settings import Settings
from lora_core.ui.text import words

Visit = Callable[..., Page]


def counted(base: lc.Base, settings: Settings) -> lc.ParameterCount:
    model = base.classifier_model(2, share=settings.method != "full")
    if settings.method == "lora":
        lc.inject_lora(model, settings.lora_config())
    elif settings.method == "head":
        model.requires_grad_(False)
        model.head.requires_grad_(True)
    return lc.count_parameters(model)


def headline(page: Page) -> tuple[str, str, str]:
    """(percent, trainable, total) as shown."""
    return (
        page.inner_text("#numbers .percent").replace("\u00a0", " "),
        page.inner_text("#numbers .counts b"),
        page.inner_text("#numbers .counts .frozen-ink"),
    )


def as_shown(count: lc.ParameterCount) -> tuple[str, str, str]:
    return words.percent(count.percent), f"{count.trainable:,}", f"{count.total:,}"


def test_the_numbers_follow_the_slider_at_once(visit: Visit, base: lc.Base) -> None:
    page = visit()
    assert headline(page) == as_shown(counted(base, Settings()))
    page.focus("#rank input")
    for rank in (16, 32, 64):
        # Measured in the page: from the key to the new number, without leaving the browser.
        shown = page.evaluate(
            """() => new Promise((done) => {
              const input = document.querySelector("#rank input");
              const start = performance.now();
              input.value = Number(input.value) + 1;
              input.dispatchEvent(new Event("input", { bubbles: true }));
              requestAnimationFrame(() => done([
                document.querySelector("#numbers .counts b").textContent,
                performance.now() - start]));
            })"""
        )
        assert shown[0] == f"{counted(base, Settings(rank=rank)).trainable:,}"
        assert page.inner_text("#rank output") == str(rank)


def test_drawing_is_to_scale_and_follows_rank_and_alpha(visit: Visit) -> None:
    page = visit()

    def box(name: str) -> dict[str, float]:
        attributes = ("x", "y", "width", "height")
        rect = page.locator(f"#drawing .m-{name}")
        return {a: float(rect.get_attribute(a) or "nan") for a in attributes}

    W, A, B = box("W"), box("A"), box("B")
    assert abs(A["width"] / W["width"] - 8 / 256) < 0.01 and A["height"] == W["height"]
    assert abs(B["height"] / W["height"] - 8 / 256) < 0.01 and B["width"] == W["width"]
    page.focus("#rank input")
    page.keyboard.press("End")
    assert abs(box("A")["width"] / box("W")["width"] - 64 / 256) < 0.01
    expect(page.locator("#drawing .scale")).to_contain_text("α / r = 16 / 64 = 0.25")
    page.focus("#alpha input")
    page.keyboard.press("End")
    expect(page.locator("#drawing .scale")).to_contain_text("α / r = 128 / 64 = 2")
    expect(page.locator("#drawing .t-times")).to_have_text("2 ×")
    page.select_option("#drawing-layer", "mlp.up")
    label = page.get_attribute("#drawing svg", "aria-label") or ""
    assert "256 by 1,024" in label and "81,920 numbers" in label


def test_methods(visit: Visit, base: lc.Base) -> None:
    page = visit()
    for label, method in (("Full", "full"), ("Head only", "head"), ("LoRA", "lora")):
        page.get_by_label(label, exact=True).check()
        wanted = as_shown(counted(base, Settings(method=method)))
        expect(page.locator("#numbers .counts b")).to_have_text(wanted[1])
        assert headline(page) == wanted
        assert page.locator("#rank input").is_disabled() == (method != "lora")


def test_more_settings_change_the_numbers(visit: Visit, base: lc.Base) -> None:
    page = visit()
    page.get_by_role("button", name="More settings").click()
    for name in ("key", "attention output", "MLP up", "word pieces"):
        page.get_by_label(name, exact=True).uncheck()
    settings = Settings(targets=("query", "value", "mlp.down"))
    wanted = as_shown(counted(base, settings))
    expect(page.locator("#numbers .counts b")).to_have_text(wanted[1])
    page.wait_for_function("location.search.includes('targets=query,value,mlp.down')")
    page.get_by_label("Frozen, with LoRA").check()
    expect(page.locator("#numbers .warning")).to_contain_text("larger than what it adapts")
    for name in ("query", "value", "MLP down"):
        page.get_by_label(name, exact=True).uncheck()
    page.get_by_label("Train in full").check()
    expect(page.locator("#numbers .warning")).to_contain_text("at least one layer")


def test_any_layer_is_drawn_with_its_name_and_the_present_base_s_shape(visit: Visit) -> None:
    page = visit("base=gpt2")
    picker = page.locator("#drawing-layer")
    expect(picker.locator("option")).to_contain_text(["query, 768 × 768"])
    picker.select_option("token_embedding")
    expect(picker.locator("option:checked")).to_have_text("word pieces, 50257 × 768")
    expect(page.locator("#drawing .t-wcap")).to_contain_text("50257 × 768 = 38,597,376")
    frame = page.locator("#drawing svg.layer").bounding_box()
    assert frame is not None
    for name in ("W", "A", "B", "AB", "wcap", "abcap"):  # nothing is cut off at the edge
        box = page.locator(f"#drawing .t-{name}").bounding_box()
        assert box and frame["x"] - 1 <= box["x"], name
        assert box["x"] + box["width"] <= frame["x"] + frame["width"] + 1, name


def test_every_layer_on_demand(visit: Visit, base: lc.Base) -> None:
    page = visit()
    page.click("#numbers details.layers summary")
    rows = page.locator("#numbers tbody tr")
    count = counted(base, Settings())
    expect(rows).to_have_count(len(count.by_module))
    for index, (name, layer) in enumerate(count.by_module.items()):
        cells = rows.nth(index).locator("th, td").all_inner_texts()
        assert cells[0] == layer_name(name) and cells[2:] == [
            f"{layer.frozen:,}",
            f"{layer.trainable:,}",
        ]


def test_the_address_holds_the_settings_and_reset_brings_defaults(
    visit: Visit, base: lc.Base
) -> None:
    page = visit()
    page.focus("#rank input")
    page.keyboard.press("Home")
    page.get_by_label("Full", exact=True).check()
    page.wait_for_function("location.search.includes('rank=1')")
    page.wait_for_function("location.search.includes('method=full')")
    link = page.url.split("?", 1)[1]
    again = visit(link)
    expect(again.locator("#rank output")).to_have_text("1")
    expect(again.get_by_label("Full", exact=True)).to_be_checked()
    again.click("#reset")
    expect(again.locator("#rank output")).to_have_text("8")
    expect(again.get_by_label("LoRA", exact=True)).to_be_checked()
    expect(again.locator("#numbers .counts b")).to_have_text(as_shown(counted(base, Settings()))[1])
    again.wait_for_function("location.search === '?view=full'")


def test_a_link_may_hold_any_rank(visit: Visit, base: lc.Base) -> None:
    page = visit("rank=3&alpha=1.5")
    expect(page.locator("#rank output")).to_have_text("3")
    settings = Settings(rank=3, alpha=1.5)
    expect(page.locator("#numbers .counts b")).to_have_text(as_shown(counted(base, settings))[1])
    expect(page.locator("#drawing .scale")).to_contain_text("= 0.5")


def test_a_broken_link_says_so_and_works(visit: Visit) -> None:
    page = visit("rank=lots")
    expect(page.get_by_text(re.compile("must be a number"))).to_be_visible()
    expect(page.locator("#rank output")).to_have_text("8")


def test_a_link_beyond_a_slider_says_so_and_works(visit: Visit, base: lc.Base) -> None:
    page = visit("batch_size=400&rank=4")
    expect(page.get_by_text(re.compile("asks for 400 where"))).to_be_visible()
    page.get_by_label("Full", exact=True).check()
    wanted = as_shown(counted(base, Settings(method="full")))
    expect(page.locator("#numbers .counts b")).to_have_text(wanted[1])
