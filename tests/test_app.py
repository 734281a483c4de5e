"""The command line: ports, limits, when a browser is opened, and a clean end."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

import app
from lora_core.limits import Limits

ROOT = Path(__file__).resolve().parents[1]


def test_the_next_port_is_taken_when_one_is_in_use() -> None:
    with socket.socket() as busy:
        busy.bind(("127.0.0.1", 0))
        busy.listen()
        port = busy.getsockname()[1]
        found = app.free_port("127.0.0.1", port)
        assert port < found < port + 100
    assert app.free_port("127.0.0.1", found) == found


def test_limits_are_options() -> None:
    arguments = app.parse(["--max-steps", "77", "--host", "0.0.0.0", "--port", "8000"])
    assert Limits.from_arguments(arguments).max_steps == 77
    assert (arguments.host, arguments.port, arguments.share) == ("0.0.0.0", 8000, False)


def test_a_limit_that_makes_no_sense_is_said(capsys: pytest.CaptureFixture[str]) -> None:
    assert app.main(["--max-steps", "0"]) == 2
    assert "max_steps" in capsys.readouterr().err


def test_agents_need_an_extra_and_are_told(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(app, "find_spec", lambda name: None)
    assert app.main(["--mcp"]) == 2
    assert 'pip install "gradio[mcp]==' in capsys.readouterr().err


@pytest.mark.parametrize("port", ["http", "99999"])
def test_a_port_that_makes_no_sense_is_said(
    port: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GRADIO_SERVER_PORT", port)
    assert app.main([]) == 2
    assert "1 to 65535" in capsys.readouterr().err


@pytest.mark.parametrize("name", ["SSH_CONNECTION", "SPACE_ID", "KUBERNETES_SERVICE_HOST", "CI"])
def test_no_browser_where_nobody_would_see_it(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DISPLAY", ":0")
    monkeypatch.setenv(name, "1")
    assert not app.has_desktop()


def test_a_browser_on_a_desktop_only(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("SSH_CONNECTION", "SSH_TTY", "SPACE_ID", "KUBERNETES_SERVICE_HOST", "CI"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(app.Path, "exists", lambda self: False)
    monkeypatch.setattr(app.sys, "platform", "linux")
    monkeypatch.delenv("WAYLAND_DISPLAY", raising=False)
    monkeypatch.setenv("DISPLAY", ":0")
    assert app.has_desktop()
    monkeypatch.delenv("DISPLAY")
    assert not app.has_desktop()
    monkeypatch.setattr(app.sys, "platform", "darwin")
    assert app.has_desktop()
    monkeypatch.setattr(app.Path, "exists", lambda self: str(self) == "/.dockerenv")
    assert not app.has_desktop()


def test_the_address_of_this_machine_is_one() -> None:
    socket.inet_aton(app.own_address())


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_it_cleanly(number: signal.Signals) -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [sys.executable, "app.py", "--port", str(port), "--no-browser", "--host", "0.0.0.0"]
    process = subprocess.Popen(
        command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    assert process.stdout is not None
    said = ""
    for line in process.stdout:
        said += line
        if "Others find it at" in line:
            break
    process.send_signal(number)
    rest, _ = process.communicate(timeout=120)
    assert process.returncode == 0, said + rest
    assert f"http://127.0.0.1:{port}/" in said and "Traceback" not in said + rest
    assert "▄" in rest or "█" in rest, "a code to scan"


def test_the_browser_that_it_opened_does_not_hold_it_up(tmp_path: Path) -> None:
    opened, browser = tmp_path / "opened", tmp_path / "browser"
    browser.write_text(
        f'#!/bin/sh\necho "$$ $1" > {opened}.new && mv {opened}.new {opened}\n'
        "exec sleep 300 > /dev/null 2>&1\n"
    )
    browser.chmod(0o755)
    with socket.socket() as busy:
        busy.bind(("127.0.0.1", 0))
        busy.listen()
        port = busy.getsockname()[1]
        desktop = "import app, sys; app.has_desktop = lambda: True; sys.exit(app.main())"
        process = subprocess.Popen(
            [sys.executable, "-c", desktop, "--port", str(port)],
            cwd=ROOT,
            env={**os.environ, "BROWSER": str(browser)},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        try:
            deadline = time.monotonic() + 120
            while not opened.exists() and time.monotonic() < deadline:
                time.sleep(0.1)
            pid, address = opened.read_text().split()
            try:
                process.send_signal(signal.SIGTERM)  # while the browser is open
                said, _ = process.communicate(timeout=60)
            finally:
                os.kill(int(pid), signal.SIGKILL)
        finally:
            process.kill()
    assert process.returncode == 0 and "Traceback" not in said, said
    assert f"Port {port} is in use" in said and f"LoRA Lab is at {address}" in said
    assert address != f"http://127.0.0.1:{port}/"
