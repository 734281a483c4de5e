"""Adapters in PEFT's format, out and in: a folder, or a zip, with a configuration and safetensors.

`save_adapter` writes what `peft` writes, with the classification head; `peft` opens it over
`transformers`' GPT-2 and gives the same logits. `load_adapter` reads ours and `peft`'s own.
`layers` translates between the two, `files` and `archive` read safely.
"""

from __future__ import annotations

import json
import math
import re
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from lora_core.adapters.archive import ArchiveError, pack_folder, unpack_archive
from lora_core.adapters.card import adapter_card
from lora_core.adapters.files import (
    CONFIG_FILE,
    FACTS_KEY,
    MAX_BYTES,
    WEIGHTS_FILE,
    AdapterError,
    OtherBaseError,
    pack,
    quoted,
    read_config,
    read_tensors,
    unpack,
    write_tensors,
)
from lora_core.adapters.head import head_facts
from lora_core.adapters.layers import from_peft, to_peft
from lora_core.adapters.size import Shapes, file_bytes, header_bytes
from lora_core.base.checkpoint import Base, frozen_digest
from lora_core.classifier import Classifier
from lora_core.config import HEAD, ConfigError, HeadMode, LoRAConfig, TrainConfig
from lora_core.lora import lora_layers
from lora_core.model import GPT

__all__ = [
    "CONFIG_FILE",
    "MAX_BYTES",
    "WEIGHTS_FILE",
    "AdapterError",
    "adapter_tensors",
    "load_adapter",
    "save_adapter",
    "saved_bytes",
    "zip_adapter",
]

_MAX_LABEL = 200  # characters


def save_adapter(classifier: Classifier, folder: str | Path) -> Path:
    """Write a LoRA classifier as PEFT would: configuration, safetensors, README. Returns `folder`.

    `peft.PeftModel.from_pretrained` over `GPT2ForSequenceClassification` of the same base gives the
    classifier's logits. LoRA on the head is folded into the head that is saved. Raises
    `AdapterError` for a classifier without LoRA.
    """
    config, tensors, facts = _contents(classifier)
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    metadata = {"format": "pt", FACTS_KEY: json.dumps(facts)}
    room = header_bytes(*_sizes_of(classifier, tensors))
    write_tensors(tensors, folder / WEIGHTS_FILE, metadata, room)
    (folder / CONFIG_FILE).write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")
    (folder / "README.md").write_text(adapter_card(classifier, config, tensors), encoding="utf-8")
    return folder


def zip_adapter(classifier: Classifier, path: str | Path) -> Path:
    """`save_adapter` as one zip file, which `load_adapter` reads as it is. Returns `path`."""
    with tempfile.TemporaryDirectory(prefix="lora-lab-") as folder:
        return pack_folder(save_adapter(classifier, folder), Path(path))


def saved_bytes(classifier: Classifier, tensors: Mapping[str, Tensor]) -> int:
    """Bytes of the `adapter_model.safetensors` that `save_adapter` writes of these tensors."""
    return file_bytes(*_sizes_of(classifier, tensors))


def _sizes_of(
    classifier: Classifier, tensors: Mapping[str, Tensor]
) -> tuple[Shapes, int, int, int, HeadMode]:
    lora = _adapted(classifier)
    shapes = {name: tuple(tensor.shape) for name, tensor in tensors.items()}
    width, classes = classifier.model.config.emb_dim, len(classifier.labels)
    return shapes, width, classes, lora.rank, lora.head


def adapter_tensors(classifier: Classifier) -> dict[str, Tensor]:
    """The tensors that the file of this classifier's adapter holds, under PEFT's names."""
    lora = _adapted(classifier)
    with classifier.at_strength(1.0) as model:
        return to_peft(model, lora, classifier.base_source)[1]


def load_adapter(
    source: str | Path,
    base: Base,
    labels: Sequence[str] | None = None,
    *,
    max_bytes: int = MAX_BYTES,
) -> Classifier:
    """Read an adapter, a folder or a zip, ours or `peft`'s own, over `base` as a `Classifier`.

    `labels` names the classes where the file does not (one made by `peft` alone); else LABEL_0 and
    so on, as in `transformers`. `max_bytes` bounds the weights. Raises `AdapterError` that names
    what cannot be used: another kind of adapter (DoRA ...), another base, missing, extra, misshapen
    or not-finite tensors, an archive that is not what it seems.
    """
    source = Path(source)
    if source.name in (CONFIG_FILE, WEIGHTS_FILE):  # one of its files stands for the folder
        source = source.parent
    if not source.exists():
        raise AdapterError(f"There is no file or folder {quoted(str(source))}.")
    if source.is_dir():
        return _load(_folder_within(source), base, labels, max_bytes)
    with tempfile.TemporaryDirectory(prefix="lora-lab-") as folder:
        try:
            wanted = {CONFIG_FILE: 2**20, WEIGHTS_FILE: max_bytes}
            unpack_archive(source, Path(folder), wanted)
        except ArchiveError as error:
            raise AdapterError(str(error)) from error
        return _load(Path(folder), base, labels, max_bytes)


def _folder_within(folder: Path) -> Path:
    """Where the adapter lies: in `folder`, or in its one folder that holds one.

    `peft` writes an adapter that has a name of its own into a folder of that name.
    """
    if (folder / CONFIG_FILE).is_file():
        return folder
    depths = ("*", "*/*")  # such as outputs/checkpoint-500
    found = (sorted(p.parent for p in folder.glob(f"{depth}/{CONFIG_FILE}")) for depth in depths)
    folders = next(filter(None, found), [])
    if len(folders) > 1:
        named = ", ".join(quoted(path.relative_to(folder).as_posix()) for path in folders[:5])
        raise AdapterError(
            f"This folder holds {len(folders)} adapters, in {named}. Name the folder of one."
        )
    return folders[0] if folders else folder


def _load(folder: Path, base: Base, labels: Sequence[str] | None, max_bytes: int) -> Classifier:
    config = read_config(folder)
    tensors, facts = read_tensors(folder, max_bytes)
    _check_base(facts, base)
    named = _named_base(config)
    try:
        model, lora_config = from_peft(config, tensors, facts, base)
    except OtherBaseError as error:
        if not named:
            raise
        raise OtherBaseError(f"{error} The adapter names {quoted(named)} as its base.") from error
    count = int(model.num_classes or 0)
    return Classifier(
        model,
        base.tokenizer,
        _labels(labels, facts, count),
        initial={} if lora_config.head == "lora" else _initial_head(facts, count, base),
        lora_config=lora_config,
        train_config=_train_config(facts),
        base_name=base.name,
        base_source=base.source,
        task_name=_word(facts.get("task")),
        scores=_scores(facts),
        remark=""
        if facts.get("base_digest") or _same_name(named, base)
        else _unproven(named, base),
    )


def _contents(classifier: Classifier) -> tuple[dict[str, Any], dict[str, Tensor], dict[str, Any]]:
    """Configuration, tensors and facts of a classifier's adapter; copies, taken at strength 1."""
    lora = _adapted(classifier)
    with classifier.at_strength(1.0) as model:
        config, tensors = to_peft(model, lora, classifier.base_source)
        return config, tensors, _facts(classifier, model, lora)


def _adapted(classifier: Classifier) -> LoRAConfig:
    """The settings of a classifier that has an adapter; raises `AdapterError` for another."""
    lora = classifier.lora_config
    layers = [n for n, _ in lora_layers(classifier.model) if n != HEAD]
    if lora is None or not layers:
        raise AdapterError(
            "This run trained no LoRA layers, so there is no adapter to save: full fine-tuning is "
            "saved as a whole model, a head alone is no adapter in PEFT's format."
        )
    return lora


def _facts(classifier: Classifier, model: GPT, lora: LoRAConfig) -> dict[str, Any]:
    train, initial = classifier.train_config, classifier.initial.get("head.weight")
    return {
        "labels": list(classifier.labels),
        "task": classifier.task_name,
        "base": classifier.base_name,
        "base_digest": frozen_digest(model),
        "lora": {**asdict(lora), "targets": list(lora.targets)},
        "train": asdict(train) if train else None,
        "scores": classifier.scores,
        "head": head_facts(model),
        "initial_head": pack(initial) if initial is not None else None,
    }


# What a file says of itself: taken where it makes sense, and left out where it does not.


def _check_base(facts: Mapping[str, Any], base: Base) -> None:
    """The weights decide: an adapter of ours says over which it was trained."""
    digest = facts.get("base_digest")
    if digest is not None and digest != base.digest():
        raise OtherBaseError(
            f"This adapter was trained on another base ({quoted(facts.get('base'))}, weights "
            f"{quoted(digest)[1:13]}), not on '{base.name}' as it is here."
        )


def _named_base(config: Mapping[str, Any]) -> str:
    named = config.get("base_model_name_or_path")
    return named[:_MAX_LABEL] if isinstance(named, str) else ""


def _same_name(named: str, base: Base) -> bool:
    """Whether a name or a path, of whichever machine, can mean this base: its last part agrees."""
    last = re.split(r"[/\\\\]", named.rstrip("/\\"))[-1]
    return not named or last in (base.name, base.name.rpartition("/")[2], Path(base.source).name)


def _unproven(named: str, base: Base) -> str:
    return (
        f"The file names {quoted(named)} as its base. Its shapes fit '{base.name}'; whether the "
        "weights are the same, the file does not say."
    )


def _labels(labels: Sequence[str] | None, facts: Mapping[str, Any], count: int) -> list[str]:
    named = facts.get("labels")
    names = list(labels) if labels is not None else []
    names = names or (named if isinstance(named, list) else [])
    names = names or [f"LABEL_{i}" for i in range(count)]
    texts = [name for name in names if isinstance(name, str) and 0 < len(name) <= _MAX_LABEL]
    if len(texts) != len(names):
        raise AdapterError(f"A label must be a text of 1 to {_MAX_LABEL} characters.")
    if len(texts) != count or len(set(texts)) != count:
        raise AdapterError(
            f"The head has {count} classes, but {len(set(texts))} different labels are given."
        )
    return texts


def _initial_head(facts: Mapping[str, Any], count: int, base: Base) -> dict[str, Tensor]:
    """The head before training, for the strength slider; zeros where the file does not tell."""
    width = base.config.emb_dim
    first = unpack(facts.get("initial_head"), (count, width))
    return {
        "head.weight": torch.zeros(count, width) if first is None else first,
        "head.bias": torch.zeros(count),
    }


def _train_config(facts: Mapping[str, Any]) -> TrainConfig | None:
    settings = facts.get("train")
    if not isinstance(settings, dict):
        return None
    try:
        return TrainConfig(**settings)
    except (ConfigError, TypeError, OverflowError):
        return None


def _word(value: object) -> str:
    return value[:_MAX_LABEL] if isinstance(value, str) else ""


def _scores(facts: Mapping[str, Any]) -> dict[str, float]:
    scores = facts.get("scores")
    if not isinstance(scores, dict):
        return {}
    return {
        key[:50]: float(value)
        for key, value in list(scores.items())[:20]
        if isinstance(value, int | float)
        and not isinstance(value, bool)
        and abs(value) < 1e9
        and math.isfinite(value)
    }
