"""Small files that unpack to a great deal, or say that they do: one for each way in."""

from __future__ import annotations

import io
import struct
import zipfile

import openpyxl
import pyarrow as pa
import pyarrow.parquet as pq

ROWS = [(f"a text with number {i}", "ab"[i % 2]) for i in range(40)]
SHEET = "xl/worksheets/sheet1.xml"
MEGABYTE = 1_000_000


def workbook() -> dict[str, bytes]:
    """The members of a small good XLSX."""
    book = openpyxl.Workbook()
    for row in [("text", "label"), *ROWS]:
        book.active.append(row)
    file = io.BytesIO()
    book.save(file)
    with zipfile.ZipFile(file) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def zipped(members: dict[str, bytes], method: int = zipfile.ZIP_DEFLATED) -> bytes:
    """These members as a zip."""
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", method) as archive:
        for name, data in members.items():
            archive.writestr(name, data)
    return file.getvalue()


def lying(archive: bytes, size: int, said: int) -> bytes:
    """The archive with another uncompressed size wherever `size` stands."""
    made = bytearray(archive)
    for signature, offset in ((b"PK\x03\x04", 22), (b"PK\x01\x02", 24)):
        at = -1
        while (at := made.find(signature, at + 1)) >= 0:
            if struct.unpack_from("<I", made, at + offset)[0] == size:
                struct.pack_into("<I", made, at + offset, said)
    return bytes(made)


def padded(megabytes: int, method: int = zipfile.ZIP_DEFLATED) -> tuple[bytes, int]:
    """A workbook whose sheet ends in spaces, and the sheet's size."""
    members = workbook()
    members[SHEET] += b" " * (megabytes * MEGABYTE)
    return zipped(members, method), len(members[SHEET])


def laughs() -> bytes:
    """The billion laughs, where a sheet's texts are."""
    members = workbook()
    entities = '<!ENTITY l0 "lol">' + "".join(
        f'<!ENTITY l{i} "{f"&l{i - 1};" * 10}">' for i in range(1, 10)
    )
    head, _, body = members[SHEET].partition(b"<worksheet")
    cell = b'<c r="A1" t="inlineStr"><is><t>&l9;</t></is></c>'
    body = body.replace(b"<sheetData>", b'<sheetData><row r="1">' + cell + b"</row>", 1)
    doctype = f"<!DOCTYPE w [{entities}]>".encode()
    return zipped({**members, SHEET: head + doctype + b"<worksheet" + body})


def great_dictionary() -> bytes:
    """A member in LZMA that asks for a dictionary of four gigabytes."""
    members = workbook()
    archive = bytearray(zipped(members, zipfile.ZIP_LZMA))
    at = -1
    while (at := archive.find(b"\x09\x04\x05\x00", at + 1)) >= 0:  # version, size of properties
        struct.pack_into("<I", archive, at + 5, 0xFFFF_FFFF)
    return bytes(archive)


def parquet(table: pa.Table, **options: object) -> bytes:
    """A table as a Parquet file."""
    file = io.BytesIO()
    pq.write_table(table, file, **options)
    return file.getvalue()


def repeated() -> bytes:
    """One long text, by reference in each of 20,000 rows."""
    text = pa.array(["x" * 20_000 + str(i) for i in range(20)])
    texts = pa.DictionaryArray.from_arrays(pa.array([i % 20 for i in range(20_000)]), text)
    return parquet(pa.table({"text": texts.cast(pa.string()), "label": ["a", "b"] * 10_000}))


def long_lists(rows: int) -> bytes:
    """Lists of a million numbers in each row, the same ones: two kilobytes."""
    numbers = pa.array([[1] * MEGABYTE] * rows, pa.list_(pa.int32()))
    labels = ["ab"[i % 2] for i in range(rows)]
    return parquet(pa.table({"text": numbers, "label": labels}), compression="zstd")


def small_page_said() -> bytes:
    """A Parquet file of 300 MB of zeros whose footer says that they are few."""
    table = pa.table({"text": ["\0" * (100 * MEGABYTE)] * 3, "label": ["a", "b", "a"]})
    return parquet(table, compression="gzip", use_dictionary=False)


def wide_schema() -> bytes:
    """Fifty thousand columns."""
    return parquet(pa.table({f"c{i}": [1] for i in range(50_000)}), compression="none")


def bombs() -> dict[str, tuple[bytes, str]]:
    """File name -> its content, and what its refusal says."""
    honest, size = padded(100)
    packed, packed_size = padded(200, zipfile.ZIP_BZIP2)
    unpacks, damaged = "unpacks to far more", "damaged"
    return {
        "honest.xlsx": (honest, unpacks),
        "lying.xlsx": (lying(honest, size, 5_000), damaged),
        "bzip2.xlsx": (packed, unpacks),
        "lying-bzip2.xlsx": (lying(packed, packed_size, 5_000), damaged),
        "lzma.xlsx": (great_dictionary(), damaged),
        "laughs.xlsx": (laughs(), damaged),
        "entries.xlsx": (zipped({**workbook(), **{f"x{i}": b"" for i in range(60_000)}}), unpacks),
        "repeated.parquet": (repeated(), "once unpacked"),
        "lists.parquet": (long_lists(100), "once unpacked|unpacks to"),
        "fewer-lists.parquet": (long_lists(19), "once unpacked|unpacks to"),
        "pages.parquet": (small_page_said(), "unpacks to|once unpacked"),
        "columns.parquet": (wide_schema(), "columns"),
    }
