"""Each bundled task at the defaults against a bag of words, on the same splits.

    python -m tests.benchmarks.tasks                    every task, seeds 0, 1, 2
    python -m tests.benchmarks.tasks --tasks sentiment --seeds 0 --steps 300
    python -m tests.benchmarks.tasks --splits 6         how much of it is the luck of the split

The bag of words is TF-IDF with logistic regression. Like LoRA it is fitted on train, and chooses
by validation: its C, and whether pairs of words count as well; a second column fits it on both,
which LoRA does not do. Accuracies are of the test split, which neither has seen. Seconds are those
of the whole run, on this machine at that moment; processor seconds leave out what others did
meanwhile. ECE is the expected calibration error on the test texts, ten bins; "by luck" is what it
would be on so few texts if each probability were right.

A test split of 300 to 450 texts tells two classifiers apart by some two points at best. `--splits`
cuts the same rows anew, with other seeds than the shipped split's, trains both on each, and gives
the mean of the differences with its standard error.
"""

from __future__ import annotations

import argparse
import dataclasses
import math
import random
import statistics
import time
from collections.abc import Sequence
from itertools import product

import torch
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import Pipeline, make_pipeline

import lora_core as lc
from lora_core.explain.test_report import calibration_error, reliability, report_on_test
from lora_core.tasks.bundled import task_names
from lora_core.tasks.task import Example, make_task


def fitted(rows: Sequence[Example], strength: float, words: int) -> Pipeline:
    """TF-IDF of up to so many words in a row, and logistic regression of this C."""
    model = make_pipeline(
        TfidfVectorizer(ngram_range=(1, words)), LogisticRegression(C=strength, max_iter=2000)
    )
    return model.fit([e.text for e in rows], [e.label for e in rows])


def share_right(model: Pipeline, rows: Sequence[Example]) -> float:
    """Accuracy on these rows, 0 to 1."""
    return float(model.score([e.text for e in rows], [e.label for e in rows]))


def chosen_words(task: lc.Task) -> tuple[Pipeline, tuple[float, int]]:
    """A bag of words fitted on train, chosen by validation; and what was chosen."""
    choices = list(product((1.0, 10.0, 100.0), (1, 2)))
    models = {choice: fitted(task.train, *choice) for choice in choices}
    best = max(choices, key=lambda choice: share_right(models[choice], task.validation))
    return models[best], best


def bag_of_words(task: lc.Task) -> tuple[float, float]:
    """Test accuracy of TF-IDF and logistic regression, fitted on train; on validation as well."""
    model, choice = chosen_words(task)
    both = fitted(task.train + task.validation, *choice)
    return share_right(model, task.test), share_right(both, task.test)


def error_by_luck(probabilities: Sequence[float], draws: int = 200) -> float:
    """The calibration error that a perfectly calibrated classifier would show on so few texts.

    Whether each answer is right is drawn by its own probability; mean over the draws.
    """
    luck = random.Random(0)
    return statistics.mean(
        calibration_error(reliability([(p, luck.random() < p) for p in probabilities]))
        for _ in range(draws)
    )


@dataclasses.dataclass(frozen=True)
class Outcome:
    """Of a default run on its test texts."""

    accuracy: float
    error: float  # expected calibration error
    luck: float  # what that would be if the probabilities were right
    seconds: float
    processor: float  # seconds, too


def lora(base: lc.Base, task: lc.Task, train: lc.TrainConfig) -> Outcome:
    """Train at the defaults, and judge."""
    wall, processor = time.perf_counter(), time.process_time()
    *_, end = lc.fine_tune(base, task, lc.LoRAConfig(), train)
    wall, processor = time.perf_counter() - wall, time.process_time() - processor
    report = report_on_test(end.classifier, task)
    assert report is not None
    luck = error_by_luck([one.probability for one in report.judged])
    return Outcome(report.correct / len(task.test), report.calibration_error, luck, wall, processor)


def mean_of(runs: Sequence[Outcome]) -> Outcome:
    """The mean of each of their figures."""
    return Outcome(*map(statistics.mean, zip(*map(dataclasses.astuple, runs), strict=True)))


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
    ours, mean = [run.accuracy for run in runs], mean_of(runs)
    words = [bag_of_words(task)[0] for task in tasks]
    apart = [100 * (a - b) for a, b in zip(ours, words, strict=True)]
    error = statistics.stdev(apart) / math.sqrt(splits)
    return (
        f"| {name} | {statistics.mean(ours):.1%} | {statistics.mean(words):.1%} "
        f"| {statistics.mean(apart):+.1f} ± {error:.1f} "
        f"| {', '.join(f'{value:+.1f}' for value in apart)} | {mean.error:.3f} | {mean.luck:.3f} |"
    )


def main() -> None:
    """Print a row a task."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--tasks", nargs="+", default=task_names())
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--steps", type=int, default=0, help="of each run (0: the default)")
    parser.add_argument("--splits", type=int, help="instead: on so many other splits, two or more")
    chosen = parser.parse_args()
    torch.set_num_threads(1)
    base = lc.load_base()
    print(f"base {base.digest()[:12]}, {chosen.steps or 'default'} steps, one thread")
    if chosen.splits:
        print("| task | LoRA | bag of words | difference | of each split | ECE | by luck |")
        print("| --- | --- | --- | --- | --- | --- | --- |")
        for name in chosen.tasks:
            config = lc.TrainConfig(steps=chosen.steps)
            print(over_splits(base, name, chosen.splits, config), flush=True)
        return
    print("| task | labels | test texts | bag of words | on both | LoRA | mean", end="")
    print(" | ECE | by luck | s | CPU s |\n|---|--:|--:|--:|--:|---|--:|--:|--:|--:|--:|")
    for name in chosen.tasks:
        task = lc.load_task(name)
        config = lc.TrainConfig(steps=chosen.steps)
        runs = [lora(base, task, dataclasses.replace(config, seed=s)) for s in chosen.seeds]
        (alone, both), mean = bag_of_words(task), mean_of(runs)
        print(
            f"| {name} | {len(task.labels)} | {len(task.test)} | {alone:.1%} | {both:.1%} "
            f"| {', '.join(f'{run.accuracy:.1%}' for run in runs)} "
            f"| {mean.accuracy:.1%} | {mean.error:.3f} "
            f"| {mean.luck:.3f} | {mean.seconds:.0f} "
            f"| {mean.processor:.0f} |",
            flush=True,
        )


if __name__ == "__main__":
    main()
