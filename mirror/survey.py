"""What is held on this disk before some of it goes: what was used when, what names what, and what must stay.

Looked up anew for each round, in portions, so that nobody waits for it; between rounds nothing of it is kept. Digests
are text, as in `mirror.store.eviction`.
"""

import asyncio
import contextlib
import json
import os
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Iterable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from typing import Any, Protocol

from mirror.accesses import Accesses
from mirror.digest import Digest
from mirror.errors import DigestInvalid, UpstreamInvalid
from mirror.oci import MANIFEST_TYPES, MAX_MANIFEST_SIZE, Manifest
from mirror.store.census import Census, File
from mirror.store.directory import DataDirectory
from mirror.store.eviction import NEVER, Held, closure
from mirror.wasm.repackage import source_of

YOUNG = 60.0
"""Seconds for which a blob does not go that has just come: somebody may be about to take it down, or to ask for it."""

_READ_AT_ONCE = 100
_PAGE = 2_000
_MADE_SIZE = 4_096


class Known(Protocol):
    """What is known of this disk: `mirror.metadata.sqlite`. Methods may raise `StoreError`."""

    def all_accesses(self) -> AsyncIterator[Sequence[tuple[str, float]]]: ...

    def all_manifests(self, types: Collection[str]) -> AsyncIterator[Sequence[str]]: ...


class Hosts(Protocol):
    """What is hosted on this disk: `mirror.hosted.catalogue`. Methods may raise `StoreError`."""

    async def linked(self, after: Digest | None, limit: int) -> Sequence[tuple[Digest, int]]: ...

    async def linked_manifests(self, after: Digest | None, limit: int) -> Sequence[tuple[Digest, int]]: ...


Protected = Callable[[], Awaitable[AbstractSet[str]]]
"""Gives the digests of the manifests that are pinned (`mirror.pinned`). May raise `StoreError`."""


async def nothing() -> AbstractSet[str]:
    """Where there are no pins."""
    return frozenset()


@dataclass(frozen=True, slots=True)
class Found:
    """What is held. ``names``: what each cached manifest names; ``hosted`` and ``young`` may not go, nor may ``made``:
    manifests that were made here of other artifacts. Those are small, and no upstream has them. ``pinned`` ones may not
    go, nor may what they name.
    """

    files: Mapping[str, File]
    used: Mapping[str, float]
    names: Mapping[str, Collection[str]]
    hosted: AbstractSet[str]
    young: AbstractSet[str]
    made: AbstractSet[str]
    pinned: AbstractSet[str] = frozenset()

    def held(self) -> dict[str, Held]:
        """As `mirror.store.eviction` asks for it. What was never asked for was used when it came."""
        never = self.young | self.made
        return {
            digest: Held(size, NEVER if digest in never else self.used.get(digest, named_at))
            for digest, (size, named_at) in self.files.items()
        }

    def last_used(self, digest: str) -> float:
        """When what is here was asked for last, or else when it came."""
        return max(self.used.get(digest, 0.0), self.files[digest].named_at)

    def bytes_pinned(self) -> int:
        """What may not go because of pins, and is not hosted."""
        return self.bytes_of(closure(self.pinned, self.names) - self.hosted)

    def bytes_of(self, digests: Iterable[str]) -> int:
        """Those of them that are on this disk."""
        return sum(self.files[digest].size for digest in digests if digest in self.files)


class Survey:
    """Finds that out. ``now`` gives seconds since the epoch, as the disk does."""

    def __init__(
        self,
        directory: DataDirectory,
        census: Census,
        known: Known,
        hosted: Hosts | None,
        now: Callable[[], float] = time.time,
        *,
        accesses: Accesses | None = None,
        protected: Protected = nothing,
    ) -> None:
        """``accesses`` are those that may not be written down yet; None in a process that serves nobody."""
        self._directory = directory
        self._census = census
        self._known = known
        self._hosted = hosted
        self._now = now
        self._accesses = accesses
        self._protected = protected
        self._young = YOUNG

    async def look(self, young: float | None = None, pinned: AbstractSet[str] = frozenset()) -> Found:
        """What there is now; a blob is ``young`` for so many seconds, `YOUNG` where nothing is said; ``pinned`` adds to
        what is protected. Raises `StoreError`, `OSError`.
        """
        self._young = YOUNG if young is None else young
        files: dict[str, File] = {}
        folders = self._census.files()
        while (folder := await asyncio.to_thread(next, folders, None)) is not None:
            files.update(folder)
        hosted = await self._hosted_here()
        if self._accesses is not None:
            await self._accesses.flush()
        pinned |= await self._protected()
        used: dict[str, float] = {}
        async for accesses in self._known.all_accesses():
            used.update(accesses)
        names, made = await self._named(files, pinned)
        just_here = {digest for digest, file in files.items() if self.is_young(file.named_at)}
        return Found(files, used, names, hosted, just_here, made, pinned)

    def is_young(self, named_at: float) -> bool:
        """Whether a file has just got its name; not if its time lies far ahead, for the clock was set back then."""
        return abs(self._now() - named_at) < self._young

    async def _hosted_here(self) -> set[str]:
        hosted: set[str] = set()
        if self._hosted is not None:
            for listed in (self._hosted.linked, self._hosted.linked_manifests):
                after: Digest | None = None
                while page := await listed(after, _PAGE):
                    after = page[-1][0]
                    hosted.update(str(digest) for digest, _ in page)
        return hosted

    async def _named(
        self, files: Mapping[str, File], pinned: AbstractSet[str]
    ) -> tuple[dict[str, Collection[str]], set[str]]:
        """What the manifests that are held name; and those that were made here, which hold nothing unless pinned."""
        known = {digest: None for digest in pinned if digest in files}  # those that no link is left to, too
        async for manifests in self._known.all_manifests(frozenset(MANIFEST_TYPES)):
            known.update((digest, None) for digest in manifests if digest in files)
        left = [digest for digest in known if files[digest].size <= MAX_MANIFEST_SIZE]
        names: dict[str, Collection[str]] = {}
        made: set[str] = set()
        for first in range(0, len(left), _READ_AT_ONCE):
            some = {digest: files[digest].size for digest in left[first : first + _READ_AT_ONCE]}
            bodies = await asyncio.to_thread(self._read, some)
            for digest, (named, was_made) in bodies.items():
                if was_made:
                    made.add(digest)
                if not was_made or digest in pinned:
                    names[digest] = named
        return names, made

    def _read(self, sizes: Mapping[str, int]) -> dict[str, tuple[Collection[str], bool]]:
        """What manifests name, and whether they were made here; without what is none. Blocks: for a thread."""
        found: dict[str, tuple[Collection[str], bool]] = {}
        for text, size in sizes.items():
            with contextlib.suppress(FileNotFoundError, DigestInvalid):
                digest = Digest.parse(text)
                body = _content(self._directory.file_of(digest), size)
                found[text] = _named_in(body), _was_made(body, digest)
        return found


def _content(file: str, size: int) -> bytes:
    """The bytes of a file that has ``size``: room for more would be got from the kernel and given back each time."""
    fd = os.open(file, os.O_RDONLY | os.O_CLOEXEC)
    try:
        return os.read(fd, size)
    finally:
        os.close(fd)


def _named_in(body: bytes) -> list[str]:
    """The digests that a manifest names. It was parsed strictly before it was kept: of one that has rotted since, what
    can be read.
    """
    found: list[str] = []
    try:
        fields = json.loads(body.decode())
        for named in (fields.get("config"), *(fields.get("layers") or ()), *(fields.get("manifests") or ())):
            _note(named, found)
    except (ValueError, AttributeError, TypeError, RecursionError):
        return found
    return found


def _note(descriptor: Any, found: list[str]) -> None:
    digest = descriptor.get("digest") if isinstance(descriptor, dict) else None
    if isinstance(digest, str):
        found.append(digest)


def _was_made(body: bytes, digest: Digest) -> bool:
    if len(body) > _MADE_SIZE or b'"annotations"' not in body:
        return False
    try:
        return source_of(Manifest.parse(body, "", digest)) is not None
    except UpstreamInvalid:
        return False
