"""GPT-2 as `transformers` writes it: the names of its tensors, and its `config.json`.

The one table of names that the checkpoint, the adapters and the whole model share. Query, key and
value are fused in `c_attn` there, and every matrix is stored (in, out).
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from lora_core.base.errors import BaseError
from lora_core.base.text_files import read_json
from lora_core.config import EMBEDDING_TARGET, POSITIONS_TARGET, ConfigError, GPTConfig
from lora_core.model import GPT

TRUNK = "transformer."  # what GPT-2's names begin with in a model that has a head
FUSED = ("attention.query", "attention.key", "attention.value")  # the order within `c_attn`
FUSED_NAME = "attn.c_attn"
LINEAR_NAMES = {  # ours -> theirs, within a block; stored transposed
    "attention.output": "attn.c_proj",
    "mlp.up": "mlp.c_fc",
    "mlp.down": "mlp.c_proj",
}
NORM_NAMES = {"norm1": "ln_1", "norm2": "ln_2"}  # ours -> theirs, within a block
EMBEDDING_NAMES = {EMBEDDING_TARGET: "wte", POSITIONS_TARGET: "wpe"}  # ours -> theirs
FINAL_NORM_NAME = "ln_f"
CLASSIFIER_NAME = "score"  # the head of GPT2ForSequenceClassification

# Not part of the trunk: causal masks of old checkpoints, and heads of every kind.
_MASKS = (".attn.bias", ".attn.masked_bias")
_HEADS = ("lm_head.", "score.", "classifier.", "multiple_choice_head.", "qa_outputs.", "v_head.")
# In front of a name where a wrapped model was saved, or one of which GPT-2 is a part.
_WRAPPERS = (
    "module.", "model.", "base_model.", "pretrained_model.", "backbone.", "encoder.", "gpt2."
)  # fmt: skip

_INSIDE = re.compile(
    r"^(?:\w+\.)+?((?:transformer\.)?(?:wte|wpe|ln_f)\.(?:weight|bias)$|(?:transformer\.)?h\.\d+\.|"
    r"lm_head\.|score\.)"
)

_MAX_CONFIG = 2**20
_MAX_LAYERS = 1000  # GPT-2 xl has 48; a stranger's number must not fill the memory with names

# One function under several names: GELU by tanh, which GPT-2 was trained with.
_TANH_GELU = ("gelu_new", "gelu_pytorch_tanh", "gelu_fast", "gelu_python_tanh", "gelu_accurate")
# Keys of `config.json`, the older or more general names of each, and GPT-2's own value, which
# `transformers` takes where the key is absent.
_SHAPE_KEYS: tuple[tuple[tuple[str, ...], int], ...] = (
    (("vocab_size",), 50257),
    (("n_positions", "n_ctx", "max_position_embeddings"), 1024),
    (("n_embd", "hidden_size"), 768),
    (("n_layer", "num_hidden_layers"), 12),
    (("n_head", "num_attention_heads"), 12),
)


def gpt2_shapes(config: GPTConfig) -> dict[str, tuple[int, ...]]:
    """Names and shapes of a GPT-2 checkpoint of this configuration, without `transformer.`."""
    width, hidden = config.emb_dim, config.hidden_dim
    shapes: dict[str, tuple[int, ...]] = {
        "wte.weight": (config.vocab_size, width),
        "wpe.weight": (config.context_length, width),
        "ln_f.weight": (width,),
        "ln_f.bias": (width,),
    }
    for i in range(config.n_layers):
        for name, shape in {
            "ln_1": (width,),
            "attn.c_attn": (width, 3 * width),
            "attn.c_proj": (width, width),
            "ln_2": (width,),
            "mlp.c_fc": (width, hidden),
            "mlp.c_proj": (hidden, width),
        }.items():
            shapes[f"h.{i}.{name}.weight"] = shape
            shapes[f"h.{i}.{name}.bias"] = (shape[-1],)
    return shapes


def trunk_name(name: str) -> str | None:
    """A checkpoint's name as GPT-2's trunk has it ("h.0.ln_1.bias"); None for a mask or a head."""
    for wrapper in ("_orig_mod.", "_fsdp_wrapped_module."):  # of the whole or of a part
        name = name.replace(wrapper, "")
    while name.startswith(_WRAPPERS):
        name = name.partition(".")[2]
    name = name.removeprefix(TRUNK)
    if name.endswith(_MASKS) or name.startswith(_HEADS):
        return None
    inside = _INSIDE.search(name)  # a class of somebody's own around the model
    if inside is None:
        return name
    return trunk_name(name[inside.start(1) :])


def from_gpt2(tensors: dict[str, Tensor], config: GPTConfig) -> dict[str, Tensor]:
    """GPT-2's tensors -> the state dict of a `GPT` without a head; every tensor accounted for."""
    trunk: dict[str, Tensor] = {}
    for name, tensor in tensors.items():
        bare = trunk_name(name)
        if bare in trunk:
            raise BaseError(f"The checkpoint holds {bare} twice, under different prefixes.")
        if bare is not None:
            trunk[bare] = tensor
    _check_shapes(trunk, config)
    state = {
        f"{ours}.weight": trunk[f"{theirs}.weight"] for ours, theirs in EMBEDDING_NAMES.items()
    }
    for kind in ("weight", "bias"):
        state[f"final_norm.{kind}"] = trunk[f"{FINAL_NORM_NAME}.{kind}"]
    for i in range(config.n_layers):
        for ours, theirs in (LINEAR_NAMES | NORM_NAMES).items():
            weight = trunk[f"h.{i}.{theirs}.weight"]
            weight = weight.T.contiguous() if ours in LINEAR_NAMES else weight
            state[f"blocks.{i}.{ours}.weight"] = weight
            state[f"blocks.{i}.{ours}.bias"] = trunk[f"h.{i}.{theirs}.bias"]
        weights = trunk[f"h.{i}.{FUSED_NAME}.weight"].T.chunk(3)  # each (out, in)
        biases = trunk[f"h.{i}.{FUSED_NAME}.bias"].chunk(3)
        for name, weight, bias in zip(FUSED, weights, biases, strict=True):
            state[f"blocks.{i}.{name}.weight"] = weight.contiguous()
            state[f"blocks.{i}.{name}.bias"] = bias.contiguous()
    return state


def _check_shapes(trunk: dict[str, Tensor], config: GPTConfig) -> None:
    """Raise `BaseError` that names each tensor which is missing, left over or misshapen."""
    shapes = gpt2_shapes(config)
    problems = [f"{name} is missing" for name in shapes if name not in trunk]
    problems += [f"{name} does not belong there" for name in trunk if name not in shapes]
    problems += [
        f"{name} is {tuple(trunk[name].shape)} instead of {shape}"
        for name, shape in shapes.items()
        if name in trunk and tuple(trunk[name].shape) != shape
    ]
    if not problems:
        return
    fused = f"h.0.{FUSED_NAME}.weight"
    if fused in trunk and tuple(trunk[fused].shape) == shapes[fused][::-1]:
        raise BaseError(
            "The checkpoint does not fit: its matrices are stored (out, in), as nanoGPT keeps "
            "them, and GPT-2's layout has (in, out). Transpose c_attn, c_proj and c_fc first."
        )
    if any(".lora_" in name or ".base_layer." in name for name in trunk):
        raise BaseError(
            "The checkpoint holds LoRA layers beside the model's own: call merge_and_unload() in "
            "peft and save it again, or load the adapter as one."
        )
    more = f" and {len(problems) - 8} more" if len(problems) > 8 else ""
    raise BaseError("The checkpoint does not fit: " + "; ".join(problems[:8]) + more + ".")


def to_gpt2(model: GPT, prefix: str = TRUNK) -> dict[str, Tensor]:
    """The weights of a `GPT` (merged, or without LoRA) under GPT-2's names; the head left out."""
    state = model.state_dict()
    out = {
        f"{theirs}.weight": _plain(state, f"{ours}.weight")
        for ours, theirs in EMBEDDING_NAMES.items()
    }
    for kind in ("weight", "bias"):
        out[f"{FINAL_NORM_NAME}.{kind}"] = state[f"final_norm.{kind}"]
    for i in range(model.config.n_layers):
        for ours, theirs in (LINEAR_NAMES | NORM_NAMES).items():
            weight = _plain(state, f"blocks.{i}.{ours}.weight")
            weight = weight.T.contiguous() if ours in LINEAR_NAMES else weight
            out[f"h.{i}.{theirs}.weight"] = weight
            out[f"h.{i}.{theirs}.bias"] = _plain(state, f"blocks.{i}.{ours}.bias")
        fused = {
            kind: [_plain(state, f"blocks.{i}.{name}.{kind}") for name in FUSED]
            for kind in ("weight", "bias")
        }
        out[f"h.{i}.{FUSED_NAME}.weight"] = torch.cat(fused["weight"]).T.contiguous()
        out[f"h.{i}.{FUSED_NAME}.bias"] = torch.cat(fused["bias"])
    return {prefix + name: tensor for name, tensor in out.items()}


def _plain(state: dict[str, Tensor], name: str) -> Tensor:
    """A layer's tensor, also where the layer stands inside a `LinearWithLoRA` or its like."""
    layer, _, kind = name.rpartition(".")
    inside = (f"{layer}.{wrapper}.{kind}" for wrapper in ("linear", "embedding"))
    return state[name] if name in state else next(state[n] for n in inside if n in state)


def gpt2_config(
    config: GPTConfig, end_of_text: int, dtype: str = "float32", padding: int | None = None
) -> dict[str, Any]:
    """`config.json` of `GPT2LMHeadModel`; a padding token, by default the end of a text, lets a
    classifier take batches.
    """
    return {
        "architectures": ["GPT2LMHeadModel"],
        "model_type": "gpt2",
        "vocab_size": config.vocab_size,
        "n_positions": config.context_length,
        "n_ctx": config.context_length,
        "n_embd": config.emb_dim,
        "n_layer": config.n_layers,
        "n_head": config.n_heads,
        "n_inner": None,
        "activation_function": "gelu_new",
        "layer_norm_epsilon": 1e-5,
        "scale_attn_weights": True,
        "scale_attn_by_inverse_layer_idx": False,
        "reorder_and_upcast_attn": False,
        "initializer_range": 0.02,
        "attn_pdrop": 0.0,
        "embd_pdrop": 0.0,
        "resid_pdrop": 0.0,
        "tie_word_embeddings": True,
        "use_cache": True,
        "bos_token_id": end_of_text,
        "eos_token_id": end_of_text,
        "pad_token_id": end_of_text if padding is None else padding,
        "dtype": dtype,
        "torch_dtype": dtype,
    }


def read_config_file(folder: Path) -> dict[str, Any]:
    """The object in a folder's `config.json`, if it is a GPT-2's. Raises `BaseError`."""
    path = folder / "config.json"
    try:
        raw = read_json(path, _MAX_CONFIG)
    except (OSError, ValueError) as error:
        if not path.exists():
            found = [*folder.glob("*/config.json"), *folder.glob("*/*/config.json")]
            inside = [p.parent.relative_to(folder).as_posix() for p in sorted(found)]
            reason = f"There is no config.json in {folder}: it is no model's folder."
            if (folder / "adapter_config.json").is_file():
                reason += " It holds an adapter: load it as one."
            if inside:
                reason += f" Is one of its folders meant: {', '.join(inside[:5])}?"
            raise BaseError(reason) from error
        raise BaseError(f"{path} cannot be read as a model's configuration: {error}") from error
    if not isinstance(raw, dict):
        raise BaseError(f"{path} must hold one JSON object.")
    kind, classes = raw.get("model_type"), raw.get("architectures")
    if kind is None:  # files of 2019 name no type: then the keys or the class must be GPT-2's
        named = isinstance(classes, list) and any(str(c).startswith("GPT2") for c in classes)
        if named or (not classes and {"n_embd", "n_layer", "n_head"} <= raw.keys()):
            kind = "gpt2"
        elif classes:
            kind = str(classes)[:80]
    if kind != "gpt2":
        raise BaseError(f"{path} describes a model of type {kind!r}; only 'gpt2' can be loaded.")
    return raw


def read_gpt_config(folder: Path) -> GPTConfig:
    """The shape in `config.json`. Raises `BaseError` where the model is not GPT-2's kind."""
    raw, path = read_config_file(folder), folder / "config.json"
    activation = raw.get("activation_function") or "gelu_new"
    if activation not in _TANH_GELU:
        raise BaseError(f"{path}: activation_function = {activation!r} is not GPT-2's own.")
    for key, usual in (("scale_attn_weights", True), ("scale_attn_by_inverse_layer_idx", False)):
        if raw.get(key, usual) not in (usual, None):
            raise BaseError(f"{path}: {key} = {raw[key]!r} is not GPT-2's own ({usual!r}).")
    if raw.get("quantization_config"):
        raise BaseError(f"{path}: the weights are quantised; save them as float32 or float16.")
    try:
        epsilon = float(raw.get("layer_norm_epsilon") or 1e-5)
        shape = [_first(raw, names, usual) for names, usual in _SHAPE_KEYS]
        config = GPTConfig(shape[0], shape[1], shape[2], shape[3], shape[4])
        inner = int(raw.get("n_inner") or config.hidden_dim)
    except (ConfigError, TypeError, ValueError) as error:
        raise BaseError(f"{path} lacks a usable setting: {error}") from error
    if config.n_layers > _MAX_LAYERS:
        raise BaseError(f"{path}: {config.n_layers:,} layers are more than any GPT-2 has.")
    if epsilon != 1e-5:
        raise BaseError(f"{path}: layer_norm_epsilon = {epsilon:g} is not GPT-2's own (1e-05).")
    if inner != config.hidden_dim:
        raise BaseError(f"{path}: an MLP of {inner} is not four times the width.")
    return config


def _first(raw: dict[str, Any], names: Sequence[str], usual: int) -> int:
    """The first of these settings that the file has, as a whole number."""
    for name in names:
        if raw.get(name) is not None:
            return int(raw[name])
    return usual
