"""What the process of a server needs before it serves: room, a console that does not fail it, a log
that stays short, and the modules that would otherwise be imported by the first run."""

from __future__ import annotations

import contextlib
import io
import logging
import sys
import time

import torch

try:
    import resource
except ImportError:  # Windows has no such limit
    resource = None  # type: ignore[assignment]

_DESCRIPTORS = 65_536  # more than a class can use
_SILENCE = 60.0  # seconds between two records of the same text in the log


def raise_descriptor_limit() -> int:
    """As many open files and connections as this user may have; how many, 0 where unknown.

    A class of thirty with three tabs each needs some 300; many systems begin at 256.
    """
    if resource is None:
        return 0
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = _DESCRIPTORS if hard == resource.RLIM_INFINITY else min(hard, _DESCRIPTORS)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        with contextlib.suppress(OSError, ValueError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
    return int(resource.getrlimit(resource.RLIMIT_NOFILE)[0])


def forgiving_console() -> None:
    """A character that the console cannot show is written as its number, and ends nothing."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


class Sparing(logging.Filter):
    """Lets a warning or an error through once a minute, for each text of it.

    With no descriptor left, asyncio logs a traceback two thousand times a second.
    """

    def __init__(self) -> None:
        super().__init__()
        self._last: dict[str, float] = {}

    def filter(self, record: logging.LogRecord) -> bool:
        """False for what was said a short time ago."""
        if record.levelno < logging.WARNING:
            return True
        now, text = time.monotonic(), record.getMessage()[:200]
        if now - self._last.get(text, -_SILENCE) < _SILENCE:
            return False
        self._last = {old: at for old, at in self._last.items() if now - at < _SILENCE}
        self._last[text] = now
        return True


def log_to_console() -> None:
    """One line a run, without texts; an error that repeats itself is said once a minute."""
    logging.basicConfig(format="%(asctime)s %(message)s")
    logging.getLogger("lora_core").setLevel(logging.INFO)
    for name in ("asyncio", "uvicorn.error", "lora_core.ui.sentences"):
        logging.getLogger(name).addFilter(Sparing())


def warm_up() -> None:
    """Import what a run needs and the page does not: torch's first step imports a compiler.

    Before serving: a module that fails half-way through its import, for want of a descriptor, say,
    fails all later ones.
    """
    weight = torch.zeros(1, requires_grad=True)
    optimiser = torch.optim.AdamW([weight])
    weight.sum().backward()
    optimiser.step()
