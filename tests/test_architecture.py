"""The directions that the design promises, read off the source itself."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

PROJECT = Path(__file__).resolve().parent.parent
FILES = sorted((PROJECT / "lora_core").rglob("*.py"))
PAGE = PROJECT / "lora_core" / "ui"
PROGRAM = PROJECT / "lora_core" / "pretraining"
TOP_LEVEL = {"app.py", "lora_core", "assets", "tests", "requirements.txt", "README.md"}
ALSO = {"LICENSE", "pyproject.toml"}


def imports(tree: ast.AST) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield node.module


def parsed(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"))


def within(path: Path, folder: Path) -> bool:
    return folder in path.parents


def test_there_is_something_to_check() -> None:
    assert len(FILES) > 20 and any(within(f, PAGE) for f in FILES)


def test_only_the_page_knows_gradio_and_plotly() -> None:
    for path in FILES:
        roots = {name.split(".")[0] for name in imports(parsed(path))}
        if not within(path, PAGE):
            assert not roots & {"gradio", "plotly", "gradio_client"}, path
            assert "lora_core.ui" not in set(imports(parsed(path))), path
        assert not roots & {"peft", "transformers", "pickle", "sklearn"}, path


def test_nothing_in_the_package_prints() -> None:
    for path in FILES:
        if within(path, PROGRAM):
            continue  # a command-line program talks to its terminal
        for node in ast.walk(parsed(path)):
            called = isinstance(node, ast.Call) and isinstance(node.func, ast.Name)
            assert not (called and node.func.id in ("print", "exec", "eval")), path


@pytest.mark.parametrize(
    ("module", "allowed"),
    [
        ("config", set()),
        ("lora", {"config"}),
        ("model", {"config"}),
        ("parameters", {"config"}),
        ("base.tokenizer", set()),
    ],
)
def test_the_leaves_are_leaves(module: str, allowed: set[str]) -> None:
    tree = parsed(PROJECT / "lora_core" / f"{module.replace(chr(46), chr(47))}.py")
    ours = {n.removeprefix("lora_core.") for n in imports(tree) if n.startswith("lora_core")}
    assert ours <= allowed
    if module == "config":
        assert "torch" not in set(imports(tree))


def test_the_library_imports_without_gradio_and_pandas() -> None:
    code = """
import sys, lora_core
print([m for m in ("gradio", "pandas", "plotly") if m in sys.modules])
"""
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, cwd=PROJECT, check=True
    )
    assert done.stdout.strip() == "[]"


def test_nothing_else_is_visible_at_the_top() -> None:
    tracked = subprocess.run(
        ["git", "ls-files"], capture_output=True, text=True, cwd=PROJECT, check=False
    )
    names = {line.split("/")[0] for line in tracked.stdout.splitlines()}
    if tracked.returncode:  # an unpacked archive, without git
        names = {p.name for p in PROJECT.iterdir()} - {"__pycache__"}
    visible = {name for name in names if not name.startswith(".")}
    assert visible == TOP_LEVEL | ALSO
