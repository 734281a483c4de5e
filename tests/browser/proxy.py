"""A small reverse proxy between the browser and the server, to be put in the way."""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import AsyncIterator

import httpx
import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse
from starlette.routing import Route

_HOP = ("connection", "content-length", "host", "transfer-encoding")  # not to be passed on


class Line:
    """A reverse proxy in a thread; subclasses disturb what passes."""

    def __init__(self, server: str) -> None:
        self.client = httpx.AsyncClient(base_url=server, timeout=None)
        route = Route("/{path:path}", self.forward, methods=["GET", "HEAD", "POST"])
        started = threading.Event()

        @contextlib.asynccontextmanager
        async def lifespan(_: Starlette) -> AsyncIterator[None]:
            started.set()
            yield

        app = Starlette(routes=[route], lifespan=lifespan)
        # Bound before the thread runs, so the browser's first request waits instead of failing;
        # to a port that the system chooses, so nobody can take it in between.
        listener = socket.create_server(("127.0.0.1", 0))
        self.port = int(listener.getsockname()[1])
        self.proxy = uvicorn.Server(uvicorn.Config(app, log_level="warning"))
        threading.Thread(target=self.proxy.run, args=([listener],), daemon=True).start()
        assert started.wait(60)

    def target(self, request: Request) -> tuple[str, dict[str, str]] | None:
        """What the server is asked for, and more headers; None for what is not published here."""
        return str(request.url.replace(scheme="", netloc="")), {}

    async def forward(self, request: Request) -> Response:
        """Ask the server the same, and pass its answer on as it comes."""
        target = self.target(request)
        if target is None:
            return Response("Not published here.", 404)
        url, more = target
        headers = [(k, v) for k, v in request.headers.items() if k not in _HOP and k not in more]
        headers += more.items()
        body = await request.body()
        await self.before(request)
        asked = self.client.build_request(request.method, url, content=body, headers=headers)
        answer = await self.client.send(asked, stream=True)
        answered = {k: v for k, v in answer.headers.items() if k not in _HOP}

        async def chunks() -> AsyncIterator[bytes]:
            try:
                async for chunk in answer.aiter_raw():
                    await self.passing(request, chunk)
                    yield chunk
            finally:
                await answer.aclose()

        return StreamingResponse(chunks(), answer.status_code, answered)

    async def before(self, request: Request) -> None:
        """Called before a request is passed on."""

    async def passing(self, request: Request, chunk: bytes) -> None:
        """Called before a part of an answer is passed on."""
