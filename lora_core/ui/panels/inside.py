"""Step 4, Look inside: how much each layer changed, in how many directions, and what stayed.

The figures are drawn by `assets/page/inside.js`; the numbers are `lora_core.explain.changes`'s.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import gradio as gr

from lora_core.config import EMBEDDING_TARGET, LINEAR_TARGETS, POSITIONS_TARGET
from lora_core.errors import LabError
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
from lora_core.parameters import BYTES_FP32
from lora_core.ui.context import Context, Lab
from lora_core.ui.drawing.browser_part import part
from lora_core.ui.names import layer_name
from lora_core.ui.panels.viewer import Shown, Viewer
from lora_core.ui.settings import Settings
from lora_core.ui.text import words
from lora_core.ui.text.catalogue import say

# The rows of the figure: targets, and how a layer's name ends within its block.
_KINDS = {target: target if "." in target else f"attention.{target}" for target in LINEAR_TARGETS}
_BARS = 64  # singular values drawn; of a whole matrix there are hundreds, and the rest is tiny
_LEVELS = 127  # shades of a heat map's colour to either side of zero
_SCRIPT = "inside.js"


def build(context: Context, viewer: Viewer, beside: Callable[[], None]) -> None:
    """The panel below its heading; `beside` places what belongs beside the checksum."""
    default = Settings()
    try:
        first = inside_values(
            context.lab, viewer.find("", "", (default.task, default.base, default.seed))
        )
    except LabError:
        first = [None, None, None]
    proof = part("proof", first[0], script=_SCRIPT, elem_id="proof")
    beside()
    with gr.Row(elem_classes="inside-bench"):
        with gr.Column(scale=6, min_width=300):
            layers = part("layers", first[1], script=_SCRIPT, elem_id="layers")
        with gr.Column(scale=5, min_width=300):
            layer = part("layer", first[2], script=_SCRIPT, elem_id="layer")
    gr.HTML(words.folds(["measures"]), apply_default_css=False)
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
        except LabError:
            return [gr.skip()] * 3

    triggers = [context.ready.change, *(c.change for c in viewer.inputs)]  # type: ignore[attr-defined]
    gr.on(triggers, look, [*where, *viewer.inputs], [proof, layers, layer], **at_once)

    def pick(visitor: str, run_id: str, name: Any, *values: Any) -> Any:
        try:
            return layer_value(viewer.find(visitor, run_id, values), str(name))
        except LabError:
            return gr.skip()

    # The browser names the layer when it asks: on a busy server several presses become one call.
    layers.select(
        pick,
        [*where, gr.JSON(visible="hidden"), *viewer.inputs],
        layer,
        js="(visitor, run, _, ...rest) => [visitor, run, LoraLab.pressedLayer(), ...rest]",
        **at_once,
    )


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
        sentence = say("proof.no_base")
        return {"before": "", "after": "", "equal": True, "trained": False, "sentence": sentence}
    proof = frozen_proof(base, shown.classifier, lab.bases.digest(base))
    return {
        "before": proof.before,
        "after": proof.after,
        "equal": proof.equal,
        "trained": shown.trained,
        "sentence": _proof_words(proof, shown),
    }


def _proof_words(proof: FrozenProof, shown: Shown) -> str:
    numbers = say(
        "proof.numbers", numbers=proof.bytes // BYTES_FP32, size=words.megabytes(proof.bytes)
    )
    if not proof.equal:
        return say("proof.differ", numbers=numbers)
    if not shown.trained:
        return say("proof.untrained", numbers=numbers)
    return say("proof.full" if _method(shown) == "full" else "proof.same", numbers=numbers)


def _method(shown: Shown) -> str:
    config = shown.run.train_config if shown.run else None
    return config.method if config else "lora"


def layers_value(shown: Shown, changes: Sequence[LayerChange]) -> dict[str, Any]:
    """Size of each change, laid out as kinds of layers by blocks."""
    blocks = shown.classifier.model.config.n_layers
    by_name = {change.name: change for change in changes}
    rows = []
    for target, kind in _KINDS.items():
        cells = []
        for block in range(blocks):
            change = by_name.get(f"blocks.{block}.{kind}")
            cells.append(_cell(change) if change else None)
        rows.append({"kind": layer_name(target), "cells": cells})
    outside = [c for c in changes if c.block is None]
    largest = max(changes, key=lambda c: c.ratio, default=None)
    return {
        "blocks": blocks,
        "rows": rows,
        "outside": [{"kind": layer_name(c.name), "cell": _cell(c)} for c in outside],
        "most": largest.ratio if largest else 0.0,
        "selected": largest.name if largest else "",
        "sentence": _layers_words(shown, changes, largest),
        "trained": shown.trained,
    }


def _cell(change: LayerChange) -> dict[str, Any]:
    percent = words.percent(100 * change.ratio)
    return {
        "name": change.name,
        "title": layer_name(change.name),
        "ratio": change.ratio,
        "words": percent,
    }


def _layers_words(shown: Shown, changes: Sequence[LayerChange], largest: LayerChange | None) -> str:
    if not shown.trained:
        return say("layers.nothing")
    if largest is None:
        return say("layers.head_only")
    if largest.change == 0:
        return say("layers.zero")
    smallest = min(changes, key=lambda c: c.ratio)
    return say(
        "layers.most",
        most=layer_name(largest.name),
        most_share=words.percent(100 * largest.ratio),
        least=layer_name(smallest.name),
        least_share=words.percent(100 * smallest.ratio),
    )


def layer_value(shown: Shown, name: str) -> dict[str, Any] | None:
    """Spectrum and heat map of one layer's change. Raises `InspectionError` if it has none."""
    if not name:
        return {"name": ""}
    change = next((c for c in layer_changes(shown.classifier) if c.name == name), None)
    if change is None:
        raise InspectionError(say("layer_view.none", name=name))
    values = singular_values(shown.classifier, name)
    used = effective_rank(values)
    shades = heat_map(shown.classifier, name)
    top = shades.largest or 1.0
    return {
        "name": name,
        "title": layer_name(change.name),
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
    rows, columns = change.shape
    if change.kind in (EMBEDDING_TARGET, POSITIONS_TARGET):
        down = say("layer_view.rows_of", n=rows, kind=layer_name(change.name))
        return [down, say("layer_view.rows", n=columns)]
    return [say("layer_view.rows", n=rows), say("layer_view.columns", n=columns)]


def _map_words(change: LayerChange, shades: HeatMap) -> str:
    high, wide = shades.block
    about = say("layer_view.no_stripes" if change.rank is None else "layer_view.stripes")
    if high * wide == 1:
        return about
    return say("layer_view.dots", high=high, wide=wide, about=about)


def _spectrum_words(change: LayerChange, used: float) -> str:
    room = change.largest_rank
    if used == 0:
        return say("layer_view.unused")
    if room == 1:
        return say("layer_view.one_direction")
    few = used < 0.5 * room and room > 2
    key = "few" if few else "many" if used > 0.8 * room else "some"
    return say(
        "layer_view.whole" if change.rank is None else f"layer_view.{key}",
        room=room,
        used=f"{used:.1f}",
        share=words.percent(100 * used / room),
    )
