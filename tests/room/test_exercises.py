"""Exercises out of a file: those that come along, and a sentence for each mistake."""

from __future__ import annotations

from pathlib import Path

import pytest

from lora_core.limits import Limits
from lora_core.room import RoomError
from lora_core.ui.room_setup import exercises_of

GOOD = """
[[exercise]]
title = "The best under 20,000"
question = "Which numbers would you train?"
minutes = 10
settings = { task = "sentiment", rank = 2, alpha = 4, targets = ["query", "value"] }
seed = "own"
may_change = ["rank", "alpha"]
goal = { most_trained = 20_000 }

[[exercise]]
title = "Free"
question = "What you like."
"""


def test_those_that_come_along_are_a_lesson_of_forty_five_minutes() -> None:
    exercises = exercises_of(None, Limits())
    assert sum(exercise.minutes or 0 for exercise in exercises) == 45
    assert any(exercise.most_trained == 20_000 for exercise in exercises)
    assert [exercise.number for exercise in exercises] == [1, 2, 3, 4, 5, 6]


def test_a_file_of_ones_own(tmp_path: Path) -> None:
    path = tmp_path / "mine.toml"
    path.write_text(GOOD, encoding="utf-8-sig")  # as some editors write it
    first, second = exercises_of(path, Limits())
    assert first.settings["targets"] == ["query", "value"] and first.task == "sentiment"
    assert (first.minutes, first.most_trained, first.own_seed) == (10, 20_000, True)
    assert first.may_change == ("rank", "alpha")
    assert (second.minutes, second.most_trained, second.may_change) == (None, None, None)


@pytest.mark.parametrize(
    ("right", "wrong", "said"),
    [
        ('title = "Free"', "", "exercise 2: it has no title."),
        ('title = "Free"', 'title = ""', "title must be a text"),
        ('title = "Free"', 'title = "The best under 20,000"', "has the title"),
        ('title = "Free"', f'title = "{"x" * 60}"', "its title has 60 characters"),
        ('question = "What you like."', "", "it has no question."),
        ("minutes = 10", "minutes = 0", "minutes must be a whole number from 1 to 180, not 0"),
        ("minutes = 10", "minutes = true", "minutes must be"),
        ("minutes = 10", "colour = 1", "An exercise: there is no 'colour'; there are title"),
        ('task = "sentiment"', 'task = "poems"', "there is no task 'poems'; there are"),
        ('task = "sentiment"', 'base = "poems"', "there is no base 'poems'; there are bundled"),
        ("rank = 2", 'rank = "many"', "rank must be a number"),
        ("rank = 2", "rank = 0", "exercise 1: "),
        ("rank = 2", "rank = 128", "rank: this server takes at most 64."),
        ("rank = 2", "ranks = 2", "settings: there is no 'ranks'"),
        ('"query", "value"', '"eyes"', "eyes"),
        ('seed = "own"', 'seed = "mine"', 'seed can be "own" only'),
        ("rank = 2", "seed = 2", "contradict each other"),
        ('["rank", "alpha"]', '["rang"]', "may_change: there is no 'rang'"),
        ('["rank", "alpha"]', '"rank"', "may_change must be a list"),
        ('["rank", "alpha"]', '["rank", "rank"]', "may_change has 'rank' twice."),
        ("{ most_trained = 20_000 }", "{}", "goal has no most_trained"),
        ("most_trained = 20_000", "most_trained = 0", "most_trained must be"),
        ("most_trained = 20_000", "accuracy = 1", "goal: there is no 'accuracy'"),
        ("{ most_trained = 20_000 }", "20_000", "goal must be a table"),
        ("[[exercise]]", "[[excercise]]", "there is no 'excercise'; there is exercise only."),
        ("minutes = 10", "minutes = ten", "is not TOML"),
    ],
)
def test_a_mistake_has_a_sentence(tmp_path: Path, right: str, wrong: str, said: str) -> None:
    assert right in GOOD
    path = tmp_path / "mine.toml"
    path.write_text(GOOD.replace(right, wrong), encoding="utf-8")
    with pytest.raises(RoomError) as error:
        exercises_of(path, Limits())
    assert said in str(error.value) and str(path) in str(error.value)


def test_files_that_are_none(tmp_path: Path) -> None:
    with pytest.raises(RoomError, match="there is no such file"):
        exercises_of(tmp_path / "none.toml", Limits())
    with pytest.raises(RoomError, match="cannot be read"):
        exercises_of(tmp_path, Limits())
    empty, binary = tmp_path / "empty.toml", tmp_path / "binary.toml"
    empty.write_text("", encoding="utf-8")
    binary.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(RoomError, match="there is no exercise in it"):
        exercises_of(empty, Limits())
    with pytest.raises(RoomError, match="is not TOML"):
        exercises_of(binary, Limits())
