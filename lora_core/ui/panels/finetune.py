"""Step 2, Fine-tune: start, stop, and watch.

Training lives in the registry. What is here only looks at it: `watch` polls the visitor's runs and
hands their points to the browser, so a reload, a second tab or a lost connection costs nothing.
"""

from __future__ import annotations

import functools
import html
import math
import secrets
from collections.abc import AsyncIterator, Callable
from contextlib import aclosing
from typing import Any, ParamSpec, TypeVar

import gradio as gr

from lora_core.errors import LabError
from lora_core.serving.registry import Run, RunError
from lora_core.ui.context import Context, Lab
from lora_core.ui.drawing.browser_part import part
from lora_core.ui.drawing.colours import RUN_COLOURS
from lora_core.ui.drawing.curves import Curve
from lora_core.ui.names import short_names
from lora_core.ui.panels.compare import compare
from lora_core.ui.readers import looks
from lora_core.ui.settings import Settings
from lora_core.ui.sweep import sweep_of
from lora_core.ui.text import words

P = ParamSpec("P")
R = TypeVar("R")

_POLL = 0.12  # seconds between two looks at the runs


def build(context: Context, table: gr.HTML, scatter: gr.HTML) -> None:
    """The panel; `table` and `scatter` of `compare.parts` are kept up to date, too."""
    lab = context.lab
    gr.HTML(words.heading("finetune"), apply_default_css=False)
    with gr.Row(elem_classes="actions"):
        start = gr.Button("Fine-tune", variant="primary", elem_id="start", scale=2, min_width=110)
        stop = gr.Button("Stop", variant="stop", elem_id="stop", min_width=70, interactive=False)
        sweep = gr.Button(
            "Sweep: ranks 1, 4, 16, 64, full", elem_id="sweep", scale=3, min_width=180
        )
    status = part("status", _IDLE, script="curves.js", elem_id="status")
    curves = part("curves", _EMPTY, script="curves.js", plotly=True, elem_id="curves")
    chance = part("baseline", baseline(lab, Settings(), ""), script="curves.js", elem_id="chance")
    gr.HTML(words.fold("finetune"), apply_default_css=False)
    watching = gr.Textbox("", visible="hidden", elem_id="watching", label="Runs being watched")
    private: dict[str, Any] = {"show_progress": "hidden", "api_visibility": "private"}

    def submit(visitor: str, pinned: str, *values: Any) -> str:
        return queue_runs(lab, visitor, pinned, [Settings.from_values(*values)])

    def submit_sweep(visitor: str, pinned: str, *values: Any) -> str:
        return queue_runs(
            lab, visitor, pinned, sweep_of(Settings.from_values(*values), lab.registry.limits)
        )

    for button, function in ((start, submit), (sweep, submit_sweep)):
        button.click(
            in_words(function),
            [context.visitor, context.pinned, *context.controls],
            watching,
            show_progress="minimal",
            show_progress_on=status,
            api_visibility="private",
        )

    def stop_all(visitor: str) -> None:
        for run in lab.registry.runs(visitor):
            if not run.is_over:
                lab.registry.stop(visitor, run.id)

    stop.click(stop_all, context.visitor, None, queue=False, **private)

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
            view = View(lab, visitor)
            looking = looks(lab.registry.watchers, f"visitor {visitor}", _POLL)
            async with aclosing(looking):
                async for _ in looking:
                    if watchers.get(session) != mine:
                        return
                    update = view.update()
                    if update is not None:
                        yield update
                    if not view.live:
                        return
        except RunError as error:  # too many tabs: this one says so, and follows no more
            yield [{**_IDLE, "line": str(error)}, *[gr.skip()] * 5]
        finally:
            if watchers.get(session) == mine:
                del watchers[session]

    outputs = [status, curves, table, scatter, context.ready, stop]
    watching.change(watch, context.visitor, outputs, trigger_mode="multiple", **private)
    context.visitor.change(watch, context.visitor, outputs, trigger_mode="multiple", **private)

    def pick(visitor: str, event: gr.EventData) -> str:
        try:
            return lab.registry.get(visitor, str(event._data["id"])).id
        except RunError as error:
            raise gr.Error(html.escape(str(error)), print_exception=False) from error

    table.select(pick, context.visitor, context.ready, queue=False, **private)
    context.ready.change(None, context.ready, None, js="(id) => { LoraLab.emit('ready', id); }")


def in_words(function: Callable[P, R]) -> Callable[P, R]:
    """The same function, with the app's own errors shown to the visitor as their sentence."""

    @functools.wraps(function)
    def wrapped(*args: P.args, **kwargs: P.kwargs) -> R:
        try:
            return function(*args, **kwargs)
        except LabError as error:
            raise gr.Error(html.escape(str(error)), print_exception=False) from error

    return wrapped


def queue_runs(lab: Lab, visitor: str, pinned: str, wanted: list[Settings]) -> str:
    """Queue the runs, all or none; the id of the last one."""
    prepared = [
        (lab.base(s.base), lab.task(s.task, visitor), s.lora_config(), s.train_config())
        for s in wanted
    ]
    texts = (pinned,) if pinned and pinned.strip() else ()
    runs: list[Run] = []
    try:
        for what in prepared:
            runs.append(lab.registry.submit(visitor, *what, watch_texts=texts))
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
        "loss": math.log(classes),
        "loss_words": f"pure guessing: ln {classes} = {math.log(classes):.3f}",
        "majority": share,
        "majority_words": f"always “{label}”: {share:.0%}",
        "steps": settings.steps,
    }


_IDLE = {
    "state": "idle",
    "line": "Nothing trained yet: the model is the frozen base with an untrained head.",
    "reason": "",
    "share": 0.0,
}
_EMPTY: dict[str, Any] = {
    "runs": {},
    "order": [],
    "words": "Loss and accuracy along the run: no run yet.",
    "spoken": "",
}


class View:
    """What one tab sees of a visitor's runs; `update()` gives the outputs that changed."""

    def __init__(self, lab: Lab, visitor: str) -> None:
        self.lab, self.visitor = lab, visitor
        self.live = False
        self._curves: dict[str, Curve] = {}
        self._seen: dict[str, int] = {}
        self._over: set[str] = set()
        self._key: Any = None
        self._table_key: Any = None

    def update(self) -> list[Any] | None:
        """Values of status, curves, table, scatter, ready and Stop; None when nothing is new."""
        runs = [r for r in self.lab.registry.runs(self.visitor) if r.train_config and r.task]
        runs = [r for r in runs if r.state != "loaded"]
        # Read before the events: a run that ends meanwhile counts as over at the next look, so that
        # the last look sees all of it.
        overs = [run.is_over for run in runs]
        states = [(r.id, r.state, r.place, over) for r, over in zip(runs, overs, strict=True)]
        ended = ""
        for run, over in zip(runs, overs, strict=True):
            curve = self._curves.setdefault(run.id, Curve())
            events = run.events_since(self._seen.get(run.id, 0))
            self._seen[run.id] = self._seen.get(run.id, 0) + len(events)
            curve.feed(events)
            if over and run.id not in self._over:
                self._over.add(run.id)
                ended = run.id if run.has_weights else ended
        self.live = any(run.id not in self._over for run in runs)
        key = (states, dict(self._seen))
        if key == self._key:
            return None
        self._key = key
        titles = short_names([Settings.of(run) for run in runs])
        shown = list(zip(runs, (self._curves[r.id] for r in runs), titles, strict=True))
        table: Any = gr.skip()
        points: Any = gr.skip()
        evaluations = [len(curve.evaluated) for _, curve, _ in shown]
        table_key = (states, evaluations, titles)
        if table_key != self._table_key:
            self._table_key = table_key
            table, points = compare(self.lab, shown, self.visitor)
        return [
            status(shown),
            _drawn(shown),
            table,
            points,
            ended or gr.skip(),
            gr.update(interactive=self.live),
        ]


def _drawn(shown: list[tuple[Run, Curve, str]]) -> dict[str, Any]:
    runs = {}
    for index, (run, curve, name) in enumerate(shown):
        assert run.train_config is not None
        runs[run.id] = {
            "name": name,
            "colour": index % len(RUN_COLOURS),
            "total": run.train_config.steps,
            "state": run.state,
            **curve.data(),
        }
    sentences = [_curve_words(curve, name) for _, curve, name in shown]
    running = next((s for (r, _, _), s in zip(shown, sentences, strict=True) if not r.is_over), "")
    return {
        "runs": runs,
        "order": [run.id for run, _, _ in shown],
        "words": "Loss and accuracy along the run. " + (" ".join(sentences[-3:]) or "No run yet."),
        "spoken": running or (sentences[-1] if sentences else ""),
    }


def _curve_words(curve: Curve, name: str) -> str:
    if not curve.evaluated:
        return f"{name}: waiting."
    last = curve.evaluated[-1]
    return (
        f"{name}: after {last.step} steps validation loss {last.validation_loss:.3f}, "
        f"validation accuracy {last.validation_accuracy:.1%}."
    )


def status(shown: list[tuple[Run, Curve, str]]) -> dict[str, Any]:
    """The line under the buttons, for the run that trains, waits, or ended last."""
    if not shown:
        return _IDLE
    active = next((s for s in shown if s[0].state == "running"), None)
    active = active or next((s for s in shown if s[0].state == "waiting"), shown[-1])
    run, curve, name = active
    queued = sum(1 for other, _, _ in shown if other.state == "waiting")
    if run.state == "waiting":
        line = "starts next" if run.place <= 1 else f"waiting, place {run.place} in the queue"
        wait = run.estimate_seconds
        line += f", in about {words.duration(wait)}" if wait else ""
        return {"state": "waiting", "line": f"{name}: {line}.", "reason": "", "share": 0.0}
    started = curve.started
    total = run.train_config.steps if run.train_config else 1
    step = curve.step.step if curve.step else 0
    reason = ""
    if started:
        where = f"{started.device.device.type.upper()}, {started.device.format}"
        reason = f"{where}. {started.device.reason}"
    if run.state == "running":
        parts = [f"{name}: step {step} of {total}"]
        left = curve.seconds_left()
        if left is not None and curve.step and step < total:
            parts += [
                f"{words.duration(left)} left",
                f"{curve.step.tokens_per_second:,.0f} tokens/s",
            ]
        elif step == total:
            parts = [f"{name}: all {total} steps done, now answering the test texts"]
        elif not started:
            parts = [f"{name}: preparing the texts"]
        else:
            parts = [f"{name}: looking at the base first (step 0)"]
        if queued:
            parts.append(f"{queued} more waiting")
        return {
            "state": "running",
            "line": " · ".join(parts),
            "reason": reason,
            "share": step / total,
        }
    best = curve.best
    if best is None:
        line = f"{name}: {run.reason or 'ended before its first step.'}"
    else:
        verb = {"finished": "done", "stopped": "stopped", "failed": "ended early"}[run.state]
        seconds = f" in {words.duration(curve.finished.seconds)}" if curve.finished else ""
        line = (
            f"{name}: {verb}{seconds}. Best weights: step {best.step}, "
            f"validation accuracy {best.validation_accuracy:.1%}."
        )
        if run.state == "failed":
            line += f" {run.reason}"
        if run.lost:
            line += f" {run.lost}"
    return {"state": run.state, "line": line, "reason": reason, "share": step / total}
