"""The rows of blobs, manifests and tags, in SQL, with no entry: that is written beside them by whoever decides.

Everything here blocks.
"""

import json
import sqlite3
from collections.abc import Iterable

from mirror.digest import Digest
from mirror.hosted import reads
from mirror.hosted.records import BlobLink, Described, HostedTag


def put_blob(connection: sqlite3.Connection, repository: str, link: BlobLink) -> None:
    """Write the row of a blob."""
    connection.execute(
        "INSERT OR REPLACE INTO blob (repository, digest, size, touched_at) VALUES (?, ?, ?, ?)",
        (repository, str(link.digest), link.size, link.touched_at),
    )


def put_described(connection: sqlite3.Connection, repository: str, described: Described, pushed_at: float) -> None:
    """Write the row of a manifest, and those of what it names."""
    pushed = described.manifest
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
            pushed_at,
        ),
    )
    connection.executemany(
        "INSERT OR IGNORE INTO named (repository, manifest, child) VALUES (?, ?, ?)",
        [(repository, str(pushed.digest), str(to.digest)) for to in pushed.named],
    )


def put_tag(connection: sqlite3.Connection, repository: str, tag: HostedTag) -> None:
    """Write the row of a tag."""
    connection.execute(
        "INSERT OR REPLACE INTO tag (repository, tag, digest, moved_at, serial) VALUES (?, ?, ?, ?, ?)",
        (repository, tag.tag, str(tag.digest), tag.moved_at, tag.serial),
    )


def take_blob(connection: sqlite3.Connection, repository: str, digest: Digest) -> None:
    """Delete the row of a blob; its bytes are doomed."""
    connection.execute("DELETE FROM blob WHERE repository = ? AND digest = ?", (repository, str(digest)))
    doom(connection, [digest])


def take_manifest(connection: sqlite3.Connection, repository: str, digest: Digest) -> bool:
    """Delete the row of a manifest and those of what it names; its bytes are doomed. False: no row."""
    key = repository, str(digest)
    found = connection.execute("DELETE FROM manifest WHERE repository = ? AND digest = ?", key).rowcount > 0
    connection.execute("DELETE FROM named WHERE repository = ? AND manifest = ?", key)
    doom(connection, [digest])
    return found


def take_tag(connection: sqlite3.Connection, repository: str, name: str) -> bool:
    """Delete the row of a tag. False: there is none."""
    return connection.execute("DELETE FROM tag WHERE repository = ? AND tag = ?", (repository, name)).rowcount > 0


def doom(connection: sqlite3.Connection, digests: Iterable[Digest]) -> None:
    """Have it found out whether the bytes can go."""
    connection.executemany("INSERT OR IGNORE INTO doomed (digest) VALUES (?)", [(str(digest),) for digest in digests])
