"""What an adapter's file weighs: known before training, and to the byte what is downloaded.

Query, key and value share one layer in PEFT's format, so the file holds zeros between their blocks:
it is larger than the trained parameters alone. Its header has a size that follows from the same
settings; what it says of labels and scores fits into the room that is left for it.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence

from lora_core.base.gpt2_names import (
    CLASSIFIER_NAME,
    EMBEDDING_NAMES,
    FINAL_NORM_NAME,
    FUSED,
    FUSED_NAME,
    LINEAR_NAMES,
    TRUNK,
)
from lora_core.config import GPTConfig, HeadMode, LoRAConfig, is_target

PREFIX = "base_model.model."  # of every tensor's name in PEFT's files
LINEAR_PAIR = (".lora_A.weight", ".lora_B.weight")  # (r, in), (out, r)
EMBEDDING_PAIR = (".lora_embedding_A", ".lora_embedding_B")  # (r, vocab), (emb, r)
_BYTES = 4  # of a float32
_PAGE = 512  # a header is a multiple of so many bytes
_ROOM, _ROOM_A_CLASS = 2_400, 96  # bytes of the header for settings and scores; for a label

Shapes = Mapping[str, Sequence[int]]


def adapter_file_bytes(config: GPTConfig, lora: LoRAConfig, classes: int) -> int:
    """Bytes of `adapter_model.safetensors` of a run with these settings, before there is one."""
    shapes = predicted_shapes(config, lora, classes)
    return file_bytes(shapes, config.emb_dim, classes, lora.rank, lora.head)


def file_bytes(shapes: Shapes, width: int, classes: int, rank: int, head: HeadMode) -> int:
    """Bytes of the file that holds float32 tensors of these shapes."""
    data = _BYTES * sum(math.prod(shape) for shape in shapes.values())
    return 8 + header_bytes(shapes, width, classes, rank, head) + data


def header_bytes(shapes: Shapes, width: int, classes: int, rank: int, head: HeadMode) -> int:
    """The length to which the header of such a file is filled up."""
    entries, at = {}, 0
    for name in sorted(shapes):
        end = at + _BYTES * math.prod(shapes[name])
        entries[name] = {"dtype": "F32", "shape": list(shapes[name]), "data_offsets": [at, end]}
        at = end
    names = len(json.dumps(entries, separators=(",", ":")))
    packed_numbers = [classes, classes * width]  # the head's bias, and the head as it began
    if head == "lora":
        packed_numbers = [classes, classes * width, rank * width, rank * classes]
    packed = sum(4 * math.ceil(_BYTES * numbers / 3) for numbers in packed_numbers)  # in base64
    return -(-(names + packed + _ROOM + _ROOM_A_CLASS * classes) // _PAGE) * _PAGE


def predicted_shapes(
    config: GPTConfig, lora: LoRAConfig, classes: int
) -> dict[str, tuple[int, ...]]:
    """Names and shapes of the tensors in the file of such a run."""
    width, rank = config.emb_dim, lora.rank
    shapes: dict[str, tuple[int, ...]] = {}

    def put(theirs: str, rank: int, n_in: int, n_out: int, pair: tuple[str, str]) -> None:
        shapes[f"{PREFIX}{TRUNK}{theirs}{pair[0]}"] = (rank, n_in)
        shapes[f"{PREFIX}{TRUNK}{theirs}{pair[1]}"] = (n_out, rank)

    def chosen(ours: str) -> bool:
        return any(is_target(ours, target) for target in lora.targets)

    rows = dict(zip(EMBEDDING_NAMES, (config.vocab_size, config.context_length), strict=True))
    for ours, theirs in EMBEDDING_NAMES.items():
        if chosen(ours):
            put(theirs, rank, rows[ours], width, EMBEDDING_PAIR)
    inner = {"mlp.up": (width, config.hidden_dim), "mlp.down": (config.hidden_dim, width)}
    for i in range(config.n_layers):
        thirds = sum(chosen(f"blocks.{i}.{name}") for name in FUSED)
        if thirds:
            put(f"h.{i}.{FUSED_NAME}", thirds * rank, width, 3 * width, LINEAR_PAIR)
        for ours, theirs in LINEAR_NAMES.items():
            if chosen(f"blocks.{i}.{ours}"):
                put(f"h.{i}.{theirs}", rank, *inner.get(ours, (width, width)), LINEAR_PAIR)
    shapes[f"{PREFIX}{CLASSIFIER_NAME}.weight"] = (classes, width)
    if lora.head == "train":  # its bias is kept in that of the final LayerNorm
        for kind in ("weight", "bias"):
            shapes[f"{PREFIX}{TRUNK}{FINAL_NORM_NAME}.{kind}"] = (width,)
    return shapes
