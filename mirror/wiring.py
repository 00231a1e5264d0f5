"""Settings to objects: the whole graph in one place. Nothing else makes these objects, and there are no globals."""

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Callable

from mirror.accesses import Accesses
from mirror.cluster.alone import Alone
from mirror.config import Settings
from mirror.edge.app import App
from mirror.edge.registry import Registry
from mirror.fill import Fills
from mirror.listing import Listing
from mirror.manifests import Manifests
from mirror.metadata.sqlite import SqliteMetadata
from mirror.names import Names
from mirror.pull import Pull
from mirror.resolve import Resolver
from mirror.store.blobs import BlobStore
from mirror.store.directory import DataDirectory
from mirror.store.generation import Generation
from mirror.store.leases import Leases
from mirror.suspicion import Suspicion
from mirror.tags import Links, Tags
from mirror.upstream.failover import Upstream


@contextlib.asynccontextmanager
async def wired(settings: Settings, directory: DataDirectory, draining: Callable[[], bool]) -> AsyncIterator[App]:
    """The application of one worker; on the way out, work under way is stopped so that it can be resumed."""
    async with contextlib.AsyncExitStack() as stack:
        store = BlobStore(directory)
        metadata = SqliteMetadata.open(directory.database, holds=store.holds)
        stack.push_async_callback(metadata.aclose)
        generation = Generation(directory.generation)
        stack.callback(generation.close)
        upstreams = {name: Upstream.of(name, of) for name, of in settings.upstreams.items()}
        for upstream in upstreams.values():
            stack.push_async_callback(upstream.aclose)
        accesses = Accesses(metadata, time.time)
        stack.push_async_callback(accesses.flush)
        for work in (metadata.run_backups(), accesses.run()):
            stack.push_async_callback(_stop, asyncio.create_task(work))

        leases = Leases(directory.leases)
        alone = Alone()
        tags, links = Tags(metadata, generation, alone, alone), Links(metadata, alone)
        suspicion = Suspicion(asyncio.get_running_loop().time)
        fills = Fills(directory, store, metadata, upstreams)
        stack.push_async_callback(fills.aclose)
        manifests = Manifests(upstreams, store, links, fills, leases, alone, settings.wasm.max_module_size)
        resolver = Resolver(upstreams, tags, manifests, leases, suspicion, time.time)
        stack.push_async_callback(resolver.aclose)
        pull = Pull(upstreams, store, tags, links, manifests, resolver, fills, accesses, time.time)
        stack.push_async_callback(pull.aclose)
        listing = Listing(upstreams, metadata, suspicion, time.time)
        stack.push_async_callback(listing.aclose)

        registry = Registry(Names(settings), pull, listing)
        yield App(registry, None, draining, log_access=settings.log.access == "all")


async def check_metadata(directory: DataDirectory) -> None:
    """Open the database and close it again: what is wrong with it is said or mended once, and before anything serves.

    Raises `StartError`.
    """
    await SqliteMetadata.open(directory.database, holds=BlobStore(directory).holds).aclose()


async def _stop(task: "asyncio.Task[None]") -> None:
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
