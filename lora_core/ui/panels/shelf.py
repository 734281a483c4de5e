"""What step 5 shows of a visitor's adapters: the shelf, and what is in one adapter's file."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from lora_core.adapters.adapter import AdapterError, adapter_tensors
from lora_core.classifier import Classifier
from lora_core.parameters import BYTES_FP32
from lora_core.serving.registry import Run
from lora_core.tasks.task import TaskError
from lora_core.ui.context import Lab
from lora_core.ui.names import long_name, numbered, task_of
from lora_core.ui.text import words

_EMPTY = "The shelf is empty: fine-tune in step 2, or bring an adapter."


def kept(lab: Lab, visitor: str) -> list[Run]:
    """A visitor's runs that have something to carry away, oldest first."""
    if not visitor:
        return []
    return [run for run in lab.registry.runs(visitor) if run.has_weights]


def shelf_value(lab: Lab, visitor: str, shown: str) -> dict[str, Any]:
    """The shelf's adapters, to scale, beside the base that they share; counted in the objects."""
    runs = kept(lab, visitor)
    if not runs:
        return {"items": [], "summary": _EMPTY, "detail": "", "base": None}
    classifiers = [run.classifier for run in runs if run.classifier is not None]
    whole = [sum(p.nbytes for p in c.model.parameters()) for c in classifiers]
    bases: dict[int, int] = {}  # where a shared base's first tensor lies -> bytes of the base
    own = []
    for classifier in classifiers:
        frozen, carried = _split(classifier)
        own.append(sum(t.nbytes for t in carried))
        if frozen:
            bases[frozen[0].data_ptr()] = sum(t.nbytes for t in frozen)
    shared = sum(bases.values())
    largest = max([*bases.values(), *own])
    names = numbered([long_name(run) for run in runs])
    items = [
        {
            "id": run.id,
            "name": name,
            "size": words.megabytes(size),
            "share": size / largest,
            "whole": not _split(classifier)[0],
            "shown": run.id == shown,
        }
        for run, name, size, classifier in zip(runs, names, own, classifiers, strict=True)
    ]
    summary, detail = _summary(runs, own, bases, sum(whole))
    base = None
    if bases:
        title = "Base, frozen" if len(bases) == 1 else f"{len(bases)} bases, frozen"
        base = {"name": title, "size": words.megabytes(shared), "share": shared / largest}
        if len(bases) > 1:
            base["share"] = max(bases.values()) / largest
    return {"items": items, "summary": summary, "detail": detail, "base": base}


def _split(classifier: Classifier) -> tuple[list[Tensor], list[Tensor]]:
    """The tensors that a classifier shares with its base, and those that are its own."""
    frozen: list[Tensor] = []
    carried: list[Tensor] = []
    for name, parameter in classifier.model.named_parameters():
        mine = name.startswith("head.") or ".lora." in name or name in classifier.initial
        (carried if mine else frozen).append(parameter)
    return frozen, carried


def _summary(runs: list[Run], own: list[int], bases: dict[int, int], whole: int) -> tuple[str, str]:
    tasks = {task_of(run) for run in runs}
    beside, together = sum(own), sum(own) + sum(bases.values())
    parts = [_many(len(tasks), "task")]
    if len(runs) != len(tasks):
        parts.append(_many(len(runs), "run"))
    parts.append(_many(len(bases), "base"))
    summary = f"{', '.join(parts)}: {words.megabytes(beside)} instead of {words.megabytes(whole)}"
    if bases:
        detail = (
            f"The base is kept once. With it, all this takes {words.megabytes(together)}; "
            f"{_many(len(runs), 'whole model')} would take {words.megabytes(whole)}."
        )
    else:
        detail = "Full fine-tuning keeps a whole model for each task."
    return summary, detail


def _many(count: int, what: str) -> str:
    return f"{count} {what}" + ("" if count == 1 else "s")


def contents_value(run: Run | None) -> dict[str, Any]:
    """Names, shapes and bytes of the tensors that the shown run's file holds."""
    if run is None or run.classifier is None:
        return {"name": "", "rows": [], "note": "Train or choose a run first.", "adapter": False}
    name = long_name(run)
    try:
        tensors = adapter_tensors(run.classifier)
    except AdapterError as error:
        return {"name": name, "rows": [], "note": str(error), "adapter": False}
    rows = [
        [
            tensor_name.removeprefix("base_model.model."),
            " × ".join(str(n) for n in tensor.shape),
            words.count(tensor.numel()),
            words.count(tensor.nbytes),
        ]
        for tensor_name, tensor in tensors.items()
    ]
    numbers = sum(t.numel() for t in tensors.values())
    zeros = sum(
        int((t == 0).sum()) for n, t in tensors.items() if n.endswith("c_attn.lora_B.weight")
    )
    note = (
        f"{len(rows)} tensors, {words.count(numbers)} numbers, "
        f"{words.megabytes(BYTES_FP32 * numbers)} of float32. The base is not in it."
    )
    if zeros:
        note += (
            f" {words.count(zeros)} of them are zeros: GPT-2 keeps query, key and value in one "
            "layer, so their three adapters stand in blocks of one."
        )
    return {"name": name, "rows": rows, "note": note, "adapter": True}


def keep(lab: Lab, visitor: str, classifier: Classifier) -> Run:
    """A loaded classifier as a run, with its task where the server has the same one."""
    task = None
    try:
        known = lab.task(classifier.task_name, visitor)
        task = known if known.labels == classifier.labels else None
    except TaskError:
        pass
    return lab.registry.add_classifier(visitor, classifier, task, "brought along")
