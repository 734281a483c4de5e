"""The Hugging Face Hub, by name: an adapter, a table or a base to bring; an adapter to publish.

Sizes are asked for before anything is downloaded. Downloads are anonymous (`token=False`): the
server's own account, if it has one, is never lent to a visitor. A visitor's token is handed to the
one call that needs it; it is not kept, not logged, and not part of any message.
`HF_ENDPOINT` points elsewhere, to a mirror or a test's server.
"""

from __future__ import annotations

import contextlib
import re
import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath

from lora_core.adapters.adapter import load_adapter, save_adapter
from lora_core.adapters.files import CONFIG_FILE, WEIGHTS_FILE, no_weights
from lora_core.base.checkpoint import Base, BaseError
from lora_core.base.download import HUB_SILENCE, hub_endpoint, wanted_files
from lora_core.base.errors import disk_trouble
from lora_core.classifier import Classifier
from lora_core.errors import LabError
from lora_core.limits import MEGABYTE, Limits
from lora_core.serving.hub_cache import HubCache
from lora_core.serving.hub_files import Parts, parts_of, split_to_take
from lora_core.tasks.columns import choose_columns, guess_columns
from lora_core.tasks.file import Reading, Table, joined, read_table
from lora_core.tasks.own_table import task_of
from lora_core.tasks.task import Task, TaskError

MAX_ADAPTER_BYTES = 64 * 2**20
MAX_BASE_BYTES = 1_200 * MEGABYTE  # GPT-2 124M has 548 MB, GPT-2 medium is more
_NAME = re.compile(r"[A-Za-z0-9][\w.-]{0,95}/[A-Za-z0-9][\w.-]{0,95}")

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
    where = _folder_of_adapter(name, sizes)
    files = {file.name: str(file) for file in map(PurePosixPath, sizes) if file.parent == where}
    if WEIGHTS_FILE not in files:
        raise no_weights(files)
    wanted = [files[CONFIG_FILE], files[WEIGHTS_FILE]]
    _check_size(name, sum(sizes[file] for file in wanted), MAX_ADAPTER_BYTES)
    with _folder_for(name) as folder:
        for file in wanted:
            _fetch(name, file, "model", folder)
        return load_adapter(folder / where, base, labels, max_bytes=MAX_ADAPTER_BYTES)


def _folder_of_adapter(name: str, files: Iterable[str]) -> PurePosixPath:
    """Where an adapter lies: at the top, or in the one folder that holds one.

    `peft` writes an adapter that has a name of its own into a folder of that name. Raises
    `HubError`.
    """
    paths = [PurePosixPath(file) for file in files]
    folders = sorted(path.parent for path in paths if path.name == CONFIG_FILE)
    top = PurePosixPath()
    if not folders:
        whole = top / "config.json" in paths
        raise HubError(
            f"'{name}' holds no {CONFIG_FILE}: it is not an adapter in PEFT's format."
            + (" It holds a whole model: load it as a base." if whole else "")
        )
    if len(folders) > 1 and top not in folders:
        named = ", ".join(f"'{str(folder)[:60]}'" for folder in folders[:5])
        raise HubError(
            f"'{name}' holds {len(folders)} adapters, in {named}. Download the folder of one, and "
            f"bring its {CONFIG_FILE} and {WEIGHTS_FILE}."
        )
    return top if top in folders else folders[0]


@dataclass(frozen=True)
class HubDataset:
    """What a data set holds, before any of its tables is fetched."""

    name: str  # owner/name
    parts: Parts  # configuration -> split -> files
    default: str  # the configuration to take where nobody says one
    sizes: Mapping[str, int]  # file -> bytes
    commit: str | None = None  # whose files these are

    def part(self, configuration: str | None = None, split: str | None = None) -> tuple[str, str]:
        """A configuration and one of its splits, guessed where not said. Raises `HubError`."""
        configuration = configuration or self.default
        if configuration not in self.parts:
            raise HubError(
                f"'{self.name}' has no configuration '{configuration[:40]}'. It has: "
                f"{', '.join(self.parts)[:200]}."
            )
        splits = self.parts[configuration]
        split = split or split_to_take(splits)
        if split not in splits:
            raise HubError(
                f"'{self.name}' has no split '{split[:40]}' there. It has: {', '.join(splits)}."
            )
        return configuration, split

    def remark(self, configuration: str) -> str:
        """What is to be said where this one of several configurations was guessed."""
        if len(self.parts) < 2:
            return ""
        return (
            f"{self.name} has {len(self.parts)} configurations: "
            f"{', '.join([*self.parts][:12])}. “{configuration}” was taken."
        )

    def table(
        self,
        limits: Limits | None = None,
        *,
        configuration: str | None = None,
        split: str | None = None,
        reading: Reading | None = None,
    ) -> HubTable:
        """All shards of one split: CSV, TSV, Parquet, JSON or Excel. Raises `HubError`,
        `TaskError`."""
        said = self.remark(self.default) if configuration is None else ""
        configuration, split = self.part(configuration, split)
        with self.files(configuration, split, limits) as paths:
            return self.read(configuration, split, paths, limits, reading, said)

    @contextlib.contextmanager
    def files(
        self,
        configuration: str,
        split: str,
        limits: Limits | None = None,
        cache: HubCache | None = None,
    ) -> Iterator[list[Path]]:
        """The shards of one split, fetched; with a `cache`, they are once. Raises `HubError`."""
        names, most = self.parts[configuration][split], (limits or Limits()).upload_mb
        _check_size(self.name, sum(self.sizes[name] for name in names), most * MEGABYTE)
        with _folder_for(self.name, cache, self.commit) as folder:
            yield [_fetch(self.name, name, "dataset", folder, self.commit) for name in names]

    def read(
        self,
        configuration: str,
        split: str,
        paths: Sequence[Path],
        limits: Limits | None = None,
        reading: Reading | None = None,
        said: str = "",
    ) -> HubTable:
        """The table of fetched shards, all read the same way. Raises `TaskError`."""
        tables = [read_table(path, limits, reading, wait=False) for path in paths]
        table = joined(self.name.partition("/")[2][:60], tables, limits)
        return HubTable(self.name, table, configuration, split, said)


@dataclass(frozen=True)
class HubTable:
    """One split of one configuration of a data set, all its shards."""

    name: str  # owner/name
    table: Table
    configuration: str
    split: str
    said: str = ""  # which configuration was taken, where nobody said one

    def columns(self, text: str | None = None, label: str | None = None) -> tuple[str, str]:
        """The columns of texts and labels; those not named are guessed. Raises `TaskError`."""
        guessed = guess_columns(self.table, text, label)
        return choose_columns(self.table, text or guessed[0], label or guessed[1])


def load_hub_task(
    name: str,
    limits: Limits | None = None,
    *,
    text_column: str | None = None,
    label_column: str | None = None,
    configuration: str | None = None,
    split: str | None = None,
    reading: Reading | None = None,
) -> Task:
    """A published table of texts and labels, by the name of its data set.

    What is not said is guessed, and said in `Task.warnings`: the configuration, the split ("train"
    where there is one; it is split again in three), the columns, and how its files are written
    (`reading`). Raises `HubError` when it cannot be had, `TaskError` when it is no such table.
    """
    hub_table = hub_dataset(name).table(
        limits, configuration=configuration, split=split, reading=reading
    )
    try:
        return task_of_hub(hub_table, text_column, label_column, limits)
    except TaskError as error:  # perhaps of the wrong configuration
        raise TaskError(f"{hub_table.said} {error}".strip()) from error


def hub_dataset(name: str) -> HubDataset:
    """What a data set of the Hub holds; fetches none of it. Raises `HubError`."""
    info = _info(name, "dataset")
    sizes = _sizes_of(info)
    card = getattr(info, "card_data", None)
    parts, default = parts_of(sizes, card.to_dict() if card is not None else {})
    if not parts:
        raise HubError(
            f"'{name}' holds no table (CSV, Parquet, JSON) that could be read as texts and labels."
        )
    return HubDataset(name, parts, default, sizes, getattr(info, "sha", None))


def task_of_hub(
    hub_table: HubTable,
    text_column: str | None = None,
    label_column: str | None = None,
    limits: Limits | None = None,
) -> Task:
    """The task of a data set's table; columns not named are guessed. Raises `TaskError`."""
    table = hub_table.table
    text, label = hub_table.columns(text_column, label_column)
    said = [hub_table.said] if hub_table.said else []
    if (text_column, label_column) != (text, label) and (text, label) != ("text", "label"):
        said.append(f"The column '{text}' was taken for the texts, '{label}' for the labels.")
    task = task_of(table, text, label, limits=limits)
    return replace(task, title=hub_table.name, warnings=(*said, *task.warnings))


def check_hub_base(name: str) -> None:
    """Whether a base of this name can be had and is small enough; `load_base` downloads it.

    Raises `HubError`.
    """
    sizes = _sizes(name, "model")
    try:
        needed = sum(sizes[file] for file in wanted_files(name, sizes))
    except BaseError as error:
        raise HubError(str(error)) from error
    _check_size(name, needed, MAX_BASE_BYTES)


def push_adapter(classifier: Classifier, name: str, token: str, *, private: bool = True) -> str:
    """Publish an adapter under the account that `token` belongs to; the address of its page.

    Raises `HubError`, in words and without the token, or `AdapterError` where there is no adapter.
    """
    # 1 s, here and below: only for who asks the Hub
    from huggingface_hub import HfApi

    _check_name(name)
    if not isinstance(token, str) or not token.strip():
        raise HubError("A token with write access is needed: huggingface.co/settings/tokens.")
    with _folder_for(name) as folder:
        save_adapter(classifier, folder)
        with _in_words(name, writing=True):
            api = HfApi(endpoint=hub_endpoint(), token=token.strip())
            api.create_repo(name, private=private, exist_ok=True)
            api.upload_folder(
                repo_id=name,
                folder_path=folder,
                commit_message="LoRA adapter from LoRA Lab",
            )
    return f"{hub_endpoint() or 'https://huggingface.co'}/{name}"


def _sizes(name: str, kind: str) -> dict[str, int]:
    """Bytes of each file of a public repository."""
    return _sizes_of(_info(name, kind))


def _sizes_of(info: object) -> dict[str, int]:
    return {file.rfilename: int(file.size or 0) for file in getattr(info, "siblings", None) or []}


def _info(name: str, kind: str) -> object:
    """What the Hub says of a public repository."""
    from huggingface_hub import HfApi

    _check_name(name)
    with _in_words(name):
        api = HfApi(endpoint=hub_endpoint(), token=False)
        return api.repo_info(name, repo_type=kind, files_metadata=True, timeout=20)


def _fetch(name: str, file: str, kind: str, folder: Path, commit: str | None = None) -> Path:
    """A file of a repository; of a `commit` that lies in the folder already, nobody is asked."""
    from huggingface_hub import hf_hub_download

    with _in_words(name):
        path = hf_hub_download(
            name,
            file,
            repo_type=kind,
            revision=commit,
            local_dir=folder,
            token=False,
            endpoint=hub_endpoint(),
        )
    return Path(path)


@contextlib.contextmanager
def _folder_for(
    name: str, cache: HubCache | None = None, commit: str | None = None
) -> Iterator[Path]:
    """A folder for what comes or goes, for a moment; a full disk is no missing network."""
    try:
        with (
            cache.folder(name, commit)
            if cache and commit
            else tempfile.TemporaryDirectory(prefix="lora-lab-")
        ) as folder:
            yield Path(folder)
    except OSError as error:
        if not (trouble := disk_trouble(error)):
            raise
        raise HubError(
            f"'{name}' cannot be kept here for a moment: {trouble}. Its place is "
            f"{_temporary()}; TMPDIR names another one."
        ) from error


def _temporary() -> str:
    try:
        return tempfile.gettempdir()
    except OSError:  # there is none at all
        return "the folder for temporary files"


def _check_name(name: object) -> None:
    if not isinstance(name, str) or not _NAME.fullmatch(name) or ".." in name or "--" in name:
        raise HubError("A name of the Hub looks like owner/name, for instance someone/my-adapter.")


def _check_size(name: str, size: int, limit: int) -> None:
    if size > limit:
        raise HubError(
            f"'{name}' is {size / MEGABYTE:,.1f} MB; at most {limit / MEGABYTE:,.0f} MB are taken."
        )


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
    except (LocalEntryNotFoundError, transport):
        raise HubError(OFFLINE) from None
    except OSError as error:
        if disk_trouble(error):  # `_folder_for` has the words
            raise
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
