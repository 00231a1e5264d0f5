"""Hosted content without a push over HTTP: bytes are put on the disk, then taken down, as a publisher does it."""

import contextlib
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path

from mirror.digest import Digest
from mirror.hosted.catalogue import Catalogue
from mirror.hosted.records import Described
from mirror.oci import Manifest
from mirror.store.blobs import BlobStore
from mirror.store.directory import DataDirectory
from tests.support.artifacts import Artifact

REPOSITORY = "team/plugin"
OTHER = "team/other"


class Clock:
    """Seconds since the epoch, as the test says."""

    def __init__(self) -> None:
        self.time = 1_000_000.0

    def __call__(self) -> float:
        return self.time


class Shelf:
    """A data directory with a catalogue, as one worker has them."""

    def __init__(self, path: Path, now: Callable[[], float] = time.time, most: int | None = None) -> None:
        path.mkdir(parents=True, exist_ok=True)
        DataDirectory.open(path).close()
        self.directory = DataDirectory.attach(path)
        self.store = BlobStore(self.directory)
        self.database = path / "hosted.sqlite"
        self.catalogue = Catalogue(self.database, self.there, self.body, most=most, now=now)

    def there(self, digest: Digest, size: int) -> bool:
        """Whether the disk has the bytes."""
        path = self.directory.blob(digest)
        return path.exists() and path.stat().st_size == size

    def body(self, digest: Digest) -> bytes:
        """The bytes of a manifest."""
        return self.directory.blob(digest).read_bytes()

    async def push_blob(self, repository: str, content: bytes) -> Digest:
        """Push a blob."""
        digest = Digest.of(content)
        self.store.put(digest, content)
        await self.catalogue.link_blob(repository, digest, len(content))
        return digest

    async def push_manifest(self, repository: str, artifact: Artifact, *tags: str, overwrite: bool = True) -> Digest:
        """Push a manifest alone."""
        described = describe(artifact)
        self.store.put(described.manifest.digest, artifact.body)
        await self.catalogue.put_manifest(repository, described, tags, overwrite=overwrite)
        return described.manifest.digest

    async def push(self, repository: str, artifact: Artifact, *tags: str, overwrite: bool = True) -> Digest:
        """Push a manifest after all that it names."""
        for content in artifact.blobs.values():
            await self.push_blob(repository, content)
        for child in artifact.children:
            await self.push(repository, child)
        return await self.push_manifest(repository, artifact, *tags, overwrite=overwrite)


def describe(artifact: Artifact) -> Described:
    """A manifest as it is pushed."""
    return Described.of(Manifest.parse(artifact.body, artifact.media_type, artifact.digest))


@contextlib.asynccontextmanager
async def shelf(path: Path, now: Callable[[], float] = time.time, most: int | None = None) -> AsyncIterator[Shelf]:
    """A shelf, closed at the end."""
    found = Shelf(path, now, most)
    try:
        yield found
    finally:
        await found.catalogue.aclose()
