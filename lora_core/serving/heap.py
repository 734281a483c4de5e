"""Memory that was freed goes back to the system: in glibc's heaps it would stay with the process.

Each thread that trains has heaps of its own, and what a run frees lies between what stays: products
that oneDNN compiled, runs that are kept. glibc returns little of that by itself, and the next run
finds its room elsewhere, so a server would grow over hundreds of runs (tests/benchmarks).
"""

from __future__ import annotations

import ctypes
import functools
import os
import sys

_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3  # glibc's malloc.h: M_TRIM_THRESHOLD, M_MMAP_THRESHOLD
_KEPT = 4 << 20  # bytes that may lie free at the top of a heap
_MAPPED = 32 << 20  # bytes from which a tensor has pages of its own; glibc's largest, where it ends


def trim() -> None:
    """Return what lies free in the heaps of all threads, in some 50 ms; others compute meanwhile.

    On other systems than Linux with glibc, nothing happens.
    """
    library = _glibc()
    if library is not None:
        library.malloc_trim(0)


@functools.cache
def _glibc() -> ctypes.CDLL | None:
    """The C library if it is glibc, told to return the free top of a heap soon.

    `malloc_trim` leaves the tops of threads' heaps alone. The threshold above which glibc returns
    them itself rises to 64 MB for each, with that of mapping, until both are set.
    """
    library = ctypes.CDLL(None) if sys.platform == "linux" else None
    if library is None or not hasattr(library, "gnu_get_libc_version"):
        return None
    if "MALLOC_TRIM_THRESHOLD_" not in os.environ:
        library.mallopt(_MMAP_THRESHOLD, _MAPPED)
        library.mallopt(_TRIM_THRESHOLD, _KEPT)
    return library
