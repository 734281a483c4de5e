"""Bases: the frozen models that adapters sit on. The bundled one, or GPT-2 from the Hub.

A checkpoint is a folder in Hugging Face's GPT-2 layout: `config.json` and safetensors (nothing is
ever unpickled), with query, key and value fused in `c_attn` and every matrix stored (in, out).
"""

from __future__ import annotations

import copy
import hashlib
import json
from dataclasses import dataclass
from pathlib import Path

import tiktoken
import torch
from safetensors import SafetensorError, safe_open
from torch import Generator, Tensor, nn

from lora_core.base.tokenizer import TokenizerError, gpt2_encoding, load_encoding
from lora_core.config import HEAD, ConfigError, GPTConfig
from lora_core.errors import LabError
from lora_core.lora import lora_layers
from lora_core.model import GPT

BUNDLED = Path(__file__).resolve().parents[2] / "assets" / "base"
HUB_NAMES = {
    "gpt2": "openai-community/gpt2",
    "gpt2-medium": "openai-community/gpt2-medium",
    "gpt2-large": "openai-community/gpt2-large",
    "gpt2-xl": "openai-community/gpt2-xl",
}
HUB_SILENCE = 30.0  # seconds without a byte after which the Hub counts as out of reach
_FUSED = ("query", "key", "value")  # the order within `c_attn`
# ours -> theirs, and whether theirs is stored transposed (GPT-2's Conv1D keeps (in, out)).
_BLOCK_NAMES = {
    "norm1": ("ln_1", False),
    "attention.output": ("attn.c_proj", True),
    "norm2": ("ln_2", False),
    "mlp.up": ("mlp.c_fc", True),
    "mlp.down": ("mlp.c_proj", True),
}
# Left over in old checkpoints: causal masks, and the head that is tied to the embeddings.
_IGNORED = (".attn.bias", ".attn.masked_bias", "lm_head.weight")


class BaseError(LabError, RuntimeError):
    """A base that cannot be loaded; the message says why and what to do."""


@dataclass(frozen=True, eq=False)
class Base:
    """A frozen language model with its tokenizer. Adapters share its tensors."""

    name: str  # "bundled", "gpt2", or the folder's or repository's name
    model: GPT  # without a head; parameters frozen, float32
    tokenizer: tiktoken.Encoding
    source: str  # folder or Hub repository: what `base_model_name_or_path` says in an adapter

    @property
    def config(self) -> GPTConfig:
        """The model's shape."""
        return self.model.config

    def digest(self) -> str:
        """SHA-256 of names and bytes of the weights, in hexadecimal."""
        return frozen_digest(self.model)

    def classifier_model(
        self, num_classes: int, generator: Generator | None = None, *, share: bool = True
    ) -> GPT:
        """A classifier over this base: the same tensors (no copy), and a new head of its own.

        `share=False` copies the weights and makes them trainable, for full fine-tuning.
        """
        memo = {id(p): p for p in self.model.parameters()} if share else {}
        model = copy.deepcopy(self.model, memo)
        if not share:
            model.requires_grad_(True)
        model.num_classes = num_classes
        head = nn.Linear(self.config.emb_dim, num_classes)
        nn.init.normal_(head.weight, std=0.02, generator=generator)
        nn.init.zeros_(head.bias)
        model.head = head
        return model


def load_base(name: str | Path = "bundled") -> Base:
    """Load a base: "bundled", "gpt2" (-medium, -large, -xl), a folder, or a Hub "owner/name".

    The bundled one needs no network. Raises `BaseError`, in words, when the network, a file or a
    tensor is missing or does not fit.
    """
    text = str(name)
    if text == "bundled":
        return _from_folder("bundled", BUNDLED, "assets/base")
    if text in HUB_NAMES:
        return _from_folder(text, _download(HUB_NAMES[text]), HUB_NAMES[text])
    if Path(text).is_dir():
        return _from_folder(Path(text).resolve().name, Path(text), text)
    if text.count("/") == 1 and not text.startswith((".", "/")):
        return _from_folder(text, _download(text), text)
    known = ", ".join(["bundled", *HUB_NAMES])
    raise BaseError(f"There is no base called '{text}'. Choose one of {known}, or a folder.")


def _from_folder(name: str, folder: Path, source: str) -> Base:
    model = load_model(folder)
    ranks = folder / "tokenizer.tiktoken"
    try:
        tokenizer = load_encoding(ranks) if ranks.is_file() else gpt2_encoding()
    except TokenizerError as error:
        raise BaseError(str(error)) from error
    if tokenizer.n_vocab > model.config.vocab_size:
        raise BaseError(
            f"The tokenizer of '{name}' knows {tokenizer.n_vocab:,} tokens, its model only "
            f"{model.config.vocab_size:,}: they do not belong together."
        )
    return Base(name, model, tokenizer, source)


def load_model(folder: str | Path) -> GPT:
    """Read a GPT-2 checkpoint folder into a frozen float32 `GPT` without a head.

    Raises `BaseError` that names each missing, left-over or misshapen tensor.
    """
    folder = Path(folder)
    config = read_gpt_config(folder)
    model = GPT.without_weights(config)
    model.load_state_dict(from_gpt2(read_tensors(folder), config), assign=True)
    return model.requires_grad_(False).eval()


def read_gpt_config(folder: Path) -> GPTConfig:
    """The shape in `config.json`. Raises `BaseError` where the model is not GPT-2's kind."""
    path = folder / "config.json"
    try:
        raw = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise BaseError(f"{path} cannot be read as a model's configuration: {error}") from error
    if not isinstance(raw, dict) or raw.get("model_type") != "gpt2":
        kind = raw.get("model_type") if isinstance(raw, dict) else None
        raise BaseError(f"{path} describes a model of type {kind!r}; only 'gpt2' can be loaded.")
    for key, usual in (
        ("activation_function", "gelu_new"),
        ("scale_attn_weights", True),
        ("scale_attn_by_inverse_layer_idx", False),
        ("layer_norm_epsilon", 1e-5),
    ):
        if raw.get(key, usual) != usual:
            raise BaseError(f"{path}: {key} = {raw[key]!r} is not GPT-2's own ({usual!r}).")
    inner = raw.get("n_inner")
    if inner not in (None, 4 * int(raw.get("n_embd", 0))):
        raise BaseError(f"{path}: an MLP of {inner} is not four times the width.")
    try:
        return GPTConfig(
            raw["vocab_size"], raw["n_positions"], raw["n_embd"], raw["n_layer"], raw["n_head"]
        )
    except (KeyError, ConfigError) as error:
        raise BaseError(f"{path} lacks a usable setting: {error}") from error


def read_tensors(folder: Path) -> dict[str, Tensor]:
    """All tensors of a safetensors checkpoint, one file or sharded with an index, as float32."""
    index = folder / "model.safetensors.index.json"
    try:
        if index.is_file():
            weight_map: dict[str, str] = json.loads(index.read_text("utf-8"))["weight_map"]
        else:
            with safe_open(folder / "model.safetensors", "pt") as file:
                weight_map = dict.fromkeys(file.keys(), "model.safetensors")
        tensors = {}
        for shard in sorted(set(weight_map.values())):
            if Path(shard).name != shard:
                raise BaseError(f"{index} points outside its folder: {shard!r}.")
            with safe_open(folder / shard, "pt") as file:
                for name in file.keys():  # noqa: SIM118 (not a dict)
                    tensors[name] = file.get_tensor(name).float()
    except (OSError, SafetensorError, KeyError, ValueError) as error:
        raise BaseError(f"The weights in {folder} cannot be read: {error}") from error
    if missing := sorted(set(weight_map) - set(tensors)):
        raise BaseError(f"The index of {folder} names tensors that no file holds: {missing}.")
    return tensors


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


def from_gpt2(tensors: dict[str, Tensor], config: GPTConfig) -> dict[str, Tensor]:
    """GPT-2's tensors -> the state dict of a `GPT` without a head; every tensor accounted for."""
    given = {name.removeprefix("transformer."): tensor for name, tensor in tensors.items()}
    given = {n: t for n, t in given.items() if not n.endswith(_IGNORED)}
    shapes = gpt2_shapes(config)
    problems = [f"{name} is missing" for name in shapes if name not in given]
    problems += [f"{name} does not belong there" for name in given if name not in shapes]
    problems += [
        f"{name} is {tuple(given[name].shape)} instead of {shape}"
        for name, shape in shapes.items()
        if name in given and tuple(given[name].shape) != shape
    ]
    if problems:
        more = f" and {len(problems) - 8} more" if len(problems) > 8 else ""
        raise BaseError("The checkpoint does not fit: " + "; ".join(problems[:8]) + more + ".")
    state = {
        "token_embedding.weight": given["wte.weight"],
        "position_embedding.weight": given["wpe.weight"],
        "final_norm.weight": given["ln_f.weight"],
        "final_norm.bias": given["ln_f.bias"],
    }
    for i in range(config.n_layers):
        for ours, (theirs, transposed) in _BLOCK_NAMES.items():
            weight = given[f"h.{i}.{theirs}.weight"]
            weight = weight.T.contiguous() if transposed else weight
            state[f"blocks.{i}.{ours}.weight"] = weight
            state[f"blocks.{i}.{ours}.bias"] = given[f"h.{i}.{theirs}.bias"]
        weights = given[f"h.{i}.attn.c_attn.weight"].T.chunk(3)  # each (out, in)
        biases = given[f"h.{i}.attn.c_attn.bias"].chunk(3)
        for name, weight, bias in zip(_FUSED, weights, biases, strict=True):
            state[f"blocks.{i}.attention.{name}.weight"] = weight.contiguous()
            state[f"blocks.{i}.attention.{name}.bias"] = bias.contiguous()
    return state


def to_gpt2(model: GPT, prefix: str = "transformer.") -> dict[str, Tensor]:
    """The weights of a `GPT` (merged, or without LoRA) under GPT-2's names; the head left out."""
    state = model.state_dict()
    out = {
        "wte.weight": _plain(state, "token_embedding.weight"),
        "wpe.weight": _plain(state, "position_embedding.weight"),
        "ln_f.weight": state["final_norm.weight"],
        "ln_f.bias": state["final_norm.bias"],
    }
    for i in range(model.config.n_layers):
        for ours, (theirs, transposed) in _BLOCK_NAMES.items():
            weight = _plain(state, f"blocks.{i}.{ours}.weight")
            out[f"h.{i}.{theirs}.weight"] = weight.T.contiguous() if transposed else weight
            out[f"h.{i}.{theirs}.bias"] = _plain(state, f"blocks.{i}.{ours}.bias")
        fused = {
            kind: [_plain(state, f"blocks.{i}.attention.{n}.{kind}") for n in _FUSED]
            for kind in ("weight", "bias")
        }
        out[f"h.{i}.attn.c_attn.weight"] = torch.cat(fused["weight"]).T.contiguous()
        out[f"h.{i}.attn.c_attn.bias"] = torch.cat(fused["bias"])
    return {prefix + name: tensor for name, tensor in out.items()}


def _plain(state: dict[str, Tensor], name: str) -> Tensor:
    """A layer's tensor, also where the layer stands inside a `LinearWithLoRA` or its like."""
    layer, _, kind = name.rpartition(".")
    inside = (f"{layer}.{wrapper}.{kind}" for wrapper in ("linear", "embedding"))
    return state[name] if name in state else next(state[n] for n in inside if n in state)


def frozen_digest(model: nn.Module) -> str:
    """SHA-256 of the base's weights as they lie in `model`, adapted or not, merged or not.

    Head and adapters are left out, so a model before and after LoRA gives the base's own digest.
    """
    tensors: dict[str, Tensor] = {
        n: p for n, p in model.named_parameters() if not n.startswith(HEAD + ".")
    }
    for name, layer in lora_layers(model):
        for half, _ in layer.named_parameters():
            tensors.pop(f"{name}.{half}", None)
        if name != HEAD:
            tensors[f"{name}.weight"] = layer.frozen_weight
            if layer.frozen_bias is not None:
                tensors[f"{name}.bias"] = layer.frozen_bias
    digest = hashlib.sha256()
    for name in sorted(tensors):
        digest.update(name.encode())
        digest.update(tensors[name].detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()


def _download(repository: str) -> Path:
    """A Hub repository's configuration and safetensors, in the Hub's own cache."""
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

    try:
        files = ["config.json", "*.safetensors", "*.safetensors.index.json", "*.tiktoken"]
        silent = not _hub_answers(repository)  # then what an earlier download kept is enough
        return Path(snapshot_download(repository, allow_patterns=files, local_files_only=silent))
    except (LocalEntryNotFoundError, OSError) as error:
        if isinstance(error, HfHubHTTPError) and error.response is not None:
            status = error.response.status_code
            raise BaseError(
                f"The Hub answered {status} for '{repository}': is the name right?"
            ) from error
        raise BaseError(
            f"'{repository}' is not on this machine and the Hugging Face Hub cannot be reached. "
            "The bundled base works without a network."
        ) from error
    except HFValidationError as error:
        raise BaseError(f"'{repository}' is not a name of the Hub: {error}") from error


def _hub_answers(repository: str) -> bool:
    """Whether the Hub says anything within a while; `snapshot_download` would wait for ever."""
    from huggingface_hub import HfApi
    from huggingface_hub.errors import HfHubHTTPError

    try:
        HfApi().repo_info(repository, timeout=HUB_SILENCE)
    except (HfHubHTTPError, ValueError):
        return True  # a refusal is an answer, and the download will meet it again
    except Exception:  # of whichever library speaks HTTP: nobody answers
        return False
    return True
