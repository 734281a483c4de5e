"""The pictures of the README and of a shared link, taken of the real page after a real run.

    python -m tests.browser.pictures

Starts the app, fine-tunes with the defaults, takes the pictures, and ends it: some minutes.
"""

from __future__ import annotations

import contextlib

from playwright.sync_api import Page, sync_playwright

from tests.servers import served

from .conftest import FLAGS, ROOT, chromium_path

PICTURES = ROOT / "assets" / "pictures"
SOCIAL = ROOT / "assets" / "page" / "social.png"
PATIENCE = 1_800_000  # milliseconds


def finish(page: Page, runs: int) -> None:
    """Until so many runs are done, and every card below them shows the last one."""
    page.wait_for_function(
        "(n) => [...document.querySelectorAll('#runs tbody tr')]"
        ".filter((row) => row.lastChild.textContent === 'done').length >= n",
        arg=runs,
        timeout=PATIENCE,
    )
    page.wait_for_selector("#judged h3:visible", timeout=PATIENCE)
    page.wait_for_selector("#inside .cell", timeout=PATIENCE)
    page.wait_for_selector("#take .shelf-remove >> nth=" + str(runs - 1), timeout=PATIENCE)
    page.wait_for_timeout(4000)


def main() -> None:
    """Take them all."""
    PICTURES.mkdir(exist_ok=True)
    with contextlib.ExitStack() as stack:
        address = stack.enter_context(served()).address
        playwright = stack.enter_context(sync_playwright())
        browser = playwright.chromium.launch(executable_path=chromium_path(), args=FLAGS)
        page = browser.new_page(viewport={"width": 1280, "height": 800})
        page.goto(f"{address}/?__theme=light")
        page.wait_for_selector("#curves .main-svg", timeout=PATIENCE)
        page.click("#start")
        finish(page, 1)
        page.screenshot(path=PICTURES / "page.png")
        page.set_viewport_size({"width": 1280, "height": 672})  # 1.9 : 1, as link previews are
        page.wait_for_timeout(2000)
        page.screenshot(path=SOCIAL)
        page.set_viewport_size({"width": 1280, "height": 800})
        page.click("#theme")
        page.wait_for_timeout(2000)
        page.screenshot(path=PICTURES / "page-dark.png")
        page.click("#theme")
        page.set_viewport_size({"width": 390, "height": 844})
        page.wait_for_timeout(2000)
        page.screenshot(path=PICTURES / "phone.png")
        page.set_viewport_size({"width": 1280, "height": 800})
        page.click('.view-choice[data-view="full"]')
        page.wait_for_timeout(1000)
        cards = {"classify": "#evidence-card", "inside": "#inside", "take": "#take"}
        for name, card in cards.items():
            page.locator(card).screenshot(path=PICTURES / f"{name}.png")
        page.click("#sweep")
        finish(page, 6)
        page.locator("#finetune").screenshot(path=PICTURES / "sweep.png")
        page.locator("#compare").screenshot(path=PICTURES / "compare.png")
        browser.close()


if __name__ == "__main__":
    main()
