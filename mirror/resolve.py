"""What a tag names now: one question to upstream for all who wait, and a tag that moves only to a whole version."""

import asyncio
import dataclasses
import logging
from collections.abc import Awaitable, Callable, Mapping
from contextlib import AbstractAsyncContextManager
from typing import Protocol, TypeVar

from mirror import freshness
from mirror.digest import Digest
from mirror.errors import (
    AbsenceRemembered,
    LeaseLost,
    NotFound,
    UpstreamDenied,
    UpstreamError,
    UpstreamTimeout,
    UpstreamUnavailable,
)
from mirror.flight import Flights, Rounds
from mirror.manifests import LAST_WORD, Manifests
from mirror.meanwhile import first_of
from mirror.metadata.base import Fence, TagRecord
from mirror.oci import Manifest, Reference
from mirror.suspicion import Suspicion
from mirror.tags import Tags
from mirror.upstream.failover import Upstream

log = logging.getLogger(__name__)

_ASK_FOR = 10.0
"""Seconds that one question to upstream may take, behind the clients' backs."""

_TAKEN_DOWN_WITHIN = 0.25
"""Seconds that a client waits for what upstream has confirmed to be taken down."""

_TURNS = 3
"""Times that a question is asked which somebody else took over before its answer could be taken down."""


T = TypeVar("T")


class Leases(Protocol):
    """Work that one worker of all replicas does at a time: `mirror.store.leases`, `mirror.cluster.leases`."""

    def hold(self, name: str) -> AbstractAsyncContextManager[Fence | None]:
        """Wait for a lease and hold it; gives the proof of it, where there is one."""
        ...


class Word:
    """What upstream said to a question, for those who wait for it: ``confirmed`` is the record, when it still holds."""

    def __init__(self) -> None:
        self.confirmed: TagRecord | None = None
        self._given = asyncio.Event()

    async def wait(self) -> TagRecord | None:
        """Until upstream has said anything, or the question has failed."""
        await self._given.wait()
        return self.confirmed

    def give(self, confirmed: TagRecord | None = None) -> None:
        """Upstream has said something."""
        self.confirmed = self.confirmed or confirmed
        self._given.set()


def not_kept(reference: Reference, digest: Digest) -> bool:
    """Where nothing is pinned, nor was imported."""
    return False


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
        covers: Callable[[Reference, Digest], bool] = not_kept,
    ) -> None:
        """``covers`` says whether what a tag named stands in without a limit of age."""
        self._upstreams = upstreams
        self._tags = tags
        self._manifests = manifests
        self._leases = leases
        self._suspicion = suspicion
        self._now = now
        self._covers = covers
        self._flights: Flights[TagRecord] = Flights()
        self._lookups: Flights[TagRecord | None] = Flights()
        self._words: dict[Reference, Word] = {}
        self._renewals: dict[Reference, Rounds[tuple[TagRecord | None, TagRecord]]] = {}

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

    async def soon(self, reference: Reference) -> TagRecord:
        """As `first`, for a tag in whose place something that is held can be served.

        So upstream's word is waited for no longer than about a tag that is held itself: raises `UpstreamUnavailable` or
        `UpstreamTimeout` then, and the question goes on.
        """
        upstream = self._upstreams[reference.upstream]
        if not upstream.reachable:
            raise UpstreamUnavailable(f"{reference.upstream} keeps failing, and is left alone for now")
        task, _ = self._flights.join(("first", reference), lambda: self._fetch(reference))
        if self._suspicion.rests_on(reference.upstream):
            raise UpstreamTimeout(f"{reference.upstream} took too long lately and has not answered since")
        try:
            async with asyncio.timeout(upstream.policy.revalidate_for):
                return await asyncio.shield(task)
        except TimeoutError as error:
            self._suspicion.failed(reference.upstream)
            raise UpstreamTimeout(f"{reference.upstream} has not said whether it has {reference}") from error

    async def elsewhere(self, reference: Reference) -> TagRecord | None:
        """The record of a tag of which nothing is known here, if another replica has one in its own database."""
        if self._flights.under_way(("first", reference)):
            return None
        task, _ = self._lookups.join(reference, lambda: self._tags.ask_elsewhere(reference))
        return await asyncio.shield(task)

    async def ask(self, reference: Reference, known: TagRecord) -> TagRecord:
        """The record after upstream was asked about it, by one HEAD.

        Upstream's word is waited for no longer than ``revalidate_for``, and not at all while it is suspected; then
        `UpstreamTimeout` is raised, and the question goes on. When the tag has moved, this waits until the new version
        can be had. While no endpoint is to be asked, nobody is.
        """
        if not self._upstreams[reference.upstream].reachable:
            raise UpstreamUnavailable(f"{reference.upstream} keeps failing, and is left alone for now")
        task, word = self.begin(reference, known)
        if self._suspicion.rests_on(reference.upstream):
            raise UpstreamTimeout(f"{reference.upstream} took too long lately and has not answered since")
        if self._suspicion.rests_on(str(reference)):
            raise UpstreamTimeout(f"the new version of {reference} took too long lately and has not come since")
        policy = self._upstreams[reference.upstream].policy
        try:
            async with asyncio.timeout(policy.revalidate_for):
                confirmed = await word.wait()
        except TimeoutError as error:
            self._suspicion.failed(reference.upstream)
            raise UpstreamTimeout(
                f"{reference.upstream} has not answered within {policy.revalidate_for:g} s (revalidate_for)"
            ) from error
        if confirmed is not None:
            # Taken down first, in case that somebody else has learnt more; but a store that hangs is not waited for.
            done, _ = await asyncio.wait({task}, timeout=_TAKEN_DOWN_WITHIN)
            return task.result() if done else confirmed
        try:
            async with asyncio.timeout(self._manifests.patience(reference.upstream) + LAST_WORD):
                return await asyncio.shield(task)
        except TimeoutError as error:
            raise UpstreamTimeout(f"the new version of {reference} has not come in time") from error

    async def renew(self, reference: Reference) -> tuple[TagRecord | None, TagRecord]:
        """The record before and after upstream was asked about it now, however fresh it is.

        One question, by HEAD, for all who ask before it is sent; a GET where no record is known. Raises `NotFound`,
        `UpstreamError`, after which all is as when a client had asked.
        """
        upstream = self._upstreams[reference.upstream]
        if not upstream.reachable:
            raise UpstreamUnavailable(f"{reference.upstream} keeps failing, and is left alone for now")
        rounds = self._renewals.get(reference)
        if rounds is None:
            rounds = self._renewals[reference] = Rounds(lambda: self._renew(reference))
        task = rounds.join()
        task.add_done_callback(lambda _: self._renewed(reference))
        return await asyncio.shield(task)

    def begin(self, reference: Reference, known: TagRecord) -> tuple["asyncio.Task[TagRecord]", Word]:
        """Ask upstream without waiting: the task, and what upstream will have said."""
        word = self._words.setdefault(reference, Word())
        task, _ = self._flights.join(("again", reference), lambda: self._revalidate(reference, known, word))
        return task, word

    async def aclose(self) -> None:
        """Stop asking."""
        for rounds in list(self._renewals.values()):
            await rounds.aclose()
        await self._flights.aclose()
        await self._lookups.aclose()

    async def _fetch(self, reference: Reference) -> TagRecord:
        asked_at = self._now()

        async def fetch(fence: Fence | None) -> TagRecord:
            assert reference.tag is not None
            if (record := await self._tags.load(reference)) is not None and self._answers(record, asked_at):
                return record
            if await self._tags.absent(reference, self._now()):  # somebody else has asked in the meantime
                raise unknown(reference)
            return await first_of(self._get(reference, reference.tag, fence), lambda: self._stand_in(reference))

        return await self._in_turn(reference, fetch)

    async def _get(self, reference: Reference, tag: str, fence: Fence | None) -> TagRecord:
        try:
            manifest = await self._manifests.fetch(reference, tag)
        except NotFound:
            self._suspicion.answered(reference.upstream)
            await self._note_absence(reference)
            raise
        self._suspicion.answered(reference.upstream)
        return await self._tags.learn(self._record(reference, manifest), fence)

    async def _stand_in(self, reference: Reference) -> TagRecord | None:
        """A record that may be served while upstream does not answer, wherever it is known."""
        record = await self._tags.load(reference) or await self._tags.ask_elsewhere(reference)
        if record is None:
            return None
        policy, silence = self._upstreams[reference.upstream].policy, UpstreamTimeout("it has not answered")
        kept = self._covers(reference, record.digest)
        return record if freshness.may_stand_in(record, silence, policy, self._now(), kept=kept) else None

    async def _revalidate(self, reference: Reference, known: TagRecord, word: Word) -> TagRecord:
        asked_at = self._now()

        async def revalidate(fence: Fence | None) -> TagRecord:
            record = await self._tags.load(reference) or known
            if self._answers(record, asked_at):
                return record
            return await self._question(reference, record, word, fence)

        try:
            return await self._in_turn(reference, revalidate)
        finally:
            word.give()
            del self._words[reference]

    async def _renew(self, reference: Reference) -> tuple[TagRecord | None, TagRecord]:
        assert reference.tag is not None
        tag = reference.tag

        async def renew(fence: Fence | None) -> tuple[TagRecord | None, TagRecord]:
            known = await self._tags.load(reference) or await self._tags.ask_elsewhere(reference)
            if known is None:
                return None, await self._get(reference, tag, fence)
            return known, await self._question(reference, known, Word(), fence)

        return await self._in_turn(reference, renew)

    def _renewed(self, reference: Reference) -> None:
        rounds = self._renewals.get(reference)
        if rounds is not None and not rounds.busy:
            del self._renewals[reference]

    async def _in_turn(self, reference: Reference, work: Callable[[Fence | None], Awaitable[T]]) -> T:
        """Do ``work`` while nobody else asks about this tag; anew when somebody has, because this replica slept."""
        for _ in range(_TURNS):
            try:
                async with self._leases.hold(f"tag {reference}") as fence:
                    return await work(fence)
            except LeaseLost as error:
                log.warning("what was learnt of %s is not taken down: %s", reference, error)
        raise UpstreamTimeout(f"this replica was too slow to take down what {reference} names; ask again")

    async def _question(self, reference: Reference, known: TagRecord, word: Word, fence: Fence | None) -> TagRecord:
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
                await self._tags.forget(reference, self._now(), fence)
                await self._note_absence(reference)
            raise
        except UpstreamTimeout:
            self._suspicion.failed(reference.upstream)
            raise
        self._suspicion.answered(reference.upstream)
        if head.digest == known.digest:
            record = dataclasses.replace(known, fetched_at=self._now(), moving=False)
            word.give(record)
            return await self._tags.learn(record, fence)
        word.give()
        return await self._move(reference, known, str(head.digest) if head.digest else reference.tag, fence)

    async def _move(self, reference: Reference, known: TagRecord, target: str, fence: Fence | None) -> TagRecord:
        """The tag names another digest now: the record follows once the new version is held or flowing.

        A version that is waited for in vain is suspected as an upstream that hangs is: the next clients do not wait.
        """
        clock = asyncio.get_running_loop().time
        impatient_at = clock() + self._upstreams[reference.upstream].policy.revalidate_for
        try:
            record = await self._follow(reference, known, target, fence)
        except UpstreamError:
            if clock() > impatient_at:
                self._suspicion.failed(str(reference))
            raise
        self._suspicion.answered(str(reference))
        return record

    async def _follow(self, reference: Reference, known: TagRecord, target: str, fence: Fence | None) -> TagRecord:
        try:
            manifest = await self._manifests.fetch(reference, target)
            async with asyncio.timeout(self._upstreams[reference.upstream].policy.hold_for):
                await self._manifests.arrange(reference, manifest)
        except NotFound as error:
            raise UpstreamUnavailable(f"{reference} names {target} now, which {reference.upstream} lacks") from error
        except TimeoutError as error:
            raise UpstreamTimeout(f"the layers of {target}, which {reference} names now, do not come") from error
        record = await self._tags.move(known, self._record(reference, manifest), fence)
        log.info("%s moved from %s to %s", reference, known.digest, manifest.digest)
        return record

    def _record(self, reference: Reference, manifest: Manifest) -> TagRecord:
        assert reference.tag is not None
        return TagRecord(
            reference.upstream,
            reference.repository,
            reference.tag,
            manifest.digest,
            manifest.media_type,
            len(manifest.body),
            self._now(),
        )

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


def unknown(reference: Reference) -> AbsenceRemembered:
    """What a client gets for a reference that upstream has denied having a moment ago."""
    return AbsenceRemembered(f"{reference.upstream} does not have {reference}", detail={"reference": str(reference)})
