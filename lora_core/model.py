"""GPT-2's architecture (Radford et al. 2019) as a text classifier; knows nothing about LoRA.

Query, key and value are separate `nn.Linear`s, so that each can be adapted by itself. A text is
classified from its last real token: attention is causal and padding is on the right, so no token
of the text can see padding and no attention mask is needed for it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from lora_core.config import GPTConfig


class CausalSelfAttention(nn.Module):
    """Multi-head causal attention, (batch, length, emb) -> the same."""

    def __init__(self, config: GPTConfig) -> None:
        super().__init__()
        width = config.emb_dim
        self.n_heads = config.n_heads
        self.drop_rate = config.drop_rate
        self.query = nn.Linear(width, width, bias=config.qkv_bias)
        self.key = nn.Linear(width, width, bias=config.qkv_bias)
        self.value = nn.Linear(width, width, bias=config.qkv_bias)
        self.output = nn.Linear(width, width)

    def _heads(self, x: Tensor) -> Tensor:
        return x.unflatten(-1, (self.n_heads, -1)).transpose(1, 2)  # (b, heads, t, head_dim)

    def forward(self, x: Tensor, last: Tensor | None = None) -> Tensor:
        """All positions, or with `last` (batch,) only that position of each row: (b, 1, emb)."""
        key, value = self._heads(self.key(x)), self._heads(self.value(x))
        dropout = self.drop_rate if self.training else 0.0
        if last is None:
            query = self._heads(self.query(x))
            mixed = F.scaled_dot_product_attention(
                query, key, value, is_causal=True, dropout_p=dropout
            )
        else:
            query = self._heads(self.query(take_rows(x, last)))
            past = torch.arange(x.shape[1], device=x.device) <= last[:, None]  # (b, t)
            mixed = F.scaled_dot_product_attention(
                query, key, value, attn_mask=past[:, None, None], dropout_p=dropout
            )
        return self.output(mixed.transpose(1, 2).flatten(2))


class MLP(nn.Module):
    """Up, GELU in GPT-2's tanh form, down."""

    def __init__(self, config: GPTConfig) -> None:
        super().__init__()
        self.up = nn.Linear(config.emb_dim, config.hidden_dim)
        self.down = nn.Linear(config.hidden_dim, config.emb_dim)

    def forward(self, x: Tensor) -> Tensor:
        """(..., emb) -> the same."""
        return self.down(F.gelu(self.up(x), approximate="tanh"))


class Block(nn.Module):
    """Pre-LayerNorm transformer block."""

    def __init__(self, config: GPTConfig) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(config.emb_dim)
        self.attention = CausalSelfAttention(config)
        self.norm2 = nn.LayerNorm(config.emb_dim)
        self.mlp = MLP(config)
        self.dropout = nn.Dropout(config.drop_rate)

    def forward(self, x: Tensor, last: Tensor | None = None) -> Tensor:
        """(b, t, emb) -> the same, or (b, 1, emb) for the positions `last` alone."""
        mixed = self.attention(self.norm1(x), last)
        x = (x if last is None else take_rows(x, last)) + self.dropout(mixed)
        return x + self.dropout(self.mlp(self.norm2(x)))


class _NoInitialisation(TorchFunctionMode):
    """`nn.init` does nothing: on the meta device there is nothing to fill, and asking for random
    numbers there makes torch import its compiler, which takes more than a second."""

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        kwargs = kwargs or {}
        if getattr(func, "__module__", None) == nn.init.__name__:
            return args[0] if args else kwargs["tensor"]
        return func(*args, **kwargs)


class GPT(nn.Module):
    """A GPT with a classification head; with `num_classes=None` the bare language model.

    The head has a bias, as in appendix E of Raschka's *Build a Large Language Model (From
    Scratch)*: GPT-2 124M with two classes has 124,441,346 parameters.
    """

    def __init__(self, config: GPTConfig, num_classes: int | None = 2) -> None:
        super().__init__()
        self.config = config
        self.num_classes = num_classes
        self.token_embedding = nn.Embedding(config.vocab_size, config.emb_dim)
        self.position_embedding = nn.Embedding(config.context_length, config.emb_dim)
        self.dropout = nn.Dropout(config.drop_rate)
        self.blocks = nn.ModuleList(Block(config) for _ in range(config.n_layers))
        self.final_norm = nn.LayerNorm(config.emb_dim)
        if num_classes is not None:
            self.head = nn.Linear(config.emb_dim, num_classes)
        self.apply(self._initialise)

    @classmethod
    def without_weights(cls, config: GPTConfig, num_classes: int | None = None) -> GPT:
        """The modules alone, for weights that are read: their tensors are on the meta device."""
        with torch.device("meta"), _NoInitialisation():
            return cls(config, num_classes)

    def _initialise(self, module: nn.Module) -> None:
        """GPT-2's own: normal with deviation 0.02, biases zero."""
        if isinstance(module, nn.Linear | nn.Embedding):
            nn.init.normal_(module.weight, std=0.02)
        if isinstance(module, nn.Linear) and module.bias is not None:
            nn.init.zeros_(module.bias)

    def embed(self, tokens: Tensor) -> Tensor:
        """(batch, length) token ids -> (batch, length, emb)."""
        length = tokens.shape[1]
        if length > self.config.context_length:
            raise ValueError(
                f"A text of {length} tokens is longer than the context of "
                f"{self.config.context_length}: cut it first."
            )
        positions = torch.arange(length, device=tokens.device)
        return self.dropout(self.token_embedding(tokens) + self.position_embedding(positions))

    def hidden(self, tokens: Tensor) -> Tensor:
        """(batch, length) ids -> (batch, length, emb) after the final norm, every position."""
        x = self.embed(tokens)
        for block in self.blocks:
            x = block(x)
        return self.final_norm(x)

    def language_logits(self, tokens: Tensor) -> Tensor:
        """(batch, length) ids -> (batch, length, vocab): the next token, embeddings tied."""
        return F.linear(self.hidden(tokens), self.token_embedding.weight)

    def last_hidden(self, tokens: Tensor, lengths: Tensor | None = None) -> Tensor:
        """(batch, length) ids, right-padded -> (batch, emb) at each text's last real token.

        `lengths` (batch,) counts the real tokens of each row; None: there is no padding. The last
        block needs its query, output and MLP there only, which saves half of its work.
        """
        if lengths is None:
            lengths = torch.full((tokens.shape[0],), tokens.shape[1], device=tokens.device)
        x = self.embed(tokens)
        for block in self.blocks[:-1]:
            x = block(x)
        return self.final_norm(self.blocks[-1](x, lengths - 1)).squeeze(1)

    def forward(self, tokens: Tensor, lengths: Tensor | None = None) -> Tensor:
        """(batch, length) ids, (batch,) lengths -> (batch, classes) logits."""
        return self.head(self.last_hidden(tokens, lengths))


def take_rows(x: Tensor, index: Tensor) -> Tensor:
    """(b, t, e) and (b,) positions -> (b, 1, e)."""
    return x.gather(1, index[:, None, None].expand(-1, 1, x.shape[-1]))
