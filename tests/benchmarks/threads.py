"""One torch thread a run, or two? For a visitor alone on the machine, and for two at once.

    python -m tests.benchmarks.threads

Prints the milliseconds of an optimiser step (the fastest rounds count: other programs disturb
those least) and whether one and two threads give the same adapter to the last bit.
"""

from __future__ import annotations

import argparse
import itertools
import threading
import time

import torch

import lora_core as lc

STEPS = 12


def train(base: lc.Base, task: lc.Task, threads: int, seed: int = 0) -> lc.Finished:
    """A short run in a thread that computes with `threads` cores."""
    torch.set_num_threads(threads)
    config = lc.TrainConfig(steps=STEPS, evaluations=1, evaluation_rows=1, seed=seed)
    *_, finished = lc.fine_tune(base, task, lc.LoRAConfig(), config)
    assert isinstance(finished, lc.Finished)
    return finished


def together(base: lc.Base, task: lc.Task, runs: int, threads: int) -> tuple[float, lc.Finished]:
    """Milliseconds a step of `runs` runs side by side: time in all by steps in all."""
    done: list[lc.Finished] = []
    workers = [
        threading.Thread(target=lambda: done.append(train(base, task, threads)))
        for _ in range(runs)
    ]
    begin = time.perf_counter()
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    return 1000 * (time.perf_counter() - begin) / (runs * STEPS), done[0]


def weights(finished: lc.Finished) -> list[torch.Tensor]:
    """What was trained."""
    return [p for p in finished.classifier.model.parameters() if p.requires_grad]


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=5, help="interleaved rounds (default 5)")
    rounds = parser.parse_args().rounds
    base, task = lc.load_base("bundled"), lc.load_task("sms-spam")
    cases = list(itertools.product((1, 2), (1, 2)))
    best = dict.fromkeys(cases, float("inf"))
    results: dict[int, list[torch.Tensor]] = {}
    together(base, task, 1, 1)
    for _ in range(rounds):
        for runs, threads in cases:
            milliseconds, finished = together(base, task, runs, threads)
            best[runs, threads] = min(best[runs, threads], milliseconds)
            results[threads] = weights(finished)
    print("| runs at once | one thread each | two threads each |\n|---|---|---|")
    for runs in (1, 2):
        print(f"| {runs} | {best[runs, 1]:.1f} ms a step | {best[runs, 2]:.1f} ms a step |")
    same = all(torch.equal(a, b) for a, b in zip(results[1], results[2], strict=True))
    print(f"the same adapter to the last bit with one and with two threads: {same}")


if __name__ == "__main__":
    main()
