"""Who asked for which manifest lately: noted in memory for each request, written in batches for all workers to tell.

Clients alone count: what the mirror asks itself for, and what other replicas ask it, comes by other ways. What a client
says of itself is bounded, and so is how much is kept: the last askers of each of the last manifests.
"""

import asyncio
import logging
from collections.abc import Callable, Mapping, Sequence
from typing import Final, Protocol

from mirror.digest import Digest
from mirror.errors import StoreError
from mirror.metadata.seen import MOST_OF_ONE, Asker

log = logging.getLogger(__name__)

_WRITE_EVERY = 10.0
"""Seconds between two batches; what a crash can lose, and what other workers do not know yet."""

_SORTED_AT_ONCE = 500
"""Requests that are heard before they are sorted: a millisecond."""

_MOST_MANIFESTS = 2_000
"""Manifests of which it is known who asked, between two batches."""

_KEPT_FOR = 7 * 86400.0
"""Seconds after which who has not asked again is forgotten."""

LONGEST_AGENT: Final = 128
"""Signs of a User-Agent that are kept."""

_LONGEST_RAW = 4 * LONGEST_AGENT
"""Bytes of it that are looked at."""

Headers = Sequence[tuple[bytes, bytes]]
"""As ASGI has them."""

_Who = tuple[str, bytes, str]
"""The address of a client, its User-Agent as it came, and the user that it was; empty: it said none."""

_When = list[float]
"""How often, when first, and when last."""


class Known(Protocol):
    """Where it is noted: `mirror.metadata.sqlite`. Methods may raise `StoreError`."""

    async def put_askers(self, asked: Mapping[Digest, Sequence[Asker]], before: float) -> None: ...

    async def askers(self, digest: Digest) -> Sequence[Asker]: ...


class Askers:
    """Notes who asks. ``now`` gives seconds since the epoch."""

    def __init__(self, known: Known, now: Callable[[], float]) -> None:
        self._known = known
        self._now = now
        self._heard: list[tuple[Digest, str, Headers, str, float]] = []
        self._noted: dict[str, tuple[Digest, dict[_Who, _When]]] = {}  # by hex digits, which are looked up faster

    def asked(self, digest: Digest, client: str, headers: Headers, user: str, at: float) -> None:
        """A client was given a manifest, at this moment (seconds since the epoch). ``user``: empty for nobody."""
        self._heard.append((digest, client, headers, user, at))
        if len(self._heard) >= _SORTED_AT_ONCE:
            self._sort()

    async def of(self, digest: Digest) -> Sequence[Asker]:
        """Who asked for a manifest, the latest first. Raises `StoreError`."""
        await self.flush()
        return await self._known.askers(digest)

    async def run(self) -> None:
        """Write batches until cancelled."""
        while True:
            await asyncio.sleep(_WRITE_EVERY)
            await self.flush()

    async def flush(self) -> None:
        """Write down who asked; when the database fails, it is tried again with the next batch."""
        self._sort()
        noted, self._noted = self._noted, {}
        if noted:
            asked = {digest: [_asker(*one) for one in askers.items()] for digest, askers in noted.values()}
            try:
                await self._known.put_askers(asked, self._now() - _KEPT_FOR)
            except StoreError as error:
                log.info("who asked for %d manifests could not be noted: %s", len(noted), error)
                for digest, askers in noted.values():
                    for who, when in askers.items():
                        self._add(digest, who, when)

    def _sort(self) -> None:
        heard, self._heard = self._heard, []
        for digest, client, headers, user, at in heard:
            agent = b""
            for name, value in headers:
                if name == b"user-agent":
                    agent = value[:_LONGEST_RAW]
                    break
            self._add(digest, (client, agent, user), [1, at, at])

    def _add(self, digest: Digest, who: _Who, when: _When) -> None:
        noted = self._noted.get(digest.hex)
        if noted is None:
            noted = self._noted[digest.hex] = digest, {}
            if len(self._noted) > _MOST_MANIFESTS:
                del self._noted[next(iter(self._noted))]
        askers = noted[1]
        before = askers.pop(who, None)
        if before is not None:
            when = [before[0] + when[0], min(before[1], when[1]), max(before[2], when[2])]
        askers[who] = when
        if len(askers) > MOST_OF_ONE:
            del askers[next(iter(askers))]  # who was heard of the longest ago


def _asker(who: _Who, when: _When) -> Asker:
    client, agent, user = who
    times, first_at, last_at = when
    return Asker(client, agent_of(agent), user, int(times), first_at, last_at)


def agent_of(raw: bytes) -> str:
    """A User-Agent, which is a stranger's words, without what would not be seen, and not too long."""
    text = raw[:_LONGEST_RAW].decode("latin-1")
    return "".join(sign for sign in text if sign.isprintable()).strip()[:LONGEST_AGENT]
