"""The fast path: `model.GPT` with LoRA, forward and backward written out by hand.

To learn what LoRA is, read `lora.py` and `model.py`; this file is the same mathematics arranged
for speed, and `tests/fast/test_engine.py` holds it to them. What makes it fast on a CPU:

* no padding: the tokens of a batch lie one after another, (tokens, emb), and only attention sees
  them as (texts x heads, longest, head_dim): `packing.py`;
* query, key and value are one product; LoRA is two thin products more, nothing frozen gets a
  gradient, and the backward pass ends at the lowest adapted layer: `linear.py`;
* an adapted embedding multiplies only the rows of A whose tokens are in the batch;
* products in `dtype` (bfloat16 where that pays); the residual stream, LayerNorm, softmax, the head
  and everything trained stay float32;
* frozen weights are cast once a process and shared by all runs over one base;
* GELU and its derivative in one pass through a sigmoid, at a quarter of a tanh's cost;
* everything trained lies in one flat tensor, one norm and one optimiser call: `weights.py`.

Not here: dropout of the base itself (`GPTConfig.drop_rate`), merged adapters. See `why_not`.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable
from typing import NamedTuple, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lora_core.config import HEAD
from lora_core.cores import one_core
from lora_core.fast.linear import Adapter, Group, Tape, Workspace, frozen_cast, gelu
from lora_core.fast.packing import Packed, pack
from lora_core.fast.weights import KVQ, TrainedWeights, joined
from lora_core.lora import EmbeddingWithLoRA, LinearWithLoRA, lora_layers
from lora_core.model import GPT

_OTHERS = (("attention.output",), ("mlp.up",), ("mlp.down",))  # the other products of a block
_NORMS = ("norm1", "norm2")
_TOKEN_A, _TOKEN_B = "token_embedding.lora.A", "token_embedding.lora.B"


def why_not(model: nn.Module) -> str | None:
    """Why the fast path does not apply to this model, in words; None where it does."""
    if type(model) is not GPT or not isinstance(getattr(model, HEAD, None), nn.Module):
        return "it is not a GPT with a head"
    if model.config.drop_rate:
        return "the base itself has dropout"
    if next(model.parameters()).device.type != "cpu":
        return "it is written for CPUs"
    if any(layer.merged for _, layer in lora_layers(model)):
        return "its adapters are merged"
    if isinstance(model.position_embedding, EmbeddingWithLoRA):
        return "its positions are adapted"
    parameters = dict(model.named_parameters())
    trained = {name for name, p in parameters.items() if p.requires_grad}
    base = {n for n in parameters if ".lora." not in n and not n.startswith(HEAD + ".")}
    if not trained:
        return "nothing in it is trained"
    if trained & base and not base <= trained:
        return "some of the base's weights are trained and some are not"
    return None


class _Norm(NamedTuple):
    """What LayerNorm's backward pass needs."""

    x: Tensor
    mean: Tensor
    scale: Tensor  # 1 / deviation


class _Block(NamedTuple):
    groups: list[Group]  # key+value+query (the last block: key+value), output, up, down
    query: Group | None  # the last block's
    prefix: str
    norms: list[nn.LayerNorm]


class _BlockTape(NamedTuple):
    """What a block's backward pass needs."""

    groups: list[Tape]
    query_tape: Tape | None
    norms: list[_Norm]
    heads: Tensor  # (3 or 2, n h, t, d) key, value and, but for the last block, query
    query: Tensor  # (n h, t or 1, d)
    attention: Tensor  # (n h, t or 1, t) probabilities
    slope: Tensor  # GELU's derivative


class FastGPT:
    """Losses and gradients of a `GPT` with one of the three methods: LoRA, full, head only.

    Takes over the storage of what is trained until `weights.release()`: see `TrainedWeights`.
    `between` is called between blocks and may raise, which is how a long step is interrupted.
    """

    def __init__(
        self, model: GPT, dtype: torch.dtype, between: Callable[[], None] = lambda: None
    ) -> None:
        reason = why_not(model)
        if reason:
            raise ValueError(f"The fast path does not apply: {reason}.")
        self.model, self.dtype, self.between = model, dtype, between
        self.heads = model.config.n_heads
        # In float32 its masks are those of the plain model: none are drawn for empty rows.
        self.has_dropout = any(layer.lora.dropout > 0 for _, layer in lora_layers(model))
        self.space = Workspace()
        wrapped: nn.Module = model.token_embedding
        self.adapted_tokens = isinstance(wrapped, EmbeddingWithLoRA)
        self._table = wrapped.embedding if isinstance(wrapped, EmbeddingWithLoRA) else wrapped
        self.full = bool(model.final_norm.weight.requires_grad)
        self.weights = TrainedWeights(model, dtype)
        last = model.config.n_layers - 1
        self.blocks = [self._block(f"blocks.{i}.", i == last) for i in range(last + 1)]
        adapted = [
            4 * depth + place
            for depth, block in enumerate(self.blocks)
            for place, group in enumerate(block.groups)
            if group.adapters or (place == 0 and block.query and block.query.adapters)
        ]
        self._groups = [
            g for b in self.blocks for g in (*b.groups, *([b.query] if b.query else []))
        ]
        self.weights.copies = [pair for group in self._groups for pair in group.copies()]
        # The lowest product whose weights get a gradient, counted from below, four a block; -1:
        # what is embedded gets one as well.
        embedded = self.full or self.adapted_tokens
        self.lowest = -1 if embedded else min(adapted, default=4 * len(self.blocks))

    def _block(self, prefix: str, is_last: bool) -> _Block:
        groups = [KVQ[:2] if is_last else KVQ, *_OTHERS]
        names = [[prefix + name for name in group] for group in groups]
        norms = [cast(nn.LayerNorm, self.model.get_submodule(prefix + n)) for n in _NORMS]
        query = self._group([prefix + KVQ[2]]) if is_last else None
        return _Block([self._group(group) for group in names], query, prefix, norms)

    def _group(self, names: list[str]) -> Group:
        """The layers `names`, which share an input, as one product."""
        modules = [self.model.get_submodule(name) for name in names]
        linears = [
            m.linear if isinstance(m, LinearWithLoRA) else cast(nn.Linear, m) for m in modules
        ]
        kinds = ["weight"] if linears[0].bias is None else ["weight", "bias"]
        if self.full:
            stores = (self.weights.lows, self.weights.grads)
            low, grad = ({k: joined(store, names, k) for k in kinds} for store in stores)
            group = Group(self.space, low["weight"], low.get("bias"), [])
            group.grad_weight, group.grad_bias = grad["weight"], grad.get("bias")
            return group
        adapters, start = [], 0
        for name, module, linear in zip(names, modules, linears, strict=True):
            end = start + linear.out_features
            if isinstance(module, LinearWithLoRA):
                A, B = f"{name}.lora.A", f"{name}.lora.B"
                tensors = (
                    self.weights.lows[A],
                    self.weights.lows[B],
                    self.weights.grads[A],
                    self.weights.grads[B],
                )
                adapters.append(Adapter(module.lora, slice(start, end), *tensors))
            start = end
        frozen = {k: frozen_cast(tuple(getattr(m, k) for m in linears), self.dtype) for k in kinds}
        return Group(self.space, frozen["weight"], frozen.get("bias"), adapters)

    # --- forward ----------------------------------------------------------------------------------

    @torch.no_grad()
    def classify(self, hidden: Tensor) -> Tensor:
        """(n, emb) from `last_hidden` -> (n, classes) float32 logits."""
        with one_core():
            return self.model.head(hidden)

    @torch.no_grad()
    def last_hidden(self, tokens: Tensor, lengths: Tensor) -> Tensor:
        """(n, t) ids, (n,) lengths -> (n, emb) float32 after the final norm."""
        self.refresh()
        return self.hidden(tokens, lengths)

    @torch.no_grad()
    def refresh(self) -> None:
        """Take over what the optimiser changed."""
        self.weights.refresh()

    @torch.no_grad()
    def hidden(self, tokens: Tensor, lengths: Tensor) -> Tensor:
        """`last_hidden` with the weights of the last `refresh`; for any number of threads."""
        return self._forward(
            pack(tokens, lengths, self.heads, self.dtype, exact=self.has_dropout), None
        )[0]

    def _forward(self, batch: Packed, tapes: list[_BlockTape] | None) -> tuple[Tensor, _Norm]:
        model = self.model
        x = F.embedding(batch.tokens, cast(Tensor, self._table.weight).detach())
        if self.adapted_tokens:
            rows = F.embedding(batch.tokens, self.weights.lows[_TOKEN_A])  # (m, r)
            with self._one_core_in_float32():
                x += rows @ self.weights.lows[_TOKEN_B]
        x += F.embedding(batch.positions, model.position_embedding.weight.detach())
        for block in self.blocks:
            self.between()
            x = self._block_forward(block, x, batch, tapes)
        return _norm(model.final_norm, x)

    def _block_forward(
        self, block: _Block, x: Tensor, batch: Packed, tapes: list[_BlockTape] | None
    ) -> Tensor:
        """(m, emb) -> the same; the last block -> (n, emb), the last token of each text alone."""
        training = tapes is not None
        slot = block.prefix if training else ""  # who keeps a result needs a place of its own
        low, space = self.dtype, self.space
        kvq_group, output_group, up_group, down_group = block.groups
        (m, width), head_dim = x.shape, x.shape[1] // self.heads
        n, t = batch.shape
        normed, norm1 = _norm(block.norms[0], x)
        normed = space(slot + "norm1", m, width, dtype=low).copy_(normed)
        mixed, kvq_tape = kvq_group.forward(normed, training)
        gather = batch.kvq_to_heads if block.query is None else batch.kv_to_heads
        heads = space(slot + "heads", len(gather), head_dim, dtype=low)
        torch.index_select(mixed.view(-1, head_dim), 0, gather, out=heads)
        heads = heads.view(-1, n * self.heads, t, head_dim)
        key, value = heads[0], heads[1]
        query_tape = None
        if block.query is None:
            query, mask = heads[2], batch.causal
        else:
            mixed, query_tape = block.query.forward(normed.index_select(0, batch.last), training)
            query, mask = mixed.clone().view(n * self.heads, 1, head_dim), batch.ended
            x = x.index_select(0, batch.last)
            m = n
        scores = torch.baddbmm(mask, query, key.transpose(1, 2), alpha=1 / math.sqrt(head_dim))
        attention = scores.softmax(-1, dtype=torch.float32).to(low)
        mixed = torch.bmm(attention, value).view(-1, head_dim)  # (n h t, d)
        context = space(slot + "context", m * self.heads, head_dim, dtype=low)
        if block.query is None:
            torch.index_select(mixed, 0, batch.from_heads, out=context)
        else:
            context.copy_(mixed)
        mixed, output_tape = output_group.forward(context.view(m, width), training)
        x = torch.add(x, mixed, out=space(slot + "x1", m, width, dtype=torch.float32))
        normed, norm2 = _norm(block.norms[1], x)
        normed = space(slot + "norm2", m, width, dtype=low).copy_(normed)
        hidden, up_tape = up_group.forward(normed, training)
        hidden, slope = gelu(hidden, training, space, slot)
        hidden, down_tape = down_group.forward(hidden, training)
        if tapes is not None:
            groups = [kvq_tape, output_tape, up_tape, down_tape]
            tape = _BlockTape(groups, query_tape, [norm1, norm2], heads, query, attention, slope)
            tapes.append(tape)
        return torch.add(x, hidden, out=space(slot + "x2", m, width, dtype=torch.float32))

    # --- backward ---------------------------------------------------------------------------------

    @torch.no_grad()
    def loss_and_gradients(self, tokens: Tensor, lengths: Tensor, labels: Tensor) -> Tensor:
        """Mean cross-entropy of a batch, () float32; its gradient is then in `weights.gradient`."""
        self.refresh()
        batch = pack(tokens, lengths, self.heads, self.dtype, exact=self.has_dropout)
        tapes: list[_BlockTape] = []
        needed = self.lowest < 4 * len(self.blocks)
        hidden, norm = self._forward(batch, tapes if needed else None)
        loss, gradient = self._head_backward(hidden, labels)
        if needed:
            for group in self._groups:
                group.gradients = []
            dx: Tensor | None = self._norm_backward(
                self.model.final_norm, "final_norm", gradient, norm
            )
            for depth in reversed(range(len(self.blocks))):
                self.between()
                if dx is not None:
                    dx = self._block_backward(depth, dx, batch, tapes.pop())
            if self.adapted_tokens and dx is not None:
                self._tokens_backward(dx, batch)
            if self.full and dx is not None:
                self.weights.grads["token_embedding.weight"].zero_().index_add_(0, batch.tokens, dx)
                self.weights.grads["position_embedding.weight"].zero_().index_add_(
                    0, batch.positions, dx
                )
        copies = [pair for group in self._groups for pair in group.gradients]
        if copies:
            torch._foreach_copy_([p[0] for p in copies], [p[1] for p in copies])
        self.weights.scale_gradient()
        return loss

    def _tokens_backward(self, dx: Tensor, batch: Packed) -> None:
        """Gradients of the embedding's A and B from that of what was embedded, (m, emb)."""
        dx = dx.to(self.dtype)
        rows = F.embedding(batch.tokens, self.weights.lows[_TOKEN_A])
        with self._one_core_in_float32():
            self.weights.grads[_TOKEN_B].copy_(rows.T @ dx)
            upper = (dx @ self.weights.lows[_TOKEN_B].T).float()  # (m, r)
        self.weights.grads[_TOKEN_A].zero_().index_add_(0, batch.tokens, upper)

    def _one_core_in_float32(self) -> contextlib.AbstractContextManager[None]:
        return one_core() if self.dtype == torch.float32 else contextlib.nullcontext()

    def head_gradients(self, hidden: Tensor, labels: Tensor) -> Tensor:
        """As `loss_and_gradients`, where the head alone is trained: from `last_hidden`."""
        return self._head_backward(hidden, labels)[0]

    def _head_backward(self, hidden: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        """Loss, and its gradient at `hidden`. The head is small: autograd may do it."""
        head = {n: p for n, p in self.weights.trained.items() if n.startswith(HEAD + ".")}
        mode = self.model.head.training
        self.model.head.train()
        with one_core(), torch.enable_grad():
            hidden = hidden.detach().requires_grad_()
            loss = F.cross_entropy(self.model.head(hidden), labels)
            gradient, *rest = torch.autograd.grad(loss, [hidden, *head.values()])
        self.model.head.train(mode)
        for name, value in zip(head, rest, strict=True):
            self.weights.grads[name].copy_(value)
        return loss.detach(), gradient

    def _block_backward(
        self, depth: int, dx: Tensor, batch: Packed, tape: _BlockTape
    ) -> Tensor | None:
        """The gradient at a block's output -> at its input; None where nothing below is trained."""
        block, low = self.blocks[depth], self.lowest - 4 * depth
        kvq_group, output_group, up_group, down_group = block.groups
        kvq_tape, output_tape, up_tape, down_tape = tape.groups
        head_dim = dx.shape[1] // self.heads
        n, t = batch.shape
        is_last = block.query is not None

        hidden = down_group.backward(dx.to(self.dtype), down_tape, low < 3)
        if hidden is None:
            return None
        slope = self.space("slope", *hidden.shape, dtype=self.dtype)
        normed = up_group.backward(torch.mul(hidden, tape.slope, out=slope), up_tape, low < 2)
        if normed is None:
            return None
        dx = dx + self._norm_backward(block.norms[1], block.prefix + "norm2", normed, tape.norms[1])
        mixed = output_group.backward(
            dx.to(self.dtype), output_tape, low < 1, spare_row=not is_last
        )
        if mixed is None:
            return None
        mixed = mixed.view(-1, head_dim)
        if is_last:
            mixed = mixed.view(n * self.heads, 1, head_dim)
        else:
            mixed = mixed.index_select(0, batch.to_heads).view(n * self.heads, t, head_dim)
        key, value = tape.heads[0], tape.heads[1]
        rows = torch.empty(tape.heads.numel() // head_dim + 1, head_dim, dtype=self.dtype)
        rows[-1].zero_()  # what `kvq_from_heads` reads for rows without a token
        gradients = rows[:-1].view(tape.heads.shape)
        torch.bmm(tape.attention.transpose(1, 2), mixed, out=gradients[1])
        upper = torch.bmm(mixed, value.transpose(1, 2)).float()
        with one_core():
            scores = torch._softmax_backward_data(upper, tape.attention.float(), -1, torch.float32)
        scores = scores.mul_(1 / math.sqrt(head_dim)).to(self.dtype)
        torch.bmm(scores.transpose(1, 2), tape.query, out=gradients[0])
        query = torch.bmm(scores, key, out=None if is_last else gradients[2])
        gather = batch.kv_from_heads if is_last else batch.kvq_from_heads
        mixed = rows.index_select(0, gather).view(kvq_tape.x.shape[0], -1)
        at_last = None
        if block.query is not None and tape.query_tape is not None:
            at_last = block.query.backward(query.view(n, -1), tape.query_tape, low < 0)
            at_last = None if at_last is None else at_last.clone()
        normed = kvq_group.backward(mixed, kvq_tape, low < 0)
        if normed is not None and at_last is not None:
            normed.index_add_(0, batch.last, at_last)
        if normed is None:
            return None
        below = self._norm_backward(block.norms[0], block.prefix + "norm1", normed, tape.norms[0])
        if is_last:
            return below.index_add_(0, batch.last, dx)
        return below.add_(dx)

    def _norm_backward(self, norm: nn.LayerNorm, name: str, dy: Tensor, tape: _Norm) -> Tensor:
        wanted = [True, self.full, self.full]
        with one_core() if self.full else contextlib.nullcontext():
            dx, weight, bias = torch.ops.aten.native_layer_norm_backward(
                dy.float(), tape.x, norm.normalized_shape, tape.mean, tape.scale, norm.weight,
                norm.bias, wanted,
            )  # fmt: skip
        if self.full:
            self.weights.grads[name + ".weight"].copy_(weight)
            self.weights.grads[name + ".bias"].copy_(bias)
        return dx


def _norm(norm: nn.LayerNorm, x: Tensor) -> tuple[Tensor, _Norm]:
    y, mean, scale = torch.native_layer_norm(
        x, norm.normalized_shape, norm.weight, norm.bias, norm.eps
    )
    return y, _Norm(x, mean, scale)
