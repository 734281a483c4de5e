"""Lines that are no CSV: each begins with, or holds, the label of its text."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence

from lora_core.tasks.binary_program import RawTable
from lora_core.tasks.separators import GUESSED


def labelled_lines(lines: Sequence[str]) -> RawTable | None:
    """Two columns, label and text, of such lines; None where they are written in another way."""
    return _fasttext(lines) or _labelled(lines)


def _fasttext(lines: Sequence[str]) -> RawTable | None:
    """Lines of fastText, `__label__spam You won`, as two columns."""
    filled = [(i, line.strip()) for i, line in enumerate(lines) if line.strip()]
    marked = sum(bool(re.search(r"(?:^|\s)__label__\S", line)) for _, line in filled)
    if not marked or marked < 0.9 * len(filled):
        return None
    rows: list[list[str]] = []
    numbers = []
    for number, line in filled:
        words = line.split()
        labels = [word for word in words if word.startswith("__label__")]
        text = re.sub(r"(?:^|\s)__label__\S+", "", line).strip()
        names = [label.removeprefix("__label__").strip(",") for label in labels]
        one = names[0] if len(names) == 1 else repr(names) if names else ""
        rows.append([one, text])
        numbers.append(number + 1)
    remark = "Read as fastText writes: __label__ and the label, beside the text."
    return RawTable(rows, numbers, ["label", "text"], [remark])


_LABEL_FIRST = re.compile(r"(-?\d{1,2}|[A-Z]{2,}(?::\w+)?) +(\S.*)")


def _labelled(lines: Sequence[str]) -> RawTable | None:
    """Lines that begin with a number or a word in capitals, as TREC's questions: its label."""
    filled = [(i, line.strip()) for i, line in enumerate(lines) if line.strip()]
    found = [(i, match) for i, line in filled if (match := _LABEL_FIRST.fullmatch(line))]
    labels = {match[1] for _, match in found}
    if len(found) < max(10, 0.98 * len(filled)) or not 2 <= len(labels) <= len(found) / 3:
        return None
    if all(re.match(r"\d+:\S", match[2]) for _, match in found):
        return None  # numbered features, not texts
    for sign in GUESSED:
        times, count = Counter(line.count(sign) for _, line in filled).most_common(1)[0]
        if times and count > 0.9 * len(filled):
            return None
    rows = [[match[1], match[2]] for _, match in found]
    remark = "The first word of each line was taken as its label."
    return RawTable(rows, [i + 1 for i, _ in found], ["label", "text"], [remark])
