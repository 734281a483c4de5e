"""A lesson in three real browsers, of a pupil, the board and the desk: from code to report."""

from __future__ import annotations

import csv
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
import segno
from playwright.sync_api import Browser, Page, expect
from starlette.requests import Request

import lora_core as lc
from tests.servers import Server, served

from .conftest import ENDLESS, PATIENCE, SIZES, Log, wait_for_state
from .proxy import Line

EXERCISES = """
[[exercise]]
title = "The best under 20,000"
question = "Which numbers would you train?"
settings = { task = "sentiment", rank = 2, alpha = 4, targets = ["query", "value"], steps = 10 }
seed = "own"
may_change = ["rank", "alpha", "targets"]
goal = { most_trained = 20_000 }

[[exercise]]
title = "Alpha alone"
question = "What does alpha do?"
settings = { task = "sentiment", steps = 12 }
may_change = ["alpha"]
"""
TYPED = "a text of mine that nobody may read"


@pytest.fixture(scope="module")
def room(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    folder = tmp_path_factory.mktemp("room")
    (folder / "mine.toml").write_text(EXERCISES, encoding="utf-8")
    options = ("--room", "--data", str(folder / "data"), "--exercises", str(folder / "mine.toml"))
    with served(*options) as server:
        server.wait_for(r"The desk: \S+")
        yield server


def desk_link(room: Server) -> str:
    return room.wait_for(r"The desk: (\S+)")[1]


class Cable(Line):
    """A line that can be pulled out."""

    out = False

    async def before(self, request: Request) -> None:
        if self.out:
            raise ConnectionError("pulled out")

    async def passing(self, request: Request, chunk: bytes) -> None:
        await self.before(request)


def opened(browser: Browser, log: Log, address: str, size: str = "desktop") -> Page:
    """A page of somebody with a browser of their own."""
    width, height = SIZES[size]
    page = browser.new_context(viewport={"width": width, "height": height}).new_page()
    page.set_default_timeout(PATIENCE)
    log.watch(page)
    page.goto(address)
    return page


def exercise(desk: Page, number: int) -> None:
    desk.click(f".exercises li:nth-child({number}) .does")


def seen_at(page: Page, selector: str) -> float:
    """How much of an element is seen through: 1, or less where it or what is around it fades."""
    return float(
        page.evaluate(
            """(selector) => { let part = 1;
            for (let at = document.querySelector(selector); at; at = at.parentElement)
              part *= Number(getComputedStyle(at).opacity);
            return part; }""",
            selector,
        )
    )


def test_a_lesson_from_the_code_to_the_report(
    browser: Browser, room: Server, log: Log, tmp_path: Path, base: lc.Base
) -> None:
    address = room.address
    board = opened(browser, log, f"{address}/board")
    desk = opened(browser, log, desk_link(room), "laptop")
    expect(desk.locator(".desk-grid")).to_be_visible()
    assert desk.url == f"{address}/desk", "the key is out of the address"
    expect(desk.locator(".exercises li")).to_have_count(2)

    # The code on the board is that of the address beside it; the pupil opens it.
    code = segno.make(f"{address}/", micro=False)
    shape = code.svg_inline(border=1, omitsize=True, svgclass="qr", lineclass="", dark="#000")
    path = board.locator(".welcome .qr path").get_attribute("d")
    assert path and f'd="{path}"' in shape
    expect(board.locator(".welcome .address")).to_have_text(address.removeprefix("http://"))
    pupil = opened(browser, log, f"{address}/?view=full", "laptop")
    expect(pupil.locator(".band-name")).to_be_visible()
    assert seen_at(pupil, ".band-name") == 1, "another part's style fades it"
    expect(board.locator(".tally .here")).to_have_text("1 here")

    pupil.click("text=Another name")
    chosen = pupil.locator(".band-names button").nth(3)
    name = (chosen.text_content() or "").strip()
    chosen.click()
    expect(pupil.locator(".band-name")).to_have_text(name)
    expect(desk.locator(".pupils tbody")).to_contain_text(name)
    assert name not in board.content()

    # An exercise sets the controls and leaves what was typed.
    exercise(desk, 2)
    pupil.click(".band-use")
    pupil.wait_for_function("LoraLab.state.settings?.steps === 12")
    expect(pupil.locator("#notch-rank")).to_be_disabled()
    expect(pupil.locator("#notch-alpha")).to_be_enabled()

    # What it fixes is fixed after a reload, too, and against "Reset to defaults".
    log.reload(pupil)
    expect(pupil.locator(".band-use")).to_have_text("In use")
    expect(pupil.locator(".band-name")).to_have_text(name)
    expect(pupil.locator("#notch-rank")).to_be_disabled()
    expect(pupil.get_by_role("combobox", name="Task")).to_be_disabled()
    pupil.press("#notch-alpha", "ArrowRight")
    pupil.wait_for_function("LoraLab.state.settings?.alpha > 16")
    pupil.click("#reset")
    pupil.wait_for_function("LoraLab.state.settings.alpha === 16")
    assert pupil.evaluate("LoraLab.state.settings.steps") == 12
    pupil.fill("#text textarea", TYPED)
    exercise(desk, 1)
    expect(board.locator("h1")).to_have_text("The best under 20,000")
    pupil.click(".band-use:not(.done)")
    pupil.wait_for_function("LoraLab.state.settings?.steps === 10")
    pupil.wait_for_function("LoraLab.state.settings.targets.join() === 'query,value'")
    expect(pupil.locator("#notch-rank")).to_be_enabled()
    expect(pupil.locator(".band-use")).to_have_text("In use")
    assert pupil.input_value("#text textarea") == TYPED

    desk.dblclick("text=+ 5 min")  # twice is ten, however fast
    expect(board.locator(".clock")).to_have_text(re.compile(r"^(10:00|9:\d\d)$"))
    for page in (
        board.locator(".clock"),
        pupil.locator(".band-clock"),
        desk.locator(".desk-clock"),
    ):
        expect(page).to_contain_text(":")
    desk.click("text=Pause new runs")
    expect(board.locator(".notice")).to_have_text("New runs are paused")
    pupil.click("#start")
    expect(board.locator(".tally .waiting")).to_have_text("1 waiting")
    desk.click("text=Let runs start")
    wait_for_state(pupil, "finished")
    expect(board.locator(".scatter .dot")).to_have_count(1)
    width = base.config.emb_dim  # rank 2 on query and value of each block, and the head
    trained = base.config.n_layers * 2 * 2 * (width + width) + 2 * width + 2
    expect(board.locator(".leader")).to_contain_text(f"{trained:,} numbers")
    expect(board.locator(".goal-name")).to_have_text("at most 20,000")
    pupil.click("#start")
    expect(board.locator(".scatter .dot")).to_have_count(2, timeout=PATIENCE)
    expect(board.locator(".votes-row")).to_contain_text(
        "One vote each: your best adapter", timeout=PATIENCE
    )

    desk.click("text=Show names")
    expect(board.locator(".who")).to_contain_text(name)
    expect(board.locator(".scatter")).to_contain_text("validation accuracy")
    desk.click("text=Reveal test accuracy")
    expect(board.locator(".scatter")).to_contain_text("test accuracy")
    stop = desk.locator("text=Stop all runs")
    stop.click()
    expect(desk.locator(".does.sure")).to_have_text("Stop them: sure?")

    with desk.expect_download() as table:
        desk.click("text=All runs as CSV")
    with desk.expect_download() as report:
        desk.click("text=Report")
    table.value.save_as(tmp_path / "runs.csv")
    report.value.save_as(tmp_path / "report.html")
    with (tmp_path / "runs.csv").open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert [row["pupil"] for row in rows] == [name, name]
    page = opened(browser, log, (tmp_path / "report.html").as_uri())
    expect(page.locator("svg.scatter .dot")).to_have_count(2)
    expect(page.locator("svg.votes")).to_have_count(0)  # one person has one vote: no curve
    for text in (page.content(), board.content(), (tmp_path / "runs.csv").read_text("utf-8")):
        assert TYPED not in text

    desk.click("text=End the lesson")
    desk.click("text=End it: sure?")
    for where in (board.locator(".notice"), pupil.locator(".band-notice")):
        expect(where).to_have_text("This lesson has ended")
    desk.reload()
    desk.click("text=Begin a new lesson")
    desk.click("text=Without these runs: sure?")
    expect(board.locator(".welcome .qr")).to_be_visible()
    assert log.console == [] and log.failures == []
    for visited in (board, desk, pupil, page):
        visited.context.close()
    key = desk_link(room).partition("#")[2]
    assert not [url for url in log.requests if key in url]


def test_a_board_whose_line_is_cut_comes_back_with_everything(
    browser: Browser, room: Server
) -> None:
    cable, log = Cable(room.address), Log()
    board = opened(browser, log, f"http://127.0.0.1:{cable.port}/board")
    desk = opened(browser, log, desk_link(room), "laptop")
    expect(board.locator(".tally")).to_contain_text("here")
    cable.out = True
    desk.click("text=+ 10 min")
    expect(board.locator(".lost")).to_be_visible()
    exercise(desk, 2)
    expect(desk.locator(".exercises .on").nth(1)).to_have_text("On every page")
    cable.out = False
    expect(board.locator("h1")).to_have_text("Alpha alone")
    expect(board.locator(".clock")).to_contain_text(":")
    expect(board.locator(".lost")).to_be_hidden()
    for page in (board, desk):
        page.context.close()


def test_a_desk_without_the_key(browser: Browser, room: Server) -> None:
    for guess in ("", "#guess"):
        page = opened(browser, Log(), f"{room.address}/desk{guess}", "laptop")
        expect(page.locator("#desk")).to_contain_text("Open it with the teacher's link")
        assert page.locator("button.does").count() == 0
        page.goto(desk_link(room))
        expect(page.locator(".desk-grid")).to_be_visible()
        page.context.close()


HIDDEN = """(hidden) => {
    Object.defineProperty(document, "hidden", { value: hidden, configurable: true });
    document.dispatchEvent(new Event("visibilitychange"));
}"""


def test_a_tab_that_nobody_sees_holds_no_line(browser: Browser, room: Server) -> None:
    """Else a few tabs would take all the connections that a browser has for one host."""
    desk = opened(browser, Log(), desk_link(room), "laptop")
    pupil = opened(browser, Log(), f"{room.address}/", "laptop")
    name = pupil.locator(".band-name")
    expect(name).to_be_visible()
    row = desk.locator(".pupils tbody tr", has_text=name.text_content() or "-")
    expect(row).to_contain_text("is here")
    pupil.evaluate(HIDDEN, True)
    expect(row).to_have_count(0)
    pupil.evaluate(HIDDEN, False)
    expect(row).to_contain_text("is here")
    for page in (desk, pupil):
        page.context.close()


def test_a_pupil_who_reloads_while_training_is_back_in_the_room_at_once(
    browser: Browser, log: Log
) -> None:
    with served("--room") as server:
        pupil = opened(browser, log, f"{server.address}/?{ENDLESS}", "laptop")
        expect(pupil.locator(".band-name")).to_be_visible()
        pupil.click("#start")
        wait_for_state(pupil, "running")
        log.reload(pupil)
        expect(pupil.locator(".band-name")).to_be_visible()
        wait_for_state(pupil, "running")
        pupil.click("#stop")
        pupil.context.close()
