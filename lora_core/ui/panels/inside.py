"""Step 4, Look inside: how much each layer changed, in how many directions, and what stayed.

The figures are drawn by `assets/page/inside.js`; the numbers are `lora_core.explain.changes`'s.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import gradio as gr

from lora_core.base.checkpoint import BaseError
from lora_core.config import EMBEDDING_TARGET, HEAD, POSITIONS_TARGET, ConfigError
from lora_core.explain.changes import (
    FrozenProof,
    HeatMap,
    InspectionError,
    LayerChange,
    effective_rank,
    frozen_proof,
    heat_map,
    layer_changes,
    singular_values,
)
from lora_core.tasks.task import TaskError
from lora_core.ui.context import Context, Lab
from lora_core.ui.drawing.browser_part import part
from lora_core.ui.panels.viewer import Shown, Viewer
from lora_core.ui.settings import Settings
from lora_core.ui.text import words
from lora_core.ui.text.explanations import INSIDE

_KINDS = {
    "attention.query": "query",
    "attention.key": "key",
    "attention.value": "value",
    "attention.output": "output",
    "mlp.up": "MLP up",
    "mlp.down": "MLP down",
}
_KINDS_OUTSIDE = {EMBEDDING_TARGET: "word pieces", POSITIONS_TARGET: "positions", HEAD: "head"}
_BARS = 64  # singular values drawn; of a whole matrix there are hundreds, and the rest is tiny
_LEVELS = 127  # shades of a heat map's colour to either side of zero
_SCRIPT = "inside.js"
_REFUSED = (ConfigError, TaskError, BaseError, InspectionError)


def build(context: Context) -> None:
    """The panel below its heading."""
    viewer = Viewer(context)
    default = Settings()
    try:
        first = inside_values(
            context.lab, viewer.find("", "", (default.task, default.base, default.seed))
        )
    except _REFUSED:
        first = [None, None, None]
    proof = part("proof", first[0], script=_SCRIPT, elem_id="proof")
    with gr.Row(elem_classes="inside-bench"):
        with gr.Column(scale=6, min_width=300):
            layers = part("layers", first[1], script=_SCRIPT, elem_id="layers")
        with gr.Column(scale=5, min_width=300):
            layer = part("layer", first[2], script=_SCRIPT, elem_id="layer")
    gr.HTML(INSIDE, apply_default_css=False)
    where = [context.visitor, context.ready]
    at_once: dict[str, Any] = {
        "queue": False,
        "trigger_mode": "always_last",
        "show_progress": "hidden",
        "api_visibility": "private",
    }

    def look(visitor: str, run_id: str, *values: Any) -> list[Any]:
        try:
            return inside_values(context.lab, viewer.find(visitor, run_id, values))
        except _REFUSED:
            return [gr.skip()] * 3

    triggers = [context.ready.change, *(c.change for c in viewer.inputs)]  # type: ignore[attr-defined]
    gr.on(triggers, look, [*where, *viewer.inputs], [proof, layers, layer], **at_once)

    def pick(visitor: str, run_id: str, event: gr.EventData, *values: Any) -> Any:
        try:
            return layer_value(viewer.find(visitor, run_id, values), str(event._data["name"]))
        except _REFUSED:
            return gr.skip()

    layers.select(pick, [*where, *viewer.inputs], layer, **at_once)


def inside_values(lab: Lab, shown: Shown) -> list[Any]:
    """The three figures: the proof, every layer, and the layer that changed most."""
    changes = layer_changes(shown.classifier) if shown.trained else []
    largest = max(changes, key=lambda change: change.ratio, default=None)
    return [
        proof_value(lab, shown),
        layers_value(shown, changes),
        layer_value(shown, largest.name if largest else ""),
    ]


def proof_value(lab: Lab, shown: Shown) -> dict[str, Any]:
    """Both digests of the base's weights with the sentence that says what they prove."""
    base = shown.base
    if base is None:
        sentence = "The base of this adapter is not loaded here, so there is nothing to compare."
        return {"before": "", "after": "", "equal": True, "trained": False, "sentence": sentence}
    if base.name not in lab.digests:
        lab.digests[base.name] = base.digest()
    found = frozen_proof(base, shown.classifier, lab.digests[base.name])
    return {
        "before": found.before,
        "after": found.after,
        "equal": found.equal,
        "trained": shown.trained,
        "sentence": _proof_words(found, shown),
    }


def _proof_words(found: FrozenProof, shown: Shown) -> str:
    numbers = f"{found.bytes // 4:,} numbers, {words.megabytes(found.bytes)}"
    if not found.equal:
        return f"They differ: the frozen weights ({numbers}) were changed. This must not happen."
    if not shown.trained:
        return f"The frozen weights: {numbers}. After a run they are hashed again, here."
    if _method(shown) == "full":
        return (
            f"Full fine-tuning trained a copy of all {numbers}. The shared base, hashed again "
            "after the run, is what it was, bit for bit."
        )
    return f"{numbers}, hashed before any training and again now: not one bit differs."


def _method(shown: Shown) -> str:
    config = shown.run.train_config if shown.run else None
    return config.method if config else "lora"


def layers_value(shown: Shown, changes: Sequence[LayerChange]) -> dict[str, Any]:
    """Size of each change, laid out as kinds of layers by blocks."""
    blocks = shown.classifier.model.config.n_layers
    by_name = {change.name: change for change in changes}
    rows = []
    for kind, title in _KINDS.items():
        cells = []
        for block in range(blocks):
            change = by_name.get(f"blocks.{block}.{kind}")
            cells.append(_cell(change) if change else None)
        rows.append({"kind": title, "cells": cells})
    outside = [c for c in changes if c.block is None]
    largest = max(changes, key=lambda c: c.ratio, default=None)
    return {
        "blocks": blocks,
        "rows": rows,
        "outside": [{"kind": _KINDS_OUTSIDE[c.kind], "cell": _cell(c)} for c in outside],
        "most": largest.ratio if largest else 0.0,
        "selected": largest.name if largest else "",
        "sentence": _layers_words(shown, changes, largest),
        "trained": shown.trained,
    }


def _cell(change: LayerChange) -> dict[str, Any]:
    percent = words.percent(100 * change.ratio)
    return {
        "name": change.name,
        "title": _title(change),
        "ratio": change.ratio,
        "words": percent,
    }


def _title(change: LayerChange) -> str:
    if change.block is None:
        return _KINDS_OUTSIDE[change.kind]
    return f"block {change.block + 1}, {_KINDS[change.kind]}"


def _layers_words(shown: Shown, changes: Sequence[LayerChange], largest: LayerChange | None) -> str:
    if not shown.trained:
        return (
            "Nothing is trained yet. At step 0 one of A and B is zero in every layer, so every "
            "ΔW = A·B is, and the adapted model is the base, exactly."
        )
    if largest is None:
        return (
            "Only the classification head was trained. Every layer of the model below it is as it "
            "was, so there is no ΔW to show."
        )
    if largest.change == 0:
        return "The best weights of this run are those of step 0: every ΔW is still zero."
    smallest = min(changes, key=lambda c: c.ratio)
    return (
        f"Most in {_title(largest)} ({words.percent(100 * largest.ratio)} of the size of W), "
        f"least in {_title(smallest)} ({words.percent(100 * smallest.ratio)})."
    )


def layer_value(shown: Shown, name: str) -> dict[str, Any] | None:
    """Spectrum and heat map of one layer's change. Raises `InspectionError` if it has none."""
    if not name:
        return {"name": ""}
    change = next((c for c in layer_changes(shown.classifier) if c.name == name), None)
    if change is None:
        raise InspectionError(f"No layer called '{name}' was changed by this run.")
    values = singular_values(shown.classifier, name)
    used = effective_rank(values)
    shades = heat_map(shown.classifier, name)
    top = shades.largest or 1.0
    return {
        "name": name,
        "title": _title(change),
        "shape": list(change.shape),
        "axes": _axes(change),
        "values": values[:_BARS].tolist(),
        "count": len(values),
        "used": used,
        "spectrum": _spectrum_words(change, used),
        "cells": (shades.values / top * _LEVELS).round().int().tolist(),
        "map": _map_words(change, shades),
        "largest": shades.largest,
        "largest_words": words.number(shades.largest, 2),
    }


def _axes(change: LayerChange) -> list[str]:
    """What the rows and the columns of a change are."""
    if change.kind in (EMBEDDING_TARGET, POSITIONS_TARGET):
        return [f"{change.shape[0]:,} {_KINDS_OUTSIDE[change.kind]}", f"{change.shape[1]} outputs"]
    return [f"{change.shape[0]} outputs", f"{change.shape[1]} inputs"]


def _map_words(change: LayerChange, shades: HeatMap) -> str:
    high, wide = shades.block
    dot = f"Each dot is the largest entry among {high} × {wide}. " if high * wide > 1 else ""
    if change.rank is None:
        return f"{dot}No stripes: every number moved by itself. Compare the same layer under LoRA."
    return f"{dot}Stripes are the mark of a low rank: whole rows and columns move together."


def _spectrum_words(change: LayerChange, used: float) -> str:
    room = change.largest_rank
    if used == 0:
        return "ΔW is zero: no direction is in use."
    share = words.percent(100 * used / room)
    if change.rank is None:
        return (
            f"Trained whole, ΔW could use {room} directions; in effect it uses {used:.1f} "
            f"({share}). This is the bet of LoRA: a change of low rank may be enough."
        )
    few = used < 0.5 * room and room > 2
    advice = (
        "A smaller rank might have done."
        if few
        else "The rank is well used."
        if used > 0.8 * room
        else "Some directions do most of the work."
    )
    if room == 1:
        return "Rank 1: there is one direction, and it is in use."
    return f"In effect {used:.1f} of {room} directions are in use ({share}). {advice}"
