"""Where the page can be reached: hosts, ports, the sentences that say so, and the browser.

Nothing is printed here; what a person should read is returned.
"""

from __future__ import annotations

import errno
import io
import ipaddress
import os
import re
import socket
import sys
import threading
import webbrowser
from dataclasses import dataclass
from pathlib import Path

import segno

from lora_core.config import ConfigError

FIRST_PORT = 7860
_PORTS_TRIED = 100
_TAKEN = (errno.EADDRINUSE, errno.EACCES)  # by another program; the next port may be free


@dataclass(frozen=True)
class Address:
    """A host to listen on, as the system knows it (no brackets), and a port."""

    host: str
    port: int

    @property
    def for_server(self) -> str:
        """The host as Gradio wants it: an IPv6 address in brackets."""
        return bracketed(self.host)

    @property
    def here(self) -> str:
        """The page's address on this machine."""
        host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(self.host, self.host)
        return f"http://{bracketed(host)}:{self.port}/"

    @property
    def outside(self) -> str:
        """The page's address for other machines; "" when only this one can reach it."""
        if space := os.environ.get("SPACE_HOST"):  # behind Hugging Face's proxy
            return f"https://{space}/"
        try:
            number = ipaddress.ip_address(self.host)
        except ValueError:  # a name: what it stands for decides
            inside = self.host == "localhost" or self.host.startswith("localhost.")
            return "" if inside else f"http://{self.host}:{self.port}/"
        if number.is_loopback:
            return ""
        host = own_address(number.version) if number.is_unspecified else self.host
        return f"http://{bracketed(host)}:{self.port}/" if host else ""


def bracketed(host: str) -> str:
    """The host as an address writes it."""
    return f"[{host}]" if ":" in host else host


def wanted_host(text: str) -> str:
    """The host that a person names: * is all. Raises `ConfigError` for an address with more."""
    host = text.strip()
    if host in ("*", "0"):
        return "0.0.0.0"
    named = re.fullmatch(r"(?:\w+://)?(\[[^\]]*\]|[^/:\s]+)(?::(\d+))?/?", host)
    if named and named[1] != host and not host.startswith("["):
        port = f", the port as --port {named[2]}" if named[2] else ""
        raise ConfigError(f"the host is {named[1]} alone{port}: not {host}.")
    return host


def free_address(host: str, wanted: int) -> Address:
    """`wanted`, or the first free port after it. Raises `OSError` when there is none near, or when
    this machine has no such host; `OverflowError` for what is no port."""
    host = host.strip().removeprefix("[").removesuffix("]")
    family, _, _, _, place = socket.getaddrinfo(host, 0, type=socket.SOCK_STREAM)[0]
    refused: OSError | None = None
    for port in range(wanted, wanted + _PORTS_TRIED):
        if not 0 < port < 65536:
            raise OverflowError(f"not {port}")
        try:
            _try(family, (place[0], port, *place[2:]))
            _try(socket.AF_INET, ("127.0.0.1", port))  # Gradio tries this one, whatever the host
        except OSError as error:
            refused = error
            if error.errno not in _TAKEN:
                raise
            continue
        return Address(host, port)
    raise OSError(f"no free port from {wanted} to {wanted + _PORTS_TRIED - 1} ({refused})")


def _try(family: int, place: tuple[object, ...]) -> None:
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        if os.name != "nt":  # as servers do: a port that was just given up is free
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            probe.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        probe.bind(place)


def announcement(address: Address, shared: str | None, encoding: str | None) -> str:
    """Where the page is; with a code to scan when other machines can reach it.

    `shared`: the public link, if there is one. `encoding`: of the console; one that has no blocks
    gets no code.
    """
    said = f"LoRA Lab is at {address.here}  (Ctrl-C ends it)\n"
    outside = shared or address.outside
    if outside:
        said += f"Others find it at {outside}\n{code(outside, encoding)}"
    return said


def code(address: str, encoding: str | None) -> str:
    """A QR code in half blocks, or "" where the console cannot show them."""
    drawn = io.StringIO()
    segno.make(address, micro=False).terminal(drawn, compact=True)
    try:
        drawn.getvalue().encode(encoding or "ascii")
    except (UnicodeEncodeError, LookupError):
        return ""
    return drawn.getvalue()


def own_address(version: int = 4) -> str:
    """This machine's address in its network, by asking the routing table; nothing is sent.

    "" without a network.
    """
    family = socket.AF_INET if version == 4 else socket.AF_INET6
    # Reserved for documentation; connecting over UDP sends nothing.
    far = "192.0.2.1" if version == 4 else "2001:db8::1"
    try:
        with socket.socket(family, socket.SOCK_DGRAM) as probe:
            probe.connect((far, 9))
            return str(probe.getsockname()[0])
    except OSError:
        return ""


def open_browser(address: str) -> None:
    """Open the page. A browser that $BROWSER names is waited for until it is closed, by nobody."""
    threading.Thread(target=webbrowser.open, args=(address,), daemon=True).start()


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
