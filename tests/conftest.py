"""Shared by all tests: one thread, the real base, small real tasks."""

from __future__ import annotations

import os

os.environ.setdefault("GRADIO_ANALYTICS_ENABLED", "False")
os.environ.setdefault("LORA_LAB_DATA", "none")  # no test writes to the user's data folder
os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

import pytest
import torch

import lora_core as lc
from lora_core.base.checkpoint import Base
from lora_core.cores import fix_order_of_sums
from tests.serving.registry import Gate, Reopen, tiny_base, words_task

fix_order_of_sums()  # as app.py does
torch.set_num_threads(1)


def pytest_make_parametrize_id(val: object, argname: str) -> str | None:
    """Bytes are named by their argument: packed ones hold the time, and workers must agree."""
    return argname if isinstance(val, bytes) else None


@pytest.fixture(scope="session")
def base() -> lc.Base:
    """The bundled base; read-only, as everywhere."""
    return lc.load_base("bundled")


@pytest.fixture(scope="session")
def task() -> lc.Task:
    """A bundled task, cut to a size that trains in seconds."""
    whole = lc.load_task("sms-spam")
    return lc.Task(
        whole.name, whole.labels, whole.train[:256], whole.validation[:64], whole.test[:64]
    )


@pytest.fixture
def small() -> lc.GPT:
    """A GPT of random weights, small enough for exhaustive tests."""
    torch.manual_seed(0)
    return lc.GPT(lc.GPTConfig(97, 48, 24, 2, 3), num_classes=3).eval()


@pytest.fixture
def ragged() -> tuple[torch.Tensor, torch.Tensor]:
    """Token ids (5, 12) for `small` and true lengths from 1 to 12."""
    torch.manual_seed(1)
    return torch.randint(0, 97, (5, 12)), torch.tensor([12, 1, 7, 3, 12])


@pytest.fixture(scope="session")
def tiny() -> Base:
    """A base of random weights, read-only."""
    return tiny_base()


@pytest.fixture(scope="session")
def words() -> lc.Task:
    """A task that a word decides."""
    return words_task()


@pytest.fixture
def gate(monkeypatch):
    made = Gate(monkeypatch)
    yield made
    made.opened.set()


def warm(model: torch.nn.Module, seed: int = 2) -> None:
    """Give what starts at zero a value, as training would: fresh adapters change nothing."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if ".lora." in f".{name}" and not parameter.any():
                parameter.normal_(std=0.2, generator=generator)


@pytest.fixture
def reopen(tmp_path, tiny):
    """Begins a server over one folder, as often as it is called."""
    begin = Reopen(tmp_path / "data", tiny)
    yield begin
    begin.close()
