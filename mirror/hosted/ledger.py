"""The entries of the records, in SQL: what was decided of each key, when, and in which order it came to be known here.

What is there stands in the tables of `mirror.hosted.writes`, with an entry beside it; what is gone, only as an entry.
Everything here blocks.
"""

import sqlite3
from dataclasses import dataclass
from typing import Literal

from mirror.digest import Digest
from mirror.hosted.entries import MAX_MOMENT, VERSION, Cursor, OfBlob, OfManifest, OfTag

Kind = Literal["blob", "manifest", "tag"]

_ENTRY_BYTES = 512
"""About what an entry takes as JSON, but for the bytes of a manifest."""

_TOLD = """
    SELECT e.seq, m.size, e.kind, e.repository, e.key, e.moment, e.gone, e.before,
        coalesce(b.size, e.size), coalesce(b.touched_at, e.touched_at),
        m.media_type, m.pushed_at, t.digest, t.moved_at, t.serial
    FROM entry e
    LEFT JOIN blob b ON e.kind = 'blob' AND b.repository = e.repository AND b.digest = e.key
    LEFT JOIN manifest m ON e.kind = 'manifest' AND m.repository = e.repository AND m.digest = e.key
    LEFT JOIN tag t ON e.kind = 'tag' AND t.repository = e.repository AND t.tag = e.key
"""

_NEXT = "(SELECT coalesce(max(seq), 0) + 1 FROM entry)"


@dataclass(frozen=True, slots=True)
class Noted:
    """An entry, without what its row says. ``size`` and ``touched_at`` are those of a blob that is gone."""

    moment: int
    gone: bool
    size: int | None = None
    touched_at: float | None = None
    before: float | None = None


@dataclass(frozen=True, slots=True)
class Unread:
    """An `OfManifest` of a manifest that is there, without its bytes."""

    repository: str
    digest: Digest
    moment: int
    media_type: str
    pushed_at: float


Told = OfBlob | OfManifest | OfTag | Unread


def number(connection: sqlite3.Connection, moment: int | None, now: float) -> int:
    """The moment of a change: the given one, or one that is later than all that were; ``now`` in seconds."""
    return min(moment if moment is not None else max(int(now * 1_000_000), latest(connection) + 1), MAX_MOMENT)


def note(connection: sqlite3.Connection, kind: Kind, repository: str, key: str, noted: Noted) -> None:
    """Write what was decided here. Whoever decides has seen what was before: the moment becomes a later one."""
    _write(connection, kind, repository, key, noted, f"min(max(excluded.moment, moment + 1), {MAX_MOMENT})")


def put(connection: sqlite3.Connection, kind: Kind, repository: str, key: str, noted: Noted) -> None:
    """Write what was decided elsewhere, or by a rule that holds everywhere, with its very moment."""
    _write(connection, kind, repository, key, noted, "excluded.moment")


def touch(connection: sqlite3.Connection, repository: str, digest: str) -> None:
    """The blob's time has changed, which the others need to know."""
    connection.execute(
        f"UPDATE entry SET seq = {_NEXT} WHERE kind = 'blob' AND repository = ? AND key = ?", (repository, digest)
    )


def known(connection: sqlite3.Connection, kind: Kind, repository: str, key: str) -> Told | None:
    """What is known of a key, or None."""
    row = connection.execute(
        f"{_TOLD} WHERE e.kind = ? AND e.repository = ? AND e.key = ?", (kind, repository, key)
    ).fetchone()
    return None if row is None else _told(*row[2:])


def told(connection: sqlite3.Connection, after: int, most: int, limit: int) -> tuple[list[Told], int, bool]:
    """Up to ``limit`` entries after a ``seq``, that fit into about ``most`` bytes as JSON, or one; the ``seq`` of the
    last one, and whether there are more. From the first on, where ``after`` is more than the last.
    """
    if after > head(connection):
        after = 0
    rows = connection.execute(f"{_TOLD} WHERE e.seq > ? ORDER BY e.seq LIMIT ?", (after, limit + 1))
    found: list[Told] = []
    taken = 0
    for seq, size, *row in rows:
        taken += _ENTRY_BYTES + (size or 0) * 4 // 3
        if found and (taken > most or len(found) == limit):
            return found, after, True
        found.append(_told(*row))
        after = seq
    return found, after, False


def latest(connection: sqlite3.Connection) -> int:
    """The highest moment; 0 where there is no entry."""
    (moment,) = connection.execute("SELECT coalesce(max(moment), 0) FROM entry").fetchone()
    return int(moment)


def head(connection: sqlite3.Connection) -> int:
    """The last ``seq``; 0 where there is no entry."""
    (seq,) = connection.execute("SELECT coalesce(max(seq), 0) FROM entry").fetchone()
    return int(seq)


def identity(connection: sqlite3.Connection) -> str:
    """What tells these records from all others."""
    (found,) = connection.execute("SELECT value FROM meta WHERE key = 'identity'").fetchone()
    return str(found)


def become_another(connection: sqlite3.Connection) -> None:
    """For a copy of records: what it counts from now on is not what these count."""
    connection.execute("UPDATE meta SET value = lower(hex(randomblob(16))) WHERE key = 'identity'")


def cursor(connection: sqlite3.Connection, of: str) -> Cursor | None:
    """How far the entries of other records are known; None where they were not read, or not by a release that
    understood as much as this one does.
    """
    row = connection.execute(
        "SELECT identity, seq, started_at FROM cursor WHERE identity = ? AND version >= ?", (of, VERSION)
    ).fetchone()
    return None if row is None else Cursor(*row)


def set_cursor(connection: sqlite3.Connection, cursor: Cursor) -> None:
    """Note how far entries are known."""
    connection.execute(
        "INSERT OR REPLACE INTO cursor (identity, seq, started_at, version) VALUES (?, ?, ?, ?)",
        (cursor.of, cursor.seq, cursor.started_at, VERSION),
    )


def forget(connection: sqlite3.Connection, before: int, limit: int) -> int:
    """Drop up to ``limit`` entries of what went before a moment. Not the last: no ``seq`` is given twice."""
    return connection.execute(
        "DELETE FROM entry WHERE (kind, repository, key) IN (SELECT kind, repository, key FROM entry"
        " WHERE gone AND moment < ? AND seq < (SELECT max(seq) FROM entry) LIMIT ?)",
        (before, limit),
    ).rowcount


def _told(
    kind: str,
    repository: str,
    key: str,
    moment: int,
    gone: int,
    before: float | None,
    size: int,
    touched_at: float,
    media_type: str,
    pushed_at: float,
    digest: str,
    moved_at: float,
    serial: int,
) -> Told:
    match kind, gone:
        case "blob", _:
            return OfBlob(repository, Digest.parse(key), moment, bool(gone), size, touched_at, before)
        case "manifest", 0:
            return Unread(repository, Digest.parse(key), moment, media_type, pushed_at)
        case "manifest", _:
            return OfManifest(repository, Digest.parse(key), moment, None)
        case _, 0:
            return OfTag(repository, key, moment, Digest.parse(digest), moved_at, serial)
    return OfTag(repository, key, moment, None)


def _write(connection: sqlite3.Connection, kind: Kind, repository: str, key: str, noted: Noted, moment: str) -> None:
    connection.execute(
        "INSERT INTO entry (kind, repository, key, moment, gone, size, touched_at, before, seq)"
        f" VALUES (?, ?, ?, ?, ?, ?, ?, ?, {_NEXT})"
        f" ON CONFLICT (kind, repository, key) DO UPDATE SET moment = {moment}, gone = excluded.gone,"
        " size = excluded.size, touched_at = excluded.touched_at, before = excluded.before, seq = excluded.seq",
        (
            kind,
            repository,
            key,
            noted.moment,
            noted.gone,
            noted.size,
            noted.touched_at,
            noted.before,
        ),
    )
