"""A `GPT` as a folder in Hugging Face's GPT-2 layout: fp16 safetensors in shards, and an index."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor

from lora_core.base.frame import frame_of
from lora_core.base.gpt2_names import gpt2_config, to_gpt2
from lora_core.base.tokenizer import RANKS_FILE, load_encoding
from lora_core.base.tokenizer_files import TOKENIZER_FILES
from lora_core.model import GPT
from lora_core.pretraining import PretrainingError

SHARD_BYTES = 8_000_000  # no file of a repository without LFS should pass 10 MB
_INDEX = "model.safetensors.index.json"


def export(model: GPT, tokenizer: Path, out: Path, *, shard_bytes: int = SHARD_BYTES) -> list[Path]:
    """Write `model` and the tokenizer files of the folder `tokenizer` into `out`; what was written.

    Weights are rounded to fp16: half the size, and exact enough to compare with (whoever reads the
    folder, this project or `transformers`, starts from the same rounded numbers).
    """
    config = model.config
    tensors = {n: t.detach().half().cpu().contiguous() for n, t in to_gpt2(model).items()}
    infinite = [n for n, t in tensors.items() if not bool(torch.isfinite(t).all())]
    if infinite:
        raise PretrainingError(f"These weights do not fit into fp16: {', '.join(infinite)}.")
    shards = _shards(tensors, shard_bytes)
    names = [f"model-{i + 1:05d}-of-{len(shards):05d}.safetensors" for i in range(len(shards))]
    index = {
        "metadata": {"total_size": sum(_size(t) for t in tensors.values())},
        "weight_map": {n: f for f, s in zip(names, shards, strict=True) for n in s},
    }
    encoding = load_encoding(tokenizer / RANKS_FILE)
    padding = frame_of(encoding).padding_beside(encoding.eot_token)
    settings = gpt2_config(config, encoding.eot_token, "float16", padding)
    try:
        out.mkdir(parents=True, exist_ok=True)
        for old in out.glob("model*.safetensors"):
            old.unlink()
        for name, shard in zip(names, shards, strict=True):
            save_file(shard, out / name, metadata={"format": "pt"})
            (out / name).chmod(0o644)  # safetensors leaves it readable by its owner alone
        _write_json(out / _INDEX, index)
        _write_json(out / "config.json", settings)
        for name in TOKENIZER_FILES:
            source = tokenizer / name
            if source.is_file() and source.resolve() != (out / name).resolve():
                shutil.copyfile(source, out / name)
    except OSError as error:
        raise PretrainingError(f"The model cannot be written to {out}: {error}.") from error
    return [out / name for name in [*names, _INDEX, "config.json"]]


def _shards(tensors: dict[str, Tensor], limit: int) -> list[dict[str, Tensor]]:
    """In order, each as full as fits; a tensor larger than the limit gets one of its own."""
    shards: list[dict[str, Tensor]] = [{}]
    size = 0
    for name, tensor in tensors.items():
        if shards[-1] and size + _size(tensor) > limit:
            shards.append({})
            size = 0
        shards[-1][name] = tensor
        size += _size(tensor)
    return shards


def _size(tensor: Tensor) -> int:
    return tensor.numel() * tensor.element_size()


def _write_json(path: Path, content: object) -> None:
    path.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
