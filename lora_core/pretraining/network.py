"""The language-model loss of a `GPT`, written for speed; the same mathematics as `GPT.hidden`.

On one CPU core this reaches about 70 % of the speed of its bfloat16 matrix products, where the
plain modules reach a third. What makes the difference: the weights are cast once a step instead of
once an operation, query, key and value are one product, attention is four batched products around
a fused softmax, and the loss over the vocabulary is computed in chunks together with its gradient,
so that the logits of a whole batch never exist. Elementwise steps are fused by `torch.compile`
where a compiler is found; without one the same functions run as they stand.

A test holds loss and every gradient against the plain model.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lora_core.config import GPTConfig
from lora_core.model import GPT

Weights = dict[str, Tensor]
_QKV = ("query", "key", "value")
_GELU = 2.0 * math.sqrt(2.0 / math.pi)  # tanh form: x * sigmoid(_GELU * (x + 0.044715 x^3))
_CUBIC = 0.044715


def language_model(config: GPTConfig, seed: int) -> GPT:
    """A fresh `GPT` without a head; what writes to the residual stream starts smaller (GPT-2)."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = GPT(config, num_classes=None)
        for name, parameter in model.named_parameters():
            if name.endswith(("attention.output.weight", "mlp.down.weight")):
                nn.init.normal_(parameter, std=0.02 / math.sqrt(2 * config.n_layers))
    return model


def working_weights(model: GPT, dtype: torch.dtype) -> Weights:
    """The weights in the format of the products, cast once, query, key and value as one matrix."""
    state = {name: p.detach() for name, p in model.named_parameters()}
    for i in range(model.config.n_layers):
        prefix = f"blocks.{i}.attention."
        for kind in ("weight", "bias"):
            parts = [state.pop(f"{prefix}{name}.{kind}", None) for name in _QKV]
            if parts[0] is not None:
                state[f"{prefix}qkv.{kind}"] = torch.cat(parts)  # type: ignore[arg-type]
    return {name: t.to(dtype, copy=True).requires_grad_() for name, t in state.items()}


def add_gradients(model: GPT, weights: Weights, gradients: tuple[Tensor, ...]) -> None:
    """Add the gradients of `weights` to `.grad` of the model's own parameters, in float32."""
    named = dict(zip(weights, gradients, strict=True))
    for name, parameter in model.named_parameters():
        layer, _, kind = name.rpartition(".")
        parent, _, last = layer.rpartition(".")
        if last in _QKV:
            gradient = named[f"{parent}.qkv.{kind}"].chunk(3)[_QKV.index(last)]
        else:
            gradient = named[name]
        if parameter.grad is None:
            parameter.grad = gradient.to(parameter.dtype, copy=True)
        else:
            parameter.grad += gradient


def next_token_loss(weights: Weights, states: Tensor, targets: Tensor, scale: float) -> Tensor:
    """`scale` times the summed cross-entropy, in nats, of `targets` (batch, length).

    `states` (batch, length, emb) are those of `hidden_states`.
    """
    embedding = weights["token_embedding.weight"]
    return TiedLoss.apply(states.flatten(0, 1), embedding, targets.flatten(), scale)  # type: ignore[no-untyped-call]


def hidden_states(weights: Weights, config: GPTConfig, tokens: Tensor) -> Tensor:
    """(batch, length) ids -> (batch, length, emb), like `GPT.hidden` (no dropout)."""
    batch, length = tokens.shape
    width, heads = config.emb_dim, config.n_heads
    x = F.embedding(tokens, weights["token_embedding.weight"])
    x = (x + weights["position_embedding.weight"][:length]).view(-1, width)  # (b*t, emb)
    for i in range(config.n_layers):
        block = f"blocks.{i}."
        normed = _norm(x, weights, block + "norm1")
        qkv = _linear(normed, weights, block + "attention.qkv")
        qkv = qkv.view(batch, length, 3, heads, width // heads).permute(2, 0, 3, 1, 4)
        mixed = attend(*qkv.unbind(0))  # (b, heads, t, head_dim)
        mixed = mixed.transpose(1, 2).reshape(-1, width)
        x = x + _linear(mixed, weights, block + "attention.output")
        up = _linear(_norm(x, weights, block + "norm2"), weights, block + "mlp.up")
        x = x + _linear(Gelu.apply(up), weights, block + "mlp.down")  # type: ignore[no-untyped-call]
    return _norm(x, weights, "final_norm").view(batch, length, width)


def _norm(x: Tensor, weights: Weights, name: str) -> Tensor:
    return F.layer_norm(x, x.shape[-1:], weights[name + ".weight"], weights[name + ".bias"])


def _linear(x: Tensor, weights: Weights, name: str) -> Tensor:
    return F.linear(x, weights[name + ".weight"], weights.get(name + ".bias"))


def attend(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    """Causal attention, each (batch, heads, length, head_dim)."""
    if query.device.type != "cpu":
        return F.scaled_dot_product_attention(query, key, value, is_causal=True)
    shape = query.shape
    flat = [t.reshape(-1, *shape[-2:]) for t in (query, key, value)]
    return CausalAttention.apply(*flat).view(shape)  # type: ignore[no-untyped-call]


# Elementwise kernels: float32 inside, the format of the products outside. ---------------------


def fused(function: Callable[..., Any]) -> Callable[..., Any]:
    """Compile an elementwise function at its first call if `use_compiler(True)` was said."""
    compiled: list[Callable[..., Any]] = []

    @functools.wraps(function)
    def call(*args: Any) -> Any:
        if not _compiler[0]:
            return function(*args)
        if not compiled:
            compiled.append(torch.compile(function))  # a second shape makes it general
        return compiled[0](*args)

    return call


_compiler = [False]


def use_compiler(wanted: bool) -> bool:
    """Switch the fused kernels on if this machine can compile one; says whether they are on."""
    _compiler[0] = False
    if wanted:
        try:
            torch.compile(torch.add, dynamic=False)(torch.ones(64), torch.ones(64))
            _compiler[0] = True
        except Exception:  # no C++ compiler, no Triton, an unknown platform: slower, not wrong
            _compiler[0] = False
    return _compiler[0]


@fused
def _causal_softmax(scores: Tensor, scale: float) -> Tensor:
    length = scores.shape[-1]
    position = torch.arange(length, device=scores.device)
    past = position[:, None] >= position[None]
    masked = torch.where(past, scores.float() * scale, -float("inf"))
    return torch.softmax(masked, -1).to(scores.dtype)


@fused
def _softmax_backward(probabilities: Tensor, gradient: Tensor, scale: float) -> Tensor:
    p, g = probabilities.float(), gradient.float()
    return (p * (g - (p * g).sum(-1, keepdim=True)) * scale).to(gradient.dtype)


@fused
def _gelu(x: Tensor) -> Tensor:
    y = x.float()
    return (y * torch.sigmoid(_GELU * (y + _CUBIC * y * y * y))).to(x.dtype)


@fused
def _gelu_backward(x: Tensor, gradient: Tensor) -> Tensor:
    y = x.float()
    s = torch.sigmoid(_GELU * (y + _CUBIC * y * y * y))
    slope = s + y * s * (1.0 - s) * _GELU * (1.0 + 3.0 * _CUBIC * y * y)
    return (gradient.float() * slope).to(gradient.dtype)


@fused
def _cross_entropy(logits: Tensor, targets: Tensor, scale: float) -> tuple[Tensor, Tensor]:
    """Summed loss of (n, vocab) logits, and its gradient times `scale`."""
    x = logits.float()
    top = x.amax(-1, keepdim=True)
    exp = torch.exp(x - top)
    total = exp.sum(-1, keepdim=True)
    chosen = x.gather(1, targets[:, None])
    loss = (top + total.log() - chosen).sum()
    hit = torch.arange(x.shape[-1], device=x.device)[None] == targets[:, None]
    return loss, ((exp / total - hit.float()) * scale).to(logits.dtype)


class CausalAttention(torch.autograd.Function):
    """softmax(QK^T / sqrt(d) + causal mask) V on (batch * heads, length, head_dim)."""

    @staticmethod
    def forward(ctx: Any, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        """Keeps the probabilities (batch * heads, length, length) for the way back."""
        scale = query.shape[-1] ** -0.5
        probabilities = _causal_softmax(torch.bmm(query, key.transpose(1, 2)), scale)
        ctx.save_for_backward(query, key, value, probabilities)
        return torch.bmm(probabilities, value)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Gradients of query, key and value."""
        (gradient,) = gradients
        query, key, value, probabilities = ctx.saved_tensors
        scale = query.shape[-1] ** -0.5
        d_probabilities = torch.bmm(gradient, value.transpose(1, 2))
        d_scores = _softmax_backward(probabilities, d_probabilities, scale)
        d_value = torch.bmm(probabilities.transpose(1, 2), gradient)
        return torch.bmm(d_scores, key), torch.bmm(d_scores.transpose(1, 2), query), d_value


class Gelu(torch.autograd.Function):
    """GELU in GPT-2's tanh form."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        """Elementwise, any shape."""
        ctx.save_for_backward(x)
        return _gelu(x)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        """Gradient of x."""
        (x,) = ctx.saved_tensors
        return _gelu_backward(x, gradients[0])


class TiedLoss(torch.autograd.Function):
    """Cross-entropy of states @ embedding^T, in chunks of tokens, with the gradient at once."""

    @staticmethod
    def forward(
        ctx: Any, states: Tensor, embedding: Tensor, targets: Tensor, scale: float
    ) -> Tensor:
        """States (n, emb), embedding (vocab, emb), targets (n,) -> scale * summed loss."""
        chunk = 512 if states.device.type == "cpu" else 16_384  # CPU: the logits stay in the cache
        wanted = any(ctx.needs_input_grad)
        d_states = torch.empty_like(states)
        d_embedding = torch.zeros_like(embedding, dtype=torch.float32)
        total = torch.zeros((), device=states.device)
        for start in range(0, states.shape[0], chunk):
            rows = states[start : start + chunk]
            loss, d_logits = _cross_entropy(
                rows @ embedding.t(), targets[start : start + chunk], scale
            )
            total += loss
            if wanted:
                torch.mm(d_logits, embedding, out=d_states[start : start + chunk])
                d_embedding += d_logits.t() @ rows
        ctx.save_for_backward(d_states, d_embedding.to(embedding.dtype))
        return total * scale

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, Tensor, None, None]:
        """What the forward pass has computed already, times the incoming gradient."""
        d_states, d_embedding = ctx.saved_tensors
        gradient = gradients[0].to(d_states.dtype)
        return d_states * gradient, d_embedding * gradient, None, None
