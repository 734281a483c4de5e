"""Which files of a data set on the Hub are one table: its configurations, splits and shards.

What the data set's card says counts; else the names of files do: `emoji/train-00000-of-00002.csv`
is a shard of the split "train" of the configuration "emoji". Where a split is there in several
formats, those beside the preferred one are splits of their own: "train (CSV)".
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from fnmatch import fnmatchcase
from pathlib import PurePosixPath
from typing import Any

TABLES = (".parquet", ".csv", ".tsv", ".jsonl", ".ndjson", ".json", ".xlsx")  # preferred first
DEFAULT = "default"  # the only configuration of most data sets
_SPLIT = re.compile(
    r"(?<![a-z])(train(?:ing)?|test(?:ing)?|valid(?:ation)?|val|dev|eval(?:uation)?)(?![a-z])"
)
_NAMES = {"training": "train", "testing": "test", "eval": "validation", "evaluation": "validation"}
_NAMES |= {"valid": "validation", "val": "validation", "dev": "validation"}
_SHARD = re.compile(r"[-_.]?\d{1,6}([-_]of[-_]\d{1,6})?$")
_FOLDERS = {"data", "dataset", "datasets", "raw", "files", "csv", "json", "parquet", "main"}

Parts = dict[str, dict[str, list[str]]]  # configuration -> split -> files, in order


def parts_of(files: Iterable[str], card: Mapping[str, Any] | None = None) -> tuple[Parts, str]:
    """Files by configuration and split, and the configuration to take where nobody says one."""
    tables = sorted(f for f in files if _is_table(PurePosixPath(f)))
    said, default = _of_card(tables, card or {})
    parts = said or _by_name(tables)
    for splits in parts.values():
        for split, names in list(splits.items()):
            splits[split], *others = _by_format(names)
            for other in others:
                splits[f"{split} ({PurePosixPath(other[0]).suffix[1:].upper()})"] = other
    if default not in parts:
        default = DEFAULT if DEFAULT in parts else min(parts, key=_unlikely(parts), default="")
    return parts, default


def _unlikely(parts: Parts) -> Callable[[str], tuple[bool, int]]:
    """How little a configuration looks like what is meant: the first of GLUE is a test alone, and
    `id2label.json` comes before `spam.csv`."""

    def rank(name: str) -> tuple[bool, int]:
        splits = parts[name]
        files = splits[split_to_take(splits)]
        return "train" not in splits, TABLES.index(PurePosixPath(files[0]).suffix)

    return rank


def split_to_take(splits: Mapping[str, list[str]]) -> str:
    """The split to train on where nobody says one."""
    return "train" if "train" in splits else next(iter(splits))


def _is_table(path: PurePosixPath) -> bool:
    return path.suffix in TABLES and not path.name.startswith((".", "dataset_info", "config"))


def _by_name(tables: list[str]) -> Parts:
    parts: Parts = {}
    for name in tables:
        configuration, split = _named(PurePosixPath(name))
        parts.setdefault(configuration, {}).setdefault(split, []).append(name)
    return parts


def _named(path: PurePosixPath) -> tuple[str, str]:
    stem = _SHARD.sub("", path.stem)
    if re.match(r"part-\d", path.stem):  # of Spark
        stem = ""
    folders = [folder for folder in path.parts[:-1] if folder.lower() not in _FOLDERS]
    split = ""
    named = _SPLIT.search(stem.lower())
    if named:
        split = named[1]
        stem = (stem[: named.start()] + " " + stem[named.end() :]).strip(" -_.")
        stem = re.sub(r"[-_. ]{2,}", "-", stem)
    names = []
    for folder in folders:
        whole = _SPLIT.fullmatch(folder.lower())
        if whole and not split:
            split = whole[1]
        elif not whole:
            names.append(folder)
    if stem and (named or not split) and stem.lower() not in _FOLDERS:
        names.append(stem)
    return "/".join(names) or DEFAULT, _NAMES.get(split, split) or "train"


def _of_card(tables: list[str], card: Mapping[str, Any]) -> tuple[Parts, str]:
    """What the card's `configs` say, and the one that it calls the default; nothing where they are
    missing or name no table."""
    parts: Parts = {}
    default = ""
    configs = card.get("configs")
    for config in configs if isinstance(configs, list) else []:
        if not isinstance(config, Mapping):
            continue
        name = str(config.get("config_name", DEFAULT))
        splits: dict[str, list[str]] = {}
        for split, pattern in _patterns(config.get("data_files")):
            files = [t for t in tables if fnmatchcase(t, pattern.removeprefix("./"))]
            if files:
                splits.setdefault(split, []).extend(files)
        if splits:
            parts[name] = splits
            default = name if config.get("default") is True else default
    return parts, default


def _patterns(files: Any) -> Iterable[tuple[str, str]]:
    """(split, pattern) of a configuration's `data_files`, in each of the forms it may have."""
    for entry in files if isinstance(files, list) else [files]:
        if isinstance(entry, str):
            yield "train", entry
        elif isinstance(entry, Mapping):
            paths = entry.get("path")
            for path in paths if isinstance(paths, list) else [paths]:
                if isinstance(path, str):
                    yield str(entry.get("split", "train")), path


def _by_format(names: list[str]) -> list[list[str]]:
    """The files of each format, the preferred one first: often they are the same rows, and where
    they are not, another one can be asked for."""
    formats: dict[str, list[str]] = {}
    for name in dict.fromkeys(names):
        formats.setdefault(PurePosixPath(name).suffix, []).append(name)
    return [formats[suffix] for suffix in TABLES if suffix in formats]
