"""Pins: what people want to stay on every disk, whoever asks for it and however long nobody does.

A pin on a tag does not freeze the tag: it protects what that names now, and the digest before it, until it is unpinned.
What a pinned manifest names is pinned with it (`mirror.store.eviction`). `mirror.keeping` follows the tags, and has
what is pinned on this disk.
"""

import logging
from collections.abc import Callable, Collection, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from typing import Protocol

from mirror.answer import Answer
from mirror.digest import Digest
from mirror.errors import NameUnknown, NotPinned, TooMany, UpstreamError
from mirror.metadata.base import TagRecord
from mirror.oci import Reference
from mirror.pinned import Book
from mirror.store.pins import Imported, Named, Pin, Record, Records, reference_of, shown_by

log = logging.getLogger(__name__)

MOST = 50_000
"""Pins, and notes of imports, that are kept: all are read, written and told to other replicas together."""


class Manifests(Protocol):
    """Who answers for manifests: `mirror.hosting.Routed`. Raises only `MirrorError`."""

    async def manifest(self, reference: Reference) -> Answer: ...


class Tags(Protocol):
    """What is known of tags: `mirror.tags`."""

    async def get(self, reference: Reference) -> TagRecord | None: ...


@dataclass(frozen=True, slots=True)
class Pinned:
    """A pin. ``digests``: what it protects, what the reference names now first; ``pinned_at``: seconds since the epoch.

    ``problem``: why not all of it is on this disk, as far as that was found out. ``already``: it was pinned before.
    """

    reference: Reference
    digests: tuple[Digest, ...]
    pinned_at: float
    by: str
    problem: str | None = None
    already: bool = False


class Pins:
    """Pins and unpins. ``upstreams`` are the names that a reference may begin with; ``holds`` says whether content lies
    on this disk; ``changed`` is called when the others are to be told. ``now`` gives seconds since the epoch.
    """

    def __init__(
        self,
        book: Book,
        manifests: Manifests,
        tags: Tags,
        upstreams: Collection[str],
        holds: Callable[[Digest], bool],
        changed: Callable[[], None],
        now: Callable[[], float],
    ) -> None:
        self._book = book
        self._manifests = manifests
        self._tags = tags
        self._upstreams = upstreams
        self._holds = holds
        self._changed = changed
        self._now = now

    async def pin(self, reference: Reference, by: str) -> Pinned:
        """Protect what ``reference`` names. While its upstream fails, that is what is held here under this name.

        Raises `NotFound` for what upstream does not have, or may not be pulled from it; `UpstreamError` where it fails
        and nothing is held; `TooMany`, `StoreError`.
        """
        if reference.upstream not in self._upstreams:
            raise NameUnknown(f"no upstream {reference.upstream!r} is configured", detail={"setting": "upstreams"})
        reference_of(str(reference))  # what is too long to be read again is refused
        named = await self._named(reference)
        if self._book.pin(reference) is None and len(self._book.standing()) >= MOST:
            raise TooMany(f"there are {MOST:,} pins, and there cannot be more; unpin what is not needed")
        text, already = str(reference), False

        def decide(records: Records) -> Sequence[Record]:
            nonlocal already
            known = records.pin(text)
            already = known is not None and known.stands
            if known is not None and already:
                return [known.following(named)]
            return [Pin(text, self._moment(known), shown_by(by), names=(named,))]

        if await self._book.change(decide):
            self._changed()
        if not already:
            log.info("%s is pinned: %s", reference, named.digest)
        pin = self._book.pin(reference) or Pin(text, round(self._now() * 1000), by, names=(named,))
        return self._shown(reference, pin, already=already)

    async def unpin(self, reference: Reference, by: str) -> bool:
        """Protect it no more; False where it is not pinned. Raises `StoreError`."""
        text = str(reference)

        def decide(records: Records) -> Sequence[Record]:
            known = records.pin(text)
            if known is None or not known.stands:
                return []
            return [Pin(text, self._moment(known), shown_by(by), stands=False)]

        if not await self._book.change(decide):
            return False
        log.info("%s is pinned no more", reference)
        self._changed()
        return True

    async def note_imported(self, reference: Reference, digest: Digest) -> None:
        """``reference`` came by import, and named this: it stands in however old that is. Raises `StoreError`."""
        text = str(reference)

        def decide(records: Records) -> Sequence[Record]:
            known = records.imported(text)
            if known is not None and known.digest == digest:
                return []
            return [Imported(text, self._moment(known), digest)]

        if await self._book.change(decide):
            self._changed()

    def listed(self) -> Sequence[Pinned]:
        """All pins, in the order of their references."""
        return [self._shown(reference_of(pin.reference), pin) for pin in self._book.standing()]

    def find(self, text: str) -> Reference:
        """The pinned reference with this canonical text, whose upstream may be configured no more. Raises `NotPinned`,
        and `RequestError` for what is no reference.
        """
        reference = reference_of(text.removeprefix("oci://"))
        if self._book.pin(reference) is None:
            raise NotPinned(f"{reference} is not pinned")
        return reference

    def covers(self, reference: Reference) -> bool:
        """Whether a record of it stands in without a limit of age: it is pinned, or was imported."""
        return self._book.covers(reference)

    def is_pinned(self, upstream: str, repository: str, tag: str | None, digest: Digest) -> bool:
        """Whether a manifest is pinned, by a tag, by its digest, or by another reference that names the same."""
        return self._book.is_pinned(upstream, repository, tag, digest)

    async def protected(self) -> AbstractSet[str]:
        """The digests of all pinned manifests, as text. What these name is pinned too. Raises `StoreError`."""
        return await self._book.protected()

    async def _named(self, reference: Reference) -> Named:
        try:
            answer = await self._manifests.manifest(reference)
        except UpstreamError:
            if (held := await self._held(reference)) is None:
                raise
            return held
        return Named(answer.digest, self._now() if answer.fetched_at is None else answer.fetched_at)

    async def _held(self, reference: Reference) -> Named | None:
        """What a reference has named when upstream was last asked, if that lies here."""
        if reference.digest is not None:
            named = Named(reference.digest, self._now())
        elif (record := await self._tags.get(reference)) is not None:
            named = Named(record.digest, record.fetched_at)
        else:
            return None
        return named if self._holds(named.digest) else None

    def _moment(self, known: Record | None) -> int:
        """Of a deed that is later than what is known, even where a clock was ahead."""
        now = round(self._now() * 1000)
        return now if known is None else max(now, known.at + 1)

    def _shown(self, reference: Reference, pin: Pin, *, already: bool = False) -> Pinned:
        digests = tuple(named.digest for named in pin.names)
        return Pinned(reference, digests, pin.at / 1000, pin.by, self._book.problem(pin.reference), already)
