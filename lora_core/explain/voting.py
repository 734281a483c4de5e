"""What if they vote: the mean of several adapters' probabilities, against the number of voters.

All of them sit on one base and know the same labels. Of n voters every choice of m is asked, so
that the figure for m does not depend on who happens to be first.
"""

from __future__ import annotations

from collections.abc import MutableMapping, Sequence
from dataclasses import dataclass
from itertools import combinations

import torch
from torch import Tensor

from lora_core.classifier import Classifier
from lora_core.explain.exam import Exam, ExperimentError, Turns

MAX_VOTERS = 8  # 255 choices


@dataclass(frozen=True)
class Vote:
    """How `voters` adapters do together, over every choice of so many."""

    voters: int
    mean: float  # accuracy, 0 to 1
    low: float  # of the worst choice
    high: float  # of the best choice


def check_voters(voters: Sequence[Classifier]) -> None:
    """Raise `ExperimentError` unless these can vote: 2 to 8, with one base and the same labels."""
    if not 2 <= len(voters) <= MAX_VOTERS:
        raise ExperimentError(f"Tick 2 to {MAX_VOTERS} adapters: {len(voters)} are ticked.")
    first = voters[0]
    for voter in voters[1:]:
        if set(voter.labels) != set(first.labels):
            raise ExperimentError("These adapters know different labels, so they cannot vote.")
        if (voter.base_name, voter.base_source) != (first.base_name, first.base_source):
            raise ExperimentError("These adapters sit on different bases; choose those of one.")


def ballots(
    voters: Sequence[Classifier],
    exam: Exam,
    known: MutableMapping[Classifier, tuple[int, Tensor]] | None = None,
) -> Turns[Tensor]:
    """(voters, rows, classes): each one's probabilities, classes in the order of the first.

    `known` keeps each voter's own, and of which texts: one more voter reads them once more, and no
    more than that.
    """
    check_voters(voters)
    known = {} if known is None else known
    texts, parts = hash(exam.ids), []
    for voter in voters:
        columns = [voter.labels.index(label) for label in voters[0].labels]
        if voter not in known or known[voter][0] != texts:
            known[voter] = texts, (yield from exam.probabilities(voter))
        probabilities = known[voter][1]
        parts.append(probabilities[:, columns])
    return torch.stack(parts)


def against_best(cast: Tensor, exam: Exam) -> tuple[int, int]:
    """Texts that all together get right and the best single one wrong, and the other way round,
    from (n, rows, classes) probabilities; of equally good ones the first is asked."""
    right = torch.stack([p.argmax(-1) == exam.truth for p in (*cast, cast.mean(0))])
    best = right[int(right[:-1].sum(-1).argmax())]
    together = right[-1]
    return int((together & ~best).sum()), int((best & ~together).sum())


def count_votes(cast: Tensor, exam: Exam) -> list[Vote]:
    """Accuracy for 1 to n voters, from (n, rows, classes) probabilities."""
    votes = []
    for size in range(1, len(cast) + 1):
        right = [
            exam.correct(cast[list(chosen)].mean(0)) / exam.rows
            for chosen in combinations(range(len(cast)), size)
        ]
        votes.append(Vote(size, sum(right) / len(right), min(right), max(right)))
    return votes
