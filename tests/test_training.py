"""fine_tune: events, determinism, stopping, divergence, methods, isolation."""

from __future__ import annotations

import gc
import itertools
import math
import threading

import pytest
import torch

import lora_core as lc
from lora_core.batches import make_batch, sorted_batches, training_batches
from lora_core.fast.engine import FastEngine, move
from lora_core.preparation import default_head_rate
from lora_core.scores import best_temperature
from lora_core.training import schedule


def run(base, task, lora=None, **settings) -> list[lc.Event]:
    watch = settings.pop("watch_texts", ())
    stop = settings.pop("should_stop", lambda: False)
    config = lc.TrainConfig(**{"steps": 12, "evaluations": 3, **settings})
    return list(lc.fine_tune(base, task, lora, config, watch_texts=watch, should_stop=stop))


def adapter(finished: lc.Finished) -> dict[str, torch.Tensor]:
    return {n: p for n, p in finished.classifier.model.named_parameters() if p.requires_grad}


def rank_of(event: lc.Evaluated) -> tuple[float, float]:
    return event.validation_accuracy, -event.validation_loss


@pytest.mark.parametrize("method", ["lora", "full", "head"])
def test_events_come_in_order_and_the_loss_falls(base, task, method) -> None:
    digest = base.digest()
    events = run(base, task, method=method, steps=40, evaluations=4, watch_texts=["win cash"])
    started, *_, finished = events
    assert isinstance(started, lc.Started) and isinstance(finished, lc.Finished)
    assert [e.step for e in events if isinstance(e, lc.Step)] == list(range(1, 41))
    evaluated = [e for e in events if isinstance(e, lc.Evaluated)]
    assert [e.step for e in evaluated] == [0, 10, 20, 30, 40]
    watched = [e for e in events if isinstance(e, lc.Watched)]
    assert watched[0].step == 0 and watched[-1].step == 40
    assert all(math.isclose(sum(e.probabilities[0]), 1, rel_tol=1e-5) for e in watched)
    said = finished.classifier.classify("win cash").probabilities
    assert watched[-1].probabilities[0] == pytest.approx(tuple(said.values()), abs=1e-6)
    assert finished.outcome == "completed"
    assert min(e.validation_loss for e in evaluated) < evaluated[0].validation_loss
    assert finished.best_step == max(evaluated, key=rank_of).step
    assert base.digest() == digest


def test_the_same_seed_gives_the_same_adapter_bit_for_bit(base, task) -> None:
    lora = lc.LoRAConfig(rank=4, dropout=0.2)
    first, again, other = (run(base, task, lora, seed=s) for s in (5, 5, 6))
    losses = [[e.loss for e in r if isinstance(e, lc.Step)] for r in (first, again, other)]
    assert losses[0] == losses[1] != losses[2]
    a, b = adapter(first[-1]), adapter(again[-1])
    assert a.keys() == b.keys() and all(torch.equal(a[n], b[n]) for n in a)


def test_runs_in_threads_give_what_they_give_alone(base, task) -> None:
    alone = adapter(run(base, task, lc.LoRAConfig(rank=4, dropout=0.2), seed=3)[-1])
    results: dict[int, dict[str, torch.Tensor]] = {}

    def work(i: int) -> None:
        torch.set_num_threads(1)
        torch.rand(i + 1)
        results[i] = adapter(run(base, task, lc.LoRAConfig(rank=4, dropout=0.2), seed=3)[-1])

    threads = [threading.Thread(target=work, args=(i,)) for i in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(results) == 3
    for result in results.values():
        assert all(torch.equal(result[n], alone[n]) for n in alone)


def test_stopping_ends_at_the_next_step_with_a_usable_classifier(base, task) -> None:
    seen: list[lc.Event] = []
    config = lc.TrainConfig(steps=1000, evaluations=3)
    for event in lc.fine_tune(base, task, None, config, should_stop=lambda: seen[-1:] == [5]):
        seen.append(event.step if isinstance(event, lc.Step) else event)
    assert [e for e in seen if isinstance(e, int)] == [1, 2, 3, 4, 5]
    assert seen[-1].outcome == "stopped"
    assert seen[-1].classifier.classify("hello there").label in task.labels


def test_a_run_stopped_in_its_first_evaluation_still_finishes(base, task, monkeypatch) -> None:
    monkeypatch.setattr("lora_core.training.ASK_SECONDS", 0.0)  # as if everything took long
    events = run(base, task, steps=50, should_stop=lambda: True)
    assert [type(e) for e in events] == [lc.Started, lc.Finished]
    assert events[-1].outcome == "stopped" and events[-1].step == 0
    assert 0 <= events[-1].validation_accuracy <= 1


def test_a_long_run_is_evaluated_as_often_as_a_short_one() -> None:
    assert sorted(lc.TrainConfig(steps=4).evaluation_steps) == [0, 1, 2, 3, 4]
    for steps in (24, 100, 300, 1000, 2000):
        at = sorted(lc.TrainConfig(steps=steps).evaluation_steps)
        assert at[0] == 0 and at[-1] == steps
        assert len(at) > 8 and max(b - a for a, b in itertools.pairwise(at)) <= 40
    assert lc.TrainConfig(steps=9, evaluations=3).evaluation_steps == {0, 3, 6, 9}


def test_a_run_of_few_steps_spends_its_time_on_them() -> None:
    for steps, evaluated in ((1, 2), (3, 4), (10, 5), (20, 8), (23, 9)):
        at = sorted(lc.TrainConfig(steps=steps).evaluation_steps)
        assert at[0] == 0 and at[-1] == steps and len(at) == evaluated


@pytest.mark.parametrize(("labels", "steps"), [(2, 150), (3, 150), (5, 210), (8, 300), (77, 300)])
def test_more_labels_take_more_steps_where_none_are_asked_for(labels: int, steps: int) -> None:
    assert lc.TrainConfig().for_labels(labels).steps == steps
    assert lc.TrainConfig().for_labels(labels, most=40).steps == 40
    assert lc.TrainConfig(steps=7).for_labels(labels).steps == 7
    assert lc.TrainConfig(method="full").for_labels(labels).steps == 300


def test_a_run_takes_the_steps_that_its_labels_need(base, task) -> None:
    events = lc.fine_tune(base, task)
    started = next(events)
    assert started.steps == lc.TrainConfig().for_labels(len(task.labels)).steps > 0
    events.close()


def test_a_cancelled_generator_leaves_gradients_on(base, task) -> None:
    events = lc.fine_tune(base, task, None, lc.TrainConfig(steps=3))
    for _ in range(4):
        next(events)
        assert torch.is_grad_enabled()
    events.close()
    gc.collect()
    assert torch.is_grad_enabled()


def test_a_run_that_explodes_says_so_and_keeps_what_it_had(base, task) -> None:
    events = run(base, task, steps=60, learning_rate=9.0, evaluations=1)
    diverged = [e for e in events if isinstance(e, lc.Diverged)]
    assert len(diverged) == 1 and "learning rate 9" in diverged[0].message
    assert "smaller" in diverged[0].message or "Try" in diverged[0].message
    finished = events[-1]
    assert finished.outcome == "diverged" and finished.best_step == 0
    assert all(torch.isfinite(p).all() for p in finished.classifier.model.parameters())


def test_an_error_within_a_run_does_not_lose_the_best_weights(base, task, monkeypatch) -> None:
    """Memory ends in the ninth step: what was evaluated after the eighth is still there."""
    step, taken = FastEngine.step, []

    def out_of_memory(self, batch, rate):
        taken.append(rate)
        if len(taken) == 9:
            raise MemoryError("not enough memory for this batch")
        return step(self, batch, rate)

    monkeypatch.setattr(FastEngine, "step", out_of_memory)
    config = lc.TrainConfig(steps=12, evaluations=3)
    events: list[lc.Event] = []
    with pytest.raises(MemoryError, match="this batch"):
        for event in lc.fine_tune(base, task, None, config):
            events.append(event)
    finished = events[-1]
    assert isinstance(finished, lc.Finished) and finished.outcome == "failed"
    assert finished.step == 8
    evaluated = [e for e in events if isinstance(e, lc.Evaluated)]
    assert [e.step for e in evaluated] == [0, 4, 8]
    assert finished.best_step == max(evaluated, key=rank_of).step > 0
    assert finished.classifier.classify("win a prize").label in task.labels
    assert not [p for p in finished.classifier.model.parameters() if p.grad is not None]


def test_an_error_before_the_first_evaluation_is_raised_alone(base, task, monkeypatch) -> None:
    def broken(self, batch):
        raise RuntimeError("no such kernel")

    monkeypatch.setattr(FastEngine, "logits", broken)
    events = lc.fine_tune(base, task, None, lc.TrainConfig(steps=4))
    assert isinstance(next(events), lc.Started)
    with pytest.raises(RuntimeError, match="kernel"):
        next(events)
    assert list(events) == []


def test_best_weights_are_the_ones_that_classify(base, task) -> None:
    events = run(base, task, steps=30, evaluations=6)
    best = max((e for e in events if isinstance(e, lc.Evaluated)), key=rank_of)
    predictions = events[-1].classifier.classify_many([e.text for e in task.validation])
    right = sum(
        p.label == task.labels[e.label] for p, e in zip(predictions, task.validation, strict=True)
    )
    assert right / len(task.validation) == pytest.approx(best.validation_accuracy, abs=0.04)


def test_an_empty_task_is_a_sentence(base, task) -> None:
    empty = lc.Task("mine", task.labels, (), task.validation, ())
    with pytest.raises(lc.ConfigError, match="mine"):
        next(lc.fine_tune(base, empty))


def test_the_schedule_rises_then_falls_to_nothing() -> None:
    rates = [schedule(i, 100, 0.1) for i in range(101)]
    assert rates[0] > 0 and rates[9] == rates[10] == 1.0 and rates[100] == pytest.approx(0)
    assert rates[:10] == sorted(rates[:10]) and rates[10:] == sorted(rates[10:], reverse=True)
    assert schedule(0, 1, 0.5) > 0


def test_the_heads_rate_grows_with_the_classes_falls_with_the_width_and_can_be_chosen() -> None:
    rates = [default_head_rate(2e-4, classes, 256) for classes in (2, 10, 20, 50, 100)]
    assert rates == pytest.approx([2e-4, 2e-4, 4e-4, 1e-3, 1e-3])
    assert default_head_rate(2e-4, 60, 768) == pytest.approx(4e-4)
    high = [default_head_rate(rate, 77, 256) for rate in (5e-4, 1e-3, 2e-3, 3e-3)]
    assert high == pytest.approx([2e-3, 2e-3, 2e-3, 3e-3])  # at most LoRA's own, or the rest's
    with pytest.raises(lc.ConfigError, match="head_learning_rate"):
        lc.TrainConfig(head_learning_rate=0.0)


def test_batches_hold_every_text_once_an_epoch_and_little_padding() -> None:
    ids = [[1] * n for n in ([2, 3, 4, 50] * 40)]
    labels = [0, 1] * 80
    batches = training_batches(ids, labels, 8, torch.Generator().manual_seed(0))
    epoch = list(itertools.islice(batches, 20))
    assert sorted(r for b in epoch for r in b.rows) == list(range(160))
    padded = sum(b.tokens.numel() for b in epoch)
    assert padded <= 1.3 * sum(b.real_tokens for b in epoch)
    assert sorted(r for b in sorted_batches(ids, labels, 7) for r in b.rows) == list(range(160))
    batch = make_batch([[5], [6, 7, 8]], [1, 0], [1, 0])
    assert batch.tokens.tolist() == [[6, 7, 8], [5, 0, 0]] and batch.labels.tolist() == [0, 1]


def test_a_run_elsewhere_leaves_the_bases_weights_where_they_are(base) -> None:
    """On a GPU the model gets copies; other runs compute with the base meanwhile. The device of
    this test holds no numbers, but every machine has it."""
    model = base.classifier_model(2, torch.Generator().manual_seed(0))
    lc.inject_lora(model, lc.LoRAConfig(rank=2), torch.Generator().manual_seed(0))
    before, elsewhere = dict(model.named_parameters()), torch.device("meta")
    left = move(model, elsewhere)
    assert {p.device for p in model.parameters()} == {elsewhere}
    assert {p.device for p in base.model.parameters()} == {torch.device("cpu")}
    twin = base.classifier_model(2)
    move(twin.requires_grad_(False), elsewhere)
    copies = model.blocks[0].mlp.up.linear.weight, twin.blocks[0].mlp.up.weight
    assert copies[0].untyped_storage()._cdata == copies[1].untyped_storage()._cdata
    for module, name, parameter in left:
        setattr(module, name, parameter)
    frozen = {n for n, p in before.items() if not p.requires_grad}
    assert frozen and all(dict(model.named_parameters())[n] is before[n] for n in frozen)


@pytest.mark.parametrize("method", ["lora", "full", "head"])
def test_a_run_goes_on_from_its_best_weights(base, task, method) -> None:
    snapshots: list[tuple[int, dict[str, torch.Tensor]]] = []

    def on_best(step: int, weights: dict[str, torch.Tensor]) -> None:
        snapshots.append((step, weights))

    config = lc.TrainConfig(steps=12, evaluations=3, method=method)
    whole = list(lc.fine_tune(base, task, None, config, on_best=on_best))
    assert snapshots[-1][0] == whole[-1].best_step
    temperature = whole[-1].classifier.scores["temperature"]
    for name, tensor in adapter(whole[-1]).items():
        divided = snapshots[-1][1][name] / (temperature if name.startswith("head.") else 1.0)
        assert torch.equal(tensor, divided)
    step, weights = snapshots[0][0] + 8, snapshots[-1][1]
    later = list(lc.fine_tune(base, task, None, config, resume=(step, weights)))
    assert [e.step for e in later if isinstance(e, lc.Step)] == [9, 10, 11, 12]
    rates = [e.learning_rate for e in whole if isinstance(e, lc.Step)]
    assert [e.learning_rate for e in later if isinstance(e, lc.Step)] == rates[8:]
    assert later[1].step == 8 and later[1].validation_accuracy == whole[-1].validation_accuracy
    with pytest.raises(lc.ConfigError, match="not those of a run"):
        next(lc.fine_tune(base, task, lc.LoRAConfig(rank=3), resume=(0, weights)))


@pytest.mark.parametrize("true_temperature", [0.5, 1.0, 3.0])
def test_the_temperature_is_found_again(true_temperature) -> None:
    generator = torch.Generator().manual_seed(0)
    honest = 3.0 * torch.randn(4000, 4, generator=generator)
    truth = torch.multinomial(honest.softmax(-1), 1, generator=generator).squeeze(1)
    temperature = best_temperature(honest * true_temperature, truth)
    assert temperature == pytest.approx(true_temperature, rel=0.08)


def test_a_handful_of_right_answers_asks_for_no_certainty() -> None:
    logits = torch.tensor([[2.0, 0.0], [0.0, 2.0], [3.0, 0.0]])
    assert 0.5 < best_temperature(logits, torch.tensor([0, 1, 0])) < 1.0


def test_the_heads_of_a_finished_run_are_divided_where_they_can_be(base, task) -> None:
    for config, method, divided in (
        (lc.LoRAConfig(), "lora", True),
        (lc.LoRAConfig(), "head", True),
        (lc.LoRAConfig(head="lora"), "lora", False),
    ):
        train = lc.TrainConfig(steps=10, evaluations=2, method=method)
        *_, end = lc.fine_tune(base, task, config, train)
        if end.best_step:
            assert (end.classifier.scores["temperature"] != 1.0) == divided
