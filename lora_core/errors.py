"""What a person reads when something cannot be done: one class above all errors of ours."""

from __future__ import annotations


class LabError(Exception):
    """A sentence for a person: what is wrong, and what to do. Shown as it is, wherever it lands.

    Each room has its own kind (`TaskError`, `BaseError`, ...), which is also a `ValueError` or a
    `RuntimeError`, so that a caller who knows only Python's own kinds catches it, too.
    """
