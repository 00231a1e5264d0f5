"""One round of a question: a try at each endpoint that may be asked now, in order, once the queue has a place."""

import asyncio
import functools
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Generic, TypeVar

from mirror.errors import (
    DigestMismatch,
    MirrorError,
    NotFound,
    UpstreamDenied,
    UpstreamInvalid,
    UpstreamRefused,
    UpstreamTimeout,
    UpstreamUnavailable,
)
from mirror.metrics import Metrics
from mirror.tracing import Kind, begin, inside
from mirror.upstream.blob import BlobStream
from mirror.upstream.client import Endpoint
from mirror.upstream.hedge import first_good
from mirror.upstream.queue import FairQueue, Place
from mirror.upstream.standing import NotAsked, Standings, is_outage

log = logging.getLogger(__name__)

DISLIKED_FOR = 10.0
"""Seconds for which, after an endpoint has cut a blob, blobs are asked for elsewhere first, where that can be."""

_FAIR_TIME = 1.0
"""Seconds that an endpoint must have had for its silence to be held against it: less says more about a deadline."""

_PUSH_WAITS = 30.0
"""Seconds for which a request of a push waits for a place: authors' tools wait longer than agents."""

T = TypeVar("T")


class OutOfTime(UpstreamTimeout):
    """The deadline cut an attempt short; a failure of an earlier one says more."""


class NobodyAsked(NotAsked):
    """All endpoints were left alone in this round; it is the origin's reason that is told."""


@dataclass(frozen=True, slots=True)
class Question(Generic[T]):
    """What an endpoint is asked. ``operation`` is the metrics' word for it.

    A ``pressing`` question is for a client who gets nothing without an answer, a ``yielding`` one may be left out (see
    `Standing.against`). A ``hedged`` one may be put to two endpoints side by side. An answer that is still to come when
    it is there, a blob, is given to ``held``, which keeps the request's place and is told of a cut.
    """

    operation: str
    repository: str
    ask: Callable[[Endpoint], Awaitable[T]]
    pressing: bool = True
    yielding: bool = False
    hedged: bool = False
    held: "Callable[[T, Place, Callable[[MirrorError], None]], T] | None" = None


class Rounds:
    """Asks the endpoints of one upstream, and notes how they do. ``longest_rest`` bounds ``Retry-After``."""

    def __init__(
        self,
        upstream: str,
        endpoints: Sequence[Endpoint],
        standings: Standings,
        queue: FairQueue,
        *,
        hedge_after: float | None,
        longest_rest: float,
        clock: Callable[[], float],
        metrics: Metrics | None = None,
    ) -> None:
        self.endpoints = tuple(endpoints)
        self._upstream = upstream
        self._standings = standings
        self._queue = queue
        self._hedge_after = hedge_after
        self._longest_rest = longest_rest
        self._clock = clock
        self._metrics = metrics or Metrics()
        for endpoint in self.endpoints:
            self._metrics.knows_endpoint(upstream, endpoint.host)
        self._disliked_until: dict[str, float] = {}

    async def ask(self, question: Question[T], deadline: float) -> T:
        """The first good answer; raises the failure of the origin (the last endpoint) when there is none."""
        failures: dict[Endpoint, MirrorError] = {}

        def is_final(failure: MirrorError) -> bool:
            told = isinstance(failure, UpstreamDenied)
            return told and any(one.decides for one, said in failures.items() if said is failure)

        askable = []
        for endpoint in self._ordered(question):
            against = self._standings.against(endpoint.host, pressing=question.pressing, yielding=question.yielding)
            if against is None:
                askable.append(endpoint)
            else:
                failures[endpoint] = against
        turns = [
            functools.partial(self._turn, question, endpoint, deadline, len(askable) - index, failures)
            for index, endpoint in enumerate(askable)
        ]
        if turns:
            try:
                return await first_good(
                    turns,
                    after=self._hedge_after if question.hedged else None,
                    has_room=lambda: self._queue.has_room,
                    is_final=is_final,
                    discard=_discard,
                )
            except MirrorError as failure:
                if is_final(failure):
                    raise
                log.debug("%s: %s", self._upstream, failure)
        origins = failures[self.endpoints[-1]]
        if all(isinstance(one, NotAsked) for one in failures.values()):
            raise NobodyAsked(origins.message, detail=origins.detail, retry_after=origins.retry_after)
        raise origins

    def _ordered(self, question: Question[T]) -> list[Endpoint]:
        """Who sent wrong bytes comes last; of those that cut a blob lately, who did so last."""
        now = self._clock()

        def place(endpoint: Endpoint) -> tuple[bool, float]:
            disliked_until = self._disliked_until.get(endpoint.host, 0.0) if question.held else 0.0
            return self._standings.of(endpoint.host).cool_until > now, disliked_until if disliked_until > now else 0.0

        return sorted(self.endpoints, key=place)

    async def _turn(
        self,
        question: Question[T],
        endpoint: Endpoint,
        deadline: float,
        share: int,
        failures: dict[Endpoint, MirrorError],
    ) -> T:
        """One try at one endpoint; a failure is noted in ``failures``. ``share``: see `_try`."""
        try:
            place = await self._place(question.repository, deadline, first=not question.yielding)
            try:
                asked_at = self._clock()
                about = {"wasm_mirror.upstream": self._upstream, "server.address": endpoint.host}
                with inside(begin(question.operation, Kind.CLIENT, about)):
                    result = await self._try(question, endpoint, deadline, share)
            except BaseException:
                place.leave()
                raise
        except MirrorError as failure:
            failures[endpoint] = failure
            raise
        if question.held is None:
            place.leave()
            return result
        return question.held(result, place, functools.partial(self._cut, question, endpoint.host, asked_at))

    @asynccontextmanager
    async def push(self, host: str, repository: str) -> AsyncIterator[None]:
        """A place for a request of a push, which is counted by what is raised within; others may be waited for."""
        place, told = await self._place(repository, self._clock() + _PUSH_WAITS), "abandoned"
        try:
            yield
            told = "success"
        except MirrorError as failure:
            told = _result(failure)
            raise
        finally:
            place.leave()
            self._metrics.upstream_requests[self._upstream, host, "push", told] += 1

    async def _place(self, repository: str, deadline: float, *, first: bool = True) -> Place:
        try:
            async with asyncio.timeout(max(0.0, deadline - self._clock())):
                return await self._queue.enter(repository, first=first)
        except TimeoutError as error:
            raise UpstreamTimeout(
                f"{self._queue.limit} requests are under way at {self._upstream}, as many as "
                f"upstreams.{self._upstream}.max_requests allows, and none of them has ended in time",
                detail={"max_requests": self._queue.limit},
            ) from error

    async def _try(self, question: Question[T], endpoint: Endpoint, deadline: float, share: int) -> T:
        """Ask an endpoint; ``share`` are to have a part of the time that is left, it among them."""
        host = endpoint.host
        against = self._standings.claim(host, pressing=question.pressing, yielding=question.yielding)
        if against is not None:
            raise against
        asked_at = self._clock()
        seconds = max(0.0, deadline - asked_at) / share
        told = "abandoned"
        try:
            async with asyncio.timeout(seconds):
                result = await question.ask(endpoint)
            told = "success"
        except TimeoutError as error:
            told = "timeout"
            failure = OutOfTime(f"{host} did not answer within {seconds:.3g} s", detail={"endpoint": host})
            if seconds < _FAIR_TIME:
                self._standings.abandoned(host, asked_at)
            else:
                self._standings.failed(host, failure, asked_at)
            raise failure from error
        except MirrorError as failure:
            told = _result(failure)
            self._heard(host, failure, asked_at)
            raise
        except BaseException:
            self._standings.abandoned(host, asked_at)
            raise
        finally:
            self._count(question, host, told)
            if told != "abandoned":
                self._metrics.upstream_seconds.add((self._upstream,), self._clock() - asked_at)
        self._standings.answered(host)
        return result

    def _heard(self, host: str, failure: MirrorError, asked_at: float) -> None:
        """Note what a failure says of the endpoint."""
        if is_outage(failure):
            self._standings.failed(host, failure, asked_at)
        else:
            self._standings.answered(host)
        if failure.retry_after is not None:
            self._standings.rest(host, min(failure.retry_after, self._longest_rest), failure)
        if isinstance(failure, DigestMismatch):
            self._standings.cool_down(host)

    def _cut(self, question: Question[T], host: str, asked_at: float, failure: MirrorError) -> None:
        """The endpoint did not send a blob to its end."""
        self._count(question, host, "cut")
        self._standings.failed(host, failure, asked_at)
        self._disliked_until[host] = self._clock() + DISLIKED_FOR

    def _count(self, question: Question[T], host: str, result: str) -> None:
        self._metrics.upstream_requests[self._upstream, host, question.operation, result] += 1


class HeldStream(BlobStream):
    """A stream that keeps its place in the queue until it is closed; tells how much is received, and of a cut."""

    def __init__(
        self,
        stream: BlobStream,
        place: Place,
        cut: Callable[[MirrorError], None],
        received: Callable[[int], None],
    ) -> None:
        self.offset = stream.offset
        self.size = stream.size
        self.endpoint = stream.endpoint
        self._stream = stream
        self._place = place
        self._cut = cut
        self._received = received

    async def __aiter__(self) -> AsyncIterator[bytes]:
        try:
            async for chunk in self._stream:
                self._received(len(chunk))
                yield chunk
        except (UpstreamUnavailable, UpstreamTimeout) as failure:
            self._cut(failure)
            raise

    async def aclose(self) -> None:
        """Stop reading, and let the next request go."""
        try:
            await self._stream.aclose()
        finally:
            self._place.leave()


def _result(failure: MirrorError) -> str:
    """The metrics' word for a failure."""
    match failure:
        case UpstreamDenied():
            return "denied"
        case UpstreamRefused():
            return "refused"
        case NotFound():
            return "not_found"
        case UpstreamInvalid():
            return "invalid"
        case UpstreamTimeout():
            return "timeout"
        case _:
            return "unavailable"


async def _discard(result: object) -> None:
    """An answer that came second."""
    if isinstance(result, BlobStream):
        await result.aclose()
