"""JSON in and out of the web API: values of the right type, events as data, errors as sentences."""

from __future__ import annotations

import functools
import html
import inspect
import logging
import math
from collections.abc import AsyncIterator, Callable
from dataclasses import fields, replace
from typing import Any

import gradio as gr

from lora_core.classifier import ClassifyError
from lora_core.config import ConfigError
from lora_core.errors import LabError
from lora_core.events import Event, Finished, Started
from lora_core.serving.registry import Run
from lora_core.ui.settings import Settings

log = logging.getLogger(__name__)

_LONGEST_SENTENCE = 400  # of an answer that quotes what was sent


def in_words(function: Callable[..., Any]) -> Callable[..., Any]:
    """The same function; each of its errors is one sentence for the client, never a traceback."""
    if inspect.isasyncgenfunction(function):

        @functools.wraps(function)
        async def stream(*args: Any, **kwargs: Any) -> AsyncIterator[Any]:
            try:
                async for item in function(*args, **kwargs):
                    yield item
            except Exception as error:
                raise _sentence(error, function.__name__) from None

        return stream

    @functools.wraps(function)
    def wrapped(*args: Any, **kwargs: Any) -> Any:
        try:
            return function(*args, **kwargs)
        except Exception as error:
            raise _sentence(error, function.__name__) from None

    return wrapped


def _sentence(error: Exception, endpoint: str) -> gr.Error:
    """What a client reads; Gradio renders it as HTML, so what was sent is escaped."""
    if isinstance(error, gr.Error):
        return error
    if isinstance(error, LabError):
        text = str(error)
        if len(text) > _LONGEST_SENTENCE:
            text = text[:_LONGEST_SENTENCE] + " …"
    else:
        # The kind and the place, without the message: it could quote somebody's text.
        where = error.__traceback__
        while where is not None and where.tb_next is not None:
            where = where.tb_next
        place = f"{where.tb_frame.f_code.co_filename}:{where.tb_lineno}" if where else "?"
        log.error("/%s failed: %s at %s", endpoint, type(error).__name__, place)
        text = "The server could not do this. Its log says where it failed."
    return gr.Error(html.escape(text), print_exception=False)


def plain(event: Event) -> dict[str, Any]:
    """An event as JSON: its kind and its fields; the classifier stays on the server."""
    out: dict[str, Any] = {"kind": type(event).__name__.lower()}
    for field in fields(event):
        value = getattr(event, field.name)
        if isinstance(event, Started) and field.name == "parameters":
            value = {"trainable": value.trainable, "total": value.total, "percent": value.percent}
        elif isinstance(event, Started) and field.name == "device":
            value = {"type": value.device.type, "format": value.format, "reason": value.reason}
        elif isinstance(event, Finished) and field.name == "classifier":
            continue
        elif isinstance(value, float) and not math.isfinite(value):
            value = None  # JSON has no infinity
        out[field.name] = value
    return out


def test_of(run: Run) -> dict[str, Any] | None:
    """The test score of a run as JSON."""
    score = run.test_score
    if score is None:
        return None
    return {"accuracy": score.accuracy, "rows": score.rows, "confusion": score.confusion}


def checked(settings: Settings) -> Settings:
    """The same settings with each value of its type; JSON may hold anything. Raises `ConfigError`.

    Whole numbers may be written 8.0, as some programs do.
    """
    values: dict[str, Any] = {}
    for field in fields(settings):
        value = getattr(settings, field.name)
        if field.name == "targets":
            continue
        if field.type in ("int", int):
            values[field.name] = whole(field.name, value)
        elif field.type in ("float", float):
            values[field.name] = real(field.name, value)
        else:
            values[field.name] = string(field.name, value)
    return replace(settings, **values)


def whole(name: str, value: object) -> int:
    """A whole number, 8 or 8.0. Raises `ConfigError`."""
    number = real(name, value)
    if number != math.floor(number):
        raise ConfigError(f"{name} must be a whole number, not {value!r}.")
    return int(number)


def real(name: str, value: object) -> float:
    """A finite number of ordinary size. Raises `ConfigError`."""
    if not isinstance(value, int | float) or isinstance(value, bool):
        raise ConfigError(f"{name} must be a number, not {_kind(value)}.")
    if not abs(value) <= 1e15:  # also refuses what is not a number
        raise ConfigError(f"{name} is not a number that can be used.")
    return float(value)


def string(name: str, value: object) -> str:
    """A text. Raises `ConfigError`."""
    if not isinstance(value, str):
        raise ConfigError(f"{name} must be a text, not {_kind(value)}.")
    return value


def names_of(value: object) -> tuple[str, ...]:
    """Names of layers. Raises `ConfigError`."""
    if not isinstance(value, list | tuple) or not all(isinstance(name, str) for name in value):
        raise ConfigError("targets must be a list of names, such as ['query', 'value'].")
    if len(value) > 100:
        raise ConfigError(f"{len(value):,} targets are more than any model has.")
    return tuple(value)


def texts_of(value: object) -> list[str]:
    """A list of texts; a single text is a list of one. Raises `ClassifyError`."""
    given = [value] if isinstance(value, str) else value
    if not isinstance(given, list) or not all(isinstance(text, str) for text in given):
        raise ClassifyError("Texts must be a list of texts.")
    return given


def _kind(value: object) -> str:
    """How JSON calls a value's type."""
    names = {bool: "true or false", str: "a text", list: "a list", dict: "an object"}
    names |= {int: "a number", float: "a number", type(None): "null"}
    return names.get(type(value), type(value).__name__)
