"""Runs as a table for a spreadsheet (CSV) and for a program (JSON, with the curves)."""

from __future__ import annotations

import csv
import json
import math
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from lora_core.config import literal
from lora_core.events import Event, Finished, Started
from lora_core.serving.registry import Run

# A spreadsheet would compute what begins so; some, in East Asia, with signs of full width, too.
_FORMULA = ("=", "+", "-", "@", "\t", "\r", "\n", "\uff1d", "\uff0b", "\uff0d", "\uff20")


def run_row(run: Run) -> dict[str, Any]:
    """One run in one flat row: its settings, what it trained, and how it ended."""
    lora, train = run.lora_config, run.train_config
    started = next((e for e in run.events if isinstance(e, Started)), None)
    finished = next((e for e in reversed(run.events) if isinstance(e, Finished)), None)
    method = train.method if train else "lora"
    adapted = lora if method == "lora" else None
    classifier = run.classifier
    return {
        "task": run.task.name if run.task else classifier.task_name if classifier else "",
        "base": run.base.name if run.base else classifier.base_name if classifier else "",
        "state": run.state,
        "method": method,
        "rank": adapted.rank if adapted else None,
        "alpha": adapted.alpha if adapted else None,
        "scaling": adapted.scaling if adapted else None,
        "scale": adapted.scale if adapted else None,
        "targets": " ".join(adapted.targets) if adapted else None,
        "head": adapted.head if adapted else None,
        "dropout": adapted.dropout if adapted else None,
        "learning_rate": started.learning_rate if started else None,
        "steps": train.steps if train else None,
        "batch_size": train.batch_size if train else None,
        "seed": train.seed if train else None,
        "trainable_parameters": started.parameters.trainable if started else None,
        "total_parameters": started.parameters.total if started else None,
        "trainable_percent": started.parameters.percent if started else None,
        "steps_done": run.step,
        "best_step": finished.best_step if finished else None,
        "validation_accuracy": finished.validation_accuracy if finished else None,
        "test_accuracy": run.test_score.accuracy if run.test_score else None,
        "test_rows": run.test_score.rows if run.test_score else None,
        "seconds": finished.seconds if finished else None,  # by the clock, with others' runs in it
        "processor_seconds": run.processor_seconds or None,  # of this run alone, where it is known
    }


def runs_csv(runs: Sequence[Run]) -> str:
    """All runs, one a row, oldest first; an empty text for no runs."""
    if not runs:
        return ""
    rows = [run_row(run) for run in runs]
    lines = _Lines()
    # With this end of a line, both of its characters are quoted where they stand in a cell.
    writer = csv.DictWriter(lines, rows[0].keys(), lineterminator="\r\n")
    writer.writeheader()
    writer.writerows({key: _cell(value) for key, value in row.items()} for row in rows)
    return "".join(lines)


class _Lines(list[str]):
    """What a CSV writer writes, a line at a time, each ended as Python ends lines."""

    def write(self, line: str) -> None:
        self.append(line.removesuffix("\r\n") + "\n")


def runs_json(runs: Sequence[Run]) -> str:
    """All runs with labels, confusion and curves; NaN and infinity as null. No ids, no texts."""
    made = []
    for run in runs:
        score = run.test_score
        made.append(
            {
                **run_row(run),
                "labels": list(run.task.labels) if run.task else None,
                "confusion": [list(row) for row in score.confusion] if score else None,
                "events": [_event(event) for event in run.curve()],
            }
        )
    return json.dumps(_finite(made), indent=1, ensure_ascii=False) + "\n"


def _event(event: Event) -> dict[str, Any]:
    if isinstance(event, Started):
        facts: dict[str, Any] = {
            "learning_rate": event.learning_rate,
            "train_rows": event.train_rows,
            "validation_rows": event.validation_rows,
            "epochs": event.epochs,
            "device": event.device.device.type,
            "format": event.device.format,
            "step": event.step,
        }
    elif isinstance(event, Finished):
        facts = {
            name: getattr(event, name)
            for name in ("step", "outcome", "best_step", "validation_accuracy", "seconds")
        }
    else:
        facts = asdict(event)
    return {"event": type(event).__name__.lower(), **facts}


def _cell(value: Any) -> Any:
    """A cell that a spreadsheet shows and does not compute."""
    if isinstance(value, float):
        return literal(value) if math.isfinite(value) else str(value)
    return "'" + value if isinstance(value, str) and value.startswith(_FORMULA) else value


def _finite(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
