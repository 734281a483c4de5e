"""More cores: the same adapter bit for bit, used only while they are faster."""

from __future__ import annotations

import itertools

import pytest
import torch

import lora_core as lc
from lora_core import cores as module
from lora_core.cores import Cores, computing_with, set_threads
from lora_core.devices import Device


def weights(base, task, dtype, lora, method, cores) -> list[torch.Tensor]:
    config = lc.TrainConfig(steps=14, evaluations=2, method=method)
    device = Device(torch.device("cpu"), dtype, "")
    *_, end = lc.fine_tune(base, task, lora, config, device=device, cores=cores)
    return [p.detach().clone() for p in end.classifier.model.parameters() if p.requires_grad]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize(
    ("method", "lora"),
    [
        ("lora", lc.LoRAConfig()),
        ("lora", lc.LoRAConfig(rank=3, dropout=0.1)),
        ("full", None),
        ("head", None),
    ],
)
def test_cores_that_come_and_go_change_no_bit(base, task, monkeypatch, dtype, method, lora) -> None:
    for name in ("_GAIN", "_HOPELESS", "_CONTENDED"):
        monkeypatch.setattr(module, name, float("inf"))  # use them, however slow they are
    set_threads(1)
    alone = weights(base, task, dtype, lora, method, None)
    number = itertools.cycle((2, 3, 1, 2))
    cores = Cores(lambda: next(number))
    shared = weights(base, task, dtype, lora, method, cores)
    assert cores._same_bits.keys() == {2}  # there were steps with more than one
    assert all(torch.equal(a, b) for a, b in zip(alone, shared, strict=True))


def test_numbers_of_threads_are_given_back_and_bits_that_differ_are_seen() -> None:
    set_threads(1)
    cores = Cores(lambda: 2)
    cores._alone.extend([(1.0, 1.0)] * 5)
    answers = itertools.count()
    gradient = lambda: torch.tensor([float(next(answers))])  # noqa: E731  each another one
    with cores.step(10.0, gradient):
        assert torch.get_num_threads() == 1
    assert cores._same_bits == {2: False}
    steady = Cores(lambda: 5)
    steady._alone.extend([(1.0, 1.0)] * 5)
    with steady.step(10.0, lambda: torch.ones(1)):
        assert torch.get_num_threads() == 4  # three and five cut products at odd places
    assert torch.get_num_threads() == 1
    with pytest.raises(ZeroDivisionError), computing_with(2):
        raise ZeroDivisionError
    assert torch.get_num_threads() == 1


def test_cores_that_others_use_are_left_alone() -> None:
    set_threads(1)
    cores = Cores(lambda: 2)
    cores._alone.extend([(2.0, 1.0)] * 5)  # half of the time something else computed
    with cores.step(1.0, lambda: torch.ones(1)):
        assert torch.get_num_threads() == 1
    slow = Cores(lambda: 2)
    slow._alone.extend([(1e-9, 1e-9)] * 5)
    for threads in (2, 1):  # the first step with two takes far more than twice a nanosecond
        with slow.step(1.0, lambda: torch.ones(1)):
            assert torch.get_num_threads() == threads
            slow.between()
            assert torch.get_num_threads() == 1


def test_items_are_computed_in_their_order_with_one_thread_each() -> None:
    assert Cores(lambda: 3).map(lambda i: (i, torch.get_num_threads()), range(5)) == [
        (i, 1) for i in range(5)
    ]
