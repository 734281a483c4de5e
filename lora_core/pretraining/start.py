"""A student's first weights out of its teacher's states: a bag of words that means something.

Each token's embedding begins as what the teacher said, on average, where the token ended; the
first attention looks at all tokens alike, so that the state of a text's last token holds the mean
of them. From random weights a student needs millions of tokens to come to that point, and from the
weights of a language model it comes to it for the strongest directions only (figures in the model
card). The aims' matrices begin as the ridge regression from these states.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import tiktoken
import torch
from torch import Tensor, nn

from lora_core.config import GPTConfig
from lora_core.model import GPT, Block
from lora_core.pretraining.network import language_model
from lora_core.pretraining.teach import LONGEST, States

_SHRINK = 5  # a token seen as often as this counts half; one never seen is the mean text
_EMBEDDING = 0.6  # root mean square of the embeddings, as those of a trained base
_GAIN = 0.1  # of the last norm: the logits of a tied output would be hundreds with 1
_NOISE = 0.02


def token_states(states: States, texts: Sequence[str], encoding: tiktoken.Encoding) -> Tensor:
    """(vocab, k): the mean of the teacher's states where each of the student's tokens ends.

    A teacher's token that reaches over the end counts as ending there.
    """
    vocab, k = encoding.n_vocab, states.basis["components"].shape[1]
    sizes = np.array([len(encoding.decode_single_token_bytes(i)) for i in range(vocab)])
    sums, counts = np.zeros((vocab, k), np.float32), np.zeros(vocab, np.int64)
    for number, text in enumerate(texts[: len(states)]):
        ids = np.array(encoding.encode_ordinary(text)[:LONGEST], np.int64)
        ends = states.ends_of(number).astype(np.int64)
        if not len(ids) or not len(ends):
            continue
        places = np.minimum(np.searchsorted(ends, np.cumsum(sizes[ids])), len(ends) - 1)
        np.add.at(sums, ids, states.states_of(number)[places])
        np.add.at(counts, ids, 1)
    return torch.from_numpy(sums / np.maximum(counts + _SHRINK, 1)[:, None])


def bag_start(config: GPTConfig, means: Tensor, scale: Tensor, seed: int) -> GPT:
    """A fresh model from the means (vocab, k) of `token_states`; `scale` (k,) evens their
    directions out. Of k directions the first `emb_dim` are taken.
    """
    model = language_model(config, seed)
    noise = torch.Generator().manual_seed(seed)
    width = config.emb_dim
    rows = torch.zeros(config.vocab_size, width)
    taken = (means * scale)[:, :width]
    rows[:, : taken.shape[1]] = taken
    rows *= _EMBEDDING / rows.square().mean().sqrt()
    block = model.blocks[0]
    assert isinstance(block, Block)
    first = block.attention
    with torch.no_grad():
        model.token_embedding.weight.copy_(rows + _NOISE * torch.randn(rows.shape, generator=noise))
        for weight in (first.query.weight, first.key.weight):  # every token weighs about the same
            weight.copy_(_NOISE / 2 * torch.randn(width, width, generator=noise))
        first.value.weight.copy_(torch.eye(width))
        first.output.weight.copy_(torch.eye(width))
        model.final_norm.weight.fill_(_GAIN)
    return model


def fit_aims(matrix: nn.Parameter, bias: nn.Parameter, states: Tensor, targets: Tensor) -> None:
    """Begin the aims' matrix (2, k, emb) and bias (2, k) as ridge regressions from the student's
    states (n, emb) to the teacher's scaled targets (2, n, k).
    """
    inputs = torch.cat([states, torch.ones(len(states), 1)], 1)
    penalty = 0.01 * states.square().mean() * len(states)
    gram = inputs.t() @ inputs + penalty * torch.eye(inputs.shape[1])
    with torch.no_grad():
        for aim, rows in enumerate(targets):
            solved = torch.linalg.solve(gram, inputs.t() @ rows)  # (emb + 1, k)
            matrix[aim].copy_(solved[:-1].t())
            bias[aim].copy_(solved[-1])
