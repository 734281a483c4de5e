"""Tables as people bring them, good and bad, made in memory."""

from __future__ import annotations

import csv
import io
import json
import sqlite3
import zipfile
from pathlib import Path

import openpyxl
import pyarrow as pa
import pyarrow.parquet as pq

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
