"""Own tables that cannot be used: one sentence for each, and none breaks the program."""

from __future__ import annotations

import gzip
import json
import pickle
import random

import pytest

import lora_core as lc
from lora_core.limits import Limits
from lora_core.tasks.binary_formats import read_sheet
from lora_core.tasks.own_table import inspect_table
from tests.tasks.mutants import mutated, seeds
from tests.tasks.tables import (
    MANY,
    PARQUET,
    ROWS,
    XLSX,
    archive,
    database,
    delimited,
    dictionary_bomb,
    json_lines,
    objects,
    parquet,
    workbook,
    write,
    zip_bomb,
)

# name of the file, content, the essential words of the sentence
BAD: list[tuple[str, bytes | str, str]] = [
    ("nothing.csv", "", "empty"),
    ("spaces.csv", "  \r\n\r\n ", "empty"),
    ("bom.csv", b"\xef\xbb\xbf", "no columns"),
    ("commas.csv", ",,,\n,,,\n", "no columns"),
    ("header.csv", "text,label\n", "nothing under it"),
    ("blank-rows.csv", "text,label\n,\n,\n", "nothing under it"),
    ("no-texts.csv", "text,label\n,a\n,b\n", "No row has both"),
    ("nan.csv", "text,label\nNaN,a\nnull,b\n", "No row has both"),
    ("one-column.csv", "text\nhello there\ngood bye\n", "only the column 'text'"),
    ("prose.txt", "This is a letter.\nIt has lines.\nIt has no table.\n", "only the column"),
    ("names.csv", delimited(header=("message", "kind")), "'message', 'kind'"),
    ("no-label.csv", delimited(header=("text", "kind")), "One column 'text' and one 'label'"),
    ("no-text.xlsx", workbook([("body", "label"), *ROWS]), "'body', 'label'"),
    ("no-text.parquet", parquet({"a": ["x"], "b": ["y"]}), "'a', 'b'"),
    ("no-text.jsonl", json_lines(objects(names=("a", "b"))), "'a', 'b'"),
    (
        "chat.jsonl",
        json_lines([{"messages": [{"role": "user", "content": "hi"}]}]),
        "'content'",
    ),
    ("no-header.csv", delimited(header=None), "'column 1', 'column 2'"),
    ("one-label.csv", delimited([(t, "a") for t, _ in ROWS]), "the label 'a'"),
    ("101-labels.csv", delimited(MANY), "101 different values"),
    ("swapped.csv", delimited([("a", t * 9) for t, _ in ROWS]), "swapped"),
    ("ids.csv", delimited([(t, i) for i, (t, _) in enumerate(ROWS * 5)]), "two labels"),
    ("two-rows.csv", "text,label\nhello,a\nbye,b\n", "too few rows"),
    ("quarrel.csv", "text,label\nhello,a\nhello,b\nHello,b\n", "two labels"),
    ("open-quote.csv", 'text,label\nfine,a\n"never closed,b\nmore,a\nmore,b\n', "too few rows"),
    ("huge-cell.csv", 'text,label\nx,a\n"' + "y " * 1_000_001 + '",b\n', "Line 3"),
    ("one-line.csv", "text,label\n" + "x" * 4_900_000, "characters"),
    ("unquoted.csv", "text,label\n" + "yes, well, no,a\nno, not, so,b\n" * 9, "quotation marks"),
    ("wide.csv", ",".join(f"c{i}" for i in range(10_000)) + "\n" + "1," * 9_999, "10,000 columns"),
    ("wide.jsonl", json_lines([{f"c{i}": i for i in range(10_000)}]), "10,000 columns"),
    ("wide.parquet", parquet({f"c{i}": [1] for i in range(300)}), "300 columns"),
    ("wide.xlsx", workbook([[f"c{i}" for i in range(300)]]), "201 columns"),
    ("long.csv", delimited([(f"text {i}", "ab"[i % 2]) for i in range(50_001)]), "50,000 rows"),
    ("long.parquet", parquet({"text": ["x"] * 50_001, "label": ["y"] * 50_001}), "50,000 rows"),
    ("long.jsonl", "{}\n" * 50_001, "50,000 rows"),
    ("large.csv", "text,label\n" + "x,y\n" * 5_500_000, "at most 20 MB"),
    ("broken.jsonl", json_lines(objects()) + '{"text": "half', "Line 29"),
    ("numbers.jsonl", "1\n2\n3\n", "Line 1 is not an object"),
    ("lists.jsonl", '["a", "b"]\n["c", "d"]\n', "'a', 'b'"),
    ("deep.json", "[" * 100_000 + "]" * 100_000, "not valid JSON"),
    ("deep.jsonl", '{"a":' * 100_000 + "1" + "}" * 100_000, "not valid JSON"),
    ("digits.jsonl", '{"text": ' + "9" * 10_000 + ', "label": 1}', "not valid JSON"),
    ("words.json", '["a", "b"]', "Item 1 of the list"),
    ("empty.json", "[]", "no columns"),
    ("one.json", '{"rows": [1, 2]}', "only the column 'rows'"),
    ("pretty.json", json.dumps({"text": "x", "label": "y"}, indent=1), "the label 'y'"),
    ("page.csv", "<!DOCTYPE html><html><body>Sign in</body></html>", "web page"),
    ("feed.csv", '<?xml version="1.0"?><rows/>', "XML"),
    ("paper.csv", b"%PDF-1.7 stuff", "PDF"),
    ("old.xls", b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1" + bytes(600), "XLSX"),
    ("packed.csv.gz", gzip.compress(b"text,label\na,b\n", mtime=0), "gzip"),
    ("packed.zip", archive({"mine.csv": b"text,label\n"}), "ZIP"),
    ("letter.docx", archive({"word/document.xml": b"<w/>"}), "Word"),
    (
        "open.ods",
        archive({"mimetype": b"application/vnd.oasis.opendocument.spreadsheet" * 9}),
        "ZIP|OpenDocument",
    ),
    ("picture.csv", b"\x89PNG\r\n\x1a\n" + bytes(99), "picture"),
    ("arrow.parquet", b"ARROW1\x00\x00" + bytes(99), "Arrow"),
    ("frame.pkl", pickle.dumps({"text": ["a"], "label": ["b"]}), "pickle"),
    ("frame.csv", pickle.dumps([("a", "b")], protocol=4), "pickle"),
    ("random.csv", random.Random(0).randbytes(5_000), "not hold text"),
    ("program.csv", b"\x7fELF\x02\x01\x01" + bytes(5_000), "a program"),
    ("junk.xlsx", b"\x01\x02" * 500, "not XLSX inside"),
    ("junk.parquet", b"\x01\x02" * 500, "not PARQUET inside"),
    ("half.xlsx", XLSX[: len(XLSX) // 2], "damaged"),
    ("half.parquet", PARQUET[: len(PARQUET) // 2], "damaged"),
    ("head.parquet", b"PAR1", "damaged"),
    ("fake.xlsx", archive({"xl/workbook.xml": b"<workbook/>"}), "damaged"),
    ("bomb.xlsx", zip_bomb(), "unpacks to far more"),
    ("bomb.parquet", dictionary_bomb(), "once unpacked"),
    ("no-rows.xlsx", workbook([]), "no columns"),
    ("header.xlsx", workbook([("text", "label")]), "nothing under it"),
    (
        "formulas.xlsx",
        workbook([("text", "label"), ('="a"&"b"', "x"), ('="c"', "y")]),
        "formula whose result is not stored",
    ),
]


def test_there_are_forty_bad_files_and_more() -> None:
    assert len(BAD) >= 40 and len({name for name, _, _ in BAD}) == len(BAD)


@pytest.mark.parametrize(("name", "content", "words"), BAD, ids=[name for name, _, _ in BAD])
def test_what_cannot_be_used_is_one_sentence(tmp_path, name, content, words) -> None:
    path = write(tmp_path, name, content)
    with pytest.raises(lc.TaskError, match=words) as caught:
        lc.read_task(path)
    said = str(caught.value)
    assert len(said) < 400 and said[-1] in ".?" and "\n" not in said
    assert not any(word in said for word in ("Error", "Traceback", "None", str(tmp_path)))
    try:  # the page looks before it trains: it says so, too
        report = inspect_table(path)
    except lc.TaskError:
        return
    assert report.problem or (report.text_column, report.label_column) != ("text", "label")


def test_what_is_no_file_is_a_sentence(tmp_path) -> None:
    with pytest.raises(lc.TaskError, match=r"no file 'none\.csv'"):
        lc.read_task(tmp_path / "none.csv")
    with pytest.raises(lc.TaskError, match="cannot be opened"):
        lc.read_task(tmp_path)
    path = write(tmp_path, "t.db", database(tmp_path))
    with pytest.raises(lc.TaskError, match="SQLite"):
        lc.read_task(path)


def test_limits_are_the_server_s(tmp_path) -> None:
    path = write(tmp_path, "a.csv", delimited())
    with pytest.raises(lc.TaskError, match="more than 10 rows"):
        lc.read_task(path, limits=Limits(max_rows=10))
    with pytest.raises(lc.TaskError, match="at most 1 are taken"):
        lc.read_task(path, limits=Limits(max_columns=1))
    cut = lc.read_task(path, limits=Limits(max_characters=12))
    assert max(len(e.text) for e in cut.train) == 12
    assert any("Cut to 12 characters" in warning for warning in cut.warnings)


def test_a_reader_that_dies_is_a_sentence(tmp_path, monkeypatch) -> None:
    path = write(tmp_path, "a.xlsx", XLSX)
    monkeypatch.setattr("lora_core.tasks.binary_formats.SECONDS", 0.01)
    with pytest.raises(ValueError, match="took longer"):
        read_sheet(path, "XLSX", max_rows=10, max_columns=10, max_characters=1000)
    monkeypatch.setattr("lora_core.tasks.binary_formats.SECONDS", 40)
    monkeypatch.setattr("sys.executable", "/bin/false")
    with pytest.raises(lc.TaskError, match="damaged"):
        lc.read_task(path)


def test_mutated_files_are_tables_or_sentences(tmp_path) -> None:
    """Some hundred; `tests/benchmarks/fuzz_tables.py` does ten thousand."""
    shuffler = random.Random(5)
    outcomes = {"table": 0, "sentence": 0}
    originals = {name: data for name, data in seeds().items() if "." in name}
    for number in range(300):
        name = shuffler.choice(sorted(originals))
        path = write(tmp_path, name, mutated(originals[name], shuffler))
        if path.suffix in (".xlsx", ".parquet") and number % 6:
            continue  # each starts a process; the benchmark tries thousands in one
        try:
            task = lc.read_task(path, limits=Limits(max_rows=1000))
        except lc.TaskError as error:
            assert str(error)[-1] in ".?" and len(str(error)) < 500
            outcomes["sentence"] += 1
        else:
            assert task.train and task.validation and task.test and len(task.labels) >= 2
            outcomes["table"] += 1
    assert min(outcomes.values()) > 20
