"""Step 2 in a browser: a curve with points, stop, reload, a second visitor, the table."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from itertools import pairwise

import pytest
from playwright.sync_api import Browser, Page, expect

import lora_core as lc

from .conftest import ENDLESS, PATIENCE, Log, wait_for_state

Visit = Callable[..., Page]
SHORT = "steps=30&batch_size=4&rank=4"
LOSSES = "document.querySelector('#curves .plot').data.some((t) => t.uid?.endsWith('-raw'))"


def drawn(page: Page) -> dict[str, list[float]]:
    """What plotly really holds, by the traces' names' ends."""
    text = page.evaluate(
        """() => JSON.stringify(document.querySelector("#curves .plot").data
             .filter((t) => t.uid).map((t) => [t.uid, [...t.x], [...t.y]]))"""
    )
    return {uid.rsplit("-", 1)[-1] if "-" in uid else uid: [x, y] for uid, x, y in json.loads(text)}


def finish(page: Page) -> None:
    page.click("#start")
    wait_for_state(page, "finished")


def test_there_are_as_many_steps_as_the_task_needs(visit: Visit) -> None:
    """Those of the axis, before a run; nothing stands in the link, which asks for none."""
    page = visit("view=full")
    page.wait_for_function("LoraLab.state.baseline?.steps === 150")
    page.get_by_label("Task", exact=True).click()
    page.get_by_role("option", name="Support mail: topic").click()
    page.wait_for_function("LoraLab.state.baseline.steps === 300")
    page.wait_for_function("document.querySelector('#curves .plot').layout.xaxis.range[1] > 300")
    assert "steps" not in page.url


def test_the_main_path(visit: Visit, base: lc.Base, task: lc.Task) -> None:
    page = visit(SHORT)
    finish(page)
    page.wait_for_function(  # Plotly draws one state after the other, and the last one last
        """() => { const lines = document.querySelector("#curves .plot").data;
           const ends = lines.filter((line) => /-(raw|train-accuracy)$/.test(line.uid));
           return ends.length === 2 && ends.every((line) => line.x.at(-1) === 30); }"""
    )
    curves = drawn(page)
    steps, losses = curves["raw"]
    assert steps == list(range(1, 31)) and all(loss > 0 for loss in losses)
    assert len(curves["smooth"][1]) == 30
    evaluated, accuracy = curves["accuracy"]
    assert evaluated[0] == 0 and evaluated[-1] == 30, "from step 0, the base, to the end"
    assert all(0 <= value <= 100 for value in accuracy) and max(accuracy) > 1, "per cent"
    status = page.inner_text("#status .status-line")
    assert "r 4: done" in status and "best weights" in status
    assert "unseen texts" in page.inner_text("#status .conclusion")
    reason = page.inner_text("#status .hint")
    assert "float" in reason and len(reason) > 30, "device and format, with the reason"
    row = page.locator("#runs tbody tr").first
    cells = row.locator("td").all_inner_texts()
    counted = lc.predict_parameters(base.config, lc.LoRAConfig(rank=4), 2)
    assert cells[0] == f"{counted.trainable:,}" and cells[-1] == "done"
    expect(page.locator("#stop")).to_be_disabled()
    assert page.input_value("#ready textarea, #ready input"), "steps 3 to 5 know the run"
    # Zoom is the reader's: it stays when something is drawn again.
    box = page.locator("#curves .nsewdrag").first.bounding_box()
    assert box is not None
    left, middle = box["x"] + 0.2 * box["width"], box["y"] + 0.5 * box["height"]
    page.mouse.move(left, middle)
    page.mouse.down()
    page.mouse.move(left + 0.3 * box["width"], middle, steps=5)
    page.mouse.up()
    extent = "document.querySelector('#curves .plot').layout.xaxis.range"
    page.wait_for_function(f"{extent}[0] > 1")
    zoomed = page.evaluate(extent)
    assert zoomed[1] < 25
    page.click("#theme")
    page.wait_for_timeout(300)
    assert page.evaluate(extent) == zoomed
    page.get_by_role("button", name="log scale").click()
    page.wait_for_function("document.querySelector('#curves .plot').layout.yaxis.type === 'log'")


def test_a_run_is_found_again_after_reload_and_in_a_new_tab(visit: Visit, log: Log) -> None:
    page = visit(f"{ENDLESS}&rank=2")
    page.click("#start")
    wait_for_state(page, "running")
    page.wait_for_function(
        "document.querySelector('#status .status-line').textContent.includes('tokens/s')"
    )
    log.reload(page)
    wait_for_state(page, "running")
    page.close()
    other = visit()
    wait_for_state(other, "running")
    expect(other.locator("#curves .chip")).to_have_count(1)
    other.wait_for_function(
        "document.querySelector('#curves .plot').data.some((t) => t.uid && t.x.length > 4)"
    )
    other.click("#stop")
    wait_for_state(other, "stopped")
    expect(other.locator("#ready textarea, #ready input")).not_to_have_value("")  # it is usable
    other.wait_for_function(LOSSES)
    steps = drawn(other)["raw"][0]
    # A long curve is thinned evenly: every second, fourth ... step, and none of those is lost.
    gap = steps[1] - steps[0]
    assert steps[0] <= gap and gap in (1, 2, 4, 8)
    assert all(after - before <= gap for before, after in pairwise(steps))


def test_stop_acts_at_once(visit: Visit) -> None:
    page = visit(f"{ENDLESS}&rank=2")
    page.click("#start")
    page.wait_for_function(
        "document.querySelector('#status .status-line').textContent.includes('tokens/s')",
        timeout=PATIENCE,
    )
    expect(page.locator("#stop")).to_be_enabled()
    page.click("#stop")
    wait_for_state(page, "stopped")
    at = page.inner_text("#status .status-line")
    page.wait_for_timeout(1500)
    assert page.inner_text("#status .status-line") == at
    page.wait_for_function(LOSSES)  # drawn after the line has said it, later on a busy machine
    assert len(drawn(page)["raw"][0]) < 2000


def test_visitors_do_not_see_each_other(visit: Visit, browser: Browser, server: str) -> None:
    page = visit(SHORT)
    finish(page)
    stranger = browser.new_context()
    other = stranger.new_page()
    other.goto(server)
    other.wait_for_selector("#curves .main-svg")
    other.wait_for_timeout(1500)
    expect(other.locator("#curves .chip")).to_have_count(0)
    expect(other.locator("#status .status-line")).to_contain_text("Nothing is trained yet")
    stranger.close()


def test_runs_are_overlaid_hidden_sorted_and_picked(visit: Visit) -> None:
    page = visit("steps=10&batch_size=4&rank=1")
    finish(page)
    page.get_by_label("Head only", exact=True).check()
    page.wait_for_function("location.search.includes('method=head')")
    page.click("#start")
    page.wait_for_selector("#curves .chip >> nth=1")
    page.wait_for_function(
        "document.querySelector('#status .status-line').textContent.startsWith('head only: done')",
        timeout=PATIENCE,
    )
    chips = page.locator("#curves .chip")
    assert chips.all_inner_texts() == ["r 1", "head only"]
    traces = "document.querySelector('#curves .plot').data.length"
    both = page.evaluate(traces)
    chips.first.focus()
    page.keyboard.press("Enter")
    expect(chips.first).to_have_attribute("aria-pressed", "false")
    page.wait_for_function(f"{traces} < {both}")
    # The table: sorted by what was trained, upwards after two presses.
    header = page.get_by_role("button", name="Trainable", exact=True)
    header.click()
    column = page.locator("#runs thead th").nth(1)
    expect(column).to_have_attribute("aria-sort", "descending")
    header = page.get_by_role("button", name="Trainable", exact=True)
    header.click()
    expect(column).to_have_attribute("aria-sort", "ascending")
    numbers = [
        int(n.replace(",", ""))
        for n in page.locator("#runs tbody td:nth-child(2)").all_inner_texts()
    ]
    assert numbers == sorted(numbers) and len(numbers) >= 2
    # Picking the first run hands it to steps 3 to 5.
    before = page.input_value("#ready textarea, #ready input")
    page.locator("#runs .pick", has_text="r 1").click()
    page.wait_for_function(
        "(b) => document.querySelector('#ready textarea, #ready input').value !== b", arg=before
    )
    expect(page.locator("#runs tr.picked")).to_contain_text("r 1")
    # The scatter holds both, at their numbers of trained parameters.
    expect(page.locator("#scatter .reached")).to_have_count(2)
    assert page.evaluate(  # nor is the line of habit ever above the figure
        "[...document.querySelectorAll('#scatter .floor')].every((l) => l.y1.baseVal.value > 0)"
    )
    words = page.get_attribute("#scatter figure", "aria-label") or ""
    assert all(f"{n:,} numbers trained" in words for n in (min(numbers), numbers[1]))


def test_a_run_that_cannot_start_says_why(visit: Visit) -> None:
    page = visit()
    page.get_by_role("button", name="More settings").click()
    page.get_by_label("Seed").fill("-5")
    page.get_by_label("Seed").blur()
    page.click("#start")
    expect(page.locator("#status .status-line")).to_contain_text("seed must be")
    expect(page.locator("#status .lab-status")).to_have_attribute("data-state", "refused")
    expect(page.get_by_test_id("toast-body")).to_have_count(0)


def test_a_run_away_is_told_in_words(visit: Visit) -> None:
    page = visit("learning_rate=9&steps=60&batch_size=4&rank=64&alpha=128")
    page.click("#start")
    page.wait_for_selector(
        '#status .lab-status[data-state="failed"], #status .lab-status[data-state="finished"]',
        timeout=PATIENCE,
    )
    expect(page.locator("#status .status-line")).to_contain_text("learning rate")


@pytest.mark.parametrize("ranks", [(1, 4, 16, 64)])
def test_sweep_queues_all_on_one_chart(visit: Visit, ranks: tuple[int, ...]) -> None:
    page = visit("steps=10&batch_size=2")
    page.click("#sweep")
    chips = page.locator("#curves .chip")
    expect(chips).to_have_count(5)
    assert chips.all_inner_texts() == [
        *(f"r {r}" for r in ranks),
        "full fine-tuning",
    ]
    deadline = time.monotonic() + PATIENCE / 1000
    while page.locator("#runs tbody tr", has_text="done").count() < 5:
        assert time.monotonic() < deadline, page.inner_text("#runs")
        page.wait_for_timeout(300)
    expect(page.locator("#scatter .reached")).to_have_count(5)
    expect(page.locator("#scatter .plan")).to_have_count(0)
    expect(page.locator("#status .conclusion")).to_contain_text("times as many numbers")
