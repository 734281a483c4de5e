"""Bases: GPT-2's layout, every tensor accounted for, sharing, digests, words when it fails."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

import lora_core as lc
from lora_core.base.checkpoint import frozen_digest, load_model, read_tensors
from lora_core.base.gpt2_names import from_gpt2, to_gpt2

PROJECT = Path(__file__).resolve().parents[2]


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    """A tiny GPT-2 checkpoint written by transformers itself."""
    from transformers import GPT2Config, GPT2LMHeadModel

    torch.manual_seed(0)
    config = GPT2Config(vocab_size=60, n_positions=20, n_embd=16, n_layer=2, n_head=2)
    GPT2LMHeadModel(config).save_pretrained(tmp_path / "gpt2")
    return tmp_path / "gpt2"


def test_the_bundled_base_loads_without_a_network_and_is_frozen(base) -> None:
    assert base.name == "bundled" and not any(p.requires_grad for p in base.model.parameters())
    assert 5e6 <= lc.count_parameters(base.model).total <= 8.5e6
    assert base.config.context_length >= 256
    assert base.tokenizer.n_vocab == base.config.vocab_size
    assert base.digest() == lc.load_base().digest()


def test_no_file_of_the_project_is_over_ten_megabytes() -> None:
    folders = ("assets", "lora_core", "tests")
    files = [f for name in folders for f in (PROJECT / name).rglob("*") if f.is_file()]
    assert not [f.name for f in files if f.stat().st_size > 10_000_000]


def test_it_has_learnt_english(base) -> None:
    """Real sentences are likelier than the same words shuffled: not random weights."""

    def nats(text: str) -> float:
        ids = torch.tensor([base.tokenizer.encode_ordinary(text)])
        logits = base.model.language_logits(ids)[0, :-1]
        return torch.nn.functional.cross_entropy(logits, ids[0, 1:]).item()

    for text in (
        "I would like to book a table for two people at seven tonight.",
        "The film was too long, but the ending was worth the wait.",
        "Can you send me the address of the new office in the morning?",
    ):
        words = text.split()
        assert nats(text) < nats(" ".join(words[::-1])) - 0.5


def test_visitors_share_the_very_same_tensors(base) -> None:
    first, second = base.classifier_model(2), base.classifier_model(5)
    mine = dict(base.model.named_parameters())
    for model in (first, second):
        shared = {n: p for n, p in model.named_parameters() if not n.startswith("head.")}
        assert shared.keys() == mine.keys() and all(shared[n] is mine[n] for n in mine)
    assert first.head.weight.shape == (2, base.config.emb_dim)
    lc.inject_lora(first, lc.LoRAConfig(rank=1))
    assert type(second.blocks[0].attention.query) is torch.nn.Linear
    copied = base.classifier_model(2, share=False)
    assert all(p.requires_grad for p in copied.parameters())
    assert not {p.data_ptr() for p in copied.parameters()} & {p.data_ptr() for p in mine.values()}


def test_the_digest_sees_through_lora_and_sees_a_changed_bit(base) -> None:
    model = base.classifier_model(2, share=False)
    assert frozen_digest(model) == base.digest()
    lc.inject_lora(model, lc.LoRAConfig(rank=2, head="lora"))
    assert frozen_digest(model) == base.digest()
    torch.nn.init.ones_(model.blocks[0].mlp.up.lora.B)
    lc.merge_lora(model)
    assert frozen_digest(model) == base.digest()
    lc.remove_lora(model)
    assert frozen_digest(model) == base.digest()
    with torch.no_grad():
        model.blocks[1].attention.value.weight[3, 4] += 1e-6
    assert frozen_digest(model) != base.digest()


def test_a_checkpoint_of_transformers_gives_its_logits(checkpoint: Path) -> None:
    from transformers import GPT2LMHeadModel

    ours = load_model(checkpoint)
    theirs = GPT2LMHeadModel.from_pretrained(checkpoint).eval()
    tokens = torch.randint(0, 60, (3, 20))
    with torch.no_grad():
        torch.testing.assert_close(
            ours.language_logits(tokens), theirs(tokens).logits, atol=1e-5, rtol=0
        )


def test_out_and_in_again_is_the_same_bits(base) -> None:
    there = to_gpt2(base.model)
    back = from_gpt2(there, base.config)
    state = base.model.state_dict()
    assert back.keys() == state.keys()
    assert all(torch.equal(back[n], state[n]) for n in state)


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (lambda t: t.pop("transformer.h.1.attn.c_attn.bias"), "h.1.attn.c_attn.bias is missing"),
        (
            lambda t: t.update({"transformer.h.2.ln_1.bias": torch.zeros(16)}),
            "h.2.ln_1.bias does not",
        ),
        (
            lambda t: t.update({"transformer.wpe.weight": torch.zeros(21, 16)}),
            r"wpe.weight is \(21, 16\) instead of \(20, 16\)",
        ),
    ],
)
def test_each_tensor_that_does_not_fit_is_named(checkpoint: Path, damage, words: str) -> None:
    tensors = load_file(checkpoint / "model.safetensors")
    damage(tensors)
    save_file(tensors, checkpoint / "model.safetensors")
    with pytest.raises(lc.BaseError, match=words):
        load_model(checkpoint)


def test_old_checkpoints_with_masks_and_without_prefix_load(checkpoint: Path) -> None:
    tensors = {
        n.removeprefix("transformer."): t
        for n, t in load_file(checkpoint / "model.safetensors").items()
    }
    tensors["h.0.attn.bias"] = torch.ones(1, 1, 20, 20)
    save_file(tensors, checkpoint / "model.safetensors")
    load_model(checkpoint)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"model_type": "llama"}, "llama"),
        ({"activation_function": "gelu"}, "activation_function"),
        ({"n_head": 3}, "n_heads"),
        ({"n_inner": 7}, "MLP"),
    ],
)
def test_a_model_of_another_kind_is_a_sentence(checkpoint: Path, change, words) -> None:
    raw = json.loads((checkpoint / "config.json").read_text())
    (checkpoint / "config.json").write_text(json.dumps(raw | change))
    with pytest.raises(lc.BaseError, match=words):
        load_model(checkpoint)


def test_damaged_and_missing_files_are_a_sentence(checkpoint: Path, tmp_path: Path) -> None:
    weights = checkpoint / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:1000])
    with pytest.raises(lc.BaseError, match="cannot be read"):
        load_model(checkpoint)
    with pytest.raises(lc.BaseError, match=r"no config\.json"):
        load_model(tmp_path)


def test_an_index_that_points_outside_its_folder_is_refused(checkpoint: Path) -> None:
    (checkpoint / "model.safetensors.index.json").write_text(
        json.dumps({"weight_map": {"transformer.wte.weight": "../secret.safetensors"}})
    )
    with pytest.raises(lc.BaseError, match="outside"):
        read_tensors(checkpoint)


def test_a_shard_that_is_missing_is_a_sentence(base, tmp_path: Path) -> None:
    shutil.copytree(PROJECT / "assets" / "base", tmp_path / "base")
    next((tmp_path / "base").glob("model-00001-*")).unlink()
    with pytest.raises(lc.BaseError, match=r"model-00001-.* is missing"):
        lc.load_base(tmp_path / "base")


def test_gpt2_without_a_network_is_a_sentence() -> None:
    with pytest.raises(lc.BaseError, match="bundled base works without a network"):
        lc.load_base("gpt2")
    with pytest.raises(lc.BaseError, match="no base called 'gpt5'"):
        lc.load_base("gpt5")
