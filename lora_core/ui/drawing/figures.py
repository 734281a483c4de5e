"""The page's charts for a notebook: plotly figures of the events of one or several runs.

The points are those of the page, from the same `Curve`; the browser draws them there.

    from lora_core.ui.drawing.figures import accuracy_figure, loss_figure
    runs = {"r 1": list(lc.fine_tune(...)), "r 8": list(lc.fine_tune(...))}
    loss_figure(runs)
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import plotly.graph_objects as go
from plotly.subplots import make_subplots

from lora_core.events import Event
from lora_core.ui.drawing.colours import COLOURS, RUN_COLOURS
from lora_core.ui.drawing.curves import Curve

_LINES: tuple[tuple[str, str, str, int, float, dict[str, Any]], ...] = (  # x, y, name, row, look
    ("step", "loss", "each batch", 1, 0.3, {"width": 1}),
    ("step", "smooth", "smoothed", 1, 1.0, {}),
    ("at", "validation_loss", "validation loss", 1, 1.0, {"dash": "dot"}),
    ("at", "validation_accuracy", "validation accuracy", 2, 1.0, {"dash": "dot"}),
    ("at", "train_accuracy", "training accuracy", 2, 0.5, {"width": 1}),
)


def _curves(runs: Mapping[str, Iterable[Event]]) -> dict[str, tuple[Curve, str]]:
    made = {}
    for index, (name, events) in enumerate(runs.items()):
        curve = Curve()
        curve.feed(events)
        made[name] = curve, RUN_COLOURS[index % len(RUN_COLOURS)][0]
    return made


def loss_figure(runs: Mapping[str, Iterable[Event]]) -> go.Figure:
    """Loss above, accuracy below, over the steps.

    `runs` maps a run's name to its events, all of them or so far. Each run gives five traces: the
    loss of each batch, the same smoothed, validation loss, validation and training accuracy.
    """
    figure = make_subplots(2, 1, shared_xaxes=True, row_heights=[0.65, 0.35], vertical_spacing=0.06)
    for name, (curve, colour) in _curves(runs).items():
        points = curve.data()
        for x, y, what, row, opacity, look in _LINES:
            line = {"color": colour, **look}
            trace = go.Scatter(
                x=points[x], y=points[y], name=f"{name}, {what}", opacity=opacity, line=line
            )
            figure.add_trace(trace, row, 1)
    figure.update_yaxes(title_text="loss", row=1, col=1)
    figure.update_yaxes(title_text="accuracy", tickformat=".0%", row=2, col=1)
    figure.update_xaxes(title_text="step", row=2, col=1)
    return _dressed(figure)


def accuracy_figure(runs: Mapping[str, Iterable[Event]]) -> go.Figure:
    """How little has to be trained: best validation accuracy over trainable parameters.

    `runs` as in `loss_figure`; a run that has not been evaluated yet is left out.
    """
    figure = go.Figure()
    for name, (curve, colour) in _curves(runs).items():
        if curve.started is None or curve.best is None:
            continue
        figure.add_trace(
            go.Scatter(
                x=[curve.started.parameters.trainable],
                y=[curve.best.validation_accuracy],
                name=name,
                text=[name],
                mode="markers+text",
                textposition="top center",
                marker={"size": 12, "color": colour},
            )
        )
    figure.update_xaxes(title_text="trainable parameters", type="log")
    allowed = {"minallowed": 0, "maxallowed": 1.1}  # above: the name; one point alone has no range
    figure.update_yaxes(
        title_text="validation accuracy", tickformat=".0%", autorangeoptions=allowed
    )
    return _dressed(figure).update_layout(showlegend=False)


def _dressed(figure: go.Figure) -> go.Figure:
    ink, rule = COLOURS["ink"][0], COLOURS["rule"][0]
    figure.update_layout(template="plotly_white", font={"color": ink}, margin={"t": 20, "r": 10})
    return figure.update_xaxes(gridcolor=rule).update_yaxes(gridcolor=rule)
