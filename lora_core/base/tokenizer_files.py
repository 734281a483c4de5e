"""The tokenizer that lies in a model's folder: tokenizer.json, or vocab.json and merges.txt.

Only byte-level BPE can be read, which is what a GPT-2 has; any other kind is named in a sentence.
Nothing is guessed: a setting that changes the ids and cannot be followed is a sentence as well.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from lora_core.base.byte_level_bpe import (
    DIGITS_PATTERN,
    GPT2_PATTERN,
    MAX_TOKENS,
    AddedToken,
    ByteLevelBPE,
    Pair,
    live_merges,
    token_bytes,
)
from lora_core.base.errors import TokenizerError
from lora_core.base.frame import Frame
from lora_core.base.text_files import read_json, read_text

JSON_FILE, VOCABULARY_FILE, MERGES_FILE = "tokenizer.json", "vocab.json", "merges.txt"
SETTINGS_FILE = "tokenizer_config.json"
_SETTINGS_FILES = (SETTINGS_FILE, "special_tokens_map.json", "added_tokens.json")
# All that may lie in a model's folder for its tokenizer, ours (.tiktoken) first.
TOKENIZER_FILES = (
    "tokenizer.tiktoken", JSON_FILE, VOCABULARY_FILE, MERGES_FILE, *_SETTINGS_FILES
)  # fmt: skip
MAX_BYTES = 64 * 2**20  # of one of these files; GPT-2's tokenizer.json has 1.4 MB
# Files of other kinds of tokenizers, and what they are.
OTHER_KINDS = {
    "vocab.txt": "WordPiece (vocab.txt)",
    "spiece.model": "SentencePiece (spiece.model)",
    "tokenizer.model": "SentencePiece (tokenizer.model)",
    "sentencepiece.bpe.model": "SentencePiece (sentencepiece.bpe.model)",
}
_MAX_PATTERN = 4000
_END_NAMES = ("<|endoftext|>", "</s>", "<eos>", "<|end_of_text|>", "[SEP]", "<s>", "<pad>")
_NORMALIZERS = ("NFC", "NFD", "NFKC", "NFKD", "Lowercase")

Settings = Mapping[str, Any]


def read_json_tokenizer(folder: Path, end_of_text: int | None) -> ByteLevelBPE:
    """The tokenizer of a `tokenizer.json`. Raises `TokenizerError`.

    `end_of_text` is the id that the model's `config.json` gives to the end of a text, if it does.
    """
    path = folder / JSON_FILE
    content = read_object(path)
    model = content.get("model")
    if not isinstance(model, dict):
        raise TokenizerError(f"{path} describes no tokenizer: it has no model.")
    kind = model.get("type") or ("BPE" if "merges" in model else "of no named kind")
    if kind != "BPE":
        raise _not_byte_level(path, f"its model is {kind}")
    for key in ("continuing_subword_prefix", "end_of_word_suffix", "byte_fallback"):
        if model.get(key):
            raise _not_byte_level(path, f"{key} is set")
    vocabulary, merges = model.get("vocab"), model.get("merges")
    if not isinstance(vocabulary, dict) or not isinstance(merges, list):
        raise TokenizerError(f"{path} holds no vocabulary, or no merges.")
    pattern, prefix_space = _cutting(path, content.get("pre_tokenizer"))
    added, special = _added(path, content.get("added_tokens"))
    return _build(
        path,
        vocabulary,
        [_pair(path, merge) for merge in merges],
        pattern=pattern,
        prefix_space=prefix_space,
        normalizers=_normalizers(path, content.get("normalizer")),
        frame=_frame(path, content.get("post_processor")),
        added=added,
        special=special,
        unknown=model.get("unk_token"),
        fuses_unknown=bool(model.get("fuse_unk")),
        ignores_merges=bool(model.get("ignore_merges")),
        end_of_text=end_of_text,
    )


def read_vocabulary_and_merges(folder: Path, end_of_text: int | None) -> ByteLevelBPE:
    """The tokenizer of a `vocab.json` and a `merges.txt`, as GPT2Tokenizer reads them.

    What `tokenizer_config.json`, `special_tokens_map.json` and `added_tokens.json` add, where they
    are there, is followed. Raises `TokenizerError`.
    """
    vocabulary = read_object(folder / VOCABULARY_FILE)
    path = folder / MERGES_FILE
    lines = _text(path).split("\n")
    merges = [
        _pair(path, line)
        for i, line in enumerate(line.rstrip("\r") for line in lines)
        if line.strip() and not (line.startswith("#version") and i < 5)
    ]
    settings = read_optional(folder / SETTINGS_FILE)
    named = settings | read_optional(folder / "special_tokens_map.json")
    kind = str(settings.get("tokenizer_class") or "GPT2Tokenizer")
    if not re.match(r"(GPT2|Roberta|PreTrained|GPTNeoX|Longformer|Bart|Blenderbot)", kind):
        raise _not_byte_level(folder / SETTINGS_FILE, f"its class is {kind[:60]}")
    entries = []
    decoder = settings.get("added_tokens_decoder")
    for key, entry in (decoder if isinstance(decoder, dict) else {}).items():
        if isinstance(entry, dict) and str(key).isdigit():
            entries.append({**entry, "id": int(key)})
    names = [named.get(key) for key in named if str(key).endswith("_token")]
    more = named.get("additional_special_tokens")
    names += more if isinstance(more, list) else []
    specials = {n.get("content") if isinstance(n, dict) else n for n in names} | {"<|endoftext|>"}
    known = {entry.get("content") for entry in entries}
    everything = {**vocabulary, **read_optional(folder / "added_tokens.json")}
    for token, number in everything.items():
        if token not in known and (token in specials or token not in vocabulary):
            entries.append({"content": token, "id": number, "special": token in specials})
    added, special = _added(folder / SETTINGS_FILE, entries)
    return _build(
        folder / VOCABULARY_FILE,
        vocabulary,
        merges,
        pattern=GPT2_PATTERN,
        prefix_space=bool(settings.get("add_prefix_space")),
        frame=Frame(),
        added=added,
        special=special,
        unknown=None,  # GPT2Tokenizer has an unknown token, and never tells its BPE of it
        fuses_unknown=False,
        ignores_merges=False,
        end_of_text=end_of_text,
    )


def _build(
    path: Path,
    vocabulary: Mapping[str, Any],
    merges: Sequence[tuple[str, str]],
    *,
    added: Sequence[AddedToken],
    special: Mapping[str, int],
    unknown: object,
    ignores_merges: bool,
    end_of_text: int | None,
    **rules: Any,
) -> ByteLevelBPE:
    if not 1 <= len(vocabulary) <= MAX_TOKENS or len(merges) > MAX_TOKENS:
        raise TokenizerError(f"{path} holds no tokens, or more than {MAX_TOKENS:,}.")
    for token, number in vocabulary.items():
        if not isinstance(number, int) or isinstance(number, bool) or not 0 <= number < 2**31:
            raise TokenizerError(f"{path}: the token {token[:40]!r} has no id that is a number.")
    if merges and sum(y.endswith("</w>") for _, y in merges) > len(merges) // 4:
        raise _not_byte_level(path, "its words end in </w>")
    spelt: dict[bytes, int] = {}
    for token, number in vocabulary.items():
        raw = token_bytes(token)
        if raw:
            spelt[raw] = number
    pairs: list[Pair] = []
    for x, y in merges:
        left, right = token_bytes(x), token_bytes(y)
        if left is None or right is None:
            raise _not_byte_level(path, f"it merges {x[:20]!r} and {y[:20]!r}, which are no bytes")
        if left + right not in spelt:
            raise TokenizerError(f"{path}: what {x[:20]!r} and {y[:20]!r} merge to has no id.")
        pairs.append((left, right))
    alphabet = {token for token in spelt if len(token) == 1}
    live = live_merges(pairs, alphabet)
    reached = alphabet | {x + y for x, y in live}
    if ignores_merges and spelt.keys() - reached - {s.encode() for s in special}:
        raise TokenizerError(
            f"{path}: some of its tokens can be reached without merges alone (ignore_merges), "
            "which cannot be followed here."
        )
    end = end_of_text if end_of_text is not None else _end_of_text(special, vocabulary)
    return ByteLevelBPE(
        path.parent.name or "own",
        ids={token: number for token, number in spelt.items() if token in reached},
        merges=live,
        special=special,
        end_of_text=end,
        added=added,
        unknown=_unknown(unknown, special, vocabulary),
        **rules,
    )


def _unknown(
    token: object, special: Mapping[str, int], vocabulary: Mapping[str, Any]
) -> int | None:
    if not isinstance(token, str):
        return None
    number = special.get(token, vocabulary.get(token))
    return number if isinstance(number, int) else None


def _end_of_text(special: Mapping[str, int], vocabulary: Mapping[str, Any]) -> int:
    for name in _END_NAMES:
        number = special.get(name, vocabulary.get(name))
        if isinstance(number, int):
            return number
    return max([*special.values(), *vocabulary.values()])


def _pair(path: Path, merge: object) -> tuple[str, str]:
    """A merge, "x y" in a line or [x, y] in newer files."""
    parts = merge.split(" ") if isinstance(merge, str) else merge
    if isinstance(parts, list) and len(parts) == 2:
        x, y = parts
        if isinstance(x, str) and isinstance(y, str) and x and y:
            return x, y
    raise TokenizerError(f"{path}: {str(merge)[:40]!r} is no merge of two tokens.")


def _added(path: Path, entries: object) -> tuple[list[AddedToken], dict[str, int]]:
    """The tokens that are looked for in a text, and the special ones, which here are not."""
    added: list[AddedToken] = []
    special: dict[str, int] = {}
    for entry in entries if isinstance(entries, list) else []:
        text = entry.get("content") if isinstance(entry, dict) else None
        number = entry.get("id") if isinstance(entry, dict) else None
        if not isinstance(text, str) or not text or not isinstance(number, int) or number < 0:
            raise TokenizerError(f"{path}: one of its added tokens has no text or no id.")
        if entry.get("special"):
            special[text] = number
        else:
            left, right, word = (bool(entry.get(k)) for k in ("lstrip", "rstrip", "single_word"))
            late = bool(entry.get("normalized", True))
            added.append(AddedToken(text, number, left, right, word, late))
    return added, special


def _cutting(path: Path, rule: object) -> tuple[str, bool]:
    """The pattern by which a text is cut, and whether a space is put in front of it."""
    listed = rule.get("pretokenizers") if isinstance(rule, dict) else None
    listed = listed if _type(rule) == "Sequence" and isinstance(listed, list) else [rule]
    steps: list[Settings] = [step for step in listed if isinstance(step, dict)]
    if not steps or _type(steps[-1]) != "ByteLevel":
        named = ", ".join(_type(step) for step in steps) or "none"
        raise _not_byte_level(path, f"its rule for cutting texts (pre_tokenizer) is {named}")
    last, before = steps[-1], steps[:-1]
    prefix_space = bool(last.get("add_prefix_space", True))
    uses_regex = bool(last.get("use_regex", True))
    if not before:
        return (GPT2_PATTERN if uses_regex else r"(?s:.+)"), prefix_space
    kind = _type(before[0])
    if len(before) == 1 and not prefix_space:
        if kind == "Digits" and uses_regex:
            return DIGITS_PATTERN % ("" if before[0].get("individual_digits") else "+"), False
        if kind == "Split" and not uses_regex and (pattern := _split(before[0])):
            return pattern, False
    named = ", ".join(_type(step) for step in steps)
    raise TokenizerError(
        f"{path}: texts are cut by {named} together, which cannot be followed here."
    )


def _split(step: Settings) -> str | None:
    """The pattern of a Split step; None where it does something else than find pieces."""
    rule = step.get("pattern")
    rule = rule if isinstance(rule, dict) else {}
    pattern = (
        re.escape(rule["String"]) if isinstance(rule.get("String"), str) else rule.get("Regex")
    )
    if not isinstance(pattern, str) or not 0 < len(pattern) <= _MAX_PATTERN:
        return None
    how, inverted = step.get("behavior"), bool(step.get("invert"))
    if how == "Removed" and inverted:
        return pattern  # what the pattern finds stays, and nothing else
    if how == "Isolated":  # what it does not find stays as well
        return f"{pattern}|(?:(?!{pattern})[\\s\\S])+"
    return None


def _normalizers(path: Path, rule: object) -> list[str]:
    """What is done to a text before anything else."""
    if rule is None:
        return []
    kind = _type(rule)
    if isinstance(rule, dict) and kind == "Sequence":
        steps = [_normalizers(path, step) for step in rule.get("normalizers") or []]
        return [name for step in steps for name in step]
    if kind in _NORMALIZERS:
        return [kind]
    raise TokenizerError(
        f"{path}: texts are changed by {kind} first (normalizer), which cannot be followed here."
    )


def _frame(path: Path, rule: object) -> Frame:
    """The special tokens that the tokenizer puts around each text (post_processor)."""
    kind = _type(rule)
    if not isinstance(rule, dict) or kind == "ByteLevel":
        return Frame()
    if kind == "Sequence":
        listed = rule.get("processors")
        steps = [_frame(path, step) for step in (listed if isinstance(listed, list) else [])]
        told = [step for step in steps if len(step)]
        if len(told) < 2:
            return told[0] if told else Frame()
    try:
        if kind in ("RobertaProcessing", "BertProcessing"):
            return Frame((int(rule["cls"][1]),), (int(rule["sep"][1]),))
        if kind == "TemplateProcessing":
            parts = [_template_ids(rule, part) for part in rule["single"]]
            text = parts.index(None)
            before, after = parts[:text], parts[text + 1 :]
            return Frame(
                tuple(i for ids in before if ids for i in ids),
                tuple(i for ids in after if ids for i in ids),
            )
    except (KeyError, TypeError, ValueError, IndexError) as error:
        raise TokenizerError(
            f"{path}: what its tokenizer puts around a text (post_processor) cannot be read."
        ) from error
    raise TokenizerError(
        f"{path}: texts are framed by {kind} (post_processor), which cannot be followed here."
    )


def _template_ids(rule: Settings, part: Mapping[str, Any]) -> list[int] | None:
    """The ids of a part of a template; None for the text itself."""
    if "Sequence" in part:
        return None
    return [int(i) for i in rule["special_tokens"][part["SpecialToken"]["id"]]["ids"]]


def _type(rule: object) -> str:
    return str(rule.get("type"))[:60] if isinstance(rule, dict) else "none"


def _not_byte_level(path: Path, why: str) -> TokenizerError:
    return TokenizerError(
        f"The tokenizer {path} is not a byte-level BPE like GPT-2's ({why}). Only that kind can be "
        "read here; with another one the model would be given the wrong tokens."
    )


def read_object(path: Path) -> dict[str, Any]:
    """The JSON object in a file of bounded size. Raises `TokenizerError`."""
    try:
        content = read_json(path, MAX_BYTES)
    except OSError as error:
        raise TokenizerError(f"{path} cannot be read: {error.strerror}.") from error
    except ValueError as error:
        raise TokenizerError(f"{path} is not JSON that can be read: {error}.") from error
    if not isinstance(content, dict):
        raise TokenizerError(f"{path} must hold one JSON object.")
    return content


def read_optional(path: Path) -> dict[str, Any]:
    """As `read_object`; {} where there is no such file."""
    return read_object(path) if path.is_file() else {}


def _text(path: Path) -> str:
    try:
        return read_text(path, MAX_BYTES)
    except OSError as error:
        raise TokenizerError(f"{path} cannot be read: {error.strerror}.") from error
    except ValueError as error:
        raise TokenizerError(f"{path} cannot be read as text: {error}.") from error
