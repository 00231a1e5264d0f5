"""What the embedded database is asked and told, in SQL; of links: `mirror.metadata.linked`.

Everything here blocks, and runs in a thread of its own.
"""

import json
import sqlite3
from collections.abc import Iterator, Mapping, Sequence, Sized
from dataclasses import replace
from typing import Any

from mirror.digest import Digest
from mirror.errors import DigestInvalid
from mirror.metadata.base import (
    BlobRecord,
    KeptAnswer,
    TagEntry,
    TagRecord,
    Tombstone,
    Unpacked,
    is_later,
    serial_after,
)
from mirror.metadata.schema import Damaged

_MAX_KEPT = 10_000
_MAX_KEPT_BYTES = 256 * 1024 * 1024
_MAX_NEGATIVE = 100_000
_MAX_TOMBSTONES = 100_000
PORTION = 500  # rows that are read at once: a few milliseconds, for which other readers wait

Key = tuple[str, ...]

_TAG = (
    "SELECT t.upstream, t.repository, t.tag, t.digest, t.media_type, t.size, t.fetched_at, t.serial, t.moving, "
    "d.deleted_at, d.serial FROM tag t LEFT JOIN tombstone d USING (upstream, repository, tag)"
)
_TAG_TYPES = (str, str, str, str, str, int, float, int, int)


def tag(connection: sqlite3.Connection, upstream: str, repository: str, name: str) -> TagEntry | None:
    """The entry of a tag."""
    key = (upstream, repository, name)
    row = connection.execute(f"{_TAG} WHERE t.upstream = ? AND t.repository = ? AND t.tag = ?", key).fetchone()
    if row is not None:
        return _entry(row)
    row = connection.execute(
        "SELECT deleted_at, serial FROM tombstone WHERE upstream = ? AND repository = ? AND tag = ?", key
    ).fetchone()
    return None if row is None else Tombstone(*key, *typed(row, float, int))


def put_tag(connection: sqlite3.Connection, record: TagRecord) -> TagRecord:
    """Set or replace a tag; the negative answer for it goes. The record as it stands then, with its serial."""
    before = tag(connection, record.upstream, record.repository, record.tag)
    serial = record.serial
    if before is not None:
        moved = isinstance(before, Tombstone) or before.digest != record.digest
        serial = max(before.serial, record.serial)
        serial = serial_after(serial) if moved else serial
    stands = replace(record, serial=serial, moving=False)
    _set(connection, stands)
    return stands


def delete_tag(connection: sqlite3.Connection, upstream: str, repository: str, name: str, at: float) -> Tombstone:
    """Put a tombstone in the place of a tag."""
    before = tag(connection, upstream, repository, name)
    tombstone = Tombstone(upstream, repository, name, at, serial_after(before.serial if before is not None else 0))
    _set(connection, tombstone)
    return tombstone


def announce_move(connection: sqlite3.Connection, record: TagRecord) -> None:
    """Mark a tag that still names the digest of ``record`` as moving."""
    connection.execute(
        "UPDATE tag SET moving = 1 WHERE upstream = ? AND repository = ? AND tag = ? AND digest = ?",
        (record.upstream, record.repository, record.tag, str(record.digest)),
    )


def news(connection: sqlite3.Connection, entries: Sequence[TagEntry]) -> Iterator[tuple[TagEntry, TagEntry | None]]:
    """Those of ``entries`` that are later than what stands, each with what it replaces."""
    for entry in entries:
        before = tag(connection, entry.upstream, entry.repository, entry.tag)
        if before is None or is_later(entry, before):
            yield entry, before


def merge_tags(connection: sqlite3.Connection, entries: Sequence[TagEntry]) -> None:
    """Take over the entries that are later than what stands; where a tag is there now, its negative answer goes."""
    for entry, _ in news(connection, entries):
        _set(connection, entry)


def tags_after(connection: sqlite3.Connection, after: Key) -> tuple[list[TagEntry], Key | None]:
    """A portion of the tags' entries beyond the key ``after``, and the key to go on from. Not of tags that are gone."""
    rows = connection.execute(
        f"{_TAG} WHERE (t.upstream, t.repository, t.tag) > (?, ?, ?) ORDER BY t.upstream, t.repository, t.tag LIMIT ?",
        (*after, PORTION),
    ).fetchall()
    return [_entry(row) for row in rows], last_key(rows)


def tombstones_after(connection: sqlite3.Connection, after: Key) -> tuple[list[TagEntry], Key | None]:
    """A portion of the tombstones, as `tags_after`, without those that `tags_after` has gone into already."""
    rows = connection.execute(
        "SELECT d.upstream, d.repository, d.tag, d.deleted_at, d.serial, t.tag IS NULL FROM tombstone d "
        "LEFT JOIN tag t USING (upstream, repository, tag) "
        "WHERE (d.upstream, d.repository, d.tag) > (?, ?, ?) ORDER BY d.upstream, d.repository, d.tag LIMIT ?",
        (*after, PORTION),
    ).fetchall()
    alone = [row[:5] for row in rows if row[5]]
    return [Tombstone(*typed(row, str, str, str, float, int)) for row in alone], last_key(rows)


def negative(
    connection: sqlite3.Connection, upstream: str, repository: str, reference: str, now: float
) -> float | None:
    """Until when a reference is known not to exist."""
    row = connection.execute(
        "SELECT until FROM negative WHERE upstream = ? AND repository = ? AND reference = ? AND until > ?",
        (upstream, repository, reference, now),
    ).fetchone()
    return None if row is None else float(typed(row, float)[0])


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
    body, headers, fetched_at = typed(row, bytes, str, float)
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
    connection.execute(
        "DELETE FROM tombstone WHERE deleted_at <= "
        "(SELECT deleted_at FROM tombstone ORDER BY deleted_at DESC LIMIT 1 OFFSET ?)",
        (_MAX_TOMBSTONES,),
    )
    connection.execute(
        "DELETE FROM dropped WHERE dropped_at <= "
        "(SELECT dropped_at FROM dropped ORDER BY dropped_at DESC LIMIT 1 OFFSET ?)",
        (_MAX_TOMBSTONES,),
    )


def blob(connection: sqlite3.Connection, digest: Digest) -> BlobRecord | None:
    """What was noted of a blob."""
    row = connection.execute("SELECT size, blake3, stored_at FROM blob WHERE digest = ?", (str(digest),)).fetchone()
    return None if row is None else BlobRecord(digest, *typed(row, int, str, float))


def put_blob(connection: sqlite3.Connection, record: BlobRecord) -> None:
    """Note a blob."""
    connection.execute(
        "INSERT OR REPLACE INTO blob (digest, size, blake3, stored_at) VALUES (?, ?, ?, ?)",
        (str(record.digest), record.size, record.blake3, float(record.stored_at)),
    )


def unpacked(connection: sqlite3.Connection, layer: Digest, entry: int) -> Unpacked | None:
    """What the module in an entry of an archive was kept as."""
    row = connection.execute(
        "SELECT digest, size FROM unpacked WHERE layer = ? AND entry = ?", (str(layer), str(entry))
    ).fetchone()
    if row is None:
        return None
    digest, size = typed(row, str, int)
    return Unpacked(layer, entry, digest_of(digest), size)


def all_unpacked(connection: sqlite3.Connection) -> set[Digest]:
    """What all modules were kept as."""
    return {digest_of(typed(row, str)[0]) for row in connection.execute("SELECT DISTINCT digest FROM unpacked")}


def put_unpacked(connection: sqlite3.Connection, record: Unpacked) -> None:
    """Note what a module was kept as."""
    connection.execute(
        "INSERT OR REPLACE INTO unpacked (layer, entry, digest, size) VALUES (?, ?, ?, ?)",
        (str(record.layer), str(record.entry), str(record.digest), record.size),
    )


def touch(connection: sqlite3.Connection, accesses: Mapping[Digest, float], hits: Mapping[Digest, int]) -> None:
    """Note last accesses; an older time never replaces a newer one, and hits are added to those before."""
    connection.executemany(
        "INSERT INTO access (digest, at, hits) VALUES (?, ?, ?) ON CONFLICT (digest) DO UPDATE SET "
        "at = max(at, excluded.at), hits = min(hits + excluded.hits, 9007199254740992) "
        "WHERE excluded.at > access.at OR excluded.hits > 0",
        [(str(digest), float(at), hits.get(digest, 0)) for digest, at in accesses.items()],
    )


def last_access(connection: sqlite3.Connection, digest: Digest) -> float | None:
    """When a blob was last asked for."""
    row = connection.execute("SELECT at FROM access WHERE digest = ?", (str(digest),)).fetchone()
    return None if row is None else float(typed(row, float)[0])


def _entry(row: tuple[Any, ...]) -> TagEntry:
    """What a row of `_TAG` says.

    A tag and its tombstone stand together where the release before noted a tag that had been deleted, without a
    serial; or after a salvage, where the later one counts.
    """
    upstream, repository, name, digest, media_type, size, fetched_at, serial, moving = typed(row[:9], *_TAG_TYPES)
    record = TagRecord(
        upstream, repository, name, digest_of(digest), media_type, size, fetched_at, serial, moving=bool(moving)
    )
    if row[9] is None:
        return record
    tombstone = Tombstone(upstream, repository, name, *typed(row[9:], float, int))
    if serial == 0 and fetched_at > tombstone.deleted_at:
        return replace(record, serial=serial_after(tombstone.serial))
    return record if is_later(record, tombstone) else tombstone


def _set(connection: sqlite3.Connection, entry: TagEntry) -> None:
    """Put an entry in the place of the one before it."""
    key = (entry.upstream, entry.repository, entry.tag)
    if isinstance(entry, Tombstone):
        connection.execute("DELETE FROM tag WHERE upstream = ? AND repository = ? AND tag = ?", key)
        connection.execute(
            "INSERT OR REPLACE INTO tombstone (upstream, repository, tag, deleted_at, serial) VALUES (?, ?, ?, ?, ?)",
            (*key, float(entry.deleted_at), entry.serial),
        )
        return
    connection.execute(
        "INSERT OR REPLACE INTO tag (upstream, repository, tag, digest, media_type, size, fetched_at, serial, moving) "
        "VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
        (
            *key,
            str(entry.digest),
            entry.media_type,
            entry.size,
            float(entry.fetched_at),
            entry.serial,
            int(entry.moving),
        ),
    )
    connection.execute("DELETE FROM tombstone WHERE upstream = ? AND repository = ? AND tag = ?", key)
    connection.execute("DELETE FROM negative WHERE upstream = ? AND repository = ? AND reference = ?", key)


def last_key(rows: Sequence[tuple[Any, ...]]) -> Key | None:
    """The key of the last row of a portion; None when the portion was the last one."""
    return typed(rows[-1][:3], str, str, str) if len(rows) == PORTION else None


def marks(values: Sized) -> str:
    """As many marks for parameters as there are values."""
    return ", ".join("?" * len(values))


def typed(row: tuple[Any, ...], *types: type) -> tuple[Any, ...]:
    """The row, whose values are of these types. Raises `Damaged`."""
    if tuple(map(type, row)) != types:
        raise Damaged("a record has a value of the wrong type")
    return row


def digest_of(text: str) -> Digest:
    """A digest that stands in a row. Raises `Damaged`."""
    try:
        return Digest.parse(text)
    except DigestInvalid as error:
        raise Damaged("a record's digest is none") from error
