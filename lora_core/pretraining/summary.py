"""A second aim of pretraining: the state at a token also sums up the document so far.

Predicting the next token asks the last state of a text about grammar; a classifier asks the same
state what the text was about. So at a share of the positions the state, through a matrix of its own
that is thrown away in the end, also predicts which tokens stand in the document up to there, the
rare ones with more weight. The loss is a cross-entropy against that bag of tokens, as in paragraph
vectors (Le and Mikolov 2014, PV-DBOW), learned by a network that reads.
"""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Generator, Tensor, nn

BACK = 64  # tokens of the document that a state sums up
EVERY = 8  # one of so many positions is asked
_HALF = 3e-4  # a token of this frequency weighs half (Arora et al. 2017, smooth inverse frequency)
_COUNTED = 20_000_000  # tokens of the corpus from which frequencies are taken


class Summary:
    """The matrix that reads a summary off a state, and what it should read."""

    def __init__(self, corpus: NDArray[np.uint16], vocabulary: int, width: int) -> None:
        """`corpus` is the flat file of ids; the last id of the vocabulary ends a document."""
        counts = np.bincount(corpus[:_COUNTED], minlength=vocabulary)
        frequency = torch.from_numpy(counts / counts.sum()).float()
        self.weights = _HALF / (_HALF + frequency)  # (vocab,)
        self.weights[-1] = 0.0
        self.matrix = nn.Parameter(torch.zeros(vocabulary, width))

    def to(self, device: torch.device) -> Summary:
        """Move to a device, in place."""
        self.weights = self.weights.to(device)
        self.matrix.data = self.matrix.data.to(device)
        return self

    def positions(self, length: int, seed: int) -> Tensor:
        """(length / EVERY,): which positions of a window are asked; the seed decides."""
        order = torch.randperm(length, generator=Generator().manual_seed(seed))
        return order[: max(1, length // EVERY)].to(self.weights.device)

    def targets(self, tokens: Tensor, positions: Tensor) -> Tensor:
        """tokens (batch, length), positions (n,) -> (batch, n, vocab): each row adds up to 1.

        A row holds the last `BACK` tokens up to its position that belong to the same document and
        window. It is all zero where they weigh nothing.
        """
        places = positions[:, None] + torch.arange(1 - BACK, 1, device=tokens.device)
        inside = places >= 0  # (n, BACK)
        places = places.clamp_min(0)
        ids = tokens[:, places]  # (batch, n, BACK)
        document = (tokens == len(self.weights) - 1).cumsum(1)  # counts the ends before
        same = document[:, places] == document[:, positions][..., None]
        share = self.weights[ids] * (same & inside)
        bag = tokens.new_zeros(len(tokens), len(positions), len(self.weights), dtype=torch.float32)
        bag.scatter_add_(2, ids, share)
        return bag / bag.sum(-1, keepdim=True).clamp_min(1e-6)

    def loss(
        self, matrix: Tensor, states: Tensor, tokens: Tensor, positions: Tensor, scale: float
    ) -> Tensor:
        """`scale` times the summed cross-entropy, in nats, of what the states (batch, length, emb)
        at `positions` say through `matrix`: `self.matrix`, in the format of the products.
        """
        logits = (states[:, positions].flatten(0, 1) @ matrix.t()).float()
        targets = self.targets(tokens, positions).flatten(0, 1)
        return F.cross_entropy(logits, targets, reduction="sum") * scale
