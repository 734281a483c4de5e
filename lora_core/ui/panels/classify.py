"""Step 3, Classify: type, and see what both models answer; follow a text while it trains.

Nothing here waits behind training: every listener runs outside the queue. The browser draws all
of it (`assets/page/classify.js`), as text nodes only, so that nothing typed is ever read as HTML.
"""

from __future__ import annotations

import math
import unicodedata
from typing import Any

import gradio as gr

from lora_core.base.checkpoint import BaseError
from lora_core.classifier import ClassifyError, Prediction
from lora_core.config import ConfigError
from lora_core.errors import LabError
from lora_core.tasks.bundled import load_task
from lora_core.tasks.task import TaskError
from lora_core.ui.context import Context
from lora_core.ui.drawing.browser_part import part
from lora_core.ui.names import task_of
from lora_core.ui.panels.adapt import one_each
from lora_core.ui.panels.viewer import Shown, Viewer
from lora_core.ui.settings import Settings
from lora_core.ui.text import words
from lora_core.ui.text.catalogue import say

_ROWS = 5  # labels shown one by one; the others are summed up until they are asked for
_EXAMPLES = 4  # texts to try
LONGEST = 20_000  # characters that the box takes
_LOOKED_AT = 2_000  # characters from which the script of a text is told
_SCRIPT = "classify.js"


def text_box() -> gr.Textbox:
    """The visitor's text, not yet placed on the page; at first a test text of the default task."""
    texts = one_each(load_task(Settings().task))
    return gr.Textbox(
        texts[-1][0],
        label=say("classify.text"),
        lines=3,
        max_lines=6,
        max_length=LONGEST,
        elem_id="text",
        render=False,
    )


def followed_part() -> gr.HTML:
    """The followed text along the run, not yet placed on the page."""
    return part("followed", {"texts": []}, script=_SCRIPT, elem_id="followed", render=False)


def build(context: Context, viewer: Viewer, followed: gr.HTML) -> tuple[gr.Slider, gr.HTML]:
    """The panel. Returns the strength and the answer, which `evidence` listens to."""
    gr.HTML(words.heading("classify"), apply_default_css=False)
    text = context.text
    text.render()  # type: ignore[no-untyped-call]
    first = _first(viewer, text.value)
    state = part("shown", first["shown"], script=_SCRIPT, elem_id="shown")
    answer = part("answer", first["answer"], script=_SCRIPT, elem_id="answer")
    strength = gr.Slider(
        0,
        2,
        1,
        step=0.05,
        label=say("classify.strength"),
        info=say("classify.strength_info"),
        elem_id="strength",
    )
    with gr.Row(elem_classes="links"):
        pin = _quiet(say("classify.pin"), "pin")
        unpin = _quiet(say("classify.unpin"), "unpin", interactive=False)
    followed.render()  # type: ignore[no-untyped-call]

    where = [context.visitor, context.ready]
    private: dict[str, Any] = {"show_progress": "hidden", "api_visibility": "private"}
    at_once: dict[str, Any] = {**private, "queue": False, "trigger_mode": "always_last"}

    def classify(visitor: str, run_id: str, typed: str, scale: float, *values: Any) -> Any:
        try:
            shown = viewer.find(visitor, run_id, values)
            return answer_value(shown, typed, scale)
        except LabError as error:
            return {"problem": str(error)}

    other_model = [context.ready.change, *(c.change for c in viewer.inputs)]  # type: ignore[attr-defined]
    gr.on(
        [text.change, strength.change, *other_model],
        classify,
        [*where, text, strength, *viewer.inputs],
        answer,
        **at_once,
    )

    def on_model(visitor: str, run_id: str, *values: Any) -> Any:
        try:
            shown = viewer.find(visitor, run_id, values)
        except LabError:
            return gr.skip()
        return shown_value(viewer, shown, visitor, str(values[0] or ""))

    gr.on(other_model, on_model, [*where, *viewer.inputs], state, **at_once)

    def on_task(visitor: str, run_id: str, typed: str, name: str) -> list[Any]:
        """A task that was trained on before shows its newest run. A text that was typed stays; an
        example makes room for one of this task."""
        lab = context.lab
        runs = [r for r in lab.registry.runs(visitor) if r.has_weights]
        fitting = [run.id for run in runs if task_of(run) == name]
        newest = gr.skip() if not fitting or run_id in fitting else fitting[-1]
        try:
            task = lab.task(name, visitor)
        except LabError:
            return [newest, gr.skip()]
        offered = {text for known in lab.tasks.values() for text, _ in one_each(known)}
        ours = not (typed or "").strip() or typed in offered
        mine = one_each(task)
        stays = not ours or not mine or typed in [text for text, _ in mine]
        return [newest, gr.skip() if stays else mine[-1][0]]

    chosen = [*where, text, context.task]
    context.task.change(on_task, chosen, [context.ready, text], queue=False, **private)
    # What is pinned is followed along the next runs, whatever is typed then.
    for button, script in ((pin, "(text) => LoraLab.pin(text)"), (unpin, "() => LoraLab.pin('')")):
        button.click(None, text, [context.pinned, unpin], js=script)
    return strength, answer


def _quiet(label: str, elem_id: str, *, interactive: bool = True) -> gr.Button:
    return gr.Button(
        label,
        size="sm",
        elem_id=elem_id,
        elem_classes="quiet",
        min_width=80,
        interactive=interactive,
    )


def _first(viewer: Viewer, text: str) -> dict[str, Any]:
    """What a first visit sees, before the browser has asked for anything."""
    default = Settings()
    try:
        shown = viewer.find("", "", (default.task, default.base, default.seed))
        return {
            "answer": answer_value(shown, text, 1.0),
            "shown": shown_value(viewer, shown, "", default.task),
        }
    except (ClassifyError, ConfigError, TaskError, BaseError) as error:
        nothing = {"sentence": "", "button": ""}
        return {"answer": {"problem": str(error)}, "shown": nothing}


def shown_value(viewer: Viewer, shown: Shown, visitor: str, chosen: str) -> dict[str, Any]:
    """Which model answers, when it is not the chosen task's; with what the button says that
    trains the chosen one."""
    if shown.run is None or task_of(shown.run) == chosen:
        return {"sentence": "", "button": ""}
    model = shown.task.title if shown.task else task_of(shown.run)
    try:
        title = viewer.lab.task(chosen, visitor).title or chosen
    except TaskError:
        return {"sentence": say("shown.only", model=model), "button": ""}
    return {
        "sentence": say("shown.other", model=model, task=title),
        "button": say("shown.train", task=title),
    }


def strength_of(slider: Any) -> float:
    """What the slider holds, as a number from 0 to 2; an emptied box is 1."""
    try:
        value = float(slider)
    except (TypeError, ValueError):
        return 1.0
    return min(2.0, max(0.0, value)) if math.isfinite(value) else 1.0


def answer_value(shown: Shown, text: str, strength: float) -> dict[str, Any]:
    """Both answers as rows of (label, base, adapted). Raises `ClassifyError`."""
    strength = strength_of(strength)
    base = shown.classifier.classify(text, 0.0)
    adapted = shown.classifier.classify(text, strength) if shown.trained else None
    rows, others = _rows(base, adapted)
    is_guess = shown.classifier.base_name == "bundled" and in_another_script(text)
    return {
        "problem": "",
        "text": text,
        "model": shown.name,
        "strength": strength,
        "base": base.label,
        "base_p": base.probabilities[base.label],
        "adapted": adapted.label if adapted else None,
        "adapted_p": adapted.probabilities[adapted.label] if adapted else None,
        "rows": rows,
        "others": others,
        "tokens": base.tokens,
        "truncated": base.truncated,
        "note": say("answer.english") if is_guess else "",
    }


def in_another_script(text: str) -> bool:
    """Whether most letters of a text are of another script than the Latin one."""
    letters = [c for c in unicodedata.normalize("NFKC", text[:_LOOKED_AT]) if c.isalpha()]
    others = sum("LATIN" not in unicodedata.name(letter, "") for letter in letters)
    return 2 * others > len(letters)


def _rows(base: Prediction, adapted: Prediction | None) -> tuple[list[list[Any]], list[list[Any]]]:
    """(label, base, adapted) of the leading labels, and of the others, which are summed up until
    they are asked for: the task's own order while all fit, so nothing jumps."""
    leading = (adapted or base).probabilities
    labels = list(leading)
    if len(labels) > _ROWS + 1:
        labels = sorted(labels, key=lambda label: -leading[label])[:_ROWS]
    rest = sorted(
        (name for name in leading if name not in labels), key=lambda label: -leading[label]
    )

    def row(label: str) -> list[Any]:
        return [label, base.probabilities[label], adapted and adapted.probabilities[label]]

    return [row(label) for label in labels], [row(label) for label in rest]
