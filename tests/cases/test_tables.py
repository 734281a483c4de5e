"""Tables as strangers bring them, from public reports; all content is made up here.

Each was refused for a wrong reason, read wrongly, or lost rows unsaid.
"""

from __future__ import annotations

import io
import json
import zipfile

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import lora_core as lc
from lora_core.tasks.encodings import decode
from lora_core.tasks.file import Reading, read_table
from lora_core.tasks.own_table import inspect_table
from tests.cases.tables import PLACES, TABLE, examples, lines, rows, taken, workbook, write

# Signatures --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "name", ["PK", "ORC", "BZh", "Rar!", "MZ", "PAR1", "GIF8", "ARROW1", "Obj"]
)
def test_a_column_s_name_is_no_signature(tmp_path, name) -> None:
    data = [(str(i), *row) for i, row in enumerate(rows())]
    task = taken(write(tmp_path, "a.csv", lines(data, f"{name},text,label")))
    assert examples(task) == set(rows())


# What differs for a reader -----------------------------------------------------------------


@pytest.mark.parametrize(
    ("first", "second"),
    [
        *[("a == {}", "a = {}"), ("{} 👍", "{} 👎"), ("I like C++ {}", "I like C# {}")],
        *[("{} किताब", "{} कताब"), ("{} ไม้", "{} ไม่"), ("{}?", "{}!"), ("-{}", "+{}")],
        *[("{} US", "{} us"), ("1.5 m of {}", "15 m of {}"), ("{} ❤", "{} 💔"), ("x² {}", "x2 {}")],
    ],
)
def test_texts_that_differ_for_a_reader_are_two(tmp_path, first, second) -> None:
    data = [(first.format(p), "one") for p in PLACES] + [(second.format(p), "two") for p in PLACES]
    task = taken(write(tmp_path, "a.csv", lines(data)))
    assert examples(task) == set(data)


def test_labels_that_look_the_same_are_one_and_it_is_said(tmp_path) -> None:
    ways = ["café", "cafe\u0301", "café\u200b", "\ufeffcafé", "café\u200d", " café\u00a0"]
    data = [(t, ways[i // 2 % 6] if c == "good" else "bar") for i, (t, c) in enumerate(rows())]
    task = taken(write(tmp_path, "a.csv", lines(data)))
    assert task.labels == ("bar", "café")
    assert any("looks the same" in warning for warning in task.warnings)


def test_labels_of_letters_that_look_alike_are_warned_of(tmp_path) -> None:
    data = [(t, "sраm" if i % 4 == 0 else "spam" if c == "good" else "ham")  # Cyrillic р and а
            for i, (t, c) in enumerate(rows())]  # fmt: skip
    task = taken(write(tmp_path, "a.csv", lines(data)))
    assert len(task.labels) == 3
    assert any("Cyrillic small letter" in warning for warning in task.warnings)


def test_labels_called_like_nothing_are_kept_where_they_are_a_class(tmp_path) -> None:
    names = ["N/A", "null", "NA", "None", "yes"]
    data = [(f"{t} {n}", n) for n in names for t, _ in rows(20)]
    task = taken(write(tmp_path, "a.csv", lines(data)))
    assert set(task.labels) == set(names) and len(examples(task)) == 100
    assert any("'N/A' (20 rows)" in warning for warning in task.warnings)
    few = [*rows(), ("one more", "nan"), ("another", "#N/A")]
    task = taken(write(tmp_path, "b.csv", lines(few)))
    assert task.labels == ("bad", "good")
    assert any("“nan” in the place of a label" in warning for warning in task.warnings)


# Rows that vanish --------------------------------------------------------------------------


@pytest.mark.parametrize("label_first", [False, True])
def test_a_stray_quote_swallows_nothing(tmp_path, label_first) -> None:
    data = rows()
    data[5] = ('"' + data[5][0], data[5][1])
    data[30] = (data[30][0] + ' 5"', data[30][1])
    turned = [(c, t) for t, c in data] if label_first else data
    header = "label,text" if label_first else "text,label"
    task = taken(write(tmp_path, "a.csv", lines(turned, header)))
    assert len(examples(task)) == 60
    assert any("line 7 a quotation mark" in warning for warning in task.warnings)


def test_quotes_inside_a_text_that_are_not_doubled_stay(tmp_path) -> None:
    data = [(f'"Best" {t}' if i % 2 else f'he said "{t}" and left', c)
            for i, (t, c) in enumerate(rows())]  # fmt: skip
    path = write(tmp_path, "a.csv", lines([(f'"{t}"' if i % 2 == 0 else t, c)
                                           for i, (t, c) in enumerate(data)]))  # fmt: skip
    assert examples(taken(path)) == set(data)


def test_a_proper_cell_of_several_lines_stays_one(tmp_path) -> None:
    data = [(f"Hello,\n{t}\nThanks, Bob", c) for t, c in rows()]
    content = lines([(c, f'"{t}"') for t, c in data], "label,text")
    assert examples(taken(write(tmp_path, "a.csv", content))) == set(data)


def test_backslashes_before_quotes(tmp_path) -> None:
    said = [(f'he said "{t}, really" and, well, left', c) for t, c in rows()]
    content = lines([('"' + t.replace('"', '\\"') + '"', c) for t, c in said])
    assert examples(taken(write(tmp_path, "a.csv", content))) == set(said)


def test_a_blank_before_a_quote(tmp_path) -> None:
    data = [(f"{t}, they say", c) for t, c in rows()]
    path = write(tmp_path, "a.csv", lines([(c, f' "{t}"') for t, c in data], "label, text"))
    assert examples(taken(path)) == set(data)


def test_rows_that_are_left_out_are_named_by_their_lines(tmp_path) -> None:
    task = taken(write(tmp_path, "a.csv", lines(rows()) + "one, two, three,bad\n"))
    assert any("(line 62)" in warning for warning in task.warnings)


# How the file is written -------------------------------------------------------------------

LANGUAGES = {
    "cp1250": "Dobrý den, moje zásilka ještě nepřišla, žádám o vrácení peněz",
    "iso8859_2": "Dzień dobry, moja paczka jeszcze nie dotarła, proszę o zwrot pieniędzy",
    "cp852": "Jó napot, a csomagom még nem érkezett meg, őszintén űrhajó",
    "cp1254": "Merhaba, siparişim hâlâ gelmedi, paramı geri istiyorum ığdır",
    "cp857": "Merhaba, siparişim gelmedi, paramı geri istiyorum, çok üzgünüm",
    "cp1257": "Sveiki, mans sūtījums vēl nav atnācis, lūdzu atmaksājiet naudu šodien",
    "cp1251": "Здравствуйте, мой заказ ещё не пришёл, верните деньги",
    "koi8_r": "Здравствуйте, мой заказ ещё не пришёл, верните деньги",
    "cp866": "Здравствуйте, мой заказ ещё не пришёл, верните деньги",
    "cp1253": "Καλημέρα, η παραγγελία μου δεν έχει φτάσει ακόμα",
    "cp1255": "שלום, ההזמנה שלי עדיין לא הגיעה ואני רוצה החזר כספי",
    "cp1256": "مرحبا، طلبي لم يصل بعد وأريد استرداد المبلغ من فضلكم",
    "cp874": "สวัสดีครับ สินค้ายังไม่มาถึงและผมต้องการขอคืนเงิน",
    "mac_roman": "Der Käse im Café schmeckt mäßig, für fünf Öre",
    "cp850": "Le café à Orléans est très cher, ça coûte trop, j'ai été déçue",
    "cp1252": "L’été à Orléans, ça coûte 5 €, “déçue”",
    "euc_jp": "こんにちは、注文がまだ届いていません。返金してください",
    "cp932": "こんにちは、注文がまだ届いていません。返金してください",
    "gb18030": "你好，我的订单在哪里？为什么还没有到？请尽快回复我",
    "big5": "您好，我訂的商品還沒有到，請退款給我，謝謝",
    "cp949": "안녕하세요 주문한 상품이 아직 도착하지 않았습니다 환불해 주세요",
}


@pytest.mark.parametrize("page", LANGUAGES)
def test_code_pages_are_told_by_their_letters(page) -> None:
    text = lines([(f"{LANGUAGES[page]} {i}", "ab"[i % 2]) for i in range(40)], "text;label", ";")
    decoded = decode(text.encode(page))
    assert decoded.text == text and "it was read as" in decoded.remarks[0]


def test_one_stray_byte_leaves_the_other_letters_right() -> None:
    text = lines([(f"L’été à Orléans, ça coûte {i} €", "ab"[i % 2]) for i in range(40)])
    data = text.encode("cp1252").replace(b"7", b"\x9d7", 1)
    decoded = decode(data)
    assert decoded.text.replace("\ufffd", "") == text
    assert any("1 letter is broken" in remark for remark in decoded.remarks)


@pytest.mark.parametrize("place", [100, 150_000])
def test_one_zero_byte_is_dropped_and_counted(tmp_path, place) -> None:
    content = lines(rows(5000)).encode()
    task = taken(write(tmp_path, "a.csv", content[:place] + b"\x00" + content[place:]))
    assert len(examples(task)) == 5000
    assert any("1 zero byte" in warning for warning in task.warnings)


@pytest.mark.parametrize(
    "first", ["sep=;", '"sep=;"', "SEP=;", "\ufeffsep=;", "sep=;;"], ids=str.encode
)
def test_excel_s_first_line(tmp_path, first) -> None:
    content = f"{first}\r\n" + lines(rows(), "text;label", ";")
    for encoding in ("utf-8", "utf-16"):
        assert len(examples(taken(write(tmp_path, "a.csv", content.encode(encoding))))) == 60


def test_a_comma_in_each_text_is_no_separator(tmp_path) -> None:
    data = [(f"well, {t}", c) for t, c in rows()]
    path = write(tmp_path, "a.csv", lines(data, "Was meinen Sie?;Urteil", ";"))
    assert examples(taken(path)) == set(data)


def test_what_stands_above_the_names_is_left_out_and_said(tmp_path) -> None:
    for top in ("# exported by a desk\n# filter: all, open\n", "Report\nFrom 1 March\n\n"):
        task = taken(write(tmp_path, "a.csv", top + lines(rows())))
        assert examples(task) == set(rows())
        assert any("above the table" in warning for warning in task.warnings)


def test_a_question_is_a_name_and_data_are_none(tmp_path) -> None:
    question = "What did you think of the place that you saw, in a few words of your own"
    named = write(tmp_path, "a.csv", lines(rows(), f'"{question}",Was it good'))
    assert read_table(named).columns == (question, "Was it good")
    bare = write(tmp_path, "b.csv", "".join(f"spam,{t}\nham,{t}!\n" for t, _ in rows()))
    assert read_table(bare).columns == ("column 1", "column 2")
    assert read_table(bare, reading=Reading(header=1)).columns[0] == "spam"
    assert len(read_table(named, reading=Reading(header=0)).rows) == 61


@pytest.mark.parametrize("separator", [" ", "\t", ";"])
@pytest.mark.parametrize("numbered", [True, False])
def test_what_r_s_write_table_makes(tmp_path, separator, numbered) -> None:
    """Quotes around every text, one blank between two cells unless told, a name too few."""
    data = [(f'she said "{text}", yes', label) for text, label in rows()]
    quoted = [[f'"{cell}"' for cell in (t.replace('"', '\\"'), c)] for t, c in data]
    filled = [[f'"{i}"', *row] if numbered else row for i, row in enumerate(quoted, 1)]
    content = "\n".join(separator.join(row) for row in [['"text"', '"label"'], *filled])
    task = taken(write(tmp_path, "r.txt", content))
    assert examples(task) == set(data)
    assert any("names of rows" in said for said in task.warnings) == numbered


def test_names_of_rows_as_r_writes_them(tmp_path) -> None:
    data = [(f'"{i}"', f'"{t}"', f'"{c}"') for i, (t, c) in enumerate(rows(), 1)]
    path = write(tmp_path, "a.tsv", lines(data, '"text"\t"label"', "\t"))
    assert examples(taken(path)) == set(rows())


def test_three_rows_of_names_as_a_survey_program_writes_them(tmp_path) -> None:
    top = "Q1,Q2\nYour words?,Good or bad?\n" + '"{""ImportId"":""Q1""}","{""ImportId"":""Q2""}"\n'
    path = write(tmp_path, "a.csv", top + "".join(f"{t},{c}\n" for t, c in rows()))
    assert examples(taken(path)) == set(rows())


def test_fasttext(tmp_path) -> None:
    path = write(tmp_path, "a.txt", "".join(f"__label__{c} {t}, yes\n" for t, c in rows()))
    assert examples(taken(path)) == {(f"{t}, yes", c) for t, c in rows()}


def test_labels_of_fasttext_at_the_end_and_several(tmp_path) -> None:
    content = "".join(f"{text} __label__{label}\n" for text, label in rows())
    assert examples(taken(write(tmp_path, "end.txt", content))) == set(rows())
    content = "".join(f"__label__x __label__{label} {text}\n" for text, label in rows())
    report = inspect_table(write(tmp_path, "several.txt", content))
    assert "60 rows with several labels" in report.problem


@pytest.mark.parametrize("encoding", ["utf-8", "utf-16", "utf-16-le"])
def test_zeros_that_fill_up_a_file_s_end_are_left_out(tmp_path, encoding) -> None:
    task = taken(write(tmp_path, "a.csv", lines(rows()).encode(encoding) + bytes(4096)))
    assert examples(task) == set(rows())
    assert "The zero bytes at the file's end were left out." in task.warnings


def test_a_sentence_says_what_took_the_rows(tmp_path) -> None:
    data = [(text, ("#N/A", "ok")[i % 2]) for i, (text, _) in enumerate(rows())]
    report = inspect_table(write(tmp_path, "a.csv", lines(data)))
    assert "30 rows with “#N/A” in the place of a label" in report.problem
    formulas = [(t, f'=IF(1,"{c}","")' if c == "bad" else c) for t, c in rows()]
    workbook(one=[("text", "label"), *formulas]).save(tmp_path / "half.xlsx")
    assert "30 of its cells hold a formula" in inspect_table(tmp_path / "half.xlsx").problem
    with pytest.raises(lc.TaskError, match="single quotes, as Python prints them"):
        taken(write(tmp_path, "a.json", repr([{"text": t, "label": c} for t, c in rows()])))


def test_a_choice_that_is_not_there_is_a_sentence(tmp_path) -> None:
    path = write(tmp_path, "a.csv", lines(rows()))
    with pytest.raises(lc.TaskError, match="no encoding 'zip'"):
        lc.read_task(path, encoding="zip")
    with pytest.raises(lc.TaskError, match="one character"):
        lc.read_task(path, separator="a long one")
    workbook(one=TABLE).save(tmp_path / "a.xlsx")
    with pytest.raises(lc.TaskError, match="no sheet “two”"):
        lc.read_task(tmp_path / "a.xlsx", sheet="two")


# Workbooks ---------------------------------------------------------------------------------


def test_the_first_visible_sheet_that_is_a_table_unless_told(tmp_path) -> None:
    book = workbook(_lists=TABLE[:8], cover=[("See the next sheet.",)], data=TABLE, old=TABLE[:31])
    book["_lists"].sheet_state = "hidden"
    book.active = 1
    book.save(tmp_path / "a.xlsx")
    assert len(examples(taken(tmp_path / "a.xlsx"))) == 60
    assert len(examples(taken(tmp_path / "a.xlsx", sheet="old"))) == 30
    assert inspect_table(tmp_path / "a.xlsx").sheets == ("_lists", "cover", "data", "old")


def test_merged_labels_are_filled_down(tmp_path) -> None:
    data = sorted(rows(), key=lambda row: row[1])
    book = workbook(one=[("label", "text"), *((None, t) for t, _ in data)])
    for first, last, label in ((2, 31, "bad"), (32, 61, "good")):
        book["one"].cell(first, 1, label)
        book["one"].merge_cells(start_row=first, end_row=last, start_column=1, end_column=1)
    book.save(tmp_path / "a.xlsx")
    task = taken(tmp_path / "a.xlsx")
    assert examples(task) == set(rows())
    assert any("58 cells were filled" in warning for warning in task.warnings)


def test_escapes_and_formulas(tmp_path) -> None:
    workbook(one=[("text", "label"), *((f"{t} MARK", c) for t, c in rows())]).save(
        tmp_path / "a.xlsx"
    )
    with zipfile.ZipFile(tmp_path / "a.xlsx") as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    made = io.BytesIO()
    with zipfile.ZipFile(made, "w") as archive:
        for name, data in members.items():
            archive.writestr(name, data.replace(b"MARK", b"_x000D_\nend"))
    task = taken(write(tmp_path, "b.xlsx", made.getvalue()))
    assert examples(task) == {(f"{t} \nend", c) for t, c in rows()}
    formulas = [(t, f'=IF(1,"{c}","")') for t, c in rows()]
    workbook(one=[("text", "label"), *formulas]).save(tmp_path / "c.xlsx")
    report = inspect_table(tmp_path / "c.xlsx", "text", "label")
    assert "formula" in report.problem and "save it" in report.problem


# JSON and Parquet --------------------------------------------------------------------------

RECORDS = [{"text": t, "label": c} for t, c in rows()]
COLUMNS = {key: {str(i): r[key] for i, r in enumerate(RECORDS)} for key in ("text", "label")}
SHAPES = {
    "columns": COLUMNS,
    "index": {str(i): r for i, r in enumerate(RECORDS)},
    "split": {"columns": ["text", "label"], "index": [], "data": [list(r) for r in rows()]},
    "table": {"schema": {"fields": []}, "data": RECORDS},
    "lists": {"text": [t for t, _ in rows()], "label": [c for _, c in rows()]},
    "values": [["text", "label"], *map(list, rows())],
    "inside": {"version": 1, "result": {"items": RECORDS}},
    "viewer": {"features": [{"name": "text"}], "rows": [{"row": r} for r in RECORDS]},
    "listed": [{**r, "label": [r["label"]]} for r in RECORDS],
    "studio": [
        {"id": i, "data": {"text": t}, "annotations": [
            {"result": [{"type": "choices", "value": {"choices": [c]}}]}]}
        for i, (t, c) in enumerate(rows())
    ],
    "turns": [
        {"messages": [{"role": "user", "content": t}, {"role": "assistant", "content": c}]}
        for t, c in rows()
    ],
}  # fmt: skip


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("indent", [None, 1])
def test_json_in_the_shapes_that_programs_write(tmp_path, shape, indent) -> None:
    path = write(tmp_path, "a.json", json.dumps(SHAPES[shape], indent=indent))
    assert examples(taken(path)) == set(rows())


def test_of_several_lists_one_is_taken_and_said(tmp_path) -> None:
    parts = {"train": RECORDS[:40], "test": RECORDS[40:]}
    path = write(tmp_path, "a.json", json.dumps(parts))
    task = taken(path)
    assert len(examples(task)) == 40 and any("“train” was read" in w for w in task.warnings)
    assert len(examples(taken(path, sheet="test"))) == 20


def test_several_labels_of_a_row_are_left_out_and_counted(tmp_path) -> None:
    data = [{**r, "label": ["good", "bad"] if i < 3 else [r["label"]]}
            for i, r in enumerate(RECORDS)]  # fmt: skip
    task = taken(write(tmp_path, "a.json", json.dumps(data)))
    assert task.labels == ("bad", "good") and len(examples(task)) == 57
    assert any("3 rows with several labels" in warning for warning in task.warnings)


@pytest.mark.parametrize("listed", [False, True])
def test_numbered_labels_and_minus_one(tmp_path, listed) -> None:
    values = [-1 if i < 5 else int(c == "bad") for i, (_, c) in enumerate(rows())]
    feature = {"names": ["good", "bad"], "_type": "ClassLabel"}
    column = pa.array([[v] for v in values]) if listed else values
    features = {"label": {"feature": feature, "_type": "List"} if listed else feature}
    metadata = {"huggingface": json.dumps({"info": {"features": features}})}
    table = pa.table({"text": [t for t, _ in rows()], "label": column})
    pq.write_table(table.replace_schema_metadata(metadata), tmp_path / "a.parquet")
    task = taken(tmp_path / "a.parquet")
    assert examples(task) == set(rows()[5:])
    assert "Left out: 5 rows without a text or a label." in task.warnings


def test_a_label_in_the_first_row_of_its_group_only_is_noticed(tmp_path) -> None:
    data = [(t, c if i % 6 < 1 or i % 6 == 3 else "") for i, (t, c) in enumerate(rows())]
    report = inspect_table(write(tmp_path, "a.csv", lines(data)))
    assert any("fill them in first" in warning for warning in report.warnings)
    assert sum(report.classes.values()) == 20


@pytest.mark.parametrize("sign", ["::", "||", ";;", "~~"])
def test_separators_of_several_characters(tmp_path, sign) -> None:
    """As MovieLens writes: texts may hold the signs by which others separate."""
    data = [(f"{text}; {'yes, ' * (n % 3)}at 10:{n}", k) for n, (text, k) in enumerate(rows())]
    path = write(tmp_path, "ratings.dat", lines(data, sign.join(["text", "label"]), sign))
    how = {"separator": sign} if sign in ("~~", ";;") else {}
    assert examples(taken(path, **how)) == set(data)
    assert inspect_table(path, reading=Reading(**how)).reading.separator == sign


def test_what_looks_like_such_a_separator_is_part_of_a_text(tmp_path) -> None:
    data = [(f"std::vector<{text}>", label) for text, label in rows()]
    path = write(tmp_path, "code.csv", lines(data))
    assert examples(taken(path)) == set(data)
    bars = [(str(i), text, "", label) for i, (text, label) in enumerate(rows())]
    path = write(tmp_path, "bars.csv", lines(bars, "id|text|note|label", "|"))
    assert examples(taken(path)) == set(rows())
    quoted = [(f'"a :: b {text}"', label) for text, label in rows()]
    path = write(tmp_path, "quoted.dat", lines(quoted, "text::label", "::"))
    without = {(text.strip('"'), label) for text, label in quoted}
    assert examples(taken(path, separator="::")) == without
