"""Did it forget: what LoRA and full fine-tuning leave of the base, on one chart."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from lora_core.classifier import Classifier
from lora_core.config import EMBEDDING_TARGET, Method
from lora_core.explain.forgetting import AtStrength, general_text
from lora_core.explain.knockout import parts_of
from lora_core.serving.run import Run
from lora_core.ui.drawing.answer_figures import Answer, lines, series
from lora_core.ui.names import alpha
from lora_core.ui.settings import Settings
from lora_core.ui.text import words
from lora_core.ui.text.catalogue import say

_COLOURS: dict[Method, str] = {"lora": "trainable", "full": "frozen-ink", "head": "muted"}
_OTHERS: dict[Method, tuple[Method, ...]] = {
    "lora": ("full",),
    "full": ("lora",),
    "head": ("lora", "full"),
}


def name_of(run: Run) -> str:
    """Among the runs of one task: "LoRA (r 8, α 16)", "full fine-tuning"."""
    method = method_of(run)
    if method != "lora" or run.lora_config is None:
        return words.METHOD_NAMES[method]
    rank = say("names.rank", rank=run.lora_config.rank)
    return f"LoRA ({rank}, {alpha(run.lora_config.alpha)})"


def method_of(run: Run) -> Method:
    """An adapter that was brought along is LoRA."""
    return run.train_config.method if run.train_config else "lora"


def to_compare(run: Run, runs: Iterable[Run]) -> list[Run]:
    """`run` and, of the other methods, the visitor's run that is most like it; LoRA first.

    Alike is the same base and task, then the same steps, batch and seed, then the newest.
    """
    own = Settings.of(run)
    chosen = {method_of(run): run}
    for method in _OTHERS[method_of(run)] if run.task is not None else ():
        fitting = [
            other
            for other in runs
            if method_of(other) == method
            and other.task is run.task
            and other.base is run.base
            and other.is_over
            and other.has_weights
            and other.state != "loaded"  # what the knife left was not trained so
        ]

        def likeness(other: Run) -> tuple[int, float]:
            theirs = Settings.of(other)
            keys = ("steps", "batch_size", "seed")
            same = sum(getattr(theirs, key) == getattr(own, key) for key in keys)
            return same, other.ended or 0.0

        if fitting:
            chosen[method] = max(fitting, key=likeness)
    return [chosen[method] for method in _COLOURS if method in chosen]


def missing(run: Run, compared: Sequence[Run]) -> Method | None:
    """LoRA or full fine-tuning, where a run could be compared with it and is not."""
    if run.task is None or run.base is None:
        return None
    there = {method_of(other) for other in compared}
    wanted: tuple[Method, ...] = ("lora", "full")
    return next((method for method in wanted if method not in there), None)


def forgot(measured: Sequence[tuple[Run, Sequence[AtStrength]]]) -> Answer:
    """What is known of each run so far: a curve and a number a run. Not empty."""
    curves = []
    for run, at_strengths in measured:
        curve = [(one.strength, one.bits) for one in at_strengths]
        curves.append(series(name_of(run), curve, _COLOURS[method_of(run)]))
    axes = say("experiments.strength"), say("experiments.forgot_axis")
    figure = lines(curves, *axes, percent=False)
    bits_of = [{one.strength: one.bits for one in curve} for _, curve in measured]
    answer: Answer = {
        "curve": [{"strength": s, "bits": b} for s, b in sorted(bits_of[0].items())],
        "note": _note([run for run, _ in measured]),
        "figure": figure,
    }
    known = [
        (run, bits)
        for (run, _), bits in zip(measured, bits_of, strict=True)
        if {0.0, 1.0} <= set(bits)
    ]
    if not known:
        return answer
    base = known[0][1][0.0]
    figure |= {"level": base, "level_name": say("experiments.forgot_level")}
    said = [say("experiments.forgot_base", base=f"{base:.3f}")]
    said += [_said(run, bits) for run, bits in known]
    answer |= {"sentence": " ".join(said), "base_bits": base, "bits": known[0][1][1.0]}
    answer["runs"] = [
        {"name": name_of(run), "bits": bits[1.0], "forgot": bits[1.0] / bits[0.0] - 1}
        for run, bits in known
    ]
    return answer


def _said(run: Run, bits: dict[float, float]) -> str:
    """One number a run, and what becomes of it at twice the strength."""
    change = bits[1.0] / bits[0.0] - 1
    percent = f"{abs(100 * change):.1f}"
    key = "experiments.forgot_result" if change > 0 else "experiments.forgot_better"
    if percent == "0.0":
        key = "experiments.forgot_same"
    said = say(key, name=name_of(run), bits=f"{bits[1.0]:.3f}", percent=percent)
    if 2.0 in bits:
        said += " " + say("experiments.forgot_twice", bits=f"{bits[2.0]:.3f}")
    return said


def _note(runs: Sequence[Run]) -> str:
    """How it was measured, and which table the output is tied to."""
    changed = [name_of(run) for run in runs if run.loaded and reads_anew(run.loaded)]
    tied = (
        say("experiments.forgot_tied", names=say("experiments.and").join(changed))
        if changed
        else say("experiments.forgot_own")
    )
    return f"{say('experiments.forgot_note', bytes=len(general_text().encode()))} {tied}"


def reads_anew(classifier: Classifier) -> bool:
    """Whether a run changed the table of word pieces that is read."""
    return EMBEDDING_TARGET in parts_of(classifier)
