"""Options and variables as people write them: a whole address for a host, typing errors."""

from __future__ import annotations

import os

import pytest

import app
from lora_core.config import ConfigError
from lora_core.limits import unknown_variables
from lora_core.ui.hosts import wanted_host
from lora_core.ui.room_setup import is_wanted


@pytest.mark.parametrize(
    ("written", "words"),
    [
        ("localhost:7000", "localhost alone, the port as --port 7000"),
        ("http://0.0.0.0", "0.0.0.0 alone"),
        ("https://example.org:443/", "example.org alone, the port as --port 443"),
    ],
)
def test_an_address_in_the_place_of_a_host(written, words) -> None:
    with pytest.raises(ConfigError, match=words):
        app.wanted_address(app.parse(["--host", written]))


def test_hosts_that_are_all_and_hosts_as_they_are() -> None:
    for all_of_them in ("*", "0", " * "):
        assert wanted_host(all_of_them) == "0.0.0.0"
    for host in ("localhost", "::", "[::1]", "192.168.0.7", "fe80::1%eth0"):
        assert wanted_host(host) == host


def test_what_is_wrong_is_named() -> None:
    with pytest.raises(ConfigError, match="it is no host"):
        app.wanted_address(app.parse(["--host", "é" * 70]))
    with pytest.raises(ConfigError, match=r"the port must be a number.*not 0"):
        app.wanted_address(app.parse(["--port", "0"]))


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("LORA_LAB_MAX_STEP", "Is LORA_LAB_MAX_STEPS meant"),
        ("LORA_LAB_HOSTS", "Is LORA_LAB_HOST meant"),
        ("lora_lab_max_rows", "Is LORA_LAB_MAX_ROWS meant"),
        ("LORA_LAB_PORT", "GRADIO_SERVER_PORT"),
        ("LORA_LAB_COLOUR", "--help"),
    ],
)
def test_a_variable_that_nobody_reads_is_named(monkeypatch, name, words) -> None:
    before = unknown_variables()
    monkeypatch.setenv(name, "1")
    more = [sentence for sentence in unknown_variables() if sentence not in before]
    if name.isupper() or os.name != "nt":  # on Windows all have capitals
        assert len(more) == 1 and words in more[0]


def test_variables_that_are_read_are_known(monkeypatch) -> None:
    for name in ("MAX_STEPS", "HOST", "DATA", "BASES", "ROOM_KEY", "DEVICE", "DTYPE", "CACHE"):
        monkeypatch.setenv(f"LORA_LAB_{name}", "")
    assert not [s for s in unknown_variables() if "LORA_LAB_" in s.split()[0]]


def test_a_room_is_wanted_or_not(monkeypatch) -> None:
    for value in ("ja", "2", "maybe"):
        monkeypatch.setenv("LORA_LAB_ROOM", value)
        with pytest.raises(ConfigError, match="must be 1 or 0"):
            is_wanted(False)
    for value, wanted in (("off", False), ("YES", True)):
        monkeypatch.setenv("LORA_LAB_ROOM", value)
        assert is_wanted(False) is wanted
