"""What is asked of the records of hosted content, in SQL. Everything here blocks."""

import json
import sqlite3
from dataclasses import dataclass

from mirror.digest import Digest
from mirror.hosted import ledger
from mirror.hosted.entries import OfBlob, OfManifest, OfTag
from mirror.hosted.records import BlobLink, HostedTag, ManifestRecord

MANIFEST = "digest, media_type, size, subject, artifact_type, annotations, pushed_at"
"""The columns of a manifest, but for its repository."""

_ROW_BYTES = 512


@dataclass(frozen=True, slots=True)
class Unread:
    """An `OfManifest` without the bytes of the manifest."""

    repository: str
    digest: Digest
    moment: int
    media_type: str
    pushed_at: float


Told = OfBlob | OfManifest | OfTag | Unread


def exists(connection: sqlite3.Connection, repository: str) -> bool:
    """Whether anything is in the repository."""
    return any(
        connection.execute(f"SELECT 1 FROM {table} WHERE repository = ? LIMIT 1", (repository,)).fetchone()
        for table in ("blob", "manifest")
    )


def size(connection: sqlite3.Connection, repository: str) -> int:
    """Bytes of all blobs and manifests of the repository."""
    (total,) = connection.execute(
        "SELECT (SELECT coalesce(sum(size), 0) FROM blob WHERE repository = :repository)"
        " + (SELECT coalesce(sum(size), 0) FROM manifest WHERE repository = :repository)",
        {"repository": repository},
    ).fetchone()
    return int(total)


def blob(connection: sqlite3.Connection, repository: str, digest: Digest) -> BlobLink | None:
    """The blob of the repository, or None."""
    row = connection.execute(
        "SELECT size, touched_at FROM blob WHERE repository = ? AND digest = ?", (repository, str(digest))
    ).fetchone()
    return None if row is None else BlobLink(digest, *row)


def repositories_with(connection: sqlite3.Connection, digest: Digest, limit: int) -> list[str]:
    """Repositories that have the blob."""
    rows = connection.execute("SELECT repository FROM blob WHERE digest = ? LIMIT ?", (str(digest), limit))
    return [repository for (repository,) in rows]


def is_linked(connection: sqlite3.Connection, digest: Digest) -> bool:
    """Whether any repository has it, as a blob or as a manifest."""
    return any(
        connection.execute(f"SELECT 1 FROM {table} WHERE digest = ? LIMIT 1", (str(digest),)).fetchone()
        for table in ("blob", "manifest")
    )


def manifest(connection: sqlite3.Connection, repository: str, digest: Digest) -> ManifestRecord | None:
    """The manifest of the repository, or None."""
    row = connection.execute(
        f"SELECT {MANIFEST} FROM manifest WHERE repository = ? AND digest = ?", (repository, str(digest))
    ).fetchone()
    return None if row is None else _record(row)


def tag(connection: sqlite3.Connection, repository: str, name: str) -> HostedTag | None:
    """What the tag names, or None."""
    row = connection.execute(
        "SELECT tag, digest, moved_at, serial FROM tag WHERE repository = ? AND tag = ?", (repository, name)
    ).fetchone()
    return None if row is None else HostedTag(row[0], Digest.parse(row[1]), *row[2:])


def tagged(connection: sqlite3.Connection, repository: str, name: str) -> ManifestRecord | None:
    """The manifest that the tag names, or None."""
    found = tag(connection, repository, name)
    return None if found is None else manifest(connection, repository, found.digest)


def tags_of(connection: sqlite3.Connection, repository: str, digest: Digest) -> list[str]:
    """The tags that name a manifest."""
    rows = connection.execute("SELECT tag FROM tag WHERE repository = ? AND digest = ?", (repository, str(digest)))
    return [name for (name,) in rows.fetchall()]


def naming(connection: sqlite3.Connection, repository: str, child: Digest) -> str | None:
    """The digest of a manifest of the repository that names this, or None."""
    row = connection.execute(
        "SELECT manifest FROM named WHERE repository = ? AND child = ? LIMIT 1", (repository, str(child))
    ).fetchone()
    return None if row is None else str(row[0])


def tags(connection: sqlite3.Connection, repository: str, last: str | None, limit: int) -> list[str]:
    """Up to ``limit`` tags after ``last``, in the specification's order, which is blind to case."""
    rows = connection.execute(
        "SELECT tag FROM tag WHERE repository = ? AND (lower(tag), tag) > (lower(?), ?)"
        " ORDER BY lower(tag), tag LIMIT ?",
        (repository, last or "", last or "", limit),
    )
    return [name for (name,) in rows]


def referrers(
    connection: sqlite3.Connection, repository: str, subject: Digest, artifact_type: str | None, after: str, most: int
) -> tuple[list[ManifestRecord], str | None]:
    """What refers to ``subject``, in the order of digests, with up to about ``most`` bytes of annotations.

    And, where there is more, the digest after which it goes on.
    """
    rows = connection.execute(
        f"SELECT {MANIFEST} FROM manifest WHERE repository = ? AND subject = ? AND digest > ?"
        " AND (? IS NULL OR artifact_type = ?) ORDER BY digest",
        (repository, str(subject), after, artifact_type, artifact_type),
    )
    found: list[ManifestRecord] = []
    taken = 0
    for row in rows:
        taken += _ROW_BYTES + len(row[5])
        if found and taken > most:
            return found, str(found[-1].digest)
        found.append(_record(row))
    return found, None


def doomed(connection: sqlite3.Connection, after: str, limit: int) -> list[Digest]:
    """Up to ``limit`` digests that have lost a link, in their order."""
    rows = connection.execute("SELECT digest FROM doomed WHERE digest > ? ORDER BY digest LIMIT ?", (after, limit))
    return [Digest.parse(digest) for (digest,) in rows]


def linked(connection: sqlite3.Connection, after: Digest | None, limit: int) -> list[tuple[Digest, int]]:
    """Up to ``limit`` blobs of any repository with their sizes, in the order of digests, after the given one."""
    rows = connection.execute(
        "SELECT digest, max(size) FROM blob WHERE digest > ? GROUP BY digest ORDER BY digest LIMIT ?",
        (str(after or ""), limit),
    )
    return [(Digest.parse(digest), size) for digest, size in rows]


def expirable(connection: sqlite3.Connection, before: float, limit: int) -> list[str]:
    """Up to ``limit`` repositories with blobs that no manifest names, and that nobody touched since ``before``."""
    rows = connection.execute(
        "SELECT DISTINCT repository FROM blob WHERE touched_at < ? AND NOT EXISTS"
        " (SELECT 1 FROM named WHERE named.repository = blob.repository AND named.child = blob.digest) LIMIT ?",
        (before, limit),
    )
    return [repository for (repository,) in rows]


def expired(connection: sqlite3.Connection, repository: str, before: float, limit: int) -> list[BlobLink]:
    """Up to ``limit`` blobs of the repository that no manifest names, and that nobody touched since ``before``."""
    rows = connection.execute(
        "SELECT digest, size, touched_at FROM blob WHERE repository = ? AND touched_at < ? AND NOT EXISTS"
        " (SELECT 1 FROM named WHERE named.repository = blob.repository AND named.child = blob.digest) LIMIT ?",
        (repository, before, limit),
    )
    return [BlobLink(Digest.parse(digest), size, touched_at) for digest, size, touched_at in rows]


def told(connection: sqlite3.Connection, after: int, most: int, limit: int) -> tuple[list[Told], int, bool]:
    """Up to ``limit`` entries after a ``seq``, that fit into about ``most`` bytes as JSON, or one; the ``seq`` of the
    last one, and whether there are more. From the first on, where ``after`` is more than the last.
    """
    rows = connection.execute(
        "SELECT e.seq, e.kind, e.repository, e.key, e.moment, e.gone, e.before,"
        " coalesce(b.size, e.size), coalesce(b.touched_at, e.touched_at),"
        " m.media_type, m.size, m.pushed_at, t.digest, t.moved_at, t.serial FROM entry e"
        " LEFT JOIN blob b ON e.kind = 'blob' AND b.repository = e.repository AND b.digest = e.key"
        " LEFT JOIN manifest m ON e.kind = 'manifest' AND m.repository = e.repository AND m.digest = e.key"
        " LEFT JOIN tag t ON e.kind = 'tag' AND t.repository = e.repository AND t.tag = e.key"
        " WHERE e.seq > ? ORDER BY e.seq LIMIT ?",
        (after if after <= ledger.head(connection) else 0, limit + 1),
    )
    found: list[Told] = []
    last = after if after <= ledger.head(connection) else 0
    taken = 0
    for seq, *row in rows:
        taken += _ROW_BYTES + (row[9] or 0) * 4 // 3
        if found and (taken > most or len(found) == limit):
            return found, last, True
        found.append(_told(*row))
        last = seq
    return found, last, False


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
    _: int,
    pushed_at: float,
    digest: str,
    moved_at: float,
    serial: int,
) -> Told:
    if kind == "blob":
        return OfBlob(repository, Digest.parse(key), moment, bool(gone), size, touched_at, before)
    if kind == "tag":
        return (
            OfTag(repository, key, moment, None)
            if gone
            else OfTag(repository, key, moment, Digest.parse(digest), moved_at, serial)
        )
    if gone:
        return OfManifest(repository, Digest.parse(key), moment, None)
    return Unread(repository, Digest.parse(key), moment, media_type, pushed_at)


def _record(row: tuple[str, str, int, str | None, str, str, float]) -> ManifestRecord:
    digest, media_type, size, subject, artifact_type, annotations, pushed_at = row
    return ManifestRecord(
        Digest.parse(digest),
        media_type,
        size,
        Digest.parse(subject) if subject is not None else None,
        artifact_type,
        tuple(json.loads(annotations).items()),
        pushed_at,
    )
