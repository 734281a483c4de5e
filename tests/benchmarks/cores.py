"""More cores for a run that is alone: which operations keep their bits, and what it saves.

    python -m tests.benchmarks.cores --bits     a step's operations with 1, 2, 3, 4 and 8 threads
    python -m tests.benchmarks.cores            a whole run, training and test, one core against two

The bits are compared on the shapes of the bundled base, at many numbers of rows and ranks. Times
are wall time, so nothing else should run; runs are interleaved.
"""

from __future__ import annotations

import argparse
import time
from collections import defaultdict
from collections.abc import Callable

import torch
from torch import Tensor

import lora_core as lc
from lora_core.cores import set_threads
from lora_core.serving.worker import Job, train

COUNTS = (2, 3, 4, 8)
ROWS = (*range(7, 120, 9), *range(16, 420, 48), *range(432, 1400, 160))
RANKS = (1, 3, 4, 8, 12, 24, 64)
LAYERS = ((768, 256), (256, 256), (1024, 256), (256, 1024))  # out, in


def bits() -> None:
    """Print where an operation gives other bits than with one thread."""
    torch.manual_seed(0)
    differs: dict[tuple[str, str], set[tuple[int, int, int]]] = defaultdict(set)

    def compare(kind: str, name: str, rows: int, rank: int, compute: Callable[[], Tensor]) -> None:
        set_threads(1)
        expected = compute()
        for count in COUNTS:
            set_threads(count)
            if not torch.equal(compute(), expected):
                differs[kind, name].add((count, rows, rank))

    for dtype in (torch.float32, torch.bfloat16):
        kind = str(dtype).removeprefix("torch.")
        for (n_out, n_in), rows in ((layer, rows) for layer in LAYERS for rows in ROWS):
            w, x = torch.randn(n_out, n_in).to(dtype), torch.randn(rows, n_in).to(dtype)
            dy = torch.randn(rows, n_out).to(dtype)
            for name, compute in {
                "frozen product": lambda x=x, w=w: x @ w.T,
                "its gradient": lambda dy=dy, w=w: dy @ w,
                "gradient of W": lambda dy=dy, x=x: dy.T @ x,
            }.items():
                compare(kind, name, rows, 0, compute)
            for rank in RANKS:
                a, b = torch.randn(n_in, rank).to(dtype), torch.randn(rank, n_out).to(dtype)
                set_threads(1)
                inner, upper = a.T @ x.T, b @ dy.T
                for name, compute in {
                    "x A": lambda a=a, x=x: a.T @ x.T,
                    "B dy": lambda b=b, dy=dy: b @ dy.T,
                    "gradient of A": lambda upper=upper, x=x: upper @ x,
                    "gradient of B": lambda inner=inner, dy=dy: inner @ dy,
                    "y + (x A) B": lambda y=dy, i=inner, b=b: y.clone().addmm_(i.T, b),
                    "dx + (B dy) A": lambda y=x, u=upper, a=a: y.clone().addmm_(u.T, a.T),
                }.items():
                    compare(kind, name, rows, rank, compute)
    for size, length in ((1000, 33), (1320, 70), (64, 300)):
        p, g = torch.randn(size, length, length).softmax(-1), torch.randn(size, length, length)
        compare(
            "float32",
            "softmax, backward",
            size,
            0,
            lambda g=g, p=p: torch._softmax_backward_data(g, p, -1, torch.float32),
        )
    for size in (1000, 40_000, 300_000, 7_000_000):
        g = torch.randn(size)
        compare("float32", "norm", size, 0, lambda g=g: torch.linalg.vector_norm(g))
    print("| | threads | shapes in all | rows a multiple of 16, ranks of 4 |\n|---|---|--:|--:|")
    for (kind, name), cases in sorted(differs.items()):
        for count in sorted({case[0] for case in cases}):
            mine = [case for case in cases if case[0] == count]
            even = [c for c in mine if c[1] % 16 == 0 and c[2] % 4 == 0]
            print(f"| {kind}: {name} | {count} | {len(mine)} | {len(even)} |")
    print("Everything else gives the same bits.")


def wall(steps: int, rounds: int) -> None:
    """Print the seconds of a run alone, with one core and with two."""
    set_threads(1)
    base, task = lc.load_base("bundled"), lc.load_task("sms-spam")
    print("| seconds with one core | with two free | ratio | the same adapter |\n|--:|--:|--:|---|")
    for _ in range(rounds):
        seconds, adapters = [], []
        for count in (1, 2):
            job = Job("", base, task, lc.LoRAConfig(), lc.TrainConfig(steps=steps))
            begin = time.perf_counter()
            outcome = train(job, lambda _: None, lambda: False, lambda count=count: count)
            seconds.append(time.perf_counter() - begin)
            assert outcome.finished is not None
            adapters.append(outcome.finished.classifier.model.state_dict())
        same = all(torch.equal(adapters[0][n], adapters[1][n]) for n in adapters[0])
        ratio = seconds[1] / seconds[0]
        print(f"| {seconds[0]:.1f} | {seconds[1]:.1f} | {ratio:.2f} | {same} |", flush=True)


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--bits", action="store_true", help="compare bits")
    parser.add_argument("--steps", type=int, default=300, help="of a run (default 300)")
    parser.add_argument("--rounds", type=int, default=3, help="pairs of runs (default 3)")
    options = parser.parse_args()
    if options.bits:
        bits()
    else:
        wall(options.steps, options.rounds)


if __name__ == "__main__":
    main()
