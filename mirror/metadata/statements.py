"""What the embedded database is asked and told, in SQL. Everything here blocks, and runs in a thread of its own."""

import json
import sqlite3
from collections.abc import Mapping, Sequence
from typing import Any

from mirror.digest import Digest
from mirror.errors import DigestInvalid
from mirror.metadata.base import BlobRecord, KeptAnswer, Link, TagRecord
from mirror.metadata.schema import Damaged

_MAX_KEPT = 10_000
_MAX_KEPT_BYTES = 256 * 1024 * 1024
_MAX_NEGATIVE = 100_000


def tag(connection: sqlite3.Connection, upstream: str, repository: str, name: str) -> TagRecord | None:
    """The record of a tag."""
    row = connection.execute(
        "SELECT digest, media_type, size, fetched_at FROM tag WHERE upstream = ? AND repository = ? AND tag = ?",
        (upstream, repository, name),
    ).fetchone()
    if row is None:
        return None
    digest, media_type, size, fetched_at = _typed(row, str, str, int, float)
    return TagRecord(upstream, repository, name, _digest(digest), media_type, size, fetched_at)


def put_tag(connection: sqlite3.Connection, record: TagRecord) -> None:
    """Set or replace a tag; the negative answer for it goes."""
    key = (record.upstream, record.repository, record.tag)
    connection.execute(
        "INSERT OR REPLACE INTO tag (upstream, repository, tag, digest, media_type, size, fetched_at) "
        "VALUES (?, ?, ?, ?, ?, ?, ?)",
        (*key, str(record.digest), record.media_type, record.size, float(record.fetched_at)),
    )
    connection.execute("DELETE FROM negative WHERE upstream = ? AND repository = ? AND reference = ?", key)


def delete_tag(connection: sqlite3.Connection, upstream: str, repository: str, name: str) -> None:
    """Forget a tag."""
    connection.execute(
        "DELETE FROM tag WHERE upstream = ? AND repository = ? AND tag = ?", (upstream, repository, name)
    )


def link(connection: sqlite3.Connection, upstream: str, repository: str, digest: Digest) -> Link | None:
    """The link of a repository to a digest."""
    row = connection.execute(
        "SELECT media_type, size FROM link WHERE upstream = ? AND repository = ? AND digest = ?",
        (upstream, repository, str(digest)),
    ).fetchone()
    return None if row is None else Link(upstream, repository, digest, *_typed(row, str, int))


def knows(connection: sqlite3.Connection, wanted: Link) -> bool:
    """Whether putting a link would change nothing."""
    held = link(connection, wanted.upstream, wanted.repository, wanted.digest)
    return (
        held is not None
        and wanted.media_type in ("", held.media_type)
        and (wanted.size < 0 or wanted.size == held.size)
    )


def put_links(connection: sqlite3.Connection, links: Sequence[Link]) -> None:
    """Add links, or what is newly known of them."""
    connection.executemany(
        "INSERT INTO link (upstream, repository, digest, media_type, size) VALUES (?, ?, ?, ?, ?) "
        "ON CONFLICT (upstream, repository, digest) DO UPDATE SET "
        "media_type = CASE excluded.media_type WHEN '' THEN media_type ELSE excluded.media_type END, "
        "size = CASE WHEN excluded.size < 0 THEN size ELSE excluded.size END",
        [(each.upstream, each.repository, str(each.digest), each.media_type, each.size) for each in links],
    )


def negative(
    connection: sqlite3.Connection, upstream: str, repository: str, reference: str, now: float
) -> float | None:
    """Until when a reference is known not to exist."""
    row = connection.execute(
        "SELECT until FROM negative WHERE upstream = ? AND repository = ? AND reference = ? AND until > ?",
        (upstream, repository, reference, now),
    ).fetchone()
    return None if row is None else float(_typed(row, float)[0])


def put_negative(
    connection: sqlite3.Connection, upstream: str, repository: str, reference: str, until: float, now: float
) -> None:
    """Note that a reference does not exist; what has expired goes."""
    connection.execute("DELETE FROM negative WHERE until <= ?", (now,))
    connection.execute(
        "INSERT OR REPLACE INTO negative (upstream, repository, reference, until) VALUES (?, ?, ?, ?)",
        (upstream, repository, reference, float(until)),
    )


def kept(connection: sqlite3.Connection, key: str) -> KeptAnswer | None:
    """The answer kept under a key."""
    row = connection.execute("SELECT body, headers, fetched_at FROM kept WHERE key = ?", (key,)).fetchone()
    if row is None:
        return None
    body, headers, fetched_at = _typed(row, bytes, str, float)
    try:
        return KeptAnswer(body, json.loads(headers), fetched_at)
    except ValueError as error:
        raise Damaged("an answer's headers are not JSON") from error


def keep(connection: sqlite3.Connection, key: str, answer: KeptAnswer) -> None:
    """Keep an answer, replacing the one before it."""
    connection.execute(
        "INSERT OR REPLACE INTO kept (key, body, headers, fetched_at) VALUES (?, ?, ?, ?)",
        (key, bytes(answer.body), json.dumps(dict(answer.headers)), float(answer.fetched_at)),
    )


def prune(connection: sqlite3.Connection) -> None:
    """Drop the oldest of what has no bound of its own: clients choose how much of it there is."""
    connection.execute(
        "DELETE FROM kept WHERE key IN (SELECT key FROM ("
        "SELECT key, row_number() OVER newest AS place, sum(length(body)) OVER newest AS bytes FROM kept "
        "WINDOW newest AS (ORDER BY fetched_at DESC, key)) WHERE place > ? OR bytes > ?)",
        (_MAX_KEPT, _MAX_KEPT_BYTES),
    )
    connection.execute(
        "DELETE FROM negative WHERE until <= (SELECT until FROM negative ORDER BY until DESC LIMIT 1 OFFSET ?)",
        (_MAX_NEGATIVE,),
    )


def blob(connection: sqlite3.Connection, digest: Digest) -> BlobRecord | None:
    """What was noted of a blob."""
    row = connection.execute("SELECT size, blake3, stored_at FROM blob WHERE digest = ?", (str(digest),)).fetchone()
    return None if row is None else BlobRecord(digest, *_typed(row, int, str, float))


def put_blob(connection: sqlite3.Connection, record: BlobRecord) -> None:
    """Note a blob."""
    connection.execute(
        "INSERT OR REPLACE INTO blob (digest, size, blake3, stored_at) VALUES (?, ?, ?, ?)",
        (str(record.digest), record.size, record.blake3, float(record.stored_at)),
    )


def touch(connection: sqlite3.Connection, accesses: Mapping[Digest, float]) -> None:
    """Note last accesses; an older time never replaces a newer one."""
    connection.executemany(
        "INSERT INTO access (digest, at) VALUES (?, ?) "
        "ON CONFLICT (digest) DO UPDATE SET at = excluded.at WHERE excluded.at > access.at",
        [(str(digest), float(at)) for digest, at in accesses.items()],
    )


def last_access(connection: sqlite3.Connection, digest: Digest) -> float | None:
    """When a blob was last asked for."""
    row = connection.execute("SELECT at FROM access WHERE digest = ?", (str(digest),)).fetchone()
    return None if row is None else float(_typed(row, float)[0])


def _typed(row: tuple[Any, ...], *types: type) -> tuple[Any, ...]:
    if tuple(map(type, row)) != types:
        raise Damaged("a record has a value of the wrong type")
    return row


def _digest(text: str) -> Digest:
    try:
        return Digest.parse(text)
    except DigestInvalid as error:
        raise Damaged("a record's digest is none") from error
