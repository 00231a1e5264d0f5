"""What the embedded database is asked of all that is held, before some of it goes. Everything here blocks."""

import sqlite3
from collections.abc import Collection, Sequence

from mirror.digest import Digest
from mirror.metadata.statements import Key, digest_of, typed

_PORTION = 2_000
"""Rows that are read at once: some milliseconds, for which other readers wait."""


def accesses_after(connection: sqlite3.Connection, after: Key) -> tuple[list[tuple[Digest, float]], Key | None]:
    """A portion of the last accesses beyond a digest, and the key to go on from."""
    rows = connection.execute(
        "SELECT digest, at FROM access WHERE digest > ? ORDER BY digest LIMIT ?", (after[0], _PORTION)
    ).fetchall()
    found = [(digest_of(digest), at) for digest, at in (typed(row, str, float) for row in rows)]
    return found, _last(rows, 1)


def forget_accesses(connection: sqlite3.Connection, digests: Collection[Digest]) -> None:
    """Drop the last accesses of what is gone."""
    connection.executemany("DELETE FROM access WHERE digest = ?", [(str(digest),) for digest in digests])


def manifests_after(
    connection: sqlite3.Connection, after: Key, types: Collection[str]
) -> tuple[list[tuple[Digest, str]], Key | None]:
    """The manifests, by the media ``types`` of their links, among a portion of the links beyond the key ``after``; and
    the key to go on from.
    """
    rows = connection.execute(
        "SELECT upstream, repository, digest, media_type FROM link WHERE (upstream, repository, digest) > (?, ?, ?) "
        "ORDER BY upstream, repository, digest LIMIT ?",
        (*after, _PORTION),
    ).fetchall()
    found = [(digest_of(row[2]), row[3]) for row in (typed(row, str, str, str, str) for row in rows) if row[3] in types]
    return found, _last(rows, 3)


def _last(rows: Sequence[tuple[object, ...]], columns: int) -> Key | None:
    return tuple(map(str, rows[-1][:columns])) if len(rows) == _PORTION else None
