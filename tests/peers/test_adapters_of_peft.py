"""Adapters that `peft` trained, and what it can do that plain LoRA cannot, opened here."""

from __future__ import annotations

import json
from pathlib import Path

import peft
import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save_file

import lora_core as lc
from lora_core.adapters.adapter import WEIGHTS_FILE
from tests.peers.stranger import (
    TEXTS,
    VOCAB,
    adapted,
    opened,
    our_logits,
    padded,
    plain_model,
    random_base,
)

TOLERANCE = {"atol": 1e-5, "rtol": 0.0}


def peft_config(**changes) -> peft.LoraConfig:
    settings = {
        "task_type": "SEQ_CLS",
        "r": 4,
        "lora_alpha": 8,
        "target_modules": ["c_attn", "c_proj", "c_fc"],
        "fan_in_fan_out": True,
    }
    return peft.LoraConfig(**{**settings, **changes})


def _trained_by_peft(base: lc.Base, config: peft.LoraConfig):
    """A `peft` model after a few steps of its own training, and its logits."""
    torch.manual_seed(0)
    model = peft.get_peft_model(plain_model(base.source), config)
    ids, mask = padded(base)
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=1e-2)
    model.train()
    for _ in range(4):
        logits = model(input_ids=ids, attention_mask=mask).logits
        F.cross_entropy(logits, torch.tensor([0, 1, 2, 0])).backward()
        optimizer.step()
        optimizer.zero_grad()
    model.eval()
    with torch.no_grad():
        return model(input_ids=ids, attention_mask=mask).logits, model


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"use_rslora": True},
        {"target_modules": ["c_attn"]},
        {"target_modules": ["attn.c_proj", "mlp.c_fc"], "r": 1},
        {"target_modules": "all-linear"},
        {"target_modules": ["c_attn", "wte"]},
        {"target_modules": ["wpe"]},
        {"target_modules": ["wte", "wpe"], "rank_pattern": {"wpe": 2}, "use_rslora": True},
        {"rank_pattern": {"attn.c_attn": 6, "h.1.mlp.c_fc": 2}},
        {"rank_pattern": {"c_attn": 3}, "alpha_pattern": {"c_attn": 24, "mlp.c_proj": 1}},
        {"layers_to_transform": [1]},
        {"lora_dropout": 0.1, "init_lora_weights": "gaussian"},
        {"init_lora_weights": False},
    ],
    ids=lambda changes: ",".join(changes) or "usual",
)
def test_an_adapter_that_peft_trained(tiny, tmp_path, changes) -> None:
    expected, model = _trained_by_peft(tiny, peft_config(**changes))
    model.save_pretrained(tmp_path)
    ours = lc.load_adapter(tmp_path, tiny, labels=["x", "y", "z"])
    torch.testing.assert_close(our_logits(ours), expected, **TOLERANCE)
    probabilities = [p.probabilities for p in ours.classify_many(TEXTS)]
    assert [max(p, key=p.get) for p in probabilities] == ["xyz"[i] for i in expected.argmax(-1)]


def _refused(folder: Path, base: lc.Base, *words: str) -> None:
    with pytest.raises(lc.AdapterError) as caught:
        lc.load_adapter(folder, base)
    for word in words:
        assert word.lower() in str(caught.value).lower()


@pytest.mark.parametrize(
    ("changes", "word"),
    [
        ({"use_dora": True}, "DoRA"),
        ({"bias": "all"}, "bias"),
        ({"bias": "lora_only"}, "bias"),
        ({"lora_bias": True}, "lora_bias"),
        ({"init_lora_weights": "pissa"}, "PiSSA"),
        ({"init_lora_weights": "olora"}, "OLoRA"),
        ({"trainable_token_indices": [1, 2]}, "trainable_token_indices"),
        ({"task_type": None}, "head"),
    ],
    ids=lambda value: str(value)[:40],
)
def test_what_peft_can_do_and_plain_lora_cannot(tiny, tmp_path, changes, word) -> None:
    """Made and saved by peft itself, then refused here, by name."""
    torch.manual_seed(0)
    peft.get_peft_model(plain_model(tiny.source), peft_config(**changes)).save_pretrained(tmp_path)
    _refused(tmp_path, tiny, word)


def test_saved_embeddings_are_the_base_s_or_refused(tiny, tmp_path) -> None:
    """Saved along unchanged, they are the base's own; changed, they are no LoRA."""
    torch.manual_seed(0)
    config = peft_config(modules_to_save=["wpe"])
    peft.get_peft_model(plain_model(tiny.source), config).save_pretrained(tmp_path)
    tensors = load_file(tmp_path / WEIGHTS_FILE)
    saved = next(name for name in tensors if "wpe" in name)
    lc.load_adapter(tmp_path, tiny)
    tensors[saved][3, 4] += 0.01
    save_file(tensors, tmp_path / WEIGHTS_FILE)
    _refused(tmp_path, tiny, "wpe", "trained as well")


def test_other_kinds_of_adapter(tiny, tmp_path) -> None:
    config = peft.IA3Config(
        task_type="SEQ_CLS", target_modules=["c_attn"], feedforward_modules=[], fan_in_fan_out=True
    )
    peft.get_peft_model(plain_model(tiny.source), config).save_pretrained(tmp_path)
    _refused(tmp_path, tiny, "IA3", "only LoRA")


def test_a_pickle_is_never_opened(tiny, tmp_path) -> None:
    model = peft.get_peft_model(plain_model(tiny.source), peft_config())
    model.save_pretrained(tmp_path, safe_serialization=False)
    (tmp_path / WEIGHTS_FILE).unlink(missing_ok=True)
    torch.save({"a": torch.ones(1)}, tmp_path / "adapter_model.bin")
    _refused(tmp_path, tiny, "pickle", "never opened")
    (tmp_path / "adapter_model.bin").rename(tmp_path / WEIGHTS_FILE)
    _refused(tmp_path, tiny, "pickle")


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda t: t.pop("base_model.model.score.weight"), ["head", "score.weight", "missing"]),
        (
            lambda t: t.pop("base_model.model.transformer.h.0.attn.c_attn.lora_B.weight"),
            ["h.0.attn.c_attn.lora_B.weight", "missing"],
        ),
        (
            lambda t: t.pop("base_model.model.transformer.h.1.mlp.c_fc.lora_A.weight"),
            ["h.1.mlp.c_fc.lora_A.weight", "missing"],
        ),
        (lambda t: t.update({"surprise": torch.ones(2)}), ["surprise", "do not belong"]),
        (
            lambda t: t.update({"base_model.model.score.weight": torch.ones(3, 25)}),
            ["(3, 25)", "24"],
        ),
        (
            lambda t: t.update(
                {"base_model.model.transformer.h.0.mlp.c_fc.lora_A.weight": torch.ones(4, 23)}
            ),
            ["h.0.mlp.c_fc", "(4, 23)"],
        ),
        (
            lambda t: t.update(
                {
                    "base_model.model.transformer.h.9.mlp.c_fc.lora_A.weight": torch.ones(4, 24),
                    "base_model.model.transformer.h.9.mlp.c_fc.lora_B.weight": torch.ones(96, 4),
                }
            ),
            ["no layer", "h.9.mlp.c_fc"],
        ),
        (
            lambda t: t.update(
                {
                    "wte.lora_embedding_A": torch.ones(4, VOCAB),
                    "wte.lora_embedding_B": torch.ones(24, 4),
                }
            ),
            ["wte.lora_embedding_a", "twice"],  # GPT2Model's own name for the same layer
        ),
        (
            lambda t: t.pop("base_model.model.transformer.wte.lora_embedding_B"),
            ["wte.lora_embedding_B", "missing"],
        ),
        (
            lambda t: t.update(
                {
                    "base_model.model.transformer.wte.lora_embedding_A": torch.ones(4, VOCAB - 1),
                    "base_model.model.transformer.wte.lora_embedding_B": torch.ones(24, 4),
                }
            ),
            ["transformer.wte", f"(4, {VOCAB - 1})", str(VOCAB)],
        ),
        (
            lambda t: t.update(
                {
                    "base_model.model.transformer.h.0.lora_embedding_A": torch.ones(4, VOCAB),
                    "base_model.model.transformer.h.0.lora_embedding_B": torch.ones(24, 4),
                }
            ),
            ["no embedding", "h.0"],
        ),
        (lambda t: t["base_model.model.score.weight"].fill_(float("nan")), ["score", "NaN"]),
        (
            lambda t: t["base_model.model.transformer.h.0.mlp.c_fc.lora_A.weight"].fill_(
                float("inf")
            ),
            ["h.0.mlp.c_fc", "infinite"],
        ),
        (
            lambda t: t["base_model.model.transformer.h.0.mlp.c_fc.lora_A.weight"].fill_(1e30),
            ["h.0.mlp.c_fc", "overflow"],
        ),
        (lambda t: t["base_model.model.score.weight"].fill_(1e30), ["head", "overflow"]),
        (
            lambda t: t.update({"base_model.model.score.weight": torch.ones(3, 24).int()}),
            ["score.weight", "I32"],
        ),
        (
            lambda t: t.update({"base_model.model.transformer.ln_f.weight": torch.zeros(24)}),
            ["ln_f"],
        ),
        (
            lambda t: t.update({"base_model.model.transformer.ln_f.bias": torch.zeros(7)}),
            ["ln_f.bias", "(7,)"],
        ),
    ],
)
def test_tensors_that_do_not_fit_are_named(tiny, tmp_path, change, words) -> None:
    lc.save_adapter(adapted(tiny, lc.LoRAConfig(4, 8)), tmp_path)
    tensors = load_file(tmp_path / WEIGHTS_FILE)
    change(tensors)
    save_file(tensors, tmp_path / WEIGHTS_FILE)
    _refused(tmp_path, tiny, *words)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"peft_type": "LOHA"}, ["LOHA"]),
        ({"r": 5}, ["rank 4", "5"]),
        ({"lora_alpha": float("nan")}, ["lora_alpha"]),
        ({"lora_alpha": True}, ["lora_alpha"]),
        ({"lora_alpha": 10**400}, ["lora_alpha"]),
        ({"alpha_pattern": {"(?=a)b": 4}}, ["alpha_pattern", "expression"]),
        ({"alpha_pattern": {"a" * 1999 + "*": 4}}, ["alpha_pattern", "2,000"]),
        ({"rank_pattern": [1]}, ["rank_pattern"]),
        ({"use_rslora": "perhaps"}, ["use_rslora"]),
        ({"use_something_new": True}, ["use_something_new"]),
    ],
)
def test_settings_that_do_not_fit_are_named(tiny, tmp_path, change, words) -> None:
    lc.save_adapter(adapted(tiny, lc.LoRAConfig(4, 8)), tmp_path)
    path = tmp_path / "adapter_config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **change}))
    _refused(tmp_path, tiny, *words)


def test_another_base_is_refused(tiny, base, tmp_path) -> None:
    lc.save_adapter(adapted(tiny, lc.LoRAConfig(2)), tmp_path / "a")
    _refused(tmp_path / "a", base, "another base")
    other = random_base(tmp_path / "twin")
    with torch.no_grad():
        other.model.final_norm.bias[0] += 1e-4  # the same shapes, other weights
    _refused(tmp_path / "a", other, "another base")
    _, theirs = _trained_by_peft(tiny, peft_config(base_model_name_or_path="openai-community/gpt2"))
    theirs.peft_config["default"].base_model_name_or_path = "openai-community/gpt2"
    theirs.save_pretrained(tmp_path / "b")
    path = tmp_path / "b" / "adapter_config.json"
    config = {**json.loads(path.read_text()), "base_model_name_or_path": "openai-community/gpt2"}
    path.write_text(json.dumps(config))
    # A name alone decides nothing: the shapes fit, so it loads, and the doubt is said.
    assert "openai-community/gpt2" in lc.load_adapter(tmp_path / "b", tiny).remark
    _refused(tmp_path / "b", base, "openai-community/gpt2")  # of another width


def test_a_second_round_trip_changes_nothing(tiny, tmp_path) -> None:
    """Also for an adapter that peft made, whose c_attn is one adapter over three layers."""
    _, theirs = _trained_by_peft(tiny, peft_config())
    theirs.save_pretrained(tmp_path / "theirs")
    first = lc.load_adapter(tmp_path / "theirs", tiny)
    lc.save_adapter(first, tmp_path / "ours")
    again = lc.load_adapter(tmp_path / "ours", tiny)
    torch.testing.assert_close(our_logits(again), our_logits(first), **TOLERANCE)
    logits = opened(tmp_path / "ours", tiny.source)(*padded(tiny))
    torch.testing.assert_close(our_logits(first), logits, **TOLERANCE)
