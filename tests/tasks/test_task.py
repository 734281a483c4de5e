"""Tasks: splitting, names, what a notebook user calls."""

from __future__ import annotations

import dataclasses
import inspect
from collections import Counter

import pytest

import lora_core as lc
from lora_core.tasks import bundled
from lora_core.tasks.bundled import COLLECTION, TITLES, task_names
from lora_core.tasks.task import make_task, normalise


def rows(**counts: int) -> list[tuple[str, str]]:
    return [(f"{label} {i}", label) for label, count in counts.items() for i in range(count)]


def parts(task: lc.Task) -> list[Counter[str]]:
    return [
        Counter(task.labels[e.label] for e in part)
        for part in (task.train, task.validation, task.test)
    ]


def test_the_split_is_70_10_20_within_each_label() -> None:
    task = make_task("t", rows(a=100, b=50))
    assert task.labels == ("a", "b")
    assert parts(task) == [{"a": 70, "b": 35}, {"a": 10, "b": 5}, {"a": 20, "b": 10}]


@pytest.mark.parametrize("count", range(1, 30))
def test_a_few_rows_are_shared_out_and_none_is_lost(count) -> None:
    train, validation, test = parts(make_task("t", rows(a=count, b=100)))
    assert train["a"] + validation["a"] + test["a"] == count and train["a"] >= 1
    if count >= 3:
        assert validation["a"] >= 1 and test["a"] >= 1
        assert train["a"] >= validation["a"] and train["a"] >= test["a"]


def test_the_split_depends_on_seed_and_rows_only() -> None:
    first, again = make_task("t", rows(a=40, b=40)), make_task("u", rows(b=40, a=40))
    assert (first.train, first.test) == (again.train, again.test)
    assert make_task("t", rows(a=40, b=40), seed=1).train != first.train


def test_texts_that_read_the_same_come_once() -> None:
    twins = [(text, label) for text, label in rows(a=20, b=20)]
    twins += [(f"  {text.replace(' ', chr(0xA0))}\u200b ", label) for text, label in twins]
    task = make_task("t", twins)
    texts = [normalise(e.text) for part in (task.train, task.validation, task.test) for e in part]
    assert len(texts) == len(set(texts)) == 40


def test_what_differs_for_a_reader_differs_but_is_not_trained_and_tested_on() -> None:
    """Capitals and full stops make another text, which comes into the same part."""
    twins = [
        (f"{text}{mark}", label) for text, label in rows(a=40, b=40) for mark in ("", "!", ".")
    ]
    twins += [(text.upper(), label) for text, label in rows(a=40, b=40)]
    task = make_task("t", twins)
    whole = [task.train, task.validation, task.test]
    assert sum(map(len, whole)) == 320
    families = [{e.text.strip("!.").lower() for e in part} for part in whole]
    assert sum(map(len, families)) == len(set().union(*families)) == 80
    assert all(
        abs(len(p) - share * 320) <= 8 for p, share in zip(whole, (0.7, 0.1, 0.2), strict=True)
    )


@pytest.mark.parametrize("count", [0, 1, 101])
def test_two_to_a_hundred_labels(count) -> None:
    with pytest.raises(lc.TaskError, match=f"not {count}"):
        make_task("t", [(f"text {i}", f"label {i % max(1, count)}") for i in range(5 * count)])


def test_a_hundred_labels_are_taken() -> None:
    task = make_task("t", [(f"text {i}", f"label {i % 100}") for i in range(500)])
    assert len(task.labels) == 100 and all(
        len(part) == 100 for part in (task.validation, task.test)
    )


def test_every_bundled_task_has_a_title() -> None:
    assert set(TITLES) == set(task_names())
    assert {lc.load_task(name).title for name in task_names()} == set(TITLES.values())


def test_a_bundled_table_read_as_one_s_own_is_the_same_task() -> None:
    for name in task_names():
        task = lc.load_task(name)
        own = lc.read_task(f"assets/tasks/{name}.csv")
        assert own.warnings == () and own.labels == task.labels
        assert (own.train, own.validation, own.test) == (task.train, task.validation, task.test)


def test_the_collection_is_the_downloaded_one(monkeypatch, task) -> None:
    monkeypatch.setattr(bundled, "sms_spam_collection", lambda: task)
    assert lc.load_task(COLLECTION) is task


def test_an_unknown_name_is_answered_with_those_there_are() -> None:
    with pytest.raises(lc.TaskError, match=r"'poetry'\. There are: .*sms-spam"):
        lc.load_task("poetry")
    with pytest.raises(lc.TaskError, match="no task called"):
        lc.load_task("../tasks/sms-spam")


def test_docstrings_say_what_a_notebook_user_needs() -> None:
    for function in (lc.read_task, lc.load_task):
        text = inspect.getdoc(function) or ""
        assert "TaskError" in text and "task = lc." in text and "70/10/20" in text
    assert all(name in (lc.load_task.__doc__ or "") for name in [*task_names(), COLLECTION])
    assert list(inspect.signature(lc.read_task).parameters) == [
        "path",
        "text_column",
        "label_column",
        "header",
        "sheet",
        "encoding",
        "separator",
        "seed",
        "limits",
    ]


def test_an_own_table_just_trains(tmp_path, base) -> None:
    task = lc.load_task("support-topic")
    lines = [f'{task.labels[e.label]}\t"{e.text}"' for e in task.train[:200]]
    path = tmp_path / "from work.tsv"
    path.write_text("Desk\tWhat they wrote\n" + "\n".join(lines), encoding="utf-16")
    own = lc.read_task(path, text_column="What they wrote", label_column="Desk", seed=3)
    assert own.labels == task.labels and own.title == own.name == "from work"
    *_, end = lc.fine_tune(base, own, lc.LoRAConfig(rank=2), lc.TrainConfig(steps=4, batch_size=4))
    answer = end.classifier.classify(own.test[0].text)
    assert set(answer.probabilities) == set(own.labels)
    assert dataclasses.replace(own, name="x").train == own.train
