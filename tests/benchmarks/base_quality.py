"""How good the bundled base is: bits per byte, and what adaptation makes of it.

    python -m tests.benchmarks.base_quality            # everything, about 30 minutes on one core
    python -m tests.benchmarks.base_quality --part language
    python -m tests.benchmarks.base_quality --part adaptation --seeds 1
    python -m tests.benchmarks.base_quality --part adaptation --rows 200 --seeds 10

Reads `../shared/corpus` and `../shared/eval` beside the checkout (`--shared DIR` for elsewhere) and
prints the tables of the model card. Nothing is downloaded.
"""

from __future__ import annotations

import argparse
import csv
import dataclasses
import gzip
import lzma
import math
import random
import statistics
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

import lora_core as lc
from lora_core.devices import choose_device
from lora_core.pretraining.corpus import encode_documents
from lora_core.pretraining.measure import bits_per_byte, read_validation, summed_loss
from lora_core.pretraining.network import language_model, working_weights
from lora_core.tasks.task import Example

SHARED = Path(__file__).resolve().parents[3] / "shared"
TASKS = {"Banking77": "banking77", "CLINC domains": "clinc10domains"}
SIZES = (200, 1000)  # training rows
VALIDATION_ROWS = 256  # for choosing: the best step of a run, or C of the logistic regression
Rows = list[tuple[str, str]]


# Language ---------------------------------------------------------------------------------------


def language(shared: Path) -> None:
    """Bits per byte of the base on the validation text, beside what needs no neural network."""
    path = shared / "corpus" / "val_core.txt"
    base, raw = lc.load_base("bundled"), path.read_bytes()
    ids, size = read_validation(path, base.tokenizer)
    weights = working_weights(base.model, torch.float32)
    context = base.config.context_length
    print(f"\n{path.name}: {size:,} bytes, {len(ids) - 1:,} predicted tokens\n")
    print("| model | bits per byte |\n|---|---|")
    packed = {
        "gzip -9": gzip.compress(raw, 9),
        "xz -9e": lzma.compress(raw, preset=9 | lzma.PRESET_EXTREME),
    }
    for name, result in packed.items():
        print(f"| {name}, this file alone | {8 * len(result) / size:.3f} |")
    corpus = shared / "corpus" / "train_core.txt.xz"
    if corpus.is_file():
        train = np.fromiter(
            (i for batch in encode_documents([corpus], base.tokenizer) for i in batch), np.int64
        )
        for order in (2, 3, 4):
            nats = kneser_ney(train, ids, order, base.tokenizer.n_vocab)
            value = bits_per_byte(nats, len(ids) - 1, len(ids) - 1, size)
            print(f"| {order}-gram (Kneser-Ney) of the same tokens, whole corpus | {value:.3f} |")
    for stride, how in ((context, "side by side"), (context // 2, "overlapping by half")):
        nats, tokens = summed_loss(weights, base.config, ids, stride)
        value = bits_per_byte(nats, tokens, len(ids) - 1, size)
        print(f"| **bundled base**, windows {how} | **{value:.4f}** |", flush=True)


def kneser_ney(train: NDArray[np.int64], text: NDArray[np.int64], order: int, vocab: int) -> float:
    """Summed nats of text[1:] under an interpolated Kneser-Ney model with one discount, 0.75."""
    shift = np.int64(vocab)

    def grams(ids: NDArray[np.int64], n: int) -> NDArray[np.int64]:
        """Each run of n ids as one number; the last id is the lowest digit."""
        total = np.zeros(len(ids) - n + 1, dtype=np.int64)
        for i in range(n):
            total = total * shift + ids[i : len(ids) - n + 1 + i]
        return total

    probability = np.full(len(text), 1.0 / vocab)
    for n in range(1, order + 1):
        if n == order:
            keys, counts = np.unique(grams(train, n), return_counts=True)
        else:  # how many different ids stand before the run
            longer = np.unique(grams(train, n + 1))
            keys, counts = np.unique(longer % shift**n, return_counts=True)
        contexts, first = np.unique(keys // shift, return_index=True)
        totals = np.add.reduceat(counts, first)
        kinds = np.diff(np.append(first, len(keys)))
        asked = grams(text, n)
        count = look_up(keys, counts, asked)
        total = look_up(contexts, totals, asked // shift)
        left = look_up(contexts, kinds, asked // shift)
        lower = probability[n - 1 :]
        seen = np.maximum(count - 0.75, 0.0) + 0.75 * left * lower
        probability[n - 1 :] = np.where(total > 0, seen / np.maximum(total, 1), lower)
    return float(-np.log(probability[1:]).sum())


def look_up(
    keys: NDArray[np.int64], values: NDArray[np.int64], asked: NDArray[np.int64]
) -> NDArray[np.int64]:
    """values[keys == asked], 0 where there is none; `keys` is sorted."""
    place = np.minimum(np.searchsorted(keys, asked), len(keys) - 1)
    return np.where(keys[place] == asked, values[place], 0)


# Adaptation -------------------------------------------------------------------------------------


def read_rows(path: Path) -> Rows:
    with path.open(encoding="utf-8", newline="") as file:
        return [(row["text"], row["label"]) for row in csv.DictReader(file)]


def sample_task(name: str, train: Rows, test: Rows, size: int, seed: int, end: str = "") -> lc.Task:
    """`size` random training rows, 256 others for validation, and the given test rows; `end` is
    put behind every text.
    """
    labels = tuple(sorted({label for _, label in train}))
    index = {label: i for i, label in enumerate(labels)}
    rows = random.Random(seed).sample(train, size + VALIDATION_ROWS)
    examples = [Example(text + end, index[label]) for text, label in rows]
    held = tuple(Example(text + end, index[label]) for text, label in test)
    return lc.Task(name, labels, tuple(examples[:size]), tuple(examples[size:]), held)


def accuracy(task: lc.Task, classifier: lc.Classifier) -> float:
    predictions = classifier.classify_many([e.text for e in task.test])
    hits = [p.label == task.labels[e.label] for p, e in zip(predictions, task.test, strict=True)]
    return sum(hits) / len(hits)


def tuned(base: lc.Base, task: lc.Task, method: str, steps: int, seed: int) -> float:
    """Test accuracy after a run with the defaults (rank, alpha, rate, batch), but `steps` long;
    0: as long as a default run with so many labels is."""
    config = lc.TrainConfig(steps=steps, method=method, seed=seed, evaluations=5)  # type: ignore[arg-type]
    *_, last = lc.fine_tune(base, task, lc.LoRAConfig(), config)
    assert isinstance(last, lc.Finished)
    return accuracy(task, last.classifier)


def tfidf(task: lc.Task) -> float:
    """Words and word pairs, logistic regression, C chosen on the validation rows."""
    from sklearn.feature_extraction.text import TfidfVectorizer
    from sklearn.linear_model import LogisticRegression

    def fields(examples: tuple[Example, ...]) -> tuple[list[str], list[int]]:
        return [e.text for e in examples], [e.label for e in examples]

    vectorizer = TfidfVectorizer(ngram_range=(1, 2), sublinear_tf=True)
    texts, labels = fields(task.train)
    features = vectorizer.fit_transform(texts)
    best, answer = -1.0, 0.0
    for strength in (1.0, 10.0, 100.0):
        model = LogisticRegression(C=strength, max_iter=2000).fit(features, labels)
        texts, truth = fields(task.validation)
        validated = model.score(vectorizer.transform(texts), truth)
        if validated > best:
            texts, truth = fields(task.test)
            best, answer = validated, model.score(vectorizer.transform(texts), truth)
    return answer


def random_base(base: lc.Base, seed: int) -> lc.Base:
    """The same shape, never trained."""
    model = language_model(base.config, seed).requires_grad_(False).eval()
    return dataclasses.replace(base, name="random", model=model)


def columns(base: lc.Base) -> Iterator[tuple[str, Callable[[lc.Task, int, int], float]]]:
    """What is compared: a heading, and (task, steps, seed) -> test accuracy."""
    yield "LoRA", lambda task, steps, seed: tuned(base, task, "lora", steps, seed)
    yield "full fine-tuning", lambda task, steps, seed: tuned(base, task, "full", steps, seed)
    yield "head only", lambda task, steps, seed: tuned(base, task, "head", steps, seed)
    yield (
        "LoRA, random weights",
        lambda task, steps, seed: tuned(random_base(base, seed), task, "lora", steps, seed),
    )
    yield "TF-IDF, logistic regression", lambda task, steps, seed: tfidf(task)


def over_seeds(values: list[float], error: bool = False) -> str:
    """Mean and deviation, or standard error of the mean, as a cell."""
    if len(values) == 1:
        return f"{values[0]:.1f}"
    spread = statistics.stdev(values) / (math.sqrt(len(values)) if error else 1)
    return f"{statistics.mean(values):{'+' if error else ''}.1f} ± {spread:.1f}"


def adaptation(
    shared: Path,
    names: list[str],
    sizes: list[int],
    seeds: int,
    steps: int,
    test_rows: int,
    end: str,
) -> None:
    """Test accuracy, over the seeds (of rows, head, adapter and batches). The last column is the
    difference between LoRA and full fine-tuning on the same rows, with its standard error."""
    base = lc.load_base("bundled")
    compared = list(columns(base))
    print(f"\nTest accuracy in % on {test_rows:,} rows, mean ± deviation of {seeds} seeds;")
    length = f"{steps} steps a run (half with 200 rows)" if steps else "the default steps"
    print(f"{length}. {choose_device().reason}\n")
    headings = [*(name for name, _ in compared), "LoRA minus full"]
    print("| task | rows |", " | ".join(headings), "|")
    print("|---|---|" + "---|" * len(headings))
    for title in names:
        train = read_rows(shared / "eval" / f"{TASKS[title]}_train.csv")
        test = read_rows(shared / "eval" / f"{TASKS[title]}_test.csv")
        test = random.Random(0).sample(test, min(test_rows, len(test)))
        for size in sizes:
            tasks = [sample_task(title, train, test, size, seed, end) for seed in range(seeds)]
            share = steps if size == max(SIZES) else steps // 2
            accuracies = {
                name: [100 * measure(task, share, seed) for seed, task in enumerate(tasks)]
                for name, measure in compared
            }
            pairs = zip(accuracies["LoRA"], accuracies["full fine-tuning"], strict=True)
            cells = [over_seeds(values) for values in accuracies.values()]
            cells.append(over_seeds([lora - full for lora, full in pairs], error=True))
            print(f"| {title} | {size:,} |", " | ".join(cells), "|", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--part", choices=("all", "language", "adaptation"), default="all")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--rows", type=int, nargs="+", choices=SIZES, default=list(SIZES))
    parser.add_argument("--steps", type=int, default=500, help="of each run; 0: the default")
    parser.add_argument("--tasks", nargs="+", choices=list(TASKS), default=list(TASKS))
    parser.add_argument("--test-rows", type=int, default=1000, help="drawn from the test file")
    parser.add_argument("--line-break", action="store_true", help="put one behind every text")
    parser.add_argument("--shared", type=Path, default=SHARED, help="has corpus/ and eval/")
    options = parser.parse_args()
    torch.set_num_threads(1)
    start = time.perf_counter()
    if options.part in ("all", "language"):
        language(options.shared)
    if options.part in ("all", "adaptation"):
        adaptation(
            options.shared,
            options.tasks,
            options.rows,
            options.seeds,
            options.steps,
            options.test_rows,
            "\n" if options.line_break else "",
        )
    print(f"\n{math.ceil((time.perf_counter() - start) / 60)} minutes")


if __name__ == "__main__":
    main()
