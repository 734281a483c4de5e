"""A model's own tokenizer, read into tiktoken; `tokenizers` itself is the judge of every id."""

from __future__ import annotations

import json
import random
import sys
import unicodedata
from pathlib import Path

import pytest
from tokenizers import (
    AddedToken,
    Regex,
    Tokenizer,
    decoders,
    models,
    normalizers,
    pre_tokenizers,
    processors,
    trainers,
)
from transformers import GPT2Tokenizer

import lora_core as lc
from lora_core.base.byte_level_bpe import ByteLevelBPE
from lora_core.base.tokenizer import load_tokenizer
from tests.cases.folders import tiny_folder

SENTENCES = [
    "Zażółć gęślą jaźń. Wszyscy ludzie rodzą się wolni i równi pod względem swej godności.",
    "Füße, Straßen und Äpfel: alle Menschen sind frei und gleich an Würde und Rechten geboren.",
    "O coração não tem razão; todos os seres humanos nascem livres e iguais em dignidade.",
    "All people are born free. It's 1984, isn't it? They'll see 3.14159 and 100,000 of them!",
    "def f(x):\n    return x ** 2  # squared\n\n\tif f(12) == 144:\r\n        print('yes')\n",
    "Любите книгу. 日本語のテキスト、混ざっています。 한국어도 있습니다. עברית וגם العربية 🙂👍🏽",
    "   leading and trailing   \n\n  many    spaces\tand\ttabs  ",
]
CL100K = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*"
    r"|\s*[\r\n]+|\s+(?!\S)|\s+"
)


def byte_level(**more: bool) -> pre_tokenizers.PreTokenizer:
    return pre_tokenizers.ByteLevel(**{"add_prefix_space": False, **more})


def sequence(*steps: pre_tokenizers.PreTokenizer) -> pre_tokenizers.PreTokenizer:
    return pre_tokenizers.Sequence(list(steps))


CUTTING = {
    "gpt2": byte_level(),
    "a space in front": byte_level(add_prefix_space=True),
    "uncut": byte_level(use_regex=False),
    "digits one by one": sequence(pre_tokenizers.Digits(individual_digits=True), byte_level()),
    "digits together": sequence(pre_tokenizers.Digits(individual_digits=False), byte_level()),
    "cl100k": sequence(
        pre_tokenizers.Split(Regex(CL100K), "isolated"), byte_level(use_regex=False)
    ),
    "cl100k, inverted": sequence(
        pre_tokenizers.Split(Regex(CL100K), "removed", invert=True), byte_level(use_regex=False)
    ),
    "a split that leaves gaps": sequence(
        pre_tokenizers.Split(Regex(r"\p{N}+|[aeiou]+"), "isolated"), byte_level(use_regex=False)
    ),
    "a split by a string": sequence(
        pre_tokenizers.Split(". ", "isolated"), byte_level(use_regex=False)
    ),
}


def trained(
    cutting: pre_tokenizers.PreTokenizer,
    size: int = 700,
    *,
    alphabet: bool = True,
    special: tuple[str, ...] = ("<|endoftext|>",),
    normalizer: normalizers.Normalizer | None = None,
    **model: object,
) -> Tokenizer:
    tokenizer = Tokenizer(models.BPE(**model))
    tokenizer.pre_tokenizer = cutting
    tokenizer.decoder = decoders.ByteLevel()
    if normalizer is not None:
        tokenizer.normalizer = normalizer
    trainer = trainers.BpeTrainer(
        vocab_size=size,
        special_tokens=list(special),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet() if alphabet else [],
        show_progress=False,
    )
    tokenizer.train_from_iterator(SENTENCES[:5] * 20, trainer)
    return tokenizer


def texts(seed: int = 0, count: int = 300) -> list[str]:
    """The sentences, cut and put together at random, with letters of every script between."""
    chance = random.Random(seed)
    made = [*list(SENTENCES), "", " ", "\n", "a", "  \n \t x", "1234567890", "ab " * 50, "é" * 30]
    pieces = [word for text in SENTENCES for word in text.split(" ")] + [" ", "  ", "\n", "\r\n"]
    for _ in range(count):
        some = chance.choices(pieces, k=chance.randint(1, 12))
        odd = [chr(chance.choice([chance.randint(1, 0x2FF), chance.randint(0x300, 0xD7FF)]))]
        made.append(chance.choice(["", " "]).join(chance.sample(some + odd, len(some) + 1)))
    return made


def read(tokenizer: Tokenizer, folder: Path) -> ByteLevelBPE:
    folder.mkdir(exist_ok=True, parents=True)
    tokenizer.save(str(folder / "tokenizer.json"))
    encoding, remark = load_tokenizer(folder, tokenizer.get_vocab_size())
    assert isinstance(encoding, ByteLevelBPE) and (remark == "") == (encoding.missing_bytes == 0)
    return encoding


def assert_same(tokenizer: Tokenizer, encoding: ByteLevelBPE, some: list[str]) -> None:
    for text in some:
        theirs = tokenizer.encode(text, add_special_tokens=False).ids
        assert encoding.encode_ordinary(text) == theirs, repr(text)


@pytest.mark.parametrize("name", CUTTING)
def test_every_rule_of_cutting_gives_the_ids_of_tokenizers(name, tmp_path) -> None:
    tokenizer = trained(CUTTING[name])
    encoding = read(tokenizer, tmp_path)
    assert_same(tokenizer, encoding, texts())
    for text in SENTENCES:
        back = encoding.decode(encoding.encode_ordinary(text))
        assert back.removeprefix(" ") == text.removeprefix(" ")


@pytest.mark.parametrize("name", ["gpt2", "digits one by one", "cl100k"])
def test_every_character_is_cut_alike(name, tmp_path) -> None:
    """Alone, after a letter, a digit, a space, and before them."""
    tokenizer = trained(CUTTING[name], 400)
    encoding = read(tokenizer, tmp_path)
    different = []
    for code in range(1, sys.maxunicode + 1):
        letter = chr(code)
        if unicodedata.category(letter) in ("Cs", "Cn", "Co"):
            continue
        text = f"a{letter}b 1{letter}2 {letter} {letter}"
        theirs = tokenizer.encode(text, add_special_tokens=False).ids
        if encoding.encode_ordinary(text) != theirs:
            different.append(f"U+{code:04X} {unicodedata.category(letter)}")
    assert different == []


def test_ids_in_any_order_are_followed(tmp_path) -> None:
    """fairseq's vocabularies are sorted by frequency, not by merges."""
    content = json.loads(trained(CUTTING["gpt2"]).to_str())
    ids = list(content["model"]["vocab"].values())
    random.Random(3).shuffle(ids)
    shuffled = dict(zip(content["model"]["vocab"], ids, strict=True))
    content["model"]["vocab"] = shuffled
    content["added_tokens"][0]["id"] = shuffled["<|endoftext|>"]
    tokenizer = Tokenizer.from_str(json.dumps(content))
    encoding = read(tokenizer, tmp_path)
    assert_same(tokenizer, encoding, texts())
    assert encoding.eot_token == shuffled["<|endoftext|>"]


def test_merges_that_never_happen_change_nothing(tmp_path) -> None:
    """Pairs that spell a token made before, or whose parts are never made."""
    content = json.loads(trained(CUTTING["gpt2"]).to_str())
    merges, vocabulary = content["model"]["merges"], content["model"]["vocab"]
    chance = random.Random(1)
    count = len(merges)
    for token in [token for token in vocabulary if len(token) > 2]:
        made = {x + y: i for i, (x, y) in enumerate(merges)}
        for cut in range(1, len(token)):
            pair = [token[:cut], token[cut:]]
            known = all(part in made or len(part) == 1 for part in pair)
            if known and pair not in merges:
                after = 1 + max(made.get(part, -1) for part in pair)
                merges.insert(chance.randint(after, len(merges)), pair)
                break
    merges.append(["nevermade", "x"])
    vocabulary["nevermadex"], vocabulary["nevermade"] = 700, 701
    assert len(merges) > count + 10
    tokenizer = Tokenizer.from_str(json.dumps(content))
    assert_same(tokenizer, read(tokenizer, tmp_path), texts())


def test_merges_out_of_order_are_a_sentence(tmp_path) -> None:
    content = json.loads(trained(CUTTING["gpt2"]).to_str())
    content["model"]["merges"].reverse()
    (tmp_path / "tokenizer.json").write_text(json.dumps(content))
    with pytest.raises(lc.BaseError, match="before those that make their parts"):
        load_tokenizer(tmp_path, 700)


@pytest.mark.parametrize("unknown", [None, "<unk>"])
@pytest.mark.parametrize("fuse", [False, True])
def test_a_vocabulary_that_lacks_bytes(unknown, fuse, tmp_path) -> None:
    special = ("<|endoftext|>", "<unk>")
    tokenizer = trained(
        CUTTING["gpt2"], 300, alphabet=False, special=special, unk_token=unknown, fuse_unk=fuse
    )
    encoding = read(tokenizer, tmp_path)
    assert encoding.missing_bytes > 50
    assert_same(tokenizer, encoding, texts())
    assert "lacks" in load_tokenizer(tmp_path, 300)[1]


@pytest.mark.parametrize(
    "normalizer",
    [
        normalizers.NFC(),
        normalizers.Lowercase(),
        normalizers.Sequence([normalizers.NFKD(), normalizers.Lowercase()]),
    ],
)
def test_normalisation(normalizer, tmp_path) -> None:
    tokenizer = trained(CUTTING["gpt2"], normalizer=normalizer)
    some = [text for text in texts() if unicodedata.is_normalized("NFC", text)]
    assert_same(tokenizer, read(tokenizer, tmp_path), some)


@pytest.mark.parametrize("prefix_space", [False, True])
def test_added_tokens_are_found_in_the_text(prefix_space, tmp_path) -> None:
    tokenizer = trained(byte_level(add_prefix_space=prefix_space))
    tokenizer.add_tokens(
        [
            "<url>",
            "free",
            "freedom",
            AddedToken("@user", single_word=True),
            AddedToken("[b]", lstrip=True),
            AddedToken("[c]", rstrip=True),
            AddedToken("[raw]", normalized=False),
        ]
    )
    some = [
        "see <url> now", "<url>", "<url><url>", " <url> ", "all are freedom free", "freedoms",
        "@user hi", "a@user", "@users", "(@user)", "x  [b]  y", "[b][b]", "x  [c]  y", "[c]",
        "[c] [b]", "x [raw] y", "free <url>free\n[c]\n\n[b] @user @user",
    ]  # fmt: skip
    encoding = read(tokenizer, tmp_path)
    assert_same(tokenizer, encoding, some + texts())
    assert encoding.decode_single_token_bytes(tokenizer.token_to_id("<url>")) == b"<url>"


def test_a_special_token_in_a_text_is_text(tmp_path) -> None:
    tokenizer = trained(CUTTING["gpt2"], special=("<s>", "<|endoftext|>", "</s>", "<pad>"))
    tokenizer.post_processor = processors.TemplateProcessing(
        "<s> $A </s>", None, [("<s>", 0), ("</s>", 2)]
    )
    encoding = read(tokenizer, tmp_path)
    end = tokenizer.token_to_id("<|endoftext|>")
    assert encoding.eot_token == end
    assert end not in encoding.encode_ordinary("a<|endoftext|>b")
    assert encoding.decode(encoding.encode_ordinary("a<|endoftext|>b")) == "a<|endoftext|>b"
    assert encoding.encode("a<|endoftext|>b", allowed_special="all")[1:2] == [end]
    with pytest.raises(ValueError, match="endoftext"):
        encoding.encode("a<|endoftext|>b")
    assert load_tokenizer(tmp_path, 700, 2)[0].eot_token == 2  # as the model's config.json says


@pytest.mark.parametrize("prefix_space", [False, True])
def test_vocabulary_and_merges_as_gpt2tokenizer_reads_them(prefix_space, tmp_path) -> None:
    tokenizer = trained(CUTTING["gpt2"])
    tokenizer.model.save(str(tmp_path))
    settings = {"add_prefix_space": prefix_space, "tokenizer_class": "GPT2Tokenizer"}
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(settings))
    theirs = GPT2Tokenizer.from_pretrained(tmp_path)
    encoding, remark = load_tokenizer(tmp_path, len(theirs))
    assert remark == ""
    for text in texts():
        assert encoding.encode_ordinary(text) == theirs(text).input_ids, repr(text)
    assert encoding.eot_token == theirs.eos_token_id


def test_windows_line_ends_and_a_mark_in_front_are_read(tmp_path) -> None:
    tokenizer = trained(CUTTING["gpt2"])
    tokenizer.model.save(str(tmp_path))
    for name, mark in ("vocab.json", b"\xef\xbb\xbf"), ("merges.txt", b"\xef\xbb\xbf"):
        path = tmp_path / name
        path.write_bytes(mark + path.read_bytes().replace(b"\n", b"\r\n"))
    assert_same(tokenizer, load_tokenizer(tmp_path, 700)[0], texts())


def test_a_base_gets_its_own_tokens_never_the_english_ones(tmp_path) -> None:
    """50,257 tokens like the English one: only the files can tell."""
    tokenizer = trained(CUTTING["gpt2"], 700)
    folder, _ = tiny_folder(tmp_path / "polish", vocab=50257, width=8, layers=1, tokenizer=False)
    tokenizer.save(str(folder / "tokenizer.json"))
    base = lc.load_base(folder)
    assert base.remark == ""
    assert base.tokenizer.encode_ordinary(SENTENCES[0]) == tokenizer.encode(SENTENCES[0]).ids


UNREADABLE = {
    "wordpiece": (
        lambda: Tokenizer(models.WordPiece({"[UNK]": 0, "a": 1}, unk_token="[UNK]")),
        "WordPiece",
    ),
    "unigram": (lambda: Tokenizer(models.Unigram([("a", 0.0)])), "Unigram"),
    "words": (lambda: trained(pre_tokenizers.Whitespace()), "Whitespace"),
    "metaspace": (lambda: trained(pre_tokenizers.Metaspace()), "Metaspace"),
    "byte fallback": (lambda: trained(CUTTING["gpt2"], byte_fallback=True), "byte_fallback"),
    "suffix": (lambda: trained(CUTTING["gpt2"]), "end_of_word_suffix"),
    "replacing": (
        lambda: trained(CUTTING["gpt2"], normalizer=normalizers.Replace("a", "b")),
        "Replace",
    ),
    "two splits": (
        lambda: trained(
            sequence(
                pre_tokenizers.Punctuation(), pre_tokenizers.Digits(), byte_level(use_regex=False)
            )
        ),
        "Punctuation, Digits",
    ),
}


@pytest.mark.parametrize("name", UNREADABLE)
def test_what_is_no_byte_level_bpe_is_a_sentence(name, tmp_path) -> None:
    make, word = UNREADABLE[name]
    content = json.loads(make().to_str())
    if name == "suffix":
        content["model"]["end_of_word_suffix"] = "</w>"
    (tmp_path / "tokenizer.json").write_text(json.dumps(content), encoding="utf-8")
    with pytest.raises(lc.BaseError, match=word):
        load_tokenizer(tmp_path, 50257)


@pytest.mark.parametrize(
    ("files", "words"),
    [
        ({"vocab.txt": "a\nb"}, "WordPiece"),
        ({"spiece.model": "x"}, "SentencePiece"),
        ({"vocab.json": "{}"}, "merges.txt"),
        ({"merges.txt": ""}, "vocab.json"),
        ({"tokenizer.json": "{"}, "not JSON"),
        ({"tokenizer.json": "[1]"}, "one JSON object"),
        ({"tokenizer.json": '{"model": {"type": "BPE"}}'}, "no vocabulary"),
        ({"vocab.json": '{"a": "b"}', "merges.txt": ""}, "no id"),
        ({"vocab.json": '{"a": 1, "b": 2}', "merges.txt": "a b c"}, "no merge"),
        ({"vocab.json": '{"a": 1, "b": 2}', "merges.txt": "a b"}, "has no id"),
        ({"vocab.json": '{"多": 1}', "merges.txt": "多 多"}, "byte-level"),
        ({}, "no tokenizer"),
    ],
)  # fmt: skip
def test_damaged_and_missing_tokenizers_are_a_sentence(files, words, tmp_path) -> None:
    for name, content in files.items():
        (tmp_path / name).write_text(content, encoding="utf-8")
    with pytest.raises(lc.BaseError, match=words):
        load_tokenizer(tmp_path, 5000)


def test_a_stranger_s_rule_cannot_hold_the_process(tmp_path) -> None:
    """A rule that explodes ends in a sentence, not in a hang and not in a panic of Rust."""
    content = json.loads(trained(CUTTING["gpt2"]).to_str())
    content["pre_tokenizer"] = {
        "type": "Sequence",
        "pretokenizers": [
            {"type": "Split", "pattern": {"Regex": r"(?:(?=a)a+)+b"},
             "behavior": "Removed", "invert": True},
            {"type": "ByteLevel", "add_prefix_space": False, "use_regex": False},
        ],
    }  # fmt: skip
    (tmp_path / "tokenizer.json").write_text(json.dumps(content))
    encoding, _ = load_tokenizer(tmp_path, 700)
    with pytest.raises(lc.BaseError, match="cannot cut this text"):
        encoding.encode_ordinary("a" * 5000 + "!")
