"""A page that nobody touches asks the server for nothing, whatever it did before."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from playwright.sync_api import Page, expect

from .conftest import ENDLESS, PATIENCE, Log, wait_for_state

Visit = Callable[..., Page]
QUIET = 6000  # milliseconds that are looked at
OFTEN = 20  # so many times; what was asked before comes late on a busy machine


def idle(page: Page, log: Log) -> list[str]:
    """What the page still asks for when it has had all the time to come to rest: nothing, if in one
    of the times that are looked at it asks for nothing."""
    for _ in range(OFTEN):
        log.requests.clear()
        page.wait_for_timeout(QUIET)
        if not log.requests:
            break
    return log.requests


def test_a_first_visit(visit: Visit, log: Log) -> None:
    assert idle(visit(), log) == []


@pytest.mark.parametrize("method", ["lora", "full", "head"])
def test_after_a_run(visit: Visit, log: Log, method: str) -> None:
    page = visit(f"steps=10&batch_size=4&method={method}")
    page.click("#start")
    wait_for_state(page, "finished")
    assert idle(page, log) == []
    assert log.console == []


@pytest.mark.parametrize("query", ["steps=10&batch_size=2", "rank=1&alpha=128&steps=10"])
def test_after_a_sweep_and_a_reload(visit: Visit, log: Log, query: str) -> None:
    page = visit(query)
    page.click("#sweep")
    expect(page.locator("#scatter .reached")).to_have_count(5, timeout=5 * PATIENCE)
    assert idle(page, log) == []
    log.reload(page)
    expect(page.locator("#scatter .reached")).to_have_count(5, timeout=PATIENCE)
    assert idle(page, log) == []


def test_after_a_stop(visit: Visit, log: Log) -> None:
    page = visit(ENDLESS)
    page.click("#start")
    expect(page.locator("#status .status-line")).to_contain_text("tokens/s", timeout=PATIENCE)
    page.click("#stop")
    wait_for_state(page, "stopped")
    assert idle(page, log) == []
