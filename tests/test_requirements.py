"""What is required is imported, what is imported is required, and every version is exact."""

from __future__ import annotations

import ast
import re
import sys
from collections.abc import Iterable, Iterator
from importlib.metadata import packages_distributions, version
from pathlib import Path

import pytest

PROJECT = Path(__file__).resolve().parent.parent
APP = [PROJECT / "app.py", *sorted((PROJECT / "lora_core").rglob("*.py"))]
# Extras, and the only file that needs each.
EXTRAS = {"transformers": "teach.py", "distributed": "machines.py", "dask": "machines.py"}
TESTS = sorted((PROJECT / "tests").rglob("*.py"))
# Programs, imported by nobody, and the file that runs each.
TOOLS = {
    "ruff": ".ci/run",
    "mypy": ".ci/run",
    "py-spy": "tests/benchmarks/lock.py",
    "dask": "tests/serving/test_machines.py",
    "distributed": "tests/serving/test_machines.py",
}
PLUGINS = {"pytest-xdist": "--dist loadfile"}  # and what in the README's test command needs it
BY_THE_PLACE = {"spaces"}  # a ZeroGPU Space installs it itself; imported only there


def requirements(name: str) -> dict[str, str]:
    """{distribution, in its normal form: version} of a requirements file."""
    pins = {}
    for line in (PROJECT / name).read_text(encoding="utf-8").splitlines():
        line = line.partition("#")[0].strip()
        if not line or line.startswith("-r "):
            continue
        match = re.fullmatch(r"([A-Za-z0-9._-]+)==([0-9][0-9A-Za-z.]*)", line)
        assert match, f"{name}: {line!r} is not an exact version"
        distribution = normal(match[1])
        assert distribution not in pins, f"{name}: {distribution} twice"
        pins[distribution] = match[2]
    return pins


def normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def imported(paths: Iterable[Path]) -> dict[str, Path]:
    """Top-level modules that are imported anywhere, also inside functions, and by which file."""
    return {
        name.split(".")[0]: path
        for path in paths
        for name in _names(ast.parse(path.read_text(encoding="utf-8")))
    }


def _names(tree: ast.Module) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            yield node.module


def distributions(modules: Iterable[str]) -> dict[str, set[str]]:
    """{module: distributions that bring it}, without the standard library and ourselves."""
    ours = {"lora_core", "app", "tests"}
    known = packages_distributions()
    return {
        module: {normal(d) for d in known.get(module, [])}
        for module in modules
        if module not in sys.stdlib_module_names and module not in ours | BY_THE_PLACE
    }


def test_every_import_of_the_app_is_required() -> None:
    required = set(requirements("requirements.txt"))
    modules = imported(APP)
    for module, candidates in distributions(modules).items():
        extra = EXTRAS.get(module) == modules[module].name
        assert candidates & required or extra, f"{modules[module]} imports {module}, not required"


def test_every_requirement_of_the_app_is_imported() -> None:
    used = set().union(*distributions(imported(APP)).values())
    assert set(requirements("requirements.txt")) <= used


def test_every_import_of_the_tests_is_required() -> None:
    required = set(requirements("requirements.txt")) | set(requirements("tests/requirements.txt"))
    modules = imported(TESTS)
    for module, candidates in distributions(modules).items():
        brought = candidates & required or module == "gradio_client"  # gradio's own other half
        assert brought, f"{modules[module]} imports {module}, which is not required"


def test_every_requirement_of_the_tests_is_used() -> None:
    used = set().union(*distributions(imported(TESTS)).values())
    runs = {tool: (PROJECT / file).read_text(encoding="utf-8") for tool, file in TOOLS.items()}
    readme = (PROJECT / "README.md").read_text(encoding="utf-8")
    for distribution in requirements("tests/requirements.txt"):
        tool = distribution in runs.get(distribution, "")
        plugin = distribution in PLUGINS and PLUGINS[distribution] in readme
        assert distribution in used or tool or plugin


@pytest.mark.parametrize("name", ["requirements.txt", "tests/requirements.txt"])
def test_the_versions_are_those_that_are_tested(name) -> None:
    for distribution, pinned in requirements(name).items():
        assert version(distribution).partition("+")[0] == pinned, distribution


def test_the_tests_need_what_the_app_needs() -> None:
    lines = (PROJECT / "tests/requirements.txt").read_text(encoding="utf-8").splitlines()
    assert "-r ../requirements.txt" in lines
    app = requirements("requirements.txt")
    assert list(app) == sorted(app)
    assert not set(app) & set(requirements("tests/requirements.txt"))
