"""The bundled tokenizer: tiktoken and `tokenizers` agree on every id, and every string returns."""

import errno
import json
import random
import sys
from pathlib import Path

import pytest
import tiktoken
from tokenizers import Tokenizer

from lora_core.base import tokenizer
from lora_core.base.tokenizer import END_OF_TEXT, SPLIT_PATTERN, TokenizerError, load_encoding

ROOT = Path(__file__).resolve().parents[2]
FOLDER = ROOT / "assets" / "base"
CORPUS = ROOT.parent / "shared" / "corpus" / "val_core.txt"

TORTURE = [
    "",
    " ",
    "   leading, inner   and trailing   ",
    "\n\n\r\n\t \u00a0\u2003\u3000 x",
    "don't DON'T we'll they've I'M it's 'tis o'clock ''s",
    "1 12 123 1234567 ١٢٣٤ ⅷ ² ½ 3.14e-10 1,000,000",
    "Hello!!! ...\n\n\nWhat?!\r\nNo.\n",
    "naïve café Ångström e\u0301 A\u030a",
    "Ελληνικά русский עברית العربية हिन्दी ไทย 日本語 한국어 𐍈𐌰𐌹",
    "😀👩‍👩‍👧‍👦🏳️‍🌈🇩🇪 ❤️ ☎︎",
    "\u200b\u200d\ufeff\u202e\u0000\u0001\u007f\u0085\u2028\u2029\u180e",
    f"a{END_OF_TEXT}b <|endoftext |> <|im_start|>",
    "\\n \\u0041 %20 &amp; <br/> {json: [1, 2]} `code` ~~~ ^_^ ¯\\_(ツ)_/¯",
    "x" * 5000,
    " " * 3000 + "end",
    "\ue000\uffff\U000f0000\U0010ffff",
]


@pytest.fixture(scope="module")
def ours() -> tiktoken.Encoding:
    return load_encoding(FOLDER / "tokenizer.tiktoken")


@pytest.fixture(scope="module")
def theirs() -> Tokenizer:
    return Tokenizer.from_file(str(FOLDER / "tokenizer.json"))


def lines(count: int) -> list[str]:
    """Words, numbers, spaces, punctuation and foreign letters, put together by chance."""
    draw = random.Random(0)
    pieces = [
        " the",
        "Tom",
        "'s",
        "don't",
        " 1234",
        "...",
        "?!",
        " ",
        "  ",
        "\t",
        "\r\n",
        "\n",
        "é",
    ]
    pieces += [
        "ß",
        " мир",
        "日本",
        "😀",
        "\u00a0",
        "-",
        " (",
        ")",
        "$5.00",
        " @you",
        "LOL",
        " u",
        "'",
    ]
    out = []
    for _ in range(count):
        parts = draw.choices(pieces, k=draw.randint(1, 30))
        parts.insert(0, "".join(chr(draw.randint(32, 0x2FFF)) for _ in range(draw.randint(0, 5))))
        out.append("".join(parts))
    return out


def test_both_libraries_give_the_same_ids_on_ten_thousand_lines(ours, theirs):
    texts = lines(10_000)
    if CORPUS.is_file():
        texts += CORPUS.read_text(encoding="utf-8").split("\n")[:10_000]
    for text, other in zip(
        texts, theirs.encode_batch(texts, add_special_tokens=False), strict=True
    ):
        assert ours.encode_ordinary(text) == other.ids, text


@pytest.mark.parametrize("text", TORTURE, ids=range(len(TORTURE)))
def test_torture(ours, theirs, text):
    ids = ours.encode_ordinary(text)
    assert ours.decode_bytes(ids).decode("utf-8") == text
    if END_OF_TEXT not in text:
        assert theirs.encode(text, add_special_tokens=False).ids == ids
        assert theirs.decode(ids, skip_special_tokens=False) == text


def test_unicode_characters_are_cut_alike_and_return(ours, theirs):
    """A letter, a space, a digit and a comma around it show which class it was taken for."""
    for start in range(0, sys.maxunicode + 1, 0x4000):
        block = [c for c in range(start, start + 0x4000) if not 0xD800 <= c <= 0xDFFF]
        if start >= 0x20000:  # ideographs and unassigned planes: every 32nd will do
            block = block[::32]
        texts = [f"a{chr(c)}b {chr(c)}{chr(c)}1{chr(c)},{chr(c)}\n" for c in block]
        for text, other in zip(
            texts, theirs.encode_batch(texts, add_special_tokens=False), strict=True
        ):
            ids = ours.encode_ordinary(text)
            assert ids == other.ids, hex(ord(text[1]))
            assert ours.decode(ids) == text


def test_end_of_text_is_a_token_only_when_it_is_meant(ours, theirs):
    last = json.loads((FOLDER / "config.json").read_text("utf-8"))["vocab_size"] - 1
    assert ours.n_vocab == last + 1
    assert ours.eot_token == last
    assert ours.encode(END_OF_TEXT, allowed_special="all") == [last]
    assert last not in ours.encode_ordinary(END_OF_TEXT)
    assert theirs.token_to_id(END_OF_TEXT) == last


def test_the_two_files_split_by_the_same_pattern(theirs):
    assert SPLIT_PATTERN.replace("\\", "\\\\") in (FOLDER / "tokenizer.json").read_text("utf-8")


def test_transformers_opens_the_folder(ours):
    transformers = pytest.importorskip("transformers")
    other = transformers.AutoTokenizer.from_pretrained(FOLDER)
    text = "Congratulations, you've won 2 tickets!\nReply NOW."
    assert other(text)["input_ids"] == [*ours.encode_ordinary(text), ours.eot_token]
    assert other.decode(ours.encode_ordinary(text)) == text
    batch = other([text, "Hi"], padding=True)
    assert batch["input_ids"][1][-1] == other.pad_token_id == ours.eot_token - 1
    assert batch["attention_mask"][1][-1] == 0


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (None, "cannot be read"),
        ("QQ==", "damaged"),
        ("%%% 0\n", "damaged"),
        ("QQ== 0\n", "256"),
    ],
)
def test_a_broken_file_is_named_in_a_sentence(tmp_path, content, words):
    path = tmp_path / "tokenizer.tiktoken"
    if content is not None:
        path.write_text(content)
    with pytest.raises(TokenizerError, match=words) as error:
        load_encoding(path)
    assert "tokenizer.tiktoken" in str(error.value)


def test_gpt2_without_a_network_is_a_sentence(monkeypatch):
    def no_network(_name):
        raise ConnectionError("Max retries exceeded with url")

    tokenizer.gpt2_encoding.cache_clear()
    monkeypatch.setattr(tiktoken, "get_encoding", no_network)
    with pytest.raises(TokenizerError, match="is there a network"):
        tokenizer.gpt2_encoding()


def test_a_cache_that_cannot_be_written_is_not_a_missing_network(monkeypatch) -> None:
    """tiktoken says so of a folder that its user has named."""

    def full(_name):
        raise OSError(errno.ENOSPC, "No space left on device")

    tokenizer.gpt2_encoding.cache_clear()
    monkeypatch.setattr(tiktoken, "get_encoding", full)
    with pytest.raises(TokenizerError, match=r"TIKTOKEN_CACHE_DIR says: the disk is full"):
        tokenizer.gpt2_encoding()
