"""Texts with what the teacher said of them: what a student is asked, and in which numbers."""

from __future__ import annotations

import numpy as np
import tiktoken
import torch
from numpy.typing import NDArray
from torch import Tensor

from lora_core.pretraining import PretrainingError
from lora_core.pretraining.teach import States

LENGTHS = (4, 8, 12, 16, 20, 24, 32, 40, 48, 64, 80, 96, 128, 160)  # padded to one of these


class Lessons:
    """Texts with what the teacher said of them, in batches of about one length.

    `targets` are made when asked for: the means so far come from the states. `reserve` places stay
    free behind each text.
    """

    def __init__(
        self, states: States, texts: list[str], encoding: tiktoken.Encoding, reserve: int = 0
    ) -> None:
        self.states, self.end = states, encoding.eot_token
        sizes = [len(encoding.decode_single_token_bytes(i)) for i in range(encoding.n_vocab)]
        length_of = np.array(sizes)
        self.ids: list[NDArray[np.uint16]] = []
        self.places: list[tuple[NDArray[np.uint16], NDArray[np.uint16]]] = []
        self.number: list[int] = []
        by_length: dict[int, list[int]] = {}
        for start in range(0, len(states), 4096):
            group = [texts[i] for i in range(start, min(start + 4096, len(states)))]
            for offset, own in enumerate(encoding.encode_ordinary_batch(group, num_threads=1)):
                ids = np.array(own[: LENGTHS[-1] - reserve], np.uint16)
                ends = states.ends_of(start + offset).astype(np.int64)
                _, mine, theirs = np.intersect1d(
                    np.cumsum(length_of[ids]), ends, return_indices=True
                )
                if not len(mine):
                    continue
                ids = ids[: int(mine[-1]) + 1]
                bucket = next(n for n in LENGTHS if n >= len(ids) + reserve)
                by_length.setdefault(bucket, []).append(len(self.ids))
                self.ids.append(ids)
                self.places.append((mine.astype(np.uint16), theirs.astype(np.uint16)))
                self.number.append(start + offset)
        if not self.ids:
            raise PretrainingError("No text has a position where both tokenisers cut.")
        self.lengths = sorted(by_length)
        self.members = {n: np.array(by_length[n]) for n in self.lengths}
        weights = np.array([n * len(self.members[n]) for n in self.lengths], float)
        self.shares = weights / weights.sum()
        self.tokens = int(sum(map(len, self.ids)))

    def batch(self, step: int, seed: int, size: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Ids (rows, length); of the n asked positions: index (n,) into rows * length, whether it
        is its text's last (n,), and the teacher's (2, n, k): mean so far and state.
        """
        chance = np.random.default_rng([seed, step])
        length = self.lengths[int(chance.choice(len(self.lengths), p=self.shares))]
        rows = max(1, size // length)
        picked = chance.choice(self.members[length], rows)
        ids = np.full((rows, length), self.end, np.int64)
        index, last, means, states = [], [], [], []
        for row, text in enumerate(picked):
            mine, theirs = self.places[text]
            ids[row, : len(self.ids[text])] = self.ids[text]
            state = self.states.states_of(self.number[text])
            so_far = np.cumsum(state, 0) / np.arange(1, len(state) + 1, dtype=np.float32)[:, None]
            index.append(row * length + mine.astype(np.int64))
            flags = np.zeros(len(mine), bool)
            flags[-1] = True
            last.append(flags)
            means.append(so_far[theirs])
            states.append(state[theirs])
        both = np.stack([np.concatenate(means), np.concatenate(states)]).astype(np.float32)
        return (
            torch.from_numpy(ids),
            torch.from_numpy(np.concatenate(index)),
            torch.from_numpy(np.concatenate(last)),
            torch.from_numpy(both),
        )

    def endings(
        self, step: int, seed: int, size: int, cut_share: float
    ) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
        """Ids (rows, length) with `<|endoftext|>` behind each text; index (rows,) of those tokens
        into rows * length; the teacher's mean of each text (rows, k); index (n,) of the asked
        positions within the texts and the teacher's state there (n, k).

        A `cut_share` of the texts ends earlier, somewhere where both tokenisers cut. Needs a
        `reserve` of one.
        """
        chance = np.random.default_rng([seed, step])
        length = self.lengths[int(chance.choice(len(self.lengths), p=self.shares))]
        rows = max(1, size // length)
        picked = chance.choice(self.members[length], rows)
        ids = np.full((rows, length), self.end, np.int64)
        ends, means, index, states = [], [], [], []
        for row, text in enumerate(picked):
            mine, theirs = self.places[text]
            asked = len(mine)
            if asked > 1 and chance.random() < cut_share:
                asked = int(chance.integers(1, asked))
            size_of = int(mine[asked - 1]) + 1
            ids[row, :size_of] = self.ids[text][:size_of]
            ends.append(row * length + size_of)
            state = self.states.states_of(self.number[text])
            means.append(state[: int(theirs[asked - 1]) + 1].mean(0))
            index.append(row * length + mine[:asked].astype(np.int64))
            states.append(state[theirs[:asked]])
        return (
            torch.from_numpy(ids),
            torch.tensor(ends),
            torch.from_numpy(np.stack(means).astype(np.float32)),
            torch.from_numpy(np.concatenate(index)),
            torch.from_numpy(np.concatenate(states).astype(np.float32)),
        )


def scales(states: States, power: float) -> Tensor:
    """(2, k): what to multiply means and states by; then they have mean square 1."""
    rows = []
    for name in ("deviations", "state_deviations"):
        deviation = states.basis[name]
        deviation = deviation.clamp_min(1e-3 * float(deviation.max()))  # a direction nobody took
        scale = deviation.pow(-power)
        rows.append(scale / (deviation * scale).square().mean().sqrt())
    return torch.stack(rows)
