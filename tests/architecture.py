"""The graph of imports, read off the source: which room knows which, and where it runs in a circle.

    python -m tests.architecture              rooms, and the rooms that each imports
    python -m tests.architecture --modules    the same for single modules

Exit status 1 when there is a circle or an arrow upwards.
"""

from __future__ import annotations

import argparse
import ast
import sys
from collections.abc import Iterator, Mapping
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

PROJECT = Path(__file__).resolve().parent.parent
PACKAGE = "lora_core"
ROOMS = (
    "base",
    "tasks",
    "fast",
    "adapters",
    "explain",
    "serving",
    "room",
    "pretraining",
    "ui.panels",
    "ui.drawing",
    "ui.text",
    "ui",
)
# From the ground up: a module imports its own floor and the floors below, never one above.
FLOORS: tuple[tuple[str, ...], ...] = (
    ("errors",),
    ("base.errors", "base.text_files", "base.frame"),
    ("config", "base.byte_level_bpe", "base.tokenizer_files", "base.tokenizer", "devices", "cores"),
    ("lora", "injection", "scores", "model", "parameters", "limits", "batches", "tasks", "base"),
    ("fast", "classifier", "events", "preparation", "training", "progress"),
    ("adapters", "explain", "pretraining"),
    ("serving",),
    ("room",),
    ("ui",),
)
Graph = dict[str, set[str]]


def parsed(path: Path) -> ast.Module:
    """The syntax tree of a file."""
    return ast.parse(path.read_text(encoding="utf-8"))


def modules(project: Path = PROJECT) -> dict[str, Path]:
    """Dotted names within the package, without its own, and their files."""
    names = {}
    for path in sorted((project / PACKAGE).rglob("*.py")):
        parts = path.relative_to(project / PACKAGE).with_suffix("").parts
        name = ".".join(part for part in parts if part != "__init__")
        if name:  # the package's own __init__ gathers the public names from every room
            names[name] = path
    return names


def nested(tree: ast.Module) -> Iterator[ast.Import | ast.ImportFrom]:
    """Imports inside of functions."""
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            for inner in ast.walk(node):
                if isinstance(inner, ast.Import | ast.ImportFrom):
                    yield inner


def imports(tree: ast.AST) -> Iterator[str]:
    """Every dotted name that is imported, wherever in the file; of `from a import b`, a and a.b."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def graph(project: Path = PROJECT) -> Graph:
    """Each module and the modules of the package that it imports, for types too."""
    files = modules(project)
    arrows: Graph = {}
    for name, path in files.items():
        imported = {n.removeprefix(f"{PACKAGE}.") for n in imports(parsed(path))}
        arrows[name] = {n for n in imported if n in files and n != name}
        # A room's own __init__ holds a docstring and sometimes its error: not an arrow by itself,
        # unless it is named for what it holds.
        packages = {n for n in arrows[name] if files[n].name == "__init__.py"}
        arrows[name] -= {p for p in packages if any(a.startswith(f"{p}.") for a in arrows[name])}
    return arrows


def room(module: str) -> str:
    """The room that a module lies in, or its own name on the ground floor."""
    return next((r for r in ROOMS if module == r or module.startswith(f"{r}.")), module)


def rooms(arrows: Graph) -> Graph:
    """The graph of the rooms."""
    between: Graph = {}
    for module, others in arrows.items():
        targets = {room(other) for other in others} - {room(module)}
        between.setdefault(room(module), set()).update(targets)
    return between


def circle(arrows: Mapping[str, set[str]]) -> list[str]:
    """The modules of one circle, the first of them again at its end; empty when there is none."""
    try:
        TopologicalSorter(arrows).prepare()
    except CycleError as error:
        return list(error.args[1])
    return []


def floor(module: str) -> int:
    """How high a module lies; the longest name in `FLOORS` that fits decides."""
    places = [
        (len(name), height)
        for height, names in enumerate(FLOORS)
        for name in names
        if module == name or module.startswith(f"{name}.")
    ]
    if not places:
        raise LookupError(f"{module} stands on no floor: add it to FLOORS.")
    return max(places)[1]


def upward(arrows: Graph) -> list[str]:
    """Arrows from a lower floor to a higher one, as text."""
    return [
        f"{module} -> {other}"
        for module, others in sorted(arrows.items())
        for other in sorted(others)
        if floor(other) > floor(module)
    ]


def main(argv: list[str] | None = None) -> int:
    """Print the graph; see the top of the file."""
    parser = argparse.ArgumentParser(prog="python -m tests.architecture")
    parser.add_argument("--modules", action="store_true", help="modules instead of rooms")
    options = parser.parse_args(argv)
    arrows = graph()
    shown = arrows if options.modules else rooms(arrows)
    for height, names in reversed(list(enumerate(FLOORS))):
        print(f"floor {height}: {', '.join(names)}")
        for name in sorted(n for n in shown if floor(n) == height):
            print(f"    {name} -> {', '.join(sorted(shown[name])) or 'nothing'}")
    number = sum(len(others) for others in shown.values())
    loop, against = circle(arrows), upward(arrows)
    print(f"{len(shown)} nodes, {number} arrows")
    print(f"circle: {' -> '.join(loop) or 'none'}")
    print(f"upwards: {', '.join(against) or 'none'}")
    return 1 if loop or against else 0


if __name__ == "__main__":
    sys.exit(main())
