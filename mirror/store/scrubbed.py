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


@dataclass(frozen=True, slots=True)
class Scrubbed:
    """``began`` (seconds since the epoch): when the last look at all blobs did; ``ended``: whether it has come to its
    end. ``after``: the last blob that was looked at. ``condemned``: the files that were taken out of service lately.
    ``missing``: blobs that were, and could not be had again.
    """

    began: float
    ended: bool = False
    after: Digest | None = None
    condemned: tuple[tuple[Digest, File], ...] = ()
    missing: frozenset[Digest] = frozenset()

    def condemning(self, digest: Digest, file: File) -> "Scrubbed":
        """With one more file that has rotted."""
        condemned = (*self.condemned, (digest, file))[-_MAX_CONDEMNED:]
        missing = self.missing | {digest} if len(self.missing) < _MAX_MISSING else self.missing
        return replace(self, condemned=condemned, missing=missing)


def load(path: Path) -> Scrubbed | None:
    """What stands in the file; None where there is none, or none that can be read. Blocks. Raises `OSError`."""
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
    }
    write_durably(path, json.dumps(fields).encode())


def version(path: Path) -> tuple[int, int] | None:
    """What changes whenever the file is replaced; None where there is none. Blocks. Raises `OSError`."""
    try:
        found = os.stat(path)
    except FileNotFoundError:
        return None
    return found.st_ino, found.st_mtime_ns
