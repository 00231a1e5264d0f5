"""What is held on this disk before some of it goes: what was used when, what names what, and what must stay.

Looked up anew for each round, in portions, so that nobody waits for it; between rounds nothing of it is kept.
"""

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Callable, Collection, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from typing import Protocol

from mirror.accesses import Accesses
from mirror.digest import Digest
from mirror.errors import UpstreamInvalid
from mirror.oci import MANIFEST_TYPES, MAX_MANIFEST_SIZE, Manifest
from mirror.store.census import Census, File
from mirror.store.directory import DataDirectory
from mirror.store.eviction import NEVER, Held
from mirror.wasm.repackage import source_of

YOUNG = 60.0
"""Seconds for which a blob does not go that has just come: somebody may be about to take it down, or to ask for it."""

_PARSED_AT_ONCE = 100
_PAGE = 2_000


class Known(Protocol):
    """What is known of this disk: `mirror.metadata.sqlite`. Methods may raise `StoreError`."""

    def all_accesses(self) -> AsyncIterator[Sequence[tuple[Digest, float]]]: ...

    async def forget_accesses(self, digests: Collection[Digest]) -> None: ...

    def all_manifests(self, types: Collection[str]) -> AsyncIterator[Sequence[tuple[Digest, str]]]: ...


class Hosts(Protocol):
    """What is hosted on this disk: `mirror.hosted.catalogue`. Methods may raise `StoreError`."""

    async def linked(self, after: Digest | None, limit: int) -> Sequence[tuple[Digest, int]]: ...

    async def linked_manifests(self, after: Digest | None, limit: int) -> Sequence[tuple[Digest, int]]: ...

    async def bury(self, digests: Sequence[Digest], keep: Callable[[Digest], bool | None]) -> Sequence[Digest]: ...


@dataclass(frozen=True, slots=True)
class Found:
    """What is held. ``names``: what each cached manifest names; ``hosted`` and ``young`` may not go, nor may ``made``:
    manifests that were made here of other artifacts. Those are small, and no upstream has them.
    """

    files: Mapping[Digest, File]
    used: Mapping[Digest, float]
    names: Mapping[Digest, Collection[Digest]]
    hosted: AbstractSet[Digest]
    young: AbstractSet[Digest]
    made: AbstractSet[Digest]

    def held(self) -> dict[Digest, Held]:
        """As `mirror.store.eviction` asks for it."""
        never = self.young | self.made
        return {
            digest: Held(
                file.size, NEVER if digest in never else max(file.named_at, self.used.get(digest, file.named_at))
            )
            for digest, file in self.files.items()
        }

    def bytes_of(self, digests: Collection[Digest]) -> int:
        """Those of them that are on this disk."""
        return sum(self.files[digest].size for digest in digests if digest in self.files)


class Survey:
    """Finds that out. ``now`` gives seconds since the epoch, as the disk does."""

    def __init__(
        self,
        directory: DataDirectory,
        census: Census,
        known: Known,
        accesses: Accesses,
        hosted: Hosts | None,
        now: Callable[[], float] = time.time,
    ) -> None:
        self._directory = directory
        self._census = census
        self._known = known
        self._accesses = accesses
        self._hosted = hosted
        self._now = now

    async def look(self) -> Found:
        """What there is now. Raises `StoreError`, `OSError`."""
        files: dict[Digest, File] = {}
        folders = self._census.files()
        while (folder := await asyncio.to_thread(next, folders, None)) is not None:
            files |= folder
        hosted = await self._hosted_here()
        await self._accesses.flush()
        used: dict[Digest, float] = {}
        async for accesses in self._known.all_accesses():
            used.update((digest, at) for digest, at in accesses if digest in files)
        names, made = await self._named(files)
        young = {digest for digest, file in files.items() if self.is_young(file.named_at)}
        return Found(files, used, names, hosted, young, made)

    def is_young(self, named_at: float) -> bool:
        """Whether a file has just got its name; not if its time lies far ahead, for the clock was set back then."""
        return abs(self._now() - named_at) < YOUNG

    async def _hosted_here(self) -> set[Digest]:
        hosted: set[Digest] = set()
        if self._hosted is not None:
            for listed in (self._hosted.linked, self._hosted.linked_manifests):
                after: Digest | None = None
                while page := await listed(after, _PAGE):
                    after = page[-1][0]
                    hosted.update(digest for digest, _ in page)
        return hosted

    async def _named(self, files: Mapping[Digest, File]) -> tuple[dict[Digest, Collection[Digest]], set[Digest]]:
        """What the manifests that are held name; and those that were made here."""
        types: dict[Digest, str] = {}
        async for manifests in self._known.all_manifests(MANIFEST_TYPES):
            types.update((digest, kind) for digest, kind in manifests if digest in files)
        left = [item for item in types.items() if files[item[0]].size <= MAX_MANIFEST_SIZE]
        names: dict[Digest, Collection[Digest]] = {}
        made: set[Digest] = set()
        for first in range(0, len(left), _PARSED_AT_ONCE):
            for manifest in await asyncio.to_thread(self._parsed, left[first : first + _PARSED_AT_ONCE]):
                if source_of(manifest) is not None:
                    made.add(manifest.digest)
                else:
                    names[manifest.digest] = [named.digest for named in manifest.named]
        return names, made

    def _parsed(self, types: Sequence[tuple[Digest, str]]) -> list[Manifest]:
        """Manifests as they are on the disk; what is none is passed over. Blocks: for a thread."""
        found = []
        for digest, kind in types:
            with contextlib.suppress(FileNotFoundError, UpstreamInvalid):
                found.append(Manifest.parse(self._directory.blob(digest).read_bytes(), kind, digest))
        return found
