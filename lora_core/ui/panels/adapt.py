"""Step 1, Adapt: what is trained, how strongly, and what it costs, before anything is trained."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any, cast, get_args

import gradio as gr

from lora_core.base.checkpoint import HUB_NAMES
from lora_core.config import (
    EMBEDDING_TARGET,
    HEAD,
    TARGETS,
    GPTConfig,
    LoRAConfig,
    Method,
    Scaling,
    lora_scale,
)
from lora_core.errors import LabError
from lora_core.parameters import ParameterCount, predict_parameters
from lora_core.preparation import DEFAULT_LEARNING_RATES
from lora_core.ui.context import Context, Lab
from lora_core.ui.drawing.browser_part import part
from lora_core.ui.drawing.layer import HEIGHT, WIDTH, draw
from lora_core.ui.panels import own_table
from lora_core.ui.settings import Settings
from lora_core.ui.text import words

RANKS = (1, 2, 4, 8, 16, 32, 64)
ALPHAS = (1, 2, 4, 8, 16, 32, 64, 128)
_NAMES = {
    "query": "query (attention)",
    "key": "key (attention)",
    "value": "value (attention)",
    "attention.output": "output (attention)",
    "mlp.up": "up (MLP)",
    "mlp.down": "down (MLP)",
    EMBEDDING_TARGET: "word pieces (embedding)",
    HEAD: "classification head",
}


def build(context: Context) -> None:
    """The panel; fills `context.controls` and `context.task`."""
    default = Settings()
    drawing, numbers = describe(context.lab, default, "")
    gr.HTML(words.heading("adapt"), apply_default_css=False)
    with gr.Row(elem_classes="choices"):
        context.task = task = gr.Dropdown(
            own_table.task_choices(context.lab), value=default.task, label="Task", min_width=150
        )
        method = gr.Radio(
            [(label, name) for name, label in words.METHODS.items()],
            value=default.method,
            label="Method",
            elem_classes="segmented",
            min_width=220,
        )
    with gr.Row(elem_classes="dials"):
        with gr.Column(min_width=180, scale=4):
            rank = part(
                "notches",
                default.rank,
                script="adapt.js",
                elem_id="rank",
                name="rank",
                title="Rank",
                symbol="r",
                choices=list(RANKS),
                hint="How wide A and B are: room to learn, and what it costs.",
            )
            alpha = part(
                "notches",
                default.alpha,
                script="adapt.js",
                elem_id="alpha",
                name="alpha",
                title="Alpha",
                symbol="α",
                choices=list(ALPHAS),
                hint="How loudly what A and B learned is added. It costs nothing.",
            )
        with gr.Column(min_width=260, scale=6):
            layer = part("drawing", drawing, script="adapt.js", elem_id="drawing")
    counts = part("numbers", numbers, script="adapt.js", elem_id="numbers")
    with gr.Accordion("More settings", open=False, elem_classes="fold", elem_id="more"):
        rest = _more(default)
    own_table.build(context)
    gr.HTML(words.fold("adapt"), apply_default_css=False)
    address = gr.Textbox("", visible="hidden", elem_id="address", label="Settings in the address")

    context.controls[:] = [
        task,
        rest["base"],
        method,
        rank,
        alpha,
        rest["targets"],
        rest["scaling"],
        rest["head"],
        rest["dropout"],
        rest["learning_rate"],
        rest["steps"],
        rest["batch_size"],
        rest["seed"],
    ]

    for name, control in zip(Settings.names(), context.controls, strict=True):
        control.elem_classes = [*(control.elem_classes or []), f"set-{name}"]  # for presets

    def changed(visitor: str, *values: Any) -> list[Any]:
        """New numbers and a new address for the settings that the controls show."""
        try:
            settings = Settings.from_values(*values)
            settings.lora_config()
            settings.train_config()
            drawing, numbers = describe(context.lab, settings, visitor)
        except LabError as error:
            return [gr.skip(), {"problem": str(error)}, gr.skip()]
        return [drawing, numbers, settings.query()]

    gr.on(
        [control.change for control in context.controls],  # type: ignore[attr-defined]
        changed,
        [context.visitor, *context.controls],
        [layer, counts, address],
        trigger_mode="always_last",
        queue=False,
        show_progress="hidden",
        api_visibility="private",
    )
    address.change(None, address, None, js="(query) => { LoraLab.setAddress(query); }")


def _more(default: Settings) -> dict[str, gr.Component]:
    """The folded settings, each with a sentence."""
    rates = [1e-4, 3e-4, 1e-3, 2e-3, 3e-3, 5e-3, 1e-2, 3e-2, 1e-1]
    measured = ", ".join(f"{words.METHODS[m]} {r:g}" for m, r in DEFAULT_LEARNING_RATES.items())
    with gr.Row():
        targets = gr.CheckboxGroup(
            [(_NAMES[t], t) for t in TARGETS],
            value=list(default.targets),
            label="Layers to adapt",
            info="Adapting all of them, MLP and word pieces included, usually learns best.",
        )
    with gr.Row():
        scaling = gr.Radio(
            [(label, name) for name, label in words.SCALINGS.items()],
            value=default.scaling,
            label="Scale",
            info="α / r is the paper's; α / √r (rsLoRA) keeps large ranks learning.",
            min_width=220,
        )
        head = gr.Radio(
            [("Train in full", "train"), ("Frozen, with LoRA", "lora")],
            value=default.head,
            label="Classification head",
            info="It starts random, so it is usually trained in full; appendix E has LoRA on it.",
            min_width=220,
        )
    with gr.Row():
        learning_rate = gr.Dropdown(
            [("measured default", 0.0), *((f"{rate:g}", rate) for rate in rates)],
            value=default.learning_rate,
            label="Learning rate",
            info=f"Size of a step at its peak. Measured: {measured}.",
            allow_custom_value=True,
            min_width=220,
        )
        steps = gr.Slider(
            10,
            1000,
            value=default.steps,
            step=10,
            label="Steps",
            info="How many batches are learned from.",
            min_width=220,
        )
    with gr.Row():
        batch_size = gr.Slider(
            1,
            64,
            value=default.batch_size,
            step=1,
            label="Batch size",
            info="Texts a step: more is steadier and slower.",
            min_width=220,
        )
        dropout = gr.Slider(
            0.0,
            0.5,
            value=default.dropout,
            step=0.05,
            label="LoRA dropout",
            info="Share of A's inputs hidden at each step, against overfitting.",
            min_width=220,
        )
    with gr.Row():
        seed = gr.Number(
            value=default.seed,
            precision=0,
            label="Seed",
            info="The same seed gives the same run.",
            min_width=220,
        )
        base = gr.Dropdown(
            [("bundled small GPT", "bundled"), *((name, name) for name in HUB_NAMES)],
            value=default.base,
            label="Base model",
            info="GPT-2 is downloaded when first used, and slow without a GPU.",
            min_width=220,
        )
    return {
        "targets": targets,
        "scaling": scaling,
        "head": head,
        "learning_rate": learning_rate,
        "steps": steps,
        "batch_size": batch_size,
        "dropout": dropout,
        "seed": seed,
        "base": base,
    }


def describe(lab: Lab, settings: Settings, visitor: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """The values of the drawing and of the numbers, for every notch of rank and alpha at once.

    Raises `ConfigError` or `TaskError` for settings that cannot be used.
    """
    config = lab.shape(settings.base)
    classes = len(lab.task(settings.task, visitor).labels)
    ranks = sorted({*RANKS, settings.rank})
    lora = settings.lora_config()
    method = cast(Method, settings.method)
    return (
        _drawing(config, lora, ranks, settings.alpha, classes, method),
        _numbers(config, lora, ranks, classes, method),
    )


def _shape(config: GPTConfig, name: str, classes: int) -> tuple[int, int]:
    """(in, out) of a layer that can be adapted, by the end of its name."""
    width, hidden = config.emb_dim, config.hidden_dim
    ends = {
        "mlp.up": (width, hidden),
        "mlp.down": (hidden, width),
        EMBEDDING_TARGET: (config.vocab_size, width),
        HEAD: (width, classes),
    }
    return next((shape for end, shape in ends.items() if name.endswith(end)), (width, width))


def _drawing(
    config: GPTConfig,
    lora: LoRAConfig,
    ranks: Sequence[int],
    alpha: float,
    classes: int,
    method: Method,
) -> dict[str, Any]:
    layers, shapes = [], {}
    for name in TARGETS:
        n_in, n_out = _shape(config, name, classes)
        key = f"{n_in} × {n_out}"
        layers.append(
            {
                "name": name,
                "label": f"{_NAMES[name].split(' (')[0]}, {key}",
                "shape": key,
                "adapted": name in lora.targets,
            }
        )
        shapes[key] = _shape_drawings(n_in, n_out, ranks)
    scales: dict[str, list[dict[str, Any]]] = {}
    for rank in ranks:
        scales[str(rank)] = []
        for a in sorted({*map(float, ALPHAS), alpha}):
            scale = lora_scale(rank, a, lora.scaling)
            entry = {
                "alpha": a,
                "short": words.number(scale),
                "sentence": words.scale_sentence(rank, a, lora.scaling, scale),
                "weight": round(min(0.85, 0.12 + 0.16 * scale**0.5), 3),
            }
            scales[str(rank)].append(entry)
    first = next((name for name in TARGETS if name in lora.targets), TARGETS[0])
    return {
        "method": method,
        "size": [WIDTH, HEIGHT],
        "layers": layers,
        "first": first,
        "shapes": shapes,
        "scales": scales,
        "notes": {
            "full": "Every weight is trained; there is no A, no B, and nothing stays frozen.",
            "head": "Every W stays frozen; only the classification head after them is trained.",
            "untouched": "This layer is not adapted at present: it stays as it is.",
        },
    }


def _shape_drawings(n_in: int, n_out: int, ranks: Sequence[int]) -> dict[str, Any]:
    by_rank = {}
    for rank in ranks:
        placed = draw(n_in, n_out, rank)
        added, kept = rank * (n_in + n_out), n_in * n_out
        share = words.percent(100 * added / kept)
        by_rank[str(rank)] = {
            **{
                name: [round(v, 2) for v in getattr(placed, name)] for name in ("W", "A", "B", "AB")
            },
            "caption": f"A {n_in} × {rank} + B {rank} × {n_out} = {words.count(added)}",
            "words": (
                f"To scale: the frozen W of {n_in} by {n_out}, {words.count(kept)} numbers, and "
                f"beside it the trainable A of {n_in} by {rank} and B of {rank} by {n_out}, "
                f"together {words.count(added)} numbers, {share} of W."
            ),
        }
    return {
        "by_rank": by_rank,
        "caption": f"{n_in} × {n_out} = {words.count(n_in * n_out)}",
        "words": {
            "full": f"W of {n_in} by {n_out}, all of it trainable.",
            "head": f"W of {n_in} by {n_out}, all of it frozen.",
        },
    }


def _numbers(
    config: GPTConfig, lora: LoRAConfig, ranks: Sequence[int], classes: int, method: Method
) -> dict[str, Any]:
    full = predict_parameters(config, None, classes, "full")
    by_rank: dict[str, Any] = {}
    if method == "lora":
        for rank in ranks:
            adapted = dataclasses.replace(lora, rank=rank)
            counted = predict_parameters(config, adapted, classes, method)
            by_rank[str(rank)] = _count_words(config, counted, full, classes, adapted)
    else:
        counted = predict_parameters(config, None, classes, method)
        by_rank["any"] = _count_words(config, counted, full, classes, None)
    return {"method": method, "by_rank": by_rank}


def _count_words(
    config: GPTConfig,
    counted: ParameterCount,
    full: ParameterCount,
    classes: int,
    lora: LoRAConfig | None,
) -> dict[str, Any]:
    layers, outsized = [], []
    for name, layer in counted.by_module.items():
        adaptable = name.endswith((*TARGETS, HEAD))
        n_in, n_out = _shape(config, name, classes)
        too_big = bool(lora) and adaptable and layer.frozen > 0 and layer.trainable > layer.frozen
        if too_big:
            outsized.append(name)
        layers.append(
            [
                name,
                f"{n_in} × {n_out}" if adaptable else "",
                words.count(layer.frozen),
                words.count(layer.trainable),
                too_big,
            ]
        )
    warning = ""
    if outsized and lora:
        names = outsized[0] if len(outsized) == 1 else f"{len(outsized)} layers"
        first = counted.by_module[outsized[0]]
        warning = (
            f"At rank {lora.rank} the adapter of {names} is larger than what it adapts "
            f"({words.count(first.trainable)} against {words.count(first.frozen)} numbers). "
            "Training the layer itself would cost less."
        )
    return {
        "trainable": words.count(counted.trainable),
        "total": words.count(counted.total),
        "percent": words.percent(counted.percent),
        "file": words.megabytes(counted.trainable_bytes),
        "model": words.megabytes(full.trainable_bytes),
        "memory": words.megabytes(counted.optimizer_bytes),
        "full_memory": words.megabytes(full.optimizer_bytes),
        "segments": _segments(counted),
        "layers": layers,
        "warning": warning,
        "words": (
            f"The whole model as one bar: {words.count(counted.trainable)} of "
            f"{words.count(counted.total)} parameters are trainable, "
            f"{words.percent(counted.percent)}."
        ),
    }


def _segments(counted: ParameterCount) -> list[list[Any]]:
    """[label, parameters, trainable share] of the embeddings, each block, and the rest."""
    sums: dict[str, list[int]] = {}
    for name, layer in counted.by_module.items():
        head, _, rest = name.partition(".")
        group = f"Block {int(rest.split('.')[0]) + 1}" if head == "blocks" else _GROUPS[head]
        group_sums = sums.setdefault(group, [0, 0])
        group_sums[0] += layer.trainable
        group_sums[1] += layer.frozen
    return [
        [
            f"{group}: {words.count(trainable)} of {words.count(trainable + frozen)} trainable",
            trainable + frozen,
            trainable / (trainable + frozen),
        ]
        for group, (trainable, frozen) in sums.items()
    ]


_GROUPS = {
    "token_embedding": "Word pieces",
    "position_embedding": "Positions",
    "final_norm": "Final norm",
    HEAD: "Classification head",
}

assert set(get_args(Scaling)) == set(words.SCALINGS)
