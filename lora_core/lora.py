"""LoRA (Hu et al. 2021, arXiv:2106.09685): a frozen W plus a trained product of two thin matrices.

    y = linear(x) + scale * x A B            A: (in, rank), B: (rank, out)

B starts at zero, so an adapted model is the base to the last bit until the first step. The names
are those of appendix E of Raschka's *Build a Large Language Model (From Scratch)*. This file needs
torch and knows no GPT; which layers of a model are adapted is chosen in `injection.py`.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

import torch
import torch.nn.functional as F
from torch import Generator, Tensor, nn

from lora_core.config import Scaling, lora_scale


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
        self.rank, self.alpha, self.dropout = rank, alpha, dropout
        self.scale = lora_scale(rank, alpha, scaling)
        self.strength = 1.0  # 0: as if not there, 1: as trained; used when classifying
        self.generator = generator  # dropout draws from it: runs in other threads cannot interfere
        A, B = self._start(in_dim, out_dim, device)
        self.A, self.B = nn.Parameter(A), nn.Parameter(B)  # (in, r), (r, out)

    def forward(self, x: Tensor) -> Tensor:
        """(..., in) -> (..., out)."""
        return (self.scale * self.strength) * (self.drop(x) @ self.A @ self.B)

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
        mask = torch.empty_like(x).bernoulli_(1.0 - self.dropout, generator=self.generator)
        return x * mask / (1.0 - self.dropout)

    def delta(self) -> Tensor:
        """What is added to the frozen weight: (out, in), in `nn.Linear`'s layout."""
        return (self.scale * self.strength) * (self.A @ self.B).T


class _WithLoRA(nn.Module):
    """A frozen layer, `inner`, with a `LoRALayer` beside it; `merge` folds them into one matrix."""

    lora: LoRALayer

    def __init__(self) -> None:
        super().__init__()
        self._unmerged: tuple[Tensor, ...] = ()  # W itself while merged; not registered twice

    def forward(self, x: Tensor) -> Tensor:
        """What the frozen layer takes and gives: (..., in) -> (..., out), or ids -> (..., out)."""
        y: Tensor = self.inner(x)
        return y if self.merged else y + self.lora(x)

    @property
    def inner(self) -> nn.Linear | nn.Embedding:
        """The frozen layer."""
        raise AttributeError("Each kind of layer has its own.")

    @property
    def merged(self) -> bool:
        """Whether the frozen layer's weight holds W + delta at present."""
        return bool(self._unmerged)

    @property
    def frozen_weight(self) -> Tensor:
        """W, merged or not, in the frozen layer's layout."""
        return self._unmerged[0] if self._unmerged else self.inner.weight

    @property
    def frozen_bias(self) -> Tensor | None:
        """The frozen layer's bias, where it has one."""
        return getattr(self.inner, "bias", None)

    def merge(self) -> None:
        """Put W + delta in the place of W. W is not written to: others may share it."""
        if not self._unmerged:
            self._unmerged = (self.inner.weight,)
            merged = (self.inner.weight + self.lora.delta()).detach()
            self.inner.weight = nn.Parameter(merged, requires_grad=False)

    def unmerge(self) -> None:
        """Put W itself back: the same tensor, no subtraction, no rounding."""
        if self._unmerged:
            (self.inner.weight,) = self._unmerged
            self._unmerged = ()


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


# An embedding is a linear layer too, whose input is all zeros but for a one at the token. ---------


class LoRAEmbedding(LoRALayer):
    """The update `scale * A[token] B` of an embedding, with A of shape (vocab, rank).

    Here A starts at zero and B is drawn from a normal distribution, as in Microsoft's loralib and
    in PEFT: a row of A belongs to one token and learns only when that token is seen. With B at zero
    nothing would reach A at first. There is no dropout on tokens, as in PEFT.
    """

    def _start(
        self, in_dim: int, out_dim: int, device: torch.device | None
    ) -> tuple[Tensor, Tensor]:
        rows = torch.empty(self.rank, out_dim, device=device).normal_(generator=self.generator)
        return torch.zeros(in_dim, self.rank, device=device), rows

    def forward(self, tokens: Tensor) -> Tensor:
        """(...) ids -> (..., out)."""
        return (self.scale * self.strength) * (F.embedding(tokens, self.A) @ self.B)

    def delta(self) -> Tensor:
        """What is added to the frozen table: (vocab, out), in `nn.Embedding`'s layout."""
        return (self.scale * self.strength) * (self.A @ self.B)


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


def merge_lora(model: nn.Module) -> None:
    """Fold every adapter into its layer: y = x (W + delta)^T + b, no extra product. Idempotent."""
    for _, layer in lora_layers(model):
        layer.merge()


def unmerge_lora(model: nn.Module) -> None:
    """Undo `merge_lora`, exactly. Idempotent."""
    for _, layer in lora_layers(model):
        layer.unmerge()
