"""Below the first screen: the runs in a table, and what they reach against what they train.

The dots are the lesson of the page: how little has to be trained. The browser shows the runs of the
chosen task, and what a sweep of it would train.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import gradio as gr

from lora_core.parameters import ParameterCount
from lora_core.serving.registry import Run
from lora_core.ui.conclusions import counted
from lora_core.ui.context import Lab
from lora_core.ui.drawing.browser_part import part
from lora_core.ui.drawing.curves import Curve
from lora_core.ui.names import short_names
from lora_core.ui.seeds import Seen, accuracy_words, gathered
from lora_core.ui.settings import Settings
from lora_core.ui.sweeps import ranks_of
from lora_core.ui.text import words
from lora_core.ui.text.catalogue import say

_COLUMNS = ("name", "trainable", "percent", "scale", "validation", "test", "seconds", "state")
_EXPERT = ("trainable", "scale", "validation", "seconds")
COLUMNS = [
    {
        "key": key,
        "title": say(f"runs.{key}"),
        "about": say(f"runs.{key}_about"),
        "number": key not in ("name", "state"),
        "expert": key in _EXPERT,
    }
    for key in _COLUMNS
]


def parts(lab: Lab) -> tuple[gr.HTML, gr.Button]:
    """The table and the button of the sweep, not yet placed on the page."""
    table = part("runs", compare([]), script="runs.js", elem_id="runs", render=False)
    ranks = ", ".join(str(rank) for rank in ranks_of(lab.registry.limits))
    label = say("compare.sweep", ranks=ranks)
    return table, gr.Button(label, elem_id="sweep", min_width=180, render=False)


def build(table: gr.HTML, sweep: gr.Button) -> None:
    """Place the table and the dots side by side, under their heading."""
    with gr.Row(elem_classes="compare-head"):
        gr.HTML(words.heading("compare"), apply_default_css=False)
        sweep.render()  # type: ignore[no-untyped-call]
    with gr.Row(elem_classes="comparison"):
        with gr.Column(scale=4, min_width=300):
            part("dots", {}, script="runs.js", elem_id="scatter")
        with gr.Column(scale=5, min_width=300):
            table.render()  # type: ignore[no-untyped-call]


def compare(seen: Sequence[tuple[Run, Curve, str]]) -> dict[str, Any]:
    """The table's rows and the groups of runs that differ in their seed only, oldest first."""
    order = {run.id: index for index, (run, _, _) in enumerate(seen)}
    complete = [
        entry
        for entry in seen
        if entry[0].lora_config and entry[0].train_config and entry[0].task is not None
        if entry[0].base is not None or entry[0].events  # a base that is another one now is gone
    ]
    rows = [_row(name, members, order) for name, members in gathered(complete)]
    return {"columns": COLUMNS, "rows": rows, "groups": _groups(seen)}


def _groups(seen: Sequence[tuple[Run, Curve, str]]) -> list[dict[str, Any]]:
    """A dot each: runs alike but for their seeds, named by what else tells them apart."""
    groups: dict[Settings, list[tuple[int, Run]]] = {}
    for index, (run, _, _) in enumerate(seen):
        known = run.base is not None or run.events
        if known and run.test_score is not None and run.task is not None:
            groups.setdefault(replace(Settings.of(run), seed=0), []).append((index, run))
    made = []
    for task in dict.fromkeys(settings.task for settings in groups):
        alike = [settings for settings in groups if settings.task == task]
        for settings, name in zip(alike, short_names(alike), strict=True):
            members = groups[settings]
            scores = [run.test_score.accuracy for _, run in members if run.test_score]
            made.append(
                {
                    "name": name,
                    "task": task,
                    "series": members[0][0],
                    "ids": [run.id for _, run in members],
                    "trainable": counted(members[0][1]).trainable,
                    "mean": sum(scores) / len(scores),
                    "scores": scores,
                    "rows": members[0][1].test_score.rows if members[0][1].test_score else 0,
                }
            )
    return made


def _row(name: str, members: Sequence[Seen], order: dict[str, int]) -> dict[str, Any]:
    """One setting; of several seeds the one with the best validation is what can be shown."""
    bests = [curve.best for _, curve, _ in members]
    reached = [best.validation_accuracy for best in bests if best]
    scores = [run.test_score.accuracy for run, _, _ in members if run.test_score]
    run = max(members, key=_reached)[0]
    settings, count = Settings.of(run), counted(run)
    validation = sum(reached) / len(reached) if reached else None
    test = sum(scores) / len(scores) if scores else None
    scale = settings.lora_config().scale if settings.method == "lora" else None
    seconds = sum(r.processor_seconds for r, _, _ in members) if run.is_over else None
    assert run.task is not None
    return {
        "id": run.id,
        "ids": [member.id for member, _, _ in members],
        "task": run.task.name,
        "task_title": run.task.title or run.task.name,
        "series": order[members[0][0].id],
        "pick": run.has_weights,
        "cells": {
            "name": name,
            **_count_cells(count),
            "scale": "" if scale is None else words.number(scale),
            "validation": accuracy_words(reached) if reached else "",
            "test": accuracy_words(scores) if scores else "",
            "seconds": "" if not seconds else f"{seconds:.1f}",
            "state": say(f"state.{run.state}"),
        },
        "sort": {
            "name": name,
            "trainable": count.trainable,
            "percent": count.percent,
            "scale": scale,
            "validation": validation,
            "test": test,
            "seconds": seconds,
            "state": run.state,
        },
    }


def _reached(entry: Seen) -> float:
    best = entry[1].best
    return best.validation_accuracy if best else -1.0


def _count_cells(count: ParameterCount) -> dict[str, str]:
    return {
        "trainable": words.count(count.trainable),
        "percent": words.percent(count.percent),
    }
