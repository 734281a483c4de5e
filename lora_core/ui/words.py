"""What the page says: numbers in words, a sentence and a fold for each step, the five questions."""

from __future__ import annotations

from lora_core.config import Method, Scaling

METHODS: dict[Method, str] = {"lora": "LoRA", "full": "Full", "head": "Head only"}
SCALINGS: dict[Scaling, str] = {
    "alpha/rank": "α / r",
    "alpha/sqrt(rank)": "α / √r",
    "alpha": "α",
}


def number(value: float, digits: int = 3) -> str:
    """At most so many significant digits, without a trailing zero: 2, 0.5, 5.66, 0.0312."""
    return f"{value:.{digits}g}" if abs(value) < 1000 else f"{value:,.0f}"


def count(value: int) -> str:
    """A whole number with thousands separated."""
    return f"{value:,}"


def percent(value: float) -> str:
    """Three significant digits: 100 %, 2.61 %, 0.0312 %."""
    return f"{number(value)} %" if value < 99.95 or value == 100 else f"{value:.1f} %"


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


def scale_formula(rank: int, alpha: float, scaling: Scaling, scale: float) -> str:
    """`α / r = 16 / 8 = 2`."""
    a = number(alpha, 6)
    parts = {
        "alpha/rank": f"α / r = {a} / {rank} = {number(scale)}",
        "alpha/sqrt(rank)": f"α / √r = {a} / √{rank} = {number(scale)}",
        "alpha": f"α = {a}, whatever the rank",
    }
    return parts[scaling]


def scale_sentence(rank: int, alpha: float, scaling: Scaling, scale: float) -> str:
    """The effective scale, in words."""
    formula = scale_formula(rank, alpha, scaling, scale)
    if scale == 1:
        return f"{formula}: the learned change A·B is added to W as it is."
    if scale > 1:
        return f"{formula}: the learned change A·B is added to W {number(scale)} times over."
    return f"{formula}: only {percent(100 * scale)} of the learned change A·B is added to W."


METHOD_NAMES: dict[Method, str] = {
    "lora": "LoRA",
    "full": "full fine-tuning",
    "head": "head only",
}

# (number of the step, title, the sentence for the hurried)
STEPS = {
    "adapt": ("1", "Adapt", "Freeze the model. Beside each of its layers, add two thin matrices."),
    "finetune": ("2", "Fine-tune", "Show it labelled texts. Only the thin matrices learn."),
    "compare": ("", "Runs compared", "How little has to be trained? Each dot is one run."),
    "classify": ("3", "Classify", "Type a text and read what the adapted model makes of it."),
    "inside": ("4", "Look inside", "What the adapter did to each layer, and what it left alone."),
    "take": ("5", "Take it along", "The trained part is a small file. Use it anywhere."),
}


def heading(step: str) -> str:
    """The title of a step with its sentence, as HTML."""
    mark, title, sentence = STEPS[step]
    badge = f'<span class="step-number" aria-hidden="true">{mark}</span>' if mark else ""
    return (
        f'<div class="step-head">{badge}<h2 id="step-{step}">{title}</h2>'
        f'<p class="lead">{sentence}</p></div>'
    )


def fold(step: str) -> str:
    """The questions that belong to a step, each a fold with its answer, as HTML."""
    return ""


def banner() -> str:
    """The top of the page: what this is, in one sentence, and the switch for the theme."""
    return (
        '<header class="banner"><h1>LoRA Lab</h1>'
        "<p>Teach a frozen language model something new by training a sliver of it.</p>"
        '<button type="button" class="theme-switch" onclick="LoraLab.toggleTheme()">'
        "Light / dark</button></header>"
    )


def meta(title: str) -> str:
    """Tags for the page's head: what a search engine or a shared link shows."""
    text = "See and feel what LoRA fine-tuning does: freeze a GPT, train a sliver, watch it learn."
    return f'<meta name="description" content="{text}"><meta name="application-name" content="{title}">'
