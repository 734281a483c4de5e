"""What the rank knife leaves is an adapter of that rank: `peft` opens it, and answers the same."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

import lora_core as lc
from lora_core.adapters.adapter import zip_adapter
from lora_core.explain.knife import Knife
from lora_core.lora import lora_layers
from lora_core.serving.registry import Registry, new_visitor
from tests.peers.stranger import adapted, opened, our_logits, padded


def by_hand(classifier: lc.Classifier, rank: int) -> lc.Classifier:
    """Every dW written out, cut by the SVD of the whole matrix, and added to its W."""
    made = classifier.private_copy()
    for _, layer in lora_layers(made.model):
        u, s, vt = torch.linalg.svd(layer.lora.delta().detach().double(), full_matrices=False)
        near = ((u[:, :rank] * s[:rank]) @ vt[:rank]).float()
        layer.inner.weight = torch.nn.Parameter(layer.inner.weight + near, False)
        layer.lora.scale = 0.0
    return made


@pytest.mark.parametrize("scaling", ["alpha/rank", "alpha", "alpha/sqrt(rank)"])
@pytest.mark.parametrize("head", ["train", "lora"])
@pytest.mark.parametrize("rank", [1, 2, 3, 5])
def test_peft_opens_what_is_kept(tiny, tmp_path: Path, rank: int, head: str, scaling: str) -> None:
    whole = adapted(tiny, lc.LoRAConfig(5, 10, head=head, scaling=scaling), bias=True)
    kept = Knife(whole).keep(rank)
    expected = our_logits(by_hand(whole, rank))
    torch.testing.assert_close(our_logits(kept), expected, atol=2e-5, rtol=0.0)
    if rank < 3:  # there is something to lose
        assert (our_logits(whole) - expected).abs().max() > 1e-3
    lc.save_adapter(kept, tmp_path)
    config = json.loads((tmp_path / "adapter_config.json").read_text())
    assert config["r"] == rank
    theirs = opened(tmp_path, tiny.source)(*padded(tiny))
    torch.testing.assert_close(theirs, our_logits(kept), atol=1e-5, rtol=0.0)
    back = lc.load_adapter(tmp_path, tiny)
    assert torch.equal(our_logits(back), our_logits(kept))  # bit for bit
    assert {layer.lora.rank for name, layer in lora_layers(back.model) if name != "head"} == {rank}


def test_the_shelf_and_the_file_hold_the_same(tiny, tmp_path: Path) -> None:
    kept = Knife(adapted(tiny, lc.LoRAConfig(4, 8))).keep(2)
    with Registry(workers=1) as registry:
        visitor = new_visitor()
        run = registry.add_classifier(visitor, kept, None, "a task, rank 2")
        assert registry.runs(visitor) == [run] and run.classifier is not None
        ours = our_logits(run.classifier)
        archive = zip_adapter(run.classifier, tmp_path / "kept.zip")
    back = lc.load_adapter(archive or tmp_path / "kept.zip", tiny)
    assert torch.equal(our_logits(back), ours)
