"""A scheduler of dask.distributed and two workers, processes of this machine, for benchmarks."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

from tests.servers import free_port


@contextlib.contextmanager
def hall() -> Iterator[str]:
    """The scheduler's address, once both workers are there."""
    from distributed import Client  # for who asks for it alone

    from tests.serving.test_machines import scheduler, worker

    with TemporaryDirectory() as name, contextlib.ExitStack() as stack:
        port, folder = free_port(), Path(name)
        address = f"tcp://127.0.0.1:{port}"
        stack.enter_context(scheduler(folder, port))
        for _ in range(2):
            stack.enter_context(worker(folder, address))
        with Client(address, timeout=60) as client:
            client.wait_for_workers(2, timeout=120)
        yield address
