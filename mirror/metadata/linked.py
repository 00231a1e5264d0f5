"""What the embedded database is asked and told of links, in SQL. Everything here blocks, in a thread of its own."""

import sqlite3
from collections.abc import Sequence
from dataclasses import replace

from mirror.digest import Digest
from mirror.metadata.base import MAX_SERIAL, Dropped, Link, LinkEntry, stands_over
from mirror.metadata.statements import PORTION, Key, digest_of, last_key, typed

_KEY = "upstream = ? AND repository = ? AND digest = ?"


def link(connection: sqlite3.Connection, upstream: str, repository: str, digest: Digest) -> LinkEntry | None:
    """What stands of the link of a repository to a digest."""
    key = (upstream, repository, str(digest))
    rows = connection.execute(
        f"SELECT 0, media_type, size, 0.0, serial FROM link WHERE {_KEY} "
        f"UNION ALL SELECT 1, '', -1, dropped_at, serial FROM dropped WHERE {_KEY}",
        key + key,
    ).fetchall()
    stands: LinkEntry | None = None
    for row in rows:
        dropped, media_type, size, at, serial = typed(row, int, str, int, float, int)
        entry: LinkEntry = (
            Dropped(upstream, repository, digest, at, serial)
            if dropped
            else Link(upstream, repository, digest, media_type, size, serial)
        )
        if stands is None or stands_over(entry, stands):
            stands = entry
    return stands


def links_to(connection: sqlite3.Connection, digest: Digest, limit: int) -> list[Link]:
    """Links of repositories that hold a digest. Looks through all: for what happens seldom."""
    rows = connection.execute(
        "SELECT upstream, repository, media_type, size, serial FROM link WHERE digest = ? LIMIT ?", (str(digest), limit)
    ).fetchall()
    typed_rows = (typed(row, str, str, str, int, int) for row in rows)
    return [Link(upstream, repository, digest, *rest) for upstream, repository, *rest in typed_rows]


def knows(connection: sqlite3.Connection, wanted: Link) -> bool:
    """Whether putting a link would change nothing."""
    held = link(connection, wanted.upstream, wanted.repository, wanted.digest)
    return isinstance(held, Link) and wanted.serial <= held.serial and _adds_nothing(wanted, held)


def knows_of(connection: sqlite3.Connection, entry: LinkEntry) -> bool:
    """Whether merging an entry would change nothing."""
    held = link(connection, entry.upstream, entry.repository, entry.digest)
    if held is None or stands_over(entry, held):
        return False
    return not (isinstance(entry, Link) and isinstance(held, Link) and entry.serial == held.serial) or _adds_nothing(
        entry, held
    )


def put_links(connection: sqlite3.Connection, links: Sequence[Link]) -> None:
    """Add links, or what is newly known of them, whatever was dropped before."""
    for each in links:
        row = connection.execute(f"SELECT serial FROM dropped WHERE {_KEY}", _key(each)).fetchone()
        if row is None:
            _upsert(connection, each)
            continue
        (serial,) = typed(row, int)
        connection.execute(f"DELETE FROM dropped WHERE {_KEY}", _key(each))
        _upsert(connection, replace(each, serial=max(each.serial, min(serial + 1, MAX_SERIAL))))


def drop_link(connection: sqlite3.Connection, upstream: str, repository: str, digest: Digest, at: float) -> Dropped:
    """Put in the place of a link that it was dropped."""
    before = link(connection, upstream, repository, digest)
    dropped = Dropped(upstream, repository, digest, at, 0 if before is None else before.serial)
    _set(connection, dropped)
    return dropped


def merge_links(connection: sqlite3.Connection, entries: Sequence[LinkEntry]) -> None:
    """Take over the entries that stand over what is here, and what links with the same serial know more."""
    for entry in entries:
        held = link(connection, entry.upstream, entry.repository, entry.digest)
        if held is None or stands_over(entry, held):
            _set(connection, entry)
        elif isinstance(entry, Link) and isinstance(held, Link) and entry.serial == held.serial:
            _upsert(connection, entry)


def links_after(connection: sqlite3.Connection, after: Key) -> tuple[list[Link], Key | None]:
    """A portion of the links beyond the key ``after``, without what was dropped, and the key to go on from."""
    rows = connection.execute(
        "SELECT l.upstream, l.repository, l.digest, l.media_type, l.size, l.serial, coalesce(d.serial, -1) "
        "FROM link l LEFT JOIN dropped d USING (upstream, repository, digest) "
        "WHERE (l.upstream, l.repository, l.digest) > (?, ?, ?) ORDER BY l.upstream, l.repository, l.digest LIMIT ?",
        (*after, PORTION),
    ).fetchall()
    found = []
    for row in rows:
        upstream, repository, digest, media_type, size, serial, gone = typed(row, str, str, str, str, int, int, int)
        if serial > gone:
            found.append(Link(upstream, repository, digest_of(digest), media_type, size, serial))
    return found, last_key(rows)


def drops_after(connection: sqlite3.Connection, after: Key) -> tuple[list[Dropped], Key | None]:
    """A portion of what was dropped, as `links_after`, without what was put anew."""
    rows = connection.execute(
        "SELECT d.upstream, d.repository, d.digest, d.dropped_at, d.serial, coalesce(l.serial, -1) "
        "FROM dropped d LEFT JOIN link l USING (upstream, repository, digest) "
        "WHERE (d.upstream, d.repository, d.digest) > (?, ?, ?) ORDER BY d.upstream, d.repository, d.digest LIMIT ?",
        (*after, PORTION),
    ).fetchall()
    found = []
    for row in rows:
        upstream, repository, digest, at, serial, put = typed(row, str, str, str, float, int, int)
        if serial >= put:
            found.append(Dropped(upstream, repository, digest_of(digest), at, serial))
    return found, last_key(rows)


def _adds_nothing(wanted: Link, held: Link) -> bool:
    return wanted.media_type in ("", held.media_type) and (wanted.size < 0 or wanted.size == held.size)


def _upsert(connection: sqlite3.Connection, link: Link) -> None:
    connection.execute(
        "INSERT INTO link (upstream, repository, digest, media_type, size, serial) VALUES (?, ?, ?, ?, ?, ?) "
        "ON CONFLICT (upstream, repository, digest) DO UPDATE SET "
        "media_type = CASE excluded.media_type WHEN '' THEN media_type ELSE excluded.media_type END, "
        "size = CASE WHEN excluded.size < 0 THEN size ELSE excluded.size END, serial = max(serial, excluded.serial)",
        (*_key(link), link.media_type, link.size, link.serial),
    )


def _set(connection: sqlite3.Connection, entry: LinkEntry) -> None:
    """Put an entry in the place of the one before it."""
    for table in ("link", "dropped"):
        connection.execute(f"DELETE FROM {table} WHERE {_KEY}", _key(entry))
    if isinstance(entry, Link):
        _upsert(connection, entry)
    else:
        connection.execute(
            "INSERT INTO dropped (upstream, repository, digest, dropped_at, serial) VALUES (?, ?, ?, ?, ?)",
            (*_key(entry), float(entry.dropped_at), entry.serial),
        )


def _key(entry: LinkEntry) -> tuple[str, str, str]:
    return entry.upstream, entry.repository, str(entry.digest)
