"""The Hub's corner of step 5: bring a base, a table or an adapter by name; publish an adapter."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import gradio as gr

from lora_core.base.checkpoint import canonical_name
from lora_core.errors import LabError
from lora_core.serving.hub import (
    HubError,
    HubTable,
    check_hub_base,
    load_hub_adapter,
    load_hub_table,
    push_adapter,
    task_of_hub,
)
from lora_core.tasks.task import Task
from lora_core.ui.context import Context, Lab
from lora_core.ui.drawing.browser_part import part
from lora_core.ui.panels.own_table import keep_task, task_choices
from lora_core.ui.panels.shelf import keep
from lora_core.ui.sentences import sentence_of
from lora_core.ui.settings import Settings
from lora_core.ui.text.catalogue import say

_KINDS = [(say(f"hub.{kind}"), kind) for kind in ("adapter", "task", "base")]
_PRIVATE: dict[str, Any] = {"show_progress": "minimal", "api_visibility": "private"}


def build(context: Context) -> gr.HTML:
    """The fold's content; returns the line that says how it went."""
    lab = context.lab
    base = context.controls[Settings.names().index("base")]
    with gr.Row(elem_classes="hub-row"):
        kind = gr.Radio(
            _KINDS, value="adapter", label=say("hub.load_what"), elem_classes="segmented",
            min_width=240,
        )  # fmt: skip
        name = gr.Textbox(
            label=say("hub.name"), placeholder=say("hub.name_form"), max_length=200, min_width=160
        )
        load = gr.Button(say("hub.load"), size="sm", elem_id="hub-load", min_width=80, scale=0)
    with gr.Row(elem_classes="hub-row"):
        target = gr.Textbox(
            label=say("hub.target"), placeholder=say("hub.target_form"), max_length=200,
            min_width=160,
        )  # fmt: skip
        token = gr.Textbox(
            label=say("hub.token"),
            info=say("hub.token_about"),
            type="password",
            max_length=200,
            min_width=160,
            elem_id="hub-token",
        )
        public = gr.Checkbox(label=say("hub.public"), value=False, min_width=120)
        push = gr.Button(say("hub.publish"), size="sm", elem_id="hub-push", min_width=80, scale=0)
    with gr.Row(elem_classes="own-reading", elem_id="hub-reading"):
        ways = [
            gr.Dropdown([], label=title, visible=False, elem_id=f"hub-{key}", min_width=110)
            for key, title in _WAYS.items()
        ]
    note = part("note", {"text": "", "bad": False}, script="take.js", elem_id="hub-note")

    def bring(visitor: str, kind: str, name: str, base_name: str, *chosen: str | None) -> list[Any]:
        same = [gr.skip(), gr.skip(), gr.skip()]
        hidden = [gr.Dropdown(visible=False, value=None) for _ in _WAYS]
        try:
            if kind == "adapter":
                run_id = _bring_adapter(lab, visitor, name.strip(), base_name)
                return [
                    run_id,
                    gr.skip(),
                    gr.skip(),
                    *hidden,
                    _said(say("hub.adapter_loaded", name=name)),
                ]
            if kind == "task":
                task, taken = _bring_task(lab, visitor, name.strip(), chosen)
                tasks = gr.Dropdown(choices=task_choices(lab, visitor), value=task.name)
                said = " ".join([say("hub.task_loaded", name=name), *task.warnings])
                return [gr.skip(), tasks, gr.skip(), *taken, _said(said)]
            choices, remark = _bring_base(lab, name.strip())
            bases = gr.Dropdown(choices=choices, value=canonical_name(name.strip()))
            said = f"{say('hub.base_loaded', name=name)} {remark}".strip()
            return [gr.skip(), gr.skip(), bases, *hidden, _said(said)]
        except (LabError, OSError) as error:
            problem = {"text": sentence_of(error, "hub"), "bad": True}
            return [*same, *[gr.skip()] * len(_WAYS), problem]

    def begin(visitor: str, kind: str, name: str, base_name: str) -> list[Any]:
        return bring(visitor, kind, name, base_name)

    asked = [context.visitor, kind, name, base]
    answered = [context.ready, context.task, base, *ways, note]
    load.click(begin, asked, answered, show_progress_on=note, **_PRIVATE)
    # Another configuration may have other splits and columns; they are guessed again.
    ways[0].input(bring, [*asked, ways[0]], answered, show_progress_on=note, **_PRIVATE)
    changes = [way.input for way in ways[1:]]
    gr.on(changes, bring, [*asked, *ways], answered, show_progress_on=note, **_PRIVATE)

    def publish(visitor: str, ready: str, target: str, token: str, public: bool) -> list[Any]:
        try:
            run = lab.registry.get(visitor, ready) if ready else None
            if run is None or run.classifier is None:
                raise HubError(say("hub.nothing"))
            address = push_adapter(run.classifier, target.strip(), token, private=not public)
        except LabError as error:
            return [_said(error), ""]
        return [_said(say("hub.published", address=address)), ""]

    push.click(
        publish,
        [context.visitor, context.ready, target, token, public],
        [note, token],  # the token's field is emptied, however it went
        show_progress_on=note,
        **_PRIVATE,
    )
    return note


def _bring_adapter(lab: Lab, visitor: str, name: str, base_name: str) -> str:
    base = lab.base(base_name if base_name in lab.bases else "bundled")
    return keep(lab, visitor, load_hub_adapter(name, base)).id


_WAYS = {
    "configuration": say("hub.configuration"),
    "split": say("hub.split"),
    "text": say("own.text"),
    "label": say("own.label"),
}


def _bring_task(
    lab: Lab, visitor: str, name: str, chosen: Sequence[str | None]
) -> tuple[Task, list[gr.Dropdown]]:
    """The visitor's task of a table of the Hub, in the place of an earlier one; its controls.

    `chosen` in the four controls; what is not chosen, or not there, is guessed.
    """
    limits = lab.registry.limits
    configuration, split, text, label = [value or None for value in [*chosen, *[None] * 4][:4]]
    hub_table = load_hub_table(name, limits, configuration=configuration, split=split)
    columns = hub_table.table.columns
    text, label = (column if column in columns else None for column in (text, label))
    text, label = hub_table.columns(text, label)
    task = task_of_hub(hub_table, text, label, limits)
    before = next((own for own in lab.registry.tasks(visitor) if own.title == task.title), None)
    if before is None:
        task = keep_task(lab, visitor, task)
    else:
        task = replace(task, name=before.name)
        lab.registry.add_task(visitor, task)
    return task, _ways(hub_table, text, label)


def _ways(hub_table: HubTable, text: str, label: str) -> list[gr.Dropdown]:
    """The four controls: what was taken, and what else there is."""
    columns = list(hub_table.table.columns)
    several = len(hub_table.configurations) > 1
    return [
        gr.Dropdown(list(hub_table.configurations), value=hub_table.configuration, visible=several),
        gr.Dropdown(
            list(hub_table.splits), value=hub_table.split, visible=len(hub_table.splits) > 1
        ),
        gr.Dropdown(columns, value=text, visible=True),
        gr.Dropdown(columns, value=label, visible=True),
    ]


def _bring_base(lab: Lab, name: str) -> tuple[list[tuple[str, str]], str]:
    """The choices of step 1 with a base that is loaded now, and what its user must know of it."""
    lab.bases.check_offered(name)
    if not lab.bases.known(name):
        check_hub_base(name)
    remark = lab.bases.get(name).remark
    return lab.bases.choices(), remark


def _said(message: object) -> dict[str, Any]:
    return {"text": str(message), "bad": isinstance(message, Exception)}
