"""A column of labels: what each cell means, and which of them are easily taken for each other."""

from __future__ import annotations

import json
import re
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Iterable

from lora_core.tasks.task import normalise

# What programs write where they have no value; each may be a label all the same ("N/A" as an
# answer, "NA" for Namibia), and then has about as many rows as others have.
_STAND_INS = {"nan", "null", "<na>", "n/a", "na", "none", "nil", "nat", "-", "?", "undefined"}
_STAND_INS |= {".", "--", "---", "(null)", "(blank)", "(empty)", "(none)", "<null>", "[null]"}
_ERRORS = {"#n/a", "#ref!", "#value!", "#div/0!", "#name?", "#null!", "#num!"}  # of Excel
_ERRORS |= {"\\n"}  # of MySQL, PostgreSQL and Hive: \N is written for nothing else
# What is no text either: answers such as "none" or "-" are, as a person may have written them.
_NO_TEXT = {"nan", "null", "<na>", "n/a", "nat", "(null)", "(blank)", "<null>", "[null]"} | _ERRORS
_NO_TEXT_AS_WRITTEN = {"NA", "None", "."}  # of R, Python and SAS
_ALWAYS = {"nan", "<na>", "nat"}  # numbers and dates that are none: left out unless frequent
_LISTED = re.compile(r"""\[\s*(?:"([^"]*)"|'([^']*)'|(-?\d+)\.?)\s*\]""")  # ['spam'], [0]
_SEVERAL = re.compile(  # with commas, or as NumPy prints them
    r"""\[\s*(?:"[^"]*"|'[^']*'|-?\d+\.?)"""
    r"""(?:(?:\s*,\s*|\s+)(?:"[^"]*"|'[^']*'|-?\d+\.?))+\s*\]"""
)


class Labels:
    """The labels of a column, as their readers see them."""

    def __init__(self, cells: Iterable[str]) -> None:
        """`cells`: all of the column, in order."""
        counts = Counter(cells)
        seen = {cell: normalise(cell) for cell in counts}
        filled = [name for name in seen.values() if name]
        listed = bool(filled) and all(_listed(name) for name in filled)
        if listed:
            seen = {cell: _unlisted(name) for cell, name in seen.items()}
        placed = _one_hot(filled)
        if placed:
            seen = {cell: placed.get(name, name) for cell, name in seen.items()}
        seen, equal = _numbers(seen)
        self._seen = seen
        self.several = {name for name in seen.values() if _SEVERAL.fullmatch(name)}
        rows: Counter[str] = Counter()
        for cell, count in counts.items():
            rows[seen[cell]] += count
        del rows[""]
        self.stand_ins = {name for name in rows if _stands_in(name, rows)}
        names = [name for name in rows if name not in self.stand_ins and name not in self.several]
        alike = [] if equal or placed else _alike_cells(seen)
        self.together = _together(names, rows)  # a sentence on several labels in one cell, or ""
        self.warnings = [*equal, *alike, *_look_alikes(names), *_taken(names, rows)]
        self.warnings += [_PLACED] if placed else []
        self.warnings += [self.together] if self.together else []

    def of(self, cell: str) -> str:
        """The label that a cell shows; "" for none."""
        return self._seen[cell]


def _listed(name: str) -> bool:
    return bool(_LISTED.fullmatch(name) or _SEVERAL.fullmatch(name)) or name == "[]"


def _unlisted(name: str) -> str:
    """The one element of a list; several stay a list."""
    if name == "[]":
        return ""
    match = _LISTED.fullmatch(name)
    if not match:
        return name
    try:
        value = json.loads(name)[0] if match[1] is not None else match[2] or match[3] or ""
    except ValueError:
        value = match[1]
    return normalise(str(value))


_PLACED = "Each label is a list with a single 1 in it: the place of the 1, from 0, was taken."


def _one_hot(names: list[str]) -> dict[str, str]:
    """What lists such as [0, 1, 0] mean, where the column has no others: the place of the 1."""
    lists = {name: re.findall(r"[\d.]+", name) for name in set(names) if _SEVERAL.fullmatch(name)}
    if not lists or len(lists) < len(set(names)) or len({len(one) for one in lists.values()}) > 1:
        return {}
    if any(sorted(map(float, one)) != [0.0] * (len(one) - 1) + [1.0] for one in lists.values()):
        return {}
    return {name: str([*map(float, one)].index(1.0)) for name, one in lists.items()}


_JOINING = (";", "|", ",", "/", "+", "&")  # between labels of one cell
_TOGETHER = 0.5  # of the cells with such a sign: so many must be made of labels


def _together(names: list[str], rows: Counter[str]) -> str:
    """A word on cells such as "spam; urgent", where spam is a label, too.

    A class may be called "Food, drink": the parts must come elsewhere as well.
    """
    for sign in _JOINING:
        parts = {
            name: [part.strip() for part in name.split(sign)] for name in names if sign in name
        }
        uses = Counter(part for some in parts.values() for part in set(some))
        known = {name for name in names if sign not in name} | {p for p, n in uses.items() if n > 1}
        joined = [name for name, some in parts.items() if all(some) and known.issuperset(some)]
        numbers = sign in ",/" and all(re.fullmatch(r"[-+]?\d+[,/]\d+", name) for name in joined)
        if len(joined) < 2 or len(joined) < _TOGETHER * len(parts) or numbers:
            continue
        count = sum(rows[name] for name in joined)
        return (
            f"Several labels seem to stand together in {count:,} rows, such as "
            f"'{joined[0][:40]}': here each combination is a label of its own. Keep one label a "
            "row."
        )
    return ""


def is_no_text(text: str) -> bool:
    """Whether a text is what a program writes where it has none."""
    return text.casefold() in _NO_TEXT or text in _NO_TEXT_AS_WRITTEN


def _numbers(seen: dict[str, str]) -> tuple[dict[str, str], list[str]]:
    """1 and 1.0 in one column are one label, and a sentence says so."""
    names = set(seen.values())
    commas = any(re.search(r",(?!0+$)", name) for name in names) or "0" in names
    equal = {
        name: match[1]
        for name in names
        if (match := _WHOLE.fullmatch(name)) and not (commas and "," in name)
    }
    both = sorted(name for name, whole in equal.items() if whole in names)
    if not both:
        return seen, []
    shown = ", ".join(f"'{equal[name]}' and '{name}'" for name in both[:3])
    sentence = f"Taken as one label, since they are one number: {shown}."
    return {cell: equal.get(name, name) for cell, name in seen.items()}, [sentence]


# 1.0 and 1,00, but not 1.000 and 1,000, which may be a thousand; nor 3,0 among lists such as 3,1.
_WHOLE = re.compile(r"(-?\d+)[.,](?:0{1,2}|0{4,})")


def _stands_in(name: str, rows: Counter[str]) -> bool:
    """Whether a label is what a program wrote for an empty cell: by name, and by being rare."""
    folded = name.casefold()
    if folded in _ERRORS:
        return True
    if folded not in _STAND_INS:
        return False
    others = sorted(count for label, count in rows.items() if label.casefold() not in _STAND_INS)
    if not others:
        return False
    usual = others[len(others) // 2]
    return rows[name] < (0.5 if folded in _ALWAYS else 0.25) * usual


def _taken(names: list[str], rows: Counter[str]) -> list[str]:
    """A word on labels that may have been meant as none."""
    named = [name for name in names if name.casefold() in _STAND_INS]
    if not named:
        return []
    shown = ", ".join(f"'{name}' ({rows[name]:,} rows)" for name in named[:4])
    return [f"Taken as labels like others: {shown}. If they stand for none, empty those cells."]


def _alike_cells(seen: dict[str, str]) -> list[str]:
    """Labels that were written in several ways which look the same, and are one."""
    ways: Counter[str] = Counter(name for cell, name in seen.items() if cell.strip() and name)
    spelled: dict[str, set[str]] = defaultdict(set)
    for cell, name in seen.items():
        spelled[name].add(cell.strip())
    several = [name for name in ways if name and len(spelled[name]) > 1]
    if not several:
        return []
    shown = ", ".join(f"'{name[:30]}' ({len(spelled[name])} ways)" for name in several[:3])
    more = f" and {len(several) - 3} more" if len(several) > 3 else ""
    return [
        f"Taken as one label what looks the same but was written with other characters: {shown}"
        f"{more}."
    ]


def _look_alikes(labels: list[str]) -> list[str]:
    """Warnings of labels that a reader easily takes for each other, yet are two."""
    warnings = []
    spellings = defaultdict(list)
    for label in labels:
        spellings[label.lower()].append(label)
    for same in spellings.values():
        if len(same) > 1:
            warnings.append(
                f"'{same[0]}' and '{same[1]}' differ in capitals only, yet are two labels."
            )
    shapes = defaultdict(list)
    for label in labels:
        shapes[_shape(label)].append(label)
    for same in shapes.values():
        if len({label.lower() for label in same}) > 1:
            first, second = same[:2]
            warnings.append(
                f"'{first[:30]}' and '{second[:30]}' look the same, yet are two labels: they "
                f"differ in {_difference(first, second)}."
            )
    return warnings[:6]


# Letters of other scripts, and signs, that look like these.
_TWINS = {
    ord(twin): plain
    for plain, twins in {
        "a": "аɑα", "e": "е", "o": "оοօ", "p": "рρ", "c": "сϲ", "x": "хχ", "y": "уγ", "i": "іıι",
        "j": "ј", "s": "ѕ", "h": "һ", "k": "к", "v": "ν", "u": "υ", "t": "т", "n": "п", "b": "Ь",
        "A": "АΑ", "B": "ВΒ", "E": "ЕΕ", "H": "НΗ", "I": "ІΙ", "K": "КΚ", "M": "МΜ", "N": "Ν",
        "O": "ОΟ", "P": "РΡ", "C": "С", "T": "ТΤ", "X": "ХΧ", "Y": "УΥ", "Z": "Ζ", "S": "Ѕ",
        "J": "Ј",
        "-": "‐‑‒–—−", "'": "’‘`´ʼ", '"': "“”„«»", ".": "…", "": "\ufe0e\ufe0f\u200c\u200d",
    }.items()
    for twin in twins
}  # fmt: skip


def _shape(label: str) -> str:
    return unicodedata.normalize("NFKC", label).translate(_TWINS).replace("l", "I").lower()


def _difference(first: str, second: str) -> str:
    """Names of the first characters in which two labels differ."""
    for a, b in zip(first, second, strict=False):
        if a != b:
            return f"{_name(a)} and {_name(b)}"
    longer = max(first, second, key=len)
    return _name(longer[min(len(first), len(second))])


def _name(character: str) -> str:
    return unicodedata.name(character, f"U+{ord(character):04X}").capitalize()
