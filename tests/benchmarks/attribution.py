"""Which way of weighing words is more faithful: erasing each one, or integrated gradients.

    python -m tests.benchmarks.attribution            # about two minutes on one core
    python -m tests.benchmarks.attribution --task sentiment --texts 100

Measure: comprehensiveness (DeYoung et al. 2020, arXiv:1911.03429), here in log-odds: how far the
answer falls when the k words that a method calls most important are erased together. The mean over
test texts; random words for comparison. Erasing is close to what the measure does, so it has an
advantage at k = 1 that it has earned by definition; the comparison is that at larger k.
"""

from __future__ import annotations

import argparse
import random
import time

import torch

import lora_core as lc
from lora_core.explain.attribution import attribute, log_odds, words

ERASED = (1, 2, 3, 5)
_POINTS = 16  # on the path of integrated gradients


def integrated_gradients(classifier: lc.Classifier, text: str, index: int) -> list[float]:
    """Sundararajan, Taly & Yan 2017 (arXiv:1703.01365), from the mean embedding, summed by word."""
    model, ids = classifier.model, classifier.encode(text)
    weight = model.token_embedding.weight
    tokens = weight[torch.tensor(ids)]
    start = weight.mean(0).expand_as(tokens)
    share = ((torch.arange(_POINTS) + 0.5) / _POINTS)[:, None, None]
    path = (start + share * (tokens - start)).requires_grad_(True)
    hidden = path + model.position_embedding.weight[: len(ids)]
    for block in model.blocks:
        hidden = block(hidden)
    logits = model.head(model.final_norm(hidden[:, -1]))
    (gradient,) = torch.autograd.grad(log_odds(logits, index).sum(), path)
    by_token = ((tokens - start) * gradient.mean(0)).sum(-1).tolist()
    ends, at = [], 0
    for token in ids:
        begin, at = at, at + len(classifier.tokenizer.decode_single_token_bytes(token))
        ends.append((begin, at))
    scores = []
    for span in words(text):
        first, last = len(text[: span.start].encode()), len(text[: span.end].encode())
        parts = zip(by_token, ends, strict=True)
        scores.append(sum(value for value, (a, b) in parts if a < last and b > first))
    return scores


def odds(classifier: lc.Classifier, text: str, index: int) -> float:
    """Log-odds of one label."""
    with classifier.at_strength(1.0) as model, torch.no_grad():
        return log_odds(model(torch.tensor([classifier.encode(text)])).double(), index).item()


def compare(classifier: lc.Classifier, texts: list[str]) -> dict[str, list[list[float]]]:
    """method -> a row a text: the fall of the log-odds for each number of erased words."""
    falls: dict[str, list[list[float]]] = {"erasing": [], "gradients": [], "random": []}
    seconds = {"erasing": 0.0, "gradients": 0.0}
    shuffle = random.Random(0)
    for text in texts:
        begin = time.process_time()
        attribution = attribute(classifier, text)
        seconds["erasing"] += time.process_time() - begin
        index = classifier.labels.index(attribution.label)
        begin = time.process_time()
        gradients = integrated_gradients(classifier, text, index)
        seconds["gradients"] += time.process_time() - begin
        spans = words(text)
        before = odds(classifier, text, index)
        for method, scores in (
            ("erasing", [word.weight for word in attribution.words]),
            ("gradients", gradients),
            ("random", [shuffle.random() for _ in spans]),
        ):
            order = sorted(range(len(spans)), key=lambda i: -scores[i])
            falls[method].append(
                [
                    before - odds(classifier, _without(text, set(order[:count])), index)
                    for count in ERASED
                ]
            )
    for method, total in seconds.items():
        print(f"{method}: {1e3 * total / len(texts):.0f} ms of processor time a text")
    return falls


def _without(text: str, erased: set[int]) -> str:
    return " ".join(
        text[span.start : span.end] for i, span in enumerate(words(text)) if i not in erased
    )


def main() -> None:
    """Train a classifier, compare, print a table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--task", default="sms-spam")
    parser.add_argument("--texts", type=int, default=50)
    parser.add_argument("--steps", type=int, default=80)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    task = lc.load_task(arguments.task)
    settings = lc.TrainConfig(steps=arguments.steps, evaluations=2)
    *_, last = lc.fine_tune(lc.load_base(), task, lc.LoRAConfig(), settings)
    assert isinstance(last, lc.Finished)
    last.classifier.model.requires_grad_(False)
    texts = [e.text for e in task.test if 8 <= len(words(e.text)) <= 40][: arguments.texts]
    falls = compare(last.classifier, texts)
    print(f"Fall of the log-odds (nats), mean of {len(texts)} texts of {task.name}")
    print("erased words", *(f"{count:>7}" for count in ERASED))
    for method, rows in falls.items():
        means = torch.tensor(rows).mean(0).tolist()
        print(f"{method:12}", *(f"{mean:7.2f}" for mean in means))


if __name__ == "__main__":
    main()
