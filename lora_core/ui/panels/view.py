"""What one tab sees of a visitor's runs: status, curves, table, the followed text.

Plain data out of the registry's objects; `watch` of step 2 sends it, the browser draws it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import gradio as gr

from lora_core.events import Watched
from lora_core.serving.registry import Run
from lora_core.ui.conclusions import conclusion, latest
from lora_core.ui.context import Lab
from lora_core.ui.drawing.curves import Curve
from lora_core.ui.names import short_names
from lora_core.ui.panels.compare import compare
from lora_core.ui.seeds import gathered, together
from lora_core.ui.settings import Settings
from lora_core.ui.text import words
from lora_core.ui.text.catalogue import say

Seen = tuple[Run, Curve, str]  # a run, its points, its short name

IDLE: dict[str, Any] = {
    "state": "idle",
    "line": say("status.idle"),
    "reason": "",
    "share": 0.0,
    "sentence": say("status.invitation"),
}
_FOLLOWED_LINES = 3  # labels drawn of a followed text, where there are more than two


class View:
    """`update()` gives the outputs that changed since the last one."""

    def __init__(self, lab: Lab, visitor: str) -> None:
        self.lab, self.visitor = lab, visitor
        self.live = False  # whether something trains or waits
        self._curves: dict[str, Curve] = {}
        self._watched: dict[str, list[Watched]] = {}
        self._seen: dict[str, int] = {}
        self._over: set[str] = set()
        self._key: Any = None
        self._table_key: Any = None

    def update(self) -> list[Any] | None:
        """Values of status, curves, table, followed, ready, Stop and Go on; None when nothing is
        new."""
        runs = [r for r in self.lab.registry.runs(self.visitor) if r.train_config and r.task]
        runs = [r for r in runs if r.state != "loaded"]
        # Read before the events: a run that ends meanwhile counts as over at the next look, so that
        # the last look sees all of it.
        overs = [run.is_over for run in runs]
        waits = [_wait(run) for run in runs]
        states = [
            (r.id, r.state, r.place, r.behind, over) for r, over in zip(runs, overs, strict=True)
        ]
        ended = ""
        for run, over in zip(runs, overs, strict=True):
            curve = self._curves.setdefault(run.id, Curve())
            events = run.events_since(self._seen.get(run.id, 0))
            self._seen[run.id] = self._seen.get(run.id, 0) + len(events)
            curve.feed(events)
            watched = self._watched.setdefault(run.id, [])
            for event in events:
                if isinstance(event, Watched):
                    while watched and watched[-1].step > event.step:  # begun anew (`Run.curve`)
                        watched.pop()
                    watched.append(event)
            if over and run.id not in self._over:
                self._over.add(run.id)
                ended = run.id if run.has_weights else ended
        self.live = any(run.id not in self._over for run in runs)
        key = (states, waits, dict(self._seen))
        if key == self._key:
            return None
        self._key = key
        names = _names(runs)
        seen = [(run, self._curves[run.id], names[run.id]) for run in runs]
        table: Any = gr.skip()
        evaluations = [len(curve.evaluated) for _, curve, _ in seen]
        table_key = (states, evaluations, names)
        if table_key != self._table_key:
            self._table_key = table_key
            table = compare(seen)
        state = status(seen)
        if any(run.behind for run in runs):
            state = {**state, "line": say("status.not_kept", line=state["line"])}
        return [
            state,
            drawn(seen),
            table,
            followed(runs, names, self._watched),
            ended or gr.skip(),
            gr.update(interactive=self.live),
            gr.update(visible=bool(interrupted(runs))),
        ]


def interrupted(runs: Sequence[Run]) -> list[Run]:
    """Those that can go on from what was kept when their server or their worker ended."""
    return [run for run in runs if run.interrupted and run.has_weights]


def _wait(run: Run) -> str:
    """The estimate that is shown for a run that waits, as it is shown: it changes by itself."""
    seconds = run.estimate_seconds if run.state == "waiting" else None
    return words.duration(seconds) if seconds else ""


def _names(runs: Sequence[Run]) -> dict[str, str]:
    """Short names, each among the runs of its task: only those are compared."""
    names: dict[str, str] = {}
    for task in dict.fromkeys(run.task.name for run in runs if run.task):
        group = [run for run in runs if run.task and run.task.name == task]
        made = short_names([Settings.of(run) for run in group])
        names |= {run.id: name for run, name in zip(group, made, strict=True)}
    return names


def drawn(seen: Sequence[Seen]) -> dict[str, Any]:
    """The curves' value."""
    runs = {}
    order = {run.id: index for index, (run, _, _) in enumerate(seen)}
    for name, members in gathered(seen):
        run = members[0][0]
        assert run.train_config is not None and run.task is not None
        runs[run.id] = {
            "name": name,
            "task": run.task.name,
            "series": order[run.id],
            "total": run.train_config.steps,
            "state": run.state,
            **together([curve for _, curve, _ in members]),
        }
    sentences = [_curve_words(curve, name) for _, curve, name in seen]
    running = next((s for (r, _, _), s in zip(seen, sentences, strict=True) if not r.is_over), "")
    return {
        "runs": runs,
        "order": list(runs),
        "words": say("chart.words", runs=" ".join(sentences[-3:])) if seen else say("chart.none"),
        "spoken": running or (sentences[-1] if sentences else ""),
    }


def _curve_words(curve: Curve, name: str) -> str:
    if not curve.evaluated:
        return say("chart.waiting", name=name)
    last = curve.evaluated[-1]
    return say(
        "chart.run",
        name=name,
        step=last.step,
        loss=f"{last.validation_loss:.3f}",
        accuracy=words.accuracy(last.validation_accuracy),
    )


def followed(
    runs: Sequence[Run], names: dict[str, str], watched: dict[str, list[Watched]]
) -> dict[str, Any]:
    """The texts that the newest run follows: their probabilities so far, step by step."""
    run = next((r for r in reversed(runs) if watched[r.id] and r.state != "waiting"), None)
    if run is None or run.task is None or run.train_config is None:
        return {"texts": []}
    events, labels = watched[run.id], run.task.labels
    texts = []
    for position, text in enumerate(run.watch_texts):
        last = events[-1].probabilities[position]
        order = sorted(range(len(labels)), key=lambda i: -last[i])[:_FOLLOWED_LINES]
        if len(labels) == 2:  # one line, as the other is its mirror image
            order = [1]
        texts.append(
            {
                "text": text,
                "labels": [labels[i] for i in order],
                "lines": [[round(e.probabilities[position][i], 4) for e in events] for i in order],
                "now": dict(zip(labels, [round(p, 4) for p in last], strict=True)),
            }
        )
    return {
        "name": names[run.id],
        "task": run.task.name,
        "running": not run.is_over,
        "total": run.train_config.steps,
        "steps": [event.step for event in events],
        "texts": texts,
    }


def status(seen: Sequence[Seen]) -> dict[str, Any]:
    """The line under the buttons, for the run that trains, waits, or ended last; and what the last
    run showed, in a sentence."""
    if not seen:
        return IDLE
    active = next((s for s in seen if s[0].state == "running"), None)
    active = active or next((s for s in seen if s[0].state == "waiting"), None)
    active = active or max(seen, key=lambda entry: entry[0].ended or 0.0)
    run, curve, name = active
    queued = sum(1 for other, _, _ in seen if other.state == "waiting")
    line_of_run: dict[str, Any] = {
        "state": run.state,
        "detail": "",
        "reason": "",
        "share": 0.0,
        "sentence": conclusion(seen),
    }
    of_task = [s for s in seen if s[0].task and run.task and s[0].task.name == run.task.name]
    line_of_run["several"] = len(of_task) > 1
    if (last := latest(seen)) and last.task:
        line_of_run |= {"task": last.task.name, "title": last.task.title or last.task.name}
    if run.state == "waiting":
        return {**line_of_run, "line": _waiting_words(run, name)}
    started = curve.started
    total = run.train_config.steps if run.train_config else 1
    line_of_run["share"] = (curve.step.step if curve.step else 0) / total
    if started:
        line_of_run["reason"] = say(
            "status.device",
            device=started.device.device.type.upper(),
            format=started.device.format,
            reason=started.device.reason,
        )
    if run.state == "running":
        line = _running_words(curve, name, total)
        more = say("status.queued", line=line, n=queued) if queued else line
        return {**line_of_run, "line": more, "detail": _speed(curve, total)}
    best = curve.best
    if best is None:
        return {**line_of_run, "line": say("status.nothing", name=name, reason=run.reason)}
    seconds = words.duration(curve.finished.seconds) if curve.finished else ""
    line = say(
        "status.interrupted" if run.interrupted else f"status.{run.state}",
        name=name,
        seconds=seconds,
        reason=run.reason,
    )
    return {
        **line_of_run,
        "detail": "" if run.interrupted else say("status.best", step=best.step),
        "line": say("status.lost", line=line, lost=run.lost) if run.lost else line,
    }


def _waiting_words(run: Run, name: str) -> str:
    wait = _wait(run)
    if run.place <= 1:
        return say("status.next_in" if wait else "status.next", name=name, wait=wait)
    key = "status.waiting_in" if wait else "status.waiting"
    return say(key, name=name, place=run.place, wait=wait)


def _running_words(curve: Curve, name: str, total: int) -> str:
    step = curve.step.step if curve.step else 0
    left = curve.seconds_left()
    if left is not None and curve.step and step < total:
        return say("status.running", name=name, step=step, total=total, left=words.duration(left))
    if step == total:
        return say("status.testing", name=name, total=total)
    return say("status.base_first" if curve.started else "status.preparing", name=name)


def _speed(curve: Curve, total: int) -> str:
    """For who wants to know more: tokens a second, once that is known, until the last step."""
    if curve.seconds_left() is None or curve.step is None or curve.step.step == total:
        return ""
    return say("status.speed", speed=f"{curve.step.tokens_per_second:,.0f}")
