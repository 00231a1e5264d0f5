"""How far the disk was read again, in a small file: it outlives a restart, and tells the other workers what was found.

It may be absent or damaged: then the next look begins at the beginning.
"""

import json
import os
from dataclasses import dataclass, replace
from pathlib import Path

from mirror.digest import Digest
from mirror.errors import DigestInvalid
from mirror.store.blobs import File
from mirror.store.directory import write_durably

_VERSION = 1
_MAX_CONDEMNED = 500
_MAX_MISSING = 50_000
_MAX_DAMAGED = 10_000


@dataclass(frozen=True, slots=True)
class Scrubbed:
    """``began`` (seconds since the epoch): when the last look at all blobs did; ``ended``: whether it has come to its
    end, which was at ``ended_at``. ``after``: the last blob that was looked at. ``condemned``: the files that were
    taken out of service lately. ``missing``: blobs that were, and could not be had again.

    Of this look alone: of the ``blobs`` that there were at its beginning so many were ``read``, with ``bytes_read``;
    what was ``damaged``, of which so many were had again (``restored``). ``asked``: the number that stood in
    `DataDirectory.scrub_wanted` when it began.
    """

    began: float
    ended: bool = False
    after: Digest | None = None
    condemned: tuple[tuple[Digest, File], ...] = ()
    missing: frozenset[Digest] = frozenset()
    ended_at: float | None = None
    asked: int = 0
    blobs: int = 0
    read: int = 0
    bytes_read: int = 0
    damaged: tuple[Digest, ...] = ()
    restored: int = 0

    def beginning(self, now: float, asked: int, blobs: int) -> "Scrubbed":
        """A new look, of which nothing is done yet."""
        return Scrubbed(now, condemned=self.condemned, missing=self.missing, asked=asked, blobs=blobs)

    def reading(self, size: int) -> "Scrubbed":
        """With one more blob that was read, and its bytes."""
        return replace(self, read=self.read + 1, bytes_read=self.bytes_read + size)

    def condemning(self, digest: Digest, file: File) -> "Scrubbed":
        """With one more file that has rotted."""
        condemned = (*self.condemned, (digest, file))[-_MAX_CONDEMNED:]
        missing = self.missing | {digest} if len(self.missing) < _MAX_MISSING else self.missing
        damaged = (*self.damaged, digest)[:_MAX_DAMAGED]
        return replace(self, condemned=condemned, missing=missing, damaged=damaged)

    def mending(self, digest: Digest, *, had: bool) -> "Scrubbed":
        """Without one that is missing no more, for it was ``had`` again, or nobody needs it."""
        restored = self.restored + (had and digest in self.damaged)
        return replace(self, missing=self.missing - {digest}, restored=restored)


def load(path: Path) -> Scrubbed | None:
    """What stands in the file; None where there is none, or none that can be read. Blocks. Raises `OSError`.

    The release before wrote nothing of the look alone, and passes over what is written of it.
    """
    try:
        fields = json.loads(path.read_bytes())
        if fields["v"] != _VERSION:
            return None
        return Scrubbed(
            float(fields["began"]),
            bool(fields["ended"]),
            None if fields["after"] is None else Digest.parse(fields["after"]),
            tuple((Digest.parse(digest), File(int(inode), float(at))) for digest, inode, at in fields["condemned"]),
            frozenset(map(Digest.parse, fields["missing"])),
            None if fields.get("ended_at") is None else float(fields["ended_at"]),
            int(fields.get("asked", 0)),
            int(fields.get("blobs", 0)),
            int(fields.get("read", 0)),
            int(fields.get("bytes_read", 0)),
            tuple(map(Digest.parse, fields.get("damaged", ()))),
            int(fields.get("restored", 0)),
        )
    except FileNotFoundError:
        return None
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError, DigestInvalid):
        return None


def save(path: Path, scrubbed: Scrubbed) -> None:
    """Replace the file; durable when this returns. Blocks. Raises `OSError`."""
    fields = {
        "v": _VERSION,
        "began": scrubbed.began,
        "ended": scrubbed.ended,
        "after": None if scrubbed.after is None else str(scrubbed.after),
        "condemned": [[str(digest), *file] for digest, file in scrubbed.condemned],
        "missing": sorted(map(str, scrubbed.missing)),
        "ended_at": scrubbed.ended_at,
        "asked": scrubbed.asked,
        "blobs": scrubbed.blobs,
        "read": scrubbed.read,
        "bytes_read": scrubbed.bytes_read,
        "damaged": list(map(str, scrubbed.damaged)),
        "restored": scrubbed.restored,
    }
    write_durably(path, json.dumps(fields).encode())


def version(path: Path) -> tuple[int, int] | None:
    """What changes whenever the file is replaced; None where there is none. Blocks. Raises `OSError`."""
    try:
        found = os.stat(path)
    except FileNotFoundError:
        return None
    return found.st_ino, found.st_mtime_ns
