"""Fifty reloads and closed tabs in a real browser while a run trains: is it found again each time?

    python -m tests.benchmarks.reloads --times 50

At random: a reload, a closed tab and a new one, or a second tab beside the first. Each time the
page must show the run again by itself. At the end the run is stopped, and its curve must have no
gap from its first point to its last (of a long run the page draws every second step, or fewer).
"""

from __future__ import annotations

import argparse
import random
import sys

from playwright.sync_api import Page, sync_playwright
from playwright.sync_api import TimeoutError as NotFound

from tests.benchmarks.served import server
from tests.browser.conftest import FLAGS, chromium_path
from tests.servers import free_port

RUNNING = '#status .lab-status[data-state="running"]'
STOPPED = '#status .lab-status[data-state="stopped"]'
STEPS = """() => [...document.querySelector("#curves .plot").data
    .find((trace) => trace.uid && trace.uid.endsWith("-raw")).x]"""


def main() -> int:
    """The command line; 0 when the run was found each time."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--times", type=int, default=50, help="how often (default 50)")
    times = parser.parse_args().times
    chance, recovered = random.Random(0), 0
    done = {"reload": 0, "new tab": 0, "second tab": 0}
    with server(free_port()) as (url, _), sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium_path(), args=FLAGS)
        context = browser.new_context()
        context.set_default_timeout(60_000)
        page: Page = context.new_page()
        page.goto(f"{url}/?steps=1000&batch_size=64&rank=2")
        page.wait_for_selector("#curves .main-svg")
        page.wait_for_function("localStorage.getItem('lora-lab-visitor') !== null")
        page.click("#start")
        page.wait_for_selector(RUNNING)
        for _ in range(times):
            what = chance.choice(list(done))
            if what == "reload":
                page.reload()
            else:
                before, page = page, context.new_page()
                if what == "new tab":
                    before.close()
                page.goto(url)
                if what == "second tab":
                    before.close()
            try:
                page.wait_for_selector(RUNNING)
            except NotFound:
                continue
            recovered += 1
            done[what] += 1
        page.click("#stop")
        page.wait_for_selector(STOPPED)
        steps = page.evaluate(STEPS)
        apart = steps[0]
        whole = steps == list(range(apart, apart * len(steps) + 1, apart))
        browser.close()
    print(f"the run was found again {recovered} of {times} times: {done}")
    print(f"its curve has {len(steps)} points, {apart} steps apart, without a gap: {whole}")
    return int(recovered != times or not whole)


if __name__ == "__main__":
    sys.exit(main())
