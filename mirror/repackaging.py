"""Tags that upstream does not have: what agents would refuse, in a layout that they take. Reads like `mirror.pull`.

Around the pull: a tag with the suffix is upstream's own wherever upstream has it. Where it does not, the tag without
the suffix is pulled like any, and a manifest is made of its one module. From then on that is held, linked, and served
by its digest like any other.
"""

import asyncio
import contextlib
import dataclasses
import logging
from collections.abc import Callable, Mapping

from mirror.accesses import Accesses
from mirror.answer import Answer, Body, Hit, Whole
from mirror.digest import Digest
from mirror.errors import (
    ManifestUnknown,
    MirrorError,
    NameUnknown,
    NotFound,
    StoreError,
    UpstreamDenied,
    UpstreamError,
    UpstreamTimeout,
)
from mirror.flight import Flights
from mirror.indexes import MAX_DEPTH, leads_too_far, way_from
from mirror.manifests import LAST_WORD, Manifests
from mirror.modules import Modules
from mirror.oci import INDEXES, Descriptor, Manifest, Reference
from mirror.pull import OCTETS, Pulling
from mirror.resolve import Resolver
from mirror.sharing import Sharing
from mirror.store.blobs import BlobStore
from mirror.tags import Lru, Tags
from mirror.upstream.failover import Upstream
from mirror.wasm.artifact import for_agents
from mirror.wasm.repackage import CONFIG, chosen_child, in_the_way, original_tag, repackaged, source_of

log = logging.getLogger(__name__)

_CONFIG = Digest.of(CONFIG)

_Place = tuple[str, str, Digest]


class _Refused(Exception):
    """Nothing is made of an artifact; the message says why, and what to do. It will be so the next time."""


class Repackaging:
    """Answers for manifests and blobs, with those that are made here."""

    def __init__(
        self,
        suffix: str,
        upstreams: Mapping[str, Upstream],
        store: BlobStore,
        tags: Tags,
        resolver: Resolver,
        manifests: Manifests,
        sharing: Sharing,
        pull: Pulling,
        modules: Modules,
        accesses: Accesses,
        now: Callable[[], float],
    ) -> None:
        """``modules`` are those of ``pull``; ``now`` gives seconds since the epoch."""
        self._suffix = suffix
        self._upstreams = upstreams
        self._store = store
        self._tags = tags
        self._resolver = resolver
        self._manifests = manifests
        self._sharing = sharing
        self._pull = pull
        self._modules = modules
        self._accesses = accesses
        self._now = now
        self._made: Lru[tuple[_Place, bool], Manifest] = Lru(2_000)
        self._refusals: Lru[tuple[str, str, Digest, bool], str] = Lru(2_000)
        self._sources: Lru[_Place, Digest] = Lru(10_000)
        self._making: Flights[Manifest] = Flights()

    async def manifest(self, reference: Reference) -> Answer:
        """The manifest that ``reference`` names, made where upstream has none."""
        tag = original_tag(reference.tag or "", self._suffix)
        if tag is None:
            answer = await self._pull.manifest(reference)
            if reference.digest is not None:
                self._remember(reference, self._manifests.of(answer))
            return answer
        until = asyncio.get_running_loop().time() + self._manifests.patience(reference.upstream) + LAST_WORD
        original = dataclasses.replace(reference, tag=tag)
        return await self._upstreams_own(reference, original) or await self._of(reference, original, until)

    async def blob(self, reference: Reference, *, read: bool) -> Answer:
        """The blob with ``reference``'s digest. An unpacked module is none at upstream, so it may be unpacked."""
        assert reference.digest is not None
        source = self._sources.get((reference.upstream, reference.repository, reference.digest))
        if source is not None and not self._holds(reference.digest):
            if reference.digest == _CONFIG:
                return await self._config(reference)
            with contextlib.suppress(MirrorError):
                answer = await self._modules.module(reference.at(source))
                if answer.digest == reference.digest:
                    return dataclasses.replace(answer, media_type=OCTETS)
        return await self._pull.blob(reference, read=read)

    async def original(self, reference: Reference) -> Reference | None:
        """What upstream has in place of what may be made here: the tag or the manifest that it is made of."""
        if reference.tag is not None:
            tag = original_tag(reference.tag, self._suffix)
            return dataclasses.replace(reference, tag=tag) if tag is not None else None
        assert reference.digest is not None
        source = self._sources.get((reference.upstream, reference.repository, reference.digest))
        if source is None and (made := await self._manifests.known(reference, reference.digest)) is not None:
            source = source_of(made)
        return reference.at(source) if source is not None else None

    async def aclose(self) -> None:
        """Stop what was begun for clients that may be gone."""
        await self._making.aclose()

    async def _upstreams_own(self, reference: Reference, original: Reference) -> Answer | None:
        """The tag with the suffix as upstream has it; None where it has none, or is silent while we can do without."""
        if await self._tags.get(reference) is None:
            if await self._tags.absent(reference, self._now()):
                return None
            offline = self._upstreams[reference.upstream].policy.offline
            if not offline and await self._known(original) and not await self._known(reference):
                try:
                    await self._resolver.soon(reference)
                except UpstreamDenied:
                    raise
                except (NotFound, UpstreamError):
                    return None
        try:
            return await self._pull.manifest(reference)
        except NotFound:
            return None

    async def _known(self, reference: Reference) -> bool:
        """Whether a tag was pulled before, here or by another replica."""
        return await self._tags.get(reference) is not None or await self._resolver.elsewhere(reference) is not None

    async def _of(self, reference: Reference, original: Reference, until: float) -> Answer:
        """What is made of the original, as fresh as that is."""
        try:
            answer = await self._pull.manifest(original)
        except NameUnknown:
            raise
        except NotFound as absence:
            raise ManifestUnknown(
                f"{reference} is not there, nor {original}, of which it would be made: {absence.message}"
            ) from absence
        try:
            async with asyncio.timeout_at(until):
                made = await self._made_of(original, self._manifests.of(answer))
        except _Refused as reason:
            raise ManifestUnknown(f"{reference} is not there, and is not made of {original}: {reason}") from reason
        except TimeoutError as error:
            raise UpstreamTimeout(
                f"the layers of {original}, of which {reference} is made, have not come in time; ask again",
                retry_after=1,
            ) from error
        self._accesses.manifest(made)
        return Answer(made.media_type, made.digest, Whole(made.body), answer.outcome, answer.fetched_at)

    async def _made_of(self, original: Reference, named: Manifest) -> Manifest:
        """The manifest of an artifact's module, made once for all who wait. Raises `_Refused`."""
        image, taken = await self._image(original, named)
        place = original.upstream, original.repository, image.digest
        if (refusal := self._refusals.get((*place, taken))) is not None:
            raise _Refused(refusal)
        made = self._made.get((place, taken))
        if made is not None and all(map(self._holds, (made.digest, *(to.digest for to in made.named)))):
            return made
        task, _ = self._making.join((*place, taken), lambda: self._make(original.at(image.digest), taken))
        return await asyncio.shield(task)

    async def _image(self, original: Reference, named: Manifest) -> tuple[Manifest, bool]:
        """The image behind indexes, and whether agents get there too. Raises `_Refused`."""

        async def obtain(child: Descriptor) -> Manifest:
            return self._manifests.of(await self._pull.manifest(original.at(child.digest)))

        *indexes, image = way = await way_from(named, obtain, chosen_child)
        if leads_too_far(way):
            raise _Refused(
                f"it is an index that leads to more than {MAX_DEPTH} others; push the plugin's manifest alone"
            )
        if image.media_type in INDEXES:
            raise _Refused("it is an index without a manifest for linux/amd64; push the plugin's manifest alone")
        return image, all(for_agents(index) is not None for index in indexes)

    async def _make(self, image: Reference, taken: bool) -> Manifest:
        """Make the manifest of an image's module, and keep all that it names. ``taken``: agents get to the image."""
        assert image.digest is not None
        place = image.upstream, image.repository, image.digest
        described = await self._modules.describe(image)
        obstacle = "agents take that one as it is" if taken and described.agent.accepted else in_the_way(described)
        if obstacle is not None:
            if described.complete:
                self._refusals.put((*place, taken), obstacle)
            raise _Refused(obstacle)
        module = await self._modules.module(image)
        assert described.chosen is not None, "nothing stands in the way"
        if module.body.size != described.chosen.size:
            raise StoreError(f"{module.digest} was damaged on the mirror's disk; ask again", retry_after=1)
        await self._keep(module.digest, module.body)
        await self._keep(_CONFIG, Whole(CONFIG))
        made = repackaged(image.digest, module.digest, described.chosen.size)
        await self._manifests.keep(image, made)
        self._made.put((place, taken), made)
        self._remember(image, made)
        log.info("made %s of the module in %s, in a layout that agents take", made.digest, image)
        return made

    async def _keep(self, digest: Digest, body: Body) -> None:
        """Have content as a blob of its own, and say so to the other replicas.

        A disk that fails is logged: then it is unpacked for each who asks.
        """
        try:
            if not self._store.holds(digest):
                content = b"".join([bytes(piece) async for piece in body.read(0, None)])
                await asyncio.to_thread(self._store.put, digest, content)
            await self._sharing.announce(digest)
        except OSError as error:
            log.error("the disk fails (%s); %s is not kept", error.strerror or error, digest)

    async def _config(self, reference: Reference) -> Answer:
        return Answer(OCTETS, _CONFIG, Whole(CONFIG), Hit())

    def _remember(self, reference: Reference, manifest: Manifest) -> None:
        """Where the blobs of a manifest that was made come from, should they be gone."""
        source = source_of(manifest)
        if source is not None:
            for descriptor in manifest.named:
                self._sources.put((reference.upstream, reference.repository, descriptor.digest), source)

    def _holds(self, digest: Digest) -> bool:
        try:
            return self._store.holds(digest)
        except OSError:
            return False
