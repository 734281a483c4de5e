"""Two short runs on the real base, with LoRA and of all weights; the tests only read them."""

from __future__ import annotations

import pytest

import lora_core as lc


def train(base: lc.Base, task: lc.Task, method: str = "lora", **lora: object) -> lc.Finished:
    """The last event of a short run."""
    config = lc.TrainConfig(steps=24, batch_size=8, seed=3, method=method, evaluations=1)  # type: ignore[arg-type]
    *_, last = lc.fine_tune(base, task, lc.LoRAConfig(rank=4, **lora), config)  # type: ignore[arg-type]
    assert isinstance(last, lc.Finished)
    return last


@pytest.fixture(scope="session")
def lora_run(base: lc.Base, task: lc.Task) -> lc.Classifier:
    """Rank 4, every layer."""
    return train(base, task).classifier


@pytest.fixture(scope="session")
def full_run(base: lc.Base, task: lc.Task) -> lc.Classifier:
    """All weights."""
    return train(base, task, "full").classifier
