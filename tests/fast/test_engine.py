"""The fast path against the plain model: losses, gradients, adapters, for every setting."""

from __future__ import annotations

import copy
import gc
import itertools
import weakref

import pytest
import torch
import torch.nn.functional as F

import lora_core as lc
from lora_core.batches import Batch
from lora_core.devices import Device
from lora_core.fast.engine import EngineSetup, FastEngine, PlainEngine
from lora_core.fast.gpt import FastGPT, why_not
from lora_core.fast.linear import frozen_cast
from lora_core.fast.packing import pack, round_up
from lora_core.preparation import build_model
from tests.conftest import warm

LABELS = torch.tensor([0, 2, 1, 0, 2])
CPU = Device(torch.device("cpu"), torch.float32, "for tests")


@pytest.fixture
def base() -> lc.Base:
    """A base of random weights, small enough to try everything; two blocks are never alike."""
    torch.manual_seed(0)
    model = lc.GPT(lc.GPTConfig(97, 48, 24, 3, 3), None).requires_grad_(False).eval()
    for p in model.parameters():
        p += 0.1 * torch.randn_like(p)
    return lc.Base("small", model, None, "small")  # type: ignore[arg-type]


def adapted(base: lc.Base, config: lc.LoRAConfig | None = None, method: str = "lora") -> lc.GPT:
    generator = torch.Generator().manual_seed(3)
    model = build_model(base, 3, config or lc.LoRAConfig(), method, generator)  # type: ignore[arg-type]
    warm(model)
    return model


def plain(model: lc.GPT, tokens, lengths, labels=LABELS) -> tuple[float, dict[str, torch.Tensor]]:
    trained = {n: p for n, p in model.named_parameters() if p.requires_grad}
    loss = F.cross_entropy(model.train()(tokens, lengths), labels)
    gradients = torch.autograd.grad(loss, list(trained.values()))
    model.eval()
    return loss.item(), dict(zip(trained, gradients, strict=True))


def fast(model: lc.GPT, tokens, lengths, labels=LABELS, dtype=torch.float32):
    path = FastGPT(model, dtype)
    loss = path.loss_and_gradients(tokens, lengths, labels).item()
    return loss, path.weights.grads


def assert_same(model: lc.GPT, tokens, lengths, labels=LABELS) -> None:
    twin = copy.deepcopy(model)
    loss, gradients = plain(model, tokens, lengths, labels)
    fast_loss, fast_gradients = fast(twin, tokens, lengths, labels)
    assert fast_loss == pytest.approx(loss, abs=2e-6)
    assert fast_gradients.keys() == gradients.keys()
    assert_close(fast_gradients, gradients)


def assert_close(
    fast_gradients: dict[str, torch.Tensor], expected: dict[str, torch.Tensor]
) -> None:
    """Each within a ten-thousandth of its own size, and a millionth of the largest."""
    whole = max(gradient.norm().item() for gradient in expected.values())
    for name, gradient in expected.items():
        error = (fast_gradients[name] - gradient).norm().item()
        assert error <= 1e-4 * gradient.norm().item() + 1e-6 * whole, name


SUBSETS = [c for n in (1, 2, 3, 6) for c in itertools.combinations(lc.TARGETS, n)]


@pytest.mark.parametrize("targets", SUBSETS, ids="+".join)
def test_every_choice_of_layers(base, ragged, targets) -> None:
    assert_same(adapted(base, lc.LoRAConfig(rank=3, targets=targets)), *ragged)


@pytest.mark.parametrize("rank", [1, 2, 8, 16, 17, 64])
@pytest.mark.parametrize("scaling", ["alpha/rank", "alpha", "alpha/sqrt(rank)"])
def test_every_rank_and_scale(base, ragged, rank, scaling) -> None:
    config = lc.LoRAConfig(rank=rank, alpha=6.0, scaling=scaling)
    assert_same(adapted(base, config), *ragged)


@pytest.mark.parametrize("method", ["full", "head"])
def test_the_other_methods(base, ragged, method) -> None:
    assert_same(adapted(base, method=method), *ragged)


@pytest.mark.parametrize("targets", [(), ("query", "mlp.down")])
def test_lora_on_the_head(base, ragged, targets) -> None:
    config = lc.LoRAConfig(rank=2, targets=targets, head="lora")
    assert_same(adapted(base, config), *ragged)


@pytest.mark.parametrize("block", range(3))
@pytest.mark.parametrize("target", lc.LINEAR_TARGETS)
def test_backward_ends_at_the_one_layer_adapted(base, ragged, block, target) -> None:
    name = target if "." in target else f"attention.{target}"
    config = lc.LoRAConfig(rank=2, targets=(f"blocks.{block}.{name}",))
    assert_same(adapted(base, config), *ragged)


def test_adapted_positions_are_left_to_the_plain_model(base) -> None:
    config = lc.LoRAConfig(rank=2, targets=("position_embedding",))
    assert why_not(adapted(base, config)) == "its positions are adapted"


@pytest.mark.parametrize("head", ["train", "lora"])
@pytest.mark.parametrize("targets", [lc.TARGETS, ("query", "key"), ("value", "mlp.up")])
def test_dropout_draws_what_the_plain_model_draws(base, head, targets) -> None:
    tokens, lengths = torch.randint(0, 97, (5, 9)), torch.full((5,), 9)
    config = lc.LoRAConfig(rank=3, targets=targets, dropout=0.3, head=head)
    model = adapted(base, config)
    twin = adapted(base, config)
    twin.load_state_dict(model.state_dict())
    loss, gradients = plain(model, tokens, lengths)
    fast_loss, fast_gradients = fast(twin, tokens, lengths)
    assert fast_loss == pytest.approx(loss, abs=2e-6)
    assert_close(fast_gradients, gradients)


@pytest.mark.parametrize("lengths", [[1], [1, 1, 1], [12], [48, 1, 47], [5, 5, 5, 5]])
@pytest.mark.parametrize("layers", [1, 3])
def test_ragged_batches_of_every_kind(ragged, lengths, layers) -> None:
    torch.manual_seed(5)
    small = lc.GPT(lc.GPTConfig(97, 48, 24, layers, 3), None).requires_grad_(False)
    base = lc.Base("small", small, None, "small")  # type: ignore[arg-type]
    tokens = torch.randint(0, 97, (len(lengths), max(lengths)))
    labels = torch.arange(len(lengths)) % 3
    assert_same(adapted(base), tokens, torch.tensor(lengths), labels)


@pytest.mark.parametrize("method", ["lora", "full"])
def test_bfloat16_is_within_its_rounding(base, ragged, method) -> None:
    model = adapted(base, method=method)
    twin = copy.deepcopy(model)
    loss, gradients = plain(model, *ragged)
    fast_loss, fast_gradients = fast(twin, *ragged, dtype=torch.bfloat16)
    assert fast_loss == pytest.approx(loss, rel=0.02)
    joined, expected = (
        torch.cat([g[n].flatten() for n in gradients]) for g in (fast_gradients, gradients)
    )
    assert F.cosine_similarity(joined, expected, dim=0) > 0.995
    assert joined.norm().item() == pytest.approx(expected.norm().item(), rel=0.05)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_padding_changes_nothing(base, ragged, dtype) -> None:
    tokens, lengths = ragged
    wide = F.pad(tokens, (0, 20), value=11)
    for i, n in enumerate(lengths):
        wide[i, n:] = 96
    a, b = (FastGPT(adapted(base), dtype) for _ in range(2))
    first, second = a.last_hidden(tokens, lengths), b.last_hidden(wide, lengths)
    torch.testing.assert_close(
        first, second, rtol=1e-5 if dtype == torch.float32 else 0.05, atol=1e-2
    )


@pytest.mark.parametrize("method", ["lora", "full", "head"])
def test_ten_steps_lead_to_the_same_weights(base, ragged, method) -> None:
    model = adapted(base, method=method)
    twin = copy.deepcopy(model)
    trained = [p for p in model.parameters() if p.requires_grad]
    one = torch.optim.AdamW(trained, lr=1e-3)
    path = FastGPT(twin, torch.float32)
    other = torch.optim.AdamW([path.weights.flat], lr=1e-3)
    for _ in range(10):
        F.cross_entropy(model(*ragged), LABELS).backward()
        one.step()
        one.zero_grad()
        path.loss_and_gradients(*ragged, LABELS)
        other.step()
    torch.testing.assert_close(
        path.classify(path.last_hidden(*ragged)), model(*ragged), rtol=1e-3, atol=2e-4
    )
    path.weights.release()
    torch.testing.assert_close(twin(*ragged), model(*ragged), rtol=1e-3, atol=2e-4)
    assert len({p.untyped_storage().data_ptr() for p in twin.parameters()}) == len(
        list(twin.parameters())
    )


def test_the_base_is_not_written_to(base, ragged) -> None:
    before = base.digest()
    for method in ("lora", "full", "head"):
        path = FastGPT(adapted(base, method=method), torch.bfloat16)
        path.loss_and_gradients(*ragged, LABELS)
        with torch.no_grad():
            path.weights.flat += 1.0
        path.loss_and_gradients(*ragged, LABELS)
    assert base.digest() == before


def test_runs_over_one_base_share_its_casts_and_they_go_with_it(base, ragged) -> None:
    configs = lc.LoRAConfig(), lc.LoRAConfig(rank=3, targets=("key",))
    paths = [FastGPT(adapted(base, config), torch.bfloat16) for config in configs]
    one, other = ([g.weight for b in path.blocks for g in b.groups] for path in paths)
    assert [w.data_ptr() for w in one] == [w.data_ptr() for w in other]
    matrices = sum(p.numel() for p in base.model.blocks.parameters())
    assert 0 < sum(w.nbytes for w in one) <= 2 * matrices
    weight = torch.nn.Parameter(torch.ones(4, 4), requires_grad=False)
    first = frozen_cast((weight,), torch.bfloat16)
    assert frozen_cast((weight,), torch.bfloat16) is first
    weight += 1
    assert frozen_cast((weight,), torch.bfloat16).float().eq(2).all()
    gone = weakref.ref(frozen_cast((weight,), torch.bfloat16))
    del weight, first
    gc.collect()
    assert gone() is None


def test_where_it_does_not_apply_it_says_why(base) -> None:
    model = adapted(base)
    assert why_not(model) is None
    lc.merge_lora(model)
    assert "merged" in (why_not(model) or "")
    with pytest.raises(ValueError, match="merged"):
        FastGPT(model, torch.float32)
    lc.unmerge_lora(model)
    next(iter(model.blocks[1].parameters())).requires_grad_(True)
    assert "some" in (why_not(model) or "")
    assert why_not(torch.nn.Linear(2, 2)) is not None
    dropping = lc.GPT(lc.GPTConfig(97, 48, 24, 1, 3, drop_rate=0.1))
    assert "dropout" in (why_not(dropping) or "")


def test_between_blocks_it_can_be_interrupted_and_goes_on_afterwards(base, ragged) -> None:
    calls = itertools.count()

    def interrupt() -> None:
        if next(calls) == 4:
            raise KeyboardInterrupt

    path = FastGPT(adapted(base), torch.float32, interrupt)
    with pytest.raises(KeyboardInterrupt):
        path.loss_and_gradients(*ragged, LABELS)
    assert torch.is_grad_enabled()
    loss = path.loss_and_gradients(*ragged, LABELS).item()
    assert loss == pytest.approx(fast(adapted(base), *ragged)[0])


def test_packing_keeps_every_token_in_its_place() -> None:
    tokens = torch.tensor([[5, 6, 7], [8, 0, 0], [9, 4, 0]])
    packed = pack(tokens, torch.tensor([3, 1, 2]), 2, torch.float32, exact=True)
    assert packed.tokens.tolist() == [5, 6, 7, 8, 9, 4]
    assert packed.positions.tolist() == [0, 1, 2, 0, 0, 1]
    assert packed.last.tolist() == [2, 3, 5]
    filled = pack(tokens, torch.tensor([3, 1, 2]), 2, torch.float32)
    assert filled.tokens.tolist() == [5, 6, 7, 8, 9, 4, *[0] * 10] and filled.shape == (3, 3)
    rounded = pack(tokens, torch.tensor([3, 1, 2]), 2, torch.bfloat16)
    assert len(rounded.tokens) == 32 and rounded.shape == (3, 8)
    sizes = [round_up(n, 32) for n in range(1, 5000)]
    assert all(n <= size < n + max(32, n / 7) for n, size in enumerate(sizes, 1))
    assert len(set(sizes)) < 60


@pytest.mark.parametrize("method", ["lora", "full", "head"])
def test_a_head_beside_the_rest_can_learn_at_a_rate_of_its_own(base, ragged, method) -> None:
    """One step of Adam moves an entry by the rate. In both engines; a head alone has the rate."""
    tokens, lengths = ragged
    batch = Batch(tokens, lengths, LABELS, (0, 1, 2, 3, 4))
    config = lc.TrainConfig(method=method, weight_decay=0.0)
    moved = []
    for engine_class, factor in ((FastEngine, 1.0), (FastEngine, 5.0), (PlainEngine, 5.0)):
        model = adapted(base, method=method)
        engine = engine_class(EngineSetup(model, config, CPU, lambda: None, factor))
        before = {n: p.detach().clone() for n, p in model.named_parameters() if p.requires_grad}
        assert engine.step(batch, 1e-3)[1]
        engine.release()
        now = dict(model.named_parameters())
        moved.append(
            {
                n: (now[n] - old).abs().max().item()
                for n, old in before.items()
                if not n.endswith("key.bias")  # its gradient is nothing but rounding
            }
        )
    once, fast_path, slow_path = moved
    assert fast_path == pytest.approx(slow_path, rel=1e-2)
    factors = {name: fast_path[name] / once[name] for name in once}
    expected = {n: 5.0 if n.startswith("head.") and method != "head" else 1.0 for n in once}
    assert factors == pytest.approx(expected, rel=1e-2)
    assert once["head.weight"] == pytest.approx(1e-3, rel=1e-2)
