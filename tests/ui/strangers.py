"""The whole page on a free port, in this process, as app.py serves it."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from lora_core.limits import Limits
from lora_core.serving.registry import Registry
from lora_core.serving.watchers import WATCHERS
from lora_core.ui.page import build_page, launch_options
from lora_core.ui.readers import make_room
from lora_core.ui.sessions import keep_little


@contextlib.contextmanager
def page_served(
    limits: Limits | None = None, watchers: int = WATCHERS, **options: object
) -> Iterator[str]:
    """Its address, without a slash at the end."""
    limits = limits or Limits()
    with Registry(limits, workers=1) as registry:
        registry.watchers.in_all = watchers
        page = build_page(registry)
        page.queue(default_concurrency_limit=None, max_size=10_000)
        _, url, _ = page.launch(
            prevent_thread_lock=True,
            quiet=True,
            max_threads=40,
            **launch_options(limits),
            **options,
        )
        keep_little(page)
        make_room(page, registry.watchers)
        try:
            yield url.rstrip("/")
        finally:
            page.close(verbose=False)
