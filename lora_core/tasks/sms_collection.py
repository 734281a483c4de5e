"""The SMS Spam Collection, the data set of the book, fetched from UCI at a click and checked."""

from __future__ import annotations

import hashlib
import io
import os
import random
import urllib.error
import urllib.request
import zipfile
from pathlib import Path

from lora_core.tasks.task import Example, Task, TaskError

URL = "https://archive.ics.uci.edu/static/public/228/sms+spam+collection.zip"
ARCHIVE_BYTES = 203_415
ARCHIVE_SHA256 = "1587ea43e58e82b14ff1f5425c88e17f8496bfcdb67a583dbff9eefaf9963ce3"
MEMBER = "SMSSpamCollection"
COUNTS = {"ham": 4_827, "spam": 747}
LICENCE = "CC BY 4.0"
CITATION = (
    "T. A. Almeida, J. M. Gomez Hidalgo, A. Yamakami (2011), Contributions to the study of SMS "
    "spam filtering: new collection and results. DocEng '11. doi:10.24432/C5CC84"
)
_TIMEOUT_SECONDS = 20.0


def cache_folder() -> Path:
    """Where downloads are kept: `LORA_LAB_CACHE`, or the user's own cache folder."""
    folder = os.environ.get("LORA_LAB_CACHE")
    if folder:
        return Path(folder)
    return Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "lora-lab"


def sms_spam_collection(
    *, url: str = URL, cache: Path | None = None, sha256: str = ARCHIVE_SHA256, seed: int = 123
) -> Task:
    """The real SMS Spam Collection as a task: 747 ham and 747 spam, 1,045/149/300 as in the book.

    Downloaded once, then read from the cache; an archive that is not exactly UCI's (size, digest,
    number of messages of each label) is refused and not kept. Raises `TaskError`, in words.
    """
    cache = cache or cache_folder()
    path = cache / "sms-spam-collection.zip"
    archive = path.read_bytes() if path.is_file() else b""
    if hashlib.sha256(archive).hexdigest() != sha256:
        archive = _fetch(url)
        digest = hashlib.sha256(archive).hexdigest()
        if digest != sha256:
            raise TaskError(
                f"What came from {url} is not the archive that is expected: {len(archive):,} "
                f"bytes, SHA-256 {digest[:12]} instead of {sha256[:12]}. It was not used."
            )
        _keep(path, archive)
    return balanced(_messages(archive), seed)


def _fetch(url: str) -> bytes:
    """The archive's bytes, at most one more than it should have."""
    try:
        with urllib.request.urlopen(url, timeout=_TIMEOUT_SECONDS) as response:
            archive: bytes = response.read(ARCHIVE_BYTES + 1)
    except urllib.error.HTTPError as error:
        raise TaskError(
            f"UCI's server answered {error.code} for {url}. Try again later."
        ) from error
    except (OSError, ValueError) as error:  # no network, no such host, a broken connection
        raise TaskError(
            "The SMS Spam Collection could not be downloaded: is there a network? The bundled "
            "tasks need none."
        ) from error
    if len(archive) > ARCHIVE_BYTES:
        raise TaskError(f"What {url} sends is larger than the archive's {ARCHIVE_BYTES:,} bytes.")
    return archive


def _keep(path: Path, archive: bytes) -> None:
    """Write to the cache, whole or not at all; a cache that cannot be written is no error."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        part = path.with_suffix(f".{os.getpid()}.part")
        part.write_bytes(archive)
        part.replace(path)
    except OSError:
        return


def _messages(archive: bytes) -> list[tuple[str, str]]:
    """(text, label) of each line of the archive; quotes are part of the messages."""
    try:
        with zipfile.ZipFile(io.BytesIO(archive)) as file:
            text = file.read(MEMBER).decode("utf-8")
    except (zipfile.BadZipFile, KeyError, UnicodeDecodeError, NotImplementedError) as error:
        raise TaskError("The archive of the SMS Spam Collection is damaged.") from error
    rows = []
    for line in text.split("\n"):
        if line.strip():
            label, _, message = line.rstrip("\r").partition("\t")
            rows.append((message, label))
    counts = {label: sum(1 for _, row_label in rows if row_label == label) for label in COUNTS}
    if counts != COUNTS or len(rows) != sum(COUNTS.values()):
        raise TaskError(f"The SMS Spam Collection should hold {COUNTS} messages, not {counts}.")
    return rows


def balanced(rows: list[tuple[str, str]], seed: int) -> Task:
    """As many ham as spam, drawn with `seed`, split 70/10/20; repeats stay, as in the book."""
    labels = ("ham", "spam")
    shuffler = random.Random(seed)
    groups = [[text for text, label in rows if label == wanted] for wanted in labels]
    size = min(map(len, groups))
    chosen = [
        Example(text, index)
        for index, group in enumerate(groups)
        for text in shuffler.sample(group, size)
    ]
    shuffler.shuffle(chosen)
    first, second = int(0.7 * len(chosen)), int(0.7 * len(chosen)) + int(0.1 * len(chosen))
    return Task(
        "sms-spam-collection",
        labels,
        tuple(chosen[:first]),
        tuple(chosen[first:second]),
        tuple(chosen[second:]),
        title="SMS Spam Collection (UCI)",
    )
