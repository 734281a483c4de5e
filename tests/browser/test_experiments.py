"""Experiments in a browser: every question answered from one's own run, controls at both ends."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Page, expect

import lora_core as lc
from lora_core.explain.exam import Exam, finish
from lora_core.explain.knife import Knife, cuts
from lora_core.explain.merging import check_merging

from .conftest import PATIENCE, Log, come_to_rest, wait_for_state
from .test_own_table import drop

Visit = Callable[..., Page]
Trained = tuple[Page, Log]
LONG = 4 * PATIENCE


def press(page: Page, question: str) -> None:
    """Open a question, whatever was open."""
    button = page.locator(f'.question-button[data-id="{question}"]')
    if button.get_attribute("aria-expanded") != "true":
        button.click()
    expect(button).to_have_attribute("aria-expanded", "true")


def answered(page: Page) -> str:
    """The open question's sentence, when it is complete."""
    page.wait_for_function(
        """() => { const panel = document.querySelector(".experiment");
             const said = panel.querySelector(".experiment-line").textContent;
             return ["done", "none", "failed"].includes(panel.dataset.state)
               && said && !said.startsWith("Computing"); }""",
        timeout=LONG,
    )
    return page.inner_text(".experiment-line").replace("\u00a0", " ")  # of "95.9 %"


def test_out_of_sight_before_the_first_run(visit: Visit) -> None:
    page = visit()
    expect(page.locator("#experiments")).to_be_hidden()


def test_one_open_at_a_time(trained: Trained) -> None:
    page, log = trained
    expect(page.locator(".question-button")).to_have_count(8)
    press(page, "memorised")
    press(page, "merging")
    assert page.locator('.question-button[aria-expanded="true"]').count() == 1
    page.click('.question-button[data-id="merging"]')  # again: closed
    expect(page.locator(".experiment")).to_be_hidden()
    assert not log.console


def test_luck_and_its_seeds(trained: Trained) -> None:
    page, log = trained
    press(page, "luck")
    assert "from one seed" in answered(page)
    expect(page.locator(".dot-row")).to_have_count(1)
    page.click('.train:has-text("3")')
    expect(page.locator(".dot-words")).to_contain_text("n = 3", timeout=LONG)
    assert "with 3 seeds" in answered(page)
    expect(page.locator(".dot-row")).to_have_count(1)
    expect(page.locator(".track .seed")).to_have_count(3)
    # The runs of a sweep are figures only: the table has the one that was asked for.
    expect(page.locator("#runs tbody .pick")).to_have_count(1)
    assert not log.console


def test_the_knife(trained: Trained, twin: lc.Classifier) -> None:
    page, log = trained
    page.fill("#text textarea", "you have won a prize")
    press(page, "knife")
    said = answered(page)
    curve = finish(cuts(Knife(twin), Exam.of(twin, lc.load_task("sms-spam"))))
    assert f"{100 * curve[4].accuracy:.1f} %" in said
    slider = page.locator("#knife-slider")
    for k in (0, 4, 1, 0, 4, 2):  # both ends, twice, and between
        slider.fill(str(k))
        expect(page.locator(".knife-at")).to_have_text(f"{k} of 4: {100 * curve[k].accuracy:.1f} %")
        expect(page.locator(".text-says")).to_contain_text("Your text:")
        expect(page.locator(".keep")).to_be_disabled() if k in (0, 4) else None
    shown = page.inner_text(".text-says").replace("\u00a0", " ")
    answer = Knife(twin).at(2).classify("you have won a prize")
    assert shown == f"Your text: {answer.label}, {100 * answer.probabilities[answer.label]:.1f} %."
    # Another text follows; and what is left can be kept.
    page.fill("#text textarea", "see you tonight at eight")
    expect(page.locator(".text-says")).not_to_have_text(shown)
    page.click(".keep")
    expect(page.locator(".kept")).to_contain_text("strongest 2 of 4 directions")
    slider.fill("3")
    expect(page.locator(".kept")).to_be_hidden()  # it was said of another rank
    page.fill("#text textarea", "")
    expect(page.locator(".text-says")).to_contain_text("Type a text in step 3")
    assert not log.console


def test_layers(trained: Trained) -> None:
    page, log = trained
    page.fill("#text textarea", "you have won a prize")
    press(page, "layers")
    said = answered(page)
    assert "the head on:" in said and re.search(r"correlation of −?[01]\.\d\d", said)
    expect(page.locator(".off-line")).to_contain_text("All on:")
    expect(page.locator(".text-says")).to_contain_text("Your text:")
    on = page.inner_text(".text-says")
    part = page.locator('.part[data-key="blocks.0.mlp.up"]')
    for _ in range(2):  # off and on, twice
        part.click()
        expect(part).to_have_attribute("aria-pressed", "false")
        expect(page.locator(".off-line")).to_contain_text("1 off:", timeout=LONG)
        part.click()
        expect(part).to_have_attribute("aria-pressed", "true")
        expect(page.locator(".off-line")).to_contain_text("All on:")
    expect(page.locator(".text-says")).to_have_text(on)
    page.click('.block-switch[data-key="block-1"]')
    expect(page.locator('.part[aria-pressed="false"]')).to_have_count(6)
    page.click(".adapter-off")
    expect(page.locator('.part[data-key="head"]')).to_have_attribute("aria-pressed", "true")
    rest = page.locator(".part").count() - 1
    expect(page.locator(".off-line")).to_contain_text(f"{rest} off:", timeout=LONG)
    expect(page.locator(".text-says")).not_to_have_text(on)
    # Everything off, the head too: the classifier of step 0. And on again, twice.
    page.click('.part[data-key="head"]')
    expect(page.locator('.part[aria-pressed="true"]')).to_have_count(0)
    expect(page.locator(".off-line")).to_contain_text(f"{rest + 1} off:", timeout=LONG)
    for _ in range(2):
        page.click(".reset")
        expect(page.locator('.part[aria-pressed="false"]')).to_have_count(0)
        expect(page.locator(".off-line")).to_contain_text("All on:")
    expect(page.locator(".text-says")).to_have_text(on)
    assert not log.console


def test_forgetting_memorising_merging(trained: Trained, twin: lc.Classifier) -> None:
    page, log = trained
    press(page, "memorised")
    said = answered(page)
    tested = len(lc.load_task("sms-spam").test)
    assert "texts it trained on" in said and f"{tested} test texts" in said
    assert "Newcombe" in said and "Wilson" in said
    expect(page.locator(".experiment-figure .gap")).to_have_count(1)
    expect(page.locator(".experiment-figure .measured")).to_have_count(1)  # Wilson's interval
    expect(page.locator(".experiment-figure .mark-name").first).to_have_text("best step")
    press(page, "merging")
    check = finish(check_merging(twin, Exam.of(twin, lc.load_task("sms-spam"))))
    assert f"{check.largest:.1e}"[-3:] in answered(page)
    press(page, "forgot")
    said = answered(page)
    assert "bits for a byte of general text" in said and "LoRA (r 4, α 16)" in said
    expect(page.locator(".experiment-figure circle")).to_have_count(9)
    expect(page.locator(".experiment-note")).to_contain_text("stays tied to the base's own table")
    expect(page.locator(".train-other")).to_be_enabled()
    # In step 4, beside the checksum: the same figure.
    page.locator("#merging-check button").click()
    expect(page.locator("#merging-check")).to_contain_text("largest difference of a logit")
    assert not log.console


def test_vote(trained: Trained) -> None:
    page, _ = trained
    press(page, "vote")
    assert answered(page)
    boxes = page.locator(".voter input")
    if boxes.count() < 2:  # the knife's test keeps a second one
        expect(page.locator(".experiment-line")).to_contain_text("one adapter")
        return
    boxes.nth(0).check()
    boxes.nth(1).check()
    expect(page.locator(".experiment-line")).to_contain_text("2 together reach", timeout=LONG)
    boxes.nth(1).uncheck()
    expect(page.locator(".experiment-line")).to_contain_text("Tick two")


def test_sweep_starts_and_stops(trained: Trained) -> None:
    page, log = trained
    press(page, "rate")
    answered_or_empty = page.locator(".go")
    expect(answered_or_empty).to_have_text("Start 5 runs")
    for kind, runs in (("grid", 16), ("layers", 6), ("rates", 10), ("ranks", 5)):
        page.select_option("#sweep-kind", kind)
        expect(page.locator(".go")).to_have_text(f"Start {runs} runs")
    page.click('[data-seeds="5"]')
    expect(page.locator(".go")).to_have_text("Start 25 runs")
    page.dblclick(".go")  # so many runs that some are left when Stop is pressed; twice is once
    expect(page.locator(".halt")).to_be_enabled()
    expect(page.locator(".go")).to_be_disabled()
    progress = re.compile(r"\d+ of 25")
    expect(page.locator(".progress-line")).to_contain_text(progress, timeout=LONG)
    # A second tab, or the page after a reload, finds the sweep and can stop it.
    other = page.context.new_page()
    other.goto(page.url)
    press(other, "rate")
    expect(other.locator(".halt")).to_be_enabled(timeout=LONG)
    expect(other.locator(".go")).to_be_disabled()
    other.click(".halt")
    for tab in (other, page):
        expect(tab.locator(".progress-line")).to_contain_text("Stopped after")
        expect(tab.locator(".go")).to_be_enabled()
    other.close()
    page.click(".go")  # after Stop, again; and Stop at once
    page.click(".halt")
    expect(page.locator(".progress-line")).to_contain_text("Stopped after")
    assert not log.console


def start_sweep(page: Page, kind: str, runs: int) -> str:
    """Run a sweep to its end; its sentence."""
    page.select_option("#sweep-kind", kind)
    expect(page.locator(".go")).to_have_text(f"Start {runs} runs")
    page.click(".go")
    expect(page.locator(".progress-line")).to_have_text(f"{runs} of {runs} runs", timeout=LONG)
    return answered(page)


def test_a_visitor_with_a_small_table(visit: Visit, log: Log, tmp_path: Path) -> None:
    """Seeds, LoRA against full fine-tuning, and every sweep to its end."""
    page = visit("steps=10&batch_size=4&rank=2&alpha=4&seeds=3")
    path = tmp_path / "mine.csv"
    rows = [
        f"{('you win cash', 'see you soon')[i % 2]} {i},{('yes', 'no')[i % 2]}" for i in range(60)
    ]
    path.write_text("\n".join(["text,label", *rows]), encoding="utf-8")
    drop(page, path)
    page.click("#own-use")
    expect(page.get_by_label("Task", exact=True)).to_have_value("mine (yours)")
    page.click("#start")
    # Three seeds: one row, one curve with a band, one dot with an interval, one sentence.
    expect(page.locator("#runs tbody")).to_contain_text("3 seeds", timeout=LONG)
    wait_for_state(page, "finished")
    expect(page.locator("#runs tbody .pick")).to_have_count(1)
    expect(page.locator("#scatter .interval")).to_have_count(1)
    expect(page.locator("#status .conclusion")).to_contain_text("in the mean of 3 seeds")
    # What the knife leaves can be kept, and votes.
    boxes = page.locator(".voter input")
    for count in range(4, 9):
        press(page, "knife")
        answered(page)
        page.locator("#knife-slider").fill("1")
        page.click(".keep")
        expect(page.locator(".kept")).to_contain_text("strongest 1 of 2")
        press(page, "vote")
        expect(boxes).to_have_count(count)
    # LoRA against full fine-tuning: the other one is trained from here.
    press(page, "forgot")
    assert "full fine-tuning" not in answered(page)
    page.click(".train-other")
    expect(page.locator(".experiment-figure polyline")).to_have_count(2, timeout=LONG)
    said = answered(page)
    assert "With LoRA (r 2, α 4) it needs" in said and "With full fine-tuning it needs" in said
    expect(page.locator(".train-other")).to_have_count(0)
    expect(page.locator(".experiment-figure .level")).to_have_count(1)
    # A setting with one seed cannot be judged; with three it can, and the test is named.
    press(page, "luck")
    expect(page.locator(".dot-row")).to_have_count(2)
    assert "cannot be told apart yet" in answered(page)
    page.click('.train:has-text("3")')
    expect(page.locator(".dot-words").nth(1)).to_contain_text("n = 3", timeout=LONG)
    expect(page.locator(".experiment-line")).to_contain_text("Welch's t, 95")
    first, second = (page.locator("button.dot-row").nth(i) for i in range(2))
    for _ in range(2):  # in the wrong order, twice
        second.click()
        first.click()
        expect(page.locator('.dot-row[aria-pressed="true"]')).to_have_count(2)
    # Voters: the three seeds and one that was cut; later all of them and full fine-tuning.
    press(page, "vote")
    expect(boxes).to_have_count(9)
    for i in range(4):
        boxes.nth(i).check()
    expect(page.locator(".experiment-line")).to_contain_text("4 together reach", timeout=LONG)
    expect(page.locator(".experiment-figure .spot")).to_have_count(4)  # each alone
    expect(page.locator(".experiment-figure circle:not(.spot)")).to_have_count(4)
    expect(page.locator(".voter .alone").first).to_contain_text("alone")
    # Nine are too many, one is too few, and the boxes stay where they are.
    for i in range(4, 9):
        boxes.nth(i).check()
    expect(page.locator(".experiment-line")).to_have_text("Tick 2 to 8 adapters: 9 are ticked.")
    expect(boxes).to_have_count(9)
    boxes.nth(8).uncheck()
    expect(page.locator(".experiment-line")).to_contain_text("8 together reach", timeout=LONG)
    for i in range(1, 8):
        boxes.nth(i).uncheck()
    expect(page.locator(".experiment-line")).to_contain_text("Tick two to eight")
    # Every sweep to its end, each with a sentence and its figures.
    press(page, "rate")
    said = start_sweep(page, "grid", 16)
    assert "Best at r" in said or "settings reach the best" in said
    expect(page.locator("td.heat[style]")).to_have_count(16)
    expect(page.locator(".joins line")).to_have_count(9)  # the diagonals of equal scale
    box, joins = page.locator("td.heat").first.bounding_box(), page.locator(".joins").bounding_box()
    assert box and joins and abs(box["x"] - joins["x"]) < 3 and abs(box["y"] - joins["y"]) < 3
    assert "Each at its own best rate: LoRA" in start_sweep(page, "rates", 10)
    expect(page.locator(".experiment-figure polyline")).to_have_count(2)
    assert "numbers each" in start_sweep(page, "layers", 6)
    assert "the smallest" in start_sweep(page, "ranks", 5)
    expect(page.locator(".dot-row")).to_have_count(5)
    page.select_option("#sweep-kind", "grid")  # what was found before is still there
    expect(page.locator("td.heat[style]")).to_have_count(16)
    assert not [said for said in log.console if said.startswith("uncaught")]  # Gradio's file warns


@pytest.mark.parametrize("dark", [False, True])
@pytest.mark.parametrize("question", ["luck", "knife", "layers", "memorised", "rate", "vote"])
def test_axe(trained: Trained, dark: bool, question: str) -> None:
    page, _ = trained
    page.evaluate("(dark) => document.body.classList.toggle('dark', dark)", dark)
    press(page, question)
    answered(page) if question != "rate" else expect(page.locator(".go")).to_be_visible()
    come_to_rest(page)
    violations = Axe().run(page, context="#experiments").response["violations"]
    assert [(v["id"], [n["html"][:120] for n in v["nodes"]]) for v in violations] == []


def test_a_phone(trained: Trained) -> None:
    page, _ = trained
    page.set_viewport_size({"width": 390, "height": 844})
    for question in ("luck", "knife", "layers", "memorised", "rate", "forgot", "vote"):
        press(page, question)
        answered(page) if question != "rate" else expect(page.locator(".go")).to_be_visible()
        assert page.evaluate("document.documentElement.scrollWidth") <= 390, question
    page.set_viewport_size({"width": 1280, "height": 800})
