"""Own tables: what people bring, in every form, and what is made of it."""

from __future__ import annotations

import datetime
import io
import json
import zipfile
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import lora_core as lc
from lora_core.tasks.columns import guess_columns
from lora_core.tasks.file import read_table
from lora_core.tasks.own_table import inspect_table, own_name, token_lengths
from tests.tasks.tables import (
    PARQUET,
    ROWS,
    TABLE,
    XLSX,
    archive,
    delimited,
    json_lines,
    late_rows,
    objects,
    parquet,
    workbook,
    write,
)


def table_of(tmp_path: Path, name: str, content: bytes | str) -> list[tuple[str, ...]]:
    return list(read_table(write(tmp_path, name, content)).rows)


GOOD = {
    "plain.csv": delimited(),
    "unix.csv": delimited(end="\n"),
    "mac.csv": delimited(end="\r"),
    "semicolon.csv": delimited(delimiter=";"),
    "bar.txt": delimited(delimiter="|"),
    "tabs.tsv": delimited(delimiter="\t"),
    "tabs.csv": delimited(delimiter="\t"),
    "excel.csv": "sep=;\r\n" + delimited(delimiter=";"),
    "bom.csv": delimited().encode("utf-8-sig"),
    "utf16.csv": delimited().encode("utf-16"),
    "utf16-be.csv": b"\xfe\xff" + delimited().encode("utf-16-be"),
    "utf16-bare.csv": delimited().encode("utf-16-le"),
    "utf32.csv": delimited().encode("utf-32"),
    "lines.jsonl": json_lines(objects()),
    "lines-crlf.ndjson": json_lines(objects()).replace("\n", "\r\n\r\n"),
    "list.json": json.dumps(objects(), indent=1),
    "unnamed": json_lines(objects()),
    "book.xlsx": XLSX,
    "renamed.csv": XLSX,
    "table.parquet": PARQUET,
    "zstd.parquet": parquet(
        {"text": [t for t, _ in ROWS], "label": [c for _, c in ROWS]}, compression="zstd"
    ),
}


@pytest.mark.parametrize("name", GOOD)
def test_every_form_of_the_same_table_gives_the_same_task(tmp_path, name) -> None:
    plain = lc.read_task(write(tmp_path, "p.csv", delimited()))
    task = lc.read_task(write(tmp_path, name, GOOD[name]))
    assert task.labels == ("dry", "wet") and task.warnings == ()
    assert (task.train, task.validation, task.test) == (plain.train, plain.validation, plain.test)


@pytest.mark.parametrize(
    ("encoding", "text"),
    [
        ("cp1252", "Schöne Grüße, das kostet 5 € – “sehr” teuer"),
        ("latin-1", "l'été où naïve garçon mangea à côté"),
        ("cp1251", "Добрый день, где мой заказ и почему он не пришёл вовремя"),
        ("cp932", "こんにちは、私の注文はどこですか。まだ届いていません"),
        ("gb18030", "你好，我的订单在哪里？为什么还没有到？请尽快回复我"),
        ("utf-8", "naïve Ελληνικά 漢字 🙂"),
        ("utf-16", "naïve Ελληνικά 漢字 🙂"),
    ],
)
def test_encodings_are_found_out(tmp_path, encoding, text) -> None:
    rows = [(f"{text} {i}", "ab"[i % 2]) for i in range(30)]
    task = lc.read_task(write(tmp_path, "a.csv", delimited(rows).encode(encoding)))
    assert {e.text for e in task.train} <= {text for text, _ in rows}
    assert bool(task.warnings) is (not encoding.startswith("utf"))


def test_a_broken_letter_does_not_make_the_rest_wrong(tmp_path) -> None:
    rows = [(f"naïve café {i}", "ab"[i % 2]) for i in range(30)]
    data = delimited(rows).encode().replace("ï".encode(), b"\xc3", 1)
    task = lc.read_task(write(tmp_path, "a.csv", data))
    assert any("café" in e.text for e in task.train)
    assert any("1 letter is broken" in warning for warning in task.warnings)


def test_quotes_newlines_and_commas_stay_in_the_text(tmp_path) -> None:
    odd = ['He said "no", twice', "two\nlines", "a, b; c\td", 'ends with "', "'single'"]
    rows = [(f"{text} {i}", "ab"[i % 2]) for i, text in enumerate(odd * 4)]
    assert table_of(tmp_path, "a.csv", delimited(rows)) == rows
    assert table_of(tmp_path, "a.tsv", delimited(rows, delimiter="\t")) == rows
    assert table_of(tmp_path, "a.jsonl", json_lines(objects(rows))) == rows
    assert table_of(tmp_path, "a.xlsx", workbook([("text", "label"), *rows])) == rows
    assert table_of(tmp_path, "late.xlsx", late_rows()) == ROWS[:2]


def test_quotes_in_a_tab_file_without_quoting_are_part_of_the_texts(tmp_path) -> None:
    lines = ['ham\t"Hello he said', "spam\twin now", 'ham\t"quoted" start', "spam\tcall us"] * 3
    rows = table_of(tmp_path, "SMSSpamCollection", "\n".join(lines))
    assert rows[0] == ("ham", '"Hello he said') and len(rows) == 12


def test_labels_of_every_kind_become_words(tmp_path) -> None:
    values = [1, 2.0, 2.5, True, datetime.date(2024, 5, 1), " spaced ", "x"]
    rows = [(f"text {i}", values[i % 7]) for i in range(35)]
    expected = {"1", "2", "2.5", "TRUE", "2024-05-01", "spaced", "x"}
    assert set(lc.read_task(write(tmp_path, "a.xlsx", workbook([TABLE[0], *rows]))).labels) == (
        expected
    )
    dates = {
        "text": [t for t, _ in rows],
        "label": [datetime.date(2024, 1, 1 + i % 3) for i, _ in enumerate(rows)],
    }
    task = lc.read_task(write(tmp_path, "a.parquet", parquet(dates)))
    assert task.labels == ("2024-01-01", "2024-01-02", "2024-01-03")
    for kind in (pa.int8(), pa.float32(), pa.uint64()):
        numbers = pa.array([i % 2 for i in range(35)]).cast(kind)
        data = parquet({"text": dates["text"], "label": numbers})
        assert lc.read_task(write(tmp_path, "b.parquet", data)).labels == ("0", "1")
    flags = parquet({"text": dates["text"], "label": [i % 2 == 0 for i in range(35)]})
    assert lc.read_task(write(tmp_path, "c.parquet", flags)).labels == ("false", "true")


def test_numbered_labels_of_the_datasets_library_get_their_names(tmp_path) -> None:
    features = {"label": {"names": ["ham", "spam"], "_type": "ClassLabel"}}
    metadata = {"huggingface": json.dumps({"info": {"features": features}})}
    table = pa.table({"text": [t for t, _ in ROWS], "label": [i % 2 for i in range(len(ROWS))]})
    path = tmp_path / "a.parquet"
    pq.write_table(table.replace_schema_metadata(metadata), path)
    task = lc.read_task(path)
    assert task.labels == ("ham", "spam") and any("names" in w for w in task.warnings)


def test_empty_cells_and_repeats_are_left_out_and_counted(tmp_path) -> None:
    rows = [*ROWS, ("", "dry"), ("x", ""), ("NaN", "dry"), ("y", None), ROWS[0], ROWS[0]]
    rows += [("torn", "dry"), (" torn\u200b", "wet")]
    for name, data in (("a.csv", delimited(rows)), ("a.xlsx", workbook([TABLE[0], *rows]))):
        task = lc.read_task(write(tmp_path, name, data))
        texts = [e.text for part in (task.train, task.validation, task.test) for e in part]
        assert sorted(texts) == sorted(text for text, _ in ROWS)
        assert [w for w in task.warnings if w.startswith("Left out")] == [
            "Left out: 3 rows without a text or a label.",
            "Left out: 1 row with “NaN” in the place of a text.",
            "Left out: 3 rows with a text that came before.",
            "Left out: 1 text to be found under two labels or more.",
        ]


def test_rows_with_too_many_cells_are_left_out_and_counted(tmp_path) -> None:
    task = lc.read_task(write(tmp_path, "a.csv", delimited() + "one, two, three,dry\n"))
    assert any(warning.startswith("1 row has more cells") for warning in task.warnings)


def test_the_first_of_several_sheets_is_read_and_said(tmp_path) -> None:
    task = lc.read_task(write(tmp_path, "a.xlsx", workbook(TABLE, [("other",)])))
    assert task.labels == ("dry", "wet")
    assert task.warnings == ("The workbook has 2 sheets; the first, “sheet 0”, was read.",)


def test_a_formula_gives_its_value(tmp_path) -> None:
    """As Excel stores it: the formula, and beside it the value that it had."""
    with zipfile.ZipFile(io.BytesIO(XLSX)) as book:
        members = {name: book.read(name) for name in book.namelist()}
    sheet = members["xl/worksheets/sheet1.xml"].decode()
    cell = '<c r="A2" t="str"><f>CONCAT("from ", "a formula")</f><v>from a formula</v></c>'
    start = sheet.index('<c r="A2"')
    end = sheet.index("</c>", start) + 4
    members["xl/worksheets/sheet1.xml"] = (sheet[:start] + cell + sheet[end:]).encode()
    rows = table_of(tmp_path, "a.xlsx", archive(members))
    assert rows[0] == ("from a formula", "dry") or rows[0][0] == "from a formula"
    assert len(rows) == len(ROWS)


def test_columns_by_name_whatever_the_case_or_as_told(tmp_path) -> None:
    path = write(tmp_path, "a.csv", delimited(header=(" TEXT ", "Label")))
    assert lc.read_task(path).labels == ("dry", "wet")
    path = write(tmp_path, "b.csv", delimited(header=("Mitteilung", "Sorte")))
    task = lc.read_task(path, text_column="Mitteilung", label_column="Sorte")
    assert task.labels == ("dry", "wet")
    with pytest.raises(lc.TaskError, match=r"no column 'text'.*'Mitteilung', 'Sorte'"):
        lc.read_task(path, text_column="text")
    with pytest.raises(lc.TaskError, match="cannot both be"):
        lc.read_task(path, text_column="Sorte", label_column="Sorte")


def test_a_table_without_a_header_is_noticed(tmp_path) -> None:
    path = write(tmp_path, "a.csv", delimited(header=None))
    report = inspect_table(path)
    assert report.columns == ("column 1", "column 2") and report.rows == len(ROWS)
    assert (report.text_column, report.label_column) == ("column 1", "column 2")
    assert not report.problem and any("looks like data" in w for w in report.warnings)
    task = lc.read_task(path, text_column="column 1", label_column="column 2")
    assert task.labels == ("dry", "wet")


def test_columns_of_the_same_name_or_none_get_one_of_their_own(tmp_path) -> None:
    path = write(tmp_path, "a.csv", "text,label,text,,\nx,y,z,w,\n")
    assert read_table(path).columns == ("text", "label", "text (2)", "column 4")


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        (("id", "message", "category"), ("message", "category")),
        (("v1", "v2", ""), ("v2", "v1")),
        (("alpha", "beta", "gamma"), ("beta", "gamma")),
        (("label", "text", "score"), ("text", "label")),
        (("Content", "n", "Class"), ("Content", "Class")),
    ],
)
def test_columns_are_guessed_by_name_then_by_content(tmp_path, names, expected) -> None:
    text, label = names.index(expected[0]), names.index(expected[1])
    rows = []
    for i, (sentence, kind) in enumerate(ROWS):
        row = [str(i)] * 3
        row[text], row[label] = sentence, kind
        rows.append(row)
    table = read_table(write(tmp_path, "a.csv", delimited(rows, header=names)))
    assert guess_columns(table) == expected


def test_the_report_is_what_the_page_needs(tmp_path, base) -> None:
    long = ("word " * 400, "wet")
    rows = [*ROWS * 2, ("ice", "cold"), long, *((f"more rain {i}", "wet") for i in range(60))]
    path = write(tmp_path, "a.csv", delimited([(t, c, "") for t, c in rows], ("a", "b", "c")))
    report = inspect_table(path, encoding=base.tokenizer, context_length=base.config.context_length)
    assert report.rows == len(rows) and report.columns == ("a", "b", "c")
    assert (report.text_column, report.label_column) == ("a", "b") and not report.problem
    assert list(report.classes.items()) == [("wet", 61 + 16), ("dry", 12), ("cold", 1)]
    assert len(report.preview) == 5 and max(len(c) for row in report.preview for c in row) <= 200
    assert report.lengths is not None and sum(report.lengths.counts) == sum(report.classes.values())
    assert report.lengths.cut == 1 and report.lengths.edges[-1] >= base.config.context_length
    said = " ".join(report.warnings)
    for words in ("28 rows with a text that came before", "'cold' (1)", "uneven", "256 tokens"):
        assert words in said
    swapped = inspect_table(path, "b", "a")
    assert "the label 'ice'" in swapped.problem


def test_lengths_are_counted_in_tokens(base) -> None:
    texts = ["a", "a b", "a b c d e f g h", "x y " * 500]
    lengths = token_lengths(texts, base.tokenizer, 16)
    exact = [len(base.tokenizer.encode_ordinary(text)) + 1 for text in texts]  # with its end
    assert lengths.edges[0] == 0 and sum(lengths.counts) == 4
    assert lengths.cut == sum(n > 16 for n in exact) == 1
    for n in exact[:3]:
        assert lengths.counts[next(i for i, e in enumerate(lengths.edges[1:]) if n <= e)] > 0


def test_what_no_tokenizer_takes_is_gone(tmp_path, base) -> None:
    lines = [
        json.dumps({"text": f"half \ud83d {i} \x00 end", "label": "ab"[i % 2]}) for i in range(30)
    ]
    task = lc.read_task(write(tmp_path, "a.jsonl", "\n".join(lines)))
    for example in task.train:
        assert "\x00" not in example.text
        assert base.tokenizer.encode_ordinary(example.text)


def test_names_do_not_hide_bundled_tasks() -> None:
    assert own_name("sms-spam") == "my-sms-spam"
    assert own_name("sms-spam-collection") == "my-sms-spam-collection"
    assert own_name("Ünser Ordner/../x y") == "Ünser-Ordner-..-x-y" and own_name("//") == "table"
