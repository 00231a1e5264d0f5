"""What upstream does not have is asked for once, and is there again as soon as a tag names it."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, cast

import pytest

from mirror.accesses import Accesses
from mirror.answer import Whole
from mirror.cluster.alone import Alone
from mirror.digest import Digest
from mirror.errors import ManifestUnknown
from mirror.fills import Fills
from mirror.freshness import Policy
from mirror.links import Links
from mirror.manifests import Manifests
from mirror.metadata.base import TagRecord
from mirror.oci import Manifest, Reference
from mirror.pull import Pull
from mirror.resolve import Resolver
from mirror.store.blobs import BlobStore
from mirror.store.generation import Generation
from mirror.suspicion import Suspicion
from mirror.tags import Tags
from mirror.upstream.failover import Upstream
from tests.metadata.memory import Memory, MemoryMetadata

NOW = 10_000.0
BODY = b"{}"
DIGEST = Digest.of(BODY)
TAG = Reference("up", "team/plugin", tag="v1")
BY_DIGEST = Reference("up", "team/plugin", digest=DIGEST)
MEDIA_TYPE = "application/vnd.oci.image.manifest.v1+json"


class Registry:
    """An upstream, what comes from it, and who was asked: everything that one pull needs, and does nothing else."""

    def __init__(self) -> None:
        self.policy = Policy()
        self.has_it = False
        self.gets = 0
        self._lock = asyncio.Lock()

    def allows(self, repository: str) -> bool:
        return True

    def patience(self, upstream: str) -> float:
        return 5.0

    async def fetch(self, reference: Reference, target: str) -> Manifest:
        self.gets += 1
        if not self.has_it:
            raise ManifestUnknown(f"{target} is not there")
        return Manifest(BODY, MEDIA_TYPE, DIGEST)

    async def known(self, reference: Reference, digest: Digest) -> None:
        return None

    async def obtain(self, reference: Reference, digest: Digest) -> Manifest:
        return await self.fetch(reference, str(digest))

    def prepare(self, reference: Reference, manifest: Manifest) -> None:
        """It has no layers."""

    def manifest(self, manifest: Manifest) -> None:
        """Nobody counts accesses."""

    @asynccontextmanager
    async def hold(self, name: str) -> AsyncIterator[None]:
        async with self._lock:
            yield


def replica(folder: Path, name: str, registry: Registry, memory: Memory) -> tuple[Pull, Tags, Resolver]:
    """A replica with nothing on its disk. What the replicas know, and the lease of each tag, they share."""
    (folder / name).mkdir()
    upstreams, manifests = {"up": cast(Upstream, registry)}, cast(Manifests, registry)
    alone, unused = Alone(), cast(Any, None)
    tags = Tags(MemoryMetadata(memory), Generation(folder / name / "generation"), alone, alone)
    suspicion = Suspicion(asyncio.get_running_loop().time)
    resolver = Resolver(upstreams, tags, manifests, registry, suspicion, lambda: NOW)
    store, links, fills = cast(BlobStore, unused), cast(Links, unused), cast(Fills, unused)
    accesses = cast(Accesses, registry)
    return Pull(upstreams, store, tags, links, manifests, resolver, fills, accesses, lambda: NOW), tags, resolver


async def test_upstream_is_asked_once_for_what_it_does_not_have_whoever_waits(tmp_path: Path) -> None:
    registry, memory = Registry(), Memory()
    resolvers = [replica(tmp_path, name, registry, memory)[2] for name in "abc"]
    outcomes = await asyncio.gather(*(one.first(TAG) for one in resolvers), return_exceptions=True)
    assert all(isinstance(one, ManifestUnknown) for one in outcomes)
    assert registry.gets == 1


async def test_a_digest_that_was_missing_is_there_at_once_when_a_tag_names_it(tmp_path: Path) -> None:
    registry = Registry()
    pull, tags, _ = replica(tmp_path, "a", registry, Memory())
    with pytest.raises(ManifestUnknown):
        await pull.manifest(BY_DIGEST)
    registry.has_it = True  # it was pushed, and another replica has learnt of it
    await tags.learn(TagRecord("up", "team/plugin", "v1", DIGEST, MEDIA_TYPE, len(BODY), NOW), None)
    answer = await pull.manifest(TAG)
    assert answer.body == Whole(BODY)
