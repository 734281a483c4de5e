"""The catalogue of sentences: every id that the page uses is there, and no other."""

from __future__ import annotations

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
