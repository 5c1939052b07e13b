"""The index of runs: a SQLite file in the user's cache that answers questions over many runs at once.

Nothing is true only here. Its file may be removed at any time, its name carries the schema version, and a file
that cannot be read or written is replaced by one in memory. The first question makes it, from then on launchers
note each run when it opens and ends, and a question adds what others have left out.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from flowkiln._base import paths
from flowkiln.store import keys, runs

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Iterable, Iterator
    from typing import Self

    from flowkiln.store.interfaces import Records
    from flowkiln.store.runs import Run

INDEX_SCHEMA = 1
_BUSY_SECONDS = 20.0
_TABLES = """
CREATE TABLE IF NOT EXISTS runs (
    flow TEXT NOT NULL, run TEXT NOT NULL, status TEXT NOT NULL, opened_us INTEGER NOT NULL, ended_us INTEGER,
    user TEXT, tags TEXT NOT NULL, PRIMARY KEY (run, flow)
) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS by_status ON runs (flow, status, run);
CREATE TABLE IF NOT EXISTS tags (
    tag TEXT NOT NULL, run TEXT NOT NULL, flow TEXT NOT NULL, PRIMARY KEY (tag, run, flow)
) WITHOUT ROWID;
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class IndexedRun:
    """One line of the index. Times are microseconds since the epoch, ``ended_us`` None while running."""

    flow: str
    run: str
    status: str
    opened_us: int
    ended_us: int | None
    user: str | None
    tags: tuple[str, ...]


def path_of(url: str, folder: Path | None = None) -> Path:
    """The file of the index of the store ``url``, in ``folder`` or in the user's cache."""
    name = f"{hashlib.sha256(url.encode()).hexdigest()[:20]}.v{INDEX_SCHEMA}.sqlite"
    return (folder or paths.cache_root() / "index") / name


def note(records: Records, url: str, flow: str, run: str, folder: Path | None = None) -> None:
    """Brings what the index knows of a run up to date, if there is an index. Trouble with it is nobody's."""
    if not os.access(path_of(url, folder), os.W_OK):
        return
    import sqlite3  # noqa: PLC0415  only where an index has been made

    with contextlib.suppress(sqlite3.Error), Index(records, url, folder) as index:
        index.put(runs.read_run(records, flow, run))


class Index:
    """The index of one store, as a context manager. ``url`` is what identifies the store: its folder.

    A new or unreadable index is filled from the store's records when it is opened.
    """

    def __init__(self, records: Records, url: str, folder: Path | None = None) -> None:
        self._records = records
        self.path = path_of(url, folder)
        self._database = self._open()

    def close(self) -> None:
        """Closes the file. May be called twice."""
        self._database.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def put(self, run: Run) -> None:
        """Adds ``run`` or what is new of it."""
        with self._transaction():
            self._put([run])

    def reindex(self) -> int:
        """Fills the index anew, by one listing and one read per record of a run, and returns the number of runs."""
        with self._transaction():
            return self._fill()

    def catch_up(self) -> int:
        """Adds runs that others opened and the ends of those that ended; returns how many it read.

        One listing per flow, and one look per run that is known as running: nothing that is known is read again.
        """
        known = set(self._rows("SELECT flow, run FROM runs"))
        changed = []
        for flow in runs.flows(self._records):
            new = (run for run in runs.run_ids(self._records, flow) if (flow, run) not in known)
            changed += [runs.read_run(self._records, flow, run) for run in new]
        for flow, run in self._rows("SELECT flow, run FROM runs WHERE status = 'running'"):
            if self._records.exists(keys.run_ended(flow, run)):
                changed.append(runs.read_run(self._records, flow, run))
        if changed:
            with self._transaction():
                self._put(changed)
        return len(changed)

    def query(
        self,
        *,
        flow: str | None = None,
        status: str | None = None,
        user: str | None = None,
        tags: Iterable[str] = (),
        before: str | None = None,
        limit: int = 50,
    ) -> list[IndexedRun]:
        """Runs that meet every condition given, newest first, at most ``limit``; ``before`` is a run id."""
        conditions, values = ["1"], []
        for column, value in (("flow", flow), ("status", status), ("user", user)):
            if value is not None:
                conditions.append(f"{column} = ?")
                values.append(value)
        if before is not None:
            conditions.append("run < ?")
            values.append(before)
        for tag in tags:
            conditions.append("EXISTS (SELECT 1 FROM tags t WHERE t.tag = ? AND t.run = r.run AND t.flow = r.flow)")
            values.append(tag)
        statement = (
            "SELECT flow, run, status, opened_us, ended_us, user, tags FROM runs r "  # noqa: S608  constants only
            f"WHERE {' AND '.join(conditions)} ORDER BY run DESC LIMIT ?"
        )
        return [
            IndexedRun(
                flow=row[0],
                run=row[1],
                status=row[2],
                opened_us=row[3],
                ended_us=row[4],
                user=row[5],
                tags=tuple(json.loads(row[6])),
            )
            for row in self._rows(statement, *values, limit)
        ]

    def _open(self) -> sqlite3.Connection:
        import sqlite3  # noqa: PLC0415  launchers without an index don't pay for it

        for _ in range(2):
            try:
                self.path.parent.mkdir(parents=True, exist_ok=True)
                return self._prepared(str(self.path))
            except sqlite3.OperationalError:
                break  # read-only or locked by a file system without locks
            except sqlite3.DatabaseError:
                for end in ("", "-wal", "-shm"):
                    Path(f"{self.path}{end}").unlink(missing_ok=True)
            except OSError:
                break
        return self._prepared(":memory:")

    def _prepared(self, path: str) -> sqlite3.Connection:
        import sqlite3  # noqa: PLC0415  as above

        database = sqlite3.connect(path, timeout=_BUSY_SECONDS, isolation_level=None)
        try:
            self._database = database
            with contextlib.suppress(sqlite3.OperationalError):  # some network file systems have no WAL
                database.execute("PRAGMA journal_mode = WAL")
            database.execute("PRAGMA synchronous = NORMAL")
            if self._version() != INDEX_SCHEMA:
                with self._transaction():
                    if self._version() != INDEX_SCHEMA:  # nobody filled it while this process waited
                        self._fill()
        except BaseException:
            database.close()
            raise
        return database

    def _version(self) -> int:
        return int(self._rows("PRAGMA user_version")[0][0])

    def _fill(self) -> int:
        """Inside a transaction: a run that is put meanwhile waits, and is not lost."""
        found = list(runs.runs(self._records))
        for statement in ("DROP TABLE IF EXISTS runs", "DROP TABLE IF EXISTS tags", *_TABLES.split(";\n")):
            self._database.execute(statement)
        self._put(found)
        self._database.execute(f"PRAGMA user_version = {INDEX_SCHEMA}")
        return len(found)

    def _put(self, found: Iterable[Run]) -> None:
        for run in found:
            ended_us = run.ended["ended_us"] if run.ended else None
            shown = json.dumps(run.tags)
            row = (run.flow, run.run, run.status, run.opened["opened_us"], ended_us, run.opened.get("user"), shown)
            self._database.execute("INSERT OR REPLACE INTO runs VALUES (?, ?, ?, ?, ?, ?, ?)", row)
            self._database.execute("DELETE FROM tags WHERE run = ? AND flow = ?", (run.run, run.flow))
            self._database.executemany(
                "INSERT INTO tags VALUES (?, ?, ?)", [(tag, run.run, run.flow) for tag in run.tags]
            )

    @contextlib.contextmanager
    def _transaction(self) -> Iterator[None]:
        self._database.execute("BEGIN IMMEDIATE")
        try:
            yield
        except BaseException:
            self._database.execute("ROLLBACK")
            raise
        self._database.execute("COMMIT")

    def _rows(self, statement: str, *values: object) -> list[tuple[Any, ...]]:
        return self._database.execute(statement, values).fetchall()
