"""A ragged batch without its padding, for the fast path: which row is copied where."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Packed:
    """A ragged batch: n texts of together at most m tokens, the longest at most t; h heads.

    The index tensors gather rows of head_dim numbers, so that packing and the heads' layout cost
    one copy. Where there is no token, a gradient is read from the last row, which is zeros.
    """

    tokens: Tensor  # (m,)
    positions: Tensor  # (m,)
    last: Tensor  # (n,) where each text ends
    kvq_to_heads: Tensor  # (3 n h t,) rows of (m, 3, h) -> (3, n, h, t)
    kv_to_heads: Tensor  # (2 n h t,)
    to_heads: Tensor  # (n h t,) rows of (m + 1, h) -> (n, h, t): zeros for padding
    from_heads: Tensor  # (m h,) rows of (n, h, t) -> (m, h)
    kvq_from_heads: Tensor  # (3 m h,) rows of (3, n, h, t) and one -> (m, 3, h)
    kv_from_heads: Tensor  # (2 m h,)
    causal: Tensor  # (t, t) zeros, minus infinity above the diagonal
    ended: Tensor  # (n h, 1, t) zeros, minus infinity after each text's end
    shape: tuple[int, int]  # n, t


# A float32 product has the same bits with 1, 2, 4 and 8 cores if its rows are a multiple of 16, and
# its ranks of 4, where it is a thin one (tests/benchmarks/cores.py).
STEADY_ROWS, STEADY_RANKS = 16, 4


def round_up(size: int, least: int) -> int:
    """The next of a few sizes, at most an eighth above `size`: multiples of `least`, then of more.

    The library behind bfloat16 products compiles a kernel for each new shape, at half a
    millisecond and more; rows that stand empty are cheaper.
    """
    step = max(least, 1 << max(0, size.bit_length() - 4))
    return -(-size // step) * step


def pack(
    tokens: Tensor, lengths: Tensor, heads: int, dtype: torch.dtype, *, exact: bool = False
) -> Packed:
    """(n, t) right-padded ids and (n,) lengths -> the batch without its padding.

    A few rows stand empty at the end, in float32 none if `exact`.
    """
    n, t = tokens.shape
    real = torch.arange(t) < lengths[:, None]  # (n, t)
    places = real.flatten().nonzero().squeeze(1)  # (real tokens,) in (n, t)
    count = len(places)
    text, position = places // t, places % t
    ids = tokens.flatten()[places]
    row = torch.where(real, (real.flatten().cumsum(0) - 1).view(n, t), -1)  # (n, t) in (m,)
    if dtype == torch.float32:
        spare = 0 if exact else -count % STEADY_ROWS
    else:
        spare = round_up(count, 32) - count
        wide = round_up(t, 8) - t
        row = torch.nn.functional.pad(row, (0, wide), value=-1)
        t += wide
    ids, position = (torch.nn.functional.pad(x, (0, spare)) for x in (ids, position))
    m = count + spare
    row = row[:, None]
    head = torch.arange(heads)
    here = (text * (heads * t) + position[:count])[:, None] + head * t  # (count, h) in (n, h, t)
    anywhere = torch.nn.functional.pad(here, (0, 0, 0, spare))
    parts = torch.arange(3)[:, None]

    def to_heads(ways: int) -> Tensor:
        part = parts[:ways, None, None]
        return (row.clamp(min=0) * (ways * heads) + part * heads + head[:, None]).flatten()

    def from_heads(ways: int) -> Tensor:
        size = n * heads * t
        index = (parts[:ways] * size + here[:, None]).flatten(1)  # (count, ways h)
        return torch.nn.functional.pad(index, (0, 0, 0, spare), value=ways * size).flatten()

    ended = torch.arange(t) >= lengths[:, None]
    return Packed(
        ids,
        position,
        lengths.cumsum(0) - 1,
        to_heads(3),
        to_heads(2),
        (torch.where(row < 0, m, row) * heads + head[:, None]).flatten(),
        anywhere.flatten(),
        from_heads(3),
        from_heads(2),
        torch.full((t, t), -math.inf, dtype=dtype).triu_(1),
        torch.zeros(n, t, dtype=dtype)
        .masked_fill_(ended, -math.inf)
        .repeat_interleave(heads, 0)[:, None],
        (n, t),
    )
