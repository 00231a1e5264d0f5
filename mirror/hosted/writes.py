"""How the records of hosted content change, in SQL. Each function is a part of one transaction; all of them block.

``most`` is the largest number of bytes that a repository may have, None: any. ``there`` says whether the disk has the
bytes of a digest, in that size; it is asked within the transaction that links them, for `bury` unlinks within one.
Each change writes entries (`ledger`), from which other replicas learn of it.
"""

import sqlite3
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

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
from mirror.hosted import ledger, reads, rows
from mirror.hosted.ledger import Noted
from mirror.hosted.records import BlobLink, Described, HostedTag
from mirror.metadata.statements import marks
from mirror.oci import Descriptor

There = Callable[[Digest, int], bool]

_SHOWN = 5


@dataclass(frozen=True, slots=True)
class When:
    """When a change is made: ``at`` in seconds since the epoch, and its number, None where it gets one here."""

    at: float
    moment: int | None = None


def link_blob(
    connection: sqlite3.Connection,
    repository: str,
    digest: Digest,
    size: int,
    when: When,
    there: There,
    most: int | None,
) -> None:
    """Let the repository have a blob whose bytes the disk has. Raises `SizeInvalid`, `StoreError`."""
    if not there(digest, size):
        raise StoreError(f"the bytes of {digest} went before they were taken down; push it again", retry_after=1)
    before = reads.blob(connection, repository, digest)
    if before is None:
        _refuse_too_much(connection, repository, size, most)
    moment = ledger.number(connection, when.moment, when.at)
    rows.put_blob(connection, repository, BlobLink(digest, size, max(when.at, before.touched_at if before else 0.0)))
    ledger.note(connection, "blob", repository, str(digest), Noted(moment, False))


def mount_blob(
    connection: sqlite3.Connection,
    repository: str,
    digest: Digest,
    source: str,
    when: When,
    there: There,
    most: int | None,
) -> bool:
    """Let the repository have a blob of ``source``; False when that does not have it whole. Raises `SizeInvalid`."""
    link = reads.blob(connection, source, digest)
    if link is None or not there(digest, link.size):
        return False
    link_blob(connection, repository, digest, link.size, when, there, most)
    return True


def touch(connection: sqlite3.Connection, repository: str, digest: Digest, now: float) -> bool:
    """Note that somebody was told that the repository has the blob; False when it does not."""
    changed = connection.execute(
        "UPDATE blob SET touched_at = max(touched_at, ?) WHERE repository = ? AND digest = ?",
        (now, repository, str(digest)),
    )
    if changed.rowcount:
        ledger.touch(connection, repository, str(digest))
    return changed.rowcount > 0


def put_manifest(
    connection: sqlite3.Connection,
    repository: str,
    described: Described,
    tags: Sequence[str],
    when: When,
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
    moment = ledger.number(connection, when.moment, when.at)
    rows.put_described(connection, repository, described, when.at)
    ledger.note(connection, "manifest", repository, str(pushed.digest), Noted(moment, False))
    for name in tags:
        _move_tag(connection, repository, name, pushed.digest, When(when.at, moment), overwrite=overwrite)


def delete_tag(connection: sqlite3.Connection, repository: str, name: str, when: When) -> None:
    """Raises `ManifestUnknown`."""
    if not rows.take_tag(connection, repository, name):
        raise ManifestUnknown(f"there is no tag {name} in this repository")
    moment = ledger.number(connection, when.moment, when.at)
    ledger.note(connection, "tag", repository, name, Noted(moment, True))


def delete_manifest(connection: sqlite3.Connection, repository: str, digest: Digest, when: When) -> None:
    """Delete a manifest, and the tags that name it. Raises `ManifestUnknown`."""
    if not rows.take_manifest(connection, repository, digest):
        raise ManifestUnknown(f"there is no manifest {digest} in this repository")
    moment = ledger.number(connection, when.moment, when.at)
    ledger.note(connection, "manifest", repository, str(digest), Noted(moment, True))
    for name in reads.tags_of(connection, repository, digest):
        rows.take_tag(connection, repository, name)
        ledger.note(connection, "tag", repository, name, Noted(moment, True))


def delete_blob(connection: sqlite3.Connection, repository: str, digest: Digest, when: When) -> None:
    """Raises `BlobUnknown`; `Unsupported` while a manifest of the repository names the blob."""
    link = reads.blob(connection, repository, digest)
    if link is None:
        raise BlobUnknown(f"there is no blob {digest} in this repository")
    if (manifest := reads.naming(connection, repository, digest)) is not None:
        raise Unsupported(f"{digest} is named by the manifest {manifest} of this repository; delete that first")
    moment = ledger.number(connection, when.moment, when.at)
    rows.take_blob(connection, repository, digest)
    ledger.note(connection, "blob", repository, str(digest), Noted(moment, True, link.size, link.touched_at))


def expire(connection: sqlite3.Connection, repository: str, before: float, limit: int, when: When) -> int:
    """Take up to ``limit`` blobs that no manifest names, and that nobody touched since, from the repository."""
    links = reads.expired(connection, repository, before, limit)
    moment = ledger.number(connection, when.moment, when.at)
    for link in links:
        rows.take_blob(connection, repository, link.digest)
        noted = Noted(moment, True, link.size, link.touched_at, before)
        ledger.note(connection, "blob", repository, str(link.digest), noted)
    return len(links)


def bury(
    connection: sqlite3.Connection,
    digests: Sequence[Digest],
    keep: Callable[[Sequence[Digest]], Mapping[Digest, bool | None]],
) -> list[Digest]:
    """Decide about doomed digests, while nothing can be linked; those whose bytes have to go are unlinked by ``keep``.

    ``keep`` is asked about those that have no link: True lets the bytes stay for good, None until it is asked again,
    False says that they are gone. Gives what is gone.
    """
    verdicts = keep(reads.unlinked(connection, digests))
    settled = [str(digest) for digest in digests if verdicts.get(digest, True) is not None]
    connection.execute(f"DELETE FROM doomed WHERE digest IN ({marks(settled)})", settled)
    return [digest for digest, verdict in verdicts.items() if verdict is False]


def _move_tag(
    connection: sqlite3.Connection, repository: str, name: str, digest: Digest, when: When, *, overwrite: bool
) -> None:
    before = reads.tag(connection, repository, name)
    if before is not None and before.digest == digest:
        return
    if before is not None and not overwrite:
        raise Denied(
            f"the tag {name} names {before.digest}, and may be let name another manifest only by who has the right "
            "`overwrite` (auth.rules in the mirror's settings); push under another tag"
        )
    serial = before.serial + 1 if before is not None else 1
    rows.put_tag(connection, repository, HostedTag(name, digest, when.at, serial))
    ledger.note(connection, "tag", repository, name, Noted(ledger.number(connection, when.moment, when.at), False))


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
