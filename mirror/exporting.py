"""Artifacts for a cluster without a network: all that references name, as one tar archive of an OCI image layout.

Everything is here, whole and verified, before the first byte of the archive is sent; what cannot be had is an error
until then. Blobs are opened beforehand, so that eviction takes nothing away from under an export.
"""

import asyncio
import json
import logging
from collections.abc import AsyncGenerator, AsyncIterator, Collection, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from mirror.answer import Answer, Flowing, Held
from mirror.digest import Digest
from mirror.errors import DigestInvalid, ManifestUnknown, MirrorError, SizeInvalid, StoreError
from mirror.indexes import MAX_DEPTH
from mirror.layers import Loose
from mirror.layouts.layout import Named
from mirror.layouts.writing import Contents
from mirror.listing import Page
from mirror.manifests import Manifests
from mirror.names import Place
from mirror.oci import INDEXES, MANIFEST_TYPES, Descriptor, Manifest, Reference
from mirror.pull import Pulling
from mirror.store.blobs import Blob, BlobStore
from mirror.tags import Tags
from mirror.warming import AGENTS, ALL, child_for

log = logging.getLogger(__name__)

_AT_ONCE = 4
_MOST_BLOBS = 20_000
"""Blobs in one archive: each is mapped while it is sent, and a process may have some ten thousand maps."""

_MOST_MANIFESTS = 500
"""Manifests to which one reference may lead."""

_PIECE = 1024 * 1024
_PAGES = 10
_NOT_IN_REGISTRIES = (".foreign.", ".nondistributable.")
_TAGS_OF_COSIGN = (".sig", ".att", ".sbom", "")
"""The ends of tags under which signatures and the like are found, behind ``sha256-<hex>``. The last is that of the OCI
distribution specification 1.1, "Referrers Tag Schema".
"""


class Everything(Pulling, Protocol):
    """Who answers for all content: `mirror.hosting.Routed`."""

    async def referrers(self, place: Place, digest: Digest, *, artifact_type: str | None, page: str | None) -> Page:
        """The index of what refers to ``digest``."""
        ...


@dataclass(frozen=True, slots=True)
class Wish:
    """What an export is to hold. ``platforms``: of indexes, such as ``linux/amd64``, or ``all``; none: what is here.

    ``referrers``: signatures and the like that are held come too.
    """

    references: Sequence[Reference]
    platforms: Collection[str] = ()
    referrers: bool = False


@dataclass(frozen=True, slots=True)
class Export:
    """An archive, ready to be sent. ``size`` in bytes."""

    size: int
    content: AsyncGenerator[bytes]


@dataclass(slots=True)
class _Artifact:
    """What one reference names. ``named`` are entries of the archive's index, ``blobs`` all that it takes.

    ``manifests``: which of the blobs are some.
    """

    named: list[Named] = field(default_factory=list)
    manifests: dict[Digest, None] = field(default_factory=dict)
    blobs: dict[Digest, Blob] = field(default_factory=dict)

    def add(self, other: "_Artifact") -> None:
        """Take in another one."""
        self.named += other.named
        self.manifests |= other.manifests
        self.blobs |= other.blobs


class Exporter:
    """Makes archives. ``hosted`` is the prefix of hosted content, all of which is here if any of it is."""

    def __init__(self, pull: Everything, manifests: Manifests, store: BlobStore, tags: Tags, hosted: str) -> None:
        self._pull = pull
        self._manifests = manifests
        self._store = store
        self._tags = tags
        self._hosted = hosted

    async def export(self, wish: Wish) -> Export:
        """The archive of a wish. Raises what stands against it, for all references at once."""
        turns = asyncio.Semaphore(_AT_ONCE)

        async def gather(reference: Reference) -> _Artifact | MirrorError:
            async with turns:
                try:
                    return await self._gather(reference, wish)
                except MirrorError as error:
                    return error
                except OSError as error:
                    log.error("the disk fails (%s); %s is not exported", error.strerror or error, reference)
                    return StoreError("the mirror's disk fails; its log says how")

        references = list(dict.fromkeys(wish.references))
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(gather(reference)) for reference in references]
        found = [task.result() for task in tasks]
        _refuse([(str(of), one) for of, one in zip(references, found, strict=True) if isinstance(one, MirrorError)])
        return _written([one for one in found if isinstance(one, _Artifact)])

    async def _gather(self, reference: Reference, wish: Wish) -> _Artifact:
        artifact = _Artifact()
        await self._add(artifact, reference, wish.platforms)
        if wish.referrers:
            for digest in list(artifact.manifests):
                for one in await self._referring(reference, digest):
                    await self._add_referrer(artifact, one)
        return artifact

    async def _add_referrer(self, artifact: _Artifact, reference: Reference) -> None:
        """What refers to an artifact comes along if it is here; the artifact does not wait for it."""
        part = _Artifact()
        try:
            await self._add(part, reference, ())
        except MirrorError as error:
            log.warning("%s refers to what is exported, and is left out: %s", reference, error)
        else:
            artifact.add(part)

    async def _add(self, artifact: _Artifact, reference: Reference, platforms: Collection[str]) -> None:
        """Have all of it here, and opened."""
        answer = await self._pull.manifest(reference)
        manifest = self._take(artifact, answer)
        artifact.named.append(
            Named(Descriptor(manifest.media_type, manifest.digest, len(manifest.body)), str(reference))
        )
        level, depth = [manifest], 0
        while level:
            for image in level:
                await self._blobs_of(artifact, reference, image)
            indexes = [one for one in level if one.media_type in INDEXES]
            children = [child for index in indexes for child in self._children(reference, index, platforms)]
            if children and depth == MAX_DEPTH:
                raise ManifestUnknown(f"{reference} is an index that leads to more than {MAX_DEPTH} others")
            level, depth = [], depth + 1
            for child in children:
                if child.media_type not in MANIFEST_TYPES:
                    await self._blob(artifact, reference, child.digest)
                elif child.digest not in artifact.manifests:
                    level.append(self._take(artifact, await self._pull.manifest(reference.at(child.digest))))

    def _take(self, artifact: _Artifact, answer: Answer) -> Manifest:
        if len(artifact.manifests) >= _MOST_MANIFESTS:
            raise SizeInvalid(f"it leads to more than {_MOST_MANIFESTS} manifests; name fewer platforms")
        manifest = self._manifests.of(answer)
        blob = self._store.open(manifest.digest)
        artifact.manifests[manifest.digest] = None
        artifact.blobs[manifest.digest] = blob if blob is not None else Loose(manifest.digest, manifest.body)
        return manifest

    def _children(self, reference: Reference, index: Manifest, platforms: Collection[str]) -> Sequence[Descriptor]:
        """What of an index comes along: what was asked for, or else what is here, or else what agents take."""
        if ALL in platforms or (not platforms and reference.upstream == self._hosted):
            return index.manifests
        if not platforms and (held := [child for child in index.manifests if self._is_whole(child, MAX_DEPTH)]):
            return held
        found: dict[Descriptor, None] = {}
        for platform in platforms or (AGENTS,):
            child = child_for(index, platform)
            if child is None:
                raise ManifestUnknown(f"its index has no child for {platform}; say which platforms, or all")
            found[child] = None
        return list(found)

    def _is_whole(self, named: Descriptor, depth: int) -> bool:
        """Whether a child of an index is here, with all that it names."""
        if named.media_type not in MANIFEST_TYPES:
            return self._store.holds(named.digest)
        manifest = self._manifests.held(named.digest, named.media_type)
        if manifest is None or not depth:
            return False
        if manifest.media_type in INDEXES:
            return any(self._is_whole(child, depth - 1) for child in manifest.manifests)
        return all(self._store.holds(one.digest) for one in _blobs_in(manifest))

    async def _blobs_of(self, artifact: _Artifact, reference: Reference, manifest: Manifest) -> None:
        if manifest.media_type not in INDEXES:
            for one in _blobs_in(manifest):
                await self._blob(artifact, reference, one.digest)

    async def _blob(self, artifact: _Artifact, reference: Reference, digest: Digest) -> None:
        if digest in artifact.blobs:
            return
        answer = await self._pull.blob(reference.at(digest), read=True)
        body, blob = answer.body, None
        if isinstance(body, Flowing):
            with body.content.holding_back():
                blob = await body.content.kept()
        elif isinstance(body, Held):
            blob = body.blob
        if blob is None:
            raise StoreError(
                f"the mirror's disk does not keep {digest}: it is full, or fails, as the mirror's log says"
            )
        artifact.blobs[digest] = blob

    async def _referring(self, reference: Reference, digest: Digest) -> Sequence[Reference]:
        """What is held that refers to a manifest: signatures and the like."""
        found = []
        for end in _TAGS_OF_COSIGN:
            tag = Reference(reference.upstream, reference.repository, tag=f"{digest.algorithm}-{digest.hex[:64]}{end}")
            if await self._holds_tag(tag):
                found.append(tag)
        place, page = Place(reference.upstream, reference.repository), None
        try:
            for _ in range(_PAGES):
                listed = await self._pull.referrers(place, digest, artifact_type=None, page=page)
                for one in _listed(listed.body):
                    if await self._holds(reference.at(one)):
                        found.append(reference.at(one))
                page = listed.headers.get("page")
                if page is None:
                    break
        except MirrorError as error:
            log.info("what refers to %s is not known: %s", reference.at(digest), error)
        return found

    async def _holds_tag(self, tag: Reference) -> bool:
        if tag.upstream == self._hosted:
            return await self._holds(tag)
        record = await self._tags.load(tag)
        return record is not None and self._manifests.held(record.digest, record.media_type) is not None

    async def _holds(self, reference: Reference) -> bool:
        if reference.upstream != self._hosted:
            assert reference.digest is not None
            return await self._manifests.known(reference, reference.digest) is not None
        try:
            await self._pull.manifest(reference)
        except ManifestUnknown:
            return False
        return True


def _blobs_in(manifest: Manifest) -> Sequence[Descriptor]:
    """The configs and layers that registries hold."""
    named = (*((manifest.config,) if manifest.config else ()), *manifest.layers)
    return [one for one in named if not any(part in one.media_type for part in _NOT_IN_REGISTRIES)]


def _listed(body: bytes) -> Sequence[Digest]:
    """What a list of referrers names. It is another registry's word: what cannot be read is passed over."""
    found = []
    try:
        for one in json.loads(body)["manifests"]:
            found.append(Digest.parse(one["digest"]))
    except (ValueError, KeyError, TypeError, RecursionError, DigestInvalid) as error:
        log.debug("a list of referrers cannot be read: %s", error)
    return found


def _refuse(faults: Sequence[tuple[str, MirrorError]]) -> None:
    """Raise what stands against references: the only one's own error, or one that names all."""
    if not faults:
        return
    reference, first = faults[0]
    if len(faults) == 1:
        told = f"{reference} cannot be exported: {first.message}"
    else:
        told = f"{len(faults)} references cannot be exported; the first is {reference}: {first.message}"
    first.detail = [{"reference": of, "code": error.code, "why": error.message} for of, error in faults]
    first.message = told
    raise first


def _written(artifacts: Sequence[_Artifact]) -> Export:
    named: dict[str, Named] = {}
    blobs: dict[Digest, Blob] = {}
    for artifact in artifacts:
        named.update((one.name, one) for one in artifact.named)
        blobs.update(artifact.blobs)
    if len(blobs) > _MOST_BLOBS:
        raise SizeInvalid(f"that is {len(blobs):,} blobs; one archive holds {_MOST_BLOBS:,}: export fewer at a time")
    contents = Contents(list(named.values()), [(digest, blob.size) for digest, blob in blobs.items()])

    async def read(digest: Digest) -> AsyncIterator[bytes]:
        blob = blobs[digest]
        for start in range(0, blob.size, _PIECE):
            piece = blob.read(start, min(blob.size, start + _PIECE))
            yield await asyncio.to_thread(bytes, piece)  # where the disk is read for it

    return Export(contents.size(), contents.written(read))
