"""The page's `<head>`: our style before the first paint, what a shared link shows, early scripts.

Gradio writes its own social tags into the page and adds an app's `head` only later, by script. This
small middleware puts ours in at the server, so nothing flashes, link previews show this page, and a
script can run before Gradio's.
"""

from __future__ import annotations

import html
import re
from typing import Any

from starlette.requests import Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from lora_core.ui.text.catalogue import say

_GRADIOS_TAGS = re.compile(
    rb'<meta\s+(?:property="og:|name="twitter:)[^>]*?/?>|<meta\s+name="description"[^>]*?/?>'
)

# The page is always a folder. Where its address came without the slash at its end, all that is
# addressed from here would be looked for beside it: by the browser, and by Gradio, which asks for
# our scripts from the address and not from <base>.
_SLASH = (
    b"<script>if (!location.pathname.endsWith('/')) try { history.replaceState(null, '', "
    b"location.pathname + '/' + location.search + location.hash); } catch { /* sandboxed */ }"
    b"</script>"
)


class Head:
    """ASGI middleware: replaces Gradio's social tags on "/" by ours, adds `style` and `scripts`."""

    def __init__(
        self, app: ASGIApp, *, title: str, text: str, style: str, picture: str, scripts: str
    ) -> None:
        self.app = app
        self.scripts = scripts  # tags
        self.title, self.text, self.style, self.picture = title, text, style, picture

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Everything but the page itself passes through untouched."""
        if (
            scope["type"] != "http"
            or scope["path"] != f"{scope.get('root_path', '')}/"
            or scope["method"] not in ("GET", "HEAD")
        ):
            await self.app(scope, receive, send)
            return
        start: list[Message] = []
        body = bytearray()

        async def collect(message: Message) -> None:
            if message["type"] == "http.response.start":
                start.append(message)
                return
            body.extend(message.get("body", b""))
            if message.get("more_body"):
                return
            request = Request(scope)
            page = self.rewrite(bytes(body), str(request.base_url), scope.get("root_path", ""))
            headers = [(k, v) for k, v in start[0]["headers"] if k.lower() != b"content-length"]
            headers.append((b"content-length", str(len(page)).encode()))
            await send({**start[0], "headers": headers})
            await send({"type": "http.response.body", "body": page})

        await self.app(scope, receive, collect)

    def rewrite(self, page: bytes, base_url: str, prefix: str = "") -> bytes:
        """The page with our tags instead of Gradio's; an empty answer (to HEAD) stays empty.

        `prefix`: where the page is published, "/lab", say: then addresses in it begin there, also
        when the page was opened without the slash at its end.
        """
        if b"</head>" not in page:
            return page
        page = page.replace(b'href="/manifest.json"', b'href="manifest.json"', 1)
        page = page.replace(b"<base ", _SLASH + b"<base ", 1)
        if prefix:
            page = page.replace(
                b'<base href="./"', f'<base href="{html.escape(prefix)}/"'.encode(), 1
            )
        return _GRADIOS_TAGS.sub(b"", page).replace(
            b"</head>", self.tags(base_url).encode() + b"</head>", 1
        )

    def tags(self, base_url: str) -> str:
        """Description, social tags with an absolute address of the picture, style and scripts."""
        picture = base_url.rstrip("/") + "/" + self.picture
        values: dict[str, Any] = {
            "og:type": "website",
            "og:title": self.title,
            "og:description": self.text,
            "og:url": base_url,
            "og:image": picture,
            "og:image:alt": say("page.picture", title=self.title),
        }
        tags = [
            # Named, or a browser looks for it beside the prefix of a proxy.
            '<link rel="icon" type="image/png" href="favicon.ico">',
            f'<meta name="description" content="{html.escape(self.text)}">',
        ]
        tags += [
            f'<meta property="{name}" content="{html.escape(value)}">'
            for name, value in values.items()
        ]
        tags.append('<meta name="twitter:card" content="summary_large_image">')
        return "".join(tags) + f"<style>{self.style}</style>{self.scripts}"
