"""The step *Experiments* as the page asks it: every control at both ends, twice, in the wrong
order. What is refused is a sentence."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

import lora_core as lc
from lora_core.errors import LabError
from lora_core.explain.knockout import parts_of
from lora_core.limits import Limits
from lora_core.serving.bases import Bases
from lora_core.serving.computations import Computation
from lora_core.serving.plans import Plan, Plans
from lora_core.serving.registry import Registry
from lora_core.serving.run import Run
from lora_core.ui.context import Lab
from lora_core.ui.experiments import Experiments, votes
from lora_core.ui.luck import sweep_answer
from lora_core.ui.panels.experiments import Panel
from lora_core.ui.settings import Settings

from ..serving.registry import until, wait

VISITOR = "a visitor of the tests, secret"
Answer = dict[str, Any]


class Page:
    """One visitor at the panel."""

    def __init__(self, base: lc.Base, task: lc.Task, registry: Registry) -> None:
        self.registry, self.task = registry, task
        lab = Lab(
            registry, bases=Bases(held={"bundled": base, base.name: base}), tasks={task.name: task}
        )
        self.experiments = Experiments(lab, Plans(registry))
        self.settings = Settings(task=task.name, steps=3, batch_size=4, rank=4)
        self.lora, self.other = (self._train(base, "lora", seed) for seed in (0, 1))
        self.full = self._train(base, "full", 0)

    def _train(self, base: lc.Base, method: Any, seed: int) -> Run:
        config = lc.TrainConfig(steps=6, batch_size=4, seed=seed, method=method)
        run = self.registry.submit(VISITOR, base, self.task, lc.LoRAConfig(rank=4), config)
        wait(run)
        return run

    def panel(self, run: Run | None = None) -> Panel:
        values = self.settings.values()
        return Panel(self.experiments, VISITOR, (run or self.lora).id, values)

    def ask(self, question: str, run: Run | None = None, **wanted: Any) -> Answer:
        """The whole answer to one press."""
        panel = self.panel(run)
        look = panel.begin({"question": question, **wanted})
        until(lambda: look()[1])
        panel.leave()
        return look()[0]

    def aside(self, kind: str, run: Run | None = None, **wanted: Any) -> Answer:
        return self.panel(run).aside({"kind": kind, "text": "", **wanted})

    def refused(self, question: str, run: Run | None = None, **wanted: Any) -> str:
        with pytest.raises(LabError) as error:
            self.panel(run).begin({"question": question, **wanted})
        return str(error.value)


@pytest.fixture(scope="module")
def page(tiny: lc.Base, words: lc.Task) -> Iterator[Page]:
    with Registry(Limits(max_rank=8), workers=1) as registry:
        yield Page(tiny, words, registry)


def test_the_knife(page: Page) -> None:
    for _ in range(2):
        answer = page.ask("knife")
        assert answer["state"] == "done" and [c["rank"] for c in answer["cuts"]] == [0, 1, 2, 3, 4]
    assert len(page.aside("knife", text="you won")["words"]) == 5, "one for each place"
    assert "Type a text" in page.aside("knife", text=" ")["words"][0]
    for rank, said in ((0, "at least one"), (-1, "at least one"), (5, "from 0 to 4")):
        with pytest.raises(LabError, match=said):
            page.aside("keep", rank=rank)
    with pytest.raises(LabError, match="rank must be a number"):
        page.aside("keep", rank="two")
    assert "no A and B" in page.refused("knife", page.full)


@pytest.mark.parametrize("method", ["lora", "full"])
def test_layers_off_and_on(page: Page, method: str) -> None:
    run: Run = getattr(page, method)
    assert run.classifier
    parts = parts_of(run.classifier)
    bars = page.ask("layers", run)
    assert bars["state"] == "done" and [p["name"] for p in bars["parts"]] == list(parts)
    assert "off_words" not in bars
    for _ in range(2):
        for off in (parts[:1], parts, ("head",), parts[::-1]):
            answer = page.ask("layers", run, off=list(off))
            assert answer["off_words"].startswith(f"{len(off)} off: "), answer
            said = page.aside("layers", run, text="you won", off=list(off))["words"]
            assert len(said) == 1
    # All off is the classifier of step 0.
    first = run.classifier.classify("you won", 0.0)
    everything = page.aside("layers", run, text="you won", off=list(parts))["words"][0]
    assert f"Your text: {first.label}," in everything
    assert "No part called" in page.refused("layers", run, off=["blocks.7.mlp.up"])


def test_what_is_known_is_not_prepared_again(page: Page, monkeypatch: pytest.MonkeyPatch) -> None:
    """Hundreds may ask the same of one run: it is copied and its texts are read for the first."""
    off = parts_of(page.lora.classifier)[:2]  # type: ignore[arg-type]
    asked = [page.experiments.begin(VISITOR, "layers", page.lora)]
    asked.append(page.experiments.without(VISITOR, page.lora, off))
    until(lambda: all(one.is_over for one in asked))

    def refused(*_: object) -> None:
        raise AssertionError("prepared again")

    monkeypatch.setattr("lora_core.ui.experiments.Switchboard", refused)
    assert page.experiments.begin("another", "layers", page.lora) is asked[0]
    assert page.experiments.without("another", page.lora, off[::-1]) is asked[1]


def test_what_is_asked_no_more_is_dropped(page: Page) -> None:
    """Boxes ticked in a row: each press leaves the one before, and none is too many."""
    kept = [page.aside("keep", rank=1)["kept"] for _ in range(6)]
    voters = [page.lora.id, page.other.id, *kept]
    panels = []
    for count in range(2, 9):
        panel = page.panel()
        look = panel.begin({"question": "vote", "ids": voters[:count]})
        panels.append((panel, look))
        if count < 8:
            panel.leave()
    panel, look = panels[-1]
    until(lambda: look()[1])
    answer = look()[0]
    assert answer["state"] == "done" and len(answer["votes"]) == 8
    assert all("alone" in one for one in answer["voters"] if one["on"])
    # One that was dropped is begun again by whoever still looks.
    panel, look = panels[3]
    until(lambda: look()[1])
    assert len(look()[0]["votes"]) == 5
    for one in kept:
        page.registry.remove(VISITOR, one)


def test_who_votes(page: Page) -> None:
    for ids in ([], [page.lora.id], ["nobody", 7, None]):
        assert page.ask("vote", ids=ids)["sentence"].startswith("Tick two to eight")
    both = page.ask("vote", ids=[page.lora.id, page.other.id])
    turned = page.ask("vote", ids=[page.other.id, page.lora.id, page.lora.id])
    assert both["sentence"].startswith("2 together reach")
    assert "Against the best alone they win" in both["sentence"] and "sign test" in both["sentence"]
    kept = page.aside("keep", rank=1)["kept"]
    named = [one["name"] for one in page.ask("vote", ids=[])["voters"]]
    assert [name for name in named if name.endswith(", r 1, α 4, cut from r 4")], named
    page.registry.remove(VISITOR, kept)
    assert turned["state"] in ("done", "failed") and turned["sentence"]
    # Adapters of other labels are not offered.
    page.settings = Settings(task="sentiment", steps=3, batch_size=4)
    try:
        answer = page.ask("vote", ids=[page.lora.id, page.other.id])
        assert answer["voters"] == [] and "There is no adapter for sentiment" in answer["sentence"]
        none = page.ask("luck")
        assert none["state"] == "none" and "You have no run on sentiment yet" in none["sentence"]
    finally:
        page.settings = Settings(task=page.task.name, steps=3, batch_size=4, rank=4)


def test_the_others(page: Page) -> None:
    for _ in range(2):
        forgot = page.ask("forgot")
        assert [s["x"][0] for s in forgot["figure"]["series"]] == [0.0, 0.0]
        assert [s["x"][-1] for s in forgot["figure"]["series"]] == [2.0, 2.0]
        assert page.ask("memorised")["state"] == "done"
        assert page.ask("merging")["changed"] == 0
    refused = page.ask("merging", page.full)
    assert refused["state"] == "failed" and "nothing to merge" in refused["sentence"]
    assert "no such question" in page.refused("why")
    with pytest.raises(LabError, match="Train something first"):
        Panel(page.experiments, VISITOR, "nobody", page.settings.values()).begin(
            {"question": "knife"}
        )


def test_sweeps_at_both_ends(page: Page) -> None:
    page.settings = Settings(task=page.task.name, steps=3, batch_size=4, rank=8)  # the largest
    assert page.ask("rate", kind="layers", stop=True)["state"] == "none", "nothing to stop"
    begun = page.panel().begin({"question": "rate", "kind": "ranks", "start": True, "seeds": 5})
    assert begun()[0]["running"] and begun()[0]["runs"] == 20
    again = page.refused("rate", kind="ranks", start=True, seeds=1)
    assert "Another sweep of yours is running" in again
    assert "Another sweep" in page.refused("luck", kind="seeds", start=True, seeds=3)
    for _ in range(2):
        stopped = page.ask("rate", kind="ranks", stop=True)
        assert not stopped["running"] and stopped["progress"].startswith("Stopped after")
    for seeds in (0.5, "many", 2, 7):
        assert "seeds must be" in page.refused("rate", kind="ranks", start=True, seeds=seeds)
    # Seeds of the shown run, three and then five: the figures of the first are not lost.
    for seeds in (3, 5):
        answer = page.ask("luck", kind="seeds", start=True, seeds=seeds)
        counts = [len(row["seeds"]) for row in answer["groups"]]
        assert max(counts) == seeds, counts


ENDS_MEANWHILE = "what ends while its answer is put into words is looked at once more"


@pytest.mark.parametrize("question", ["knife", "layers", "forgot", "merging"])
def test_a_computation_that_ends_during_a_look(
    page: Page, monkeypatch: pytest.MonkeyPatch, question: str
) -> None:
    page.ask(question)
    value = page.experiments.begin(VISITOR, question, page.lora).value
    begun, answer = Computation(VISITOR), page.experiments.answer
    monkeypatch.setattr(page.experiments, "begin", lambda *_: begun)

    def ended(*asked: Any) -> Answer:
        said = answer(*asked)
        begun.value, begun.state = value, "done"
        return said

    monkeypatch.setattr(page.experiments, "answer", ended)
    look = page.panel().begin({"question": question})
    first, second = look(), look()
    assert first[0]["state"] == "waiting" and not first[1], ENDS_MEANWHILE
    assert second[0]["state"] == "done" and second[1] and second[0]["sentence"]


@pytest.mark.parametrize("question", ["luck", "rate"])
def test_a_sweep_that_ends_during_a_look(
    page: Page, monkeypatch: pytest.MonkeyPatch, question: str
) -> None:
    plan = Plan("sweep", VISITOR, "ranks", page.task.name, (), [], None, None)
    monkeypatch.setattr(page.experiments.plans, "of", lambda _: [plan])

    def ended(asked: Plan) -> Answer:
        said = sweep_answer(asked)
        plan.state = "done"
        return said

    monkeypatch.setattr("lora_core.ui.panels.experiments.sweep_answer", ended)
    look = page.panel().begin({"question": question, "kind": "ranks"})
    assert not look()[1], ENDS_MEANWHILE
    assert look()[1]


def test_a_vote_and_a_run_that_end_during_a_look(
    page: Page, monkeypatch: pytest.MonkeyPatch
) -> None:
    ids = [page.lora.id, page.other.id]
    page.ask("vote", ids=ids)
    value = page.experiments.vote(VISITOR, [page.lora, page.other]).value
    begun = Computation(VISITOR)
    monkeypatch.setattr(page.experiments, "vote", lambda *_: begun)

    def ended(asked: Computation) -> Answer:
        said = votes(asked)
        begun.value, begun.state = value, "done"
        return said

    monkeypatch.setattr("lora_core.ui.panels.experiments.votes", ended)
    look = page.panel().begin({"question": "vote", "ids": ids})
    first, second = look(), look()
    assert first[0]["state"] == "waiting" and not first[1], ENDS_MEANWHILE
    assert second[0]["state"] == "done" and second[1]
    overs = iter([False, True])
    monkeypatch.setattr(Run, "is_over", property(lambda _: next(overs)))
    monkeypatch.setattr(
        "lora_core.ui.panels.experiments.memorised", lambda run: {"over": run.is_over}
    )
    said, over = page.panel().begin({"question": "memorised"})()
    assert said["over"] and not over, ENDS_MEANWHILE


def test_a_sweep_that_ends_while_it_is_described(page: Page) -> None:
    """For whoever asks once: what is called done has all its results."""

    class Ending(list):  # type: ignore[type-arg]
        def __iter__(self) -> Iterator[Any]:
            plan.state = "done"
            return super().__iter__()

    plan = Plan("sweep", VISITOR, "ranks", page.task.name, (), Ending(), None, None)
    assert sweep_answer(plan)["state"] == "waiting" and sweep_answer(plan)["state"] == "done"
