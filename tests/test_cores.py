"""More cores: the same adapter bit for bit, used only while they are faster."""

from __future__ import annotations

import contextlib
import itertools
import subprocess
import sys
import threading
import time
from dataclasses import replace

import pytest
import torch

import lora_core as lc
from lora_core import cores as module
from lora_core.cores import Cores, computing_with, set_threads
from lora_core.devices import Device


class NotedCores(Cores):
    """Notes with how many cores the steps were computed, and which gave one core's gradient."""

    def __init__(self, free) -> None:
        super().__init__(free)
        self.counts: set[int] = set()
        self.same_bits: dict[int, bool] = {}  # by number of cores, as it was found

    def _gives_the_same(self, count, gradient, dtype):
        self.same_bits[count] = super()._gives_the_same(count, gradient, dtype)
        return self.same_bits[count]

    @contextlib.contextmanager
    def step(self, work, gradient, dtype):
        with super().step(work, gradient, dtype):
            self.counts.add(torch.get_num_threads())
            yield


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
    for name in ("GAIN", "HOPELESS", "CONTENDED"):
        monkeypatch.setattr(module, name, float("inf"))  # use them, however slow they are
    set_threads(1)
    alone = weights(base, task, dtype, lora, method, None)
    number = itertools.cycle((2, 3, 1, 2))
    cores = NotedCores(lambda: next(number))
    shared = weights(base, task, dtype, lora, method, cores)
    # Where two cores add up in another order (MKL on some processors of Intel's), none is used.
    assert cores.counts == ({1, 2} if cores.same_bits[2] else {1})
    assert all(torch.equal(a, b) for a, b in zip(alone, shared, strict=True))


def test_texts_are_answered_side_by_side_with_the_same_bits(base, task) -> None:
    """In an evaluation each core has batches of its own, the longest first; their order holds."""
    set_threads(1)
    threads: set[int] = set()

    def evaluations(cores: Cores | None) -> list[lc.Evaluated]:
        config = lc.TrainConfig(steps=6, evaluations=3)
        events = lc.fine_tune(base, task, train_config=config, cores=cores)
        return [replace(e, seconds=0.0) for e in events if isinstance(e, lc.Evaluated)]

    class Noted(Cores):
        def map(self, function, items):
            def noted(item):
                threads.add(threading.get_ident())
                assert torch.get_num_threads() == 1
                return function(item)

            return super().map(noted, items)

    assert evaluations(Noted(lambda: 4)) == evaluations(None)
    assert len(threads) > 1
    begun: list[int] = []
    done = Cores(lambda: 1).map(lambda n: begun.append(n) or 10 * n, [1, 2, 3])
    assert done == [10, 20, 30] and begun == [3, 2, 1]


@pytest.mark.parametrize("error", [None, RuntimeError("can't start new thread")])
def test_threads_that_never_run_are_not_waited_for(monkeypatch, error) -> None:
    """As where memory is short: what was begun is computed without them."""

    def start(*_: object) -> None:
        if error is not None:
            raise error

    monkeypatch.setattr(module._thread, "start_new_thread", start)
    assert Cores(lambda: 4).map(lambda n: 10 * n, range(9)) == [*range(0, 90, 10)]


@pytest.mark.parametrize("free", [1, 3])
def test_an_error_on_the_way_ends_it(free) -> None:
    begun: list[int] = []

    def work(n: int) -> int:
        begun.append(n)
        time.sleep(0.01)
        return n // (n - 995)

    with pytest.raises(ZeroDivisionError):
        Cores(lambda: free).map(work, range(1000))
    assert len(begun) < 20
    assert Cores(lambda: free).map(work, []) == []


@pytest.fixture
def same(monkeypatch) -> None:
    """As on a machine whose products do not depend on the cores: these tests are about time."""
    monkeypatch.setattr(module, "same_products", lambda count, dtype: True)


class Times:
    """Seconds of the wall and of the processor that pass when the test says so."""

    wall = processor = 0.0

    def cores(self, free: int) -> Cores:
        """Of a run that may use `free` cores, from now on."""
        return Cores(lambda: free, lambda: self.wall, lambda: self.processor)

    def step(self, cores: Cores, wall: float, processor: float, gradient=torch.ones) -> int:
        """Take a step of so many seconds; with how many cores it was computed."""
        with cores.step(1.0, lambda: gradient(1)):
            self.wall += wall
            self.processor += processor
            cores.between()
            return torch.get_num_threads()


def test_numbers_of_threads_are_given_back_and_bits_that_differ_are_seen(same) -> None:
    set_threads(1)
    answers = itertools.count()
    times = Times()
    cores = times.cores(2)
    each_another = lambda _: torch.tensor([float(next(answers))])  # noqa: E731
    assert [times.step(cores, 1.0, 1.0, each_another) for _ in range(8)] == [1] * 8
    assert next(answers) == 2  # compared once
    cores = times.cores(5)
    used = [times.step(cores, 1.0, 1.0) for _ in range(4)]
    assert used == [1, 1, 1, 4]  # three and five cut products at odd places
    assert torch.get_num_threads() == 1
    with pytest.raises(ZeroDivisionError), computing_with(2):
        raise ZeroDivisionError
    assert torch.get_num_threads() == 1


def test_cores_that_others_use_are_left_alone(same) -> None:
    set_threads(1)
    times = Times()
    cores = times.cores(2)  # half of the time something else computes
    assert [times.step(cores, 2.0, 1.0) for _ in range(8)] == [1] * 8
    cores = times.cores(2)
    assert [times.step(cores, 1.0, 1.0) for _ in range(3)] == [1, 1, 1]
    # The first step with two takes more than twice as long: it ends with one, and so do the next.
    assert [times.step(cores, 2.5, 2.5) for _ in range(3)] == [1, 1, 1]
    cores = times.cores(2)
    assert [times.step(cores, 1.0, 1.0) for _ in range(3)] == [1, 1, 1]
    assert [times.step(cores, 0.5, 0.5) for _ in range(3)] == [2, 2, 2]


def test_where_products_depend_on_the_cores_none_is_added(monkeypatch) -> None:
    set_threads(1)
    monkeypatch.setattr(module, "same_products", lambda count, dtype: False)
    times = Times()
    cores = times.cores(2)
    assert [times.step(cores, 1.0, 1.0) for _ in range(6)] == [1] * 6


def test_a_product_that_differs_is_seen(monkeypatch) -> None:
    look = module.same_products.__wrapped__  # not what this process has found before
    assert look(1, torch.bfloat16)
    compared = itertools.count()
    monkeypatch.setattr(torch, "equal", lambda left, right: next(compared) != 5)
    assert not look(1, torch.bfloat16)
    assert next(compared) == 6  # and none is looked at after it


def test_in_float32_no_product_depends_on_the_cores_once_the_order_is_fixed() -> None:
    code = """
import torch
from lora_core.cores import fix_order_of_sums, same_products
fix_order_of_sums()
print([same_products(count, torch.float32) for count in (2, 4, 8)])
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[True, True, True]"


def test_items_are_computed_in_their_order_with_one_thread_each() -> None:
    assert Cores(lambda: 3).map(lambda i: (i, torch.get_num_threads()), range(5)) == [
        (i, 1) for i in range(5)
    ]
