"""One row a run, as CSV: what remains of a lesson. Figures and pseudonyms, no texts."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence

from lora_core.config import literal
from lora_core.room.runs import OWN_TABLE, Record

COLUMNS = (
    *("run", "pupil", "exercise", "task", "base", "method", "rank", "alpha", "scaling", "targets"),
    *("head", "dropout", "learning_rate", "steps", "steps_done", "batch_size", "seed"),
    *("trained", "total", "validation_accuracy", "test_accuracy", "seconds_waited"),
    *("seconds_trained", "processor_seconds", "state"),
)


def as_csv(
    records: Sequence[Record], names: Mapping[int, str], exercises: Mapping[int, str]
) -> str:
    """The runs of a room with the pupils' pseudonyms and the exercises' titles."""
    lines = io.StringIO()
    writer = csv.writer(lines)
    writer.writerow(COLUMNS)
    for r in records:
        adapted = r.method == "lora"
        writer.writerow(
            [
                r.number,
                names.get(r.pupil, ""),
                exercises.get(r.exercise, ""),
                "own table" if r.task == OWN_TABLE else r.task,
                r.base,
                r.method,
                r.rank if adapted else "",
                literal(r.alpha) if adapted else "",
                r.scaling if adapted else "",
                "+".join(r.targets) if adapted else "",
                r.head if adapted else "",
                literal(r.dropout) if adapted else "",
                literal(r.learning_rate) if r.learning_rate else "",  # none before a run begins
                r.steps,
                r.steps_done,
                r.batch_size,
                r.seed,
                r.trained or "",
                r.total or "",
                "" if r.validation is None else f"{r.validation:.4f}",
                "" if r.test is None else f"{r.test:.4f}",
                f"{r.waited:.1f}",
                f"{r.seconds:.1f}",
                f"{r.processor_seconds:.2f}" if r.processor_seconds else "",
                r.state,
            ]
        )
    return lines.getvalue()
