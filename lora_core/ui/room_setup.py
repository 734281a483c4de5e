"""Opening a room: its key, its exercises, and what is said of it at the start."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from lora_core.config import TARGETS, ConfigError
from lora_core.limits import Limits
from lora_core.room.exercises import BUILT_IN, Exercise, read_exercises
from lora_core.room.key import VARIABLE, Key
from lora_core.room.room import Room
from lora_core.serving.bases import Bases
from lora_core.serving.registry import Registry
from lora_core.tasks.bundled import task_names
from lora_core.ui.hosts import Address
from lora_core.ui.settings import Settings

_TRUE, _FALSE = ("1", "true", "yes", "on"), ("", "0", "false", "no", "off")


def is_wanted(option: bool) -> bool:
    """Whether there is to be a room: by `--room`, or by LORA_LAB_ROOM=1. Raises `ConfigError`."""
    said = os.environ.get("LORA_LAB_ROOM", "").strip().lower()
    if said not in (*_TRUE, *_FALSE):
        raise ConfigError(f"LORA_LAB_ROOM must be 1 or 0, not {said!r}.")
    return option or said in _TRUE


def exercises_of(
    path: Path | None, limits: Limits, bases: Sequence[str] | None = None
) -> list[Exercise]:
    """The exercises of a file, or those that come along; `bases` are those that the host offers by
    name. Raises `RoomError` or `ConfigError`."""
    return read_exercises(path or BUILT_IN, Settings.names(), checker(limits, bases))


def open_room(
    registry: Registry,
    key: Key,
    exercises: Sequence[Exercise],
    folder: Path | None,
    bases: Sequence[str] | None = None,
) -> Room:
    """The room of a server, before the page takes up its runs; `bases` are those that its host
    offers by name."""
    shown = Bases(registry.limits, bases).menu() if bases else []
    return Room(registry, key, exercises, folder=folder, bases={"bundled", *shown})


def checker(
    limits: Limits, bases: Sequence[str] | None = None
) -> Callable[[Mapping[str, Any]], None]:
    """Raises `ConfigError` for settings that this server does not take."""

    def check(settings_by_name: Mapping[str, Any]) -> None:
        settings = Settings.read(settings_by_name)
        settings.lora_config()
        settings.train_config()
        settings.each_seed()
        if settings.task not in task_names():
            there = ", ".join(task_names())
            raise ConfigError(f"there is no task '{settings.task}'; there are {there}.")
        shown = Bases(limits, bases)
        if not shown.known(settings.base) and (bases is not None or "/" not in settings.base):
            there = ", ".join(shown.menu())
            raise ConfigError(f"there is no base '{settings.base}'; there are {there}.")
        for target in settings.targets:
            if target not in TARGETS:
                raise ConfigError(
                    f"targets: there is no layer '{target}'; there are {', '.join(TARGETS)}."
                )
        caps = {"rank": limits.max_rank, "steps": limits.max_steps, "batch_size": limits.max_batch}
        for name, most in caps.items():
            if getattr(settings, name) > most:
                raise ConfigError(f"{name}: this server takes at most {most:,}.")

    return check


def whereabouts(key: Key, shared: str | None, address: Address) -> str:
    """Where board and desk are. A key that came as a secret is not written anywhere.

    `shared`: the public link, if there is one.
    """
    public = shared or address.outside or address.here
    public = public.rstrip("/") + "/"
    shown = (
        f"KEY, the secret {VARIABLE}"
        if key.from_environment
        else "the teacher's link, for nobody else"
    )
    secret = "KEY" if key.from_environment else key.secret
    return f"The board for the projector: {public}board\nThe desk: {public}desk#{secret}  ({shown})"
