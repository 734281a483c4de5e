"""Every cap of a shared server in one place, with a sentence for the visitor who meets one.

The defaults suit thirty people on two cores. Each can be changed for a teacher's machine: on the
command line (`--max-steps 5000`) or in the environment (`LORA_LAB_MAX_STEPS=5000`).
"""

from __future__ import annotations

import argparse
import contextlib
import difflib
import os
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

from lora_core.config import ConfigError
from lora_core.errors import LabError

PREFIX = "LORA_LAB_"
MEGABYTE = 1_000_000


class RunError(LabError, RuntimeError):
    """Something a visitor asked for and cannot have; the message is a sentence for them."""


_QUOTA = Path("/sys/fs/cgroup/memory.max")


def memory_mb(quota: Path = _QUOTA) -> int | None:
    """The memory of this machine or container, in megabytes; None where that cannot be found out
    (on Windows, say)."""
    try:
        memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, OSError, ValueError):
        return None
    with contextlib.suppress(OSError, ValueError):  # no Linux, no container, or "max": no quota
        memory = min(memory, int(quota.read_text()))
    return memory // MEGABYTE


def memory_share_mb(quota: Path = _QUOTA) -> int:
    """A quarter of it, from 200 to 32,000; 1,000 where it cannot be found out."""
    memory = memory_mb(quota)
    return 1000 if memory is None else max(200, min(32_000, memory // 4))


def _cap(default: int, help: str) -> int:
    value: int = field(default=default, metadata={"help": help})
    return value


@dataclass(frozen=True)
class Limits:
    """Whole numbers from 1 up. Of one run, of one visitor, and of the server."""

    max_steps: int = _cap(2000, "optimiser steps of one run")
    max_batch: int = _cap(64, "texts a step")
    max_rank: int = _cap(64, "rank of an adapter")
    max_characters: int = _cap(20_000, "characters of one text to classify or to watch")
    max_texts: int = _cap(100, "texts to classify in one request of the web API")
    max_watched: int = _cap(8, "texts watched along one run")
    max_rows: int = _cap(50_000, "rows of a visitor's table")
    max_columns: int = _cap(200, "columns of a visitor's table")
    unpacked_mb: int = _cap(20, "megabytes that a visitor's XLSX or Parquet table may unpack to")
    upload_mb: int = _cap(20, "megabytes of one uploaded file")
    run_mb: int = _cap(1500, "megabytes that one run may need while it trains")
    waiting_a_visitor: int = _cap(25, "runs of one visitor that wait")
    waiting_an_address: int = _cap(
        90, "runs of one address that wait; a class behind one router has one address"
    )
    waiting_in_all: int = _cap(120, "runs of all visitors that wait")
    runs_kept: int = _cap(40, "ended runs kept for each visitor; the longest unused goes first")
    tables_kept: int = _cap(5, "tables kept for each visitor; the longest unused goes first")
    memory_mb: int = _cap(
        memory_share_mb(),
        "megabytes kept for all visitors, a quarter of this machine's memory unless said; weights "
        "of full fine-tuning go first, then the longest unused",
    )
    disk_mb: int = _cap(2000, "megabytes kept in the store; the longest unused goes first")
    stored_hours: int = _cap(336, "hours of serving after which a stored run is forgotten, unused")
    bases_mb: int = _cap(
        max(600, memory_share_mb()),
        "megabytes of base models in memory, a quarter of this machine's memory and at least 600 "
        "unless said; those that nobody uses go first",
    )
    idle_minutes: int = _cap(180, "minutes after which what nobody uses is forgotten")

    def __post_init__(self) -> None:
        for cap in fields(self):
            value = getattr(self, cap.name)
            if not isinstance(value, int) or isinstance(value, bool) or value < 1:
                raise ConfigError(f"{cap.name} must be a whole number from 1 up, not {value!r}.")

    @classmethod
    def from_environment(cls, **overrides: int | None) -> Limits:
        """The defaults, changed by LORA_LAB_MAX_STEPS and the like, then by what is given here.

        A value of None changes nothing, so that `vars()` of parsed arguments can be handed on.
        Raises `ConfigError` that names the variable.
        """
        values: dict[str, Any] = {}
        for cap in fields(cls):
            variable = PREFIX + cap.name.upper()
            raw = os.environ.get(variable, "").strip()
            if raw:
                try:
                    values[cap.name] = int(raw)
                except ValueError as error:
                    raise ConfigError(f"{variable} must be a whole number, not {raw!r}.") from error
        values.update({name: value for name, value in overrides.items() if value is not None})
        return cls(**values)

    @classmethod
    def from_arguments(cls, arguments: argparse.Namespace) -> Limits:
        """The caps of a command line made by `add_arguments`; others of its values are ignored."""
        names = {cap.name for cap in fields(cls)}
        values = {name: value for name, value in vars(arguments).items() if name in names}
        return cls.from_environment(**values)

    def check_text(self, text: object) -> None:
        """Raise `RunError` for what is not a text, or is longer than this server reads."""
        if not isinstance(text, str):
            raise RunError(f"A text is needed, not {type(text).__name__}.")
        if len(text) > self.max_characters:
            raise RunError(
                f"This text has {len(text):,} characters; this server reads at most "
                f"{self.max_characters:,}."
            )

    def check_rows(self, rows: int) -> None:
        """Raise `RunError` for a table with more rows than this server takes."""
        if rows > self.max_rows:
            raise RunError(
                f"This table has {rows:,} rows; this server takes at most {self.max_rows:,}."
            )


# Variables besides the caps.
_VARIABLES = ("HOST", "DATA", "BASES", "ROOM", "ROOM_KEY", "DEVICE", "DTYPE", "CACHE")


def unknown_variables() -> list[str]:
    """A sentence for each variable of the environment that seems to be meant for us, misspelt."""
    known = [PREFIX + name for name in (*_VARIABLES, *(cap.name.upper() for cap in fields(Limits)))]
    sentences = []
    for name in sorted(os.environ):
        if name.upper().startswith(PREFIX) and name not in known:
            like = difflib.get_close_matches(name.upper(), known, 1, 0.85)
            meant = f"Is {like[0]} meant?" if like else "python app.py --help has those there are."
            if name.upper() == PREFIX + "PORT":
                meant = "The port is --port, or GRADIO_SERVER_PORT."
            sentences.append(f"{name} changes nothing: there is no such variable. {meant}")
    return sentences


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """One option for each cap (`--max-steps N`), for `Limits.from_arguments`."""
    group = parser.add_argument_group(
        "limits of this server", f"Each also as an environment variable: {PREFIX}MAX_STEPS=N."
    )
    for cap in fields(Limits):
        option = "--" + cap.name.replace("_", "-")
        text = f"{cap.metadata['help']} (default {cap.default:,})"
        group.add_argument(option, type=int, metavar="N", help=text)
