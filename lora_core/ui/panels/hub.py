"""The Hub's corner of step 5: bring a base, a table or an adapter by name; publish an adapter."""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import anyio.to_thread
import gradio as gr

from lora_core.base.checkpoint import canonical_name
from lora_core.errors import LabError
from lora_core.serving.hub import (
    HubDataset,
    HubError,
    check_hub_base,
    hub_dataset,
    load_hub_adapter,
    push_adapter,
    task_of_hub,
)
from lora_core.tasks.file import Reading, TableBusyError
from lora_core.tasks.own_table import TableReport, report_of
from lora_core.tasks.task import Task, TaskError
from lora_core.ui.context import Context, Lab
from lora_core.ui.drawing.browser_part import part
from lora_core.ui.newest import Newest
from lora_core.ui.panels.own_table import keep_task, shown, task_choices
from lora_core.ui.panels.reading import (
    WAYS,
    reading_controls,
    reading_of,
    reading_shown,
    unread,
)
from lora_core.ui.panels.shelf import keep
from lora_core.ui.sentences import sentence_of
from lora_core.ui.settings import Settings
from lora_core.ui.text.catalogue import say

_KINDS = [(say(f"hub.{kind}"), kind) for kind in ("adapter", "task", "base")]
_PRIVATE: dict[str, Any] = {"show_progress": "minimal", "api_visibility": "private"}
_ERRORS = (LabError, OSError)  # of a disk that is full, for one


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
    with gr.Row(elem_classes="own-reading"):
        parts = [
            gr.Dropdown([], label=title, visible=False, elem_id=f"hub-{key}", min_width=110)
            for key, title in _PARTS.items()
        ]
    with gr.Row(elem_classes="own-reading"):
        ways = reading_controls("hub")
    note = part("note", {"text": "", "bad": False}, script="take.js", elem_id="hub-note")
    preview = part("table", {}, script="table.js", elem_id="hub-report")
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
    published = part("note", {"text": "", "bad": False}, script="take.js", elem_id="hub-published")

    def bring(visitor: str, kind: str, name: str, base_name: str) -> list[Any]:
        if kind == "task":
            return bring_table(visitor, name)
        name, hidden = name.strip(), _Taken().controls()
        try:
            if kind == "adapter":
                run_id = _bring_adapter(lab, visitor, name, base_name)
                said = _said(say("hub.adapter_loaded", name=name))
                return [run_id, gr.skip(), gr.skip(), *hidden, said]
            choices, remark = _bring_base(lab, name)
        except _ERRORS as error:
            return [*same, *hidden, _problem(error)]
        bases = gr.Dropdown(choices=choices, value=canonical_name(name))
        said = _said(f"{say('hub.base_loaded', name=name)} {remark}".strip())
        return [gr.skip(), gr.skip(), bases, *hidden, said]

    def bring_table(visitor: str, name: str, *sent: object) -> list[Any]:
        name, taken = str(name or "").strip(), _Taken()
        chosen = [value if isinstance(value, str) else None for value in sent]
        try:
            task, guessed = _bring_task(lab, visitor, name, chosen, taken)
        except _ERRORS as error:  # what was taken may be what is wrong, so it stays to be changed
            return [*same, *taken.controls(keep=bool(chosen)), _problem(error)]
        tasks = gr.Dropdown(choices=task_choices(lab, visitor), value=task.name)
        said = " ".join([say("hub.task_loaded", name=name), *guessed])
        return [gr.skip(), tasks, gr.skip(), *taken.controls(), _said(said)]

    same = [gr.skip(), gr.skip(), gr.skip()]
    controls = [*parts, *ways]
    answered = [context.ready, context.task, base, *controls, preview, note]
    newest = Newest()

    def asked(work: Callable[..., list[Any]]) -> Callable[..., Awaitable[list[Any]]]:
        async def ask(request: gr.Request, visitor: str, *sent: Any) -> list[Any]:
            def answer() -> Awaitable[list[Any]]:
                return anyio.to_thread.run_sync(work, visitor, *sent)

            question = work.__name__, *map(str, sent)
            got = await newest.answer(str(request.session_hash), question, answer)
            return [gr.skip()] * len(answered) if got is None else got

        return ask

    options: dict[str, Any] = {"show_progress_on": note, "trigger_mode": "multiple", **_PRIVATE}
    load.click(asked(bring), [context.visitor, kind, name, base], answered, **options)
    # Another configuration may be other files, with other splits and columns; all is guessed again.
    # Gradio's list says twice that something was chosen. Where the second one comes after the
    # answer, it names what the first has replaced; Gradio would refuse it with an error.
    options |= {"preprocess": False}
    table = [context.visitor, name]
    controls[0].input(asked(bring_table), [*table, controls[0]], answered, **options)
    changes = [control.input for control in controls[1:]]
    gr.on(changes, asked(bring_table), [*table, *controls], answered, **options)

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
        [published, token],  # the token's field is emptied, however it went
        show_progress_on=published,
        **_PRIVATE,
    )
    return note


def _bring_adapter(lab: Lab, visitor: str, name: str, base_name: str) -> str:
    base = lab.base(base_name if base_name in lab.bases else "bundled")
    return keep(lab, visitor, load_hub_adapter(name, base)).id


_PARTS = {
    "configuration": say("hub.configuration"),
    "split": say("hub.split"),
    "text": say("own.text"),
    "label": say("own.label"),
}


@dataclass
class _Taken:
    """What of a data set was taken, as far as it was found out; nothing of what is none."""

    dataset: HubDataset | None = None
    configuration: str | None = None
    split: str | None = None
    report: TableReport | None = None  # of a file that was refused, what is known of it
    asked: Reading = field(default_factory=Reading)

    def controls(self, *, keep: bool = False) -> list[Any]:
        """All of them, and the preview: what was taken, and what else there is. With `keep`, those
        of which nothing was found out, as without a network, stay as they are."""
        parts = self.dataset.parts if self.dataset else {}
        splits = list(parts.get(self.configuration or "", ()))
        report = self.report
        columns = list(report.columns) if report else []
        text, label = (report.text_column, report.label_column) if report else (None, None)
        some, read = bool(columns), report is not None
        made: list[Any] = [
            gr.Dropdown(list(parts), value=self.configuration, visible=len(parts) > 1),
            gr.Dropdown(splits, value=self.split, visible=len(splits) > 1),
            gr.Dropdown(columns, value=text, visible=some),
            gr.Dropdown(columns, value=label, visible=some),
            *reading_shown(report, self.asked),
            self._preview(),
        ]
        if keep:
            known = [bool(parts), bool(splits), some, some, *[read] * len(WAYS), read]
            return [way if there else gr.skip() for way, there in zip(made, known, strict=True)]
        return made

    def _preview(self) -> dict[str, Any]:
        """What the table holds; what is wrong with it is said in the note."""
        if self.dataset is None or self.report is None or not self.report.columns:
            return {}
        return shown(self.report, self.dataset.name) | {"problem": ""}


def _bring_task(
    lab: Lab, visitor: str, name: str, chosen: Sequence[str | None], taken: _Taken
) -> tuple[Task, list[str]]:
    """The visitor's task of a table of the Hub, and what was guessed beside what its report says;
    `taken` is filled in as far as one gets.

    `chosen` in the controls; a configuration, split or column that is not chosen, or not there, is
    guessed. The tables of the same data set that nothing was trained on are forgotten: they were
    not those meant.
    """
    limits = lab.registry.limits
    configuration, split, text, label = [value or None for value in [*chosen, *[None] * 4][:4]]
    taken.asked = reading_of(chosen[len(_PARTS) :])
    dataset = taken.dataset = hub_dataset(name)
    configuration = configuration if configuration in dataset.parts else None
    said = "" if configuration else dataset.remark(dataset.default)
    splits = dataset.parts[configuration or dataset.default]
    part = dataset.part(configuration, split if split in splits else None)
    taken.configuration, taken.split = part
    with dataset.files(*part, limits, lab.hub_cache) as paths:
        try:
            hub_table = dataset.read(*part, paths, limits, taken.asked, said)
        except TableBusyError:  # nothing is known of it
            raise
        except TaskError as error:
            taken.report = unread(paths[0], error)
            raise
    base, table = lab.base(), hub_table.table
    report = taken.report = report_of(
        table,
        text,
        label,
        encoding=base.tokenizer,
        context_length=base.config.context_length,
        limits=limits,
    )
    text, label = (column if column in table.columns else None for column in (text, label))
    task = keep_task(lab, visitor, task_of_hub(hub_table, text, label, limits))
    trained = {run.task.name for run in lab.registry.runs(visitor) if run.task}
    for own in lab.registry.tasks(visitor):
        same_set = re.fullmatch(rf"{re.escape(name)}( \d+)?", own.title)
        if same_set and own.name != task.name and own.name not in trained:
            lab.registry.remove_task(visitor, own.name)
    return task, [warning for warning in task.warnings if warning not in report.warnings]


def _bring_base(lab: Lab, name: str) -> tuple[list[tuple[str, str]], str]:
    """The choices of step 1 with a base that is loaded now, and what its user must know of it."""
    lab.bases.check_offered(name)
    if not lab.bases.known(name):
        check_hub_base(name)
    remark = lab.bases.get(name).remark
    return lab.bases.choices(), remark


def _said(message: object) -> dict[str, Any]:
    return {"text": str(message), "bad": isinstance(message, Exception)}


def _problem(error: Exception) -> dict[str, Any]:
    return {"text": sentence_of(error, "hub"), "bad": True}
