"""Short texts such as visitors type, after a default run of each bundled task.

    python -m tests.benchmarks.typed                three seeds each
    python -m tests.benchmarks.typed --tasks sentiment --seeds 0

`typed.csv` (columns task, text, label) holds 200 clear texts of one to eight words, written without
a look at the training tables, its labels read a second time without having been seen, frozen before
the first comparison. Printed are the share that is right and, of the wrong ones, the share that was
said with more than 90 %; last the share that a bag of words has right, as in `tasks`. A text of the
task's own table counts like any other.
"""

from __future__ import annotations

import argparse
import csv
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

import lora_core as lc
from lora_core.tasks.bundled import task_names
from lora_core.tasks.task import Example
from tests.benchmarks.tasks import chosen_words, share_right

TABLE = Path(__file__).with_name("typed.csv")
SURE = 0.9


@dataclass(frozen=True)
class Answer:
    """What a classifier said of one typed text."""

    text: str
    truth: str
    said: str
    probability: float  # of what it said

    @property
    def right(self) -> bool:
        return self.said == self.truth


def typed_texts(table: Path = TABLE) -> dict[str, list[tuple[str, str]]]:
    """(text, label) of each task."""
    texts: dict[str, list[tuple[str, str]]] = {}
    with table.open(encoding="utf-8", newline="") as file:
        for row in csv.DictReader(file):
            texts.setdefault(row["task"], []).append((row["text"], row["label"]))
    return texts


def answers(classifier: lc.Classifier, rows: Sequence[tuple[str, str]]) -> list[Answer]:
    """The classifier's answer to each text."""
    predictions = classifier.classify_many([text for text, _ in rows])
    return [
        Answer(text, truth, one.label, one.probabilities[one.label])
        for (text, truth), one in zip(rows, predictions, strict=True)
    ]


def cells(rows: Sequence[Answer]) -> str:
    """ "texts | right | wrong | of them sure" of many answers."""
    wrong = [one for one in rows if not one.right]
    sure = sum(one.probability > SURE for one in wrong)
    share = f"{100 * sure / len(wrong):.0f} %" if wrong else "-"
    right = 100 * (1 - len(wrong) / len(rows))
    return f"{len(rows)} | {right:.1f} % | {len(wrong)} | {share}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--tasks", nargs="+", choices=task_names(), default=list(task_names()))
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--steps", type=int, default=0, help="of each run (0: the default)")
    parser.add_argument("--wrong", action="store_true", help="list the wrong answers, too")
    options = parser.parse_args()
    torch.set_num_threads(1)
    base, texts = lc.load_base("bundled"), typed_texts()
    everything: list[Answer] = []
    print(
        "| task | answers | right | wrong | of them said with more than 90 % | bag of words |\n"
        "|---|--:|--:|--:|--:|--:|"
    )
    words = []
    for name in options.tasks:
        of_task: list[Answer] = []
        task = lc.load_task(name)
        rows = [Example(text, task.labels.index(label)) for text, label in texts[name]]
        words.append(share_right(chosen_words(task)[0], rows))
        for seed in options.seeds:
            config = lc.TrainConfig(steps=options.steps, seed=seed)
            *_, end = lc.fine_tune(base, task, lc.LoRAConfig(), config)
            of_task += answers(end.classifier, texts[name])
        everything += of_task
        print(f"| {name} | {cells(of_task)} | {words[-1]:.1%} |", flush=True)
        for one in of_task if options.wrong else []:
            if not one.right:
                print(f"  {one.text!r}: {one.said} at {one.probability:.0%}, is {one.truth}")
    print(f"| all | {cells(everything)} | {statistics.mean(words):.1%} |")


if __name__ == "__main__":
    main()
