"""The Hub's corner of step 5: bring a base, a table or an adapter by name; publish an adapter."""

from __future__ import annotations

from typing import Any

import gradio as gr

from lora_core.adapters.adapter import AdapterError
from lora_core.base.checkpoint import HUB_NAMES, BaseError
from lora_core.serving.hub import (
    HubError,
    check_hub_base,
    load_hub_adapter,
    load_hub_task,
    push_adapter,
)
from lora_core.serving.registry import RunError
from lora_core.tasks.bundled import task_names
from lora_core.tasks.task import TaskError
from lora_core.ui.context import Context, Lab
from lora_core.ui.drawing.browser_part import part
from lora_core.ui.panels.shelf import keep
from lora_core.ui.settings import Settings

MAX_BASES = 4  # in the server's memory, the bundled one included
_ERRORS = (AdapterError, BaseError, HubError, RunError, TaskError)
_KINDS = [("Adapter", "adapter"), ("Table of texts", "task"), ("Base model", "base")]
_PRIVATE: dict[str, Any] = {"show_progress": "minimal", "api_visibility": "private"}


def build(context: Context) -> gr.HTML:
    """The fold's content; returns the line that says how it went."""
    lab = context.lab
    base = context.controls[Settings.names().index("base")]
    with gr.Row(elem_classes="hub-row"):
        kind = gr.Radio(
            _KINDS, value="adapter", label="Load from the Hub", elem_classes="segmented",
            min_width=240,
        )  # fmt: skip
        name = gr.Textbox(label="Its name", placeholder="owner/name", max_length=200, min_width=160)
        load = gr.Button("Load", size="sm", elem_id="hub-load", min_width=80, scale=0)
    with gr.Row(elem_classes="hub-row"):
        target = gr.Textbox(
            label="Publish the adapter shown as", placeholder="you/my-adapter", max_length=200,
            min_width=160,
        )  # fmt: skip
        token = gr.Textbox(
            label="Your token (with write access)",
            info="Used once, for this; never stored and never logged.",
            type="password",
            max_length=200,
            min_width=160,
            elem_id="hub-token",
        )
        public = gr.Checkbox(label="Open to everybody", value=False, min_width=120)
        push = gr.Button("Publish", size="sm", elem_id="hub-push", min_width=80, scale=0)
    note = part("note", {"text": "", "bad": False}, script="take.js", elem_id="hub-note")

    def bring(visitor: str, kind: str, name: str, base_name: str) -> list[Any]:
        same = [gr.skip(), gr.skip(), gr.skip()]
        try:
            if kind == "adapter":
                run_id = _bring_adapter(lab, visitor, name.strip(), base_name)
                return [run_id, gr.skip(), gr.skip(), _said(f"{name} is on the shelf.")]
            if kind == "task":
                title, choices = _bring_task(lab, visitor, name.strip())
                chosen = gr.Dropdown(choices=choices, value=title)
                return [gr.skip(), chosen, gr.skip(), _said(f"{name} is chosen in step 1.")]
            chosen = gr.Dropdown(choices=_bring_base(lab, name.strip()), value=name.strip())
            return [gr.skip(), gr.skip(), chosen, _said(f"{name} is the base of step 1 now.")]
        except _ERRORS as error:
            return [*same, _said(error)]

    load.click(
        bring,
        [context.visitor, kind, name, base],
        [context.ready, context.task, base, note],
        show_progress_on=note,
        **_PRIVATE,
    )

    def publish(visitor: str, ready: str, target: str, token: str, public: bool) -> list[Any]:
        try:
            run = lab.registry.get(visitor, ready) if ready else None
            if run is None or run.classifier is None:
                raise HubError("There is nothing to publish yet: fine-tune in step 2 first.")
            address = push_adapter(run.classifier, target.strip(), token, private=not public)
        except _ERRORS as error:
            return [_said(error), ""]
        return [_said(f"Published: {address}"), ""]

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


def _bring_task(lab: Lab, visitor: str, name: str) -> tuple[str, list[tuple[str, str]]]:
    """Name of the table, and the choices of step 1 with it."""
    task = load_hub_task(name, lab.registry.limits)
    lab.registry.add_task(visitor, task)
    own = [(own.title or own.name, own.name) for own in lab.registry.tasks(visitor)]
    names = {key for _, key in own}
    bundled = [(lab.task(key).title, key) for key in task_names() if key not in names]
    return task.name, [*bundled, *own]


def _bring_base(lab: Lab, name: str) -> list[tuple[str, str]]:
    """The choices of step 1 with a base that is loaded now."""
    if name not in lab.bases and name not in ("bundled", *HUB_NAMES):
        if len(lab.bases) >= MAX_BASES:
            raise HubError(
                f"This server keeps {MAX_BASES} bases in memory at most, and has as many."
            )
        check_hub_base(name)
    lab.base(name)
    more = [key for key in lab.bases if key not in ("bundled", *HUB_NAMES)]
    known = [("bundled small GPT", "bundled"), *((key, key) for key in HUB_NAMES)]
    return [*known, *((key, key) for key in more)]


def _said(message: object) -> dict[str, Any]:
    return {"text": str(message), "bad": isinstance(message, Exception)}
