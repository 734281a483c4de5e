"""How soon the page is there: first contentful paint, first usable slider, the charts.

    python -m tests.benchmarks.page [--times 5]

On loopback, in the machine's own Chromium, cold (a new browser profile each time) and warm (the
same profile again). A slider is usable when it is seen and moving it changes the number
beside it.
"""

from __future__ import annotations

import argparse
import contextlib
import statistics

from playwright.sync_api import BrowserContext, sync_playwright

from tests.browser.conftest import FLAGS, chromium_path
from tests.servers import served

_MARKS = ("first contentful paint", "first usable slider", "charts drawn")
# Asked at each frame, from before the page's own scripts.
_WATCH = """
window.marks = {};
const look = () => {
  const slider = document.querySelector("#rank input");
  const shown = document.querySelector("#numbers .counts b");
  const seen = slider && getComputedStyle(slider).visibility === "visible";
  if (seen && shown?.textContent && !marks.slider) {
    const before = shown.textContent;
    slider.value = Number(slider.value) + 1;
    slider.dispatchEvent(new Event("input", { bubbles: true }));
    if (shown.textContent !== before) marks.slider = performance.now();
  }
  if (document.querySelector("#curves .main-svg")) marks.charts = performance.now();
  if (!marks.charts || !marks.slider) requestAnimationFrame(look);
};
requestAnimationFrame(look);
"""


def visit(context: BrowserContext, address: str) -> list[float]:
    """Milliseconds from the start of the navigation to each of `_MARKS`."""
    page = context.new_page()
    page.add_init_script(_WATCH)
    page.goto(address)
    page.wait_for_function("window.marks?.slider && window.marks?.charts", timeout=120_000)
    paint = "performance.getEntriesByName('first-contentful-paint')[0].startTime"
    made = [page.evaluate(paint), *page.evaluate("[marks.slider, marks.charts]")]
    page.close()
    return made


def main() -> None:
    """Print the medians."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--times", type=int, default=5)
    times = parser.parse_args().times
    cold, warm = [], []
    with contextlib.ExitStack() as stack:
        address = stack.enter_context(served()).address
        playwright = stack.enter_context(sync_playwright())
        for _ in range(times):
            browser = playwright.chromium.launch(executable_path=chromium_path(), args=FLAGS)
            context = browser.new_context(viewport={"width": 1280, "height": 800})
            cold.append(visit(context, address))
            warm.append(visit(context, address))
            browser.close()
    for title, rows in (("cold", cold), ("warm", warm)):
        medians = [statistics.median(column) for column in zip(*rows, strict=True)]
        named = zip(_MARKS, medians, strict=True)
        print(f"{title}: " + ", ".join(f"{name} {value:,.0f} ms" for name, value in named))


if __name__ == "__main__":
    main()
