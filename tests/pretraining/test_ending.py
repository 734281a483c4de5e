"""What a text was about is said at its end; killed, the program goes on where it was."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

import lora_core as lc
from lora_core.base.frame import Frame, frame_of
from lora_core.base.tokenizer import load_encoding
from lora_core.config import GPTConfig
from lora_core.pretraining import ending
from lora_core.pretraining.ending import EndingStudent
from lora_core.pretraining.export import export
from lora_core.pretraining.kinds import emphasis
from lora_core.pretraining.lessons import Lessons
from lora_core.pretraining.network import language_model
from lora_core.pretraining.student import Settings
from lora_core.pretraining.teach import EMPHASIS, States, Teacher, write_states
from tests.pretraining.conftest import TEXTS

FOLDER = Path(__file__).resolve().parents[2] / "assets" / "base"


@pytest.fixture(scope="module")
def states(llama, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("states")
    write_states(Teacher(llama, 2, torch.float32), TEXTS, folder, 4, quiet=True)
    return folder


@pytest.fixture
def lessons(states) -> Lessons:
    encoding = load_encoding(FOLDER / "tokenizer.tiktoken")
    return Lessons(States(states), TEXTS, encoding, reserve=1)


def test_behind_each_text_stands_its_end_and_the_teachers_mean_of_it(lessons) -> None:
    encoding = load_encoding(FOLDER / "tokenizer.tiktoken")
    seen = set()
    for step in range(40):
        ids, ends, means, index, states = lessons.endings(step, 0, 64, 0.5)
        length = ids.shape[1]
        assert len(ends) == len(means) == len(ids) and len(index) == len(states)
        for row, (end, mean) in enumerate(zip(ends.tolist(), means, strict=True)):
            size = end - row * length
            assert 1 <= size < length and (ids[row, size:] == encoding.eot_token).all()
            raw = encoding.decode_bytes(ids[row, :size].tolist())
            number = next(i for i, text in enumerate(TEXTS) if text.encode().startswith(raw))
            cuts = lessons.states.ends_of(number)
            read = int(np.flatnonzero(cuts == len(raw))[0]) + 1  # of the teacher's tokens
            expected = lessons.states.states_of(number)[:read].mean(0)
            np.testing.assert_allclose(mean, expected, rtol=1e-4, atol=1e-5)
            seen.add(raw)
        assert not set(index.tolist()) & set(ends.tolist())
    whole = {text.encode() for text in TEXTS}
    assert seen & whole and seen - whole  # whole ones, and ones that end earlier


def test_it_learns_to_say_the_mean_at_the_end(lessons) -> None:
    encoding = load_encoding(FOLDER / "tokenizer.tiktoken")
    model = language_model(GPTConfig(encoding.n_vocab, 256, 32, 2, 2), 0)
    settings = Settings(10**6, batch_tokens=256, warmup_steps=2, language_every=0, power=1.0)
    student = EndingStudent(model, lessons, None, settings, torch.float32)
    student.train_step()
    first = student.progress.losses["mean"]
    for _ in range(150):
        student.train_step()
    assert student.progress.losses["mean"] < 0.5 * first


def test_the_program_goes_on_where_it_was_and_writes_a_base_that_reads_ends(
    states, tmp_path
) -> None:
    torch.manual_seed(0)
    start = tmp_path / "start"
    vocab = load_encoding(FOLDER / "tokenizer.tiktoken").n_vocab
    export(language_model(GPTConfig(vocab, 64, 32, 1, 2), 0), FOLDER, start)
    texts, corpus = tmp_path / "texts.txt", tmp_path / "corpus.txt"
    texts.write_text("\n".join(TEXTS), "utf-8")
    corpus.write_text("\n".join(TEXTS * 40), "utf-8")

    def run(out: str, tokens: int) -> dict[str, torch.Tensor]:
        arguments = ["--states", states, "--texts", texts, "--corpus", corpus, "--base", start]
        more = ["--out", tmp_path / out, "--tokens", tokens, "--decay", "0"]
        assert ending.main([str(part) for part in [*arguments, *more]]) == 0
        return dict(lc.load_base(tmp_path / out / "model").model.state_dict())

    whole = run("whole", 30_000)
    part = run("halves", 15_000)
    assert not torch.equal(part["final_norm.weight"], whole["final_norm.weight"])
    again = run("halves", 30_000)
    for name, tensor in whole.items():
        torch.testing.assert_close(again[name], tensor, rtol=0, atol=2e-3)
    base = lc.load_base(tmp_path / "whole" / "model")
    assert frame_of(base.tokenizer) == Frame(after=(vocab - 1,), padding=vocab - 2)


def test_what_kinds_are_told_apart_by_is_said_louder(states, tmp_path) -> None:
    folder = tmp_path / "states"
    shutil.copytree(states, folder)
    column = torch.zeros(4, 1)
    column[1] = 1.0
    save_file({"matrix": emphasis(column)}, folder / EMPHASIS)
    encoding = load_encoding(FOLDER / "tokenizer.tiktoken")
    said = {}
    for name, place in (("plain", states), ("stressed", folder)):
        model = language_model(GPTConfig(encoding.n_vocab, 256, 32, 2, 2), 0)
        lessons = Lessons(States(place), TEXTS, encoding, reserve=1)
        settings = Settings(10**6, batch_tokens=256, warmup_steps=2, language_every=0, power=1.0)
        student = EndingStudent(model, lessons, None, settings, torch.float32)
        for _ in range(150):
            student.train_step()
        ids, ends, *_ = lessons.endings(0, 7, 4096, 0.5)
        with torch.no_grad():
            said[name] = model.hidden(ids).flatten(0, 1)[ends][:, :4].std(0)
    louder = said["stressed"] / said["plain"]
    assert louder[1] > 1.5 * louder[[0, 2, 3]].max()
