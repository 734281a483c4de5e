"""Is merging free: the same texts through W plus A B, and through one merged matrix.

In exact arithmetic nothing differs. In float32 sums are rounded in another order; this says by how
much, on real texts.
"""

from __future__ import annotations

from dataclasses import dataclass

from lora_core.classifier import Classifier
from lora_core.explain.exam import Exam, ExperimentError, Turns
from lora_core.lora import lora_layers, merge_lora


@dataclass(frozen=True)
class MergeCheck:
    """Merged against unmerged."""

    largest: float  # difference of a logit
    typical: float  # mean absolute value of a logit, to compare it with
    changed: int  # texts that get another label
    rows: int


def check_merging(classifier: Classifier, exam: Exam) -> Turns[MergeCheck]:
    """Compare on the texts of `exam`; the classifier itself is not changed.

    Raises `ExperimentError` where there is nothing to merge.
    """
    if next(lora_layers(classifier.model), None) is None:
        raise ExperimentError("This run trained no A and B, so there is nothing to merge.")
    own = classifier.private_copy()
    apart = yield from exam.logits(own.model)
    merge_lora(own.model)
    merged = yield from exam.logits(own.model)
    return MergeCheck(
        (apart - merged).abs().max().item(),
        apart.abs().mean().item(),
        int((apart.argmax(-1) != merged.argmax(-1)).sum()),
        exam.rows,
    )
