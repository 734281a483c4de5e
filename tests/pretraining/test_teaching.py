"""A teacher's states are `transformers`' own, writing and learning go on where they stopped."""

from __future__ import annotations

import dataclasses
import random
from pathlib import Path

import numpy as np
import pytest
import torch

from lora_core.base.tokenizer import load_encoding, read_ranks
from lora_core.config import GPTConfig
from lora_core.pretraining import PretrainingError, phrases, reading, student, vocabulary
from lora_core.pretraining.aim_block import append_aim_block, end_residuals
from lora_core.pretraining.lessons import Lessons, scales
from lora_core.pretraining.start import bag_start, token_states
from lora_core.pretraining.student import Settings, Student, begin
from lora_core.pretraining.teach import States, Teacher, find_basis, write_states
from tests.pretraining.conftest import TEXTS

ROOT = Path(__file__).resolve().parents[2]
FOLDER = ROOT / "assets" / "base"
TYPED = ROOT / "tests" / "benchmarks" / "typed.csv"


def test_states_are_those_of_transformers_without_the_first_position(llama):
    import transformers

    whole = transformers.AutoModel.from_pretrained(llama).eval()
    teacher = Teacher(llama, 1, torch.float32)
    read = teacher.read(TEXTS)
    for text, (ends, states) in zip(TEXTS, read, strict=True):
        ids = teacher.tokenizer(text, add_special_tokens=False)["input_ids"]
        with torch.no_grad():
            judge = whole(torch.tensor([[0, *ids]]), output_hidden_states=True).hidden_states[1]
        torch.testing.assert_close(states, judge[0, 1:], rtol=1e-4, atol=1e-5)
        assert ends[-1] == len(text.encode())
        assert ends == sorted(ends)


def test_a_killed_writer_goes_on_after_its_last_text(llama, tmp_path):
    teacher = Teacher(llama, 2, torch.float32)
    whole, halves = tmp_path / "whole", tmp_path / "halves"
    write_states(teacher, TEXTS, whole, 8, quiet=True)
    write_states(teacher, TEXTS, halves, 8, quiet=True)
    counts = np.fromfile(halves / "counts.u16", np.uint16)
    counts[:4].tofile(halves / "counts.u16")  # killed after four texts, the fifth half written
    with (halves / "states.f16").open("ab") as file:
        file.write(b"half a text")
    write_states(teacher, TEXTS, halves, 8, quiet=True)
    for name in ("counts.u16", "ends.u16"):
        assert (whole / name).read_bytes() == (halves / name).read_bytes()
    first, second = States(whole), States(halves)
    assert len(first) == len(TEXTS)
    np.testing.assert_allclose(first.states_of(6), second.states_of(6), atol=2e-3)


def test_the_mean_of_kept_states_is_the_kept_mean(llama, tmp_path):
    teacher = Teacher(llama, 2, torch.float32)
    write_states(teacher, TEXTS, tmp_path, 4, quiet=True)
    states = States(tmp_path)
    (_, full), *_ = teacher.read(TEXTS[:1])
    projected = (full.mean(0) - states.basis["mean"]) @ states.basis["components"]
    np.testing.assert_allclose(states.states_of(0).mean(0), projected.numpy(), atol=2e-3)


def test_components_are_orthonormal_and_their_deviations_fall(llama):
    basis = find_basis([s for _, s in Teacher(llama, 2, torch.float32).read(TEXTS)], 3)
    torch.testing.assert_close(
        basis["components"].t() @ basis["components"], torch.eye(3), rtol=1e-4, atol=1e-5
    )
    assert basis["deviations"].tolist() == sorted(basis["deviations"].tolist(), reverse=True)


def test_what_is_no_teacher_is_refused_in_words(llama, tmp_path):
    with pytest.raises(PretrainingError, match="not of Llama's form"):
        Teacher(FOLDER, 1, torch.float32)
    with pytest.raises(PretrainingError, match="--layers 3"):
        Teacher(llama, 3, torch.float32)
    with pytest.raises(PretrainingError, match="cannot be read as a teacher"):
        Teacher(tmp_path, 1, torch.float32)
    with pytest.raises(PretrainingError, match="holds no teacher's states"):
        States(tmp_path)


@pytest.fixture
def lessons(llama, tmp_path) -> Lessons:
    folder = tmp_path / "states"
    write_states(Teacher(llama, 2, torch.float32), TEXTS, folder, 4, quiet=True)
    return Lessons(States(folder), TEXTS, load_encoding(FOLDER / "tokenizer.tiktoken"))


def test_asked_positions_are_cuts_of_both_tokenisers(lessons):
    encoding = load_encoding(FOLDER / "tokenizer.tiktoken")
    for number, (mine, theirs) in zip(lessons.number, lessons.places, strict=True):
        ids = lessons.ids[lessons.number.index(number)]
        ends = np.cumsum([len(encoding.decode_single_token_bytes(int(i))) for i in ids])
        assert (ends[mine] == lessons.states.ends_of(number)[theirs]).all()
        assert ends[-1] == ends[mine][-1]
    assert lessons.tokens == sum(map(len, lessons.ids))


def test_targets_are_the_mean_so_far_and_the_state(lessons):
    ids, index, last, targets = lessons.batch(0, 0, 64)
    length = ids.shape[1]
    for row in range(ids.shape[0]):
        inside = index // length == row
        own = ids[row, : int(index[inside].max()) % length + 1].numpy()
        text = next(i for i, other in enumerate(lessons.ids) if np.array_equal(own, other))
        states = lessons.states.states_of(lessons.number[text])
        theirs = lessons.places[text][1]
        np.testing.assert_allclose(targets[1][inside], states[theirs], rtol=1e-5)
        so_far = [states[: t + 1].mean(0) for t in theirs]
        np.testing.assert_allclose(targets[0][inside], so_far, rtol=1e-3, atol=1e-5)
        assert last[inside].tolist() == [False] * (len(theirs) - 1) + [True]


def test_scaled_targets_have_mean_square_one(lessons):
    for name, scale in zip(
        ("deviations", "state_deviations"), scales(lessons.states, 0.75), strict=True
    ):
        value = (lessons.states.basis[name] * scale).square().mean()
        assert value.item() == pytest.approx(1.0, rel=0.05)


def small_student(lessons: Lessons, tokens: int = 10_000) -> Student:
    model, _ = begin("bundled", None)
    settings = Settings(
        tokens, batch_tokens=256, matrix_lr=1e-3, other_lr=2e-3, warmup_steps=2, language_every=0
    )
    return Student(model, lessons, None, settings, torch.float32)


def test_it_learns_and_resumes_exactly(lessons, tmp_path):
    one, two = small_student(lessons), small_student(lessons)
    for _ in range(6):
        one.train_step()
    for _ in range(3):
        two.train_step()
    two.save(tmp_path)
    again = small_student(lessons)
    again.resume(tmp_path)
    for _ in range(3):
        again.train_step()
    assert again.progress.tokens == one.progress.tokens
    for (name, a), (_, b) in zip(one.named, again.named, strict=True):
        assert torch.equal(a, b), name
    before = one.progress.losses["mean"]
    for _ in range(30):
        one.train_step()
    assert one.progress.losses["mean"] < before


def test_another_runs_checkpoint_is_refused(lessons, tmp_path):
    small_student(lessons).save(tmp_path)
    other = small_student(lessons)
    other.settings = Settings(10, matrix_lr=0.5)
    with pytest.raises(PretrainingError, match="matrix_lr"):
        other.resume(tmp_path)


# A fresh student ----------------------------------------------------------------------------------


def fresh_student(lessons: Lessons) -> Student:
    encoding = load_encoding(FOLDER / "tokenizer.tiktoken")
    settings = Settings(10_000, batch_tokens=256, warmup_steps=2, language_every=0, power=1.0)
    means = token_states(lessons.states, TEXTS, encoding)
    scale = scales(lessons.states, 1.0)[0]
    model = bag_start(GPTConfig(encoding.n_vocab, 256, 32, 2, 2), means, scale, seed=0)
    return Student(model, lessons, None, settings, torch.float32)


def test_a_tokens_first_embedding_is_what_the_teacher_said_where_it_ended(lessons):
    encoding = load_encoding(FOLDER / "tokenizer.tiktoken")
    means = token_states(lessons.states, TEXTS, encoding)
    seen: dict[int, list[np.ndarray]] = {}
    for number, text in enumerate(TEXTS):
        end, ends = 0, lessons.states.ends_of(number)
        for token in encoding.encode_ordinary(text):
            end += len(encoding.decode_single_token_bytes(token))
            place = next(i for i, theirs in enumerate(ends) if theirs >= end)
            seen.setdefault(token, []).append(lessons.states.states_of(number)[place])
    for token, rows in seen.items():
        expected = np.sum(rows, 0) / (len(rows) + 5)
        np.testing.assert_allclose(means[token], expected, rtol=1e-4, atol=1e-6)
    unseen = [i for i in range(encoding.n_vocab) if i not in seen]
    assert not means[unseen].any()


def test_a_fresh_student_says_part_of_the_mean_before_its_first_step(lessons):
    student = fresh_student(lessons)

    def error() -> float:
        said, wanted = [], []
        for step in range(20):
            ids, index, _, both = lessons.batch(step, 0, 64)
            states = student.model.hidden(ids).flatten(0, 1)[index]
            said.append(states @ student.aims["aim.matrix"][0].t() + student.aims["aim.bias"][0])
            wanted.append(both[0] * student.scales[0])
        said, target = torch.cat(said), torch.cat(wanted)
        return float((said - target).square().sum() / (target - target.mean(0)).square().sum())

    with torch.no_grad():
        before = error()
        student.begin_aims()
        after = error()
    assert after < 0.8 < before  # 1: no better than the average text


def test_a_fresh_students_first_attention_is_nearly_even(lessons):
    model = fresh_student(lessons).model
    block, rows = model.blocks[0], torch.tensor([[5, 60, 700, 8000]])
    with torch.no_grad():
        x = model.token_embedding(rows) + model.position_embedding.weight[:4]
        attention, normed = block.attention, block.norm1(x)
        scores = attention.query(normed)[0] @ attention.key(normed)[0].t()
    assert float(torch.softmax(scores[-1] / 4, -1).max()) < 0.3


# The reading list, and the vocabulary -------------------------------------------------------------


def test_an_aim_block_adds_what_the_matrix_says(lessons):
    encoding = load_encoding(FOLDER / "tokenizer.tiktoken")
    student = fresh_student(lessons)
    student.begin_aims()
    matrix, bias = student.aims["aim.matrix"].detach()[0], student.aims["aim.bias"].detach()[0]
    before = end_residuals(student.model, TEXTS, encoding, batch=3)
    deeper = append_aim_block(student.model, matrix, bias, before, strength=2.0, gain=0.5)
    after = end_residuals(deeper, TEXTS, encoding)
    with torch.no_grad():
        said = student.model.final_norm(before) @ matrix.t() + bias
        expected = said - said.mean(0)
        added = after - before
    size = 2.0 * before.square().mean().sqrt() / expected.square().mean().sqrt()
    torch.testing.assert_close(
        added[:, : len(bias)], size * expected, rtol=1e-3, atol=1e-4 * float(size)
    )
    assert not added[:, len(bias) :].abs().max() > 1e-4 * float(size)
    assert deeper.config.n_layers == student.model.config.n_layers + 1
    assert torch.equal(deeper.final_norm.weight.detach(), torch.full((32,), 0.5))


def test_a_deepened_student_learns_while_the_matrix_stays(lessons, tmp_path):
    encoding = load_encoding(FOLDER / "tokenizer.tiktoken")
    first = fresh_student(lessons)
    first.begin_aims()
    first.save(tmp_path)
    config = dataclasses.replace(first.model.config, n_layers=7)  # the checkpoint's counts
    model = student.deepened(tmp_path, config, TEXTS, encoding)
    assert model.config.n_layers == 3
    settings = dataclasses.replace(first.settings, fixed=True)
    second = Student(model, lessons, None, settings, torch.float32)
    second.begin_aims()
    mean, state = second.aims["aim.matrix"].detach().clone()
    weights = second.model.blocks[-1].mlp.up.weight.detach().clone()
    for _ in range(3):
        second.train_step()
    assert torch.equal(second.aims["aim.matrix"][0], mean)
    assert not torch.equal(second.aims["aim.matrix"][1], state)
    assert (second.model.blocks[-1].mlp.up.weight != weights).any(1).all()  # no unit is dead
    with pytest.raises(PretrainingError, match="no student's checkpoint"):
        student.deepened(tmp_path / "none", config, TEXTS, encoding)


def test_the_reading_list_is_mixed_and_leaves_out_what_it_must(tmp_path):
    corpus = tmp_path / "corpus.txt"
    corpus.write_text(
        "A good film. It moved me.\n\nplease leave this out!\n\nhello there\n", "utf-8"
    )
    folder = tmp_path / "dict"
    folder.mkdir()
    line = '00001740 00 a 01 able 0 005 | having the skill to do something; "able to swim"\n'
    (folder / "data.adj").write_text("  1 a licence\n" + line, "utf-8")
    out = tmp_path / "reading.txt"
    table = tmp_path / "table.csv"
    table.write_text("text,label\nPlease leave this out,a\n", "utf-8")
    arguments = ["--corpus", str(corpus), "--wordnet", str(folder), "--out", str(out)]
    assert reading.main([*arguments, "--without", str(table), "--share", "9"]) == 0
    texts = out.read_text("utf-8").splitlines()
    assert len(texts) == len(set(texts))
    assert "hello there" in texts
    assert "able: having the skill to do something" in texts or "able to swim" in texts
    assert "please leave this out!" not in texts
    assert reading.main(arguments) == 0
    again = out.read_text("utf-8")
    assert reading.main(arguments) == 0
    assert out.read_text("utf-8") == again


def test_written_texts_come_in_three_forms_and_are_no_text_of_a_table():
    lines = Path(reading.__file__).with_name("written.txt").read_text("utf-8").splitlines()
    assert len(lines) > 5000 and len(set(map(reading.plain, lines))) == len(lines)
    assert all(line == " ".join(line.split()) and len(line) <= reading.LONGEST for line in lines)
    texts = reading.written(random.Random(0))
    assert texts[: len(lines)] == lines and len(texts) <= 3 * len(lines)
    assert {reading.plain(text) for text in texts} == set(map(reading.plain, lines))
    tables = [*(FOLDER.parent / "tasks").glob("*.csv"), TYPED]
    judging = {reading.plain(text) for table in tables for text in reading.column(table)}
    assert len(judging) > 10_000 and not judging & set(map(reading.plain, lines))


def test_phrases_are_filled_and_many():
    made = phrases.phrases(random.Random(0))
    assert len(made) > 5000
    assert not any("{" in text or "}" in text for text in made)


def test_a_grown_vocabulary_keeps_ids_and_reads_alike(tmp_path):
    from tokenizers import Tokenizer

    texts = tmp_path / "texts.txt"
    texts.write_text("an antidisestablishmentarian marmoset\n" * 20, "utf-8")
    out = tmp_path / "grown"
    bundled = load_encoding(FOLDER / "tokenizer.tiktoken").n_vocab
    options = ["--texts", str(texts), "--size", str(bundled + 8), "--out", str(out)]
    assert vocabulary.main(options) == 0
    old, new = read_ranks(FOLDER / "tokenizer.tiktoken"), read_ranks(out / "tokenizer.tiktoken")
    assert {token: new[token] for token in old} == old
    assert len(new) == bundled + 6
    encoding = load_encoding(out / "tokenizer.tiktoken")
    judge = Tokenizer.from_file(str(out / "tokenizer.json"))
    for text in ("a marmoset, antidisestablishmentarian", "naïve  café\n\n3141 marmosets"):
        ids = encoding.encode_ordinary(text)
        assert [*ids, encoding.eot_token] == judge.encode(text).ids
        assert encoding.decode(ids) == text
    model, _ = student.begin("bundled", out)
    assert model.token_embedding.weight.shape == (bundled + 8, 256)
    first, _ = student.begin("bundled", None)
    grown, former = model.token_embedding.weight, first.token_embedding.weight
    torch.testing.assert_close(grown[: bundled - 2], former[: bundled - 2])
    torch.testing.assert_close(grown[-2:], former[-2:])


def test_the_small_programs_end_in_a_sentence(tmp_path, capsys):
    nothing = str(tmp_path / "nothing")
    assert reading.main(["--corpus", nothing, "--out", str(tmp_path / "x")]) == 2
    arguments = ["--states", nothing, "--texts", nothing, "--out", str(tmp_path), "--tokens", "9"]
    assert student.main(arguments) == 2
    assert "error: " in capsys.readouterr().err
