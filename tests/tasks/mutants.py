"""Small good tables of every format, and ways to damage them: for the fuzz of tables."""

from __future__ import annotations

import csv
import io
import json
import random
import zipfile

import openpyxl
import pyarrow as pa
import pyarrow.parquet as pq

_WORDS = [
    "rain",
    "sun",
    "hail",
    "fog",
    "storm",
    "frost",
    "mist",
    "sleet",
    "naïve",
    "雨",
    "he_said,",
    '"no"',
    "line\nbreak",
]


def seeds() -> dict[str, bytes]:
    """File names and contents."""
    shuffler = random.Random(1)
    rows = [
        (" ".join(shuffler.choices(_WORDS, k=shuffler.randint(1, 9))) + f" {i}", "ab c"[i % 3])
        for i in range(40)
    ]
    rows = [(text, label.strip() or "d") for text, label in rows]
    columns = {"text": [text for text, _ in rows], "label": [label for _, label in rows]}
    made: dict[str, bytes] = {}
    for name, delimiter in (("a.csv", ","), ("b.csv", ";"), ("c.tsv", "\t")):
        file = io.StringIO()
        csv.writer(file, delimiter=delimiter).writerows([("text", "label"), *rows])
        made[name] = file.getvalue().encode()
    made["d.csv"] = made["a.csv"].decode().encode("utf-16")
    made["e.csv"] = made["a.csv"].decode().replace("雨", "é").encode("cp1252")
    items = [{"text": text, "label": label} for text, label in rows]
    made["f.jsonl"] = "\n".join(map(json.dumps, items)).encode()
    made["g.json"] = json.dumps(items).encode()
    book = openpyxl.Workbook()
    for row in [("text", "label"), *rows]:
        book.active.append(row)
    sheet = io.BytesIO()
    book.save(sheet)
    made["h.xlsx"] = sheet.getvalue()
    for name, compression in (("i.parquet", "none"), ("j.parquet", "snappy")):
        packed = io.BytesIO()
        pq.write_table(pa.table(columns), packed, compression=compression)
        made[name] = packed.getvalue()
    return made


def mutated(data: bytes, shuffler: random.Random) -> bytes:
    """Damage anywhere; of two workbooks one is packed anew around a damaged part."""
    if not data.startswith(b"PK") or shuffler.random() < 0.5:
        return _damaged(data, shuffler)
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    tables = [name for name in members if "sheet" in name or "Strings" in name]
    chosen = shuffler.choice(shuffler.choice([tables, sorted(members)]))
    members[chosen] = _damaged(members[chosen], shuffler)
    made = io.BytesIO()
    with zipfile.ZipFile(made, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return made.getvalue()


def _damaged(data: bytes, shuffler: random.Random) -> bytes:
    """One to eight random damages: bytes changed, cut, doubled, moved, blown up."""
    made = bytearray(data)
    for _ in range(shuffler.choice((1, 1, 1, 2, 4, 8))):
        size = len(made)
        if not size:
            break
        place = shuffler.randrange(size)
        length = shuffler.choice((1, 4, 64, size // 4 + 1))
        kind = shuffler.randrange(8)
        if kind == 0:
            made[place] ^= 1 << shuffler.randrange(8)
        elif kind == 1:
            made[place] = shuffler.choice((0, 9, 10, 13, 34, 44, 59, 92, 123, 127, 128, 255))
        elif kind == 2:
            del made[place : place + length]
        elif kind == 3:
            made[place:place] = made[place : place + length]
        elif kind == 4:
            made[place:place] = shuffler.randbytes(shuffler.randint(1, 16))
        elif kind == 5:
            del made[place:]
        elif kind == 6:
            made[place : place + 4] = shuffler.choice((b"\xff\xff\xff\x7f", bytes(4), b'","\n'))
        else:
            made[place:place] = bytes([shuffler.randrange(256)]) * shuffler.choice((9, 999, 99999))
    return bytes(made)
