"""The tags and links that this worker knows, in memory in front of the metadata store.

A database that fails costs upstream requests, never a pull: what was learnt stays in memory, and the failure is logged.
"""

import logging
from collections import OrderedDict
from collections.abc import Hashable, Iterable
from typing import Generic, TypeVar

from mirror.digest import Digest
from mirror.errors import StoreError
from mirror.metadata.base import Link, Metadata, TagRecord
from mirror.oci import Reference
from mirror.store.generation import Generation

log = logging.getLogger(__name__)

K = TypeVar("K", bound=Hashable)
V = TypeVar("V")


class Lru(Generic[K, V]):
    """A bounded map that forgets what was not asked for the longest."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._items: OrderedDict[K, V] = OrderedDict()

    def get(self, key: K) -> V | None:
        """The value, now the most recently used one."""
        value = self._items.get(key)
        if value is not None:
            self._items.move_to_end(key)
        return value

    def put(self, key: K, value: V) -> None:
        """Set a value, letting go of the oldest when there are too many."""
        self._items[key] = value
        self._items.move_to_end(key)
        if len(self._items) > self._limit:
            self._items.popitem(last=False)

    def drop(self, key: K) -> None:
        """Forget one."""
        self._items.pop(key, None)

    def clear(self) -> None:
        """Forget all."""
        self._items.clear()


class Tags:
    """Which digest each tag named when upstream was last asked, and which references upstream does not have."""

    def __init__(self, metadata: Metadata, generation: Generation) -> None:
        self._metadata = metadata
        self._generation = generation
        self._seen = generation.current()
        self._records: Lru[tuple[str, str, str], TagRecord] = Lru(10_000)
        self._absent: Lru[tuple[str, str, str], float] = Lru(10_000)

    async def get(self, reference: Reference) -> TagRecord | None:
        """The record of a tag: from memory, unless another worker has moved a tag since."""
        self._notice_others()
        record = self._records.get(_key(reference))
        return record if record is not None else await self.load(reference)

    async def load(self, reference: Reference) -> TagRecord | None:
        """The record of a tag as all workers share it."""
        seen = self._generation.current()
        try:
            record = await self._metadata.tag(*_key(reference))
        except StoreError as error:
            log.error("the record of %s could not be read: %s", reference, error)
            return self._records.get(_key(reference))
        if record is not None and seen == self._generation.current():
            self._notice_others()
            self._records.put(_key(reference), record)
        return record

    async def learn(self, record: TagRecord) -> None:
        """Take down what upstream said; the other workers see a tag that moved at once."""
        key = (record.upstream, record.repository, record.tag)
        before = self._records.get(key)
        try:
            await self._metadata.put_tag(record)
        except StoreError as error:
            log.error("the tag %s/%s:%s could not be noted: %s", *key, error)
        if before is None or before.digest != record.digest:
            self._generation.advance()
            self._notice_others()
        self._records.put(key, record)
        self._absent.drop(key)

    async def forget(self, reference: Reference) -> None:
        """Upstream has deleted the tag."""
        try:
            await self._metadata.delete_tag(*_key(reference))
        except StoreError as error:
            log.error("the tag %s could not be forgotten: %s", reference, error)
        self._generation.advance()
        self._notice_others()

    async def absent(self, reference: Reference, now: float) -> bool:
        """Whether upstream has said lately that it does not have ``reference``."""
        until = self._absent.get(_key(reference))
        if until is None:
            try:
                until = await self._metadata.negative(*_key(reference), now)
            except StoreError as error:
                log.error("what is known of %s could not be read: %s", reference, error)
        return until is not None and now < until

    async def note_absence(self, reference: Reference, until: float) -> None:
        """Upstream says that it does not have ``reference``; believe it until then."""
        self._absent.put(_key(reference), until)
        try:
            await self._metadata.put_negative(*_key(reference), until)
        except StoreError as error:
            log.error("the absence of %s could not be noted: %s", reference, error)

    def _notice_others(self) -> None:
        current = self._generation.current()
        if current != self._seen:
            self._seen = current
            self._records.clear()


class Links:
    """Which repository holds which digest."""

    def __init__(self, metadata: Metadata) -> None:
        self._metadata = metadata
        self._known: Lru[tuple[str, str, Digest], Link] = Lru(50_000)

    @property
    def incomplete(self) -> bool:
        """Whether links were lost, so that a missing one proves nothing."""
        return self._metadata.links_incomplete

    async def get(self, upstream: str, repository: str, digest: Digest) -> Link | None:
        """The link, or None."""
        link = self._known.get((upstream, repository, digest))
        if link is None:
            try:
                link = await self._metadata.link(upstream, repository, digest)
            except StoreError as error:
                log.error("the links of %s/%s could not be read: %s", upstream, repository, error)
            if link is not None:
                self._known.put((upstream, repository, digest), link)
        return link

    async def add(self, links: Iterable[Link]) -> None:
        """Take down links."""
        links = list(links)
        for link in links:
            self._known.put((link.upstream, link.repository, link.digest), link)
        try:
            await self._metadata.put_links(links)
        except StoreError as error:
            log.error("%d links could not be noted: %s", len(links), error)


def _key(reference: Reference) -> tuple[str, str, str]:
    return reference.upstream, reference.repository, reference.target
