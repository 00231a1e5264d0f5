"""Who lists, refreshes and purges what is known and held, and lets go of what nothing needs."""

import contextlib
import time
from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import dataclass

from mirror.around import run_within
from mirror.chores import ROOM, Chores
from mirror.collecting import Collecting
from mirror.contents import Contents
from mirror.digest import Digest
from mirror.disposal import Disposal
from mirror.edge.peerchores import ChoresRoom
from mirror.edge.peers import Room
from mirror.inventory import Inventory
from mirror.looking import Looking
from mirror.oci import Reference
from mirror.peers import Peers
from mirror.pinned import Book
from mirror.purging import Elsewhere, Nowhere, Purging
from mirror.refreshing import Refreshing
from mirror.store.generation import Generation
from mirror.store.leases import Leases
from mirror.store.pins import Imported, reference_of
from mirror.store.uploads import Uploads
from mirror.wiring.answering import Pulls
from mirror.wiring.ground import Ground


@dataclass(frozen=True, slots=True)
class Housekeeping:
    """``rooms`` are those in which other replicas ask this one for chores. ``named`` gives what a tag names as far as
    this replica knows.
    """

    inventory: Inventory
    named: Callable[[Reference], Awaitable[Digest | None]]
    refreshing: Refreshing
    purging: Purging
    collecting: Collecting
    rooms: Mapping[str, Room]


class _Pins:
    """The pins, as the listing asks for them; of what was imported by digest, what is still here."""

    def __init__(self, book: Book, contents: Contents) -> None:
        self._book = book
        self._contents = contents

    def is_pinned(self, upstream: str, repository: str, tag: str | None, digest: Digest) -> bool:
        return self._book.is_pinned(upstream, repository, tag, digest)

    def by_digest(self) -> Iterable[Reference]:
        pinned = [pin.reference for pin in self._book.standing()]
        imported = [
            record.reference
            for record in self._book.records.all.values()
            if isinstance(record, Imported) and self._contents.size_of(record.digest) is not None
        ]
        return [reference_of(text) for text in dict.fromkeys((*pinned, *imported)) if "@" in text]


def housekeeping_of(stack: contextlib.AsyncExitStack, ground: Ground, pulls: Pulls) -> Housekeeping:
    """All of it; what it needs ends with ``stack``."""
    around, hosted = ground.around, ground.settings.hosted
    contents = Contents(ground.directory)
    policies = {name: upstream.policy for name, upstream in ground.upstreams.items()}
    inventory = Inventory(
        ground.local,
        ground.catalogue,
        hosted.prefix,
        policies,
        contents,
        _Pins(ground.book, contents),
        ground.findings,
        ground.accesses.flush,
    )
    leases, limit = Leases(ground.directory.leases), ground.settings.wasm.max_module_size
    forget = ground.local.forget_seen
    run_within(stack, Looking(ground.directory, ground.findings, inventory.manifests, forget, leases, limit).run())
    refreshing = Refreshing(
        ground.upstreams,
        pulls.resolver,
        pulls.manifests,
        pulls.pull,
        pulls.everything,
        hosted.prefix,
        pulls.original,
    )
    uploads = Uploads(ground.directory, time.time, expires=hosted.upload_expires, max_uploads=hosted.max_uploads)
    stack.callback(uploads.close)
    collecting = Collecting(
        ground.directory,
        pulls.disk.survey,
        around.metadata,
        ground.local,
        pulls.disk.removal,
        uploads,
        Leases(ground.directory.leases),
        pulls.unneeded,
    )
    purging, rooms = _purging(stack, ground, pulls, contents)
    return Housekeeping(inventory, _named_by(ground), refreshing, purging, collecting, rooms)


def _named_by(ground: Ground) -> Callable[[Reference], Awaitable[Digest | None]]:
    prefix, catalogue = ground.settings.hosted.prefix, ground.catalogue

    async def named(reference: Reference) -> Digest | None:
        if reference.tag is None:
            return reference.digest
        if catalogue is not None and reference.upstream == prefix:
            tag = await catalogue.tag(reference.repository, reference.tag)
            return None if tag is None else tag.digest
        record = await ground.tags.get(reference)
        return None if record is None else record.digest

    return named


def _purging(
    stack: contextlib.AsyncExitStack, ground: Ground, pulls: Pulls, contents: Contents
) -> tuple[Purging, Mapping[str, Room]]:
    around, address = ground.around, ground.settings.cluster.advertise
    generation = Generation(ground.directory.generation)
    stack.callback(generation.close)
    elsewhere: Elsewhere = Chores(around.elsewhere) if isinstance(around.elsewhere, Peers) else Nowhere()
    purging = Purging(
        ground.local,
        around.metadata,
        ground.tags,
        ground.links,
        around.leases,
        around.others,
        ground.book,
        contents,
        Disposal(ground.directory, pulls.disk.survey, ground.local, pulls.disk.removal),
        elsewhere,
        generation,
        ground.settings.hosted.prefix,
        pulls.original,
        time.time,
    )
    if around.secret is None or not address:
        return purging, {}
    return purging, {ROOM: ChoresRoom(purging, around.secret)}
