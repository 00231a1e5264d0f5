"""A damaged database: how it is told, what takes its place, and the backup from which that is made.

The database comes into being whole, by a rename, and a damaged one leaves by a rename. So every process that has it
open sees from the inode under the path that another file took its place, and SQLite, which looks too, does not remove
the new file's log when it closes the old one. Whoever renames holds ``metadata.sqlite.lock``.

Everything here blocks, and no function opens the database but with SQLite: closing any other descriptor of the file
would drop SQLite's own locks on it (fcntl(2)).
"""

import fcntl
import logging
import os
import sqlite3
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from datetime import UTC, datetime
from pathlib import Path

from mirror.metadata import schema
from mirror.metadata.salvage import Disk, ordering, plain, salvage
from mirror.metadata.schema import Damaged

_LOG = logging.getLogger(__name__)

_SIDE_FILES = ("-wal", "-shm")
_KEPT_DAMAGED = 2
_DAMAGE = frozenset({sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB})
# A page that is not there, and one that the disk cannot read: waiting mends neither.
_DAMAGE_READING = frozenset({sqlite3.SQLITE_IOERR_SHORT_READ, sqlite3.SQLITE_IOERR_READ})


@contextmanager
def locked(path: Path, *, wait: bool = True) -> Iterator[None]:
    """Hold a lock file, among processes and threads. Raises `OSError`, of these `BlockingIOError` without ``wait``."""
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX if wait else fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield
    finally:
        os.close(descriptor)


def beside(path: Path, suffix: str) -> Path:
    """The file next to the database whose name goes on with ``suffix``."""
    return path.with_name(path.name + suffix)


def backup_of(path: Path) -> Path:
    """Where the backup of a database is."""
    return beside(path, ".backup")


def is_damage(error: sqlite3.Error) -> bool:
    """Whether an error says that the database is damaged, rather than busy, full or out of reach."""
    if isinstance(error, Damaged) or str(error).startswith("Could not decode to UTF-8"):
        return True
    code: int = getattr(error, "sqlite_errorcode", sqlite3.SQLITE_OK)
    return code & 0xFF in _DAMAGE or code in _DAMAGE_READING


def check(connection: sqlite3.Connection, most: int | None = None) -> None:
    """Raise `Damaged`, or another error of damage, when the database is not sound.

    One of more than ``most`` bytes is looked at only where its tables begin and end.
    """
    tables = {name for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
    missing = schema.TABLES - tables
    if missing:
        raise Damaged(f"it lacks {', '.join(sorted(missing))}")
    (pages,), (page,) = (connection.execute(f"PRAGMA page_{what}").fetchone() for what in ("count", "size"))
    if most is None or pages * page <= most:
        (found,) = connection.execute("PRAGMA quick_check(1)").fetchone()
        if found != "ok":
            raise Damaged(" ".join(found.split()))
        return
    for table, rule in schema.SALVAGED.items():
        for order in ("ASC", "DESC"):
            connection.execute(f"SELECT * FROM {table} ORDER BY {ordering(rule.key, order)} LIMIT 1").fetchone()


def back_up(
    connection: sqlite3.Connection,
    path: Path,
    sound: Callable[[sqlite3.Connection], None] = check,
    finish: Callable[[sqlite3.Connection], None] = lambda copy: None,
) -> None:
    """Make the backup ``path`` of a database in use, replacing the one before only with one that is ``sound``.

    ``finish`` is what remains to be done with the copy.

    It is copied in one step: between steps the writes of other processes would make it start again, without end. In WAL
    mode nobody waits for it.
    """
    partial = beside(path, ".partial")
    _copy(connection, partial)
    with closing(plain(partial)) as copy:
        try:
            sound(copy)
        except sqlite3.Error as error:
            sound(connection)
            raise OSError(f"the copy came out damaged ({error}), the database is sound") from error
        with copy:
            finish(copy)
    _put(partial, path)


def replace(path: Path, disk: Disk, why: sqlite3.Error) -> None:
    """Set the damaged database aside and put in its place what can be had. The caller holds the lock."""
    stamp = datetime.now(UTC).strftime("%Y%m%dT%H%M%S.%fZ")
    aside = beside(path, f".damaged-{stamp}")
    for suffix in ("", *_SIDE_FILES):
        if beside(path, suffix).exists():
            beside(path, suffix).rename(beside(aside, suffix))
    for old in _set_aside(path)[:-_KEPT_DAMAGED]:
        for suffix in ("", *_SIDE_FILES):
            beside(old, suffix).unlink(missing_ok=True)
    _LOG.error("the metadata database %s is damaged (%s); it was set aside as %s", path, why, aside.name)
    build(path, disk)


def build(path: Path, disk: Disk) -> None:
    """Make a database where there is none: empty, or from the remains of the one before. The caller holds the lock.

    The remains are the backup and, on top of it, what was set aside after it was made. Where there are neither, but
    blobs, this is no first start either: somebody removed the database, and the links with it.
    """
    backup, damaged = backup_of(path), _set_aside(path)[-1:]
    backed_up_at = backup.stat().st_mtime if backup.exists() else 0.0
    partial = beside(path, ".building")
    partial.unlink(missing_ok=True)
    sources = [aside for aside in damaged if _set_aside_at(path, aside) >= backed_up_at]
    restored = backup.exists() and _restore(backup, partial)
    if backup.exists() and not restored:
        sources.insert(0, backup)
    with closing(plain(partial)) as target:
        schema.migrate(target)
        salvaged = sum(salvage(source, target, disk.holds) for source in sources)
        if backup.exists() or damaged:
            schema.note_lost_links(target, time.time())
            restoration = f"the backup of {_utc(backed_up_at)}" if restored else "no backup"
            _LOG.warning("the metadata database starts again with %s and %d salvaged rows", restoration, salvaged)
        elif disk.holds_any():
            schema.note_lost_links(target, time.time())
            _LOG.warning("there are blobs, but no metadata database: it begins anew, without the links that were known")
    for suffix in _SIDE_FILES:  # a log that lost its database would be replayed into the new one
        beside(path, suffix).unlink(missing_ok=True)
    _put(partial, path)


def _utc(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="seconds")


def _set_aside(path: Path) -> list[Path]:
    """The damaged databases that lie beside ``path``, the oldest first."""
    found = path.parent.glob(f"{path.name}.damaged-*")
    return sorted(aside for aside in found if not aside.name.endswith(_SIDE_FILES))


def _set_aside_at(path: Path, aside: Path) -> float:
    stamp = aside.name.removeprefix(f"{path.name}.damaged-")
    try:
        return datetime.strptime(stamp, "%Y%m%dT%H%M%S.%fZ").replace(tzinfo=UTC).timestamp()
    except ValueError:
        return 0.0


def _restore(backup: Path, partial: Path) -> bool:
    """Copy a sound backup to ``partial``; say whether it was one."""
    try:
        with closing(plain(backup)) as source:
            _copy(source, partial)
        with closing(plain(partial)) as copy:
            schema.migrate(copy)  # it may have been made by the release before
            check(copy)
        return True
    except sqlite3.Error as error:
        if not is_damage(error):
            raise
        _LOG.warning("the backup of the metadata database is damaged too: %s", error)
        partial.unlink(missing_ok=True)
        return False


def _copy(source: sqlite3.Connection, target: Path) -> None:
    target.unlink(missing_ok=True)
    with closing(plain(target)) as copy:
        copy.execute("PRAGMA synchronous = OFF")
        source.backup(copy)
        copy.execute("PRAGMA journal_mode = DELETE")  # the copied header says WAL; a copy is one file


def _put(partial: Path, path: Path) -> None:
    """Rename a file into its place, durably."""
    _sync(partial)
    partial.replace(path)
    _sync(path.parent)


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
