"""What of an archive has arrived: its blobs as drafts on the disk, its few documents in memory.

Entries may come in any order; what the archive is, and what it names, is known when it has ended.
"""

import asyncio
import contextlib
import errno
import logging
from collections.abc import AsyncIterator
from dataclasses import dataclass, field

from mirror.digest import Digest
from mirror.errors import ArchiveInvalid
from mirror.layouts import layout
from mirror.layouts.layout import Named
from mirror.layouts.source import Limits, opened
from mirror.layouts.tar import Entry, Tar
from mirror.store.blobs import BlobStore
from mirror.store.directory import DataDirectory
from mirror.store.staging import Draft, Staging

log = logging.getLogger(__name__)

_MOST_TOLD = 100
"""Names of files that mean nothing here, of which the answer tells."""

_LONGEST_TOLD = 200


@dataclass(slots=True)
class Arrived:
    """All of an archive. ``named`` is what its index names.

    ``lying``: blobs that are not what their names say; ``unkept``: those that the disk did not take; in words.
    ``ignored``: names of files that are no part of a layout.
    """

    named: tuple[Named, ...] = ()
    drafts: dict[Digest, Draft] = field(default_factory=dict)
    lying: dict[Digest, str] = field(default_factory=dict)
    unkept: dict[Digest, str] = field(default_factory=dict)
    ignored: list[str] = field(default_factory=list)


class Arrivals:
    """Receives archives."""

    def __init__(self, limits: Limits) -> None:
        self._limits = limits

    async def receive(self, stream: AsyncIterator[bytes], staging: Staging) -> Arrived:
        """Read all of an archive. Raises `ArchiveInvalid`, and what ``stream`` raises.

        A disk that does not take a blob costs what needs that blob, and nothing else.
        """
        arrived = Arrived()
        documents: dict[str, bytes] = {}
        tar = Tar(await opened(stream, self._limits), self._limits)
        while (entry := await tar.next()) is not None:
            if entry.name in (layout.MARK, layout.INDEX) and not entry.folder:
                documents[entry.name] = await self._document(tar, entry)
            elif (digest := layout.blob_in(entry.name)) is not None and not entry.folder:
                await _blob(tar, digest, staging, arrived)
            elif not entry.folder and len(arrived.ignored) < _MOST_TOLD:
                arrived.ignored.append(entry.name[:_LONGEST_TOLD])
        layout.check_mark(documents.get(layout.MARK), arrived.ignored)
        index = documents.get(layout.INDEX)
        arrived.named = tuple(await asyncio.to_thread(layout.parse_index, index))
        return arrived

    async def _document(self, tar: Tar, entry: Entry) -> bytes:
        limit = self._limits.document
        if entry.size > limit:
            raise ArchiveInvalid(f"the archive's {entry.name} has {entry.size:,} bytes; at most {limit:,} are read")
        return b"".join([bytes(piece) async for piece in tar.content()])


async def _blob(tar: Tar, digest: Digest, staging: Staging, arrived: Arrived) -> None:
    try:
        async with contextlib.aclosing(tar.content()) as content:
            draft = await staging.take(digest, content)
    except OSError as error:
        log.error("the disk fails (%s); %s is not imported", error.strerror or error, digest)
        arrived.unkept[digest] = no_room(digest, error)
        return
    if draft.sound:
        arrived.drafts[digest] = draft
    else:
        arrived.lying[digest] = (
            f"what the archive holds as {digest} has the digest {draft.actual}: it is damaged, or was tampered with"
        )


def no_room(digest: Digest, error: OSError) -> str:
    """What is said of a blob that the disk does not take."""
    if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
        return f"the mirror's disk has no room for {digest}; make some, and import the archive again"
    return f"the mirror's disk does not take {digest}; its log says why"


class Here:
    """What there is to make artifacts of: an archive that has arrived, and what the disk holds. Blocks: for threads."""

    def __init__(self, arrived: Arrived, directory: DataDirectory, store: BlobStore) -> None:
        self._arrived = arrived
        self._directory = directory
        self._store = store

    def size(self, digest: Digest) -> int | None:
        """Bytes of what has this digest; None where it is nowhere, or is going just now."""
        draft = self._arrived.drafts.get(digest)
        if draft is not None and draft.path is not None:
            return draft.size
        with contextlib.suppress(OSError):
            if self._store.holds(digest):
                return self._directory.blob(digest).stat().st_size
        return None

    def read(self, digest: Digest) -> bytes:
        """All of it. Raises `OSError`."""
        draft = self._arrived.drafts.get(digest)
        path = draft.path if draft is not None else None
        return (path or self._directory.blob(digest)).read_bytes()

    def fault(self, digest: Digest) -> str | None:
        """Why what the archive holds does not count."""
        return self._arrived.lying.get(digest) or self._arrived.unkept.get(digest)
