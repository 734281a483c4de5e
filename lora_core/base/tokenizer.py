"""Text to token ids and back, without the network for the bundled base.

Every encoding is a `tiktoken.Encoding` of byte-level BPE. The bundled one is a file of 16,382 byte
strings in the order in which they were learnt (`assets/base/tokenizer.tiktoken`) and two special
tokens, `<|pad|>` and `<|endoftext|>`. A folder's own tokenizer is read by `tokenizer_files`;
GPT-2's English one is downloaded by tiktoken at its first use, and taken only where a folder has
none of its own.

Use `encoding.encode_ordinary(text)`: a text that happens to contain "<|endoftext|>" is then text.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any

import tiktoken

from lora_core.base.byte_level_bpe import ByteLevelBPE
from lora_core.base.errors import TokenizerError, disk_trouble
from lora_core.base.frame import Frame, FramedEncoding, frame_of, frame_of_record, frame_record
from lora_core.base.tokenizer_files import (
    JSON_FILE,
    MERGES_FILE,
    OTHER_KINDS,
    SETTINGS_FILE,
    VOCABULARY_FILE,
    read_json_tokenizer,
    read_object,
    read_optional,
    read_vocabulary_and_merges,
)

END_OF_TEXT = "<|endoftext|>"
PADDING = "<|pad|>"

# How text is cut before merging. GPT-2's rule with three changes: a number is cut every two
# digits, so that the small vocabulary holds words instead of years; a run of punctuation takes the
# line breaks after it along (".\n" is one token); and a lone line break is never glued to a word.
# Written without possessive or Unicode-class tricks, so that the regex engines of tiktoken and of
# `tokenizers` cut alike (a test holds that, on every Unicode character).
SPLIT_PATTERN = r"'(?:[sdmt]|ll|ve|re)| ?\p{L}+|\p{N}{1,2}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s+(?!\S)|\s+"


RANKS_FILE = "tokenizer.tiktoken"
_ENGLISH_TOKENS = 50257
_NO_TOKENIZER = (
    "Its folder holds no tokenizer, so GPT-2's English one is used. If the model was trained with "
    "its own, put its tokenizer.json there."
)


def load_tokenizer(
    folder: Path, vocab_size: int, end_of_text: int | None = None
) -> tuple[tiktoken.Encoding, str]:
    """The tokenizer of a model's folder, and a remark for its user, empty where all is well.

    Its own where it has one: tokenizer.json, our .tiktoken file, or vocab.json and merges.txt.
    GPT-2's English one only where it has none, and the remark says so. Raises `TokenizerError`
    where its own cannot be read, or knows more tokens than the model's `vocab_size`.
    """
    encoding, remark = _load(folder, vocab_size, end_of_text)
    largest = getattr(encoding, "largest_id", encoding.n_vocab - 1)
    if largest >= vocab_size or encoding.eot_token >= vocab_size:
        raise TokenizerError(
            f"The tokenizer in {folder} knows {largest + 1:,} tokens, its model only "
            f"{vocab_size:,}: they do not belong together."
        )
    frame = frame_of(encoding)
    if not all(0 <= number < vocab_size for number in (*frame.before, *frame.after)):
        raise TokenizerError(
            f"The tokenizer in {folder} puts a token around each text (post_processor) that its "
            f"model of {vocab_size:,} tokens does not know: they do not belong together."
        )
    return encoding, remark


def _load(folder: Path, vocab_size: int, end_of_text: int | None) -> tuple[tiktoken.Encoding, str]:
    lists = all((folder / name).is_file() for name in (VOCABULARY_FILE, MERGES_FILE))
    if (folder / JSON_FILE).is_file() and not (lists and not read_object(folder / JSON_FILE)):
        own = read_json_tokenizer(folder, end_of_text)
        return own, _about(own.missing_bytes)
    if (folder / RANKS_FILE).is_file():
        return load_encoding(folder / RANKS_FILE), ""
    if lists:
        own = read_vocabulary_and_merges(folder, end_of_text)
        return own, _about(own.missing_bytes)
    for name, other in (VOCABULARY_FILE, MERGES_FILE), (MERGES_FILE, VOCABULARY_FILE):
        if (folder / name).is_file():
            raise TokenizerError(f"{folder} holds {name} and no {other}: both are needed.")
    for name, kind in OTHER_KINDS.items():
        if (folder / name).is_file():
            raise TokenizerError(
                f"The tokenizer in {folder} is {kind}, not a byte-level BPE like GPT-2's. Only "
                "that kind can be read here."
            )
    if vocab_size < _ENGLISH_TOKENS:
        raise TokenizerError(
            f"{folder} holds no tokenizer, and a vocabulary of {vocab_size:,} tokens does not "
            "belong to GPT-2's. Put the model's own tokenizer.json there."
        )
    return gpt2_encoding(), _NO_TOKENIZER


def _about(missing_bytes: int) -> str:
    if not missing_bytes:
        return ""
    return (
        f"Its tokenizer lacks {missing_bytes} of the 256 bytes: characters that need them are left "
        "out, or become the unknown token."
    )


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
    """The encoding of a `.tiktoken` file; the special tokens get the ids after the last rank.

    They are `<|endoftext|>` and, before it, the `pad_token` of a `tokenizer_config.json` beside the
    file where it names another one. Its `add_eos_token` puts `<|endoftext|>` behind every text.
    """
    ranks = read_ranks(path)
    settings = read_optional(Path(path).parent / SETTINGS_FILE)
    padding = settings.get("pad_token")
    special = [padding] if isinstance(padding, str) and padding != END_OF_TEXT else []
    ids = {token: len(ranks) + i for i, token in enumerate([*special, END_OF_TEXT])}
    encoding = FramedEncoding(
        name, pat_str=SPLIT_PATTERN, mergeable_ranks=ranks, special_tokens=ids
    )
    if settings.get("add_eos_token") is True:
        encoding.frame = Frame(after=(ids[END_OF_TEXT],), padding=ids.get(str(padding)))
    return encoding


def encoding_record(encoding: tiktoken.Encoding) -> dict[str, Any]:
    """An encoding as JSON has it, for other processes and machines."""
    if isinstance(encoding, ByteLevelBPE):
        return {"byte_level_bpe": encoding.record()}
    ranks = {base64.b64encode(t).decode(): n for t, n in encoding._mergeable_ranks.items()}
    return {
        "name": encoding.name,
        "pattern": encoding._pat_str,
        "ranks": ranks,
        "special": encoding._special_tokens,
        "frame": frame_record(frame_of(encoding)),
    }


def encoding_of(record: Mapping[str, Any]) -> tiktoken.Encoding:
    """The encoding of such a record."""
    if "byte_level_bpe" in record:
        return ByteLevelBPE.of_record(record["byte_level_bpe"])
    encoding = FramedEncoding(
        record["name"],
        pat_str=record["pattern"],
        mergeable_ranks={base64.b64decode(t): n for t, n in record["ranks"].items()},
        special_tokens=record["special"],
    )
    encoding.frame = frame_of_record(record["frame"])
    return encoding


@lru_cache(maxsize=1)
def gpt2_encoding() -> tiktoken.Encoding:
    """GPT-2's own encoding; needs the network once, then tiktoken's cache."""
    try:
        return tiktoken.get_encoding("gpt2")
    except Exception as error:  # tiktoken lets whatever its HTTP client raises through
        if isinstance(error, OSError) and (trouble := disk_trouble(error)):
            raise TokenizerError(
                "GPT-2's English tokenizer cannot be kept where TIKTOKEN_CACHE_DIR says: "
                f"{trouble}. Name another folder there."
            ) from error
        raise TokenizerError(
            "GPT-2's English tokenizer is not on this machine and could not be downloaded: is "
            "there a network? Without one, put the model's tokenizer.json into its folder, or copy "
            "tiktoken's cache from another machine and name it in TIKTOKEN_CACHE_DIR. The bundled "
            "base needs none."
        ) from error
