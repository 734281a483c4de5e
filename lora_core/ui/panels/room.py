"""A pupil's part of the room: a band over the page with the pseudonym, the exercise and the clock.

The band's script listens to the room by itself; what passes through Gradio is only the press on
the exercise's button, which sets the controls of step 1. What was typed is no control of step 1, so
it stays.
"""

from __future__ import annotations

from typing import Any

import gradio as gr

from lora_core.errors import LabError
from lora_core.room.exercises import Exercise
from lora_core.room.room import Room
from lora_core.ui import room_routes, sentences
from lora_core.ui.context import Context
from lora_core.ui.room_views import locked
from lora_core.ui.settings import Settings
from lora_core.ui.values import record

_SCRIPTED = ("rank", "alpha")  # locked by their script, adapt.js


def band() -> gr.HTML:
    """The band; `wire` connects it once the controls are there."""
    scripts = "".join(
        f'<script src="{room_routes.file_address(name)}"></script>'
        for name in ("room.js", "band.js")
    )
    return gr.HTML(
        {},
        html_template='<div class="lab-part lab-band"></div>',
        js_on_load="LoraLab.mount('band', 'band.js', element, props, trigger, watch);",
        head=scripts,
        apply_default_css=False,
        elem_id="band",
    )


def wire(context: Context, room: Room, part: gr.HTML) -> None:
    """Tell the band who it is, and let its button set the controls."""
    private: dict[str, Any] = {"show_progress": "hidden", "api_visibility": "private"}

    def use(visitor: str, event: gr.EventData) -> list[Any]:
        """Take the settings of the exercise that is offered; or (after a reload, in another tab)
        hold what the one in use fixes, nothing where none is offered any more."""
        take = record(event._data).get("act") == "take"
        try:
            pupil = room.use(visitor) if take else room.join(visitor)
            exercise = room.used_by(pupil)
            settings = settings_of(exercise, pupil.number, context) if exercise else None
        except LabError as error:
            sentences.warn(error)
            return [gr.skip()] * len(context.controls)
        fixed = locked(exercise) if exercise else []
        values = settings.values() if settings else [None] * len(Settings.names())
        updates = []
        for name, value in zip(Settings.names(), values, strict=True):
            update: dict[str, Any] = {} if name in _SCRIPTED else {"interactive": name not in fixed}
            if settings is not None and (take or name in fixed):
                update["value"] = value
            updates.append(gr.update(**update) if update else gr.skip())
        return updates

    part.select(
        use, context.visitor, context.controls, queue=True, trigger_mode="multiple", **private
    )
    context.visitor.change(
        None,
        context.visitor,
        None,
        js="(visitor) => { LoraLab.emit('visitor', visitor); }",
    )


def settings_of(exercise: Exercise, number: int, context: Context) -> Settings:
    """The settings of an exercise for a pupil, within what this server takes."""
    own_seed = {"seed": number} if exercise.own_seed else {}
    default = Settings.within(context.lab.registry.limits)
    known = {name: getattr(default, name) for name in Settings.names()}
    return Settings.read({**known, **exercise.settings, **own_seed})
