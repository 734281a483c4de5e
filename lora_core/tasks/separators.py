"""Which sign stands between the cells of a line: its names, and those of several characters."""

from __future__ import annotations

import re
from collections.abc import Sequence

from lora_core.tasks.binary_program import SheetError

SEPARATORS = {",": "comma", ";": "semicolon", "\t": "tab", "|": "bar", " ": "space"}
SEPARATORS |= {"::": "two colons", "||": "two bars"}
SEVERAL = ("::", "||", ";;", "|~|", "@@@", "###")  # of several characters, the first that fits
STANDS_FOR = "\x1f\x1e\x1d\x1c\x01\x02"  # one that the text lacks stands for several characters
_LONGEST_SEPARATOR = 5
GUESSED = ("\t", ",", ";", "|", "\x1f", "\x01", "^", "¦", "~")  # the first that fits
RARE = ("@", "，", "；", "؛")  # which texts have as well: where none of those fits


def shown(separator: str) -> str:
    """A separator in a sentence."""
    names = {"\t": "tab", " ": "space", "\x1f": "unit separator", "\x01": "Ctrl-A"}
    return names.get(separator, separator)


def checked_separator(separator: str) -> str:
    """A separator by its sign or its name. Raises `SheetError`."""
    names = {name: sign for sign, name in SEPARATORS.items()} | {"\\t": "\t", "pipe": "|"}
    sign = names.get(separator.strip().casefold(), separator) if separator.strip() else separator
    if not 1 <= len(sign) <= _LONGEST_SEPARATOR or any(bad in sign for bad in '"\r\n\x00'):
        raise SheetError(
            "A separator is one character, such as a comma, or a few, such as ::, not "
            f"“{separator[:20].strip()}”."
        )
    return sign


def several_signs(lines: Sequence[str]) -> str | None:
    """A separator of several characters that every line has equally often, as MovieLens has `::`.

    Where a line also has more or fewer of its signs in a row, they are cells without a text.
    """
    filled = [line for line in lines if line.strip()]
    for several in SEVERAL:
        sign = re.escape(several[0])
        alone = re.compile(f"(?<!{sign}){re.escape(several)}(?!{sign})")
        counts = {(len(alone.findall(line)), line.count(several)) for line in filled}
        if len(filled) < 2 or len(counts) > 1 or counts <= {(0, 0)}:
            continue
        by_itself, whole = counts.pop()
        sign_alone = any(several[0] in line.replace(several, "") for line in filled)
        if by_itself == whole and not (sign_alone and several[0] in GUESSED):
            return several
    return None
