"""A tokenizer whose texts end in `<|endoftext|>`, with a token of its own to fill up batches.

`transformers`' classifier answers at the last token that is not padding, so what stands behind
every text must not be what batches are padded with. The last piece of the vocabulary, a rare one of
which no other is made, gives its place to `<|pad|>`: so the size stays, and every other id.
"""

from __future__ import annotations

import base64
import json
from pathlib import Path

from lora_core.base.tokenizer import END_OF_TEXT, PADDING, RANKS_FILE, read_ranks
from lora_core.base.tokenizer_files import JSON_FILE, SETTINGS_FILE

_SPECIAL = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False}


def frame_tokenizer(source: Path, out: Path) -> None:
    """Write the three tokenizer files of `source`, framed, into `out`; framed ones as they are."""
    rules = json.loads((source / JSON_FILE).read_text("utf-8"))
    settings = json.loads((source / SETTINGS_FILE).read_text("utf-8"))
    ranks = read_ranks(source / RANKS_FILE)
    tokens = sorted(ranks, key=lambda token: ranks[token])
    if settings["pad_token"] == END_OF_TEXT:
        tokens.pop()
        last = max(rules["model"]["vocab"], key=rules["model"]["vocab"].__getitem__)
        del rules["model"]["vocab"][last]
        rules["model"]["merges"].pop()
    padding, end = len(tokens), len(tokens) + 1
    rules["added_tokens"] = [
        {"id": number, "content": token, **_SPECIAL, "special": True}
        for number, token in ((padding, PADDING), (end, END_OF_TEXT))
    ]
    piece = {"SpecialToken": {"id": END_OF_TEXT, "type_id": 0}}
    text, second = ({"Sequence": {"id": name, "type_id": 0}} for name in "AB")
    rules["post_processor"] = {
        "type": "TemplateProcessing",
        "single": [text, piece],
        "pair": [text, second, piece],
        "special_tokens": {END_OF_TEXT: {"id": END_OF_TEXT, "ids": [end], "tokens": [END_OF_TEXT]}},
    }
    settings |= {"pad_token": PADDING, "add_eos_token": True}
    out.mkdir(parents=True, exist_ok=True)
    lines = (f"{base64.b64encode(t).decode()} {i}\n" for i, t in enumerate(tokens))
    (out / RANKS_FILE).write_text("".join(lines), encoding="ascii")
    text_of = json.dumps(rules, ensure_ascii=False, separators=(",", ":"))
    (out / JSON_FILE).write_text(text_of + "\n", encoding="utf-8")
    (out / SETTINGS_FILE).write_text(json.dumps(settings, indent=2) + "\n", encoding="utf-8")
