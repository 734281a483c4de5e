"""Each bundled task at the defaults against a bag of words, on the same splits.

    python -m tests.benchmarks.tasks                    every task, seeds 0, 1, 2
    python -m tests.benchmarks.tasks --tasks sentiment --seeds 0 --steps 300
    python -m tests.benchmarks.tasks --splits 6         how much of it is the luck of the split

The bag of words is TF-IDF with logistic regression. Like LoRA it is fitted on train, and chooses
by validation: its C, and whether pairs of words count as well; a second column fits it on both,
which LoRA does not do. Accuracies are of the test split, which neither has seen. Seconds are those
of the whole run, on this machine at that moment; processor seconds leave out what others did
meanwhile. ECE is the expected calibration error on the test texts, ten bins.

A test split of 300 to 450 texts tells two classifiers apart by some two points at best. `--splits`
cuts the same rows anew, with other seeds than the shipped split's, trains both on each, and gives
the mean of the differences with its standard error.
"""

from __future__ import annotations

import argparse
import dataclasses
import math
import statistics
import time
from collections.abc import Sequence
from itertools import product

import torch
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import Pipeline, make_pipeline

import lora_core as lc
from lora_core.explain.test_report import report_on_test
from lora_core.tasks.bundled import task_names
from lora_core.tasks.task import Example, make_task


def bag_of_words(task: lc.Task) -> tuple[float, float]:
    """Test accuracy of TF-IDF and logistic regression, fitted on train; on validation as well."""

    def fitted(rows: Sequence[Example], strength: float, words: int) -> Pipeline:
        model = make_pipeline(
            TfidfVectorizer(ngram_range=(1, words)), LogisticRegression(C=strength, max_iter=2000)
        )
        return model.fit([e.text for e in rows], [e.label for e in rows])

    def score(model: Pipeline, rows: Sequence[Example]) -> float:
        return float(model.score([e.text for e in rows], [e.label for e in rows]))

    choices = list(product((1.0, 10.0, 100.0), (1, 2)))
    models = {choice: fitted(task.train, *choice) for choice in choices}
    best = max(choices, key=lambda choice: score(models[choice], task.validation))
    both = fitted(task.train + task.validation, *best)
    return score(models[best], task.test), score(both, task.test)


def lora(base: lc.Base, task: lc.Task, train: lc.TrainConfig) -> tuple[float, float, float, float]:
    """(test accuracy, calibration error, seconds, processor seconds) of a default run."""
    wall, processor = time.perf_counter(), time.process_time()
    *_, end = lc.fine_tune(base, task, lc.LoRAConfig(), train)
    wall, processor = time.perf_counter() - wall, time.process_time() - processor
    report = report_on_test(end.classifier, task)
    assert report is not None
    return report.correct / len(task.test), report.calibration_error, wall, processor


def over_splits(base: lc.Base, name: str, splits: int, train: lc.TrainConfig) -> str:
    """A row: both on each of so many other splits of the same rows, and the mean difference."""
    shipped = lc.load_task(name)
    rows = [
        (e.text, shipped.labels[e.label])
        for e in (*shipped.train, *shipped.validation, *shipped.test)
    ]
    tasks = [make_task(name, rows, seed) for seed in range(1, splits + 1)]
    runs = [
        lora(base, task, dataclasses.replace(train, seed=seed))
        for seed, task in enumerate(tasks, 1)
    ]
    ours, errors = [run[0] for run in runs], [run[1] for run in runs]
    words = [bag_of_words(task)[0] for task in tasks]
    apart = [100 * (a - b) for a, b in zip(ours, words, strict=True)]
    error = statistics.stdev(apart) / math.sqrt(splits)
    return (
        f"| {name} | {statistics.mean(ours):.1%} | {statistics.mean(words):.1%} "
        f"| {statistics.mean(apart):+.1f} ± {error:.1f} "
        f"| {', '.join(f'{value:+.1f}' for value in apart)} | {statistics.mean(errors):.3f} |"
    )


def main() -> None:
    """Print a row a task."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--tasks", nargs="+", default=task_names())
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--steps", type=int, default=lc.TrainConfig().steps)
    parser.add_argument("--splits", type=int, help="instead: on so many other splits, two or more")
    chosen = parser.parse_args()
    torch.set_num_threads(1)
    base = lc.load_base()
    print(f"base {base.digest()[:12]}, {chosen.steps} steps, one thread")
    if chosen.splits:
        print("| task | LoRA | bag of words | difference | of each split | ECE |")
        print("| --- | --- | --- | --- | --- | --- |")
        for name in chosen.tasks:
            config = lc.TrainConfig(steps=chosen.steps)
            print(over_splits(base, name, chosen.splits, config), flush=True)
        return
    print("| task | labels | test texts | bag of words | on both | LoRA | mean | ECE | s | CPU s |")
    print("| --- | --- | --- | --- | --- | --- | --- | --- | --- | --- |")
    for name in chosen.tasks:
        task = lc.load_task(name)
        config = lc.TrainConfig(steps=chosen.steps)
        runs = [lora(base, task, dataclasses.replace(config, seed=s)) for s in chosen.seeds]
        accuracies, errors, seconds, processor = zip(*runs, strict=True)
        alone, both = bag_of_words(task)
        print(
            f"| {name} | {len(task.labels)} | {len(task.test)} | {alone:.1%} | {both:.1%} "
            f"| {', '.join(f'{accuracy:.1%}' for accuracy in accuracies)} "
            f"| {statistics.mean(accuracies):.1%} | {statistics.mean(errors):.3f} "
            f"| {statistics.mean(seconds):.0f} "
            f"| {statistics.mean(processor):.0f} |",
            flush=True,
        )


if __name__ == "__main__":
    main()
