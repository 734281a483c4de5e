"""What outlives the process: one folder, SQLite for what is listed, safetensors for weights.

Written when a run is queued, at each of its evaluations and at its end, so a process that is killed
loses at most the steps since the last evaluation. Weights are written under another name, flushed
and renamed; a row names them only afterwards. A table is kept once a run uses it. Texts that are
typed are never written.

Knows nothing about the registry; `recall.py` makes runs of the rows.
"""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import sqlite3
import threading
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout
from platformdirs import user_data_path
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from lora_core.errors import LabError
from lora_core.serving import log

APPLICATION = 0x4C6F5241  # "LoRA": tells our databases from others
# One script for each version, run in order on what an older version wrote.
MIGRATIONS = (
    """
    CREATE TABLE runs (
        number INTEGER PRIMARY KEY AUTOINCREMENT, id TEXT UNIQUE NOT NULL, visitor TEXT NOT NULL,
        state TEXT NOT NULL, record TEXT NOT NULL, weights TEXT NOT NULL DEFAULT '',
        bytes INTEGER NOT NULL DEFAULT 0);
    CREATE INDEX by_visitor ON runs (visitor);
    CREATE TABLE events (
        run TEXT NOT NULL REFERENCES runs (id) ON DELETE CASCADE, first INTEGER NOT NULL,
        records TEXT NOT NULL, PRIMARY KEY (run, first));
    CREATE TABLE tables (digest TEXT PRIMARY KEY, record TEXT NOT NULL);
    """,
    """
    ALTER TABLE runs ADD COLUMN used REAL NOT NULL DEFAULT 0;
    CREATE TABLE own_tables (
        visitor TEXT NOT NULL, name TEXT NOT NULL, digest TEXT NOT NULL REFERENCES tables (digest),
        PRIMARY KEY (visitor, name));
    CREATE TABLE facts (name TEXT PRIMARY KEY, value TEXT NOT NULL);
    """,
)
SPACE_DISK = Path("/data")  # where a Space's lasting disk is, if it has one


class StoreError(LabError, RuntimeError):
    """The store cannot be used; the message says why and what to do."""


@dataclass(frozen=True)
class Row:
    """A stored run; `weights` names a file, or is empty."""

    id: str
    visitor: str
    state: str  # as `Run.state`, or "interrupted"
    record: dict[str, Any]
    weights: str
    used: float


def default_folder() -> Path:
    """Where a user's programs keep their data: `~/.local/share/lora-lab` on Linux, say."""
    return user_data_path("lora-lab", appauthor=False)


def choose_folder(wanted: str | None) -> tuple[Path | None, str]:
    """Where to keep runs, None for nowhere, and a sentence for the host.

    `wanted`: a folder, "none", or nothing: then LORA_LAB_DATA says it, else the user's data folder;
    on a Space its lasting disk, if it has one.
    """
    choice = (wanted or os.environ.get("LORA_LAB_DATA") or "").strip()
    if choice.lower() == "none":
        return None, "Runs are kept in memory only: when the server ends they are gone."
    if choice:
        folder = Path(choice).expanduser()
    elif os.environ.get("SPACE_ID"):
        if not os.access(SPACE_DISK, os.W_OK):
            return None, "This Space has no lasting disk: when it sleeps, its runs are gone."
        folder = SPACE_DISK / "lora-lab"
    else:
        folder = default_folder()
    return folder, f"Runs are kept in {folder}."


class Store:
    """One folder, of one server at a time. May be called from any thread.

    Reading raises `StoreError`. Writing does not: on a full disk the server goes on without, says
    so once in its log, and `trouble` holds the sentence until a write succeeds.
    """

    def __init__(self, folder: Path) -> None:
        """Raises `StoreError` when another server has the folder or it cannot be written to."""
        self.folder = folder
        self.trouble = ""
        self.notes: list[str] = []  # for the host: what was set aside at the start
        self._guard = threading.RLock()
        try:
            (folder / "weights").mkdir(parents=True, exist_ok=True)
            folder.chmod(0o700)
            self._lock = FileLock(folder / "lock", timeout=0)
            self._lock.acquire()
        except Timeout as error:
            raise StoreError(
                f"Another LoRA Lab uses {folder}: end it, or choose another folder with --data."
            ) from error
        except OSError as error:
            raise StoreError(
                f"{folder} cannot be used to keep runs in ({error.strerror or error}). Choose "
                "another folder with --data, or --data none to keep nothing."
            ) from error
        path = folder / "runs.sqlite"
        try:
            self._db = _open(path)
        except (sqlite3.Error, StoreError) as error:
            self._set_aside(path, error)
            self._db = _open(path)
        self._sweep_files()

    def close(self) -> None:
        """Let another server have the folder."""
        with self._guard, contextlib.suppress(sqlite3.Error):
            self._db.close()
        self._lock.release()

    def _set_aside(self, path: Path, error: Exception) -> None:
        suffix = f"-set-aside-{secrets.token_hex(4)}"
        for name in (path.name, f"{path.name}-wal", f"{path.name}-shm", "weights"):
            with contextlib.suppress(OSError):
                (self.folder / name).rename(self.folder / (name + suffix))
        (self.folder / "weights").mkdir(exist_ok=True)
        self.notes.append(
            f"What was kept in {self.folder} could not be read ({error}). It was set aside as "
            f"{path.name}{suffix}, and a new store begins."
        )

    # Writing ---------------------------------------------------------------------------------

    @contextlib.contextmanager
    def _writing(self) -> Iterator[sqlite3.Connection]:
        with self._guard:
            try:
                with self._db:
                    yield self._db
                self.trouble = ""
            except (sqlite3.Error, OSError, SafetensorError) as error:
                why = str(error).partition(" at path ")[0]  # its files are named anew each time
                self.trouble = (
                    f"What happens now is not kept: {self.folder} cannot be written to ({why})."
                )
                log.once(self.trouble)

    def put(
        self,
        run_id: str,
        visitor: str,
        state: str,
        record: Mapping[str, Any],
        used: float,
        *,
        events: Sequence[Mapping[str, Any]] = (),
        first: int = 0,
        table: tuple[str, Mapping[str, Any], bool] | None = None,
    ) -> None:
        """Insert or update a run; `events` are those from number `first` on.

        `table`: digest and content of a table that is not bundled, and whether its visitor keeps it
        in the list of tables.
        """
        with self._writing() as db:
            if table is not None:
                digest, content, listed = table
                known = db.execute("SELECT 1 FROM tables WHERE digest = ?", (digest,)).fetchone()
                if not known:
                    db.execute("INSERT INTO tables VALUES (?, ?)", (digest, json.dumps(content)))
                if listed:
                    own = (visitor, content["name"], digest)
                    db.execute("INSERT OR REPLACE INTO own_tables VALUES (?, ?, ?)", own)
            db.execute(
                "INSERT INTO runs (id, visitor, state, record, used) VALUES (?, ?, ?, ?, ?) "
                "ON CONFLICT (id) DO UPDATE SET state = excluded.state, record = excluded.record, "
                "used = excluded.used",
                (run_id, visitor, state, json.dumps(record), used),
            )
            if events:
                text = json.dumps(list(events))
                db.execute("INSERT OR REPLACE INTO events VALUES (?, ?, ?)", (run_id, first, text))

    def put_weights(self, run_id: str, tensors: Mapping[str, Tensor]) -> bool:
        """Keep these weights of a run in the place of those before; whether that was done."""
        with self._writing() as db:
            name = f"{secrets.token_hex(16)}.safetensors"
            path, draft = self.weights_path(name), self.weights_path(name + ".part")
            save_file({n: t.contiguous() for n, t in tensors.items()}, draft)
            self._name_weights(db, run_id, draft, path)
            return True
        return False

    def put_file(self, run_id: str, write: Any) -> bool:
        """As `put_weights`, with a file that `write(path)` makes."""
        with self._writing() as db:
            name = f"{secrets.token_hex(16)}.zip"
            path, draft = self.weights_path(name), self.weights_path(name + ".part")
            write(draft)
            self._name_weights(db, run_id, draft, path)
            return True
        return False

    def _name_weights(self, db: sqlite3.Connection, run_id: str, draft: Path, path: Path) -> None:
        with draft.open("rb") as file:
            os.fsync(file.fileno())
        draft.replace(path)
        row = db.execute("SELECT weights FROM runs WHERE id = ?", (run_id,)).fetchone()
        size = path.stat().st_size
        db.execute("UPDATE runs SET weights = ?, bytes = ? WHERE id = ?", (path.name, size, run_id))
        db.commit()  # before the old file goes
        if row is None:
            path.unlink()
        elif row[0]:
            self.weights_path(row[0]).unlink(missing_ok=True)

    def use(self, used: Mapping[str, float], clock: float) -> None:
        """Note when runs were last used, and the server's own time."""
        with self._writing() as db:
            db.executemany(
                "UPDATE runs SET used = ? WHERE id = ?", [(u, i) for i, u in used.items()]
            )
            db.execute("INSERT OR REPLACE INTO facts VALUES ('clock', ?)", (repr(clock),))

    def delete(self, run_id: str) -> None:
        """Forget a run, its events and weights."""
        with self._writing() as db:
            row = db.execute("SELECT weights FROM runs WHERE id = ?", (run_id,)).fetchone()
            db.execute("DELETE FROM runs WHERE id = ?", (run_id,))
            db.commit()
            if row and row[0]:
                self.weights_path(row[0]).unlink(missing_ok=True)

    def delete_visitor(self, visitor: str) -> None:
        """Forget all that is a visitor's."""
        with self._guard:
            for row in self.of(visitor):
                self.delete(row.id)
            with self._writing() as db:
                db.execute("DELETE FROM own_tables WHERE visitor = ?", (visitor,))
                _drop_unused_tables(db)

    def interrupt(self) -> None:
        """At a start: what was running when the last server ended is interrupted."""
        with self._writing() as db:
            db.execute("UPDATE runs SET state = 'interrupted' WHERE state = 'running'")

    def sweep(self, oldest: float, max_bytes: int) -> list[str]:
        """Forget runs not used since `oldest`, then the longest unused until the rest fits; their
        ids. Each visitor's newest run goes last."""
        gone: list[str] = []
        ended = "state NOT IN ('waiting', 'running')"
        with self._guard:
            for (run_id,) in self._ask(f"SELECT id FROM runs WHERE used < ? AND {ended}", oldest):
                gone.append(run_id)
            size = "bytes + (SELECT total(length(records)) FROM events WHERE run = id)"
            (total,) = self._ask(f"SELECT total({size}) FROM runs")[0]
            if total > max_bytes:
                newest = "number = (SELECT max(number) FROM runs r WHERE r.visitor = runs.visitor)"
                order = f"SELECT id, {size} FROM runs WHERE {ended} ORDER BY {newest}, used"
                for run_id, held in self._ask(order):
                    if total <= max_bytes:
                        break
                    gone.append(run_id)
                    total -= held
            for run_id in gone:
                self.delete(run_id)
            if gone:
                with self._writing() as db:
                    _drop_unused_tables(db)
        return gone

    # Reading ---------------------------------------------------------------------------------

    def _ask(self, question: str, *values: object) -> list[Any]:
        with self._guard:
            try:
                return self._db.execute(question, values).fetchall()
            except sqlite3.Error as error:
                raise StoreError(f"What was kept cannot be read: {error}.") from error

    def _rows(self, where: str, *values: object) -> list[Row]:
        rows = self._ask(
            "SELECT id, visitor, state, record, weights, used FROM runs "
            f"WHERE {where} ORDER BY number",
            *values,
        )
        return [Row(i, v, s, json.loads(r), w, u) for i, v, s, r, w, u in rows]

    def of(self, visitor: str) -> list[Row]:
        """A visitor's runs, oldest first."""
        return self._rows("visitor = ?", visitor)

    def waiting(self) -> list[Row]:
        """Runs that wait, in the order in which they were queued."""
        return self._rows("state = 'waiting'")

    def visitor_of(self, run_id: str) -> str | None:
        """Whose run this is; None for an unknown one."""
        rows = self._ask("SELECT visitor FROM runs WHERE id = ?", run_id)
        return str(rows[0][0]) if rows else None

    def events(self, run_id: str) -> list[dict[str, Any]]:
        """The events of a run, as records."""
        chunks = self._ask("SELECT records FROM events WHERE run = ? ORDER BY first", run_id)
        return [record for (text,) in chunks for record in json.loads(text)]

    def table(self, digest: str) -> dict[str, Any] | None:
        """The content of a table."""
        rows = self._ask("SELECT record FROM tables WHERE digest = ?", digest)
        return dict(json.loads(rows[0][0])) if rows else None

    def own_tables(self, visitor: str) -> list[str]:
        """The digests of a visitor's tables."""
        rows = self._ask("SELECT digest FROM own_tables WHERE visitor = ? ORDER BY rowid", visitor)
        return [digest for (digest,) in rows]

    def clock(self) -> float:
        """The server's own time when it last noted it."""
        rows = self._ask("SELECT value FROM facts WHERE name = 'clock'")
        return float(rows[0][0]) if rows else 0.0

    def weights_path(self, name: str) -> Path:
        """Where a file of weights lies."""
        return self.folder / "weights" / Path(name).name

    def weights(self, run_id: str) -> dict[str, Tensor]:
        """The kept weights of a run; none for one without. Raises `StoreError`."""
        rows = self._ask("SELECT weights FROM runs WHERE id = ?", run_id)
        if not rows or not rows[0][0]:
            return {}
        try:
            return dict(load_file(self.weights_path(rows[0][0])))
        except (OSError, SafetensorError) as error:
            raise StoreError(
                "The weights of this run were kept, but their file is missing or damaged. Its "
                "curves and figures stay."
            ) from error

    def _sweep_files(self) -> None:
        """Remove what a killed process left half written, and what no row names."""
        named = {name for (name,) in self._ask("SELECT weights FROM runs WHERE weights != ''")}
        for path in (self.folder / "weights").iterdir():
            if path.name not in named:
                path.unlink(missing_ok=True)


def _open(path: Path) -> sqlite3.Connection:
    """The database, of the present version. Raises `sqlite3.Error` or `StoreError`."""
    db = sqlite3.connect(path, check_same_thread=False)
    try:
        application, version = (
            db.execute(f"PRAGMA {name}").fetchone()[0]
            for name in ("application_id", "user_version")
        )
        tables = db.execute("SELECT count(*) FROM sqlite_master").fetchone()[0]
        if tables and application != APPLICATION:
            raise StoreError("it is not a database of LoRA Lab")
        if version > len(MIGRATIONS):
            raise StoreError("a newer LoRA Lab wrote it")
        if db.execute("PRAGMA quick_check").fetchone()[0] != "ok":
            raise StoreError("it is damaged")
        db.executescript("PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL;")
        db.execute("PRAGMA foreign_keys = ON")
        for number, script in enumerate(MIGRATIONS[version:], start=version + 1):
            db.executescript(
                f"BEGIN; {script} PRAGMA application_id = {APPLICATION}; "
                f"PRAGMA user_version = {number}; COMMIT;"
            )
    except BaseException:
        db.close()
        raise
    return db


def _drop_unused_tables(db: sqlite3.Connection) -> None:
    db.execute(
        "DELETE FROM tables WHERE digest NOT IN (SELECT digest FROM own_tables) AND digest NOT IN "
        "(SELECT json_extract(record, '$.table') FROM runs WHERE json_extract(record, '$.table') "
        "IS NOT NULL)"
    )
