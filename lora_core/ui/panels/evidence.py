"""Below step 3: why this answer. The words that mattered, and how the test texts are answered."""

from __future__ import annotations

from typing import Any

import gradio as gr

from lora_core.errors import LabError
from lora_core.explain.attribution import Attribution, attribute
from lora_core.explain.test_report import Judged, TestReport
from lora_core.ui.context import Context
from lora_core.ui.drawing.browser_part import part
from lora_core.ui.panels.classify import strength_of
from lora_core.ui.panels.viewer import Shown, Viewer
from lora_core.ui.text import words
from lora_core.ui.text.catalogue import say

_CONFUSED = 40  # a confusion matrix of more classes is written as a list
_MISTAKES = 8
_EXAMPLES = 4  # texts to try
_SCRIPT = "classify.js"


def build(context: Context, viewer: Viewer, strength: gr.Slider, answer: gr.HTML) -> None:
    """The panel; `strength` and `answer` are step 3's."""
    gr.HTML(words.heading("evidence"), apply_default_css=False)
    chips = part("examples", {"examples": []}, script=_SCRIPT, elem_id="examples")
    evidence = part("evidence", evidence_value(None, "", 1.0), script=_SCRIPT, elem_id="evidence")
    judged = part("judged", judged_value(None), script=_SCRIPT, elem_id="judged")
    gr.HTML(words.folds(["strength"]), apply_default_css=False)
    at_once: dict[str, Any] = {
        "show_progress": "hidden",
        "api_visibility": "private",
        "queue": False,
        "trigger_mode": "always_last",
    }
    where = [context.visitor, context.ready]

    def weigh(visitor: str, run_id: str, typed: str, scale: float, *values: Any) -> Any:
        try:
            shown = viewer.find(visitor, run_id, values)
            return evidence_value(shown, typed, scale)
        except LabError:
            return evidence_value(None, typed, scale)  # the answer has said what is wrong

    # `answer` submits when it has stood still for a moment: no words are weighed while one types.
    answer.submit(weigh, [*where, context.text, strength, *viewer.inputs], evidence, **at_once)

    def judge(visitor: str, run_id: str, *values: Any) -> list[Any]:
        try:
            report = viewer.report(viewer.find(visitor, run_id, values))
        except LabError:
            return [gr.skip(), gr.skip()]
        return [examples_value(report), judged_value(report)]

    other_model = [context.ready.change, *(c.change for c in viewer.inputs)]  # type: ignore[attr-defined]
    gr.on(other_model, judge, [*where, *viewer.inputs], [chips, judged], **at_once)


def evidence_value(shown: Shown | None, text: str, strength: float) -> dict[str, Any]:
    """The text in pieces, each with its weight or None for what lies between words."""
    if shown is None or not shown.trained or not (text or "").strip():
        return {"shown": False, "trained": bool(shown and shown.trained), "pieces": []}
    attribution = attribute(shown.classifier, text, strength_of(strength))
    return {
        "shown": True,
        "trained": True,
        "label": attribution.label,
        "probability": attribution.probability,
        "pieces": _pieces(text, attribution),
        "group": attribution.group,
        "unread": len(text) - attribution.read,
    }


def _pieces(text: str, attribution: Attribution) -> list[list[Any]]:
    pieces: list[list[Any]] = []
    at = 0
    for word in attribution.words:
        if word.span.start > at:
            pieces.append([text[at : word.span.start]])
        pieces.append([text[word.span.start : word.span.end], word.weight, word.without])
        at = word.span.end
    return pieces


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
        "reliability": [
            [one.confidence, one.accuracy, one.count] for one in report.reliability if one.count
        ],
        "apart": report.calibration_error,
        "mistakes": [
            {"text": m.text, "truth": m.truth, "said": m.said, "p": m.probability}
            for m in report.mistakes[:_MISTAKES]
        ],
    }


def examples_value(report: TestReport | None) -> dict[str, Any]:
    """Test texts to try: missed, hard and clear ones for the model that is shown."""
    if report is None:
        return {"examples": [], "line": ""}
    surest = {one.said: one for one in report.barely_right}  # the last of each label stays
    clear = sorted(surest.values(), key=lambda one: -one.probability)[:2]
    chosen = [
        *(
            _example(one, "wrong", say("examples.missed", label=one.truth))
            for one in report.mistakes[:1]
        ),
        *(
            _example(one, "hard", say("examples.hard", label=one.truth))
            for one in report.barely_right[:2]
        ),
        *(_example(one, "clear", one.said) for one in clear),
    ]
    unique = {example["text"]: example for example in reversed(chosen)}
    return {
        "examples": [example for example in chosen if unique[example["text"]] is example][
            :_EXAMPLES
        ],
        "line": say("examples.judged"),
    }


def _example(one: Judged, kind: str, mark: str) -> dict[str, Any]:
    return {"text": one.text, "mark": mark, "kind": kind, "said": one.said, "p": one.probability}
