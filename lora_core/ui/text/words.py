"""Numbers in words, the headings of the steps, and the questions with their formulas."""

from __future__ import annotations

import math
from collections.abc import Sequence

from lora_core.config import Method, Scaling
from lora_core.ui.text import formulas
from lora_core.ui.text.catalogue import rich, say, sentences, terms

METHODS: dict[Method, str] = {
    "lora": say("method.lora"),
    "full": say("method.full"),
    "head": say("method.head"),
}
SCALINGS: dict[Scaling, str] = {
    "alpha/rank": "α / r",
    "alpha/sqrt(rank)": "α / √r",
    "alpha": "α",
}


def number(value: float, digits: int = 3) -> str:
    """At most so many significant digits of a fraction, without a trailing zero, and never as a
    power of ten unless it is below a millionth: 2, 0.5, 5.66, 0.0312, 192 (also with two digits).
    """
    size = abs(value)
    if size < 1e-6:
        return f"{value:.{digits}g}"
    places = max(0, digits - 1 - math.floor(math.log10(size)))
    text = f"{value:,.{places}f}"
    return text.rstrip("0").rstrip(".") if places else text


def exact(value: float) -> str:
    """A number with every digit that it has: 16, 0.1, 16.0625."""
    return f"{value:,.0f}" if float(value).is_integer() else repr(float(value))


def count(value: int) -> str:
    """A whole number with thousands separated."""
    return f"{value:,}"


def percent(value: float) -> str:
    """Three significant digits: 100 %, 2.61 %, 0.0312 %."""
    return f"{number(value)} %" if value < 99.95 or value == 100 else f"{value:.1f} %"


def accuracy(share: float) -> str:
    """A share of texts, 0 to 1, in per cent: 95.9 %."""
    return f"{100 * share:.1f} %"


def megabytes(size: int) -> str:
    """Bytes in the unit that fits (a kB is 1,000 bytes)."""
    if size < 1_000:
        return f"{size} bytes"
    if size < 999_500:
        return f"{number(size / 1e3)} kB"
    if size < 999_500_000:
        return f"{number(size / 1e6)} MB"
    return f"{number(size / 1e9)} GB"


def duration(seconds: float) -> str:
    """12 s, 1 min 5 s, 2 h 3 min."""
    whole = max(0, round(seconds))
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    return f"{whole // 3600} h {whole % 3600 // 60} min"


def scale_sentence(rank: int, alpha: float, scaling: Scaling, scale: float) -> str:
    """The effective scale, in words: "α / r = 16 / 8 = 2: …"."""
    key = {"alpha/rank": "rank", "alpha/sqrt(rank)": "root", "alpha": "alone"}[scaling]
    formula = say(f"scale.{key}", alpha=exact(alpha), rank=rank, scale=number(scale))
    if scale == 1:
        return say("scale.once", formula=formula)
    if scale > 1:
        return say("scale.more", formula=formula, times=number(scale))
    return say("scale.less", formula=formula, share=percent(100 * scale))


METHOD_NAMES: dict[Method, str] = {
    "lora": say("names.lora"),
    "full": say("names.full"),
    "head": say("names.head"),
}
STEPS = {"adapt": "1", "finetune": "2", "classify": "3", "inside": "4", "take": "5"}


def heading(step: str) -> str:
    """The title of a step with its sentence, as HTML."""
    mark = STEPS.get(step)
    badge = f'<span class="step-number" aria-hidden="true">{mark}</span>' if mark else ""
    return (
        f'<div class="step-head">{badge}<h2 id="step-{step}">{rich(f"step.{step}")}</h2>'
        f'<p class="lead">{rich(f"step.{step}_lead")}</p></div>'
    )


def folds(names: Sequence[str]) -> str:
    """Questions, each a fold with its answer, as HTML; formulas and papers are put in."""
    made = []
    for name in names:
        expert = " expert" if name in EXPERT_QUESTIONS else ""
        answer = terms(sentences()[f"question.{name}_answer"])
        for place, content in formulas.PLACES.items():
            answer = answer.replace(f"{{{place}}}", content)
        made.append(
            f'<details class="fold question{expert}"><summary>{say(f"question.{name}")}</summary>'
            f'<div class="answer">{answer}</div></details>'
        )
    return "".join(made)


DESCRIPTION = say("page.description")
QUESTIONS = ("frozen", "dials", "zero", "cost", "file", "pieces")
EXPERT_QUESTIONS = ("pieces",)


def banner(title: str) -> str:
    """The top of the page: what this is, in one sentence."""
    return f"<h1>{title}</h1><p>{rich('page.tagline')}</p>"
