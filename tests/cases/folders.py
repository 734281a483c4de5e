"""Small GPT-2 folders and adapters as strangers have them, made on the spot."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor

import lora_core as lc
from lora_core.base.checkpoint import BUNDLED
from lora_core.base.gpt2_names import TRUNK, gpt2_config, to_gpt2
from lora_core.base.tokenizer import load_encoding

VOCAB = load_encoding(BUNDLED / "tokenizer.tiktoken").n_vocab  # with <|endoftext|>


def tiny_folder(
    folder: Path,
    vocab: int = VOCAB,
    context: int = 64,
    width: int = 24,
    layers: int = 2,
    heads: int = 2,
    *,
    tokenizer: bool = True,
    prefix: str = TRUNK,
    config: dict[str, Any] | None = None,
    seed: int = 5,
) -> tuple[Path, dict[str, Tensor]]:
    """A GPT-2 checkpoint of random weights, and its tensors; None in `config` removes a key."""
    folder.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(seed)
    shape = lc.GPTConfig(vocab, context, width, layers, heads)
    model = lc.GPT(shape, num_classes=None).requires_grad_(False).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.05)
    tensors = to_gpt2(model, prefix)
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    settings = {**gpt2_config(shape, vocab - 1), **(config or {})}
    settings = {key: value for key, value in settings.items() if value is not None}
    (folder / "config.json").write_text(json.dumps(settings))
    if tokenizer:
        for name in ("tokenizer.tiktoken", "tokenizer_config.json"):
            shutil.copyfile(BUNDLED / name, folder / name)
    return folder, tensors
