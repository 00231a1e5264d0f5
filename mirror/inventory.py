"""What this replica knows and holds, module by module, for people: filtered, sorted, in pages.

There is a row for each tag that is known, with what it names, and for each digest that is pinned or was imported. All
numbers are about this replica's disk. Nothing is fetched for it, and no module is looked into.

The first of several pages keeps the order in which all rows stand (`mirror.leafing`): the pages after it, whichever
worker gives them, have each row once, whatever is pulled meanwhile. Where an order was lost, they go on after the row
that was told last.
"""

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol

from mirror import freshness
from mirror.contents import Contents, Here
from mirror.digest import Digest
from mirror.freshness import Freshness, Policy
from mirror.hosted import records
from mirror.leafing import Notes, Orders, Place, place_of
from mirror.metadata.base import Link, LinkEntry
from mirror.metadata.uses import Tagged, Used
from mirror.narrowing import Chosen, Narrowing, Row, Wanted, first_after
from mirror.oci import Reference
from mirror.wasm.facts import Facts, misnamed


class Known(Notes, Protocol):
    """What is noted on this disk: `mirror.metadata.sqlite`. Methods may raise `StoreError`."""

    def all_tagged(self) -> AsyncIterator[Sequence[Tagged]]: ...

    async def used(self, digests: Sequence[str]) -> Mapping[str, Used]: ...

    async def link(self, upstream: str, repository: str, digest: Digest) -> LinkEntry | None: ...


class Hosts(Protocol):
    """What is hosted: `mirror.hosted.catalogue`. May raise `StoreError`."""

    def all_tagged(self) -> AsyncIterator[Sequence[records.Tagged]]: ...


class Pins(Protocol):
    """What is pinned: `mirror.pinned`. Asked by threads too."""

    def is_pinned(self, upstream: str, repository: str, tag: str | None, digest: Digest) -> bool: ...

    def by_digest(self) -> Iterable[Reference]:
        """The references by digest that are pinned, or were imported."""
        ...


class Findings(Protocol):
    """What was found of manifests: `mirror.findings`. May raise `StoreError`."""

    async def of(self, digests: Iterable[Digest]) -> Mapping[Digest, Facts]: ...

    async def verdicts(self) -> Mapping[str, str]:
        """Of all that was looked at, by the digests' text."""
        ...


class Module(NamedTuple):
    """A row, with what is ``here`` of it on this disk. ``fresh``: it is served without a question to its upstream.

    ``facts``: what was found of it, where it was looked at.
    """

    row: Row
    here: Here
    fresh: bool
    pinned: bool
    facts: Facts | None


@dataclass(frozen=True, slots=True)
class Listed:
    """A page. ``next`` is the `Wanted.after` of the one after it, None: there is none. ``total``: rows on all pages."""

    modules: Sequence[Module]
    next: str | None
    total: int


class Inventory:
    """Lists modules. ``policies`` are by their upstreams, ``prefix`` stands before hosted repositories, ``hosted`` is
    None where there are none. ``flush`` writes down what this worker knows of uses. ``findings`` are those of
    manifests. ``now``: seconds since the epoch.
    """

    def __init__(
        self,
        known: Known,
        hosted: Hosts | None,
        prefix: str,
        policies: Mapping[str, Policy],
        contents: Contents,
        pins: Pins,
        findings: Findings,
        flush: Callable[[], Awaitable[None]],
        now: Callable[[], float] = time.time,
    ) -> None:
        self._known = known
        self._hosted = hosted
        self._prefix = prefix
        self._policies = policies
        self._contents = contents
        self._pins = pins
        self._findings = findings
        self._flush = flush
        self._now = now
        self._orders = Orders(known, now)
        self._narrowing = Narrowing(prefix, contents, self._is_pinned, self._verdict, now)

    async def listed(self, wanted: Wanted) -> Listed:
        """A page of what is ``wanted``. Raises `PaginationInvalid`, `StoreError`."""
        place = None if wanted.after is None else place_of(wanted.after, wanted.list)
        await self._flush()
        rows = await self._rows()
        order = None if place is None else await self._orders.kept(place.order)
        if place is not None and order is not None:
            page, further = await asyncio.to_thread(self._narrowing.in_order, rows, order, place, wanted)
            total = len(order)
        else:
            verdicts = {} if wanted.verdict is None else await self._findings.verdicts()
            chosen = await asyncio.to_thread(self._narrowing.chosen, rows, wanted, verdicts)
            begins = 0 if place is None else first_after(chosen, place, wanted)
            page, total = chosen[begins : begins + wanted.limit], len(chosen)
            further = None
            if begins + len(page) < total:
                # References do not change: whoever goes on after one misses none.
                kept = "" if wanted.sort == "reference" else await self._orders.keep([one.reference for one in chosen])
                last = page[-1]
                further = Place(wanted.list, last.key, last.reference, begins + len(page), kept)
        facts = await self._findings.of([one.row.digest for one in page])
        modules = await asyncio.to_thread(self._modules, [await self._typed(one) for one in page], facts)
        return Listed(modules, None if further is None else str(further), total)

    async def manifests(self) -> Sequence[tuple[Digest, str]]:
        """All that rows are about, each once, with its media type, which is empty where no tag tells it. Raises
        `StoreError`.
        """
        return list({row.digest: (row.digest, row.media_type) for row in await self._rows()}.values())

    async def _rows(self) -> list[Row]:
        """All there are, in no order."""
        tagged = [portion async for portion in self._known.all_tagged()]
        hosted = [] if self._hosted is None else [portion async for portion in self._hosted.all_tagged()]
        pinned = list(self._pins.by_digest())
        more = [one.digest for portion in hosted for one in portion] + [str(reference.digest) for reference in pinned]
        used = await self._known.used(list(dict.fromkeys(more)))

        def rows() -> list[Row]:
            found = [_cached(one) for portion in tagged for one in portion if one.upstream in self._policies]
            found += [self._of_hosted(one, used.get(one.digest)) for portion in hosted for one in portion]
            found += [self._of_digest(reference, used.get(str(reference.digest))) for reference in pinned]
            return found

        return await asyncio.to_thread(rows)

    def _of_hosted(self, tagged: records.Tagged, used: Used | None) -> Row:
        repository, tag, digest, media_type, moved_at = tagged
        reference, hits, at = f"{self._prefix}/{repository}:{tag}", used.hits if used else 0, used.at if used else None
        return Row(reference, self._prefix, repository, tag, Digest.parse(digest), media_type, hits, at, moved_at)

    def _of_digest(self, reference: Reference, used: Used | None) -> Row:
        assert reference.digest is not None
        place, hits, at = (
            (reference.upstream, reference.repository),
            used.hits if used else 0,
            used.at if used else None,
        )
        stored_at = self._contents.stored_at(reference.digest)
        return Row(str(reference), *place, None, reference.digest, "", hits, at, stored_at)

    async def _typed(self, one: Chosen) -> Chosen:
        """With the media type of what no tag tells it of."""
        row = one.row
        if row.tag is None:
            link = await self._known.link(row.upstream, row.repository, row.digest)
            if isinstance(link, Link):
                return one._replace(row=row._replace(media_type=link.media_type))
        return one

    def _modules(self, page: Sequence[Chosen], facts: Mapping[Digest, Facts]) -> list[Module]:
        return [
            Module(
                one.row,
                self._contents.here(one.row.digest),
                self._is_fresh(one.row),
                self._is_pinned(one.row),
                self._as_named(one.row, facts.get(one.row.digest)),
            )
            for one in page
        ]

    def _verdict(self, row: Row, verdicts: Mapping[str, str]) -> str | None:
        verdict = verdicts.get(str(row.digest))
        return "refused" if verdict is not None and self._is_pinned_index(row) else verdict

    def _as_named(self, row: Row, facts: Facts | None) -> Facts | None:
        """What was found, of what is named as this row does it."""
        return misnamed(row.digest, facts) if facts is not None and self._is_pinned_index(row) else facts

    def _is_pinned_index(self, row: Row) -> bool:
        """Whether an index is named by its digest, which agents compare with that of its child."""
        if row.tag is not None:
            return False
        naming = self._contents.naming(row.digest)
        return naming is not None and naming.images

    def _is_fresh(self, row: Row) -> bool:
        policy = self._policies.get(row.upstream)
        if policy is None or row.tag is None:
            return True
        return freshness.of(_Dated(row.fetched_at or 0.0), policy, self._now()) is Freshness.FRESH

    def _is_pinned(self, row: Row) -> bool:
        return self._pins.is_pinned(row.upstream, row.repository, row.tag, row.digest)


@dataclass(frozen=True, slots=True)
class _Dated:
    fetched_at: float


def _cached(tagged: Tagged) -> Row:
    upstream, repository, tag, digest, media_type, fetched_at, used = tagged
    hits, at = (0, None) if used is None else used
    reference = f"{upstream}/{repository}:{tag}"
    return Row(reference, upstream, repository, tag, Digest.parse(digest), media_type, hits, at, fetched_at)
