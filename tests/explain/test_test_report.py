"""The report on the test texts, against one text at a time."""

from __future__ import annotations

import pytest
import torch

import lora_core as lc
from lora_core.explain.test_report import calibration_error, reliability, report_on_test
from tests.conftest import warm


@pytest.fixture(scope="module")
def classifier(base: lc.Base, task: lc.Task) -> lc.Classifier:
    generator = torch.Generator().manual_seed(0)
    model = base.classifier_model(len(task.labels), generator)
    lc.inject_lora(model, lc.LoRAConfig(rank=2), generator)
    warm(model)
    return lc.Classifier(model, base.tokenizer, task.labels)


def test_every_text_as_when_asked_alone(classifier: lc.Classifier, task: lc.Task) -> None:
    report = report_on_test(classifier, task)
    assert report is not None and len(report.judged) == len(task.test)
    alone = {e.text: classifier.classify(e.text) for e in task.test}
    truths = {e.text: task.labels[e.label] for e in task.test}
    for judged in report.judged:
        answer = alone[judged.text]
        assert judged.truth == truths[judged.text]
        assert judged.probability == pytest.approx(answer.probabilities[judged.said], abs=1e-5)
        assert judged.probability >= max(answer.probabilities.values()) - 1e-5
    for i, truth in enumerate(task.labels):
        for j, said in enumerate(task.labels):
            expected = sum(1 for x in report.judged if (x.truth, x.said) == (truth, said))
            assert report.confusion[i][j] == expected
    assert report.correct == sum(x.right for x in report.judged)
    assert report.correct + len(report.mistakes) == len(task.test)


def test_orders(classifier: lc.Classifier, task: lc.Task) -> None:
    report = report_on_test(classifier, task)
    assert report is not None
    wrong, right = ([x.probability for x in s] for s in (report.mistakes, report.barely_right))
    assert wrong and right
    assert wrong == sorted(wrong, reverse=True)
    assert right == sorted(right)


def test_other_labels_are_not_judged(classifier: lc.Classifier, task: lc.Task) -> None:
    other = lc.Task("other", ("x", "y"), task.train, task.validation, task.test)
    assert report_on_test(classifier, other) is None


def test_reliability_puts_each_answer_into_its_bin() -> None:
    answers = [(0.95, True), (0.97, False), (1.0, True), (0.55, True), (0.51, False)]
    bins = reliability(answers)
    assert [b.count for b in bins] == [0, 0, 0, 0, 0, 2, 0, 0, 0, 3]
    assert bins[9].accuracy == pytest.approx(2 / 3)
    assert bins[9].confidence == pytest.approx((0.95 + 0.97 + 1.0) / 3)
    expected = (2 * abs(0.53 - 0.5) + 3 * abs(2.92 / 3 - 2 / 3)) / 5
    assert calibration_error(bins) == pytest.approx(expected)
    assert calibration_error(reliability([])) == 0.0
