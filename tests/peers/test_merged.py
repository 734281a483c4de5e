"""Merged models opened by `transformers`: the same answers."""

from __future__ import annotations

import pytest
import torch
from transformers import AutoTokenizer, GPT2ForSequenceClassification

import lora_core as lc
from lora_core.adapters.merged import save_merged
from tests.peers.stranger import (
    TEXTS,
    adapted,
    our_logits,
    padded,
)

TOLERANCE = {"atol": 1e-5, "rtol": 0.0}


@pytest.mark.parametrize("head", ["train", "lora"])
@pytest.mark.parametrize("targets", [lc.TARGETS, ("value",), ("mlp.down",)])
def test_a_merged_model_in_transformers(tiny, tmp_path, head, targets) -> None:
    config = lc.LoRAConfig(3, 6, targets=targets, head=head)
    classifier = adapted(tiny, config, bias=True)
    save_merged(classifier, tmp_path)
    model = GPT2ForSequenceClassification.from_pretrained(tmp_path).eval()
    ids, mask = padded(tiny)
    with torch.no_grad():
        logits = model(input_ids=ids, attention_mask=mask).logits
    torch.testing.assert_close(our_logits(classifier), logits, **TOLERANCE)
    assert model.config.id2label == dict(enumerate(classifier.labels))


@pytest.mark.parametrize("method", ["full", "head", "lora"])
def test_a_trained_model_with_its_tokenizer(base, task, tmp_path, method) -> None:
    config = lc.TrainConfig(steps=3, batch_size=8, evaluations=1, method=method)
    *_, last = lc.fine_tune(base, task, None, config)
    save_merged(last.classifier, tmp_path)
    model = GPT2ForSequenceClassification.from_pretrained(tmp_path).eval()
    tokenizer = AutoTokenizer.from_pretrained(tmp_path)
    for text in TEXTS:
        with torch.no_grad():
            logits = model(**tokenizer(text, return_tensors="pt")).logits
        torch.testing.assert_close(our_logits(last.classifier, [text]), logits, **TOLERANCE)
