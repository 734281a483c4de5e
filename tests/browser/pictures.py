"""The picture of the README and that of a shared link, taken of the real page after a real run.

    python -m tests.browser.pictures

Starts the app, fine-tunes with the defaults, takes both, and ends it: some minutes.
"""

from __future__ import annotations

import contextlib

from playwright.sync_api import Page, sync_playwright

from tests.servers import served

from .conftest import FLAGS, ROOT, chromium_path

PICTURES = ROOT / "assets" / "pictures"
SOCIAL = ROOT / "assets" / "page" / "social.png"
PATIENCE = 1_800_000  # milliseconds


def finish(page: Page) -> None:
    """Until the run is done, and every card below shows it."""
    page.wait_for_selector('#status .lab-status[data-state="finished"]', timeout=PATIENCE)
    page.wait_for_selector("#judged h3:visible", timeout=PATIENCE)
    page.wait_for_selector("#inside .cell", timeout=PATIENCE)
    page.wait_for_selector("#take .shelf-remove", timeout=PATIENCE)
    page.wait_for_timeout(4000)


def main() -> None:
    """Take both."""
    PICTURES.mkdir(exist_ok=True)
    with contextlib.ExitStack() as stack:
        address = stack.enter_context(served()).address
        playwright = stack.enter_context(sync_playwright())
        browser = playwright.chromium.launch(executable_path=chromium_path(), args=FLAGS)
        page = browser.new_page(viewport={"width": 1280, "height": 800})
        page.goto(f"{address}/?__theme=light")
        page.wait_for_selector("#curves .main-svg", timeout=PATIENCE)
        page.click("#start")
        finish(page)
        page.screenshot(path=PICTURES / "page.png")
        page.set_viewport_size({"width": 1280, "height": 672})  # 1.9 : 1, as link previews are
        page.wait_for_timeout(2000)
        page.screenshot(path=SOCIAL)
        browser.close()


if __name__ == "__main__":
    main()
