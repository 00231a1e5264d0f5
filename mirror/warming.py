"""One reference warmed: all that agents, or other clients, will ask for under its name brought to this disk.

It is pulled as an agent would pull it, so a tag that is not fresh is asked about upstream, and what is on its way here
already is waited for, not fetched twice. Agents read one layer; a warmed artifact is here whole, its config too.
"""

import asyncio
import logging
import time
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field
from enum import StrEnum

from mirror.accesses import Accesses
from mirror.answer import Answer, Collapsed, Filled, Flowing, Stale
from mirror.digest import Digest
from mirror.errors import ManifestUnknown, MirrorError, StoreError, UpstreamInvalid
from mirror.indexes import MAX_DEPTH, way_from
from mirror.manifests import Manifests
from mirror.modules import Modules
from mirror.oci import INDEXES, Descriptor, Manifest, Reference
from mirror.pull import Pulling
from mirror.store.blobs import BlobStore
from mirror.wasm.artifact import for_agents

log = logging.getLogger(__name__)

AGENTS = "linux/amd64"
"""The platform that agents take, wherever they run."""

ALL = "all"

Progress = Callable[[int, int | None], None]
"""Told how many bytes of an artifact are here by now, and of how many; the latter is None until its manifest is."""

_BLOBS_AT_ONCE = 4
_MOST_MANIFESTS = 500
_MOST_OF_THEM = 64 << 20
"""Manifests to which an index may lead, and their bytes."""

_TICK = 0.01
"""Seconds by which the date of a file may lie before its last byte: the kernel looks at the clock that often."""

_NOT_IN_REGISTRIES = (".foreign.", ".nondistributable.")
"""What the media types of layers have in them that registries need not hold."""


class Result(StrEnum):
    """What has become of a reference."""

    HELD = "held"  # it was here
    FETCHED = "fetched"
    REFUSED = "refused"  # it is here, and agents will not take it
    FAILED = "failed"  # not all of it is here


@dataclass(frozen=True, slots=True)
class Warmed:
    """``digest`` is what the reference names now, None where that is not known. ``bytes``: how many came here for it.

    ``why``: in words for operators, why it is refused or has failed; of the others what is worth knowing, that Envoy
    will not run it, or that upstream could not be asked.
    """

    result: Result
    digest: Digest | None
    bytes: int
    seconds: float
    why: str | None = None


@dataclass(slots=True)
class _Content:
    """What a reference names, as far as that is known. ``began``: seconds since the epoch.

    ``here``: how many bytes of each are on this disk, of the ``total`` that its manifests speak of. ``came``: how many
    came since then, and ``fetched``: whether anything did.
    """

    began: float
    digest: Digest | None = None
    stale: MirrorError | None = None
    manifests: dict[Digest, Manifest] = field(default_factory=dict)
    here: dict[Digest, int] = field(default_factory=dict)
    total: int | None = None
    came: int = 0
    fetched: bool = False

    def add(self, digest: Digest, size: int, *, came: bool) -> None:
        """All of it is here."""
        self.here[digest] = size
        if came:
            self.came += size
            self.fetched = True

    def blobs(self) -> list[Descriptor]:
        """Configs and layers, each once."""
        found: dict[Digest, Descriptor] = {}
        for manifest in self.manifests.values():
            for named in (*((manifest.config,) if manifest.config else ()), *manifest.layers):
                if not any(part in named.media_type for part in _NOT_IN_REGISTRIES):
                    found.setdefault(named.digest, named)
        return list(found.values())

    def tell(self, progress: Progress | None) -> None:
        """How much is here."""
        if progress is not None:
            progress(sum(self.here.values()), self.total)


class Warmer:
    """Warms references on this replica. ``now``: seconds since the epoch, ``clock`` some that never go back."""

    def __init__(
        self,
        pull: Pulling,
        manifests: Manifests,
        modules: Modules,
        store: BlobStore,
        accesses: Accesses,
        now: Callable[[], float] = time.time,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """``pull`` is for upstreams' and hosted content."""
        self._pull = pull
        self._manifests = manifests
        self._modules = modules
        self._store = store
        self._accesses = accesses
        self._now = now
        self._clock = clock

    async def warm(
        self, reference: Reference, platforms: Collection[str] = (AGENTS,), progress: Progress | None = None
    ) -> Warmed:
        """Have all of ``reference`` here: of indexes what is for ``platforms``, such as ``linux/amd64``, or `ALL`.

        Whatever stands against it is in the result: it raises nothing of `mirror.errors`.
        """
        began, content = self._clock(), _Content(self._now() - _TICK)
        result, why = Result.FAILED, None
        try:
            way = await self._manifests_of(reference, platforms, content, progress)
            await self._blobs_of(reference, content, progress)
            self._refuse_lost(content)
            refused, against = await self._verdict(reference, way) if way else (False, None)
            stale = None if content.stale is None else f"it is what it was, for {content.stale.message}"
            came = Result.FETCHED if content.fetched else Result.HELD
            result, why = (Result.REFUSED, against) if refused else (came, stale or against)
        except MirrorError as failure:
            why = failure.message
        except OSError as error:
            log.error("the disk fails (%s); %s is not warmed", error.strerror or error, reference)
            why = f"the mirror's disk fails: {error.strerror or 'it cannot be read'}"
        return Warmed(result, content.digest, content.came, self._clock() - began, why)

    async def _manifests_of(
        self, reference: Reference, platforms: Collection[str], content: _Content, progress: Progress | None
    ) -> tuple[Manifest, ...]:
        """Have all manifests here; gives the way that agents go, empty where nobody warms what is theirs."""
        answer = await self._pull.manifest(reference)
        content.digest = answer.digest
        content.stale = answer.outcome.failure if isinstance(answer.outcome, Stale) else None
        named = await self._kept(reference, answer, content)
        level, depth = [named], 0
        while level := [manifest for manifest in level if manifest.media_type in INDEXES]:
            if depth == MAX_DEPTH:
                raise UpstreamInvalid(f"{reference} is an index that leads to more than {MAX_DEPTH} others")
            children = [child for index in level for child in _chosen(index, platforms)]
            level, depth = [], depth + 1
            for child in children:
                if child.digest not in content.manifests:
                    _refuse_many(reference, content)
                    found = await self._pull.manifest(reference.at(child.digest))
                    level.append(await self._kept(reference, found, content))
        content.total = sum(len(one.body) for one in content.manifests.values())
        content.total += sum(one.size for one in content.blobs())
        content.tell(progress)
        if named.media_type not in INDEXES:
            return (named,)
        _refuse_lack(named, platforms)
        if AGENTS not in platforms and ALL not in platforms:
            return ()

        async def known(child: Descriptor) -> Manifest:
            return content.manifests[child.digest]

        return await way_from(named, known)

    async def _kept(self, reference: Reference, answer: Answer, content: _Content) -> Manifest:
        """A manifest, which may have been in memory only: it is to lie on the disk."""
        self._accesses.unasked(answer.digest)
        manifest = self._manifests.of(answer)
        came = isinstance(answer.outcome, Filled | Collapsed) or self._came(manifest.digest, content)
        if not self._store.holds(manifest.digest):
            came = True
            await asyncio.to_thread(self._store.put, manifest.digest, manifest.body)
        content.manifests[manifest.digest] = manifest
        content.add(manifest.digest, len(manifest.body), came=came)
        return manifest

    async def _blobs_of(self, reference: Reference, content: _Content, progress: Progress | None) -> None:
        """Have all configs and layers here, a few at a time. Raises what stands against one of them."""
        blobs, turns = content.blobs(), asyncio.Semaphore(_BLOBS_AT_ONCE)

        async def bring(named: Descriptor) -> None:
            async with turns:
                answer = await self._pull.blob(reference.at(named.digest), read=True)
                await self._whole(answer, content, progress)

        tasks = [asyncio.create_task(bring(named)) for named in blobs]
        try:
            await asyncio.gather(*tasks)
        finally:  # what is on its way goes on coming, whoever waits
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def _whole(self, answer: Answer, content: _Content, progress: Progress | None) -> None:
        body = answer.body
        if isinstance(body, Flowing):
            growing = body.content
            with growing.holding_back():
                while not growing.verified:
                    await growing.reached(growing.available)
                    content.here[answer.digest] = growing.available
                    content.tell(progress)
                if await growing.kept() is None:
                    raise _not_kept(answer.digest)
            content.add(answer.digest, growing.size or 0, came=True)
        elif self._store.holds(answer.digest):
            content.add(answer.digest, body.size or 0, came=self._came(answer.digest, content))
        else:
            raise _not_kept(answer.digest)
        content.tell(progress)

    def _came(self, digest: Digest, content: _Content) -> bool:
        """Whether the file has come since this began: agents' layers are sent for before they are asked for."""
        blob = self._store.open(digest)
        return blob is not None and blob.stored_at >= content.began

    def _refuse_lost(self, content: _Content) -> None:
        """Raise `StoreError` where something is gone again, before all of it was here."""
        for digest in content.here:
            if not self._store.holds(digest):
                raise StoreError(
                    f"{digest} came, and is gone again: there is no room for all that is to be warm; make "
                    "cache.max_size larger, or the disk"
                )

    async def _verdict(self, reference: Reference, way: Sequence[Manifest]) -> tuple[bool, str | None]:
        """Whether agents will refuse it, and why they, or their Envoys, will not have it; no where nobody can tell."""
        try:
            description = await self._modules.described(reference, way)
        except MirrorError as error:
            log.info("%s is warm, and could not be looked into: %s", reference, error)
            return False, None
        if not description.complete or description.accepted:
            return False, None
        refused = not description.agent.accepted
        verdict = description.agent if refused else description.envoy
        who = "agents will refuse it" if refused else "agents take it, and Envoy will not run it"
        return refused, f"{who}: {verdict.reason}" + (f"; {verdict.remedy}" if verdict.remedy else "")


def _chosen(index: Manifest, platforms: Collection[str]) -> list[Descriptor]:
    """The children of an index for these platforms, each once."""
    if ALL in platforms:
        return list(index.manifests)
    found = (child_for(index, platform) for platform in platforms)
    return list(dict.fromkeys(child for child in found if child is not None))


def child_for(index: Manifest, platform: str) -> Descriptor | None:
    """The first child of an index for ``platform``, or without any, as agents choose theirs."""
    if platform == AGENTS:
        return for_agents(index)
    for child in index.manifests:
        if child.platform is None or f"{child.platform.os}/{child.platform.architecture}" == platform:
            return child
    return None


def _refuse_many(reference: Reference, content: _Content) -> None:
    """Raise `UpstreamInvalid` before one more manifest is too much to be held in memory."""
    size = sum(content.here.values())
    if len(content.manifests) >= _MOST_MANIFESTS or size >= _MOST_OF_THEM:
        raise UpstreamInvalid(
            f"{reference} is an index that leads to {len(content.manifests)} manifests with {size:,} bytes, and to more"
        )


def _refuse_lack(index: Manifest, platforms: Collection[str]) -> None:
    """Raise `ManifestUnknown` for a platform that is not there; what agents lack, they say themselves."""
    for platform in platforms:
        if platform not in (AGENTS, ALL) and child_for(index, platform) is None:
            has = {f"{child.platform.os}/{child.platform.architecture}" for child in index.manifests if child.platform}
            raise ManifestUnknown(f"the index has no child for {platform}; it has {', '.join(sorted(has)[:8])}")


def _not_kept(digest: Digest) -> StoreError:
    return StoreError(
        f"the mirror's disk does not keep {digest}: it is full, or fails, as the mirror's log says; make room, or set "
        "cache.max_size to what there is"
    )
