"""What a base's files can be refused with: a leaf, so that every file of this room can use it."""

from __future__ import annotations

import errno

from lora_core.errors import LabError

# What a place that cannot be written, or is full, answers.
_DISK = (
    errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOTDIR, errno.EEXIST, errno.ENOENT, errno.ENOSPC,
    errno.EDQUOT, errno.EISDIR, errno.ENAMETOOLONG,
)  # fmt: skip


class BaseError(LabError, RuntimeError):
    """A base that cannot be loaded; the message says why and what to do."""


class TokenizerError(BaseError):
    """A tokenizer that cannot be used; the message says what is wrong and what to do."""


def disk_trouble(error: OSError) -> str:
    """What is wrong with the disk, in words; "" for an error of something else, as of a network."""
    if error.errno not in _DISK:
        return ""
    full = error.errno in (errno.ENOSPC, errno.EDQUOT)
    return "the disk is full" if full else f"the folder cannot be written ({error.strerror})"
