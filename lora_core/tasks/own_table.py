"""Somebody's own table: looked at, and made fit for `tasks.make_task`.

`file` reads it; what is a text, what is a label, and whether they can be learned is decided here.
What cannot be used raises `TaskError` with one sentence in the words of the person who brought it.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING

from lora_core.batches import encode_text
from lora_core.config import MAX_CLASSES
from lora_core.limits import Limits
from lora_core.tasks.bundled import task_names
from lora_core.tasks.columns import choose_columns, guess_columns, needed
from lora_core.tasks.file import Reading, Table, default_limits, read_table
from lora_core.tasks.labels import Labels, is_no_text
from lora_core.tasks.task import Task, TaskError, make_task, normalise

if TYPE_CHECKING:
    import tiktoken

FEW_ROWS = 10  # a class with fewer is warned of
_LABEL = 100  # characters; a longer one is a text in the wrong column
_BINS = 16  # of the histogram of lengths


@dataclass(frozen=True)
class Lengths:
    """A histogram of the texts' lengths in tokens, and how many are cut at the context."""

    edges: tuple[int, ...]  # one more than `counts`; the last bin holds all that is longer
    counts: tuple[int, ...]
    cut: int
    context_length: int


@dataclass(frozen=True)
class TableReport:
    """What a table holds, for looking at before training."""

    name: str
    columns: tuple[str, ...]
    rows: int
    text_column: str | None  # as chosen, or guessed; None where nothing suggests one
    label_column: str | None
    preview: tuple[tuple[str, ...], ...]
    classes: dict[str, int] = field(default_factory=dict)  # usable rows, most frequent first
    lengths: Lengths | None = None
    warnings: tuple[str, ...] = ()
    problem: str = ""  # why it cannot be trained on, in a sentence; "" when it can
    kind: str = "CSV"  # or JSON, XLSX, Parquet
    reading: Reading = field(default_factory=Reading)  # as chosen, or guessed
    sheets: tuple[str, ...] = ()  # that can be chosen among; empty: there is one
    tops: tuple[tuple[int, str], ...] = ()  # rows that may hold the names: number, how it begins


def read_task(
    path: str | Path,
    *,
    text_column: str | None = None,
    label_column: str | None = None,
    header: int | None = None,
    sheet: str | None = None,
    encoding: str | None = None,
    separator: str | None = None,
    seed: int = 0,
    limits: Limits | None = None,
) -> Task:
    """Somebody's own table as a task: a CSV, TSV, JSON Lines, XLSX or Parquet file.

        task = lc.read_task("mine.csv")                     # columns called text and label
        task = lc.read_task("mine.xlsx", text_column="Message", label_column="Desk")
        print(*task.warnings, sep="\n")                     # what was left out, what looks odd
        *_, end = lc.fine_tune(lc.load_base(), task, lc.LoRAConfig(), lc.TrainConfig())

    Columns called `text` and `label`, in capitals or not, are taken; others are named. A label may
    be a word or a number; there must be two to a hundred different ones. Left out, and counted in
    `Task.warnings`: rows without a text or a label, texts that came before, texts under two labels.

    How the file is written is found out, and said in `Task.warnings`; where that errs, say it:
    `header` is the line of a CSV, the row of a sheet that holds the names of the columns (1 is the
    first; 0: there are none, and the columns are called "column 1", "column 2"); `sheet` the name
    of a workbook's sheet, or of a list inside a JSON object; `encoding` as Python calls it, such as
    "cp1250" or "mac_roman"; `separator` one character, such as ";", or a few.

    The split is 70/10/20, stratified; the same `seed` and rows give the same one. `limits` bound
    the file: `lora_core.limits.Limits(upload_mb=200, max_rows=1_000_000)` for a larger one.
    To look at a file first: `lora_core.tasks.own_table.inspect_table(path)`.

    Raises `TaskError`: one sentence that says what is wrong with the file and what is needed.
    """
    table = read_table(path, limits, Reading(header, sheet, encoding, separator))
    columns = choose_columns(table, text_column, label_column)
    return task_of(table, *columns, seed=seed, limits=limits)


def task_of(
    table: Table, text_column: str, label_column: str, *, seed: int = 0, limits: Limits | None
) -> Task:
    """The task of a table whose columns are known. Raises `TaskError`."""
    rows, warnings = usable_rows(table, text_column, label_column, limits)
    task = make_task(table.name, rows, seed, title=table.name[:60])
    _check_parts(task)
    return replace(task, warnings=(*table.remarks, *warnings))


def inspect_table(
    path: str | Path,
    text_column: str | None = None,
    label_column: str | None = None,
    *,
    reading: Reading | None = None,
    encoding: tiktoken.Encoding | None = None,
    context_length: int = 256,
    limits: Limits | None = None,
    preview_rows: int = 5,
    wait: bool = True,
) -> TableReport:
    """Look at a file before training: columns, guesses, counts, lengths, warnings, a problem.

    Columns that are not named are guessed from their names and contents; how the file is written,
    too, where `reading` does not say it. With an `encoding`, such as `base.tokenizer`, lengths are
    counted in its tokens. Raises `TaskError` for a file that is no table at all; what is wrong with
    the chosen columns is in `problem`. For `wait` see `read_table`.
    """
    table = read_table(path, limits, reading, wait=wait)
    return report_of(
        table,
        text_column,
        label_column,
        encoding=encoding,
        context_length=context_length,
        limits=limits,
        preview_rows=preview_rows,
    )


def report_of(
    table: Table,
    text_column: str | None = None,
    label_column: str | None = None,
    *,
    encoding: tiktoken.Encoding | None = None,
    context_length: int = 256,
    limits: Limits | None = None,
    preview_rows: int = 5,
) -> TableReport:
    """What a table holds; see `inspect_table`."""
    text_column = text_column if text_column in table.columns else None
    label_column = label_column if label_column in table.columns else None
    guessed_text, guessed_label = guess_columns(table, text_column, label_column)
    text_column, label_column = text_column or guessed_text, label_column or guessed_label
    preview = tuple(tuple(cell[:200] for cell in row) for row in table.rows[:preview_rows])
    classes: dict[str, int] = {}
    lengths = None
    problem = ""
    warnings: list[str] = list(table.remarks)
    try:
        if text_column is None or label_column is None:
            raise TaskError(needed(table))
        rows, more = usable_rows(table, text_column, label_column, limits)
        warnings += more
        classes = dict(Counter(label for _, label in rows).most_common())
        _check_parts(make_task(table.name, rows))
        if encoding is not None:
            lengths = token_lengths([text for text, _ in rows], encoding, context_length)
            if lengths.cut:
                warnings.append(
                    f"Longer than the {context_length:,} tokens that the model reads: "
                    f"{_many(lengths.cut, 'text')}, of which only the beginning is used."
                )
    except TaskError as error:
        problem = str(error)
    return TableReport(
        table.name,
        table.columns,
        len(table.rows),
        text_column,
        label_column,
        preview,
        classes,
        lengths,
        tuple(warnings),
        problem,
        table.kind,
        table.reading,
        table.sheets,
        table.tops,
    )


def usable_rows(
    table: Table, text_column: str, label_column: str, limits: Limits | None = None
) -> tuple[list[tuple[str, str]], list[str]]:
    """(text, label) of every usable row, and warnings of what was left out or looks odd.

    Raises `TaskError` when there is nothing to learn from them.
    """
    limits = limits or default_limits()
    t, c = table.columns.index(text_column), table.columns.index(label_column)
    labels = Labels(row[c] for row in table.rows)
    texts: dict[str, tuple[str, set[str]]] = {}  # normalised -> first spelling, labels
    left_out: Counter[str] = Counter()
    long = 0
    wordy = ""
    for row in table.rows:
        text, label = row[t].strip(), labels.of(row[c])
        if not normalise(text) or not label:
            left_out["row# without a text or a label"] += 1
        elif is_no_text(text):
            left_out[f"row# with “{text}” in the place of a text"] += 1
        elif label in labels.several:
            left_out["row# with several labels"] += 1
        elif label in labels.stand_ins:
            left_out[f"row# with “{label}” in the place of a label"] += 1
        elif len(label) > _LABEL:
            left_out[f"row# with a label of more than {_LABEL} characters"] += 1
            wordy = wordy or label
        else:
            if len(text) > limits.max_characters:
                long, text = long + 1, text[: limits.max_characters]
            key = normalise(text)
            if key in texts:
                left_out["row# with a text that came before"] += 1
                texts[key][1].add(label)
            else:
                texts[key] = (text, {label})
    too_long = left_out[f"row# with a label of more than {_LABEL} characters"]
    if too_long > 0.05 * len(table.rows):
        raise TaskError(
            f"The column '{label_column}' holds long texts, not labels, such as "
            f"“{wordy[:40]}…”. Were the two columns swapped?"
        )
    rows = [(text, next(iter(names))) for text, names in texts.values() if len(names) == 1]
    quarrels = [(text, sorted(names)) for text, names in texts.values() if len(names) > 1]
    if quarrels:
        left_out["text# to be found under two labels or more"] = len(quarrels)
    said = [f"Left out: {_counted(what, n)}." for what, n in left_out.items() if n]
    _check_rows(table, rows, text_column, label_column, quarrels, said, labels.together)
    if long:
        said.append(f"Cut to {limits.max_characters:,} characters: {_many(long, 'text')}.")
    notes = [
        f"Column '{column}': {table.notes[column]}"
        for column in (text_column, label_column)
        if column in table.notes
    ]
    gaps = _gaps([labels.of(row[c]) for row in table.rows], label_column)
    return rows, [*said, *notes, *gaps, *labels.warnings, *_oddities(rows)]


def _counted(what: str, count: int) -> str:
    return f"{count:,} {what.replace('#', '' if count == 1 else 's', 1)}"


def _gaps(labels: list[str], column: str) -> list[str]:
    """A word on labels in the first row of their group only, as merged cells leave."""
    empty = labels.count("")
    follows = sum(not label and bool(before) for before, label in pairwise(labels))
    if labels and empty > 0.5 * len(labels) and labels[0] and follows > 0.5 * (len(labels) - empty):
        return [
            f"Most rows have nothing in '{column}'. If a label there is meant for the empty rows "
            "below it, too, fill them in first."
        ]
    return []


def _check_rows(
    table: Table,
    rows: list[tuple[str, str]],
    text: str,
    label: str,
    quarrels: list[tuple[str, list[str]]],
    left_out: list[str],
    together: str,
) -> None:
    if not table.rows:
        raise TaskError("This table has a first row with names, and nothing under it.")
    classes = Counter(label for _, label in rows)
    for column in (text, label):
        if len(classes) < 2 and column in table.notes:
            raise TaskError(f"Column '{column}': {table.notes[column]}")
    if not rows and quarrels:
        shown, labels = quarrels[0]
        raise TaskError(
            "Every text in this table comes with two labels or more, so nothing can be learned: "
            f"“{shown[:40]}” with '{labels[0][:30]}' and '{labels[1][:30]}'."
            + (" Were the two columns swapped?" if len(quarrels) < 0.2 * len(table.rows) else "")
        )
    if not rows:
        reasons = [said for said in left_out if "without a text" not in said]
        sentence = f"No row has both a text in '{text}' and a label in '{label}'."
        raise TaskError(" ".join([sentence, *reasons]))
    if len(classes) == 1:
        raise TaskError(
            f"All usable rows ({len(rows):,}) have the label '{next(iter(classes))}'. Two "
            f"different ones at least are needed.{' ' if left_out else ''}{' '.join(left_out[-2:])}"
        )
    if len(classes) > MAX_CLASSES:
        raise TaskError(
            f"The column '{label}' has {len(classes):,} different values; two to {MAX_CLASSES} "
            f"labels can be told apart here. {together or 'Is it the column of labels?'}"
        )


def _check_parts(task: Task) -> None:
    if not task.validation or not task.test:
        raise TaskError(
            "There are too few rows: at least one label needs three different texts, to train on, "
            "to choose by and to test with."
        )


def _oddities(rows: list[tuple[str, str]]) -> list[str]:
    """What makes these rows hard to learn from."""
    remarks = []
    counts = Counter(label for _, label in rows)
    few = [label for label, count in counts.items() if count < FEW_ROWS]
    if few:
        names = ", ".join(f"'{label[:30]}' ({counts[label]})" for label in few[:3])
        more = f" and {len(few) - 3} more" if len(few) > 3 else ""
        remarks.append(f"Labels with under {FEW_ROWS} rows are hard to learn: {names}{more}.")
    top = [label for _, label in rows[:2] if counts[label] == 1]
    if top and len(rows) > 20 and len(few) <= 3:
        remarks.append(
            f"'{top[0][:60]}' is the label of one row only, at the top. If it is a second row of "
            "names, choose that row as the one of names, or delete it."
        )
    (frequent, largest), *_, (rare, smallest) = counts.most_common()
    if largest > 4 * smallest:
        share = largest / len(rows)
        always = f" Always answering '{frequent[:30]}' would be right for {share:.0%} of them."
        remarks.append(
            f"The labels are uneven: '{frequent[:30]}' has {largest:,} rows, '{rare[:30]}' only "
            f"{smallest:,}.{always if share > 0.5 else ''}"
        )
    return remarks


def token_lengths(
    texts: Sequence[str], encoding: tiktoken.Encoding, context_length: int
) -> Lengths:
    """How long texts are in tokens, in bins up to the context."""
    lengths = [len(encode_text(encoding, text, context_length + 1)) for text in texts]
    cut = sum(length > context_length for length in lengths)
    longest = max(1, min(context_length, max(lengths)))
    width = -(-longest // _BINS)
    bins = -(-longest // width)
    counts = [0] * bins
    for length in lengths:
        counts[min((length - 1) // width, bins - 1)] += 1
    return Lengths(tuple(i * width for i in range(bins + 1)), tuple(counts), cut, context_length)


def own_name(stem: str) -> str:
    """A name for an own table that no bundled task has; short, and fit for an address."""
    name = re.sub(r"[^\w.-]+", "-", stem).strip("-.")[:40] or "table"
    taken = {*task_names(), "sms-spam-collection"}
    return f"my-{name}" if name in taken else name


def _many(count: int, what: str) -> str:
    return f"{count:,} {what}" if count == 1 else f"{count:,} {what}s"
