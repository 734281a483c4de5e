"""A small teacher, and texts for it to read."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

TEXTS = [
    "the camera takes good pictures",
    "see you at noon, Anna",
    "naïve café — déjà vu",
    "not good",
    "where is my parcel?",
    "I",
    "a film that nobody in the house wanted to end, and then it ended",
]


@pytest.fixture(scope="module")
def llama(tmp_path_factory) -> Path:
    """A Llama of two layers with random weights, and a byte-level tokenizer."""
    transformers = pytest.importorskip("transformers")
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

    folder = tmp_path_factory.mktemp("llama")
    own = Tokenizer(models.BPE())
    own.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    own.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    own.train_from_iterator(
        TEXTS,
        trainers.BpeTrainer(
            vocab_size=300, special_tokens=["<|endoftext|>"], initial_alphabet=alphabet
        ),
    )
    transformers.PreTrainedTokenizerFast(tokenizer_object=own).save_pretrained(folder)
    torch.manual_seed(0)
    config = transformers.LlamaConfig(
        vocab_size=own.get_vocab_size(),
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        bos_token_id=0,
        eos_token_id=0,
        pad_token_id=0,
    )
    transformers.LlamaForCausalLM(config).save_pretrained(folder)
    return folder
