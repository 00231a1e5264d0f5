"""What the embedded database is asked of all that is held, before some of it goes. Everything here blocks."""

import sqlite3
from collections.abc import Collection, Sequence
from typing import Any

from mirror.digest import Digest
from mirror.metadata.statements import Key, marks, typed

_PORTION = 2_000
"""Rows that are read at once: some milliseconds, for which other readers wait."""


def accesses_after(connection: sqlite3.Connection, after: Key) -> tuple[list[tuple[str, float]], Key | None]:
    """A portion of the last accesses beyond a digest, by the digests' text, and the key to go on from."""
    rows = connection.execute(
        "SELECT digest, at FROM access WHERE digest > ? ORDER BY digest LIMIT ?", (after[0], _PORTION)
    ).fetchall()
    return [(digest, at) for digest, at in (typed(row, str, float) for row in rows)], _last(rows, 1)


def forget_accesses(connection: sqlite3.Connection, digests: Collection[Digest]) -> None:
    """Drop the last accesses of what is gone."""
    connection.execute(f"DELETE FROM access WHERE digest IN ({marks(digests)})", [str(digest) for digest in digests])


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
