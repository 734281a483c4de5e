"""The sentences of the step *Experiments*: `assets/languages/experiments.en.toml`."""

from __future__ import annotations

import functools
import tomllib
from pathlib import Path

_FILE = Path(__file__).resolve().parents[3] / "assets" / "languages" / "experiments.en.toml"


@functools.cache
def sentences() -> dict[str, str]:
    """Id -> sentence with its named places."""
    with _FILE.open("rb") as file:
        return dict(tomllib.load(file)["experiments"])


def say(key: str, **places: object) -> str:
    """A sentence; whole numbers with thousands separated. `KeyError` for an unknown id."""
    filled = {k: f"{v:,}" if isinstance(v, int) else str(v) for k, v in places.items()}
    return sentences()[key].format(**filled)
