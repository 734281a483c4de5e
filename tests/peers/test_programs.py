"""The programs that step 5 shows: each really runs, and does what the settings say."""

from __future__ import annotations

import ast
import os
import subprocess
import sys
from pathlib import Path

import pytest

import lora_core as lc
from lora_core.base.checkpoint import BUNDLED
from lora_core.preparation import default_head_rate
from lora_core.tasks.bundled import BUNDLED_TASKS
from lora_core.ui.settings import Settings
from lora_core.ui.text.programs import lora_core_program, peft_program

PROJECT = Path(__file__).resolve().parents[2]
SHORT = {"steps": 2, "batch_size": 2}
CHOICES = [
    Settings(),
    Settings(rank=3, alpha=5.0, targets=("query", "mlp.up"), scaling="alpha", head="lora"),
    Settings(scaling="alpha/sqrt(rank)", dropout=0.1, learning_rate=1e-3, seed=7),
    Settings(method="full"),
    Settings(method="head", task="my own table"),
    Settings(task="my own table", seed=9),
    Settings(task="\"); import os; os.abort() #", base="gpt2"),
]  # fmt: skip


@pytest.mark.parametrize("settings", CHOICES, ids=lambda s: f"{s.method}-{s.scaling}-{s.head}")
def test_every_choice_is_a_program_without_a_strangers_code(settings) -> None:
    for write in (lora_core_program, peft_program):
        tree = ast.parse(write(settings))
        called = [ast.unparse(n.func) for n in ast.walk(tree) if isinstance(n, ast.Call)]
        assert not any(name.startswith("os.") for name in called)


@pytest.mark.parametrize("head", ["train", "lora"])
@pytest.mark.parametrize("targets", [lc.TARGETS, lc.LINEAR_TARGETS, ("value",)])
def test_the_program_has_the_settings_of_the_page(head, targets) -> None:
    settings = Settings(head=head, targets=targets)
    source = lora_core_program(settings)
    calls = [n for n in ast.walk(ast.parse(source)) if isinstance(n, ast.Call)]
    made = next(c for c in calls if ast.unparse(c.func) == "lc.LoRAConfig")
    assert eval(ast.unparse(made), {"lc": lc}) == settings.lora_config()


LONG = Settings(
    rank=8, alpha=22.627416997969522, scaling="alpha/sqrt(rank)", dropout=0.0123456789,
    learning_rate=0.00123456789,
)  # fmt: skip


def test_no_digit_of_a_setting_is_cut() -> None:
    """A program that rounds repeats another run: of a link's ?alpha=1234.5678, say."""
    arguments = {
        keyword.arg: ast.literal_eval(keyword.value)
        for write in (lora_core_program, peft_program)
        for call in ast.walk(ast.parse(write(LONG)))
        if isinstance(call, ast.Call)
        for keyword in call.keywords
        if keyword.arg in ("alpha", "dropout", "learning_rate", "lora_alpha", "lora_dropout", "lr")
    }
    assert arguments == {
        "alpha": LONG.alpha,
        "dropout": LONG.dropout,
        "learning_rate": LONG.learning_rate,
        "lora_alpha": LONG.alpha,
        "lora_dropout": LONG.dropout,
        "lr": LONG.learning_rate,
    }


def run(program: str, folder: Path) -> str:
    """Run a program in a folder with the project's assets; what it printed."""
    (folder / "assets").symlink_to(PROJECT / "assets")
    done = subprocess.run(
        [sys.executable, "-c", program],
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=600,
        env={**os.environ, "PYTHONPATH": str(PROJECT)},
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_the_program_with_lora_core(base, tmp_path) -> None:
    printed = run(lora_core_program(Settings(rank=2, alpha=4.0, **SHORT)), tmp_path)
    assert "step 2: validation accuracy" in printed
    back = lc.load_adapter(tmp_path / "my-adapter", base)
    assert back.lora_config == lc.LoRAConfig(2, 4.0)
    assert back.train_config == lc.TrainConfig(steps=2, batch_size=2)


def test_the_program_with_lora_core_for_the_head_alone(tmp_path) -> None:
    run(lora_core_program(Settings(method="head", **SHORT)), tmp_path)
    assert (tmp_path / "my-model" / "model.safetensors").is_file()


@pytest.mark.parametrize("scaling", ["alpha/rank", "alpha"])
def test_the_program_with_peft(base, tmp_path, scaling) -> None:
    """What it saves opens here, with the scale that was chosen."""
    settings = Settings(rank=2, alpha=4.0, scaling=scaling, **SHORT)
    program = peft_program(settings).replace("start in range(0, len(test), 32)", "start in [0]")
    assert "test accuracy" in run(program, tmp_path)
    labels = lc.load_task(settings.task).labels
    back = lc.load_adapter(tmp_path / "my-adapter", base, labels=list(labels))
    assert back.lora_config is not None
    assert back.lora_config.scale == settings.lora_config().scale
    assert BUNDLED.is_dir() and BUNDLED_TASKS.is_dir()


def test_the_program_with_peft_gives_the_head_of_many_classes_its_rate(base, tmp_path) -> None:
    lines = [f"{word} of kind {kind},kind {kind}" for kind in range(30) for word in ("one", "two")]
    (tmp_path / "mine.csv").write_text("text,label\n" + "\n".join(lines), encoding="utf-8")
    program = peft_program(Settings(rank=2, alpha=4.0, task="mine", learning_rate=1e-3, **SHORT))
    ending = "print('rates', [group['initial_lr'] for group in optimizer.param_groups])"
    printed = run(program + ending, tmp_path).splitlines()
    rates = ast.literal_eval(printed[-1].removeprefix("rates "))
    assert rates == pytest.approx([1e-3, default_head_rate(1e-3, 30, base.config.emb_dim)])


def test_the_program_for_full_fine_tuning_with_transformers(tmp_path) -> None:
    program = peft_program(Settings(method="full", **SHORT))
    run(program.replace("start in range(0, len(test), 32)", "start in [0]"), tmp_path)
    assert (tmp_path / "my-model" / "config.json").is_file()
