"""What the panels share: the server's objects, and the few components that connect them."""

from __future__ import annotations

import contextlib
import re
import threading
from dataclasses import dataclass, field, replace
from typing import Any

import gradio as gr

from lora_core.base.checkpoint import Base, BaseError
from lora_core.config import GPTConfig
from lora_core.serving.bases import Bases
from lora_core.serving.hub_cache import HubCache
from lora_core.serving.registry import Registry
from lora_core.serving.table_readers import TableReaders
from lora_core.tasks.bundled import COLLECTION, load_task, task_names
from lora_core.tasks.task import Task
from lora_core.ui.text.catalogue import say


@dataclass
class Lab:
    """The server's own objects, one of each in the process."""

    registry: Registry
    bases: Bases = field(default_factory=Bases)
    tasks: dict[str, Task] = field(default_factory=dict)
    behind_proxy: bool = False  # whether `X-Forwarded-For` is to be believed
    readers: TableReaders = field(default_factory=TableReaders)
    hub_cache: HubCache = field(default_factory=HubCache)

    def __post_init__(self) -> None:
        # One for each name that can be loaded: a download keeps nobody from another task.
        self._loading = {name: threading.Lock() for name in (*task_names(), COLLECTION)}

    def base(self, name: str = "bundled") -> Base:
        """A base of the menu, loaded once and shared by everybody. Raises `BaseError`.

        Other folders and names of the Hub are no visitor's to name here.
        """
        self._check_menu(name)
        return self.bases.get(name)

    def shape(self, name: str) -> GPTConfig:
        """The shape of a base; GPT-2's are known without downloading anything."""
        self._check_menu(name)
        return self.bases.shape(name)

    def _check_menu(self, name: str) -> None:
        if not self.bases.known(name):
            self.bases.check_offered(name)
            there = ", ".join(self.bases.menu())
            raise BaseError(say("hub.no_base", name=name, there=there))

    def task(self, name: str, visitor: str = "") -> Task:
        """A bundled task, loaded at most once however many ask, or a table that this visitor
        brought. Raises `TaskError`."""
        task = self.registry.task(visitor, name) or self.tasks.get(name)
        if task is not None:
            return task
        with self._loading.get(name) or contextlib.nullcontext():
            if name not in self.tasks:
                self.tasks[name] = load_task(name)
            return self.tasks[name]

    def named(self, visitor: str, task: Task) -> Task:
        """An own table under a name that means it alone among this visitor's tables and runs, as
        runs are compared by the names of their tasks. Of one with the same rows it is that one."""
        runs = (run.task for run in self.registry.runs(visitor))
        known = [own for own in (*self.registry.tasks(visitor), *runs) if own is not None]
        numbered = re.compile(rf"{re.escape(task.name)}(-\d+)?")
        for own in known:
            if numbered.fullmatch(own.name) and _rows(own) == _rows(task):
                return own
        taken = {own.name for own in known}
        name, title, again = task.name, task.title, 2
        while name in taken:
            name, title, again = f"{task.name}-{again}", f"{task.title} {again}", again + 1
        return replace(task, name=name, title=title)


def _rows(task: Task) -> tuple[object, ...]:
    return task.labels, task.train, task.validation, task.test


@dataclass
class Context:
    """Handed to each panel's `build(context)`, inside the `gr.Blocks`.

    `ready` and `pinned` are what one tab knows, in hidden text boxes. `gr.State` would be their
    place, but with it each tab keeps a second connection to the server, and of the six that a
    browser allows a host nothing is left for the fourth tab: it does not load (Gradio 6.31). Nor
    can step 2 say itself which run is shown: its outputs are fixed while a run is watched, and
    `ready.change` lets each step ask for its own part, once.
    """

    lab: Lab
    page: gr.Blocks  # for `context.page.load(...)`
    visitor: gr.BrowserState  # the visitor's secret token, a string; "" before the first load
    ready: gr.Textbox  # id of the run whose classifier steps 3 to 5 show; "" for none
    text: gr.Textbox  # of step 3: what is typed is classified, and followed along the next run
    pinned: gr.Textbox  # a text to follow along the next runs, too; "" for none
    controls: list[gr.Component] = field(default_factory=list)  # of step 1, in Settings' order
    _task: gr.Dropdown | None = None
    _watch: dict[str, Any] | None = None

    @property
    def task(self) -> gr.Dropdown:
        """The task chosen in step 1. `gr.Dropdown(choices=…, value=…)` adds one and selects it."""
        if self._task is None:
            raise RuntimeError("Step 1 is built before the panels that need its task.")
        return self._task

    @task.setter
    def task(self, dropdown: gr.Dropdown) -> None:
        self._task = dropdown

    @property
    def watch(self) -> dict[str, Any]:
        """What an event needs to show the visitor's runs until none trains any more, for whoever
        has queued some: `button.click(submit, …).success(**context.watch)`."""
        if self._watch is None:
            raise RuntimeError("Step 2 is built before the panels that start runs.")
        return self._watch

    @watch.setter
    def watch(self, event: dict[str, Any]) -> None:
        self._watch = event
