"""What the tests of the registry of runs share."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch

import lora_core as lc
from lora_core.base.checkpoint import Base
from lora_core.base.tokenizer import load_encoding
from lora_core.limits import Limits
from lora_core.serving import executors, worker
from lora_core.serving.registry import Registry, Run, new_visitor
from lora_core.serving.store import Store
from lora_core.serving.worker import Report
from lora_core.tasks.task import Example, Task

WAIT = 120.0  # seconds after which a wait is a failure; no test depends on how long it took
ENDLESS = 90_000  # steps, fewer than any run may have: for a run that a test stops or kills
LONG = Limits(max_steps=ENDLESS)


def tiny_base() -> Base:
    """A base of random weights: many runs in a second, with the bundled tokenizer."""
    torch.manual_seed(3)
    folder = Path(lc.__file__).parent.parent / "assets" / "base"
    encoding = load_encoding(folder / "tokenizer.tiktoken")
    model = lc.GPT(lc.GPTConfig(encoding.n_vocab, 24, 16, 2, 2), num_classes=None)
    return Base("tiny", model.requires_grad_(False).eval(), encoding, "tests")


def words_task() -> Task:
    """Two labels that a word tells apart."""
    rows = [Example(f"{'win cash' if i % 2 else 'see you'} {i}", i % 2) for i in range(40)]
    return Task("words", ("no", "yes"), tuple(rows[:24]), tuple(rows[24:32]), tuple(rows[32:]))


class Clock:
    """Seconds that pass when the test says so."""

    now = 1000.0

    def __call__(self) -> float:
        return self.now


class Reopen:
    """Begins a server over the same folder, as after an update of the app."""

    store: Store  # of the server that was begun last

    def __init__(self, folder: Path, base: lc.Base) -> None:
        self._folder, self._base = folder, base
        self._registry: Registry | None = None

    def __call__(self, limits: Limits | None = None, **options) -> Registry:
        self.close()
        self.store = Store(self._folder)
        self._registry = Registry(
            limits, workers=1, store=self.store, bases=lambda *_: self._base, **options
        )
        return self._registry

    def close(self) -> None:
        if self._registry is not None:
            self._registry.close()


class Gate:
    """Holds every training run until it is opened, and counts the threads that wait there."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.opened = threading.Event()
        self.started: list[str] = []  # ids
        self._reports: dict[str, Callable[[Report], None]] = {}
        self._some = threading.Condition()
        original = worker.train

        def held(job, report, should_stop, *free_cores):
            with self._some:
                self.started.append(job.id)
                self._reports[job.id] = report
                self._some.notify_all()
            while not self.opened.wait(0.01):
                if should_stop():
                    break
            return original(job, report, should_stop, *free_cores)

        monkeypatch.setattr(executors, "train", held)

    def step(self, run: Run, number: int) -> None:
        """Report a step of a run that is held, as its worker would."""
        self._reports[run.id](lc.Step(number, 0.5, 1e-3, 100.0, 1.0))

    def wait_for(self, number: int) -> None:
        with self._some:
            assert self._some.wait_for(lambda: len(self.started) >= number, WAIT)


def submit(registry, base, task, visitor=None, *, rank=2, watch=(), **train) -> Run:
    config = lc.TrainConfig(**{"steps": 3, "batch_size": 4, "evaluations": 1, **train})
    lora = lc.LoRAConfig(rank=rank, dropout=0.1)
    return registry.submit(visitor or new_visitor(), base, task, lora, config, watch_texts=watch)


def endless(registry, base, task, visitor=None, **train) -> Run:
    """A run that is under way until somebody ends it, evaluated every hundred steps.

    The registry's limits are `LONG`.
    """
    train = {"steps": ENDLESS, "evaluations": ENDLESS // 100, "warmup": 0.0, **train}
    return submit(registry, base, task, visitor, **train)


def until(condition: Callable[[], bool]) -> None:
    """Wait for what other threads or processes bring about."""
    ticker = threading.Event()
    for _ in range(int(WAIT / 0.01)):
        if condition():
            return
        ticker.wait(0.01)
    raise AssertionError("waited in vain")


def under_way(*some: Run, steps: int = 3) -> None:
    """Wait until each has done so many steps; none of them may have ended."""
    for run in some:
        until(lambda run=run: run.step >= steps or run.is_over)
        assert not run.is_over, (run, run.reason)


def wait(*some: Run) -> None:
    """Until all have ended."""
    for run in some:
        until(lambda run=run: run.is_over)


def adapter(run: Run) -> dict[str, torch.Tensor]:
    assert run.classifier is not None, run
    return {n: p for n, p in run.classifier.model.named_parameters() if p.requires_grad}


def same(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[n], other[n]) for n in one)


@contextmanager
def full_disk(size: int = 0) -> Iterator[None]:
    """No file of this process grows beyond so many bytes: writing fails, as on a full disk."""
    resource = pytest.importorskip("resource")
    most, ever = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, ever))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (most, ever))
