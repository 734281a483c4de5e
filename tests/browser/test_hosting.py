"""The page where it is not on a port of its own: under a prefix, and in another site's frame."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import httpx
import pytest
from playwright.sync_api import BrowserContext, Page, expect
from starlette.requests import Request

from tests.browser.conftest import PATIENCE, Log, wait_for_state
from tests.browser.proxy import Line
from tests.servers import served


class Prefixed(Line):
    """Publishes the server under a prefix, as nginx and JupyterHub do, and nothing beside it."""

    def __init__(self, server: str, prefix: str, *, cut: bool, with_header: bool) -> None:
        self.prefix, self.cut, self.with_header = prefix, cut, with_header
        self.beside: list[str] = []  # what was asked for outside of the prefix
        super().__init__(server)

    def target(self, request: Request) -> tuple[str, dict[str, str]] | None:
        path = request.scope["raw_path"].decode()  # as the browser writes it
        if not path.startswith(self.prefix):
            self.beside.append(path)
            return None
        rest = path.removeprefix(self.prefix) or "/"
        url = str(request.url.replace(scheme="", netloc="", path=rest if self.cut else path))
        more = {"x-forwarded-host": request.headers["host"], "x-forwarded-proto": "http"}
        return url, more | ({"x-forwarded-prefix": self.prefix} if self.with_header else {})


@contextlib.contextmanager
def published(
    server: str, prefix: str, *, cut: bool, with_header: bool
) -> Iterator[tuple[Prefixed, str]]:
    proxy = Prefixed(server, prefix, cut=cut, with_header=with_header)
    try:
        yield proxy, f"http://127.0.0.1:{proxy.port}{prefix}/"
    finally:
        proxy.proxy.should_exit = True


def works(context: BrowserContext, log: Log, address: str, folder: Path) -> None:
    """A visit from the first paint to a file in the hand."""
    page = context.new_page()
    log.watch(page)
    page.goto(f"{address}?view=full&steps=10&batch_size=4&rank=1")
    page.wait_for_selector("#numbers .headline b")
    page.wait_for_selector("#curves .main-svg")
    page.wait_for_function("localStorage.getItem('lora-lab-visitor') !== null")
    page.click("#start")
    wait_for_state(page, "finished")
    expect(page.locator("#take-adapter")).to_be_enabled()
    with page.expect_download(timeout=PATIENCE) as download:
        page.click("#take-adapter")
    download.value.save_as(folder / "adapter.zip")
    assert (folder / "adapter.zip").read_bytes().startswith(b"PK\x03\x04")
    log.reload(page)
    wait_for_state(page, "finished")
    manifest = page.evaluate(
        "fetch(document.querySelector('link[rel=manifest]').href).then(a => a.json())"
    )
    for icon in manifest["icons"]:
        assert httpx.get(f"{address}{icon['src']}").status_code == 200
    assert not [url for url in log.failures if "iframeResizer" not in url], log.failures
    page.close()


@pytest.mark.parametrize(
    ("prefix", "cut"),
    [
        ("/lab", True),
        ("/user/me/proxy/7860", False),
        ("/user/me%40uni.edu/a%20b", True),
        ("/user/me%40uni.edu/a%20b", False),
    ],
)
def test_behind_a_prefix_that_the_environment_names(
    context: BrowserContext, log: Log, tmp_path: Path, prefix: str, cut: bool
) -> None:
    with (
        served(GRADIO_ROOT_PATH=prefix) as server,
        published(server.address, prefix, cut=cut, with_header=False) as (proxy, address),
    ):
        works(context, log, address, tmp_path)
        assert not proxy.beside


@pytest.mark.parametrize(
    ("prefix", "cut"), [("/courses/lora", True), ("/user/me%40uni.edu/proxy/7860", False)]
)
def test_behind_a_prefix_that_a_header_names(
    context: BrowserContext, server: str, log: Log, tmp_path: Path, prefix: str, cut: bool
) -> None:
    with published(server, prefix, cut=cut, with_header=True) as (proxy, address):
        works(context, log, address, tmp_path)
        assert not proxy.beside


def test_behind_a_prefix_that_nobody_names(
    context: BrowserContext, server: str, log: Log, tmp_path: Path
) -> None:
    with published(server, "/somewhere", cut=True, with_header=False) as (proxy, address):
        works(context, log, address, tmp_path)
        # Gradio's script for embedding pages looks for its helper before anything of ours runs.
        assert not [path for path in proxy.beside if "iframeResizer" not in path]


@pytest.mark.parametrize("with_header", [True, False], ids=["named", "unnamed"])
def test_without_the_slash_at_its_end(
    context: BrowserContext, server: str, log: Log, with_header: bool
) -> None:
    with published(server, "/courses/lora", cut=True, with_header=with_header) as (proxy, address):
        page = context.new_page()
        log.watch(page)
        page.goto(address.rstrip("/") + "?view=full&rank=2")
        page.wait_for_selector("#numbers .headline b")
        assert page.url.startswith(f"{address}?") and "rank=2" in page.url
        # Where nobody names the prefix, the browser looks for scripts before the page knows it.
        assert not with_header or not (proxy.beside or log.failures)


BLOCKED = """
if (window !== top)
  for (const name of ["localStorage", "sessionStorage"])
    Object.defineProperty(window, name, { configurable: true, get() {
      throw new DOMException("The document is sandboxed.", "SecurityError"); } });
"""


@contextlib.contextmanager
def embedding(source: str) -> Iterator[str]:
    """A site of another origin with the page in a frame."""
    content = f"<iframe id=lab width=1200 height=700 src='{source}'></iframe>".encode()

    class Site(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.send_header("Content-Type", "text/html")
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, *_: object) -> None: ...

    with ThreadingHTTPServer(("127.0.0.1", 0), Site) as site:
        threading.Thread(target=site.serve_forever, daemon=True).start()
        yield f"http://localhost:{site.server_port}/"
        site.shutdown()


def test_in_another_sites_frame_with_storage_blocked(
    context: BrowserContext, server: str, log: Log
) -> None:
    """As on a Space in a private window: everything works, and a reload is a new visitor."""
    context.add_init_script(BLOCKED)
    page = context.new_page()
    log.watch(page)
    source = f"{server}/?view=full&steps=10&batch_size=4&rank=1"
    with embedding(source) as address:
        page.goto(address)
        _trains_in_the_frame_and_forgets(page, log)
    uncaught = [text for text in log.console if text.startswith("uncaught")]
    assert not uncaught, uncaught


def _trains_in_the_frame_and_forgets(page: Page, log: Log) -> None:
    lab = page.frame_locator("#lab")
    expect(lab.locator("#numbers .headline b").first).to_be_visible()
    lab.locator("#start").click()
    expect(lab.locator('#status .lab-status[data-state="finished"]')).to_be_visible(
        timeout=PATIENCE
    )
    log.reload(page)
    expect(lab.locator("#numbers .headline b").first).to_be_visible()
    expect(lab.locator('#status .lab-status[data-state="idle"]')).to_be_visible()
