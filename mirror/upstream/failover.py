"""An upstream: its endpoints in their order, mirrors first and the origin last, and persistence until a deadline.

What the origin says counts. A mirror in front of it may lack content, send what is wrong or be down, and the next
endpoint is asked; but a refusal is final wherever it comes from, so that nobody gets round it by an outage elsewhere.
An endpoint that fails, or asks to be left alone, is left alone by all workers (see `mirror.upstream.standing`).
"""

import asyncio
import functools
import random
from collections.abc import Awaitable, Callable, Sequence
from typing import Self, TypeVar

import httpx

from mirror.config import UpstreamSettings
from mirror.digest import Digest
from mirror.errors import (
    BlobUnknown,
    UpstreamCutShort,
    UpstreamError,
    UpstreamInvalid,
    UpstreamTimeout,
    UpstreamUnavailable,
)
from mirror.freshness import Policy
from mirror.globs import Globs
from mirror.metrics import Metrics
from mirror.oci import Manifest
from mirror.store.board import Board
from mirror.upstream.answers import ManifestHead, ReferrersPage, TagPage
from mirror.upstream.backoff import Backoff
from mirror.upstream.blob import BlobStream
from mirror.upstream.endpoints import endpoints_of, lenders_of
from mirror.upstream.lent import Lent
from mirror.upstream.queue import FairQueue
from mirror.upstream.rounds import HeldStream, NobodyAsked, OutOfTime, Question, Rounds
from mirror.upstream.standing import COOL_FOR, EndpointState, NotAsked, Standings, as_metrics
from mirror.upstream.transport import Transport

__all__ = ["COOL_FOR", "ENDS_THERE", "Upstream"]

ENDS_THERE = 3
"""Times after which a body that ends early at the same byte is taken for what upstream has, and not for a bad line."""

_LOOK_EVERY = 0.25
"""Seconds between two looks at whether an endpoint that is left alone may be asked again; a look costs nothing."""

T = TypeVar("T")


class Upstream:
    """A registry that may be pulled from. Wired once; `aclose` ends it.

    Every question raises `UpstreamDenied` (401, 403), `NotFound` (404), `UpstreamInvalid` (what must not be believed),
    `UpstreamUnavailable` or `UpstreamTimeout`. Deadlines are times of the event loop's clock.
    """

    def __init__(
        self,
        name: str,
        rounds: Rounds,
        standings: Standings,
        *,
        policy: Policy,
        allow: Sequence[str],
        transport: Transport | None,
        clock: Callable[[], float],
        sleep: Callable[[float], Awaitable[None]],
        random: Callable[[], float],
        metrics: Metrics,
        lent: Lent | None = None,
    ) -> None:
        """``transport`` is closed with it. ``lent``: what clients' own credentials are good for, where that counts."""
        self.name = name
        self.lent = lent
        self.policy = policy
        self._rounds = rounds
        self._standings = standings
        self._allow = Globs(allow)
        self._transport = transport
        self._clock = clock
        self._sleep = sleep
        self._random = random
        self._metrics = metrics
        self.push = rounds.push
        metrics.alike.append(lambda: as_metrics(name, self.endpoints_state()))

    @classmethod
    def of(
        cls,
        name: str,
        settings: UpstreamSettings,
        *,
        transport: Transport | None = None,
        board: Board | None = None,
        clock: Callable[[], float] | None = None,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
        random: Callable[[], float] = random.random,
        metrics: Metrics | None = None,
        clients_decide: bool = False,
    ) -> Self:
        """The upstream ``name``, as its effective settings have it; ``board`` is what its workers share.

        ``clients_decide``: what a client may do here depends on its own credentials, which are used where the mirror
        has none (``auth.mode: upstream``).
        """
        clock, metrics = clock or _loop_time, metrics or Metrics()
        standings = Standings(name, board or Board(), clock)
        lenders = lenders_of(settings, clock) if clients_decide else None

        def observe(host: str, response: httpx.Response) -> None:
            standings.observe(host, response.headers)

        endpoints = endpoints_of(name, settings, transport=transport, clock=clock, observe=observe, lenders=lenders)
        rounds_of = functools.partial(
            Rounds,
            name,
            standings=standings,
            queue=FairQueue(settings.max_requests),
            longest_rest=settings.policy.hold_for,
            clock=clock,
            metrics=metrics,
        )
        rounds = rounds_of(endpoints=endpoints, hedge_after=settings.hedge_after)
        lent = None
        if clients_decide:
            origin = rounds_of(endpoints=endpoints[-1:], hedge_after=None)
            lent = Lent(name, origin, lenders, policy=settings.policy, clock=clock)
        return cls(
            name,
            rounds,
            standings,
            policy=settings.policy,
            allow=settings.allow,
            transport=transport,
            clock=clock,
            sleep=sleep,
            random=random,
            metrics=metrics,
            lent=lent,
        )

    @property
    def hosts(self) -> tuple[str, ...]:
        """Its endpoints, as a `BlobStream` names them."""
        return tuple(endpoint.host for endpoint in self._rounds.endpoints)

    @property
    def reachable(self) -> bool:
        """Whether a question that may be left out would be sent to any endpoint now, or fail at once."""
        return any(self._standings.against(host, pressing=False, yielding=False) is None for host in self.hosts)

    def endpoints_state(self) -> tuple[EndpointState, ...]:
        """How its endpoints stand, in their order."""
        return tuple(self._standings.state(host) for host in self.hosts)

    def allows(self, repository: str) -> bool:
        """Whether the settings let this repository be pulled."""
        return repository in self._allow

    def cool_down(self, endpoint: str) -> None:
        """Ask an endpoint (its host, as a `BlobStream` names it) after all others for a while: it sent wrong bytes."""
        self._standings.cool_down(endpoint)

    async def head_manifest(
        self, repository: str, target: str, *, deadline: float | None = None, yielding: bool = True
    ) -> ManifestHead:
        """What upstream says of a manifest now: each endpoint is asked once, within `Policy.hold_for` at most.

        A ``yielding`` question is about what is held: it goes behind those about what is not, and is not sent at all
        while little is left of a rate limit.
        """
        limit = self._clock() + self.policy.hold_for
        deadline = limit if deadline is None else min(limit, deadline)
        question = Question(
            "head_manifest",
            repository,
            lambda endpoint: endpoint.head_manifest(repository, target),
            pressing=not yielding,
            yielding=yielding,
            hedged=True,
        )
        return await self._rounds.ask(question, deadline)

    async def get_manifest(self, repository: str, target: str, *, deadline: float) -> Manifest:
        """A verified manifest of 4 MiB at most; of a tag, or of a digest in text; raises `ManifestUnknown`."""
        question = Question(
            "get_manifest", repository, lambda endpoint: endpoint.get_manifest(repository, target), hedged=True
        )
        manifest = await self._persistently(question, deadline)
        self._received(len(manifest.body))
        return manifest

    async def head_blob(self, repository: str, digest: Digest, *, deadline: float) -> int | None:
        """The size of a blob, None when upstream does not tell; raises `BlobUnknown`."""
        self._refuse_when_offline(digest)
        question = Question("head_blob", repository, lambda endpoint: endpoint.head_blob(repository, digest))
        return await self._persistently(question, deadline)

    async def open_blob(self, repository: str, digest: Digest, *, offset: int = 0, deadline: float) -> BlobStream:
        """The bytes of a blob from ``offset`` on, not yet verified; the caller closes it. Raises `BlobUnknown`.

        The deadline is for the first byte: after that an endpoint that sends nothing for 10 s is given up. After a cut,
        the next call asks another endpoint first, where there is one.
        """
        self._refuse_when_offline(digest)
        question = Question(
            "get_blob",
            repository,
            lambda endpoint: endpoint.open_blob(repository, digest, offset),
            hedged=True,
            held=functools.partial(HeldStream, received=self._received),
        )
        return await self._persistently(question, deadline)

    async def list_tags(self, repository: str, *, n: int | None, last: str | None, deadline: float) -> TagPage:
        """A page of tags, of about ``n``, after ``last``; raises `NameUnknown`."""
        question = Question("tags", repository, lambda endpoint: endpoint.list_tags(repository, n, last))
        return await self._persistently(question, deadline)

    async def referrers(
        self, repository: str, digest: Digest, *, artifact_type: str | None, page: str | None, deadline: float
    ) -> ReferrersPage:
        """A page of what refers to ``digest``; ``page`` is the `ReferrersPage.next` of the page before.

        Raises `ManifestUnknown` where upstream has no such API.
        """
        question = Question(
            "referrers", repository, lambda endpoint: endpoint.referrers(repository, digest, artifact_type, page)
        )
        return await self._persistently(question, deadline)

    async def aclose(self) -> None:
        """Close all connections."""
        for endpoint in self._rounds.endpoints:
            await endpoint.aclose()
        if self._transport is not None:
            await self._transport.aclose()

    def _received(self, size: int) -> None:
        self._metrics.upstream_bytes[(self.name,)] += size

    def _refuse_when_offline(self, digest: Digest) -> None:
        if self.policy.offline:
            raise BlobUnknown(f"{digest} is not held, and {self.name} is offline in the mirror's settings")

    async def _persistently(self, question: Question[T], deadline: float) -> T:
        """Ask in rounds, until there is an answer, or one that no retry would change, or no time for another round."""
        backoff = Backoff(self._random)
        told: UpstreamError | None = None
        ends: list[int] = []
        while True:
            try:
                return await self._rounds.ask(question, deadline)
            except (UpstreamUnavailable, UpstreamTimeout) as failure:
                if told is None or not isinstance(failure, NotAsked | OutOfTime):
                    told = failure
                pause = _LOOK_EVERY if isinstance(failure, NobodyAsked) else backoff.pause()
                if not isinstance(failure, NotAsked):
                    ends = [*ends, failure.received] if isinstance(failure, UpstreamCutShort) else []
                if len(ends) >= ENDS_THERE and len(set(ends[-ENDS_THERE:])) == 1:
                    raise UpstreamInvalid(f"{failure}, time and again", detail=failure.detail) from failure
                now = self._clock()
                again_at = max(now + pause, min(self._standings.of(host).rests_until for host in self.hosts))
                if again_at >= deadline:
                    raise told from None
                await self._sleep(again_at - now)


def _loop_time() -> float:
    return asyncio.get_running_loop().time()
