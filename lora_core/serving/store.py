"""What outlives the process: one folder, SQLite for what is listed, safetensors for weights.

Written when a run is queued, at each of its evaluations and at its end, so a process that is killed
loses at most the steps since the last evaluation. A run's row, its events and the name of its file
of weights change together or not at all. A table is kept once a run uses it, and as long as its
visitor has runs. Texts that are typed are never written.

Knows nothing about the registry; `recall.py` makes runs of the rows.
"""

from __future__ import annotations

import contextlib
import json
import math
import os
import re
import secrets
import shutil
import sqlite3
import threading
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout
from platformdirs import user_data_path
from safetensors import SafetensorError
from torch import Tensor

from lora_core.errors import LabError
from lora_core.limits import MEGABYTE
from lora_core.serving import log
from lora_core.serving.weight_files import WeightFiles, Weights

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
    # After which step the weights are; NULL: an older version wrote them.
    "ALTER TABLE runs ADD COLUMN weights_step INTEGER;",
)
_DAMAGE = (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB)
# Why SQLite cannot use a database that may be whole, and what to do.
_LOCKED = "another program has locked it", "End that program."
_NOT_WRITABLE = "it may not be written to", "Let this user write to it and to its folder."
_FULL = "the disk is full", "Make room on it."
_OBSTACLES = {
    sqlite3.SQLITE_BUSY: _LOCKED,
    sqlite3.SQLITE_LOCKED: _LOCKED,
    sqlite3.SQLITE_READONLY: _NOT_WRITABLE,
    sqlite3.SQLITE_PERM: _NOT_WRITABLE,
    sqlite3.SQLITE_CANTOPEN: _NOT_WRITABLE,
    sqlite3.SQLITE_FULL: _FULL,
}
_PERHAPS_FULL = (sqlite3.SQLITE_IOERR, sqlite3.SQLITE_CANTOPEN)  # SQLite does not say so
_MARK = re.compile(r"deleted-((?:[0-7][0-9a-f])+)")  # a file: this run's row has to go yet
_SHRINK = 4 * MEGABYTE  # unused within the database, and more than half of it: it is written anew
SPACE_DISK = Path("/data")  # where a Space's lasting disk is, if it has one


class StoreError(LabError, RuntimeError):
    """The store cannot be used; the message says why and what to do."""


class _DamagedError(Exception):
    """A database that is damaged or not ours; the message says which."""


@dataclass(frozen=True)
class Row:
    """A stored run; `weights` names a file, or is empty. A record that is no JSON is empty."""

    id: str
    visitor: str
    state: str  # as `Run.state`, or "interrupted"
    record: dict[str, Any]
    weights: str
    used: float
    weights_step: int | None


def default_folder() -> Path:
    """Where a user's programs keep their data: `~/.local/share/lora-lab` on Linux, say."""
    return user_data_path("lora-lab", appauthor=False)


def choose_folder(wanted: str | None) -> tuple[Path | None, str]:
    """Where to keep runs, None for nowhere, and a sentence for the host.

    `wanted`: a folder, "none", or nothing: then LORA_LAB_DATA says it, else the user's data folder;
    on a Space its lasting disk, if it has one. Raises `StoreError` for a `~` that is nobody's.
    """
    choice = (wanted or os.environ.get("LORA_LAB_DATA") or "").strip()
    if choice.lower() == "none":
        return None, "Runs are kept in memory only: when the server ends they are gone."
    if choice:
        try:
            folder = Path(choice).expanduser()
        except RuntimeError as error:
            raise StoreError(f"There is no folder {choice} to keep runs in: {error}") from error
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
    so once in its log, and whoever writes hears that it was not done. What was deleted is not read
    any more, also where the disk had no room for that: its row goes when there is some.
    """

    def __init__(self, folder: Path) -> None:
        """Raises `StoreError` when another server has the folder or it cannot be written to."""
        self.folder = folder
        self.notes: list[str] = []  # for the host: what was set aside at the start
        self._guard = threading.RLock()
        try:
            folder.mkdir(parents=True, exist_ok=True)
            if not any(folder.iterdir()):  # nobody else's
                folder.chmod(0o700)
            self._lock = FileLock(folder / "lock", timeout=0)
            self._lock.acquire()
        except Timeout as error:
            raise StoreError(
                f"Another LoRA Lab uses {folder}: end it, or choose another folder with --data."
            ) from error
        except OSError as error:
            raise self._unusable(error) from error
        try:
            self._files = WeightFiles(folder / "weights")
            marks = (_MARK.fullmatch(path.name) for path in folder.iterdir())
            self._gone = {bytes.fromhex(mark[1]).decode() for mark in marks if mark}
            self._path = folder / "runs.sqlite"
            self._db = self._open_or_set_aside(self._path)
            self._inode = self._path.stat().st_ino
            self._delete_rest()
            with contextlib.suppress(StoreError):  # then the files stay until the next start
                rows = self._ask("SELECT weights FROM runs WHERE weights != ''")
                self._files.sweep({name for (name,) in rows})
        except OSError as error:
            self._lock.release()
            raise self._unusable(error) from error
        except BaseException:
            self._lock.release()
            raise

    def close(self) -> None:
        """Let another server have the folder."""
        with self._guard, contextlib.suppress(sqlite3.Error):
            self._db.close()
        self._lock.release()

    def _unusable(self, error: OSError) -> StoreError:
        return StoreError(
            f"{self.folder} cannot be used to keep runs in ({error.strerror or error}). Choose "
            "another folder with --data, or --data none to keep nothing."
        )

    def _open_or_set_aside(self, path: Path) -> sqlite3.Connection:
        suffix = f"-set-aside-{secrets.token_hex(4)}"
        try:
            db, is_new = _open(path)
        except _DamagedError as error:
            for name in (path.name, f"{path.name}-wal", f"{path.name}-shm"):
                with contextlib.suppress(FileNotFoundError):
                    (self.folder / name).rename(self.folder / (name + suffix))
            self._files.set_aside(self.folder / f"weights{suffix}")
            self.notes.append(
                f"What was kept in {self.folder} could not be read ({error}). It was set aside as "
                f"{path.name}{suffix}, and a new store begins."
            )
            return _open(path)[0]
        if is_new and self._files.set_aside(self.folder / f"weights{suffix}"):
            self.notes.append(
                f"{path} is not there any more, but weights are that it named. They were set aside "
                f"as weights{suffix}, and a new store begins."
            )
        return db

    # Writing ---------------------------------------------------------------------------------

    @contextlib.contextmanager
    def _writing(self) -> Iterator[sqlite3.Connection]:
        with self._guard:
            try:
                with self._db:
                    yield self._db
            except (sqlite3.Error, OSError, SafetensorError) as error:
                why = str(error).partition(" at path ")[0]  # its files are named anew each time
                log.once(
                    f"What happens now is not kept: {self.folder} cannot be written to ({why})."
                )

    def _commit(self, old: list[str]) -> bool:
        """Then the old files go."""
        if self._path.stat().st_ino != self._inode:  # deleted: SQLite would write into the void
            raise FileNotFoundError(f"{self._path.name} is another file now")
        self._db.commit()
        for file in old:
            self._files.remove(file)
        return True

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
        weights: Weights | None = None,
        without_weights: bool = False,
        replaces: str = "",
    ) -> bool:
        """Insert or update a run; whether that was done, all of it or nothing.

        `events` are those from number `first` on. `table`: digest and content of a table that is
        not bundled, and whether its visitor keeps it in the list of tables. `weights` come in the
        place of those before; `without_weights`: those before go. `replaces`: a run that goes.
        """
        with self._writing() as db, self._files.new(weights) as name:
            if table is not None:
                _put_table(db, visitor, *table)
            db.execute(
                "INSERT INTO runs (id, visitor, state, record, used) VALUES (?, ?, ?, ?, ?) "
                "ON CONFLICT (id) DO UPDATE SET state = excluded.state, record = excluded.record, "
                "used = excluded.used",
                (run_id, visitor, state, json.dumps(record), used),
            )
            if events:
                text = json.dumps(list(events))
                db.execute("INSERT OR REPLACE INTO events VALUES (?, ?, ?)", (run_id, first, text))
            old = []
            if name or without_weights:
                old += _file_of(db, run_id)
                size, step = (self._files.size(name), weights.step) if weights else (0, None)
                db.execute(
                    "UPDATE runs SET weights = ?, bytes = ?, weights_step = ? WHERE id = ?",
                    (name, size, step, run_id),
                )
            if replaces:
                old += _delete(db, replaces)
            return self._commit(old)
        return False

    def use(self, used: Mapping[str, float], clock: float) -> None:
        """Note when runs were last used, and the server's own time."""
        with self._writing() as db:
            db.executemany(
                "UPDATE runs SET used = ? WHERE id = ?", [(u, i) for i, u in used.items()]
            )
            db.execute("INSERT OR REPLACE INTO facts VALUES ('clock', ?)", (repr(clock),))

    def delete(self, run_id: str) -> bool:
        """Forget a run, its events, weights, and a table that nobody needs any more; whether all of
        that was done.

        SQLite needs room to delete. Where there is none, the weights make some; if that is not
        enough, an empty file says what has to go yet.
        """
        with self._guard:
            if self._delete_row(run_id):
                return True
            with contextlib.suppress(StoreError):
                for (file,) in self._ask("SELECT weights FROM runs WHERE id = ?", run_id):
                    self._files.remove(file)
            if self._delete_row(run_id):
                return True
            self._gone.add(run_id)
            with contextlib.suppress(OSError):
                self._mark(run_id).touch()
        return False

    def _delete_row(self, run_id: str) -> bool:
        with self._writing() as db:
            old = _delete(db, run_id)
            _drop_unused_tables(db)
            return self._commit(old)
        return False

    def _delete_rest(self) -> None:
        """Delete what there was no room to delete."""
        for run_id in list(self._gone):
            if not self._delete_row(run_id):
                return
            self._gone.discard(run_id)
            with contextlib.suppress(OSError):
                self._mark(run_id).unlink()

    def _mark(self, run_id: str) -> Path:
        return self.folder / f"deleted-{run_id.encode().hex()}"

    def delete_table(self, visitor: str, name: str) -> None:
        """Take a table out of a visitor's list; runs that use it keep it."""
        with self._writing() as db:
            db.execute("DELETE FROM own_tables WHERE visitor = ? AND name = ?", (visitor, name))
            _drop_unused_tables(db)

    def delete_visitor(self, visitor: str) -> bool:
        """Forget all that is a visitor's; whether all of that was done."""
        with self._guard:
            runs = self._ask("SELECT id FROM runs WHERE visitor = ?", visitor)
            done = [self.delete(run_id) for (run_id,) in runs]
            return all(done)

    def interrupt(self) -> None:
        """At a start: what was running when the last server ended is interrupted."""
        with self._writing() as db:
            db.execute("UPDATE runs SET state = 'interrupted' WHERE state = 'running'")

    def sweep(self, oldest: float, max_bytes: int) -> list[str]:
        """Forget runs not used since `oldest`, then the longest unused until the rest fits; their
        ids. Each visitor's newest run goes last."""
        with self._guard:
            try:
                self._delete_rest()
                return self._sweep(oldest, max_bytes)
            except StoreError as error:
                log.once(str(error))
                return []

    def _sweep(self, oldest: float, max_bytes: int) -> list[str]:
        ended = "state NOT IN ('waiting', 'running')"
        newest = "number = (SELECT max(number) FROM runs r WHERE r.visitor = runs.visitor)"
        gone: list[str] = []
        for (run_id,) in self._ask(f"SELECT id FROM runs WHERE used < ? AND {ended}", oldest):
            if self._delete_row(run_id):
                gone.append(run_id)
        if self._bytes() > max_bytes:
            order = f"SELECT id FROM runs WHERE {ended} ORDER BY {newest}, used"
            for (run_id,) in self._ask(order):
                if self._bytes() <= max_bytes or not self._delete_row(run_id):
                    break
                gone.append(run_id)
        self._shrink()
        return gone

    def _bytes(self) -> int:
        """On the disk: files of weights, and what is used of the database."""
        (weights,) = self._ask("SELECT total(bytes) FROM runs")[0]
        return int(weights) + self._page_bytes("page_count") - self._page_bytes("freelist_count")

    def _page_bytes(self, counted: str) -> int:
        (pages,), (size,) = self._ask(f"PRAGMA {counted}")[0], self._ask("PRAGMA page_size")[0]
        return int(pages * size)

    def _shrink(self) -> None:
        """Give the disk back what was deleted, where that is much."""
        unused = self._page_bytes("freelist_count")
        if unused > _SHRINK and 2 * unused > self._page_bytes("page_count"):
            with self._writing() as db:
                db.execute("VACUUM")
                db.execute("PRAGMA wal_checkpoint(TRUNCATE)")

    # Reading ---------------------------------------------------------------------------------

    def _ask(self, question: str, *values: object) -> list[Any]:
        with self._guard:
            try:
                return self._db.execute(question, values).fetchall()
            except UnicodeEncodeError:  # half a character, from who invents names: nothing has it
                return []
            except sqlite3.Error as error:
                raise StoreError(f"What was kept cannot be read: {error}.") from error

    def _rows(self, where: str, *values: object) -> list[Row]:
        rows = self._ask(
            "SELECT id, visitor, state, record, weights, used, weights_step FROM runs "
            f"WHERE {where} ORDER BY number",
            *values,
        )
        made = [Row(i, v, s, _record(r), w, u, n) for i, v, s, r, w, u, n in rows]
        return [row for row in made if row.id not in self._gone]

    def of(self, visitor: str) -> list[Row]:
        """A visitor's runs, oldest first."""
        return self._rows("visitor = ?", visitor)

    def waiting(self) -> list[Row]:
        """Runs that wait, in the order in which they were queued."""
        return self._rows("state = 'waiting'")

    def visitor_of(self, run_id: str) -> str | None:
        """Whose run this is; None for an unknown one."""
        rows = self._rows("id = ?", run_id)
        return rows[0].visitor if rows else None

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
        return [digest for (digest,) in rows] if self.of(visitor) else []

    def clock(self) -> float:
        """The server's own time when it last noted it."""
        try:
            ((value,),) = self._ask("SELECT value FROM facts WHERE name = 'clock'")
            return float(value) if math.isfinite(float(value)) else 0.0
        except (StoreError, TypeError, ValueError):  # never noted, or not to be read
            return 0.0

    def weights_path(self, name: str) -> Path:
        """Where a file of weights lies."""
        return self._files.path(name)

    def weights_step(self, run_id: str) -> int | None:
        """After which step the kept weights of a run are; None where that was not kept."""
        rows = self._ask("SELECT weights_step FROM runs WHERE id = ?", run_id)
        return rows[0][0] if rows else None

    def weights(self, run_id: str) -> dict[str, Tensor]:
        """The kept weights of a run; none for one without. Raises `StoreError`."""
        rows = self._ask("SELECT weights FROM runs WHERE id = ?", run_id)
        if not rows or not rows[0][0]:
            return {}
        try:
            return self._files.read(rows[0][0])
        except (OSError, SafetensorError, TypeError, ValueError) as error:
            raise StoreError(
                "The weights of this run were kept, but their file is missing or damaged. Its "
                "curves and figures stay."
            ) from error


def _open(path: Path) -> tuple[sqlite3.Connection, bool]:
    """The database, of the present version, and whether it is new.

    Raises `_DamagedError`, or `StoreError` where the database may be whole and cannot be used now.
    """
    if not path.exists():
        path.touch(mode=0o600)  # nobody else's to read: visitors' tokens are in it
    try:
        db = sqlite3.connect(path, check_same_thread=False)
        # Bytes that are no text hide one row and not all that are asked for with it.
        db.text_factory = lambda content: content.decode(errors="replace")
        db.create_function("table_of", 1, _table_of)
        try:
            return db, _prepare(db, path)
        except BaseException:
            db.close()
            raise
    except sqlite3.Error as error:
        code = getattr(error, "sqlite_errorcode", 0) & 0xFF  # without its finer distinctions
        if code in _DAMAGE:
            raise _DamagedError(str(error)) from error
        obstacle, advice = _OBSTACLES.get(code, (str(error), "Look after the disk."))
        if code in _PERHAPS_FULL and shutil.disk_usage(path.parent).free < MEGABYTE:
            obstacle, advice = _FULL
        raise StoreError(
            f"{path} cannot be used now: {obstacle}. Nothing of it was changed. {advice} Or choose "
            "another folder with --data, or --data none to keep nothing."
        ) from error


def _prepare(db: sqlite3.Connection, path: Path) -> bool:
    """Check a database and bring it to the present version; whether it was empty.

    Raises `StoreError` for one of a later version: what that one kept is not understood here.
    """
    application, version = (
        db.execute(f"PRAGMA {name}").fetchone()[0] for name in ("application_id", "user_version")
    )
    tables = db.execute("SELECT count(*) FROM sqlite_master").fetchone()[0]
    if tables and application != APPLICATION:
        raise _DamagedError("it is not a database of LoRA Lab")
    if version > len(MIGRATIONS):
        raise StoreError(
            f"A newer LoRA Lab wrote {path}. Nothing of it was changed. Start that one, or choose "
            "another folder with --data, or --data none to keep nothing."
        )
    if db.execute("PRAGMA quick_check").fetchone()[0] != "ok":
        raise _DamagedError("it is damaged")
    db.executescript("PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL;")
    db.execute("PRAGMA foreign_keys = ON")
    for number, script in enumerate(MIGRATIONS[version:], start=version + 1):
        db.executescript(
            f"BEGIN; {script} PRAGMA application_id = {APPLICATION}; "
            f"PRAGMA user_version = {number}; COMMIT;"
        )
    return not tables


def _record(text: str) -> dict[str, Any]:
    try:
        return dict(json.loads(text))
    except (TypeError, ValueError):
        return {}


def _table_of(text: str) -> str:
    """The digest of the table in a record, "" without one. SQLite reads no record with a NaN."""
    return str(_record(text).get("table") or "")


def _put_table(
    db: sqlite3.Connection, visitor: str, digest: str, content: Mapping[str, Any], listed: bool
) -> None:
    known = db.execute("SELECT 1 FROM tables WHERE digest = ?", (digest,)).fetchone()
    if not known:
        db.execute("INSERT INTO tables VALUES (?, ?)", (digest, json.dumps(content)))
    if listed:
        db.execute(
            "INSERT INTO own_tables VALUES (?, ?, ?) "
            "ON CONFLICT (visitor, name) DO UPDATE SET digest = excluded.digest",
            (visitor, content["name"], digest),
        )


def _file_of(db: sqlite3.Connection, run_id: str) -> list[str]:
    """The name of the file of a run's weights, if it has one."""
    return [
        name
        for (name,) in db.execute("SELECT weights FROM runs WHERE id = ?", (run_id,)).fetchall()
        if name
    ]


def _delete(db: sqlite3.Connection, run_id: str) -> list[str]:
    """Delete the row of a run; the file that it named."""
    old = _file_of(db, run_id)
    db.execute("DELETE FROM runs WHERE id = ?", (run_id,))
    return old


def _drop_unused_tables(db: sqlite3.Connection) -> None:
    db.execute("DELETE FROM own_tables WHERE visitor NOT IN (SELECT visitor FROM runs)")
    db.execute(
        "DELETE FROM tables WHERE digest NOT IN (SELECT digest FROM own_tables) "
        "AND digest NOT IN (SELECT CASE WHEN json_valid(record) "
        "THEN coalesce(json_extract(record, '$.table'), '') ELSE table_of(record) END FROM runs)"
    )
