"""All fills of a worker, one for each digest: begun, joined, followed, stopped."""

import asyncio
import logging
from collections.abc import Mapping, Sequence
from concurrent.futures import Executor, ThreadPoolExecutor

from mirror.digest import Digest
from mirror.download import Source
from mirror.errors import UpstreamUnavailable
from mirror.fill import Fill, Means, stopping
from mirror.metadata.base import Metadata
from mirror.metrics import FILL_WAITERS, FILLS_IN_FLIGHT, Metrics
from mirror.oci import Reference
from mirror.sharing import Sharing, Unshared
from mirror.store.blobs import BlobStore
from mirror.store.directory import DataDirectory
from mirror.store.growing import Growing
from mirror.store.spool import Spool, Standing
from mirror.tracing import Attributes, Kind, begin, current, inside

log = logging.getLogger(__name__)


class Fills:
    """All fills of this worker, one for each digest. Wired once; `aclose` leaves what is under way to be resumed."""

    def __init__(
        self,
        directory: DataDirectory,
        store: BlobStore,
        metadata: Metadata,
        sources: Mapping[str, Source],
        sharing: Sharing | None = None,
        metrics: Metrics | None = None,
        threads: Executor | None = None,
    ) -> None:
        """``sources`` are by the upstream's name; ``threads``, which write and hash, end with the fills."""
        self.directory = directory
        self.sharing = sharing or Unshared()
        self.metrics = metrics or Metrics()
        self._threads = threads or ThreadPoolExecutor(4, thread_name_prefix="fill")
        self._means = Means(directory, store, metadata, sources, self.sharing, self._threads, self.metrics)
        self._fills: dict[Digest, Fill] = {}
        self._tails: dict[Digest, Growing] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self.metrics.gauges[FILLS_IN_FLIGHT.name] = lambda: sum(fill.leads for fill in self._fills.values())
        self.metrics.gauges[FILL_WAITERS.name] = lambda: sum(fill.content.waiters for fill in self._fills.values())

    def under_way(self) -> Sequence[Fill]:
        """All fills of this worker, the oldest first."""
        return list(self._fills.values())

    def running(self, digest: Digest) -> Fill | None:
        """The fill of this digest, if one is under way here and its first byte can still be had."""
        fill = self._fills.get(digest)
        return None if fill is None or fill.content.beyond(0) else fill

    def start(self, origin: Reference, digest: Digest, size: int | None, patience: float) -> Fill:
        """Join the fill of ``digest``, or begin it from ``origin``'s repository.

        That repository must be known to hold it, for the bytes may come through another one that does too. ``size`` is
        what a descriptor says, None when nothing does. The fill goes on trying for ``patience`` seconds after the last
        join, and after each byte that it gets.
        """
        fill = self.running(digest)
        if fill is None:
            fill = self._fills[digest] = Fill(self._means, origin, digest, size, patience)
            fill.span = begin("fill", Kind.INTERNAL, _about(origin, digest))
            self._keep(asyncio.create_task(self._run(fill), name=f"fill {digest}"))
        elif fill.span is not None and (span := current()) is not None:
            fill.span.link(span)
            span.link(fill.span)
        fill.join(origin, patience)
        return fill

    def tail(self, digest: Digest) -> Growing | None:
        """What this or another worker on this disk gets of ``digest`` now; None when none does. Begins no download."""
        fill = self.running(digest)
        if fill is not None:
            return fill.content
        content = self._tails.get(digest)
        if content is None and (spool := Spool.follow(self.directory, digest)) is not None:
            content = self._tails[digest] = Growing(digest, None)
            self._keep(asyncio.create_task(self._watch(content, spool), name=f"tail {digest}"))
        return content

    async def aclose(self) -> None:
        """Stop all fills; what they have got stays in their spools."""
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        for content in (*(fill.content for fill in self._fills.values()), *self._tails.values()):
            content.fail(stopping())  # those that had no time to begin
        self._fills.clear()
        self._tails.clear()
        self._threads.shutdown()

    def _keep(self, task: "asyncio.Task[None]") -> None:
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _watch(self, content: Growing, spool: Spool) -> None:
        try:
            if await content.watch(spool, lambda: None) is Standing.VERIFIED:
                content.verify()
            else:
                content.fail(UpstreamUnavailable("nobody fetches it here any more", retry_after=1))
        except OSError as error:
            log.error("the disk fails (%s); what another worker gets of it cannot be read", error.strerror or error)
            content.fail(UpstreamUnavailable("it cannot be read here any more", retry_after=1))
        except asyncio.CancelledError:
            content.fail(stopping())
            raise
        finally:
            del self._tails[content.digest]
            content.close(None)

    async def _run(self, fill: Fill) -> None:
        try:
            with inside(fill.span):
                await fill.run()
        finally:
            if self._fills.get(fill.digest) is fill:
                del self._fills[fill.digest]
            fill.close()


def _about(origin: Reference, digest: Digest) -> Attributes:
    """What a fill's span says of it."""
    return {
        "wasm_mirror.upstream": origin.upstream,
        "wasm_mirror.repository": origin.repository,
        "wasm_mirror.digest": str(digest),
    }
