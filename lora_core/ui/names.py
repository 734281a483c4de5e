"""What runs are called: in the chart, in the table, on the shelf and as a file."""

from __future__ import annotations

from collections.abc import Sequence

from lora_core.serving.registry import Run
from lora_core.ui.settings import Settings
from lora_core.ui.text import words
from lora_core.ui.text.catalogue import say

# In a run's short name where the runs named together differ in it; rank or method always is.
_ALSO = (
    *("base", "alpha", "targets", "scaling", "head", "dropout"),
    *("learning_rate", "steps", "batch_size", "seed"),
)
_OF_LORA = ("alpha", "targets", "scaling", "head", "dropout")


def short_names(settings: Sequence[Settings]) -> list[str]:
    """Names that tell the runs of one task apart: rank or method, and whatever else differs.

    Alpha counts as different only where the effective scale is: a sweep changes both together.
    Equal runs are numbered. Oldest first.
    """
    adapted = [s for s in settings if s.method == "lora"]
    differing = [key for key in _ALSO if _differ(key, adapted if key in _OF_LORA else settings)]
    made = []
    for one in settings:
        if one.method == "lora":
            parts = [say("names.rank", rank=one.rank)]
        else:
            parts = [words.METHOD_NAMES[one.method]]  # type: ignore[index]  # validated long ago
        parts += [
            _value(key, one) for key in differing if one.method == "lora" or key not in _OF_LORA
        ]
        made.append(", ".join(parts))
    return numbered(made)


def numbered(names: Sequence[str]) -> list[str]:
    """The same names; of equal ones the second is "… (2)"."""
    earlier = [list(names[:i]).count(name) for i, name in enumerate(names)]
    return [f"{name} ({n + 1})" if n else name for name, n in zip(names, earlier, strict=True)]


def task_of(run: Run) -> str:
    """The name of what a run was trained on; of an adapter that was brought, what its file says."""
    if run.task:
        return run.task.name
    return run.classifier.task_name if run.classifier else ""


def long_name(run: Run) -> str:
    """What was trained on what, by itself: "sms-spam, r 8, α 16"."""
    method = run.train_config.method if run.train_config else "lora"
    what: str = words.METHOD_NAMES[method]
    if method == "lora" and run.lora_config:
        what = f"{say('names.rank', rank=run.lora_config.rank)}, {alpha(run.lora_config.alpha)}"
    return ", ".join(part for part in (task_of(run), what) if part)


def cut_name(run: Run) -> str:
    """What an adapter is that the rank knife left of a run: "cut from r 8"."""
    rank = run.lora_config.rank if run.lora_config else 0
    return say("experiments.knife_cut", r=rank)


def file_name(run: Run) -> str:
    """A name for a file: letters, digits and dashes."""
    lora = run.lora_config
    what = f"r{lora.rank}" if lora else run.train_config.method if run.train_config else "model"
    text = f"{task_of(run) or 'adapter'}-{what}"
    return "".join(c if c.isascii() and c.isalnum() else "-" for c in text)[:60].strip("-")


def layer_name(dotted: str) -> str:
    """What the page calls a layer, or a target: "block 0, query", "word pieces"."""
    head, _, rest = dotted.partition(".")
    if head != "blocks":
        return say(f"layer.{dotted.replace('.', '_')}")
    block, _, kind = rest.partition(".")
    return say("layer.in_block", block=block, kind=say(f"layer.{kind.replace('.', '_')}"))


def block_name(block: int) -> str:
    """What the page calls a block; counted from 0, as in the files."""
    return say("layer.block", block=block)


def alpha(value: float) -> str:
    """`α 16`; no digit that counts is cut."""
    return say("names.alpha", alpha=words.exact(value))


def _differ(key: str, settings: Sequence[Settings]) -> bool:
    if key == "alpha":
        return len({round(s.lora_config().scale, 9) for s in settings}) > 1
    return len({str(getattr(s, key)) for s in settings}) > 1


def _value(key: str, settings: Settings) -> str:
    value = getattr(settings, key)
    if key == "alpha":
        return alpha(settings.alpha)
    if key == "targets":
        return "+".join(str(t).rsplit(".", 1)[-1] for t in value)
    if key == "learning_rate" and not value:
        return say("names.rate_default")
    if key == "head":
        return say(f"names.head_{value}")
    if key == "scaling":
        value = words.SCALINGS[value]
    if isinstance(value, float):
        value = words.exact(value)
    return say(f"names.{key}", value=str(value))
