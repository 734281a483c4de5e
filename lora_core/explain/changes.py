"""What training did to the weights: how large, in how many directions, where, and where not at all.

For LoRA everything comes from the thin A and B: with A = Qa Ra and B^T = Qb Rb (QR), the product
A B = Qa (Ra Rb^T) Qb^T has the singular values of the small core Ra Rb^T, at most (rank x rank).
Nothing here changes a model.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lora_core.base.checkpoint import Base, frozen_digest
from lora_core.classifier import Classifier
from lora_core.config import HEAD
from lora_core.errors import LabError
from lora_core.lora import lora_layers

MAP_CELLS = 64  # a heat map is at most so many cells wide and high

_BLOCK = re.compile(r"blocks\.(\d+)\.(.+)")


class InspectionError(LabError, ValueError):
    """Something that cannot be looked at; the message says why."""


@dataclass(frozen=True)
class LayerChange:
    """How much one layer's matrix changed, by Frobenius norms: the root of the sum of squares."""

    name: str  # dotted, as in the model
    block: int | None  # from 0; None for a layer outside the blocks
    kind: str  # "attention.query", "mlp.up", ...
    shape: tuple[int, int]  # (out, in); of an embedding (vocab, out)
    rank: int | None  # of its adapter; None where the whole matrix was trained
    change: float  # norm of dW
    weight: float  # norm of the W that it is added to

    @property
    def ratio(self) -> float:
        """The size of the change relative to the weight that it changes."""
        return self.change / self.weight if self.weight else 0.0

    @property
    def largest_rank(self) -> int:
        """The most directions that this change could have used."""
        return min(*self.shape, self.rank if self.rank is not None else min(self.shape))


@dataclass(frozen=True)
class HeatMap:
    """One dW, shrunk: each cell holds the entry of its block with the largest absolute value."""

    values: Tensor  # (rows, columns), signs kept
    shape: tuple[int, int]  # of the whole matrix: (out, in); of an embedding (vocab, out)
    block: tuple[int, int]  # entries of the matrix that one cell stands for, at most

    @property
    def largest(self) -> float:
        """The largest absolute entry of the whole matrix."""
        return self.values.abs().max().item()


@dataclass(frozen=True)
class FrozenProof:
    """The base's weights before a run and after it, by their SHA-256."""

    before: str  # hexadecimal
    after: str
    bytes: int  # that were hashed

    @property
    def equal(self) -> bool:
        """Whether not a single bit differs."""
        return self.before == self.after


def layer_changes(classifier: Classifier) -> list[LayerChange]:
    """Every adapted layer, or matrix trained whole, in the model's order.

    Empty when only the head was trained: its random start says nothing about size. A head with LoRA
    on it is listed.
    """
    changes = []
    with classifier.at_strength(1.0) as model:
        for name, layer in lora_layers(model):
            values = product_singular_values(layer.lora.A, layer.lora.B)
            change = abs(layer.lora.scale) * values.norm().item()
            changes.append(_change(name, layer.frozen_weight, change, layer.lora.rank))
        for name, first, last in _full(classifier, model):
            changes.append(_change(name, first, (last - first).norm().item(), None))
    return changes


def singular_values(classifier: Classifier, name: str) -> Tensor:
    """Singular values of one layer's dW, largest first, float64.

    (rank,) for LoRA, from the small core; (min(out, in),) for a layer trained whole. Raises
    `InspectionError` for a layer that was not changed.
    """
    with classifier.at_strength(1.0) as model:
        for adapted, layer in lora_layers(model):
            if adapted == name:
                values = product_singular_values(layer.lora.A, layer.lora.B)
                return abs(layer.lora.scale) * values
        first, last = _pair(classifier, model, name)
        difference = (last - first).double()
    return torch.linalg.svdvals(difference)


def product_singular_values(A: Tensor, B: Tensor) -> Tensor:
    """Singular values of A B, largest first, from (in, r) and (r, out): float64, no large SVD."""
    left = torch.linalg.qr(A.detach().double(), mode="r").R  # (min(in, r), r)
    right = torch.linalg.qr(B.detach().double().T, mode="r").R  # (min(out, r), r)
    return torch.linalg.svdvals(left @ right.T)


def effective_rank(values: Tensor) -> float:
    """How many directions a matrix really uses, from its singular values: 1 up to their number.

    The exponential of the entropy of the values divided by their sum (Roy & Vetterli 2007,
    EUSIPCO): k equal values give k; one value far above the others gives little more than 1; a
    matrix of zeros 0.
    """
    total = values.sum()
    if total <= 0:
        return 0.0
    share = values / total
    return torch.special.entr(share).sum().exp().item()


def heat_map(classifier: Classifier, name: str, cells: int = MAP_CELLS) -> HeatMap:
    """One layer's dW as a picture of at most `cells` x `cells`; see `HeatMap`.

    Largest, not mean: the entries of a block have both signs, and their mean would be almost none.
    Raises `InspectionError` for a layer that was not changed.
    """
    with classifier.at_strength(1.0) as model:
        layer = dict(lora_layers(model)).get(name)
        if layer is not None:
            delta = layer.lora.delta().detach()
        else:
            first, last = _pair(classifier, model, name)
            delta = last - first
    rows, columns = (min(cells, size) for size in delta.shape)
    _, index = F.adaptive_max_pool2d(delta.abs()[None], (rows, columns), return_indices=True)
    shape = (delta.shape[0], delta.shape[1])
    block = (-(-shape[0] // rows), -(-shape[1] // columns))
    return HeatMap(delta.flatten()[index[0]], shape, block)


def frozen_proof(base: Base, classifier: Classifier, before: str) -> FrozenProof:
    """Hash the weights that the classifier sits on, and put that beside an earlier digest.

    `before` is `base.digest()` as it was when the base was loaded. After full fine-tuning the
    classifier has weights of its own; then it is the shared base that is hashed again.
    """
    trained_whole = any(not name.startswith(HEAD + ".") for name in classifier.initial)
    if trained_whole:
        after = base.digest()
    else:
        with classifier.at_strength(1.0) as model:
            after = frozen_digest(model)
    size = sum(p.numel() * p.element_size() for p in base.model.parameters())
    return FrozenProof(before, after, size)


def _change(name: str, weight: Tensor, change: float, rank: int | None) -> LayerChange:
    match = _BLOCK.fullmatch(name)
    block, kind = (int(match[1]), match[2]) if match else (None, name)
    shape = (weight.shape[0], weight.shape[1])
    return LayerChange(name, block, kind, shape, rank, change, weight.norm().item())


def _full(classifier: Classifier, model: nn.Module) -> Iterator[tuple[str, Tensor, Tensor]]:
    """(layer, first W, last W) of every matrix below the head that was trained whole."""
    for name, module in model.named_modules():
        first = classifier.initial.get(f"{name}.weight")
        if first is not None and isinstance(module, nn.Linear | nn.Embedding) and name != HEAD:
            yield name, first, module.weight.detach()


def _pair(classifier: Classifier, model: nn.Module, name: str) -> tuple[Tensor, Tensor]:
    for layer, first, last in _full(classifier, model):
        if layer == name:
            return first, last
    raise InspectionError(f"No layer called '{name}' was changed by this run.")
