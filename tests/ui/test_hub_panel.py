"""The Hub's corner of step 5, over a Hub of our own.

What was guessed can be changed, also where the guess was refused; tables that differ have names
that differ.
"""

from __future__ import annotations

import asyncio
import io
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import gradio as gr
import openpyxl
import pytest

import lora_core as lc
from lora_core.serving.registry import Registry, new_visitor
from lora_core.ui.context import Lab
from lora_core.ui.drawing.curves import Curve
from lora_core.ui.luck import groups
from lora_core.ui.page import build_page
from lora_core.ui.panels.compare import compare
from lora_core.ui.panels.own_table import keep_task
from lora_core.ui.panels.reading import FOUND_OUT as FOUND
from lora_core.ui.panels.reading import WAYS
from tests.serving.hub_server import Hub, hub_in_place, table_of
from tests.serving.registry import submit, wait
from tests.ui.pressing import pressed

SOME = ("dataset", "some/things")
CONTROLS = ("configuration", "split", "text", "label", *WAYS)


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    with hub_in_place(monkeypatch) as made:
        yield made


class Corner:
    """A visitor before the controls."""

    def __init__(self, registry: Registry) -> None:
        self.registry, self.visitor = registry, new_visitor()
        self.page = build_page(registry)
        self.shown: list[Any] = []  # values of the controls
        self.offered: list[list[str] | None] = []  # None: hidden
        self.words: list[str] = []  # of the values
        self.preview: dict[str, Any] = {}
        self.said: dict[str, Any] = {}
        self.task: str = ""

    def load(self, name: str, kind: str = "task") -> None:
        self._ask("hub-load", kind, name, "bundled")

    def change(self, name: str, **change: str) -> None:
        """Change one of `CONTROLS`."""
        ((key, value),) = change.items()
        values = [*self.shown]
        values[CONTROLS.index(key)] = value
        values = values[:1] if key == "configuration" else values
        self._ask(f"hub-{key}", name, *values)

    def _ask(self, control: str, *sent: Any) -> None:
        self._see(self.answer(control, *sent))

    def answer(self, control: str, *sent: Any) -> list[Any]:
        """What the page gets where this control sends this."""
        request: Any = SimpleNamespace(session_hash="a page")
        answer: list[Any] = asyncio.run(pressed(self.page, control)(request, self.visitor, *sent))
        return answer

    def _see(self, answer: list[Any]) -> None:
        _, task, _, *controls, preview, self.said = answer
        if isinstance(preview, dict):
            self.preview = preview
        for place, control in enumerate(controls):
            if isinstance(control, gr.Dropdown):
                self.shown[place:], rest = [], self.shown[place + 1 :]
                self.shown += [control.value, *rest]
                there = [value for _, value in control.choices] if control.visible else None
                self.offered[place:], rest = [], self.offered[place + 1 :]
                self.offered += [there, *rest]
                named = {value: words for words, value in control.choices}
                self.words[place:], rest = [], self.words[place + 1 :]
                self.words += [str(named.get(control.value, "")), *rest]
        self.task = task.value if isinstance(task, gr.Dropdown) else self.task

    @property
    def ways(self) -> dict[str, tuple[Any, str]]:
        """Of the controls of how the file is read, those that are seen: value, and its words."""
        first = len(CONTROLS) - len(WAYS)
        seen = {}
        for way, value, words, offered in zip(
            WAYS, self.shown[first:], self.words[first:], self.offered[first:], strict=True
        ):
            if offered is not None:
                seen[way] = value, words
        return seen

    @property
    def texts(self) -> list[str]:
        """What would be trained on."""
        task = self.registry.task(self.visitor, self.task)
        assert task is not None
        return [example.text for example in task.train]

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
    assert corner.shown[:4] == ["a", "train", "text", "label"]
    assert corner.offered[:4] == [["a", "b"], None, ["text", "label"], ["text", "label"]]
    corner.change("some/things", configuration="b")
    assert not corner.said["bad"] and corner.task == "things"
    assert corner.shown[:4] == ["b", "train", "text", "label"]
    assert corner.offered[1] == ["test", "train"]
    corner.change("some/things", split="test")
    assert len(corner.registry.task(corner.visitor, corner.task).train) < 40  # type: ignore[union-attr]


def test_a_table_without_a_guess_for_its_labels(hub: Hub, corner: Corner) -> None:
    rows = "".join(f"a sentence of number {i},key {i},{i % 2}x\n" for i in range(150))
    hub.repositories[SOME] = {"train.csv": f"words,nr,z\n{rows}".encode()}
    corner.load("some/things")
    corner.change("some/things", label="nr")
    assert corner.said["bad"] and "150 different values" in corner.said["text"]
    assert corner.shown[2:4] == ["words", "nr"] and corner.offered[3] == ["words", "nr", "z"]
    corner.change("some/things", label="z")
    assert not corner.said["bad"] and corner.task.startswith("things")
    hub.repositories[SOME] = {"train.csv": b"words\nhello\nthere\n"}
    corner.load("some/things")
    assert "only the column 'words'" in corner.said["text"]
    assert corner.offered[2] == ["words"]


def test_a_file_that_is_refused_leaves_the_choice_of_another(hub: Hub, corner: Corner) -> None:
    hub.repositories[SOME] = {"a/train.csv": b"%PDF-1.7", "b/train.csv": table_of("text", "label")}
    corner.load("some/things")
    assert "PDF" in corner.said["text"] and corner.offered == [["a", "b"], *[None] * 7]
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
    assert corner.said["bad"] and corner.offered == [None] * 8


def czech(first: str = "Zpráva;Oddělení") -> bytes:
    """As Excel writes a CSV in Prague."""
    rows = [f"Žluťoučký kůň č. {i}, {word};{word}" for i in range(30) for word in ("šek", "účet")]
    return "\n".join([first, *rows, ""]).encode("cp1250")


def test_how_a_file_is_read_is_shown_and_can_be_changed(hub: Hub, corner: Corner) -> None:
    """Each change reads what is there already, and leaves the other choices."""
    hub.repositories[SOME] = {"train.csv": czech()}
    corner.load("some/things")
    assert corner.ways == {
        "header": (FOUND, "line 1 (found)"),
        "encoding": (FOUND, "Windows-1250 (found)"),
        "separator": (FOUND, "semicolon (found)"),
    }
    corner.change("some/things", encoding="cp1252")
    assert corner.shown[2:4] == ["Zpráva", "Oddìlení"] and "kùò è. " in corner.texts[0]
    corner.change("some/things", header="0")
    assert corner.shown[2:5] == ["column 1", "column 2", "0"]
    assert corner.ways["encoding"][0] == "cp1252"
    assert corner.ways["separator"][1] == "semicolon (found)"
    corner.change("some/things", encoding=FOUND)
    assert "Žluťoučký" in corner.texts[0] and corner.shown[4] == "0"
    assert hub.fetched == ["train.csv"]
    hub.repositories[SOME] = {"train.csv": table_of("text", "label")}
    corner.change("some/things", header="1")  # published anew meanwhile
    assert hub.fetched == ["train.csv"] * 2 and corner.shown[2:4] == ["text", "label"]


def test_what_is_said_twice_is_no_error(hub: Hub, corner: Corner) -> None:
    """Gradio's lists send a choice twice; the second one may name a column that is no more."""
    hub.repositories[SOME] = {"train.csv": czech()}
    corner.load("some/things")
    sent = [*corner.shown]
    sent[CONTROLS.index("encoding")] = "cp1252"
    again = corner.answer("hub-encoding", "some/things", *sent)
    assert corner.answer("hub-encoding", "some/things", *sent)[-1] == again[-1]
    blocks = {getattr(block, "elem_id", None): block for block in corner.page.blocks.values()}
    for way in CONTROLS:  # Gradio's own refusal stands before the function
        events = [
            event
            for event in corner.page.fns.values()
            if (blocks[f"hub-{way}"]._id, "input") in event.targets
        ]
        assert events and not any(event.preprocess for event in events)


def test_what_is_chosen_while_a_table_is_brought_counts(hub: Hub, corner: Corner) -> None:
    hub.repositories[SOME] = {"train.csv": table_of("text", "label")}
    request: Any = SimpleNamespace(session_hash="a page")
    bring = pressed(corner.page, "hub-load")

    async def press() -> list[list[Any]]:
        names = ("some/nothing", "some/things", "some/things")  # the last one twice
        sent = [bring(request, corner.visitor, "task", name, "bundled") for name in names]
        return await asyncio.gather(*sent)

    first, second, again = asyncio.run(press())
    skipped = [gr.skip()] * len(first)
    assert first == again == skipped
    assert not second[-1]["bad"] and corner.tables == ["things"]


def test_a_choice_that_does_not_fit_is_said_and_stays(hub: Hub, corner: Corner) -> None:
    hub.repositories[SOME] = {"train.csv": czech()}
    corner.load("some/things")
    for way, value, words in (
        ("separator", "\t", "only the column"),
        ("encoding", "no such", "no encoding 'no such'"),
        ("header", "the first", "is no number of a line"),
    ):
        before, task = corner.shown[:4], corner.task
        corner.change("some/things", **{way: value})
        assert corner.said["bad"] and words in corner.said["text"]
        assert corner.ways.keys() == {"header", "encoding", "separator"} and corner.task == task
        if way == "encoding":
            assert corner.ways[way] == (value, value) and corner.shown[:4] == before
        corner.change("some/things", **{way: FOUND})
        assert not corner.said["bad"] and corner.shown[2:4] == ["Zpráva", "Oddělení"]


def workbook(**sheets: list[tuple[str, str]]) -> bytes:
    book, file = openpyxl.Workbook(), io.BytesIO()
    book.remove(book.active)
    for name, rows in sheets.items():
        for row in rows:
            (book[name] if name in book.sheetnames else book.create_sheet(name)).append(row)
    book.save(file)
    return file.getvalue()


def some_rows(labels: int) -> list[tuple[str, str]]:
    return [("text", "label"), *((f"a text {i} so", f"kind {i % labels}") for i in range(60))]


def test_another_sheet_of_a_workbook(hub: Hub, corner: Corner) -> None:
    notes = [("See the other sheets.", "")]
    book = workbook(About=notes, Now=some_rows(2), Then=some_rows(3))
    hub.repositories[SOME] = {"train.xlsx": book}
    corner.load("some/things")
    assert corner.ways == {"header": (FOUND, "row 1 (found)"), "sheet": (FOUND, "Now (found)")}
    corner.change("some/things", sheet="About")
    assert corner.said["bad"] and corner.shown[5] == "About"
    corner.change("some/things", sheet="Then")
    assert not corner.said["bad"] and hub.fetched == ["train.xlsx"]
    task = corner.registry.task(corner.visitor, corner.task)
    assert task is not None and len(task.labels) == 3


def test_a_sheet_that_cannot_be_read_leaves_the_others(hub: Hub, corner: Corner) -> None:
    wide: Any = [tuple(f"c{n}" for n in range(250))] * 5
    hub.repositories[SOME] = {"train.xlsx": workbook(raw=wide, labelled=some_rows(2))}
    corner.load("some/things")
    assert corner.said["bad"] and "That is the sheet “raw”" in corner.said["text"]
    assert corner.offered[5] == [FOUND, "raw", "labelled"]
    corner.change("some/things", sheet="labelled")
    assert not corner.said["bad"] and corner.task == "things"


def test_what_is_chosen_holds_for_another_split_and_not_for_other_files(
    hub: Hub, corner: Corner
) -> None:
    hub.repositories[SOME] = {
        "a/train.csv": czech(),
        "a/test.csv": czech("Text;Druh"),
        "b/train.csv": table_of("text", "label"),
    }
    corner.load("some/things")
    corner.change("some/things", encoding="cp1252")
    corner.change("some/things", split="test")
    assert corner.shown[1:4] == ["test", "Text", "Druh"]
    assert corner.ways["encoding"][0] == "cp1252"
    corner.change("some/things", configuration="b")
    assert corner.shown[1:4] == ["train", "text", "label"]
    assert corner.ways["encoding"] == (FOUND, "UTF-8 (found)")


def test_shards_that_were_read_in_different_ways(hub: Hub, corner: Corner) -> None:
    """What holds for some of them only is not said to be found."""
    part = czech().decode("cp1250").replace("č. 1", "č. 1001")
    hub.repositories[SOME] = {
        "train-00000-of-00002.csv": czech(),
        "train-00001-of-00002.csv": part.encode("utf-8"),
    }
    corner.load("some/things")
    assert corner.ways["encoding"] == (FOUND, "find out")
    assert corner.ways["separator"] == (FOUND, "semicolon (found)")


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
