"""What a stranger's link may do: nothing of it becomes part of the page, and nothing is fetched."""

from __future__ import annotations

import re
from urllib.parse import quote

import pytest
from playwright.sync_api import BrowserContext, expect

from lora_core.ui.settings import Settings
from tests.browser.conftest import Log
from tests.ui.test_links import MARKUP, SAID

PARAMETERS = [
    *Settings.names(),
    "lock",
    "hide",
    "view",
    "text",
    "compare",
    "deep_link",
    "__theme",
    "__lang",
    "tour",
]
SCRIPT = "javascript:window.evil=1//'\"`${window.evil=1}"  # in an address, a quote, a template
# Whether anything on the page runs, opens or loads what the link brought.
FOREIGN = """() => [...document.querySelectorAll("*")].flatMap((e) => [...e.attributes])
  .filter((a) => /evil/.test(a.name + a.value) && !["value", "data-value"].includes(a.name))
  .filter((a) => /^on/.test(a.name) || /^\\s*javascript:/i.test(a.value) || a.name === "evil")
  .map((a) => a.name + "=" + a.value)"""


# The server's answer to each setting: tests/ui/test_links.py. Here are its kinds, and what the
# browser reads itself.
@pytest.mark.parametrize(
    "names",
    [["task"], ["rank"], ["targets"], PARAMETERS[len(Settings.names()) :], ["deep_link", "__lang"]],
    ids=" ".join,
)
def test_markup_in_a_link_stays_text(
    context: BrowserContext, server: str, log: Log, names: list[str]
) -> None:
    page = context.new_page()
    log.watch(page)
    page.goto(f"{server}/?" + "&".join(f"{name}={quote(MARKUP)}" for name in names))
    page.wait_for_selector("#start")
    page.wait_for_function("localStorage.getItem('lora-lab-visitor') !== null")
    for name in set(names).intersection(Settings.names()):
        said = re.compile(SAID.get(name, name), re.IGNORECASE)
        expect(page.locator(".toast-body").first).to_contain_text(said)
    page.wait_for_load_state("networkidle")
    assert page.locator("#evil, .evil, .toast-body form, .toast-body img").count() == 0
    assert page.evaluate(FOREIGN) == [] and page.evaluate("window.evil") is None
    assert all(url.startswith((server, "data:", "blob:")) for url in log.requests)


def test_a_script_in_every_part_of_a_link_never_runs_and_the_page_works(
    context: BrowserContext, server: str, log: Log
) -> None:
    page = context.new_page()
    log.watch(page)
    query = "&".join(f"{name}={quote(SCRIPT)}" for name in PARAMETERS if name != "tour")
    page.goto(f"{server}/?{query}&{quote(SCRIPT)}=1#{quote(SCRIPT)}")
    expect(page.locator(".toast-body").first).to_contain_text("defaults are used")
    page.wait_for_selector("#numbers .headline b")
    assert page.locator("#text textarea").input_value() != SCRIPT
    page.fill("#text textarea", "you have won a prize")
    expect(page.locator("#answer tbody tr").first).to_be_visible()
    expect(page.locator("#start")).to_be_enabled()
    assert page.evaluate(FOREIGN) == [] and page.evaluate("window.evil") is None
    assert all(url.startswith((server, "data:", "blob:")) for url in log.requests)


def test_what_a_link_asks_for_and_is_not_here_is_refused_in_words(
    context: BrowserContext, server: str
) -> None:
    page = context.new_page()
    page.goto(f"{server}/?base=..%2F..%2Fetc")
    toast = page.locator(".toast-body").first
    expect(toast).to_contain_text("etc")
    expect(toast).to_contain_text("defaults are used")
