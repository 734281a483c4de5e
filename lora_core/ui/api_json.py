"""JSON out of the web API: events and scores as data."""

from __future__ import annotations

import math
from dataclasses import fields
from typing import Any

from lora_core.events import Event, Finished, Started
from lora_core.serving.registry import Run


def plain(event: Event) -> dict[str, Any]:
    """An event as JSON: its kind and its fields; the classifier stays on the server."""
    out: dict[str, Any] = {"kind": type(event).__name__.lower()}
    for field in fields(event):
        value = getattr(event, field.name)
        if isinstance(event, Started) and field.name == "parameters":
            value = {"trainable": value.trainable, "total": value.total, "percent": value.percent}
        elif isinstance(event, Started) and field.name == "device":
            value = {"type": value.device.type, "format": value.format, "reason": value.reason}
        elif isinstance(event, Finished) and field.name == "classifier":
            continue
        elif isinstance(value, float) and not math.isfinite(value):
            value = None  # JSON has no infinity
        out[field.name] = value
    return out


def test_of(run: Run) -> dict[str, Any] | None:
    """The test score of a run as JSON."""
    score = run.test_score
    if score is None:
        return None
    return {"accuracy": score.accuracy, "rows": score.rows, "confusion": score.confusion}
