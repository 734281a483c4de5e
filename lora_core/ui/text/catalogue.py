"""Every sentence of the page by its id, with named places: `assets/languages/en.toml`.

    say("chart.waiting", name="r 8")                     -> plain text
    rich("step.adapt_lead")                              -> HTML; what is put in is escaped

A sentence stands there whole, never in pieces, so that it can be said in another language. An
entry with `one` and `other` is chosen by the place `n`. `[[rank|words]]` marks words that are
explained when pointed at; the explanations are the entries `term.…`. The browser's scripts read the
same catalogue: `LoraLab.t("curves.log")`.
"""

from __future__ import annotations

import functools
import html
import json
import re
import tomllib
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).resolve().parents[3] / "assets" / "languages"
TERM = re.compile(r"\[\[([a-z-]+)\|([^\]]+)\]\]")
PLACE = re.compile(r"\{([a-z_]+)\}")


@functools.cache
def sentences(language: str = "en") -> dict[str, Any]:
    """id -> sentence, or {"one": …, "other": …}; ids are `section.name`."""
    with (FOLDER / f"{language}.toml").open("rb") as file:
        sections = tomllib.load(file)
    return {
        f"{section}.{name}": text
        for section, entries in sections.items()
        for name, text in entries.items()
    }


def say(key: str, **places: object) -> str:
    """The sentence in plain text. Whole numbers are written with thousands separated.

    Raises `KeyError` for an id or a place that is not there: both are mistakes of the program.
    """
    return TERM.sub(r"\2", _filled(key, {name: _plain(value) for name, value in places.items()}))


def rich(key: str, **places: object) -> str:
    """The sentence as HTML: terms can be pointed at; what stands in the places is escaped."""
    escaped = {name: html.escape(_plain(value)) for name, value in places.items()}
    return terms(_filled(key, escaped))


def terms(text: str) -> str:
    """HTML with its `[[id|words]]` made into terms."""
    return TERM.sub(
        r'<button type="button" class="term" data-term="\1" aria-expanded="false">\2</button>', text
    )


def script() -> str:
    """The catalogue for the browser, as the content of a `<script>`."""
    entries = json.dumps(sentences(), ensure_ascii=False, separators=(",", ":"))
    safe = entries.replace("</", r"<\/")  # nothing in it ends the script
    return f"window.LabSentences = {safe};"


def _filled(key: str, places: dict[str, str]) -> str:
    text = sentences()[key]
    if isinstance(text, dict):
        text = text["one" if places["n"] == "1" else "other"]
    return PLACE.sub(lambda match: places[match[1]], text)


def _plain(value: object) -> str:
    whole = isinstance(value, int) and not isinstance(value, bool)
    return f"{value:,}" if whole else str(value)
