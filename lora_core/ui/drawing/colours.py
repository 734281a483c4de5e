"""The colours of page and figures. Knows nothing of gradio.

Two carry the meaning of the page and mean the same in every figure: *frozen* (cold, blue) for what
training never touches, *trainable* (warm, orange) for what it does. The base's answers are drawn in
the first, the adapted model's in the second. `-ink` is the same hue dark (or light) enough to be
read as text, at least 4.5:1 on `paper` and on `card`.
"""

from __future__ import annotations

# name -> (light, dark); in CSS `var(--name)`, in the browser's scripts `LoraLab.colour("name")`.
COLOURS: dict[str, tuple[str, str]] = {
    "paper": ("#f6f5f1", "#10141a"),  # behind everything
    "card": ("#ffffff", "#181d25"),  # behind one step
    "sunk": ("#f1f0eb", "#12171e"),  # behind inputs and figures
    "ink": ("#1c2330", "#e9ebef"),  # text
    "muted": ("#565e6c", "#a5adba"),  # second text
    "rule": ("#dcd9d0", "#2e3642"),  # lines between things
    "edge": ("#868c98", "#6f7988"),  # outline of a control, 3:1
    "frozen": ("#8db4d2", "#4d7ea6"),
    "frozen-soft": ("#dce9f3", "#1f3446"),
    "frozen-ink": ("#27618f", "#94c4ea"),
    "trainable": ("#ee7424", "#f5843a"),
    "trainable-soft": ("#fde6d5", "#46291a"),
    "trainable-ink": ("#ad4409", "#ffad76"),
    "base": ("#8db4d2", "#4d7ea6"),  # the base model's answer: frozen
    "adapted": ("#ee7424", "#f5843a"),  # the adapted model's answer: trainable
    "accent": ("#27618f", "#94c4ea"),  # links, focus
    "button": ("#b3480c", "#c2530f"),  # white text on it
    "button-hover": ("#963a06", "#ad470a"),
    "warning-ink": ("#8a5a00", "#f0c060"),
    "warning-soft": ("#fdf1d3", "#3a2f14"),
    "good-ink": ("#1f6f43", "#7fd6a4"),
    "bad-ink": ("#b3261e", "#ff9d94"),
}

# Runs on one chart, in the order in which they are started. The first is the trainable colour.
RUN_COLOURS: list[tuple[str, str]] = [
    ("#e0640f", "#f5843a"),
    ("#137a70", "#3dbfae"),
    ("#7b4bb8", "#b48ce8"),
    ("#b9266f", "#f07ab0"),
    ("#5a7712", "#a6c845"),
    ("#8b572a", "#cf9b68"),
    ("#3c55b5", "#8ba2f5"),
    ("#4b5563", "#b9c0cc"),
]


def variables() -> str:
    """The colours as CSS custom properties, for both themes; the runs' as `--run-0`, `--run-1` …"""
    tokens = {**COLOURS, **{f"run-{i}": pair for i, pair in enumerate(RUN_COLOURS)}}

    def block(selector: str, index: int) -> str:
        lines = " ".join(f"--{name}: {pair[index]};" for name, pair in tokens.items())
        return f"{selector} {{ {lines} }}"

    return "\n".join((block(":root", 0), block(":root.dark, :root .dark", 1)))
