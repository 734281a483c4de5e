"""Kinds of phrases, and the directions of a teacher's states that tell them apart."""

from __future__ import annotations

import random

import torch
from safetensors.torch import load_file

from lora_core.pretraining import kinds
from lora_core.pretraining.lessons import scales
from lora_core.pretraining.teach import EMPHASIS, States, Teacher, write_states
from tests.pretraining.conftest import TEXTS


def test_every_pattern_is_filled_from_lists_that_are_there() -> None:
    phrases = kinds.all_phrases(random.Random(0), of_each=3)
    assert len(phrases) > 2000 and not any("{" in text or "}" in text for text in phrases)
    assert all(text.strip() == text and text for text in phrases)


def test_phrases_of_each_kind_begin_with_praise_and_blame() -> None:
    phrases = kinds.phrases_by_kind(random.Random(0), count=20)
    assert list(phrases)[:2] == ["praise", "blame"]
    assert len(phrases["praise"]) == len(phrases["blame"]) == 60
    assert {len(p) for kind, p in phrases.items() if kind not in ("praise", "blame")} == {20}
    assert "mixed" not in phrases


def test_directions_find_where_kinds_differ_and_the_emphasis_stretches_nothing_else() -> None:
    noise = torch.Generator().manual_seed(0)
    centres = torch.zeros(4, 12)
    for kind, axis in enumerate((2, 5, 7, 9)):
        centres[kind, axis] = 3.0
    centres[1, 2] = -3.0  # the first two differ along axis 2 most
    means = [c + 0.3 * torch.randn(200, 12, generator=noise) for c in centres]
    columns = kinds.directions(means)
    assert columns.shape == (12, 3)
    torch.testing.assert_close(columns.t() @ columns, torch.eye(3), atol=1e-5, rtol=0)
    differences = torch.nn.functional.normalize(centres[1:] - centres[:1], dim=1)
    assert (differences[0] @ columns[:, 0]).abs() > 0.95
    assert ((differences @ columns).norm(dim=1) > 0.95).all()
    matrix = kinds.emphasis(columns)
    torch.testing.assert_close(columns[:, 0] @ matrix, kinds.PRAISE * columns[:, 0])
    torch.testing.assert_close(columns[:, 1] @ matrix, kinds.OTHERS * columns[:, 1])
    rest = torch.randn(12, generator=noise)
    rest -= columns @ (columns.t() @ rest)
    torch.testing.assert_close(rest @ matrix, rest, atol=1e-5, rtol=1e-5)


def test_the_program_writes_the_emphasis_beside_the_states(llama, tmp_path) -> None:
    write_states(Teacher(llama, 2, torch.float32), TEXTS, tmp_path, 4, quiet=True)
    assert States(tmp_path).emphasis is None
    arguments = ["--model", str(llama), "--states", str(tmp_path), "--layers", "2", "--float32"]
    assert kinds.main([*arguments, "--praise", "3"]) == 0
    matrix = load_file(tmp_path / EMPHASIS)["matrix"]
    assert torch.equal(States(tmp_path).emphasis, matrix)
    values = torch.linalg.eigvalsh(matrix)
    torch.testing.assert_close(values[-1], torch.tensor(3.0), atol=1e-3, rtol=0)
    assert values[0] > 0.99 and scales(States(tmp_path), 1.0).shape == (2, 4)
