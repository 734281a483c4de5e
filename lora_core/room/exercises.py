"""Exercises of a lesson, out of a TOML file, with a sentence for each mistake in it.

[[exercise]]
title = "The best under 20,000"
question = "Which 20,000 numbers would you train?"
minutes = 10                                  # may be left out
settings = { task = "sentiment", rank = 2 }   # the others are the defaults
seed = "own"                                  # each pupil another one; may be left out
may_change = ["rank", "alpha", "targets"]     # the others are fixed; left out: all may
goal = { most_trained = 20_000 }              # the best accuracy below it; may be left out
"""

from __future__ import annotations

import tomllib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeGuard

from lora_core.errors import LabError
from lora_core.room import RoomError

BUILT_IN = Path(__file__).resolve().parents[2] / "assets" / "room" / "exercises.toml"
_MOST = 30
_LONGEST = {"title": 48, "question": 220}  # characters: to be read from the back of a room
_KEYS = ("title", "question", "minutes", "settings", "seed", "may_change", "goal")


@dataclass(frozen=True)
class Exercise:
    """One of a lesson."""

    number: int  # from 1, in the order of the file
    title: str
    question: str
    minutes: int | None = None
    settings: Mapping[str, Any] = field(default_factory=dict)  # those that are not the defaults
    own_seed: bool = False
    may_change: tuple[str, ...] | None = None  # None: everything
    most_trained: int | None = None  # the goal: the best accuracy with at most so many numbers

    @property
    def task(self) -> str:
        """Name of its task; "" where the file leaves it open."""
        return str(self.settings.get("task", ""))


def read_exercises(
    path: Path,
    names: Sequence[str],
    check: Callable[[Mapping[str, Any]], None],
) -> list[Exercise]:
    """All exercises of a file. Raises `RoomError` with the file, the exercise and the mistake.

    `names` are the settings that there are; `check` raises a `LabError` for values that are none.
    """
    try:
        content = tomllib.loads(path.read_text(encoding="utf-8-sig"))  # some editors put a mark
    except FileNotFoundError as error:
        raise RoomError(f"{path}: there is no such file.") from error
    except OSError as error:
        raise RoomError(f"{path} cannot be read ({error.strerror or error}).") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise RoomError(f"{path} is not TOML: {error}.") from error
    try:
        return _read(content, names, check)
    except RoomError as error:
        raise RoomError(f"{path}: {error}") from error


def _read(
    content: Mapping[str, Any],
    names: Sequence[str],
    check: Callable[[Mapping[str, Any]], None],
) -> list[Exercise]:
    _known(content, ("exercise",), "The file")
    entries = content.get("exercise")
    if not isinstance(entries, list) or not entries:
        raise RoomError("there is no exercise in it: each begins with the line [[exercise]].")
    if not all(isinstance(entry, dict) for entry in entries):
        raise RoomError("each exercise begins with the line [[exercise]].")
    if len(entries) > _MOST:
        raise RoomError(f"it has {len(entries)} exercises; at most {_MOST} fit the desk.")
    made: list[Exercise] = []
    for number, entry in enumerate(entries, start=1):
        try:
            made.append(_exercise(number, entry, names, check))
        except LabError as error:
            raise RoomError(f"exercise {number}: {error}") from error
        if made[-1].title in [other.title for other in made[:-1]]:
            raise RoomError(
                f"exercise {number}: another one has the title '{made[-1].title}', too."
            )
    return made


def _exercise(
    number: int,
    entry: Mapping[str, Any],
    names: Sequence[str],
    check: Callable[[Mapping[str, Any]], None],
) -> Exercise:
    _known(entry, _KEYS, "An exercise")
    texts = {key: _text(entry, key) for key in _LONGEST}
    minutes = entry.get("minutes")
    if minutes is not None and not (_is_whole(minutes) and 1 <= minutes <= 180):
        raise RoomError(f"minutes must be a whole number from 1 to 180, not {minutes!r}.")
    settings = entry.get("settings", {})
    if not isinstance(settings, dict):
        raise RoomError('settings must be a table: settings = { task = "sentiment", rank = 2 }.')
    _known(settings, names, "settings")
    check(settings)
    if entry.get("seed", "own") != "own":
        raise RoomError('seed can be "own" only, a seed for each pupil; one seed is a setting.')
    own_seed = "seed" in entry
    if own_seed and "seed" in settings:
        raise RoomError('seed = "own" and a seed in settings contradict each other: remove one.')
    may_change = entry.get("may_change")
    if may_change is not None:
        if not isinstance(may_change, list) or not all(isinstance(n, str) for n in may_change):
            raise RoomError('may_change must be a list of settings: ["rank", "alpha"].')
        for name in may_change:
            if name not in names:
                raise RoomError(f"may_change: {_no_such(name, names)}")
            if may_change.count(name) > 1:
                raise RoomError(f"may_change has '{name}' twice.")
    return Exercise(
        number,
        texts["title"],
        texts["question"],
        minutes,
        dict(settings),
        own_seed,
        None if may_change is None else tuple(may_change),
        _goal(entry.get("goal")),
    )


def _goal(goal: object) -> int | None:
    if goal is None:
        return None
    if not isinstance(goal, dict):
        raise RoomError("goal must be a table: goal = { most_trained = 20_000 }.")
    _known(goal, ("most_trained",), "goal")
    if "most_trained" not in goal:
        raise RoomError("goal has no most_trained: goal = { most_trained = 20_000 }.")
    most = goal["most_trained"]
    if not (_is_whole(most) and 1 <= most <= 10**12):
        raise RoomError(f"most_trained must be a whole number from 1 up, not {most!r}.")
    return int(most)


def _text(entry: Mapping[str, Any], key: str) -> str:
    value = entry.get(key)
    if value is None:
        raise RoomError(f"it has no {key}.")
    if not isinstance(value, str) or not value.strip():
        raise RoomError(f"{key} must be a text that is not empty, not {value!r}.")
    text = " ".join(value.split())
    if len(text) > _LONGEST[key]:
        raise RoomError(
            f"its {key} has {len(text)} characters; from the back of a room {_LONGEST[key]} can "
            "be read."
        )
    return text


def _known(table: Mapping[str, Any], names: Sequence[str], what: str) -> None:
    for name in table:
        if name not in names:
            raise RoomError(f"{what}: {_no_such(name, names)}")


def _no_such(name: str, names: Sequence[str]) -> str:
    if len(names) == 1:
        return f"there is no '{name}'; there is {names[0]} only."
    return f"there is no '{name}'; there are {', '.join(names)}."


def _is_whole(value: object) -> TypeGuard[int]:
    return isinstance(value, int) and not isinstance(value, bool)
