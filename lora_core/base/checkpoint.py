"""Bases: the frozen models that adapters sit on. The bundled one, or GPT-2 from the Hub.

A checkpoint is a folder in Hugging Face's GPT-2 layout (`gpt2_names`): `config.json`, safetensors,
a tokenizer. Nothing is ever unpickled.
"""

from __future__ import annotations

import copy
import hashlib
import json
import math
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import tiktoken
import torch
from safetensors import SafetensorError, safe_open
from torch import Generator, Tensor, nn

from lora_core.base.download import (
    HUB_NAMES,
    HUB_SILENCE,
    INDEX_FILE,
    WEIGHTS_FILE,
    cached_folder,
    download_base,
    download_config,
    no_safetensors,
)
from lora_core.base.errors import BaseError
from lora_core.base.frame import frame_of
from lora_core.base.gpt2_names import (
    from_gpt2,
    gpt2_shapes,
    read_config_file,
    read_gpt_config,
    to_gpt2,
    trunk_name,
)
from lora_core.base.text_files import LFS_POINTER, is_lfs_pointer
from lora_core.base.tokenizer import RANKS_FILE, load_encoding, load_tokenizer
from lora_core.config import HEAD, GPTConfig
from lora_core.lora import lora_layers
from lora_core.model import GPT
from lora_core.parameters import BYTES_FP32

__all__ = [
    "BUNDLED",
    "HUB_NAMES",
    "HUB_SILENCE",
    "Base",
    "BaseError",
    "base_bytes",
    "base_folder",
    "canonical_name",
    "from_gpt2",
    "frozen_digest",
    "load_base",
    "load_model",
    "read_tensors",
    "to_gpt2",
]

BUNDLED = Path(__file__).resolve().parents[2] / "assets" / "base"
_BUNDLED_SOURCE = "assets/base"
_ADDRESS = re.compile(  # of a model on the Hub, as a browser has it
    r"(?:https?://)?(?:www\.)?(?:huggingface\.co|hf\.co)/([\w.-]+(?:/[\w.-]+)?)(?:/tree/main)?/?"
)
_DTYPES = ("F64", "F32", "F16", "BF16")


@dataclass(frozen=True, eq=False)
class Base:
    """A frozen language model with its tokenizer. Adapters share its tensors."""

    name: str  # "bundled", "gpt2", or the folder's or repository's name
    model: GPT  # without a head; parameters frozen, float32
    tokenizer: tiktoken.Encoding
    source: str  # folder or Hub repository: what `base_model_name_or_path` says in an adapter
    remark: str = ""  # what its user must know, in a sentence: whose tokenizer it has

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

    The bundled one needs no network. A folder goes before a name of the Hub, as in `transformers`.
    Raises `BaseError`, in words, when the network, a file or a tensor is missing or does not fit.
    """
    text = canonical_name(name)
    if text == "bundled":
        encoding = load_encoding(BUNDLED / RANKS_FILE)
        return Base(text, load_model(BUNDLED), encoding, _BUNDLED_SOURCE)
    if (folder := _local(text)) is not None:
        return _from_folder(folder.resolve().name, folder, str(folder))
    repository = _repository(text)
    return _from_folder(text, download_base(repository), repository)


def canonical_name(name: str | Path) -> str:
    """One name for one base: "openai-community/gpt2" is "gpt2", where no folder is called so."""
    text = str(name).strip()
    if address := _ADDRESS.fullmatch(text):
        text = address[1]
    if _local(text) is None:
        return next((short for short, full in HUB_NAMES.items() if full == text), text)
    return text


def base_bytes(name: str | Path) -> int:
    """Bytes that a base will take in memory, as float32, found without its weights."""
    text = canonical_name(name)
    folder = BUNDLED if text == "bundled" else _local(text)
    config = read_gpt_config(folder or download_config(_repository(text)))
    return BYTES_FP32 * sum(math.prod(shape) for shape in gpt2_shapes(config).values())


def base_folder(source: str) -> Path | None:
    """Where a base's files lie on this machine, by its `source`; None where they are gone."""
    if source == _BUNDLED_SOURCE:
        return BUNDLED
    return _local(source) or (cached_folder(source) if source.count("/") == 1 else None)


def _local(text: str) -> Path | None:
    """The folder that `text` names; for a name that the Hub has as well, only one with a model."""
    if text in ("bundled", ""):
        return None
    try:
        folder = Path(text).expanduser()
        is_folder = folder.is_dir() and (
            text not in HUB_NAMES or (folder / "config.json").is_file()
        )
    except (OSError, RuntimeError, ValueError):  # no home, a name too long, a NUL
        return None
    return folder if is_folder else None


def _is_file(text: str) -> bool:
    try:
        return Path(text).expanduser().is_file()
    except (OSError, RuntimeError, ValueError):
        return False


def _repository(text: str) -> str:
    if text in HUB_NAMES:
        return HUB_NAMES[text]
    if text.count("/") == 1 and not text.startswith((".", "/", "~")):
        return text
    known = ", ".join(["bundled", *HUB_NAMES])
    if _is_file(text):
        raise BaseError(f"'{text}' is a file. Name the folder in which it lies.")
    raise BaseError(
        f"There is no base called '{text}'. Choose one of {known}, a folder, or a model of the Hub "
        "as owner/name."
    )


def _from_folder(name: str, folder: Path, source: str) -> Base:
    vocab_size = read_gpt_config(folder).vocab_size
    named = read_config_file(folder)
    end, padding = (
        value if isinstance(value, int) and 0 <= value < vocab_size else None
        for value in (named.get("eos_token_id"), named.get("pad_token_id"))
    )
    encoding, remark = load_tokenizer(folder, vocab_size, end)  # before the weights: it is quick
    if len(frame_of(encoding)):
        encoding.frame = frame_of(encoding).read_with(padding)  # type: ignore[attr-defined]
    return Base(name, load_model(folder), encoding, source, remark)


def load_model(folder: str | Path) -> GPT:
    """Read a GPT-2 checkpoint folder into a frozen float32 `GPT` without a head.

    Raises `BaseError` that names each missing, left-over or misshapen tensor.
    """
    folder = Path(folder)
    config = read_gpt_config(folder)
    model = GPT.without_weights(config)
    model.load_state_dict(from_gpt2(read_tensors(folder), config), assign=True)
    return model.requires_grad_(False).eval()


def read_tensors(folder: Path) -> dict[str, Tensor]:
    """The trunk's tensors of a safetensors checkpoint, in one file or several, as float32.

    Masks and heads are left out. Raises `BaseError`.
    """
    index = folder / INDEX_FILE
    tensors: dict[str, Tensor] = {}
    try:
        weight_map = _weight_map(folder)
        file: Any  # safetensors' class has no types
        for shard in sorted(set(weight_map.values())):
            if Path(shard).name != shard:
                raise BaseError(f"{index} points outside its folder: {shard!r}.")
            _check_whole(folder / shard)
            with safe_open(folder / shard, "pt") as file:
                for name in file.keys():  # noqa: SIM118 (not a dict)
                    if trunk_name(name) is not None:
                        tensors[name] = _as_float(file, name)
    except (OSError, SafetensorError, KeyError, ValueError, TypeError) as error:
        raise BaseError(f"The weights in {folder} cannot be read: {error}") from error
    wanted = {name for name in weight_map if trunk_name(name) is not None}
    if missing := sorted(wanted - set(tensors)):
        raise BaseError(f"The index of {folder} names tensors that no file holds: {missing}.")
    return tensors


def _weight_map(folder: Path) -> dict[str, str]:
    """In which file each tensor lies: as the index says, else the one file, else all shards."""
    if (folder / INDEX_FILE).is_file():
        content = json.loads((folder / INDEX_FILE).read_text("utf-8-sig"))
        return {str(name): str(file) for name, file in dict(content["weight_map"]).items()}
    files = [folder / WEIGHTS_FILE]
    if not files[0].is_file():
        files = sorted(folder.glob("model-*-of-*.safetensors"))
    if not files:
        present = [path.name for path in folder.iterdir()] if folder.is_dir() else []
        raise BaseError(no_safetensors(str(folder), present))
    weight_map: dict[str, str] = {}
    for path in files:
        _check_whole(path)
        with safe_open(path, "pt") as file:
            weight_map |= dict.fromkeys(file.keys(), path.name)
    return weight_map


def _check_whole(path: Path) -> None:
    if not path.is_file():
        raise BaseError(f"{path} is missing: the weights are in several files, and all are needed.")
    if is_lfs_pointer(path):
        raise BaseError(f"{path} {LFS_POINTER}")


def _as_float(file: Any, name: str) -> Tensor:
    """A tensor as float32; raises `BaseError` for whole numbers, and for infinite ones."""
    kind = file.get_slice(name).get_dtype()
    if kind not in _DTYPES:
        raise BaseError(
            f"The tensor {name} holds {kind}; only floating point numbers of 16 bits or more "
            "can be read. Save the model again as float32."
        )
    tensor: Tensor = file.get_tensor(name).float()
    if not torch.isfinite(tensor).all():
        raise BaseError(f"The tensor {name} holds numbers that are infinite or NaN.")
    return tensor


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
