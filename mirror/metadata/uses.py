"""What the embedded database is asked of all that is held: to list it, or before some of it goes. All of it blocks."""

import sqlite3
from collections.abc import Collection, Sequence
from typing import Any, NamedTuple

from mirror.digest import Digest
from mirror.metadata.statements import Key, marks, typed

_TAGGED_TYPES = (str, str, str, str, str, float, int, float)
_PORTION = 2_000
"""Rows that are read at once: some milliseconds, for which other readers wait."""

_FORGOTTEN = (
    ("access", "AND at < ?2"),
    ("blob", "AND stored_at < ?2"),
    ("unpacked", "AND ?2 > 0"),
    ("asker", "AND last_at < ?2"),
)


class Used(NamedTuple):
    """How often something was asked for as a manifest, and when last, in seconds since the epoch."""

    hits: int
    at: float


class Tagged(NamedTuple):
    """A tag, and what is noted of the manifest that it names: ``used`` is None where nobody has asked for it."""

    upstream: str
    repository: str
    tag: str
    digest: str
    media_type: str
    fetched_at: float
    used: Used | None


def tagged_after(connection: sqlite3.Connection, after: Key) -> tuple[list[Tagged], Key | None]:
    """A portion of the tags beyond a key, without those that upstream has deleted since, and the key to go on from."""
    rows = connection.execute(
        "SELECT t.upstream, t.repository, t.tag, t.digest, t.media_type, t.fetched_at, "
        "coalesce(a.hits, 0), coalesce(a.at, -1.0) FROM tag t LEFT JOIN access a ON a.digest = t.digest "
        "LEFT JOIN tombstone d USING (upstream, repository, tag) "
        "WHERE (t.upstream, t.repository, t.tag) > (?, ?, ?) AND (d.serial IS NULL "
        "OR t.serial = 0 AND t.fetched_at > d.deleted_at OR (t.serial, t.fetched_at) > (d.serial, d.deleted_at)) "
        "ORDER BY t.upstream, t.repository, t.tag LIMIT ?",
        (*after, _PORTION),
    ).fetchall()
    found = []
    for row in rows:
        upstream, repository, tag, digest, media_type, fetched_at, hits, at = typed(row, *_TAGGED_TYPES)
        used_so = None if at < 0 else Used(hits, at)
        found.append(Tagged(upstream, repository, tag, digest, media_type, fetched_at, used_so))
    return found, _last(rows, 3)


def used(connection: sqlite3.Connection, digests: Sequence[str]) -> dict[str, Used]:
    """How digests were used, of those that were; up to some hundred."""
    rows = connection.execute(
        f"SELECT digest, hits, at FROM access WHERE digest IN ({', '.join('?' * len(digests))})", digests
    ).fetchall()
    return {digest: Used(hits, at) for digest, hits, at in (typed(row, str, int, float) for row in rows)}


def accesses_after(connection: sqlite3.Connection, after: Key) -> tuple[list[tuple[str, float]], Key | None]:
    """A portion of the last accesses beyond a digest, by the digests' text, and the key to go on from."""
    rows = connection.execute(
        "SELECT digest, at FROM access WHERE digest > ? ORDER BY digest LIMIT ?", (after[0], _PORTION)
    ).fetchall()
    return [(digest, at) for digest, at in (typed(row, str, float) for row in rows)], _last(rows, 1)


def forget_accesses(connection: sqlite3.Connection, digests: Collection[Digest]) -> None:
    """Drop the last accesses of what is gone."""
    connection.execute(f"DELETE FROM access WHERE digest IN ({marks(digests)})", [str(digest) for digest in digests])


def unpacked_after(connection: sqlite3.Connection, after: Key) -> tuple[list[tuple[str, str]], Key | None]:
    """A portion of the modules that were unpacked beyond a key: of which layer, and as what; and the key to go on."""
    rows = connection.execute(
        "SELECT layer, entry, digest FROM unpacked WHERE (layer, entry) > (?, ?) ORDER BY layer, entry LIMIT ?",
        (*after[:2], _PORTION),
    ).fetchall()
    return [(layer, digest) for layer, _, digest in (typed(row, str, str, str) for row in rows)], _last(rows, 2)


def forget(connection: sqlite3.Connection, gone: Collection[str], before: float) -> int:
    """Drop what was noted ``before`` of blobs that are not on this disk any more; how many records. Not that somebody
    links them: that is known of their upstream.
    """
    changes = connection.total_changes
    for table, condition in _FORGOTTEN:
        rows = [(digest, before) for digest in gone]
        connection.executemany(f"DELETE FROM {table} WHERE digest = ?1 {condition}", rows)
    return connection.total_changes - changes


def noted_after(connection: sqlite3.Connection, after: Key) -> tuple[list[str], Key | None]:
    """A portion of the digests beyond a key of which something was noted about this disk, and the key to go on."""
    rows = connection.execute(
        "SELECT digest FROM access WHERE digest > ?1 UNION SELECT digest FROM blob WHERE digest > ?1 "
        "UNION SELECT digest FROM unpacked WHERE digest > ?1 "
        "UNION SELECT digest FROM asker WHERE digest > ?1 ORDER BY digest LIMIT ?2",
        (after[0], _PORTION),
    ).fetchall()
    return [digest for (digest,) in (typed(row, str) for row in rows)], _last(rows, 1)


def manifests_after(connection: sqlite3.Connection, after: Key, types: Collection[str]) -> tuple[list[str], Key | None]:
    """The digests' text of manifests, by the media ``types`` of links, in a portion of the links beyond a key; and the
    key to go on from.
    """
    rows = connection.execute(
        "SELECT upstream, repository, digest, media_type FROM link WHERE (upstream, repository, digest) > (?, ?, ?) "
        "ORDER BY upstream, repository, digest LIMIT ?",
        (*after, _PORTION),
    ).fetchall()
    return [digest for _, _, digest, kind in rows if kind in types], _last(rows, 3)


def _last(rows: Sequence[tuple[Any, ...]], columns: int) -> Key | None:
    return typed(rows[-1][:columns], *[str] * columns) if len(rows) == _PORTION else None
