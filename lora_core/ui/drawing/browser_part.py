"""Parts of the page that the browser draws itself, inside `gr.HTML`.

A `gr.Plot` is rebuilt at every update: it flickers and forgets its zoom. Here the component's value
is plain data (Gradio sends only what was added to it), its template never changes, and a script in
`assets/` draws whenever the value does. Use it so:

    figure = part("curves", {"runs": []}, script="curves.js", elem_id="curves")

and in the script `LoraLab.define("curves", ({element, props, trigger, draw}) => {...})`, where
`draw(callback)` calls back now, at each new value, and when the theme changes. Colours come from
`LoraLab.colour("frozen")`, layouts from `LoraLab.layout({...})`. A figure of plotly.js waits for
it with `LoraLab.whenPlotly(draw)`: four megabytes, fetched when the page stands.
"""

from __future__ import annotations

import functools
import hashlib
import io
from pathlib import Path
from typing import Any

import gradio as gr
import PIL.Image
import plotly
from starlette.requests import Request
from starlette.responses import FileResponse, JSONResponse, Response
from starlette.routing import Mount, Route
from starlette.staticfiles import StaticFiles

ASSETS = Path(__file__).resolve().parents[3] / "assets"
ICON_SIZES = (192, 512)  # of the icon of an installed page
PLOTLY = Path(plotly.__file__).parent / "package_data" / "plotly.min.js"


def routes(title: str) -> list[Route | Mount]:
    """What the server answers besides Gradio: our scripts, styles, pictures and plotly.js.

    Also what makes the page an app on a phone, in the place of Gradio's: its icons, made once and
    not at each request in any size, and its manifest, with addresses that hold behind a prefix.
    """

    async def plotly_js(_request: object) -> FileResponse:
        headers = {"Cache-Control": "public, max-age=31536000, immutable"}
        return FileResponse(PLOTLY, media_type="text/javascript", headers=headers)

    async def pwa_icon(request: Request) -> Response:
        size = request.path_params["size"]
        if size not in ICON_SIZES:
            return Response(status_code=404)
        return Response(icon(size), media_type="image/png")

    async def manifest(_request: object) -> JSONResponse:
        return JSONResponse(
            {
                "name": title,
                "icons": [
                    {
                        "src": f"pwa_icon/{size}",
                        "sizes": f"{size}x{size}",
                        "type": "image/png",
                        "purpose": "any",
                    }
                    for size in ICON_SIZES
                ],
                "start_url": "./",
                "display": "standalone",
            },
            media_type="application/manifest+json",
        )

    return [
        Route("/pwa_icon/{size:int}", pwa_icon),
        Route("/manifest.json", manifest),
        Route("/lab/plotly.min.js", plotly_js),
        Mount("/lab", StaticFiles(directory=ASSETS / "page")),
    ]


@functools.cache
def icon(size: int) -> bytes:
    """The page's icon as a PNG."""
    png = io.BytesIO()
    with PIL.Image.open(ASSETS / "page" / "icon.png") as picture:
        picture.resize((size, size)).save(png, format="PNG")
    return png.getvalue()


@functools.cache
def address(name: str) -> str:
    """Where the browser finds a file of `assets/page`, or plotly.js; changes with its content."""
    path = PLOTLY if name == PLOTLY.name else ASSETS / "page" / name
    return f"lab/{name}?v={hashlib.sha256(path.read_bytes()).hexdigest()[:10]}"


def script_tag(name: str) -> str:
    """A `<script>` for a file of `assets/page`, or plotly.js."""
    return f'<script src="{address(name)}"></script>'


def part(
    kind: str,
    value: Any = None,
    *,
    script: str = "",
    **kwargs: Any,
) -> gr.HTML:
    """A component that the browser draws: `LoraLab.define(kind, …)` in `assets/page/<script>`.

    `script`: "" for `lab.js` itself, which every page has from its start (`launch_options`).
    `value` is anything that JSON can hold. Other keywords go to `gr.HTML`; those that it does not
    know reach the script as `props`.
    """
    return gr.HTML(
        value,
        html_template=f'<div class="lab-part lab-{kind}"></div>',
        js_on_load=f"LoraLab.mount({kind!r}, {script!r}, element, props, trigger, watch);",
        head=script_tag(script) if script else None,
        apply_default_css=False,
        **kwargs,
    )
