"""Tables of still other programs and hands: labels in many forms, lines that draw, files misnamed.

Each was read wrongly, refused for a wrong reason, or trained on unsaid; all content is made up.
"""

from __future__ import annotations

import io
import json
import zipfile

import openpyxl
import pyarrow as pa
import pytest

import lora_core as lc
from lora_core.tasks.encodings import ENCODINGS, decode
from lora_core.tasks.file import read_table
from lora_core.tasks.own_table import inspect_table
from tests.cases.tables import TABLE, examples, lines, rows, taken, workbook, write

ROWS = rows()
RECORDS = [{"text": t, "label": c} for t, c in ROWS]


def warned(task: lc.Task, words: str) -> bool:
    return any(words in warning for warning in task.warnings)


# Labels ------------------------------------------------------------------------------------


def flags(c: str) -> tuple[str, str, str]:
    return ("1", "0", "0") if c == "good" else ("0", "1", "0")


@pytest.mark.parametrize(
    ("on", "off"), [("1", "0"), ("1.0", "0.0"), ("True", "False"), ("x", ""), ("TRUE", "FALSE")]
)
@pytest.mark.parametrize("prefix", ["", "label_", "cats."])
def test_a_label_that_is_spread_over_columns(tmp_path, on, off, prefix) -> None:
    data = [
        (t, on if c == "good" else off, on if c == "bad" and i % 4 == 1 else off,
         on if c == "bad" and i % 4 != 1 else off)
        for i, (t, c) in enumerate(ROWS)
    ]  # fmt: skip
    header = f"text,{prefix}good,{prefix}bad,{prefix}very bad"
    task = taken(write(tmp_path, "a.csv", lines(data, header)))
    kinds = ["good", "bad", "good", "very bad"]
    assert examples(task) == {(t, kinds[i % 4]) for i, (t, _) in enumerate(ROWS)}
    assert warned(task, "The column 'label' was made of")


def test_flags_beside_a_label_or_of_another_kind_make_none(tmp_path) -> None:
    data = [(*row, *flags(row[1])) for row in ROWS]
    path = write(tmp_path, "a.csv", lines(data, "text,category,a,b,c"))
    assert "label" not in read_table(path).columns
    rare = [(t, str(int(i % 9 == 0)), str(int(i % 8 == 0))) for i, (t, _) in enumerate(ROWS)]
    path = write(tmp_path, "b.csv", lines(rare, "text,toxic,insult"))
    assert read_table(path).columns == ("text", "toxic", "insult")


def test_several_labels_under_one_text_and_none(tmp_path) -> None:
    marks = ["100", "010", "001", "110", "000", "100", "010", "001", "100", "010"]
    data = [(t, *marks[i % 10]) for i, (t, _) in enumerate(ROWS)]
    task = taken(write(tmp_path, "a.csv", lines(data, "text,joy,fear,love")))
    assert len(examples(task)) == 48 and set(task.labels) == {"joy", "fear", "love"}
    assert warned(task, "6 rows with several labels") and warned(task, "6 rows without a text")


@pytest.mark.parametrize("shape", ["pairs", "objects"])
def test_categories_of_spacy(tmp_path, shape) -> None:
    cats = [{"good": float(c == "good"), "bad": float(c == "bad")} for _, c in ROWS]
    data = [
        [t, {"cats": marks}] if shape == "pairs" else {"text": t, "cats": marks}
        for (t, _), marks in zip(ROWS, cats, strict=True)
    ]
    assert examples(taken(write(tmp_path, "a.json", json.dumps(data)))) == set(ROWS)


def test_lists_with_a_single_one_are_its_place(tmp_path) -> None:
    data = [{"text": t, "label": [int(c == "bad"), int(c == "good")]} for t, c in ROWS]
    task = taken(write(tmp_path, "a.json", json.dumps(data)))
    assert examples(task) == {(t, str(int(c == "good"))) for t, c in ROWS}
    assert warned(task, "the place of the 1")


@pytest.mark.parametrize("sign", [";", " | ", ", ", "/", " & "])
def test_labels_together_in_a_cell_are_warned_of(tmp_path, sign) -> None:
    data = [(t, f'"{c}{sign}urgent"' if i % 3 == 0 else c) for i, (t, c) in enumerate(ROWS)]
    task = taken(write(tmp_path, "a.csv", lines(data)))
    assert warned(task, f"in 20 rows, such as 'good{sign}urgent'")
    many = [(f"{t} {n}", f'"a{n % 12}{sign}b{n // 12}"') for n in range(144) for t, _ in ROWS[:2]]
    report = inspect_table(write(tmp_path, "b.csv", lines(many)))
    assert "144 different values" in report.problem and "Keep one label a row" in report.problem


@pytest.mark.parametrize(
    "labels",
    [["Food, drink", "Travel"], ["1,5", "2,5", "1", "2", "5"], ["C", "C++", "C/C++"], ["a/b", "c"]],
)
def test_a_sign_within_a_label_is_no_cause_for_a_remark(tmp_path, labels) -> None:
    data = [(f"{t} {n}", f'"{name}"') for n, name in enumerate(labels) for t, _ in ROWS[:12]]
    task = taken(write(tmp_path, "a.csv", lines(data)))
    assert len(task.labels) == len(labels) and not warned(task, "stand together")


def test_what_excel_is_told_to_leave_as_text(tmp_path) -> None:
    data = [(t, '="007"' if c == "good" else '"=""010"""') for t, c in ROWS]
    task = taken(write(tmp_path, "a.csv", lines(data)))
    assert task.labels == ("007", "010")


def test_true_in_a_workbook_is_one_label(tmp_path) -> None:
    data = [(t, c == "good" if i % 4 < 2 else str(c == "good").upper())
            for i, (t, c) in enumerate(ROWS)]  # fmt: skip
    workbook(one=[("text", "label"), *data]).save(tmp_path / "a.xlsx")
    assert taken(tmp_path / "a.xlsx").labels == ("FALSE", "TRUE")


def test_swapped_names_are_asked_about(tmp_path) -> None:
    path = write(tmp_path, "a.csv", lines([(c, t) for t, c in ROWS]))
    assert "Were the two columns swapped?" in inspect_table(path).problem


# The columns; what the rows have there (t: text, l: label, i: number, 2 and 5: so many values).
MEANT = {
    "lang,source,split,snippet,stance": "e22tl",
    "Geschlecht,Kanal,Freitext,Stimmung": "22tl",
    "Gender,Age,Statement,Status": "25tl",
    "Id,Denominator,Score,Summary,Text": "i2lit",
    "ID,Resume_str,Resume_html,Category": "ithl",
    "编号,来源,内容,类别": "i2tl",
    "id,plataforma,comentario,sentimiento": "i2tl",
}


@pytest.mark.parametrize("header", MEANT)
def test_columns_that_are_meant(tmp_path, header) -> None:
    data = [
        [
            {"t": t, "l": "abc"[i % 3], "i": str(i), "h": f"<p class='x'>{t}</p>", "e": "en"}.get(
                kind, str(i // 2 % int(kind) if kind.isdigit() else "")
            )
            for kind in MEANT[header]
        ]
        for i, (t, _) in enumerate(ROWS)
    ]
    report = inspect_table(write(tmp_path, "a.csv", lines(data, header)))
    names = dict(zip(MEANT[header], header.split(","), strict=True))
    assert (report.text_column, report.label_column) == (names["t"], names["l"])


# Lines and separators ----------------------------------------------------------------------

DRAWN = {
    "markdown": "| text | label |\n|------|:-----:|\n"
    + "".join(f"| {t} | {c} |\n" for t, c in ROWS),
    "short": "text|label\n--|:-:\n" + "".join(f"{t}|{c}\n" for t, c in ROWS),
    "psql": " text | label \n------+-------\n" + "".join(f" {t} | {c}\n" for t, c in ROWS),
    "mysql": (border := "+----+-----+\n") + "| text | label |\n" + border
    + "".join(f"| {t} | {c} |\n" for t, c in ROWS) + border,
    "sqlcmd": "text,label\n----,-----\n" + "".join(f"{t},{c}\n" for t, c in ROWS),
}  # fmt: skip


@pytest.mark.parametrize("kind", DRAWN)
def test_lines_that_only_draw_are_no_rows(tmp_path, kind) -> None:
    task = taken(write(tmp_path, "a.txt", DRAWN[kind]))
    assert examples(task) == set(ROWS) and warned(task, "only a border is drawn")


def test_dashes_that_are_a_text_stay(tmp_path) -> None:
    task = lc.read_task(write(tmp_path, "a.csv", lines([*ROWS, ("----", "good")])))
    assert ("----", "good") in examples(task)


@pytest.mark.parametrize("sign", ["@", "，", "；", "؛"])
def test_separators_that_texts_have_as_well(tmp_path, sign) -> None:
    data = [(f"{t}{', they say' * (i % 3)}.", c) for i, (t, c) in enumerate(ROWS)]
    assert examples(taken(write(tmp_path, "a.txt", lines(data, f"text{sign}label", sign)))) == set(
        data
    )


def test_an_address_in_each_row_separates_nothing(tmp_path) -> None:
    data = [(f"a{i}@example.org", t, c) for i, (t, c) in enumerate(ROWS)]
    path = write(tmp_path, "a.csv", lines(data, "email,text,label") + "b@example.org,half\n")
    assert inspect_table(path).reading.separator == ","


@pytest.mark.parametrize(
    "labels", [("0", "1"), ("LOC:city", "NUM:date"), ("POS", "NEG"), ("-1", "1")]
)
def test_a_label_before_the_first_blank(tmp_path, labels) -> None:
    data = [(f"{t}{', they say' * (i % 3)}", labels[c == "bad"]) for i, (t, c) in enumerate(ROWS)]
    path = write(tmp_path, "a.txt", "".join(f"{c} {t}\n" for t, c in data))
    task = taken(path)
    assert examples(task) == set(data) and warned(task, "first word of each line")
    assert read_table(path, reading=None).columns == ("label", "text")


@pytest.mark.parametrize(
    "line", ["What is {t} {i}?", "{i} {t}", "{k} 1:0.4 7:{i}", "{k} stars,{t},{c}", "I saw {t}"]
)
def test_a_first_word_that_is_no_label(tmp_path, line) -> None:
    content = "".join(line.format(t=t, c=c, i=i, k=i % 2) + "\n" for i, (t, c) in enumerate(ROWS))
    assert read_table(write(tmp_path, "a.txt", content)).columns != ("label", "text")


@pytest.mark.parametrize("marks", ["“”", "„“", "«»", "「」", "``"])
def test_marks_of_a_word_processor_around_cells(tmp_path, marks) -> None:
    data = [(f"{t}, they say", c) for t, c in ROWS]
    content = lines([(f"{marks[0]}{t}{marks[1]}", c) for t, c in data])
    task = taken(write(tmp_path, "a.csv", content))
    assert examples(task) == set(data) and warned(task, "around cells")
    said = [(f"{marks[0]}{t}{marks[1]}", c) for t, c in ROWS]
    assert examples(taken(write(tmp_path, "b.csv", lines(said)))) == set(said)


def test_a_stray_carriage_return_ends_no_line(tmp_path) -> None:
    data = [(t.replace(" was ", "\rwas ") if i % 10 == 0 else t, c)
            for i, (t, c) in enumerate(ROWS)]  # fmt: skip
    content = lines(data).replace("\n", "\r\n")
    assert examples(taken(write(tmp_path, "a.csv", content))) == set(data)
    assert examples(taken(write(tmp_path, "b.csv", lines(ROWS).replace("\n", "\r")))) == set(ROWS)


@pytest.mark.parametrize("between", [" ", "\n"])
def test_texts_as_long_as_a_book(tmp_path, between) -> None:
    data = [(f'"{t}{(between + "and so on") * 20_000}"', c) for t, c in ROWS[:12]]
    task = taken(write(tmp_path, "a.csv", lines(data)))
    assert len(examples(task)) == 12 and warned(task, "Cut to 20,000 characters: 12 texts")


# Letters -----------------------------------------------------------------------------------

ACCENTS = [(f"L’été à Orléans {i}", "ab"[i % 2]) for i in range(40)]


@pytest.mark.parametrize("encoding", ["utf-32-le", "utf-32-be"])
def test_utf_32_without_a_mark(tmp_path, encoding) -> None:
    path = write(tmp_path, "a.csv", lines(ACCENTS).encode(encoding))
    assert examples(taken(path)) == set(ACCENTS)
    assert inspect_table(path).reading.encoding in ENCODINGS


def test_lines_of_two_encodings(tmp_path) -> None:
    half = lines(ACCENTS[:20]).encode() + lines(ACCENTS[20:], "x").encode("cp1252")[2:]
    task = taken(write(tmp_path, "a.csv", half))
    assert examples(task) == set(ACCENTS) and warned(task, "20 lines were not in UTF-8")


def test_lines_in_chinese_that_look_like_utf_8_are_not() -> None:
    text = lines([(f"联通公司的服务{'很好' * (i % 3)}{i}", "ab"[i % 2]) for i in range(40)])
    assert decode(text.encode("gb18030")).text == text


def test_emoji_as_java_writes_them(tmp_path) -> None:
    data = [(f"it was {'😀' if i % 2 else '😡'} on visit {i}", c) for i, (_, c) in enumerate(ROWS)]
    halves = lines(data).encode("utf-16-le").decode("utf-16-le", "surrogatepass")
    content = "".join(
        c if c < "\U00010000" else "".join(map(chr, (
            0xD7C0 + (ord(c) >> 10), 0xDC00 + (ord(c) & 0x3FF)))) for c in halves
    )  # fmt: skip
    path = write(tmp_path, "a.csv", content.encode("utf-8", "surrogatepass"))
    assert examples(taken(path)) == set(data)


def test_icelandic_of_a_mac() -> None:
    text = lines([(f"Góðan daginn, pöntunin mín er ekki komin, það {i}", "a") for i in range(30)])
    assert decode(text.encode("mac_iceland")).text == text


# JSON --------------------------------------------------------------------------------------

SHAPES = {
    "json in json": json.dumps(json.dumps(RECORDS)),
    "labels by text": json.dumps(dict(ROWS)),
    "annotators": json.dumps([
        {"data": {"text": t}, "annotations": [
            {"id": n, "result": [{"value": {"choices": [c]}}]} for n in range(1 + i % 3)]}
        for i, (t, c) in enumerate(ROWS)]),
    "pieces": json.dumps([
        {"text": [t[:5], {"type": "bold", "text": t[5:9]}, t[9:]] if i % 2 else t, "label": c}
        for i, (t, c) in enumerate(ROWS)]),
}  # fmt: skip


@pytest.mark.parametrize("shape", SHAPES)
def test_json_of_still_other_shapes(tmp_path, shape) -> None:
    assert examples(taken(write(tmp_path, "a.json", SHAPES[shape]))) == set(ROWS)


def test_annotators_who_disagree_give_no_label(tmp_path) -> None:
    data = [
        {"data": {"text": t}, "annotations": [{"choice": c}, {"choice": "bad" if i < 4 else c}]}
        for i, (t, c) in enumerate(ROWS)
    ]
    task = taken(write(tmp_path, "a.json", json.dumps(data)))
    assert len(examples(task)) == 58 and warned(task, "2 rows with several labels")


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("\n".join(map(json.dumps, RECORDS[:9])) + '\n{"text": "a", "label": \n'
         + "\n".join(map(json.dumps, RECORDS[9:])), "Line 10"),
        ("[\n" + ",\n".join(map(json.dumps, RECORDS)) + ",\n]", "Line 62.*a comma too many"),
    ],
)  # fmt: skip
def test_what_is_broken_in_json_is_named(tmp_path, content, words) -> None:
    with pytest.raises(lc.TaskError, match=words):
        lc.read_task(write(tmp_path, "a.jsonl", content))


# Files -------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["a.json", "a.jsonl", "a.xlsx", "a.parquet", "a.xls", "a.md", "a"])
def test_csv_under_another_name(tmp_path, name) -> None:
    assert examples(taken(write(tmp_path, name, lines(ROWS)))) == set(ROWS)


def test_a_workbook_with_macros(tmp_path) -> None:
    book: openpyxl.Workbook = workbook(one=TABLE)
    book.save(tmp_path / "a.xlsm")
    assert examples(taken(tmp_path / "a.xlsm")) == set(ROWS)


def _stream() -> bytes:
    table = pa.table({"text": [t for t, _ in ROWS], "label": [c for _, c in ROWS]})
    sink = io.BytesIO()
    with pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table)
    return sink.getvalue()


def _archive(*names: str) -> bytes:
    made = io.BytesIO()
    with zipfile.ZipFile(made, "w") as archive:
        for name in names:
            archive.writestr(name, "x")
    return made.getvalue()


CELLS = "".join(f"<tr><td>{t}</td><td>{c}</td></tr>\n" for t, c in ROWS)
OTHERS = {
    "html.xls": (f"<table border=1>{CELLS}</table>", "web page with a table"),
    "meta.xls": (f"<meta charset=utf-8><table>{CELLS}</table>", "web page with a table"),
    "wide.xls": (f"<html><table>{CELLS}</table>".encode("utf-16"), "web page with a table"),
    "page.mht": ("MIME-Version: 1.0\r\nContent-Type: multipart/related\r\n", "web page with a"),
    "old.xls": ('<?xml version="1.0"?>\n<Workbook '
                'xmlns="urn:schemas-microsoft-com:office:spreadsheet">', "Excel 2003"),
    "flat.fods": ('<?xml version="1.0"?><x xmlns:office="urn:oasis:names:tc:opendocument">',
                  "OpenDocument"),
    "biff.xls": (b"\x09\x08\x10\x00\x00\x06\x05\x00" + bytes(99), "old Excel"),
    "old.numbers": (_archive("Index.zip", "preview.jpg"), "Apple Numbers"),
    "talk.pptx": (_archive("ppt/presentation.xml"), "presentation"),
    "arrays.npz": (_archive("arr_0.npy"), "NumPy"),
    "model.pt": (_archive("archive/data.pkl"), "weights of a model"),
    "data-00000-of-00001.arrow": (_stream(), "Arrow"),
    "table.h5": (b"\x89HDF\r\n\x1a\n" + bytes(99), "HDF5"),
    "table.duckdb": (bytes(8) + b"DUCK" + bytes(99), "DuckDB"),
    "table.mdb": (b"\x00\x01\x00\x00Standard Jet DB\x00" + bytes(99), "Access"),
    "tuples.txt": ("[\n" + "".join(f"    ({t!r}, {c!r}),\n" for t, c in ROWS) + "]\n", "Python"),
    "program.py": ("rows = [\n" + "".join(f"    ({t!r}, {c!r}),\n" for t, c in ROWS), "Python"),
    "double.txt": ("".join(f'("{t}", "{c}"),\n' for t, c in ROWS), "Python"),
    "objects.txt": ("\n".join(map(repr, RECORDS)), "Python"),
    "lists.csv": ("".join(f"{[t, c]!r},\n" for t, c in ROWS), "Python"),
}  # fmt: skip


@pytest.mark.parametrize("name", OTHERS)
def test_what_is_no_table_is_called_what_it_is(tmp_path, name) -> None:
    content, words = OTHERS[name]
    with pytest.raises(lc.TaskError, match=words):
        inspect_table(write(tmp_path, name, content))


def test_quotations_and_brackets_in_a_first_text_are_text(tmp_path) -> None:
    for first in ("('Tis the season)", "[sic] 'so'", "{'quoted'} words", "<b>bold</b> words"):
        data = [(first, "good"), *ROWS]
        path = write(tmp_path, "a.csv", "".join(f"{c},{t}\n" for t, c in data))
        assert len(read_table(path).rows) == 61
        path = write(tmp_path, "b.csv", "".join(f"{t},{c}\n" for t, c in data))
        assert len(read_table(path).rows) == 61
