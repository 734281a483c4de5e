"""The fast path with autograd: a step of `fast.FastGPT` against the same mathematics as a set of
autograd functions (an adapted product, a gather, attention, GELU), the rest left to autograd.

    python -m tests.benchmarks.autograd_path

Both in one process, one thread, step by step on the same batches; processor time; the median of the
ratios. First the two gradients are compared.
"""

from __future__ import annotations

import argparse
import math
import statistics
import time
from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor

import lora_core as lc
from lora_core.cores import set_threads
from lora_core.fast.gpt import _TOKEN_A, _TOKEN_B, FastGPT, _Block
from lora_core.fast.linear import _CUBE, _GELU, Group
from lora_core.fast.packing import Packed, pack
from lora_core.model import GPT
from lora_core.preparation import build_model
from tests.benchmarks.speed import batches_of

Spans = list[slice]


class AdaptedProduct(torch.autograd.Function):
    """y = x W^T + b + (x A)(s B), of one adapter or of several that each write some columns."""

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, weight: Tensor, bias: Tensor, spans: Spans, *parts: Tensor
    ) -> Tensor:
        """(m, in) -> (m, out); `parts` are A, B of each adapter."""
        y = torch.addmm(bias, x, weight.T)
        inners = []
        for span, a, b in zip(spans, parts[::2], parts[1::2], strict=True):
            inners.append(a.T @ x.T)
            y[:, span].addmm_(inners[-1].T, b)
        ctx.spans = spans
        ctx.save_for_backward(x, weight, *parts, *inners)
        return y

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        """Gradients of x, of every A and of every B."""
        dy, count = gradients[0], len(ctx.spans)
        x, weight, *rest = ctx.saved_tensors
        parts, inners = rest[: 2 * count], rest[2 * count :]
        dx = dy @ weight if ctx.needs_input_grad[0] else None
        grads = []
        for span, a, b, inner in zip(ctx.spans, parts[::2], parts[1::2], inners, strict=True):
            part = dy[:, span]
            upper = b @ part.T
            grads += [(upper @ x).T, inner @ part]
            if dx is not None:
                dx.addmm_(upper.T, a.T)
        return dx, None, None, None, *grads


class Gather(torch.autograd.Function):
    """Rows by index; the way back is another gather, with zeros where the index is the last row."""

    @staticmethod
    def forward(ctx: Any, rows: Tensor, index: Tensor, back: Tensor, zeros: int) -> Tensor:
        """(a, d) -> (len(index), d); `zeros` rows of zeros are there to be read on the way back."""
        ctx.zeros = zeros
        ctx.save_for_backward(back)
        return rows.index_select(0, index)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None, None]:
        """(len(index), d) -> (a, d)."""
        (back,) = ctx.saved_tensors
        padded = F.pad(gradients[0], (0, 0, 0, ctx.zeros))
        return padded.index_select(0, back), None, None, None


class Attention(torch.autograd.Function):
    """softmax(q k^T / sqrt(d) + mask) v on (texts x heads, t, d)."""

    @staticmethod
    def forward(ctx: Any, query: Tensor, key: Tensor, value: Tensor, mask: Tensor) -> Tensor:
        """Keeps the probabilities."""
        scores = torch.baddbmm(mask, query, key.transpose(1, 2), alpha=query.shape[-1] ** -0.5)
        attention = scores.softmax(-1, dtype=torch.float32).to(query.dtype)
        ctx.save_for_backward(query, key, value, attention)
        return torch.bmm(attention, value)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, Tensor, Tensor, None]:
        """Gradients of query, key, value."""
        (dy,) = gradients
        query, key, value, attention = ctx.saved_tensors
        upper = torch.bmm(dy, value.transpose(1, 2)).float()
        scores = torch._softmax_backward_data(upper, attention.float(), -1, torch.float32)
        scores = scores.mul_(query.shape[-1] ** -0.5).to(query.dtype)
        d_value = torch.bmm(attention.transpose(1, 2), dy)
        return torch.bmm(scores, key), torch.bmm(scores.transpose(1, 2), query), d_value, None


class Gelu(torch.autograd.Function):
    """GELU in GPT-2's tanh form, with its derivative at once."""

    @staticmethod
    def forward(ctx: Any, u: Tensor) -> Tensor:
        """Elementwise."""
        wide = u.float()
        inner = torch.addcmul(torch.tensor(_GELU), wide, wide, value=_GELU * _CUBE)
        rate = torch.add(torch.tensor(-2 * _GELU), inner, alpha=3)
        gate = inner.mul_(wide).sigmoid_()
        value = wide.mul_(gate)
        rate.mul_(value)
        slope = rate.addcmul_(rate, gate, value=-1).add_(gate)
        ctx.save_for_backward(slope.to(u.dtype))
        return value.to(u.dtype)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        """Elementwise."""
        (slope,) = ctx.saved_tensors
        return gradients[0] * slope


class AutogradGPT(FastGPT):
    """`FastGPT` with its storage, its casts and its packing; loss and gradients by autograd."""

    def loss_and_gradients(self, tokens: Tensor, lengths: Tensor, labels: Tensor) -> Tensor:
        """See `FastGPT`; LoRA with a head that is trained in full."""
        self.weights.refresh()
        leaves: list[Tensor] = []
        grads: list[Tensor] = []

        def leaf(name: str) -> Tensor:
            leaves.append(self.weights.lows[name].detach().requires_grad_())
            grads.append(self.weights.grads[name])
            return leaves[-1]

        def product(names: list[str], group: Group, x: Tensor) -> Tensor:
            parts = [leaf(f"{name}.lora.{k}") for name in names for k in "AB"]
            spans = [adapter.columns for adapter in group.adapters]
            return AdaptedProduct.apply(x, group.weight, group.bias, spans, *parts)  # type: ignore

        batch = pack(tokens, lengths, self.heads, self.dtype)
        with torch.enable_grad():
            hidden = self._embed(batch, leaf(_TOKEN_A), leaf(_TOKEN_B))
            for block in self.blocks:
                hidden = self._through(block, hidden, batch, product)
            norm = self.model.final_norm
            hidden = F.layer_norm(hidden, norm.normalized_shape, norm.weight, norm.bias, norm.eps)
            loss = F.cross_entropy(self.model.head(hidden), labels)
            head = [p for n, p in self.weights.trained.items() if n.startswith("head.")]
            gradients = torch.autograd.grad(loss, [*leaves, *head])
        grads += [self.weights.grads[n] for n in self.weights.trained if n.startswith("head.")]
        torch._foreach_copy_(grads, list(gradients))
        self.weights.scale_gradient()
        return loss.detach()

    def _embed(self, batch: Packed, a: Tensor, b: Tensor) -> Tensor:
        x = F.embedding(batch.tokens, cast(Tensor, self._table.weight).detach())
        x = x + F.embedding(batch.tokens, a) @ b
        return x + F.embedding(batch.positions, self.model.position_embedding.weight.detach())

    def _through(self, block: _Block, x: Tensor, batch: Packed, product: Any) -> Tensor:
        """(m, emb) -> the same; the last block -> (n, emb)."""
        low, width = self.dtype, x.shape[1]
        head_dim, (n, t) = width // self.heads, batch.shape
        kvq, output, up, down = block.groups
        at = [f"{block.prefix}attention.{name}" for name in ("key", "value", "query", "output")]
        normed = self._normed(block, 0, x).to(low)
        last = block.query is not None
        mixed = product(at[: 2 if last else 3], kvq, normed).view(-1, head_dim)
        there = batch.kv_to_heads if last else batch.kvq_to_heads
        back = batch.kv_from_heads if last else batch.kvq_from_heads
        heads = Gather.apply(mixed, there, back, 1).view(-1, n * self.heads, t, head_dim)  # type: ignore
        if block.query is not None:
            query = product(at[2:3], block.query, normed.index_select(0, batch.last))
            query, mask = query.view(n * self.heads, 1, head_dim), batch.ended
            x = x.index_select(0, batch.last)
        else:
            query, mask = heads[2], batch.causal
        mixed = Attention.apply(query, heads[0], heads[1], mask)  # type: ignore
        mixed = mixed.view(-1, head_dim)
        if not last:
            mixed = Gather.apply(mixed, batch.from_heads, batch.to_heads, self.heads)  # type: ignore
        x = x + product(at[3:], output, mixed.view(-1, width))
        hidden = product([f"{block.prefix}mlp.up"], up, self._normed(block, 1, x).to(low))
        return x + product([f"{block.prefix}mlp.down"], down, Gelu.apply(hidden))  # type: ignore

    @staticmethod
    def _normed(block: _Block, which: int, x: Tensor) -> Tensor:
        norm = block.norms[which]
        return F.layer_norm(x, norm.normalized_shape, norm.weight, norm.bias, norm.eps)


def built(base: lc.Base, classes: int, rank: int, dtype: torch.dtype, kind: type) -> FastGPT:
    """One of the two, with B that is not zero."""
    generator = torch.Generator().manual_seed(0)
    config = lc.LoRAConfig(rank=rank, alpha=2 * rank)
    model: GPT = build_model(base, classes, config, "lora", generator)
    made: FastGPT = kind(model, dtype)
    with torch.no_grad():
        made.weights.flat.add_(torch.randn(made.weights.flat.shape, generator=generator) * 1e-3)
    return made


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repeat", type=int, default=30, help="batches (default 30)")
    options = parser.parse_args()
    set_threads(1)
    base, task = lc.load_base("bundled"), lc.load_task("sms-spam")
    batches = batches_of(base, task, 16, options.repeat + 4)
    print("| rank | format | by hand, ms | autograd, ms | ratio | gradients differ by |")
    print("|--:|---|--:|--:|--:|--:|")
    for rank in (8, 64):
        for dtype in (torch.float32, torch.bfloat16):
            both = [
                built(base, len(task.labels), rank, dtype, kind) for kind in (FastGPT, AutogradGPT)
            ]
            seconds: list[list[float]] = [[], []]
            for i, batch in enumerate(batches):
                for which in (0, 1) if i % 2 else (1, 0):
                    begin = time.thread_time()
                    both[which].loss_and_gradients(batch.tokens, batch.lengths, batch.labels)
                    seconds[which].append(time.thread_time() - begin)
            by_hand, auto = (both[i].weights.gradient for i in (0, 1))
            differ = float((by_hand - auto).norm() / by_hand.norm())
            hand, autograd = (column[4:] for column in seconds)
            ratio = statistics.median(b / a for a, b in zip(hand, autograd, strict=True))
            times = " | ".join(f"{1000 * statistics.median(c):.1f}" for c in (hand, autograd))
            name = str(dtype).removeprefix("torch.")
            print(f"| {rank} | {name} | {times} | {ratio:.2f} | {differ:.1e} |", flush=True)
    assert math.isfinite(differ)


if __name__ == "__main__":
    main()
