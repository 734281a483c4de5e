"""What the command line says of a room that cannot be opened."""

from __future__ import annotations

import pytest

import app


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--new-key"], "belong to a room: add --room"),
        (["--exercises", "mine.toml"], "belong to a room: add --room"),
        (["--room", "--exercises", "none.toml"], "none.toml: there is no such file"),
    ],
)
def test_a_sentence_and_no_server(
    options: list[str], said: str, monkeypatch: pytest.MonkeyPatch, capsys
) -> None:
    monkeypatch.delenv("LORA_LAB_ROOM", raising=False)
    assert app.main(options) == 2
    assert said in capsys.readouterr().err
