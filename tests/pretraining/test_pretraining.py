"""Pretraining: what it learns from, that resuming is exact, that two processes equal one."""

from __future__ import annotations

import dataclasses
import errno
import itertools
import json
import lzma
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from lora_core.base.checkpoint import load_model
from lora_core.base.tokenizer import load_encoding
from lora_core.config import GPTConfig
from lora_core.devices import Device
from lora_core.pretraining import PretrainingError
from lora_core.pretraining import trainer as trainer_module
from lora_core.pretraining.__main__ import main
from lora_core.pretraining.corpus import (
    Windows,
    documents,
    fingerprint,
    line_ends,
    prepare_tokens,
)
from lora_core.pretraining.export import export
from lora_core.pretraining.measure import bits_per_byte, read_validation, summed_loss
from lora_core.pretraining.network import (
    language_model,
    working_weights,
)
from lora_core.pretraining.summary import REACH, Summary
from lora_core.pretraining.trainer import CHECKPOINT, Settings, Trainer

ROOT = Path(__file__).resolve().parents[2]
FOLDER = ROOT / "assets" / "base"
VOCAB = load_encoding(FOLDER / "tokenizer.tiktoken").n_vocab
TINY = GPTConfig(VOCAB, 32, 32, 2, 2)
CPU32 = Device(torch.device("cpu"), torch.float32, "for the test")


@pytest.fixture(scope="module")
def encoding():
    return load_encoding(FOLDER / "tokenizer.tiktoken")


@pytest.fixture
def corpus(tmp_path) -> Path:
    path = tmp_path / "corpus.txt"
    topics = ["the weather", "a phone", "my order", "that film", "two tickets", "the bus"]
    blocks = [
        f"I asked about {topics[i % 6]} number {i}.\nThey said that {topics[i * 5 % 6]} was late!"
        for i in range(400)
    ]
    path.write_text("\n\n".join(blocks) + "\n", encoding="utf-8")
    return path


def tiny_run(corpus, out, encoding, **changes) -> Trainer:
    settings = Settings(TINY, tokens=12 * 256, batch_tokens=256, warmup_tokens=512, micro_rows=4)
    settings = dataclasses.replace(settings, **changes)
    out.mkdir(exist_ok=True)
    path = prepare_tokens([corpus], encoding, out, quiet=True)
    return Trainer(settings, Windows(path, 32, settings.seed, line_ends(encoding)), CPU32)


def weights_of(trainer: Trainer) -> dict[str, torch.Tensor]:
    return {n: p.detach().clone() for n, p in trainer.model.named_parameters()}


@pytest.mark.parametrize("ahead", [False, True])
def test_a_summary_is_the_bag_of_the_document_around_a_position(ahead):
    corpus = np.repeat(np.arange(50, dtype=np.uint16), np.arange(1, 51))
    summary = Summary(corpus, vocabulary=50, width=4)
    assert (summary.weights[:-1].diff() < 0).all()  # the rarer, the more
    tokens = torch.randint(0, 50, (3, 120), generator=torch.Generator().manual_seed(0))
    positions = summary.positions(tokens, seed=5)
    bags = summary.targets(tokens, positions, ahead=ahead)
    assert bags.shape == (3, 15, 50)
    for row, ids in enumerate(tokens.tolist()):
        document = [ids[: i + 1].count(49) for i in range(120)]
        for column, place in enumerate(positions[row].tolist()):
            near = (
                range(place + 1, place + REACH + 1)
                if ahead
                else range(place - REACH + 1, place + 1)
            )
            wanted = torch.zeros(50)
            for i in near:
                if 0 <= i < 120 and document[i] == document[place]:
                    wanted[ids[i]] += summary.weights[ids[i]]
            wanted /= wanted.sum().clamp_min(1e-6)
            torch.testing.assert_close(bags[row, column], wanted)


def test_the_summary_asks_at_the_ends_of_lines_first():
    ends = np.zeros(50, dtype=bool)
    ends[[7, 49]] = True
    corpus = np.arange(50, dtype=np.uint16)
    tokens = torch.randint(0, 50, (4, 240), generator=torch.Generator().manual_seed(0))
    summary = Summary(corpus, vocabulary=50, width=4, line_ends=ends)
    for row, chosen in zip(tokens, summary.positions(tokens, seed=3), strict=True):
        last = {i for i in range(239) if ends[row[i + 1]]}  # a line ends behind them
        assert len(set(chosen.tolist())) == 30
        assert last < set(chosen.tolist())


@pytest.mark.parametrize("other", [{}, {"ahead": 2.0, "at_line_ends": True}])
def test_the_second_aim_is_learned_and_can_be_taken_up_on_the_way(
    corpus, tmp_path, encoding, other
):
    first = tiny_run(corpus, tmp_path, encoding, summary=0.0, tokens=60 * 256)
    first.run(tmp_path, stop_at=4, quiet=True)
    later = tiny_run(corpus, tmp_path, encoding, summary=2.0, tokens=60 * 256, **other)
    later.resume(tmp_path / CHECKPOINT)
    later.train_step()
    begin = later.progress.summary_loss
    assert begin == pytest.approx(np.log(TINY.vocab_size), rel=0.01)  # its matrix is zero
    later.run(tmp_path, quiet=True)
    assert later.progress.summary_loss < 0.9 * begin
    assert (later.progress.ahead_loss > 0) == ("ahead" in other)
    assert later.progress.ahead_loss < 0.9 * begin
    again = tiny_run(corpus, tmp_path, encoding, summary=2.0, tokens=60 * 256, **other)
    again.resume(tmp_path / CHECKPOINT)
    for name, matrix in later.summary.matrices.items():
        assert torch.equal(again.summary.matrices[name], matrix)
    assert again.progress == later.progress


def test_the_half_that_looks_ahead_can_be_taken_up_later(corpus, tmp_path, encoding):
    first = tiny_run(corpus, tmp_path, encoding, summary=1.0, tokens=20 * 256)
    first.run(tmp_path, stop_at=4, quiet=True)
    later = tiny_run(corpus, tmp_path, encoding, summary=1.0, ahead=1.0, tokens=20 * 256)
    later.resume(tmp_path / CHECKPOINT)
    matrices = later.summary.matrices
    assert torch.equal(matrices["summary"], first.summary.matrices["summary"])
    assert not matrices["ahead"].any()
    later.train_step()
    assert matrices["ahead"].any()


def test_learning_rate_rises_holds_and_falls_to_zero():
    settings = Settings(TINY, tokens=100 * 256, batch_tokens=256, warmup_tokens=2560, decay=0.5)
    shares = [settings.lr_share(step) for step in range(settings.steps)]
    assert shares[0] == pytest.approx(0.1) and shares[9:51] == [1.0] * 42
    assert shares[-1] == pytest.approx(0.02) and settings.lr_share(100) == 0.0
    assert all(b <= a for a, b in itertools.pairwise(shares[10:]))


# The corpus -------------------------------------------------------------------------------------


def test_a_corpus_spells_its_text_and_every_window_comes_once_a_pass(corpus, tmp_path, encoding):
    packed = corpus.with_suffix(".txt.xz")
    packed.write_bytes(lzma.compress(corpus.read_bytes()))
    assert list(documents(packed)) == list(documents(corpus))
    path = prepare_tokens([packed], encoding, tmp_path, quiet=True)
    ids = np.fromfile(path, dtype=np.uint16).tolist()
    text = encoding.decode(ids).removeprefix("<|endoftext|>").replace("<|endoftext|>", "\n\n")
    assert text + "\n" == corpus.read_text()

    plain = Windows(path, 32, seed=3)
    rows = np.concatenate([plain.batch(i, 4)[0] for i in range(plain.count // 4)])
    assert len({row.tobytes() for row in rows}) == len(rows)
    lined = Windows(path, 32, seed=3, line_ends=line_ends(encoding))
    starts = [encoding.decode(lined.batch(i, 4)[0][0].tolist()) for i in range(12)]
    assert all(s.startswith(("I asked", "They said", "<|endoftext|>")) for s in starts)


def test_a_document_without_end_is_cut_not_held(tmp_path, encoding, monkeypatch):
    monkeypatch.setattr("lora_core.pretraining.corpus.LONGEST_DOCUMENT", 1000)
    path = tmp_path / "long.txt"
    path.write_text("word " * 1000)
    parts = list(documents(path))
    assert len(parts) >= 4 and "".join(parts) == "word " * 1000


def test_shares_of_two_processes_make_up_the_batch(corpus, tmp_path, encoding):
    windows = Windows(prepare_tokens([corpus], encoding, tmp_path, quiet=True), 32, seed=0)
    whole, _ = windows.batch(5, 8)
    halves = [windows.batch(5, 8, rank, 2)[0] for rank in (0, 1)]
    assert torch.equal(torch.stack(halves, 1).flatten(0, 1), whole)


# Bits per byte ----------------------------------------------------------------------------------


def test_bits_per_byte_counts_every_token_once_and_every_byte(tmp_path, encoding):
    path = tmp_path / "text.txt"
    path.write_text("One day, it rained.\nWe stayed in.\n\nThe café was full.\n")
    ids, size = read_validation(path, encoding)
    spelt = encoding.decode(ids[1:].tolist()).replace("<|endoftext|>", "\n\n")
    assert size == path.stat().st_size == len(spelt.encode()) - 1  # the last line break is one
    config = GPTConfig(VOCAB, 8, 16, 1, 2)
    model = language_model(config, seed=0)
    weights = working_weights(model, torch.float32)
    for stride in (1, 3, 8):
        nats, tokens = summed_loss(weights, config, ids, stride)
        assert tokens == len(ids) - 1
        assert nats / tokens == pytest.approx(np.log(VOCAB), rel=0.02)  # untrained: uniform
    per_token = bits_per_byte(nats, tokens, len(ids) - 1, size) * size / (len(ids) - 1)
    assert per_token == pytest.approx(np.log2(VOCAB), rel=0.02)


def test_sliding_windows_equal_the_plain_model(encoding):
    config = GPTConfig(VOCAB, 6, 16, 1, 2)
    model = language_model(config, seed=0)
    model.token_embedding.weight.data *= 20
    ids = np.random.default_rng(0).integers(0, VOCAB, 20)
    nats, tokens = summed_loss(working_weights(model, torch.float32), config, ids, stride=1)
    expected = 0.0
    for i in range(1, 20):
        seen = torch.from_numpy(ids[max(0, i - 6) : i])[None]
        target = torch.tensor([int(ids[i])])
        expected += F.cross_entropy(model.language_logits(seen)[:, -1], target).item()
    assert tokens == 19 and nats == pytest.approx(expected, rel=1e-5)


# Runs -------------------------------------------------------------------------------------------


def test_a_run_learns(corpus, tmp_path, encoding):
    trainer = tiny_run(corpus, tmp_path / "run", encoding, tokens=60 * 256)
    first = trainer.train_step()
    trainer.run(tmp_path / "run", quiet=True)
    assert trainer.progress.loss < 0.7 * first


def test_a_killed_run_goes_on_bit_for_bit(corpus, tmp_path, encoding):
    whole = tiny_run(corpus, tmp_path / "a", encoding)
    whole.run(tmp_path / "a", quiet=True)
    part = tiny_run(corpus, tmp_path / "b", encoding)
    part.run(tmp_path / "b", stop_at=5, quiet=True)
    rest = tiny_run(corpus, tmp_path / "b", encoding)
    rest.resume(tmp_path / "b" / CHECKPOINT)
    assert rest.progress.step == 5
    rest.run(tmp_path / "b", quiet=True)
    for name, tensor in weights_of(whole).items():
        assert torch.equal(tensor, weights_of(rest)[name]), name
        assert torch.equal(whole.mean[name], rest.mean[name]), name
    assert whole.progress.loss == rest.progress.loss


def test_a_checkpoint_of_another_run_is_refused(corpus, tmp_path, encoding):
    tiny_run(corpus, tmp_path / "a", encoding).save(tmp_path / "a")
    other = tiny_run(corpus, tmp_path / "b", encoding, other_lr=2e-2)
    with pytest.raises(PretrainingError, match=r"other_lr was 0\.01 and is now 0\.02"):
        other.resume(tmp_path / "a" / CHECKPOINT)
    longer = tiny_run(corpus, tmp_path / "c", encoding, tokens=99 * 256)
    longer.resume(tmp_path / "a" / CHECKPOINT)  # how long a run lasts may change
    (tmp_path / "a" / CHECKPOINT).write_bytes(b"half a file")
    with pytest.raises(PretrainingError, match="not a complete checkpoint"):
        other.resume(tmp_path / "a" / CHECKPOINT)


def test_a_full_disk_is_a_sentence_and_keeps_the_old_checkpoint(
    corpus, tmp_path, encoding, monkeypatch
):
    trainer = tiny_run(corpus, tmp_path / "a", encoding)
    trainer.save(tmp_path / "a")
    before = (tmp_path / "a" / CHECKPOINT).read_bytes()

    def full(*_args, **_kwargs):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(trainer_module, "save_file", full)
    with pytest.raises(PretrainingError, match=r"No space left on device\. Make room"):
        trainer.save(tmp_path / "a")
    assert (tmp_path / "a" / CHECKPOINT).read_bytes() == before


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full here")
def test_a_disk_that_fills_while_encoding_is_a_sentence(corpus, tmp_path, encoding):
    target = tmp_path / f"tokens-{fingerprint([corpus], encoding)}.part"
    target.symlink_to("/dev/full")
    with pytest.raises(PretrainingError, match="half the size of the text"):
        prepare_tokens([corpus], encoding, tmp_path, quiet=True)
    assert list(tmp_path.glob("tokens-*")) == []


def test_a_lost_run_says_so(corpus, tmp_path, encoding):
    trainer = tiny_run(corpus, tmp_path / "a", encoding)
    trainer.model.final_norm.weight.data.fill_(float("nan"))
    with pytest.raises(PretrainingError, match="The loss became nan at step 1"):
        trainer.train_step()


FLAGS = "--tokens 1024 --batch-tokens 256 --context 32 --width 32 --layers 1 --heads 2 --threads 1"


def program(corpus: Path, out: Path, *more: str) -> list[str]:
    return ["--corpus", str(corpus), "--out", str(out), "--no-compile", *FLAGS.split(), *more]


def test_two_processes_equal_one(corpus, tmp_path):
    """`torchrun` with gloo: the same weights as one process, up to the order of the sums."""
    environment = dict(os.environ, LORA_LAB_DTYPE="float32", LORA_LAB_DEVICE="cpu")
    environment |= {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    one, two = tmp_path / "one", tmp_path / "two"
    module = ["-m", "lora_core.pretraining"]
    single = [sys.executable, *module, *program(corpus, one, "--quiet")]
    launcher = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node=2"]
    launcher += ["--rdzv-backend=c10d", "--rdzv-endpoint=localhost:0"]
    double = [*launcher, *module, *program(corpus, two, "--quiet")]
    for command in (single, double):
        subprocess.run(command, env=environment, check=True, cwd=tmp_path, timeout=300)
    a, b = load_model(one / "model"), load_model(two / "model")
    for (name, x), y in zip(a.named_parameters(), b.parameters(), strict=True):
        # fp16 in the files; Muon's bfloat16 amplifies the last bits of the sums
        torch.testing.assert_close(x, y, atol=3e-3, rtol=0, msg=name)


def test_the_program_trains_measures_exports_and_goes_on(corpus, tmp_path, capsys):
    out = tmp_path / "run"
    assert main(program(corpus, out, "--validation", str(corpus))) == 0
    assert "bits per byte" in capsys.readouterr().out
    facts = json.loads((out / "run.json").read_text())
    assert facts["steps"] == 4 and 0 < facts["bits_per_byte"] < 8
    assert load_model(out / "model").config.emb_dim == 32
    assert main([*program(corpus, out), "--tokens", "2048", "--stop-at", "6"]) == 0
    assert json.loads((out / "run.json").read_text())["steps"] == 6
    assert main([*program(corpus, out), "--tokens", "2048"]) == 0  # goes on, longer
    assert json.loads((out / "run.json").read_text())["steps"] == 8
    assert main([*program(corpus, out), "--tokens", "2048", "--export-mean"]) == 0


def test_bad_input_ends_in_a_sentence(corpus, tmp_path, capsys):
    def complaint(path: Path, *more: str) -> str:
        assert main(program(path, tmp_path / "run", "--quiet", *more)) == 2
        error = capsys.readouterr().err
        assert error.startswith("error: ") and error.count("\n") == 1
        return error

    empty, latin, short = tmp_path / "empty", tmp_path / "latin", tmp_path / "short"
    empty.write_text("\n\n \n")
    latin.write_bytes("caf\u00e9".encode("latin-1"))
    short.write_text("Hello there.")
    assert "no text in" in complaint(empty)
    assert "not UTF-8" in complaint(latin)
    assert "one window needs 33" in complaint(short)
    assert "cannot be read" in complaint(tmp_path / "nowhere")
    assert "tokenizer" in complaint(corpus, "--tokenizer", str(tmp_path))
    assert "multiple of n_heads" in complaint(corpus, "--heads", "3")
    broken = tmp_path / "broken.xz"
    broken.write_bytes(b"not xz")
    assert "cannot be read" in complaint(broken)
    blocked = tmp_path / "file"
    blocked.write_text("")
    assert main(program(corpus, blocked)) == 2
    assert "cannot be made" in capsys.readouterr().err


# The exported folder ----------------------------------------------------------------------------


def test_transformers_opens_an_export_with_our_logits(tmp_path):
    transformers = pytest.importorskip("transformers")
    model = language_model(TINY, seed=0)
    files = export(model, FOLDER, tmp_path / "model", shard_bytes=300_000)
    assert len([f for f in files if f.suffix == ".safetensors"]) > 1
    compare_logits(transformers, tmp_path / "model", TINY)


def test_transformers_opens_the_bundled_base_with_our_logits():
    transformers = pytest.importorskip("transformers")
    if not (FOLDER / "config.json").is_file():
        pytest.fail("assets/base has no weights")
    compare_logits(transformers, FOLDER, load_model(FOLDER).config)
    assert all(f.stat().st_size < 10_000_000 for f in FOLDER.iterdir())


def compare_logits(transformers, folder: Path, config: GPTConfig) -> None:
    torch.manual_seed(0)
    tokens = torch.randint(0, config.vocab_size, (2, config.context_length))
    theirs = transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    with torch.no_grad():
        difference = load_model(folder).language_logits(tokens) - theirs(tokens).logits
    assert difference.abs().max() < 1e-4
    classifier = transformers.AutoModelForSequenceClassification.from_pretrained(
        folder, num_labels=3, dtype=torch.float32
    )
    padded = torch.nn.functional.pad(tokens[:, :5], (0, 3), value=config.vocab_size - 1)
    assert classifier(padded).logits.shape == (2, 3)  # batches need the padding token


def test_weights_that_fp16_cannot_hold_are_named(tmp_path):
    model = language_model(TINY, seed=0)
    model.final_norm.bias.data[0] = 1e6
    with pytest.raises(PretrainingError, match=r"ln_f\.bias"):
        export(model, FOLDER, tmp_path)
