"""A progress bar around a run, for a terminal or a notebook."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from lora_core.events import Evaluated, Event, Started, Step


def progress(events: Iterable[Event]) -> Iterator[Event]:
    """Hand the events of a run on, and show its step, loss and accuracy meanwhile.

    `for event in progress(fine_tune(...))`: a widget in a notebook that has ipywidgets, a line of
    text elsewhere, on standard error.
    """
    from tqdm.auto import tqdm  # type: ignore[import-untyped]  # not for those who need no bar

    with tqdm(unit=" steps") as bar:
        for event in events:
            if isinstance(event, Started):
                bar.reset(total=event.steps)
            elif isinstance(event, Step):
                bar.update(event.step - bar.n)
                bar.set_postfix(loss=f"{event.loss:.3f}", refresh=False)
            elif isinstance(event, Evaluated):
                bar.set_description(f"validation accuracy {event.validation_accuracy:.1%}")
            yield event
