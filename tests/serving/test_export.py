"""Runs as CSV and JSON: every run, its settings and its curves; no ids, no texts."""

from __future__ import annotations

import copy
import csv
import dataclasses
import io
import json

import pytest

import lora_core as lc
from lora_core.serving.export import run_row, runs_csv, runs_json
from lora_core.serving.registry import Registry, Run
from tests.serving.registry import wait


@pytest.fixture(scope="module")
def runs(base, task) -> list[Run]:
    """A LoRA run and one of the head alone, both over."""
    visitor = "v" * 32
    small = lc.Task("=cmd", task.labels, task.train[:32], task.validation[:8], task.test[:8])
    with Registry(workers=1) as registry:
        for method in ("lora", "head"):
            config = lc.TrainConfig(steps=2, batch_size=4, evaluations=1, method=method)
            secret = (small.train[0].text,)
            registry.submit(visitor, base, small, lc.LoRAConfig(3, 6), config, watch_texts=secret)
        for run in registry.runs(visitor):
            wait(run)
        return registry.runs(visitor)


def test_csv(runs) -> None:
    rows = list(csv.DictReader(io.StringIO(runs_csv(runs))))
    assert [(r["method"], r["rank"], r["steps"], r["state"]) for r in rows] == [
        ("lora", "3", "2", "finished"),
        ("head", "", "2", "finished"),
    ]
    assert rows[0]["task"] == "'=cmd"  # a spreadsheet shows it and computes nothing
    accuracy = runs[0].test_score.accuracy
    assert float(rows[0]["test_accuracy"]) == pytest.approx(accuracy, rel=1e-5)
    assert runs_csv([]) == ""


@pytest.mark.parametrize("name", ["a\rb", "a\nb", "a\r\nb", 'a"b', "a,b"])
def test_a_name_that_csv_could_read_as_its_own_comes_back(runs, name) -> None:
    run = copy.copy(runs[0])
    run.task = dataclasses.replace(run.task, name=name)
    rows = list(csv.reader(io.StringIO(runs_csv([run, run]), newline="")))
    assert len(rows) == 3
    assert rows[1][rows[0].index("task")] == name


@pytest.mark.parametrize("sign", [*"=+-@\t\r\n", "\uff1d", "\uff0b", "\uff0d", "\uff20"])
def test_no_cell_is_a_formula(runs, sign) -> None:
    run = copy.copy(runs[0])
    run.task = dataclasses.replace(run.task, name=f"{sign}1+1")
    (row,) = csv.DictReader(io.StringIO(runs_csv([run]), newline=""))
    assert row["task"] == f"'{sign}1+1"


def test_settings_keep_every_digit_and_both_times_are_there(runs) -> None:
    """Of runs that shared the machine, the time by the clock says nothing about their cost."""
    run = copy.copy(runs[0])
    run.lora_config = lc.LoRAConfig(8, 22.627416997969522, scaling="alpha/sqrt(rank)")
    (row,) = csv.DictReader(io.StringIO(runs_csv([run])))
    assert float(row["alpha"]) == run.lora_config.alpha
    assert float(row["processor_seconds"]) == run.processor_seconds > 0
    finished = run.events[-1]
    assert isinstance(finished, lc.Finished)
    assert float(row["seconds"]) == finished.seconds
    assert json.loads(runs_json([run]))[0]["processor_seconds"] == run.processor_seconds


def test_json(runs) -> None:
    made = json.loads(runs_json(runs))
    assert [run["method"] for run in made] == ["lora", "head"]
    kinds = [event["event"] for event in made[0]["events"]]
    assert kinds.count("step") == 2 and kinds[0] == "started" and kinds[-1] == "finished"
    assert made[0]["trainable_parameters"] == run_row(runs[0])["trainable_parameters"] > 0
    assert made[0]["confusion"] == [list(row) for row in runs[0].test_score.confusion]


def test_nothing_secret(runs) -> None:
    for text in (runs_csv(runs), runs_json(runs)):
        for run in runs:
            assert run.id not in text and run.visitor not in text
            assert run.watch_texts[0] not in text
