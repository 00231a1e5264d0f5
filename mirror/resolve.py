"""What a tag names now: one question to upstream for all who wait, and a tag that moves only to a whole version."""

import asyncio
import logging
from collections.abc import Callable, Mapping

from mirror import freshness
from mirror.errors import (
    ManifestUnknown,
    NotFound,
    UpstreamDenied,
    UpstreamError,
    UpstreamTimeout,
    UpstreamUnavailable,
)
from mirror.flight import Flights
from mirror.manifests import LAST_WORD, Manifests
from mirror.metadata.base import TagRecord
from mirror.oci import Manifest, Reference
from mirror.store.leases import Leases
from mirror.suspicion import Suspicion
from mirror.tags import Tags
from mirror.upstream.failover import Upstream

log = logging.getLogger(__name__)

_ASK_FOR = 10.0
"""Seconds that one question to upstream may take, behind the clients' backs."""


class Resolver:
    """Asks upstream about tags. Questions run in tasks of their own; clients wait as long as they may."""

    def __init__(
        self,
        upstreams: Mapping[str, Upstream],
        tags: Tags,
        manifests: Manifests,
        leases: Leases,
        suspicion: Suspicion,
        now: Callable[[], float],
    ) -> None:
        self._upstreams = upstreams
        self._tags = tags
        self._manifests = manifests
        self._leases = leases
        self._suspicion = suspicion
        self._now = now
        self._flights: Flights[TagRecord] = Flights()
        self._words: dict[Reference, asyncio.Event] = {}

    async def first(self, reference: Reference) -> tuple[TagRecord, bool]:
        """The record of a tag, by one GET, where none may be served; and whether another request asked already.

        Raises `ManifestUnknown`, `UpstreamError`; waits for as long as a manifest may be held.
        """
        task, joined = self._flights.join(("first", reference), lambda: self._fetch(reference))
        try:
            async with asyncio.timeout(self._manifests.patience(reference.upstream) + LAST_WORD):
                return await asyncio.shield(task), joined
        except TimeoutError as error:
            raise UpstreamTimeout(
                f"{reference.upstream} has not sent the manifest of {reference} in time; ask again", retry_after=1
            ) from error

    async def ask(self, reference: Reference, known: TagRecord) -> TagRecord:
        """The record after upstream was asked about it, by one HEAD.

        Upstream's word is waited for no longer than ``revalidate_for``, and not at all while it is suspected; then
        `UpstreamTimeout` is raised, and the question goes on. When the tag has moved, this waits until the new version
        can be had.
        """
        task, word = self.begin(reference, known)
        if self._suspicion.rests_on(reference.upstream):
            raise UpstreamTimeout(f"{reference.upstream} took too long lately and has not answered since")
        if self._suspicion.rests_on(str(reference)):
            raise UpstreamTimeout(f"the new version of {reference} took too long lately and has not come since")
        policy = self._upstreams[reference.upstream].policy
        try:
            async with asyncio.timeout(policy.revalidate_for):
                await word.wait()
        except TimeoutError as error:
            self._suspicion.failed(reference.upstream)
            raise UpstreamTimeout(
                f"{reference.upstream} has not answered within {policy.revalidate_for:g} s (revalidate_for)"
            ) from error
        try:
            async with asyncio.timeout(self._manifests.patience(reference.upstream) + LAST_WORD):
                return await asyncio.shield(task)
        except TimeoutError as error:
            raise UpstreamTimeout(f"the new version of {reference} has not come in time") from error

    def begin(self, reference: Reference, known: TagRecord) -> tuple["asyncio.Task[TagRecord]", asyncio.Event]:
        """Ask upstream without waiting: the task, and the event that upstream has given its word."""
        word = self._words.setdefault(reference, asyncio.Event())
        task, _ = self._flights.join(("again", reference), lambda: self._revalidate(reference, known, word))
        return task, word

    async def aclose(self) -> None:
        """Stop asking."""
        await self._flights.aclose()

    async def _fetch(self, reference: Reference) -> TagRecord:
        assert reference.tag is not None
        asked_at = self._now()
        async with self._leases.hold(f"tag {reference}"):
            if (record := await self._tags.load(reference)) is not None and self._answers(record, asked_at):
                return record
            try:
                manifest = await self._manifests.fetch(reference, reference.tag)
            except NotFound as error:
                await self._note_absence(reference)
                raise error
            self._suspicion.answered(reference.upstream)
            return await self._learn(reference, manifest)

    async def _revalidate(self, reference: Reference, known: TagRecord, word: asyncio.Event) -> TagRecord:
        asked_at = self._now()
        try:
            async with self._leases.hold(f"tag {reference}"):
                record = await self._tags.load(reference) or known
                if self._answers(record, asked_at):
                    return record
                return await self._question(reference, record, word)
        finally:
            word.set()
            del self._words[reference]

    async def _question(self, reference: Reference, known: TagRecord, word: asyncio.Event) -> TagRecord:
        assert reference.tag is not None
        upstream = self._upstreams[reference.upstream]
        deadline = asyncio.get_running_loop().time() + _ASK_FOR
        try:
            head = await upstream.head_manifest(reference.repository, reference.tag, deadline=deadline)
        except UpstreamDenied:
            self._suspicion.answered(reference.upstream)  # nothing may stand in for a refusal
            raise
        except NotFound:
            self._suspicion.answered(reference.upstream)
            if not upstream.policy.keep_deleted_tags:
                await self._tags.forget(reference)
                await self._note_absence(reference)
            raise
        except UpstreamTimeout:
            self._suspicion.failed(reference.upstream)
            raise
        self._suspicion.answered(reference.upstream)
        word.set()
        if head.digest == known.digest:
            record = TagRecord(
                known.upstream, known.repository, known.tag, known.digest, known.media_type, known.size, self._now()
            )
            await self._tags.learn(record)
            return record
        return await self._move(reference, known, str(head.digest) if head.digest else reference.tag)

    async def _move(self, reference: Reference, known: TagRecord, target: str) -> TagRecord:
        """The tag names another digest now: the record follows once the new version is held or flowing.

        A version that is waited for in vain is suspected as an upstream that hangs is: the next clients do not wait.
        """
        clock = asyncio.get_running_loop().time
        impatient_at = clock() + self._upstreams[reference.upstream].policy.revalidate_for
        try:
            record = await self._follow(reference, known, target)
        except UpstreamError:
            if clock() > impatient_at:
                self._suspicion.failed(str(reference))
            raise
        self._suspicion.answered(str(reference))
        return record

    async def _follow(self, reference: Reference, known: TagRecord, target: str) -> TagRecord:
        try:
            manifest = await self._manifests.fetch(reference, target)
            async with asyncio.timeout(self._upstreams[reference.upstream].policy.hold_for):
                await self._manifests.arrange(reference, manifest)
        except NotFound as error:
            raise UpstreamUnavailable(f"{reference} names {target} now, which {reference.upstream} lacks") from error
        except TimeoutError as error:
            raise UpstreamTimeout(f"the layers of {target}, which {reference} names now, do not come") from error
        log.info("%s moved from %s to %s", reference, known.digest, manifest.digest)
        return await self._learn(reference, manifest)

    async def _learn(self, reference: Reference, manifest: Manifest) -> TagRecord:
        assert reference.tag is not None
        record = TagRecord(
            reference.upstream,
            reference.repository,
            reference.tag,
            manifest.digest,
            manifest.media_type,
            len(manifest.body),
            self._now(),
        )
        await self._tags.learn(record)
        return record

    async def _note_absence(self, reference: Reference) -> None:
        policy = self._upstreams[reference.upstream].policy
        if policy.negative_for:
            await self._tags.note_absence(reference, self._now() + policy.negative_for)

    def _answers(self, record: TagRecord, asked_at: float) -> bool:
        """Whether another worker has asked upstream in the meantime, so that this one need not."""
        if record.fetched_at >= asked_at:
            return True
        policy = self._upstreams[record.upstream].policy
        return freshness.of(record, policy, self._now()) is freshness.Freshness.FRESH


def unknown(reference: Reference) -> ManifestUnknown:
    """What a client gets for a reference that upstream has denied having a moment ago."""
    return ManifestUnknown(f"{reference.upstream} does not have {reference}", detail={"reference": str(reference)})
