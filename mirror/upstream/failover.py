"""An upstream: its endpoints in their order, mirrors first and the origin last, and persistence until a deadline.

What the origin says counts. A mirror in front of it may lack content, send what is wrong or be down, and the next
endpoint is asked; but a refusal is final wherever it comes from, so that nobody gets round it by an outage elsewhere.
"""

import asyncio
import logging
import random
import re
from collections.abc import Awaitable, Callable, Sequence
from typing import Self, TypeVar

import httpx

from mirror.config import UpstreamSettings
from mirror.digest import Digest
from mirror.errors import (
    DigestMismatch,
    MirrorError,
    NotFound,
    UpstreamCutShort,
    UpstreamDenied,
    UpstreamError,
    UpstreamInvalid,
    UpstreamTimeout,
    UpstreamUnavailable,
)
from mirror.freshness import Policy
from mirror.oci import Manifest
from mirror.upstream.answers import ManifestHead, ReferrersPage, TagPage
from mirror.upstream.backoff import Backoff
from mirror.upstream.blob import BlobStream
from mirror.upstream.client import Endpoint
from mirror.upstream.credentials import source_of
from mirror.upstream.session import Session
from mirror.upstream.transport import Transport

log = logging.getLogger(__name__)

COOL_FOR = 300.0
"""Seconds for which an endpoint that sent wrong bytes is asked only when no other can answer."""

ENDS_THERE = 3
"""Times after which a body that ends early at the same byte is taken for what upstream has, and not for a bad line."""

T = TypeVar("T")
Question = Callable[[Endpoint], Awaitable[T]]


class _OutOfTime(UpstreamTimeout):
    """The deadline cut an attempt short; a failure of an earlier one says more."""


class Upstream:
    """A registry that may be pulled from. Wired once; `aclose` ends it.

    Every question raises `UpstreamDenied` (401, 403), `NotFound` (404), `UpstreamInvalid` (what must not be believed),
    `UpstreamUnavailable` or `UpstreamTimeout`. Deadlines are times of the event loop's clock.
    """

    def __init__(
        self,
        name: str,
        endpoints: Sequence[Endpoint],
        *,
        policy: Policy,
        allow: Sequence[str],
        transport: Transport,
        clock: Callable[[], float] | None = None,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
        random: Callable[[], float] = random.random,
    ) -> None:
        self.name = name
        self.policy = policy
        self._endpoints = tuple(endpoints)
        self._allow = tuple(re.compile(_pattern(glob)) for glob in allow)
        self._transport = transport
        self._clock = clock or _loop_time
        self._sleep = sleep
        self._random = random
        self._cool_until: dict[str, float] = {}

    @classmethod
    def of(
        cls,
        name: str,
        settings: UpstreamSettings,
        *,
        transport: Transport | None = None,
        clock: Callable[[], float] | None = None,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
        random: Callable[[], float] = random.random,
    ) -> Self:
        """The upstream ``name``, as its effective settings have it."""
        transport, clock = transport or Transport(), clock or _loop_time
        last = len(settings.endpoints) - 1
        endpoints = []
        for index, one in enumerate(settings.endpoints):
            setting = f"upstreams.{name}{f'.endpoints[{index}]' if index < last else ''}.credentials"
            session = Session(
                one.url,
                auth_hosts=one.auth_hosts,
                redirect_hosts=one.redirect_hosts,
                logins=source_of(one.credentials, httpx.URL(one.url), setting, clock),
                setting=setting,
                transport=transport,
                clock=clock,
            )
            endpoints.append(Endpoint(session))
        return cls(
            name,
            endpoints,
            policy=settings.policy,
            allow=settings.allow,
            transport=transport,
            clock=clock,
            sleep=sleep,
            random=random,
        )

    @property
    def hosts(self) -> tuple[str, ...]:
        """Its endpoints, as a `BlobStream` names them."""
        return tuple(endpoint.host for endpoint in self._endpoints)

    def allows(self, repository: str) -> bool:
        """Whether the settings let this repository be pulled."""
        return any(pattern.fullmatch(repository) for pattern in self._allow)

    def cool_down(self, endpoint: str) -> None:
        """Ask an endpoint (its host, as a `BlobStream` names it) after all others for a while: it sent wrong bytes."""
        log.warning("%s: %s sent wrong bytes; for %g s it is asked after the others", self.name, endpoint, COOL_FOR)
        self._cool_until[endpoint] = self._clock() + COOL_FOR

    async def head_manifest(self, repository: str, target: str, *, deadline: float | None = None) -> ManifestHead:
        """What upstream says of a manifest now: each endpoint is asked once, within `Policy.hold_for` at most."""
        limit = self._clock() + self.policy.hold_for
        deadline = limit if deadline is None else min(limit, deadline)
        return await self._round(lambda endpoint: endpoint.head_manifest(repository, target), deadline, {}, {})

    async def get_manifest(self, repository: str, target: str, *, deadline: float) -> Manifest:
        """A verified manifest of 4 MiB at most; of a tag, or of a digest in text; raises `ManifestUnknown`."""
        return await self._persistently(lambda endpoint: endpoint.get_manifest(repository, target), deadline)

    async def head_blob(self, repository: str, digest: Digest, *, deadline: float) -> int | None:
        """The size of a blob, None when upstream does not tell; raises `BlobUnknown`."""
        return await self._persistently(lambda endpoint: endpoint.head_blob(repository, digest), deadline)

    async def open_blob(self, repository: str, digest: Digest, *, offset: int = 0, deadline: float) -> BlobStream:
        """The bytes of a blob from ``offset`` on, not yet verified; the caller closes it. Raises `BlobUnknown`.

        The deadline is for the first byte: after that an endpoint that sends nothing for 10 s is given up.
        """
        return await self._persistently(lambda endpoint: endpoint.open_blob(repository, digest, offset), deadline)

    async def list_tags(self, repository: str, *, n: int | None, last: str | None, deadline: float) -> TagPage:
        """A page of tags, of about ``n``, after ``last``; raises `NameUnknown`."""
        return await self._persistently(lambda endpoint: endpoint.list_tags(repository, n, last), deadline)

    async def referrers(
        self, repository: str, digest: Digest, *, artifact_type: str | None, page: str | None, deadline: float
    ) -> ReferrersPage:
        """A page of what refers to ``digest``; ``page`` is the `ReferrersPage.next` of the page before.

        Raises `ManifestUnknown` where upstream has no such API.
        """
        return await self._persistently(
            lambda endpoint: endpoint.referrers(repository, digest, artifact_type, page), deadline
        )

    async def aclose(self) -> None:
        """Close all connections."""
        for endpoint in self._endpoints:
            await endpoint.aclose()
        await self._transport.aclose()

    async def _persistently(self, ask: Question[T], deadline: float) -> T:
        """Ask in rounds, until there is an answer, or one that no retry would change, or no time for another round."""
        backoff = Backoff(self._random)
        failures: dict[Endpoint, MirrorError] = {}
        ready_at: dict[Endpoint, float] = {}
        ends: list[int] = []
        while True:
            try:
                return await self._round(ask, deadline, failures, ready_at)
            except (UpstreamUnavailable, UpstreamTimeout) as failure:
                ends = [*ends, failure.received] if isinstance(failure, UpstreamCutShort) else []
                if len(ends) >= ENDS_THERE and len(set(ends[-ENDS_THERE:])) == 1:
                    raise UpstreamInvalid(f"{failure}, time and again", detail=failure.detail) from failure
                now = self._clock()
                again_at = max(now + backoff.pause(), min(ready_at.get(one, 0.0) for one in self._endpoints))
                if again_at >= deadline:
                    raise
                await self._sleep(again_at - now)

    async def _round(
        self, ask: Question[T], deadline: float, failures: dict[Endpoint, MirrorError], ready_at: dict[Endpoint, float]
    ) -> T:
        """One try at each endpoint; raises the origin's failure when all fail.

        ``failures`` and ``ready_at`` (what ``Retry-After`` asked for) go from one round of an operation to the next.
        """
        now = self._clock()
        order = sorted(self._endpoints, key=lambda one: self._cool_until.get(one.host, 0.0) > now)
        waiting = [one for one in order if ready_at.get(one, 0.0) <= now]
        for index, endpoint in enumerate(waiting):
            try:
                return await self._try(ask, endpoint, deadline, share=len(waiting) - index)
            except UpstreamDenied:
                raise
            except (NotFound, UpstreamError) as failure:
                if not (isinstance(failure, _OutOfTime) and endpoint in failures):
                    failures[endpoint] = failure
                if failure.retry_after is not None:
                    ready_at[endpoint] = self._clock() + failure.retry_after
                if isinstance(failure, DigestMismatch):
                    self.cool_down(endpoint.host)
                log.debug("%s: %s", self.name, failure)
        raise failures[self._endpoints[-1]]

    async def _try(self, ask: Question[T], endpoint: Endpoint, deadline: float, share: int) -> T:
        """Ask an endpoint; ``share`` are to have a part of the time that is left, it among them."""
        seconds = max(0.0, deadline - self._clock()) / share
        try:
            async with asyncio.timeout(seconds):
                return await ask(endpoint)
        except TimeoutError as error:
            raise _OutOfTime(
                f"{endpoint.host} did not answer within {seconds:.3g} s", detail={"endpoint": endpoint.host}
            ) from error


def _loop_time() -> float:
    return asyncio.get_running_loop().time()


_GLOB_PARTS = re.compile(r"(\*\*/|\*\*|\*)")
_GLOB_MEANING = {"**/": "(?:.*/)?", "**": ".*", "*": "[^/]*"}


def _pattern(glob: str) -> str:
    """A glob of repository names as a regular expression: ``*`` stays within a component, ``**`` crosses them."""
    return "".join(_GLOB_MEANING.get(part, re.escape(part)) for part in _GLOB_PARTS.split(glob))
