"""The command line: addresses, limits, when a browser is opened, consoles, and a clean end."""

from __future__ import annotations

import json
import os
import signal
import socket
from pathlib import Path
from typing import Any

import httpx
import pytest

import app
from lora_core.devices import choose_device
from lora_core.limits import Limits
from lora_core.ui import hosts
from lora_core.ui.hosts import Address, free_address
from tests.servers import Server, served


def test_the_next_port_is_taken_when_one_is_in_use() -> None:
    with socket.socket() as busy:
        busy.bind(("127.0.0.1", 0))
        busy.listen()
        port = busy.getsockname()[1]
        address = free_address("127.0.0.1", port)
        assert port < address.port < port + 100
    assert free_address("127.0.0.1", address.port) == address


def test_limits_are_options() -> None:
    options = app.parse(["--max-steps", "77", "--host", "0.0.0.0", "--port", "8000"])
    assert Limits.from_arguments(options).max_steps == 77
    assert (options.host, options.port, options.share) == ("0.0.0.0", 8000, False)


def test_a_limit_that_makes_no_sense_is_said(capsys: pytest.CaptureFixture[str]) -> None:
    assert app.main(["--max-steps", "0"]) == 2
    assert "max_steps" in capsys.readouterr().err


def test_agents_need_an_extra_and_are_told(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(app, "find_spec", lambda name: None)
    assert app.main(["--mcp"]) == 2
    assert 'pip install "gradio[mcp]==' in capsys.readouterr().err


@pytest.mark.parametrize(
    ("cores", "memory", "processes"),
    [(8, 1_000_000, False), (16, 64_000, True), (64, 32_000, False), (192, 1_000_000, True)],
)
def test_many_cores_with_memory_for_them_get_processes(
    cores: int, memory: int, processes: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LORA_LAB_DEVICE", "cpu")
    choose_device.cache_clear()
    monkeypatch.setattr(app, "memory_mb", lambda: memory)
    monkeypatch.setattr(app, "available_cores", lambda: cores)
    monkeypatch.setattr(app, "Processes", lambda: "processes")
    monkeypatch.setattr(app, "Threads", lambda: "threads")
    executor, _ = app.where_runs_train(app.parse([]))
    assert executor == ("processes" if processes else "threads")
    choose_device.cache_clear()


@pytest.mark.parametrize("port", ["http", "99999", "-3"])
def test_a_port_that_makes_no_sense_is_said(
    port: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GRADIO_SERVER_PORT", port)
    assert app.main([]) == 2
    assert "1 to 65535" in capsys.readouterr().err


@pytest.mark.parametrize("host", ["203.0.113.7", "no-such-host.invalid"])
def test_a_host_that_is_not_this_machine_is_said(
    host: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert app.main(["--host", host]) == 2
    assert f"{host} cannot be listened on" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("host", "server", "here", "outside"),
    [
        ("127.0.0.1", "127.0.0.1", "http://127.0.0.1:80/", ""),
        ("127.0.0.5", "127.0.0.5", "http://127.0.0.5:80/", ""),
        ("localhost", "localhost", "http://localhost:80/", ""),
        ("::1", "[::1]", "http://[::1]:80/", ""),
        ("192.0.2.7", "192.0.2.7", "http://192.0.2.7:80/", "http://192.0.2.7:80/"),
        ("2001:db8::7", "[2001:db8::7]", "http://[2001:db8::7]:80/", "http://[2001:db8::7]:80/"),
        ("lab.local", "lab.local", "http://lab.local:80/", "http://lab.local:80/"),
        ("0.0.0.0", "0.0.0.0", "http://127.0.0.1:80/", "http://192.0.2.9:80/"),
        ("::", "[::]", "http://[::1]:80/", "http://[2001:db8::9]:80/"),
    ],
)
def test_the_address_that_is_announced_is_one_that_answers(
    host: str, server: str, here: str, outside: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    own = {4: "192.0.2.9", 6: "2001:db8::9"}
    monkeypatch.setattr(hosts, "own_address", lambda version: own[version])
    address = Address(host, 80)
    assert (address.for_server, address.here, address.outside) == (server, here, outside)


def test_a_code_to_scan_where_the_console_can_show_it() -> None:
    address = Address("192.0.2.7", 7860)
    for encoding in ("cp1252", "ascii", None, "no such encoding"):
        said = hosts.announcement(address, None, encoding)
        assert "Others find it at http://192.0.2.7:7860/" in said and said.isascii()
    assert "▄" in hosts.announcement(address, None, "utf-8")
    assert "Others" not in hosts.announcement(Address("127.0.0.1", 7860), None, "utf-8")
    shared = hosts.announcement(Address("127.0.0.1", 7860), "https://x.example", "utf-8")
    assert "Others find it at https://x.example" in shared


@pytest.mark.parametrize("host", ["::1", "::", "[::]", "127.0.0.3"])
def test_a_single_address_and_ipv6_are_served(host: str) -> None:
    with served("--host", host) as server:
        assert server.wait_for(r"LoRA Lab is at http://(\S+):\d+/")[1] in ("[::1]", "127.0.0.3")
        assert "Traceback" not in server.said


@pytest.mark.parametrize("encoding", ["cp1252", "ascii"])
def test_a_console_that_cannot_show_the_code_ends_nothing(encoding: str) -> None:
    with served("--host", "0.0.0.0", PYTHONIOENCODING=encoding) as server:
        assert server.address
    assert server.process.returncode == 0 and "Traceback" not in server.said


@pytest.mark.parametrize("name", ["SSH_CONNECTION", "SPACE_ID", "KUBERNETES_SERVICE_HOST", "CI"])
def test_no_browser_where_nobody_would_see_it(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DISPLAY", ":0")
    monkeypatch.setenv(name, "1")
    assert not hosts.has_desktop()


def test_a_browser_on_a_desktop_only(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("SSH_CONNECTION", "SSH_TTY", "SPACE_ID", "KUBERNETES_SERVICE_HOST", "CI"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(hosts.Path, "exists", lambda self: False)
    monkeypatch.setattr(hosts.sys, "platform", "linux")
    monkeypatch.delenv("WAYLAND_DISPLAY", raising=False)
    monkeypatch.setenv("DISPLAY", ":0")
    assert hosts.has_desktop()
    monkeypatch.delenv("DISPLAY")
    assert not hosts.has_desktop()
    monkeypatch.setattr(hosts.sys, "platform", "darwin")
    assert hosts.has_desktop()
    monkeypatch.setattr(hosts.Path, "exists", lambda self: str(self) == "/.dockerenv")
    assert not hosts.has_desktop()


def test_the_address_of_this_machine_is_one() -> None:
    address = hosts.own_address()
    assert not address or socket.inet_aton(address)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_it_cleanly(number: signal.Signals) -> None:
    with served("--host", "0.0.0.0") as server:
        assert server.address
        assert server.end(number) == 0, server.said
    assert "Traceback" not in server.said
    if "Others find it at" in server.said:  # there is a network
        assert "▄" in server.said or "█" in server.said, "a code to scan"


def test_it_ends_cleanly_while_questions_are_computed() -> None:
    """C++ code that is torn out of a function aborts the process, with status -6."""

    def post(name: str, **values: object) -> str:
        url = f"{server.address}/gradio_api/call/v2/{name}"
        said = httpx.post(url, json=values, timeout=60)
        return said.raise_for_status().json()["event_id"]

    def answer(name: str, **values: object) -> Any:
        url = f"{server.address}/gradio_api/call/{name}/{post(name, **values)}"
        lines = httpx.get(url, timeout=120).text.splitlines()
        return json.loads([line for line in lines if line.startswith("data: ")][-1][6:])

    settings = {"task": "sms-spam", "rank": 2}
    with served("--data", "none") as server:
        (run,) = answer("fine_tune", **settings, steps=5)
        assert "state" in str(answer("watch", run_id=run))  # read until it is over
        (endless,) = answer("fine_tune", **settings, steps=2000)
        assert endless != run
        for question in ("rank_knife", "knock_out", "merging", "forgetting") * 3:
            post(question, run_id=run)
        assert server.end() == 0, server.said
    assert "terminate called" not in server.said and "Traceback" not in server.said


BROWSER = """
import app, os, sys
app.has_desktop = lambda: True
sys.exit(app.main())
"""


def test_the_browser_that_it_opened_does_not_hold_it_up(tmp_path: Path) -> None:
    browser = tmp_path / "browser"
    browser.write_text('#!/bin/sh\necho "opened $$ $1"\nexec sleep 300 > /dev/null 2>&1\n')
    browser.chmod(0o755)
    with socket.socket() as busy:
        busy.bind(("127.0.0.1", 0))
        busy.listen()
        port = busy.getsockname()[1]
        server = Server("--port", str(port), code=BROWSER, BROWSER=str(browser))
        pid, address = server.wait_for(r"opened (\d+) (\S+)").groups()
        try:
            assert server.end(seconds=60) == 0, server.said  # while the browser is open
        finally:
            os.kill(int(pid), signal.SIGKILL)
    assert "Traceback" not in server.said
    assert f"Port {port} is in use" in server.said and f"LoRA Lab is at {address}" in server.said
    assert address != f"http://127.0.0.1:{port}/"
