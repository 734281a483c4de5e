"""Own tables: what people bring, good and bad; a sentence for each that cannot be used."""

from __future__ import annotations

import csv
import datetime
import gzip
import io
import json
import pickle
import random
import sqlite3
import zipfile
from pathlib import Path

import openpyxl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import lora_core as lc
from lora_core.limits import Limits
from lora_core.tasks.binary_formats import read_sheet
from lora_core.tasks.file import read_table
from lora_core.tasks.own_table import guess_columns, inspect_table, own_name, token_lengths
from tests.tasks.mutants import mutated, seeds

WORDS = [
    "sun",
    "rain",
    "wind",
    "snow",
    "hail",
    "fog",
    "cloud",
    "storm",
    "frost",
    "dew",
    "mist",
    "sleet",
    "thunder",
    "drizzle",
]
ROWS = [(f"the {w} came at {n} today", "dry" if w < "m" else "wet") for n in "ab" for w in WORDS]


def delimited(rows=ROWS, header=("text", "label"), delimiter=",", end="\r\n") -> str:
    file = io.StringIO()
    writer = csv.writer(file, delimiter=delimiter, lineterminator=end)
    writer.writerows([header, *rows] if header else rows)
    return file.getvalue()


def objects(rows=ROWS, names=("text", "label")) -> list[dict]:
    return [dict(zip(names, row, strict=True)) for row in rows]


def json_lines(items) -> str:
    return "".join(json.dumps(item) + "\n" for item in items)


def workbook(*sheets) -> bytes:
    book = openpyxl.Workbook()
    book.remove(book.active)
    for number, rows in enumerate(sheets):
        sheet = book.create_sheet(f"sheet {number}")
        for row in rows:
            sheet.append(row)
    file = io.BytesIO()
    book.save(file)
    return file.getvalue()


def parquet(columns: dict, **options) -> bytes:
    file = io.BytesIO()
    pq.write_table(pa.table(columns), file, **options)
    return file.getvalue()


def archive(members: dict[str, bytes]) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as zipped:
        for name, data in members.items():
            zipped.writestr(name, data)
    return file.getvalue()


def late_rows() -> bytes:
    """The second row is in a sheet's last line, after a million empty ones."""
    book = openpyxl.Workbook()
    for line, row in ((1, ("text", "label")), (2, ROWS[0]), (1_048_576, ROWS[1])):
        for column, value in enumerate(row, 1):
            book.active.cell(line, column, value)
    file = io.BytesIO()
    book.save(file)
    return file.getvalue()


def zip_bomb() -> bytes:
    with zipfile.ZipFile(io.BytesIO(workbook([("text", "label"), *ROWS]))) as book:
        members = {name: book.read(name) for name in book.namelist()}
    members["xl/worksheets/sheet1.xml"] += b" " * 100_000_000
    return archive(members)


def dictionary_bomb() -> bytes:
    """A small Parquet file in which one long text is repeated by reference."""
    text = pa.array(["x" * 20_000 + str(i) for i in range(20)])
    texts = pa.DictionaryArray.from_arrays(pa.array([i % 20 for i in range(20_000)]), text)
    return parquet({"text": texts.cast(pa.string()), "label": ["a", "b"] * 10_000})


def database(folder: Path) -> bytes:
    path = folder / "x.db"
    connection = sqlite3.connect(path)
    connection.execute("create table t (text, label)")
    connection.commit()
    connection.close()
    return path.read_bytes()


def write(folder: Path, name: str, content: bytes | str) -> Path:
    path = folder / name
    path.write_bytes(content.encode("utf-8") if isinstance(content, str) else content)
    return path


TABLE = [("text", "label"), *ROWS]
MANY = [(f"a text with number {i}", f"label {i % 101}") for i in range(505)]
XLSX = workbook(TABLE)
PARQUET = parquet({"text": [t for t, _ in ROWS], "label": [c for _, c in ROWS]})

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
    ("huge-cell.csv", 'text,label\nx,a\n"' + "y " * 100_000 + '",b\n', "Line 3"),
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
    ("packed.csv.gz", gzip.compress(b"text,label\na,b\n"), "gzip"),
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
    ("csv.xlsx", delimited(), "not XLSX inside"),
    ("csv.parquet", delimited(), "not PARQUET inside"),
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
    expected = {"1", "2", "2.5", "true", "2024-05-01", "spaced", "x"}
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
    exact = [len(base.tokenizer.encode_ordinary(text)) for text in texts]
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


def test_a_reader_that_dies_is_a_sentence(tmp_path, monkeypatch) -> None:
    path = write(tmp_path, "a.xlsx", XLSX)
    monkeypatch.setattr("lora_core.tasks.binary_formats.SECONDS", 0.01)
    with pytest.raises(ValueError, match="took longer"):
        read_sheet(path, "XLSX", max_rows=10, max_columns=10, max_characters=1000)
    monkeypatch.setattr("lora_core.tasks.binary_formats.SECONDS", 40)
    monkeypatch.setattr("sys.executable", "/bin/false")
    with pytest.raises(lc.TaskError, match="damaged"):
        lc.read_task(path)


def test_names_do_not_hide_bundled_tasks() -> None:
    assert own_name("sms-spam") == "my-sms-spam"
    assert own_name("sms-spam-collection") == "my-sms-spam-collection"
    assert own_name("Ünser Ordner/../x y") == "Ünser-Ordner-..-x-y" and own_name("//") == "table"


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
