"""The Hugging Face Hub, by name: an adapter, a table or a base to bring; an adapter to publish.

Sizes are asked for before anything is downloaded. Downloads are anonymous (`token=False`): the
server's own account, if it has one, is never lent to a visitor. A visitor's token is handed to the
one call that needs it; it is not kept, not logged, and not part of any message.
`HF_ENDPOINT` points elsewhere, to a mirror or a test's server.
"""

from __future__ import annotations

import contextlib
import os
import re
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path, PurePosixPath

from lora_core.adapters.adapter import load_adapter, save_adapter
from lora_core.adapters.files import CONFIG_FILE, WEIGHTS_FILE
from lora_core.base.checkpoint import HUB_SILENCE, Base
from lora_core.classifier import Classifier
from lora_core.errors import LabError
from lora_core.limits import MEGABYTE, Limits
from lora_core.tasks.own_table import read_task
from lora_core.tasks.task import Task

MAX_ADAPTER_BYTES = 64 * 2**20
MAX_BASE_BYTES = 1_200 * MEGABYTE  # GPT-2 124M has 548 MB, GPT-2 medium is more
_TABLES = (".csv", ".tsv", ".parquet", ".jsonl", ".json", ".xlsx")  # in the order of preference
_NAME = re.compile(r"[A-Za-z0-9][\w.-]{0,95}/[A-Za-z0-9][\w.-]{0,95}")
_BASE_FILES = (".safetensors", ".safetensors.index.json", "config.json", ".tiktoken")

OFFLINE = (
    "The Hugging Face Hub cannot be reached from here. Is there a network? "
    "Everything else works without one."
)


class HubError(LabError, RuntimeError):
    """What the Hub did not give or take; the message says why, and never holds a token."""


def load_hub_adapter(name: str, base: Base, labels: Sequence[str] | None = None) -> Classifier:
    """A published LoRA adapter, ours or `peft`'s own, over `base`.

    Raises `HubError` when it cannot be had, `AdapterError` when it cannot be used.
    """
    sizes = _sizes(name, "model")
    wanted = [file for file in (CONFIG_FILE, WEIGHTS_FILE) if file in sizes]
    if CONFIG_FILE not in sizes:
        raise HubError(f"'{name}' holds no {CONFIG_FILE}: it is not an adapter in PEFT's format.")
    _check_size(name, sum(sizes[file] for file in wanted), MAX_ADAPTER_BYTES)
    with tempfile.TemporaryDirectory(prefix="lora-lab-") as folder:
        for file in wanted:
            _fetch(name, file, "model", Path(folder))
        return load_adapter(folder, base, labels, max_bytes=MAX_ADAPTER_BYTES)


def load_hub_task(name: str, limits: Limits | None = None) -> Task:
    """A published table of texts and labels, by the name of its data set.

    The file is its training part where one is called so: CSV, TSV, Parquet, JSON or Excel. Raises
    `HubError` when it cannot be had, `TaskError` when it is no such table.
    """
    limits = limits or Limits()
    sizes = _sizes(name, "dataset")
    file = _table_among(list(sizes))
    if file is None:
        raise HubError(
            f"'{name}' holds no table (CSV, Parquet, JSON) that could be read as texts and labels."
        )
    _check_size(name, sizes[file], limits.upload_mb * MEGABYTE)
    with tempfile.TemporaryDirectory(prefix="lora-lab-") as folder:
        path = _fetch(name, file, "dataset", Path(folder))
        named = path.with_name(name.partition("/")[2][:60] + path.suffix)  # the task's name
        path.rename(named)
        return read_task(named, limits=limits)


def check_hub_base(name: str) -> None:
    """Whether a base of this name can be had and is small enough; `load_base` downloads it.

    Raises `HubError`.
    """
    sizes = _sizes(name, "model")
    if "config.json" not in sizes or not any(file.endswith(".safetensors") for file in sizes):
        raise HubError(f"'{name}' holds no model with safetensors weights.")
    needed = sum(
        size
        for file, size in sizes.items()
        if file.endswith(_BASE_FILES) and not file.startswith("adapter_")
    )
    _check_size(name, needed, MAX_BASE_BYTES)


def push_adapter(classifier: Classifier, name: str, token: str, *, private: bool = True) -> str:
    """Publish an adapter under the account that `token` belongs to; the address of its page.

    Raises `HubError`, in words and without the token, or `AdapterError` where there is no adapter.
    """
    from huggingface_hub import HfApi

    _check_name(name)
    if not isinstance(token, str) or not token.strip():
        raise HubError("A token with write access is needed: huggingface.co/settings/tokens.")
    with tempfile.TemporaryDirectory(prefix="lora-lab-") as folder:
        save_adapter(classifier, folder)
        with _in_words(name, writing=True):
            api = HfApi(endpoint=_endpoint(), token=token.strip())
            api.create_repo(name, private=private, exist_ok=True)
            api.upload_folder(
                repo_id=name,
                folder_path=folder,
                commit_message="LoRA adapter from LoRA Lab",
            )
    return f"{_endpoint() or 'https://huggingface.co'}/{name}"


def _sizes(name: str, kind: str) -> dict[str, int]:
    """Bytes of each file of a public repository."""
    from huggingface_hub import HfApi

    _check_name(name)
    with _in_words(name):
        api = HfApi(endpoint=_endpoint(), token=False)
        info = api.repo_info(name, repo_type=kind, files_metadata=True, timeout=20)
    return {file.rfilename: int(file.size or 0) for file in getattr(info, "siblings", None) or []}


def _fetch(name: str, file: str, kind: str, folder: Path) -> Path:
    from huggingface_hub import hf_hub_download

    with _in_words(name):
        path = hf_hub_download(
            name, file, repo_type=kind, local_dir=folder, token=False, endpoint=_endpoint()
        )
    return Path(path)


def _endpoint() -> str | None:
    return os.environ.get("HF_ENDPOINT", "").rstrip("/") or None


def _check_name(name: object) -> None:
    if not isinstance(name, str) or not _NAME.fullmatch(name) or ".." in name or "--" in name:
        raise HubError("A name of the Hub looks like owner/name, for instance someone/my-adapter.")


def _check_size(name: str, size: int, limit: int) -> None:
    if size > limit:
        raise HubError(
            f"'{name}' is {size / MEGABYTE:,.1f} MB; at most {limit / MEGABYTE:,.0f} MB are taken."
        )


def _table_among(files: list[str]) -> str | None:
    """The file to train on: tables only, those called "train" first, then by kind, then by name."""

    def key(file: str) -> tuple[bool, int, int, str]:
        path = PurePosixPath(file)
        return ("train" not in path.stem.lower(), _TABLES.index(path.suffix), file.count("/"), file)

    tables = [
        file
        for file in files
        if PurePosixPath(file).suffix in _TABLES
        and not PurePosixPath(file).name.startswith((".", "dataset_info", "config"))
    ]
    return min(tables, key=key, default=None)


@contextlib.contextmanager
def _in_words(name: str, *, writing: bool = False) -> Iterator[None]:
    """What the Hub's library raises, as a `HubError`; its own messages may quote requests."""

    from huggingface_hub import get_session
    from huggingface_hub.errors import (
        GatedRepoError,
        HfHubHTTPError,
        HFValidationError,
        LocalEntryNotFoundError,
        RepositoryNotFoundError,
    )

    # Which library speaks HTTP is theirs to choose, and has changed: its errors are found by name.
    transport: type[Exception] = next(
        kind
        for kind in HfHubHTTPError.__mro__
        if kind.__name__ == "HTTPError" and issubclass(kind, Exception)
    )
    get_session().timeout = HUB_SILENCE  # by itself the library waits for ever for an answer
    try:
        yield
    except GatedRepoError:
        raise HubError(f"'{name}' asks its readers to accept conditions first.") from None
    except HfHubHTTPError as error:
        status = error.response.status_code if error.response is not None else 0
        raise HubError(_status(name, status, writing, error, RepositoryNotFoundError)) from None
    except HFValidationError:
        raise HubError(f"'{name}' is not a name of the Hub.") from None
    except (LocalEntryNotFoundError, transport, OSError):
        raise HubError(OFFLINE) from None
    except (ValueError, RuntimeError):
        raise HubError("The Hub's answer could not be understood. Try again later.") from None


def _status(
    name: str, status: int, writing: bool, error: Exception, not_found: type[Exception]
) -> str:
    if writing and status in (401, 403):
        return "The Hub refused the token: it must be valid, and may write to this account."
    if status == 401 or status == 404 or isinstance(error, not_found):
        return f"'{name}' is not on the Hub, or not open to everybody. Is the name right?"
    if status == 429:
        return "The Hub has had too many requests from here. Try again in a minute."
    return f"The Hub answered with status {status}. Try again later."
