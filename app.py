"""LoRA Lab: see and feel what LoRA fine-tuning does. `python app.py` opens it in a browser.

The composition root: reads the options, makes the registry that trains and the page that shows it,
serves both, and ends them cleanly on Ctrl-C or SIGTERM.
"""

from __future__ import annotations

import argparse
import contextlib
import logging
import os
import signal
import socket
import sys
import threading
import time
import webbrowser
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path

os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"  # before gradio is imported: nothing calls out
# Gradio sums up its last 10,000 events after each event, in 10 to 20 ms; nobody reads the sum here.
os.environ.setdefault("GRADIO_ANALYTICS_CACHE_FREQUENCY", "1000000000")
os.environ.setdefault("GRADIO_ANALYTICS_MAX_EVENTS", "100")
# One thread for each computation, those that classify included: many visitors share the cores.
os.environ.setdefault("OMP_NUM_THREADS", "1")

import torch

from lora_core.config import ConfigError
from lora_core.limits import Limits, add_arguments
from lora_core.serving.registry import Registry
from lora_core.serving.zero_gpu import prepare_zero_gpu
from lora_core.ui.page import build_page, launch_options
from lora_core.ui.readers import make_room

FIRST_PORT = 7860
_PORTS_TRIED = 100
_THREADS = 128  # of Gradio, for answers; who watches a run has a slot besides (`make_room`)
_GOODBYE = 1.0  # seconds in which open pages hear that their runs have ended


def main(argv: list[str] | None = None) -> int:
    """Serve the page until a signal ends it; the exit status."""
    arguments = parse(argv)
    try:
        limits = Limits.from_arguments(arguments)
    except ConfigError as error:
        print(f"app.py: {error}", file=sys.stderr)
        return 2
    if arguments.mcp and find_spec("mcp") is None:
        print(
            f'app.py: --mcp needs: pip install "gradio[mcp]=={version("gradio")}"', file=sys.stderr
        )
        return 2
    logging.basicConfig(format="%(asctime)s %(message)s")
    logging.getLogger("lora_core").setLevel(logging.INFO)  # one line a run, without texts
    host = arguments.host or os.environ.get("GRADIO_SERVER_NAME") or "127.0.0.1"
    try:
        wanted = arguments.port or int(os.environ.get("GRADIO_SERVER_PORT") or FIRST_PORT)
        port = free_port(host, wanted)
    except (ValueError, OverflowError) as error:
        print(f"app.py: the port must be a number from 1 to 65535 ({error}).", file=sys.stderr)
        return 2
    except OSError as error:
        print(f"app.py: {host} cannot be listened on: {error}", file=sys.stderr)
        return 2
    if port != wanted:
        print(f"Port {wanted} is in use; LoRA Lab takes {port} instead.")
    ended = threading.Event()
    for name in ("SIGINT", "SIGTERM"):
        signal.signal(getattr(signal, name), lambda *_: ended.set())
    prepare_zero_gpu()
    with Registry(limits) as registry:
        page = build_page(registry, behind_proxy=arguments.behind_proxy)
        # No queue of Gradio's own: runs wait in the registry, everything else answers at once.
        page.queue(default_concurrency_limit=None, max_size=10_000)
        page.launch(
            server_name=host,
            server_port=port,
            share=arguments.share or None,
            max_threads=_THREADS,
            max_file_size=f"{limits.upload_mb}mb",
            mcp_server=arguments.mcp or None,
            prevent_thread_lock=True,
            quiet=True,
            **launch_options(),
        )
        make_room(page, registry.watchers)
        announce(host, port, page.share_url)
        threading.Thread(target=warm_up, daemon=True).start()
        if not arguments.no_browser and has_desktop():
            # A browser that $BROWSER names is waited for until it is closed; the end is not.
            address = f"http://127.0.0.1:{port}/"
            threading.Thread(target=webbrowser.open, args=(address,), daemon=True).start()
        ended.wait()
        print("Ending: running runs are stopped and keep their best weights.", flush=True)
        registry.close()
        time.sleep(_GOODBYE)
        page.close(verbose=False)
    return 0


def warm_up() -> None:
    """What the first run needs and the page does not: torch's first optimiser imports a compiler,
    which takes more than a second."""
    with contextlib.suppress(Exception):  # it may be cut short by the end of the app
        torch.optim.AdamW([torch.zeros(1, requires_grad=True)])


def parse(argv: list[str] | None = None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(
        prog="app.py", description="LoRA Lab: see and feel what LoRA fine-tuning does."
    )
    parser.add_argument("--host", help="address to listen on (default 127.0.0.1; 0.0.0.0: all)")
    parser.add_argument("--port", type=int, help=f"port (default {FIRST_PORT}, or the next free)")
    parser.add_argument("--share", action="store_true", help="a public link through Gradio's relay")
    parser.add_argument("--no-browser", action="store_true", help="do not open a browser")
    parser.add_argument("--mcp", action="store_true", help="also serve the web API as MCP tools")
    parser.add_argument(
        "--behind-proxy",
        action="store_true",
        help="tell visitors apart by the last address in X-Forwarded-For, which your proxy adds",
    )
    add_arguments(parser)
    return parser.parse_args(argv)


def free_port(host: str, wanted: int) -> int:
    """`wanted`, or the first free port after it. Raises `OSError` when there is none near."""
    for port in range(wanted, wanted + _PORTS_TRIED):
        with socket.socket() as probe:
            if os.name != "nt":  # as servers do: a port that was just given up is free
                probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind((host, port))
            except OSError:
                continue
            return port
    raise OSError(f"No free port from {wanted} to {wanted + _PORTS_TRIED - 1}.")


def announce(host: str, port: int, share_url: str | None) -> None:
    """Say where the page is; with a code to scan when other machines can reach it."""
    print(f"LoRA Lab is at http://127.0.0.1:{port}/  (Ctrl-C ends it)", flush=True)
    outside = share_url
    if not outside and host in ("0.0.0.0", "::"):
        outside = f"http://{own_address()}:{port}/"
    if outside:
        import segno

        print(f"Others find it at {outside}", flush=True)
        segno.make(outside, micro=False).terminal(compact=True)


def own_address() -> str:
    """This machine's address in its network, by asking the routing table; nothing is sent."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(("192.0.2.1", 9))  # TEST-NET-1: reserved, and a UDP connect sends nothing
            return str(probe.getsockname()[0])
        except OSError:
            return "127.0.0.1"


def has_desktop() -> bool:
    """Whether a browser opened from here would be seen by the person who started this."""
    elsewhere = ("SSH_CONNECTION", "SSH_TTY", "SPACE_ID", "KUBERNETES_SERVICE_HOST", "CI")
    if any(os.environ.get(name) for name in elsewhere):
        return False
    if Path("/.dockerenv").exists() or Path("/run/.containerenv").exists():
        return False
    if sys.platform.startswith("linux"):
        return bool(os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY"))
    return True


if __name__ == "__main__":
    sys.exit(main())
