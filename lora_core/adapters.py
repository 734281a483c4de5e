"""Adapters in PEFT's format, out and in: a folder (or zip) with a configuration and safetensors.

GPT-2 in `transformers` has query, key and value in one layer, `c_attn`. Our three adapters of rank
r become one of rank 3r, exactly: the A's are stacked, each B fills its own block of rows and
columns, and alpha is scaled so that alpha / rank (or its square root, for rsLoRA) stays what it
was. The way back takes, for each third of the rows, the columns that are not zero.

The head travels as PEFT's `modules_to_save`. `transformers`' head has no bias: ours goes into the
bias of the final LayerNorm, whose output the head reads (W (h + d) = W h + b for W d = b).
What PEFT cannot say, and `lora_core` wants to know (labels, base digest, settings, scores), lies in
the header of the safetensors file. Nothing is ever unpickled.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from lora_core.base import Base
from lora_core.classifier import Classifier
from lora_core.config import HEAD, MAX_CLASSES, TARGETS, ConfigError, LoRAConfig, lora_scale
from lora_core.lora import LinearWithLoRA, lora_layers
from lora_core.model import GPT

CONFIG_FILE = "adapter_config.json"
WEIGHTS_FILE = "adapter_model.safetensors"
MAX_BYTES = 256 * 2**20
MAX_LOADED_RANK = 1024

_PREFIX = "base_model.model."
_FUSED = ("attention.query", "attention.key", "attention.value")
_SINGLE = {
    "attention.output": "attn.c_proj",
    "mlp.up": "mlp.c_fc",
    "mlp.down": "mlp.c_proj",
}
_C_ATTN = "attn.c_attn"
_OURS = {theirs: ours for ours, theirs in _SINGLE.items()}
# Settings of PEFT's LoraConfig that change what is computed; each must be absent, or as here.
_PLAIN: dict[str, tuple[Any, ...]] = {
    "use_dora": (False,),
    "use_qalora": (False,),
    "use_bdlora": (None, False),
    "lora_bias": (False,),
    "layer_replication": (None,),
    "trainable_token_indices": (None,),
    "target_parameters": (None, []),
    "alora_invocation_tokens": (None, []),
    "arrow_config": (None,),
    "velora_config": (None,),
    "monteclora_config": (None,),
    "kasa_config": (None,),
    "megatron_config": (None,),
    "bias": ("none",),
}
# Initialisations that also rewrite the base's weights: the adapter alone does not say how.
_WRITES_BASE = ("pissa", "olora", "loftq", "corda", "lora_ga")


class AdapterError(ValueError):
    """An adapter that cannot be saved or loaded; the message says why."""


def save_adapter(classifier: Classifier, folder: str | Path) -> Path:
    """Write a LoRA classifier as PEFT would: configuration, safetensors, README. Returns `folder`.

    `peft.PeftModel.from_pretrained` over `GPT2ForSequenceClassification` of the same base gives the
    classifier's logits. LoRA on the head is folded into the head that is saved. Raises
    `AdapterError` for a classifier without LoRA.
    """
    if classifier.lora_config is None or not any(
        n != HEAD for n, _ in lora_layers(classifier.model)
    ):
        raise AdapterError(
            "This run trained no LoRA layers, so there is no adapter to save: full fine-tuning is "
            "saved as a whole model, a head alone is no adapter in PEFT's format."
        )
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    config, tensors = to_peft(classifier)
    save_file(tensors, folder / WEIGHTS_FILE, metadata=_metadata(classifier))
    (folder / CONFIG_FILE).write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")
    from lora_core.cards import adapter_card

    (folder / "README.md").write_text(adapter_card(classifier, config, tensors), encoding="utf-8")
    return folder


def to_peft(classifier: Classifier) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """PEFT's configuration and tensors (float32) of a classifier's adapter and head."""
    lora = classifier.lora_config
    assert lora is not None
    rslora = lora.scaling == "alpha/sqrt(rank)"

    def alpha_for(scale: float, rank: int) -> float:
        return scale * (math.sqrt(rank) if rslora else rank)

    layers = dict(lora_layers(classifier.model))
    tensors: dict[str, Tensor] = {}
    ranks: dict[str, int] = {}
    alphas: dict[str, float] = {}

    def put(theirs: str, a: Tensor, b: Tensor, scale: float) -> None:
        name = f"transformer.{theirs}"
        tensors[f"{_PREFIX}{name}.lora_A.weight"] = a.T.contiguous()  # (r, in)
        tensors[f"{_PREFIX}{name}.lora_B.weight"] = b.T.contiguous()  # (out, r)
        ranks[name] = a.shape[1]
        alphas[name] = alpha_for(scale, a.shape[1])

    for i in range(classifier.model.config.n_layers):
        fused = [layers.get(f"blocks.{i}.{name}") for name in _FUSED]
        if any(layer is not None for layer in fused):
            put(f"h.{i}.{_C_ATTN}", *_fuse(fused, classifier.model.config.emb_dim))
        for ours, theirs in _SINGLE.items():
            layer = layers.get(f"blocks.{i}.{ours}")
            if layer is not None:
                a, b = layer.lora.A.detach(), layer.lora.B.detach()
                put(f"h.{i}.{theirs}", a, b, layer.lora.scale)

    saved = ["score"]
    weight, bias = _head(classifier.model)
    tensors[f"{_PREFIX}score.weight"] = weight
    if bias.abs().max() > 0:
        saved.append("ln_f")
        norm = classifier.model.final_norm
        shift = torch.linalg.lstsq(weight.double(), bias.double()[:, None]).solution[:, 0]
        tensors[f"{_PREFIX}transformer.ln_f.weight"] = norm.weight.detach().clone()
        tensors[f"{_PREFIX}transformer.ln_f.bias"] = (norm.bias.double() + shift).float().detach()

    config = {
        "peft_type": "LORA",
        "task_type": "SEQ_CLS",
        "base_model_name_or_path": classifier.base_source,
        "r": lora.rank,
        "lora_alpha": alpha_for(lora.scale, lora.rank),
        "lora_dropout": lora.dropout,
        "use_rslora": rslora,
        "target_modules": sorted({name.split(".", 3)[3] for name in ranks}),
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


def _head(model: GPT) -> tuple[Tensor, Tensor]:
    """(classes, emb) weight and (classes,) bias as they act, LoRA on the head folded in."""
    head: nn.Module = model.head
    if isinstance(head, LinearWithLoRA):
        weight = head.linear.weight if head.merged else head.linear.weight + head.lora.delta()
        bias = head.linear.bias
    else:
        assert isinstance(head, nn.Linear)
        weight, bias = head.weight, head.bias
    return weight.detach().clone().contiguous(), bias.detach().clone()


def _metadata(classifier: Classifier) -> dict[str, str]:
    from lora_core.base import frozen_digest

    lora, train = classifier.lora_config, classifier.train_config
    assert lora is not None
    initial = classifier.initial.get("head.weight")
    facts = {
        "labels": list(classifier.labels),
        "task": classifier.task_name,
        "base": classifier.base_name,
        "base_digest": frozen_digest(classifier.model),
        "lora": {**vars(lora), "targets": list(lora.targets)},
        "train": dict(vars(train)) if train else None,
        "scores": classifier.scores,
        "initial_head": initial.tolist() if initial is not None else None,
    }
    return {"format": "pt", "lora_lab": json.dumps(facts)}


def load_adapter(folder: str | Path, base: Base, labels: list[str] | None = None) -> Classifier:
    """Read an adapter folder, ours or `peft`'s own, over `base` as a `Classifier`.

    `labels` names the classes where the file does not (one made by `peft` alone); else LABEL_0 and
    so on, as in `transformers`. Raises `AdapterError` that names what cannot be used: another kind
    of adapter (DoRA ...), another base, missing, extra, misshapen or not-finite tensors.
    """
    folder = Path(folder)
    config = _read_config(folder)
    tensors, facts = _read_tensors(folder)
    _check_base(config, facts, base)
    model, lora_config = _assemble(config, tensors, facts, base)
    count = int(model.num_classes or 0)
    names = labels or facts.get("labels") or [f"LABEL_{i}" for i in range(count)]
    names = [str(name) for name in names]
    if len(names) != count or len(set(names)) != count:
        raise AdapterError(f"The head has {count} classes, but {len(names)} labels are given.")
    initial = {"head.weight": torch.zeros(count, base.config.emb_dim)}
    first = facts.get("initial_head")
    if isinstance(first, list) and isinstance(model.head, nn.Linear):
        try:
            given = torch.tensor(first, dtype=torch.float32)
        except (TypeError, ValueError):
            given = torch.empty(0)
        if given.shape == initial["head.weight"].shape and torch.isfinite(given).all():
            initial["head.weight"] = given
    initial["head.bias"] = torch.zeros(count)
    scores = facts.get("scores")
    numbers = scores if isinstance(scores, dict) else {}
    return Classifier(
        model,
        base.tokenizer,
        names,
        initial=initial,
        lora_config=lora_config,
        base_name=base.name,
        base_source=base.source,
        task_name=str(facts.get("task") or "")[:200],
        scores={str(k): v for k, v in numbers.items() if isinstance(v, int | float)},
    )


def _read_config(folder: Path) -> dict[str, Any]:
    path = folder / CONFIG_FILE
    if not path.is_file():
        raise AdapterError(f"There is no {CONFIG_FILE}: this is not an adapter in PEFT's format.")
    if path.stat().st_size > 2**20:
        raise AdapterError(f"{CONFIG_FILE} is larger than a megabyte: that is no configuration.")
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise AdapterError(f"{CONFIG_FILE} is not JSON that can be read.") from error
    if not isinstance(config, dict):
        raise AdapterError(f"{CONFIG_FILE} must hold one JSON object.")
    kind = config.get("peft_type")
    if kind != "LORA":
        raise AdapterError(f"This is an adapter of the kind {kind!r}; only LoRA can be loaded.")
    for key, allowed in _PLAIN.items():
        if key in config and config[key] not in allowed:
            raise AdapterError(
                f"This adapter uses {key} = {config[key]!r}, which is not plain LoRA."
            )
    initialised = str(config.get("init_lora_weights", True)).lower()
    if initialised.startswith(_WRITES_BASE):
        raise AdapterError(
            f"This adapter began with '{initialised}', which also changes the base's weights. "
            "Convert it to plain LoRA in peft first."
        )
    return config


def _read_tensors(folder: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    path = folder / WEIGHTS_FILE
    if not path.is_file():
        if (folder / "adapter_model.bin").exists():
            raise AdapterError(
                "The weights are a pickle (adapter_model.bin), which could run any program and is "
                "never opened. Save the adapter again with safe_serialization=True."
            )
        raise AdapterError(f"There is no {WEIGHTS_FILE} beside {CONFIG_FILE}.")
    if path.stat().st_size > MAX_BYTES:
        raise AdapterError(f"{WEIGHTS_FILE} is larger than {MAX_BYTES // 2**20} MB.")
    tensors: dict[str, Tensor] = {}
    try:
        with safe_open(path, "pt") as file:
            metadata = file.metadata() or {}
            for name in file.keys():  # noqa: SIM118 (not a dict)
                tensors[name] = file.get_tensor(name)
    except (OSError, SafetensorError, ValueError) as error:
        raise AdapterError(f"{WEIGHTS_FILE} is damaged or not a safetensors file.") from error
    for name, tensor in tensors.items():
        if not tensor.is_floating_point():
            raise AdapterError(
                f"The tensor {name} holds {tensor.dtype}, not floating point numbers."
            )
        tensors[name] = tensor.float()
        if not torch.isfinite(tensors[name]).all():
            raise AdapterError(f"The tensor {name} holds numbers that are infinite or NaN.")
    try:
        facts = json.loads(metadata.get("lora_lab", "{}"))
    except (ValueError, RecursionError):
        facts = {}
    return tensors, facts if isinstance(facts, dict) else {}


def _check_base(config: Mapping[str, Any], facts: Mapping[str, Any], base: Base) -> None:
    digest = facts.get("base_digest")
    if digest is not None and digest != base.digest():
        raise AdapterError(
            f"This adapter was trained on another base ('{facts.get('base')}', weights "
            f"{str(digest)[:12]}), not on '{base.name}' as it is here."
        )
    named = str(config.get("base_model_name_or_path") or "")
    hub_like = named.count("/") == 1 and not named.startswith((".", "/", "assets/"))
    known = {base.source, base.name, base.source.rpartition("/")[2]}
    if digest is None and named not in known and (hub_like or named.startswith("gpt2")):
        raise AdapterError(f"This adapter belongs to the base '{named}', not to '{base.name}'.")


def _assemble(
    config: Mapping[str, Any], tensors: dict[str, Tensor], facts: Mapping[str, Any], base: Base
) -> tuple[GPT, LoRAConfig]:
    """The classifier model with the adapter's layers in place, and its settings in our words."""
    left = dict(tensors)
    pairs: dict[str, tuple[Tensor, Tensor]] = {}
    for name in [n for n in left if n.endswith(".lora_A.weight")]:
        layer = name.removesuffix(".lora_A.weight")
        if f"{layer}.lora_B.weight" not in left:
            raise AdapterError(f"The tensor {layer}.lora_B.weight is missing.")
        pairs[layer] = left.pop(name), left.pop(f"{layer}.lora_B.weight")
    if not pairs:
        raise AdapterError("There is no LoRA layer (lora_A, lora_B) in this file.")
    weight = _pop(left, f"{_PREFIX}score.weight", f"{_PREFIX}score.modules_to_save.weight")
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
    model = base.classifier_model(weight.shape[0])
    bias = _pop(left, f"{_PREFIX}score.bias")
    head_bias = (
        torch.zeros(weight.shape[0])
        if bias is None
        else _shaped("score.bias", bias, (weight.shape[0],))
    )
    norm_weight = _pop(left, f"{_PREFIX}transformer.ln_f.weight")
    norm_bias = _pop(left, f"{_PREFIX}transformer.ln_f.bias")
    if norm_weight is not None and not torch.equal(norm_weight, base.model.final_norm.weight):
        raise AdapterError("The final LayerNorm (ln_f) was trained as well; that is not LoRA.")
    if norm_bias is not None:
        shift = _shaped("ln_f.bias", norm_bias, (width,)) - base.model.final_norm.bias
        head_bias = head_bias + weight @ shift
    if left:
        raise AdapterError(f"Tensors that do not belong to a LoRA adapter: {_some(left)}.")
    with torch.no_grad():
        model.head.weight.copy_(weight)
        model.head.bias.copy_(head_bias)
    model.requires_grad_(False)
    model.head.requires_grad_(True)
    for layer, (a, b) in pairs.items():
        _place(model, layer, a, b, config, facts)
    return model, _our_config(config, facts, [name for name, _ in lora_layers(model)])


def _place(
    model: GPT,
    layer: str,
    a: Tensor,
    b: Tensor,
    config: Mapping[str, Any],
    facts: Mapping[str, Any],
) -> None:
    """Put PEFT's A (r, in) and B (out, r) of one of their layers into ours."""
    parts = layer.removeprefix(_PREFIX + "transformer.").split(".", 2)
    ok = len(parts) == 3 and parts[0] == "h" and parts[1].isdecimal()
    i, theirs = (int(parts[1]), parts[2]) if ok else (-1, "")
    if i not in range(model.config.n_layers) or theirs not in (_C_ATTN, *_OURS):
        raise AdapterError(f"This base has no layer {layer.removeprefix(_PREFIX)}.")
    names = _FUSED if theirs == _C_ATTN else (_OURS[theirs],)
    linears = [model.get_submodule(f"blocks.{i}.{name}") for name in names]
    n_in = int(linears[0].in_features)  # type: ignore[arg-type]
    n_out = sum(int(linear.out_features) for linear in linears)  # type: ignore[arg-type, misc]
    rank = a.shape[0] if a.ndim == 2 else 0
    if a.shape != (rank, n_in) or b.shape != (n_out, rank) or not 1 <= rank <= MAX_LOADED_RANK:
        raise AdapterError(
            f"{layer.removeprefix(_PREFIX)}: A is {tuple(a.shape)} and B is {tuple(b.shape)}; with "
            f"this base (rank, {n_in}) and ({n_out}, rank) are needed, up to {MAX_LOADED_RANK}."
        )
    scale = _scale(layer.removeprefix(_PREFIX), rank, config)
    blocks = b.chunk(len(names))
    for name, linear, block, columns in zip(
        names, linears, blocks, _columns(blocks, facts), strict=True
    ):
        assert isinstance(linear, nn.Linear)
        if not columns:
            continue  # this third of c_attn was not adapted
        wrapped = LinearWithLoRA(linear, len(columns), scale, scaling="alpha")
        with torch.no_grad():
            wrapped.lora.A.copy_(a[columns].T)
            wrapped.lora.B.copy_(block[:, columns].T)
        parent, _, child = f"blocks.{i}.{name}".rpartition(".")
        setattr(model.get_submodule(parent), child, wrapped.eval())


def _columns(blocks: Sequence[Tensor], facts: Mapping[str, Any]) -> list[list[int]]:
    """Which of the R ranks each third of a fused layer uses; of a single layer, all.

    As our own files tell, if the zeros of B agree; else the columns that are not zero.
    """
    rank = blocks[0].shape[1]
    every = list(range(rank))
    if len(blocks) == 1:
        return [every]
    used = [torch.nonzero(block.abs().amax(0)).flatten().tolist() for block in blocks]
    told = facts.get("lora")
    told = told if isinstance(told, dict) else {}
    targets = told.get("targets")
    mine = [i for i, n in enumerate(_FUSED) if isinstance(targets, list) and _target(n) in targets]
    if mine and told.get("rank") == rank // len(mine):
        step = rank // len(mine)
        shares: list[list[int]] = [[], [], []]
        for place, third in enumerate(mine):
            shares[third] = every[place * step : (place + 1) * step]
        if all(set(u) <= set(share) for u, share in zip(used, shares, strict=True)):
            return shares
    return used if any(used) else [every, every, every]


def _target(name: str) -> str:
    return name.removeprefix("attention.")


def _scale(layer: str, rank: int, config: Mapping[str, Any]) -> float:
    """The factor that PEFT applies to this layer; the patterns match ends of names, as in PEFT."""

    def pattern(key: str, default: Any) -> Any:
        table = config.get(key) or {}
        if not isinstance(table, dict):
            raise AdapterError(f"{key} must be a table of names and numbers.")
        return next((v for k, v in table.items() if layer == k or layer.endswith("." + k)), default)

    told = pattern("rank_pattern", config.get("r"))
    alpha = pattern("alpha_pattern", config.get("lora_alpha"))
    number = isinstance(alpha, int | float) and not isinstance(alpha, bool) and math.isfinite(alpha)
    if not number or not 0 < alpha < 1e6:
        raise AdapterError(f"lora_alpha of {layer} is {alpha!r}; a positive number is needed.")
    if told != rank:
        raise AdapterError(f"{layer} has rank {rank}, but {CONFIG_FILE} says {told!r}.")
    return lora_scale(rank, alpha, "alpha/sqrt(rank)" if config.get("use_rslora") else "alpha/rank")


def _our_config(
    config: Mapping[str, Any], facts: Mapping[str, Any], names: list[str]
) -> LoRAConfig:
    """The settings as trained, where the file tells them; else what PEFT's own amount to."""
    targets = tuple(t for t in TARGETS if any(n.endswith("." + t) for n in names))
    told = facts.get("lora")
    if isinstance(told, dict):
        try:
            known = {k: told[k] for k in ("rank", "alpha", "scaling", "dropout") if k in told}
            return LoRAConfig(**known, targets=targets)
        except (ConfigError, TypeError):
            pass
    rslora = bool(config.get("use_rslora"))
    try:
        return LoRAConfig(
            rank=config["r"],
            alpha=config["lora_alpha"],
            targets=targets,
            scaling="alpha/sqrt(rank)" if rslora else "alpha/rank",
        )
    except (ConfigError, KeyError) as error:
        raise AdapterError(f"{CONFIG_FILE}: {error}") from error


def _pop(tensors: dict[str, Tensor], *names: str) -> Tensor | None:
    found = [tensors.pop(name) for name in names if name in tensors]
    return found[0] if found else None


def _shaped(name: str, tensor: Tensor, shape: tuple[int, ...]) -> Tensor:
    if tuple(tensor.shape) != shape:
        raise AdapterError(f"The tensor {name} is {tuple(tensor.shape)} instead of {shape}.")
    return tensor


def _some(names: Mapping[str, Any]) -> str:
    shown = ", ".join(sorted(names)[:5])
    return shown + (f" and {len(names) - 5} more" if len(names) > 5 else "")
