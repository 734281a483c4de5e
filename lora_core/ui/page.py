"""The page: its frame, and the panels in the order in which they are read."""

from __future__ import annotations

from typing import Any

import gradio as gr
from starlette.middleware import Middleware

from lora_core.config import ConfigError
from lora_core.serving.registry import Registry, new_visitor
from lora_core.ui import api
from lora_core.ui.context import Context, Lab
from lora_core.ui.drawing.browser_part import ASSETS, address, routes, script_tag
from lora_core.ui.drawing.html_head import Head
from lora_core.ui.drawing.theme import theme
from lora_core.ui.panels import adapt, classify, compare, finetune, inside, own_table, take
from lora_core.ui.settings import Settings
from lora_core.ui.text import words

TITLE = "LoRA Lab"
_QUERY = "Object.fromEntries(new URLSearchParams(location.search))"
# Fixed, or a restarted server could not read what the browser kept. Not a secret: the token in it
# is one by itself.
_STORAGE_KEY, _STORAGE_SECRET = "lora-lab-visitor", "lora-lab"


def build_page(registry: Registry, *, behind_proxy: bool = False) -> gr.Blocks:
    """All five steps over the runs of `registry`; launch it with `launch_options()`.

    `behind_proxy`: see `share_of_caller`.
    """
    # Uploaded files are forgotten when what was made of them would be.
    forget = (600, 60 * registry.limits.idle_minutes)  # seconds: how often, how old
    with gr.Blocks(
        title=TITLE, analytics_enabled=False, fill_width=True, delete_cache=forget
    ) as page:
        context = Context(
            lab=Lab(registry, behind_proxy=behind_proxy),
            page=page,
            visitor=gr.BrowserState("", storage_key=_STORAGE_KEY, secret=_STORAGE_SECRET),
            ready=gr.Textbox("", visible="hidden", elem_id="ready", label="Run shown"),
            pinned=gr.Textbox("", visible="hidden", elem_id="pinned", label="Pinned text"),
        )
        api.build(context)  # first: of two functions of a name, the first keeps it
        table, scatter = compare.parts(context.lab)
        with gr.Row(elem_classes="banner"):
            gr.HTML(words.banner(TITLE), apply_default_css=False, elem_id="title")
            reset = gr.Button("Reset to defaults", size="sm", elem_id="reset", min_width=0)
            copy = gr.Button("Copy link to settings", size="sm", elem_id="copy", min_width=0)
            theme_switch = gr.Button("Light / dark", size="sm", elem_id="theme", min_width=0)
        with gr.Row(elem_classes="bench"):
            with gr.Column(elem_classes="card", elem_id="adapt", min_width=340):
                adapt.build(context)
            with gr.Column(elem_classes="card", elem_id="finetune", min_width=340):
                finetune.build(context, table, scatter)
        with gr.Column(elem_classes="card", elem_id="compare"):
            compare.build(table, scatter)
        with gr.Column(elem_classes="card", elem_id="classify"):
            gr.HTML(words.heading("classify"), apply_default_css=False)
            classify.build(context)
        with gr.Column(elem_classes="card", elem_id="inside"):
            gr.HTML(words.heading("inside"), apply_default_css=False)
            inside.build(context)
        with gr.Column(elem_classes="card", elem_id="take"):
            gr.HTML(words.heading("take"), apply_default_css=False)
            take.build(context)
            gr.HTML(words.fold("take"), apply_default_css=False)
        _restore(context)
        reset.click(
            _defaults,
            gr.JSON(visible="hidden"),
            context.controls,
            js=f"() => [{_QUERY}]",
            queue=False,
            show_progress="hidden",
            api_visibility="private",
        )
        copy.click(None, None, None, js="() => { LoraLab.copyLink('copy'); }")
        theme_switch.click(None, None, None, js="() => { LoraLab.toggleTheme(); }")
    return page


def locked(query: dict[str, Any] | None) -> list[str]:
    """The settings that an address fixes: `lock=rank,alpha`. Others in the list are ignored."""
    asked = str((query or {}).get("lock", "")).split(",")
    return [name for name in Settings.names() if name in asked]


def _defaults(query: dict[str, Any] | None) -> list[Any]:
    """The defaults, but for what the address fixes."""
    kept = locked(query)
    pairs = zip(Settings.names(), Settings().values(), strict=True)
    return [gr.skip() if name in kept else default for name, default in pairs]


def _restore(context: Context) -> None:
    """At a load: a token for a new visitor, and the settings that the address holds."""
    search = gr.JSON(visible="hidden")

    def restore(query: dict[str, Any] | None, visitor: str | None) -> list[Any]:
        known = {key: value for key, value in (query or {}).items() if key in Settings.names()}
        values: list[Any] = [None, *[gr.skip()] * (len(context.controls) - 1)]
        if known:
            try:
                values = Settings.from_query(known).values()
                _check_sliders(context.controls, values)
            except ConfigError as error:
                gr.Warning(f"{error} The defaults are used instead.")
                values = [None, *[gr.skip()] * (len(context.controls) - 1)]
        fixed = locked(query)
        for index, name in enumerate(Settings.names()):
            if name in fixed and name not in ("task", "rank", "alpha"):  # below, and in adapt.js
                value = {} if isinstance(values[index], dict) else {"value": values[index]}
                values[index] = gr.update(interactive=False, **value)
        values[0] = own_table.offered(context.lab, visitor or "", values[0], fixed="task" in fixed)
        return [visitor or new_visitor(), *values]

    context.page.load(
        restore,
        [search, context.visitor],
        [context.visitor, *context.controls],
        js=f"(_, visitor) => [{_QUERY}, visitor]",
        queue=True,  # warnings reach the page over the queue only
        show_progress="hidden",
        api_visibility="private",
    )


def _check_sliders(controls: list[gr.Component], values: list[Any]) -> None:
    """Raise `ConfigError` for a value that a slider cannot hold: Gradio refuses its events."""
    for control, value in zip(controls, values, strict=True):
        if isinstance(control, gr.Slider) and not control.minimum <= value <= control.maximum:
            raise ConfigError(
                f"The address asks for {value:g} where '{control.label}' goes from "
                f"{control.minimum:g} to {control.maximum:g}."
            )


def launch_options() -> dict[str, Any]:
    """What `gr.Blocks.launch` needs for this page: look, fonts, scripts, icons."""
    head = Middleware(
        Head,
        title=TITLE,
        text=words.DESCRIPTION,
        style=stylesheet(),
        picture=address("social.png"),
        scripts=script_tag("queue.js"),
    )
    return {
        "theme": theme(),
        "favicon_path": ASSETS / "page" / "icon.png",
        "app_kwargs": {"routes": routes(), "middleware": [head]},
        "ssr_mode": False,
        "run_history": False,
        "pwa": True,
        "footer_links": ["api", "settings"],
    }


def stylesheet() -> str:
    """`page.css`, then the panels' own, nested so that they outweigh Gradio's rules."""
    folder = ASSETS / "page"
    own = (folder / "page.css").read_text(encoding="utf-8")
    panels = [path for path in sorted(folder.glob("*.css")) if path.name != "page.css"]
    nested = [f".gradio-container {{\n{path.read_text(encoding='utf-8')}}}" for path in panels]
    return "\n".join([own, *nested])
