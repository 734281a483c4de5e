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
from lora_core.tasks.letters import (
    BROKEN,
    COMMON_WORDS,
    CONTRACTED,
    ELIDED,
    KNOWN_WORDS,
    is_word,
    probability,
)

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
    "iso8859_8": "ISO 8859-8 (Hebrew)",
    "iso8859_9": "ISO 8859-9 (Turkish)",
    "iso8859_13": "ISO 8859-13 (Baltic)",
    "iso8859_15": "ISO 8859-15 (Western European)",
    "koi8_r": "KOI8-R (Russian)",
    "koi8_u": "KOI8-U (Ukrainian)",
    "mac_roman": "Mac Roman (Western European)",
    "mac_latin2": "Mac Central European",
    "mac_croatian": "Mac Croatian",
    "mac_iceland": "Mac Icelandic",
    "mac_cyrillic": "Mac Cyrillic",
    "mac_greek": "Mac Greek",
    "mac_turkish": "Mac Turkish",
    "cp850": "DOS 850 (Western European)",
    "cp437": "DOS 437 (United States)",
    "cp860": "DOS 860 (Portuguese)",
    "cp861": "DOS 861 (Icelandic)",
    "cp863": "DOS 863 (French Canadian)",
    "cp865": "DOS 865 (Nordic)",
    "cp852": "DOS 852 (Central European)",
    "cp775": "DOS 775 (Baltic)",
    "cp857": "DOS 857 (Turkish)",
    "cp855": "DOS 855 (Cyrillic)",
    "cp866": "DOS 866 (Cyrillic)",
    "cp737": "DOS 737 (Greek)",
    "cp862": "DOS 862 (Hebrew)",
    "cp720": "DOS 720 (Arabic)",
    "utf-16": "UTF-16",
    "utf-16-le": "UTF-16 (low byte first)",
    "utf-16-be": "UTF-16 (high byte first)",
    "utf-32": "UTF-32",
    "utf-32-le": "UTF-32 (low byte first)",
    "utf-32-be": "UTF-32 (high byte first)",
    "latin-1": "Latin-1",
}


class Decoded(NamedTuple):
    """A file's text, the page that it was read by, and remarks for its owner."""

    text: str
    encoding: str  # a key of `ENCODINGS`, or what a caller chose
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
    wide = _utf_32(data) or _utf_16(data)
    if wide:
        return _decoded(data, wide)
    if b"\x1b$" in data and data.isascii():
        return _decoded(data, "iso2022_jp", guessed=True)
    data = _HALVES.sub(_whole, data)
    try:
        data.decode("utf-8")
        return _decoded(data, "utf-8")
    except UnicodeDecodeError:
        pass
    text = data.decode("utf-8", "replace")
    beyond = len(text) - len(text.encode("ascii", "ignore"))
    if 4 * text.count("\ufffd") < beyond:  # UTF-8 all the same, with a few broken letters
        return _decoded(data, "utf-8")
    return _several(data) or _decoded(data, guess(data), guessed=True)


# Two halves of UTF-16, each as UTF-8 has letters: so Java and Oracle write emoji.
_HALVES = re.compile(rb"\xed[\xa0-\xaf][\x80-\xbf]\xed[\xb0-\xbf][\x80-\xbf]")


def _whole(match: re.Match[bytes]) -> bytes:
    halves = match[0].decode("utf-8", "surrogatepass")
    return halves.encode("utf-16", "surrogatepass").decode("utf-16").encode()


def _several(data: bytes) -> Decoded | None:
    """A file put together of others: lines in UTF-8, and lines in a page of one byte a letter."""
    lines = re.split(rb"(?<=\n)", data)
    beyond = [line for line in lines if not line.isascii()]
    others = [line for line in beyond if not _is_utf_8(line)]
    if len(beyond) - len(others) < max(2, 0.1 * len(beyond)):
        return None
    page = guess(b"".join(others))
    if page in _SEVERAL_BYTES:  # a few characters of these may look like UTF-8
        return None
    text = b"".join(
        line if _is_utf_8(line) else _as_text(line, page).encode("utf-8", "replace")
        for line in lines
    )
    number = "1 line was" if len(others) == 1 else f"{len(others):,} lines were"
    read = _decoded(text, "utf-8")
    remark = f"{number} not in UTF-8 like the others, and read as {encoding_name(page)}."
    return read._replace(remarks=(remark, *read.remarks))


_SEVERAL_BYTES = {"cp932", "euc_jp", "gb18030", "big5", "cp949"}


def _is_utf_8(line: bytes) -> bool:
    try:
        line.decode("utf-8")
    except UnicodeDecodeError:
        return False
    return True


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
    """Python's name for an encoding that a person named: a key of `ENCODINGS`, or another one.

    Raises `SheetError` for what is no encoding of text.
    """
    try:
        codec = codecs.lookup(encoding).name
        "".encode(codec)  # not of bytes, such as zip
    except (LookupError, ValueError, TypeError):
        codec = ""
    if not codec or codec in _NO_PAGES:
        shown = ", ".join(list(ENCODINGS)[:8])
        raise SheetError(
            f"There is no encoding '{str(encoding)[:30]}' here. Take {shown} or the like."
        )
    if codec == "utf-8-sig":  # a mark at the beginning is left out anyway
        return "utf-8"
    return next((name for name in ENCODINGS if codec == codecs.lookup(name).name), codec)


_NO_PAGES = {"unicode-escape", "raw-unicode-escape", "idna", "punycode", "undefined"}


def encoding_name(encoding: str) -> str:
    """What people call an encoding."""
    return ENCODINGS.get(encoding, encoding)


def _decoded(data: bytes, encoding: str, *, guessed: bool = False, chosen: bool = False) -> Decoded:
    mark = next((m for m, name in _BOMS if name.startswith(encoding) and data.startswith(m)), b"")
    if encoding == "utf-8" and mark:
        data = data[len(mark) :]
    text = _as_text(data, encoding).removeprefix("\ufeff")
    text = text.replace("\n\ufeff", "\n")  # of files that were put one behind another
    zeros = text.count("\x00")
    text = text.replace("\x00", "").rstrip("\x1a")  # which ends a file of DOS
    sample = text[:_SAMPLE]
    if not chosen and zeros > 0.01 * len(text) + 1:
        raise SheetError(_BINARY)
    if not chosen and _strange(sample) > 0.01 * len(sample) + 1:
        raise SheetError(_BINARY)
    encoding = encoding.removesuffix("-sig")
    remarks = []
    if guessed:
        remarks.append(
            f"The file is not in UTF-8; it was read as {encoding_name(encoding)}. If letters look "
            "wrong in the preview, choose another encoding."
        )
    wrong = text.count("\ufffd") - _own_marks(data, encoding)
    if wrong > 0:
        letters = "1 letter is" if wrong == 1 else f"{wrong:,} letters are"
        remarks.append(f"{letters} broken: not {encoding_name(encoding).split(' (')[0]}.")
    if zeros:
        many = "1 zero byte was" if zeros == 1 else f"{zeros:,} zero bytes were"
        remarks.append(f"{many} left out: no text has them.")
    return Decoded(text, encoding, tuple(remarks))


def _as_text(data: bytes, encoding: str) -> str:
    text = data.decode(encoding, "replace")
    # In this page accents follow their letters.
    return unicodedata.normalize("NFC", text) if encoding == "cp1258" else text


def _own_marks(data: bytes, encoding: str) -> int:
    """Replacement characters that the file itself holds: an earlier program's loss, not ours."""
    return data.count(b"\xef\xbf\xbd") if encoding == "utf-8" else 0


_CONTROL = re.compile(r"[\x01-\x08\x0e-\x1a\x1c-\x1f\x7f]")
_SEPARATING = "\x01\x02\x1c\x1d\x1e\x1f"  # as Hive and older programs separate


def _strange(sample: str) -> int:
    """How many characters no text has; a sign that each line has equally often separates cells."""
    lines = [line for line in sample.split("\n")[:-1] if line]
    counts = Counter(_CONTROL.findall(sample))
    for sign in _SEPARATING:
        if len({line.count(sign) for line in lines}) == 1:
            del counts[sign]
    return counts.total()


def _utf_32(data: bytes) -> str | None:
    """The form of UTF-32 in which a file without a mark is: three bytes in four are mostly zero."""
    sample = data[: _SAMPLE // 4 * 4]
    for encoding, high in (("utf-32-le", 3), ("utf-32-be", 0)):
        beyond = high - 1 if high else 1  # the first plane, where nearly all letters are
        if (
            len(sample) >= 16
            and not any(sample[high::4])
            and sample[beyond::4].count(0) > 0.9 * (len(sample) // 4)
        ):
            return encoding
    return None


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
    "cp720": (["Arabic"], 2),
    "iso8859_6": (["Arabic"], 2),
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
    "cp855": (_CYRILLIC, 3),
    "cp861": (["Icelandic"], 3),
    "mac_croatian": (["Croatian"], 3),
    "mac_iceland": (["Icelandic"], 3),
    "cp737": (["Greek"], 3),
    "cp862": (["Hebrew"], 3),
}


def guess(data: bytes) -> str:
    """The page under which bytes beyond ASCII make the most plausible text."""
    marked, plain = _words(_telling_lines(data))
    known = KNOWN_WORDS | plain
    spoken = {name: len(words & plain) for name, words in COMMON_WORDS.items()}
    scores = {}
    for page, (languages, rarity) in _PAGES.items():
        contexts, whole = _contexts(_as_text(marked, page), known)
        scores[page] = _WHOLE_WORDS * whole + max(
            _log_likelihood(contexts, name) + _SPOKEN * spoken.get(name, 0) for name in languages
        )
        scores[page] -= rarity * (1 + 0.02 * contexts.total())
    return max(scores, key=lambda page: scores[page])


_SPOKEN = 1.0  # nats for each common word of a language that the lines have
_WHOLE_WORDS = 1.5  # for a sign between words that the lines also have without it


def _words(lines: bytes) -> tuple[bytes, frozenset[str]]:
    """The different words with bytes beyond ASCII, their numbers all alike; and the plain words.

    A word counts once: what stands in every row says no more than what stands in one.
    """
    # None of these bytes is the second half of a character in any page.
    words = dict.fromkeys(re.split(rb'[\s,;"]+', re.sub(rb"[0-9]+", b"0", lines)))
    plain = {word.strip(b"!'().:?*-").lower() for word in words if word.isascii()}
    marked = b" ".join(word for word in words if not word.isascii())
    return marked, frozenset(word.decode() for word in plain if word.isalpha())


def _telling_lines(data: bytes) -> bytes:
    """Lines with bytes beyond ASCII, from all over the file."""
    lines = [line for line in re.split(rb"[\r\n]+", data) if not line.isascii()]
    size = sum(map(len, lines))
    chosen = lines[:: max(1, size // _GUESS)]
    return b"\n".join(line[:2000] for line in chosen)[: 2 * _GUESS]


_LETTER, _CAPITAL, _INSIDE_CAPITAL, _AFTER_ACCENT, _MIXED, _BY_DIGIT, _ALONE = range(7)
_ALONE_CAPITAL, _SIGN, _DASH_INSIDE, _SIGN_INSIDE, _STRAY_SIGN = range(7, 12)
# What a place costs a letter: a capital, one after a small letter, an accent after an accent, a
# letter of another script beside a Latin one, one beside a digit, one alone that is no word; a
# dash and another sign between letters, a sign where it does not belong.
_FACTORS = {
    _LETTER: 1.0,
    _CAPITAL: 0.2,
    _INSIDE_CAPITAL: 0.002,
    _AFTER_ACCENT: 0.2,
    _MIXED: 0.001,
    _BY_DIGIT: 0.01,
    _ALONE: 0.03,
    _ALONE_CAPITAL: 0.003,
    _SIGN: 1.0,
    _DASH_INSIDE: 0.3,
    _SIGN_INSIDE: 0.01,
    _STRAY_SIGN: 0.05,
}


def _contexts(text: str, known: frozenset[str]) -> tuple[Counter[tuple[str, int]], int]:
    """How often each character beyond ASCII is found in which kind of place.

    Also in how many words such characters are only signs around or between `known` words.
    """
    counts: Counter[tuple[str, int]] = Counter()
    whole = 0
    for word in text.split(" "):
        around = f" {word} "
        for before, character, after in zip(around, word, around[2:], strict=False):
            if character > "\x7f":
                place = _place(before, character, after)
                if character == "’" and before.isalpha() and after.isalpha():
                    place = _apostrophe(word)
                counts[character.lower(), place] += 1
        whole += _around_known(word, known)
    return counts, whole


_PARTS = re.compile(r"[^\W\d_]+")


def _apostrophe(word: str) -> int:
    """The place of an apostrophe in a word such as don’t or l’été."""
    head, _, tail = word.lower().partition("’")
    before, after = _PARTS.findall(head[-12:]), _PARTS.findall(tail[:12])
    joins = bool(after and after[0] in CONTRACTED) or bool(before and before[-1] in ELIDED)
    return _SIGN if joins else _STRAY_SIGN


def _around_known(word: str, known: frozenset[str]) -> bool:
    """Whether a word is known words, such as don and t, and signs beyond ASCII."""
    parts = _PARTS.findall(word.lower())
    if not parts or not all(part.isascii() for part in parts):
        return False
    return all(
        part in known or (place > 0 and part in CONTRACTED) for place, part in enumerate(parts)
    ) and any(len(part) > 1 for part in parts)


_OPENING = "¡¿‚„•"  # before a word only
_DASHES = "–—"  # not behind a word and before a blank
_MONEY = "£€¢¥"  # beside no letter
_ORDINALS = "ªº"  # behind a number, as 1º, or as nº and Mª


def _place(before: str, character: str, after: str) -> int:
    if character in _ORDINALS:
        return _SIGN if before.isdigit() or before == "." or before in "nNMD" else _STRAY_SIGN
    if not _is_letter(character):
        if before.isalpha() and after.isalpha() and character not in "’\u200c":
            if character == "—" or (character == "·" and before in "lL" and after in "lL"):
                return _DASH_INSIDE
            return _SIGN_INSIDE
        stray = (
            (character in _OPENING and before.isalnum())
            or (character in _DASHES and before.isalpha() and not after.isalnum())
            or (character in _MONEY and (before.isalpha() or after.isalpha()))
            or (character == "\u00a0" and " " in (before, after))
        )
        return _STRAY_SIGN if stray else _SIGN
    if character < "\u0600" and (before.isdigit() or after.isdigit()):
        return _BY_DIGIT
    if character < "\u2e80" and not (_is_letter(before) or _is_letter(after)):
        return _ALONE_CAPITAL if character.isupper() else _ALONE
    if character < "\u0250" or "\u1e00" <= character <= "\u1eff":  # Latin
        if character.isupper():
            return _INSIDE_CAPITAL if before.islower() else _CAPITAL
        return _AFTER_ACCENT if before > "\x7f" and before.isalpha() else _LETTER
    if character < "\u2e80" and any(c.isascii() and c.isalpha() for c in (before, after)):
        return _MIXED
    if character.isupper():
        return _INSIDE_CAPITAL if before.islower() else _CAPITAL
    return _LETTER


def _is_letter(character: str) -> bool:
    """Whether a character is a letter, or an accent of one."""
    return character.isalpha() or unicodedata.category(character) in ("Mn", "Mc")


def _log_likelihood(counts: Counter[tuple[str, int]], language: str) -> float:
    total = 0.0
    for (character, place), count in counts.items():
        factor = _FACTORS[place]
        if place in (_ALONE, _ALONE_CAPITAL) and is_word(language, character):
            factor *= 10
        chance = probability(language, character) * factor
        total += count * math.log(max(BROKEN / 10, chance))
    return total
