"""LoRA (Hu et al. 2021, arXiv:2106.09685): a frozen W plus a trained product of two thin matrices.

    y = x W^T + b  +  scale * x A B          A: (in, rank), B: (rank, out)

B starts at zero, so an injected model is the base to the last bit until the first step. The names
and the recursion are those of appendix E of Raschka's *Build a Large Language Model (From
Scratch)*. An embedding can be adapted in the same way, as in Microsoft's loralib and in PEFT: it is
a linear layer whose input is all zeros but for a one at the token (`LoRAEmbedding`, where it is A
that starts at zero). This file needs torch and works on any `nn.Module`; it knows no GPT.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

import torch
import torch.nn.functional as F
from torch import Generator, Tensor, nn

from lora_core.config import HEAD, LoRAConfig, Scaling, lora_scale
from lora_core.errors import LabError


class LoRAError(LabError, ValueError):
    """A model that cannot be adapted as asked; the message says why."""


class LoRALayer(nn.Module):
    """The trained update `scale * x A B` of one linear layer.

    A keeps the source's shape (in, rank) but is drawn as its transpose: Kaiming-uniform over the
    `in` inputs gives the bound 1/sqrt(in). Drawn as (in, rank) directly, the bound would be
    1/sqrt(rank): larger, different for each rank, and no published learning rate would carry over.
    """

    def __init__(
        self,
        in_dim: int,
        out_dim: int,
        rank: int,
        alpha: float,
        *,
        scaling: Scaling = "alpha/rank",
        dropout: float = 0.0,
        generator: Generator | None = None,
        device: torch.device | None = None,
    ) -> None:
        super().__init__()
        self.rank = rank
        self.alpha = alpha
        self.dropout = dropout
        self.scale = lora_scale(rank, alpha, scaling)
        self.strength = 1.0  # 0: as if not there, 1: as trained; used when classifying
        self.generator = generator  # dropout draws from it: runs in other threads cannot interfere
        A, B = self._start(in_dim, out_dim, device)
        self.A, self.B = nn.Parameter(A), nn.Parameter(B)  # (in, r), (r, out)

    def _start(
        self, in_dim: int, out_dim: int, device: torch.device | None
    ) -> tuple[Tensor, Tensor]:
        rows = torch.empty(self.rank, in_dim, device=device)
        nn.init.kaiming_uniform_(rows, a=math.sqrt(5), generator=self.generator)
        return rows.T.contiguous(), torch.zeros(self.rank, out_dim, device=device)

    def drop(self, x: Tensor) -> Tensor:
        """Dropout with this layer's own generator; only while training."""
        if not self.training or self.dropout == 0.0:
            return x
        keep = torch.empty_like(x).bernoulli_(1.0 - self.dropout, generator=self.generator)
        return x * keep / (1.0 - self.dropout)

    def delta(self) -> Tensor:
        """What is added to the frozen weight: (out, in), in `nn.Linear`'s layout."""
        return (self.scale * self.strength) * (self.A @ self.B).T

    def forward(self, x: Tensor) -> Tensor:
        """(..., in) -> (..., out)."""
        return (self.scale * self.strength) * (self.drop(x) @ self.A @ self.B)


class LoRAEmbedding(LoRALayer):
    """The same update for an embedding: `scale * A[token] B`, with A of shape (vocab, rank).

    Here A starts at zero and B is drawn from a normal distribution, as in PEFT: a row of A belongs
    to one token and learns only when that token is seen. With B at zero nothing would reach A at
    first. There is no dropout on tokens, as in PEFT.
    """

    def _start(
        self, in_dim: int, out_dim: int, device: torch.device | None
    ) -> tuple[Tensor, Tensor]:
        rows = torch.empty(self.rank, out_dim, device=device).normal_(generator=self.generator)
        return torch.zeros(in_dim, self.rank, device=device), rows

    def delta(self) -> Tensor:
        """What is added to the frozen table: (vocab, out), in `nn.Embedding`'s layout."""
        return (self.scale * self.strength) * (self.A @ self.B)

    def forward(self, tokens: Tensor) -> Tensor:
        """(...) ids -> (..., out)."""
        return (self.scale * self.strength) * (F.embedding(tokens, self.A) @ self.B)


class _WithLoRA(nn.Module):
    """A frozen layer, `inner`, with a `LoRALayer` beside it; `merge` folds them into one matrix."""

    lora: LoRALayer

    def __init__(self) -> None:
        super().__init__()
        self._kept: tuple[Tensor, ...] = ()  # W itself while merged; not registered twice

    @property
    def inner(self) -> nn.Linear | nn.Embedding:
        """The wrapped layer."""
        raise AttributeError("Each kind of layer has its own.")

    @property
    def merged(self) -> bool:
        """Whether the wrapped layer's weight holds W + delta at present."""
        return bool(self._kept)

    @property
    def frozen_weight(self) -> Tensor:
        """W, merged or not, in the wrapped layer's layout."""
        return self._kept[0] if self._kept else self.inner.weight

    @property
    def frozen_bias(self) -> Tensor | None:
        """The wrapped layer's bias, where it has one."""
        return getattr(self.inner, "bias", None)

    def merge(self) -> None:
        """Put W + delta in the place of W. W is not written to: others may share it."""
        if not self._kept:
            self._kept = (self.inner.weight,)
            merged = (self.inner.weight + self.lora.delta()).detach()
            self.inner.weight = nn.Parameter(merged, requires_grad=False)

    def unmerge(self) -> None:
        """Put W itself back: the same tensor, no subtraction, no rounding."""
        if self._kept:
            (self.inner.weight,) = self._kept
            self._kept = ()

    def forward(self, x: Tensor) -> Tensor:
        """What the wrapped layer takes and gives: (..., in) -> (..., out), or ids -> (..., out)."""
        y: Tensor = self.inner(x)
        return y if self.merged else y + self.lora(x)


class LinearWithLoRA(_WithLoRA):
    """A frozen `nn.Linear`, `linear`, with a `LoRALayer` beside it."""

    def __init__(
        self,
        linear: nn.Linear,
        rank: int,
        alpha: float,
        *,
        scaling: Scaling = "alpha/rank",
        dropout: float = 0.0,
        generator: Generator | None = None,
    ) -> None:
        super().__init__()
        self.linear = linear
        self.lora = LoRALayer(
            linear.in_features,
            linear.out_features,
            rank,
            alpha,
            scaling=scaling,
            dropout=dropout,
            generator=generator,
            device=linear.weight.device,
        )

    @property
    def inner(self) -> nn.Linear:
        """`linear`."""
        return self.linear


class EmbeddingWithLoRA(_WithLoRA):
    """A frozen `nn.Embedding`, `embedding`, with a `LoRAEmbedding` beside it."""

    def __init__(
        self,
        embedding: nn.Embedding,
        rank: int,
        alpha: float,
        *,
        scaling: Scaling = "alpha/rank",
        generator: Generator | None = None,
    ) -> None:
        super().__init__()
        self.embedding = embedding
        self.lora = LoRAEmbedding(
            embedding.num_embeddings,
            embedding.embedding_dim,
            rank,
            alpha,
            scaling=scaling,
            generator=generator,
            device=embedding.weight.device,
        )

    @property
    def inner(self) -> nn.Embedding:
        """`embedding`."""
        return self.embedding

    @property
    def weight(self) -> Tensor:
        """The frozen table (vocab, out): what an output layer that is tied to it multiplies by."""
        return self.frozen_weight


AdaptedLayer = LinearWithLoRA | EmbeddingWithLoRA


def lora_layers(model: nn.Module) -> Iterator[tuple[str, AdaptedLayer]]:
    """Every adapted layer with its dotted name, in the model's order."""
    for name, module in model.named_modules():
        if isinstance(module, LinearWithLoRA | EmbeddingWithLoRA):
            yield name, module


def _refuse_injected(model: nn.Module) -> None:
    if next(lora_layers(model), None) is not None:
        raise LoRAError(
            "This model has LoRA already; adapters do not nest. Call remove_lora(model) first, "
            "or reinject_lora(model, config) to change the rank."
        )


def replace_linear_with_lora(
    model: nn.Module,
    rank: int,
    alpha: float,
    *,
    scaling: Scaling = "alpha/rank",
    dropout: float = 0.0,
    generator: Generator | None = None,
) -> None:
    """Replace every `nn.Linear` below `model` by a `LinearWithLoRA`, in place, recursively.

    Freezes nothing by itself, as in the source: freeze the model before. Raises `LoRAError` when
    the model has LoRA already.
    """
    _refuse_injected(model)
    LoRAConfig(rank=rank, alpha=alpha, scaling=scaling, dropout=dropout)  # validates
    for name, linear in list(_linears(model)):
        wrapped = LinearWithLoRA(
            linear, rank, alpha, scaling=scaling, dropout=dropout, generator=generator
        )
        _put(model, name, wrapped)


def inject_lora(model: nn.Module, config: LoRAConfig, generator: Generator | None = None) -> None:
    """Freeze `model`, adapt the layers that `config.targets` names, and open the head, in place.

    A target is the end of a module's dotted name ("query", "mlp.up", "token_embedding"): of an
    `nn.Linear` or an `nn.Embedding`. The module called `head`, if there is one, is trained in full
    (`config.head == "train"`, as PEFT does) or stays frozen with LoRA on it ("lora", as appendix E
    does). `generator` draws what starts random, and later the dropout masks. Raises `LoRAError`,
    before anything is changed, when the model has LoRA already or a target names no such layer.
    """
    _refuse_injected(model)
    layers: dict[str, nn.Linear | nn.Embedding] = dict(_linears(model))
    layers.update(_embeddings(model))
    chosen = {
        target: [n for n in layers if ("." + n).endswith("." + target)] for target in config.targets
    }
    for target, names in chosen.items():
        if not names:
            known = ", ".join(sorted({n.rsplit(".", 1)[-1] for n in layers})) or "none"
            raise LoRAError(f"No layer to adapt is called '{target}'. Layers here: {known}.")
    head = getattr(model, HEAD, None)
    if config.head == "lora" and not isinstance(head, nn.Linear):
        raise LoRAError("This model has no linear head to put LoRA on; choose head='train'.")
    adapted = {name for names in chosen.values() for name in names} - {HEAD}
    if config.head == "lora":
        adapted.add(HEAD)
    model.requires_grad_(False)
    for name, layer in layers.items():  # a fixed order, so that a seed gives one adapter
        if name in adapted:
            _put(model, name, _wrapped(layer, config, generator).train(layer.training))
    if config.head == "train" and isinstance(head, nn.Module):
        head.requires_grad_(True)


def _wrapped(
    layer: nn.Linear | nn.Embedding, config: LoRAConfig, generator: Generator | None
) -> AdaptedLayer:
    rank, alpha, scaling = config.rank, config.alpha, config.scaling
    if isinstance(layer, nn.Embedding):
        return EmbeddingWithLoRA(layer, rank, alpha, scaling=scaling, generator=generator)
    return LinearWithLoRA(
        layer, rank, alpha, scaling=scaling, dropout=config.dropout, generator=generator
    )


def remove_lora(model: nn.Module) -> None:
    """Put the plain layers back, in place; nothing happens where there is no LoRA."""
    for name, layer in list(lora_layers(model)):
        layer.unmerge()
        _put(model, name, layer.inner)


def reinject_lora(model: nn.Module, config: LoRAConfig, generator: Generator | None = None) -> None:
    """Replace the adapter that is there, if any, by a new one: how the rank is changed."""
    remove_lora(model)
    inject_lora(model, config, generator)


def merge_lora(model: nn.Module) -> None:
    """Fold every adapter into its layer: y = x (W + delta)^T + b, no extra product. Idempotent."""
    for _, layer in lora_layers(model):
        layer.merge()


def unmerge_lora(model: nn.Module) -> None:
    """Undo `merge_lora`, exactly. Idempotent."""
    for _, layer in lora_layers(model):
        layer.unmerge()


def _linears(model: nn.Module) -> Iterator[tuple[str, nn.Linear]]:
    if isinstance(model, nn.Linear):
        raise LoRAError("This is a single nn.Linear: wrap it with LinearWithLoRA(linear, ...).")
    for name, module in model.named_modules():
        if isinstance(module, nn.Linear):
            yield name, module


def _embeddings(model: nn.Module) -> Iterator[tuple[str, nn.Embedding]]:
    for name, module in model.named_modules():
        if isinstance(module, nn.Embedding):
            yield name, module


def _put(model: nn.Module, name: str, module: nn.Module) -> None:
    parent, _, child = name.rpartition(".")
    setattr(model.get_submodule(parent), child, module)
