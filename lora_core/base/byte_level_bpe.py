"""A byte-level BPE of `tokenizers` (tokenizer.json; vocab.json and merges.txt) in tiktoken.

Two programs, one algorithm. `tokenizers` has a list of merges, pairs of tokens in order; tiktoken
has a rank for each token, and merges any pair whose bytes together are a token, lowest rank first.
They agree once the list is cleared of merges that never happen (`live_merges` says why). What
tiktoken has no place for (ids in another order than the merges, a space put in front, added tokens,
normalisation, bytes that the vocabulary lacks) is done around it, in `ByteLevelBPE`.
"""

from __future__ import annotations

import itertools
import re
import unicodedata
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence, Set
from dataclasses import astuple, dataclass
from functools import cached_property
from typing import Any, Literal

import regex
import tiktoken

from lora_core.base.errors import TokenizerError
from lora_core.base.frame import Frame, frame_of_record, frame_record

# GPT-2's rule of cutting a text before merging, and the same with digits cut off first, singly or
# in runs: a space before a digit ends its piece there.
GPT2_PATTERN = r"'(?:[sdmt]|ll|ve|re)| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"
DIGITS_PATTERN = r"'(?:[sdmt]|ll|ve|re)| ?\p{L}+|\p{N}%s| ?[^\s\p{L}\p{N}]+|\s+(?![^\s\p{N}])|\s+"
MAX_TOKENS = 500_000

Pair = tuple[bytes, bytes]


def _alphabet() -> dict[str, int]:
    """GPT-2's characters for the 256 bytes: printable ones stand for themselves."""
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    letters = {chr(byte): byte for byte in printable}
    others = [byte for byte in range(256) if byte not in set(printable)]
    return letters | {chr(256 + i): byte for i, byte in enumerate(others)}


BYTE_OF = _alphabet()


def token_bytes(token: str) -> bytes | None:
    """The bytes of a token as a byte-level vocabulary spells it; None if it does not."""
    try:
        return bytes(BYTE_OF[letter] for letter in token)
    except KeyError:
        return None


def live_merges(merges: Sequence[Pair], alphabet: Set[bytes]) -> list[Pair]:
    """The merges that can happen, in order; each makes a token that no earlier one has made.

    A piece of a tokenised text, taken alone, is tokenised as it was within the text. So merge p, of
    (x, y), can happen only where the merges before it leave the bytes of xy as exactly [x, y]; all
    others may go. And where it can, no other pair of tokens that spells xy ever lies side by side
    then, so that "merge whatever spells xy", which is what tiktoken does, is the same.
    Raises `TokenizerError` where a merge stands before those that make its parts.
    """
    number = {token: i for i, token in enumerate(sorted(alphabet))}  # in the order of their making
    parts = [(i, i) for i in range(len(number))]  # of each token; a byte's are itself
    made: dict[tuple[int, int], int] = {}
    live: list[Pair] = []
    impossible: list[Pair] = []
    for x, y in merges:
        if x not in number or y not in number:
            impossible.append((x, y))
        elif x + y not in number and _stay_apart(number[x], number[y], made, parts):
            made[number[x], number[y]] = len(parts)
            number[x + y] = len(parts)
            parts.append((number[x], number[y]))
            live.append((x, y))
    if any(x in number and y in number for x, y in impossible):
        raise TokenizerError("The tokenizer's merges stand before those that make their parts.")
    return live


def _stay_apart(
    left: int, right: int, made: Mapping[tuple[int, int], int], parts: Sequence[tuple[int, int]]
) -> bool:
    """Whether the text of two tokens is tokenised as just these two.

    Their making is undone, the latest first, and what lies beside the border is looked at each
    time: had a pair across it been merged before either was made, they would not have been made.
    (The rule is that of GitHub's `bpe`: `is_valid_token_pair`.)
    """
    limit = len(parts)  # a merge across the border counts only if it came before this one
    while True:
        if made.get((left, right), limit) < limit:
            return False
        if left > right:
            limit, left = left, parts[left][1]
            if left != limit:
                continue
            limit, right = right + 1, parts[right][0]
            if right + 1 == limit:
                return True
        else:
            limit, right = right + 1, parts[right][0]
            if right + 1 != limit:
                continue
            limit, left = left, parts[left][1]
            if left == limit:
                return True


@dataclass(frozen=True)
class AddedToken:
    """A token that is looked for in the text itself, before anything is cut or merged."""

    text: str
    id: int
    strips_left: bool = False  # takes the white space before it along
    strips_right: bool = False
    whole_word: bool = False  # not inside a longer word
    normalized: bool = False  # looked for after normalisation


class ByteLevelBPE(tiktoken.Encoding):
    """A `tiktoken.Encoding` that gives the ids which `tokenizers` gives, special tokens apart.

    Special tokens (`<|endoftext|>` and the like) are text when they occur in a text, as everywhere
    here; other added tokens are found as `tokenizers` finds them.
    """

    def __init__(
        self,
        name: str,
        *,
        pattern: str,
        ids: Mapping[bytes, int],
        merges: Sequence[Pair],
        special: Mapping[str, int],
        end_of_text: int,
        added: Sequence[AddedToken] = (),
        normalizers: Sequence[str] = (),
        prefix_space: bool = False,
        unknown: int | None = None,
        fuses_unknown: bool = False,
        frame: Frame | None = None,
    ) -> None:
        """`ids` names every token of the alphabet and of `merges`, which are `live_merges`.

        `normalizers` are done to a text first: NFC and its like, or Lowercase. `unknown` is the id
        for a byte that the alphabet lacks; None leaves such bytes out.
        """
        self._given = (ids, merges)
        self._rules = {
            "name": name,
            "pattern": pattern,
            "special": dict(special),
            "end_of_text": end_of_text,
            "added": [list(astuple(token)) for token in added],
            "normalizers": list(normalizers),
            "prefix_space": prefix_space,
            "unknown": unknown,
            "fuses_unknown": fuses_unknown,
        }
        tokens = [t for t in ids if len(t) == 1] + [x + y for x, y in merges]
        in_order = [ids[token] for token in tokens]
        later = in_order[len(in_order) - len(merges) :]
        straight = all(a < b for a, b in itertools.pairwise(later))
        ranks = {token: ids[token] if straight else i for i, token in enumerate(tokens)}
        try:
            super().__init__(name, pat_str=pattern, mergeable_ranks=ranks, special_tokens={})
            self._cut = regex.compile(pattern)
        except (ValueError, regex.error) as error:
            raise TokenizerError(
                "The tokenizer's rule for cutting texts cannot be read."
            ) from error
        self._special_tokens = dict(special)
        self._special_token_values = set(special.values())
        self.max_token_value = max([*in_order, *special.values(), *(a.id for a in added)])
        self._end_of_text = end_of_text
        self.frame = frame or Frame()
        self._ids = None if straight else in_order
        self._spelling = dict(zip(in_order, tokens, strict=True))
        self._spelling |= {i: text.encode() for text, i in special.items()}
        self._spelling |= {token.id: token.text.encode() for token in added}
        self._normalizers, self._prefix_space = tuple(normalizers), prefix_space
        self._missing = {byte for byte in range(256) if bytes([byte]) not in ids}
        self._unknown, self._fuses_unknown = unknown, fuses_unknown
        self._added = [
            _finder([t for t in added if t.normalized is late]) for late in (False, True)
        ]
        self._plain = not (added or normalizers or prefix_space or self._missing)

    def record(self) -> dict[str, Any]:
        """All that `of_record` needs, as JSON has it: for other processes and machines."""
        return self._rules | {
            "ids": [[_letters(token), number] for token, number in self._given[0].items()],
            "merges": [[_letters(x), _letters(y)] for x, y in self._given[1]],
            "frame": frame_record(self.frame),
        }

    @classmethod
    def of_record(cls, record: Mapping[str, Any]) -> ByteLevelBPE:
        """The encoding of such a record."""
        named = dict(record) | {
            "ids": {token.encode("latin-1"): number for token, number in record["ids"]},
            "merges": [(x.encode("latin-1"), y.encode("latin-1")) for x, y in record["merges"]],
            "added": [AddedToken(*one) for one in record["added"]],
            "frame": frame_of_record(record["frame"]),
        }
        return cls(**named)

    @property
    def eot_token(self) -> int:
        """The id of the token that ends a text, whatever it is called here."""
        return self._end_of_text

    @cached_property
    def largest_id(self) -> int:
        """The largest id that a text can get: a special token is none of a text's."""
        return max(i for i in self._spelling if i not in self._special_token_values)

    @property
    def missing_bytes(self) -> int:
        """How many of the 256 bytes the vocabulary lacks."""
        return len(self._missing)

    def encode_ordinary(self, text: str) -> list[int]:
        """Token ids of a text. Raises `TokenizerError` where the rule of cutting gives up."""
        try:
            return self._ordinary(text)
        except BaseException as error:  # what Rust panics with is no Exception
            if type(error).__name__ != "PanicException":
                raise
            raise TokenizerError("The tokenizer's own rule cannot cut this text.") from None

    def _ordinary(self, text: str) -> list[int]:
        if self._plain:
            return self._merge(text)
        ids: list[int] = []
        for part in _parts(text, self._added[0]):
            if isinstance(part, int):
                ids.append(part)
                continue
            part = normalized(part, self._normalizers)
            for piece in _parts(part, self._added[1]):
                if isinstance(piece, int):
                    ids.append(piece)
                elif piece:
                    space = " " if self._prefix_space and not piece.startswith(" ") else ""
                    ids += self._merge(space + piece)
        return ids

    def _merge(self, text: str) -> list[int]:
        ranks: Sequence[int]
        if self._missing and not self._missing.isdisjoint(text.encode("utf-8", "replace")):
            return [i for piece in self._cut.findall(text) for i in self._with_missing(piece)]
        ranks = super().encode_ordinary(text)
        return ranks if self._ids is None else [self._ids[rank] for rank in ranks]

    def _with_missing(self, piece: str) -> list[int]:
        """A piece some of whose bytes have no token: they go, or become the unknown token."""
        raw = piece.encode("utf-8", "replace")
        if self._unknown is None:
            return self._bytes(bytes(byte for byte in raw if byte not in self._missing))
        ids: list[int] = []
        run = bytearray()
        fresh = True  # no unknown token stands at the end
        for byte in raw:
            if byte not in self._missing:
                run.append(byte)
                fresh = True
                continue
            ids += self._bytes(bytes(run))
            run.clear()
            if fresh or not self._fuses_unknown:
                ids.append(self._unknown)
            fresh = False
        return ids + self._bytes(bytes(run))

    def _bytes(self, raw: bytes) -> list[int]:
        ranks = self._core_bpe.encode_single_piece(raw) if raw else []
        return ranks if self._ids is None else [self._ids[rank] for rank in ranks]

    def encode(
        self,
        text: str,
        *,
        allowed_special: Literal["all"] | Set[str] = frozenset(),
        disallowed_special: Literal["all"] | Collection[str] = "all",
    ) -> list[int]:
        """As tiktoken's: `encode_ordinary`, but special tokens are seen, and refused by default."""
        allowed = set(self._special_tokens) if allowed_special == "all" else set(allowed_special)
        refused = set(self._special_tokens) if disallowed_special == "all" else disallowed_special
        for token in set(refused) - allowed:
            if token in text:
                raise ValueError(f"The text holds the special token {token!r}.")
        if not allowed:
            return self.encode_ordinary(text)
        by_length = sorted(allowed, key=len, reverse=True)
        parts = re.split("(" + "|".join(map(re.escape, by_length)) + ")", text)
        return [
            i
            for part in parts
            for i in (
                [self._special_tokens[part]] if part in allowed else self.encode_ordinary(part)
            )
        ]

    def decode_single_token_bytes(self, token: int) -> bytes:
        """The bytes of a token; raises `KeyError`."""
        return self._spelling[token]

    def decode_bytes(self, tokens: Sequence[int]) -> bytes:
        """The bytes of tokens; raises `KeyError` for an id that no token has."""
        return b"".join(self._spelling[token] for token in tokens)

    def decode(self, tokens: Sequence[int], errors: str = "replace") -> str:
        """The text of tokens, with the space in front that the rule may have put there."""
        return self.decode_bytes(tokens).decode("utf-8", errors)

    def token_byte_values(self) -> list[bytes]:
        """The bytes of every token, in the order of their ids."""
        return [self._spelling[i] for i in sorted(self._spelling)]


def normalized(text: str, steps: Sequence[str]) -> str:
    """A text after the steps named: NFC and its like, or Lowercase."""
    for step in steps:
        if step == "Lowercase":
            text = "".join(letter.lower() for letter in text)
        else:
            text = unicodedata.normalize(step, text)  # type: ignore[arg-type]
    return text


def _letters(token: bytes) -> str:
    """Bytes as text, a character a byte."""
    return token.decode("latin-1")


Finder = Callable[[str], Iterator[tuple[int, int, int]]]


def _finder(tokens: Sequence[AddedToken]) -> Finder | None:
    """Finds these tokens in a text, leftmost and longest first: (from, to, id), in order."""
    if not tokens:
        return None
    by_text = {token.text: token for token in tokens}
    longest_first = sorted(by_text, key=len, reverse=True)
    anyone = re.compile("|".join(map(re.escape, longest_first)))

    def find(text: str) -> Iterator[tuple[int, int, int]]:
        behind = 0
        for match in anyone.finditer(text):
            token, (start, end) = by_text[match[0]], match.span()
            if token.whole_word and (
                re.match(r"\w", text[max(0, start - 1) : start]) or re.match(r"\w", text[end:])
            ):
                continue
            if token.strips_left:
                start = len(text[:start].rstrip())
            if token.strips_right:
                end = len(text) - len(text[end:].lstrip())
            yield max(start, behind), end, token.id
            behind = end

    return find


def _parts(text: str, find: Finder | None) -> Iterator[str | int]:
    """The text between added tokens, and the ids of those."""
    behind = 0
    for start, end, token in find(text) if find else ():
        if start > behind:
            yield text[behind:start]
        yield token
        behind = max(behind, end)
    if behind < len(text):
        yield text[behind:]
