"""How fast the knife follows its slider: the typed text at every rank, and accuracy at every rank.

    python -m tests.benchmarks.knife [--rank 8] [--steps 60]

The page asks for the typed text's answers at all ranks at once, when the text changes, and for the
accuracies once a run; then the slider moves along what is known, without the server. So the first
figure is what a person waits for after a key, the second fills the curve, and a move is a look-up.
"""

from __future__ import annotations

import argparse
import statistics
import time

import torch

import lora_core as lc
from lora_core.explain.exam import Exam, finish
from lora_core.explain.knife import Knife, cuts


def main() -> None:
    """Train one run, then measure with one thread, as the server does."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--rank", type=int, default=8)
    parser.add_argument("--steps", type=int, default=60)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    task = lc.load_task("sms-spam")
    lora, train = lc.LoRAConfig(rank=arguments.rank), lc.TrainConfig(steps=arguments.steps)
    *_, last = lc.fine_tune(lc.load_base("bundled"), task, lora, train)
    assert isinstance(last, lc.Finished)
    texts = [row.text for row in task.test[:20]]
    made, one, every = [], [], []
    for text in texts:
        begin = time.thread_time()
        knife = Knife(last.classifier)
        made.append(time.thread_time() - begin)
        for rank in range(knife.rank + 1):
            start = time.thread_time()
            knife.at(rank).classify(text)
            one.append(time.thread_time() - start)
        every.append(time.thread_time() - begin)
    begin = time.thread_time()
    curve = finish(cuts(Knife(last.classifier), Exam.of(last.classifier, task)))
    whole = time.thread_time() - begin
    print(f"rank {arguments.rank}, {len(texts)} texts, one thread, processor time; medians:")
    for what, seconds in (
        ("sort the directions of all layers", made),
        ("the typed text at one rank", one),
        (f"the typed text at all {len(curve)} ranks", every),
    ):
        print(f"  {what:36} {1e3 * statistics.median(seconds):7.1f} ms")
    print(f"  accuracy at all ranks, once a run    {whole:7.1f} s, {curve[0].rows} texts")


if __name__ == "__main__":
    main()
