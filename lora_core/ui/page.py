"""The page: its frame, and the panels in the order in which they are read."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import gradio as gr
from starlette.middleware import Middleware

from lora_core.config import ConfigError
from lora_core.limits import Limits
from lora_core.room.room import Room
from lora_core.serving.bases import Bases
from lora_core.serving.plans import Plans
from lora_core.serving.registry import Registry, new_visitor
from lora_core.ui import (
    api,
    api_experiments,
    room_routes,
    sentences,
    sessions,
    triggers,
    uploads,
)
from lora_core.ui.bodies import Bodies
from lora_core.ui.context import Context, Lab
from lora_core.ui.drawing.browser_part import (
    ASSETS,
    PLOTLY,
    address,
    part,
    routes,
    script_tag,
)
from lora_core.ui.drawing.html_head import Head
from lora_core.ui.drawing.theme import theme
from lora_core.ui.experiments import Experiments
from lora_core.ui.gate import Gate
from lora_core.ui.panels import (
    adapt,
    classify,
    compare,
    evidence,
    finetune,
    inside,
    more,
    own_table,
    take,
)
from lora_core.ui.panels import experiments as experiments_panel
from lora_core.ui.panels import room as room_panel
from lora_core.ui.panels.viewer import Viewer
from lora_core.ui.room_views import pupil_colours
from lora_core.ui.settings import Settings
from lora_core.ui.text import catalogue, words
from lora_core.ui.text.catalogue import say
from lora_core.ui.values import record

TITLE = "LoRA Lab"
# Before Gradio's: what it calls in the browser must be there, however the network is.
_FIRST = ("early.js", "queue.js", "lab.js", "ready.js")
_QUERY = "Object.fromEntries(new URLSearchParams(location.search))"
# Fixed, or a restarted server could not read what the browser kept. Not a secret: the token in it
# is one by itself.
_STORAGE_KEY, _STORAGE_SECRET = "lora-lab-visitor", "lora-lab"


def build_page(
    registry: Registry,
    *,
    behind_proxy: bool = False,
    bases: Sequence[str] | None = None,
    room: Room | None = None,
) -> gr.Blocks:
    """All five steps over the runs of `registry`; launch it with `launch_options()`.

    `behind_proxy`: see `address_of_caller`. `bases`: those that visitors may choose; None: any.
    `room`: of a class, where there is one.
    """
    # Uploaded files are forgotten when what was made of them would be.
    forget = (600, 60 * registry.limits.idle_minutes)  # seconds: how often, how old
    with gr.Blocks(
        title=TITLE, analytics_enabled=False, fill_width=True, delete_cache=forget
    ) as page:
        context = Context(
            lab=Lab(registry, Bases(registry.limits, bases), behind_proxy=behind_proxy),
            page=page,
            visitor=gr.BrowserState("", storage_key=_STORAGE_KEY, secret=_STORAGE_SECRET),
            ready=gr.Textbox("", visible="hidden", elem_id="ready"),
            text=classify.text_box(),
            pinned=gr.Textbox("", visible="hidden", elem_id="pinned"),
        )
        registry.take_up(context.lab.bases.again)
        api.build(context)  # first: of two functions of a name, the first keeps it
        experiments = Experiments(context.lab, Plans(registry))
        api_experiments.build(experiments)
        table, sweep = compare.parts(context.lab)
        followed = classify.followed_part()
        reset = _banner()
        band = room_panel.band() if room is not None else None
        with gr.Row(elem_classes="bench"):
            with _card("adapt"):
                rest = adapt.build(context)
            with _card("finetune"):
                finetune.build(context, table, sweep, followed)
            viewer = Viewer(context)
            with _card("classify"):
                strength, answer = classify.build(context, viewer, followed)
        with _card("folds"), gr.Row(elem_classes="fold-columns"):
            with gr.Column(min_width=300):
                own_table.build(context)
                more.build(rest)
            with gr.Column(min_width=300):
                gr.HTML(words.folds(words.QUESTIONS), apply_default_css=False)
        with _card("compare"):
            compare.build(table, sweep)
        with _card("evidence-card"):
            evidence.build(context, viewer, strength, answer)
        with _card("inside"):
            gr.HTML(words.heading("inside"), apply_default_css=False)
            inside.build(
                context, viewer, lambda: experiments_panel.build_merging(context, experiments)
            )
        with _card("experiments"):
            experiments_panel.build(context, experiments)
        with _card("take"):
            gr.HTML(words.heading("take"), apply_default_css=False)
            take.build(context)
        part("guide", {}, script="guide.js", elem_id="guide")
        _wire_reset(context, reset)
        if room is not None and band is not None:
            room_panel.wire(context, room, band)
        _restore(context)
        triggers.separate(page)
    sentences.protect(page)
    return page


def _card(name: str) -> gr.Column:
    return gr.Column(elem_classes="card", elem_id=name, min_width=300)


def _banner() -> gr.Button:
    """The top: what this is, and the few things that belong to the whole page."""
    with gr.Row(elem_classes="banner"):
        gr.HTML(words.banner(TITLE), apply_default_css=False, elem_id="title")
        guide = _plain_button("guide_start")
        part("view", {}, elem_id="view")
        reset = _plain_button("reset", "expert")
        copy = _plain_button("copy")
        theme_switch = _plain_button("theme")
    guide.click(None, None, None, js="() => { LoraLab.emit('guide', true); }")
    copy.click(None, None, None, js="() => { LoraLab.copyLink('copy'); }")
    theme_switch.click(None, None, None, js="() => { LoraLab.toggleTheme(); }")
    return reset


def _wire_reset(context: Context, reset: gr.Button) -> None:
    default = Settings.within(context.lab.registry.limits)

    def defaults(query: dict[str, Any] | None) -> list[Any]:
        """The defaults, but for what the address fixes."""
        fixed = locked(query)
        pairs = zip(Settings.names(), default.values(), strict=True)
        return [gr.skip() if name in fixed else value for name, value in pairs]

    reset.click(
        defaults,
        gr.JSON(visible="hidden"),
        context.controls,
        js=f"() => [{{ ...{_QUERY}, lock: LoraLab.preset('lock').join() }}]",
        queue=False,
        show_progress="hidden",
        api_visibility="private",
    )


def _plain_button(name: str, *classes: str) -> gr.Button:
    elem_id = name.replace("_", "-")
    return gr.Button(
        say(f"page.{name}"), size="sm", elem_id=elem_id, elem_classes=[*classes], min_width=0
    )


def locked(query: dict[str, Any] | None) -> list[str]:
    """The settings that an address fixes: `lock=rank,alpha`. Others in the list are ignored."""
    asked = str(record(query).get("lock", "")).split(",")
    return [name for name in Settings.names() if name in asked]


def _restore(context: Context) -> None:
    """At a load: a token for a new visitor, and the settings that the address holds."""
    search = gr.JSON(visible="hidden")

    def restore(query: dict[str, Any] | None, visitor: str | None) -> list[Any]:
        known = {key: value for key, value in record(query).items() if key in Settings.names()}
        values: list[Any] = [None, *[gr.skip()] * (len(context.controls) - 1)]
        if known:
            try:
                values = Settings.from_query(known).values()
                _check_controls(context.controls, values)
            except ConfigError as error:
                sentences.warn(say("page.bad_link", error=error))
                values = [None, *[gr.skip()] * (len(context.controls) - 1)]
        fixed = locked(query)
        for index, name in enumerate(Settings.names()):
            if name in fixed and name not in ("task", "rank", "alpha"):  # below, and in adapt.js
                value = {} if isinstance(values[index], dict) else {"value": values[index]}
                values[index] = gr.update(interactive=False, **value)
        values[0] = own_table.offered(context.lab, visitor or "", values[0], fixed="task" in fixed)
        return [visitor or new_visitor(), *values]

    restored = context.page.load(
        restore,
        [search, context.visitor],
        [context.visitor, *context.controls],
        js=f"(_, visitor) => [{_QUERY}, visitor]",
        queue=True,  # warnings reach the page over the queue only
        show_progress="hidden",
        api_visibility="private",
    )
    # Nothing is done before: the browser keeps a press until then (ready.js).
    restored.success(None, None, None, js="() => { LoraLab.emit('restored', true); }")
    restored.failure(None, None, None, js="() => { LoraLab.emit('unnamed', true); }")


def _check_controls(controls: list[gr.Component], values: list[Any]) -> None:
    """Raise `ConfigError` for a value that a control cannot hold: Gradio refuses its events."""
    for name, control, value in zip(Settings.names(), controls, values, strict=True):
        if isinstance(control, gr.Slider) and not control.minimum <= value <= control.maximum:
            raise ConfigError(
                say(
                    "page.beyond",
                    value=f"{value:g}",
                    control=control.label,
                    least=f"{control.minimum:g}",
                    most=f"{control.maximum:g}",
                )
            )
        if name == "task" or getattr(control, "allow_custom_value", False):
            continue  # a visitor's own tables are tasks, too: `own_table.offered` knows them
        if isinstance(control, gr.Dropdown | gr.Radio | gr.CheckboxGroup):
            known = [choice for _, choice in control.choices]
            for one in value if isinstance(value, list) else [value]:
                if one not in known:
                    raise ConfigError(
                        say(
                            "page.unknown",
                            value=str(one)[:60],
                            control=control.label,
                            choices=", ".join(map(str, known)),
                        )
                    )


def launch_options(
    limits: Limits | None = None, room: Room | None = None, outside: str = ""
) -> dict[str, Any]:
    """What `gr.Blocks.launch` needs for this page: look, fonts, scripts, icons, and what a
    stranger may ask for and send. `outside`: the page's address for other machines, which the
    room's board shows; "" where a request alone tells it."""
    upload_mb = (limits or Limits()).upload_mb
    early = f"{catalogue.script()} window.LabPlotly = '{address(PLOTLY.name)}';"
    head = Middleware(
        Head,
        title=TITLE,
        text=words.DESCRIPTION,
        style=stylesheet(room is not None),
        picture=address("social.png"),
        scripts=f"<script>{early}</script>" + "".join(map(script_tag, _FIRST)),
    )
    of_room = room_routes.Routes(room, outside).routes() if room is not None else []
    return {
        "theme": theme(),
        "favicon_path": ASSETS / "page" / "icon.png",
        "app_kwargs": {
            "routes": [*of_room, *routes(TITLE), uploads.route(upload_mb)],
            "middleware": [
                Middleware(Gate, room=room is not None),
                Middleware(Bodies, upload_mb=upload_mb),
                head,
            ],
        },
        "max_file_size": f"{upload_mb}mb",  # for Gradio's script in the browser, too
        "ssr_mode": False,
        "state_session_capacity": sessions.KEPT,
        "run_history": False,
        "enable_monitoring": False,  # it prints on the host's console for anybody who asks
        "pwa": True,
        "footer_links": ["api", "settings"],
    }


def stylesheet(with_room: bool = False) -> str:
    """`page.css`, then the panels' own, nested so that they outweigh Gradio's rules."""
    folder = ASSETS / "page"
    own = (folder / "page.css").read_text(encoding="utf-8")
    panels = [path for path in sorted(folder.glob("*.css")) if path.name != "page.css"]
    if with_room:
        panels.append(room_routes.FOLDER / "band.css")
        own += "\n" + pupil_colours()
    nested = [f".gradio-container {{\n{path.read_text(encoding='utf-8')}}}" for path in panels]
    return "\n".join([own, *nested])
