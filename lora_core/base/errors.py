"""What a base's files can be refused with: a leaf, so that every file of this room can use it."""

from __future__ import annotations

from lora_core.errors import LabError


class BaseError(LabError, RuntimeError):
    """A base that cannot be loaded; the message says why and what to do."""


class TokenizerError(BaseError):
    """A tokenizer that cannot be used; the message says what is wrong and what to do."""
