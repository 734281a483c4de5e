"""Tables that are written as no rule says, yet often: ends of lines, nulls, keys, quotes, names."""

from __future__ import annotations

import gzip
import json
import zipfile
from pathlib import Path

import pytest

import lora_core as lc
from lora_core.tasks.file import PartError, Reading, read_table
from lora_core.tasks.own_table import inspect_table
from tests.cases.tables import TABLE, examples, lines, rows, taken, workbook, write
from tests.tasks.tables import archive

SHORT = [(f"Win money {i}", ("spam", "ham")[i % 2]) for i in range(40)]


def warned(task: lc.Task, words: str) -> bool:
    return any(words in warning for warning in task.warnings)


# Separators at the end ---------------------------------------------------------------------


@pytest.mark.parametrize("separator", [",", ";", "\t", "|"])
@pytest.mark.parametrize("more", [1, 2, 5])
@pytest.mark.parametrize("swapped", [False, True])
def test_a_separator_at_the_end_of_each_line_is_no_column(
    tmp_path, separator, more, swapped
) -> None:
    data = [(row[::-1] if swapped else row) + ("",) * more for row in SHORT]
    header = separator.join(("label", "text") if swapped else ("text", "label"))
    task = taken(write(tmp_path, "a.csv", lines(data, header, separator)))
    assert examples(task) == set(SHORT)
    assert not warned(task, "names of rows")


def test_a_note_behind_one_row_is_said_and_shifts_nothing(tmp_path) -> None:
    data = [(*row, "see above" if i == 3 else "") for i, row in enumerate(SHORT)]
    task = taken(write(tmp_path, "a.csv", lines(data)))
    assert examples(task) == set(SHORT) - {SHORT[3]}
    assert warned(task, "line 5")


def test_a_last_column_without_a_name_is_not_taken_for_row_names(tmp_path) -> None:
    data = [(*row, f"by {i % 3}") for i, row in enumerate(SHORT)]
    with pytest.raises(lc.TaskError, match="or a column has no name"):
        lc.read_task(write(tmp_path, "a.csv", lines(data)))


def test_names_of_rows_are_still_seen(tmp_path) -> None:
    for first in ("r{}", "{}", "Mazda RX{}"):
        data = [(first.format(i + 1), *row) for i, row in enumerate(SHORT)]
        task = taken(write(tmp_path, "a.csv", lines(data)))
        assert examples(task) == set(SHORT) and warned(task, "names of rows")


# Rows that vanish --------------------------------------------------------------------------


@pytest.mark.parametrize("label_first", [False, True])
@pytest.mark.parametrize("between", [[""], ["rare"], ["", ""], ["rare", "", "good"], [""] * 12])
def test_rows_with_no_or_a_rare_label_are_not_swallowed(tmp_path, between, label_first) -> None:
    labels = ["good", *between, "good"]
    inside = [(f"line {i} of these", label) for i, label in enumerate(labels)]
    inside[0] = ('"' + inside[0][0], "good")
    inside[-1] = (inside[-1][0] + ' 5"', "good")
    data = [*rows()[:20], *inside, *rows()[20:]]
    turned = [(c, t) for t, c in data] if label_first else data
    path = write(tmp_path, "a.csv", lines(turned, "label,text" if label_first else "text,label"))
    assert len(read_table(path).rows) == len(data)
    assert warned(taken(path), "line 22 a quotation mark")


@pytest.mark.parametrize(
    "inside",
    [
        ['"Hello there,', "Win a prize now,", 'He said 5",good'],
        ['"Hello there,odd', "Win a prize now,odder", 'He said 5",oddest'],
        ['"Hello there, you', "a prize for you,good", 'and me too 5",good'],
        ['"Hello there', "a prize for you,good", "and one,bad", 'and me too 5",good'],
    ],
)
def test_lines_of_a_cell_that_may_be_rows_are_named(tmp_path, inside) -> None:
    before = lines(rows()[:20])
    path = write(tmp_path, "a.csv", before + "\n".join(inside) + "\n" + lines(rows()[20:], "x")[2:])
    report = inspect_table(path)
    several = f"22 to {21 + len(inside)}"
    assert any(several in warning for warning in report.warnings) or report.rows == 60 + len(inside)


def test_texts_of_several_lines_are_no_cause_for_a_remark(tmp_path) -> None:
    data = [(f"Dear all,\n\n{t}: yes, no, perhaps.\nBest, Bob", c) for t, c in rows()]
    quoted = [(f'"{t}"', c) for t, c in data]
    task = taken(write(tmp_path, "a.csv", lines(quoted)))
    assert examples(task) == set(data) and not task.warnings


# Labels ------------------------------------------------------------------------------------


def labelled(labels: list[str], count: int = 12) -> str:
    return lines(
        [(f"{text} {n}", f'"{label}"') for n, label in enumerate(labels) for text, _ in rows(count)]
    )


@pytest.mark.parametrize(
    ("labels", "expected"),
    [
        (["1", "10", "100", "1,000"], 4),
        (["1", "10", "1.000"], 3),
        (["2", "2,000,000", "3"], 3),
        (["3", "0", "3,0", "1,2"], 4),
        (["3", "1", "3,0", "3,1"], 4),
        (["1", "2", "1.0", "2.0"], 2),
        (["1", "2", "1,0", "2,0"], 2),
        (["1", "2", "1.00"], 2),
        (["-1", "1", "-1.0"], 2),
        (["1", "2", "1.000000"], 2),
    ],
)
def test_only_what_is_one_number_is_one_label(tmp_path, labels, expected) -> None:
    task = lc.read_task(write(tmp_path, "a.csv", labelled(labels)))
    assert len(task.labels) == expected
    assert warned(task, "they are one number") == (expected < len(labels))


@pytest.mark.parametrize(
    "null", ["\\N", ".", "--", "(null)", "(blank)", "<null>", "NULL", "None", "NA", "#N/A", "nan"]
)
def test_what_databases_write_for_nothing_is_no_label(tmp_path, null) -> None:
    data = [*rows(), *((f"more {i}", null) for i in range(4))]
    task = lc.read_task(write(tmp_path, "a.csv", lines(data)))
    assert task.labels == ("bad", "good")
    assert warned(task, f"4 rows with “{null}” in the place of a label")


def test_signs_are_labels_where_they_are_a_class(tmp_path) -> None:
    task = lc.read_task(write(tmp_path, "a.csv", labelled([".", "?", "!", "--"])))
    assert set(task.labels) == {".", "?", "!", "--"} and warned(task, "'.' (12 rows)")


@pytest.mark.parametrize("null", ["\\N", "NA", "None", "(null)", "NaN", "null", "#REF!"])
def test_what_programs_write_for_nothing_is_no_text(tmp_path, null) -> None:
    task = lc.read_task(write(tmp_path, "a.csv", lines([*rows(), (null, "good")])))
    assert examples(task) == set(rows())
    assert warned(task, f"1 row with “{null}” in the place of a text")


@pytest.mark.parametrize("answer", ["none", "na", "-", "no", "Null problem"])
def test_what_a_person_may_have_answered_is_a_text(tmp_path, answer) -> None:
    task = lc.read_task(write(tmp_path, "a.csv", lines([*rows(), (answer, "good")])))
    assert (answer, "good") in examples(task)


@pytest.mark.parametrize("several", ["[2 14]", "[ 2 14]", "[2. 14.]", "['a' 'b']", '["a" "b"]'])
def test_lists_as_numpy_prints_them_are_several_labels(tmp_path, several) -> None:
    single = "[{}]" if "2" in several else "['{}']"
    values = [
        several if i < 5 else single.format(int(c == "good")) for i, (_, c) in enumerate(rows())
    ]
    data = [(t, value) for (t, _), value in zip(rows(), values, strict=True)]
    path = write(tmp_path, "a.tsv", lines(data, "text\tlabel", "\t"))
    task = lc.read_task(path)
    assert task.labels == ("0", "1") and warned(task, "5 rows with several labels")


# Names -------------------------------------------------------------------------------------


@pytest.mark.parametrize("names", ["text,label", "Nachricht,Abteilung", "id,comment,verdict"])
@pytest.mark.parametrize("size", [5, 20])
@pytest.mark.parametrize("end", ["", ","])
@pytest.mark.parametrize("mark", ["", "\ufeff"])
def test_names_that_come_again_are_no_rows(tmp_path, names, size, end, mark) -> None:
    """Files that were put one behind another: cat a.csv b.csv c.csv."""
    wide = names.count(",") == 2
    data = [(str(i), *row) if wide else row for i, row in enumerate(rows())]
    parts = [lines(data[i : i + size], mark + names + end) for i in range(0, 60, size)]
    task = taken(write(tmp_path, "a.csv", "".join(parts)))
    assert examples(task) == set(rows())
    assert warned(task, f"names of the columns come again (line{'s' * (size < 30)} {size + 2}")


def test_names_that_come_again_in_a_sheet_are_no_rows(tmp_path) -> None:
    workbook(one=[*TABLE[:30], TABLE[0], *TABLE[30:]]).save(tmp_path / "a.xlsx")
    task = taken(tmp_path / "a.xlsx")
    assert examples(task) == set(rows()) and warned(task, "come again (row 31)")


def test_a_first_row_of_data_that_comes_again_is_data(tmp_path) -> None:
    data = [*rows(), rows()[0]]
    table = read_table(write(tmp_path, "a.csv", lines(data, "").lstrip()))
    assert table.columns == ("column 1", "column 2") and len(table.rows) == 61


@pytest.mark.parametrize(
    "names", ["# of stars,Review text,Verdict", "#,Words,Kind", "% sure,Words,Kind", "//,Was,Art"]
)
def test_a_name_may_begin_as_a_comment_does(tmp_path, names) -> None:
    data = [(str(i), *row) for i, row in enumerate(rows())]
    assert read_table(write(tmp_path, "a.csv", lines(data, names))).columns == tuple(
        names.split(",")
    )


@pytest.mark.parametrize("top", ["# made by a desk, all of them", "// one of, two three"])
def test_comments_above_the_names_are_still_seen(tmp_path, top) -> None:
    for names in ("text,label", "Words,Kind"):
        table = read_table(write(tmp_path, "a.csv", f"{top}\n{lines(rows(), names)}"))
        assert table.columns == tuple(names.split(",")) and len(table.rows) == 60


def test_names_far_below_are_offered(tmp_path) -> None:
    top = "".join(f"Feld {i},Wert {i}\n" for i in range(12))
    path = write(tmp_path, "a.csv", top + lines(rows(), "Nachricht,Abteilung"))
    report = inspect_table(path)
    assert (13, "Nachricht · Abteilung") in report.tops
    assert examples(taken(path, header=13)) == set(rows())


# Quotes and separators ---------------------------------------------------------------------


@pytest.mark.parametrize("separator", [",", ";", "\t"])
@pytest.mark.parametrize("header", ['"text{}label"', "text{}label"])
def test_lines_that_are_quoted_as_a_whole(tmp_path, separator, header) -> None:
    data = [(f'"{t}', f'{c}"') for t, c in rows()]
    path = write(tmp_path, "a.csv", lines(data, header.format(separator), separator))
    task = taken(path)
    assert examples(task) == set(rows()) and warned(task, "as a whole stands in quotation marks")


def test_lines_that_are_quoted_twice(tmp_path) -> None:
    data = [(f"{t}, they say", c) for t, c in rows()]
    content = '"text,label"\n' + "".join(f'"""{t}"",{c}"\n' for t, c in data)
    assert examples(taken(write(tmp_path, "a.csv", content))) == set(data)


def test_a_quoted_column_alone_stays_one(tmp_path) -> None:
    texts = [f"{text}, yes{', no' * (i % 3)}" for i, (text, _) in enumerate(rows())]
    content = lines([(f'"{text}"',) for text in texts], "text")
    assert read_table(write(tmp_path, "a.csv", content)).columns == ("text",)


@pytest.mark.parametrize("separator", [",", ";", "|"])
@pytest.mark.parametrize("text", ["{}{} yes", '{}{} a "quoted" word', "C:\\dir\\{}{}"])
def test_a_backslash_before_a_separator_makes_it_text(tmp_path, separator, text) -> None:
    """As QUOTE_NONE of Python's csv and exports of databases write."""
    data = [(text.format(t, separator), c) for t, c in rows()]
    written = [
        (t.replace("\\", "\\\\").replace(separator, "\\" + separator).replace('"', '\\"'), c)
        for t, c in data
    ]
    path = write(tmp_path, "a.csv", lines(written, f"text{separator}label", separator))
    assert examples(taken(path)) == set(data)


def test_a_backslash_at_a_cell_s_end_is_text(tmp_path) -> None:
    data = [(f"{t} C:\\dir\\", c) for t, c in rows()]
    assert examples(taken(write(tmp_path, "a.csv", lines(data)))) == set(data)


@pytest.mark.parametrize("sign", ["~", "$", "=>", "\x02"])
def test_a_separator_of_one_s_own(tmp_path, sign) -> None:
    path = write(tmp_path, "a.csv", lines(rows(), f"text{sign}label", sign))
    assert examples(taken(path, separator=sign)) == set(rows())


# JSON --------------------------------------------------------------------------------------

RECORDS = [{"text": t, "label": c} for t, c in rows()]
BY_LABEL = {kind: [t for t, c in rows() if c == kind] for kind in ("good", "bad")}
UNEQUAL = {"spam": [t for t, _ in rows()[:20]], "ham": [t for t, _ in rows()[20:]]}
SHAPES = {
    "firebase": {f"-N{i}": {**r, "meta": {"by": i, "tags": [1, 2]}} for i, r in enumerate(RECORDS)},
    "a first record without a user": {
        f"-N{i}": r if i == 0 else {**r, "user": f"u{i}"} for i, r in enumerate(RECORDS)
    },
    "inside, by key": {"posts": {f"-N{i}": r for i, r in enumerate(RECORDS)}},
    "chatbot": {"intents": [
        {"tag": kind, "patterns": texts, "responses": ["Thank you for telling us all this", "Yes"]}
        for kind, texts in BY_LABEL.items()]},
    "alexa": {"interactionModel": {"languageModel": {"intents": [
        {"name": kind, "samples": texts, "slots": []} for kind, texts in BY_LABEL.items()]}}},
    "a list of intents": [{"intent": k, "utterances": texts} for k, texts in BY_LABEL.items()],
    "intents by name": {kind: {"examples": texts, "n": 1} for kind, texts in BY_LABEL.items()},
    "by label": BY_LABEL,
    "by label, inside": {"version": 1, "data": BY_LABEL},
    "objects by label": {kind: [{"text": t} for t in texts] for kind, texts in BY_LABEL.items()},
    "columns by other names": {"Nachricht": [t for t, _ in rows()], "Art": [c for _, c in rows()]},
}  # fmt: skip


@pytest.mark.parametrize("shape", SHAPES)
def test_json_by_keys_by_labels_and_with_several_texts_together(tmp_path, shape) -> None:
    task = taken(write(tmp_path, "a.json", json.dumps(SHAPES[shape])))
    assert examples(task) == set(rows())


def test_intents_a_line(tmp_path) -> None:
    content = "".join(json.dumps(intent) + "\n" for intent in SHAPES["a list of intents"])
    task = taken(write(tmp_path, "a.jsonl", content))
    assert examples(task) == set(rows())
    assert warned(task, "Each of several texts in 'utterances' was taken as a row")


def test_lists_of_unequal_length_by_label(tmp_path) -> None:
    task = taken(write(tmp_path, "a.json", json.dumps(UNEQUAL)))
    assert task.labels == ("ham", "spam") and len(examples(task)) == 60
    assert warned(task, "The name of each list was taken as the label")


def test_columns_of_each_part_of_a_split(tmp_path) -> None:
    columns = {"text": [t for t, _ in rows()], "label": [c for _, c in rows()]}
    half = {name: values[:30] for name, values in columns.items()}
    path = write(tmp_path, "a.json", json.dumps({"train": columns, "test": half}))
    assert examples(taken(path)) == set(rows())
    assert examples(taken(path, sheet="test")) == set(rows()[:30])


def test_lists_by_label_can_be_read_alone(tmp_path) -> None:
    path = write(tmp_path, "a.json", json.dumps(SHAPES["objects by label"]))
    assert inspect_table(path).sheets == ("good", "bad")
    assert len(read_table(path, reading=Reading(sheet="bad")).rows) == 30


# Parts that cannot be used -----------------------------------------------------------------


def long_sheet(path: Path) -> None:
    many = [("a", "b", "c")] * 50_100
    workbook(raw=many, labelled=TABLE).save(path)


def wide_sheet(path: Path) -> None:
    workbook(raw=[[f"c{i}" for i in range(250)]] * 5, labelled=TABLE).save(path)


def broken_sheet(path: Path) -> None:
    workbook(raw=TABLE * 9, labelled=TABLE).save(path)
    with zipfile.ZipFile(path) as book:
        members = {name: book.read(name) for name in book.namelist()}
    sheet = members["xl/worksheets/sheet1.xml"]
    members["xl/worksheets/sheet1.xml"] = sheet[: len(sheet) * 2 // 3]
    path.write_bytes(archive(members))


@pytest.mark.parametrize("make", [long_sheet, wide_sheet, broken_sheet])
def test_a_sheet_that_is_refused_leaves_the_others_to_be_chosen(tmp_path, make) -> None:
    path = tmp_path / "a.xlsx"
    make(path)
    with pytest.raises(PartError, match="sheet “raw”; there is also “labelled”") as caught:
        read_table(path)
    assert caught.value.sheets == ("raw", "labelled") and caught.value.sheet == "raw"
    assert examples(taken(path, sheet="labelled")) == set(rows())


@pytest.mark.parametrize(
    "raw", [[[1, 2]] * 50_001, [{f"c{i}": i for i in range(300)}] * 70, [[1], {"a": 2}] * 40]
)
def test_a_list_that_is_refused_leaves_the_others_to_be_chosen(tmp_path, raw) -> None:
    path = write(tmp_path, "a.json", json.dumps({"raw": raw, "labelled": RECORDS}))
    with pytest.raises(PartError, match="list “raw”; there is also “labelled”") as caught:
        read_table(path)
    assert caught.value.sheets == ("raw", "labelled")
    assert examples(taken(path, sheet="labelled")) == set(rows())


def test_a_sheet_that_is_not_there_leaves_those_that_are(tmp_path) -> None:
    workbook(one=TABLE, two=TABLE).save(tmp_path / "a.xlsx")
    with pytest.raises(PartError, match="no sheet “three”") as caught:
        read_table(tmp_path / "a.xlsx", reading=Reading(sheet="three"))
    assert caught.value.sheets == ("one", "two")


# Signatures --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("members", "stored"),
    [
        ({"data-xl/train.csv": b"text,label\n"}, False),
        ({"train.csv": b"text,label\nsee xl/ and word/ and xl/workbook.bin,a\n"}, True),
        ({"xl/train.csv": b"text,label\n"}, False),
        ({"my word/train.csv": b"text,label\n"}, False),
    ],
)
def test_three_letters_inside_an_archive_are_no_signature(tmp_path, members, stored) -> None:
    path = tmp_path / "a.zip"
    kind = zipfile.ZIP_STORED if stored else zipfile.ZIP_DEFLATED
    with zipfile.ZipFile(path, "w", kind) as made:
        for name, data in members.items():
            made.writestr(name, data)
    with pytest.raises(lc.TaskError, match="packed archive"):
        lc.read_task(path)


def test_a_workbook_inside_an_archive_is_not_the_file(tmp_path) -> None:
    workbook(one=TABLE).save(tmp_path / "mine.xlsx")
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as made:
        made.write(tmp_path / "mine.xlsx", "mine.xlsx")
    with pytest.raises(lc.TaskError, match="packed archive"):
        lc.read_task(tmp_path / "a.zip")


def test_a_workbook_behind_something_else_or_called_otherwise_is_one(tmp_path) -> None:
    workbook(one=TABLE).save(tmp_path / "a.xlsx")
    (tmp_path / "b.bin").write_bytes((tmp_path / "a.xlsx").read_bytes())
    assert examples(taken(tmp_path / "b.bin")) == set(rows())


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("a.rds", gzip.compress(b"X\n\x00\x00\x00\x03\x00\x04\x03\x00", mtime=0)),
        ("a.RData", gzip.compress(b"RDX3\nX\n\x00\x00\x00\x03", mtime=0)),
        ("packed", gzip.compress(b"RDX2\nX\n\x00\x00\x00\x02", mtime=0)),
        ("plain.rda", b"RDX3\nX\n\x00\x00\x00\x03\x00\x04\x03\x00"),
        ("small.rds", b"BZh91AY&SY\x00\x01"),
    ],
)
def test_files_of_r_are_called_so(tmp_path, name, content) -> None:
    with pytest.raises(lc.TaskError, match="file of R"):
        lc.read_task(write(tmp_path, name, content))
