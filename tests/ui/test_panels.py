"""What steps 3 and 4 send to the browser, without a browser: numbers of the model, bounded."""

from __future__ import annotations

import asyncio
import copy
import json
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from types import SimpleNamespace

import gradio as gr
import pytest
import torch

import lora_core as lc
from lora_core.explain.test_report import TestReport, report_on_test
from lora_core.serving.bases import Bases
from lora_core.serving.registry import Registry, Run
from lora_core.serving.store import Store
from lora_core.ui.conclusions import counted
from lora_core.ui.context import Lab
from lora_core.ui.drawing.curves import Curve
from lora_core.ui.page import build_page
from lora_core.ui.panels import adapt, classify, evidence, finetune, inside, shelf, take, view
from lora_core.ui.panels.compare import compare
from lora_core.ui.panels.viewer import Shown, Viewer
from lora_core.ui.settings import Settings
from tests.conftest import warm
from tests.serving.registry import wait

VISITOR = "v" * 43


@pytest.fixture
def lab(base: lc.Base, task: lc.Task) -> Iterator[Lab]:
    with Registry(workers=1) as registry:
        made = Lab(registry, Bases(held={"bundled": base}))
        made.tasks[task.name] = task
        yield made


@pytest.fixture
def viewer(lab: Lab) -> Viewer:
    controls = [gr.Textbox(render=False) for _ in Settings.names()]
    return Viewer(SimpleNamespace(lab=lab, controls=controls))  # type: ignore[arg-type]


def classifier(base: lc.Base, classes: int) -> lc.Classifier:
    generator = torch.Generator().manual_seed(0)
    model = base.classifier_model(classes, generator)
    lc.inject_lora(model, lc.LoRAConfig(rank=2), generator)
    warm(model)
    return lc.Classifier(model, base.tokenizer, [f"label {i:02}" for i in range(classes)])


def shown(base: lc.Base, classes: int) -> Shown:
    run = Run("id", VISITOR, "", base, None, lc.LoRAConfig(rank=2), lc.TrainConfig())
    return Shown(classifier(base, classes), None, base, run, "a run")


@pytest.mark.parametrize("classes", [2, 6, 7, 100])
def test_answer_rows_sum_to_one_and_stay_few(base: lc.Base, classes: int) -> None:
    viewed = shown(base, classes)
    value = classify.answer_value(viewed, "any text", 1.0)
    assert len(value["rows"]) == (classes if classes <= 6 else 5), (
        "few, until the others are asked for"
    )
    rows = [*value["rows"], *value["others"]]
    assert len(rows) == classes
    for side in (1, 2):
        assert sum(row[side] for row in rows) == pytest.approx(1.0, abs=1e-5)
    after = viewed.classifier.classify("any text").probabilities
    for label, _, p in rows:
        if label in after:
            assert p == after[label]
    assert value["adapted"] in [row[0] for row in rows]
    json.dumps(value)


@pytest.mark.parametrize(
    ("text", "other"),
    [
        ("Are we still meeting for lunch?", False),
        ("Grüße aus Köln, ça va?", False),
        ("𝐅𝐫𝐞𝐞 prize", False),  # Latin letters in another dress
        ("12345 !!! 🎁", False),
        ("", False),
        ("Привет, встретимся вечером?", True),
        ("你今天晚上有空吗?", True),
        ("مرحبا، هل نلتقي اليوم؟", True),
        ("Pizza? Давай встретимся вечером", True),
        ("Let us meet at the café Москва tonight", False),
    ],
)
def test_the_bundled_base_says_that_it_was_taught_english(
    base: lc.Base, text: str, other: bool
) -> None:
    viewed = shown(base, 2)
    assert classify.in_another_script(text) is other
    if text:
        assert bool(classify.answer_value(viewed, text, 1.0)["note"]) is other
        viewed.classifier.base_name = "gpt2"  # of which nothing is known here
        assert classify.answer_value(viewed, text, 1.0)["note"] == ""


def test_nothing_is_said_of_a_shelf_before_its_owner_is_known(lab: Lab) -> None:
    before = shelf.shelf_value(lab, "", "")["summary"]
    nothing = shelf.shelf_value(lab, VISITOR, "")["summary"]
    assert "empty" in nothing and "empty" not in before


def test_pieces_are_the_text(base: lc.Base) -> None:
    text = "  <b>WIN</b>\n\n £1000 now 👩\u200d👧 "
    value = evidence.evidence_value(shown(base, 2), text, 1.0)
    assert "".join(piece[0] for piece in value["pieces"]) == text.rstrip()
    assert [p[0] for p in value["pieces"] if len(p) == 3] == text.split()
    assert evidence.evidence_value(shown(base, 2), " ", 1.0)["shown"] is False


@pytest.mark.parametrize(
    ("value", "expected"),
    [(0.5, 0.5), (9, 2.0), (-1, 0.0), (None, 1.0), ("", 1.0), (float("nan"), 1.0), ("0.3", 0.3)],
)
def test_strength_is_always_a_number_in_range(value: object, expected: float) -> None:
    assert classify.strength_of(value) == expected


def test_before_training_it_is_what_a_run_starts_from(viewer: Viewer, task: lc.Task) -> None:
    viewed = viewer.find(VISITOR, "", (task.name, "bundled", 5))
    assert not viewed.trained and viewed.task is task
    assert (
        viewer.find(VISITOR, "unknown run", (task.name, "bundled", 5)).classifier
        is viewed.classifier
    )
    run = viewer.lab.registry.submit(
        VISITOR, viewed.base, task, lc.LoRAConfig(rank=2), lc.TrainConfig(steps=1, seed=5)
    )
    wait(run)
    trained = viewer.find(VISITOR, run.id, (task.name, "bundled", 0))
    assert trained.trained and trained.name == f"{task.name}, r 2, α 16"
    text = task.test[0].text
    start = trained.classifier.classify(text, 0.0).probabilities
    assert viewed.classifier.classify(text).probabilities == pytest.approx(start, abs=1e-6)
    other = viewer.find("w" * 43, run.id, (task.name, "bundled", 0))
    assert not other.trained, "another visitor's run is never shown"


def test_examples_are_test_texts_and_marked_by_what_happened(
    viewer: Viewer, base: lc.Base, task: lc.Task
) -> None:
    untrained = viewer.find(VISITOR, "", (task.name, "bundled", 0))
    tests = {e.text: task.labels[e.label] for e in task.test}
    offered = adapt.task_value(task)["examples"]
    assert [label for _, label in offered] == list(task.labels), "one of each"
    assert all(tests[text] == label for text, label in offered)
    report = report_on_test(untrained.classifier, task)
    assert report is not None
    examples = evidence.examples_value(report)["examples"]
    assert len({e["text"] for e in examples}) == len(examples) == 4
    for example in examples:
        said = untrained.classifier.classify(example["text"]).label
        right = said == tests[example["text"]]
        assert right == (example["kind"] != "wrong")
    value = evidence.judged_value(report)
    assert value["correct"] + value["wrong"] == value["rows"] == len(task.test)
    assert sum(count for _, _, count in value["reliability"]) == value["rows"]
    assert 0 <= value["apart"] <= 1


def test_many_classes_are_told_as_pairs() -> None:
    labels = tuple(f"l{i}" for i in range(100))
    confusion = tuple(
        tuple(int(j == (i + 1) % 100) * (i + 1) for j in range(100)) for i in range(100)
    )
    value = evidence.judged_value(TestReport(labels, confusion, ()))
    assert value["confusion"] is None
    assert value["pairs"][0] == (100, "l99", "l0") and len(value["pairs"]) <= 12
    few = TestReport(labels[:24], tuple(row[:24] for row in confusion[:24]), ())
    assert evidence.judged_value(few)["confusion"] == [list(row) for row in few.confusion]


def test_a_followed_text_is_what_the_run_watched(task: lc.Task, base: lc.Base) -> None:
    run = Run(
        "id",
        VISITOR,
        "",
        base,
        task,
        lc.LoRAConfig(),
        lc.TrainConfig(steps=9),
        ("pin me",),
        "finished",
    )
    names = {"id": "r 8"}
    assert view.followed([run], names, {"id": []}) == {"texts": []}
    watched = [lc.Watched(0, ((0.6, 0.4),)), lc.Watched(9, ((0.1, 0.9),))]
    value = view.followed([run], names, {"id": watched})
    assert (value["name"], value["steps"], value["total"]) == ("r 8", [0, 9], 9)
    (text,) = value["texts"]
    assert text["text"] == "pin me" and text["now"] == dict(
        zip(task.labels, (0.1, 0.9), strict=True)
    )
    assert text["labels"] == [task.labels[1]] and text["lines"] == [[0.4, 0.9]]
    json.dumps(value)


def test_layers_are_laid_out_as_kinds_by_blocks(lab: Lab, base: lc.Base) -> None:
    viewed = shown(base, 2)
    proof, layers, layer = inside.inside_values(lab, viewed)
    assert proof["equal"] and proof["before"] == proof["after"] == base.digest()
    blocks = base.config.n_layers
    assert [len(row["cells"]) for row in layers["rows"]] == [blocks] * 6
    assert [row["kind"] for row in layers["outside"]] == ["word pieces"]
    cells = [c for row in layers["rows"] for c in row["cells"]]
    ratios = {c["name"]: c["ratio"] for c in cells + [row["cell"] for row in layers["outside"]]}
    assert layers["most"] == max(ratios.values()) == ratios[layers["selected"]]
    assert layer["name"] == layers["selected"] and len(layer["values"]) == 2
    levels = [level for row in layer["cells"] for level in row]
    assert max(map(abs, levels)) == 127
    json.dumps([proof, layers, layer])


def test_a_damaged_base_would_be_said(lab: Lab, base: lc.Base, monkeypatch) -> None:
    monkeypatch.setattr(lab.bases, "digest", lambda _: "0" * 64)
    value = inside.proof_value(lab, shown(base, 2))
    assert value["equal"] is False and "must not happen" in value["sentence"]


@pytest.mark.parametrize(
    ("classes", "end"), [(2, "label 01."), (6, "label 05."), (9, "and 3 more.")]
)
def test_step_5_names_six_labels_and_counts_the_rest(lab: Lab, base, classes, end) -> None:
    run = lab.registry.add_classifier(VISITOR, classifier(base, classes))
    assert end in take.about_run(run)["text"]


@pytest.mark.parametrize("method", ["lora", "full", "head"])
def test_an_adapter_is_offered_only_where_one_was_trained(
    method: lc.config.Method, task: lc.Task, base: lc.Base
) -> None:
    configs = lc.LoRAConfig(rank=2), lc.TrainConfig(steps=1, batch_size=2, method=method)
    *_, last = lc.fine_tune(base, task, *configs)
    assert isinstance(last, lc.Finished)
    run = Run("id", VISITOR, "", base, task, *configs, (), "finished")
    run.loaded = last.classifier
    adapted = method == "lora"
    assert ("opens with peft" in take.about_run(run)["text"]) == adapted
    use = take.programs_for(run, Settings())["programs"][0]
    assert use["title"] == f"Use it with {'peft' if adapted else 'transformers'}"


def test_runs_over_a_base_that_has_changed_are_shown_as_they_were(base, task, tmp_path) -> None:
    """As after an update of the app: the base is another one, curves and figures stay."""
    config = lc.TrainConfig(steps=4, evaluations=2, batch_size=4)
    with Registry(workers=1, store=Store(tmp_path)) as registry:
        run = registry.submit(VISITOR, base, task, lc.LoRAConfig(rank=2), config)
        wait(run)
        assert run.state == "finished"
    model = copy.deepcopy(base.model)
    with torch.no_grad():
        model.final_norm.weight.add_(1)
    other = replace(base, model=model)
    with Registry(workers=1, store=Store(tmp_path), bases=lambda *_: other) as registry:
        lab = Lab(registry, Bases(held={"bundled": other}))
        (again,) = registry.runs(VISITOR)
        curve = Curve()
        curve.feed(again.events)
        assert view.View(lab, VISITOR).update() is not None
        assert again.base is None and "has changed" in again.lost
        (row,) = compare([(again, curve, "r 2")])["rows"]
        assert f"{counted(run).trainable:,}" in json.dumps(row, ensure_ascii=False)
        assert counted(again) == counted(run)


def together(act: Callable[[], object], times: int = 10) -> list[object]:
    """What a function gives to so many threads that call it at once."""
    gate, got = threading.Barrier(times), []

    def call() -> None:
        gate.wait()
        got.append(act())

    threads = [threading.Thread(target=call) for _ in range(times)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return got


def test_ten_threads_load_a_task_once(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    loaded: list[str] = []

    def load(name: str) -> lc.Task:
        loaded.append(name)
        return lc.load_task(name)

    monkeypatch.setattr("lora_core.ui.context.load_task", load)
    got = together(lambda: lab.task("sentiment"))
    assert loaded == ["sentiment"] and len(set(map(id, got))) == 1
    with pytest.raises(lc.TaskError, match="no task called"):
        lab.task("another")


def test_ten_threads_judge_a_classifier_once(
    viewer: Viewer, base: lc.Base, task: lc.Task, monkeypatch: pytest.MonkeyPatch
) -> None:
    judged: list[lc.Classifier] = []

    def judge(one: lc.Classifier, of: lc.Task) -> TestReport | None:
        judged.append(one)
        return report_on_test(one, of)

    monkeypatch.setattr("lora_core.ui.panels.viewer.report_on_test", judge)
    viewed = replace(shown(base, 2), task=task)
    viewed.classifier.labels = task.labels
    got = together(lambda: viewer.report(viewed))
    assert len(judged) == 1 and len(set(map(id, got))) == 1


def test_what_the_run_found_is_not_computed_again(
    viewer: Viewer, base: lc.Base, task: lc.Task, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The test at the end of a run answers every text; after a restart they are read once more."""
    registry = viewer.lab.registry
    config = lc.TrainConfig(steps=3, batch_size=4)
    run = registry.submit(VISITOR, base, task, lc.LoRAConfig(rank=2), config)
    wait(run)
    viewed = viewer.find(VISITOR, run.id, ())
    computed: list[lc.Classifier] = []

    def judge(one: lc.Classifier, of: lc.Task) -> TestReport | None:
        computed.append(one)
        return report_on_test(one, of)

    monkeypatch.setattr("lora_core.ui.panels.viewer.report_on_test", judge)
    report, again = viewer.report(viewed), report_on_test(viewed.classifier, task)
    assert report is not None and again is not None and run.test_score is not None
    assert not computed and report.confusion == run.test_score.confusion
    said, afresh = (
        {one.text: (one.truth, one.said, one.probability) for one in r.judged}
        for r in (report, again)
    )
    assert said.keys() == afresh.keys()
    for text, (truth, label, probability) in said.items():
        assert truth == afresh[text][0]
        assert probability == pytest.approx(afresh[text][2], abs=1e-4)
        assert label == afresh[text][1] or probability < 0.51
    run.test_score = replace(run.test_score, answers=None)
    viewer._reports.clear()
    assert viewer.report(viewed) is not None and computed == [viewed.classifier]


def test_a_page_that_cannot_be_fed_says_so_once(
    lab: Lab, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """While something trains, the page is looked at eight times a second."""

    class Failing:
        def __init__(self, *_: object) -> None:
            self.live, self.looks = True, 0

        def update(self) -> list[object] | None:
            self.looks += 1
            self.live = self.looks < 6
            if self.looks == 4:
                return ["well again"]
            raise ValueError("a setting that nobody thought of")

    monkeypatch.setattr(finetune, "View", Failing)
    monkeypatch.setattr(finetune, "_POLL", 0.0)
    page = build_page(lab.registry)
    private = [event for event in page.fns.values() if event.api_visibility == "private"]
    watch = next(event.fn for event in private if event.name == "watch")

    async def updates() -> list[list[object]]:
        request = SimpleNamespace(session_hash="one")
        return [update async for update in watch(VISITOR, request)]  # type: ignore[misc]

    first, well, again = asyncio.run(updates())
    assert first[0] == again[0] and first[0]["state"] == "refused"  # type: ignore[index]
    assert well == ["well again"] and caplog.text.count("could not be fed") == 2
