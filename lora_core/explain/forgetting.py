"""Did it forget: how well the adapted model still predicts general text, along the strength.

The measure is bits a byte: the mean of -log2 p over all tokens, divided by the bytes that they
spell, so that no tokenizer is at an advantage. The text is `assets/general.txt`, written for this
project, so no base was trained on it. What predicts is tied to the base's own, frozen table of word
pieces in every case: also where word pieces are adapted or trained in full, which then change what
is read and not what is written. Otherwise a run's own table would be judged as a head that nobody
trained.
"""

from __future__ import annotations

import math
from collections.abc import Generator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import tiktoken
import torch
import torch.nn.functional as F
from torch import Tensor

from lora_core.base.checkpoint import Base
from lora_core.classifier import Classifier
from lora_core.explain.exam import Turns

TEXT = Path(__file__).resolve().parents[2] / "assets" / "general.txt"
STRENGTHS = (1.0, 0.0, 2.0, 0.5, 1.5, 0.25, 0.75, 1.25, 1.75)  # those that say most first
_TOKENS_A_TURN = 512  # or one window: some 60 ms of a core, for the bundled base


@dataclass(frozen=True)
class Passage:
    """General text as windows of a base's tokens, each read from its own beginning."""

    windows: Tensor = field(repr=False)  # (n, context) int64, begins with the end-of-text token
    rest: Tensor = field(repr=False)  # (1, shorter) the last window; (1, 0) if there is none
    bytes: int  # that the windows spell


@dataclass(frozen=True)
class AtStrength:
    """What is left of the base's knowledge at one strength."""

    strength: float
    bits: float  # a byte


def general_text() -> str:
    """The text that every base is asked: about 15 kB of English prose."""
    return TEXT.read_text(encoding="utf-8")


def passage(tokenizer: tiktoken.Encoding, text: str, context_length: int) -> Passage:
    """Cut a text into windows of a context, each after an end-of-text token.

    Every token of the text is predicted once; a window sees nothing of the one before it.
    """
    ids = tokenizer.encode_ordinary(text)
    size = context_length - 1
    parts = [[tokenizer.eot_token, *ids[i : i + size]] for i in range(0, len(ids), size)]
    whole = [part for part in parts if len(part) == context_length]
    rest = parts[-1] if len(parts) > len(whole) else []
    return Passage(
        torch.tensor(whole, dtype=torch.long).reshape(len(whole), context_length),
        torch.tensor([rest], dtype=torch.long),
        len(text.encode()),
    )


def bits_per_byte(
    classifier: Classifier, base: Base, text: Passage, strength: float
) -> Turns[float]:
    """Bits a byte of the adapted model at a strength; in turns."""
    table = base.model.token_embedding.weight  # (vocab, emb): the base's own, see above
    model = classifier.model_at(strength)
    nats = 0.0
    together = max(1, _TOKENS_A_TURN // text.windows.shape[1])
    batches = [*text.windows.split(together), *([text.rest] if text.rest.numel() else [])]
    for batch in batches:
        with torch.no_grad():
            hidden = model.hidden(batch[:, :-1])  # (n, context - 1, emb)
            logits = F.linear(hidden, table).flatten(0, 1).float()
        nats += F.cross_entropy(logits, batch[:, 1:].flatten(), reduction="sum").item()
        yield
    return nats / math.log(2) / text.bytes


def forgetting(
    classifier: Classifier, base: Base, text: Passage, strengths: Sequence[float] = STRENGTHS
) -> Generator[list[AtStrength] | None, None, list[AtStrength]]:
    """Bits a byte along the strength; at 0 it is the base.

    Works on a copy of the classifier's modules, so nobody waits for it. Yields what is known so
    far, by strength; returns all of it.
    """
    own = classifier.private_copy()
    known: dict[float, AtStrength] = {}
    for strength in strengths:
        known[strength] = AtStrength(
            strength, (yield from bits_per_byte(own, base, text, strength))
        )
        yield [known[s] for s in sorted(known)]
    return [known[s] for s in sorted(known)]
