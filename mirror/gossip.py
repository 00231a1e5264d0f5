"""What replicas tell one another of pins: each has all records, and of two about one thing the later stands.

Who changes something says so to all others that are there, and they read it. Beside that, each reads all others now and
then: so a replica that was away, or that nobody could tell because Redis was, misses nothing. Pins wait for neither.
"""

import asyncio
import hashlib
import logging
import zlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol
from urllib.parse import urlencode

from mirror.errors import MirrorError, NotFound, NotNow, UpstreamInvalid, UpstreamTimeout
from mirror.flight import Rounds
from mirror.pinned import Book
from mirror.store.pins import Imported, Record, Records, of_record, to_record

log = logging.getLogger(__name__)

ROOM = "pins"
VERSION = 1
"""Of the documents; one of a later version says nothing to this release."""

PORTION = 2_000
"""Records in one document, about."""

_GROUPS = 64
_PRINT = 8
"""Bytes of the fingerprint of a group of records: only the groups that have changed are told."""

_MAX_DOCUMENT = 8 * 1024 * 1024
_READ_EVERY = 10.0
_PORTION_WITHIN = 5.0
_TOLD_WITHIN = 5.0


class Peers(Protocol):
    """The other replicas: `mirror.peers`."""

    @property
    def alive(self) -> Sequence[str]:
        """The addresses of the others that are there."""
        ...

    async def document(self, address: str, target: str, limit: int) -> Mapping[str, Any]:
        """What the replica at ``address`` answers, signed. Raises `UpstreamError`, `NotFound`."""
        ...


class _Other:
    """Another replica. ``have``: the fingerprints of what was read of it; ``read_at`` is by the clock of `Gossip`."""

    def __init__(self, address: str, read: "Callable[[_Other], Any]") -> None:
        self.address = address
        self.have = ""
        self.read_at = float("-inf")
        self.complaint = ""
        self.rounds: Rounds[None] = Rounds(lambda: read(self))


class Gossip:
    """Tells and reads. ``own`` is where the others ask this replica; ``clock`` gives seconds that never go back."""

    def __init__(self, book: Book, peers: Peers, own: str, clock: Callable[[], float]) -> None:
        self._book = book
        self._peers = peers
        self._own = own
        self._clock = clock
        self._others: dict[str, _Other] = {}
        self._groups = _Groups(book.records)
        self._telling: Rounds[None] = Rounds(self._tell_all)

    def changed(self) -> None:
        """Have the others know, without waiting for them."""
        self._telling.join()

    def turn(self) -> None:
        """Begin to read those that were not read for a while. For one worker of this machine."""
        for other in map(self._other, self._peers.alive):
            if self._is_due(other):
                other.rounds.join()

    async def heard_of(self, address: str) -> None:
        """The replica at ``address`` has changed something: it is read before this returns. Raises `NotNow` for an
        address at which no replica is that is there: who asks does not say whom to ask.
        """
        if address not in self._peers.alive:
            raise NotNow("no replica that is there is at this address", retry_after=1)
        await asyncio.shield(self._other(address).rounds.join())

    def document(self, have: str, first: int) -> dict[str, object]:
        """The answer to who has read groups of records with these fingerprints: the others, from the ``first`` group
        on. For a thread.
        """
        if self._groups.records is not self._book.records:
            self._groups = _Groups(self._book.records)
        groups = self._groups
        told: list[Mapping[str, object]] = []
        for number in range(first, _GROUPS):
            if len(told) >= PORTION:
                return _document(groups.known_as, told, number)
            if not groups.is_known(number, have):
                told += map(of_record, groups.all[number])
        return _document(groups.known_as, told, None)

    async def aclose(self) -> None:
        """Stop what is under way."""
        await self._telling.aclose()
        for other in self._others.values():
            await other.rounds.aclose()

    def _is_due(self, other: _Other) -> bool:
        return not other.rounds.busy and self._clock() - other.read_at >= _READ_EVERY

    def _other(self, address: str) -> _Other:
        if address not in self._others:
            alive = set(self._peers.alive)
            self._others = {one: other for one, other in self._others.items() if one in alive or other.rounds.busy}
            self._others[address] = _Other(address, self._read)
        return self._others[address]

    async def _tell_all(self) -> None:
        await asyncio.gather(*map(self._tell, self._peers.alive))

    async def _tell(self, address: str) -> None:
        """A replica that cannot be told reads it in some seconds."""
        try:
            async with asyncio.timeout(_TOLD_WITHIN):
                await self._peers.document(address, f"{ROOM}/sync?{urlencode({'from': self._own})}", _MAX_DOCUMENT)
        except (MirrorError, TimeoutError) as error:
            log.debug("the replica %s was not told of pins: %s", address, error or type(error).__name__)

    async def _read(self, other: _Other) -> None:
        """Merge what a replica has, and say once what stands against it."""
        other.read_at = self._clock()
        try:
            await self._merge(other)
        except NotFound:
            log.debug("the replica %s knows no pins: it is of an earlier release", other.address)
        except MirrorError as error:
            if other.complaint != type(error).__name__:
                log.warning("the pins of the replica %s are not known: %s", other.address, error)
            other.complaint = type(error).__name__
        else:
            other.complaint = ""

    async def _merge(self, other: _Other) -> None:
        """Raises `UpstreamError`, `NotFound`, `StoreError`."""
        have, known_as = other.have, ""
        records: list[Record] = []
        first: int | None = 0
        while first is not None:
            now_as, told, following = await self._portion(other, have, first)
            known_as = known_as or now_as  # as it was at first: what has changed in between is told again
            records += await asyncio.to_thread(_known, told)
            if following is not None and not first < following < _GROUPS:
                raise UpstreamInvalid(f"{other.address} tells of its pins in circles")
            first = following
        if records:
            await self._book.change(lambda _: records)
        other.have = known_as

    async def _portion(
        self, other: _Other, have: str, first: int
    ) -> tuple[str, Sequence[Mapping[str, Any]], int | None]:
        target = f"{ROOM}/records?{urlencode({'have': have, 'first': first})}"
        try:
            async with asyncio.timeout(_PORTION_WITHIN):
                fields = await self._peers.document(other.address, target, _MAX_DOCUMENT)
        except TimeoutError as error:
            raise UpstreamTimeout(f"{other.address} does not answer within {_PORTION_WITHIN:g} s") from error
        match fields:
            case {"v": int(version)} if version > VERSION:
                raise NotFound("it is of a later release, which this one does not understand")
            case {"v": 1, "id": str(known_as), "records": list(told), "next": int() | None as following} if all(
                isinstance(one, dict) for one in told
            ):
                return known_as, told, following
        raise UpstreamInvalid(f"{other.address} tells of its pins in a form that is not valid")


class _Groups:
    """Records in groups, each of which has a fingerprint. Blocks, for many: for a thread."""

    def __init__(self, records: Records) -> None:
        self.records = records
        self.all: list[list[Record]] = [[] for _ in range(_GROUPS)]
        prints = [hashlib.blake2b(digest_size=_PRINT) for _ in range(_GROUPS)]
        for key, record in sorted(records.all.items()):
            number = zlib.crc32(key.encode()) % _GROUPS
            self.all[number].append(record)
            prints[number].update(_text(record).encode())
        self._prints = [one.hexdigest() for one in prints]

    @property
    def known_as(self) -> str:
        """All fingerprints, one behind the other."""
        return "".join(self._prints)

    def is_known(self, number: int, have: str) -> bool:
        """Whether a group's fingerprint is the one in its place in ``have``."""
        return have[2 * _PRINT * number : 2 * _PRINT * (number + 1)] == self._prints[number]


def _text(record: Record) -> str:
    """What tells a record from all others."""
    if isinstance(record, Imported):
        return f"{record.key} {record.at} {record.digest}\n"
    names = " ".join(f"{one.digest.hex} {one.since}" for one in record.names)
    return f"{record.key} {record.at} {record.stands} {names} {record.by}\n"


def _document(known_as: str, records: Sequence[Mapping[str, object]], following: int | None) -> dict[str, object]:
    return {"v": VERSION, "id": known_as, "records": records, "next": following}


def _known(told: Sequence[Mapping[str, Any]]) -> list[Record]:
    """The records that this release understands; one that makes no sense does not keep the others away."""
    records = []
    for fields in told:
        try:
            record = to_record(fields)
        except UpstreamInvalid as error:
            log.error("a pin that another replica tells of is passed over: %s", error)
            continue
        if record is not None:
            records.append(record)
    return records
