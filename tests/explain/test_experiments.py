"""Each experiment against a slow and plain computation of the same, on the real base."""

from __future__ import annotations

import math
from itertools import combinations
from pathlib import Path

import pytest
import torch

import lora_core as lc
from lora_core.classifier import ClassifyError, batched_logits
from lora_core.events import Evaluated
from lora_core.explain import forgetting, knockout, voting
from lora_core.explain.equal_cost import choices
from lora_core.explain.exam import Exam, ExperimentError, finish, values
from lora_core.explain.knife import Knife, cuts, enough, strongest
from lora_core.explain.memorising import memorising
from lora_core.explain.merging import check_merging
from lora_core.lora import lora_layers

from .conftest import train


def plain_right(classifier: lc.Classifier, task: lc.Task) -> int:
    """One text at a time, by the public names only."""
    said = [classifier.classify(row.text).label for row in task.test]
    return sum(task.labels[row.label] == label for row, label in zip(task.test, said, strict=True))


def weights(classifier: lc.Classifier) -> dict[str, torch.Tensor]:
    return {name: p.detach().clone() for name, p in classifier.model.named_parameters()}


@pytest.fixture(autouse=True)
def untouched(lora_run: lc.Classifier, full_run: lc.Classifier, base: lc.Base):
    """No experiment changes a classifier, or the base."""
    before = [weights(run) for run in (lora_run, full_run)]
    digest = base.digest()
    yield
    for run, copies in zip((lora_run, full_run), before, strict=True):
        assert all(torch.equal(p, copies[n]) for n, p in run.model.named_parameters())
        assert all(x.lora.strength == 1.0 and x.lora.rank == 4 for _, x in lora_layers(run.model))
    assert base.digest() == digest


# The exam -----------------------------------------------------------------------------------------


def test_exam_counts_as_one_does_by_hand(lora_run: lc.Classifier, task: lc.Task) -> None:
    exam = Exam.of(lora_run, task)
    assert finish(exam.right(lora_run)) == plain_right(lora_run, task)
    rows = finish(exam.probabilities(lora_run))
    for row, example in zip(rows, task.test, strict=True):
        assert row.tolist() == pytest.approx(
            list(lora_run.classify(example.text).probabilities.values()), abs=1e-5
        )


def test_exam_with_labels_in_another_order(lora_run: lc.Classifier, task: lc.Task) -> None:
    turned = tuple(lc.tasks.task.Example(r.text, 1 - r.label) for r in task.test)
    other = lc.Task(task.name, task.labels[::-1], task.train, task.validation, turned)
    right = finish(Exam.of(lora_run, other).right(lora_run))
    assert right == plain_right(lora_run, task)


def test_exam_refuses_in_words(lora_run: lc.Classifier, words: lc.Task) -> None:
    with pytest.raises(ExperimentError, match="not here"):
        Exam.of(lora_run, None)
    with pytest.raises(ExperimentError, match="labels"):
        Exam.of(lora_run, words)


def test_private_copy_shares_what_is_frozen(
    lora_run: lc.Classifier, full_run: lc.Classifier
) -> None:
    made = lora_run.private_copy()
    own = dict(made.model.named_parameters())
    for name, tensor in lora_run.model.named_parameters():
        assert (own[name] is tensor) == (name not in lora_run.initial)
    text = "you have won a prize"
    for strength in (0.0, 0.4, 1.0, 2.0):
        for run in (lora_run, full_run):
            assert run.private_copy().classify(text, strength) == run.classify(text, strength)


def test_a_model_for_many_texts(
    lora_run: lc.Classifier, full_run: lc.Classifier, task: lc.Task
) -> None:
    ids = [lora_run.encode(row.text) for row in task.test[:8]]
    for run in (lora_run, full_run):
        for strength in (0.0, 0.5, 1.0, 2.0):
            logits = batched_logits(run.model_at(strength), ids)
            expected = run.probabilities(ids, strength)
            assert torch.allclose(logits.softmax(-1), expected, atol=1e-5), strength
        with pytest.raises(ClassifyError, match="strength must be"):
            run.model_at(4.5)


# The knife ----------------------------------------------------------------------------------------


def test_strongest_directions_are_those_of_the_whole_matrix() -> None:
    generator = torch.Generator().manual_seed(0)
    A = torch.randn(40, 6, generator=generator)
    B = torch.randn(6, 30, generator=generator)
    u, s, vt = torch.linalg.svd((A.double() @ B.double()), full_matrices=False)
    left, right = strongest(A, B)
    for k in range(7):
        nearest = (u[:, :k] * s[:k]) @ vt[:k]
        assert torch.allclose((left[:, :k] @ right[:k]).double(), nearest, atol=1e-4)


def test_a_rank_above_the_matrix(base: lc.Base) -> None:
    A, B = torch.randn(3, 8), torch.randn(8, 5)
    left, right = strongest(A, B)
    assert (left.shape, right.shape) == (A.shape, B.shape)  # the rest is zero
    assert not left[:, 3:].any() and not right[3:].any()
    assert torch.allclose(left @ right, A @ B, atol=1e-4)


@pytest.mark.parametrize("scaling", ["alpha/rank", "alpha/sqrt(rank)", "alpha"])
def test_what_is_kept_is_an_adapter_of_that_rank(
    base: lc.Base, task: lc.Task, tmp_path: Path, scaling: str
) -> None:
    run = train(base, task, scaling=scaling).classifier
    knife = Knife(run)
    smaller = knife.keep(2)
    assert smaller.lora_config and smaller.lora_config.rank == 2
    assert run.lora_config and smaller.lora_config.scale == pytest.approx(run.lora_config.scale)
    originals = dict(lora_layers(run.model))
    for name, layer in lora_layers(smaller.model):
        whole = originals[name].lora.delta().detach().double()
        u, s, vt = torch.linalg.svd(whole, full_matrices=False)
        assert layer.lora.A.shape[1] == layer.lora.rank == 2
        assert torch.allclose(layer.lora.delta().double(), (u[:, :2] * s[:2]) @ vt[:2], atol=1e-5)
    lc.save_adapter(smaller, tmp_path)
    back = lc.load_adapter(tmp_path, base)
    for row in task.test[:16]:
        assert back.classify(row.text).probabilities == pytest.approx(
            smaller.classify(row.text).probabilities, abs=1e-5
        )
    # Cutting on does not reach what was kept.
    before = smaller.classify("you have won").probabilities
    knife.at(0)
    assert smaller.classify("you have won").probabilities == before


def test_every_rank(lora_run: lc.Classifier, task: lc.Task) -> None:
    curve = finish(cuts(Knife(lora_run), Exam.of(lora_run, task)))
    assert [cut.rank for cut in curve] == [0, 1, 2, 3, 4]
    assert curve[4].right == plain_right(lora_run, task)
    plain = lora_run.private_copy()
    for _, layer in lora_layers(plain.model):
        layer.lora.scale = 0.0
    assert curve[0].right == plain_right(plain, task)
    for k in (1, 3):
        made = lora_run.private_copy()
        for _, layer in lora_layers(made.model):  # the full matrix, cut and merged by hand
            delta = layer.lora.delta().detach().double()
            u, s, vt = torch.linalg.svd(delta, full_matrices=False)
            near = ((u[:, :k] * s[:k]) @ vt[:k]).float()
            layer.inner.weight = torch.nn.Parameter(layer.inner.weight + near, False)
            layer.lora.scale = 0.0
        assert curve[k].right == plain_right(made, task)
    assert enough(curve).accuracy >= curve[4].accuracy - 0.005


def test_partial_results_grow(lora_run: lc.Classifier, task: lc.Task) -> None:
    seen = list(values(cuts(Knife(lora_run), Exam.of(lora_run, task))))
    assert [len(curve) for curve in seen] == [1, 2, 3, 4, 5]
    assert [cut.rank for cut in seen[1]] == [0, 4], "both ends first"


def test_knife_refuses(full_run: lc.Classifier, lora_run: lc.Classifier) -> None:
    with pytest.raises(ExperimentError, match="no A and B"):
        Knife(full_run)
    for rank in (-1, 5):
        with pytest.raises(ExperimentError, match="from 0 to 4"):
            Knife(lora_run).at(rank)
    with pytest.raises(ExperimentError, match="at least one"):
        Knife(lora_run).keep(0)


# Knock-out ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", ["lora_run", "full_run"])
def test_without_a_part(method: str, request: pytest.FixtureRequest, task: lc.Task) -> None:
    run: lc.Classifier = request.getfixturevalue(method)
    board = knockout.Switchboard(run)
    part = "blocks.1.mlp.up"
    assert {part, "head", "token_embedding"} <= set(board.parts)

    def by_hand(off: set[str]) -> lc.Classifier:
        """Weights written out: W + dW, or W as it was."""
        made = run.private_copy()
        for name, layer in lora_layers(made.model):
            delta = 0 if name in off else layer.lora.delta().detach()
            layer.inner.weight = torch.nn.Parameter(layer.inner.weight + delta, False)
            layer.lora.scale = 0.0
        for name, first in made.initial.items():
            if name.rpartition(".")[0] in off:
                made.trained[name] = first
        return made

    text = "you have won a prize"
    for off in (set(), {part}, {"head"}, {part, "head"}, set(board.layers), set(board.parts)):
        expected = by_hand(off).classify(text).probabilities
        assert board.without(off).classify(text).probabilities == pytest.approx(expected, abs=1e-5)
    # Everything off is the classifier of step 0; everything on, the trained one again.
    first = run.classify(text, 0.0).probabilities
    everything = board.without(board.parts).classify(text).probabilities
    assert everything == pytest.approx(first, abs=1e-5)
    assert board.without(()).classify(text) == run.classify(text)
    knockouts = finish(knockout.knockouts(board, Exam.of(run, task), [part, "head"]))
    assert knockouts.whole == plain_right(run, task)
    assert [w.part for w in knockouts.parts] == [part, "head"]
    assert knockouts.parts[0].right == plain_right(by_hand({part}), task)
    assert knockouts.adapter_off == plain_right(by_hand(set(board.layers)), task)
    # What lies below a change is read once for all parts: each as if it were asked alone.
    exam = Exam.of(run, task, 24)
    seen = list(values(knockout.knockouts(board, exam)))
    assert [one.rows for one in seen] == [16, 24]
    assert {one.part: one.right for one in seen[-1].parts} == {
        part: finish(exam.right(board.without({part}))) for part in board.parts
    }


def test_unknown_part(lora_run: lc.Classifier) -> None:
    with pytest.raises(ExperimentError, match="No part called 'x'"):
        knockout.Switchboard(lora_run).without(["x"])


def test_correlation() -> None:
    assert knockout.correlation([1, 2, 3, 4], [2, 4, 6, 8]) == pytest.approx(1)
    pairs = [1.0, 5.0, 2.0, 2.5], [3.0, 1.0, 4.0, 1.5]
    expected = torch.corrcoef(torch.tensor(pairs))[0, 1].item()
    assert knockout.correlation(*pairs) == pytest.approx(expected)
    assert knockout.correlation([1, 1, 1], [1, 2, 3]) is None
    assert knockout.correlation([1, 2], [1, 2]) is None


# Forgetting ---------------------------------------------------------------------------------------


def test_bits_are_counted_token_by_token(lora_run: lc.Classifier, base: lc.Base) -> None:
    text = forgetting.general_text()[:700] + " Ünïcödé 漢字 🙂"
    context = 64
    windows = forgetting.passage(base.tokenizer, text, context)
    for strength in (0.0, 1.0, 2.0):
        bits = finish(forgetting.bits_per_byte(lora_run, base, windows, strength))
        ids, nats = base.tokenizer.encode_ordinary(text), 0.0
        table = base.model.token_embedding.weight
        with lora_run.at_strength(strength) as model, torch.no_grad():
            for i, token in enumerate(ids):  # one token at a time, each with what is before it
                start = i - i % (context - 1)
                read = torch.tensor([[base.tokenizer.eot_token, *ids[start:i]]])
                logits = model.hidden(read)[0, -1] @ table.T
                nats -= logits.log_softmax(-1)[token].item()
        assert bits == pytest.approx(nats / math.log(2) / len(text.encode()), rel=1e-4)


def test_strength_zero_is_the_base(
    base: lc.Base, lora_run: lc.Classifier, full_run: lc.Classifier
) -> None:
    text = forgetting.passage(base.tokenizer, forgetting.general_text()[:3000], 256)
    curves = {
        run: finish(forgetting.forgetting(run, base, text, (1.0, 0.0)))
        for run in (lora_run, full_run)
    }
    for run, curve in curves.items():
        assert [point.strength for point in curve] == [0.0, 1.0]
        assert curve[0].bits == pytest.approx(curves[lora_run][0].bits, rel=1e-5)
        assert curve[1].bits != curve[0].bits, run
    with torch.no_grad():
        loss = base.model.language_logits(text.windows[:, :-1]).log_softmax(-1)
    nats = -loss.gather(-1, text.windows[:, 1:, None]).sum().item()
    if text.rest.numel():
        with torch.no_grad():
            loss = base.model.language_logits(text.rest[:, :-1]).log_softmax(-1)
        nats -= loss.gather(-1, text.rest[:, 1:, None]).sum().item()
    assert curves[lora_run][0].bits == pytest.approx(nats / math.log(2) / 3000, rel=0.01)


def test_the_text_is_general_and_ours() -> None:
    text = forgetting.general_text()
    assert 10_000 < len(text.encode()) < 30_000
    assert text.isprintable() or set(text) - {"\n"} == set(text.replace("\n", ""))


# Voting -------------------------------------------------------------------------------------------


def test_votes(lora_run: lc.Classifier, full_run: lc.Classifier, task: lc.Task) -> None:
    exam = Exam.of(lora_run, task)
    voters = [lora_run, full_run, Knife(lora_run).keep(1)]
    known: dict[lc.Classifier, tuple[int, torch.Tensor]] = {}
    finish(voting.ballots(voters[:2], exam, known))
    cast = finish(voting.ballots(voters, exam, known))
    assert set(known) == set(voters) and torch.equal(cast, finish(voting.ballots(voters, exam)))
    fewer = finish(voting.ballots(voters, Exam.of(lora_run, task, 5), known))
    assert torch.allclose(fewer, cast[:, :5], atol=1e-5), "of other texts it asks anew"
    results = voting.count_votes(cast, exam)
    for vote in results:
        shares = []
        for chosen in combinations(voters, vote.voters):
            right = 0
            for row in task.test:
                each = [v.classify(row.text).probabilities for v in chosen]
                mean = {n: sum(p[n] for p in each) / len(each) for n in task.labels}
                right += max(mean, key=mean.__getitem__) == task.labels[row.label]
            shares.append(right / len(task.test))
        plain = sum(shares) / len(shares), min(shares), max(shares)
        assert (vote.mean, vote.low, vote.high) == pytest.approx(plain)
    won, lost = voting.against_best(cast, exam)
    best = max(p for v in results if v.voters == 1 for p in (v.high,))
    assert won - lost == pytest.approx((results[-1].mean - best) * exam.rows)
    assert min(won, lost) >= 0
    assert voting.against_best(cast[:1], exam) == (0, 0), "alone it is itself"


def test_who_may_vote(lora_run: lc.Classifier, tiny: lc.Base, words: lc.Task) -> None:
    with pytest.raises(ExperimentError, match="2 to 8"):
        voting.check_voters([lora_run])
    *_, last = lc.fine_tune(tiny, words, lc.LoRAConfig(rank=1), lc.TrainConfig(steps=1))
    with pytest.raises(ExperimentError, match="different labels"):
        voting.check_voters([lora_run, last.classifier])


# Memorising, merging, equal cost ------------------------------------------------------------------


def evaluated(step: int, train: float, valid: float, best: bool = False) -> Evaluated:
    return Evaluated(step, train, 1 - train / 4, valid, 1 - valid / 4, best, float(step))


@pytest.mark.parametrize(
    ("curve", "turn"),
    [
        ([(0.7, 0.7), (0.4, 0.5), (0.2, 0.3), (0.1, 0.2)], None),  # still learning
        ([(0.7, 0.7), (0.4, 0.4), (0.2, 0.5), (0.1, 0.6)], 1),  # it memorises from step 1 on
        ([(0.7, 0.7), (0.4, 0.4), (0.2, 0.5), (0.1, 0.39)], None),  # it came back
        ([(0.7, 0.7), (0.4, 0.4), (0.5, 0.5), (0.6, 0.6)], None),  # it diverges: both rise
        ([(0.7, 0.7), (0.4, 0.4), (0.2, 0.6)], None),  # one evaluation is too few to say
        ([(0.7, 0.7), (0.4, 0.4), (0.3, 0.405), (0.2, 0.41)], None),  # a rise of nothing
    ],
)
def test_from_when_on_it_memorises(curve: list[tuple[float, float]], turn: int | None) -> None:
    events = [evaluated(i, *losses, best=i == 1) for i, losses in enumerate(curve)]
    memory = memorising(events)
    assert memory and memory.turn == turn and memory.best_step == 1
    assert memory.gap == pytest.approx([(v - t) / 4 for t, v in curve])


def test_before_the_first_evaluation() -> None:
    assert memorising([]) is None


def test_merging(lora_run: lc.Classifier, full_run: lc.Classifier, task: lc.Task) -> None:
    check = finish(check_merging(lora_run, Exam.of(lora_run, task)))
    plain = 0.0
    merged = lora_run.private_copy()
    lc.merge_lora(merged.model)
    for row in task.test:
        ids = torch.tensor([lora_run.encode(row.text)])
        with torch.no_grad():
            apart = (lora_run.model(ids) - merged.model(ids)).abs().max().item()
        plain = max(plain, apart)
    assert check.largest == pytest.approx(plain, abs=5e-6)
    assert 0 < check.largest < 1e-3 and check.changed == 0 and check.rows == len(task.test)
    with pytest.raises(ExperimentError, match="nothing to merge"):
        finish(check_merging(full_run, Exam.of(full_run, task)))


@pytest.mark.parametrize("rank", [1, 8, 64])
def test_equal_cost(base: lc.Base, rank: int) -> None:
    made = choices(base.config, rank, 64)
    assert [c.name for c in made] == ["every", "attention", "mlp", "pieces", "first", "last"]
    for choice in made:
        lora = lc.LoRAConfig(rank=choice.rank, targets=choice.targets)
        model = base.classifier_model(2)
        lc.inject_lora(model, lora)
        real = sum(p.numel() for n, p in model.named_parameters() if ".lora." in n)
        assert choice.parameters == real and choice.rank <= 64
    target = made[-1].parameters
    if rank == 8:
        assert all(abs(c.parameters - target) < 0.08 * target for c in made)
