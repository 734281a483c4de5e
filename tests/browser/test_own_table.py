"""A table of one's own in the page: looked at, taken, trained on; and what cannot be used."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import openpyxl
import pytest
from playwright.sync_api import Browser, Locator, Page, expect

from tests.browser.conftest import Log, wait_for_state

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


def test_a_table_is_looked_at_taken_and_trained_on(visit: Visit, log: Log, tmp_path: Path) -> None:
    page = visit("steps=10&batch_size=4&rank=2")
    before = page.inner_text("#numbers .counts b")
    drop(page, csv_file(tmp_path, "mine.csv", labels=5))
    report = page.locator("#own-report")
    expect(report.locator(".own-title")).to_have_text("mine.csv: 100 rows, 2 columns")
    expect(report.locator(".own-preview tbody tr")).to_have_count(5)
    expect(report.locator("div.own-classes > ul > li")).to_have_count(5)
    expect(report.get_by_role("img", name=re.compile("Histogram"))).to_be_visible()
    page.click("#own-use")
    expect(report.locator(".own-done")).to_contain_text("5 labels; 70 texts to train on")
    assert chosen_task(page) == "mine (yours)"
    expect(page.locator("#numbers .counts b")).not_to_have_text(before)
    page.click("#start")
    wait_for_state(page, "finished")
    log.reload(page)
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


def choose(page: Page, control: str, option: str) -> None:
    """Take an option of one of the controls of how the file was read."""
    page.get_by_label(control, exact=True).click()
    page.get_by_role("option", name=option).first.click()


def type_in(page: Page, control: str, value: str) -> None:
    """Type what such a control does not offer."""
    field = page.get_by_label(control, exact=True)
    field.click()
    field.fill(value)
    field.press("Enter")
    field.blur()


def first_cell(page: Page) -> Locator:
    return page.locator("#own-report .own-preview tbody td").first


def test_what_was_guessed_is_shown_and_can_be_changed(visit: Visit, tmp_path: Path) -> None:
    """Encoding, separator and header of a CSV: as found, changed, and found out again."""
    path = tmp_path / "mac.csv"
    lines = ["# from the desk", "Was meinen Sie dazu?;Prüfung"]
    lines += [f"Käse für Öre {n}, sagt {text};{kind}" for n, (text, kind) in enumerate(rows(2))]
    path.write_bytes("\n".join(lines).encode("mac_roman"))
    page = visit()
    drop(page, path)
    expect(first_cell(page)).to_contain_text("Käse für Öre 0")
    expect(page.get_by_label("Encoding", exact=True)).to_have_value("Mac Roman (found)")
    expect(page.get_by_label("Separator", exact=True)).to_have_value("semicolon (found)")
    expect(page.get_by_label("Names of columns", exact=True)).to_have_value("line 2 (found)")
    expect(page.get_by_label("Sheet", exact=True)).to_have_count(0)
    choose(page, "Encoding", "Windows-1252")
    expect(first_cell(page)).to_contain_text("KŠse fŸr")
    choose(page, "Encoding", "find out")
    expect(first_cell(page)).to_contain_text("Käse für Öre 0")
    choose(page, "Separator", "comma")
    expect(first_cell(page)).not_to_contain_text("sagt")
    choose(page, "Separator", "semicolon ;")
    expect(first_cell(page)).to_contain_text("sagt")
    choose(page, "Names of columns", "none")
    expect(page.locator("#own-report th").first).to_contain_text("column 1")
    choose(page, "Names of columns", "line 2")
    expect(page.locator("#own-report th").first).to_contain_text("Was meinen Sie dazu?")
    choose(page, "Encoding", "UTF-8")  # what was chosen is also what is taken
    expect(first_cell(page)).to_contain_text("K\ufffdse")
    # Each choice is sent twice, and by then the columns may have other names: no error.
    assert not page.locator(".toast-body").all_inner_texts()
    page.click("#own-use")
    expect(page.locator("#own-report .own-done")).to_contain_text("2 labels")
    expect(page.get_by_label("Encoding", exact=True)).to_have_count(0)


def test_another_sheet_is_taken_when_it_is_chosen(visit: Visit, tmp_path: Path) -> None:
    book = openpyxl.Workbook()
    book.active.append(["See the other sheets."])
    for name, labels in (("This year", 2), ("Last year", 3)):
        sheet = book.create_sheet(name)
        for row in [("text", "label"), *rows(labels)]:
            sheet.append(row)
    book.save(tmp_path / "answers.xlsx")
    page = visit()
    drop(page, tmp_path / "answers.xlsx")
    expect(page.get_by_label("Sheet", exact=True)).to_have_value("This year (found)")
    expect(page.locator("#own-report .own-classes li")).to_have_count(2)
    expect(page.get_by_label("Encoding", exact=True)).to_have_count(0)
    choose(page, "Sheet", "Sheet")  # the first: no table
    expect(page.locator("#own-report .own-problem")).to_be_visible()
    choose(page, "Sheet", "Last year")
    expect(page.locator("#own-report .own-classes li")).to_have_count(3)
    page.click("#own-use")
    expect(page.locator("#own-report .own-done")).to_contain_text("3 labels")


def long_table(path: Path) -> Path:
    """A workbook whose first two sheets take a while to read; the third one is short."""
    book = openpyxl.Workbook(write_only=True)
    for name, labels, each in (("Long", 2, 9_000), ("Long too", 3, 6_000), ("Short", 4, 20)):
        sheet = book.create_sheet(name)
        for row in [("text", "label"), *rows(labels, each)]:
            sheet.append(row)
    book.save(path)
    return path


def test_what_is_chosen_while_a_table_is_read_counts(visit: Visit, tmp_path: Path) -> None:
    """The next choice, and the next file, do not wait until the one before is answered."""
    page = visit()
    labels = page.locator("#own-report .own-classes li")
    drop(page, long_table(tmp_path / "long.xlsx"))
    expect(labels).to_have_count(2)
    choose(page, "Sheet", "Long too")
    choose(page, "Sheet", "Short")
    expect(labels).to_have_count(4)
    expect(page.get_by_label("Sheet", exact=True)).to_have_value("Short")
    choose(page, "Sheet", "Long too")
    page.locator("#own-file").get_by_label("Clear").click()
    expect(page.locator("#own-report .own-title")).to_have_count(0)
    drop(page, csv_file(tmp_path, "other.csv", labels=5))
    expect(labels).to_have_count(5)
    expect(page.locator("#own-report .own-title")).to_contain_text("other.csv")
    page.click("#own-use")
    expect(page.locator("#own-report .own-done")).to_contain_text("5 labels")
    assert chosen_task(page) == "other (yours)"


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


def test_what_lies_there_is_what_is_trained(visit: Visit, tmp_path: Path) -> None:
    """A table that was dropped is said beside Fine-tune, which takes it; there is a way back."""
    page = visit("view=simple&steps=10&batch_size=4&rank=2")
    before = chosen_task(page)
    state = page.locator("#status .shown-state:not(.waits)")
    drop(page, csv_file(tmp_path, "other.csv"))
    expect(state).to_contain_text("other.csv: 60 rows, 2 columns. Fine-tune trains on it.")
    state.get_by_role("button", name=f"Keep {before}").click()
    expect(state).to_be_hidden()
    assert chosen_task(page) == before
    drop(page, csv_file(tmp_path, "mine.csv"))
    expect(state).to_contain_text("mine.csv")
    page.click("#start")
    expect(page.locator("#own-report .own-done")).to_be_visible()
    expect(state).to_be_hidden()
    wait_for_state(page, "finished")
    assert chosen_task(page) == "mine (yours)"
    expect(page.locator("#runs tbody tr:not(.planned)")).to_have_count(1)
    expect(page.locator("#runs tbody tr.away")).to_have_count(0)


def test_a_row_of_names_and_a_separator_that_are_not_offered_can_be_typed(
    visit: Visit, tmp_path: Path
) -> None:
    path = tmp_path / "far.csv"
    top = [f"Feld {n}$Wert {n}" for n in range(40)]
    lines = ["Mitteilung$Abteilung", *(f"{text}${kind}" for text, kind in rows(2))]
    path.write_text("\n".join([*top, *lines]), encoding="utf-8")
    page = visit()
    drop(page, path)
    expect(page.locator("#own-report .own-problem")).to_contain_text("only the column")
    type_in(page, "Separator", "$")
    expect(page.locator("#own-report th").first).to_contain_text("Feld 0")
    type_in(page, "Names of columns", "41")
    expect(page.locator("#own-report th").first).to_contain_text("Mitteilung")
    expect(page.get_by_label("Names of columns", exact=True)).to_have_value("line 41")
    type_in(page, "Encoding", "no such")
    expect(page.locator("#own-report .own-problem")).to_contain_text("no encoding 'no such'")
    type_in(page, "Encoding", "utf-8-sig")
    expect(page.locator("#own-report .own-classes li")).to_have_count(2)
    type_in(page, "Names of columns", "the first")
    expect(page.locator("#own-report .own-problem")).to_contain_text("is no number of a line")
    choose(page, "Names of columns", "line 41")
    page.click("#own-use")
    expect(page.locator("#own-report .own-done")).to_contain_text("2 labels")


def test_another_sheet_can_be_chosen_where_the_first_is_refused(
    visit: Visit, tmp_path: Path
) -> None:
    book = openpyxl.Workbook()
    book.active.title = "raw"
    for _ in range(5):
        book.active.append([f"c{n}" for n in range(250)])
    sheet = book.create_sheet("labelled")
    for row in [("text", "label"), *rows(2)]:
        sheet.append(row)
    book.save(tmp_path / "wide.xlsx")
    page = visit()
    drop(page, tmp_path / "wide.xlsx")
    expect(page.locator("#own-report .own-problem")).to_contain_text("That is the sheet “raw”")
    choose(page, "Sheet", "labelled")
    expect(page.locator("#own-report .own-classes li")).to_have_count(2)
    page.click("#own-use")
    expect(page.locator("#own-report .own-done")).to_contain_text("2 labels")
