"""Counting: published figures, and prediction against the model really built."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import lora_core as lc

SMALL_GPT2 = lc.GPT2_CONFIGS["gpt2-small (124M)"]


def test_appendix_e() -> None:
    """Raschka, Build a Large Language Model (From Scratch), appendix E: rank 16, alpha 16."""
    with torch.device("meta"):
        model = lc.GPT(SMALL_GPT2, num_classes=2)
        assert lc.count_parameters(model).total == 124_441_346
        model.requires_grad_(False)
        assert lc.count_parameters(model).trainable == 0
        lc.replace_linear_with_lora(model, rank=16, alpha=16)
    count = lc.count_parameters(model)
    assert count.trainable == 2_666_528 == 16 * 166_658
    assert count.total == 124_441_346 + 2_666_528
    assert count == lc.predict_parameters(SMALL_GPT2, lc.LoRAConfig(16, 16, head="lora"), 2)


@pytest.mark.parametrize(("rank", "blocks"), [(8, 1_327_104), (16, 2_654_208)])
def test_all_block_targets_of_gpt2(rank: int, blocks: int) -> None:
    """Per block and rank: q, k, v and output 2*768 each, up and down 768+3072 each: 13,824."""
    config = lc.LoRAConfig(rank, targets=lc.LINEAR_TARGETS)
    count = lc.predict_parameters(SMALL_GPT2, config, 2)
    assert blocks == 12 * rank * (4 * 2 * 768 + 2 * (768 + 3072))
    assert count.trainable == blocks + 2 * 768 + 2
    assert count.percent == pytest.approx(100 * count.trainable / (124_441_346 + blocks))


def test_the_token_embedding_of_gpt2() -> None:
    """A row of A for each of 50,257 tokens, and a B of 768, for each unit of rank."""
    only = lc.LoRAConfig(4, targets=("token_embedding",))
    count = lc.predict_parameters(SMALL_GPT2, only, 2)
    assert count.trainable == 4 * (50_257 + 768) + 2 * 768 + 2


def test_what_every_layer_means() -> None:
    assert lc.LoRAConfig().targets == lc.TARGETS == (*lc.LINEAR_TARGETS, "token_embedding")
    assert lc.LoRAConfig(head="lora").targets == lc.LINEAR_TARGETS  # appendix E has no other
    assert lc.LoRAConfig(head="lora", targets=lc.TARGETS).targets == lc.TARGETS


configs = st.builds(
    lambda heads, width, layers, vocab, context, bias: lc.GPTConfig(
        vocab, context, heads * width, layers, heads, qkv_bias=bias
    ),
    st.integers(1, 4), st.integers(1, 12), st.integers(1, 4), st.integers(1, 300),
    st.integers(1, 64), st.booleans(),
)  # fmt: skip
loras = st.builds(
    lc.LoRAConfig,
    rank=st.integers(1, 64),
    targets=st.lists(st.sampled_from(lc.TARGETS), min_size=1, unique=True).map(tuple),
    head=st.sampled_from(["train", "lora"]),
)


@given(configs, loras, st.integers(2, 100), st.sampled_from(["lora", "full", "head"]))
@settings(max_examples=150, deadline=None)
def test_prediction_is_the_count_of_the_real_model(config, lora, classes, method) -> None:
    with torch.device("meta"):
        model = lc.GPT(config, classes)
        if method == "lora":
            lc.inject_lora(model, lora)
        elif method == "head":
            model.requires_grad_(False)
            model.head.requires_grad_(True)
    assert lc.count_parameters(model) == lc.predict_parameters(config, lora, classes, method)


def test_what_training_reports_is_what_was_predicted(base, task) -> None:
    for method in ("lora", "full", "head"):
        lora = lc.LoRAConfig(rank=3, targets=("value", "mlp.up"))
        started = next(lc.fine_tune(base, task, lora, lc.TrainConfig(steps=1, method=method)))
        assert started.parameters == lc.predict_parameters(base.config, lora, 2, method)


def test_unknown_target_is_a_sentence() -> None:
    with pytest.raises(lc.ConfigError, match="'c_attn'"):
        lc.predict_parameters(SMALL_GPT2, lc.LoRAConfig(targets=("c_attn",)), 2)
