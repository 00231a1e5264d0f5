"""What is known and held here, and who may be asked."""

import contextlib
import time
from collections.abc import Mapping
from dataclasses import dataclass

from mirror import __version__
from mirror.accesses import Accesses
from mirror.around import Around, alone, run_within
from mirror.askers import Askers
from mirror.config import Settings
from mirror.exposition import Exposition
from mirror.findings import Findings
from mirror.hosted.backup import backups_of
from mirror.hosted.catalogue import Catalogue
from mirror.links import Links
from mirror.metadata.sqlite import SqliteMetadata
from mirror.metrics import Metrics
from mirror.pinned import Book
from mirror.store.blobs import BlobStore
from mirror.store.board import Board
from mirror.store.census import Census
from mirror.store.directory import DataDirectory
from mirror.store.generation import Generation
from mirror.store.leases import Leases
from mirror.store.tallies import Tally
from mirror.tags import Tags
from mirror.upstream.failover import Upstream
from mirror.upstream.lenders import Logins


@dataclass(frozen=True, slots=True)
class Ground:
    """What is known and held here, and who may be asked; ``catalogue``: that of hosted content, where there is any;
    ``book``: the records of pins; ``askers`` and ``findings``: who asked for manifests, and what was found of them.
    """

    settings: Settings
    directory: DataDirectory
    metrics: Metrics
    exposition: Exposition
    store: BlobStore
    census: Census
    local: SqliteMetadata
    around: Around
    catalogue: Catalogue | None
    book: Book
    upstreams: Mapping[str, Upstream]
    accesses: Accesses
    askers: Askers
    findings: Findings
    tags: Tags
    links: Links
    logins: Logins

    @property
    def through(self) -> dict[str, Upstream]:
        """The upstreams that are pushed through to."""
        return {name: self.upstreams[name] for name, of in self.settings.upstreams.items() if of.push == "through"}


async def ground_of(stack: contextlib.AsyncExitStack, settings: Settings, directory: DataDirectory) -> Ground:
    metrics = Metrics(settings.upstreams)
    store = BlobStore(directory)
    local = SqliteMetadata.open(directory.database, holds=store.holds, holds_any=store.holds_any)
    generation = Generation(directory.generation)
    stack.callback(generation.close)
    around = await _around(stack, settings, directory, local)
    metadata = around.metadata
    tally = Tally(directory.tallies) if settings.workers > 1 else None
    catalogue = _catalogue(stack, settings, directory)
    hosted = {"hosted": catalogue.answers} if catalogue is not None else {}
    book = Book(directory, Leases(directory.leases), time.time)
    stack.push_async_callback(book.aclose)
    census = Census(directory)
    stores = {**around.stores, **hosted}
    exposition = Exposition(metrics, census, stores, tally, max_size=settings.cache.max_size)
    stack.push_async_callback(exposition.aclose)
    board = Board(directory.board)
    stack.callback(board.close)
    clients_decide = settings.auth.mode == "upstream"
    upstreams = {
        name: Upstream.of(name, of, board=board, metrics=metrics, clients_decide=clients_decide)
        for name, of in settings.upstreams.items()
    }
    for upstream in upstreams.values():
        stack.push_async_callback(upstream.aclose)
    accesses = Accesses(metadata, time.time)
    stack.push_async_callback(accesses.flush)
    askers = Askers(local, time.time)
    stack.push_async_callback(askers.flush)
    findings = Findings(local, f"{__version__} {settings.wasm.max_module_size}")
    stack.push_async_callback(findings.flush)
    for work in (local.backups.run(), accesses.run(), askers.run(), findings.run()):
        run_within(stack, work)
    if tally is not None:
        run_within(stack, exposition.run())
    tags = Tags(metadata, generation, around.others, around.elsewhere)
    links = Links(metadata, generation, around.others, around.elsewhere, lenient=settings.auth.mode == "none")
    return Ground(
        settings,
        directory,
        metrics,
        exposition,
        store,
        census,
        local,
        around,
        catalogue,
        book,
        upstreams,
        accesses,
        askers,
        findings,
        tags,
        links,
        Logins(),
    )


async def _around(
    stack: contextlib.AsyncExitStack, settings: Settings, directory: DataDirectory, local: SqliteMetadata
) -> Around:
    if settings.metadata.shared:
        from mirror.replicated import replicated  # with the client of Redis, which others need not load

        return await replicated(stack, settings, directory, local)
    stack.push_async_callback(local.aclose)
    return alone(directory, local)


def _catalogue(stack: contextlib.AsyncExitStack, settings: Settings, directory: DataDirectory) -> Catalogue | None:
    """The records of hosted content; None where there is none, or where replicas could not have it together."""
    if not settings.hosted.enabled or settings.cannot_host:
        return None
    catalogue = Catalogue.of(directory, most=settings.hosted.max_repository_size)
    stack.push_async_callback(catalogue.aclose)
    run_within(stack, backups_of(directory.hosted).run())
    return catalogue
