"""One adapted layer, drawn to scale: the frozen W, and A and B as thin as they are.

Only geometry, in the units of the drawing; `assets/page/adapt.js` turns it into SVG. One unit of
length means the same number of matrix rows or columns for W, A, B and A·B, so that areas compare
as numbers of parameters do.
"""

from __future__ import annotations

from typing import NamedTuple

WIDTH, HEIGHT = 324.0, 180.0  # of the whole drawing
SIDE = 114.0  # the longer side of W
GAP = 7.0  # between A, B and their product
NAME = 37.0  # room for the name of A·B, beside it where it is thinner
HAIR = 1.0  # nothing is drawn thinner than this, or it could not be seen
_MARGIN = 1.0


class Rect(NamedTuple):
    """A rectangle; x and y of its upper left corner."""

    x: float
    y: float
    width: float
    height: float


class Drawing(NamedTuple):
    """Where the four matrices lie. A·B has A's rows and B's columns, as in a product on paper."""

    W: Rect
    A: Rect  # (in, r): left of the product
    B: Rect  # (r, out): above the product
    AB: Rect
    unit: float  # length of one row or column


def draw(n_in: int, n_out: int, rank: int) -> Drawing:
    """Place W (in × out), A (in × rank), B (rank × out) and A·B (in × out)."""
    unit = SIDE / max(n_in, n_out)
    width, height = n_out * unit, n_in * unit
    thin = max(rank * unit, HAIR)
    right = WIDTH - _MARGIN - max(width, NAME)
    bottom = HEIGHT - 19.0  # room for the captions below
    top = bottom - (SIDE + height) / 2  # a flat layer is centred
    return Drawing(
        W=Rect(_MARGIN, top, width, height),
        A=Rect(right - GAP - thin, top, thin, height),
        B=Rect(right, top - GAP - thin, width, thin),
        AB=Rect(right, top, width, height),
        unit=unit,
    )
