"""What step 5 shows of a visitor's adapters: the shelf, and what is in one adapter's file."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from lora_core.adapters.adapter import AdapterError, adapter_tensors, saved_bytes
from lora_core.adapters.size import adapter_file_bytes
from lora_core.classifier import Classifier
from lora_core.lora import lora_layers
from lora_core.serving.registry import Run
from lora_core.tasks.task import TaskError
from lora_core.ui.context import Lab
from lora_core.ui.names import long_name, numbered, task_of
from lora_core.ui.text import words
from lora_core.ui.text.catalogue import say


def with_weights(lab: Lab, visitor: str) -> list[Run]:
    """A visitor's runs that have something to carry away, oldest first."""
    if not visitor:
        return []
    return [run for run in lab.registry.runs(visitor) if run.has_weights]


def shelf_value(lab: Lab, visitor: str, shown: str) -> dict[str, Any]:
    """The shelf's adapters, to scale, beside the base that they share; counted in the objects."""
    runs = with_weights(lab, visitor)
    if not runs:
        # Before the visitor is known nothing may be said of what is theirs.
        summary = say("shelf.empty" if visitor else "shelf.reading")
        return {"items": [], "summary": summary, "detail": "", "base": None}
    classifiers = [run.classifier for run in runs if run.classifier is not None]
    whole = [sum(p.nbytes for p in c.model.parameters()) for c in classifiers]
    bases: dict[int, int] = {}  # where a shared base's first tensor lies -> bytes of the base
    own = []
    for classifier in classifiers:
        frozen, carried = _split(classifier)
        own.append(_carried_bytes(classifier, carried))
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
        title = say("shelf.base", n=len(bases))
        base = {"name": title, "size": words.megabytes(shared), "share": shared / largest}
        if len(bases) > 1:
            base["share"] = max(bases.values()) / largest
    return {"items": items, "summary": summary, "detail": detail, "base": base}


def _carried_bytes(classifier: Classifier, carried: list[Tensor]) -> int:
    """What a visitor takes along: the adapter's file where there is one, else the tensors."""
    lora = classifier.lora_config
    if lora is None or not any(True for _ in lora_layers(classifier.model)):
        return sum(tensor.nbytes for tensor in carried)
    return adapter_file_bytes(classifier.model.config, lora, len(classifier.labels))


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
    together = sum(own) + sum(bases.values())
    summary = say(
        "shelf.summary",
        tasks=say("shelf.tasks", n=len(tasks)),
        runs=say("shelf.runs", n=len(runs)),
        beside=words.megabytes(sum(own)),
    )
    if not bases:
        return summary, say("shelf.whole_models")
    detail = say(
        "shelf.detail",
        n=len(runs),
        together=words.megabytes(together),
        whole=words.megabytes(whole),
    )
    return summary, detail


def contents_value(run: Run | None) -> dict[str, Any]:
    """Names, shapes and bytes of the tensors that the shown run's file holds."""
    if run is None or run.classifier is None:
        return {"name": "", "rows": [], "note": say("shelf.choose"), "adapter": False}
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
    note = say(
        "shelf.contents",
        tensors=len(rows),
        numbers=numbers,
        size=words.megabytes(saved_bytes(run.classifier, tensors)),
    )
    if zeros:
        note = say("shelf.contents_zeros", note=note, zeros=zeros)
    return {"name": name, "rows": rows, "note": note, "adapter": True}


def keep(lab: Lab, visitor: str, classifier: Classifier) -> Run:
    """A loaded classifier as a run, with its task where the server has the same one."""
    task = None
    try:
        known = lab.task(classifier.task_name, visitor)
        task = known if known.labels == classifier.labels else None
    except TaskError:
        pass
    return lab.registry.add_classifier(visitor, classifier, task, say("shelf.brought"))
