"""Text to token ids and back, without the network for the bundled base.

Both encodings are `tiktoken.Encoding`s of byte-level BPE, so every string has ids and comes back
unchanged. The bundled one is a file of 8,191 byte strings in the order in which they were learnt
(`assets/base/tokenizer.tiktoken`) and one special token, `<|endoftext|>`. GPT-2's own is
downloaded by tiktoken at its first use.

Use `encoding.encode_ordinary(text)`: a text that happens to contain "<|endoftext|>" is then text.
"""

from __future__ import annotations

import base64
import binascii
from functools import lru_cache
from pathlib import Path

import tiktoken

from lora_core.errors import LabError

END_OF_TEXT = "<|endoftext|>"

# How text is cut before merging. GPT-2's rule with three changes: a number is cut every two
# digits, so that the small vocabulary holds words instead of years; a run of punctuation takes the
# line breaks after it along (".\n" is one token); and a lone line break is never glued to a word.
# Written without possessive or Unicode-class tricks, so that the regex engines of tiktoken and of
# `tokenizers` cut alike (a test holds that, on every Unicode character).
SPLIT_PATTERN = r"'(?:[sdmt]|ll|ve|re)| ?\p{L}+|\p{N}{1,2}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s+(?!\S)|\s+"


class TokenizerError(LabError, RuntimeError):
    """A tokenizer that cannot be used; the message says what is wrong and what to do."""


def read_ranks(path: str | Path) -> dict[bytes, int]:
    """A `.tiktoken` file, one "base64 rank" a line, as {bytes of the token: rank}.

    Not `tiktoken.load.load_tiktoken_bpe`: that keeps a copy in the temporary folder under the
    file's name, and would go on using it after the file has changed.
    """
    path = Path(path)
    ranks: dict[bytes, int] = {}
    try:
        for line in path.read_text(encoding="ascii").splitlines():
            token, rank = line.split()
            ranks[base64.b64decode(token, validate=True)] = int(rank)
    except OSError as error:
        raise TokenizerError(f"The tokenizer {path} cannot be read: {error.strerror}.") from error
    except (ValueError, binascii.Error) as error:
        raise TokenizerError(
            f"The tokenizer {path} is damaged: a line of it is not 'base64 rank'."
        ) from error
    missing = [byte for byte in range(256) if bytes([byte]) not in ranks]
    if missing or sorted(ranks.values()) != list(range(len(ranks))):
        raise TokenizerError(
            f"The tokenizer {path} is damaged: it needs all 256 single bytes and ranks from 0 "
            "without a gap."
        )
    return ranks


def load_encoding(path: str | Path, name: str = "lora-lab") -> tiktoken.Encoding:
    """The encoding of a `.tiktoken` file; `<|endoftext|>` gets the id after the last rank."""
    ranks = read_ranks(path)
    return tiktoken.Encoding(
        name,
        pat_str=SPLIT_PATTERN,
        mergeable_ranks=ranks,
        special_tokens={END_OF_TEXT: len(ranks)},
        explicit_n_vocab=len(ranks) + 1,
    )


@lru_cache(maxsize=1)
def gpt2_encoding() -> tiktoken.Encoding:
    """GPT-2's own encoding; needs the network once, then tiktoken's cache."""
    try:
        return tiktoken.get_encoding("gpt2")
    except Exception as error:  # tiktoken lets whatever its HTTP client raises through
        raise TokenizerError(
            "GPT-2's tokenizer is not on this machine and could not be downloaded: is there a "
            "network? The bundled base needs none."
        ) from error
