"""The experiments over the wire, and runs of one setting as one row."""

from __future__ import annotations

import contextlib
import math
import threading
from collections.abc import Callable, Iterator
from typing import Any

import gradio as gr
import httpx
import pytest
from gradio_client import Client
from gradio_client.exceptions import AppError

import lora_core as lc
from lora_core.config import LINEAR_TARGETS, MAX_ALPHA
from lora_core.explain import forgetting
from lora_core.explain.chance import spread, wilson
from lora_core.explain.exam import finish
from lora_core.explain.knockout import Knockout, Without, parts_of
from lora_core.limits import Limits
from lora_core.serving.bases import Bases
from lora_core.serving.computations import Computation
from lora_core.serving.plans import Plan, Plans, Result
from lora_core.serving.registry import NOT_HERE, Registry
from lora_core.ui import api_experiments, sentences
from lora_core.ui.context import Lab
from lora_core.ui.experiments import Experiments, trained
from lora_core.ui.forgetting import forgot, method_of, missing, name_of, to_compare
from lora_core.ui.luck import Group, difference_words, luck, sweep_answer
from lora_core.ui.settings import Settings
from lora_core.ui.sweeps import KINDS, Point, cells_of, points_of
from lora_core.ui.text.words import number

from ..serving.registry import WAIT, wait

VISITOR = "a visitor of the tests, secret"
SHAPE = lc.GPTConfig(64, 24, 8, 2, 2)


@contextlib.contextmanager
def serving(base: lc.Base, task: lc.Task) -> Iterator[tuple[Client, Registry]]:
    """A page with nothing but the experiments, on a free port."""
    with Registry(Limits(max_rank=8), workers=1) as registry:
        lab = Lab(registry, bases=Bases(held={"bundled": base}), tasks={task.name: task})
        with gr.Blocks(analytics_enabled=False) as page:
            api_experiments.build(Experiments(lab, Plans(registry)))
        sentences.protect(page)
        page.queue(default_concurrency_limit=None)
        _, url, _ = page.launch(prevent_thread_lock=True, quiet=True, max_threads=64)
        client = Client(url, verbose=False)
        try:
            yield client, registry
        finally:
            client.close()
            page.close(verbose=False)


@pytest.fixture(scope="module")
def server(tiny: lc.Base, words: lc.Task) -> Iterator[tuple[Client, Registry]]:
    with serving(tiny, words) as started:
        yield started


def submit(registry: Registry, base: lc.Base, task: lc.Task, seed: int, **train: Any) -> str:
    config = lc.TrainConfig(**{"steps": 6, "batch_size": 4, "evaluations": 3, **train}, seed=seed)
    run = registry.submit(VISITOR, base, task, lc.LoRAConfig(rank=4), config)
    wait(run)
    return run.id


@pytest.fixture(scope="module")
def runs(server, tiny: lc.Base, words: lc.Task) -> list[str]:
    """Three seeds of one setting, and a full fine-tuning."""
    registry = server[1]
    made = [submit(registry, tiny, words, seed) for seed in range(3)]
    return [*made, submit(registry, tiny, words, 0, method="full")]


def refused(client: Client, name: str, *args: Any, **kwargs: Any) -> str:
    with pytest.raises(AppError) as error:
        client.predict(*args, **kwargs, api_name=name)
    return str(error.value)


def test_names_and_documentation(server) -> None:
    info = httpx.get(f"{server[0].src}gradio_api/info").json()["named_endpoints"]
    assert set(info) == {f"/{name}" for name in api_experiments.ENDPOINTS}
    for name, endpoint in info.items():
        assert endpoint["description"], name


def test_luck_takes_seeds_together(server, runs: list[str]) -> None:
    client, registry = server
    answer = client.predict(runs, api_name="/luck")
    several, full = answer["groups"]
    scores = [registry.find(i).test_score.accuracy for i in runs[:3]]
    assert several["values"] == pytest.approx(scores) and several["seeds"] == [0, 1, 2]
    assert several["mean"] == pytest.approx(spread(scores).mean)
    score = registry.find(runs[3]).test_score
    bounds = wilson(round(score.accuracy * score.rows), score.rows)
    assert (full["low"], full["high"]) == pytest.approx(bounds)
    assert "cannot be told apart yet" in answer["sentence"]
    alone = client.predict(runs[:3], api_name="/luck")
    assert "with 3 seeds" in alone["sentence"]


def test_knife_keeps_and_refuses(server, runs: list[str], tiny: lc.Base, words: lc.Task) -> None:
    client, registry = server
    answer = client.predict(runs[0], api_name="/rank_knife")
    assert [cut["rank"] for cut in answer["cuts"]] == [0, 1, 2, 3, 4]
    score = registry.find(runs[0]).test_score
    assert answer["cuts"][4]["accuracy"] == pytest.approx(score.accuracy)
    smaller = client.predict(runs[0], answer["enough"] or 1, api_name="/keep_rank")
    run = registry.find(smaller)
    assert run.state == "loaded" and run.classifier.lora_config.rank == (answer["enough"] or 1)
    assert run in registry.runs(VISITOR), "on the shelf of whom it belongs to"
    assert "at least one" in refused(client, "/keep_rank", runs[0], 0)
    assert "from 0 to 4" in refused(client, "/keep_rank", runs[0], 5)
    assert "whole number" in refused(client, "/keep_rank", runs[0], 1.5)
    assert "no A and B" in refused(client, "/rank_knife", runs[3])


def test_a_list_of_something_else_is_named(server, runs: list[str]) -> None:
    client, _ = server
    assert "run_ids must be a list of texts" in refused(client, "/luck", [1, None])
    assert "off must be a list of texts" in refused(client, "/knock_out", runs[0], [1])


def test_layers_in_words(server, runs: list[str]) -> None:
    """One that is missed most is named as such only where no other is missed as much."""
    _, registry = server
    run = registry.find(runs[0])
    experiments = Experiments(Lab(registry, bases=Bases(held={}), tasks={}), Plans(registry))
    parts = parts_of(trained(run))
    rows = 100

    def said(right: dict[str, int]) -> str:
        without = tuple(Without(part, right.get(part, 90)) for part in parts)
        computation = Computation(VISITOR, "done", Knockout(without, 90, 60, rows))
        sentence: str = experiments.answer("layers", run, computation)["sentence"]
        return sentence.replace("\u00a0", " ")

    first, second, *_ = [part for part in parts if part != "head"]
    assert "falls most: 80.0 % against 90.0 %, 10 texts of 100." in said({first: 80, second: 81})
    assert "2 layers are missed most, and equally" in said({first: 80, second: 80})
    gained = said({first: 95, second: 90})
    assert "whichever one is off, the accuracy falls by no more than a point" in gained


def test_knock_out(server, runs: list[str]) -> None:
    client, _ = server
    answer = client.predict(runs[0], api_name="/knock_out")
    parts = {part["name"]: part for part in answer["parts"]}
    assert {"head", "token_embedding", "blocks.1.mlp.down"} <= set(parts)
    for name in ("head", "blocks.0.mlp.up"):
        alone = client.predict(runs[0], [name], api_name="/knock_out")
        assert alone["accuracy"] == pytest.approx(parts[name]["accuracy"])
    assert parts["head"]["lost"] == pytest.approx(answer["whole"] - parts["head"]["accuracy"])
    assert "No part called" in refused(client, "/knock_out", runs[0], ["blocks.9.mlp.up"])
    assert NOT_HERE in refused(client, "/knock_out", "nobody")


def test_the_others(server, runs: list[str]) -> None:
    client, registry = server
    forgot = client.predict(runs[0], api_name="/forgetting")
    assert forgot["curve"][0]["strength"] == 0 and forgot["curve"][-1]["strength"] == 2
    assert forgot["base_bits"] == forgot["curve"][0]["bits"]
    merging = client.predict(runs[0], api_name="/merging")
    assert merging["largest"] < 1e-4 and merging["changed"] == 0
    assert "nothing to merge" in refused(client, "/merging", runs[3])
    memorised = client.predict(runs[0], api_name="/memorised")
    assert memorised["steps"][0] == 0 and len(memorised["gap"]) == len(memorised["steps"])
    score = registry.find(runs[0]).test_score
    assert memorised["test"]["rows"] == score.rows
    votes = client.predict(runs, api_name="/vote")
    assert [vote["voters"] for vote in votes["votes"]] == [1, 2, 3, 4]
    singles = [registry.find(i).test_score.accuracy for i in runs]
    assert votes["votes"][0]["mean"] == pytest.approx(sum(singles) / 4)
    assert votes["singles"] == pytest.approx(singles)
    assert "2 to 8" in refused(client, "/vote", runs[:1])
    assert "Name two" in refused(client, "/vote", [])


def test_sweep(server, words: lc.Task) -> None:
    client, _ = server
    settings = {"task": words.name, "steps": 2, "batch_size": 4, "rank": 2, "visitor": VISITOR}
    assert "Another sweep" not in str(settings)
    sweep = client.predict(kind="ranks", **settings, api_name="/start_sweep")
    ticker = threading.Event()
    for _ in range(int(WAIT / 0.3)):
        answer = client.predict(sweep, api_name="/sweep")
        if answer["state"] == "done":
            break
        ticker.wait(0.3)
    assert answer["done"] == answer["runs"] == 4  # ranks 1, 4, 8 and all weights
    assert [group["name"] for group in answer["groups"]] == ["r 1", "r 4", "r 8", "full"]
    assert "take three" in answer["sentence"]
    assert client.predict(sweep, api_name="/stop_sweep")["state"] == "done"
    for kind, what in (("grid", 12), ("rates", 30)):
        made = client.predict(
            kind=kind, seeds=1 if kind == "grid" else 3, **settings, api_name="/start_sweep"
        )
        stopped = client.predict(made, api_name="/stop_sweep")
        assert stopped["state"] == "done" and stopped["runs"] == (9 if kind == "grid" else what)
    assert "one of" in refused(client, "/start_sweep", kind="luck", **settings)
    short = refused(client, "/start_sweep", **(settings | {"visitor": "short"}))
    assert "secret text of 16 to 200 characters" in short
    assert "seeds must be one of" in refused(client, "/start_sweep", seeds=2, **settings)
    assert "not here" in refused(client, "/sweep", "nobody")


def test_lora_against_full_fine_tuning(server, runs: list[str], tiny: lc.Base) -> None:
    """What is compared with what, and what is said of both."""
    _, registry = server
    mine = [registry.find(run) for run in runs]
    lora, full = mine[0], mine[3]
    assert [method_of(run) for run in mine] == ["lora", "lora", "lora", "full"]
    assert to_compare(lora, mine) == [lora, full] == to_compare(full, mine), "the same seed"
    assert to_compare(lora, mine[:3]) == [lora] and missing(lora, [lora]) == "full"
    assert missing(full, [full]) == "lora" and missing(lora, [lora, full]) is None
    text = forgetting.passage(tiny.tokenizer, forgetting.general_text()[:400], 24)
    curves = [
        (run, finish(forgetting.forgetting(run.classifier, tiny, text))) for run in (lora, full)
    ]
    answer = forgot(curves)
    assert [one["name"] for one in answer["figure"]["series"]] == [
        name_of(lora),
        "full fine-tuning",
    ]
    for (_, curve), drawn, said in zip(
        curves, answer["figure"]["series"], answer["runs"], strict=True
    ):
        bits = {one.strength: one.bits for one in curve}
        assert (drawn["x"][0], drawn["x"][-1]) == (0.0, 2.0)
        assert dict(zip(drawn["x"], drawn["y"], strict=True)) == bits
        assert said["forgot"] == pytest.approx(bits[1.0] / bits[0.0] - 1)
        assert f"{bits[1.0]:.3f}" in answer["sentence"]
    assert answer["figure"]["level"] == pytest.approx(curves[1][1][0].bits, rel=1e-5), "one base"
    assert "full fine-tuning changed the table" in answer["note"]
    linear = lc.LoRAConfig(rank=2, targets=LINEAR_TARGETS)
    other = registry.submit(VISITOR, tiny, lora.task, linear, lora.train_config)
    wait(other)
    alone = forgot([(other, [forgetting.AtStrength(0.0, 2.0), forgetting.AtStrength(1.0, 1.9)])])
    assert "left as it was" in alone["note"] and "forgot nothing" in alone["sentence"]
    registry.remove(VISITOR, other.id)


# Pure -------------------------------------------------------------------------------------------


def group(*scores: float, name: str = "r 4", rows: int = 483) -> Group:
    return Group(Settings(), dict(enumerate(scores)), rows, name)


def test_two_settings_in_words() -> None:
    close = group(0.912, 0.920, 0.905), group(0.919, 0.925, 0.911, name="r 16")
    said = difference_words(*close)
    assert said.startswith("r 4 and r 16 cannot be told apart with 3 seeds: 91.2 % ± 0.8 against")
    far = difference_words(group(0.80, 0.81, 0.80), group(0.95, 0.95, 0.96, name="full"))
    assert "differ" in far and "−16.3 to −13.7" in far
    assert "single seed" in difference_words(group(0.9), group(0.1, name="full"))


def test_luck_of_nothing_and_of_a_foolish_choice() -> None:
    assert luck([])["state"] == "none"
    three = [group(0.9), group(0.8, 0.7, name="b"), group(0.6, name="c")]
    for pair in ([], [7, -1], [0, 0], [2, 1, 0]):
        assert len(luck(three, pair)["figure"]["chosen"]) == 2
    assert luck(three, [2, 1])["figure"]["chosen"] == [2, 1]


def swept(kind: str, scores: Callable[[Point], float], seeds: int = 1) -> str:
    """The sentence of a sweep that is over, with these accuracies."""
    points = points_of(kind, Settings(), Limits(), SHAPE, 2)
    cells = cells_of(points, seeds, 0)
    results = [Result("finished", None, scores(cell.about), 48, 1000, 1.0) for cell in cells]
    plan = Plan("id", VISITOR, kind, "words", tuple(cells), list(results), None, None, state="done")
    return sweep_answer(plan)["sentence"].replace("\u00a0", " ")


def test_sweeps_in_words() -> None:
    """What is luck, a tie, or the end of what was tried is said to be so."""
    grid = swept("grid", lambda p: 0.9 if p.settings.rank == 4 else 0.8)
    assert "4 of 16 settings reach the best, 90.0 %; one of them is r 4" in grid
    assert "may be luck" in grid
    best = swept("grid", lambda p: 0.9 if (p.settings.rank, p.settings.alpha) == (4, 8) else 0.8)
    assert best.startswith("Best at r 4, α 8: 90.0 %.")
    several = swept("grid", lambda p: 0.9 if p.settings.rank == 4 else 0.8, seeds=3)
    assert "The best beside the next best: They cannot be told apart with 3 seeds" in several
    tried = points_of("rates", Settings(), Limits(), SHAPE, 2)
    at = {name: sorted(p.rate for p in tried if p.series == name) for name in ("lora", "full")}
    inner = swept("rates", lambda p: 0.9 if p.rate == at[p.series][2] else 0.8)
    assert "did best at an end" not in inner
    # LoRA and full fine-tuning are tried at rates of their own: which they are is said.
    for name, other in (("lora", "full"), ("full", "lora")):
        near = min(at[name], key=lambda rate: abs(math.log(rate / at[other][2])))
        assert f"(at {number(near)})" in inner
    edge = swept("rates", lambda p: 0.5 + p.rate)
    assert "LoRA and full fine-tuning did best at an end of it" in edge
    assert "all of them reach 70.0 %" in swept("layers", lambda p: 0.7)


def test_a_pair_that_was_picked_by_its_result_says_so() -> None:
    """The best and the worst of six settings differ by luck more often than any two."""
    ranks = {1: 0.90, 4: 0.92, 16: 0.93, 64: 0.94}
    close = swept("layers", lambda p: 0.90 + p.settings.rank / 1000, seeds=3)
    assert "picked from 15 pairs after the runs: Bonferroni" in close
    far = swept("ranks", lambda p: ranks[p.settings.rank] if p.series == "lora" else 0.2, seeds=3)
    assert "The best is r 64 with 94.0 % ± 0.0; the smallest, r 1, reaches 90.0 % ± 0.0." in far
    assert "from 4 pairs" in far
    assert "pairs" not in swept("rates", lambda p: 0.9, seeds=3)  # each side at its own best


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("rank", [1, 8, 64])
@pytest.mark.parametrize("scaling", ["alpha/rank", "alpha/sqrt(rank)", "alpha"])
def test_every_sweep_can_be_trained(base: lc.Base, kind: str, rank: int, scaling: str) -> None:
    settings = Settings(rank=rank, alpha=2.0 * rank, scaling=scaling)
    points = points_of(kind, settings, Limits(), base.config, 2)
    assert len(set(points)) == len(points) == len({p.name for p in points})
    cells = cells_of(points, 3, 7)
    assert [c.train_config.seed for c in cells] == [7] * len(points) + [8] * len(points) + [
        9
    ] * len(points)
    for cell in cells:
        lc.predict_parameters(base.config, cell.lora_config, 2, cell.train_config.method)
    if kind == "rates":
        assert {p.series for p in points} == {"lora", "full"}
        assert all(p.settings.learning_rate > 0 for p in points)
    needed = {
        p.series: lc.TrainConfig(method=p.settings.method).for_labels(2).steps for p in points
    }  # type: ignore[arg-type]
    assert all(p.settings.steps == needed[p.series] for p in points)
    if kind == "grid":
        assert len({p.rate for p in points}) == 1, "only rank and alpha vary"
    if kind == "layers":
        assert len(points) == 6
        scale = settings.lora_config().scale
        assert all(math.isclose(p.settings.lora_config().scale, scale) for p in points)


@pytest.mark.parametrize("scaling", ["alpha/rank", "alpha/sqrt(rank)"])
def test_layers_that_cannot_have_the_scale_are_left_out(base: lc.Base, scaling: str) -> None:
    """Of a link: at another scale they would not be compared at equal cost."""
    settings = Settings(rank=1, alpha=MAX_ALPHA, scaling=scaling)
    points = points_of("layers", settings, Limits(), base.config, 2)
    scale = settings.lora_config().scale
    assert points and all(math.isclose(p.settings.lora_config().scale, scale) for p in points)
    assert points[0].settings.targets == lc.TARGETS and len(points) < 6
