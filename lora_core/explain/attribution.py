"""Which words mattered: the answer again without each of them, on the live model.

Occlusion (Zeiler & Fergus 2014, arXiv:1311.2901) of one word at a time, for text by erasing it (Li,
Monroe & Jurafsky 2016, arXiv:1612.08220). The measure is the change of the answer's log-odds, the
"weight of evidence" of Robnik-Sikonja & Kononenko 2008 (IEEE TKDE 20:589): unlike a difference of
probabilities it does not vanish where the model is nearly certain. Every number can be checked by
hand: delete the word from the text and classify again. Integrated gradients, the alternative, were
found less faithful and slower here: `tests/benchmarks/attribution.py`.
"""

from __future__ import annotations

import re
import time
import unicodedata
from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from lora_core.batches import encode_text, own_ids
from lora_core.classifier import Classifier, ClassifyError, batched_logits, check_text

MAX_PARTS = 64  # a longer text is erased in so many groups of neighbouring words
FEWEST_PARTS = 8
TOKEN_BUDGET = 6_000  # tokens through the model for one text: what bounds the time
TOKENS_A_TURN = 1_024  # then the classifier is handed to whoever waits for an answer
_LONGEST_WORD = 40  # characters; what has no blanks is cut into pieces of this length

# Scripts written without blanks, whose characters stand for words or syllables: Han and kana.
_HAN = "\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003ffff"
_WORD = re.compile(rf"[{_HAN}][^\w\s]*|[^\s{_HAN}]+")
_JOINER = "\u200d"


class Span(NamedTuple):
    """Characters `start` to `end` of a text."""

    start: int
    end: int


@dataclass(frozen=True)
class Word:
    """One word, or in a long text a group of neighbours, and what it did to the answer."""

    span: Span  # in the text as it was given, blanks around it left out
    weight: float  # log-odds of the label with it minus without it, nats; above 0: it spoke for it
    without: float  # probability of the label when it is erased


@dataclass(frozen=True)
class Attribution:
    """The words of one text, in its order, seen from one label."""

    label: str
    probability: float  # of the label, nothing erased
    words: tuple[Word, ...]
    group: int  # words a part: 1, more in a long text
    read: int  # characters that the model read; what comes after has no part


def attribute(
    classifier: Classifier, text: str, strength: float = 1.0, label: str | None = None
) -> Attribution:
    """Erase each word of `text` in turn and see what becomes of the answer.

    `label` is the answer that is asked about, by default the classifier's own. A text of n tokens
    costs at most max(8 n, 6,000) tokens through the model; the classifier is free for others
    between the turns. Raises `ClassifyError` for an empty text, an unknown label or an impossible
    strength.
    """
    check_text(text)
    if label is not None and label not in classifier.labels:
        raise ClassifyError(f"There is no label '{label}' here.")
    ids = classifier.encode(text)
    read = characters_read(classifier, text, ids)
    every_word = [span for span in words(text) if span.start < read]
    limit = max(FEWEST_PARTS, min(MAX_PARTS, TOKEN_BUDGET // max(1, len(ids))))
    group = -(-len(every_word) // limit)
    parts = [every_word[i : i + group] for i in range(0, len(every_word), group)]
    spans = [Span(part[0].start, part[-1].end) for part in parts]
    context = classifier.model.config.context_length
    variants = [ids] + [
        encode_text(classifier.tokenizer, erased, context) for erased in erase_each(text, spans)
    ]
    logits = _logits(classifier, variants, strength)
    index = classifier.labels.index(label) if label else int(logits[0].argmax())
    probability = logits.softmax(-1)[:, index].tolist()
    odds = log_odds(logits, index).tolist()
    return Attribution(
        classifier.labels[index],
        probability[0],
        tuple(
            Word(span, odds[0] - odds[i], probability[i]) for i, span in enumerate(spans, start=1)
        ),
        group,
        read,
    )


def words(text: str) -> list[Span]:
    """Where the words of a text are: what stands between blanks, punctuation included.

    Chinese and Japanese have no blanks: there each character is a part. Anything else without a
    blank is cut after 40 characters, never before a combining mark or inside a joined emoji.
    """
    return [piece for match in _WORD.finditer(text) for piece in _pieces(text, *match.span())]


def _pieces(text: str, start: int, end: int) -> Iterator[Span]:
    while end - start > _LONGEST_WORD:
        cut = start + _LONGEST_WORD
        while cut < end and (_clings(text[cut]) or text[cut - 1] == _JOINER):
            cut += 1
        yield Span(start, cut)
        start = cut
    if start < end:
        yield Span(start, end)


def _clings(character: str) -> bool:
    """Whether a character belongs to the one before it: marks, joiners, skin tones."""
    return (
        character == _JOINER
        or unicodedata.category(character).startswith("M")
        or "\U0001f3fb" <= character <= "\U0001f3ff"
    )


def erase_each(text: str, spans: list[Span]) -> list[str]:
    """The text without each span in turn, and without the blanks that would be left over."""
    if len(spans) == 1:
        return [text[spans[0].end :].strip()]
    out = []
    for i, span in enumerate(spans):
        if i + 1 < len(spans):
            out.append(text[: span.start] + text[spans[i + 1].start :])
        else:
            rest = text[span.end :]
            out.append(text[: spans[i - 1].end] + (rest if rest.strip() else ""))
    return out


def characters_read(classifier: Classifier, text: str, ids: list[int]) -> int:
    """How many characters of the text its token ids cover: all, unless the context cut it."""
    if len(ids) < classifier.model.config.context_length:
        return len(text)
    own = own_ids(classifier.tokenizer, ids)
    decoded = classifier.tokenizer.decode_bytes(own).decode("utf-8", "ignore")
    return min(len(text), len(decoded))


def log_odds(logits: Tensor, index: int) -> Tensor:
    """(n, classes) logits -> (n,) log-odds of one class against all others together."""
    others = torch.cat((logits[:, :index], logits[:, index + 1 :]), -1)
    return logits[:, index] - others.logsumexp(-1)


def _logits(classifier: Classifier, ids: list[list[int]], strength: float) -> Tensor:
    """(n, classes) float64 logits; in turns, so that an answer never waits for all of them."""
    parts: list[Tensor] = []
    start = 0
    while start < len(ids):
        end, longest = start, 0
        while end < len(ids):
            longest = max(longest, len(ids[end]))
            if end > start and longest * (end + 1 - start) > TOKENS_A_TURN:
                break
            end += 1
        with classifier.at_strength(strength) as model:
            parts.append(batched_logits(model, ids[start:end]))
        time.sleep(0.001)  # a lock goes to whoever asks first: let the others ask
        start = end
    return torch.cat(parts).double()
