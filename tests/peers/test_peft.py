"""`peft` on `transformers`' GPT-2 as an independent judge of our LoRA."""

from __future__ import annotations

import peft
import pytest
import torch
import torch.nn.functional as F
from transformers import GPT2ForSequenceClassification

import lora_core as lc
from lora_core.base.checkpoint import BUNDLED
from lora_core.base.frame import frame_of
from lora_core.lora import lora_layers

CONV1D = {
    "attention.output": "attn.c_proj",
    "mlp.up": "mlp.c_fc",
    "mlp.down": "mlp.c_proj",
    "token_embedding": "wte",
}  # layers that are one and the same in both models; q/k/v are fused in theirs


@pytest.fixture
def pair(base):
    """Our model and theirs with the same base, head, A and B; and a ragged batch."""
    ours = base.classifier_model(3, torch.Generator().manual_seed(0))
    lc.inject_lora(
        ours, lc.LoRAConfig(4, 8, targets=tuple(CONV1D)), torch.Generator().manual_seed(1)
    )
    model = GPT2ForSequenceClassification.from_pretrained(
        BUNDLED, num_labels=3, dtype=torch.float32
    )
    config = peft.LoraConfig(
        task_type="SEQ_CLS", r=4, lora_alpha=8, lora_dropout=0.0,
        target_modules=list(CONV1D.values()), fan_in_fan_out=True,
    )  # fmt: skip
    theirs = peft.get_peft_model(model, config).eval()
    generator = torch.Generator().manual_seed(2)
    with torch.no_grad():
        theirs.base_model.model.score.modules_to_save["default"].weight.copy_(ours.head.weight)
        for name, layer in lora_layers(ours):
            if isinstance(layer, lc.EmbeddingWithLoRA):
                layer.lora.A.normal_(std=0.05, generator=generator)
                twin = theirs.base_model.model.transformer.wte
                twin.lora_embedding_A["default"].copy_(layer.lora.A.T)
                twin.lora_embedding_B["default"].copy_(layer.lora.B.T)
                continue
            layer.lora.B.normal_(std=0.05, generator=generator)
            _, i, inner = name.split(".", 2)
            twin = theirs.base_model.model.transformer.h[int(i)].get_submodule(CONV1D[inner])
            twin.lora_A["default"].weight.copy_(layer.lora.A.T)
            twin.lora_B["default"].weight.copy_(layer.lora.B.T)
    texts = ["Free entry, text back now", "ok", "see you at the station at six, bring the umbrella"]
    ids = [base.tokenizer.encode_ordinary(t) for t in texts]
    longest, padding = max(map(len, ids)), frame_of(base.tokenizer).padding
    tokens = torch.tensor([row + [padding] * (longest - len(row)) for row in ids])
    return ours.eval(), theirs, tokens, torch.tensor([len(row) for row in ids])


def test_the_same_a_and_b_give_the_same_logits(pair) -> None:
    ours, theirs, tokens, lengths = pair
    mask = torch.arange(tokens.shape[1]) < lengths[:, None]
    with torch.no_grad():
        expected = theirs(input_ids=tokens, attention_mask=mask.long()).logits
        torch.testing.assert_close(ours(tokens, lengths), expected, atol=1e-5, rtol=0)


def test_one_optimiser_step_moves_them_alike(pair) -> None:
    ours, theirs, tokens, lengths = pair
    labels = torch.tensor([0, 1, 2])
    mask = (torch.arange(tokens.shape[1]) < lengths[:, None]).long()
    ours.head.bias.requires_grad_(False)  # transformers' head has none
    for model, call in (
        (ours, lambda: ours(tokens, lengths)),
        (theirs, lambda: theirs(input_ids=tokens, attention_mask=mask).logits),
    ):
        optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=1e-3)
        F.cross_entropy(call(), labels).backward()
        optimizer.step()
    with torch.no_grad():
        after = theirs(input_ids=tokens, attention_mask=mask).logits
        torch.testing.assert_close(ours(tokens, lengths), after, atol=1e-5, rtol=0)


@pytest.mark.parametrize(("rank", "expected"), [(8, 1_179_648), (16, 2_359_296)])
def test_published_counts_of_peft_on_gpt2(rank: int, expected: int) -> None:
    """All linear layers of GPT-2 124M, fused c_attn, and the embedding: run with peft itself."""
    from transformers import GPT2Config, GPT2LMHeadModel

    with torch.device("meta"):
        model = GPT2LMHeadModel(GPT2Config())
        config = peft.LoraConfig(
            r=rank, target_modules=["c_attn", "c_proj", "c_fc"], fan_in_fan_out=True
        )
        trainable, _ = peft.get_peft_model(model, config).get_nb_trainable_parameters()
        model = GPT2LMHeadModel(GPT2Config(tie_word_embeddings=False))
        tokens = peft.get_peft_model(model, peft.LoraConfig(r=rank, target_modules=["wte"]))
    assert trainable == expected
    shape = lc.GPT2_CONFIGS["gpt2-small (124M)"]
    separate = lc.predict_parameters(shape, lc.LoRAConfig(rank, targets=lc.LINEAR_TARGETS), 2)
    every = lc.predict_parameters(shape, lc.LoRAConfig(rank), 2)
    assert every.trainable - separate.trainable == tokens.get_nb_trainable_parameters()[0]
    # Three adapters of rank r for q, k and v carry two A matrices more than one fused adapter.
    assert separate.trainable - (2 * 768 + 2) == expected + 12 * 2 * 768 * rank
