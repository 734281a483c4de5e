"""One more block, whose MLP adds to the state what the aim's matrix says of it.

A student says its teacher's mean through a matrix that is thrown away. What it knows of a text can
then lie along small directions of its state, since the large ones serve the next token, and an
adapter of a few hundred steps finds large directions. An MLP can be a linear map, exactly:
gelu(x) - gelu(-x) = x. So the matrix becomes a block of the model, and what it says becomes the
larger part of the state. Component i is written along direction i: a fresh student's embeddings lie
along the same directions (`start.py`), so that words that fit the text become likelier, and the
output tied to them suffers less than under a random rotation.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import tiktoken
import torch
from torch import Tensor, nn

from lora_core.model import GPT, Block
from lora_core.pretraining.lessons import LENGTHS

_NOISE = 0.03  # of the units that the map leaves free: with zeros they could not learn


def end_residuals(
    model: GPT, texts: Sequence[str], encoding: tiktoken.Encoding, batch: int = 50
) -> Tensor:
    """(texts, emb): what the final norm reads at each text's last token."""
    read: list[Tensor] = []
    hook = model.final_norm.register_forward_pre_hook(lambda _, inputs: read.append(inputs[0]))
    try:
        with torch.no_grad():
            for start in range(0, len(texts), batch):
                rows = [
                    encoding.encode_ordinary(text)[: LENGTHS[-1]] or [encoding.eot_token]
                    for text in texts[start : start + batch]
                ]
                ids = torch.full((len(rows), max(map(len, rows))), encoding.eot_token)
                for row, own in enumerate(rows):
                    ids[row, : len(own)] = torch.tensor(own)
                model.last_hidden(ids, torch.tensor([len(own) for own in rows]))
    finally:
        hook.remove()
    return torch.cat([part.reshape(-1, model.config.emb_dim) for part in read])


def append_aim_block(
    model: GPT,
    matrix: Tensor,
    bias: Tensor,
    residuals: Tensor,
    *,
    strength: float = 2.0,
    gain: float = 0.37,
    seed: int = 0,
) -> GPT:
    """A copy of `model`, one block deeper.

    The new block adds `matrix` (k, emb) times the old state plus `bias` (k,), centred, to what the
    old final norm read, `strength` times as large as that by root mean square over `residuals`
    (n, emb). `gain` is each weight of the new final norm. k is at most emb and hidden / 2.
    """
    config = dataclasses.replace(model.config, n_layers=model.config.n_layers + 1)
    k, hidden = matrix.shape[0], config.hidden_dim
    assert k <= config.emb_dim and 2 * k <= hidden
    deeper = GPT(config, num_classes=None)
    deeper.load_state_dict(model.state_dict(), strict=False)
    block = deeper.blocks[-1]
    assert isinstance(block, Block) and isinstance(block.norm1, nn.LayerNorm)
    noise = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        said = model.final_norm(residuals) @ matrix.t() + bias
        centre, deviation = said.mean(0), said.std(0)
        factor = (
            strength * residuals.square().mean().sqrt() / (said - centre).square().mean().sqrt()
        )
        for norm in (block.norm1, deeper.final_norm):
            norm.weight.fill_(1.0)
            norm.bias.zero_()
        deeper.final_norm.weight.fill_(gain)
        block.norm2.load_state_dict(model.final_norm.state_dict())
        for linear in (block.attention.output, block.mlp.up, block.mlp.down):
            linear.weight.zero_()
            linear.bias.zero_()
        up, down = block.mlp.up, block.mlp.down
        up.weight.copy_(_NOISE * torch.randn(up.weight.shape, generator=noise))
        for sign, rows in ((1.0, slice(0, k)), (-1.0, slice(k, 2 * k))):
            up.weight[rows] = sign * matrix / deviation[:, None]  # of size one before the GELU
            up.bias[rows] = sign * (bias - centre) / deviation
            down.weight[:k, rows] = sign * torch.diag(factor * deviation)
    return deeper
