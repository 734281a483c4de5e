"""LoRA Lab: see and feel what LoRA fine-tuning does. `python app.py` opens it in a browser.

The composition root: reads the options, makes the registry that trains and the page that shows it,
serves both, and ends them cleanly on Ctrl-C or SIGTERM.
"""

from __future__ import annotations

import argparse
import gc
import os
import signal
import sys
import threading
import time
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import Any

# What imports make stays: to look for garbage in it takes 0.8 s of a start, and later ones as well.
gc.disable()

from lora_core.ui.folder import FOLDER

# Read by Gradio when it is imported. Nothing calls out, files lie in a folder of our own; Gradio
# would sum up its last 10,000 events after each event, in 10 to 20 ms, and nobody reads the sum.
os.environ["GRADIO_TEMP_DIR"] = str(FOLDER.files)
os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"
os.environ.setdefault("GRADIO_ANALYTICS_CACHE_FREQUENCY", "1000000000")
os.environ.setdefault("GRADIO_ANALYTICS_MAX_EVENTS", "100")
# Gradio would try an IPv6 host as IPv4.
os.environ.setdefault("LORA_LAB_HOST", os.environ.pop("GRADIO_SERVER_NAME", ""))
# One thread for each computation, those that classify included: many visitors share the cores.
os.environ.setdefault("OMP_NUM_THREADS", "1")
# Torch keeps 1,024 compiled products for each thread, up to 270 MB, beside those that oneDNN keeps
# for all threads and from which they are had again at no cost (tests/benchmarks).
os.environ.setdefault("LRU_CACHE_CAPACITY", "64")

import gradio as gr

from lora_core.config import ConfigError
from lora_core.cores import fix_order_of_sums
from lora_core.devices import choose_device
from lora_core.errors import LabError
from lora_core.limits import Limits, add_arguments, memory_mb, unknown_variables
from lora_core.room.key import choose_key
from lora_core.serving.executors import Executor, Threads, available_cores
from lora_core.serving.processes import Processes
from lora_core.serving.registry import Registry
from lora_core.serving.store import Store, choose_folder
from lora_core.serving.zero_gpu import prepare_zero_gpu
from lora_core.ui.hosts import (
    FIRST_PORT,
    Address,
    announcement,
    free_address,
    has_desktop,
    open_browser,
    wanted_host,
)
from lora_core.ui.page import build_page, launch_options
from lora_core.ui.process import (
    forgiving_console,
    log_to_console,
    raise_descriptor_limit,
    warm_up,
)
from lora_core.ui.readers import forget_unread, make_room
from lora_core.ui.room_setup import exercises_of, is_wanted, open_room, whereabouts
from lora_core.ui.sessions import keep_little

gc.freeze()
gc.enable()

_THREADS = 128  # of Gradio, for answers; who watches a run has a slot besides (`make_room`)
_CORES_FOR_THREADS = 8
_PROCESS_MB = 1000  # of memory that a worker process needs
_LOOK = 0.2  # seconds between two looks whether a signal came
_GOODBYE = 1.0  # seconds in which open pages hear that their runs have ended


def main(argv: list[str] | None = None) -> int:
    """Serve the page until a signal ends it; the exit status."""
    forgiving_console()
    fix_order_of_sums()
    options = parse(argv)
    try:
        limits = Limits.from_arguments(options)
        address = wanted_address(options)
        if options.mcp and find_spec("mcp") is None:
            raise ConfigError(f'--mcp needs: pip install "gradio[mcp]=={version("gradio")}"')
        with_room, bases = is_wanted(options.room), offered_bases(options.bases)
        if (options.new_key or options.exercises) and not with_room:
            raise ConfigError("--new-key and --exercises belong to a room: add --room.")
        exercises = exercises_of(options.exercises, limits, bases) if with_room else []
        if options.dask and find_spec("distributed") is None:
            raise ConfigError("--dask needs: pip install distributed (tests/requirements.txt)")
        if os.environ.get("LORA_LAB_DEVICE") or os.environ.get("LORA_LAB_DTYPE"):
            choose_device()  # now, and not when the first run starts
        FOLDER.open()
    except (LabError, OSError) as error:
        print(f"app.py: {error}", file=sys.stderr)
        return 2
    for remark in [*filter(None, [FOLDER.remark]), *unknown_variables()]:
        print(remark)
    ended = threading.Event()
    # A list, not the event: a signal that comes while this thread enters `wait` would find the
    # event's lock taken, by this very thread, and both would wait for ever.
    asked: list[int] = []
    for name in ("SIGINT", "SIGTERM"):
        signal.signal(getattr(signal, name), lambda number, _: asked.append(number))
    log_to_console()
    raise_descriptor_limit()
    prepare_zero_gpu()
    warm_up()
    try:
        folder, where = choose_folder(options.data)
        store = Store(folder) if folder is not None else None
        key = choose_key(folder, new=options.new_key) if with_room else None
    except LabError as error:
        print(f"app.py: {error}", file=sys.stderr)
        FOLDER.close()
        return 2
    executor, training = where_runs_train(options)
    for sentence in [where, *(store.notes if store is not None else []), *training]:
        print(sentence, flush=True)
    try:
        with Registry(limits, executor=executor, store=store) as registry:
            room = open_room(registry, key, exercises, folder, bases) if key is not None else None
            page = build_page(registry, behind_proxy=options.behind_proxy, bases=bases, room=room)
            address = serve(page, address, options, launch_options(limits, room, address.outside))
            make_room(page, registry.watchers)
            keep_little(page)
            forget_unread(page, ended)
            print(announcement(address, page.share_url, sys.stdout.encoding), flush=True)
            if room is not None:
                room.recount()
                print(whereabouts(room.key, page.share_url, address), flush=True)
            if not options.no_browser and has_desktop():
                open_browser(address.here)
            while not asked:
                time.sleep(_LOOK)
            ended.set()
            print("Ending: running runs are stopped and keep their best weights.", flush=True)
            registry.close()
            if room is not None:
                room.close()
            time.sleep(_GOODBYE)
            page.close(verbose=False)
    finally:
        FOLDER.close()
    return 0


def parse(argv: list[str] | None = None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(
        prog="app.py", description="LoRA Lab: see and feel what LoRA fine-tuning does."
    )
    parser.add_argument("--host", help="address to listen on (default 127.0.0.1; 0.0.0.0: all)")
    parser.add_argument("--port", type=int, help=f"port (default {FIRST_PORT}, or the next free)")
    parser.add_argument(
        "--data",
        metavar="DIR",
        help="folder in which runs outlive the server (default: your data folder); none: nowhere",
    )
    parser.add_argument(
        "--workers",
        choices=["threads", "processes"],
        help="where runs train: in threads of this process (default up to 8 cores, and on a GPU) "
        "or in processes beside it, where one that dies takes only its own run with it",
    )
    parser.add_argument(
        "--dask",
        metavar="ADDRESS",
        help="a scheduler of dask.distributed whose workers train, as tcp://host:8786; while it "
        "is away, runs train here",
    )
    parser.add_argument("--share", action="store_true", help="a public link through Gradio's relay")
    parser.add_argument("--no-browser", action="store_true", help="do not open a browser")
    parser.add_argument("--mcp", action="store_true", help="also serve the web API as MCP tools")
    parser.add_argument(
        "--behind-proxy",
        action="store_true",
        help="tell visitors apart by the last address in X-Forwarded-For, which your proxy adds",
    )
    parser.add_argument(
        "--bases",
        metavar="NAMES",
        help="bases that visitors may choose, with commas: gpt2,owner/name,a folder; the bundled "
        "one is always there (default: GPT-2 in four sizes, and the Hub's by name). Also as "
        "LORA_LAB_BASES",
    )
    room = parser.add_argument_group(
        "a class in one room", "Also as LORA_LAB_ROOM=1, with the key in LORA_LAB_ROOM_KEY."
    )
    room.add_argument("--room", action="store_true", help="a board, and a desk for the teacher")
    room.add_argument("--new-key", action="store_true", help="another teacher's link than before")
    room.add_argument(
        "--exercises", metavar="FILE", type=Path, help="your own exercises, in a TOML file"
    )
    add_arguments(parser)
    return parser.parse_args(argv)


def wanted_address(options: argparse.Namespace) -> Address:
    """Where to listen: the options, then the environment. Raises `ConfigError`."""
    host = wanted_host(options.host or os.environ.get("LORA_LAB_HOST") or "127.0.0.1")
    try:
        port = options.port
        if port is None:
            port = int(os.environ.get("GRADIO_SERVER_PORT") or FIRST_PORT)
        address = free_address(host, port)
    except UnicodeError as error:
        raise ConfigError(f"{host} cannot be listened on: it is no host.") from error
    except (ValueError, OverflowError) as error:
        raise ConfigError(f"the port must be a number from 1 to 65535 ({error}).") from error
    except OSError as error:
        raise ConfigError(f"{host} cannot be listened on: {error}") from error
    if address.port != port:
        print(f"Port {port} is in use; LoRA Lab takes {address.port} instead.")
    return address


def where_runs_train(options: argparse.Namespace) -> tuple[Executor, list[str]]:
    """What executes runs, and sentences for the host about it."""
    kind = options.workers
    if kind is None:  # Python's lock holds threads up beyond so many cores (tests/benchmarks)
        cores = available_cores()
        many = cores > _CORES_FOR_THREADS and (memory_mb() or 0) > _PROCESS_MB * cores
        kind = "processes" if many and choose_device().device.type == "cpu" else "threads"
    executor: Executor = Processes() if kind == "processes" else Threads()
    if not options.dask:
        return executor, []
    from lora_core.serving.machines import Machines  # an extra, and 0.7 s to import

    machines = Machines(options.dask, executor)
    return machines, [machines.sentence]


def offered_bases(option: str | None) -> list[str] | None:
    """The names of `--bases` or LORA_LAB_BASES; None where nothing is said: any base."""
    names = os.environ.get("LORA_LAB_BASES") if option is None else option
    if names is None:
        return None
    return [name.strip() for name in names.split(",") if name.strip()]


def serve(
    page: gr.Blocks, address: Address, options: argparse.Namespace, launch: dict[str, Any]
) -> Address:
    """Start the server in a thread; where it listens."""
    # No queue of Gradio's own: runs wait in the registry, everything else answers at once.
    page.queue(default_concurrency_limit=None, max_size=10_000)
    page.launch(
        server_name=address.for_server,
        server_port=address.port,
        share=options.share or None,
        max_threads=_THREADS,
        mcp_server=options.mcp or None,
        prevent_thread_lock=True,
        quiet=True,
        **launch,
    )
    return address


if __name__ == "__main__":
    sys.exit(main())
