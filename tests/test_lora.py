"""The invariants of LoRA."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn

import lora_core as lc
from lora_core.lora import lora_layers
from tests.conftest import warm


@pytest.mark.parametrize("rank", [1, 4, 16, 64])
def test_a_is_kaiming_uniform_over_its_inputs_and_b_is_zero(rank: int) -> None:
    layer = lc.LoRALayer(400, 30, rank, 16)
    assert layer.A.shape == (400, rank) and layer.B.shape == (rank, 30)
    bound = 1 / math.sqrt(400)
    assert 0.9 * bound < layer.A.abs().max().item() <= bound
    assert layer.A.std().item() == pytest.approx(bound / math.sqrt(3), rel=0.15)
    assert not layer.B.any()


@pytest.mark.parametrize(
    ("scaling", "expected"), [("alpha/rank", 4.0), ("alpha", 16.0), ("alpha/sqrt(rank)", 8.0)]
)
def test_the_three_scaling_rules(scaling: str, expected: float) -> None:
    layer = lc.LoRALayer(5, 7, 4, 16, scaling=scaling)
    nn.init.ones_(layer.B)
    x = torch.randn(2, 5)
    assert layer.scale == expected == lc.LoRAConfig(4, 16, scaling=scaling).scale
    torch.testing.assert_close(layer(x), expected * (x @ layer.A @ layer.B))


def test_an_embedding_is_a_linear_layer_of_ones_and_zeros() -> None:
    """The same update, looked up instead of multiplied; here A starts at zero and B does not."""
    table = nn.Embedding(50, 6)
    layer = lc.EmbeddingWithLoRA(table, rank=3, alpha=6)
    tokens = torch.tensor([[4, 4, 49], [0, 7, 1]])
    assert torch.equal(layer(tokens), table(tokens))
    assert layer.lora.A.shape == (50, 3) and not layer.lora.A.any()
    assert layer.lora.B.shape == (3, 6) and layer.lora.B.std().item() == pytest.approx(1, rel=0.5)
    nn.init.normal_(layer.lora.A)
    one_hot = nn.functional.one_hot(tokens, 50).float()
    torch.testing.assert_close(layer(tokens), one_hot @ (table.weight + layer.lora.delta()))


def test_only_tokens_that_were_seen_are_learned(small) -> None:
    lc.inject_lora(small, lc.LoRAConfig(2, 4, targets=("token_embedding",)))
    small(torch.tensor([[5, 9, 5]])).square().sum().backward()
    rows = small.token_embedding.lora.A.grad.any(1).nonzero().flatten()
    assert rows.tolist() == [5, 9]


def test_the_source_recursion_replaces_every_linear(small: lc.GPT) -> None:
    linears = [n for n, m in small.named_modules() if isinstance(m, nn.Linear)]
    lc.replace_linear_with_lora(small, rank=2, alpha=4)
    assert [n for n, _ in lora_layers(small)] == linears
    assert len(linears) == 2 * 6 + 1


def test_nothing_changes_at_injection_to_the_last_bit(small, ragged) -> None:
    before = small(*ragged)
    for config in (lc.LoRAConfig(), lc.LoRAConfig(4, 8, head="lora"), lc.LoRAConfig(dropout=0.5)):
        lc.reinject_lora(small, config)
        assert torch.equal(small.eval()(*ragged), before)


def test_the_bundled_base_is_itself_after_injection(base) -> None:
    model = base.classifier_model(2, torch.Generator().manual_seed(0))
    tokens = torch.tensor([base.tokenizer.encode_ordinary("Are you there yet?")])
    before = model(tokens)
    lc.inject_lora(model, lc.LoRAConfig(rank=64, alpha=128))
    assert torch.equal(model(tokens), before)


def test_injecting_twice_raises_and_leaves_the_adapter(small) -> None:
    lc.inject_lora(small, lc.LoRAConfig(rank=2))
    with pytest.raises(lc.LoRAError, match="already"):
        lc.inject_lora(small, lc.LoRAConfig(rank=4))
    with pytest.raises(lc.LoRAError, match="already"):
        lc.replace_linear_with_lora(small, 4, 8)
    assert {layer.lora.rank for _, layer in lora_layers(small)} == {2}


def test_a_new_rank_replaces_the_adapter_and_never_nests(small, ragged) -> None:
    lc.inject_lora(small, lc.LoRAConfig(rank=2))
    lc.merge_lora(small)
    lc.reinject_lora(small, lc.LoRAConfig(rank=8))
    layers = dict(lora_layers(small))
    assert {layer.lora.rank for layer in layers.values()} == {8}
    assert {type(layer.inner) for layer in layers.values()} == {nn.Linear, nn.Embedding}
    lc.remove_lora(small)
    assert not dict(lora_layers(small))


def test_an_unknown_target_is_named_and_nothing_is_touched(small) -> None:
    with pytest.raises(lc.LoRAError, match=r"'c_attn'.*query"):
        lc.inject_lora(small, lc.LoRAConfig(targets=("query", "c_attn")))
    assert all(p.requires_grad for p in small.parameters()) and not dict(lora_layers(small))


@pytest.mark.parametrize("head", ["train", "lora"])
def test_only_adapters_and_head_get_gradients(small, ragged, head: str) -> None:
    lc.inject_lora(small, lc.LoRAConfig(2, 4, targets=("query", "mlp.down"), head=head))
    warm(small)
    frozen = {n: p.clone() for n, p in small.named_parameters() if not p.requires_grad}
    small(*ragged).square().sum().backward()
    for name, parameter in small.named_parameters():
        opened = ".lora." in name or (head == "train" and name.startswith("head."))
        assert parameter.requires_grad == opened == (parameter.grad is not None), name
    for name, parameter in small.named_parameters():
        if name in frozen:
            assert torch.equal(parameter, frozen[name])


@pytest.mark.parametrize("strength", [0.0, 0.5, 1.0, 2.0])
def test_merging_is_idempotent_exactly_undone_and_equal(small, ragged, strength) -> None:
    lc.inject_lora(small, lc.LoRAConfig(4, 8, head="lora"))
    warm(small)
    for _, layer in lora_layers(small):
        layer.lora.strength = strength
    apart = small(*ragged)
    weights = {n: layer.inner.weight for n, layer in lora_layers(small)}
    copies = {n: w.clone() for n, w in weights.items()}
    for _ in range(2):
        lc.merge_lora(small)
        torch.testing.assert_close(small(*ragged), apart, atol=1e-5, rtol=0)
    for _ in range(2):
        lc.unmerge_lora(small)
        assert torch.equal(small(*ragged), apart)
    for name, layer in lora_layers(small):
        assert layer.inner.weight is layer.frozen_weight is weights[name]
        assert torch.equal(layer.inner.weight, copies[name])


def test_dropout_draws_from_its_own_generator_and_only_in_training(small, ragged) -> None:
    def outputs() -> torch.Tensor:
        generator = torch.Generator().manual_seed(7)
        lc.reinject_lora(small, lc.LoRAConfig(4, 8, dropout=0.5), generator)
        warm(small)
        torch.rand(3)  # the global generator must not matter
        return small.train()(*ragged)

    assert torch.equal(outputs(), outputs())
    evaluated = small.eval()(*ragged)
    assert torch.equal(evaluated, small(*ragged))
    assert not torch.equal(evaluated, small.train()(*ragged))


def test_works_on_any_module() -> None:
    net = nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Sequential(nn.Linear(4, 2)))
    lc.inject_lora(net, lc.LoRAConfig(rank=2, targets=("0",)))
    assert [n for n, _ in lora_layers(net)] == ["0", "2.0"]
    with pytest.raises(lc.LoRAError, match="single"):
        lc.replace_linear_with_lora(nn.Linear(2, 2), 1, 1)


@pytest.mark.parametrize(
    ("settings", "word"),
    [
        ({"rank": 0}, "rank"),
        ({"rank": 2.0}, "rank"),
        ({"rank": True}, "rank"),
        ({"rank": 100_000}, "rank"),
        ({"alpha": 0}, "alpha"),
        ({"alpha": float("nan")}, "alpha"),
        ({"alpha": "16"}, "alpha"),
        ({"dropout": 1.0}, "dropout"),
        ({"scaling": "alpha*rank"}, "scaling"),
        ({"head": "none"}, "head"),
        ({"targets": "query"}, "targets"),
        ({"targets": ()}, "layer"),
    ],
)
def test_bad_settings_are_a_sentence(settings: dict, word: str) -> None:
    with pytest.raises(lc.ConfigError, match=word):
        lc.LoRAConfig(**settings)
