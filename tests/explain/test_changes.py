"""What an adapter did, against the plain way: the whole dW, a full SVD, a loop over blocks."""

from __future__ import annotations

import math

import pytest
import torch

import lora_core as lc
from lora_core.explain.changes import (
    InspectionError,
    effective_rank,
    frozen_proof,
    heat_map,
    layer_changes,
    product_singular_values,
    singular_values,
)
from lora_core.lora import lora_layers
from lora_core.tasks.task import Example
from tests.conftest import warm


@pytest.fixture(scope="module")
def adapted(base: lc.Base) -> lc.Classifier:
    generator = torch.Generator().manual_seed(0)
    model = base.classifier_model(2, generator)
    lc.inject_lora(model, lc.LoRAConfig(rank=6, alpha=9.0), generator)
    warm(model)
    return lc.Classifier(model, base.tokenizer, ("a", "b"))


@pytest.fixture(scope="module")
def runs(base: lc.Base) -> dict[str, lc.Classifier]:
    """One short run a method."""
    rows = [("win cash now", "spam"), ("see you soon", "ham")]
    examples = tuple(Example(f"{t} {i}", i % 2) for i in range(8) for t, _ in rows)
    task = lc.Task("two", ("ham", "spam"), examples, examples[:4], examples[:4])
    return {
        method: list(
            lc.fine_tune(
                base,
                task,
                lc.LoRAConfig(rank=2),
                lc.TrainConfig(
                    steps=16, batch_size=8, evaluations=8, method=method, learning_rate=5e-4
                ),
            )
        )[-1].classifier
        for method in ("lora", "full", "head")
    }


def whole(classifier: lc.Classifier, name: str) -> torch.Tensor:
    return dict(lora_layers(classifier.model))[name].lora.delta().detach()


def test_norms_and_singular_values_equal_those_of_the_whole_matrix(adapted: lc.Classifier) -> None:
    changes = layer_changes(adapted)
    assert [c.name for c in changes] == [name for name, _ in lora_layers(adapted.model)]
    for change in changes:
        delta = whole(adapted, change.name).double()
        weight = dict(lora_layers(adapted.model))[change.name].frozen_weight
        assert change.shape == tuple(delta.shape) and change.rank == change.largest_rank == 6
        assert change.change == pytest.approx(delta.norm().item(), rel=1e-5)
        assert change.ratio == pytest.approx((delta.norm() / weight.norm()).item(), rel=1e-5)
        values = singular_values(adapted, change.name)
        full = torch.linalg.svdvals(delta)
        assert values.shape == (6,)
        torch.testing.assert_close(values, full[:6], rtol=1e-5, atol=1e-6)
        assert full[6:].max() < 1e-4 * full[0]
    assert changes[0].block is None and changes[0].kind == "token_embedding"
    assert changes[1].block == 0 and changes[1].kind == "attention.query"


@pytest.mark.parametrize(("n_in", "rank", "n_out"), [(5, 9, 4), (4, 9, 20), (12, 1, 3), (7, 7, 7)])
def test_any_shape_of_product(n_in: int, rank: int, n_out: int) -> None:
    generator = torch.Generator().manual_seed(1)
    A = torch.randn(n_in, rank, generator=generator, dtype=torch.float64)
    B = torch.randn(rank, n_out, generator=generator, dtype=torch.float64)
    expected = torch.linalg.svdvals(A @ B)
    got = product_singular_values(A, B)
    size = min(len(got), len(expected))
    torch.testing.assert_close(got[:size], expected[:size])
    assert len(got) == min(n_in, rank, n_out)


def test_effective_rank() -> None:
    assert effective_rank(torch.ones(8, dtype=torch.float64)) == pytest.approx(8)
    assert effective_rank(torch.tensor([5.0, 0.0, 0.0])) == pytest.approx(1)
    assert effective_rank(torch.zeros(4)) == 0
    third = effective_rank(torch.tensor([2.0, 1.0, 1.0], dtype=torch.float64))
    assert third == pytest.approx(math.exp(0.5 * math.log(2) + 0.5 * math.log(4)))


def test_untrained_adapter_changed_nothing(base: lc.Base) -> None:
    model = base.classifier_model(2)
    lc.inject_lora(model, lc.LoRAConfig(rank=3))
    classifier = lc.Classifier(model, base.tokenizer, ("a", "b"))
    for change in layer_changes(classifier):
        assert change.change == 0.0 and change.weight > 0
    name = layer_changes(classifier)[0].name
    assert effective_rank(singular_values(classifier, name)) == 0
    assert heat_map(classifier, name).largest == 0


@pytest.mark.parametrize("cells", [4, 64])
def test_heat_map_keeps_the_largest_entry_of_each_block(adapted: lc.Classifier, cells: int) -> None:
    name = "blocks.1.mlp.up"
    delta = whole(adapted, name)
    shown = heat_map(adapted, name, cells)
    assert shown.values.shape == (cells, cells) and shown.shape == tuple(delta.shape)
    height, width = shown.block
    assert (height * cells, width * cells) == shown.shape  # the bundled base divides evenly
    assert shown.largest == pytest.approx(delta.abs().max().item())
    for row in range(0, cells, 3):
        for column in range(0, cells, 3):
            block = delta[row * height : (row + 1) * height, column * width : (column + 1) * width]
            expected = block.flatten()[block.abs().argmax()]
            assert shown.values[row, column] == expected


def test_full_fine_tuning(base: lc.Base, runs: dict[str, lc.Classifier]) -> None:
    classifier = runs["full"]
    first = dict(base.model.named_parameters())
    last = dict(classifier.model.named_parameters())
    changes = layer_changes(classifier)
    outside = ["token_embedding", "position_embedding"]
    assert [c.name for c in changes if c.block is None] == outside
    assert len(changes) == 6 * base.config.n_layers + 2
    for change in changes:
        delta = (last[f"{change.name}.weight"] - first[f"{change.name}.weight"]).detach()
        assert change.rank is None and change.change > 0
        assert change.change == pytest.approx(delta.norm().item(), rel=1e-4)
    name = changes[3].name
    delta = (last[f"{name}.weight"] - first[f"{name}.weight"]).detach()
    assert singular_values(classifier, name).norm().item() == pytest.approx(
        delta.norm().item(), rel=1e-4
    )
    assert heat_map(classifier, name).largest == pytest.approx(delta.abs().max().item(), rel=1e-4)


def test_head_only_changed_no_layer(runs: dict[str, lc.Classifier]) -> None:
    assert layer_changes(runs["head"]) == []
    with pytest.raises(InspectionError, match="No layer called"):
        singular_values(runs["head"], "blocks.0.mlp.up")
    with pytest.raises(InspectionError, match="nowhere"):
        heat_map(runs["lora"], "nowhere")


@pytest.mark.parametrize("method", ["lora", "full", "head"])
def test_frozen_weights_are_the_same_bytes(
    base: lc.Base, runs: dict[str, lc.Classifier], method: str
) -> None:
    proof = frozen_proof(base, runs[method], base.digest())
    assert proof.equal and len(proof.after) == 64
    assert proof.bytes == 4 * sum(p.numel() for p in base.model.parameters())


def test_one_changed_bit_is_found(base: lc.Base) -> None:
    model = base.classifier_model(2)
    lc.inject_lora(model, lc.LoRAConfig(rank=1))
    layer = model.blocks[0].mlp.down.linear
    own = layer.weight.detach().clone()  # the shared tensor is left alone
    own[0, 0] = torch.nextafter(own[0, 0], torch.tensor(torch.inf))
    layer.weight = torch.nn.Parameter(own, requires_grad=False)
    classifier = lc.Classifier(model, base.tokenizer, ("a", "b"))
    assert not frozen_proof(base, classifier, base.digest()).equal


def test_strength_in_use_elsewhere_does_not_disturb(adapted: lc.Classifier) -> None:
    before = [c.change for c in layer_changes(adapted)]
    adapted.classify("hello", 0.3)
    assert [c.change for c in layer_changes(adapted)] == before
