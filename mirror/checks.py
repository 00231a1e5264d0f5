"""What agents will make of the artifacts that come from upstream: counted, and said once where they will refuse one.

An agent that refuses an artifact denies all traffic, or lets all of it pass, until the next push of its configuration,
and says so in its own log only. A look costs a thread some milliseconds, once for a manifest that was fetched, and no
request: what is not held and not on its way here is not looked at. Nobody waits for it.
"""

import asyncio
import logging
from collections.abc import Callable, Coroutine, Sequence

from mirror.digest import Digest
from mirror.errors import MirrorError
from mirror.fills import Fills
from mirror.flight import Flights
from mirror.indexes import MAX_DEPTH
from mirror.metrics import Metrics
from mirror.oci import Manifest, Reference
from mirror.store.blobs import Blob, BlobStore
from mirror.tags import Lru
from mirror.wasm import artifact
from mirror.wasm.description import Description
from mirror.wasm.examine import examine
from mirror.wasm.facts import Facts, about, facts_of

log = logging.getLogger(__name__)

_MOST_AT_ONCE = 64
"""Looks that may be under way, most of them waiting for layers; what comes beyond them is not looked at."""

_BEGINS_WITHIN = 5.0
"""Seconds in which layers are sent for after their manifest has come, if they are."""

_LOOK_EVERY = 0.1


class Checks:
    """Looks at artifacts, one at a time. Wired once; `aclose` ends it."""

    def __init__(
        self,
        store: BlobStore,
        fills: Fills,
        metrics: Metrics,
        max_module_size: int,
        noted: Callable[[Sequence[Digest], Facts], None],
    ) -> None:
        """``noted`` is told what was found, and of which manifests."""
        self._store = store
        self._fills = fills
        self._metrics = metrics
        self._max_module_size = max_module_size
        self._noted = noted
        self._seen: Lru[Digest, bool] = Lru(10_000)
        self._indexes: Lru[Digest, Manifest] = Lru(100)
        self._pinned: Lru[Digest, tuple[Reference, Manifest]] = Lru(100)
        self._warned: Lru[Digest, bool] = Lru(10_000)
        self._found: Lru[Digest, tuple[Sequence[Digest], Facts]] = Lru(10_000)
        self._looks: Flights[str | None] = Flights()
        self._one = asyncio.Semaphore()
        self._tasks: set[asyncio.Task[None]] = set()

    def fetched(self, reference: Reference, manifest: Manifest) -> None:
        """A manifest has come from upstream: look at it, once its layers are here."""
        child = artifact.for_agents(manifest)
        if child is not None:
            self._indexes.put(child.digest, manifest)
        if self._seen.get(manifest.digest):
            if (found := self._found.get(manifest.digest)) is not None:
                self._noted(*found)  # again: what was noted went with the manifest
            return
        if not self._may_be_wasm(manifest):
            return
        self._begin(self._count(reference, manifest), manifest)

    def given(self, reference: Reference, manifest: Manifest) -> None:
        """Somebody was given a manifest: to begin with an index by its digest is a mistake that agents pay for.

        Whether the index leads to a module is not asked of upstream; whoever wants it asks for its child next. An index
        to which another one has led is no beginning.
        """
        child = artifact.for_agents(manifest)
        if child is not None:
            self._indexes.put(child.digest, manifest)
        if reference.digest is None:
            return
        first = self._pinned.get(manifest.digest)
        self._pinned.drop(manifest.digest)
        if child is not None:
            if first is None and self._indexes.get(manifest.digest) is None:
                first = reference, manifest
            if first is not None and not self._warned.get(first[1].digest):
                self._pinned.put(child.digest, first)
        elif first is not None and not manifest.manifests and self._may_be_wasm(manifest):
            self._begin(self._warn_of_index(*first, manifest), manifest)

    async def aclose(self) -> None:
        """Stop looking; a thread that is at work ends by itself."""
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await self._looks.aclose()

    def _may_be_wasm(self, manifest: Manifest) -> bool:
        if manifest.manifests:  # an index without a child for agents is nobody's container when it is for Wasm
            kinds = {child.platform.architecture for child in manifest.manifests if child.platform is not None}
            return artifact.for_agents(manifest) is None and any(kind.startswith("wasm") for kind in kinds)
        return bool(artifact.modules(manifest, self._max_module_size))

    def _begin(self, work: Coroutine[None, None, None], manifest: Manifest) -> None:
        if len(self._tasks) >= _MOST_AT_ONCE:
            log.debug("too much is being looked at; %s is not", manifest.digest)
            work.close()
            return
        task = asyncio.create_task(work, name=f"look at {manifest.digest}")
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _count(self, reference: Reference, manifest: Manifest) -> None:
        if self._seen.get(manifest.digest):  # it has come twice since the loop's last round
            return
        self._seen.put(manifest.digest, True)
        verdict = await self._verdict(reference, manifest)
        if verdict is None:
            self._seen.drop(manifest.digest)
        else:
            self._metrics.wasm_checks[(verdict,)] += 1

    async def _warn_of_index(self, reference: Reference, index: Manifest, child: Manifest) -> None:
        if await self._verdict(reference, child) in (None, "not_wasm") or self._warned.get(index.digest):
            return
        self._warned.put(index.digest, True)
        log.warning(
            "%s was asked for by the digest of an index: agents that pin it fail with a checksum mismatch, for they "
            "compare it with the digest of its child; pin that one instead: %s/%s@%s",
            reference,
            reference.upstream,
            reference.repository,
            child.digest,
        )

    async def _verdict(self, reference: Reference, manifest: Manifest) -> str | None:
        """One of `mirror.metrics.VERDICTS`, None when it cannot be told; said in the log the first time."""
        known = self._found.get(manifest.digest)
        if known is not None:
            return known[1].verdict
        task, _ = self._looks.join(manifest.digest, lambda: self._look(reference, manifest))
        return await asyncio.shield(task)

    async def _look(self, reference: Reference, manifest: Manifest) -> str | None:
        try:
            held = [await self._layer(manifest, number) for number in self._layers(manifest)]
            contents = {blob.digest: blob.read(0, blob.size) for blob in held if blob is not None}
            async with self._one:
                indexes = self._indexes_of(manifest)
                description = await asyncio.to_thread(
                    examine,
                    manifest,
                    contents,
                    max_module_size=self._max_module_size,
                    index=indexes[0] if indexes else None,
                    between=indexes[1:],
                    folder=self._fills.directory.spool,
                )
        except Exception:
            log.debug("%s could not be looked at", manifest.digest, exc_info=True)
            return None
        if not description.complete:
            return None
        facts = facts_of(description)
        found = about((*indexes, manifest)), facts
        self._found.put(manifest.digest, found)
        self._noted(*found)
        _tell(reference, manifest, description, facts.verdict)
        return facts.verdict

    def _indexes_of(self, manifest: Manifest) -> list[Manifest]:
        """The indexes that have led to a manifest, from the first on."""
        way: list[Manifest] = []
        above = self._indexes.get(manifest.digest)
        while above is not None and len(way) < MAX_DEPTH:
            way.insert(0, above)
            above = self._indexes.get(above.digest)
        return way

    def _layers(self, manifest: Manifest) -> tuple[int, ...]:
        return artifact.layers_to_open(manifest, self._max_module_size)

    async def _layer(self, manifest: Manifest, number: int) -> Blob | None:
        """A layer, once it is held; None when nobody fetches it."""
        digest = manifest.layers[number].digest
        ends_at = asyncio.get_running_loop().time() + _BEGINS_WITHIN
        while (blob := self._store.open(digest)) is None:
            if (fill := self._fills.running(digest)) is not None:
                try:
                    return await fill.content.kept()
                except MirrorError:
                    return None
            if asyncio.get_running_loop().time() >= ends_at:
                return None
            await asyncio.sleep(_LOOK_EVERY)
        return blob


def _tell(reference: Reference, manifest: Manifest, description: Description, verdict: str) -> None:
    if verdict == "refused":
        against = description.agent
        log.warning(
            "agents will refuse %s (%s): %s; to mend it: %s", reference, manifest.digest, against.reason, against.remedy
        )
    elif verdict == "not_wasm":
        log.debug("%s (%s) holds no module", reference, manifest.digest)
    elif not description.envoy.accepted:
        against = description.envoy
        log.warning(
            "agents take %s (%s), and Envoy will not run it: %s; to mend it: %s",
            reference,
            manifest.digest,
            against.reason,
            against.remedy,
        )
