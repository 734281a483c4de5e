"""Which directions of a teacher's states tell kinds of short texts apart, and how to stress them.

    python -m lora_core.pretraining.kinds --model DIR|FILE.gguf --states DIR

A student has room for about half of what its teacher says. Where every component of the teacher's
means counts alike, what people ask a classifier for (praise or blame, a message or an offer, which
desk) is lost as often as the rest. So the phrases of `kinds.toml`, this project's own, are read by
the teacher, kind by kind; Fisher's linear discriminants of those means (within the components that
`teach` has kept) are the directions in which kinds differ, and targets are made longer along them:
the first, praise against blame, by `--praise`, the others by `--others`. Written beside the
teacher's states as `emphasis.safetensors`; `ending` uses it where it is there.
"""

from __future__ import annotations

import argparse
import functools
import random
import re
import sys
import tomllib
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from lora_core.pretraining.lessons import scales
from lora_core.pretraining.phrases import dressed
from lora_core.pretraining.program import exit_status
from lora_core.pretraining.teach import EMPHASIS, States, Teacher

PRAISE, OTHERS = 4.0, 2.5  # how many times as long targets become: see the base's card
_MIXED = "mixed"  # patterns of no clear kind
_OF_A_KIND = 300  # phrases that are read to find the directions
_TEXTS_AT_LARGE = 1.0  # their variance, beside the variance within kinds, in the discriminants


@functools.cache
def _table() -> dict[str, dict[str, list[str]]]:
    with Path(__file__).with_name("kinds.toml").open("rb") as file:
        return tomllib.load(file)


def filled(pattern: str, order: random.Random) -> str:
    """A pattern with an entry of the named list in each {slot}, cased and ended as people do."""
    lists = _table()["lists"]
    return dressed(re.sub(r"\{(\w+)\}", lambda m: order.choice(lists[m[1]]), pattern), order)


def all_phrases(order: random.Random, of_each: int = 130) -> list[str]:
    """Every pattern of every kind, filled in up to `of_each` ways."""
    phrases: dict[str, None] = {}
    for patterns in _table()["patterns"].values():
        for pattern in patterns:
            for _ in range(of_each if "{" in pattern else 2):
                phrases[filled(pattern, order)] = None
    return list(phrases)


def phrases_by_kind(order: random.Random, count: int = _OF_A_KIND) -> dict[str, list[str]]:
    """`count` phrases of each kind, its patterns in turn; three times as many of praise and blame.

    Praise and blame come first.
    """
    table = {kind: patterns for kind, patterns in _table()["patterns"].items() if kind != _MIXED}
    return {
        kind: [
            filled(patterns[i % len(patterns)], order)
            for i in range(3 * count if kind in ("praise", "blame") else count)
        ]
        for kind, patterns in table.items()
    }


def directions(means: list[Tensor]) -> Tensor:
    """(k, kinds - 1) orthonormal columns, from the scaled means (texts, k) of each kind's texts.

    The first tells the first kind from the second; together they span the discriminants.
    """
    k = means[0].shape[1]
    within = torch.stack([m.double().t().cov() for m in means]).mean(0)
    within += _TEXTS_AT_LARGE * torch.eye(k, dtype=torch.double)
    centres = torch.stack([m.double().mean(0) for m in means])
    first = torch.linalg.solve(within, centres[0] - centres[1])
    others = torch.linalg.solve(within, (centres - centres.mean(0)).t())
    strongest = torch.linalg.svd(others, full_matrices=False).U
    columns = torch.linalg.qr(torch.cat([first[:, None], strongest], 1)).Q
    return columns[:, : len(means) - 1].float()  # the first is made of the others: one less


def emphasis(columns: Tensor, praise: float = PRAISE, others: float = OTHERS) -> Tensor:
    """(k, k): a scaled target times this is `praise` times as long along the first column, `others`
    times along the rest of them, and as it was elsewhere.
    """
    gains = torch.full((columns.shape[1],), others)
    gains[0] = praise
    return torch.eye(len(columns)) + columns @ torch.diag(gains - 1.0) @ columns.t()


def write_emphasis(
    teacher: Teacher, folder: Path, praise: float = PRAISE, others: float = OTHERS, seed: int = 0
) -> None:
    """Read the phrases and write the matrix into `folder`, which holds the teacher's states."""
    basis, scale = load_file(folder / "basis.safetensors"), scales(States(folder), 1.0)[0]
    means = []
    for phrases in phrases_by_kind(random.Random(seed)).values():
        rows = torch.stack([states.mean(0) for _, states in teacher.read(phrases)])
        means.append((rows - basis["mean"]) @ basis["components"] * scale)
    save_file({"matrix": emphasis(directions(means), praise, others)}, folder / EMPHASIS)


def main(arguments: list[str] | None = None) -> int:
    """The program; an exit status."""
    parser = argparse.ArgumentParser(
        prog="python -m lora_core.pretraining.kinds", description=__doc__.split("\n", 1)[0]
    )
    add = parser.add_argument
    add("--model", type=Path, required=True, metavar="DIR|GGUF", help="the teacher of the states")
    add("--states", type=Path, required=True, metavar="DIR", help="what `teach` wrote")
    add("--layers", type=int, default=18, help="of the teacher (18)")
    add("--praise", type=float, default=PRAISE, help="stress of praise against blame (4)")
    add("--others", type=float, default=OTHERS, help="stress of the other directions (2.5)")
    add("--float32", action="store_true", help="where bfloat16 is slow")
    add("--threads", type=int, default=0, help="CPU threads (0: torch's own choice)")
    options = parser.parse_args(arguments)
    if options.threads:
        torch.set_num_threads(options.threads)

    def write() -> None:
        dtype = torch.float32 if options.float32 else torch.bfloat16
        teacher = Teacher(options.model, options.layers, dtype)
        write_emphasis(teacher, options.states, options.praise, options.others)

    return exit_status(write)


if __name__ == "__main__":
    sys.exit(main())
