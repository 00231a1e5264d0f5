"""``/api/v1/overview``: how this replica stands, in one answer; ``/api/v1/history``: what it did in the last hour."""

import time
from collections.abc import Callable, Sequence
from typing import Literal

from pydantic import Field

from mirror import __version__
from mirror.config import Settings
from mirror.edge.api.operation import Call, Operation, Told
from mirror.exposition import Exposition
from mirror.history import History
from mirror.metrics import EVICTION_SHORT, FILL_WAITERS, FILLS_IN_FLIGHT, Declared, Snapshot
from mirror.steps import MOST, STEP, Counts, Step, counts_of
from mirror.stock import Stock, Stocktaking


class Disk(Told):
    """What is on this replica's disk, in bytes. What is counted is some seconds old, and null until it was counted."""

    bytes: int | None = Field(description="Of blobs and manifests.")
    blobs: int | None = Field(description="How many there are, manifests included.")
    limit: int | None = Field(
        description="What the mirror may take: `cache.max_size`, or what it takes and what is free, if that is less."
    )
    free: int | None = Field(description="What its file system has left for the mirror.")
    pinned: int | None = Field(description="Of what is pinned, with all that it names, and is not hosted.")
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
    points: list[Point] = Field(max_length=MOST)


def operations(
    settings: Settings,
    exposition: Exposition,
    stock: Stocktaking,
    history: History,
    draining: Callable[[], bool],
    now: Callable[[], float] = time.time,
) -> Sequence[Operation]:
    """What can be asked here. ``draining``: whether the mirror is about to stop; ``now``: seconds since the epoch."""

    async def shown(call: Call) -> Overview:
        store: Literal["sqlite", "redis"] = "redis" if settings.metadata.shared else "sqlite"
        numbers = await exposition.numbers()
        short = {reason: size for (reason,), (size,) in numbers.get(EVICTION_SHORT.name, {}).items()}
        disk, past = await stock.now(short), await history.past()
        return Overview(
            version=__version__,
            own=settings.cluster.advertise,
            began_at=past.began_at,
            now=now(),
            workers=settings.workers,
            listen=settings.listen,
            admin_listen=settings.admin.listen,
            names=list(settings.names),
            disk=_disk(disk, settings.cache.max_size),
            metadata=MetadataStore(store=store, up=await exposition.up(store)),
            lookups=_lookups(counts_of(numbers)),
            last_hour=_last_hour(await history.last_hour()),
            fills=_gauge(numbers, FILLS_IN_FLIGHT),
            waiters=_gauge(numbers, FILL_WAITERS),
            draining=draining(),
        )

    async def told(call: Call) -> HistoryTold:
        return HistoryTold(step=STEP, points=[point_of(step) for step in (await history.past()).steps])

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


def point_of(step: Step) -> Point:
    """A step as it is told."""
    return Point(at=step.at, **step.counts._asdict())


def _disk(stock: Stock, max_size: int) -> Disk:
    usage, kept = stock.usage, stock.kept
    return Disk(
        bytes=None if usage is None else usage.size,
        blobs=None if usage is None else usage.blobs,
        limit=None if usage is None else usage.limit(max_size),
        free=None if usage is None else usage.free,
        pinned=None if kept is None else kept.pinned,
        hosted=None if kept is None else kept.hosted,
        problem=stock.problem,
    )


def _lookups(counts: Counts) -> Lookups:
    return Lookups(
        hit=counts.hit, stale=counts.stale, collapsed=counts.collapsed, miss=counts.miss, negative=counts.negative
    )


def _last_hour(counts: Counts) -> LastHour:
    hits = counts.hit + counts.stale + counts.negative
    lookups = hits + counts.collapsed + counts.miss
    return LastHour(
        hits=hits,
        lookups=lookups,
        ratio=hits / lookups if lookups else None,
        sent_bytes=counts.sent_bytes,
        upstream_bytes=counts.upstream_bytes,
    )


def _gauge(numbers: Snapshot, of: Declared) -> int:
    return int(sum(number for (number,) in numbers.get(of.name, {}).values()))
