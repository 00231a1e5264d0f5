"""What is asked of the records of hosted content, in SQL. Everything here blocks."""

import json
import sqlite3
from collections.abc import Sequence
from typing import Literal

from mirror.digest import Digest
from mirror.hosted.records import BlobLink, HostedTag, ManifestRecord, Tagged
from mirror.metadata.statements import marks

MANIFEST = "digest, media_type, size, subject, artifact_type, annotations, pushed_at"
"""The columns of a manifest, but for its repository."""

_ROW_BYTES = 512

_NAMES = "EXISTS (SELECT 1 FROM manifest m WHERE m.repository = tag.repository AND m.digest = tag.digest)"
"""A tag is there when its manifest is, which another replica may tell of later."""


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


def unlinked(connection: sqlite3.Connection, digests: Sequence[Digest]) -> list[Digest]:
    """Those that no repository has. Asks about all of them at once."""
    texts = [str(digest) for digest in digests]
    linked = {
        row[0]
        for table in ("blob", "manifest")
        for row in connection.execute(f"SELECT digest FROM {table} WHERE digest IN ({marks(texts)})", texts)
    }
    return [digest for digest in digests if str(digest) not in linked]


def size_of(connection: sqlite3.Connection, digest: Digest) -> int | None:
    """Bytes of a blob or manifest of any repository; None where none has it."""
    row = connection.execute(
        "SELECT size FROM blob WHERE digest = :digest"
        " UNION ALL SELECT size FROM manifest WHERE digest = :digest LIMIT 1",
        {"digest": str(digest)},
    ).fetchone()
    return None if row is None else int(row[0])


def manifest(connection: sqlite3.Connection, repository: str, digest: Digest) -> ManifestRecord | None:
    """The manifest of the repository, or None."""
    row = connection.execute(
        f"SELECT {MANIFEST} FROM manifest WHERE repository = ? AND digest = ?", (repository, str(digest))
    ).fetchone()
    return None if row is None else _record(row)


def tag(connection: sqlite3.Connection, repository: str, name: str) -> HostedTag | None:
    """What the tag names, or None."""
    row = connection.execute(
        f"SELECT tag, digest, moved_at, serial FROM tag WHERE repository = ? AND tag = ? AND {_NAMES}",
        (repository, name),
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
        f"SELECT tag FROM tag WHERE repository = ? AND (lower(tag), tag) > (lower(?), ?) AND {_NAMES}"
        " ORDER BY lower(tag), tag LIMIT ?",
        (repository, last or "", last or "", limit),
    )
    return [name for (name,) in rows]


def all_tagged(connection: sqlite3.Connection, after: tuple[str, str], limit: int) -> list[Tagged]:
    """Up to ``limit`` tags of all repositories after one, in their order, with the manifests that they name."""
    rows = connection.execute(
        "SELECT tag.repository, tag.tag, m.digest, m.media_type, tag.moved_at FROM tag JOIN manifest m"
        " ON m.repository = tag.repository AND m.digest = tag.digest"
        " WHERE (tag.repository, tag.tag) > (?, ?) ORDER BY tag.repository, tag.tag LIMIT ?",
        (*after, limit),
    )
    return [Tagged(*row) for row in rows]


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


def linked(
    connection: sqlite3.Connection, table: Literal["blob", "manifest"], after: Digest | None, limit: int
) -> list[tuple[Digest, int]]:
    """Up to ``limit`` blobs, or manifests, of any repository with their sizes, in the order of digests, after one."""
    rows = connection.execute(
        f"SELECT digest, max(size) FROM {table} WHERE digest > ? GROUP BY digest ORDER BY digest LIMIT ?",
        (str(after or ""), limit),
    )
    return [(Digest.parse(digest), size) for digest, size in rows]


def expirable(
    connection: sqlite3.Connection, before: float, after: tuple[str, str], limit: int
) -> tuple[list[str], tuple[str, str] | None]:
    """Repositories with blobs that no manifest names, and that nobody touched since ``before``; of the ``limit`` blobs
    after one (its repository and digest). And the last of these, None where it is the last of all.
    """
    rows = connection.execute(
        "SELECT repository, digest, touched_at < ? AND NOT EXISTS"
        " (SELECT 1 FROM named WHERE named.repository = blob.repository AND named.child = blob.digest)"
        " FROM blob WHERE (repository, digest) > (?, ?) ORDER BY repository, digest LIMIT ?",
        (before, *after, limit),
    ).fetchall()
    found = dict.fromkeys(repository for repository, _, expires in rows if expires)
    return list(found), rows[-1][:2] if len(rows) == limit else None


def expired(connection: sqlite3.Connection, repository: str, before: float, limit: int) -> list[BlobLink]:
    """Up to ``limit`` blobs of the repository that no manifest names, and that nobody touched since ``before``."""
    rows = connection.execute(
        "SELECT digest, size, touched_at FROM blob WHERE repository = ? AND touched_at < ? AND NOT EXISTS"
        " (SELECT 1 FROM named WHERE named.repository = blob.repository AND named.child = blob.digest) LIMIT ?",
        (repository, before, limit),
    )
    return [BlobLink(Digest.parse(digest), size, touched_at) for digest, size, touched_at in rows]


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
