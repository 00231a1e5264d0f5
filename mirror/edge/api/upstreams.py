"""``/api/v1/upstreams``: how the registries behind the mirror stand."""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Literal

from pydantic import Field

from mirror.config import UpstreamSettings
from mirror.edge.api.operation import Call, Operation, Told
from mirror.exposition import Exposition
from mirror.metrics import FAILED_QUESTIONS, UPSTREAM_BYTES, UPSTREAM_DURATION, UPSTREAM_REQUESTS, Snapshot
from mirror.upstream.breaker import State
from mirror.upstream.failover import Upstream
from mirror.upstream.standing import EndpointState

_ABANDONED = "abandoned"


class Endpoint(Told):
    """An address of an upstream, as all workers of this replica see it."""

    host: str
    healthy: bool = Field(description="It is asked: it is not left alone for failing, nor because it asked for that.")
    breaker: Literal["closed", "open", "half-open"] = Field(
        description="`open`: it failed time and again and is left alone; `half-open`: one request at a time tries it."
    )
    opens_for: float = Field(description="Seconds for which it is left alone for that.")
    rests_for: float = Field(description="Seconds for which it is left alone because it asked for that.")
    cools_for: float = Field(description="Seconds for which it is asked after the others, for it sent wrong bytes.")
    rate_limit: float | None = Field(description="The part of its rate limit that is left, from 0 to 1, if it says so.")
    last_error: str | None = Field(description="What failed there last, however long ago; null: nothing has.")
    last_error_at: float | None = Field(description="When that was, in seconds since the epoch; null: not known.")
    requests: int = Field(description="Questions that were put to it, those left out that nobody needed any more.")
    failures: int = Field(description="Those of them that failed; that something is not there is no failure.")


class OneUpstream(Told):
    """A registry that may be pulled from; numbers are those of this replica's workers since it was started."""

    name: str
    offline: bool = Field(description="By the settings: it is never asked.")
    push: Literal["deny", "through"] = Field(description="By the settings: whether pushes go through to it.")
    allow: list[str] = Field(description="By the settings: the repositories that may be pulled, as patterns.")
    reachable: bool = Field(description="There is an endpoint that would be asked now.")
    requests: int
    failures: int
    mean_seconds: float | None = Field(description="From a question to its answer; null while there was none.")
    bytes: int = Field(description="Bytes of manifests and blobs that came from there.")
    endpoints: list[Endpoint] = Field(description="In the order in which they are asked; the last is the origin.")


class Upstreams(Told):
    """All upstreams, in the order of the settings."""

    upstreams: list[OneUpstream]


def operations(
    upstreams: Mapping[str, Upstream], settings: Mapping[str, UpstreamSettings], exposition: Exposition
) -> Sequence[Operation]:
    """What can be asked here. ``settings`` are those of the upstreams."""

    async def listed(call: Call) -> Upstreams:
        numbers = await exposition.counted()
        return Upstreams(upstreams=[_told(name, one, settings[name], numbers) for name, one in upstreams.items()])

    return (
        Operation(
            method="GET",
            path="upstreams",
            summary="List the upstreams: their endpoints, whether they are asked, how long they take, what failed",
            answer=Upstreams,
            handler=listed,
        ),
    )


def _told(name: str, upstream: Upstream, settings: UpstreamSettings, numbers: Snapshot) -> OneUpstream:
    asked: Counter[str] = Counter()
    failed: Counter[str] = Counter()
    for (of, endpoint, _, result), (number,) in numbers.get(UPSTREAM_REQUESTS.name, {}).items():
        if of == name and result != _ABANDONED:
            asked[endpoint] += int(number)
            failed[endpoint] += int(number) if result in FAILED_QUESTIONS else 0
    *buckets, seconds = numbers.get(UPSTREAM_DURATION.name, {}).get((name,), (0.0,))
    (size,) = numbers.get(UPSTREAM_BYTES.name, {}).get((name,), (0.0,))
    return OneUpstream(
        name=name,
        offline=settings.offline,
        push=settings.push,
        allow=list(settings.allow),
        reachable=not settings.offline and upstream.reachable,
        requests=asked.total(),
        failures=failed.total(),
        mean_seconds=seconds / sum(buckets) if sum(buckets) else None,
        bytes=int(size),
        endpoints=[_endpoint(one, asked[one.host], failed[one.host]) for one in upstream.endpoints_state()],
    )


def _endpoint(state: EndpointState, requests: int, failures: int) -> Endpoint:
    return Endpoint(
        host=state.host,
        healthy=state.breaker is State.CLOSED and not state.rests_for,
        breaker=state.breaker.value,
        opens_for=state.opens_for,
        rests_for=state.rests_for,
        cools_for=state.cools_for,
        rate_limit=state.rate_limit,
        last_error=state.last_error or None,
        last_error_at=state.last_error_at,
        requests=requests,
        failures=failures,
    )
