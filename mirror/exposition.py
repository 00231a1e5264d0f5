"""What ``/metrics`` tells: the numbers of all workers added up, and what is measured when somebody asks.

Source: Prometheus, "Exposition formats", the text format 0.0.4.
"""

import asyncio
import contextlib
import itertools
import logging
from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

from prometheus_client import generate_latest
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4
from prometheus_client.metrics_core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.registry import Collector

from mirror import __version__
from mirror.errors import StoreError
from mirror.metrics import (
    BUCKETS,
    BUILD_INFO,
    CACHE_BLOBS,
    CACHE_BYTES,
    CACHE_LIMIT,
    DECLARED,
    METADATA_UP,
    PREFIX,
    Declared,
    Kind,
    Metrics,
    Snapshot,
    total,
)
from mirror.store.census import Census
from mirror.store.tallies import Tally
from mirror.writer import to_the_end

log = logging.getLogger(__name__)

CONTENT_TYPE = CONTENT_TYPE_PLAIN_0_0_4

_WRITE_EVERY = 1.0
"""Seconds between two looks at whether other workers must be told new numbers: what is lost of one that is killed."""

_COUNT_EVERY = 15.0
"""Seconds between two counts of what the disk holds."""

_ANSWER_WITHIN = 2.0
"""Seconds for what must be measured; Prometheus gives 10 s for all."""

_ALONE = "0"

Rows = Mapping[tuple[str, ...], tuple[float, ...]]


class Exposition:
    """Tells the metrics of this mirror, whichever of its workers is asked. Wired once; `aclose` ends it.

    ``stores`` say by name whether they answer. ``tally`` is this worker's slot, None for a mirror of one worker.
    ``max_size``: bytes that the mirror may take on its disk.
    """

    def __init__(
        self,
        metrics: Metrics,
        census: Census,
        stores: Mapping[str, Callable[[], Awaitable[bool]]],
        tally: Tally | None = None,
        *,
        max_size: int,
    ) -> None:
        self._metrics = metrics
        self._stores = stores
        self._tally = tally
        self._inherited = _read(tally.inherited, alive=False) if tally is not None else {}
        self._writing = asyncio.Lock()
        self._held = _Held(census, max_size)

    async def text(self) -> bytes:
        """All metrics, in the format of `CONTENT_TYPE`."""
        counted = await self._written()
        measured = [self._metrics.measured(), *(seen() for seen in self._metrics.alike)]
        told = await asyncio.gather(self._held.snapshot(), self._ups())
        return await asyncio.to_thread(self._rendered, [counted, *measured, *told, _BUILD])

    async def counted(self) -> Snapshot:
        """What all workers have counted by now, the counters and histograms alone."""
        own = await self._written()
        return await asyncio.to_thread(lambda: total([own, *self._of_others(measured=False).values()]))

    async def by_worker(self) -> Mapping[str, Snapshot]:
        """The same for each worker, by a name that whoever is started in its place has too."""
        own = await self._written()
        name = _ALONE if self._tally is None else self._tally.name
        return await asyncio.to_thread(lambda: {**self._of_others(measured=False), name: own})

    async def numbers(self) -> Snapshot:
        """What all workers have counted by now, and what they measure."""
        own = [await self._written(), self._metrics.measured()]
        return await asyncio.to_thread(lambda: total([*own, *self._of_others(measured=True).values()]))

    async def up(self, store: str) -> bool:
        """Whether one of the stores answers now."""
        return await _answers(self._stores[store])

    async def run(self) -> None:
        """Tell the other workers what this one counts, until cancelled."""
        while True:
            await asyncio.sleep(_WRITE_EVERY)
            await self._written()

    async def aclose(self) -> None:
        """Tell them for the last time."""
        await self._written(last=True)
        await self._held.aclose()
        if self._tally is not None:
            self._tally.close()

    async def _written(self, *, last: bool = False) -> Snapshot:
        """The counters of this worker, its predecessors' included.

        They are written before they are told: else this worker could die and be outlived by a number that goes down.
        """
        async with self._writing:
            counted = total([self._metrics.counted(), self._inherited])
            if self._tally is not None:
                measured = {} if last else self._metrics.measured()
                writing = asyncio.to_thread(self._tally.write, _written(counted, measured))
                await to_the_end(asyncio.ensure_future(writing))  # else the next would write beside it
            return counted

    async def _ups(self) -> Snapshot:
        ups = await asyncio.gather(*(_answers(ask) for ask in self._stores.values()))
        return {METADATA_UP.name: {(name,): (float(up),) for name, up in zip(self._stores, ups, strict=True)}}

    def _rendered(self, own: Iterable[Snapshot]) -> bytes:
        numbers = total([*own, *self._of_others(measured=True).values()])
        return generate_latest(_Families([_family(one, numbers.get(one.name, {})) for one in DECLARED]))

    def _of_others(self, *, measured: bool) -> dict[str, Snapshot]:
        others = self._tally.others() if self._tally is not None else ()
        return {name: _read(written, alive=alive and measured) for name, written, alive in others}


class _Held:
    """How many blobs the disk holds, and their bytes: counted anew now and then, and only while somebody asks."""

    def __init__(self, census: Census, max_size: int) -> None:
        self._census = census
        self._max_size = max_size
        self._known: Snapshot = {}
        self._counted_at: float | None = None
        self._counting: asyncio.Task[None] | None = None

    async def snapshot(self) -> Snapshot:
        """The last count; nothing while the first one goes on for too long."""
        now = asyncio.get_running_loop().time()
        if self._counting is None and (self._counted_at is None or now - self._counted_at >= _COUNT_EVERY):
            self._counting = asyncio.create_task(self._count(), name="count what is held")
        if self._counting is not None:
            await asyncio.wait({self._counting}, timeout=_ANSWER_WITHIN)
        return self._known

    async def aclose(self) -> None:
        """Wait for the count that is under way."""
        if self._counting is not None:
            await asyncio.wait({self._counting})

    async def _count(self) -> None:
        try:
            usage = await asyncio.to_thread(self._census.take)
            numbers = {CACHE_BLOBS: usage.blobs, CACHE_BYTES: usage.size, CACHE_LIMIT: usage.limit(self._max_size)}
            self._known = {one.name: {(): (number,)} for one, number in numbers.items()}
        except OSError as error:
            log.debug("the disk fails (%s): what it holds cannot be counted", error.strerror or error)
        finally:
            self._counted_at, self._counting = asyncio.get_running_loop().time(), None


class _Families(Collector):
    def __init__(self, families: Sequence[Metric]) -> None:
        self._families = families

    def collect(self) -> Iterator[Metric]:
        """As prometheus-client wants them."""
        return iter(self._families)


_BUILD: Snapshot = {BUILD_INFO.name: {(__version__,): (1.0,)}}


def _family(declared: Declared, rows: Rows) -> Metric:
    name = PREFIX + declared.name
    if declared.kind is Kind.HISTOGRAM:
        histogram = HistogramMetricFamily(name, declared.help, labels=declared.labels)
        for labels, row in sorted(rows.items()):
            bounds = [*map(str, BUCKETS), "+Inf"]
            histogram.add_metric(labels, list(zip(bounds, itertools.accumulate(row[:-1]), strict=True)), row[-1])
        return histogram
    kind = CounterMetricFamily if declared.kind is Kind.COUNTER else GaugeMetricFamily
    family = kind(name, declared.help, labels=declared.labels)
    for labels, (number,) in sorted(rows.items()):
        family.add_metric(labels, number)
    return family


async def _answers(ask: Callable[[], Awaitable[bool]]) -> bool:
    """Whether a store answers, and in time."""
    try:
        async with asyncio.timeout(_ANSWER_WITHIN):
            return await ask()
    except (StoreError, TimeoutError):
        return False


def _written(counted: Snapshot, measured: Snapshot) -> dict[str, Any]:
    """Numbers as JSON."""
    return {
        kind: {name: [[labels, row] for labels, row in rows.items()] for name, rows in numbers.items()}
        for kind, numbers in (("counted", counted), ("measured", measured))
    }


def _read(written: Any, *, alive: bool) -> Snapshot:
    """The numbers that another worker has written; what is measured of one that has died is nothing."""
    found: dict[str, Rows] = {}
    with contextlib.suppress(AttributeError, KeyError, TypeError, ValueError):  # written by another release, or nothing
        for kind in ("counted", "measured") if alive else ("counted",):
            for name, rows in written[kind].items():
                found[name] = {tuple(labels): tuple(row) for labels, row in rows}
    return found
