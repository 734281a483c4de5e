"""Texts as padded batches of token ids: cut to the context, bucketed by length."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import tiktoken
import torch
from torch import Generator, Tensor

from lora_core.base.frame import frame_of

# A text is cut to this many characters a token of context before it is tokenised: more than any
# ordinary text needs, and it bounds the time that a pasted megabyte takes.
_CHARS_A_TOKEN = 64
# Batches are formed inside pools of so many batches, sorted by length: little padding, and still a
# new order each epoch.
_POOL = 16


@dataclass(frozen=True)
class Batch:
    """Right-padded token ids with their true lengths."""

    tokens: Tensor  # (batch, longest) int64
    lengths: Tensor  # (batch,) int64
    labels: Tensor  # (batch,) int64
    rows: tuple[int, ...]  # which texts of the set these are

    @property
    def real_tokens(self) -> int:
        """Tokens that are not padding."""
        return int(self.lengths.sum())


def encode_text(encoding: tiktoken.Encoding, text: str, context_length: int) -> list[int]:
    """Token ids of a text within its frame (`base.frame`), cut to the context.

    Never empty: where nothing is left it is one `<|endoftext|>`.
    """
    frame = frame_of(encoding)
    head = text[: context_length * _CHARS_A_TOKEN]
    room = max(0, context_length - len(frame))
    ids = [*frame.before, *encoding.encode_ordinary(head)[:room], *frame.after]
    return ids or [encoding.eot_token]


def own_ids(encoding: tiktoken.Encoding, ids: Sequence[int]) -> Sequence[int]:
    """Of what `encode_text` gave, the text's own token ids, without their frame."""
    frame = frame_of(encoding)
    return ids[len(frame.before) : len(ids) - len(frame.after)]


def make_batch(
    ids: Sequence[Sequence[int]], labels: Sequence[int], rows: Sequence[int], pad: int = 0
) -> Batch:
    """Pad the texts `rows` of a tokenised set to the longest of them."""
    lengths = [len(ids[row]) for row in rows]
    longest = max(lengths)
    padded = [[*ids[row], *([pad] * (longest - n))] for row, n in zip(rows, lengths, strict=True)]
    chosen = [labels[row] for row in rows]
    return Batch(torch.tensor(padded), torch.tensor(lengths), torch.tensor(chosen), tuple(rows))


def sorted_batches(
    ids: Sequence[Sequence[int]],
    labels: Sequence[int],
    batch_size: int,
    max_tokens: int | None = None,
) -> Iterator[Batch]:
    """Every text once, shortest with shortest: the least padding, for evaluation.

    With `max_tokens` a batch ends before its padded size would exceed that, which bounds memory.
    """
    order = sorted(range(len(ids)), key=lambda row: len(ids[row]))
    start = 0
    while start < len(order):
        end = min(start + batch_size, len(order))
        while (
            max_tokens and end > start + 1 and (end - start) * len(ids[order[end - 1]]) > max_tokens
        ):
            end -= 1
        yield make_batch(ids, labels, order[start:end])
        start = end


def training_batches(
    ids: Sequence[Sequence[int]], labels: Sequence[int], batch_size: int, generator: Generator
) -> Iterator[Batch]:
    """Epoch after epoch without end, each in a new order, bucketed by length.

    Each text comes once an epoch; an epoch's last batch may be smaller.
    """
    while True:
        order = torch.randperm(len(ids), generator=generator).tolist()
        epoch: list[list[int]] = []
        for start in range(0, len(order), _POOL * batch_size):
            pool = sorted(order[start : start + _POOL * batch_size], key=lambda row: len(ids[row]))
            epoch += [pool[i : i + batch_size] for i in range(0, len(pool), batch_size)]
        for i in torch.randperm(len(epoch), generator=generator).tolist():
            yield make_batch(ids, labels, epoch[i])
