"""A second aim of pretraining: the state at a token also sums up the text around it.

Predicting the next token asks the last state of a text about grammar; a classifier asks the same
state what the text was about. So at a share of the positions the state, through matrices of its
own that are thrown away in the end, also predicts which tokens stand just before in its document,
and which come soon after, the rare ones with more weight. The loss is a cross-entropy against such
a bag of tokens, as in paragraph vectors (Le and Mikolov 2014, PV-DBOW), learned by a network that
reads; that what follows tells what was meant is the idea of skip-thought vectors (Kiros et al.
2015).
"""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Generator, Tensor, nn

REACH = 64  # tokens of the document, before and after, that a state sums up
EVERY = 8  # one of so many positions is asked
_HALF = 3e-4  # a token of this frequency weighs half (Arora et al. 2017, smooth inverse frequency)
_COUNTED = 20_000_000  # tokens of the corpus from which frequencies are taken


class Summary:
    """The matrices that read a summary off a state, and what they should read."""

    def __init__(
        self,
        corpus: NDArray[np.uint16],
        vocabulary: int,
        width: int,
        *,
        ahead: bool = False,
        line_ends: NDArray[np.bool_] | None = None,
    ) -> None:
        """`corpus` is the flat file of ids; the last id of the vocabulary ends a document.

        `ahead`: what comes after is asked for too. `line_ends` (vocab,), the tokens after which a
        line starts: with it the last token of a line is asked before any other.
        """
        counts = np.bincount(corpus[:_COUNTED], minlength=vocabulary)
        frequency = torch.from_numpy(counts / counts.sum()).float()
        self.weights = _HALF / (_HALF + frequency)  # (vocab,)
        self.weights[-1] = 0.0
        self.line_ends = None if line_ends is None else torch.from_numpy(line_ends).float()
        names = ("summary", "ahead") if ahead else ("summary",)
        self.matrices = {n: nn.Parameter(torch.zeros(vocabulary, width)) for n in names}

    def to(self, device: torch.device) -> Summary:
        """Move to a device, in place."""
        self.weights = self.weights.to(device)
        if self.line_ends is not None:
            self.line_ends = self.line_ends.to(device)
        for matrix in self.matrices.values():
            matrix.data = matrix.data.to(device)
        return self

    def positions(self, tokens: Tensor, seed: int) -> Tensor:
        """tokens (batch, length) -> (batch, length / EVERY): where to ask; the seed decides."""
        length = tokens.shape[1]
        number, generator = max(1, length // EVERY), Generator().manual_seed(seed)
        if self.line_ends is None:
            same = torch.randperm(length, generator=generator)[:number].to(tokens.device)
            return same.expand(len(tokens), -1)
        score = torch.rand(tokens.shape, generator=generator).to(tokens.device)
        score[:, :-1] += self.line_ends[tokens[:, 1:]]
        return score.topk(number, dim=1).indices

    def targets(self, tokens: Tensor, positions: Tensor, *, ahead: bool = False) -> Tensor:
        """tokens (batch, length), positions (batch, n) -> (batch, n, vocab): each row adds up to 1.

        A row holds the `REACH` tokens up to its position, or after it, that belong to the same
        document and window. It is all zero where they weigh nothing.
        """
        batch, length = tokens.shape
        first = 1 if ahead else 1 - REACH
        places = positions[..., None] + torch.arange(first, first + REACH, device=tokens.device)
        inside = (places >= 0) & (places < length)  # (batch, n, REACH)
        flat = places.clamp(0, length - 1).flatten(1)
        document = (tokens == len(self.weights) - 1).cumsum(1)  # counts the ends before
        ids = tokens.gather(1, flat).view_as(places)
        same = document.gather(1, flat).view_as(places) == document.gather(1, positions)[..., None]
        share = self.weights[ids] * (same & inside)
        bag = share.new_zeros(batch, positions.shape[1], len(self.weights))
        bag.scatter_add_(2, ids, share)
        return bag / bag.sum(-1, keepdim=True).clamp_min(1e-6)

    def losses(
        self, matrices: dict[str, Tensor], states: Tensor, tokens: Tensor, seed: int, scale: float
    ) -> dict[str, Tensor]:
        """For each matrix, `scale` times the mean cross-entropy, in nats, of what the states
        (batch, length, emb) say through it: `self.matrices`, in the format of the products.
        """
        positions = self.positions(tokens, seed)
        scale /= positions.numel()
        width = states.shape[-1]
        asked = states.gather(1, positions[..., None].expand(-1, -1, width)).flatten(0, 1)
        losses = {}
        for name, matrix in matrices.items():
            targets = self.targets(tokens, positions, ahead=name == "ahead").flatten(0, 1)
            logits = (asked @ matrix.t()).float()
            losses[name] = F.cross_entropy(logits, targets, reduction="sum") * scale
        return losses
