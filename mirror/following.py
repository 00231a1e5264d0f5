"""What other replicas have changed of hosted content, read from them and taken into the records here.

Each replica's entries stand in the order in which it learned of them (`mirror.hosted.ledger`), and what is remembered
of it here is how far they were read. So whoever was away catches up, and asking one that has nothing new costs one
small answer.
"""

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlencode

from mirror.digest import Digest
from mirror.errors import MirrorError, NotFound, NotNow, StoreError, UpstreamInvalid, UpstreamTimeout
from mirror.flight import Rounds
from mirror.hosted.catalogue import Catalogue
from mirror.hosted.entries import MAX_BODY, Cursor, Entry, OfManifest, to_entry
from mirror.peers import Peers
from mirror.store.blobs import BlobStore

log = logging.getLogger(__name__)

VERSION = 1
"""Of the documents; one of a later version says nothing to this release."""

PORTION = 1024 * 1024
"""Bytes of entries, about, that one document holds, unless it holds a single large manifest."""

_MAX_DOCUMENT = MAX_BODY * 4 // 3 + 2 * PORTION
_PORTION_WITHIN = 5.0
"""Seconds for one document."""

_READ_ANEW_AFTER = 86400.0
"""Seconds after which a replica's entries are read from the first on: whatever was missed is not missed for longer."""

_WAITED_FOR = 4.0
"""Seconds for which a change waits for a replica that does not say what it knows: one that died is struck off by then
(`mirror.cluster.beat.ALIVE_FOR`).
"""

_LOOK_EVERY = 0.1
_MAX_SAID = 256


class _Other:
    """Another replica. ``of`` names its records, as far as they are known; ``portions`` counts what it has given."""

    def __init__(self, address: str, read: "Callable[[_Other], Awaitable[MirrorError | None]]") -> None:
        self.address = address
        self.rounds: Rounds[MirrorError | None] = Rounds(lambda: read(self))
        self.of = ""
        self.portions = 0
        self.slow = False
        self.roomless = False
        self.complaint = ""


@dataclass(frozen=True, slots=True)
class _Document:
    """What a replica has answered: `document` as it is read."""

    of: str
    entries: Sequence[Mapping[str, Any]]
    next: int
    more: bool


def document(of: str, entries: Sequence[Mapping[str, object]], following: int, more: bool) -> dict[str, object]:
    """The answer to a question for entries: those of the records ``of`` an identity, up to the number ``following``."""
    return {"v": VERSION, "id": of, "entries": entries, "next": following, "more": more}


class Following:
    """Reads what the others have changed. ``now`` gives seconds since the epoch."""

    def __init__(
        self, catalogue: Catalogue, store: BlobStore, peers: Peers, now: Callable[[], float] = time.time
    ) -> None:
        self._catalogue = catalogue
        self._store = store
        self._peers = peers
        self._now = now
        self._others: dict[str, _Other] = {}
        self._said: dict[str, None] = {}

    def hear(self, address: str) -> "asyncio.Task[MirrorError | None]":
        """Know all that the replica at ``address`` knows now, or why not; it is read whoever waits for it."""
        return self._other(address).rounds.join()

    def has_room(self, address: str) -> bool:
        """Whether the replica at ``address`` has hosted content, as far as is known."""
        other = self._others.get(address)
        return other is None or not other.roomless

    async def glance(self, within: float) -> None:
        """Know what the others know, as far as they say it ``within`` seconds. Never raises.

        One that kept silent for so long is asked, but not waited for until it has answered.
        """
        asked = {other.rounds.join(): other for other in map(self._other, self._peers.alive)}
        waited = {task: other.portions for task, other in asked.items() if not other.slow}
        if not waited:
            return
        _, late = await asyncio.wait(waited, timeout=within)
        for task in late:
            if asked[task].portions == waited[task]:
                asked[task].slow = True

    async def everything(self) -> None:
        """Know all that any replica that is there knows. Raises `NotNow`, `StoreError`."""
        time = asyncio.get_running_loop().time
        until = time() + _WAITED_FOR
        known: set[str] = set()
        asked: dict[str, asyncio.Task[MirrorError | None]] = {}
        failure: MirrorError | None = None
        while missing := [address for address in self._peers.alive if address not in known]:
            if time() >= until:
                why = failure.message if failure is not None else f"{missing[0]} does not answer"
                raise NotNow(f"what other replicas have changed is not known here: {why}; try again", retry_after=2)
            for address in missing:
                if address not in asked:
                    asked[address] = self.hear(address)
            done, _ = await asyncio.wait(
                [asked[address] for address in missing], timeout=_LOOK_EVERY, return_when=asyncio.FIRST_COMPLETED
            )
            failed = False
            for address in [one for one in missing if asked[one] in done]:
                outcome = asked.pop(address).result()
                if outcome is None:
                    known.add(address)
                elif isinstance(outcome, StoreError):
                    raise outcome
                else:
                    failure, failed = outcome, True
            if failed:
                await asyncio.sleep(_LOOK_EVERY)

    async def aclose(self) -> None:
        """Stop what is under way."""
        for other in self._others.values():
            await other.rounds.aclose()

    def _other(self, address: str) -> _Other:
        if address not in self._others:
            alive = set(self._peers.alive)
            self._others = {one: other for one, other in self._others.items() if one in alive or other.rounds.busy}
            self._others[address] = _Other(address, self._heard)
        return self._others[address]

    async def _heard(self, other: _Other) -> MirrorError | None:
        """Read from a replica; gives what stood against it, and says it once."""
        try:
            await self._read(other)
        except NotFound:
            if not other.roomless:
                log.info("the replica %s has no hosted content, or is of an earlier release", other.address)
            other.roomless, other.slow = True, False
            return None
        except MirrorError as error:
            if other.complaint != type(error).__name__:
                log.warning("what has changed at the replica %s is not known: %s", other.address, error)
            other.complaint = type(error).__name__
            return error
        except Exception as error:
            log.exception("reading from the replica %s failed", other.address)
            return StoreError(f"what {other.address} tells could not be taken in: {type(error).__name__}")
        other.roomless, other.slow, other.complaint = False, False, ""
        return None

    async def _read(self, other: _Other) -> None:
        """Take in all entries that were not read yet. Raises `UpstreamError`, `NotFound`, `StoreError`."""
        cursor = await self._cursor(other.of)
        backwards = 0
        while True:
            found = await self._document(other, cursor.seq)
            other.portions += 1
            if found.of != other.of or (found.next <= cursor.seq and found.more):
                backwards += 1
                if backwards > 2:
                    raise UpstreamInvalid(f"{other.address} tells of its hosted content in circles")
            if found.of != other.of:
                other.of = found.of
                cursor = await self._cursor(found.of)
                continue
            entries = await asyncio.to_thread(self._taken, found.entries, other.address) if found.entries else []
            if entries or found.next != cursor.seq:
                cursor = Cursor(cursor.of, found.next, cursor.started_at)
                await self._catalogue.merge(entries, cursor)
            if not found.more:
                return

    async def _cursor(self, of: str) -> Cursor:
        """How far the records ``of`` an identity were read. Unknown ones are not asked for anything but their name."""
        known = await self._catalogue.cursor(of) if of else None
        now = self._now()
        if known is None or not 0 <= now - known.started_at < _READ_ANEW_AFTER:
            return Cursor(of, 0, now)
        return known

    async def _document(self, other: _Other, after: int) -> _Document:
        target = f"hosted/entries?{urlencode({'of': other.of, 'after': after})}"
        try:
            async with asyncio.timeout(_PORTION_WITHIN):
                fields = await self._peers.document(other.address, target, _MAX_DOCUMENT)
        except TimeoutError as error:
            raise UpstreamTimeout(f"{other.address} does not answer within {_PORTION_WITHIN:g} s") from error
        match fields:
            case {"v": int(version)} if version > VERSION:
                raise NotFound("it is of a later release, which this one does not understand")
            case {"v": 1, "id": str(of), "entries": list(entries), "next": int(following), "more": bool(more)} if (
                0 < len(of) <= 255 and 0 <= following < 1 << 62 and all(isinstance(one, dict) for one in entries)
            ):
                return _Document(of, entries, following, more)
        raise UpstreamInvalid(f"{other.address} tells of its hosted content in a form that is not valid")

    def _taken(self, told: Sequence[Mapping[str, Any]], address: str) -> list[Entry]:
        """The entries that say something, with the bytes of their manifests durable on this disk. For a thread."""
        entries: list[Entry] = []
        for fields in told:
            try:
                entry = to_entry(fields)
            except MirrorError as error:  # the others must not wait for ever for one that makes no sense
                self._say(f"an entry of the replica {address} is passed over: {error.message}")
                continue
            if entry is not None:
                entries.append(entry)
            if isinstance(entry, OfManifest) and entry.described is not None:
                self._put(entry.digest, entry.described.manifest.body)
        return entries

    def _put(self, digest: Digest, body: bytes) -> None:
        try:
            if not self._store.holds(digest):
                self._store.put(digest, body)
        except OSError as error:
            raise StoreError(f"the disk does not take the manifest {digest}: {error.strerror or error}") from error

    def _say(self, what: str) -> None:
        if what not in self._said:
            self._said[what] = None
            if len(self._said) > _MAX_SAID:
                del self._said[next(iter(self._said))]
            log.error("%s", what)
