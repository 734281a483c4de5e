"""Tables as programs and collections write them: which columns the page proposes, and what it says.

The shapes are those of forms, shops, help desks and published data sets; the content is made up.
"""

from __future__ import annotations

import csv
import io
import json
import tarfile
import zipfile
from pathlib import Path

import openpyxl
import pytest

import lora_core as lc
from lora_core.tasks.own_table import inspect_table
from tests.cases.test_tables import examples, rows, taken, workbook, write

ROWS = rows()
DAY = "2024/03/12 8:03:11 PM GMT+2"


def table(header: tuple[str, ...] | None, row, separator: str = ",", encoding: str = "utf-8"):
    """A CSV whose rows are what `row(i, text, label)` gives, a tuple each."""
    file = io.StringIO()
    lines = [row(i, *pair) for i, pair in enumerate(ROWS)]
    csv.writer(file, delimiter=separator).writerows([header, *lines] if header else lines)
    return file.getvalue().encode(encoding)


def objects(row) -> str:
    return "".join(json.dumps(row(i, *pair)) + "\n" for i, pair in enumerate(ROWS))


def key(i: int) -> str:
    return f"{i * 7919:08x}{i * 104729:016x}"


# name -> file, the column of texts and that of labels that are meant
PROPOSED = {
    "form.csv": (
        table(
            ("Timestamp", "I agree that this is used.", "What did you like?", "Come again?"),
            lambda i, t, c: (DAY, "I agree", t, c),
        ),
        ("What did you like?", "Come again?"),
    ),
    "german.csv": (
        table(
            ("Datum", "Nachricht", "Kategorie", "Betrag"),
            lambda i, t, c: ("01.03.2024", f"Größe: {t}; schön", c, f"{i},50"),
            ";",
            "cp1252",
        ),
        ("Nachricht", "Kategorie"),
    ),
    "japanese.csv": (
        table(
            ("番号", "レビュー", "評価"),
            lambda i, t, c: (str(i), f"とても良い一日でした。また行きたいと思います{i}", c),
            encoding="cp932",
        ),
        ("レビュー", "評価"),
    ),
    "news.jsonl": (
        objects(
            lambda i, t, c: {
                "link": f"https://www.example.com/entry/a-long-address-of-an-article_{key(i)}",
                "headline": t,
                "category": c,
                "short_description": f"{t}, they said.",
            }
        ),
        ("short_description", "category"),
    ),
    "shops.jsonl": (
        objects(lambda i, t, c: {"user_id": key(i), "cool": i % 2, "stars": i % 5, "text": t}),
        ("text", "stars"),
    ),
    "comments.csv": (
        table(
            ("id", "comment_text", "toxic", "insult", "hate"),
            lambda i, t, c: (key(i), t, i % 2, (i + 1) % 2, i // 2 % 2),
        ),
        ("comment_text", "toxic"),
    ),
    "clothes.csv": (
        table(
            ("", "Age", "Title", "Review Text", "Rating", "Recommended IND"),
            lambda i, t, c: (i, 20 + i % 40, "" if i % 2 else f"Nice {i % 5}", t, i % 5, i % 2),
        ),
        ("Review Text", "Rating"),
    ),
    "groups.csv": (
        table(
            ("", "content", "target", "target_names"),
            lambda i, t, c: (i, f"From: a@example.org\n\n{t}", i % 2, c),
        ),
        ("content", "target_names"),
    ),
    "numbered.csv": (
        table(("text", "label", "label_text"), lambda i, t, c: (t, i % 2, c)),
        ("text", "label_text"),
    ),
    "misnumbered.csv": (  # not the names of those numbers
        table(("text", "label", "label_text"), lambda i, t, c: (t, i % 3, c)),
        ("text", "label"),
    ),
    "pairs.tsv": (
        table(
            ("pairID", "sentence1", "sentence2", "gold_label"),
            lambda i, t, c: (f"3{c[0]}", "a b c", f"{t} b", c),
            "\t",
        ),
        ("sentence2", "gold_label"),
    ),
    "instructions.json": (
        json.dumps([{"instruction": f"Good? {t}", "input": "", "output": c} for t, c in ROWS]),
        ("instruction", "output"),
    ),
    "talks.json": (
        json.dumps(
            [
                {
                    "id": key(i),
                    "conversations": [{"from": "human", "value": t}, {"from": "gpt", "value": c}],
                }
                for i, (t, c) in enumerate(ROWS)
            ]
        ),
        ("conversations.human", "conversations.gpt"),
    ),
    "contents.jsonl": (
        objects(
            lambda i, t, c: {
                "contents": [
                    {"role": "user", "parts": [{"text": t}]},
                    {"role": "model", "parts": [{"text": c}]},
                ]
            }
        ),
        ("contents.user.text", "contents.model.text"),
    ),
    "nested.jsonl": (
        objects(lambda i, t, c: {"text": t, "label": {"id": i % 2, "name": c}}),
        ("text", "label.name"),
    ),
    "issues.csv": (
        table(
            ("Summary", "Key", "Issue Type", "Labels", "Labels", "Description"),
            lambda i, t, c: (t[:20], f"AB-{i}", c, "x", "", f"{t}\n{{code}}\nx"),
        ),
        ("Description", "Issue Type"),
    ),
}


@pytest.mark.parametrize("name", PROPOSED)
def test_the_columns_that_are_meant_are_proposed(tmp_path, name) -> None:
    content, expected = PROPOSED[name]
    report = inspect_table(write(tmp_path, name, content))
    assert (report.text_column, report.label_column) == expected
    assert not report.problem and sum(report.classes.values()) == 60


def test_a_key_is_not_proposed_as_a_label(tmp_path) -> None:
    content = table(("id", "text"), lambda i, t, c: (key(i % 20), t))
    report = inspect_table(write(tmp_path, "a.csv", content))
    assert report.label_column is None and "say which two" in report.problem


QUOTED = {
    "all": lambda t, c: f"'{t}, it''s so','{c}'",
    "where needed": lambda t, c: f"'{t}, it''s so',{c}" if "2" in t else f"{t},{c}",
    "backslash": lambda t, c: f"'{t}, it\\'s so',{c}",
}


@pytest.mark.parametrize("way", QUOTED)
def test_single_quotation_marks_around_cells(tmp_path, way) -> None:
    lines = [QUOTED[way](t, c) for t, c in ROWS]
    head = "'text','label'" if way == "all" else "text,label"
    task = taken(write(tmp_path, "a.csv", "\n".join([head, *lines]) + "\n"))
    changed = {(f"{t}, it's so" if way != "where needed" or "2" in t else t, c) for t, c in ROWS}
    assert examples(task) == changed
    assert any("Single quotation marks" in warning for warning in task.warnings)


def test_apostrophes_and_quotations_in_texts_stay(tmp_path) -> None:
    said = [(f"'Tis {t}, they said 'well', and 'bye'", c) for t, c in ROWS]
    content = table(("text", "label"), lambda i, t, c: said[i])
    assert examples(taken(write(tmp_path, "a.csv", content))) == set(said)
    plain = "".join(f"{c}\t'{t}\n" for t, c in ROWS)
    task = taken(write(tmp_path, "b.tsv", "label\ttext\n" + plain))
    assert examples(task) == {(f"'{t}", c) for t, c in ROWS}


def test_a_number_is_one_label_however_it_is_written(tmp_path) -> None:
    content = table(("text", "label"), lambda i, t, c: (t, ["1", "1.0", "0", "0.0"][i % 4]))
    task = taken(write(tmp_path, "a.csv", content))
    assert task.labels == ("0", "1") and len(examples(task)) == 60
    assert any("'0' and '0.0'" in warning for warning in task.warnings)
    versions = table(("text", "label"), lambda i, t, c: (t, ["1.0", "1.1", "2.0"][i % 3]))
    assert taken(write(tmp_path, "b.csv", versions)).labels == ("1.0", "1.1", "2.0")


def test_of_several_lists_of_rows_one_is_taken_and_said(tmp_path) -> None:
    lists = {part: [[f"{t} {part}", c] for t, c in ROWS] for part in ("val", "train", "test")}
    task = taken(write(tmp_path, "a.json", json.dumps(lists)))
    assert all(text.endswith("train") for text, _ in examples(task))
    assert any("3 lists: val, train, test" in warning for warning in task.warnings)


def _archive_of_texts() -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        for i, (text, label) in enumerate(ROWS):
            archive.writestr(f"data/{label}/{i}.txt", text)
    return file.getvalue()


def _tar() -> bytes:
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w") as archive:
        for i, (text, _) in enumerate(ROWS):
            entry = tarfile.TarInfo(f"data/{i}.txt")
            entry.size = len(text)
            archive.addfile(entry, io.BytesIO(text.encode()))
    return file.getvalue()


def _strict_workbook() -> bytes:
    """As Excel's “Strict Open XML Spreadsheet” writes it."""
    plain, strict = io.BytesIO(), io.BytesIO()
    book: openpyxl.Workbook = workbook(Data=[("text", "label"), *ROWS])
    book.save(plain)
    office = b"http://schemas.openxmlformats.org"
    with zipfile.ZipFile(plain) as old, zipfile.ZipFile(strict, "w") as new:
        for name in old.namelist():
            content = old.read(name)
            for kind in (b"spreadsheetml/2006/main", b"officeDocument/2006/relationships"):
                rest = kind.replace(b"/2006", b"")
                content = content.replace(
                    office + b"/" + kind, b"http://purl.oclc.org/ooxml/" + rest
                )
            new.writestr(name, content)
    return strict.getvalue()


OTHERS = {
    "texts.zip": (_archive_of_texts(), "name of its folder"),
    "data.tar": (_tar(), "TAR"),
    "data.csv": ("version https://git-lfs.github.com/spec/v1\noid sha256:4d\nsize 9\n", "lfs pull"),
    "dump.sql": ("CREATE TABLE r (a int);\nINSERT INTO r VALUES (1,'x','y');\n", "database"),
    "mails.arff": ("% x\n@RELATION m\n@ATTRIBUTE t STRING\n@DATA\n'a',b\n", "ARFF"),
    "nlu.yml": ("nlu:\n- intent: greet\n  examples: |\n    - hey\n", "YAML"),
    "table.ipynb": (json.dumps({"cells": [{"cell_type": "code", "source": []}]}), "notebook"),
    "table.gsheet": ('{"url": "https://docs.google.com/spreadsheets/d/1x"}', "link to a table"),
    "table.url": ("[InternetShortcut]\r\nURL=https://example.com/a.csv\r\n", "link to a table"),
    "strict.xlsx": (_strict_workbook(), "Strict Open XML"),
}


@pytest.mark.parametrize("name", OTHERS)
def test_what_is_no_table_is_named_with_the_way_out(tmp_path: Path, name) -> None:
    content, words = OTHERS[name]
    with pytest.raises(lc.TaskError, match=words):
        inspect_table(write(tmp_path, name, content))
