"""A table of one's own in the page: looked at, taken, trained on; and what cannot be used."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page, expect

from tests.browser.conftest import wait_for_state

Visit = Callable[..., Page]


def rows(labels: int = 3, each: int = 20) -> list[tuple[str, str]]:
    return [
        (f"about topic {i} in sentence {n}", f"kind {i}")
        for n in range(each)
        for i in range(labels)
    ]


def csv_file(folder: Path, name: str, header: str = "text,label", labels: int = 3) -> Path:
    path = folder / name
    path.write_text("\n".join([header, *(f"{t},{c}" for t, c in rows(labels))]), encoding="utf-8")
    return path


def drop(page: Page, path: Path) -> None:
    """Open the fold and hand the file over."""
    if not page.locator("#own-file").is_visible():
        page.click("#own button.label-wrap")
    page.set_input_files("#own-file input[type=file]", path)


def chosen_task(page: Page) -> str:
    return page.get_by_label("Task", exact=True).input_value()


def test_a_table_is_looked_at_taken_and_trained_on(visit: Visit, tmp_path: Path) -> None:
    page = visit("steps=10&batch_size=4&rank=2")
    before = page.inner_text("#numbers .counts b")
    drop(page, csv_file(tmp_path, "mine.csv", labels=5))
    report = page.locator("#own-report")
    expect(report.locator(".own-title")).to_have_text("mine.csv: 100 rows, 2 columns")
    expect(report.locator(".own-preview tbody tr")).to_have_count(5)
    expect(report.locator(".own-classes li")).to_have_count(5)
    expect(report.get_by_role("img", name=re.compile("Histogram"))).to_be_visible()
    page.click("#own-use")
    expect(report.locator(".own-done")).to_contain_text("5 labels; 70 texts to train on")
    assert chosen_task(page) == "mine (yours)"
    expect(page.locator("#numbers .counts b")).not_to_have_text(before)
    page.click("#start")
    wait_for_state(page, "finished")
    page.reload()
    wait_for_state(page, "finished")
    expect(page.get_by_label("Task", exact=True)).to_have_value("mine (yours)")


def test_other_columns_are_offered_and_can_be_chosen(visit: Visit, tmp_path: Path) -> None:
    path = tmp_path / "odd.csv"
    lines = [f"{i},{text},{kind}," for i, (text, kind) in enumerate(rows())]
    path.write_text("\n".join(["n,Wording,Desk,note", *lines]), encoding="utf-8")
    page = visit()
    drop(page, path)
    expect(page.get_by_label("Column of texts")).to_have_value("Wording")
    expect(page.get_by_label("Column of labels")).to_have_value("Desk")
    page.get_by_label("Column of texts").click()
    page.get_by_role("option", name="note", exact=True).click()
    expect(page.locator("#own-report .own-problem")).to_contain_text("No row has both")
    expect(page.locator("#own-use")).to_be_disabled()
    page.get_by_label("Column of texts").click()
    page.get_by_role("option", name="Wording", exact=True).click()
    expect(page.locator("#own-report .own-problem")).to_have_count(0)
    expect(page.locator("#own-use")).to_be_enabled()


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("paper.csv", b"%PDF-1.7", "PDF"),
        ("one.csv", b"text\nhello\n", "only the column 'text'"),
        ("half.xlsx", b"PK\x03\x04 xl/ and no more", "damaged"),
    ],
)
def test_what_cannot_be_used_is_said_beside_the_file(
    visit: Visit, tmp_path: Path, name: str, content: bytes, words: str
) -> None:
    page = visit()
    before = chosen_task(page)
    path = tmp_path / name
    path.write_bytes(content)
    drop(page, path)
    expect(page.locator("#own-report .own-problem")).to_contain_text(words)
    assert not page.locator("#own-use").is_enabled() if page.locator("#own-use").count() else True
    assert chosen_task(page) == before


def test_nothing_in_a_table_is_run_or_read_as_html(visit: Visit, tmp_path: Path) -> None:
    hostile = "<img src=x onerror=window.hurt=1> ${window.hurt=1} {{value}}"
    path = tmp_path / "hostile.csv"
    lines = [f"{hostile} {n},{hostile[:40]} {n % 2}" for n in range(20)]
    path.write_text("\n".join(["text,label", *lines]), encoding="utf-8")
    page = visit()
    drop(page, path)
    expect(page.locator("#own-report .own-preview td").first).to_contain_text(hostile)
    page.click("#own-use")
    expect(page.locator("#own-report .own-done")).to_be_visible()
    assert page.evaluate("window.hurt") is None
    assert page.locator("#own img").count() == 0


def test_another_visitor_does_not_see_it(visit: Visit, browser: Browser, tmp_path: Path) -> None:
    mine = visit()
    drop(mine, csv_file(tmp_path, "private.csv"))
    mine.click("#own-use")
    expect(mine.locator("#own-report .own-done")).to_be_visible()
    expect(mine).to_have_url(re.compile("task=private"))
    context = browser.new_context()
    theirs = context.new_page()
    theirs.goto(mine.url, wait_until="commit")  # the link to the settings names the table
    expect(theirs.get_by_text("is not here any more. Bring it again.")).to_be_visible()
    task = theirs.get_by_label("Task", exact=True)
    expect(task).not_to_have_value("private (yours)")
    task.click()
    expect(theirs.get_by_role("option").first).to_be_visible()
    assert "private" not in " ".join(theirs.get_by_role("option").all_inner_texts())
    context.close()


def test_a_dropped_table_that_is_not_taken_is_said_beside_fine_tune(
    visit: Visit, tmp_path: Path
) -> None:
    page = visit("view=simple&steps=10&batch_size=4&rank=2")
    drop(page, csv_file(tmp_path, "mine.csv"))
    state = page.locator("#status .shown-state")
    expect(state).to_contain_text("mine.csv")
    expect(state).to_contain_text("not the task yet")
    state.get_by_role("button").click()
    expect(state).to_be_hidden()
    assert chosen_task(page) == "mine (yours)"
