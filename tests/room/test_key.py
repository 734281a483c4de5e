"""The teacher's key: kept, changed, a secret of the environment, and what a guess gets."""

from __future__ import annotations

import stat
from pathlib import Path

import pytest

from lora_core.config import ConfigError
from lora_core.room.key import VARIABLE, Key, choose_key
from lora_core.ui.hosts import Address
from lora_core.ui.room_setup import is_wanted, whereabouts


@pytest.fixture(autouse=True)
def plain(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in (VARIABLE, "SPACE_ID", "SPACE_HOST", "LORA_LAB_ROOM"):
        monkeypatch.delenv(name, raising=False)


def test_it_is_kept_where_there_is_a_store_and_changed_when_asked(tmp_path: Path) -> None:
    first = choose_key(tmp_path)
    assert len(first.secret) >= 32 and choose_key(tmp_path) == first
    assert stat.S_IMODE((tmp_path / "room-key").stat().st_mode) == 0o600
    second = choose_key(tmp_path, new=True)
    assert second != first and choose_key(tmp_path) == second
    assert choose_key(None) != choose_key(None)


def test_a_secret_of_the_environment_is_not_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(VARIABLE, "a secret of the Space")
    key = choose_key(tmp_path)
    assert key.opens("a secret of the Space") and list(tmp_path.iterdir()) == []
    said = whereabouts(key, None, Address("127.0.0.1", 7860))
    assert "a secret of the Space" not in said + repr(key) and VARIABLE in said
    assert "http://127.0.0.1:7860/desk#KEY" in said
    monkeypatch.setenv("SPACE_HOST", "somebody-lora-lab.hf.space")
    said = whereabouts(Key("another key"), None, Address("0.0.0.0", 7860))
    assert "https://somebody-lora-lab.hf.space/desk#another key" in said
    with pytest.raises(ConfigError, match="change it there"):
        choose_key(tmp_path, new=True)
    monkeypatch.setenv(VARIABLE, "short")
    with pytest.raises(ConfigError, match="at least 16 characters"):
        choose_key(tmp_path)


def test_a_space_needs_a_secret(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SPACE_ID", "somebody/lora-lab")
    with pytest.raises(ConfigError, match=VARIABLE):
        choose_key(None)


def test_what_opens() -> None:
    key = Key("a key that nobody can guess")
    assert key.opens("a key that nobody can guess") and key.passes(key.pass_)
    for tried in ("", "a key that nobody can gues", None, 3, [], "\ud800", key.pass_):
        assert not key.opens(tried), tried
    for shown in ("", None, "a key that nobody can guess", key.pass_[:-1], "é"):
        assert not key.passes(shown), shown
    assert "guess" not in repr(key) and key.pass_ != Key("another key, just as long").pass_


def test_the_environment_asks_for_a_room(monkeypatch: pytest.MonkeyPatch) -> None:
    assert is_wanted(True) and not is_wanted(False)
    for value, wanted in (("1", True), ("true", True), ("0", False), ("", False)):
        monkeypatch.setenv("LORA_LAB_ROOM", value)
        assert is_wanted(False) is wanted
