"""Step 2, Fine-tune: start, stop, and watch.

Training lives in the registry. What is here only looks at it: `watch` polls the visitor's runs and
hands their points to the browser, so a reload, a second tab or a lost connection costs nothing.
A press on a button queues the runs and watches them, in one event.
"""

from __future__ import annotations

import asyncio
import logging
import math
import secrets
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import aclosing
from typing import Any

import gradio as gr

from lora_core.errors import LabError
from lora_core.serving.registry import Run, RunError
from lora_core.ui.addresses import address_of_caller
from lora_core.ui.context import Context, Lab
from lora_core.ui.drawing.browser_part import part
from lora_core.ui.names import long_name
from lora_core.ui.panels.view import IDLE, View, interrupted
from lora_core.ui.readers import looks
from lora_core.ui.sentences import warn
from lora_core.ui.settings import Settings
from lora_core.ui.sweeps import sweep_of
from lora_core.ui.text import words
from lora_core.ui.text.catalogue import say
from lora_core.ui.values import record

log = logging.getLogger(__name__)

_POLL = 0.12  # seconds between two looks at the runs


def build(context: Context, table: gr.HTML, sweep: gr.Button, followed: gr.HTML) -> None:
    """The panel. `table` and `sweep` are drawn in the comparison, `followed` in step 3."""
    lab = context.lab
    gr.HTML(words.heading("finetune"), apply_default_css=False)
    with gr.Row(elem_classes="actions"):
        start = gr.Button(
            say("finetune.start"), variant="primary", elem_id="start", scale=3, min_width=110
        )
        stop = gr.Button(
            say("finetune.stop"), variant="stop", elem_id="stop", min_width=70, interactive=False
        )
    status = part("status", IDLE, script="curves.js", elem_id="status")
    go_on = gr.Button(say("finetune.go_on"), elem_id="go-on", size="sm", visible=False)
    default = Settings.within(lab.registry.limits)
    curves = part("curves", _EMPTY, script="curves.js", elem_id="curves")
    chance = part("baseline", baseline(lab, default, ""), script="curves.js", elem_id="chance")
    private: dict[str, Any] = {"show_progress": "hidden", "api_visibility": "private"}

    def on_task(visitor: str, *values: Any) -> Any:
        try:
            return baseline(lab, Settings.from_values(*values), visitor)
        except LabError:
            return gr.skip()

    inputs = [context.visitor, *context.controls]
    context.task.change(on_task, inputs, chance, queue=False, **private)

    watchers: dict[str, str] = {}  # session -> its newest watcher; an older one ends itself

    async def watch(visitor: str, request: gr.Request) -> AsyncIterator[list[Any]]:
        session, mine = str(request.session_hash), secrets.token_hex(8)
        watchers[session] = mine
        try:
            view, failure = View(lab, visitor), ""
            looking = looks(
                lab.registry.watchers,
                f"visitor {visitor}",
                _POLL,
                address_of_caller(lab.behind_proxy),
            )
            async with aclosing(looking):
                async for _ in looking:
                    if watchers.get(session) != mine:
                        return
                    try:
                        update = view.update()
                        failure = failure if update is None else ""
                    except Exception as error:  # a sentence instead of a page that stands still
                        update = None
                        if failure != repr(error):  # said once, not at each of eight looks a second
                            failure = repr(error)
                            log.exception("a page could not be fed")
                            update = refused(error if isinstance(error, LabError) else None)
                    if update is not None:
                        yield update
                    if not view.live:
                        return
        except RunError as error:  # too many tabs: this one says so, and follows no more
            yield refused(error)
        finally:
            if watchers.get(session) == mine:
                del watchers[session]

    def starter(
        wanted: Callable[[Settings], Sequence[Settings]],
    ) -> Callable[..., AsyncIterator[list[Any]]]:
        async def queue_and_watch(
            visitor: str, typed: str, pinned: str, request: gr.Request, *values: Any
        ) -> AsyncIterator[list[Any]]:
            try:
                settings = wanted(Settings.from_values(*values))
                texts = [text for text in (pinned, typed) if text and text.strip()]
                await asyncio.to_thread(queue_runs, lab, visitor, texts, settings)
            except LabError as error:
                yield refused(error)
                return
            async for update in watch(visitor, request):
                yield update

        return queue_and_watch

    outputs = [status, curves, table, followed, context.ready, stop, go_on]
    pressed = [context.visitor, context.text, context.pinned, *context.controls]
    for button, wanted in (
        (start, lambda settings: settings.each_seed()),
        (
            sweep,
            lambda settings: [
                run
                for seeded in settings.each_seed()
                for run in sweep_of(seeded, lab.registry.limits)
            ],
        ),
    ):
        button.click(starter(wanted), pressed, outputs, trigger_mode="multiple", **private)

    async def go_on_and_watch(visitor: str, request: gr.Request) -> AsyncIterator[list[Any]]:
        try:
            refusals = await asyncio.to_thread(go_on_all, lab, visitor)
        except LabError as error:
            yield refused(error)
            return
        for sentence in refusals:
            warn(sentence)
        async for update in watch(visitor, request):
            yield update

    go_on.click(go_on_and_watch, context.visitor, outputs, trigger_mode="multiple", **private)
    # A page that was loaded again finds its runs. Gradio calls the functions of one event one after
    # the other, and this one lasts as long as a run: the others must not wait for it.
    named = context.visitor.change(None, None, None, js="() => []", **private)
    named.then(watch, context.visitor, outputs, trigger_mode="multiple", **private)
    # Also where a page hears nothing of what it follows: a stream can be lost on its way.
    status.select(watch, context.visitor, outputs, trigger_mode="multiple", **private)
    context.watch = {
        "fn": watch,
        "inputs": context.visitor,
        "outputs": outputs,
        "trigger_mode": "multiple",
        **private,
    }

    def stop_all(visitor: str) -> None:
        for run in lab.registry.runs(visitor):
            if not run.is_over:
                lab.registry.stop(visitor, run.id)

    stop.click(stop_all, context.visitor, None, queue=False, **private)

    def pick(visitor: str, event: gr.EventData) -> Any:
        try:
            return lab.registry.get(visitor, str(record(event._data).get("id"))).id
        except RunError:  # forgotten meanwhile; the table says so with its next look
            return gr.skip()

    chosen = {"trigger_mode": "multiple", "queue": False, **private}
    table.select(pick, context.visitor, context.ready, **chosen)
    context.ready.change(None, context.ready, None, js="(id) => { LoraLab.emit('ready', id); }")


def refused(error: LabError | None) -> list[Any]:
    """What the page shows of something that could not be done: its sentence, where one looks."""
    line = str(error) if error else say("status.broken")
    refusal = {"state": "refused", "line": line, "reason": "", "share": 0.0, "sentence": ""}
    return [refusal, *[gr.skip()] * 6]


def go_on_all(lab: Lab, visitor: str) -> list[str]:
    """Queue what is left of each of them; sentences about those that did not go on. Raises
    `LabError` where the runs cannot be had."""
    staying: dict[str, list[str]] = {}  # by the reason
    for run in interrupted(lab.registry.runs(visitor)):
        try:
            lab.registry.go_on(visitor, run.id)
        except LabError as error:
            staying.setdefault(str(error), []).append(f"“{long_name(run)}”")
    return [
        say("finetune.not_gone_on", runs=", ".join(names), reason=reason)
        for reason, names in staying.items()
    ]


def queue_runs(lab: Lab, visitor: str, texts: Sequence[str], wanted: Sequence[Settings]) -> str:
    """Queue the runs, all or none, each watching `texts`; the id of the last one.

    Raises a `LabError`: one of settings, tasks and bases, or that of the registry.
    """
    prepared = [
        (lab.base(s.base), lab.task(s.task, visitor), s.lora_config(), s.train_config())
        for s in wanted
    ]
    texts = tuple(dict.fromkeys(text for text in texts if text.strip()))
    runs: list[Run] = []
    address = address_of_caller(lab.behind_proxy)
    try:
        for what in prepared:
            runs.append(lab.registry.submit(visitor, *what, watch_texts=texts, address=address))
    except RunError:
        for run in reversed(runs):  # half a sweep would be something nobody asked for
            lab.registry.remove(visitor, run.id)
        raise
    return runs[-1].id


def baseline(lab: Lab, settings: Settings, visitor: str) -> dict[str, Any]:
    """What guessing and habit reach on a task: lines to measure the curves against."""
    task = lab.task(settings.task, visitor)
    classes = len(task.labels)
    share, label = task.majority
    return {
        "task": task.name,
        "loss": math.log(classes),
        "loss_words": say("chart.guessing", loss=f"{math.log(classes):.3f}"),
        "majority": share,
        "majority_words": say("chart.habit", label=label, share=words.accuracy(share)),
        "steps": settings.for_labels(classes, lab.registry.limits).steps,
    }


_EMPTY: dict[str, Any] = {
    "runs": {},
    "order": [],
    "words": say("chart.none"),
    "spoken": "",
}
