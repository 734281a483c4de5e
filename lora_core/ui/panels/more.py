"""The settings that a first run does without, each with a sentence, in a fold."""

from __future__ import annotations

from typing import Any

import gradio as gr

from lora_core.config import TARGETS, default_steps
from lora_core.limits import Limits
from lora_core.preparation import DEFAULT_LEARNING_RATES
from lora_core.ui.names import layer_name
from lora_core.ui.settings import SEEDS, Settings
from lora_core.ui.text import words
from lora_core.ui.text.catalogue import say

_RATES = (1e-4, 3e-4, 1e-3, 2e-3, 3e-3, 5e-3, 1e-2, 3e-2, 1e-1)
_STEPS = (10, 50, 100, 150, 200, 300, 500, 1000)
_WIDTH = 220
_ROWS = (
    ("targets",),
    ("scaling", "head"),
    ("learning_rate", "steps"),
    ("batch_size", "dropout"),
    ("seed", "seeds"),
    ("base",),
)


def controls(
    default: Settings, limits: Limits, bases: list[tuple[str, str]]
) -> dict[str, gr.Component]:
    """The controls by the names of their settings, not yet placed on the page."""

    def shown(name: str) -> dict[str, Any]:
        label, info = say(f"more.{name}"), f"more.{name}_info"
        return {"label": label, "info": say(info, **_PLACES.get(name, {})), "render": False}

    made: dict[str, gr.Component] = {}
    made["targets"] = gr.CheckboxGroup(
        [(layer_name(t), t) for t in TARGETS], value=list(default.targets), **shown("targets")
    )
    made["scaling"] = gr.Radio(
        [(label, name) for name, label in words.SCALINGS.items()],
        value=default.scaling,
        min_width=_WIDTH,
        **shown("scaling"),
    )
    made["head"] = gr.Radio(
        [(say("more.head_train"), "train"), (say("more.head_lora"), "lora")],
        value=default.head,
        min_width=_WIDTH,
        **shown("head"),
    )
    made["learning_rate"] = gr.Dropdown(
        [(say("more.rate_default"), 0.0), *((f"{rate:g}", rate) for rate in _RATES)],
        value=default.learning_rate,
        allow_custom_value=True,
        min_width=_WIDTH,
        **shown("learning_rate"),
    )
    made["steps"] = gr.Dropdown(
        [
            (say("more.rate_default"), 0),
            *((str(steps), steps) for steps in _STEPS if steps <= limits.max_steps),
        ],
        value=default.steps,
        allow_custom_value=True,
        min_width=_WIDTH,
        **shown("steps"),
    )
    made["batch_size"] = gr.Slider(
        1,
        min(64, limits.max_batch),
        value=default.batch_size,
        step=1,
        min_width=_WIDTH,
        **shown("batch_size"),
    )
    made["dropout"] = gr.Slider(
        0.0, 0.5, value=default.dropout, step=0.05, min_width=_WIDTH, **shown("dropout")
    )
    made["seed"] = gr.Number(value=default.seed, precision=0, min_width=_WIDTH, **shown("seed"))
    made["seeds"] = gr.Radio(
        [(str(number), number) for number in SEEDS],
        value=default.seeds,
        min_width=_WIDTH,
        **shown("seeds"),
    )
    made["base"] = gr.Dropdown(
        [(say("more.base_bundled") if name == "bundled" else title, name) for title, name in bases],
        value=default.base,
        min_width=_WIDTH,
        **shown("base"),
    )
    return made


def build(made: dict[str, gr.Component]) -> None:
    """Place them, in a fold."""
    with gr.Accordion(
        say("more.title"), open=False, elem_classes=["fold", "expert"], elem_id="more"
    ):
        for row in _ROWS:
            with gr.Row():
                for name in row:
                    made[name].render()  # type: ignore[no-untyped-call]


_PLACES: dict[str, dict[str, object]] = {
    "learning_rate": {
        "rates": ", ".join(
            f"{words.METHODS[method]} {rate:g}" for method, rate in DEFAULT_LEARNING_RATES.items()
        )
    },
    "steps": {"two": default_steps(2), "eight": default_steps(8)},
}
