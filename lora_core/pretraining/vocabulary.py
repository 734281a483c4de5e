"""A larger vocabulary for the same model: byte-pair merging goes on where it had stopped.

    python -m lora_core.pretraining.vocabulary --texts FILE... --size 16384 --out DIR

The old tokens keep their ranks and ids, `<|endoftext|>` moves to the new end, and a new token's
embedding can be made of its pieces' (`grow_embedding`): so trained weights go on being of use.
"""

from __future__ import annotations

import argparse
import base64
import heapq
import itertools
import json
import sys
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping
from pathlib import Path

import regex
import tiktoken
import torch
from torch import Tensor

from lora_core.base.tokenizer import SPLIT_PATTERN, load_encoding, read_ranks
from lora_core.pretraining.corpus import open_text
from lora_core.pretraining.program import exit_status

BUNDLED = Path(__file__).resolve().parents[2] / "assets" / "base"


def count_words(lines: Iterable[str]) -> Counter[str]:
    """How often each piece is in the text after the tokenizer's own cut, before merging."""
    cut = regex.compile(SPLIT_PATTERN)
    counts: Counter[str] = Counter()
    for line in lines:
        counts.update(cut.findall(line))
    return counts


def grow(
    encoding: tiktoken.Encoding, ranks: Mapping[bytes, int], words: Mapping[str, int], size: int
) -> dict[bytes, int]:
    """`ranks` with further merges, the most frequent pair first, until with the
    special tokens there are `size`.
    """
    wanted = size - len(encoding._special_tokens)
    out = dict(ranks)
    sequences = [
        ([encoding.decode_single_token_bytes(i) for i in encoding.encode_ordinary(word)], count)
        for word, count in words.items()
    ]
    pairs: Counter[tuple[bytes, bytes]] = Counter()
    where: defaultdict[tuple[bytes, bytes], set[int]] = defaultdict(set)
    for number, (parts, count) in enumerate(sequences):
        for pair in itertools.pairwise(parts):
            pairs[pair] += count
            where[pair].add(number)
    heap = [(-count, pair) for pair, count in pairs.items()]
    heapq.heapify(heap)
    while len(out) < wanted and heap:
        negative, pair = heapq.heappop(heap)
        if pairs[pair] != -negative:  # an old entry; the present count comes again
            if pairs[pair] > 0:
                heapq.heappush(heap, (-pairs[pair], pair))
            continue
        token = pair[0] + pair[1]
        if token in out:
            continue
        out[token] = len(out)
        touched = set()
        for number in where.pop(pair):
            parts, count = sequences[number]
            for old in itertools.pairwise(parts):
                pairs[old] -= count
            parts = _merged(parts, pair)
            sequences[number] = (parts, count)
            for new in itertools.pairwise(parts):
                pairs[new] += count
                where[new].add(number)
                touched.add(new)
        for new in touched:
            heapq.heappush(heap, (-pairs[new], new))
    return out


def _merged(parts: list[bytes], pair: tuple[bytes, bytes]) -> list[bytes]:
    out: list[bytes] = []
    place = 0
    while place < len(parts):
        if tuple(parts[place : place + 2]) == pair:
            out.append(pair[0] + pair[1])
            place += 2
        else:
            out.append(parts[place])
            place += 1
    return out


def pieces(old: tiktoken.Encoding, new: tiktoken.Encoding) -> list[list[int]]:
    """Which old ids spell each id of the grown vocabulary."""
    special = sorted(new._special_tokens, key=new._special_tokens.__getitem__)
    tokens = (new.decode_single_token_bytes(i) for i in range(new.n_vocab - len(special)))
    return [
        *(list(old._encode_single_piece(token)) for token in tokens),
        *([old._special_tokens.get(name, old.eot_token)] for name in special),
    ]


def grow_embedding(embedding: Tensor, spelled: list[list[int]]) -> Tensor:
    """(old, emb) -> (new, emb): each new row is the sum of its pieces' deviations from the mean
    row, over the square root of their number, so that it is about as long as theirs.
    """
    mean = embedding.mean(0)
    rows = [(embedding[ids] - mean).sum(0) / len(ids) ** 0.5 + mean for ids in spelled]
    return torch.stack(rows)


def write_tokenizer(ranks: Mapping[bytes, int], source: Path, out: Path) -> None:
    """The three tokenizer files in `out`; what is not vocabulary is `source`'s."""
    ordered = sorted(ranks, key=lambda token: ranks[token])
    lines = (f"{base64.b64encode(token).decode()} {ranks[token]}\n" for token in ordered)
    (out / "tokenizer.tiktoken").write_text("".join(lines), encoding="ascii")
    rules = json.loads((source / "tokenizer.json").read_text("utf-8"))
    shown = {token: _shown(token) for token in ordered}
    rules["model"]["vocab"] = {shown[token]: ranks[token] for token in ordered}
    rules["model"]["merges"] = [
        [_shown(a), _shown(b)] for a, b in (halves(t, ranks) for t in ordered if len(t) > 1)
    ]
    for offset, special in enumerate(rules["added_tokens"]):
        special["id"] = len(ranks) + offset
        framing = (rules["post_processor"] or {}).get("special_tokens", {})
        if special["content"] in framing:
            framing[special["content"]]["ids"] = [special["id"]]
    text = json.dumps(rules, ensure_ascii=False, separators=(",", ":"))
    (out / "tokenizer.json").write_text(text + "\n", encoding="utf-8")
    copied = "tokenizer_config.json"
    (out / copied).write_text((source / copied).read_text("utf-8"), encoding="utf-8")


def halves(token: bytes, ranks: Mapping[bytes, int]) -> tuple[bytes, bytes]:
    """The two tokens that merging lower ranks leaves of `token`: what it was merged from."""
    parts = [bytes([byte]) for byte in token]
    while len(parts) > 2:
        joined = [ranks.get(a + b, len(ranks)) for a, b in itertools.pairwise(parts)]
        best = min(range(len(joined)), key=joined.__getitem__)
        parts[best : best + 2] = [parts[best] + parts[best + 1]]
    return parts[0], parts[1]


def _shown(token: bytes) -> str:
    """A token as `tokenizers` writes it: GPT-2's printable stand-ins for bytes."""
    return "".join(_STAND_INS[byte] for byte in token)


def _stand_ins() -> list[str]:
    printable = {*range(33, 127), *range(161, 173), *range(174, 256)}
    spare = iter(range(256, 512))
    return [chr(byte) if byte in printable else chr(next(spare)) for byte in range(256)]


_STAND_INS = _stand_ins()


def main(arguments: list[str] | None = None) -> int:
    """The program; an exit status."""
    parser = argparse.ArgumentParser(
        prog="python -m lora_core.pretraining.vocabulary", description=__doc__.split("\n", 1)[0]
    )
    parser.add_argument("--texts", nargs="+", type=Path, required=True, metavar="FILE")
    parser.add_argument("--tokenizer", type=Path, default=BUNDLED, metavar="DIR", help="to grow")
    parser.add_argument("--size", type=int, default=16_384, help="with special tokens (16384)")
    parser.add_argument("--out", type=Path, required=True, metavar="DIR")
    options = parser.parse_args(arguments)
    path = options.tokenizer / "tokenizer.tiktoken"

    def write() -> None:
        words: Counter[str] = Counter()
        for texts in options.texts:
            with open_text(texts) as file:
                words += count_words(file)
        ranks = grow(load_encoding(path), read_ranks(path), words, options.size)
        options.out.mkdir(parents=True, exist_ok=True)
        write_tokenizer(ranks, options.tokenizer, options.out)
        print(f"{options.size:,} tokens in {options.out}")

    return exit_status(write)


if __name__ == "__main__":
    sys.exit(main())
