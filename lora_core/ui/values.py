"""Values of the right type out of what a control, an address or JSON holds; else a sentence.

A number may come as one or as its text, a whole one as 8.0, as some programs write it.
"""

from __future__ import annotations

import math
from typing import Any

from lora_core.classifier import ClassifyError
from lora_core.config import ConfigError

_MANY_TARGETS = 100


def whole(name: str, value: object) -> int:
    """A whole number. Raises `ConfigError`."""
    number = real(name, value)
    if number != math.floor(number):
        raise ConfigError(f"{name} must be a whole number, not {value!r}.")
    return int(number)


def real(name: str, value: object) -> float:
    """A finite number of ordinary size. Raises `ConfigError`."""
    number = value
    if isinstance(value, str):
        try:
            number = float(value)
        except ValueError:
            raise ConfigError(f"{name} must be a number, not a text ({value[:40]!r}).") from None
    if not isinstance(number, int | float) or isinstance(number, bool):
        raise ConfigError(f"{name} must be a number, not {_kind(value)}.")
    if not abs(number) <= 1e15:  # also refuses what is not a number
        raise ConfigError(f"{name} is not a number that can be used.")
    return float(number)


def string(name: str, value: object) -> str:
    """A text. Raises `ConfigError`."""
    if not isinstance(value, str):
        raise ConfigError(f"{name} must be a text, not {_kind(value)}.")
    return value


def record(value: object) -> dict[str, Any]:
    """An object of JSON, as the page's scripts send them; what is none has no entries."""
    return value if isinstance(value, dict) else {}


def names_of(name: str, value: object) -> tuple[str, ...]:
    """Names of layers. Raises `ConfigError`."""
    if not isinstance(value, list | tuple) or not all(isinstance(part, str) for part in value):
        raise ConfigError(f"{name} must be a list of names, such as ['query', 'value'].")
    if len(value) > _MANY_TARGETS:
        raise ConfigError(f"{len(value):,} {name} are more than any model has.")
    return tuple(value)


def texts_of(value: object, name: str = "texts") -> list[str]:
    """A list of texts; a single text is a list of one. Raises `ClassifyError`, by its `name`."""
    texts = [value] if isinstance(value, str) else value
    if not isinstance(texts, list) or not all(isinstance(text, str) for text in texts):
        raise ClassifyError(f"{name} must be a list of texts.")
    return texts


def _kind(value: object) -> str:
    """How JSON calls a value's type."""
    names = {bool: "true or false", str: "a text", list: "a list", dict: "an object"}
    names |= {int: "a number", float: "a number", type(None): "null"}
    return names.get(type(value), type(value).__name__)
