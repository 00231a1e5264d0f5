"""What nobody has looked at yet is looked at: what came before an upgrade, from a replica, or was pushed unjudged.

One worker of a disk does it now and then, a few artifacts in a second, of what is held whole; nothing is fetched.
It also forgets what was found of manifests that are gone by ways that tell nobody.
"""

import asyncio
import logging
import mmap
import os
from collections import Counter
from collections.abc import Awaitable, Callable, Collection, Iterable, Sequence
from contextlib import AbstractContextManager
from typing import Protocol

from mirror.digest import Digest, Verifier
from mirror.errors import MirrorError, StoreError, UpstreamInvalid
from mirror.indexes import MAX_DEPTH, leads_too_far
from mirror.oci import INDEXES, MAX_MANIFEST_SIZE, Manifest
from mirror.store.directory import DataDirectory
from mirror.wasm.artifact import for_agents, layers_to_open
from mirror.wasm.examine import examine
from mirror.wasm.facts import Facts, about, facts_of

log = logging.getLogger(__name__)

_FIRST_AFTER = 30.0
_EVERY = 60.0
"""Seconds between two rounds, and before the first, in which a mirror that has just started has better things to do."""

_AGAIN_AFTER = 10
"""Rounds after which what could not be looked at twice is tried again: it is not here as a whole, nor on its way."""

_PAUSE = 0.2
"""Seconds between two looks: some milliseconds of a thread each, for most artifacts."""

_SHORT_PAUSE = 0.01
"""The same where there was nothing to look at."""

_MOST_OPENED = 64 * 1024 * 1024
"""Bytes of layers up to which they are opened: larger ones are containers."""

_FORGOTTEN_AT_ONCE = 500


class Findings(Protocol):
    """What was found of manifests: `mirror.findings`. May raise `StoreError`."""

    async def looked(self) -> dict[str, bool]: ...

    def note(self, digests: Iterable[Digest], facts: Facts) -> None: ...


class Leases(Protocol):
    """Work that one worker of this disk does at a time: `mirror.store.leases`."""

    def attempt(self, name: str) -> AbstractContextManager[bool]: ...


class Looking:
    """Looks at what is held. ``named`` gives the manifests that are listed, with their media types where they are
    known; ``forget`` drops what was seen of what is gone. Both may raise `StoreError`.
    """

    def __init__(
        self,
        directory: DataDirectory,
        findings: Findings,
        named: Callable[[], Awaitable[Sequence[tuple[Digest, str]]]],
        forget: Callable[[Collection[Digest]], Awaitable[None]],
        leases: Leases,
        max_module_size: int,
    ) -> None:
        self._directory = directory
        self._findings = findings
        self._named = named
        self._forget = forget
        self._leases = leases
        self._max_module_size = max_module_size
        self._tried: Counter[Digest] = Counter()
        self._rounds = 0

    async def run(self) -> None:
        """A round now and then, until cancelled."""
        await asyncio.sleep(_FIRST_AFTER)
        while True:
            try:
                with self._leases.attempt("look") as is_ours:
                    if is_ours:
                        await self.once()
            except (MirrorError, OSError) as error:
                log.info("what nobody has looked at stays unknown for now: %s", error)
            await asyncio.sleep(_EVERY)

    async def once(self, pause: float = _PAUSE) -> int:
        """Look at all that nobody has looked at by the rules of now; how many were. Raises `StoreError`."""
        if self._rounds % _AGAIN_AFTER == 0:
            self._tried.clear()
        self._rounds += 1
        looked, count = await self._findings.looked(), 0
        for digest, media_type in await self._named():
            if looked.get(str(digest)) or self._tried[digest] > 1:
                continue
            found = await asyncio.to_thread(self._look, digest, media_type)
            if found is not None:
                self._findings.note(*found)
                looked.update((str(one), True) for one in found[0])
                count += 1
            else:
                self._tried[digest] += 1
            await asyncio.sleep(_SHORT_PAUSE if found is None else pause)
        gone = await asyncio.to_thread(self._gone, looked)
        for first in range(0, len(gone), _FORGOTTEN_AT_ONCE):
            await self._forget(gone[first : first + _FORGOTTEN_AT_ONCE])
        if count:
            log.info("looked at %d artifacts that nobody had looked at", count)
        return count

    def _gone(self, looked: Iterable[str]) -> list[Digest]:
        """What is not on the disk any more. Blocks, as all that follows."""
        return [digest for digest in map(Digest.parse, looked) if not self._directory.blob(digest).exists()]

    def _look(self, digest: Digest, media_type: str) -> tuple[Sequence[Digest], Facts] | None:
        """What is found of an artifact, and of which manifests that holds; None: it is not here as a whole."""
        try:
            way = self._way(digest, media_type)
            return None if way is None else self._look_at(way)
        except (OSError, StoreError, UpstreamInvalid) as error:
            log.debug("%s could not be looked at: %s", digest, error)
            return None

    def _look_at(self, way: Sequence[Manifest]) -> tuple[Sequence[Digest], Facts] | None:
        *indexes, image = way
        layers = [image.layers[number] for number in layers_to_open(image, self._max_module_size)]
        if sum(layer.size for layer in layers) > _MOST_OPENED:
            return None
        contents = {}
        for layer in layers:
            content = self._content(layer.digest)
            if content is None:
                return None
            contents[layer.digest] = content
        description = examine(
            image,
            contents,
            max_module_size=self._max_module_size,
            index=indexes[0] if indexes else None,
            between=indexes[1:],
            folder=self._directory.spool,
        )
        facts = facts_of(description)
        if not description.complete or (facts.why is not None and not _are_intact(contents)):
            return None
        return about(way), facts

    def _way(self, digest: Digest, media_type: str) -> Sequence[Manifest] | None:
        """From what is listed to the image that agents take of it; None where something of it is not here."""
        manifest = self._manifest(digest, media_type)
        way = [] if manifest is None else [manifest]
        while way and len(way) <= MAX_DEPTH and way[-1].media_type in INDEXES:
            if (child := for_agents(way[-1])) is None:
                break
            if (manifest := self._manifest(child.digest, "")) is None:
                return None
            way.append(manifest)
        return way if way and not leads_too_far(tuple(way)) else None

    def _manifest(self, digest: Digest, media_type: str) -> Manifest | None:
        body = self._content(digest)
        if body is None or len(body) > MAX_MANIFEST_SIZE or not _are_intact({digest: body}):
            return None
        return Manifest.parse(bytes(body), media_type, digest)

    def _content(self, digest: Digest) -> memoryview | None:
        """A blob, read past the files that are kept open for those who pull; None where it is not here."""
        try:
            fd = os.open(self._directory.blob(digest), os.O_RDONLY | os.O_CLOEXEC)
        except FileNotFoundError:
            return None
        try:
            size = os.fstat(fd).st_size
            return memoryview(mmap.mmap(fd, size, access=mmap.ACCESS_READ) if size else b"")
        finally:
            os.close(fd)


def _are_intact(contents: dict[Digest, memoryview]) -> bool:
    """Whether blobs still have the bytes that their digests say: what has rotted is no reason to speak ill of it."""
    for digest, content in contents.items():
        verifier = Verifier(digest)
        verifier.update(content)
        if not verifier.matches():
            return False
    return True
