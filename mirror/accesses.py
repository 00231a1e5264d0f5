"""When content was asked for last, and manifests how often: noted in memory for each request, written in batches."""

import asyncio
import logging
from collections.abc import Callable

from mirror.digest import Digest
from mirror.errors import StoreError
from mirror.metadata.base import Metadata
from mirror.oci import Manifest

log = logging.getLogger(__name__)

_WRITE_EVERY = 10.0
"""Seconds between two batches; what a crash can lose, and what who evicts does not know yet of other workers."""


class Accesses:
    """Last accesses that are not written down yet. ``now`` gives seconds since the epoch."""

    def __init__(self, metadata: Metadata, now: Callable[[], float]) -> None:
        self._metadata = metadata
        self._now = now
        self._noted: dict[Digest, float] = {}
        self._hits: dict[Digest, int] = {}

    def lately(self, digest: Digest) -> bool:
        """Whether a blob was asked for since the last batch was written."""
        return digest in self._noted

    def blob(self, digest: Digest) -> None:
        """A blob was asked for."""
        self._noted[digest] = self._now()

    def asked(self, digest: Digest) -> None:
        """A manifest was asked for that names nothing which could be evicted: it is hosted."""
        self._noted[digest] = self._now()
        self._hits[digest] = self._hits.get(digest, 0) + 1

    def manifest(self, manifest: Manifest) -> None:
        """A manifest was asked for, and with it all that it names: agents look again with the manifest alone."""
        now = self._now()
        self._noted[manifest.digest] = now
        self._hits[manifest.digest] = self._hits.get(manifest.digest, 0) + 1
        for descriptor in manifest.named:
            self._noted[descriptor.digest] = now

    def unasked(self, digest: Digest) -> None:
        """It was the mirror itself that asked for this manifest just now: that is a use, but no hit."""
        if (count := self._hits.get(digest, 0)) > 0:
            self._hits[digest] = count - 1

    async def run(self) -> None:
        """Write batches until cancelled."""
        while True:
            await asyncio.sleep(_WRITE_EVERY)
            await self.flush()

    async def flush(self) -> None:
        """Write down what was noted; when the database fails, it is tried again with the next batch."""
        noted, self._noted = self._noted, {}
        hits, self._hits = self._hits, {}
        if noted:
            try:
                await self._metadata.touch(noted, hits)
            except StoreError as error:
                log.error("%d last accesses could not be written: %s", len(noted), error)
                self._noted = {**noted, **self._noted}
                for digest, count in hits.items():
                    self._hits[digest] = self._hits.get(digest, 0) + count
