"""What the panels share: the server's objects, and the few components that connect them."""

from __future__ import annotations

from dataclasses import dataclass, field

import gradio as gr

from lora_core.base import Base, load_base
from lora_core.runs import Registry
from lora_core.tasks import Task, load_task


@dataclass
class Lab:
    """The server's own objects, one of each in the process."""

    registry: Registry
    bases: dict[str, Base] = field(default_factory=dict)
    tasks: dict[str, Task] = field(default_factory=dict)

    def base(self, name: str = "bundled") -> Base:
        """A base, loaded once and shared by everybody. Raises `BaseError`."""
        if name not in self.bases:
            self.bases[name] = load_base(name)
        return self.bases[name]

    def task(self, name: str, visitor: str = "") -> Task:
        """A bundled task, or a table that this visitor brought. Raises `TaskError`."""
        own = self.registry.task(visitor, name)
        if own is not None:
            return own
        if name not in self.tasks:
            self.tasks[name] = load_task(name)
        return self.tasks[name]


@dataclass
class Context:
    """Handed to each panel's `build(context)`, inside the `gr.Blocks`."""

    lab: Lab
    visitor: gr.BrowserState  # the visitor's secret token, a string
    ready: gr.Textbox  # hidden: id of the run whose classifier steps 3 to 5 show; "" for none
    controls: list[gr.Component] = field(default_factory=list)  # of step 1, in Settings' order
