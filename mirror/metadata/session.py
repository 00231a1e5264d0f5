"""A connection to the embedded database that outlives the file: replaced, it is opened anew; damaged, it is rebuilt."""

import contextlib
import logging
import os
import sqlite3
import time
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from mirror.errors import StartError, StoreError
from mirror.metadata import recovery, schema
from mirror.metadata.salvage import Disk
from mirror.metadata.schema import Damaged

_LOG = logging.getLogger(__name__)

_BUSY_FOR = 5.0  # seconds for which another process may hold the lock for writing
_BUSY_TRY = 1.0  # seconds of that for which SQLite itself tries again; it gives up at once where it fears a deadlock
_BUSY_PAUSE = 0.01
_REOPEN_AFTER = 1.0  # seconds between two tries to open what could not be opened
_MAX_LOG = 64 * 1024 * 1024  # bytes to which the write-ahead log is cut when it was longer
_BUSY = frozenset({sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED, sqlite3.SQLITE_PROTOCOL})

T = TypeVar("T")


class Session:
    """One connection, for one thread at a time. Everything here blocks.

    ``links_incomplete`` is what the database said when it was opened last.
    """

    def __init__(self, path: Path, disk: Disk) -> None:
        self.links_incomplete = False
        self._path = path
        self._disk = disk
        self._lock = recovery.beside(path, ".lock")
        self._connection: sqlite3.Connection | None = None
        self._identity: tuple[int, int] | None = None
        self._failed_at = -_REOPEN_AFTER
        self._failure = ""

    def run(self, work: Callable[[sqlite3.Connection], T]) -> T:
        """Do ``work``, again after the database was busy or had to be rebuilt; so it must bear being done twice.

        Raises `StoreError` for whatever the database or the disk has against it.
        """
        deadline = time.monotonic() + _BUSY_FOR
        rebuilt = False
        while True:
            try:
                return work(self._current())
            except sqlite3.Error as error:
                if getattr(error, "sqlite_errorcode", 0) & 0xFF in _BUSY and time.monotonic() < deadline:
                    time.sleep(_BUSY_PAUSE)
                elif recovery.is_damage(error) and not rebuilt:
                    rebuilt = True
                    self._rebuild(error)
                else:
                    raise self._failed(error) from error
            except (OSError, StartError) as error:
                raise self._failed(error) from error

    def close(self) -> None:
        """Close the connection; the last one to a database takes its log in. The session may be used again."""
        connection, self._connection = self._connection, None
        if connection is not None:
            with contextlib.suppress(sqlite3.Error):
                connection.close()

    def _current(self) -> sqlite3.Connection:
        """The connection to the file that is under the path now."""
        if self._connection is not None:
            if _identity(self._path) == self._identity:
                return self._connection
            self.close()
        if time.monotonic() < self._failed_at + _REOPEN_AFTER:
            raise StoreError(self._failure)
        with recovery.locked(self._lock):
            if not self._path.exists():
                recovery.build(self._path, self._disk)
            self._identity = _identity(self._path)
            self._connection = self._open()
            self._failure = ""
        return self._connection

    def _open(self) -> sqlite3.Connection:
        # rw, not rwc: a file that is not there must come from recovery.build, whole
        uri = f"{self._path.absolute().as_uri()}?mode=rw"
        connection = sqlite3.connect(uri, uri=True, timeout=_BUSY_TRY, isolation_level=None, check_same_thread=False)
        try:
            connection.execute("PRAGMA cell_size_check = ON")
            connection.execute("PRAGMA journal_mode = WAL")
            connection.execute(f"PRAGMA journal_size_limit = {_MAX_LOG}")
            (version,) = connection.execute("PRAGMA user_version").fetchone()
            if version < 1:
                raise Damaged("it is empty")
            schema.migrate(connection)
            self.links_incomplete = schema.links_incomplete(connection)
        except BaseException:
            connection.close()
            raise
        return connection

    def _rebuild(self, why: sqlite3.Error) -> None:
        """Have the damaged file replaced, unless another thread or process did so already."""
        self.close()
        try:
            with recovery.locked(self._lock):
                if _identity(self._path) == self._identity:
                    recovery.replace(self._path, self._disk, why)
        except (sqlite3.Error, OSError, StartError) as error:
            raise self._failed(error) from error

    def _failed(self, error: Exception) -> StoreError:
        """The error for callers: without the path, which is none of a client's business."""
        reason = (error.strerror if isinstance(error, OSError) else None) or str(error)
        failure = f"the metadata database cannot be used: {reason}"
        if self._connection is None:
            if failure != self._failure and not isinstance(error, StartError):  # that one is said by who cannot start
                _LOG.error("the metadata database %s cannot be opened: %s", self._path, reason)
            self._failed_at, self._failure = time.monotonic(), failure
        return StoreError(failure)


def _identity(path: Path) -> tuple[int, int] | None:
    try:
        found = os.stat(path)
    except FileNotFoundError:
        return None
    return found.st_dev, found.st_ino
