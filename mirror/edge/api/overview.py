"""``/api/v1/overview``: how this replica stands, in one answer; ``/api/v1/history``: what it did in the last hour."""

from collections.abc import Awaitable, Callable, Sequence
from typing import Literal

from pydantic import Field

from mirror.edge.api.operation import Call, Operation, Told


class Disk(Told):
    """What is on this replica's disk, in bytes. What is counted is some seconds old, and null until it was counted."""

    bytes: int | None = Field(description="Of blobs and manifests.")
    blobs: int | None = Field(description="How many there are, manifests included.")
    limit: int | None = Field(
        description="What the mirror may take: `cache.max_size`, or what it takes and what is free, if that is less."
    )
    free: int | None = Field(description="What its file system has left for the mirror.")
    pinned: int | None = Field(description="Of what is pinned, all that it names included.")
    hosted: int | None = Field(description="Of what was pushed here.")
    problem: str | None = Field(description="What is wrong with it, as a sentence; null: nothing that is known.")


class MetadataStore(Told):
    """Where tags are noted: `redis`, which replicas share, or this replica's own `sqlite`."""

    store: Literal["sqlite", "redis"]
    up: bool = Field(description="Whether it answers; without Redis this replica goes on by itself.")


class Lookups(Told):
    """Manifests and blobs that were looked up since this replica was started, as `wasm_mirror_lookups_total` has it."""

    hit: int = Field(description="Held.")
    stale: int = Field(description="Held, and its upstream failed.")
    collapsed: int = Field(description="Another request was fetching it already.")
    miss: int = Field(description="Upstream was needed.")
    negative: int = Field(description="Upstream had said a moment ago that it does not exist.")


class LastHour(Told):
    """What was asked for within the last hour, or since the start, if that is less."""

    hits: int = Field(description="Lookups that waited for no upstream: hit, stale and negative.")
    lookups: int
    ratio: float | None = Field(description="`hits` of `lookups`, from 0 to 1; null: there were none.")
    sent_bytes: int = Field(description="Bytes of bodies that clients were sent.")
    upstream_bytes: int = Field(description="Bytes of manifests and blobs that came from upstreams.")


class Overview(Told):
    """How this replica stands; numbers are of all its workers. Times are in seconds since the epoch."""

    version: str
    own: str | None = Field(description="Where the other replicas reach this one; null: a mirror that is alone.")
    began_at: float = Field(description="When it was started.")
    now: float
    workers: int
    listen: str = Field(description="By the settings: where it is pulled from.")
    admin_listen: str | None = Field(description="By the settings: the admin API's own address; null: it has none.")
    names: list[str] = Field(description="By the settings: the host names by which clients know it.")
    disk: Disk
    metadata: MetadataStore
    lookups: Lookups
    last_hour: LastHour
    fills: int = Field(description="Blobs that are being downloaded.")
    waiters: int = Field(description="Requests that wait for one of them, or read from it as it comes.")
    draining: bool = Field(description="It is about to stop.")


class Point(Told):
    """What came in one step: lookups by their result, requests for content and those that failed, bytes."""

    at: float = Field(description="When the step ended, in seconds since the epoch.")
    hit: int
    stale: int
    collapsed: int
    miss: int
    negative: int
    requests: int = Field(description="For manifests, blobs and modules.")
    failures: int = Field(description="Those of them that were answered with 5xx, not at all, or not to the end.")
    sent_bytes: int
    upstream_bytes: int


class HistoryTold(Told):
    """The steps of the last hour, the oldest first; none from before the mirror was started."""

    step: float = Field(description="Seconds of a step.")
    points: list[Point] = Field(max_length=120)


def operations(
    overview: Callable[[], Awaitable[Overview]], history: Callable[[], Awaitable[HistoryTold]]
) -> Sequence[Operation]:
    """What can be asked here."""

    async def shown(call: Call) -> Overview:
        return await overview()

    async def told(call: Call) -> HistoryTold:
        return await history()

    return (
        Operation(
            method="GET",
            path="overview",
            summary="Show how this replica stands: its disk, its store, what it looked up, what is on its way",
            answer=Overview,
            handler=shown,
        ),
        Operation(
            method="GET",
            path="history",
            summary="Show what came in each step of the last hour",
            answer=HistoryTold,
            handler=told,
        ),
    )
