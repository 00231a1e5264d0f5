"""What hosted repositories have: blobs, manifests, tags. Authoritative: what is not in here was never pushed.

A change has a ``moment`` where replicas have agreed on one (`mirror.hosted.together.Turn`); None: it gets one here.
"""

import functools
import time
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from pathlib import Path
from sqlite3 import Connection
from typing import Self

from mirror.digest import Digest
from mirror.errors import NotFound, RequestError
from mirror.hosted import reads, rows, writes
from mirror.hosted.access import Access
from mirror.hosted.exchange import Body, Exchange
from mirror.hosted.records import BlobLink, Described, HostedTag, ManifestRecord, Tagged
from mirror.store.directory import DataDirectory

_PORTION = 1000  # digests that one read decides about: some milliseconds, for which others wait


class Catalogue(Exchange):
    """The records of one data directory, shared by its worker processes. Every method may raise `StoreError`."""

    def __init__(
        self,
        path: Path,
        there: writes.There,
        body: Body,
        *,
        most: int | None = None,
        now: Callable[[], float] = time.time,
    ) -> None:
        """Open the records, which blocks. A database that cannot be used is told by `damage`, and by each call.

        ``there`` says whether the disk has the bytes of a digest, in that size; it is called from a thread, and so is
        ``body``, which gives the bytes of a manifest. ``most`` is the largest number of bytes that a repository may
        have. ``now`` gives seconds since the epoch.
        """
        super().__init__(Access(path), there, body, now)
        self._most = most

    @classmethod
    def of(cls, directory: DataDirectory, *, most: int | None = None) -> Self:
        """The records of a data directory, whose blobs are its own too."""

        def there(digest: Digest, size: int) -> bool:
            try:
                return directory.blob(digest).stat().st_size == size
            except FileNotFoundError:
                return False

        def body(digest: Digest) -> bytes:
            return directory.blob(digest).read_bytes()

        return cls(directory.hosted, there, body, most=most)

    @property
    def damage(self) -> str | None:
        """What is wrong with the records, so that nothing is taken in any more, and what to do; None: nothing."""
        return self._access.damage

    async def answers(self) -> bool:
        """Whether the records can be read and changed now. Raises `StoreError` when they cannot be read."""
        await self.exists("")
        return self.damage is None

    async def exists(self, repository: str) -> bool:
        """Whether anything is in the repository."""
        return await self._access.read(lambda connection: reads.exists(connection, repository))

    async def size(self, repository: str) -> int:
        """Bytes of all blobs and manifests of the repository."""
        return await self._access.read(lambda connection: reads.size(connection, repository))

    async def blob(self, repository: str, digest: Digest) -> BlobLink | None:
        """The blob of the repository, or None."""
        return await self._access.read(lambda connection: reads.blob(connection, repository, digest))

    async def link_blob(self, repository: str, digest: Digest, size: int, *, moment: int | None = None) -> None:
        """Let the repository have a blob that the disk has. Raises `SizeInvalid` where the repository gets too large.

        Raises `StoreError` when the bytes are not there (any more): `Gc` leaves them alone for the grace.
        """
        when = self._when(moment)

        def change(connection: Connection) -> None:
            writes.link_blob(connection, repository, digest, size, when, self._there, self._most)

        await self._take_down(digest, change)

    async def mount_blob(self, repository: str, digest: Digest, source: str, *, moment: int | None = None) -> bool:
        """Let the repository have a blob of ``source``; False when that does not have it, or the disk not its bytes.

        Raises `SizeInvalid`.
        """
        when = self._when(moment)

        def change(connection: Connection) -> bool:
            return writes.mount_blob(connection, repository, digest, source, when, self._there, self._most)

        return await self._access.write(change)

    async def repositories_with(self, digest: Digest, limit: int = 100) -> Sequence[str]:
        """Repositories that have the blob, from which it may be mounted by who may read them."""
        return await self._access.read(lambda connection: reads.repositories_with(connection, digest, limit))

    async def touch(self, repository: str, digest: Digest) -> bool:
        """Somebody is told that the repository has the blob: it stays for the grace. False: it does not have it."""
        now = self._now()
        return await self._access.write(lambda connection: writes.touch(connection, repository, digest, now))

    async def manifest(self, repository: str, digest: Digest) -> ManifestRecord | None:
        """The manifest of the repository, or None."""
        return await self._access.read(lambda connection: reads.manifest(connection, repository, digest))

    async def tag(self, repository: str, name: str) -> HostedTag | None:
        """What the tag names, or None."""
        return await self._access.read(lambda connection: reads.tag(connection, repository, name))

    async def tagged(self, repository: str, name: str) -> ManifestRecord | None:
        """The manifest that the tag names, of one moment; or None."""
        return await self._access.read(lambda connection: reads.tagged(connection, repository, name))

    async def tags(self, repository: str, n: int, last: str | None) -> Sequence[str] | None:
        """Up to ``n`` tags after ``last``, in lexical order that is blind to case; None: no such repository."""

        def look(connection: Connection) -> list[str] | None:
            return reads.tags(connection, repository, last, n) if reads.exists(connection, repository) else None

        return await self._access.read(look)

    async def all_tagged(self) -> AsyncIterator[Sequence[Tagged]]:
        """All tags of all repositories, in portions and in their order."""
        after = "", ""
        while portion := await self._access.read(functools.partial(reads.all_tagged, after=after, limit=_PORTION)):
            yield portion
            after = portion[-1].repository, portion[-1].tag

    async def referrers(
        self, repository: str, subject: Digest, artifact_type: str | None, after: str | None, most: int
    ) -> tuple[Sequence[ManifestRecord], str | None]:
        """What refers to ``subject``, with about ``most`` bytes of annotations; where it goes on, if there is more."""
        return await self._access.read(
            lambda connection: reads.referrers(connection, repository, subject, artifact_type, after or "", most)
        )

    async def put_manifest(
        self,
        repository: str,
        described: Described,
        tags: Sequence[str] = (),
        *,
        overwrite: bool = True,
        moment: int | None = None,
    ) -> None:
        """Let the repository have a manifest whose bytes the disk has, and let ``tags`` name it; all, or nothing.

        Raises `ManifestBlobUnknown` where it names what the repository does not have, `ManifestInvalid` where that has
        another size, `Denied` where a tag names another digest and ``overwrite`` is false, `SizeInvalid` where the
        repository gets too large.
        """
        when = self._when(moment)

        def change(connection: Connection) -> None:
            writes.put_manifest(
                connection, repository, described, tags, when, self._there, self._most, overwrite=overwrite
            )

        await self._take_down(described.manifest.digest, change)

    async def delete_tag(self, repository: str, name: str, *, moment: int | None = None) -> None:
        """Delete a tag, not what it names. Raises `ManifestUnknown`."""
        when = self._when(moment)
        await self._access.write(lambda connection: writes.delete_tag(connection, repository, name, when))

    async def delete_manifest(self, repository: str, digest: Digest, *, moment: int | None = None) -> None:
        """Delete a manifest, and the tags that name it. Raises `ManifestUnknown`."""
        when = self._when(moment)
        await self._access.write(lambda connection: writes.delete_manifest(connection, repository, digest, when))

    async def delete_blob(self, repository: str, digest: Digest, *, moment: int | None = None) -> None:
        """Delete a blob. Raises `BlobUnknown`; `Unsupported` while a manifest of the repository names it."""
        when = self._when(moment)
        await self._access.write(lambda connection: writes.delete_blob(connection, repository, digest, when))

    async def expirable(
        self, before: float, after: tuple[str, str], limit: int
    ) -> tuple[Sequence[str], tuple[str, str] | None]:
        """Repositories from which `expire` takes something, of ``limit`` blobs after one (`reads.expirable`)."""
        return await self._access.read(lambda connection: reads.expirable(connection, before, after, limit))

    async def expire(self, repository: str, before: float, limit: int, *, moment: int | None = None) -> int:
        """Take blobs that no manifest names and nobody touched since ``before`` from the repository, up to ``limit``;
        how many.
        """
        when = self._when(moment)
        return await self._access.write(lambda connection: writes.expire(connection, repository, before, limit, when))

    async def doom(self, digests: Sequence[Digest]) -> None:
        """Have it found out whether bytes can go: those of a copy, whose last link may have gone while it was made."""
        await self._access.write(lambda connection: rows.doom(connection, digests))

    async def unlinked(self, digests: Sequence[Digest]) -> Sequence[Digest]:
        """Those that no repository has, as a blob or as a manifest."""
        found: list[Digest] = []
        for first in range(0, len(digests), _PORTION):
            portion = digests[first : first + _PORTION]
            found += await self._access.read(functools.partial(reads.unlinked, digests=portion))
        return found

    async def doomed(self, after: str, limit: int) -> Sequence[Digest]:
        """Digests that have lost a link, and whose bytes may have to go; in their order."""
        return await self._access.read(lambda connection: reads.doomed(connection, after, limit))

    async def bury(
        self, digests: Sequence[Digest], keep: Callable[[Sequence[Digest]], Mapping[Digest, bool | None]]
    ) -> Sequence[Digest]:
        """Decide about doomed digests while nothing can be linked (`writes.bury`); what is gone."""
        return await self._access.write(lambda connection: writes.bury(connection, digests, keep))

    async def aclose(self) -> None:
        """Finish what is under way and let go of everything."""
        await self._access.aclose()

    def _when(self, moment: int | None) -> writes.When:
        return writes.When(self._now(), moment)

    async def _take_down(self, digest: Digest, change: Callable[[Connection], object]) -> None:
        """Make a change that links bytes on the disk; where it is refused, they may have to go again."""
        try:
            await self._access.write(change)
        except (RequestError, NotFound):
            await self.doom([digest])
            raise
