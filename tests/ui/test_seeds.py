"""Runs that differ in their seed only are one row, one curve with a band."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import permutations

import pytest

import lora_core as lc
from lora_core.config import ConfigError
from lora_core.serving.registry import Registry, Run, new_visitor
from lora_core.ui import conclusions
from lora_core.ui.conclusions import conclusion
from lora_core.ui.drawing.curves import Curve
from lora_core.ui.panels.compare import compare
from lora_core.ui.panels.view import drawn, status
from lora_core.ui.seeds import accuracy_words, gathered, together
from lora_core.ui.settings import Settings

from ..serving.registry import wait


@pytest.fixture(scope="module")
def seen(tiny: lc.Base, words: lc.Task) -> Iterator[list[tuple[Run, Curve, str]]]:
    """Three seeds of rank 2 with a run of rank 4 among them."""
    made = []
    with Registry(workers=1) as registry:
        visitor = new_visitor()
        for rank, seed in ((2, 0), (2, 1), (4, 0), (2, 2)):
            config = lc.TrainConfig(steps=6, batch_size=4, evaluations=3, seed=seed)
            run = registry.submit(visitor, tiny, words, lc.LoRAConfig(rank=rank), config)
            wait(run)
            curve = Curve()
            curve.feed(run.events)
            made.append((run, curve, f"r {rank}, seed {seed}"))
        yield made


def test_one_row_and_one_curve(seen: list[tuple[Run, Curve, str]]) -> None:
    assert [(name, len(members)) for name, members in gathered(seen)] == [
        ("r 2, α 16, 3 seeds", 3),
        ("r 4, seed 0", 1),
    ]
    value = drawn(seen)
    assert value["order"] == [seen[0][0].id, seen[2][0].id] == list(value["runs"])
    three = [curve.data() for run, curve, _ in (seen[0], seen[1], seen[3])]
    curve = value["runs"][seen[0][0].id]
    for i, reached in enumerate(zip(*(one["validation_accuracy"] for one in three), strict=True)):
        assert curve["validation_accuracy"][i] == pytest.approx(sum(reached) / 3, abs=1e-5)
        low, high = (end[i] for end in curve["band"]["validation_accuracy"])
        assert (low, high) == (min(reached), max(reached))
    curves = [curve for _, curve, _ in (seen[0], seen[1], seen[3])]
    for order in permutations(curves):  # nobody's values are taken for the mean
        assert together(order)["band"] == curve["band"]
    assert "band" not in value["runs"][seen[2][0].id]
    rows = compare(seen)["rows"]
    assert [row["cells"]["name"] for row in rows] == ["r 2, α 16, 3 seeds", "r 4, seed 0"]
    scores = [run.test_score.accuracy for run, _, _ in (seen[0], seen[1], seen[3])]  # type: ignore[union-attr]
    assert rows[0]["cells"]["test"] == accuracy_words(scores)
    assert rows[0]["sort"]["test"] == pytest.approx(sum(scores) / 3)
    assert set(rows[0]["ids"]) == {run.id for run, _, _ in (seen[0], seen[1], seen[3])}
    assert rows[0]["id"] in rows[0]["ids"]


def test_what_is_concluded_of_several_seeds(
    seen: list[tuple[Run, Curve, str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    scores = [run.test_score.accuracy for run, _, _ in (seen[0], seen[1], seen[3])]  # type: ignore[union-attr]
    said = conclusion(seen)
    assert said.startswith(
        f"{accuracy_words(scores)} of 8 unseen texts right in the mean of 3 seeds"
    )
    one = conclusion(seen[:1])
    assert "seeds" not in one and "times as many" not in one, "there is nothing to compare"
    monkeypatch.setattr(conclusions, "AS_GOOD", 1.0)  # whatever luck has made of rank 2 here
    several, alone = conclusion(seen), seen[2][0].test_score
    assert alone is not None
    first, second = accuracy_words(scores), accuracy_words([alone.accuracy])
    assert f"r 2, α 16, 3 seeds reaches {first}; r 4, α 16 {second} with" in several
    assert conclusion([]) == ""


def test_a_run_of_other_steps_is_not_compared(
    seen: list[tuple[Run, Curve, str]],
    tiny: lc.Base,
    words: lc.Task,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with Registry(workers=1) as registry:
        config = lc.TrainConfig(steps=2, batch_size=4)
        run = registry.submit(new_visitor(), tiny, words, lc.LoRAConfig(rank=1), config)
        wait(run)
        curve = Curve()
        curve.feed(run.events)
        monkeypatch.setattr(conclusions, "AS_GOOD", 1.0)  # the smallest is always good enough
        run.ended = 0.0  # another registry's clock
        said = conclusion([*seen, (run, curve, "r 1, 2 steps")])
    assert said == conclusion(seen) and "r 2, α 16, 3 seeds reaches" in said


def test_each_method_with_the_steps_that_it_needs_is_compared(
    tiny: lc.Base, words: lc.Task, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(conclusions, "AS_GOOD", 1.0)
    seen = []
    with Registry(workers=1) as registry:
        for method, steps in (("lora", 0), ("full", 0), ("full", 2)):
            config = lc.TrainConfig(steps=steps, batch_size=4, method=method)  # type: ignore[arg-type]
            run = registry.submit(new_visitor(), tiny, words, lc.LoRAConfig(rank=1), config)
            wait(run)
            curve = Curve()
            curve.feed(run.events)
            seen.append((run, curve, f"{method}, {steps}"))
    lora, full, short = seen
    assert [run.step for run, _, _ in seen] == [150, 300, 2]
    assert "r 1, 150 steps reaches" in conclusion([lora, full])
    assert "reaches" not in conclusion([lora, short])


def test_the_line_and_the_sentence_are_of_the_run_that_ended_last(
    seen: list[tuple[Run, Curve, str]],
) -> None:
    """Two workers: what was asked for last need not end last."""
    backwards = [seen[3], seen[2], seen[0]]
    assert backwards[0][0].ended == max(run.ended or 0.0 for run, _, _ in seen)
    value = status(backwards)
    assert value["line"].startswith("r 2, seed 2: done")
    alone = backwards[0][0].test_score
    assert alone is not None and value["sentence"].startswith(
        accuracy_words([run.test_score.accuracy for run in (seen[3][0], seen[0][0])])  # type: ignore[union-attr]
    )


def test_what_does_not_belong_together_stays_apart(seen: list[tuple[Run, Curve, str]]) -> None:
    assert len(gathered(seen[:1])) == 1
    twice = [seen[0], seen[0]]  # the same seed again is no spread
    assert [len(members) for _, members in gathered(twice)] == [1, 1]
    assert together([seen[0][1]]) == seen[0][1].data()
    assert drawn([])["runs"] == {} and compare([])["rows"] == []


def test_seeds_of_one_press() -> None:
    assert [s.seed for s in Settings(seed=4, seeds=3).each_seed()] == [4, 5, 6]
    assert all(s.seeds == 1 for s in Settings(seeds=5).each_seed())
    with pytest.raises(ConfigError, match="seeds must be one of"):
        Settings.from_query({"seeds": "4"})
    assert accuracy_words([0.5]) == "50.0 %" and accuracy_words([0.5, 0.6]) == "55.0 % ± 7.1"
