"""Gradio's look: the colours of `colours.py`, and fonts that come with Gradio."""

from __future__ import annotations

import gradio as gr

from lora_core.ui.drawing.colours import COLOURS, variables

FONT = "IBM Plex Sans"
MONO = "IBM Plex Mono"


def theme() -> gr.themes.Base:
    """Our colours in the place of Gradio's own, and fonts that it brings.

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
