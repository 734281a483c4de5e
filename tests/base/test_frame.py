"""What stands around a text; `tokenizers` and `transformers` are the judges."""

from __future__ import annotations

import copy
import json
import pickle
from pathlib import Path

import pytest
import torch
from tokenizers import Tokenizer, normalizers, processors
from transformers import AutoTokenizer, GPT2ForSequenceClassification

import lora_core as lc
from lora_core.base.frame import Frame, frame_of
from lora_core.base.tokenizer import (
    END_OF_TEXT,
    TokenizerError,
    encoding_of,
    encoding_record,
    load_encoding,
    load_tokenizer,
)
from lora_core.batches import encode_text, own_ids
from lora_core.classifier import batched_logits
from lora_core.pretraining.framing import frame_tokenizer
from tests.base.test_own_tokenizers import CUTTING, SENTENCES, texts, trained
from tests.cases.folders import tiny_folder

FOLDER = Path(__file__).resolve().parents[2] / "assets" / "base"
SPECIAL = ("<|endoftext|>", "<s>", "</s>", "<pad>")


def template(single: str) -> processors.PostProcessor:
    named = [(token, i) for i, token in enumerate(SPECIAL)]
    return processors.TemplateProcessing(single, None, named)


FRAMES = {
    "an end": template("$A <|endoftext|>"),
    "both": template("<s> $A </s>"),
    "several": template("<s> <s> $A </s> <|endoftext|>"),
    "nothing": template("$A"),
    "bytes alone": processors.ByteLevel(trim_offsets=False),
    "roberta": processors.RobertaProcessing(("</s>", 2), ("<s>", 1)),
    "bert": processors.BertProcessing(("</s>", 2), ("<s>", 1)),
    "in steps": processors.Sequence([processors.ByteLevel(), template("<s> $A")]),
}


def in_folder(tokenizer: Tokenizer, folder: Path) -> Path:
    tokenizer.save(str(folder / "tokenizer.json"))
    return folder


@pytest.mark.parametrize("name", FRAMES)
def test_a_text_is_framed_as_its_tokenizer_does_it(name, tmp_path) -> None:
    tokenizer = trained(CUTTING["gpt2"], special=SPECIAL)
    tokenizer.post_processor = FRAMES[name]
    encoding, _ = load_tokenizer(in_folder(tokenizer, tmp_path), 700)
    for text in texts(count=60):
        ids = encode_text(encoding, text, 1000)
        if text:
            assert ids == tokenizer.encode(text).ids, repr(text)
            assert own_ids(encoding, ids) == encoding.encode_ordinary(text)
    short = encode_text(encoding, SENTENCES[0], 9)
    tokenizer.enable_truncation(9)
    assert short == tokenizer.encode(SENTENCES[0]).ids  # the frame stays when a text is cut


def test_a_frame_that_cannot_be_read_is_a_sentence(tmp_path) -> None:
    tokenizer = trained(CUTTING["gpt2"], special=SPECIAL)
    rules = json.loads(tokenizer.to_str())
    for framing in (
        {"type": "Somebody"},
        {"type": "TemplateProcessing"},
        {"type": "TemplateProcessing", "single": [{"SpecialToken": {"id": "<x>"}}]},
        {"type": "BertProcessing", "sep": 1},
        {"type": "BertProcessing", "sep": ["</s>", 700], "cls": ["<s>", 0]},
        {"type": "BertProcessing", "sep": ["</s>", 2], "cls": ["<s>", -1]},
    ):
        (tmp_path / "tokenizer.json").write_text(json.dumps(rules | {"post_processor": framing}))
        with pytest.raises(TokenizerError, match="post_processor"):
            load_tokenizer(tmp_path, 700)


@pytest.mark.parametrize("padding", [None, 0, 3])
def test_the_answer_is_read_where_transformers_reads_it(padding, tmp_path) -> None:
    folder, _ = tiny_folder(tmp_path / "model", 700, 256, tokenizer=False)
    tokenizer = trained(CUTTING["gpt2"], size=600, special=SPECIAL)
    tokenizer.post_processor = FRAMES["an end"]
    in_folder(tokenizer, folder)
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(
        json.dumps(config | {"pad_token_id": padding, "eos_token_id": 0})
    )
    base = lc.load_base(folder)
    theirs = GPT2ForSequenceClassification.from_pretrained(folder, num_labels=2).eval()
    ours = base.classifier_model(2, torch.Generator().manual_seed(0))
    with torch.no_grad():
        theirs.score.weight.copy_(ours.head.weight)
        for text in SENTENCES[:4]:
            ids = torch.tensor([tokenizer.encode(text).ids])
            expected = theirs(input_ids=ids).logits
            logits = batched_logits(ours, [encode_text(base.tokenizer, text, 256)])
            torch.testing.assert_close(logits, expected, atol=1e-5, rtol=0)


def test_the_bundled_base_reads_one_end_of_text_behind_each_text(base) -> None:
    theirs = AutoTokenizer.from_pretrained(FOLDER)
    frame = frame_of(base.tokenizer)
    assert frame == Frame(after=(base.tokenizer.eot_token,), padding=theirs.pad_token_id)
    assert theirs.pad_token_id != theirs.eos_token_id == base.tokenizer.eot_token
    for text in [*SENTENCES, "<|endoftext|>", "<|pad|>", "a"]:
        ids = encode_text(base.tokenizer, text, 256)
        if "<|" not in text:  # there a special token in a text is that token
            assert ids == theirs(text).input_ids
        assert base.tokenizer.eot_token not in ids[:-1] and ids[-1] == base.tokenizer.eot_token
    long = "one two three " * 200
    assert encode_text(base.tokenizer, long, 256) == theirs(long, truncation=True).input_ids
    assert frame_of(lc.load_base(FOLDER).tokenizer) == frame


def test_a_batch_of_the_bundled_base_is_read_at_its_ends(base) -> None:
    theirs = GPT2ForSequenceClassification.from_pretrained(FOLDER, num_labels=3).float().eval()
    tokenizer = AutoTokenizer.from_pretrained(FOLDER)
    ours = base.classifier_model(3, torch.Generator().manual_seed(0))
    some = ["hi", "a longer text than the other", "!"]
    with torch.no_grad():
        theirs.score.weight.copy_(ours.head.weight)
        expected = theirs(**tokenizer(some, return_tensors="pt", padding=True)).logits
    logits = batched_logits(ours, [encode_text(base.tokenizer, text, 256) for text in some])
    torch.testing.assert_close(logits, expected, atol=1e-4, rtol=0)


def test_tokens_are_counted_without_the_frame(base, task) -> None:
    model = base.classifier_model(len(task.labels), torch.Generator().manual_seed(0))
    classifier = lc.Classifier(model, base.tokenizer, task.labels)
    assert classifier.classify("hi").tokens == len(base.tokenizer.encode_ordinary("hi"))
    full = classifier.classify("one two three " * 200)
    assert full.truncated and full.tokens == base.config.context_length - 1


@pytest.mark.parametrize(
    "make",
    [
        lambda: trained(CUTTING["gpt2"], special=SPECIAL),
        lambda: trained(CUTTING["a space in front"], alphabet=False, unk_token="<s>"),
        lambda: trained(CUTTING["cl100k"], normalizer=normalizers.Lowercase()),
        lambda: trained(
            CUTTING["gpt2"], normalizer=normalizers.Sequence([normalizers.NFD(), normalizers.NFC()])
        ),
    ],
)
def test_an_encoding_is_the_same_on_the_other_side(make, tmp_path) -> None:
    tokenizer = make()
    tokenizer.add_tokens(["<url>"])
    encoding, _ = load_tokenizer(in_folder(tokenizer, tmp_path), 800)
    again = encoding_of(json.loads(json.dumps(encoding_record(encoding))))
    assert frame_of(again) == frame_of(encoding) and again.eot_token == encoding.eot_token
    for text in [*texts(count=60), "see <url>"]:
        assert again.encode_ordinary(text) == encoding.encode_ordinary(text), repr(text)


def test_so_is_one_with_ids_in_another_order(tmp_path) -> None:
    rules = json.loads(trained(CUTTING["gpt2"]).to_str())
    vocabulary = rules["model"]["vocab"]
    rules["model"]["vocab"] = {t: len(vocabulary) - 1 - i for t, i in vocabulary.items()}
    for added in rules["added_tokens"]:
        added["id"] = rules["model"]["vocab"][added["content"]]
    (tmp_path / "tokenizer.json").write_text(json.dumps(rules))
    encoding, _ = load_tokenizer(tmp_path, 700)
    again = encoding_of(json.loads(json.dumps(encoding_record(encoding))))
    for text in SENTENCES:
        expected = Tokenizer.from_file(str(tmp_path / "tokenizer.json")).encode(text).ids
        assert again.encode_ordinary(text) == expected == encoding.encode_ordinary(text)


def test_a_copy_keeps_the_frame(base) -> None:
    for twin in (copy.deepcopy(base.tokenizer), pickle.loads(pickle.dumps(base.tokenizer))):
        assert frame_of(twin) == frame_of(base.tokenizer)
        assert encode_text(twin, "hello", 8) == encode_text(base.tokenizer, "hello", 8)


def test_a_framed_tokenizer_differs_in_its_last_piece_alone(tmp_path) -> None:
    rules = json.loads((FOLDER / "tokenizer.json").read_text("utf-8"))
    vocabulary = rules["model"]["vocab"]
    pieces = len(vocabulary)
    rules["post_processor"] = None
    rules["added_tokens"] = [rules["added_tokens"][-1] | {"id": pieces}]
    settings = json.loads((FOLDER / "tokenizer_config.json").read_text("utf-8"))
    settings |= {"pad_token": END_OF_TEXT, "add_eos_token": False}
    plain = tmp_path / "plain"
    plain.mkdir()
    (plain / "tokenizer.json").write_text(json.dumps(rules), "utf-8")
    (plain / "tokenizer_config.json").write_text(json.dumps(settings))
    (plain / "tokenizer.tiktoken").write_bytes((FOLDER / "tokenizer.tiktoken").read_bytes())
    frame_tokenizer(plain, tmp_path / "framed")
    before = load_encoding(plain / "tokenizer.tiktoken")
    after = load_encoding(tmp_path / "framed" / "tokenizer.tiktoken")
    assert (before.n_vocab, before.eot_token, frame_of(before)) == (pieces + 1, pieces, Frame())
    assert (after.n_vocab, after.eot_token) == (pieces + 1, pieces)
    assert frame_of(after) == Frame(after=(pieces,), padding=pieces - 1)
    theirs = AutoTokenizer.from_pretrained(tmp_path / "framed")
    for text in SENTENCES:
        ids = [i for i in before.encode_ordinary(text) if i != pieces - 1]
        assert set(ids) <= set(after.encode_ordinary(text))
        assert theirs(text).input_ids == encode_text(after, text, 256)
