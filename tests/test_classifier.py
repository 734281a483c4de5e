"""Typed text: what a stranger would type, and worse."""

from __future__ import annotations

import numpy as np
import pandas
import pytest
import torch

import lora_core as lc


@pytest.fixture(scope="module")
def trained(base, task) -> lc.Classifier:
    *_, finished = lc.fine_tune(base, task, None, lc.TrainConfig(steps=20, evaluations=2))
    return finished.classifier


STRANGE = [
    "a", "?", "\x00", "\x07\x1b[31m", "🙂", "👩‍👩‍👧‍👦" * 30, "مرحبا بالعالم", "你好，世界",
    "e\u0301" * 50,
    "\u202eabc", "\ud800", "<|endoftext|>", "<script>alert(1)</script>",
    "a" * 5000,
    " ".join(["word"] * 4000), "\n\n.\n", "\ufeffhello", "𝕳𝖊𝖑𝖑𝖔", "﷽", "1" * 300,
]  # fmt: skip


@pytest.mark.parametrize("text", STRANGE, ids=[ascii(t)[:20] for t in STRANGE])
def test_any_text_gets_an_answer(trained, text) -> None:
    prediction = trained.classify(text)
    assert prediction.label in trained.labels
    assert sum(prediction.probabilities.values()) == pytest.approx(1, abs=1e-5)
    assert prediction.label == max(prediction.probabilities, key=prediction.probabilities.get)


def test_a_megabyte_is_answered_and_said_to_be_cut(trained) -> None:
    prediction = trained.classify("ab" * 500_000)
    assert prediction.truncated and prediction.tokens == trained.model.config.context_length - 1
    assert not trained.classify("short").truncated
    with pytest.raises(lc.ClassifyError, match="1,000,001"):
        trained.classify("a" * 1_000_001)


@pytest.mark.parametrize("text", ["", "   ", "\n\t", "\u00a0", None, 7, ["a"]])
def test_what_is_not_a_text_is_a_sentence(trained, text) -> None:
    with pytest.raises(lc.ClassifyError, match="text"):
        trained.classify(text)


def test_many_texts_keep_their_order_and_equal_one_at_a_time(trained) -> None:
    texts = ["ok", "WIN a £500 voucher now, text back to claim", "see you at the bus stop at 6"] * 9
    together = trained.classify_many(texts)
    for text, prediction in zip(texts, together, strict=True):
        alone = trained.classify(text)
        assert prediction.label == alone.label
        assert prediction.probabilities == pytest.approx(alone.probabilities, abs=1e-5)
    with pytest.raises(lc.ClassifyError, match="list"):
        trained.classify_many("one")


@pytest.mark.parametrize("method", ["lora", "full", "head"])
def test_strength_zero_is_the_model_before_training(base, task, method) -> None:
    config = lc.TrainConfig(steps=40, evaluations=4, method=method, seed=4)
    text = task.test[0].text
    events = list(lc.fine_tune(base, task, None, config, watch_texts=[text]))
    untrained = next(e for e in events if isinstance(e, lc.Watched))
    classifier = events[-1].classifier
    before = {n: p.clone() for n, p in classifier.model.named_parameters()}
    at_zero = classifier.classify(text, strength=0.0)
    assert tuple(at_zero.probabilities.values()) == pytest.approx(
        untrained.probabilities[0], abs=1e-6
    )
    assert classifier.classify(text, strength=2.0) != classifier.classify(text)
    after = dict(classifier.model.named_parameters())
    assert all(torch.equal(before[n], after[n]) for n in before)
    for strength in (-0.1, 5, float("nan")):
        with pytest.raises(lc.ClassifyError, match="strength"):
            classifier.classify(text, strength=strength)


@pytest.fixture(scope="module")
def untrained(tiny) -> lc.Classifier:
    return lc.Classifier(tiny.classifier_model(2), tiny.tokenizer, ("no", "yes"))


def test_no_texts_no_predictions(untrained) -> None:
    assert untrained.classify_many([]) == []
    assert untrained.classify_many(pandas.Series([], dtype=object)) == []


@pytest.mark.parametrize(
    "given",
    [tuple, iter, pandas.Series, np.array, lambda texts: (t for t in texts)],
    ids=["tuple", "iterator", "column", "array", "generator"],
)
def test_texts_are_taken_however_they_are_handed_over(untrained, given) -> None:
    texts = ["see you at six", "win a prize", "ok"]
    assert untrained.classify_many(given(texts)) == untrained.classify_many(texts)


def test_a_gap_in_a_column_is_a_sentence(untrained) -> None:
    with pytest.raises(lc.ClassifyError, match="not float"):
        untrained.classify_many(pandas.Series(["ok", float("nan")]))


def test_watched_texts_and_labels_are_taken_the_same_way(tiny, words, tmp_path) -> None:
    config = lc.TrainConfig(steps=1, batch_size=4, evaluations=1)
    column = pandas.Series(["one", "two"])
    events = list(lc.fine_tune(tiny, words, lc.LoRAConfig(2), config, watch_texts=column))
    assert {len(e.probabilities) for e in events if isinstance(e, lc.Watched)} == {2}
    with pytest.raises(lc.ConfigError, match="not one text"):
        next(lc.fine_tune(tiny, words, None, config, watch_texts="one"))
    folder = lc.save_adapter(events[-1].classifier, tmp_path / "a")
    assert lc.load_adapter(folder, tiny, labels=np.array(["a", "b"])).labels == ("a", "b")
