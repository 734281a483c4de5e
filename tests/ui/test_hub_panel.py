"""The Hub's corner of step 5, over a Hub of our own.

What was guessed can be changed, also where the guess was refused; tables that differ have names
that differ.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import gradio as gr
import pytest

import lora_core as lc
from lora_core.serving.registry import Registry, new_visitor
from lora_core.ui.context import Lab
from lora_core.ui.drawing.curves import Curve
from lora_core.ui.luck import groups
from lora_core.ui.page import build_page
from lora_core.ui.panels.compare import compare
from lora_core.ui.panels.own_table import keep_task
from tests.serving.hub_server import Hub, hub_in_place, table_of
from tests.serving.registry import submit, wait
from tests.ui.pressing import pressed

SOME = ("dataset", "some/things")


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    with hub_in_place(monkeypatch) as made:
        yield made


class Corner:
    """A visitor before the four controls."""

    def __init__(self, registry: Registry) -> None:
        self.registry, self.visitor = registry, new_visitor()
        self.page = build_page(registry)
        self.shown: list[Any] = []  # values of the controls
        self.offered: list[list[str] | None] = []  # None: hidden
        self.said: dict[str, Any] = {}
        self.task: str = ""

    def load(self, name: str, kind: str = "task") -> None:
        self._see(pressed(self.page, "hub-load")(self.visitor, kind, name, "bundled"))

    def change(self, name: str, **change: str) -> None:
        """Change a control of "configuration", "split", "text", "label"."""
        (key, value), keys = *change.items(), ("configuration", "split", "text", "label")
        values = [*self.shown]
        values[keys.index(key)] = value
        values = values[:1] if key == "configuration" else values
        self._see(pressed(self.page, f"hub-{key}")(self.visitor, name, *values))

    def _see(self, answer: list[Any]) -> None:
        _, task, _, *controls, self.said = answer
        for place, control in enumerate(controls):
            if isinstance(control, gr.Dropdown):
                self.shown[place:], rest = [], self.shown[place + 1 :]
                self.shown += [control.value, *rest]
                there = [value for _, value in control.choices] if control.visible else None
                self.offered[place:], rest = [], self.offered[place + 1 :]
                self.offered += [there, *rest]
        self.task = task.value if isinstance(task, gr.Dropdown) else self.task

    @property
    def tables(self) -> list[str]:
        return [task.name for task in self.registry.tasks(self.visitor)]


@pytest.fixture
def corner() -> Iterator[Corner]:
    with Registry(workers=1) as registry:
        yield Corner(registry)


def test_a_configuration_that_was_refused_can_be_changed(hub: Hub, corner: Corner) -> None:
    hub.repositories[SOME] = {
        "a/train.csv": b"text,label\nhello,\nthere,\n",
        "b/train.csv": table_of("text", "label"),
        "b/test.csv": table_of("text", "label", last=10),
    }
    corner.load("some/things")
    assert corner.said["bad"] and "No row has both" in corner.said["text"]
    assert corner.shown == ["a", "train", "text", "label"]
    assert corner.offered == [["a", "b"], None, ["text", "label"], ["text", "label"]]
    corner.change("some/things", configuration="b")
    assert not corner.said["bad"] and corner.task == "things"
    assert corner.shown == ["b", "train", "text", "label"]
    assert corner.offered[1] == ["test", "train"]
    corner.change("some/things", split="test")
    assert len(corner.registry.task(corner.visitor, corner.task).train) < 40  # type: ignore[union-attr]


def test_a_table_without_a_guess_for_its_labels(hub: Hub, corner: Corner) -> None:
    rows = "".join(f"a sentence of number {i},key {i},{i % 2}x\n" for i in range(150))
    hub.repositories[SOME] = {"train.csv": f"words,nr,z\n{rows}".encode()}
    corner.load("some/things")
    corner.change("some/things", label="nr")
    assert corner.said["bad"] and "150 different values" in corner.said["text"]
    assert corner.shown[2:] == ["words", "nr"] and corner.offered[3] == ["words", "nr", "z"]
    corner.change("some/things", label="z")
    assert not corner.said["bad"] and corner.task.startswith("things")
    hub.repositories[SOME] = {"train.csv": b"words\nhello\nthere\n"}
    corner.load("some/things")
    assert "only the column 'words'" in corner.said["text"]
    assert corner.offered[2] == ["words"]


def test_a_file_that_is_refused_leaves_the_choice_of_another(hub: Hub, corner: Corner) -> None:
    hub.repositories[SOME] = {"a/train.csv": b"%PDF-1.7", "b/train.csv": table_of("text", "label")}
    corner.load("some/things")
    assert "PDF" in corner.said["text"] and corner.offered == [["a", "b"], None, None, None]
    corner.change("some/things", configuration="b")
    assert corner.task == "things"


def test_without_an_answer_the_controls_stay(hub: Hub, corner: Corner) -> None:
    hub.repositories[SOME] = {"train.csv": table_of("text", "label", "mood")}
    corner.load("some/things")
    before = corner.shown, corner.offered
    hub.status = 500
    corner.change("some/things", label="mood")
    assert corner.said["bad"] and (corner.shown, corner.offered) == before
    hub.status = None
    corner.change("some/things", label="mood")
    assert not corner.said["bad"] and corner.shown[3] == "mood"
    corner.load("some/other")  # another name: the old controls are not its
    assert corner.said["bad"] and corner.offered == [None] * 4


def test_other_columns_are_another_task(hub: Hub, corner: Corner, tiny: lc.Base) -> None:
    """Under one name step 1 would not hear of it, and their runs would be compared as one's."""
    hub.repositories[SOME] = {"train.csv": table_of("text", "label", "mood")}
    corner.load("some/things")
    assert corner.task == "things" and corner.tables == ["things"]
    corner.change("some/things", label="mood")
    assert corner.task == "things-2"
    assert corner.tables == ["things-2"], "nothing was trained on the first one"
    corner.change("some/things", label="mood")  # Gradio's list says it twice
    assert corner.task == "things-2" and corner.tables == ["things-2"]
    first = corner.registry.task(corner.visitor, "things-2")
    assert first is not None and len(first.labels) == 3
    runs = [submit(corner.registry, tiny, first, corner.visitor)]
    corner.change("some/things", label="label")
    assert corner.tables == ["things-2", corner.task] and corner.task != "things-2"
    corner.change("some/things", label="mood")
    assert corner.task == "things-2" and corner.registry.task(corner.visitor, "things-2") is first
    corner.change("some/things", label="label")
    second = corner.registry.task(corner.visitor, corner.task)
    assert second is not None
    runs.append(submit(corner.registry, tiny, second, corner.visitor))
    wait(*runs)
    seen = [(run, Curve(), str(number)) for number, run in enumerate(runs)]
    assert [group["ids"] for group in compare(seen)["groups"]] == [[run.id] for run in runs]
    for task in (first, second):
        assert len(groups(task.name, runs)) == 1


def test_a_name_stays_a_run_s_when_its_table_is_forgotten(
    corner: Corner, tiny: lc.Base, words: lc.Task
) -> None:
    lab = Lab(corner.registry)
    mine = keep_task(lab, corner.visitor, words)
    wait(submit(corner.registry, tiny, mine, corner.visitor))
    corner.registry.remove_task(corner.visitor, mine.name)
    other = lc.Task(words.name, words.labels, words.train[:8], words.validation, words.test)
    assert keep_task(lab, corner.visitor, other).name == "words-2"
    assert keep_task(lab, corner.visitor, words) is mine
