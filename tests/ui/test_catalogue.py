"""The catalogue of sentences: every id that the page uses is there, and no other."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

from lora_core.ui.text.catalogue import PLACE, TERM, rich, say, sentences

ROOT = Path(__file__).resolve().parents[2]
PYTHON = sorted((ROOT / "lora_core" / "ui").rglob("*.py"))
SCRIPTS = sorted(
    path for room in ("page", "room") for path in (ROOT / "assets" / room).glob("*.js")
)
# A literal id, or one with a part that the program puts in: `f"status.{state}"`, `guide.${name}`.
_KEY = re.compile(r"""["'`]([a-z_]+\.(?:[a-z_0-9]|\$\{[^}]+\}|\{[^}]+\})+)["'`]""")


_FILES = (".js", ".css", ".csv", ".json")


def used() -> list[str]:
    """Every id in the sources, as a pattern: what the program puts in stands for anything."""
    sections = {key.split(".")[0] for key in sentences()}
    patterns = set()
    for path in [*PYTHON, *SCRIPTS]:
        for key in _KEY.findall(path.read_text(encoding="utf-8")):
            if key.split(".")[0] in sections and not key.endswith(_FILES):
                patterns.add(re.sub(r"\$?\{[^}]+\}", "[a-z_0-9]+", key.replace(".", r"\.")))
    return sorted(patterns)


def test_what_is_used_is_there() -> None:
    for pattern in used():
        assert any(re.fullmatch(pattern, key) for key in sentences()), pattern


def test_what_is_there_is_used() -> None:
    patterns = [*used(), r"term\..*", r"label\..*", r"layer\..*"]
    idle = [k for k in sentences() if not any(re.fullmatch(p, k) for p in patterns)]
    assert idle == []


# What answers a program, the host's terminal or a notebook, in English: the web API's refusals, the
# gate's, what app.py prints. And two that hold no sentence of the page: code, and names of papers.
_NOT_THE_PAGE = {
    *("api.py", "api_json.py", "api_experiments.py", "values.py", "readers.py", "experiments.py"),
    *("room_routes.py", "room_setup.py"),
    *("gate.py", "bodies.py", "uploads.py", "addresses.py", "hosts.py", "folder.py", "figures.py"),
    *("programs.py", "formulas.py"),
}
_FAULTS = ("RuntimeError", "ConfigError", "error", "exception")
_TWO_WORDS = re.compile(r"[A-Za-z’']{2,} [a-z’']{2,}")
_TAG = re.compile(r"<[^>]*>?|^[^<>]*>")  # also what an f-string has cut
_QUOTED = re.compile(r"""(?<!class: )(["'`])((?:(?!\1).)*)\1""")  # names of styles apart
_NO_TEXT = re.compile(
    r"""^\s*(//|/?\*).*|\s//\s.*|querySelector(All)?\([^)]*\)|matches\?\.\([^)]*\)|new Error\(.*"""
)


def python_texts(source: str) -> list[str]:
    """What a module holds that reads like a sentence and that a page could show."""
    tree = ast.parse(source)
    others: set[ast.AST] = set()  # docstrings, faults of the program, the log, scripts
    for node in ast.walk(tree):
        name = ""
        if isinstance(node, ast.Call):
            name = getattr(node.func, "id", "") or getattr(node.func, "attr", "")
        elif isinstance(node, ast.keyword) and node.arg in ("elem_classes", "js"):
            name = "error"
        if name in _FAULTS or (isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)):
            others.update(ast.walk(node))
    texts = [n for n in ast.walk(tree) if isinstance(n, ast.Constant) and n not in others]
    found = [text.value for text in texts if isinstance(text.value, str)]
    return [text for text in found if reads_like_a_sentence(_TAG.sub("", text))]


def script_texts(source: str) -> list[str]:
    """The same of a script."""
    code = "\n".join(_NO_TEXT.sub("", line) for line in source.splitlines())
    found = [re.sub(r"\$\{[^}]*\}", "", text) for _, text in _QUOTED.findall(code)]
    return [text for text in found if reads_like_a_sentence(text)]


def reads_like_a_sentence(text: str) -> bool:
    """Two words, the first with a capital; names of styles have none."""
    return bool(_TWO_WORDS.search(text)) and not text.lstrip()[0].islower()


def test_no_sentence_of_the_page_stands_outside() -> None:
    assert python_texts('gr.Button(f"<b>Use this</b> {n}")') == ["<b>Use this</b> "]
    assert script_texts('node("p", { class: "Some style" }, `Use these ${n}`)') == ["Use these "]
    outside = {
        path.name: python_texts(path.read_text(encoding="utf-8"))
        for path in PYTHON
        if path.name not in _NOT_THE_PAGE
    }
    outside |= {path.name: script_texts(path.read_text(encoding="utf-8")) for path in SCRIPTS}
    assert {name: texts for name, texts in outside.items() if texts} == {}


def test_both_forms_have_the_same_places_and_terms_are_explained() -> None:
    for key, text in sentences().items():
        forms = list(text.values()) if isinstance(text, dict) else [text]
        assert len({frozenset({*PLACE.findall(form), "n"}) for form in forms}) == 1, key
        for form in forms:
            for term, _ in TERM.findall(form):
                assert f"term.{term}" in sentences(), (key, term)


def test_places_are_filled_and_what_is_put_in_is_text() -> None:
    assert say("curves.others", n=1) == "1 run of another task"
    assert say("curves.others", n=1200) == "1,200 runs of other tasks"
    assert say("page.tagline").startswith("Teach a frozen language model")
    assert 'data-term="frozen"' in rich("page.tagline")
    assert "&lt;b&gt;" in rich("shown.train", task="<b>")
    with pytest.raises(KeyError):
        say("shown.train")
