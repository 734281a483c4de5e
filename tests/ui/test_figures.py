"""What the page draws, before any browser: geometry, numbers in words, curves, the comparison."""

from __future__ import annotations

import math
import threading
from dataclasses import asdict, replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

import lora_core as lc
from lora_core.adapters.size import adapter_file_bytes
from lora_core.config import HEAD, TARGETS
from lora_core.limits import Limits
from lora_core.serving.registry import Registry, RunError, new_visitor
from lora_core.ui.context import Lab
from lora_core.ui.drawing.colours import COLOURS, RUN_COLOURS
from lora_core.ui.drawing.curves import MAX_POINTS, Curve, smooth
from lora_core.ui.drawing.figures import accuracy_figure, loss_figure
from lora_core.ui.drawing.html_head import Head
from lora_core.ui.drawing.layer import HAIR, HEIGHT, SIDE, WIDTH, draw
from lora_core.ui.names import layer_name, short_names
from lora_core.ui.panels.adapt import RANKS, describe, task_value
from lora_core.ui.panels.finetune import View, baseline, queue_runs
from lora_core.ui.settings import Settings
from lora_core.ui.sweeps import SWEPT_RANKS, sweep_of
from lora_core.ui.text import words


@given(st.integers(16, 4096), st.integers(16, 4096), st.integers(1, 256))
def test_drawing_is_to_scale(n_in: int, n_out: int, rank: int) -> None:
    rank = min(rank, max(1, min(n_in, n_out) // 4))
    placed = draw(n_in, n_out, rank)
    assert max(placed.W.width, placed.W.height) == pytest.approx(SIDE)
    assert placed.W.width * n_in == pytest.approx(placed.W.height * n_out)
    thin = placed.unit * rank
    if thin >= HAIR:  # then areas compare as numbers of parameters do
        area = placed.A.width * placed.A.height + placed.B.width * placed.B.height
        share = rank * (n_in + n_out) / (n_in * n_out)
        assert area / (placed.W.width * placed.W.height) == pytest.approx(share)
    assert placed.A.height == placed.AB.height and placed.B.width == placed.AB.width


@pytest.mark.parametrize("shape", [(256, 256), (256, 1024), (1024, 256), (768, 3072)])
def test_drawing_stays_inside_and_apart(shape: tuple[int, int]) -> None:
    for rank in RANKS:
        placed = draw(*shape, rank)
        for rect in (placed.W, placed.A, placed.B, placed.AB):
            assert rect.x >= 0 and rect.y >= 0
            assert rect.x + rect.width <= WIDTH and rect.y + rect.height <= HEIGHT
        assert placed.A.x > placed.W.x + placed.W.width
        assert placed.A.x + placed.A.width < placed.AB.x
        assert placed.B.y + placed.B.height < placed.AB.y


@pytest.fixture(scope="module")
def lab() -> Lab:
    with Registry(workers=1) as registry:
        yield Lab(registry)


@pytest.mark.parametrize("method", ["lora", "full", "head"])
@pytest.mark.parametrize("head", ["train", "lora"])
def test_numbers_are_the_models_own(lab: Lab, method: str, head: str) -> None:
    settings = Settings(method=method, head=head, targets=("query", "mlp.down"))
    _, numbers = describe(lab, settings, "")
    keys = [str(rank) for rank in RANKS] if method == "lora" else ["any"]
    assert list(numbers["by_rank"]) == keys
    base, classes = lab.base(), len(lab.task(settings.task).labels)
    for key in (keys[0], keys[-1]):
        model = base.classifier_model(classes, share=method != "full")
        if method == "lora":
            lc.inject_lora(model, replace(settings, rank=int(key)).lora_config())
        elif method == "head":
            model.requires_grad_(False)
            model.head.requires_grad_(True)
        counted = lc.count_parameters(model)
        shown = numbers["by_rank"][key]
        assert shown["trainable"] == f"{counted.trainable:,}"
        assert shown["total"] == f"{counted.total:,}"
        lora = replace(settings, rank=int(key)).lora_config() if method == "lora" else None
        size = adapter_file_bytes(base.config, lora, classes) if lora else counted.trainable_bytes
        assert shown["file"] == words.megabytes(size)
        assert shown["memory"] == words.megabytes(counted.optimizer_bytes)
        rows = {row[0]: row for row in shown["layers"]}
        for name, layer in counted.by_module.items():
            assert rows[layer_name(name)][2:4] == [f"{layer.frozen:,}", f"{layer.trainable:,}"]
        assert sum(size for _, size, _ in shown["segments"]) == counted.total
        trained = sum(size * share for _, size, share in shown["segments"])
        assert round(trained) == counted.trainable


def test_warning_when_an_adapter_outsizes_its_layer(lab: Lab) -> None:
    _, numbers = describe(lab, Settings(head="lora"), "")
    assert numbers["by_rank"]["1"]["warning"] == ""
    assert "head" in numbers["by_rank"]["4"]["warning"]
    _, plain = describe(lab, Settings(), "")
    assert all(entry["warning"] == "" for entry in plain["by_rank"].values())


def test_scales_are_those_of_the_layer(lab: Lab) -> None:
    for scaling in words.SCALINGS:
        drawing, _ = describe(lab, Settings(scaling=scaling, alpha=12.0625019, rank=3), "")
        for rank, row in drawing["scales"].items():
            for entry in row:
                layer = lc.LoRALayer(8, 8, int(rank), entry["alpha"], scaling=scaling)
                assert entry["short"] == words.number(layer.scale)
        # A link may hold any value, and no digit of it is cut.
        assert 12.0625019 in [entry["alpha"] for entry in drawing["scales"]["3"]]


def test_shapes_are_the_models(lab: Lab) -> None:
    drawing, _ = describe(lab, Settings(), "")
    model = lab.base().classifier_model(2)
    shapes = {entry["name"]: entry["shape"] for entry in drawing["layers"]}
    for name in TARGETS:
        layer = next(m for n, m in model.named_modules() if f".{n}".endswith(f".{name}"))
        n_in = layer.num_embeddings if name == "token_embedding" else layer.in_features
        n_out = layer.weight.numel() // n_in
        assert shapes[name] == f"{n_in} × {n_out}"
    assert HEAD not in shapes


def test_numbers_in_words() -> None:
    assert words.number(192.3, 2) == "192" and words.number(999.7) == "1,000"  # never 1.9e+02
    assert words.number(0.0000312) == "0.0000312" and words.number(0.0) == "0"
    assert words.number(2.0) == "2" and words.number(16 / math.sqrt(8)) == "5.66"
    assert words.percent(100.0) == "100 %" and words.percent(99.97) == "100.0 %"
    assert words.megabytes(999) == "999 bytes" and words.megabytes(591_880) == "592 kB"
    assert words.megabytes(21_291_016) == "21.3 MB" and words.megabytes(4 * 10**9) == "4 GB"
    assert words.duration(59.4) == "59 s" and words.duration(125) == "2 min 5 s"


def test_runs_are_named_by_what_differs() -> None:
    one = Settings()
    assert short_names([one]) == ["r 8"]
    assert short_names([one, one]) == ["r 8", "r 8 (2)"]
    assert short_names([one, Settings(method="full")]) == ["r 8", "full fine-tuning"]
    other = Settings(rank=64, alpha=128, seed=1)
    assert short_names([one, other]) == ["r 8, seed 0", "r 64, seed 1"], "of one scale"
    assert short_names([one, Settings(rank=64)]) == ["r 8, α 16", "r 64, α 16"], "of two"
    assert short_names([one, Settings(alpha=16.0625)]) == ["r 8, α 16", "r 8, α 16.0625"]
    rated = Settings(learning_rate=1e-3)
    close = [replace(one, learning_rate=rate, dropout=0.1) for rate in (0.00123456, 0.001234561)]
    assert short_names(close) == ["r 8, lr 0.00123456", "r 8, lr 0.001234561"]
    assert short_names([one, rated]) == ["r 8, default lr", "r 8, lr 0.001"]


def test_a_long_curve_is_averaged_a_short_one_is_not() -> None:
    def curve_of(steps: int) -> dict[str, list[float]]:
        curve = Curve()
        events = lc.Started(steps, 1, 1e-3, "lora", None, None, 1, 1, 1.0)  # type: ignore[arg-type]
        curve.feed([events, *(lc.Step(i + 1, float(i), 0.0, 1.0, i + 1.0) for i in range(steps))])
        return curve.data()

    short = curve_of(7)
    assert short["step"] == list(range(1, 8)) and short["loss"] == [float(i) for i in range(7)]
    long = curve_of(5000)
    assert len(long["step"]) <= MAX_POINTS and long["step"][-1] == 5000
    assert sum(long["loss"]) / len(long["loss"]) == pytest.approx(2499.5, rel=0.01)


def test_a_run_that_was_stopped_at_once_has_its_curve() -> None:
    """Of a long run four steps make a point: those of a fourth that never came are drawn, too."""
    curve = Curve()
    curve.feed([lc.Started(2000, 1, 1e-3, "lora", None, None, 1, 1, 1.0)])  # type: ignore[arg-type]
    curve.feed(lc.Step(i, float(i), 0.0, 1.0, float(i)) for i in (1, 2, 3, 4, 5, 6, 7))
    assert curve.data()["step"] == [4]
    curve.feed([lc.Finished(7, "stopped", 0, 0.5, 7.0, None)])  # type: ignore[arg-type]
    assert curve.data()["step"] == [4, 7] and curve.data()["loss"] == [2.5, 6.0]


@pytest.mark.parametrize("scaling", list(words.SCALINGS))
@pytest.mark.parametrize(("rank", "alpha"), [(8, 16.0), (1, 128.0), (64, 1.0), (3, 1.5)])
def test_a_sweep_keeps_the_effective_scale(scaling: str, rank: int, alpha: float) -> None:
    settings = Settings(rank=rank, alpha=alpha, scaling=scaling)
    swept = sweep_of(settings, Limits())
    assert [s.rank for s in swept[:-1]] == list(SWEPT_RANKS)
    wanted = settings.lora_config().scale
    assert [s.lora_config().scale for s in swept[:-1]] == pytest.approx([wanted] * 4)
    assert swept[-1].method == "full"


def test_a_sweep_stays_within_the_limits() -> None:
    assert [s.rank for s in sweep_of(Settings(), Limits(max_rank=10))] == [1, 4, 10, 8]
    steep = Settings(rank=1, alpha=60_000.0)
    assert [s.rank for s in sweep_of(steep, Limits())] == [1, 1], "alpha has an end, too"


def test_baseline_is_what_habit_reaches(lab: Lab) -> None:
    task = lab.task("sms-spam")
    share, label = task.majority
    index = task.labels.index(label)
    assert share == sum(e.label == index for e in task.validation) / len(task.validation)
    shown = baseline(lab, Settings(), "")
    assert shown["loss"] == pytest.approx(math.log(2)) and shown["majority"] == share
    assert shown["steps"] == lc.TrainConfig().for_labels(2).steps
    other = baseline(lab, Settings(task="support-topic"), "")
    assert other["steps"] == lc.TrainConfig().for_labels(8).steps != shown["steps"]
    assert baseline(lab, Settings(task="support-topic", steps=20), "")["steps"] == 20
    unseen = sum(e.label == index for e in task.test) / len(task.test)
    assert task_value(task)["floor"] == {"accuracy": unseen, "label": label}, "as in the sentence"


def test_view_of_a_run_and_its_return(lab: Lab, task: lc.Task) -> None:
    visitor = new_visitor()
    lab.registry.add_task(visitor, replace_name(task, "mine"))
    settings = Settings(task="mine", rank=2, steps=6, batch_size=4)
    first = View(lab, visitor)
    empty = first.update()
    assert empty is not None and empty[1]["order"] == [] and not first.live
    run = lab.registry.submit(
        visitor,
        lab.base(),
        lab.task("mine", visitor),
        settings.lora_config(),
        settings.train_config(),
    )
    view = View(lab, visitor)
    updates, ticker = [], threading.Event()
    while True:
        update = view.update()
        if update is not None:
            updates.append(update)
        if not view.live:
            break
        ticker.wait(0.01)
    last = updates[-1]
    drawn = last[1]["runs"][run.id]
    losses = [e.loss for e in run.events if isinstance(e, lc.Step)]
    assert drawn["step"] == [1, 2, 3, 4, 5, 6]
    assert drawn["loss"] == pytest.approx(losses, abs=1e-5)
    assert drawn["at"][0] == 0, "step 0, the base, is drawn"
    assert last[4] == run.id, "steps 3 to 5 are told"
    assert run.test_score is not None
    assert f"{run.test_score.accuracy:.1%}".rstrip("%") in last[0]["sentence"]
    row = last[2]["rows"][0]
    assert run.classifier is not None
    counted = lc.count_parameters(run.classifier.model)
    assert row["cells"]["trainable"] == f"{counted.trainable:,}"
    assert Settings.of(run) == settings
    again = View(lab, visitor).update()
    assert again is not None and again[1] == last[1], "a reloaded page sees the same curves"
    assert View(lab, new_visitor()).update()[1]["order"] == [], "another visitor sees nothing"  # type: ignore[index]


def test_what_a_sweep_would_train_is_counted_before_it_ran(lab: Lab) -> None:
    settings = Settings(task="support-topic", targets=("query",))
    _, numbers = describe(lab, settings, "")
    swept = sweep_of(settings, lab.registry.limits)
    labels = len(lab.task("support-topic").labels)
    wanted = [
        lc.predict_parameters(lab.base().config, s.lora_config(), labels, s.train_config().method)
        for s in swept
    ]
    assert [p["trainable"] for p in numbers["planned"]] == [count.trainable for count in wanted]
    assert [p["name"] for p in numbers["planned"]] == short_names(swept)


def replace_name(task: lc.Task, name: str) -> lc.Task:
    return lc.Task(name, task.labels, task.train, task.validation, task.test)


def test_text_colours_can_be_read() -> None:
    def light(colour: str) -> float:
        parts = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
        linear = [p / 12.92 if p <= 0.03928 else ((p + 0.055) / 1.055) ** 2.4 for p in parts]
        return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]

    def contrast(one: str, other: str) -> float:
        low, high = sorted((light(one), light(other)))
        return (high + 0.05) / (low + 0.05)

    inks = [name for name in COLOURS if name.endswith("ink")] + ["muted", "accent"]
    for theme in (0, 1):
        for ink in inks:
            for ground in ("paper", "card", "sunk"):
                assert contrast(COLOURS[ink][theme], COLOURS[ground][theme]) >= 4.5, (ink, ground)
        for pair in RUN_COLOURS:  # lines and dots
            assert contrast(pair[theme], COLOURS["card"][theme]) >= 3
        assert contrast("#ffffff", COLOURS["button"][theme]) >= 4.5


def test_settings_of_an_address() -> None:
    settings = Settings(rank=4, alpha=1.5, targets=("query", "mlp.up"), method="full", seed=7)
    query = {name: str(value) for name, value in asdict(settings).items()}
    query["targets"] = "query,mlp.up"
    assert Settings.from_query(query) == settings
    assert Settings.from_values(*settings.values()) == settings
    assert Settings.from_query({"targets": "*"}) == Settings()
    assert Settings.from_query({"targets": "*", "head": "lora"}).targets == lc.LINEAR_TARGETS
    with pytest.raises(lc.ConfigError):
        Settings.from_query({"rank": "many"})
    with pytest.raises(lc.ConfigError):
        Settings.from_query({"rank": "0"})


def test_head_replaces_gradios_social_tags() -> None:
    texts = {"title": "T", "text": "a & b", "style": "p{}", "scripts": "<script></script>"}
    head = Head(None, picture="lab/s.png", **texts)  # type: ignore[arg-type]
    page = b'<head><meta property="og:title" content="Gradio" />\n<title>T</title></head><body>'
    made = head.rewrite(page, "http://example.org/").decode()
    assert "Gradio" not in made and "a &amp; b" in made
    assert (
        'content="http://example.org/lab/s.png"' in made
        and "<style>p{}</style><script></script></head>" in made
    )
    assert head.rewrite(b"", "http://example.org/") == b""


def test_a_sweep_is_queued_whole_or_not_at_all() -> None:
    with Registry(Limits(waiting_a_visitor=2), workers=1) as registry:
        visitor = new_visitor()
        with pytest.raises(RunError, match="runs waiting"):
            swept = sweep_of(Settings(steps=10), registry.limits)
            queue_runs(Lab(registry), visitor, "", swept)
        assert registry.runs(visitor) == []


def test_a_notebook_has_a_bar_and_the_page_s_points(capsys: pytest.CaptureFixture[str]) -> None:
    base, task = lc.load_base(), lc.load_task("sms-spam")
    train = lc.TrainConfig(steps=6, batch_size=2, evaluations=2)
    plain = lc.fine_tune(base, task, lc.LoRAConfig(rank=2), train)
    events = list(lc.progress(plain))
    assert [type(e) for e in events][:2] == [lc.Started, lc.Evaluated]
    assert "6/6" in capsys.readouterr().err
    curve = Curve()
    curve.feed(events)
    points = curve.data()
    figure = loss_figure({"r 2": events, "nothing yet": []})
    named = {trace.name: trace for trace in figure.data}
    assert list(named["r 2, smoothed"].y) == points["smooth"]
    assert list(named["r 2, each batch"].x) == points["step"] == [1, 2, 3, 4, 5, 6]
    assert list(named["r 2, validation accuracy"].y) == points["validation_accuracy"]
    scatter = accuracy_figure({"r 2": events, "nothing yet": []})
    assert [tuple(trace.x) for trace in scatter.data] == [(events[0].parameters.trainable,)]
    assert scatter.data[0].y[0] == max(e.validation_accuracy for e in curve.evaluated if e.best)
    allowed = scatter.layout.yaxis.autorangeoptions  # one point alone: no axis from -50 to 150 %
    assert 0 == allowed.minallowed < 1 < allowed.maxallowed <= 1.1


def test_a_smoothed_loss_is_the_weighted_mean_of_the_past() -> None:
    losses = [3.0, None, 1.0, 2.0]
    known = [3.0, 1.0, 2.0]
    wanted = sum(0.9 ** (2 - i) * loss for i, loss in enumerate(known)) / (1 + 0.9 + 0.81)
    assert smooth(losses)[:2] == [3.0, None]
    assert smooth(losses)[3] == pytest.approx(wanted, abs=1e-5)
