"""Between our layers and PEFT's tensors, both ways.

GPT-2 in `transformers` has query, key and value in one layer, `c_attn`. Our three adapters of rank
r become one of rank 3r, exactly: the A's are stacked, each B fills its own block of rows and
columns, and alpha is scaled so that alpha / rank (or its square root, for rsLoRA) stays what it
was. The way back takes, for each third of the rows, the columns that are not zero. An embedding's
pair is called lora_embedding_A and lora_embedding_B there.
The head has a way of its own: `head.py`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from lora_core.adapters.files import (
    CONFIG_FILE,
    AdapterError,
    OtherBaseError,
    UnreadableExpressionError,
    pattern_value,
    quoted,
)
from lora_core.adapters.head import LARGEST, head_classes, head_of, norm_bias_for, set_head
from lora_core.adapters.names import plain_names
from lora_core.adapters.size import EMBEDDING_PAIR, LINEAR_PAIR, PREFIX
from lora_core.base.checkpoint import Base
from lora_core.base.gpt2_names import (
    CLASSIFIER_NAME,
    EMBEDDING_NAMES,
    FINAL_NORM_NAME,
    FUSED,
    FUSED_NAME,
    LINEAR_NAMES,
    TRUNK,
)
from lora_core.config import (
    EMBEDDING_TARGET,
    HEAD,
    POSITIONS_TARGET,
    TARGETS,
    ConfigError,
    LoRAConfig,
    is_target,
    lora_scale,
)
from lora_core.lora import AdaptedLayer, EmbeddingWithLoRA, LinearWithLoRA, lora_layers
from lora_core.model import GPT

MAX_LOADED_RANK = 1024
_OURS = {theirs: ours for ours, theirs in LINEAR_NAMES.items()}


# Out ---------------------------------------------------------------------------------------------


def to_peft(model: GPT, lora: LoRAConfig, source: str) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """PEFT's configuration and tensors (float32) of a model's adapter and head.

    `source` is where the base is found: a folder or a Hub name. LoRA on the head is folded in.
    """
    rslora = lora.scaling == "alpha/sqrt(rank)"

    def alpha_for(scale: float, rank: int) -> float:
        return scale * (math.sqrt(rank) if rslora else rank)

    layers = dict(lora_layers(model))
    tensors: dict[str, Tensor] = {}
    ranks: dict[str, int] = {}
    alphas: dict[str, float] = {}

    def put(
        theirs: str, a: Tensor, b: Tensor, scale: float, pair: tuple[str, str] = LINEAR_PAIR
    ) -> None:
        name = f"{TRUNK}{theirs}"
        for end, tensor in zip(pair, (a, b), strict=True):
            tensors[f"{PREFIX}{name}{end}"] = tensor.T.clone(memory_format=torch.contiguous_format)
        ranks[name] = a.shape[1]
        alphas[name] = alpha_for(scale, a.shape[1])

    for ours, theirs in EMBEDDING_NAMES.items():
        if (layer := layers.get(ours)) is not None:
            a, b = layer.lora.A.detach(), layer.lora.B.detach()
            put(theirs, a, b, layer.lora.scale, EMBEDDING_PAIR)
    for i in range(model.config.n_layers):
        fused = [layers.get(f"blocks.{i}.{name}") for name in FUSED]
        if any(layer is not None for layer in fused):
            put(f"h.{i}.{FUSED_NAME}", *_fuse(fused, model.config.emb_dim))
        for ours, theirs in LINEAR_NAMES.items():
            layer = layers.get(f"blocks.{i}.{ours}")
            if layer is not None:
                a, b = layer.lora.A.detach(), layer.lora.B.detach()
                put(f"h.{i}.{theirs}", a, b, layer.lora.scale)

    weight, bias = head_of(model)
    tensors[f"{PREFIX}{CLASSIFIER_NAME}.weight"] = weight
    saved = [CLASSIFIER_NAME]
    # A trained head has its bias written even where it is zero: equal settings, equal sizes.
    if lora.head == "train" or bias.abs().max() > 0:
        saved.append(FINAL_NORM_NAME)
        tensors[f"{PREFIX}{TRUNK}{FINAL_NORM_NAME}.weight"] = (
            model.final_norm.weight.detach().clone()
        )
        tensors[f"{PREFIX}{TRUNK}{FINAL_NORM_NAME}.bias"] = norm_bias_for(model, weight, bias)

    everywhere = {kind for kind in (FUSED_NAME, *_OURS) if _in_every_block(kind, ranks, model)}
    config = {
        "peft_type": "LORA",
        "task_type": "SEQ_CLS",
        "base_model_name_or_path": source,
        "r": lora.rank,
        "lora_alpha": alpha_for(lora.scale, lora.rank),
        "lora_dropout": lora.dropout,
        "use_rslora": rslora,
        "target_modules": sorted({_short(n, everywhere) for n in ranks}),
        "layers_to_transform": None,
        "rank_pattern": {n: r for n, r in ranks.items() if r != lora.rank},
        "alpha_pattern": {n: a for n, a in alphas.items() if a != alpha_for(lora.scale, lora.rank)},
        "modules_to_save": saved,
        "fan_in_fan_out": True,
        "bias": "none",
        "init_lora_weights": True,
        "inference_mode": True,
    }
    return config, tensors


def _short(name: str, everywhere: set[str]) -> str:
    """How `target_modules` calls a layer: by the end of its name where that is the same in every
    block."""
    kind = name.split(".")[-1] if name.count(".") == 1 else name.split(".", 3)[3]
    return kind if kind in everywhere or kind in EMBEDDING_NAMES.values() else name


def _in_every_block(kind: str, ranks: Mapping[str, int], model: GPT) -> bool:
    return all(f"{TRUNK}h.{i}.{kind}" in ranks for i in range(model.config.n_layers))


def _fuse(layers: Sequence[AdaptedLayer | None], width: int) -> tuple[Tensor, Tensor, float]:
    """Adapters of query, key, value (some absent) -> A (in, R), B (R, 3 width), one scale."""
    present = [(third, layer.lora) for third, layer in enumerate(layers) if layer is not None]
    scale = present[0][1].scale
    a = torch.cat([lora.A.detach() for _, lora in present], dim=1)
    b = torch.zeros(a.shape[1], 3 * width)
    row = 0
    for third, lora in present:
        # Scales are equal in what we train; an adapter brought from elsewhere may differ.
        block = lora.B.detach() * (lora.scale / scale)
        b[row : row + lora.rank, third * width : (third + 1) * width] = block
        row += lora.rank
    return a, b, scale


# In ----------------------------------------------------------------------------------------------


def from_peft(
    config: Mapping[str, Any], tensors: dict[str, Tensor], facts: Mapping[str, Any], base: Base
) -> tuple[GPT, LoRAConfig]:
    """A classifier's model over `base` with the adapter in place, and its settings in our words.

    Raises `AdapterError` that names each tensor that is missing, left over or misshapen.
    """
    left = plain_names(tensors, base)
    pairs = _take_pairs(left, *LINEAR_PAIR)
    embeddings = _take_pairs(left, *EMBEDDING_PAIR)
    if not pairs and not embeddings:
        others = [name for name in left if "lora" in name.lower()]
        named = f" Its layers are called {quoted(others[0])}: no names of PEFT's." if others else ""
        raise AdapterError(f"There is no LoRA layer (lora_A, lora_B) in this file.{named}")
    model = base.classifier_model(head_classes(left, base, config.get("task_type")))
    set_head(model, left, facts, base)
    if left:
        raise AdapterError(f"Tensors that do not belong to a LoRA adapter: {_some(left)}.")
    model.requires_grad_(False)
    lora_facts = facts.get("lora")
    saved = _Saved(config, lora_facts if isinstance(lora_facts, dict) else {})
    for layer, (a, b) in pairs.items():
        _place(model, layer, a, b, saved)
    for layer, (a, b) in embeddings.items():
        _place_embedding(model, layer, a, b, saved)
    return model, _our_config(model, config, facts)


@dataclass(frozen=True)
class _Saved:
    """What an adapter's files say besides the tensors."""

    config: Mapping[str, Any]  # PEFT's
    lora_facts: Mapping[str, Any]  # ours, with the exact settings; empty in a file of others


def _take_pairs(left: dict[str, Tensor], a: str, b: str) -> dict[str, tuple[Tensor, Tensor]]:
    """Take the tensors whose names end in `a` and `b` out of `left`, by layer."""
    pairs: dict[str, tuple[Tensor, Tensor]] = {}
    for end, other in ((a, b), (b, a)):
        for name in [n for n in left if n.endswith(end)]:
            layer = name.removesuffix(end)
            if not layer.startswith(PREFIX + TRUNK):
                raise OtherBaseError(
                    f"GPT-2 has no layer {quoted(layer.removeprefix(PREFIX))}: this adapter "
                    "belongs to another kind of model."
                )
            if layer + other not in left:
                raise AdapterError(f"The tensor {quoted(layer + other, 200)} is missing.")
            if end == a:
                pairs[layer] = left[name], left[layer + other]
    for layer in pairs:
        del left[layer + a], left[layer + b]
    return pairs


def _place(model: GPT, layer: str, a: Tensor, b: Tensor, saved: _Saved) -> None:
    """Put PEFT's A (r, in) and B (out, r) of one of their layers into ours."""
    short = layer.removeprefix(PREFIX)
    parts = layer.removeprefix(PREFIX + TRUNK).split(".", 2)
    known = {f"{i}": i for i in range(model.config.n_layers)}
    ok = len(parts) == 3 and parts[0] == "h" and parts[1] in known
    if not ok or parts[2] not in (FUSED_NAME, *_OURS):
        deeper = len(parts) == 3 and parts[0] == "h" and parts[2] in (FUSED_NAME, *_OURS)
        about = f" It has {model.config.n_layers} blocks, from 0 on." if deeper else ""
        raise (OtherBaseError if deeper else AdapterError)(
            f"This base has no layer {quoted(short)} that LoRA could sit on.{about}"
        )
    i, theirs = known[parts[1]], parts[2]
    names = FUSED if theirs == FUSED_NAME else (_OURS[theirs],)
    linears = [model.get_submodule(f"blocks.{i}.{name}") for name in names]
    n_in = int(linears[0].in_features)  # type: ignore[arg-type]
    n_out = sum(int(linear.out_features) for linear in linears)  # type: ignore[arg-type, misc]
    scale = _checked_scale(short, a, b, (n_in, n_out), saved)
    blocks = b.chunk(len(names))
    for name, linear, block, columns in zip(
        names, linears, blocks, _columns(blocks, saved.lora_facts), strict=True
    ):
        assert isinstance(linear, nn.Linear)
        if not columns:
            continue  # this third of c_attn was not adapted
        wrapped = LinearWithLoRA(linear, len(columns), scale, scaling="alpha")
        with torch.no_grad():
            wrapped.lora.A.copy_(a[columns].T)
            wrapped.lora.B.copy_(block[:, columns].T)
        wrapped.lora.alpha = scale * len(columns)
        parent, _, child = f"blocks.{i}.{name}".rpartition(".")
        setattr(model.get_submodule(parent), child, wrapped.eval().requires_grad_(False))


def _place_embedding(model: GPT, layer: str, a: Tensor, b: Tensor, saved: _Saved) -> None:
    """Put PEFT's A (r, vocab) and B (emb, r) of an embedding into ours."""
    short = layer.removeprefix(PREFIX)
    theirs = layer.removeprefix(PREFIX + TRUNK)
    ours = next((name for name, known in EMBEDDING_NAMES.items() if known == theirs), None)
    if ours is None:
        raise AdapterError(f"This base has no embedding {quoted(short)} that LoRA could sit on.")
    table = model.get_submodule(ours)
    assert isinstance(table, nn.Embedding)
    rows, width = table.num_embeddings, table.embedding_dim
    if ours == EMBEDDING_TARGET and a.ndim == 2:
        a = a[:, :rows]  # tokens that were added to the vocabulary are not the base's
    scale = _checked_scale(short, a, b, (rows, width), saved)
    wrapped = EmbeddingWithLoRA(table, a.shape[0], scale, scaling="alpha")
    with torch.no_grad():
        wrapped.lora.A.copy_(a.T)
        wrapped.lora.B.copy_(b.T)
    wrapped.lora.alpha = scale * a.shape[0]
    setattr(model, ours, wrapped.eval().requires_grad_(False))


def _checked_scale(
    short: str, a: Tensor, b: Tensor, widths: tuple[int, int], saved: _Saved
) -> float:
    """The scale of a layer of `widths` (in, out), whose A is (rank, in) and B (out, rank)."""
    n_in, n_out = widths
    rank = a.shape[0] if a.ndim == 2 else 0
    if a.shape != (rank, n_in) or b.shape != (n_out, rank) or not 1 <= rank <= MAX_LOADED_RANK:
        pair = rank and b.ndim == 2 and b.shape[1] == rank <= MAX_LOADED_RANK  # of other widths
        raise (OtherBaseError if pair else AdapterError)(
            f"{short}: A is {tuple(a.shape)} and B is {tuple(b.shape)}; with this base "
            f"(rank, {n_in}) and ({n_out}, rank) are needed, rank at most {MAX_LOADED_RANK}."
        )
    scale = _scale(short, rank, saved)
    if not scale * float(a.double().norm() * b.double().norm()) <= LARGEST:
        raise AdapterError(f"{short}: its numbers are so large that answers would overflow.")
    return scale


def _columns(blocks: Sequence[Tensor], lora_facts: Mapping[str, Any]) -> list[list[int]]:
    """Which of the R ranks each third of a fused layer uses; of a single layer, all.

    As our own files tell, if the zeros of B agree; else the columns that are not zero.
    """
    rank = blocks[0].shape[1]
    every = list(range(rank))
    if len(blocks) == 1:
        return [every]
    used = [torch.nonzero(block.abs().amax(0)).flatten().tolist() for block in blocks]
    targets = lora_facts.get("targets")
    mine = [
        i
        for i, name in enumerate(FUSED)
        if isinstance(targets, list)
        and any(isinstance(t, str) and t and is_target(name, t) for t in targets)
    ]
    if mine and lora_facts.get("rank") == rank / len(mine):
        step = rank // len(mine)
        shares: list[list[int]] = [[], [], []]
        for place, third in enumerate(mine):
            shares[third] = every[place * step : (place + 1) * step]
        if all(set(u) <= set(share) for u, share in zip(used, shares, strict=True)):
            return shares
    return used if any(used) else [every, every, every]


def _scale(layer: str, rank: int, saved: _Saved) -> float:
    """The factor that PEFT applies to this layer."""
    config, exact_facts = saved.config, saved.lora_facts
    try:
        named_rank = pattern_value(config, "rank_pattern", layer, config.get("r"))
    except UnreadableExpressionError:  # the tensor itself says the rank
        named_rank = rank
    alpha = pattern_value(config, "alpha_pattern", layer, config.get("lora_alpha"))
    number = isinstance(alpha, int | float) and not isinstance(alpha, bool)
    if not number or not 1e-12 < alpha < 1e6:
        raise AdapterError(
            f"lora_alpha of {layer} is {quoted(alpha)}; a positive number is needed."
        )
    if named_rank != rank:
        raise AdapterError(f"{layer} has rank {rank}, but {CONFIG_FILE} says {quoted(named_rank)}.")
    rule = config.get("use_rslora")
    scale = lora_scale(rank, alpha, "alpha/sqrt(rank)" if rule else "alpha/rank")
    try:  # the trained one itself: alpha and rank of a fused layer give it but for a rounding
        exact = lora_scale(exact_facts["rank"], exact_facts["alpha"], exact_facts["scaling"])
        return exact if math.isclose(exact, scale, rel_tol=1e-9) else scale
    except (KeyError, ValueError, TypeError, ArithmeticError):
        return scale


def _our_config(model: GPT, config: Mapping[str, Any], facts: Mapping[str, Any]) -> LoRAConfig:
    """The settings as trained, where the file tells them and the tensors agree; else what PEFT's
    own amount to."""
    layers = dict(lora_layers(model))
    names = (*TARGETS, POSITIONS_TARGET)
    targets = tuple(t for t in names if any(is_target(n, t) for n in layers))
    lora_facts = facts.get("lora")
    if isinstance(lora_facts, dict):
        try:
            known = {
                k: lora_facts[k] for k in ("rank", "alpha", "scaling", "dropout") if k in lora_facts
            }
            made = LoRAConfig(**known, targets=targets, head="lora" if HEAD in layers else "train")
        except (ConfigError, TypeError, OverflowError):
            made = None
        if made and all(
            layer.lora.rank == made.rank and math.isclose(layer.lora.scale, made.scale)
            for layer in layers.values()
        ):
            return made
    rslora = bool(config.get("use_rslora"))
    try:
        return LoRAConfig(
            rank=config["r"],
            alpha=config["lora_alpha"],
            targets=targets,
            scaling="alpha/sqrt(rank)" if rslora else "alpha/rank",
        )
    except (ConfigError, KeyError, TypeError, OverflowError) as error:
        raise AdapterError(f"{CONFIG_FILE}: {quoted(str(error), 200)[1:-1]}") from error


def _some(names: Mapping[str, Any]) -> str:
    shown = ", ".join(quoted(name) for name in sorted(names)[:5])
    return shown + (f" and {len(names) - 5} more" if len(names) > 5 else "")
