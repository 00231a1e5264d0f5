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
from mirror.tags import Lru

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

Who = tuple[str, str, str]
"""The address of a client, its User-Agent, and the user that it was; empty: it said none."""


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
        self._noted: dict[Digest, dict[Who, Asker]] = {}
        self._agents: Lru[bytes, str] = Lru(1_000)

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
            asked = {digest: list(askers.values()) for digest, askers in noted.items()}
            try:
                await self._known.put_askers(asked, self._now() - _KEPT_FOR)
            except StoreError as error:
                log.info("who asked for %d manifests could not be noted: %s", len(noted), error)
                for digest, askers in asked.items():
                    for asker in askers:
                        self._add(digest, asker)

    def _sort(self) -> None:
        heard, self._heard = self._heard, []
        for digest, client, headers, user, at in heard:
            self._add(digest, Asker(client, self._agent(headers), user, 1, at, at))

    def _add(self, digest: Digest, asker: Asker) -> None:
        askers = self._noted.setdefault(digest, {})
        who = asker[:3]
        before = askers.pop(who, asker)
        times = asker.times if before is asker else before.times + asker.times
        first_at, last_at = min(before.first_at, asker.first_at), max(before.last_at, asker.last_at)
        askers[who] = Asker(*who, times, first_at, last_at)
        if len(askers) > MOST_OF_ONE:
            del askers[next(iter(askers))]  # who was heard of the longest ago
        if len(self._noted) > _MOST_MANIFESTS:
            del self._noted[next(iter(self._noted))]

    def _agent(self, headers: Headers) -> str:
        raw = next((value for name, value in headers if name == b"user-agent"), b"")[:_LONGEST_RAW]
        agent = self._agents.get(raw)
        if agent is None:
            agent = agent_of(raw)
            self._agents.put(raw, agent)
        return agent


def agent_of(raw: bytes) -> str:
    """A User-Agent, which is a stranger's words, without what would not be seen, and not too long."""
    text = raw[:_LONGEST_RAW].decode("latin-1")
    return "".join(sign for sign in text if sign.isprintable()).strip()[:LONGEST_AGENT]
