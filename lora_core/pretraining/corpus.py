"""From text files to windows of tokens, without ever holding the corpus in memory.

A corpus is UTF-8 text, plain or compressed (.xz, .gz); a blank line ends a document. It is encoded
once into a flat file of token ids, each document behind one `<|endoftext|>`, and read from there
through a memory map. Knows nothing about models.
"""

from __future__ import annotations

import contextlib
import gzip
import hashlib
import json
import lzma
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TextIO

import numpy as np
import tiktoken
import torch
from numpy.typing import NDArray
from torch import Tensor
from tqdm import tqdm  # type: ignore[import-untyped]

from lora_core.pretraining import PretrainingError

LONGEST_DOCUMENT = 1_000_000  # characters; what has no blank line is cut there
_ENCODE_AT_ONCE = 4_000_000  # characters


def open_text(path: Path) -> TextIO:
    """A text file, decompressed on the way if its name ends in .xz or .gz."""
    opener = {".xz": lzma.open, ".gz": gzip.open}.get(path.suffix, open)
    return opener(path, "rt", encoding="utf-8", newline="\n")  # type: ignore[operator]


def documents(path: Path) -> Iterator[str]:
    """The blocks of lines between blank lines, one at a time, without their last line break."""
    lines: list[str] = []
    size = 0
    try:
        with open_text(path) as file:
            while line := file.readline(LONGEST_DOCUMENT):
                size += len(line)
                if line.strip() and size < LONGEST_DOCUMENT:
                    lines.append(line)
                    continue
                if line.strip():
                    lines.append(line)
                if lines:
                    yield "".join(lines).rstrip("\n")
                lines, size = [], 0
        if lines:
            yield "".join(lines).rstrip("\n")
    except UnicodeDecodeError as error:
        raise PretrainingError(
            f"{path} is not UTF-8 text ({error.reason}): convert it, for example with iconv."
        ) from error
    except (OSError, EOFError, lzma.LZMAError) as error:
        raise PretrainingError(f"{path} cannot be read: {error}.") from error


def encode_documents(paths: Sequence[Path], encoding: tiktoken.Encoding) -> Iterator[list[int]]:
    """Token ids of many documents at a time, each behind one `<|endoftext|>`."""
    batch: list[str] = []
    size = 0
    for path in paths:
        for document in documents(path):
            batch.append(document)
            size += len(document)
            if size >= _ENCODE_AT_ONCE:
                yield _encode(batch, encoding)
                batch, size = [], 0
    if batch:
        yield _encode(batch, encoding)


def _encode(batch: list[str], encoding: tiktoken.Encoding) -> list[int]:
    ids: list[int] = []
    for document in encoding.encode_ordinary_batch(batch, num_threads=1):
        ids.append(encoding.eot_token)
        ids.extend(document)
    return ids


def prepare_tokens(
    paths: Sequence[Path], encoding: tiktoken.Encoding, folder: Path, *, quiet: bool = False
) -> Path:
    """Encode a corpus into `folder`/tokens-….bin (uint16), unless that has been done already."""
    if encoding.n_vocab > 2**16:
        raise PretrainingError(f"A vocabulary of {encoding.n_vocab:,} does not fit into 16 bits.")
    target = folder / f"tokens-{fingerprint(paths, encoding)}.bin"
    if target.is_file():
        return target
    partial = target.with_suffix(".part")
    count = 0
    try:
        with (
            partial.open("wb") as file,
            tqdm(unit=" tokens", unit_scale=True, desc="encoding", disable=quiet) as bar,
        ):
            for ids in encode_documents(paths, encoding):
                np.asarray(ids, dtype=np.uint16).tofile(file)
                count += len(ids)
                bar.update(len(ids))
    except BaseException as error:
        with contextlib.suppress(OSError):
            partial.unlink(missing_ok=True)
        if isinstance(error, OSError):
            raise PretrainingError(
                f"The encoded corpus cannot be written to {folder}: {error}. It needs about half "
                "the size of the text."
            ) from error
        raise
    if count == 0:
        partial.unlink(missing_ok=True)
        names = ", ".join(str(path) for path in paths)
        raise PretrainingError(f"There is no text in {names}.")
    return partial.rename(target)


def fingerprint(paths: Sequence[Path], encoding: tiktoken.Encoding) -> str:
    """Changes with the files (name, size, time) and with the vocabulary."""
    try:
        stats = [(path.name, path.stat().st_size, path.stat().st_mtime_ns) for path in paths]
    except OSError as error:
        raise PretrainingError(f"{error.filename} cannot be read: {error.strerror}.") from error
    vocabulary = hashlib.sha256(b"\0".join(encoding.token_byte_values())).hexdigest()
    return hashlib.sha256(json.dumps([stats, vocabulary]).encode()).hexdigest()[:16]


class Windows:
    """Batches of token windows in an order that depends on the seed and the position alone.

    Each pass over the corpus visits all its windows in a new random order. A window starts at the
    beginning of a line where there is one in its first half, as the texts do that will be
    classified later. Batch `index` can be asked for directly, which is what makes a resumed run
    go on exactly where the killed one stopped.
    """

    def __init__(
        self, path: Path, length: int, seed: int, line_ends: NDArray[np.bool_] | None = None
    ) -> None:
        self.tokens: NDArray[np.uint16] = np.memmap(path, dtype=np.uint16, mode="r")
        self.length = length
        self.seed = seed
        self.line_ends = line_ends  # (vocab,): the tokens after which a line starts
        self.count = (len(self.tokens) - 1) // length
        if self.count == 0:
            raise PretrainingError(
                f"The corpus has only {len(self.tokens):,} tokens: one window needs {length + 1:,}."
            )
        self._epoch, self._order = -1, np.empty(0, dtype=np.int64)

    def batch(self, index: int, size: int, rank: int = 0, world: int = 1) -> tuple[Tensor, Tensor]:
        """Inputs and next tokens (size / world, length) of the `rank`-th share of a batch."""
        rows = [self._window(index * size + i) for i in range(rank, size, world)]
        block = torch.from_numpy(np.stack(rows).astype(np.int64))
        return block[:, :-1].contiguous(), block[:, 1:].contiguous()

    def _window(self, position: int) -> NDArray[np.uint16]:
        epoch, place = divmod(position, self.count)
        if epoch != self._epoch:
            self._epoch = epoch
            self._order = np.random.default_rng([self.seed, epoch]).permutation(self.count)
        start = int(self._order[place]) * self.length
        if self.line_ends is not None:
            ends = self.line_ends[self.tokens[start : start + self.length // 2]]
            first = int(ends.argmax())
            start += first + 1 if ends[first] else 0
        start = min(start, len(self.tokens) - self.length - 1)
        return self.tokens[start : start + self.length + 1]


def line_ends(encoding: tiktoken.Encoding) -> NDArray[np.bool_]:
    """(vocab,): tokens that end a line or a document."""
    tokens = (encoding.decode_single_token_bytes(i) for i in range(encoding.eot_token))
    return np.array([*(token.endswith(b"\n") for token in tokens), True])
