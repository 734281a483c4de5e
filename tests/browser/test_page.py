"""The page as a whole: nothing leaves the machine, nothing is clipped, everybody can use it."""

from __future__ import annotations

import re
from collections.abc import Callable
from urllib.parse import urljoin, urlsplit

import pytest
from playwright.sync_api import Browser, Page, expect

from .conftest import PATIENCE, SIZES, Log, wait_for_state

Visit = Callable[..., Page]
QUESTIONS = {
    "What is frozen?": "Frozen is blue",
    "What do rank and alpha each do?": "Alpha",
    "Why does step 0 equal the base?": "starts at zero",
    "What does a bigger rank cost, and what does it buy?": "Once merged",
}
THEMES = ("light", "dark")


def settle(page: Page) -> None:
    """Until what the page does by itself after loading is done."""
    page.wait_for_load_state("networkidle")
    page.wait_for_timeout(500)


def test_nothing_leaves_the_machine_and_nothing_complains(
    visit: Visit, server: str, log: Log
) -> None:
    page = visit("steps=10&batch_size=4")
    page.click("#start")
    wait_for_state(page, "finished")
    page.click("#theme")
    page.click("#more button")
    settle(page)
    home = urlsplit(server).netloc
    strangers = [
        url
        for url in log.requests
        if urlsplit(url).scheme not in ("data", "blob") and urlsplit(url).netloc != home
    ]
    assert strangers == []
    assert log.failures == []
    assert log.console == []


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("theme", THEMES)
def test_nothing_is_clipped(visit: Visit, size: str, theme: str) -> None:
    page = visit(f"__theme={theme}")
    width, height = SIZES[size]
    page.set_viewport_size({"width": width, "height": height})
    settle(page)
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    # No element with words of its own has them cut off, unless it scrolls or says so with dots.
    cut = page.evaluate(
        """() => [...document.querySelectorAll(".card *, .banner *")].filter((e) => {
          const style = getComputedStyle(e);
          const words = [...e.childNodes].some((n) => n.nodeType === 3 && n.textContent.trim());
          if (!words || !e.offsetParent || e.closest(".visually-hidden, svg, math")) return false;
          const hides = ["hidden", "clip"].includes(style.overflowX);
          return hides && style.textOverflow !== "ellipsis" && e.scrollWidth > e.clientWidth + 1;
        }).map((e) => e.outerHTML.slice(0, 120))"""
    )
    assert cut == []
    outside = page.evaluate(
        """() => [...document.querySelectorAll(".card *")].filter((e) => {
          const box = e.getBoundingClientRect();
          return box.width && !e.closest(".scroll, .visually-hidden, .modebar, [aria-hidden]")
            && (box.right > innerWidth + 1 || box.left < -1);
        }).map((e) => e.outerHTML.slice(0, 120))"""
    )
    assert outside == []


def test_the_first_three_steps_are_above_the_fold(visit: Visit) -> None:
    page = visit("view=simple")
    settle(page)
    for card in ("#adapt", "#finetune", "#classify"):
        box = page.locator(card).bounding_box()
        assert box is not None and box["y"] + box["height"] <= SIZES["laptop"][1], card


def test_the_first_visit_shows_something(visit: Visit) -> None:
    page = visit()
    settle(page)
    assert "%" in page.inner_text("#numbers .percent")
    expect(page.locator("#curves .plot")).to_contain_text("pure guessing: 0.693")
    expect(page.locator("#runs tbody tr")).to_have_count(5)
    expect(page.locator("#status .status-line")).to_contain_text("Nothing is trained")
    expect(page.locator("#classify")).to_contain_text(re.compile(r"base", re.I))


def test_the_five_questions_are_answered(visit: Visit) -> None:
    page = visit()
    for question, answer in QUESTIONS.items():
        page.get_by_text(question, exact=True).click()
        fold = page.locator("details.question", has_text=question)
        expect(fold.locator(".answer")).to_be_visible()
        expect(fold).to_contain_text(answer)
    links = page.locator("details.question .answer a").evaluate_all(
        "(all) => all.map((a) => a.href)"
    )
    assert "https://arxiv.org/abs/2106.09685" in links
    assert page.locator("details.question math").count() >= 3


def test_everything_can_be_reached_by_keyboard(visit: Visit) -> None:
    page = visit()
    page.click("h1")
    seen: list[str] = []
    for _ in range(160):
        page.keyboard.press("Tab")
        seen.append(
            page.evaluate(
                """() => { const e = document.activeElement;
                  const style = getComputedStyle(e);
                  const ids = [];
                  for (let at = e; at; at = at.parentElement) if (at.id) ids.push(at.id);
                  return `${ids.join(" ")}|${style.outlineStyle}`; }"""
            )
        )
    names = {name for entry in seen for name in entry.split("|")[0].split()}
    for name in (
        "guide-start",
        "view",
        "reset",
        "copy",
        "theme",
        "notch-rank",
        "notch-alpha",
        "start",
        "sweep",
    ):
        assert name in names, (name, seen)


def test_copying_the_link_twice_leaves_the_button_its_name(visit: Visit) -> None:
    page = visit()
    button = page.locator("#copy")
    expect(button).to_have_text("Copy link")
    button.click()
    expect(button).not_to_have_text("Copy link")
    button.click()
    expect(button).to_have_text("Copy link", timeout=PATIENCE)


def test_no_layout_shift_while_numbers_change(visit: Visit) -> None:
    page = visit("steps=20&batch_size=4")
    settle(page)
    page.evaluate(
        """() => { window.shifts = [];
          new PerformanceObserver((list) => { for (const e of list.getEntries())
            window.shifts.push([e.value, e.sources.map((s) => s.node?.className ?? "")]); })
          .observe({ type: "layout-shift" }); }"""
    )
    page.focus("#rank input")
    for key in ("ArrowRight", "ArrowRight", "ArrowRight", "Home"):
        page.keyboard.press(key)
        page.wait_for_timeout(250)
    page.click("#start")
    wait_for_state(page, "finished")
    total = page.evaluate("window.shifts.reduce((sum, s) => sum + s[0], 0)")
    assert total < 0.02, page.evaluate("window.shifts")


# Before anything is drawn: every layout shift that nobody asked for, and what moved.
WATCH_SHIFTS = """
window.shifts = [];
const place = (rect) => [rect.x, rect.y, rect.width, rect.height].map(Math.round).join(" ");
new PerformanceObserver((list) => {
  for (const shift of list.getEntries()) if (!shift.hadRecentInput)
    window.shifts.push([shift.value, shift.sources.map(({ node, previousRect, currentRect }) =>
      `${node?.id || node?.className || node?.parentElement?.className}: ` +
      `${place(previousRect)} -> ${place(currentRect)}`)]);
}).observe({ type: "layout-shift", buffered: true });
"""


def shifted(page: Page) -> float:
    """The sum of all shifts since the last call: no less than the standard's largest window."""
    shifts = page.evaluate("window.shifts.splice(0)")
    for shift in shifts:
        print(shift)  # shown where the test fails
    return float(sum(value for value, _ in shifts))


@pytest.mark.parametrize("view", ["simple", "full"])
@pytest.mark.parametrize("size", ["laptop", "phone"])
def test_nothing_jumps_while_it_loads_and_trains(
    browser: Browser, server: str, size: str, view: str
) -> None:
    width, height = SIZES[size]
    phone = size == "phone"
    context = browser.new_context(
        viewport={"width": width, "height": height}, has_touch=phone, is_mobile=phone
    )
    page = context.new_page()
    page.add_init_script(WATCH_SHIFTS)
    page.goto(f"{server}/?view={view}&steps=20&batch_size=4")
    page.wait_for_selector("#answer tbody tr")
    page.wait_for_selector("#curves .main-svg")
    settle(page)
    assert shifted(page) <= 0.02
    page.click("#start")
    wait_for_state(page, "finished")
    page.wait_for_selector("#judged h3:visible")
    settle(page)
    assert shifted(page) <= 0.02
    context.close()


def test_reduced_motion_is_respected(browser: Browser, server: str) -> None:
    context = browser.new_context(reduced_motion="reduce")
    page = context.new_page()
    page.goto(server)
    page.wait_for_selector("#drawing rect")
    moving = page.evaluate(
        """() => [...document.querySelectorAll(".card *")].filter((e) =>
          parseFloat(getComputedStyle(e).transitionDuration) > 0.01
          || parseFloat(getComputedStyle(e).animationDuration) > 0.01)
          .map((e) => e.outerHTML.slice(0, 100))"""
    )
    assert moving == []
    context.close()


def test_icon_name_and_social_picture(visit: Visit, server: str) -> None:
    page = visit()
    assert page.title() == "LoRA Lab"
    manifest = page.request.get(f"{server}/manifest.json").json()
    assert manifest["name"] == "LoRA Lab"
    for icon in manifest["icons"]:
        assert (
            page.request.get(urljoin(f"{server}/manifest.json", icon["src"])).headers[
                "content-type"
            ]
            == "image/png"
        )
    source = page.request.get(server).text()
    image = re.search(r'property="og:image" content="([^"]+)"', source)
    assert image and image[1].startswith(server)
    assert page.request.get(image[1]).headers["content-type"] == "image/png"
    assert 'content="Gradio"' not in source


def test_the_browser_would_install_it_as_an_app(visit: Visit, server: str) -> None:
    page = visit()
    asked = page.context.new_cdp_session(page)
    assert asked.send("Page.getAppManifest")["errors"] == []
    errors = asked.send("Page.getInstallabilityErrors")["installabilityErrors"]
    # The tests' browser keeps nothing, as a private window; else nothing may be missing.
    assert [e for e in errors if e["errorId"] != "in-incognito"] == []
    assert asked.send("Page.getAppId")["appId"] == f"{server}/"


def test_a_preset_fixes_and_hides_what_its_link_says(visit: Visit) -> None:
    page = visit("rank=4&steps=30&lock=rank,steps,task&hide=method,inside,sweep,more;x")
    slider = page.get_by_label("Rank r")
    expect(page.locator("#rank output")).to_have_text("4")
    expect(slider).to_be_disabled()
    expect(page.get_by_label("Task", exact=True)).to_be_disabled()
    expect(page.get_by_label("Alpha α")).to_be_enabled()
    for hidden in ("#inside", "#sweep", ".set-method"):
        expect(page.locator(hidden)).to_be_hidden()
    page.get_by_role("button", name="More settings").click()
    steps = page.get_by_label("Steps", exact=True)
    expect(steps).to_be_disabled()
    expect(steps).to_have_value("30")
    # The rest stays free, and neither a change nor the defaults undo the preset.
    page.get_by_label("Alpha α").press("ArrowRight")
    page.wait_for_function("location.search.includes('alpha=32')")
    assert "lock=rank,steps,task" in page.url and "hide=method" in page.url
    page.click("#reset")
    expect(page.locator("#alpha output")).to_have_text("16")
    expect(page.locator("#rank output")).to_have_text("4")
    expect(steps).to_have_value("30")


def test_figures_have_a_text_equivalent(visit: Visit) -> None:
    page = visit()
    figures = page.locator('[role="img"]:not([aria-hidden="true"])').all()
    assert len(figures) >= 6
    for figure in figures:
        expect(figure).to_have_attribute("aria-label", re.compile(".{16,}"))
