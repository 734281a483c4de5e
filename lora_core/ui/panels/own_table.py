"""Step 1, a table of one's own: dropped, looked at, and taken as the task.

Also the way to the book's data set, which is downloaded. Whatever cannot be used gets its sentence
here, beside the control; what was chosen and trained before stays as it is.
"""

from __future__ import annotations

import contextlib
from dataclasses import replace
from pathlib import Path
from typing import Any

import gradio as gr

from lora_core.errors import LabError
from lora_core.limits import Limits
from lora_core.tasks import sms_collection
from lora_core.tasks.bundled import COLLECTION, TITLES, task_names
from lora_core.tasks.columns import choose_columns
from lora_core.tasks.file import FORMAT_NAMES, Reading, read_table
from lora_core.tasks.own_table import (
    TableReport,
    inspect_table,
    own_name,
    task_of,
)
from lora_core.tasks.task import Task, TaskError
from lora_core.ui import sentences
from lora_core.ui.addresses import address_of_caller
from lora_core.ui.context import Context, Lab
from lora_core.ui.drawing.browser_part import part
from lora_core.ui.newest import Newest
from lora_core.ui.panels.reading import (
    WAYS,
    reading_controls,
    reading_of,
    reading_shown,
    unread,
)
from lora_core.ui.settings import Settings
from lora_core.ui.text import words
from lora_core.ui.text.catalogue import rich, say


def _columns(name: str) -> gr.Dropdown:
    """A list of columns, of which the table says what there is: read in another encoding they have
    other names, and a choice that is sent after that is none of Gradio's list."""
    return gr.Dropdown(
        [],
        label=say(f"own.{name}"),
        visible=False,
        elem_id=f"own-{name}",
        min_width=140,
        allow_custom_value=True,
    )


def task_choices(lab: Lab, visitor: str = "") -> list[tuple[str, str]]:
    """(title, name) of the bundled tasks, the downloaded one, and this visitor's own tables."""
    names = [*task_names(), *([COLLECTION] if COLLECTION in lab.tasks else [])]
    shown = [(TITLES.get(name) or lab.task(name).title, name) for name in names]
    own = lab.registry.tasks(visitor) if visitor else []
    return [*shown, *((say("own.yours", title=task.title), task.name) for task in own)]


def build(context: Context) -> None:
    """The fold under the settings of step 1; `context.task` must be there."""
    lab = context.lab
    with gr.Accordion(say("own.fold"), open=False, elem_classes="fold", elem_id="own"):
        gr.HTML(f'<p class="hint">{_needs(lab.registry.limits)}</p>', apply_default_css=False)
        file = gr.File(label=say("own.file"), show_label=False, elem_id="own-file", height=110)
        with gr.Row():
            text, label = (_columns(name) for name in ("text", "label"))
        with gr.Row(elem_classes="own-reading", elem_id="own-reading"):
            ways = reading_controls("own")
        report = part("table", {}, script="table.js", elem_id="own-report")
        use = gr.Button(
            say("own.use"), variant="primary", visible=False, elem_id="own-use", min_width=120
        )
        gr.HTML(_collection_words(), apply_default_css=False, elem_id="own-source")
        fetch = gr.Button(say("own.fetch"), elem_id="own-fetch", size="sm")
        fetched = part("table", {}, script="table.js", elem_id="own-fetched")
    looked = [report, text, label, *ways, use]
    options: dict[str, Any] = {
        "show_progress": "minimal",
        "show_progress_on": report,
        "api_visibility": "private",
        "concurrency_limit": None,
    }
    every: dict[str, Any] = {"trigger_mode": "multiple", **options}
    newest = Newest()

    async def drop(request: gr.Request, visitor: str, path: str | None) -> list[Any]:
        return await look(request, visitor, path, None, None)

    async def look(
        request: gr.Request,
        visitor: str,
        path: str | None,
        text: str | None,
        label: str | None,
        *chosen: str | None,
    ) -> list[Any]:
        async def answer() -> list[Any]:
            try:
                reading = reading_of(chosen)
                return await lab.readers.run(
                    visitor,
                    lambda: _look(lab, path, text, label, reading),
                    address_of_caller(lab.behind_proxy),
                )
            except LabError as error:
                return [{"title": Path(path or "").name, "problem": str(error)}, *_same()]

        question = path, text, label, chosen
        answered = await newest.answer(str(request.session_hash), question, answer)
        return [gr.skip()] * len(looked) if answered is None else answered

    async def clear(request: gr.Request) -> list[Any]:
        newest.forget(str(request.session_hash))
        return [{}, *_hidden()]

    async def take(
        request: gr.Request,
        visitor: str,
        path: str | None,
        text: str | None,
        label: str | None,
        *chosen: str | None,
    ) -> list[Any]:
        newest.forget(str(request.session_hash))
        try:
            reading = reading_of(chosen)
            task = await lab.readers.run(
                visitor,
                lambda: own_task(lab, visitor, path, text, label, reading),
                address_of_caller(lab.behind_proxy),
            )
        except LabError as error:
            return [gr.skip(), gr.skip(), {"problem": str(error)}, *_same()]
        dropdown = gr.Dropdown(choices=task_choices(lab, visitor), value=task.name)
        return [dropdown, None, {"done": _taken(task)}, *_hidden()]

    def get(visitor: str) -> list[Any]:
        try:
            task = lab.task(COLLECTION)
        except TaskError as error:
            return [gr.skip(), {"problem": str(error)}]
        chosen = gr.Dropdown(choices=task_choices(lab, visitor), value=task.name)
        return [chosen, {"done": _taken(task)}]

    asked = [context.visitor, file, text, label, *ways]
    file.upload(drop, [context.visitor, file], looked, **every)
    file.clear(clear, None, looked, queue=False, **every)
    changes = [control.input for control in (text, label, *ways)]
    gr.on(changes, look, asked, looked, **every)
    use.click(take, asked, [context.task, file, *looked], **options)
    fetch.click(
        get,
        context.visitor,
        [context.task, fetched],
        show_progress="minimal",
        show_progress_on=fetched,
        api_visibility="private",
    )


def offered(lab: Lab, visitor: str, wanted: str | None, *, fixed: bool = False) -> gr.Dropdown:
    """At a load: the tasks of this visitor, and the one that the address names, if it is here.

    `fixed`: it cannot be changed.
    """
    more: dict[str, Any] = {"interactive": False} if fixed else {}
    if wanted == COLLECTION:  # an address that names it asks for it
        with contextlib.suppress(TaskError):
            lab.task(COLLECTION)
    choices = task_choices(lab, visitor)
    if wanted is None:
        return gr.Dropdown(choices=choices, **more)
    if wanted in [name for _, name in choices]:
        return gr.Dropdown(choices=choices, value=wanted, **more)
    sentences.warn(say("own.gone", name=wanted[:60]))
    return gr.Dropdown(choices=choices, value=Settings().task, **more)


def own_task(
    lab: Lab,
    visitor: str,
    path: str | None,
    text: str | None,
    label: str | None,
    reading: Reading | None = None,
) -> Task:
    """Read a visitor's file as a task of theirs, under a name that no other task of theirs has.

    Raises `TaskError` or `RunError`, in words.
    """
    if not path:
        raise TaskError(say("own.nothing"))
    limits = lab.registry.limits
    table = read_table(path, limits, reading, wait=False)
    columns = choose_columns(table, text, label)
    return keep_task(lab, visitor, task_of(table, *columns, limits=limits))


def keep_task(lab: Lab, visitor: str, task: Task) -> Task:
    """Keep a table for its visitor, under a name that neither they nor the app have already."""
    task = lab.named(visitor, replace(task, name=own_name(task.name)))
    lab.registry.add_task(visitor, task)
    return task


def _look(
    lab: Lab, path: str | None, text: str | None, label: str | None, reading: Reading
) -> list[Any]:
    if not path:
        return [{}, *_hidden()]
    try:
        base = lab.base()
        report = inspect_table(
            path,
            text,
            label,
            reading=reading,
            encoding=base.tokenizer,
            context_length=base.config.context_length,
            limits=lab.registry.limits,
            wait=False,
        )
    except LabError as error:
        ways = reading_shown(unread(path, error), reading)
        columns = [gr.Dropdown(visible=False), gr.Dropdown(visible=False)]
        problem = {"title": Path(path).name, "problem": str(error)}
        return [problem, *columns, *ways, gr.Button(visible=False)]
    choices = [(column, column) for column in report.columns]
    return [
        shown(report, Path(path).name),
        gr.Dropdown(choices=choices, value=report.text_column, visible=True),
        gr.Dropdown(choices=choices, value=report.label_column, visible=True),
        *reading_shown(report, reading),
        gr.Button(visible=True, interactive=not report.problem),
    ]


def shown(report: TableReport, name: str) -> dict[str, Any]:
    """What the browser draws of a report."""
    usable = sum(report.classes.values())
    value: dict[str, Any] = {
        "title": say(
            "own.title",
            name=name,
            rows=say("own.rows", n=report.rows),
            columns=say("own.columns", n=len(report.columns)),
        ),
        "problem": report.problem,
        "columns": list(report.columns),
        "text": report.text_column,
        "label": report.label_column,
        "preview": [list(row) for row in report.preview],
        "warnings": list(report.warnings),
    }
    if report.classes and not report.problem:
        value["classes_title"] = say(
            "own.classes", labels=len(report.classes), texts=say("own.texts", n=usable)
        )
        value["classes"] = [
            [label, count, words.count(count)] for label, count in report.classes.items()
        ]
    lengths = report.lengths
    if lengths is not None:
        value["lengths"] = {
            "edges": list(lengths.edges),
            "counts": list(lengths.counts),
            "cut": lengths.cut,
            "title": say("own.lengths"),
            "words": say(
                "own.lengths_spoken",
                longest=lengths.edges[-1],
                cut=say("own.texts", n=lengths.cut),
            ),
        }
    return value


def _hidden() -> list[Any]:
    """For the columns' and the reading's controls, and the button."""
    columns = [gr.Dropdown(visible=False, value=None) for _ in range(2)]
    return [*columns, *reading_shown(None, Reading()), gr.Button(visible=False)]


def _same() -> list[Any]:
    return [gr.skip()] * (3 + len(WAYS))


def _taken(task: Task) -> str:
    return say(
        "own.taken",
        task=task.title,
        labels=len(task.labels),
        train=len(task.train),
        validation=len(task.validation),
        test=len(task.test),
    )


def _needs(limits: Limits) -> str:
    hours, minutes = divmod(limits.idle_minutes, 60)
    unused = say("own.minutes", n=limits.idle_minutes) if minutes else say("own.hours", n=hours)
    return say(
        "own.needs",
        formats=FORMAT_NAMES,
        megabytes=limits.upload_mb,
        rows=limits.max_rows,
        unused=unused,
    )


def _collection_words() -> str:
    citation, _, doi = sms_collection.CITATION.rpartition(" doi:")
    link = f'<a href="https://doi.org/{doi}" target="_blank" rel="noopener">doi:{doi}</a>'
    before, after = rich(
        "own.source", citation=citation, doi="\0", licence=sms_collection.LICENCE
    ).split("\0")
    return (
        f'<div class="own-source"><h3>{rich("own.source_title")}</h3>'
        f"<p>{before}{link}{after}</p></div>"
    )
