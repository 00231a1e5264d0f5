"""How the records of hosted content change, in SQL. Each function is a part of one transaction; all of them block.

``most`` is the largest number of bytes that a repository may have, None: any. ``there`` says whether the disk has the
bytes of a digest, in that size; it is asked within the transaction that links them, for `bury` unlinks within one.
"""

import json
import sqlite3
from collections.abc import Callable, Iterable, Sequence

from mirror.digest import Digest
from mirror.errors import (
    BlobUnknown,
    Denied,
    ManifestBlobUnknown,
    ManifestInvalid,
    ManifestUnknown,
    SizeInvalid,
    StoreError,
    Unsupported,
)
from mirror.hosted import reads
from mirror.hosted.records import BlobLink, Described
from mirror.oci import Descriptor

There = Callable[[Digest, int], bool]

_SHOWN = 5


def link_blob(
    connection: sqlite3.Connection, repository: str, link: BlobLink, there: There, most: int | None
) -> BlobLink:
    """Let the repository have a blob whose bytes the disk has. Raises `SizeInvalid`, `StoreError`."""
    if not there(link.digest, link.size):
        raise StoreError(f"the bytes of {link.digest} went before they were taken down; push it again", retry_after=1)
    if reads.blob(connection, repository, link.digest) is None:
        _refuse_too_much(connection, repository, link.size, most)
    connection.execute(
        "INSERT OR REPLACE INTO blob (repository, digest, size, touched_at) VALUES (?, ?, ?, ?)",
        (repository, str(link.digest), link.size, link.touched_at),
    )
    return link


def mount_blob(
    connection: sqlite3.Connection,
    repository: str,
    digest: Digest,
    source: str,
    now: float,
    there: There,
    most: int | None,
) -> BlobLink | None:
    """Let the repository have a blob of ``source``; None when that does not have it whole. Raises `SizeInvalid`."""
    link = reads.blob(connection, source, digest)
    if link is None or not there(digest, link.size):
        return None
    return link_blob(connection, repository, BlobLink(digest, link.size, now), there, most)


def touch(connection: sqlite3.Connection, repository: str, digest: Digest, now: float) -> bool:
    """Note that somebody was told that the repository has the blob; False when it does not."""
    changed = connection.execute(
        "UPDATE blob SET touched_at = max(touched_at, ?) WHERE repository = ? AND digest = ?",
        (now, repository, str(digest)),
    )
    return changed.rowcount > 0


def put_manifest(
    connection: sqlite3.Connection,
    repository: str,
    described: Described,
    tags: Sequence[str],
    now: float,
    there: There,
    most: int | None,
    *,
    overwrite: bool,
) -> None:
    """Let the repository have a manifest whose bytes the disk has, and let ``tags`` name it.

    Raises `ManifestBlobUnknown`, `ManifestInvalid`, `Denied`, `SizeInvalid`, `StoreError`.
    """
    pushed = described.manifest
    if not there(pushed.digest, len(pushed.body)):
        raise StoreError(f"the bytes of {pushed.digest} went before they were taken down; push it again", retry_after=1)
    _refuse_dangling(connection, "blob", repository, described.blobs)
    _refuse_dangling(connection, "manifest", repository, described.children)
    before = reads.manifest(connection, repository, pushed.digest)
    if before is None:
        _refuse_too_much(connection, repository, len(pushed.body), most)
    elif before.media_type != pushed.media_type and not overwrite:  # its tags would name something else
        raise Denied(
            f"the manifest is there already, as {before.media_type}, and may become another type's only by who has the "
            "right `overwrite` (auth.rules in the mirror's settings)"
        )
    connection.execute(
        f"INSERT OR REPLACE INTO manifest (repository, {reads.MANIFEST}) VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
        (
            repository,
            str(pushed.digest),
            pushed.media_type,
            len(pushed.body),
            str(described.subject.digest) if described.subject is not None else None,
            described.artifact_type,
            json.dumps(dict(pushed.annotations), ensure_ascii=False),
            now,
        ),
    )
    connection.executemany(
        "INSERT OR IGNORE INTO named (repository, manifest, child) VALUES (?, ?, ?)",
        [(repository, str(pushed.digest), str(to.digest)) for to in pushed.named],
    )
    for name in tags:
        _put_tag(connection, repository, name, pushed.digest, now, overwrite=overwrite)


def delete_tag(connection: sqlite3.Connection, repository: str, name: str) -> None:
    """Raises `ManifestUnknown`."""
    gone = connection.execute("DELETE FROM tag WHERE repository = ? AND tag = ?", (repository, name))
    if not gone.rowcount:
        raise ManifestUnknown(f"there is no tag {name} in this repository")


def delete_manifest(connection: sqlite3.Connection, repository: str, digest: Digest) -> None:
    """Delete a manifest, and the tags that name it. Raises `ManifestUnknown`."""
    key = repository, str(digest)
    if not connection.execute("DELETE FROM manifest WHERE repository = ? AND digest = ?", key).rowcount:
        raise ManifestUnknown(f"there is no manifest {digest} in this repository")
    connection.execute("DELETE FROM tag WHERE repository = ? AND digest = ?", key)
    connection.execute("DELETE FROM named WHERE repository = ? AND manifest = ?", key)
    doom(connection, [digest])


def delete_blob(connection: sqlite3.Connection, repository: str, digest: Digest) -> None:
    """Raises `BlobUnknown`; `Unsupported` while a manifest of the repository names the blob."""
    key = repository, str(digest)
    if reads.blob(connection, repository, digest) is None:
        raise BlobUnknown(f"there is no blob {digest} in this repository")
    names = connection.execute("SELECT manifest FROM named WHERE repository = ? AND child = ? LIMIT 1", key).fetchone()
    if names is not None:
        raise Unsupported(f"{digest} is named by the manifest {names[0]} of this repository; delete that first")
    connection.execute("DELETE FROM blob WHERE repository = ? AND digest = ?", key)
    doom(connection, [digest])


def expire(connection: sqlite3.Connection, before: float, limit: int) -> int:
    """Take up to ``limit`` blobs that no manifest names, and that nobody touched since, from their repositories."""
    rows = connection.execute(
        "SELECT repository, digest FROM blob WHERE touched_at < ? AND NOT EXISTS"
        " (SELECT 1 FROM named WHERE named.repository = blob.repository AND named.child = blob.digest) LIMIT ?",
        (before, limit),
    ).fetchall()
    connection.executemany("DELETE FROM blob WHERE repository = ? AND digest = ?", rows)
    doom(connection, [Digest.parse(digest) for _, digest in rows])
    return len(rows)


def doom(connection: sqlite3.Connection, digests: Iterable[Digest]) -> None:
    """Have it found out whether the bytes can go."""
    connection.executemany("INSERT OR IGNORE INTO doomed (digest) VALUES (?)", [(str(digest),) for digest in digests])


def bury(
    connection: sqlite3.Connection, digests: Sequence[Digest], keep: Callable[[Digest], bool | None]
) -> list[Digest]:
    """Decide about doomed digests, while nothing can be linked; those whose bytes have to go are unlinked by ``keep``.

    ``keep`` is asked about those that have no link: True lets the bytes stay for good, None until it is asked again,
    False says that they are gone. Gives what is gone.
    """
    gone: list[Digest] = []
    for digest in digests:
        verdict = True if reads.is_linked(connection, digest) else keep(digest)
        if verdict is not None:
            connection.execute("DELETE FROM doomed WHERE digest = ?", (str(digest),))
        if verdict is False:
            gone.append(digest)
    return gone


def _put_tag(
    connection: sqlite3.Connection, repository: str, name: str, digest: Digest, now: float, *, overwrite: bool
) -> None:
    before = reads.tag(connection, repository, name)
    if before is not None and before.digest == digest:
        return
    if before is not None and not overwrite:
        raise Denied(
            f"the tag {name} names {before.digest}, and may be let name another manifest only by who has the right "
            "`overwrite` (auth.rules in the mirror's settings); push under another tag"
        )
    connection.execute(
        "INSERT OR REPLACE INTO tag (repository, tag, digest, moved_at, serial) VALUES (?, ?, ?, ?, ?)",
        (repository, name, str(digest), now, before.serial + 1 if before is not None else 1),
    )


def _refuse_dangling(connection: sqlite3.Connection, table: str, repository: str, named: Sequence[Descriptor]) -> None:
    """Raise `ManifestBlobUnknown` for what is not there, `ManifestInvalid` for what is not as large as it is said."""
    missing: list[Digest] = []
    for to in named:
        row = connection.execute(
            f"SELECT size FROM {table} WHERE repository = ? AND digest = ?", (repository, str(to.digest))
        ).fetchone()
        if row is None:
            missing.append(to.digest)
        elif row[0] != to.size:
            raise ManifestInvalid(f"the manifest says that {to.digest} has {to.size} bytes, but it has {row[0]}")
    if missing:
        shown = ", ".join(map(str, missing[:_SHOWN]))
        more = f" and {len(missing) - _SHOWN} more" if len(missing) > _SHOWN else ""
        raise ManifestBlobUnknown(
            f"the manifest names {shown}{more}, not among the {table}s of this repository; push these first",
            detail=[{"digest": str(digest)} for digest in missing[:_SHOWN]],
        )


def _refuse_too_much(connection: sqlite3.Connection, repository: str, added: int, most: int | None) -> None:
    if most is not None and reads.size(connection, repository) + added > most:
        raise SizeInvalid(
            f"the repository would have more than {most} bytes, which is all that hosted.max_repository_size in the "
            "mirror's settings allows; delete what is not needed any more"
        )
