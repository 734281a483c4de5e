"""Step 3 in a browser: answers while typing, words that mattered, hard texts, mistakes, the pin."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from playwright.sync_api import Page, expect

import lora_core as lc
from lora_core.explain.attribution import attribute
from lora_core.explain.test_report import report_on_test

from .conftest import PATIENCE, PINNED, SIZES, Log, wait_for_state

Visit = Callable[..., Page]
Trained = tuple[Page, Log]
CLOSE = 0.02  # two processes, and perhaps two number formats, trained the same adapter
BOX = "#text textarea"
PRIZE = "WINNER! Claim your free prize now, call 09061701461"


def answers(page: Page) -> dict[str, tuple[float, float | None]]:
    """label -> (base, adapted), as shown."""

    def number(text: str) -> float | None:
        return None if text == "–" else float(text.strip("<> %")) / 100

    rows = page.locator("#answer tbody tr")
    shown = {}
    for row in rows.all():
        base, adapted = (number(t) for t in row.locator(".p").all_inner_texts())
        assert base is not None
        shown[row.locator("th").inner_text()] = (base, adapted)
    return shown


def type_text(page: Page, text: str, tokens: int) -> None:
    """Type and wait until the answer is that text's."""
    page.fill(BOX, text)
    expect(page.locator("#answer .answer-note")).to_contain_text(f"{tokens} token")


def test_first_visit_shows_the_untrained_base(visit: Visit, base: lc.Base) -> None:
    page = visit()
    text = page.input_value(BOX)
    assert text in [e.text for e in lc.load_task("sms-spam").test]
    generator = torch.Generator().manual_seed(0)
    untrained = lc.Classifier(
        base.classifier_model(2, generator), base.tokenizer, ("ham", "spam")
    ).classify(text)
    shown = answers(page)
    for label, p in untrained.probabilities.items():
        assert shown[label] == (pytest.approx(p, abs=0.0006), None)
    expect(page.locator("#answer .verdict")).to_contain_text(f"guesses {untrained.label}")
    expect(page.locator("#answer .verdict")).to_contain_text("Nobody has taught it")
    assert page.locator("#about .sample").count() == 2, "one test text a label"


def test_both_answers_are_the_models(trained: Trained, twin: lc.Classifier) -> None:
    page, log = trained
    text = "WINNER! You have won a £1000 prize, call 09061 now"
    type_text(page, text, twin.classify(text).tokens)
    shown = answers(page)
    before, after = twin.classify(text, 0.0), twin.classify(text, 1.0)
    for label in twin.labels:
        assert shown[label][0] == pytest.approx(before.probabilities[label], abs=0.001)
        assert shown[label][1] == pytest.approx(after.probabilities[label], abs=CLOSE)
    expect(page.locator("#answer .verdict")).to_contain_text(f"Adapted: {after.label}")
    assert not log.console


def test_words_that_mattered_stand_on_the_text(trained: Trained, twin: lc.Classifier) -> None:
    page, log = trained
    text = "Congratulations, your prize, £1000 cash, waits: txt CLAIM to 80082"
    page.fill(BOX, text)
    expect(page.locator("#evidence .weighed")).to_have_text(text)
    attribution = attribute(twin, text)
    names = [text[w.span.start : w.span.end] for w in attribution.words]
    assert page.locator("#evidence .weighed .word").all_inner_texts() == names
    page.click("#evidence summary")
    table = dict(
        zip(
            page.locator("#evidence .weights tbody th").all_inner_texts(),
            page.locator("#evidence .weights tbody td:nth-child(2)").all_inner_texts(),
            strict=True,
        )
    )
    for name, word in zip(names, attribution.words, strict=True):
        weight = float(table[f"“{name}”"].replace("−", "-"))
        assert weight == pytest.approx(word.weight, abs=0.03)
    strongest, word = max(
        zip(names, attribution.words, strict=True), key=lambda pair: pair[1].weight
    )
    said = strongest if word.weight > 0.05 else "No word alone speaks"
    expect(page.locator("#evidence .spoken")).to_contain_text(said)
    page.hover(f"#evidence .weighed .word >> nth={names.index('prize,')}")
    expect(page.locator("#evidence .word-about")).to_contain_text("Without “prize,”")

    assert not log.console


def test_strength_zero_is_the_base(trained: Trained) -> None:
    page, _ = trained
    page.fill(BOX, "any text at all")
    page.fill("#strength input[type=number]", "0")
    page.press("#strength input[type=number]", "Tab")
    expect(page.locator("#answer thead .adapted")).to_have_text("Adapted, strength 0.0")
    assert all(one == other for one, other in answers(page).values())
    page.fill("#strength input[type=number]", "1")
    page.press("#strength input[type=number]", "Tab")
    expect(page.locator("#answer thead .adapted")).to_have_text("Adapted, strength 1.0")


def test_mistakes_and_hard_texts_are_a_click_away(trained: Trained, twin: lc.Classifier) -> None:
    page, log = trained
    report = report_on_test(twin, lc.load_task("sms-spam"))
    assert report is not None
    cells = [
        int(t.replace(",", "")) for t in page.locator("#judged .matrix tbody td").all_inner_texts()
    ]
    assert sum(cells) == len(report.judged)
    assert cells[0] + cells[3] == pytest.approx(report.correct, abs=5)
    miss = page.locator("#judged .miss").first
    wanted = miss.locator(".start").inner_text()
    miss.click()
    expect(page.locator(BOX)).to_have_value(wanted)
    expect(page.locator("#evidence .weighed")).to_have_text(wanted)

    marks = page.locator("#examples .mark").all_inner_texts()
    assert any(m.startswith("hard: ") for m in marks) and any(
        m.startswith("missed: ") for m in marks
    )
    example = page.locator("#examples button").last
    example.click()
    expect(page.locator(BOX)).to_have_value(example.locator(".start").inner_text())
    assert not log.console


def test_what_is_typed_is_never_html_and_problems_are_sentences(trained: Trained) -> None:
    page, log = trained
    nasty = "<img src=x onerror=\"document.title='owned'\"><b>free</b> &amp; <script>1</script>"
    page.fill(BOX, nasty)
    expect(page.locator("#evidence .weighed")).to_have_text(nasty)
    assert page.locator("#classify img, #classify .lab-part script").count() == 0
    assert "owned" not in page.title()
    page.fill(BOX, "   ")
    expect(page.locator("#answer .answer-problem")).to_have_text(
        "Type some text first: there is nothing but blanks to classify."
    )
    figures = page.locator("#answer tbody .p")
    assert figures.all_inner_texts() == ["–"] * figures.count(), "those of the text before"
    expect(page.locator("#evidence .weighed")).to_be_hidden()
    page.fill(BOX, "back again")
    expect(page.locator("#answer .verdict")).to_contain_text("Adapted:")
    expect(page.locator("#answer .answer-problem")).to_be_hidden()
    assert not log.console


def test_a_pinned_text_is_drawn_along_the_run(trained: Trained) -> None:
    page, _ = trained
    expect(page.locator("#followed h3")).to_contain_text(PINNED)
    line = page.locator("#followed .hint")
    expect(line).to_contain_text("at step 0 to")
    expect(line).to_contain_text("at step 10")
    points = page.locator("#followed .path").first.get_attribute("points")
    assert points is not None and len(points.split()) == 11, "every step of the ten, and step 0"
    page.fill(BOX, "another text")
    page.click("#pin")
    expect(line).to_contain_text("The next run follows “another text”.")
    page.click("#unpin")
    expect(page.locator("#followed h3")).to_contain_text(PINNED)
    expect(line).not_to_contain_text("The next run follows")


def test_the_answer_moves_while_the_model_trains(visit: Visit) -> None:
    """Typed, trained, and seen to change: without a pin, and without a word more."""
    page = visit("view=simple&steps=1000")
    page.fill(BOX, PRIZE)
    expect(page.locator("#answer .verdict")).to_contain_text("The base guesses")
    page.click("#start")
    expect(page.locator("#answer thead .adapted")).to_contain_text(
        "Adapted, step", timeout=PATIENCE
    )
    seen = page.locator("#answer td.adapted .p").first
    first = seen.inner_text()
    expect(seen).not_to_have_text(first)
    expect(page.locator("#answer .verdict")).to_contain_text("Now: ")
    expect(page.locator("#followed .path")).to_have_count(1)
    page.click("#stop")
    wait_for_state(page, "stopped")
    expect(page.locator("#answer .verdict")).to_contain_text("Adapted: ")


def test_the_answer_after_training_is_the_run_s(visit: Visit) -> None:
    page = visit("view=simple&steps=100&batch_size=8")
    page.fill(BOX, PRIZE)
    page.click("#start")
    wait_for_state(page, "finished")
    expect(page.locator("#answer .verdict")).to_contain_text("Adapted: spam")
    expect(page.locator("#followed .hint")).to_contain_text("at step 100 of r 8")


def test_another_task_says_whose_answer_is_shown_and_trains_at_a_press(visit: Visit) -> None:
    page = visit("view=simple&steps=10&batch_size=4")
    page.click("#start")
    wait_for_state(page, "finished")
    page.get_by_label("Task", exact=True).click()
    page.get_by_role("option", name="Reviews: good or bad").click()
    state = page.locator("#shown .shown-state")
    expect(state).to_contain_text("Shown: the model for “SMS: spam or ham”.")
    expect(state).to_contain_text("“Reviews: good or bad” is not trained yet.")
    # Only the chosen task's runs are compared; the other is one press away.
    expect(page.locator("#runs .pick")).to_have_count(0)
    page.locator("#runs .toggle").click()
    expect(page.locator("#runs .away .pick")).to_have_count(1)
    state.get_by_role("button").click()
    expect(state).to_be_hidden(timeout=PATIENCE)
    expect(page.locator("#answer tbody th").first).to_have_text("negative")
    # And back: the task that was trained before shows its run.
    page.get_by_label("Task", exact=True).click()
    page.get_by_role("option", name="SMS: spam or ham").click()
    expect(page.locator("#answer tbody th").first).to_have_text("ham")
    expect(state).to_be_hidden()


def test_nothing_moves_while_numbers_change(visit: Visit) -> None:
    page = visit()
    boxes = "#strength, #answer .answers, #followed, #evidence"
    where = """(q) => [...document.querySelectorAll(q)].map((e) => {
      const b = e.getBoundingClientRect();
      return [b.x, b.y + scrollY, b.width]; })"""
    before = page.evaluate(where, boxes)
    for text in ("a", "free free free", "see you at home tonight, love"):
        page.fill(BOX, text)
        page.wait_for_timeout(600)
        assert page.evaluate(where, boxes) == before


@pytest.mark.parametrize("size", SIZES)
def test_nothing_is_clipped(visit: Visit, size: str) -> None:
    page = visit()
    width, height = SIZES[size]
    page.set_viewport_size({"width": width, "height": height})
    page.fill(BOX, "a" * 400 + " and then some words")
    page.wait_for_timeout(800)
    wide = page.evaluate(
        """() => [...document.querySelectorAll(":is(#classify, #evidence-card, #inside) *")]
           .filter((e) => {
             const b = e.getBoundingClientRect();
             return b.width && b.right > innerWidth + 1 && !e.closest(".scroll");
           }).map((e) => e.outerHTML.slice(0, 80))"""
    )
    assert wide == []


def test_the_other_labels_open_in_their_own_frame(visit: Visit) -> None:
    page = visit("view=simple&task=support-topic")
    rows, button = page.locator("#answer tbody tr"), page.locator("#answer .others")
    expect(button).to_have_text("3 other labels")
    expect(rows).to_have_count(5)
    before = page.locator("#classify").bounding_box()
    for opened in (True, False, True):
        button.click()
        expect(button).to_have_attribute("aria-expanded", str(opened).lower())
        expect(rows).to_have_count(8 if opened else 5)
        expect(button).to_have_text("Fewer labels" if opened else "3 other labels")
    after = page.locator("#classify").bounding_box()
    assert before and after and after["height"] < before["height"] + 120
    page.fill(BOX, "my parcel is late")  # another answer: it stays open
    expect(rows).to_have_count(8)
