"""A Hub of our own on the loopback: the few routes that the client asks."""

from __future__ import annotations

import base64
import contextlib
import hashlib
import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import unquote, urlsplit

import pytest
from huggingface_hub import constants

COMMIT = "0" * 40  # of what is pushed


def commit_of(files: dict[str, bytes]) -> str:
    """Of what is read: other files are another commit."""
    return hashlib.sha1(repr(sorted(files.items())).encode()).hexdigest()


@contextlib.contextmanager
def hub_in_place(monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    """A Hub on this machine, in the place of the real one."""
    made = Hub()
    monkeypatch.setenv("HF_ENDPOINT", made.address)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)
    try:
        yield made
    finally:
        made.end()


def table_of(*columns: str, first: int = 0, last: int = 30) -> bytes:
    """A CSV of texts under the first name, and of labels that differ from column to column."""
    lines = [",".join(columns)]
    for i in range(first, last):
        for n, word in enumerate(("apple", "hammer", "pear", "saw")):
            labels = [f"{name} {(i + n) % (k + 2)}" for k, name in enumerate(columns[1:])]
            lines.append(",".join([f"the {word} number {i}", *labels]))
    return "\n".join([*lines, ""]).encode()


class Hub(ThreadingHTTPServer):
    """Repositories in memory: {(kind, name): {file: bytes}}."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.repositories: dict[tuple[str, str], dict[str, bytes]] = {}
        self.objects: dict[str, bytes] = {}  # uploaded LFS objects
        self.authorised: list[tuple[str, str]] = []  # (route, Authorization header)
        self.created: list[dict[str, object]] = []
        self.fetched: list[str] = []  # files that were downloaded, in order
        self.status: int | None = None  # answer everything with this
        threading.Thread(target=self.serve_forever, daemon=True).start()

    def end(self) -> None:
        self.shutdown()
        self.server_close()

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"


class Handler(BaseHTTPRequestHandler):
    """`/api/models/…`, `/{name}/resolve/…`, and what a commit needs."""

    server: Hub

    def log_message(self, *_: object) -> None:
        pass

    def _answer(self, status: int, body: bytes = b"", **headers: str) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def _json(self, value: object, status: int = 200) -> None:
        self._answer(status, json.dumps(value).encode(), Content_Type="application/json")

    def _begin(self) -> list[str] | None:
        length = int(self.headers.get("Content-Length") or 0)
        self.body = self.rfile.read(length)
        path = unquote(urlsplit(self.path).path)
        if self.headers.get("Authorization"):
            self.server.authorised.append((path, self.headers["Authorization"]))
        if self.server.status:
            self._json({"error": "as told"}, self.server.status)
            return None
        return path.strip("/").split("/")

    def do_GET(self) -> None:
        parts = self._begin()
        if parts is None:
            return
        if parts[0] == "api" and parts[1] in ("models", "datasets"):
            kind, name = parts[1][:-1], "/".join(parts[2:4])
            files = self.server.repositories.get((kind, name))
            if files is None:
                self._answer(404, X_Error_Code="RepoNotFound")
                return
            if "tree" in parts:
                self._json([{"type": "file", "path": f, "size": len(c), "oid": "0" * 40}
                            for f, c in files.items()])  # fmt: skip
                return
            siblings = [{"rfilename": f, "size": len(c)} for f, c in files.items()]
            self._json({"id": name, "sha": commit_of(files), "siblings": siblings, "private": False,
                        "downloads": 0, "likes": 0, "tags": [], "disabled": False})  # fmt: skip
            return
        kind = "dataset" if parts[0] == "datasets" else "model"
        parts = parts[1:] if kind == "dataset" else parts
        files = self.server.repositories.get((kind, "/".join(parts[:2])), {})
        file = "/".join(parts[4:])
        content = files.get(file)
        if content is None or parts[2] != "resolve":
            self._answer(404, X_Error_Code="EntryNotFound")
            return
        if self.command == "GET":
            self.server.fetched.append(file)
        digest = hashlib.sha256(content).hexdigest()
        self._answer(200, content, ETag=f'"{digest}"', X_Repo_Commit=commit_of(files))

    do_HEAD = do_GET  # noqa: N815

    def do_POST(self) -> None:
        parts = self._begin()
        if parts is None:
            return
        if parts == ["api", "repos", "create"]:
            wanted = json.loads(self.body)
            self.server.created.append(wanted)
            name = f"{wanted.get('organization') or 'me'}/{wanted['name']}"
            self.server.repositories.setdefault(("model", name), {})
            self._json({"url": f"{self.server.address}/{name}", "name": name, "id": name})
        elif parts[4:5] == ["preupload"]:
            files = json.loads(self.body)["files"]
            kinds = [
                {
                    "path": file["path"],
                    "uploadMode": "lfs" if file["path"].endswith(".safetensors") else "regular",
                    "shouldIgnore": False,
                }
                for file in files
            ]
            self._json({"files": kinds})
        elif parts[-3:] == ["lfs", "objects", "batch"]:
            wanted = json.loads(self.body)["objects"]
            objects = [
                {
                    "oid": o["oid"],
                    "size": o["size"],
                    "authenticated": True,
                    "actions": {"upload": {"href": f"{self.server.address}/put/{o['oid']}"}},
                }
                for o in wanted
            ]
            self._json({"transfer": "basic", "objects": objects})
        elif parts[4:5] == ["commit"]:
            self._commit("/".join(parts[2:4]))
        elif parts[:2] == ["api", "validate-yaml"]:
            self._json({"errors": [], "warnings": []})
        else:
            self._answer(404)

    def _commit(self, name: str) -> None:
        files = self.server.repositories[("model", name)]
        for line in self.body.splitlines():
            entry = json.loads(line)
            value = entry["value"]
            if entry["key"] == "file":
                files[value["path"]] = base64.b64decode(value["content"])
            elif entry["key"] == "lfsFile":
                files[value["path"]] = self.server.objects[value["oid"]]
        address = f"{self.server.address}/{name}/commit/{COMMIT}"
        self._json({"commitUrl": address, "commitOid": COMMIT, "hookOutput": "", "success": True})

    def do_PUT(self) -> None:
        parts = self._begin()
        if parts is not None:
            assert hashlib.sha256(self.body).hexdigest() == parts[1]
            self.server.objects[parts[1]] = self.body
            self._answer(200)
