"""The links that a worker knows, in memory in front of the metadata store: which repository holds which digest.

A database that fails costs upstream requests, never a pull: what was learnt stays in memory, and the failure is logged.
"""

import dataclasses
import logging
from collections.abc import Iterable
from typing import Protocol

from mirror.digest import Digest
from mirror.errors import StoreError
from mirror.metadata.base import Dropped, Link, LinkEntry, Metadata
from mirror.store.generation import Generation
from mirror.tags import Lru, Moves, Others

log = logging.getLogger(__name__)


class Elsewhere(Protocol):
    """What the other replicas have in their own databases: `mirror.peers`."""

    async def link(self, upstream: str, repository: str, digest: Digest) -> LinkEntry | None: ...


class Links:
    """Which repository holds which digest, by its manifests' or its upstream's word, and since nobody dropped it here.

    ``lenient``: everyone may read everything, so that a link which may have been lost need not be proved. A link stays
    in memory while no worker and no replica drops one, or moves a tag.
    """

    def __init__(
        self,
        metadata: Metadata,
        generation: Generation,
        others: Others,
        elsewhere: Elsewhere,
        *,
        lenient: bool = True,
    ) -> None:
        self._metadata = metadata
        self._generation = generation
        self._others = others
        self._elsewhere = elsewhere
        self._lenient = lenient
        self._known: Lru[tuple[str, str, Digest], Link] = Lru(50_000)
        self._moves = Moves(generation, others)

    async def lost(self, upstream: str, repository: str, digest: Digest) -> bool:
        """Whether a link that is not there may have been lost: then its absence proves nothing.

        Never where not everyone may read everything, nor of one that was dropped.
        """
        if not (self._lenient and self._metadata.links_incomplete):
            return False
        try:
            return not isinstance(await self._metadata.link(upstream, repository, digest), Dropped)
        except StoreError:
            return True

    async def get(self, upstream: str, repository: str, digest: Digest) -> Link | None:
        """The link, or None: from memory, unless another worker or replica may have dropped it since."""
        self._notice_others()
        link = self._known.get((upstream, repository, digest)) if self._others.in_sight else None
        return link if link is not None else await self._load(upstream, repository, digest)

    async def sized(self, link: Link) -> Link:
        """The link with the size of its blob: where no manifest has said it, that which was verified here."""
        if link.size != -1:
            return link
        try:
            record = await self._metadata.blob(link.digest)
        except StoreError as error:
            log.error("what is known of %s could not be read: %s", link.digest, error)
            return link
        if record is None:
            return link
        found = dataclasses.replace(link, size=record.size)
        await self.correct(found)
        return found

    async def ask_elsewhere(self, upstream: str, repository: str, digest: Digest) -> Link | None:
        """A link that is known here to nobody, out of the databases of other replicas.

        None where it is known here, or told there, that it was dropped since.
        """
        entry = await self._elsewhere.link(upstream, repository, digest)
        if entry is None:
            return None
        try:
            await self._metadata.merge_links([entry])
        except StoreError as error:
            log.error("the link of %s/%s to %s could not be taken over: %s", upstream, repository, digest, error)
            return entry if isinstance(entry, Link) else None
        return await self._load(upstream, repository, digest)

    async def add(self, links: Iterable[Link]) -> None:
        """Take down links that upstream has just vouched for, whatever was dropped before."""
        links = list(links)
        for link in links:
            self._known.put((link.upstream, link.repository, link.digest), link)
        try:
            await self._metadata.put_links(links)
        except StoreError as error:
            log.error("%d links could not be noted: %s", len(links), error)

    async def correct(self, link: Link) -> None:
        """Take down what is known better of a link that stands. One that was dropped meanwhile stays dropped."""
        try:
            await self._metadata.merge_links([link])
        except StoreError as error:
            log.error("what is known of %s could not be noted: %s", link.digest, error)
        self._known.drop((link.upstream, link.repository, link.digest))

    async def drop(self, upstream: str, repository: str, digest: Digest, now: float) -> None:
        """The digest was deleted from the repository at its upstream: from here on no worker and no replica gives it
        out without asking. ``now``: seconds since the epoch.
        """
        try:
            await self._metadata.drop_link(upstream, repository, digest, now)
        except StoreError as error:
            log.error("that %s/%s has no %s any more could not be noted: %s", upstream, repository, digest, error)
        self._known.drop((upstream, repository, digest))
        self._generation.advance()
        await self._others.seen_by_all()

    async def drop_all(self, upstream: str, repository: str, digests: Iterable[Digest], now: float) -> None:
        """They are not held any more, as people want: upstream is asked whether the repository has them. As `drop`,
        but that nobody waits for the others, which the caller does.
        """
        for digest in digests:
            try:
                await self._metadata.drop_link(upstream, repository, digest, now)
            except StoreError as error:
                log.error(
                    "that %s/%s is to be asked about %s could not be noted: %s", upstream, repository, digest, error
                )
            self._known.drop((upstream, repository, digest))
        self._generation.advance()

    async def _load(self, upstream: str, repository: str, digest: Digest) -> Link | None:
        seen = self._moves.now()
        try:
            entry = await self._metadata.link(upstream, repository, digest)
        except StoreError as error:
            log.error("the links of %s/%s could not be read: %s", upstream, repository, error)
            return self._known.get((upstream, repository, digest))
        link = entry if isinstance(entry, Link) else None
        if link is not None and seen == self._moves.now():
            self._notice_others()
            self._known.put((upstream, repository, digest), link)
        return link

    def _notice_others(self) -> None:
        if self._moves.were():
            self._known.clear()
