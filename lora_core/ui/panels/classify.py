"""Step 3, Classify: type, and see base and adapted answer, which words mattered, where it errs.

Nothing here waits behind training: every listener runs outside the queue. The browser draws all
of it (`assets/page/classify.js`), as text nodes only, so that nothing typed is ever read as HTML.
"""

from __future__ import annotations

import math
from typing import Any

import gradio as gr

from lora_core.base.checkpoint import BaseError
from lora_core.classifier import ClassifyError, Prediction
from lora_core.config import ConfigError
from lora_core.events import Watched
from lora_core.explain.attribution import Attribution, attribute
from lora_core.explain.test_report import Judged, TestReport
from lora_core.serving.registry import Run
from lora_core.tasks.task import Task, TaskError
from lora_core.ui.context import Context
from lora_core.ui.drawing.browser_part import part
from lora_core.ui.names import long_name
from lora_core.ui.panels.viewer import Shown, Viewer
from lora_core.ui.settings import Settings
from lora_core.ui.text.explanations import CLASSIFY

_ROWS = 5  # labels shown one by one; the rest is summed up
_CONFUSED = 12  # a confusion matrix of more classes is told as a list
_MISTAKES = 8
_LONGEST = 20_000  # characters that the box takes
_REFUSED = (ClassifyError, ConfigError, TaskError, BaseError)
_SCRIPT = "classify.js"


def build(context: Context) -> None:
    """The panel below its heading."""
    viewer = Viewer(context)
    first = _first(viewer)
    with gr.Row(elem_classes="classify-bench"):
        with gr.Column(scale=5, min_width=300):
            text = gr.Textbox(
                first["text"],
                label="Your text",
                lines=4,
                max_lines=8,
                max_length=_LONGEST,
                elem_id="text",
            )
            chips = part("examples", first["chips"], script=_SCRIPT, elem_id="examples")
            strength = gr.Slider(
                0,
                2,
                1,
                step=0.05,
                label="Strength of what was learned",
                info="0 is the base before training, 1 is as trained, beyond 1 exaggerates it.",
                elem_id="strength",
            )
            with gr.Row(elem_classes="links"):
                pin = gr.Button(
                    "Pin this text", size="sm", elem_id="pin", elem_classes="quiet", min_width=110
                )
                unpin = gr.Button(
                    "Unpin",
                    size="sm",
                    elem_id="unpin",
                    elem_classes="quiet",
                    min_width=80,
                    interactive=False,
                )
            pinned = part("pinned", {"text": ""}, script=_SCRIPT, elem_id="pinned-chart")
        with gr.Column(scale=6, min_width=300):
            answer = part("answer", first["answer"], script=_SCRIPT, elem_id="answer")
            evidence = part("evidence", first["evidence"], script=_SCRIPT, elem_id="evidence")
    judged = part("judged", judged_value(None), script=_SCRIPT, elem_id="judged")
    gr.HTML(CLASSIFY, apply_default_css=False)

    where = [context.visitor, context.ready]
    private: dict[str, Any] = {"show_progress": "hidden", "api_visibility": "private"}
    at_once: dict[str, Any] = {**private, "queue": False, "trigger_mode": "always_last"}

    def classify(visitor: str, run_id: str, typed: str, scale: float, *values: Any) -> Any:
        try:
            shown = viewer.find(visitor, run_id, values)
            return answer_value(shown, typed, scale)
        except _REFUSED as error:
            return {"problem": str(error)}

    other_model = [context.ready.change, *(c.change for c in viewer.inputs)]  # type: ignore[attr-defined]
    gr.on(
        [text.change, strength.change, *other_model],
        classify,
        [*where, text, strength, *viewer.inputs],
        answer,
        **at_once,
    )

    def weigh(visitor: str, run_id: str, typed: str, scale: float, *values: Any) -> Any:
        try:
            shown = viewer.find(visitor, run_id, values)
            return evidence_value(shown, typed, scale)
        except _REFUSED:
            return evidence_value(None, typed, scale)  # the answer has said what is wrong

    # `answer` submits when it has stood still for a moment: no words are weighed while one types.
    answer.submit(weigh, [*where, text, strength, *viewer.inputs], evidence, **at_once)

    def on_model(visitor: str, run_id: str, typed: str, old: Any, *values: Any) -> list[Any]:
        """A new task or a new run: its examples and mistakes; a typed text is never replaced."""
        try:
            shown = viewer.find(visitor, run_id, values)
        except _REFUSED:
            return [gr.skip()] * 3
        report = viewer.report(shown)
        examples = examples_value(shown, report)
        ours = isinstance(old, dict) and typed in [e["text"] for e in old.get("examples", [])]
        texts = [e["text"] for e in examples["examples"]]
        known = {e.text for e in shown.task.test} if shown.task else {typed}
        stale = texts and typed not in known and (ours or not (typed or "").strip())
        return [texts[0] if stale else gr.skip(), examples, judged_value(report)]

    gr.on(
        other_model,
        on_model,
        [*where, text, chips, *viewer.inputs],
        [text, chips, judged],
        **at_once,
    )

    def on_pin(typed: str) -> tuple[Any, Any]:
        return (typed, gr.update(interactive=True)) if (typed or "").strip() else (gr.skip(),) * 2

    # `context.pinned` goes to the next runs as `watch_texts`.
    pin.click(on_pin, text, [context.pinned, unpin], queue=False, **private)
    unpin.click(
        lambda: ("", gr.update(interactive=False)),
        None,
        [context.pinned, unpin],
        queue=False,
        **private,
    )

    def draw_pinned(visitor: str, run_id: str, typed: str, *values: Any) -> Any:
        running = [r for r in context.lab.registry.runs(visitor) if r.state == "running"]
        live = next((r for r in running if r.watch_texts and r.watch_texts[0] == typed), None)
        if live is not None:
            return pinned_value(live, typed)
        try:
            return pinned_value(viewer.find(visitor, run_id, values).run, typed)
        except _REFUSED:
            return pinned_value(None, typed)

    # `pinned` submits every now and then while something trains: its line grows along the run.
    gr.on(
        [context.pinned.change, context.ready.change, pinned.submit],
        draw_pinned,
        [*where, context.pinned, *viewer.inputs],
        pinned,
        **at_once,
    )


def _first(viewer: Viewer) -> dict[str, Any]:
    """What a first visit sees, before the browser has asked for anything."""
    default = Settings()
    try:
        shown = viewer.find("", "", (default.task, default.base, default.seed))
        chips = examples_value(shown, None)
        text = chips["examples"][0]["text"]
        return {
            "text": text,
            "chips": chips,
            "answer": answer_value(shown, text, 1.0),
            "evidence": evidence_value(shown, text, 1.0),
        }
    except _REFUSED as error:
        return {
            "text": "",
            "chips": {"examples": []},
            "answer": {"problem": str(error)},
            "evidence": evidence_value(None, "", 1.0),
        }


def strength_of(given: Any) -> float:
    """What the slider holds, as a number from 0 to 2; an emptied box is 1."""
    try:
        value = float(given)
    except (TypeError, ValueError):
        return 1.0
    return min(2.0, max(0.0, value)) if math.isfinite(value) else 1.0


def answer_value(shown: Shown, text: str, strength: float) -> dict[str, Any]:
    """Both answers as rows of (label, base, adapted). Raises `ClassifyError`."""
    strength = strength_of(strength)
    base = shown.classifier.classify(text, 0.0)
    adapted = shown.classifier.classify(text, strength) if shown.trained else None
    return {
        "problem": "",
        "model": shown.name,
        "strength": strength,
        "base": base.label,
        "adapted": adapted.label if adapted else None,
        "rows": _rows(base, adapted),
        "tokens": base.tokens,
        "truncated": base.truncated,
    }


def _rows(base: Prediction, adapted: Prediction | None) -> list[list[Any]]:
    """At most five labels and "others": the task's own order while all fit, so nothing jumps."""
    leading = (adapted or base).probabilities
    labels = list(leading)
    if len(labels) > _ROWS + 1:
        labels = sorted(labels, key=lambda label: -leading[label])[:_ROWS]
    rest = [label for label in leading if label not in labels]

    def row(name: str, summed: list[str]) -> list[Any]:
        sides = (base.probabilities, adapted.probabilities if adapted else None)
        return [name, *(p and sum(p[label] for label in summed) for p in sides)]

    rows = [row(label, [label]) for label in labels]
    return [*rows, row(f"{len(rest)} others", rest)] if rest else rows


def evidence_value(shown: Shown | None, text: str, strength: float) -> dict[str, Any]:
    """The text in pieces, each with its weight or None for what lies between words."""
    if shown is None or not shown.trained or not (text or "").strip():
        return {"shown": False, "trained": bool(shown and shown.trained), "pieces": []}
    found = attribute(shown.classifier, text, strength_of(strength))
    return {
        "shown": True,
        "trained": True,
        "label": found.label,
        "probability": found.probability,
        "pieces": _pieces(text, found),
        "group": found.group,
        "unread": len(text) - found.read,
    }


def _pieces(text: str, found: Attribution) -> list[list[Any]]:
    pieces: list[list[Any]] = []
    at = 0
    for word in found.words:
        if word.span.start > at:
            pieces.append([text[at : word.span.start]])
        pieces.append([text[word.span.start : word.span.end], word.weight, word.without])
        at = word.span.end
    return pieces


def examples_value(shown: Shown, report: TestReport | None) -> dict[str, Any]:
    """Texts to try, from the task's test split: after training the hard ones among them."""
    if shown.task is None:
        return {"examples": [], "line": ""}
    if report is None:
        return {
            "examples": [
                {"text": t, "mark": label, "kind": "plain"} for t, label in _one_each(shown.task)
            ],
            "line": "From the test texts, which training never reads:",
        }
    surest = {one.said: one for one in report.barely_right}  # the last of each label stays
    clear = sorted(surest.values(), key=lambda one: -one.probability)[:2]
    chosen = [
        *(_example(one, "clear", one.said) for one in clear),
        *(_example(one, "hard", f"hard: {one.truth}") for one in report.barely_right[:2]),
        *(_example(one, "wrong", f"missed: {one.truth}") for one in report.mistakes[:2]),
    ]
    unique = {example["text"]: example for example in reversed(chosen)}
    return {
        "examples": [example for example in chosen if unique[example["text"]] is example],
        "line": "From the test texts, easy, hard and missed by this model:",
    }


def _one_each(task: Task) -> list[tuple[str, str]]:
    """A short test text of each label, for up to four labels."""
    out = []
    for index, label in enumerate(task.labels[:4]):
        texts = [e.text for e in task.test if e.label == index]
        if texts:
            out.append((min(texts, key=lambda t: abs(len(t) - 90)), label))
    return list(reversed(out))


def _example(one: Judged, kind: str, mark: str) -> dict[str, Any]:
    return {"text": one.text, "mark": mark, "kind": kind, "said": one.said, "p": one.probability}


def judged_value(report: TestReport | None) -> dict[str, Any]:
    """The confusion matrix and the most confident mistakes."""
    if report is None:
        return {"rows": 0}
    size = len(report.labels)
    pairs: list[tuple[int, str, str]] = [
        (report.confusion[i][j], report.labels[i], report.labels[j])
        for i in range(size)
        for j in range(size)
        if i != j and report.confusion[i][j]
    ]
    pairs.sort(key=lambda pair: -pair[0])
    return {
        "rows": len(report.judged),
        "correct": report.correct,
        "labels": list(report.labels),
        "confusion": [list(row) for row in report.confusion] if size <= _CONFUSED else None,
        "pairs": pairs[:_MISTAKES],
        "wrong": len(report.judged) - report.correct,
        "mistakes": [
            {"text": m.text, "truth": m.truth, "said": m.said, "p": m.probability}
            for m in report.mistakes[:_MISTAKES]
        ],
    }


def pinned_value(run: Run | None, text: str) -> dict[str, Any]:
    """The pinned text's probabilities along a run, if that run watched a text."""
    value: dict[str, Any] = {"text": text or "", "steps": [], "labels": [], "lines": []}
    watched = [e for e in run.events_since(0) if isinstance(e, Watched)] if run else []
    labels = run.task.labels if run and run.task else ()
    if run is None or not watched or not labels:
        return value
    last = watched[-1].probabilities[0]
    # One line for two labels, as the other is its mirror image; whose, is settled by the end.
    order = sorted(range(len(labels)), key=lambda i: -last[i])[: 1 if len(labels) == 2 else 3]
    if len(labels) == 2 and not run.is_over:
        order = [1]
    return value | {
        "watched": run.watch_texts[0],
        "model": long_name(run),
        "total": run.train_config.steps if run.train_config else watched[-1].step,
        "steps": [event.step for event in watched],
        "labels": [labels[i] for i in order],
        "lines": [[event.probabilities[0][i] for event in watched] for i in order],
    }
