"""What kind of file somebody has brought: a table that can be read, or which other thing it is.

By its first bytes rather than by its name. What is no table is called by its name, with one thing
to do.
"""

from __future__ import annotations

import json
import re
import struct
import zlib

from lora_core.tasks.task import TaskError

FORMAT_NAMES = "CSV, TSV, JSON Lines, XLSX or Parquet"

# First bytes of what people bring by mistake. A few letters are no signature: a column may be
# called PK. Those of ASCII letters alone count with a byte behind them that no text has.
_OTHER_FILES = (
    (rb"%PDF-\d", "This is a PDF, not a table."),
    (rb"\x1f\x8b\x08", "This file is packed (gzip). Unpack it first."),
    (rb"BZh[1-9](1AY&SY|\x17rE8P\x90)", "This file is packed (bzip2). Unpack it first."),
    (rb"\xfd7zXZ\x00", "This file is packed (xz). Unpack it first."),
    (rb"7z\xbc\xaf\x27\x1c", "This file is packed (7-Zip). Unpack it first."),
    (rb"\x28\xb5\x2f\xfd", "This file is packed (Zstandard). Unpack it first."),
    (rb"Rar!\x1a\x07", "This file is packed (RAR). Unpack it first."),
    (
        rb"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1",
        "This is an old Excel file (XLS) or one with a password. Save it as XLSX without one.",
    ),
    (rb"SQLite format 3\x00", "This is an SQLite database. Export the table as CSV."),
    (rb"\x89PNG\r\n\x1a\n", "This is a picture, not a table."),
    (rb"\xff\xd8\xff", "This is a picture, not a table."),
    (rb"GIF8[79]a.{0,20}[\x00-\x08]", "This is a picture, not a table."),
    (rb"\{\\rtf\d", "This is a document (RTF), not a table."),
    (
        # with a mark, or as a stream, in which the datasets library keeps its tables
        rb"ARROW1\x00\x00|FEA1.{0,8}\x00|\xff{4}..\x00\x00.{0,3}\x00",
        "This is an Arrow or Feather file. Save it as Parquet or CSV.",
    ),
    (rb"\x89HDF\r\n\x1a\n", "This is an HDF5 file. Save the table as CSV."),
    (rb".{8}DUCK", "This is a DuckDB database. Export the table as CSV."),
    (
        rb"\x00\x01\x00\x00Standard (Jet|ACE) DB",
        "This is an Access database. Export the table as CSV.",
    ),
    (rb"\x00{12}\xc2\xea\x81\x60", "This is a SAS file. Export the table as CSV."),
    (rb"\x09[\x02\x04\x08].\x00", "This is an old Excel file (XLS). Save it as XLSX."),
    (rb"\x93NUMPY", "This is a NumPy array. Save the table as CSV."),
    (rb"ORC[^\n]{0,99}[\x00-\x08]", "This is an ORC file. Save it as Parquet or CSV."),
    (rb"Obj\x01", "This is an Avro file. Save it as Parquet or CSV."),
    (rb"\$FL[23]@\(#\)", "This is an SPSS file. Export the table as CSV."),
    (rb"<stata_dta>", "This is a Stata file. Export the table as CSV."),
    (
        rb"version https://git-lfs\.github\.com/",
        "This is a note of Git LFS, not the file itself. Fetch the file with git lfs pull.",
    ),
    (
        rb'\s*\{\s*"(cells|nbformat|metadata)":.{0,150}"(cell_type|kernelspec|source|outputs)"',
        "This is a notebook, not a table. Save the table in it with DataFrame.to_csv.",
    ),
    (
        rb'\s*\{\s*"url": ?"https://docs\.google\.com/|\[InternetShortcut\]',
        "This is a link to a table, not the table. Download it there, as CSV for instance.",
    ),
    (rb"MZ[^\n]{0,99}\x00|\x7fELF[\x01\x02]", "This is a program, not a table."),
)
_ZIP = re.compile(rb"PK(\x03\x04|\x05\x06|\x07\x08)")
_INSERTS = re.compile(rb"^INSERT INTO [^\n]*\bVALUES\b", re.MULTILINE | re.IGNORECASE)
_PICKLE = re.compile(rb"\x80[\x02-\x05][\x95c(}\]]")


def kind_by_content(suffix: str, data: bytes) -> str:
    """XLSX, Parquet, JSON or CSV, by the file's first bytes. Raises `TaskError` for others."""
    if data.startswith(b"PAR1") and (suffix == ".parquet" or re.search(rb"[\x00-\x08]", data[:99])):
        return "Parquet"
    if _ZIP.match(data):
        return _kind_of_zip(suffix, data)
    if suffix in (".rds", ".rdata", ".rda") or _is_of_r(data):
        raise TaskError("This is a file of R (RDS or RData). Save the table there with write.csv.")
    for first, sentence in _OTHER_FILES:
        if re.match(first, data[:200], re.DOTALL):
            raise TaskError(f"{sentence} What can be read is {FORMAT_NAMES}.")
    if data[257:262] == b"ustar":
        raise TaskError(f"This is a packed archive (TAR). Unpack it and bring the {FORMAT_NAMES}.")
    if re.match(rb"@relation\s", re.sub(rb"\A(?:%[^\n]*\n|\s)+", b"", data[:4000]), re.IGNORECASE):
        raise TaskError("This is an ARFF file of Weka. Save it there as CSV.")
    if suffix in (".yml", ".yaml"):
        raise TaskError("This is YAML, not a table. Save it as JSON or CSV.")
    if suffix not in (".csv", ".tsv") and _INSERTS.search(data[:1_000_000]):
        raise TaskError(
            "This is a dump of a database (SQL), not a table. Export the table there as CSV."
        )
    if _PICKLE.match(data):
        raise TaskError("This is a Python pickle, which could run code: it is never opened here.")
    if suffix in (".xlsx", ".parquet") and _CONTROL.search(data[:4000]):
        raise TaskError(
            f"The file's name ends in {suffix}, but it is not {suffix[1:].upper()} inside."
        )
    # without the marks and zero bytes of UTF-16
    start = data[:4000].replace(b"\0", b"").lstrip(b"\xef\xbb\xbf\xff\xfe \t\r\n").lower()
    if _MARKUP.match(start):
        raise TaskError(_marked_up(start, data))
    if suffix == ".py" or _PRINTED.match(start):
        raise TaskError(
            "These are tuples, or names in single quotes, as Python prints them, and no table. "
            "Write them with Python's csv or json module."
        )
    if suffix in (".jsonl", ".ndjson", ".json") and not _CELLS.match(start):
        return "JSON"
    return "JSON" if _looks_like_json(start[:300], data, suffix) else "CSV"


_CELLS = re.compile(rb"[^\[{\"\n]+[,;\t]")  # a first line that is no JSON, but may be CSV
_CONTROL = re.compile(rb"[\x00-\x08\x0e-\x1a]")
_MARKUP = re.compile(
    rb"<!doctype html|<(?:html|head|meta|body|table|style|div|script)[\s>/]|<\?xml\s|<!--"
    rb"|mime-version: 1\.0\s"
)
# A list of tuples, or a dictionary a line: quotes are single, or brackets round.
_PRINTED = re.compile(
    rb"(?:[a-z_]\w* ?= ?)?(?:\[\s*)?(?:\((?:'[^'\n]*'|\"[^\"\n]*\"), |\{'[^'\n]*': |\['[^'\n]*', )"
    rb"[^\n]*[)}\]],?\s*(?:\n|$)"
)


def _marked_up(start: bytes, data: bytes) -> str:
    """A sentence for HTML and XML, which several programs call XLS."""
    if b"urn:schemas-microsoft-com:office:spreadsheet" in start:
        return "This is a workbook of Excel 2003 (XML). Open it in Excel and save it as XLSX."
    if b"opendocument" in start:
        return "This is an OpenDocument file. Save it as XLSX or CSV."
    if re.search(
        rb"<table[\s>]", data[:1_000_000].replace(b"\0", b""), re.IGNORECASE
    ) or start.startswith(b"mime"):
        return (
            "This is a web page with a table in it, as some programs write under the name XLS. "
            "Open it in Excel or LibreOffice and save it as XLSX or CSV."
        )
    return "This is a web page or XML, not a table. Download the file itself, as CSV for instance."


def _kind_of_zip(suffix: str, data: bytes) -> str:
    names = _members(data)
    if names is None and suffix == ".xlsx":
        return "XLSX"  # damaged, as its reader says
    names = [name.lower() for name in names or ()]
    if "xl/workbook.bin" in names:
        raise TaskError("This is a binary workbook (XLSB). Save it as XLSX.")
    if any(re.match(r"xl[/\\](workbook|worksheets|sharedstrings)", name) for name in names):
        return "XLSX"
    if b"opendocument" in data[:200]:
        raise TaskError("This is an OpenDocument file. Save it as XLSX or CSV.")
    if any(name.startswith("word/") for name in names):
        raise TaskError("This is a Word document, not a table.")
    iwa = any(name.startswith("index/document") and name.endswith(".iwa") for name in names)
    if iwa or suffix == ".numbers" or "index.numbers" in names:
        raise TaskError("This is a file of Apple Numbers. Export it as CSV or Excel.")
    if any(name.startswith("ppt/") for name in names):
        raise TaskError("This is a presentation, not a table.")
    if b"application/epub" in data[:200]:
        raise TaskError("This is a book (EPUB), not a table.")
    if names and all(name.endswith(".npy") for name in names):
        raise TaskError("This file holds NumPy arrays. Save the table as CSV.")
    if any(name.endswith("data.pkl") for name in names):
        raise TaskError("This file holds weights of a model (PyTorch), not a table.")
    if sum(bool(re.search(r"\.(txt|eml|html?)$", name)) for name in names) > 3:
        raise TaskError(
            "This archive holds each text as a file. Make one table of them: a row for each file, "
            "with its text and, as its label, the name of its folder."
        )
    raise TaskError(f"This is a packed archive (ZIP). Unpack it and bring the {FORMAT_NAMES}.")


def _is_of_r(data: bytes) -> bool:
    """Whether a file holds R's objects, packed by gzip or not."""
    start = data[:16]
    if data.startswith(b"\x1f\x8b\x08"):
        try:
            start = zlib.decompressobj(31).decompress(data[:4096], 16)
        except zlib.error:
            return False
    return bool(re.match(rb"RD[AX][23]\n|X\n\x00\x00\x00[\x02\x03]", start))


_MEMBERS = 5_000  # files in an archive that are looked at


def _members(data: bytes) -> list[str] | None:
    """Names of the first files in a ZIP, as its directory gives them; None where it has none."""
    end = data.rfind(b"PK\x05\x06", max(0, len(data) - 66_000))
    if end < 0 or end + 22 > len(data):
        return None
    size, begin = struct.unpack_from("<II", data, end + 12)
    place = end - size if size <= end else begin  # something may stand before the archive
    names: list[str] = []
    while data.startswith(b"PK\x01\x02", place) and len(names) < _MEMBERS:
        if place + 46 > len(data):
            break
        name, extra, comment = struct.unpack_from("<HHH", data, place + 28)
        names.append(data[place + 46 : place + 46 + name].decode("utf-8", "replace"))
        place += 46 + name + extra + comment
    return names


def _looks_like_json(start: bytes, data: bytes, suffix: str) -> bool:
    """Whether a file that is not called JSON is: its first line, or all of it, is a JSON value."""
    if not re.match(rb'\{\s*"|\[\s*[\[{]|\{\s*\}', start):
        return False
    first = re.split(rb"[\r\n]", data.lstrip(b"\xef\xbb\xbf \t\r\n"), maxsplit=1)[0]
    try:
        json.loads(first.decode("utf-8", "replace"))
        return True
    except (ValueError, RecursionError):
        # broken, or over many lines: a name as of a table outweighs it
        keyed = re.match(rb'\{\s*"[^"]*"\s*:', start)
        return suffix not in (".csv", ".tsv") or bool(keyed and b"\n" in start)
