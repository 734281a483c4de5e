"""Each bundled task at the defaults against a bag of words, on the same splits.

    python -m tests.benchmarks.tasks                    every task, seeds 0, 1, 2
    python -m tests.benchmarks.tasks --tasks sentiment --seeds 0 --steps 300

The bag of words is TF-IDF over words and pairs of words with logistic regression, fitted on train
and validation together; LoRA trains on train and chooses its weights by validation. Accuracies are
of the test split, which neither has seen. Seconds are those of the whole run, on this machine at
that moment; processor seconds leave out what others did meanwhile.
"""

from __future__ import annotations

import argparse
import dataclasses
import statistics
import time

import torch
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline

import lora_core as lc
from lora_core.tasks import task_names


def bag_of_words(task: lc.Task) -> float:
    """Test accuracy of TF-IDF over words and pairs of words with logistic regression."""
    model = make_pipeline(
        TfidfVectorizer(ngram_range=(1, 2)), LogisticRegression(C=10, max_iter=1000)
    )
    known = task.train + task.validation
    model.fit([e.text for e in known], [e.label for e in known])
    return float(model.score([e.text for e in task.test], [e.label for e in task.test]))


def lora(base: lc.Base, task: lc.Task, train: lc.TrainConfig) -> tuple[float, float, float]:
    """(test accuracy, seconds, processor seconds) of one run at the default LoRA settings."""
    wall, processor = time.perf_counter(), time.process_time()
    *_, end = lc.fine_tune(base, task, lc.LoRAConfig(), train)
    wall, processor = time.perf_counter() - wall, time.process_time() - processor
    answers = end.classifier.classify_many([e.text for e in task.test])
    right = [a.label == task.labels[e.label] for a, e in zip(answers, task.test, strict=True)]
    return sum(right) / len(right), wall, processor


def main() -> None:
    """Print a row a task."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--tasks", nargs="+", default=task_names())
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--steps", type=int, default=lc.TrainConfig().steps)
    chosen = parser.parse_args()
    torch.set_num_threads(1)
    base = lc.load_base()
    print(f"base {base.digest()[:12]}, {chosen.steps} steps, one thread")
    print("| task | labels | test texts | bag of words | LoRA, each seed | mean | s | CPU s |")
    print("| --- | --- | --- | --- | --- | --- | --- | --- |")
    for name in chosen.tasks:
        task = lc.load_task(name)
        config = lc.TrainConfig(steps=chosen.steps)
        runs = [lora(base, task, dataclasses.replace(config, seed=s)) for s in chosen.seeds]
        found, seconds, processor = zip(*runs, strict=True)
        print(
            f"| {name} | {len(task.labels)} | {len(task.test)} | {bag_of_words(task):.1%} "
            f"| {', '.join(f'{accuracy:.1%}' for accuracy in found)} "
            f"| {statistics.mean(found):.1%} | {statistics.mean(seconds):.0f} "
            f"| {statistics.mean(processor):.0f} |",
            flush=True,
        )


if __name__ == "__main__":
    main()
