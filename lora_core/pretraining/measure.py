"""Bits per byte: how well a language model predicts a text, whatever its tokenizer."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import tiktoken
import torch
from numpy.typing import NDArray

from lora_core.config import GPTConfig
from lora_core.pretraining import PretrainingError
from lora_core.pretraining.corpus import encode_documents
from lora_core.pretraining.network import Weights, hidden_states

Validation = tuple[NDArray[np.int64], int]  # token ids of a text, and its size in bytes

_TOKENS_AT_ONCE = 2048


def read_validation(path: Path, encoding: tiktoken.Encoding) -> Validation:
    """Token ids of a file and its size in bytes.

    The ids are `<|endoftext|> document <|endoftext|> document ... <|endoftext|>`: the first is
    given, every other one is predicted. A later `<|endoftext|>` stands for the blank line between
    two documents, so that the predicted tokens spell every byte of the file.
    """
    paths: Sequence[Path] = [path]
    ids = [i for batch in encode_documents(paths, encoding) for i in batch]
    if not ids:
        raise PretrainingError(f"There is no text in {path}.")
    return np.asarray([*ids, encoding.eot_token], dtype=np.int64), path.stat().st_size


@torch.no_grad()
def summed_loss(
    weights: Weights, config: GPTConfig, ids: NDArray[np.int64], stride: int, limit: int = 0
) -> tuple[float, int]:
    """Summed cross-entropy in nats over ids[1:], and how many tokens were predicted.

    The model sees windows of its context length that advance by `stride`; each token is predicted
    once, in the first window that reaches it. So it has at least `context - stride` tokens before
    it, except at the start of the file. `limit` stops after about so many tokens (0: all).
    """
    length = min(config.context_length, len(ids) - 1)
    stride = min(stride, length)
    end = min(limit, len(ids) - 1) if limit else len(ids) - 1
    starts = [0]
    while starts[-1] + length < end:
        starts.append(min(starts[-1] + stride, len(ids) - 1 - length))
    embedding = weights["token_embedding.weight"]
    total, done = 0.0, 0
    rows = max(1, _TOKENS_AT_ONCE // length)
    for first in range(0, len(starts), rows):
        group = starts[first : first + rows]
        block = np.stack([ids[s : s + length + 1] for s in group])
        tokens = torch.from_numpy(block).to(embedding.device)
        states = hidden_states(weights, config, tokens[:, :-1])
        for start, state, target in zip(group, states, tokens[:, 1:], strict=True):
            new = start + length - done  # how many of this window were not predicted before
            logits = (state[-new:] @ embedding.t()).float()
            loss = torch.nn.functional.cross_entropy(logits, target[-new:], reduction="sum")
            total += loss.item()
            done = start + length
    return total, done


def bits_per_byte(nats: float, tokens: int, all_tokens: int, size: int) -> float:
    """Of a file of `size` bytes and `all_tokens` predicted tokens, from the loss of `tokens`."""
    return nats / math.log(2.0) * (all_tokens / tokens) / size
