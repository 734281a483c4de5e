"""Step 1, Adapt: the task, what is trained, how strongly, and what it costs, before training."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import gradio as gr

from lora_core.errors import LabError
from lora_core.limits import Limits
from lora_core.tasks.task import Task
from lora_core.ui.conclusions import habit
from lora_core.ui.context import Context, Lab
from lora_core.ui.drawing.browser_part import part
from lora_core.ui.panels import more, own_table
from lora_core.ui.panels.counts import ALPHAS, RANKS, describe
from lora_core.ui.settings import Settings
from lora_core.ui.text import words
from lora_core.ui.text.catalogue import say, sentences

_EXAMPLES = 3  # labels with an example beside the task; the others are counted


def ranks_offered(limits: Limits) -> list[int]:
    """The notches of the rank's slider: none that this server refuses."""
    return [rank for rank in RANKS if rank <= limits.max_rank]


def build(context: Context) -> dict[str, gr.Component]:
    """The panel; fills `context.controls` and `context.task`. Returns the controls of `more`."""
    lab, limits = context.lab, context.lab.registry.limits
    default = Settings.within(limits)
    drawing, numbers = describe(lab, default, "")
    gr.HTML(words.heading("adapt"), apply_default_css=False)
    context.task = task = gr.Dropdown(
        own_table.task_choices(lab), value=default.task, label=say("adapt.task")
    )
    about = part("task", task_value(lab.task(default.task)), script="adapt.js", elem_id="about")
    method = gr.Radio(
        [(label, name) for name, label in words.METHODS.items()],
        value=default.method,
        label=say("adapt.method"),
        elem_classes=["segmented", "expert"],
    )
    with gr.Row(elem_classes="dials"):
        rank = _notches("rank", default.rank, ranks_offered(limits), "r")
        alpha = _notches("alpha", default.alpha, list(ALPHAS), "α")
    layer = part("drawing", drawing, script="adapt.js", elem_id="drawing")
    counts = part("numbers", numbers, script="adapt.js", elem_id="numbers")
    rest = more.controls(default, limits, lab.bases.choices())
    by_name = {"task": task, "method": method, "rank": rank, "alpha": alpha, **rest}
    context.controls[:] = [by_name[name] for name in Settings.names()]
    for name, control in by_name.items():
        control.elem_classes = [*(control.elem_classes or []), f"set-{name}"]  # for presets
    _follow(context, by_name, [layer, counts, about])
    return rest


def _notches(name: str, value: float, choices: list[int], symbol: str) -> gr.HTML:
    return part(
        "notches",
        value,
        script="adapt.js",
        elem_id=name,
        name=name,
        symbol=symbol,
        choices=choices,
    )


def _follow(context: Context, controls: dict[str, gr.Component], outputs: list[gr.HTML]) -> None:
    """New numbers and a new address when a control changes.

    The drawing and the numbers hold every notch of rank and alpha, so for these two the browser
    asks nothing; the address is its own affair, too.
    """

    def changed(visitor: str, *values: Any) -> list[Any]:
        try:
            settings = Settings.from_values(*values)
            settings.lora_config()
            settings.train_config()
            return [*describe(context.lab, settings, visitor), _about(context.lab, values, visitor)]
        except LabError as error:
            return [gr.skip(), {"problem": str(error)}, _about(context.lab, values, visitor)]

    asked = [control for name, control in controls.items() if name not in ("rank", "alpha")]
    inputs = [context.visitor, *context.controls]
    quiet: dict[str, Any] = {"show_progress": "hidden", "api_visibility": "private"}
    gr.on(
        [control.change for control in asked],  # type: ignore[attr-defined]
        changed,
        inputs,
        outputs,
        trigger_mode="always_last",
        queue=False,
        **quiet,
    )
    # A link may hold a rank or an alpha that is no notch: looked up once, when the page is loaded.
    context.visitor.change(changed, inputs, outputs, queue=False, **quiet)
    default = Settings.within(context.lab.registry.limits)
    known = json.dumps({"names": Settings.names(), "defaults": default.values()})
    gr.on(
        [control.change for control in controls.values()],  # type: ignore[attr-defined]
        None,
        context.controls,
        None,
        js=f"(...values) => {{ LoraLab.settings({known}, values); }}",
    )


def _about(lab: Lab, values: Sequence[Any], visitor: str) -> Any:
    try:
        return task_value(lab.task(str(values[0] or Settings().task), visitor))
    except LabError:
        return gr.skip()


def task_value(task: Task) -> dict[str, Any]:
    """What a task is, in a line, with one short example of each of its first labels."""
    counts = [len(part) for part in (task.train, task.validation, task.test)]
    meanings = [
        say("task.meaning", label=label, meaning=say(f"label.{label}"))
        for label in task.labels
        if f"label.{label}" in sentences()
    ]
    split = say("task.split", train=counts[0], validation=counts[1], test=counts[2])
    share, label = habit(task)
    return {
        "name": task.name,
        "title": task.title or task.name,
        "line": " · ".join([*meanings, split]),
        "labels": len(task.labels),
        "examples": [list(pair) for pair in one_each(task, _EXAMPLES)],
        "more": max(0, len(task.labels) - _EXAMPLES),
        "floor": {"accuracy": share, "label": label},
    }


def one_each(task: Task, most: int = 100) -> list[tuple[str, str]]:
    """(text, label): a short test text of each label, for the first `most` labels."""
    out = []
    for index, label in enumerate(task.labels[:most]):
        texts = [e.text for e in task.test if e.label == index]
        if texts:
            out.append((min(texts, key=lambda t: abs(len(t) - 90)), label))
    return out
