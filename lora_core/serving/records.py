"""Runs, events and tables as JSON, and back: what the store keeps and what workers send.

No pickle: nothing that is read can do anything. Weights travel beside it as safetensors.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, replace
from typing import Any, cast

import torch

from lora_core.classifier import Classifier
from lora_core.config import LoRAConfig, TrainConfig
from lora_core.devices import Device
from lora_core.events import Event, Finished, Started, Watched
from lora_core.parameters import LayerCount, ParameterCount
from lora_core.serving.run import TestScore
from lora_core.tasks.task import Example, Task

_KINDS = {kind.__name__: kind for kind in Event.__args__}


def without_classifier(event: Finished) -> Finished:
    """The event as a run keeps it: its classifier is the run's, and may go before the event."""
    return replace(event, classifier=cast(Classifier, None))


def device_record(device: Device) -> list[str]:
    """A device as JSON."""
    return [str(device.device), device.format, device.reason]


def device_of(record: list[str]) -> Device:
    """The device of such a record."""
    place, dtype, reason = record
    return Device(torch.device(place), getattr(torch, dtype), reason)


def event_record(event: Event) -> dict[str, Any]:
    """An event as JSON."""
    if isinstance(event, Finished):
        event = without_classifier(event)
    facts = {name: getattr(event, name) for name in event.__dataclass_fields__}
    if isinstance(event, Started):
        count, device = event.parameters, event.device
        layers = {n: [c.trainable, c.frozen] for n, c in count.by_module.items()}
        facts["parameters"] = [count.trainable, count.total, layers]
        facts["device"] = device_record(device)
    return {"kind": type(event).__name__, **facts}


def event_of(record: Mapping[str, Any]) -> Event:
    """The event of such a record."""
    facts = dict(record)
    kind = _KINDS[facts.pop("kind")]
    if kind is Started:
        trainable, total, layers = facts["parameters"]
        by_module = {n: LayerCount(*counts) for n, counts in layers.items()}
        facts["parameters"] = ParameterCount(trainable, total, by_module)
        facts["device"] = device_of(facts["device"])
    elif kind is Watched:
        facts["probabilities"] = tuple(tuple(row) for row in facts["probabilities"])
    return cast(Event, kind(**facts))


def task_record(task: Task) -> dict[str, Any]:
    """A table as JSON."""
    return {
        "name": task.name,
        "labels": task.labels,
        "train": task.train,
        "validation": task.validation,
        "test": task.test,
        "title": task.title,
        "warnings": task.warnings,
    }


def task_of(record: Mapping[str, Any]) -> Task:
    """The table of such a record."""
    train, validation, test = (
        tuple(Example(text, label) for text, label in record[name])
        for name in ("train", "validation", "test")
    )
    labels, title, warnings = tuple(record["labels"]), record["title"], tuple(record["warnings"])
    return Task(record["name"], labels, train, validation, test, title, warnings)


def task_digest(record: Mapping[str, Any]) -> str:
    """What tells tables apart."""
    return hashlib.sha256(json.dumps(record, sort_keys=True).encode()).hexdigest()


def lora_of(record: Mapping[str, Any]) -> LoRAConfig:
    """LoRA's settings from `asdict`."""
    return LoRAConfig(**{**record, "targets": tuple(record["targets"])})


def settings_record(lora: LoRAConfig | None, train: TrainConfig | None) -> dict[str, Any]:
    """The settings of a run as JSON."""
    return {"lora": asdict(lora) if lora else None, "train": asdict(train) if train else None}


def settings_of(record: Mapping[str, Any]) -> tuple[LoRAConfig | None, TrainConfig | None]:
    """The settings of such a record."""
    lora, train = record["lora"], record["train"]
    return lora_of(lora) if lora else None, TrainConfig(**train) if train else None


def score_record(score: TestScore | None) -> dict[str, Any] | None:
    """A test score as JSON."""
    if score is None:
        return None
    return {"accuracy": score.accuracy, "rows": score.rows, "confusion": score.confusion}


def score_of(record: Mapping[str, Any] | None) -> TestScore | None:
    """The test score of such a record."""
    if record is None:
        return None
    confusion = tuple(tuple(row) for row in record["confusion"])
    return TestScore(record["accuracy"], record["rows"], confusion)
