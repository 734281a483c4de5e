"""Linear layers that share an input, frozen or adapted or trained, as one product each way; GELU.

Part of the fast path (`gpt.py`): what autograd would do for `LinearWithLoRA`, written out.
"""

from __future__ import annotations

import contextlib
import math
import threading
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor
from torch.utils.weak import WeakIdKeyDictionary

from lora_core.cores import one_core
from lora_core.fast.packing import STEADY_RANKS, STEADY_ROWS
from lora_core.lora import LoRALayer

# Above so many columns of several A's side by side, a product with the zeros between their B's
# costs more than a product for each.
_BLOCK_DIAGONAL = 48
_GELU = 2.0 * math.sqrt(2.0 / math.pi)  # gelu_tanh(u) = u sigmoid(_GELU (u + _CUBE u^3))
_CUBE = 0.044715
_CONSTANTS = (torch.tensor(_GELU), torch.tensor(-2 * _GELU))


class _Cast(NamedTuple):
    sources: tuple[tuple[int, int], ...]  # id and version of each tensor when it was cast
    tensor: Tensor


# first source -> {(dtype, how many, device): _Cast}
_casts: WeakIdKeyDictionary = WeakIdKeyDictionary()
_casts_lock = threading.Lock()


def frozen_cast(
    tensors: tuple[Tensor, ...], dtype: torch.dtype, device: torch.device | None = None
) -> Tensor:
    """Tensors stacked along their first dimension, in `dtype`, on `device` (None: where they are);
    the same object for every caller.

    Made once and kept as long as the first of them lives; made anew if one was written to.
    """
    device = device or tensors[0].device
    if len(tensors) == 1 and tensors[0].dtype == dtype and tensors[0].device == device:
        return tensors[0].detach()
    sources = tuple((id(t), t._version) for t in tensors)
    with _casts_lock:
        casts = _casts.setdefault(tensors[0], {})
        cast = casts.get((dtype, len(tensors), device))
        if cast is None or cast.sources != sources:
            joined = torch.cat([t.detach() for t in tensors]).to(device, dtype)
            cast = casts[(dtype, len(tensors), device)] = _Cast(sources, joined)
    return cast.tensor


class Workspace(threading.local):
    """Large intermediate results by name, written again at each step; of each thread its own.

    A fresh tensor of a megabyte costs more in page faults than the product that fills it.
    """

    def __init__(self) -> None:
        self._buffers: dict[tuple[str, torch.dtype], Tensor] = {}
        self._views: dict[tuple[str, torch.dtype, tuple[int, ...]], Tensor] = {}

    def __call__(self, name: str, *shape: int, dtype: torch.dtype) -> Tensor:
        """An uninitialised tensor; it overwrites the one that had this name before."""
        view = self._views.get((name, dtype, shape))
        if view is None:
            size = math.prod(shape)
            buffer = self._buffers.get((name, dtype))
            if buffer is None or buffer.numel() < size:
                buffer = self._buffers[name, dtype] = torch.empty(size + size // 4, dtype=dtype)
                self._views = {k: v for k, v in self._views.items() if k[:2] != (name, dtype)}
            view = self._views[name, dtype, shape] = buffer[:size].view(shape)
        return view


class Adapter(NamedTuple):
    """One LoRA layer within a group: where it writes, and its parts in the flat tensors."""

    layer: LoRALayer
    columns: slice  # of the group's output
    A: Tensor  # (in, r) in the format of the products
    B: Tensor  # (r, out) the same, with the scale folded in
    grad_a: Tensor  # (in, r) float32
    grad_b: Tensor  # (r, out) float32, still without the scale


class Tape(NamedTuple):
    """What a group's backward pass needs of its forward pass."""

    x: Tensor  # (m, in)
    # (x A)^T, (r, m), of all adapters together or of each. Thin products are computed transposed
    # throughout: that way round they take half the time.
    inner: list[Tensor]
    masks: list[Tensor]  # dropout's, one an adapter: zeros and 1 / (1 - dropout); or empty


class Group:
    """y = x W^T + b + (x A)(s B), with one W for all layers that read x."""

    def __init__(
        self,
        space: Workspace,
        weight: Tensor,
        bias: Tensor | None,
        adapters: list[Adapter],
    ) -> None:
        self.space, self.adapters = space, adapters
        self.weight, self.bias = weight, bias  # (out, in), (out,)
        self.turned = weight.T
        self.gradients: list[tuple[Tensor, Tensor]] = []  # (to, from), copied all at once
        self.grad_weight: Tensor | None = None  # float32; full fine-tuning only
        self.grad_bias: Tensor | None = None
        ranks = [adapter.A.shape[1] for adapter in adapters]
        dropout = bool(adapters) and adapters[0].layer.dropout > 0
        self.apart = dropout or (len(adapters) > 1 and sum(ranks) > _BLOCK_DIAGONAL)
        self.ranks = ranks if self.apart else [sum(ranks)]  # of the thin products
        ends = torch.tensor(ranks).cumsum(0).tolist()
        self.rows = [slice(end - rank, end) for end, rank in zip(ends, ranks, strict=True)]
        self.joined = False
        if adapters and not self.apart:
            self.A, self.B = adapters[0].A, adapters[0].B
            self.joined = len(adapters) > 1 or self.B.shape[1] != weight.shape[0]
            if self.joined:
                self.A = self.A.new_empty(weight.shape[1], sum(ranks))
                self.B = self.B.new_zeros(sum(ranks), weight.shape[0])
            self.A_turned = self.A.T

    def copies(self) -> list[tuple[Tensor, Tensor]]:
        """(to, from): what keeps A's and B's side by side up to date."""
        if not self.joined:
            return []
        pairs = list(zip(self.adapters, self.rows, strict=True))
        return [
            *((self.A[:, rows], adapter.A) for adapter, rows in pairs),
            *((self.B[rows, adapter.columns], adapter.B) for adapter, rows in pairs),
        ]

    def forward(self, x: Tensor, training: bool) -> tuple[Tensor, Tape]:
        """(m, in) -> (m, out), valid until the next product."""
        y = self.space("product", x.shape[0], self.weight.shape[0], dtype=x.dtype)
        with _steady(x):
            if self.bias is None:
                torch.mm(x, self.turned, out=y)
            else:
                torch.addmm(self.bias, x, self.turned, out=y)
        if not self.adapters:
            return y, Tape(x, [], [])
        with _steady(x, self.ranks):
            return y, self._adapters_forward(x, y, training)

    def _adapters_forward(self, x: Tensor, y: Tensor, training: bool) -> Tape:
        """Add what the adapters give to `y`."""
        if not self.apart:
            inner = self.A_turned @ x.T
            y.addmm_(inner.T, self.B)
            return Tape(x, [inner], [])
        masks = self._masks(x) if training else []
        inners = []
        for i, adapter in enumerate(self.adapters):
            inner = adapter.A.T @ (x * masks[i] if masks else x).T
            y[:, adapter.columns].addmm_(inner.T, adapter.B)
            inners.append(inner)
        return Tape(x, inners, masks)

    def _masks(self, x: Tensor) -> list[Tensor]:
        """Dropout's masks, from the layers' own generator."""
        if self.adapters[0].layer.dropout == 0:
            return []
        masks = []
        for layer in (adapter.layer for adapter in self.adapters):
            mask = torch.empty(x.shape).bernoulli_(1.0 - layer.dropout, generator=layer.generator)
            masks.append(mask.div_(1.0 - layer.dropout).to(x.dtype))
        return masks

    def backward(
        self, dy: Tensor, tape: Tape, below: bool, *, spare_row: bool = False
    ) -> Tensor | None:
        """The gradient at the output, (m, out) -> at the input, (m, in), if `below`.

        Those of A and B are left in `gradients`.

        With `spare_row` the result has one row more, of zeros, which padding reads.
        """
        x = tape.x
        if self.grad_weight is not None:
            with _steady(x):
                self.grad_weight.copy_(dy.T @ x)
        if self.grad_bias is not None:
            torch.sum(dy, 0, dtype=torch.float32, out=self.grad_bias)
        whole = out = None
        if below:
            whole = self.space("gradient", x.shape[0] + spare_row, x.shape[1], dtype=dy.dtype)
            out = whole[: x.shape[0]]
            with _steady(x):
                torch.mm(dy, self.weight, out=out)
            if spare_row:
                whole[-1].zero_()
        if self.adapters:
            with _steady(x, self.ranks):
                self._adapters_backward(dy, tape, out)
        return whole

    def _adapters_backward(self, dy: Tensor, tape: Tape, out: Tensor | None) -> None:
        """Gradients of every A and B; what reaches their input is added to `out`."""
        x = tape.x
        if not self.apart:
            upper = self.B @ dy.T  # (r, m)
            dA, dB = (upper @ x).T, tape.inner[0] @ dy
            for adapter, rows in zip(self.adapters, self.rows, strict=True):
                whole = dB.shape == adapter.grad_b.shape
                self.gradients.append((adapter.grad_a, dA if whole else dA[:, rows]))
                self.gradients.append((adapter.grad_b, dB if whole else dB[rows, adapter.columns]))
            if out is not None:
                out.addmm_(upper.T, self.A_turned)
            return
        for i, adapter in enumerate(self.adapters):
            part = dy[:, adapter.columns]
            upper = adapter.B @ part.T
            mask = tape.masks[i] if tape.masks else None
            dA = (upper @ (x if mask is None else x * mask)).T
            self.gradients += [(adapter.grad_a, dA), (adapter.grad_b, tape.inner[i] @ part)]
            if out is not None and mask is None:
                out.addmm_(upper.T, adapter.A.T)
            elif out is not None and mask is not None:
                out.addcmul_(upper.T @ adapter.A.T, mask)


def _steady(x: Tensor, ranks: Sequence[int] = ()) -> contextlib.AbstractContextManager[None]:
    """For products with `x`, thin ones of `ranks`: the same bits with any number of cores."""
    even = x.shape[0] % STEADY_ROWS == 0 and all(rank % STEADY_RANKS == 0 for rank in ranks)
    return contextlib.nullcontext() if even or x.dtype != torch.float32 else one_core()


def gelu(u: Tensor, training: bool, space: Workspace, slot: str) -> tuple[Tensor, Tensor]:
    """GELU in GPT-2's tanh form, and with `training` its derivative; in the format of `u`.

    gelu(u) = u s with s = sigmoid(c (u + k u^3)), and so
    gelu'(u) = s + gelu(u) (1 - s) c (1 + 3 k u^2).
    """
    value = space(slot + "value", *u.shape, dtype=u.dtype)
    slope = space(slot + "slope", *u.shape, dtype=u.dtype)
    wide, inner, rate = (space(n, *u.shape, dtype=torch.float32) for n in ("u", "inner", "rate"))
    wide.copy_(u)
    torch.addcmul(_CONSTANTS[0], wide, wide, value=_GELU * _CUBE, out=inner)
    if training:
        torch.add(_CONSTANTS[1], inner, alpha=3, out=rate)
    gate = inner.mul_(wide).sigmoid_()
    value.copy_(wide.mul_(gate))
    if training:
        rate.mul_(wide)
        slope.copy_(rate.addcmul_(rate, gate, value=-1).add_(gate))
    return value, slope
