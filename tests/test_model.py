"""The GPT: padding, the last block's short cut, the meta device."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import torch

import lora_core as lc

ROOT = Path(__file__).resolve().parents[1]


def test_padding_never_changes_an_answer(small, ragged) -> None:
    tokens, lengths = ragged
    alone = torch.cat([small(tokens[i : i + 1, :n]) for i, n in enumerate(lengths.tolist())])
    for padding in (0, 1, 5, 36):
        for filler in (0, 96):
            padded = torch.cat([tokens, torch.full((5, padding), filler)], 1)
            torch.testing.assert_close(small(padded, lengths), alone, atol=1e-6, rtol=0)


def test_padding_never_changes_an_answer_of_the_real_base(base) -> None:
    model = base.classifier_model(4, torch.Generator().manual_seed(0))
    ids = base.tokenizer.encode_ordinary("Lovely room, dreadful breakfast, would stay again.")
    alone = model(torch.tensor([ids]))
    for padding in (1, 17, 200):
        padded = torch.tensor([ids + [base.tokenizer.eot_token] * padding])
        got = model(padded, torch.tensor([len(ids)]))
        torch.testing.assert_close(got, alone, atol=1e-6, rtol=0)


def test_the_last_block_at_one_position_equals_all_positions(small, ragged) -> None:
    tokens, lengths = ragged
    everywhere = small.hidden(tokens)[torch.arange(5), lengths - 1]
    torch.testing.assert_close(small.last_hidden(tokens, lengths), everywhere, atol=1e-6, rtol=0)


def test_no_token_sees_the_future(small) -> None:
    tokens = torch.randint(0, 97, (1, 20))
    changed = tokens.clone()
    changed[0, 10:] = (changed[0, 10:] + 1) % 97
    before, after = small.hidden(tokens), small.hidden(changed)
    torch.testing.assert_close(before[:, :10], after[:, :10], atol=1e-6, rtol=0)
    assert (before[:, 10:] - after[:, 10:]).abs().max() > 1e-3


def test_a_text_beyond_the_context_is_refused_in_words(small) -> None:
    with pytest.raises(ValueError, match="49 tokens is longer than the context of 48"):
        small(torch.zeros(1, 49, dtype=torch.long))


@pytest.mark.parametrize(
    ("settings", "word"),
    [
        ((97, 48, 25, 2, 3), "multiple"),
        ((0, 48, 24, 2, 3), "vocab_size"),
        ((97, 48, 24, 2.0, 3), "n_layers"),
    ],
)
def test_impossible_shapes_are_a_sentence(settings: tuple, word: str) -> None:
    with pytest.raises(lc.ConfigError, match=word):
        lc.GPTConfig(*settings)


def test_a_model_whose_weights_are_read_starts_without_torchs_compiler() -> None:
    """It would cost every start of the app a second."""
    program = (
        "import sys, lora_core as lc\n"
        "base = lc.load_base('bundled')\n"
        "assert not any(p.is_meta for p in base.model.parameters())\n"
        "print('torch._dynamo' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True)
    assert done.stdout.strip() == "False", done.stderr
