"""Messages between the server and its workers: JSON, with tensors beside it. Nothing is unpickled.

A message is a dict and a blob of safetensors, each after its length. A base travels as a file,
which every worker of a machine maps into its memory: one copy for all of them.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import IO, Any

import torch
from safetensors import safe_open
from safetensors.torch import load, load_file, save, save_file
from torch import Tensor

from lora_core.base.checkpoint import Base
from lora_core.base.tokenizer import encoding_of, encoding_record
from lora_core.config import GPTConfig
from lora_core.events import Finished
from lora_core.model import GPT
from lora_core.preparation import trained_weights
from lora_core.scores import Answers
from lora_core.serving import records
from lora_core.serving.run import Best, TestScore
from lora_core.serving.worker import Job, Outcome, Report, rebuild

_LENGTHS = struct.Struct(">II")


def send(stream: IO[bytes], message: Mapping[str, Any], blob: bytes = b"") -> None:
    """Write one message. Raises `OSError` when nobody reads any more."""
    text = json.dumps(message).encode()
    stream.write(_LENGTHS.pack(len(text), len(blob)) + text + blob)
    stream.flush()


def receive(stream: IO[bytes]) -> tuple[dict[str, Any], bytes] | None:
    """Read one message; None at the end of the stream, also within a message."""
    head = stream.read(_LENGTHS.size)
    if len(head) < _LENGTHS.size:
        return None
    sizes = _LENGTHS.unpack(head)
    text, blob = (stream.read(size) for size in sizes)
    if (len(text), len(blob)) != sizes:
        return None
    return json.loads(text), blob


def tensors_bytes(tensors: Mapping[str, Tensor]) -> bytes:
    """Tensors as bytes."""
    return bytes(save({name: tensor.contiguous() for name, tensor in tensors.items()}))


def job_message(job: Job, base: str) -> tuple[dict[str, Any], bytes]:
    """A job; `base` names the file of its base."""
    message = {
        "kind": "job",
        "id": job.id,
        "base": base,
        "task": records.task_record(job.task),
        **records.settings_record(job.lora_config, job.train_config),
        "watch_texts": job.watch_texts,
        "resume": job.resume.step if job.resume else None,
        "device": records.device_record(job.device) if job.device else None,
    }
    return message, tensors_bytes(job.resume.weights) if job.resume else b""


def job_of(message: Mapping[str, Any], blob: bytes, base: Base) -> Job:
    """The job of such a message."""
    lora, train = records.settings_of(message)
    assert lora is not None and train is not None
    resume = Best(message["resume"], load(blob)) if message["resume"] is not None else None
    texts = tuple(message["watch_texts"])
    device = records.device_of(message["device"]) if message["device"] else None
    task = records.task_of(message["task"])
    return Job(message["id"], base, task, lora, train, texts, resume, device)


def report_message(item: Report) -> tuple[dict[str, Any], bytes]:
    """A report of a worker."""
    if isinstance(item, Best):
        return {"kind": "best", "step": item.step}, tensors_bytes(item.weights)
    return {"kind": "event", "event": records.event_record(item)}, b""


def report_of(message: Mapping[str, Any], blob: bytes) -> Report:
    """The report of such a message."""
    if message["kind"] == "best":
        return Best(message["step"], load(blob))
    return records.event_of(message["event"])


def outcome_message(outcome: Outcome) -> tuple[dict[str, Any], bytes]:
    """How a run ended, with the weights that it ended with."""
    finished = outcome.finished
    message = {
        "kind": "outcome",
        "state": outcome.state,
        "reason": outcome.reason,
        "finished": records.event_record(finished) if finished else None,
        "scores": finished.classifier.scores if finished else {},
        "test": records.score_record(outcome.test_score),
        "answers": _answers_record(outcome.test_score),
        "processor_seconds": outcome.processor_seconds,
    }
    weights = trained_weights(finished.classifier.model) if finished else {}
    return message, tensors_bytes(weights)


def outcome_of(message: Mapping[str, Any], blob: bytes, job: Job) -> Outcome:
    """The outcome, with its classifier made here from the base of `job`, bit for bit."""
    finished = None
    if message["finished"] is not None:
        event = records.event_of(message["finished"])
        assert isinstance(event, Finished)
        finished = replace(event, classifier=rebuild(job, load(blob), message["scores"]))
    score = records.score_of(message["test"])
    if score is not None and message["answers"] is not None:
        said, probabilities = map(torch.tensor, message["answers"])
        score = replace(score, answers=Answers(said, probabilities))
    seconds = message["processor_seconds"]
    return Outcome(message["state"], message["reason"], finished, score, seconds)


def _answers_record(score: TestScore | None) -> list[list[float]] | None:
    answers = score.answers if score else None
    return None if answers is None else [part.tolist() for part in answers]


def write_base(base: Base, path: Path) -> None:
    """A base as a file that `read_base` maps."""
    save_file(_tensors_of(base), path, metadata=_facts_of(base))


def base_bytes(base: Base) -> bytes:
    """The content of such a file."""
    return bytes(save(_tensors_of(base), metadata=_facts_of(base)))


def _tensors_of(base: Base) -> dict[str, Tensor]:
    return {name: tensor.contiguous() for name, tensor in base.model.state_dict().items()}


def _facts_of(base: Base) -> dict[str, str]:
    facts = {
        "name": base.name,
        "source": base.source,
        "config": vars(base.config),
        "encoding": encoding_record(base.tokenizer),
    }
    return {"base": json.dumps(facts)}


def map_base(base: Base, path: Path) -> None:
    """Let a base's tensors be those of its file, mapped: what they were in can be freed."""
    mapped = load_file(path)
    for name, tensor in base.model.state_dict(keep_vars=True).items():
        tensor.data = mapped[name]


def read_base(path: Path) -> Base:
    """The base of such a file; its tensors are the file itself, mapped."""
    with safe_open(path, "pt") as file:
        facts = json.loads(file.metadata()["base"])
    encoding = encoding_of(facts["encoding"])
    model = GPT(GPTConfig(**facts["config"]), num_classes=None)
    model.load_state_dict(load_file(path), assign=True)
    return Base(facts["name"], model.requires_grad_(False).eval(), encoding, facts["source"])
