"""The one place where sentences reach Gradio, which shows them as HTML: here they are escaped.

`protect(page)` puts it around every function that an event or the web API can call, so whatever is
raised there becomes a sentence: ours as it is, a full disk or memory by its name, a fault of the
program without its message, which could quote somebody's text.
"""

from __future__ import annotations

import errno
import functools
import html
import inspect
import logging
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import gradio as gr

from lora_core.errors import LabError
from lora_core.ui.text.catalogue import say

log = logging.getLogger(__name__)

_LONGEST = 400  # characters of a sentence that quotes what was sent
_FULL = {errno.ENOSPC, errno.EDQUOT} if hasattr(errno, "EDQUOT") else {errno.ENOSPC}
_CLOSED = {errno.EACCES, errno.EPERM, errno.EROFS}
_SHORT_OF_FILES = {errno.EMFILE, errno.ENFILE}
DISK_FULL = say("fault.disk_full")


def safe(sentence: object) -> str:
    """Text for a place that shows HTML: cut to a length that can be read, and escaped."""
    text = str(sentence)
    if len(text) > _LONGEST:
        text = text[:_LONGEST] + " …"
    return html.escape(text, quote=False)


def warn(sentence: object) -> None:
    """A passing note on the page of whoever caused the present event."""
    gr.Warning(safe(sentence))


def sentence_of(error: BaseException, where: str) -> str:
    """What a person reads of an error. One that is not for them is logged under `where`."""
    if isinstance(error, LabError):
        return str(error)
    if isinstance(error, OSError) and error.errno in _FULL:
        text = DISK_FULL
    elif isinstance(error, OSError) and error.errno in _CLOSED:
        text = say("fault.closed")
    elif isinstance(error, OSError) and error.errno in _SHORT_OF_FILES:
        text = say("fault.files")
    elif isinstance(error, MemoryError):
        text = say("fault.memory")
    else:
        text = say("fault.unknown")
    # The kind and the place, without the message: it could quote somebody's text.
    place = error.__traceback__
    while place is not None and place.tb_next is not None:
        place = place.tb_next
    at = f"{place.tb_frame.f_code.co_filename}:{place.tb_lineno}" if place else "?"
    log.error("/%s failed: %s at %s", where, type(error).__name__, at)
    return text


def failure(error: BaseException, where: str) -> gr.Error:
    """The same as Gradio shows it, without a traceback on the host's console."""
    if isinstance(error, gr.Error):
        return error
    return gr.Error(safe(sentence_of(error, where)), print_exception=False)


def protect(page: gr.Blocks) -> None:
    """Put `in_words` around every function of a page that is built, and a sentence in the place of
    what Gradio raises before it calls one: it would print twenty lines as often as anybody asks."""
    for event in page.fns.values():
        if event.fn is not None:
            event.fn = in_words(event.fn)
    called = page.process_api

    @functools.wraps(called)
    async def process_api(block_fn: Any, inputs: list[Any], *args: Any, **kwargs: Any) -> Any:
        try:
            inputs = _fitting(block_fn.inputs, inputs)
            return await called(block_fn, inputs, *args, **kwargs)
        except gr.Error as error:
            if not error.print_exception:
                raise
            # Gradio's own, about a value that a control does not have
            raise gr.Error(safe(str(error.message)), print_exception=False) from None
        except (ValueError, TypeError, LookupError, AttributeError):  # of what was sent
            raise gr.Error(say("fault.unfit"), print_exception=False) from None

    page.process_api = process_api  # type: ignore[method-assign]


def _fitting(components: list[Any], values: list[Any]) -> list[Any]:
    """The values as the page's own controls hold them: an empty box is "", never null.

    Raises `TypeError` where something else than a text stands for the visitor: it is a key.
    """
    fitting = list(values)
    for number, (component, value) in enumerate(zip(components, values, strict=False)):
        if isinstance(component, gr.BrowserState) and not isinstance(value, str | None):
            raise TypeError(f"{type(value).__name__} for a visitor")
        if isinstance(component, gr.Textbox) and value is None:
            fitting[number] = ""
    return fitting


def in_words(function: Callable[..., Any]) -> Callable[..., Any]:
    """The same function, generator or coroutine; what it raises is one sentence."""
    name = getattr(function, "__name__", "event")
    if inspect.isasyncgenfunction(function):

        @functools.wraps(function)
        async def stream(*args: Any, **kwargs: Any) -> AsyncIterator[Any]:
            try:
                async for item in function(*args, **kwargs):
                    yield item
            except Exception as error:
                raise failure(error, name) from None

        return stream
    if inspect.iscoroutinefunction(function):

        @functools.wraps(function)
        async def awaited(*args: Any, **kwargs: Any) -> Any:
            try:
                return await function(*args, **kwargs)
            except Exception as error:
                raise failure(error, name) from None

        return awaited
    if inspect.isgeneratorfunction(function):

        @functools.wraps(function)
        def steps(*args: Any, **kwargs: Any) -> Iterator[Any]:
            try:
                yield from function(*args, **kwargs)
            except Exception as error:
                raise failure(error, name) from None

        return steps

    @functools.wraps(function)
    def wrapped(*args: Any, **kwargs: Any) -> Any:
        try:
            return function(*args, **kwargs)
        except Exception as error:
            raise failure(error, name) from None

    return wrapped
