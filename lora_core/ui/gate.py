"""What of Gradio's server answers here, and under which address: everything else is not found.

Gradio has more routes than this page uses. Some compute (`/pwa_icon/12000`), read, write, print on
the host's console (`/monitoring`, `/gradio_api/custom_component`), fetch from another server
(`/gradio_api/file=https://…`, `/gradio_api/proxy=…`) or poll for ever (`/gradio_api/dev/reload`)
for anybody who asks. So the open ones are listed, and a route that a later Gradio adds is closed.

The address: behind a proxy the page lies under a prefix, which the proxy may cut off or leave. It
is known from `GRADIO_ROOT_PATH` or from the header `X-Forwarded-Prefix`, which the page sends when
the proxy does not; either way the inner application sees the complete public address.
"""

from __future__ import annotations

import re
from urllib.parse import unquote, urlsplit

from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from lora_core.ui.sentences import sentence_of

_READ = ("GET", "HEAD")
_NAME = r"[\w-]{1,80}"
OPEN: tuple[tuple[tuple[str, ...], str], ...] = (
    (_READ, r"/"),
    (_READ, r"/lab/.+"),  # ours
    (_READ, r"/(config|config/|favicon\.ico|theme\.css|robots\.txt|manifest\.json)"),
    (_READ, r"/pwa_icon/(192|512)"),
    (_READ, r"/(static|assets|svelte)/.+"),
    (_READ, r"/gradio_api/(info|info/|openapi\.json|app_id|app_id/|startup-events|theme\.css)"),
    (_READ, r"/gradio_api/(login_check|login_check/|user|user/)"),
    (_READ, r"/gradio_api/file=(?!.{1,12}://).+"),  # a path: not an address, nor part of one
    (_READ, r"/gradio_api/(queue/data|queue/status|upload_progress)"),
    (_READ, rf"/gradio_api/heartbeat/{_NAME}"),
    (_READ, rf"/gradio_api/call/(v2/)?{_NAME}/{_NAME}"),
    (("POST",), rf"/gradio_api/(call|call/v2|run|api)/{_NAME}/?"),
    (("POST",), r"/gradio_api/(queue/join|upload|cancel|reset|reset/)"),
    (("GET", "HEAD", "POST", "DELETE"), r"/gradio_api/mcp(/.*)?"),  # there with --mcp only
)
ROOM: tuple[tuple[tuple[str, ...], str], ...] = (  # with --room only
    (_READ, r"/(board|desk)"),
    (_READ, rf"/room/file/{_NAME}\.js"),
    (_READ, r"/room/(board|desk|pupil|runs\.csv|report\.html)"),
    (("POST",), r"/room/(enter|do|join|name)"),
)
_OPEN = [(methods, re.compile(pattern)) for methods, pattern in OPEN]
_ROOM = [(methods, re.compile(pattern)) for methods, pattern in ROOM]
# What an address may contain and HTML need not escape; other characters as %20 or %40.
_PREFIX = re.compile(r"(/([\w.~@:+-]|%[0-9A-Fa-f]{2})+)+")
_RANGE = re.compile(rb"bytes=\d{1,12}-(\d{1,12})?")  # others may be taken as none, and are
_HOST = re.compile(r"[\w.:\[\]-]{1,255}")


def is_open(method: str, path: str, room: bool = False) -> bool:
    """Whether a request gets further than this, by its method and its path without the prefix."""
    routes = [*_OPEN, *_ROOM] if room else _OPEN
    return any(method in methods and pattern.fullmatch(path) for methods, pattern in routes)


class Gate:
    """ASGI middleware around Gradio's routes, inside of its CORS and compression."""

    def __init__(self, app: ASGIApp, *, room: bool = False) -> None:
        """`room`: whether there is one, with routes of its own."""
        self.app, self.room = app, room

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass on what is open, with its public address; 404 for the rest."""
        if scope["type"] == "websocket":  # none is needed
            await receive()
            await send({"type": "websocket.close", "code": 1008})
            return
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        prefix, path = split(scope, self.room)
        if not _HOST.fullmatch(header(scope, b"host") or "-"):  # it would stand in the page
            await JSONResponse({"detail": "This host has no name."}, 400)(scope, receive, send)
            return
        # Gradio keeps an entry for each upload that it was ever asked about.
        endless = path == "/gradio_api/upload_progress" and len(scope["query_string"]) > 100
        if endless or not is_open(scope["method"], path, self.room):
            await JSONResponse({"detail": "Not Found"}, 404)(scope, receive, send)
            return
        begun = False

        async def noted(message: Message) -> None:
            nonlocal begun
            begun = True
            await send(message)

        try:
            await self.app(public(scope, prefix, path), receive, noted)
        except Exception as error:
            # Gradio raises for a function that is not there, and for a session that is over; the
            # server would write a hundred lines about it, as often as anybody asks.
            sentence = sentence_of(error, "call" if is_call(path) else path[1:40])
            if begun:
                await send({"type": "http.response.body", "body": b""})
            else:
                status = 404 if is_call(path) else 500
                sentence = "There is no such function here." if is_call(path) else sentence
                await JSONResponse({"detail": sentence}, status)(scope, receive, send)


def is_call(path: str) -> bool:
    """Whether a path calls a function by its name or number."""
    return path.startswith(("/gradio_api/call/", "/gradio_api/run/", "/gradio_api/api/")) or (
        path == "/gradio_api/queue/join"
    )


def split(scope: Scope, room: bool = False) -> tuple[str, str]:
    """The prefix under which the page is published, "" for none, and the path below it.

    A proxy that cuts the prefix off, and one that leaves it, are told apart by the path; where both
    readings are possible, the one that is a route of ours is meant. The prefix stays as the
    browser writes it: of "/user/me%40uni.edu", the path that arrives has the "@" already.
    """
    path: str = scope["path"]
    prefix = urlsplit(scope.get("root_path") or "").path.rstrip("/") or header(
        scope, b"x-forwarded-prefix"
    ).rstrip("/")
    named = unquote(prefix)
    if not _PREFIX.fullmatch(prefix) or any(part in (".", "..") for part in named.split("/")):
        return "", path
    if path == named:
        return prefix, "/"
    rest = path.removeprefix(named)
    if path.startswith(named + "/") and (
        is_open(scope["method"], rest, room) or not is_open(scope["method"], path, room)
    ):
        return prefix, rest
    return prefix, path


def public(scope: Scope, prefix: str, path: str) -> Scope:
    """The same request as if it had come to its public address directly."""
    host = header(scope, b"x-forwarded-host")
    headers = [(k, v) for k, v in scope["headers"] if k != b"range" or _RANGE.fullmatch(v)]
    if _HOST.fullmatch(host):
        headers = [(k, v) for k, v in headers if k not in (b"host", b"x-forwarded-host")]
        headers.append((b"host", host.encode("latin-1")))
    https = header(scope, b"x-forwarded-proto") == "https"
    return {
        **scope,
        "root_path": prefix,
        "path": prefix + path,
        "headers": headers,
        "scheme": "https" if https else scope["scheme"],
    }


def header(scope: Scope, name: bytes) -> str:
    """The first of the values that proxies have put into a header; "" without one."""
    for key, value in scope["headers"]:
        if key == name:
            return str(value.decode("latin-1")).split(",")[0].strip()
    return ""
