"""Words that mattered, against brute force: the text without the word, classified again."""

from __future__ import annotations

import itertools
import math
import threading
from types import SimpleNamespace

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import lora_core as lc
from lora_core.explain import attribution
from lora_core.explain.attribution import attribute, erase_each, log_odds, words
from tests.conftest import warm
from tests.serving.registry import WAIT


@pytest.fixture(scope="module")
def classifier(base: lc.Base) -> lc.Classifier:
    """An adapter of random weights and a head of some size: answers that are not all alike, with
    logits of about two whatever the size of the base's states, on which rounding depends."""
    generator = torch.Generator().manual_seed(3)
    model = base.classifier_model(3, generator)
    lc.inject_lora(model, lc.LoRAConfig(rank=4), generator)
    warm(model)
    initial = {n: p.detach().clone() for n, p in model.named_parameters() if n.startswith("head.")}
    with torch.no_grad():
        model.head.weight.normal_(generator=generator).mul_(2 / model.final_norm.weight.norm())
    return lc.Classifier(model, base.tokenizer, ("a", "b", "c"), initial=initial)


def spans(text: str) -> list[str]:
    return [text[start:end] for start, end in words(text)]


@pytest.mark.parametrize("strength", [0.0, 0.6, 1.0, 1.7])
def test_equals_deleting_the_word_by_hand(classifier: lc.Classifier, strength: float) -> None:
    text = "WIN £1000 now, txt 80082!  Don't miss it 🎉 x"
    by_hand = {
        "WIN": "£1000 now, txt 80082!  Don't miss it 🎉 x",
        "txt": "WIN £1000 now, 80082!  Don't miss it 🎉 x",
        "80082!": "WIN £1000 now, txt Don't miss it 🎉 x",
        "🎉": "WIN £1000 now, txt 80082!  Don't miss it x",
        "x": "WIN £1000 now, txt 80082!  Don't miss it 🎉",
    }
    whole = classifier.classify(text, strength)
    attribution = attribute(classifier, text, strength)
    assert attribution.label == whole.label
    assert attribution.probability == pytest.approx(whole.probabilities[whole.label], abs=1e-6)
    assert attribution.group == 1 and attribution.read == len(text)
    assert [text[w.span.start : w.span.end] for w in attribution.words] == text.split()

    def odds(text: str) -> float:
        with classifier.at_strength(strength) as model, torch.no_grad():
            logits = model(torch.tensor([classifier.encode(text)]))[0].double()
        here = classifier.labels.index(attribution.label)
        others = [math.exp(z) for i, z in enumerate(logits.tolist()) if i != here]
        return logits[here].item() - math.log(sum(others))

    for word in attribution.words:
        name = text[word.span.start : word.span.end]
        if name in by_hand:
            erased = by_hand.pop(name)
            p = classifier.classify(erased, strength).probabilities[attribution.label]
            assert word.without == pytest.approx(p, abs=1e-6)
            difference = odds(text) - odds(erased)
            assert word.weight == pytest.approx(difference, rel=1e-4, abs=1e-4)
    assert not by_hand


def test_two_strengths_differ(classifier: lc.Classifier) -> None:
    text = "please send me the parcel today"
    trained, base = attribute(classifier, text, 1.0, "a"), attribute(classifier, text, 0.0, "a")
    assert any(
        abs(t.weight - b.weight) > 1e-3 for t, b in zip(trained.words, base.words, strict=True)
    )


def test_log_odds_where_the_model_is_certain() -> None:
    logits = torch.tensor([[40.0, 0.0, 0.0], [20.0, 0.0, 0.0]], dtype=torch.float64)
    odds = log_odds(logits, 0)
    assert odds.tolist() == pytest.approx([40 - math.log(2), 20 - math.log(2)])
    assert logits.softmax(-1)[0, 0] == logits.softmax(-1)[0, 0].float()  # all that p can say


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("one  two\n three.", ["one", "two", "three."]),
        ("免费中奖。now", ["免", "费", "中", "奖。", "now"]),
        ("がx", ["が", "x"]),
        ("👩‍👩‍👧 hi", ["👩‍👩‍👧", "hi"]),
        ("מבצע חינם", ["מבצע", "חינם"]),
        ("\u200b a", ["\u200b", "a"]),
    ],
)
def test_words_of_many_scripts(text: str, expected: list[str]) -> None:
    assert spans(text) == expected


def test_no_blanks_is_cut_but_not_inside_a_character() -> None:
    text = "e\u0301" * 100 + "👍🏽" * 50 + "👩\u200d👧" * 50
    pieces = spans(text)
    assert "".join(pieces) == text and len(pieces) > 5
    assert all(p[0] not in "\u0301\u200d🏽" and not p.endswith("\u200d") for p in pieces)


@given(st.text(max_size=200))
def test_spans_cover_everything_but_blanks(text: str) -> None:
    spans = words(text)
    assert all(a.end <= b.start for a, b in itertools.pairwise(spans))
    assert all(s.start < s.end and not text[s.start].isspace() for s in spans)
    gone = "".join(text[s.start : s.end] for s in spans)
    assert gone == "".join(text.split())


@settings(max_examples=15, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.text(min_size=1, max_size=60).filter(str.strip))
def test_any_text_has_an_attribution(classifier: lc.Classifier, text: str) -> None:
    attribution_ = attribute(classifier, text)
    assert all(math.isfinite(w.weight) and 0 <= w.without <= 1 for w in attribution_.words)
    assert 0 < len(attribution_.words) <= attribution.MAX_PARTS


def test_erasing_leaves_no_double_blank() -> None:
    text = " a bb  c "
    assert erase_each(text, words(text)) == [" bb  c ", " a c ", " a bb"]
    assert erase_each("word", words("word")) == [""]


def test_long_texts_are_bounded(classifier: lc.Classifier, monkeypatch: pytest.MonkeyPatch) -> None:
    text = "the quick brown fox jumps over a lazy dog near some old river bank " * 3_000
    sizes: list[int] = []
    original = attribution.batched_logits

    def counted(model: torch.nn.Module, ids: list[list[int]]) -> torch.Tensor:
        sizes.append(sum(len(row) for row in ids))
        return original(model, ids)

    monkeypatch.setattr(attribution, "batched_logits", counted)
    whole = attribute(classifier, text)
    context = classifier.model.config.context_length
    assert len(classifier.encode(text)) == context
    budget = max(attribution.TOKEN_BUDGET, attribution.FEWEST_PARTS * context)
    assert sum(sizes) <= budget + context
    assert max(sizes) <= max(attribution.TOKENS_A_TURN, context)
    assert whole.group > 1 and 0 < whole.read < len(text)
    assert whole.words[-1].span.start < whole.read
    middle = whole.words[3].span  # a group, erased by hand
    erased = text[: middle.start] + text[middle.end :].lstrip()
    p = classifier.classify(erased).probabilities[whole.label]
    assert whole.words[3].without == pytest.approx(p, abs=1e-6)


def test_others_get_their_turn(classifier: lc.Classifier, monkeypatch: pytest.MonkeyPatch) -> None:
    """Between two turns of a long attribution others are answered, at another strength: both
    exactly as when alone."""
    text = "word after word of a long and winding story " * 20
    alone = attribute(classifier, text, 1.5)
    expected = classifier.classify("short", 0.5)
    answers: list[lc.Prediction] = []

    def between_turns(_seconds: float) -> None:
        asking = threading.Thread(
            target=lambda: answers.append(classifier.classify("short", 0.5)), daemon=True
        )
        asking.start()
        asking.join(WAIT)  # without end where the classifier is not let go

    monkeypatch.setattr(attribution, "time", SimpleNamespace(sleep=between_turns))
    assert attribute(classifier, text, 1.5) == alone
    assert len(answers) >= 5 and all(answer == expected for answer in answers)


def test_refusals(classifier: lc.Classifier) -> None:
    with pytest.raises(lc.ClassifyError, match="Type some text"):
        attribute(classifier, " \n")
    with pytest.raises(lc.ClassifyError, match="no label 'z'"):
        attribute(classifier, "x", label="z")
    with pytest.raises(lc.ClassifyError, match="strength"):
        attribute(classifier, "x", 9.0)
