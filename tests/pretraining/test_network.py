"""The fast network and its optimiser against plain ones."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from lora_core.config import GPTConfig
from lora_core.pretraining.network import (
    add_gradients,
    hidden_states,
    language_model,
    next_token_loss,
    use_compiler,
    working_weights,
)
from lora_core.pretraining.optimizer import MuonAdamW, orthogonalise

# The loss ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("compiled", [False, True])
@pytest.mark.parametrize("bias", [True, False])
def test_fast_loss_and_every_gradient_equal_the_plain_model(compiled, bias):
    config = GPTConfig(97, 24, 48, 2, 4, qkv_bias=bias)
    model = language_model(config, seed=0)
    torch.manual_seed(1)
    for parameter in model.parameters():  # away from the zeros and ones of a fresh model
        parameter.data += 0.1 * torch.randn_like(parameter)
    tokens, targets = torch.randint(97, (2, 3, 24))
    plain = F.cross_entropy(model.language_logits(tokens).flatten(0, 1), targets.flatten())
    expected = torch.autograd.grad(plain, list(model.parameters()))

    if use_compiler(compiled) != compiled:
        pytest.skip("no compiler on this machine")
    try:
        weights = working_weights(model, torch.float32)
        states = hidden_states(weights, config, tokens)
        loss = next_token_loss(weights, states, targets, 1 / 72)
        add_gradients(model, weights, torch.autograd.grad(loss, list(weights.values())))
    finally:
        use_compiler(False)
    assert loss.item() == pytest.approx(plain.item(), rel=1e-6)
    for (name, parameter), gradient in zip(model.named_parameters(), expected, strict=True):
        torch.testing.assert_close(parameter.grad, gradient, atol=2e-6, rtol=2e-4, msg=name)


def test_in_bfloat16_the_gradient_points_the_same_way():
    config = GPTConfig(97, 24, 48, 2, 4)
    model = language_model(config, seed=0)
    torch.manual_seed(1)
    tokens, targets = torch.randint(97, (2, 3, 24))
    gradients = []
    for dtype in (torch.float32, torch.bfloat16):
        weights = working_weights(model, dtype)
        states = hidden_states(weights, config, tokens)
        loss = next_token_loss(weights, states, targets, 1 / 72)
        parts = torch.autograd.grad(loss, list(weights.values()))
        gradients.append(torch.cat([g.flatten().float() for g in parts]))
    assert F.cosine_similarity(*gradients, dim=0) > 0.999


# The optimiser ----------------------------------------------------------------------------------


def test_muon_makes_singular_values_about_one():
    torch.manual_seed(0)
    values = torch.linalg.svdvals(orthogonalise(torch.randn(3, 32, 128), torch.bfloat16).float())
    assert values.min() > 0.5 and values.max() < 1.4


def test_adamw_part_equals_torch():
    torch.manual_seed(0)
    model = language_model(GPTConfig(50, 8, 16, 1, 2), seed=0)
    twin = language_model(GPTConfig(50, 8, 16, 1, 2), seed=0)
    ours = MuonAdamW(model.named_parameters(), other_lr=1e-2, matrix_rule="adamw")
    theirs = torch.optim.AdamW(
        twin.parameters(), lr=1e-2, betas=(0.9, 0.95), eps=1e-10, weight_decay=0.0
    )
    for _ in range(5):
        for a, b in zip(model.parameters(), twin.parameters(), strict=True):
            a.grad = torch.randn_like(a)
            b.grad = a.grad.clone()
        ours.step(1.0)
        theirs.step()
    for a, b in zip(model.parameters(), twin.parameters(), strict=True):
        torch.testing.assert_close(a, b, atol=1e-6, rtol=1e-5)
