"""The rank knife: every dW with its k strongest directions only, as an adapter of rank k.

From the thin factors: A = Qa Ra and B^T = Qb Rb (QR), the core Ra Rb^T = U S V^T is at most
(r x r), and A B = (Qa U) S (Qb V)^T. The first k columns give the matrix of rank k that is nearest
to A B (Eckart & Young 1936, *Psychometrika* 1:211). The full matrix is never formed.
"""

from __future__ import annotations

import math
from collections.abc import Generator, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from lora_core.classifier import Classifier
from lora_core.explain.exam import Exam, ExperimentError
from lora_core.lora import LoRALayer, lora_layers


@dataclass(frozen=True)
class Cut:
    """What is right with the `rank` strongest directions of every layer."""

    rank: int
    right: int
    rows: int

    @property
    def accuracy(self) -> float:
        """0 to 1."""
        return self.right / self.rows


class Knife:
    """One classifier's adapter, cut to any rank. The classifier itself is not changed.

    Not thread-safe: one knife for one thread. Raises `ExperimentError` where there is no LoRA.
    """

    def __init__(self, classifier: Classifier) -> None:
        self._copy = classifier.private_copy()
        self._layers = [layer.lora for _, layer in lora_layers(self._copy.model)]
        if not self._layers:
            raise ExperimentError(
                "This run trained no A and B, so there are no directions to cut. Choose a LoRA run."
            )
        self._scales = [lora.scale for lora in self._layers]
        self._sorted = [strongest(lora.A, lora.B) for lora in self._layers]
        self.rank = max(lora.rank for lora in self._layers)

    def at(self, rank: int) -> Classifier:
        """The classifier with `rank` directions a layer, 0 to `self.rank`; until the next call.

        The head is kept as trained. With 0 only the base and the head are left.
        """
        if not 0 <= rank <= self.rank:
            raise ExperimentError(f"The rank must be from 0 to {self.rank}, not {rank}.")
        cut = zip(self._layers, self._sorted, self._scales, strict=True)
        for lora, (A, B), scale in cut:
            _set(lora, A[:, :rank], B[:rank])
            lora.scale = scale if rank else 0.0
            if not rank:  # no column is left; one of zeros keeps every shape that others expect
                _set(lora, torch.zeros_like(A[:, :1]), torch.zeros_like(B[:1]))
        return self._copy

    def keep(self, rank: int) -> Classifier:
        """An adapter of `rank` in its own right, to be saved: a new classifier, from 1 up.

        Its scale is that of the original; alpha follows from it by the original's rule.
        """
        if rank < 1:
            raise ExperimentError("An adapter needs at least one direction: choose 1 or more.")
        made = self.at(rank).private_copy()
        self.at(self.rank)
        for _, layer in lora_layers(made.model):
            layer.lora.generator = None
        config = made.lora_config
        if config is not None:
            power = {"alpha/rank": 1.0, "alpha/sqrt(rank)": 0.5, "alpha": 0.0}[config.scaling]
            made.lora_config = replace(config, rank=rank, alpha=config.scale * rank**power)
        made.scores = {}  # they were those of the whole adapter
        return made


def strongest(A: Tensor, B: Tensor) -> tuple[Tensor, Tensor]:
    """(in, r), (r, out) -> the same product with its directions sorted, the strongest first.

    Each direction's strength is shared between its column of A and its row of B. Where r is above
    what the matrix can have, the columns beyond are zero. float32.
    """
    left, left_core = torch.linalg.qr(A.detach().double())
    right, right_core = torch.linalg.qr(B.detach().double().T)
    u, values, vt = torch.linalg.svd(left_core @ right_core.T)
    root = values.sqrt()
    size = len(root)
    sorted_A, sorted_B = torch.zeros_like(A.detach()), torch.zeros_like(B.detach())
    sorted_A[:, :size] = left @ u[:, :size] * root
    sorted_B[:size] = root[:, None] * (vt[:size] @ right.T)
    return sorted_A, sorted_B


def cuts(
    knife: Knife, exam: Exam, ranks: Sequence[int] | None = None
) -> Generator[list[Cut] | None, None, list[Cut]]:
    """Accuracy at each rank, by default all from 0 on, those that say most first.

    Yields what is known so far, by rank; returns all of it.
    """
    known: dict[int, Cut] = {}
    for rank in telling_order(knife.rank) if ranks is None else ranks:
        right = yield from exam.right(knife.at(rank))  # on a copy: others may cut meanwhile
        known[rank] = Cut(rank, right, exam.rows)
        yield [known[k] for k in sorted(known)]
    return [known[k] for k in sorted(known)]


def telling_order(rank: int) -> list[int]:
    """0 to `rank`: both ends, the powers of two, then the rest."""
    powers = [2**i for i in range(int(math.log2(rank)) + 1)] if rank else []
    return list(dict.fromkeys([rank, 0, *powers, *range(rank + 1)]))


def enough(curve: Sequence[Cut]) -> Cut:
    """The smallest rank whose accuracy is at most half a point below that of the largest."""
    whole = max(curve, key=lambda cut: cut.rank)
    good = [cut for cut in curve if cut.accuracy >= whole.accuracy - 0.005]
    return min(good, key=lambda cut: cut.rank)


def _set(lora: LoRALayer, A: Tensor, B: Tensor) -> None:
    lora.A, lora.B = nn.Parameter(A, requires_grad=False), nn.Parameter(B, requires_grad=False)
    lora.rank = A.shape[1]
