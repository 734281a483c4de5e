"""Between our layers and PEFT's tensors, both ways.

GPT-2 in `transformers` has query, key and value in one layer, `c_attn`. Our three adapters of rank
r become one of rank 3r, exactly: the A's are stacked, each B fills its own block of rows and
columns, and alpha is scaled so that alpha / rank (or its square root, for rsLoRA) stays what it
was. The way back takes, for each third of the rows, the columns that are not zero.

The head travels as PEFT's `modules_to_save`. `transformers`' head has no bias: ours goes into the
bias of the final LayerNorm, whose output the head reads (W (h + d) = W h + b for W d = b).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from lora_core.adapter_files import (
    CONFIG_FILE,
    AdapterError,
    pack,
    pattern_value,
    quoted,
    unpack,
)
from lora_core.base import Base
from lora_core.config import HEAD, MAX_CLASSES, TARGETS, ConfigError, LoRAConfig, lora_scale
from lora_core.lora import LinearWithLoRA, lora_layers
from lora_core.model import GPT

MAX_LOADED_RANK = 1024
# Of scale * |A| * |B| of a layer, and of a number of the head: trained ones stay below a thousand,
# and beyond this the squares inside a LayerNorm leave the range of float32.
_LARGEST = 1e6

_PREFIX = "base_model.model."
_FUSED = ("attention.query", "attention.key", "attention.value")
_SINGLE = {
    "attention.output": "attn.c_proj",
    "mlp.up": "mlp.c_fc",
    "mlp.down": "mlp.c_proj",
}
_C_ATTN = "attn.c_attn"
_OURS = {theirs: ours for ours, theirs in _SINGLE.items()}


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

    def put(theirs: str, a: Tensor, b: Tensor, scale: float) -> None:
        name = f"transformer.{theirs}"
        tensors[f"{_PREFIX}{name}.lora_A.weight"] = a.T.contiguous()  # (r, in)
        tensors[f"{_PREFIX}{name}.lora_B.weight"] = b.T.contiguous()  # (out, r)
        ranks[name] = a.shape[1]
        alphas[name] = alpha_for(scale, a.shape[1])

    for i in range(model.config.n_layers):
        fused = [layers.get(f"blocks.{i}.{name}") for name in _FUSED]
        if any(layer is not None for layer in fused):
            put(f"h.{i}.{_C_ATTN}", *_fuse(fused, model.config.emb_dim))
        for ours, theirs in _SINGLE.items():
            layer = layers.get(f"blocks.{i}.{ours}")
            if layer is not None:
                a, b = layer.lora.A.detach(), layer.lora.B.detach()
                put(f"h.{i}.{theirs}", a.clone(), b.clone(), layer.lora.scale)

    weight, bias = head_of(model)
    tensors[f"{_PREFIX}score.weight"] = weight
    saved = ["score"]
    if bias.abs().max() > 0:
        saved.append("ln_f")
        tensors[f"{_PREFIX}transformer.ln_f.weight"] = model.final_norm.weight.detach().clone()
        tensors[f"{_PREFIX}transformer.ln_f.bias"] = norm_bias_for(model, weight, bias)

    everywhere = {kind for kind in (_C_ATTN, *_OURS) if _in_every_block(kind, ranks, model)}
    config = {
        "peft_type": "LORA",
        "task_type": "SEQ_CLS",
        "base_model_name_or_path": source,
        "r": lora.rank,
        "lora_alpha": alpha_for(lora.scale, lora.rank),
        "lora_dropout": lora.dropout,
        "use_rslora": rslora,
        "target_modules": sorted(
            {kind if (kind := n.split(".", 3)[3]) in everywhere else n for n in ranks}
        ),
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


def _in_every_block(kind: str, ranks: Mapping[str, int], model: GPT) -> bool:
    return all(f"transformer.h.{i}.{kind}" in ranks for i in range(model.config.n_layers))


def _fuse(layers: list[LinearWithLoRA | None], width: int) -> tuple[Tensor, Tensor, float]:
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


def head_of(model: GPT) -> tuple[Tensor, Tensor]:
    """(classes, emb) weight and (classes,) bias as they act, LoRA on the head folded in; copies."""
    head: nn.Module = model.head
    if isinstance(head, LinearWithLoRA):
        weight = head.linear.weight if head.merged else head.linear.weight + head.lora.delta()
        bias = head.linear.bias
    else:
        assert isinstance(head, nn.Linear)
        weight, bias = head.weight, head.bias
    return weight.detach().clone().contiguous(), bias.detach().clone()


def norm_bias_for(model: GPT, weight: Tensor, bias: Tensor) -> Tensor:
    """The final LayerNorm's bias (emb,) with which a head without bias answers as one with it.

    The smallest shift d with W d = b. Raises `AdapterError` where there is none: rows of the head
    that are the same, or nearly, cannot have different biases.
    """
    shift = torch.linalg.lstsq(weight.double(), bias.double()[:, None], driver="gelsd").solution
    norm_bias = (model.final_norm.bias.double() + shift[:, 0]).float().detach()
    reached = weight.double() @ (norm_bias.double() - model.final_norm.bias.double())
    if not (reached - bias.double()).abs().max() <= 1e-6 * max(1.0, float(bias.abs().max())):
        raise AdapterError(
            "The head has a bias, and PEFT's format has no place for it: `transformers` gives the "
            "head none, and for these weights no other tensor can stand in."
        )
    return norm_bias


def head_facts(model: GPT) -> dict[str, str]:
    """The head as it was trained, exactly: what `to_peft` folds away."""
    head: nn.Module = model.head
    if isinstance(head, LinearWithLoRA):
        tensors = {
            "weight": head.frozen_weight,
            "bias": head.linear.bias,
            "A": head.lora.A,
            "B": head.lora.B,
        }
    else:
        tensors = {"bias": head.bias}  # type: ignore[dict-item]
    return {name: pack(tensor) for name, tensor in tensors.items()}


# In ----------------------------------------------------------------------------------------------


def from_peft(
    config: Mapping[str, Any], tensors: dict[str, Tensor], facts: Mapping[str, Any], base: Base
) -> tuple[GPT, LoRAConfig]:
    """A classifier's model over `base` with the adapter in place, and its settings in our words.

    Raises `AdapterError` that names each tensor that is missing, left over or misshapen.
    """
    left = dict(tensors)
    pairs: dict[str, tuple[Tensor, Tensor]] = {}
    for name in [n for n in left if n.endswith(".lora_A.weight")]:
        layer = name.removesuffix(".lora_A.weight")
        if f"{layer}.lora_B.weight" not in left:
            raise AdapterError(f"The tensor {quoted(f'{layer}.lora_B.weight', 200)} is missing.")
        pairs[layer] = left.pop(name), left.pop(f"{layer}.lora_B.weight")
    lonely = [n for n in left if n.endswith(".lora_B.weight")]
    if lonely:
        missing = lonely[0].replace(".lora_B.", ".lora_A.")
        raise AdapterError(f"The tensor {quoted(missing, 200)} is missing.")
    if not pairs:
        raise AdapterError("There is no LoRA layer (lora_A, lora_B) in this file.")
    model = base.classifier_model(_head_classes(left, base))
    _set_head(model, left, facts, base)
    if left:
        raise AdapterError(f"Tensors that do not belong to a LoRA adapter: {_some(left)}.")
    model.requires_grad_(False)
    told = facts.get("lora")
    for layer, (a, b) in pairs.items():
        _place(model, layer, a, b, config, told if isinstance(told, dict) else {})
    return model, _our_config(model, config, facts)


def _head_classes(tensors: Mapping[str, Tensor], base: Base) -> int:
    weight = tensors.get(f"{_PREFIX}score.weight")
    if weight is None:
        raise AdapterError(
            "The classification head (score.weight) is missing: without it there are no classes. "
            "Save it with modules_to_save=['score']."
        )
    width = base.config.emb_dim
    if weight.ndim != 2 or weight.shape[1] != width or not 2 <= weight.shape[0] <= MAX_CLASSES:
        raise AdapterError(
            f"The head's weight is {tuple(weight.shape)}; two to {MAX_CLASSES} classes by {width} "
            "are needed."
        )
    return int(weight.shape[0])


def _set_head(model: GPT, left: dict[str, Tensor], facts: Mapping[str, Any], base: Base) -> None:
    """Take the head and what stands for its bias out of `left`, and put it into the model."""
    width, norm = base.config.emb_dim, base.model.final_norm
    weight = left.pop(f"{_PREFIX}score.weight")
    classes = weight.shape[0]
    bias = torch.zeros(classes)
    if (given := left.pop(f"{_PREFIX}score.bias", None)) is not None:
        bias = _shaped("score.bias", given, (classes,))
    norm_weight = left.pop(f"{_PREFIX}transformer.ln_f.weight", None)
    norm_bias = left.pop(f"{_PREFIX}transformer.ln_f.bias", None)
    if norm_weight is not None and not torch.equal(norm_weight, norm.weight):
        raise AdapterError("The final LayerNorm (ln_f) was trained as well; that is not LoRA.")
    if norm_bias is not None:
        shift = _shaped("ln_f.bias", norm_bias, (width,)) - norm.bias
        bias = bias + weight @ shift
    if not max(float(weight.abs().max()), float(bias.abs().max())) <= _LARGEST:
        raise AdapterError("The head's numbers are so large that answers would overflow.")
    told = facts.get("head")
    told = told if isinstance(told, dict) else {}
    exact = unpack(told.get("bias"), (classes,))
    if exact is not None and torch.allclose(exact, bias, atol=1e-5, rtol=1e-5):
        bias = exact
    with torch.no_grad():
        model.head.weight.copy_(weight)
        model.head.bias.copy_(bias)
    lora = facts.get("lora")
    if isinstance(lora, dict) and lora.get("head") == "lora":
        _unfold_head(model, weight, told, lora)


def _unfold_head(
    model: GPT, weight: Tensor, told: Mapping[str, Any], lora: Mapping[str, Any]
) -> None:
    """Put the frozen random head with LoRA on it back, if the facts give the head that is there."""
    frozen = unpack(told.get("weight"), tuple(weight.shape))
    try:
        config = LoRAConfig(rank=lora["rank"], alpha=lora["alpha"], scaling=lora["scaling"])
    except (ConfigError, KeyError, TypeError, OverflowError):
        return
    a = unpack(told.get("A"), (weight.shape[1], config.rank))
    b = unpack(told.get("B"), (config.rank, weight.shape[0]))
    if frozen is None or a is None or b is None:
        return
    head = model.head
    assert isinstance(head, nn.Linear)
    wrapped = LinearWithLoRA(head, config.rank, config.alpha, scaling=config.scaling)
    with torch.no_grad():
        wrapped.lora.A.copy_(a)
        wrapped.lora.B.copy_(b)
        if torch.allclose(frozen + wrapped.lora.delta(), weight, atol=1e-5, rtol=1e-5):
            head.weight.copy_(frozen)
            model.head = wrapped.eval()  # type: ignore[assignment]


def _place(
    model: GPT,
    layer: str,
    a: Tensor,
    b: Tensor,
    config: Mapping[str, Any],
    told: Mapping[str, Any],
) -> None:
    """Put PEFT's A (r, in) and B (out, r) of one of their layers into ours."""
    short = layer.removeprefix(_PREFIX)
    parts = layer.removeprefix(_PREFIX + "transformer.").split(".", 2)
    known = {f"{i}": i for i in range(model.config.n_layers)}
    ok = len(parts) == 3 and parts[0] == "h" and parts[1] in known
    if not ok or parts[2] not in (_C_ATTN, *_OURS):
        raise AdapterError(f"This base has no layer {quoted(short)} that LoRA could sit on.")
    i, theirs = known[parts[1]], parts[2]
    names = _FUSED if theirs == _C_ATTN else (_OURS[theirs],)
    linears = [model.get_submodule(f"blocks.{i}.{name}") for name in names]
    n_in = int(linears[0].in_features)  # type: ignore[arg-type]
    n_out = sum(int(linear.out_features) for linear in linears)  # type: ignore[arg-type, misc]
    rank = a.shape[0] if a.ndim == 2 else 0
    if a.shape != (rank, n_in) or b.shape != (n_out, rank) or not 1 <= rank <= MAX_LOADED_RANK:
        raise AdapterError(
            f"{short}: A is {tuple(a.shape)} and B is {tuple(b.shape)}; with this base "
            f"(rank, {n_in}) and ({n_out}, rank) are needed, rank at most {MAX_LOADED_RANK}."
        )
    scale = _scale(short, rank, config, told)
    if not scale * float(a.double().norm() * b.double().norm()) <= _LARGEST:
        raise AdapterError(f"{short}: its numbers are so large that answers would overflow.")
    blocks = b.chunk(len(names))
    for name, linear, block, columns in zip(
        names, linears, blocks, _columns(blocks, told), strict=True
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


def _columns(blocks: Sequence[Tensor], told: Mapping[str, Any]) -> list[list[int]]:
    """Which of the R ranks each third of a fused layer uses; of a single layer, all.

    As our own files tell, if the zeros of B agree; else the columns that are not zero.
    """
    rank = blocks[0].shape[1]
    every = list(range(rank))
    if len(blocks) == 1:
        return [every]
    used = [torch.nonzero(block.abs().amax(0)).flatten().tolist() for block in blocks]
    targets = told.get("targets")
    mine = [
        i
        for i, name in enumerate(_FUSED)
        if isinstance(targets, list)
        and any(isinstance(t, str) and t and ("." + name).endswith("." + t) for t in targets)
    ]
    if mine and told.get("rank") == rank / len(mine):
        step = rank // len(mine)
        shares: list[list[int]] = [[], [], []]
        for place, third in enumerate(mine):
            shares[third] = every[place * step : (place + 1) * step]
        if all(set(u) <= set(share) for u, share in zip(used, shares, strict=True)):
            return shares
    return used if any(used) else [every, every, every]


def _scale(layer: str, rank: int, config: Mapping[str, Any], told: Mapping[str, Any]) -> float:
    """The factor that PEFT applies to this layer."""
    rank_told = pattern_value(config, "rank_pattern", layer, config.get("r"))
    alpha = pattern_value(config, "alpha_pattern", layer, config.get("lora_alpha"))
    number = isinstance(alpha, int | float) and not isinstance(alpha, bool)
    if not number or not 1e-12 < alpha < 1e6:
        raise AdapterError(
            f"lora_alpha of {layer} is {quoted(alpha)}; a positive number is needed."
        )
    if rank_told != rank:
        raise AdapterError(f"{layer} has rank {rank}, but {CONFIG_FILE} says {quoted(rank_told)}.")
    rule = config.get("use_rslora")
    scale = lora_scale(rank, alpha, "alpha/sqrt(rank)" if rule else "alpha/rank")
    try:  # the trained one itself: alpha and rank of a fused layer give it but for a rounding
        exact = lora_scale(told["rank"], told["alpha"], told["scaling"])
        return exact if math.isclose(exact, scale, rel_tol=1e-9) else scale
    except (KeyError, ValueError, TypeError, ArithmeticError):
        return scale


def _our_config(model: GPT, config: Mapping[str, Any], facts: Mapping[str, Any]) -> LoRAConfig:
    """The settings as trained, where the file tells them and the tensors agree; else what PEFT's
    own amount to."""
    layers = dict(lora_layers(model))
    targets = tuple(t for t in TARGETS if any(n.endswith("." + t) for n in layers))
    told = facts.get("lora")
    if isinstance(told, dict):
        try:
            known = {k: told[k] for k in ("rank", "alpha", "scaling", "dropout") if k in told}
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


def _shaped(name: str, tensor: Tensor, shape: tuple[int, ...]) -> Tensor:
    if tuple(tensor.shape) != shape:
        raise AdapterError(f"The tensor {name} is {tuple(tensor.shape)} instead of {shape}.")
    return tensor


def _some(names: Mapping[str, Any]) -> str:
    shown = ", ".join(quoted(name) for name in sorted(names)[:5])
    return shown + (f" and {len(names) - 5} more" if len(names) > 5 else "")
