"""Adapters out and back, with `peft` as the judge: the same answers, either way."""

from __future__ import annotations

import itertools
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

import lora_core as lc
from lora_core.adapters.adapter import WEIGHTS_FILE, zip_adapter
from lora_core.adapters.merged import save_merged
from lora_core.base.checkpoint import BUNDLED
from lora_core.lora import lora_layers
from tests.peers.stranger import (
    TEXTS,
    adapted,
    opened,
    our_logits,
    padded,
)

SUBSETS = [
    subset
    for size in range(1, len(lc.TARGETS) + 1)
    for subset in itertools.combinations(lc.TARGETS, size)
]
SCALINGS = ("alpha/rank", "alpha", "alpha/sqrt(rank)")
TOLERANCE = {"atol": 1e-5, "rtol": 0.0}


def _same_out_and_back(classifier: lc.Classifier, base: lc.Base, folder: Path, source) -> None:
    lc.save_adapter(classifier, folder)
    ours = our_logits(classifier)
    theirs = opened(folder, source, len(classifier.labels))(*padded(base))
    torch.testing.assert_close(ours, theirs, **TOLERANCE)
    assert (ours - our_logits(classifier, TEXTS[::-1]).flip(0)).abs().max() < 1e-5
    assert ours.std() > 0.01  # the adapter and the head do something
    back = lc.load_adapter(folder, base)
    assert torch.equal(our_logits(back), ours)  # bit for bit
    assert back.lora_config == classifier.lora_config
    assert back.train_config == classifier.train_config
    assert back.labels == classifier.labels
    assert back.scores == classifier.scores


@pytest.mark.parametrize("number", range(len(SUBSETS)), ids=["+".join(s) for s in SUBSETS])
def test_every_subset_of_targets(tiny, tmp_path, number) -> None:
    """127 subsets; scaling, head and bias go through their combinations along the way."""
    config = lc.LoRAConfig(
        rank=1 + number % 5,
        alpha=(1.0, 3.0, 16.0, 7.5)[number % 4],
        targets=SUBSETS[number],
        scaling=SCALINGS[number % 3],
        head=("train", "lora")[number // 3 % 2],
    )
    classifier = adapted(tiny, config, bias=number % 2 == 0, seed=number)
    _same_out_and_back(classifier, tiny, tmp_path / "adapter", tiny.source)


@pytest.mark.parametrize("scaling", SCALINGS)
@pytest.mark.parametrize("head", ["train", "lora"])
@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("classes", [2, 7])
def test_every_scaling_and_head(tiny, tmp_path, scaling, head, bias, classes) -> None:
    config = lc.LoRAConfig(rank=5, alpha=3, scaling=scaling, head=head)
    classifier = adapted(tiny, config, classes=classes, bias=bias)
    _same_out_and_back(classifier, tiny, tmp_path / "adapter", tiny.source)


@pytest.mark.parametrize("number", range(6))
def test_on_the_bundled_base(base, tmp_path, number) -> None:
    targets = (lc.TARGETS, ("query", "value"), ("key",), ("mlp.up", "mlp.down"),
               ("attention.output",), ("query", "mlp.down"))[number]  # fmt: skip
    config = lc.LoRAConfig(
        rank=(8, 16, 1, 4, 64, 2)[number],
        targets=targets,
        scaling=SCALINGS[number % 3],
        head=("train", "train", "lora")[number % 3],
    )
    classifier = adapted(base, config, bias=True)
    _same_out_and_back(classifier, base, tmp_path / "adapter", BUNDLED)


def test_a_trained_adapter_and_its_labels_scores_and_snippet(base, task, tmp_path) -> None:
    """A real run: the program that the README prints gives a stranger our answer."""
    config = lc.TrainConfig(steps=12, batch_size=8, evaluations=1, seed=4)
    *_, last = lc.fine_tune(base, task, lc.LoRAConfig(4, 8), config)
    classifier = last.classifier
    folder = lc.save_adapter(classifier, tmp_path / "adapter")
    torch.testing.assert_close(
        our_logits(classifier), opened(folder, BUNDLED, 2)(*padded(base)), **TOLERANCE
    )
    program = (folder / "README.md").read_text().split("```python\n")[1].split("```")[0]
    program = program.replace(repr("assets/base"), repr(str(BUNDLED)))
    ran = subprocess.run(
        [sys.executable, "-c", program], cwd=folder, capture_output=True, text=True, timeout=300
    )
    assert ran.returncode == 0, ran.stderr
    for label, probability in classifier.classify("Type a text here").probabilities.items():
        assert f"{label:20} {probability:.1%}" in ran.stdout


def test_the_head_before_training_comes_back(base, task, tmp_path) -> None:
    """The strength slider works on a loaded adapter, down to 0: where its run began."""
    config = lc.TrainConfig(steps=3, batch_size=8, evaluations=1)
    *_, last = lc.fine_tune(base, task, lc.LoRAConfig(2), config)
    back = lc.load_adapter(lc.save_adapter(last.classifier, tmp_path), base)
    for strength in (0.0, 0.5, 1.0, 2.0):
        before = last.classifier.classify("win a prize", strength).probabilities
        assert back.classify("win a prize", strength).probabilities == before


def test_an_archive_is_read_as_the_folder_is(tiny, tmp_path) -> None:
    classifier = adapted(tiny, lc.LoRAConfig(2), bias=True)
    back = lc.load_adapter(zip_adapter(classifier, tmp_path / "adapter.zip"), tiny)
    assert torch.equal(our_logits(back), our_logits(classifier))


def test_a_foreign_file_without_facts(tiny, tmp_path) -> None:
    """Facts are a help, not a need: the tensors alone give the same answers."""
    classifier = adapted(tiny, lc.LoRAConfig(4, 8), bias=True)
    lc.save_adapter(classifier, tmp_path)
    tensors = load_file(tmp_path / WEIGHTS_FILE)
    save_file(tensors, tmp_path / WEIGHTS_FILE)
    back = lc.load_adapter(tmp_path, tiny)
    assert back.labels == ("LABEL_0", "LABEL_1", "LABEL_2")
    torch.testing.assert_close(our_logits(back), our_logits(classifier), **TOLERANCE)
    named = lc.load_adapter(tmp_path, tiny, labels=["a", "b", "c"])
    assert named.labels == ("a", "b", "c")


@pytest.mark.parametrize("kind", [torch.float16, torch.bfloat16], ids=str)
@pytest.mark.parametrize("head", ["train", "lora"])
@pytest.mark.parametrize("with_facts", [True, False])
def test_our_own_file_in_half_precision(tiny, tmp_path, kind, head, with_facts) -> None:
    """The final LayerNorm, which holds the head's bias, is rounded as well; it was not trained."""
    classifier = adapted(tiny, lc.LoRAConfig(4, 8, head=head), bias=True)
    lc.save_adapter(classifier, tmp_path)
    path = tmp_path / WEIGHTS_FILE
    with safe_open(path, "pt") as file:
        facts = file.metadata() if with_facts else None
    save_file({n: t.to(kind) for n, t in load_file(path).items()}, path, facts)
    half = lc.load_adapter(tmp_path, tiny)
    torch.testing.assert_close(our_logits(half), our_logits(classifier), atol=0.05, rtol=0)


def test_a_final_norm_that_was_trained_is_refused(tiny, tmp_path) -> None:
    lc.save_adapter(adapted(tiny, lc.LoRAConfig(2), bias=True), tmp_path)
    tensors = load_file(tmp_path / WEIGHTS_FILE)
    (name,) = [n for n in tensors if n.endswith("ln_f.weight")]
    save_file({**tensors, name: tensors[name] + 2**-10}, tmp_path / WEIGHTS_FILE)
    with pytest.raises(lc.AdapterError, match="trained as well"):
        lc.load_adapter(tmp_path, tiny)


def test_no_lora_no_adapter(base, task, tmp_path) -> None:
    """A head alone or a whole model is not an adapter; and says where it can go."""
    for method in ("head", "full"):
        config = lc.TrainConfig(steps=1, batch_size=4, evaluations=1, method=method)
        *_, last = lc.fine_tune(base, task, None, config)
        with pytest.raises(lc.AdapterError, match="no LoRA layers"):
            lc.save_adapter(last.classifier, tmp_path / method)
        assert not (tmp_path / method).exists()


def test_a_head_whose_bias_has_no_place_says_so(tiny, tmp_path) -> None:
    classifier = adapted(tiny, lc.LoRAConfig(2), bias=True)
    with torch.no_grad():
        classifier.model.head.weight[1] = classifier.model.head.weight[0]
    plain = lc.Classifier(classifier.model, tiny.tokenizer, "abc", lora_config=lc.LoRAConfig(2))
    with pytest.raises(lc.AdapterError, match="bias"):
        lc.save_adapter(plain, tmp_path)


def test_saving_leaves_the_classifier_and_the_base_alone(tiny, tmp_path) -> None:
    classifier = adapted(tiny, lc.LoRAConfig(2), bias=True)
    before, digest = our_logits(classifier), tiny.digest()
    lc.save_adapter(classifier, tmp_path / "a")
    save_merged(classifier, tmp_path / "m")
    lc.load_adapter(tmp_path / "a", tiny)
    assert torch.equal(our_logits(classifier), before)
    assert tiny.digest() == digest
    assert any(True for _ in lora_layers(classifier.model))
