"""The size of an adapter's file is known before it is trained, to the byte."""

from __future__ import annotations

import itertools

import pytest
from safetensors.torch import load_file

import lora_core as lc
from lora_core.adapters.adapter import WEIGHTS_FILE, saved_bytes
from lora_core.adapters.size import adapter_file_bytes, predicted_shapes

TARGETS = [
    ("*",), lc.TARGETS, lc.LINEAR_TARGETS, ("query",), ("query", "value"), ("mlp.up", "key"),
    ("token_embedding", "position_embedding"), ("attention.output",), ("blocks.1.mlp.down",),
]  # fmt: skip
SETTINGS = list(itertools.product(TARGETS, ("train", "lora"), (1, 8)))


@pytest.mark.parametrize(("targets", "head", "rank"), SETTINGS)
def test_the_file_weighs_what_was_predicted(targets, head, rank, tiny, words, tmp_path) -> None:
    lora = lc.LoRAConfig(rank=rank, targets=targets, head=head)
    settings = lc.TrainConfig(steps=2, batch_size=4, evaluations=1)
    *_, last = lc.fine_tune(tiny, words, lora, settings)
    lc.save_adapter(last.classifier, tmp_path)
    tensors = load_file(tmp_path / WEIGHTS_FILE)
    shapes = {name: tuple(tensor.shape) for name, tensor in tensors.items()}
    assert shapes == predicted_shapes(tiny.config, lora, len(words.labels))
    size = (tmp_path / WEIGHTS_FILE).stat().st_size
    assert size == adapter_file_bytes(tiny.config, lora, len(words.labels))
    assert size == saved_bytes(last.classifier, tensors)


def test_the_bundled_base_and_a_real_task(base, task, tmp_path) -> None:
    lora = lc.LoRAConfig()
    settings = lc.TrainConfig(steps=2, batch_size=4, evaluations=1)
    *_, last = lc.fine_tune(base, task, lora, settings)
    lc.save_adapter(last.classifier, tmp_path)
    size = (tmp_path / WEIGHTS_FILE).stat().st_size
    assert size == adapter_file_bytes(base.config, lora, len(task.labels))
