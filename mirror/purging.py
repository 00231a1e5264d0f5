"""Purging: what is known and held of references goes, in all workers and replicas, and the next pull has it anew.

Upstream is not said to have lost anything. The record of a tag goes as if it had been deleted there (`mirror.tags`), so
that no replica goes on with its own, but without a word that keeps anybody from asking. Then the links go, and the
files that nothing else names (`mirror.disposal`), here and at every replica that is there.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal, Protocol

from mirror.contents import Contents
from mirror.digest import Digest
from mirror.disposal import Disposal, Disposed, Doomed, Known
from mirror.errors import LeaseLost, MirrorError, StoreError
from mirror.links import Links
from mirror.metadata.base import TagEntry, TagRecord, Tombstone
from mirror.oci import Reference
from mirror.resolve import Leases
from mirror.store.generation import Generation
from mirror.store.pins import Pin
from mirror.tags import Others, Tags

log = logging.getLogger(__name__)

_AT_ONCE = 32
_TURNS = 3
"""Times that a record is dropped whose lease somebody else got meanwhile."""

Result = Literal["purged", "absent", "pinned", "failed"]


@dataclass(frozen=True, slots=True)
class Purged:
    """What became of a reference. ``size``: bytes that are free, on all disks. ``why`` is in words; ``replica``, where
    it is set, is the address of the other one that says so.
    """

    result: Result
    digest: Digest | None = None
    size: int | None = None
    why: str | None = None
    replica: str | None = None


@dataclass(frozen=True, slots=True)
class Wanted:
    """Something that goes, and what stands in the place of its tags now: what another replica is told of it."""

    doomed: Doomed
    tombstones: tuple[Tombstone, ...] = ()


class Metadata(Protocol):
    """What all replicas share: `mirror.metadata.base`. Methods may raise `StoreError`."""

    async def tag(self, upstream: str, repository: str, tag: str) -> TagEntry | None: ...

    async def merge_tags(self, entries: Sequence[TagEntry]) -> None: ...


class Pins(Protocol):
    """What is pinned: `mirror.pinned`."""

    def standing(self) -> Sequence[Pin]: ...


class Elsewhere(Protocol):
    """The other replicas: `mirror.chores`."""

    async def purge(self, wanted: Sequence[Wanted]) -> Mapping[str, Sequence[Disposed] | MirrorError]:
        """What became of all of it at each, by their addresses; or why that is not known."""
        ...


class Nowhere:
    """There are no others."""

    async def purge(self, wanted: Sequence[Wanted]) -> Mapping[str, Sequence[Disposed] | MirrorError]:
        """Nobody has anything."""
        return {}


@dataclass(slots=True)
class _Case:
    """A reference on its way; ``outcome`` ends it."""

    reference: Reference
    digest: Digest | None = None
    tags: list[str] = field(default_factory=list)
    tombstones: list[Tombstone] = field(default_factory=list)
    outcome: Purged | None = None

    @property
    def doomed(self) -> Doomed:
        """What is to go of it."""
        assert self.digest is not None
        return Doomed(self.reference.upstream, self.reference.repository, self.digest, tuple(self.tags))


class Purging:
    """Purges references. ``prefix`` is that of hosted repositories, of which nothing goes. ``original`` gives what a
    reference is made of here, where anything is. ``generation`` moves when tags do; ``now``: seconds since the epoch.
    """

    def __init__(
        self,
        known: Known,
        metadata: Metadata,
        tags: Tags,
        links: Links,
        leases: Leases,
        others: Others,
        pins: Pins,
        contents: Contents,
        disposal: Disposal,
        elsewhere: Elsewhere,
        generation: Generation,
        prefix: str,
        original: Callable[[Reference], Awaitable[Reference | None]] | None,
        now: Callable[[], float],
    ) -> None:
        self._known = known
        self._metadata = metadata
        self._tags = tags
        self._links = links
        self._leases = leases
        self._others = others
        self._pins = pins
        self._contents = contents
        self._disposal = disposal
        self._elsewhere = elsewhere
        self._generation = generation
        self._prefix = prefix
        self._original = original
        self._now = now

    async def purge(self, references: Sequence[Reference]) -> list[Purged]:
        """Have all of it gone; what became of each. Never raises `MirrorError`."""
        cases = [_Case(reference) for reference in references]
        try:
            named = await self._named(references)
            protectors = await asyncio.to_thread(self._protectors)
        except StoreError as error:
            return [Purged("failed", why=error.message) for _ in references]
        await self._each(cases, lambda case: self._find(case, named, protectors))
        await self._each(cases, self._forget)
        left = [case for case in cases if case.outcome is None]
        if left:
            await self._dispose(left)
        return [case.outcome or Purged("absent") for case in cases]

    async def here(self, wanted: Sequence[Wanted], *, anew: bool) -> list[Disposed]:
        """What another replica has purged goes from this disk too; as `Disposal.dispose`."""
        tombstones = [tombstone for one in wanted for tombstone in one.tombstones]
        if tombstones:
            await self._metadata.merge_tags(tombstones)
            self._generation.advance()
        return await self._disposal.dispose([one.doomed for one in wanted], anew=anew)

    async def _each(self, cases: Sequence[_Case], step: Callable[[_Case], Awaitable[None]]) -> None:
        """Take a step with all that have not ended, some of them at a time."""
        turns = asyncio.Semaphore(_AT_ONCE)

        async def one(case: _Case) -> None:
            async with turns:
                try:
                    await step(case)
                except MirrorError as error:
                    case.outcome = Purged("failed", case.digest, why=error.message)

        await asyncio.gather(*(one(case) for case in cases if case.outcome is None))

    async def _find(
        self, case: _Case, named: Mapping[tuple[str, str, str], list[str]], protectors: Mapping[str, str]
    ) -> None:
        """What a reference names, and whether that may go."""
        reference = case.reference
        if reference.upstream == self._prefix:
            case.outcome = Purged(
                "failed",
                why=f"{reference} is hosted here, and purge is about what can be had again: to delete it, send DELETE "
                f"/v2/{reference.upstream}/{reference.repository}/manifests/{reference.target}",
            )
            return
        if reference.tag is None:
            assert reference.digest is not None
            place = reference.upstream, reference.repository
            case.digest = reference.digest
            case.tags = list(named.get((*place, str(reference.digest)), ()))
            if not case.tags and await self._links.get(*place, reference.digest) is None:
                case.outcome = Purged("absent")
        else:
            record = await self._record(case)
            if record is None:
                case.outcome = Purged("absent")
            else:
                case.digest, case.tags = record.digest, [record.tag]
        names = (str(reference), str(case.reference), str(case.digest))
        pin = next((protectors[name] for name in names if name in protectors), None)
        if pin is not None:
            case.outcome = Purged("pinned", case.digest, why=f"{pin} is pinned, and names it; unpin that first")

    async def _record(self, case: _Case) -> TagRecord | None:
        """The record of a tag; of one that is made here, that of what it is made of, which goes in its place."""
        reference = case.reference
        record = await self._tags.load(reference) or await self._tags.ask_elsewhere(reference)
        if record is None and self._original is not None:
            source = await self._original(reference)
            if source is not None and source.tag is not None:
                record = await self._tags.load(source)
                case.reference = source if record is not None else reference
        return record

    async def _forget(self, case: _Case) -> None:
        """The records of its tags go, while nobody asks about them or pushes them. Raises `StoreError`."""
        for tag in case.tags:
            reference = Reference(case.reference.upstream, case.reference.repository, tag=tag)
            for turn in range(_TURNS):
                try:
                    async with self._leases.hold(f"tag {reference}") as fence:
                        await self._tags.forget(reference, self._now(), fence)
                    break
                except LeaseLost as error:
                    if turn + 1 == _TURNS:
                        raise StoreError(f"{reference} is being changed by others; purge it again") from error
            entry = await self._metadata.tag(reference.upstream, reference.repository, tag)
            case.tombstones += [entry] if isinstance(entry, Tombstone) else []

    async def _dispose(self, cases: Sequence[_Case]) -> None:
        """Links and files, here and elsewhere."""
        doomed = [case.doomed for case in cases]
        failure: MirrorError | None = None
        try:
            here = await self._disposal.dispose(doomed)
        except StoreError as error:
            here, failure = [Disposed() for _ in doomed], error
        for one, disposed in zip(doomed, here, strict=True):
            own = () if disposed.tagged or disposed.pinned or disposed.namer else (one.digest,)
            digests = dict.fromkeys((*own, *disposed.gone))
            await self._links.drop_all(one.upstream, one.repository, digests, self._now())
        await self._others.seen_by_all()
        wanted = [Wanted(one, tuple(case.tombstones)) for one, case in zip(doomed, cases, strict=True)]
        elsewhere = await self._elsewhere.purge(wanted)
        for number, case in enumerate(cases):
            case.outcome = _outcome(case, here[number], failure, elsewhere, number)
            log.info("%s is %s: %s bytes", case.reference, case.outcome.result, case.outcome.size)

    async def _named(self, references: Sequence[Reference]) -> dict[tuple[str, str, str], list[str]]:
        """The tags of a repository that name a digest, where one of the references is by digest."""
        named: dict[tuple[str, str, str], list[str]] = {}
        if any(reference.digest is not None for reference in references):
            async for portion in self._known.all_tagged():
                for one in portion:
                    named.setdefault((one.upstream, one.repository, one.digest), []).append(one.tag)
        return named

    def _protectors(self) -> dict[str, str]:
        """All that is pinned, references and digests, each with a reference for which it is. Blocks."""
        found: dict[str, str] = {}
        for pin in self._pins.standing():
            found[pin.reference] = pin.reference
            for named in pin.names:
                for digest in self._contents.led_to(named.digest):
                    found.setdefault(str(digest), pin.reference)
        return found


def _outcome(
    case: _Case,
    here: Disposed,
    failure: MirrorError | None,
    elsewhere: Mapping[str, Sequence[Disposed] | MirrorError],
    number: int,
) -> Purged:
    """What became of a reference in all."""
    size = here.size
    pinned = "its record is gone, and it stays on the disk: it was pinned meanwhile" if here.pinned else None
    failed, replica = (failure.message if failure is not None else None), None
    if case.reference.digest is not None and not case.tags and here.namer is not None:
        failed = f"the manifest {here.namer} names it; purge that one"
    for address, told in elsewhere.items():
        if isinstance(told, MirrorError):
            failed, replica = failed or f"it may still lie on another replica's disk: {told.message}", address
        else:
            size += told[number].size
            if told[number].pinned and pinned is None:
                pinned, replica = "it is pinned at another replica, and stays on its disk; unpin it first", address
    if failed is not None or pinned is not None:
        return Purged("pinned" if failed is None else "failed", case.digest, size, failed or pinned, replica)
    return Purged("purged", case.digest, size)
