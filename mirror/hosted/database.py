"""The database of hosted content: SQLite in WAL mode, every commit synced, shared by the workers of one disk.

Unlike the metadata it can be had from nowhere else: it is never rebuilt or set aside. One that is damaged takes in
nothing more, and says so, until it is restored; the cache goes on without it.
"""

import errno
import logging
import os
import sqlite3
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TypeVar

from mirror.errors import DiskFull, MirrorError, StartError, StoreError
from mirror.hosted.schema import STEPS, TABLES
from mirror.metadata.recovery import backup_of, beside, is_damage, locked
from mirror.metadata.schema import Damaged, migrate
from mirror.store.directory import sync_folder

_LOG = logging.getLogger(__name__)

_BUSY_FOR = 5.0  # seconds for which another process may hold the lock for writing
_MAX_LOG = 64 * 1024 * 1024  # bytes to which the write-ahead log is cut when it was longer
_CHECKED_AT_START = 8 * 1024 * 1024  # bytes up to which the whole database is checked: 0.2 s

T = TypeVar("T")
Change = Callable[[sqlite3.Connection], object]


class Database:
    """One connection, for one thread at a time. Everything here blocks, and raises `StoreError` where that fails."""

    def __init__(self, path: Path) -> None:
        self.damage: str | None = None
        self._path = path
        self._connection: sqlite3.Connection | None = None
        self._identity: tuple[int, int] | None = None

    def read(self, work: Callable[[sqlite3.Connection], T]) -> T:
        """What ``work`` finds in the records as they stand."""
        try:
            connection = self._current()
            connection.execute("BEGIN")
            try:
                return work(connection)
            finally:
                connection.rollback()
        except (sqlite3.Error, OSError, StartError) as error:
            raise self._failed(error) from error

    def change(self, changes: Sequence[Change]) -> list[object]:
        """Make the changes, synced to the disk when this returns; what each gives, or the `MirrorError` it raised.

        A change that raises leaves nothing behind, and does not stand in the way of the others.
        """
        if self.damage is not None:
            raise StoreError(self.damage)
        try:
            connection = self._current()
            connection.execute("BEGIN IMMEDIATE")
            try:
                results = [_apart(connection, change) for change in changes]
                connection.execute("COMMIT")
                return results
            finally:
                if connection.in_transaction:
                    connection.rollback()
        except (sqlite3.Error, OSError, StartError) as error:
            raise self._failed(error) from error

    def check(self) -> None:
        """Look whether the database is sound, all of it when it is small."""
        self.read(lambda connection: sound(connection, whole=self._path.stat().st_size <= _CHECKED_AT_START))

    def close(self) -> None:
        """Close the connection. It is opened again when it is needed."""
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.close()

    def _current(self) -> sqlite3.Connection:
        """The connection to the file that is under the path now: one that was restored takes the place of another."""
        found = _identity(self._path)
        if self._connection is not None and found == self._identity:
            return self._connection
        self.close()
        if found is None and self._identity is not None:
            raise Damaged("it was removed while the mirror was running")
        with locked(beside(self._path, ".lock")):
            if not self._path.exists():
                if backup_of(self._path).exists():
                    raise Damaged("they are gone, and were there before")
                _create(self._path)
            self._identity = _identity(self._path)
            self._connection = _open(self._path)
        return self._connection

    def _failed(self, error: Exception) -> StoreError:
        """The error for callers: without the path, which is none of a client's business."""
        reason = (error.strerror if isinstance(error, OSError) else None) or str(error)
        before = self.damage
        if isinstance(error, StartError):
            self.damage = "the records of hosted content were written by a newer release; start that release again"
        elif isinstance(error, sqlite3.Error) and is_damage(error):
            self.damage = (
                f"the records of hosted content are damaged ({reason}); stop the mirror, restore hosted.sqlite from "
                "hosted.sqlite.backup, which is made every hour, remove hosted.sqlite-wal and hosted.sqlite-shm, and "
                "start it again"
            )
        elif _is_full(error):
            return DiskFull("the mirror's disk is full; nothing more can be pushed until there is room")
        else:
            return StoreError(f"the records of hosted content cannot be used: {reason}")
        if self.damage != before:
            _LOG.error("%s: %s", self._path, self.damage)
        return StoreError(self.damage)


def sound(connection: sqlite3.Connection, *, whole: bool = True) -> None:
    """Raise `Damaged` when the database is not sound; only ``whole`` looks into each page."""
    tables = {name for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
    if missing := TABLES - tables:
        raise Damaged(f"it lacks {', '.join(sorted(missing))}")
    if whole:
        (found,) = connection.execute("PRAGMA quick_check(1)").fetchone()
        if found != "ok":
            raise Damaged(" ".join(found.split()))


def _apart(connection: sqlite3.Connection, change: Change) -> object:
    connection.execute("SAVEPOINT apart")
    try:
        return change(connection)
    except MirrorError as error:
        connection.execute("ROLLBACK TO apart")
        return error
    finally:
        if connection.in_transaction:
            connection.execute("RELEASE apart")


def _create(path: Path) -> None:
    """A new database, which comes into being whole: an empty file is one that lost its content."""
    draft = beside(path, ".draft")
    draft.unlink(missing_ok=True)
    connection = sqlite3.connect(draft, isolation_level=None)
    try:
        connection.execute("PRAGMA synchronous = FULL")
        migrate(connection, STEPS)
    finally:
        connection.close()
    draft.replace(path)
    sync_folder(path.parent)


def _open(path: Path) -> sqlite3.Connection:
    uri = f"{path.absolute().as_uri()}?mode=rw"
    connection = sqlite3.connect(uri, uri=True, timeout=_BUSY_FOR, isolation_level=None, check_same_thread=False)
    try:
        connection.execute("PRAGMA cell_size_check = ON")
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("PRAGMA synchronous = FULL")
        connection.execute(f"PRAGMA journal_size_limit = {_MAX_LOG}")
        (version,) = connection.execute("PRAGMA user_version").fetchone()
        if version < 1:
            raise Damaged("it is empty")
        migrate(connection, STEPS)
    except BaseException:
        connection.close()
        raise
    return connection


def _is_full(error: Exception) -> bool:
    if isinstance(error, OSError):
        return error.errno in (errno.ENOSPC, errno.EDQUOT)
    return getattr(error, "sqlite_errorcode", 0) & 0xFF == sqlite3.SQLITE_FULL


def _identity(path: Path) -> tuple[int, int] | None:
    try:
        found = os.stat(path)
    except FileNotFoundError:
        return None
    return found.st_dev, found.st_ino
