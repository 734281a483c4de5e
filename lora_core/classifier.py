"""A trained classifier: text -> label and probabilities, at any strength of the adapter."""

from __future__ import annotations

import contextlib
import copy
import threading
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import tiktoken
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lora_core.batches import encode_text, own_ids, sorted_batches
from lora_core.config import LoRAConfig, TrainConfig
from lora_core.errors import LabError
from lora_core.lora import lora_layers
from lora_core.model import GPT

MAX_STRENGTH = 4.0
MAX_CHARACTERS = 1_000_000  # of one text; what lies beyond the context is not read


class ClassifyError(LabError, ValueError):
    """A text that cannot be classified; the message says why."""


@dataclass(frozen=True)
class Prediction:
    """The answer for one text."""

    label: str
    probabilities: dict[str, float]  # one a label, in the task's order, sums to 1
    tokens: int  # of the text as read, without its frame
    truncated: bool  # the text was longer than the context; its end was not read


class Classifier:
    """A model with its tokenizer and labels. Safe to call from several threads.

    `strength` scales what training changed: 0 is the model as it was before the first step (the
    base with its untrained head), 1 is as trained, above 1 exaggerates. For LoRA layers it
    multiplies the scale; every other trained tensor moves on the line through its first and its
    last value (task arithmetic, Ilharco et al. 2023, arXiv:2212.04089).
    """

    def __init__(
        self,
        model: GPT,
        tokenizer: tiktoken.Encoding,
        labels: Sequence[str],
        *,
        initial: dict[str, Tensor] | None = None,
        lora_config: LoRAConfig | None = None,
        train_config: TrainConfig | None = None,
        base_name: str = "bundled",
        base_source: str = "assets/base",
        task_name: str = "",
        scores: dict[str, float] | None = None,
        remark: str = "",
    ) -> None:
        """`initial` holds the values before training of the trained tensors that are not LoRA."""
        self.model = model.eval()
        self.tokenizer = tokenizer
        self.labels = tuple(labels)
        self.lora_config = lora_config
        self.train_config = train_config
        self.base_name = base_name
        self.base_source = base_source
        self.task_name = task_name
        self.scores = dict(scores or {})
        self.remark = remark  # what its user must know, in a sentence; "" for nothing
        self.initial = initial or {}
        parameters = dict(model.named_parameters())
        self._trained = {name: parameters[name].detach().clone() for name in self.initial}
        self._lock = threading.RLock()

    def classify(self, text: str, strength: float = 1.0) -> Prediction:
        """The label and the probabilities of one text. Raises `ClassifyError` for an empty one."""
        return self.classify_many([text], strength)[0]

    def classify_many(self, texts: Iterable[str], strength: float = 1.0) -> list[Prediction]:
        """As `classify`, for many texts in padded batches; in the order given."""
        if isinstance(texts, str):
            raise ClassifyError("classify_many takes a list of texts; use classify for one.")
        texts = list(texts)  # a column of a table has no truth of its own, a generator no length
        for text in texts:
            check_text(text)
        if not texts:
            return []
        ids = [self.encode(text) for text in texts]
        probabilities = self.probabilities(ids, strength)
        limit = self.model.config.context_length
        predictions = []
        for text, tokens, row in zip(texts, ids, probabilities.tolist(), strict=True):
            named = dict(zip(self.labels, row, strict=True))
            own = own_ids(self.tokenizer, tokens)
            cut = len(tokens) == limit and len(self.tokenizer.decode(own)) < len(text)
            best = max(named, key=named.__getitem__)
            predictions.append(Prediction(best, named, len(own), cut))
        return predictions

    def encode(self, text: str) -> list[int]:
        """Token ids of a text as the model reads it: within its frame, cut to the context."""
        return encode_text(self.tokenizer, text, self.model.config.context_length)

    def probabilities(self, ids: Sequence[Sequence[int]], strength: float = 1.0) -> Tensor:
        """Token ids of n texts -> (n, classes) probabilities, float32."""
        with self.at_strength(strength):
            logits = batched_logits(self.model, ids)
        return F.softmax(logits, -1)

    @contextlib.contextmanager
    def at_strength(self, strength: float) -> Iterator[GPT]:
        """The model with its adapter at `strength`, for one caller at a time."""
        with self._lock:
            self._set_strength(strength)
            try:
                yield self.model
            finally:
                self._set_strength(1.0)

    def private_copy(self) -> Classifier:
        """The same classifier over modules of its own, for experiments that change layers while
        others classify. Frozen tensors and A and B are shared: replace them, never write to them.
        What was trained in full is copied."""
        twin = copy.copy(self)
        twin._lock = threading.RLock()
        with self.at_strength(1.0) as model:
            shared = {id(p): p for n, p in model.named_parameters() if n not in self.initial}
            for _, layer in lora_layers(model):
                shared[id(layer.lora.generator)] = layer.lora.generator  # type: ignore[assignment]
            twin.model = copy.deepcopy(model, shared)
        twin.initial, twin._trained = dict(self.initial), dict(self._trained)
        return twin

    def model_at(self, strength: float = 1.0) -> GPT:
        """The bare model at `strength`, as modules of its own, which stay as they are whoever
        classifies meanwhile: for many texts."""
        twin = self.private_copy()
        twin._set_strength(strength)
        return twin.model

    @property
    def trained(self) -> dict[str, Tensor]:
        """The values after training of the tensors in `initial`: what strength 1 sets them to."""
        return self._trained

    def _set_strength(self, strength: float) -> None:
        if not 0.0 <= strength <= MAX_STRENGTH:
            raise ClassifyError(f"strength must be from 0 to {MAX_STRENGTH:g}, not {strength!r}.")
        for _, layer in lora_layers(self.model):
            layer.lora.strength = strength
        if not self.initial:
            return
        parameters = dict(self.model.named_parameters())
        with torch.no_grad():
            for name, first in self.initial.items():
                trained = self._trained[name]
                value = trained if strength == 1.0 else torch.lerp(first, trained, strength)
                parameters[name].copy_(value)


def check_text(text: object) -> None:
    """Raise `ClassifyError`, in words, for what is not a text to classify."""
    if not isinstance(text, str):
        raise ClassifyError(f"A text is needed, not {type(text).__name__}.")
    if not text.strip():
        raise ClassifyError("Type some text first: there is nothing but blanks to classify.")
    if len(text) > MAX_CHARACTERS:
        raise ClassifyError(
            f"This text has {len(text):,} characters; at most {MAX_CHARACTERS:,} can be sent."
        )


@torch.no_grad()
def batched_logits(model: nn.Module, ids: Sequence[Sequence[int]], batch_size: int = 64) -> Tensor:
    """Token ids of n texts -> (n, classes) float32 logits on the CPU, in the order given."""
    device = next(model.parameters()).device
    rows: list[int] = []
    parts: list[Tensor] = []
    for batch in sorted_batches(ids, [0] * len(ids), batch_size):
        parts.append(model(batch.tokens.to(device), batch.lengths.to(device)).float().cpu())
        rows += batch.rows
    logits = torch.cat(parts)
    return logits[torch.tensor(rows).argsort()]
