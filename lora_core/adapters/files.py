"""The two files of a PEFT adapter, read as what they are: something that a stranger has sent.

`adapter_config.json` is checked against what plain LoRA can say; `adapter_model.safetensors` is
bounded before it is read (bytes, header, number and kind of tensors) and must hold finite numbers.
Nothing is ever unpickled. What PEFT cannot say, and `lora_core` wants to know, lies as JSON in the
header of the safetensors file: the *facts*. They are believed only where the tensors agree.
"""

from __future__ import annotations

import base64
import binascii
import json
import math
import re
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from lora_core.base.text_files import LFS_POINTER, is_lfs_pointer, read_json
from lora_core.config import is_target
from lora_core.errors import LabError

CONFIG_FILE = "adapter_config.json"
WEIGHTS_FILE = "adapter_model.safetensors"
MAX_BYTES = 256 * 2**20  # of the weights
MAX_HEADER = 8 * 2**20  # of the safetensors header: names, shapes, facts
MAX_CONFIG = 2**20
MAX_TENSORS = 10_000
_MAX_EXPRESSION = 1000  # characters
FACTS_KEY = "lora_lab"

_DTYPES = ("F64", "F32", "F16", "BF16")
# Settings of PEFT's LoraConfig that change what is computed; each must be absent, or as here.
_PLAIN: dict[str, tuple[Any, ...]] = {
    "use_dora": (False, None),
    "use_qalora": (False, None),
    "use_bdlora": (False, None),
    "lora_bias": (False, None),
    "layer_replication": (None, []),
    "trainable_token_indices": (None, []),
    "target_parameters": (None, []),
    "alora_invocation_tokens": (None, []),
    "arrow_config": (None,),
    "velora_config": (None,),
    "monteclora_config": (None,),
    "kasa_config": (None,),
    "megatron_config": (None,),
    "bias": ("none", None),
}
_NAMES = {"use_dora": "DoRA", "use_qalora": "QA-LoRA", "use_bdlora": "BD-LoRA"}
_HARMLESS = ("use_rslora",)  # known here and computed
WHOLE_MODEL = "This is a whole model, not an adapter: its folder can be loaded as a base."
# Initialisations that also rewrite the base's weights: the adapter alone does not say how.
_WRITES_BASE = ("pissa", "olora", "loftq", "corda", "lora_ga")


class AdapterError(LabError, ValueError):
    """An adapter that cannot be saved or loaded; the message says why."""


class OtherBaseError(AdapterError):
    """An adapter that belongs to another base."""


class UnreadableExpressionError(AdapterError):
    """A regular expression in a configuration that cannot be followed safely."""


def quoted(value: object, limit: int = 80) -> str:
    """What a stranger wrote, for a message: its `repr`, cut."""
    text = repr(value)
    return text if len(text) <= limit else text[:limit] + " …"


def read_config(folder: Path) -> dict[str, Any]:
    """`adapter_config.json`, if it describes plain LoRA. Raises `AdapterError` with the reason."""
    path = folder / CONFIG_FILE
    try:
        if not path.is_file():
            if (folder / "config.json").is_file():
                raise AdapterError(WHOLE_MODEL)
            like = _like(folder, "[aA]dapter*[cC]onfig*.json")
            raise AdapterError(
                f"There is no {CONFIG_FILE}: this is not an adapter in PEFT's format.{like}"
            )
        if path.stat().st_size > MAX_CONFIG:
            raise AdapterError(
                f"{CONFIG_FILE} is larger than a megabyte: that is no configuration."
            )
        config = read_json(path, MAX_CONFIG)
    except (OSError, ValueError) as error:
        if isinstance(error, AdapterError):
            raise
        raise AdapterError(f"{CONFIG_FILE} is not JSON that can be read.") from error
    if not isinstance(config, dict):
        raise AdapterError(f"{CONFIG_FILE} must hold one JSON object.")
    kind = config.get("peft_type")
    if kind is None and ("architectures" in config or "vocab_size" in config):
        raise AdapterError(WHOLE_MODEL)  # of transformers: its config.json under our name
    if kind is None:
        raise AdapterError(
            f"{CONFIG_FILE} names no peft_type: another program than PEFT wrote it (MLX, or "
            "AdapterHub's adapters), in a format that is not read here."
        )
    if str(kind).upper() != "LORA":
        raise AdapterError(
            f"This is an adapter of the kind {quoted(kind)}; only LoRA can be loaded."
        )
    _refuse_other_methods(config)
    return config


def _refuse_other_methods(config: Mapping[str, Any]) -> None:
    for key, value in config.items():
        if key in _PLAIN:
            plain = value in ({}, []) or any(value is a or value == a for a in _PLAIN[key])
        else:  # a switch that a later PEFT may know
            plain = not (key.startswith("use_") and value is True and key not in _HARMLESS)
        if not plain:
            name = f" ({_NAMES[key]})" if key in _NAMES else ""
            raise AdapterError(
                f"This adapter uses {quoted(key)[1:-1]} = {quoted(value)}{name}, which is not "
                "plain LoRA."
            )
    initialised = str(config.get("init_lora_weights", True)).lower()
    if initialised.startswith(_WRITES_BASE):
        name = {"pissa": "PiSSA", "olora": "OLoRA", "loftq": "LoftQ", "corda": "CorDA"}.get(
            initialised.split("_")[0], initialised[:20]
        )
        raise AdapterError(
            f"This adapter began with {name}, which also changes the base's weights. Convert it to "
            "plain LoRA in peft first (path_initial_model_for_weight_conversion)."
        )
    if not isinstance(config.get("use_rslora", False), bool | None):
        raise AdapterError("use_rslora must be true or false.")


def read_tensors(
    folder: Path, max_bytes: int = MAX_BYTES
) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """All tensors as float32, and the facts. Raises `AdapterError` before anything large is read.

    Time and memory are bounded by `max_bytes` of file: at most twice that for the float32 copies.
    """
    path = folder / WEIGHTS_FILE
    if not path.is_file():
        raise no_weights([file.name for file in folder.iterdir()])
    _check_size(path, max_bytes)
    tensors: dict[str, Tensor] = {}
    try:
        with safe_open(path, "pt") as file:
            metadata = file.metadata() or {}
            names = list(file.keys())
            if len(names) > MAX_TENSORS:
                raise AdapterError(f"{WEIGHTS_FILE} holds {len(names):,} tensors: too many.")
            for name in names:
                dtype = file.get_slice(name).get_dtype()
                if dtype not in _DTYPES:
                    raise AdapterError(
                        f"The tensor {quoted(name)} holds {quoted(dtype)}, not floating point "
                        "numbers of 16 bits or more."
                    )
                tensors[name] = file.get_tensor(name).float()
    except (OSError, SafetensorError, ValueError, RuntimeError) as error:
        if isinstance(error, AdapterError):
            raise
        raise AdapterError(f"{WEIGHTS_FILE} is damaged or not a safetensors file.") from error
    for name, tensor in tensors.items():
        if not torch.isfinite(tensor).all():
            raise AdapterError(f"The tensor {quoted(name)} holds numbers that are infinite or NaN.")
    return tensors, _facts(metadata)


def _like(folder: Path, pattern: str) -> str:
    """A word on the one file that may have been meant, as a browser renames a second download."""
    found = [path.name for path in folder.glob(pattern)] if folder.is_dir() else []
    return f" Is {quoted(found[0])} meant? Call it {CONFIG_FILE}." if len(found) == 1 else ""


def no_weights(beside: Collection[str]) -> AdapterError:
    """For an adapter without `adapter_model.safetensors`, of which these files are there."""
    others = [name for name in beside if name.endswith(".safetensors")]
    if len(others) == 1:
        return AdapterError(
            f"There is no {WEIGHTS_FILE} beside {CONFIG_FILE}. Is {quoted(others[0])} meant? Call "
            f"it {WEIGHTS_FILE}."
        )
    if {"adapter_model.bin", "adapter_model.pt"} & set(beside):
        return AdapterError(
            "The weights are a pickle (adapter_model.bin), which could run any program and is "
            "never opened. Save the adapter again as safetensors."
        )
    return AdapterError(f"There is no {WEIGHTS_FILE} beside {CONFIG_FILE}.")


def is_rounded(saved: Tensor, own: Tensor) -> bool:
    """Whether a float32 tensor of a file is `own`, as it is or as a format of 16 bits rounds it."""
    formats = (torch.float32, torch.bfloat16, torch.float16)
    return any(torch.equal(saved, own.to(format).float()) for format in formats)


def _check_size(path: Path, max_bytes: int) -> None:
    try:
        size = path.stat().st_size
        pointer = is_lfs_pointer(path)
        with path.open("rb") as file:
            start = file.read(16)
    except OSError as error:
        raise AdapterError(f"{WEIGHTS_FILE} cannot be read.") from error
    if pointer:
        raise AdapterError(f"{WEIGHTS_FILE} {LFS_POINTER}")
    if size > max_bytes:
        raise AdapterError(f"{WEIGHTS_FILE} is larger than {max_bytes / 2**20:.0f} MB.")
    header = int.from_bytes(start[:8], "little") if len(start) >= 8 else 0
    if not 2 <= header <= min(MAX_HEADER, size):
        if start[:4] == b"PK\x03\x04" or start[:1] == b"\x80":  # torch.save's zip, or plain pickle
            raise AdapterError(
                f"{WEIGHTS_FILE} is a pickle in disguise, which could run any program: it is never "
                "opened."
            )
        raise AdapterError(f"{WEIGHTS_FILE} is damaged or not a safetensors file.")


def write_tensors(
    tensors: dict[str, Tensor], path: Path, metadata: Mapping[str, str], header_bytes: int = 0
) -> None:
    """A safetensors file whose bytes depend on its content alone.

    The library writes the metadata in an order that differs from one process to the next. It comes
    first in the header here, sorted; the tensors stay where they are. The header is filled up to
    `header_bytes` with blanks.
    """
    content = save(tensors, dict(metadata))
    start = 8 + int.from_bytes(content[:8], "little")
    header = json.loads(content[8:start])
    header = {"__metadata__": dict(sorted(metadata.items())), **_without_metadata(header)}
    text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
    text = text.ljust(header_bytes)
    text += b" " * (-len(text) % 8)  # tensors begin at a multiple of eight
    with path.open("wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        file.write(memoryview(content)[start:])


def _without_metadata(header: Mapping[str, Any]) -> dict[str, Any]:
    return {name: entry for name, entry in header.items() if name != "__metadata__"}


def _facts(metadata: Mapping[str, str]) -> dict[str, Any]:
    try:
        facts = json.loads(metadata.get(FACTS_KEY, "{}"))
    except (ValueError, RecursionError):
        return {}
    return facts if isinstance(facts, dict) else {}


def pack(tensor: Tensor) -> str:
    """A float32 tensor's bytes as base64, for the facts: exact, unlike decimal digits cut short."""
    return base64.b64encode(tensor.detach().contiguous().numpy().astype("<f4").tobytes()).decode()


def unpack(value: object, shape: tuple[int, ...]) -> Tensor | None:
    """What `pack` made, or None where it is not a finite tensor of this shape."""
    if not isinstance(value, str) or len(value) > MAX_HEADER:
        return None
    try:
        raw = base64.b64decode(value, validate=True)
    except (binascii.Error, ValueError):
        return None
    if len(raw) != 4 * math.prod(shape) or not raw:
        return None
    tensor = torch.frombuffer(bytearray(raw), dtype=torch.float32).reshape(shape)
    return tensor if torch.isfinite(tensor).all() else None


def pattern_value(config: Mapping[str, Any], key: str, layer: str, default: Any) -> Any:
    """What `rank_pattern` or `alpha_pattern` says of a layer: by the end of its name, as in PEFT.

    PEFT reads the keys as regular expressions, and the first that matches counts.
    """
    table = config.get(key) or {}
    if not isinstance(table, dict):
        raise AdapterError(f"{key} must be a table of names and numbers.")
    for name, value in table.items():
        if re.fullmatch(r"[\w.]+", name):
            matches = is_target(layer, name)
        else:
            matches = _matches(key, name, layer)
        if matches:
            return value
    return default


def _matches(key: str, expression: str, layer: str) -> bool:
    """Whether a stranger's expression matches a layer, by RE2: in time that the length bounds.

    Python's own `re` can take for ever over an expression that means to.
    """
    import pyarrow as pa  # 0.4 s, only for who brings a file with such an expression
    import pyarrow.compute as pc

    if len(expression) > _MAX_EXPRESSION:
        raise UnreadableExpressionError(
            f"{key} has an expression of {len(expression):,} characters."
        )
    try:
        # As peft does it: the expression may begin after any dot, and must reach the end.
        whole = f"^(?:.*\\.)?(?:{expression})$"
        return bool(pc.match_substring_regex(pa.array([layer]), whole)[0].as_py())
    except (pa.ArrowException, ValueError) as error:
        raise UnreadableExpressionError(
            f"{key} has the expression {quoted(expression)}, which cannot be read here: layers can "
            "be named in it one by one."
        ) from error
