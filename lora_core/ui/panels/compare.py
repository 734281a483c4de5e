"""Step 2, below the curves: the runs in a table, and accuracy against trainable parameters.

The scatter is the lesson of the page: how little has to be trained.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import gradio as gr

from lora_core.parameters import ParameterCount, predict_parameters
from lora_core.serving.registry import Run
from lora_core.ui.context import Lab
from lora_core.ui.drawing.browser_part import part
from lora_core.ui.drawing.colours import RUN_COLOURS
from lora_core.ui.drawing.curves import Curve
from lora_core.ui.settings import Settings
from lora_core.ui.sweep import sweep_of
from lora_core.ui.text import words

COLUMNS = [
    {"key": key, "title": title, "number": key not in ("name", "state")}
    for key, title in {
        "name": "Run",
        "trainable": "Trainable",
        "percent": "Share",
        "scale": "Scale",
        "accuracy": "Validation",
        "test": "Test",
        "seconds": "Seconds",
        "state": "State",
    }.items()
]
STATES = {
    "waiting": "waiting",
    "running": "running",
    "finished": "done",
    "stopped": "stopped",
    "failed": "ended early",
    "loaded": "brought along",
}


def parts(lab: Lab) -> tuple[gr.HTML, gr.HTML]:
    """The table and the scatter, not yet placed on the page."""
    rows, points = compare(lab, [], "")
    table = part("runs", rows, script="runs.js", elem_id="runs", render=False)
    scatter = part(
        "scatter", points, script="runs.js", plotly=True, elem_id="scatter", render=False
    )
    return table, scatter


def build(table: gr.HTML, scatter: gr.HTML) -> None:
    """Place the two side by side, under their heading."""
    gr.HTML(words.heading("compare"), apply_default_css=False)
    with gr.Row(elem_classes="comparison"):
        with gr.Column(scale=6, min_width=320):
            table.render()  # type: ignore[no-untyped-call]
        with gr.Column(scale=5, min_width=320):
            scatter.render()  # type: ignore[no-untyped-call]
    gr.HTML(words.fold("compare"), apply_default_css=False)


def compare(
    lab: Lab, shown: Sequence[tuple[Run, Curve, str]], visitor: str
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Values of the table and of the scatter for (run, curve, name) in the order of their start.

    What a sweep would train and has not yet is listed too, with its parameters and no accuracy.
    """
    rows, points = [], []
    done: set[tuple[str, int]] = set()
    latest = Settings()
    task, config = None, None  # of the latest run: the lab may have forgotten its table since
    for index, (run, curve, name) in enumerate(shown):
        if run.lora_config is None or run.train_config is None:
            continue
        settings = Settings.of(run)
        latest, task, config = settings, run.task, run.base and run.base.config
        counted = counted_of(lab, run)
        rows.append(_row(run, curve, name, settings, counted, index % len(RUN_COLOURS)))
        best = curve.best if run.is_over else None
        if best:
            done.add((settings.method, settings.rank if settings.method == "lora" else 0))
            points.append(
                {
                    "name": name,
                    "trainable": counted.trainable,
                    "accuracy": best.validation_accuracy,
                    "colour": index % len(RUN_COLOURS),
                }
            )
    task = task or lab.task(latest.task, visitor)
    config = config or lab.shape(latest.base)
    planned = []
    for settings in sweep_of(latest, lab.registry.limits):
        if (settings.method, settings.rank if settings.method == "lora" else 0) in done:
            continue
        name = f"r {settings.rank}" if settings.method == "lora" else words.METHOD_NAMES["full"]
        counted = predict_parameters(
            config,
            settings.lora_config(),
            len(task.labels),
            settings.train_config().method,
        )
        planned.append(_planned_row(name, settings, counted))
        points.append(
            {"name": name, "trainable": counted.trainable, "accuracy": None, "colour": None}
        )
    share, label = task.majority
    spoken = [f"{p['name']}: {p['accuracy']:.1%}" for p in points if p["accuracy"] is not None]
    text = "Validation accuracy against trainable parameters. " + (
        "; ".join(spoken) + "."
        if spoken
        else "No run has ended yet; the runs of a sweep are marked."
    )
    return (
        {"columns": COLUMNS, "rows": [*rows, *planned]},
        {
            "points": points,
            "floor": share,
            "floor_words": f"always “{label}”: {share:.0%}",
            "words": text,
        },
    )


def _row(
    run: Run, curve: Curve, name: str, settings: Settings, counted: ParameterCount, colour: int
) -> dict[str, Any]:
    best = curve.best
    accuracy = best.validation_accuracy if best else None
    test = run.test_score.accuracy if run.test_score else None
    seconds = curve.finished.seconds if curve.finished else None
    scale = settings.lora_config().scale if settings.method == "lora" else None
    return {
        "id": run.id,
        "colour": colour,
        "pick": run.has_weights,
        "planned": False,
        "cells": {
            "name": name,
            "trainable": words.count(counted.trainable),
            "percent": words.percent(counted.percent),
            "scale": "" if scale is None else words.number(scale),
            "accuracy": "" if accuracy is None else f"{accuracy:.1%}",
            "test": "" if test is None else f"{test:.1%}",
            "seconds": "" if seconds is None else f"{seconds:.1f}",
            "state": STATES[run.state],
        },
        "sort": {
            "name": name,
            "trainable": counted.trainable,
            "percent": counted.percent,
            "scale": scale,
            "accuracy": accuracy,
            "test": test,
            "seconds": seconds,
            "state": STATES[run.state],
        },
    }


def _planned_row(name: str, settings: Settings, counted: ParameterCount) -> dict[str, Any]:
    scale = settings.lora_config().scale if settings.method == "lora" else None
    row: dict[str, Any] = {"id": name, "colour": None, "pick": False, "planned": True}
    empty = dict.fromkeys(("accuracy", "test", "seconds"))
    row["cells"] = {
        "name": name,
        "trainable": words.count(counted.trainable),
        "percent": words.percent(counted.percent),
        "scale": "" if scale is None else words.number(scale),
        "state": "not run yet",
    }
    row["sort"] = {
        "name": name,
        "trainable": counted.trainable,
        "percent": counted.percent,
        "scale": scale,
        "state": "not run yet",
        **empty,
    }
    return row


def counted_of(lab: Lab, run: Run) -> ParameterCount:
    """What a run trains, known before it starts."""
    assert run.base is not None and run.task is not None
    settings = Settings.of(run)
    return predict_parameters(
        run.base.config,
        settings.lora_config(),
        len(run.task.labels),
        settings.train_config().method,
    )
