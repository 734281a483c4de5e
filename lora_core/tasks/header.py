"""Which row of a table holds the names of its columns, if any, and where its data begin.

Exports put titles, comments and blank rows above the names, and questions or keys below them. What
is found here is a guess, said in a remark; a caller who knows better names the row.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from lora_core.config import MAX_CLASSES

TEXTS_NAMES = [  # of several texts together
    *("texts", "patterns", "examples", "utterances", "sentences", "phrases", "samples"),
    *("questions", "queries", "messages", "training_phrases", "user_says"),
]
# What people call columns of texts and of labels, most telling first.
TEXT_NAMES = [
    *("text", "message", "sentence", "review", "content", "comment", "body", "tweet"),
    *("utterance", "query", "question", "sms", "description", "title", "prompt", "document"),
    *("v2", "input", *TEXTS_NAMES),
]
LABEL_NAMES = [
    *("label", "class", "category", "target", "intent", "topic", "sentiment", "tag", "type"),
    *("labels", "choices", "spam", "v1", "y", "rating", "stars", "emotion", "polarity"),
    *("output", "completion", "stance", "verdict", "subreddit", "score"),
    *("kategorie", "klasse", "bewertung", "stimmung", "thema", "abteilung", "urteil"),
    *("catégorie", "categorie", "étiquette", "etiquette", "classe"),
    *("categoría", "categoria", "etiqueta", "clase", "sentimiento", "sentimento", "classificação"),
    *("categorie", "kategoria", "kategorija", "kategori", "etiket", "duygu", "sınıf", "kategória"),
    *("категория", "категорія", "метка", "класс", "клас", "тональность", "оценка"),
    *("标签", "標籤", "类别", "類別", "分类", "分類", "情感", "ラベル", "カテゴリ", "カテゴリー"),
    *(
        "評価",
        "분류",
        "라벨",
        "레이블",
        "카테고리",
        "감정",
        "التصنيف",
        "الفئة",
        "תווית",
        "קטגוריה",
        "श्रेणी",
    ),
]
# What tells rows apart or where they come from, rather than what a text says.
ABOUT_NAMES = {
    *("split", "fold", "partition", "subset", "set", "lang", "language", "locale", "gender", "sex"),
    *("age", "country", "state", "city", "year", "month", "day", "date", "time", "annotator"),
    *("worker", "coder", "rater", "author", "user", "source", "platform", "device", "version"),
}
_ABOVE = 30  # rows that may stand above the names
_LONG = 60  # characters: longer than a name, unless it is a question
_NUMBER = re.compile(r"[-+]?\d[\d.,:/ -]*")
_COMMENT = re.compile(r"(#|//|%|;)\s?\S+.*\s\S")


@dataclass(frozen=True)
class Header:
    """The row of names (None: there is none), where data begin, and remarks about both."""

    names: int | None
    data: int
    remarks: tuple[str, ...] = ()


def find_header(rows: Sequence[Sequence[str]], numbers: Sequence[int], what: str) -> Header:
    """A guess from the first rows and from what comes again below them.

    `numbers` are those of the rows in the file, `what` they are called there: "line" or "row".
    """
    top = _first_of_the_table(rows)
    remarks = []
    if top:
        remarks.append(
            f"{_span(numbers[:top], what)} above the table {'was' if top == 1 else 'were'} left "
            "out."
        )
    below = rows[top + 1 :]
    if looks_like_data(rows[top], below):
        remarks.append(
            "The first row looks like data, not like names of columns: the columns were numbered."
        )
        return Header(None, top, tuple(remarks))
    more = _further_names(below)
    if more:
        remarks.append(
            f"{_span(numbers[top + 1 : top + 1 + more], what)} under the names "
            f"{'was' if more == 1 else 'were'} left out: the survey program's own."
        )
    return Header(top, top + 1 + more, tuple(remarks))


def header_at(number: int, numbers: Sequence[int]) -> Header:
    """The header that a person named by its row's number; 0 for none."""
    if number <= 0:
        return Header(None, 0)
    place = next((i for i, n in enumerate(numbers) if n >= number), len(numbers) - 1)
    return Header(place, place + 1)


def _first_of_the_table(rows: Sequence[Sequence[str]]) -> int:
    """The first row that is as full as the others are: names, or data where there are none."""
    head = rows[:_ABOVE]
    for place, row in enumerate(head):
        if _names(row, TEXT_NAMES) and _names(row, LABEL_NAMES):
            return place
    filled = [_filled(row) for row in rows[:1000]]
    typical = sorted(filled)[len(filled) // 2]
    if typical < 2:
        return 0
    enough = max(2.0, 0.75 * typical)
    for place, row in enumerate(head):
        comment = place < len(rows) - 1 and _is_comment(row)
        if filled[place] >= enough and not (comment and not _may_be_names(row, rows[place + 1 :])):
            return place
    return 0


def _may_be_names(row: Sequence[str], below: Sequence[Sequence[str]]) -> bool:
    """Whether a row that begins as a comment does is one of names, such as "# of stars".

    So it is where it has short cells, as many as the next row, and that one has no names.
    """
    if any(len(cell) > _LONG or cell.startswith(" ") for cell in row[1:]):
        return False
    return _filled(row) == _filled(below[0]) > 1 and looks_like_data(below[0], below[1:])


def looks_like_data(row: Sequence[str], below: Sequence[Sequence[str]]) -> bool:
    """Whether a row has no names: a label that comes again below, a number over numbers."""
    if len(row) < 2 or (_names(row, TEXT_NAMES) and _names(row, LABEL_NAMES)):
        return False
    # Where files were put one behind another, the names come again as a whole row.
    sample = [other for other in below[:2000] if list(other) != list(row)]
    evidence = 0
    for place, cell in enumerate(row):
        cell = cell.strip()
        values = [other[place].strip() for other in sample if place < len(other)]
        values = [value for value in values if value]
        if not cell or len(values) < 2:
            continue
        counts = Counter(values)
        if counts[cell] > max(1, len(values) / 200):
            return True
        if 2 <= len(counts) <= min(MAX_CLASSES, len(values) / 3):
            evidence += 2  # over a column of few values stands one that is none of them
        numbers = sum(bool(_NUMBER.fullmatch(value)) for value in values)
        if numbers > 0.9 * len(values):
            if _NUMBER.fullmatch(cell):
                return True
            evidence += 1
    if evidence or _names(row, TEXT_NAMES) or _names(row, LABEL_NAMES):
        return False
    return any(
        (len(cell) > _LONG or len(cell.split()) > 7) and not cell.rstrip().endswith(("?", ":"))
        for cell in row
    )


def _further_names(below: Sequence[Sequence[str]]) -> int:
    """Rows under the names that survey programs add: questions, then keys in braces."""
    for place, row in enumerate(below[:3]):
        cells = [cell.strip() for cell in row if cell.strip()]
        if cells and all(cell.startswith('{"ImportId"') for cell in cells):
            return place + 1  # Qualtrics
    first = {cell.strip().casefold() for cell in (below[0] if below else ())} - {""}
    return int(
        bool(first) and first <= {"response", "open-ended response", "other (please specify)"}
    )


def _names(row: Sequence[str], names: Sequence[str]) -> bool:
    return any(cell.strip().casefold() in names for cell in row)


def _filled(row: Sequence[str]) -> int:
    return sum(1 for cell in row if cell.strip())


def _is_comment(row: Sequence[str]) -> bool:
    first = next((cell for cell in row if cell.strip()), "")
    return bool(_COMMENT.match(first.strip()))


def _span(numbers: Sequence[int], what: str) -> str:
    if len(numbers) == 1:
        return f"{what.capitalize()} {numbers[0]:,}"
    return f"{what.capitalize()}s {numbers[0]:,} to {numbers[-1]:,}"
