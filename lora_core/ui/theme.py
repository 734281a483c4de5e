"""The look in one place: colours, fonts, and Gradio's theme made of them.

Two colours carry the meaning of the page and mean the same in every figure: *frozen* (cold, blue)
for what training never touches, *trainable* (warm, orange) for what it does. The base's answers are
drawn in the first, the adapted model's in the second. `-ink` is the same hue dark (or light) enough
to be read as text, at least 4.5:1 on `paper` and on `card`.
"""

from __future__ import annotations

import gradio as gr

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

FONT = "IBM Plex Sans"
MONO = "IBM Plex Mono"


def variables() -> str:
    """The colours as CSS custom properties, for both themes; the runs' as `--run-0`, `--run-1` …"""
    tokens = {**COLOURS, **{f"run-{i}": pair for i, pair in enumerate(RUN_COLOURS)}}

    def block(selector: str, index: int) -> str:
        lines = " ".join(f"--{name}: {pair[index]};" for name, pair in tokens.items())
        return f"{selector} {{ {lines} }}"

    return "\n".join((block(":root", 0), block(":root.dark, :root .dark", 1)))


def theme() -> gr.themes.Base:
    """Gradio's theme: our colours in the place of its own, and fonts that come with Gradio.

    Only the regular and bold weights: the files of the weight between lack most letters.
    """
    made = gr.themes.Base(
        primary_hue="orange",
        secondary_hue="slate",
        neutral_hue="slate",
        spacing_size="sm",
        radius_size="sm",
        text_size="md",
        font=[gr.themes.LocalFont(FONT, weights=(400, 700)), "system-ui", "sans-serif"],
        font_mono=[gr.themes.LocalFont(MONO, weights=(400,)), "ui-monospace", "monospace"],
    )
    light, dark = ({name: pair[i] for name, pair in COLOURS.items()} for i in (0, 1))
    values = {
        "body_background_fill": (light["paper"], dark["paper"]),
        "body_text_color": (light["ink"], dark["ink"]),
    }
    same = {
        "body_text_color_subdued": "muted",
        "background_fill_primary": "card",
        "background_fill_secondary": "sunk",
        "block_background_fill": "card",
        "block_border_color": "rule",
        "block_info_text_color": "muted",
        "block_label_text_color": "muted",
        "block_label_background_fill": "card",
        "block_title_text_color": "ink",
        "border_color_primary": "rule",
        "border_color_accent": "accent",
        "color_accent": "trainable",
        "link_text_color": "accent",
        "link_text_color_hover": "ink",
        "link_text_color_active": "ink",
        "link_text_color_visited": "accent",
        "input_background_fill": "card",
        "input_background_fill_focus": "card",
        "input_border_color": "edge",
        "input_border_color_focus": "accent",
        "input_placeholder_color": "muted",
        "slider_color": "trainable",
        "checkbox_background_color": "card",
        "checkbox_background_color_selected": "button",
        "checkbox_border_color": "edge",
        "checkbox_border_color_selected": "button",
        "checkbox_label_background_fill": "card",
        "checkbox_label_background_fill_hover": "sunk",
        "checkbox_label_background_fill_selected": "trainable-soft",
        "checkbox_label_border_color": "rule",
        "checkbox_label_border_color_selected": "trainable",
        "checkbox_label_text_color": "ink",
        "checkbox_label_text_color_selected": "ink",
        "button_primary_background_fill": "button",
        "button_primary_background_fill_hover": "button-hover",
        "button_primary_border_color": "button",
        "button_secondary_background_fill": "card",
        "button_secondary_background_fill_hover": "sunk",
        "button_secondary_text_color": "ink",
        "button_secondary_border_color": "edge",
        "button_cancel_background_fill": "card",
        "button_cancel_background_fill_hover": "sunk",
        "button_cancel_text_color": "bad-ink",
        "button_cancel_border_color": "bad-ink",
        "accordion_text_color": "ink",
        "table_text_color": "ink",
        "table_border_color": "rule",
        "table_even_background_fill": "card",
        "table_odd_background_fill": "card",
        "code_background_fill": "sunk",
        "error_background_fill": "card",
        "error_text_color": "bad-ink",
        "error_border_color": "bad-ink",
        "panel_background_fill": "card",
        "stat_background_fill": "frozen",
        "loader_color": "trainable",
    }
    values |= {key: (f"var(--{name})", f"var(--{name})") for key, name in same.items()}
    settings: dict[str, str] = {"button_primary_text_color": "#ffffff", "block_shadow": "none"}
    settings["button_primary_text_color_dark"] = "#ffffff"
    for name in ("input_border_width", "button_border_width", "checkbox_border_width"):
        settings[name] = settings[f"{name}_dark"] = "1px"
    for key, (on_light, on_dark) in values.items():
        settings[key] = on_light
        if hasattr(made, f"{key}_dark"):
            settings[f"{key}_dark"] = on_dark
    made.set(**settings)
    made.custom_css = variables()
    return made
