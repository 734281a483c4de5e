"""Bytes as text: Unicode by its marks, other code pages by how plausible the letters then are.

A file that is not Unicode does not say what it is. So a sample of it is read under each page that
people's programs write, and each reading is judged as a text of the languages of that page: an "ě"
is common in Czech, unknown in French, and a capital inside a word is rare in all of them.
"""

from __future__ import annotations

import codecs
import math
import re
import unicodedata
from collections import Counter
from typing import NamedTuple

from lora_core.tasks.binary_program import SheetError
from lora_core.tasks.letters import BROKEN, probability

_SAMPLE = 100_000  # characters or bytes that a look at the kind of file takes
_GUESS = 30_000  # bytes of lines with letters beyond ASCII that a guess is made from
_BOMS = (
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF32_LE, "utf-32"),  # before UTF-16, whose mark is the first half of it
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)
_BINARY = (
    "This file does not hold text. A table as CSV, TSV, JSON Lines, XLSX or Parquet is needed."
)

# Python's name of each page, and what people call it. The order decides between equals.
ENCODINGS = {
    "utf-8": "UTF-8",
    "cp1252": "Windows-1252 (Western European)",
    "cp1250": "Windows-1250 (Central European)",
    "cp1251": "Windows-1251 (Cyrillic)",
    "cp1253": "Windows-1253 (Greek)",
    "cp1254": "Windows-1254 (Turkish)",
    "cp1255": "Windows-1255 (Hebrew)",
    "cp1256": "Windows-1256 (Arabic)",
    "cp1257": "Windows-1257 (Baltic)",
    "cp1258": "Windows-1258 (Vietnamese)",
    "cp874": "Windows-874 (Thai)",
    "cp932": "Shift-JIS (Japanese)",
    "euc_jp": "EUC-JP (Japanese)",
    "iso2022_jp": "ISO-2022-JP (Japanese)",
    "gb18030": "GB 18030 (Chinese)",
    "big5": "Big5 (Chinese)",
    "cp949": "EUC-KR (Korean)",
    "iso8859_2": "ISO 8859-2 (Central European)",
    "iso8859_5": "ISO 8859-5 (Cyrillic)",
    "iso8859_6": "ISO 8859-6 (Arabic)",
    "iso8859_7": "ISO 8859-7 (Greek)",
    "iso8859_15": "ISO 8859-15 (Western European)",
    "koi8_r": "KOI8-R (Russian)",
    "koi8_u": "KOI8-U (Ukrainian)",
    "mac_roman": "Mac Roman (Western European)",
    "mac_latin2": "Mac Central European",
    "mac_cyrillic": "Mac Cyrillic",
    "mac_greek": "Mac Greek",
    "mac_turkish": "Mac Turkish",
    "cp850": "DOS 850 (Western European)",
    "cp437": "DOS 437 (United States)",
    "cp860": "DOS 860 (Portuguese)",
    "cp852": "DOS 852 (Central European)",
    "cp775": "DOS 775 (Baltic)",
    "cp857": "DOS 857 (Turkish)",
    "cp866": "DOS 866 (Cyrillic)",
    "cp737": "DOS 737 (Greek)",
    "cp862": "DOS 862 (Hebrew)",
    "utf-16": "UTF-16",
    "utf-16-le": "UTF-16 (low byte first)",
    "utf-16-be": "UTF-16 (high byte first)",
    "utf-32": "UTF-32",
    "latin-1": "Latin-1",
}


class Decoded(NamedTuple):
    """A file's text, the page that it was read by, and remarks for its owner."""

    text: str
    encoding: str  # a key of `ENCODINGS`
    remarks: tuple[str, ...] = ()


def decode(data: bytes, encoding: str | None = None) -> Decoded:
    """The text of a file, under `encoding` or the page that fits best. Raises `SheetError`.

    Zero bytes that are no part of a letter, which some exports leave, are dropped and counted.
    """
    data, padding = _without_padding(data)
    if padding:
        read = decode(data, encoding)
        return read._replace(remarks=(*read.remarks, _PADDED))
    if encoding is not None:
        return _decoded(data, known(encoding), chosen=True)
    for mark, unicode in _BOMS:
        if data.startswith(mark):
            return _decoded(data, unicode)
    wide = _utf_16(data)
    if wide:
        return _decoded(data, wide)
    if b"\x1b$" in data and data.isascii():
        return _decoded(data, "iso2022_jp", guessed=True)
    try:
        data.decode("utf-8")
        return _decoded(data, "utf-8")
    except UnicodeDecodeError:
        pass
    text = data.decode("utf-8", "replace")
    beyond = len(text) - len(text.encode("ascii", "ignore"))
    if 4 * text.count("\ufffd") < beyond:  # UTF-8 all the same, with a few broken letters
        return _decoded(data, "utf-8")
    return _decoded(data, guess(data), guessed=True)


_PADDED = "The zero bytes at the file's end were left out."


def _without_padding(data: bytes) -> tuple[bytes, bool]:
    """A file without the zeros that fill up its last block on a disk, and whether it had any.

    In UTF-16 a letter may end with a zero or two of its own.
    """
    content = data.rstrip(b"\0")
    if len(data) - len(content) < 16:
        return data, False
    wide = content.startswith((b"\xff\xfe", b"\xfe\xff")) or bool(_utf_16(content))
    return content + b"\0" * (len(content) % 2 if wide else 0), True


def known(encoding: str) -> str:
    """The key of `ENCODINGS` for a name that a person gave. Raises `SheetError`."""
    try:
        codec = codecs.lookup(encoding).name
    except (LookupError, ValueError, TypeError):
        codec = ""
    for name in ENCODINGS:
        if codec and codec == codecs.lookup(name).name:
            return name
    shown = ", ".join(list(ENCODINGS)[:8])
    raise SheetError(f"There is no encoding '{str(encoding)[:30]}' here. Take {shown} or the like.")


def _decoded(data: bytes, encoding: str, *, guessed: bool = False, chosen: bool = False) -> Decoded:
    mark = next((m for m, name in _BOMS if name.startswith(encoding) and data.startswith(m)), b"")
    if encoding == "utf-8" and mark:
        data = data[len(mark) :]
    text = data.decode(encoding, "replace").removeprefix("\ufeff")
    if encoding == "cp1258":  # its accents follow their letters
        text = unicodedata.normalize("NFC", text)
    zeros = text.count("\x00")
    text = text.replace("\x00", "").rstrip("\x1a")  # which ends a file of DOS
    sample = text[:_SAMPLE]
    if not chosen and zeros > 0.01 * len(text) + 1:
        raise SheetError(_BINARY)
    if not chosen and len(_CONTROL.findall(sample)) > 0.01 * len(sample) + 1:
        raise SheetError(_BINARY)
    encoding = encoding.removesuffix("-sig")
    remarks = []
    if guessed:
        remarks.append(
            f"The file is not in UTF-8; it was read as {ENCODINGS[encoding]}. If letters look "
            "wrong in the preview, choose another encoding."
        )
    wrong = text.count("\ufffd") - _own_marks(data, encoding)
    if wrong > 0:
        letters = "1 letter is" if wrong == 1 else f"{wrong:,} letters are"
        remarks.append(f"{letters} broken: not {ENCODINGS[encoding].split(' (')[0]}.")
    if zeros:
        many = "1 zero byte was" if zeros == 1 else f"{zeros:,} zero bytes were"
        remarks.append(f"{many} left out: no text has them.")
    return Decoded(text, encoding, tuple(remarks))


def _own_marks(data: bytes, encoding: str) -> int:
    """Replacement characters that the file itself holds: an earlier program's loss, not ours."""
    return data.count(b"\xef\xbf\xbd") if encoding == "utf-8" else 0


_CONTROL = re.compile(r"[\x01-\x08\x0e-\x1a\x1c-\x1f\x7f]")


def _utf_16(data: bytes) -> str | None:
    """The form of UTF-16 in which a file without a mark is, if it is.

    Its separators and line ends have a zero each, always on the same side; stray zeros are few.
    """
    sample = data[:_SAMPLE]
    zeros = sample.count(0)
    if zeros < max(4, 0.01 * len(sample)):
        return None
    low = sample[1::2].count(0)  # the low byte first: zeros at odd places
    side = max(low, zeros - low)
    if side < 0.9 * zeros:
        return None
    encoding = "utf-16-le" if low == side else "utf-16-be"
    text = sample[: len(sample) // 2 * 2].decode(encoding, "replace")
    strange = sum(unicodedata.category(c) in ("Cn", "Co", "Cs") or c == "\ufffd" for c in text)
    return encoding if strange < 0.02 * len(text) else None


# The guess ---------------------------------------------------------------------------------

_WESTERN = [
    *("German", "French", "Spanish", "Portuguese", "Italian", "Catalan", "Danish", "Swedish"),
    *("Dutch", "Icelandic", "English"),
]
_CENTRAL = ["Polish", "Czech", "Slovak", "Hungarian", "Romanian", "Croatian"]
_CYRILLIC = ["Russian", "Ukrainian", "Belarusian", "Bulgarian", "Serbian"]
_BALTIC = ["Lithuanian", "Latvian", "Estonian"]
# The languages that a page is used for, and how rare it is: nats, and a fiftieth more a letter.
_PAGES: dict[str, tuple[list[str], float]] = {
    "cp1252": (_WESTERN, 0),
    "cp1250": (_CENTRAL, 1),
    "cp1251": (_CYRILLIC, 1),
    "cp1253": (["Greek"], 1),
    "cp1254": (["Turkish"], 1),
    "cp1255": (["Hebrew"], 1),
    "cp1256": (["Arabic", "Persian"], 1),
    "cp1257": (_BALTIC, 1),
    "cp1258": (["Vietnamese"], 2),
    "cp874": (["Thai"], 1),
    "cp932": (["Japanese"], 1),
    "euc_jp": (["Japanese"], 2),
    "gb18030": (["Chinese", "Chinese (traditional)"], 1),
    "big5": (["Chinese (traditional)"], 1),
    "cp949": (["Korean"], 1),
    "iso8859_2": (_CENTRAL, 2),
    "iso8859_5": (_CYRILLIC, 3),
    "iso8859_7": (["Greek"], 2),
    "iso8859_15": (_WESTERN, 3),
    "koi8_r": (["Russian"], 2),
    "koi8_u": (["Ukrainian"], 2),
    "mac_roman": (_WESTERN, 2),
    "mac_latin2": (_CENTRAL, 3),
    "mac_cyrillic": (_CYRILLIC, 3),
    "mac_greek": (["Greek"], 3),
    "mac_turkish": (["Turkish"], 3),
    "cp850": (_WESTERN, 2),
    "cp437": (_WESTERN, 3),
    "cp852": (_CENTRAL, 2),
    "cp775": (_BALTIC, 3),
    "cp857": (["Turkish"], 3),
    "cp866": (_CYRILLIC, 2),
    "cp737": (["Greek"], 3),
    "cp862": (["Hebrew"], 3),
}


def guess(data: bytes) -> str:
    """The page under which bytes beyond ASCII make the most plausible text."""
    sample = _telling_lines(data)
    scores = {}
    for page, (languages, rarity) in _PAGES.items():
        contexts = _contexts(sample.decode(page, "replace"))
        scores[page] = max(_log_likelihood(contexts, name) for name in languages)
        scores[page] -= rarity * (1 + 0.02 * contexts.total())
    return max(scores, key=lambda page: scores[page])


def _telling_lines(data: bytes) -> bytes:
    """Lines with bytes beyond ASCII, from all over the file."""
    lines = [line for line in re.split(rb"[\r\n]+", data) if not line.isascii()]
    size = sum(map(len, lines))
    chosen = lines[:: max(1, size // _GUESS)]
    return b"\n".join(line[:2000] for line in chosen)[: 2 * _GUESS]


_LETTER, _CAPITAL, _INSIDE_CAPITAL, _AFTER_ACCENT, _MIXED, _SIGN, _SIGN_INSIDE = range(7)
# What a place costs a letter: a capital, one after a small letter, an accent after an accent, a
# letter of another script beside a Latin one, a sign between letters.
_FACTORS = {
    _LETTER: 1.0,
    _CAPITAL: 0.2,
    _INSIDE_CAPITAL: 0.002,
    _AFTER_ACCENT: 0.2,
    _MIXED: 0.001,
    _SIGN: 1.0,
    _SIGN_INSIDE: 0.01,
}


def _contexts(text: str) -> Counter[tuple[str, int]]:
    """How often each character beyond ASCII is found in which kind of place."""
    counts: Counter[tuple[str, int]] = Counter()
    before = " "
    for character, after in zip(text, text[1:] + " ", strict=True):
        if character > "\x7f":
            counts[character.lower(), _place(before, character, after)] += 1
        before = character
    return counts


def _place(before: str, character: str, after: str) -> int:
    if not (character.isalpha() or unicodedata.category(character) in ("Mn", "Mc")):
        inside = before.isalpha() and after.isalpha() and character not in "’·\u200c"
        return _SIGN_INSIDE if inside else _SIGN
    if character < "\u0250" or "\u1e00" <= character <= "\u1eff":  # Latin
        if character.isupper():
            return _INSIDE_CAPITAL if before.islower() else _CAPITAL
        return _AFTER_ACCENT if before > "\x7f" and before.isalpha() else _LETTER
    if character < "\u2e80" and any(c.isascii() and c.isalpha() for c in (before, after)):
        return _MIXED
    if character.isupper():
        return _INSIDE_CAPITAL if before.islower() else _CAPITAL
    return _LETTER


def _log_likelihood(counts: Counter[tuple[str, int]], language: str) -> float:
    return sum(
        count * math.log(max(BROKEN / 10, probability(language, character) * _FACTORS[place]))
        for (character, place), count in counts.items()
    )
