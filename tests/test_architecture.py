"""The directions that the design promises, read off the source itself."""

from __future__ import annotations

import ast
import gzip
import subprocess
import sys
from pathlib import Path

import pytest

from tests import architecture
from tests.architecture import PROJECT, graph, imports, nested, parsed

FILES = sorted((PROJECT / "lora_core").rglob("*.py"))
PAGE = PROJECT / "lora_core" / "ui"
PROGRAM = PROJECT / "lora_core" / "pretraining"
TOP_LEVEL = {"app.py", "lora_core", "assets", "tests", "requirements.txt", "README.md"}
ALSO = {"LICENSE", "pyproject.toml"}


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
        foreign = {"peft", "pickle", "sklearn"}
        if path.name != "teach.py":  # the app's judge, but pretraining's way to read a teacher
            foreign.add("transformers")
        assert not roots & foreign, path


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
        ("errors", set()),
        ("config", {"errors"}),
        ("limits", {"config", "errors"}),
        ("lora", {"config"}),
        ("injection", {"config", "errors", "lora"}),
        ("model", {"config"}),
        ("parameters", {"config"}),
        (
            "base.tokenizer",
            {"base.byte_level_bpe", "base.errors", "base.frame", "base.tokenizer_files"},
        ),
    ],
)
def test_the_leaves_are_leaves(module: str, allowed: set[str]) -> None:
    assert graph()[module] <= allowed
    tree = parsed(architecture.modules()[module])
    if module == "config":
        assert "torch" not in set(imports(tree))


def test_no_circle_and_no_arrow_upwards() -> None:
    arrows = graph()
    assert architecture.circle(arrows) == []
    assert architecture.upward(arrows) == []


def test_a_circle_and_an_upward_arrow_would_be_seen() -> None:
    arrows = {"lora": {"ui.page"}, "ui.page": {"config"}, "config": {"lora"}}
    assert len(set(architecture.circle(arrows))) == 3
    assert architecture.upward(arrows) == ["config -> lora", "lora -> ui.page"]


# What may be imported late, and why; each place says it again beside the import.
LATE = {
    "openpyxl": "0.3 s, only for who brings an XLSX",
    "pyarrow": "0.4 s, only for who brings a Parquet file",
    "huggingface_hub": "1 s, only for who asks the Hub",
    "transformers": "an extra of pretraining: reads the teacher",
    "tqdm": "not for those who need no bar",
    "resource": "not on Windows",
    "spaces": "only on a ZeroGPU Space",
}


def test_an_import_inside_a_function_has_its_reason() -> None:
    late: set[str] = set()
    for path in FILES:
        lines, here = path.read_text(encoding="utf-8").splitlines(), set()
        for node in nested(parsed(path)):
            roots = {name.split(".")[0] for name in imports(node)}
            assert roots <= set(LATE), f"{path}:{node.lineno}"
            said = "#" in lines[node.lineno - 1] or "#" in lines[node.lineno - 2]
            assert said or roots <= here, f"{path}:{node.lineno}: no reason beside it"
            here |= roots
        late |= here
    assert late == set(LATE), "and no reason without its import"


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


@pytest.mark.parametrize("packed", [gzip.compress(b"the time is in it")])
def test_no_test_is_named_by_what_differs_between_two_processes(request, packed) -> None:
    assert request.node.name.endswith("[packed]")
