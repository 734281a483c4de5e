"""What the drawing and the numbers of step 1 show, for every notch of rank and alpha at once.

Computed once for a task, a method and a choice of layers; the browser looks up what the sliders
ask for.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any, cast, get_args

from lora_core.adapters.size import adapter_file_bytes
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
from lora_core.parameters import ParameterCount, predict_parameters
from lora_core.ui.context import Lab
from lora_core.ui.drawing.layer import HEIGHT, WIDTH, draw
from lora_core.ui.names import block_name, layer_name
from lora_core.ui.settings import Settings
from lora_core.ui.sweeps import ranks_of
from lora_core.ui.text import words
from lora_core.ui.text.catalogue import say

RANKS = (1, 2, 4, 8, 16, 32, 64)
ALPHAS = (1, 2, 4, 8, 16, 32, 64, 128)


def describe(lab: Lab, settings: Settings, visitor: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """The values of the drawing and of the numbers, for every notch of rank and alpha at once.

    Raises `ConfigError` or `TaskError` for settings that cannot be used.
    """
    config = lab.shape(settings.base)
    classes = len(lab.task(settings.task, visitor).labels)
    swept = ranks_of(lab.registry.limits)
    ranks = sorted({*RANKS, *swept, settings.rank})
    lora = settings.lora_config()
    method = cast(Method, settings.method)
    return (
        _drawing(config, lora, ranks, settings.alpha, classes, method),
        _numbers(config, lora, ranks, classes, method) | _planned(config, lora, swept, classes),
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
                "label": say("drawing.layer", layer=layer_name(name), shape=key),
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
        "notes": {name: say(f"drawing.note_{name}") for name in ("full", "head", "untouched")},
    }


def _shape_drawings(n_in: int, n_out: int, ranks: Sequence[int]) -> dict[str, Any]:
    by_rank = {}
    for rank in ranks:
        placed = draw(n_in, n_out, rank)
        added, whole = rank * (n_in + n_out), n_in * n_out
        share = words.percent(100 * added / whole)
        by_rank[str(rank)] = {
            **{
                name: [round(v, 2) for v in getattr(placed, name)] for name in ("W", "A", "B", "AB")
            },
            "caption": f"A {n_in} × {rank} + B {rank} × {n_out} = {words.count(added)}",
            "words": say(
                "drawing.spoken",
                rows=n_in,
                columns=n_out,
                kept=whole,
                rank=rank,
                added=added,
                share=share,
            ),
        }
    return {
        "by_rank": by_rank,
        "caption": f"{n_in} × {n_out} = {words.count(n_in * n_out)}",
        "words": {
            "full": say("drawing.spoken_full", rows=n_in, columns=n_out),
            "head": say("drawing.spoken_head", rows=n_in, columns=n_out),
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
                layer_name(name),
                f"{n_in} × {n_out}" if adaptable else "",
                words.count(layer.frozen),
                words.count(layer.trainable),
                too_big,
            ]
        )
    warning = ""
    if outsized and lora:
        first = counted.by_module[outsized[0]]
        warning = say(
            "numbers.outsized",
            n=len(outsized),
            rank=lora.rank,
            layer=layer_name(outsized[0]),
            adapter=first.trainable,
            layer_size=first.frozen,
        )
    return {
        "trainable": words.count(counted.trainable),
        "total": words.count(counted.total),
        "percent": words.percent(counted.percent),
        "file": words.megabytes(
            adapter_file_bytes(config, lora, classes) if lora else counted.trainable_bytes
        ),
        "model": words.megabytes(full.trainable_bytes),
        "memory": words.megabytes(counted.optimizer_bytes),
        "full_memory": words.megabytes(full.optimizer_bytes),
        "segments": _segments(counted),
        "layers": layers,
        "warning": warning,
        "words": say(
            "numbers.bar",
            trainable=counted.trainable,
            total=counted.total,
            percent=words.percent(counted.percent),
        ),
    }


def _segments(counted: ParameterCount) -> list[list[Any]]:
    """[label, parameters, trainable share] of the embeddings, each block, and the rest."""
    sums: dict[str, list[int]] = {}
    for name, layer in counted.by_module.items():
        head, _, rest = name.partition(".")
        group = block_name(int(rest.split(".")[0])) if head == "blocks" else layer_name(name)
        group_sums = sums.setdefault(group, [0, 0])
        group_sums[0] += layer.trainable
        group_sums[1] += layer.frozen
    return [
        [
            say("numbers.segment", part=group, trainable=trainable, total=trainable + frozen),
            trainable + frozen,
            trainable / (trainable + frozen),
        ]
        for group, (trainable, frozen) in sums.items()
    ]


def _planned(
    config: GPTConfig, lora: LoRAConfig, ranks: Sequence[int], classes: int
) -> dict[str, Any]:
    """What a sweep of this task would train: each rank, and every weight."""
    counted = {
        say("names.rank", rank=rank): predict_parameters(
            config, dataclasses.replace(lora, rank=rank), classes
        )
        for rank in ranks
    }
    counted[words.METHOD_NAMES["full"]] = predict_parameters(config, None, classes, "full")
    planned = [
        {
            "name": name,
            "trainable": count.trainable,
            "percent": words.percent(count.percent),
        }
        for name, count in counted.items()
    ]
    return {"planned": planned}


assert set(get_args(Scaling)) == set(words.SCALINGS)
