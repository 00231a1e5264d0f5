"""What a mirror that has others around it does together with them, and one that is alone does by itself."""

import asyncio
from collections.abc import Awaitable, Callable, Coroutine, Mapping
from contextlib import AsyncExitStack
from dataclasses import dataclass

from mirror.cluster.alone import Alone
from mirror.cluster.secret import Secret
from mirror.copies import Copies
from mirror.edge.peers import Room
from mirror.edge.push import Pushes
from mirror.edge.uploads import Forwarding
from mirror.fills import Fills
from mirror.hosted.catalogue import Catalogue
from mirror.hosted.together import Together
from mirror.metadata.base import Metadata
from mirror.metadata.sqlite import SqliteMetadata
from mirror.peers import Peers
from mirror.resolve import Leases
from mirror.sharing import Sharing, Unshared
from mirror.store import leases
from mirror.store.blobs import BlobStore
from mirror.store.directory import DataDirectory
from mirror.tags import Others

Answers = Callable[[], Awaitable[bool]]
"""Whether a store answers now."""


@dataclass(frozen=True, slots=True)
class Hosts:
    """How replicas host together: what they agree on, the bytes on their disks, where they ask one another.

    ``begun`` says whether this one knows by now what the others know.
    """

    together: Together
    copies: Copies
    rooms: Mapping[str, Room]
    begun: Callable[[], bool]


Unite = Callable[[AsyncExitStack, Catalogue, BlobStore, Fills], Hosts]
"""Has the hosted content of this replica be that of all."""


@dataclass(frozen=True, slots=True)
class Around:
    """The parts of the mirror that know whether there are other replicas. ``stores`` are by their kind.

    ``unite`` is None where there are no others, or none that could be asked for hosted content. ``forwarding`` knows
    the uploads of the others, ``upload_room`` makes what answers them of this one's.
    """

    metadata: Metadata
    others: Others
    leases: Leases
    elsewhere: Alone | Peers
    sharing: Sharing
    secret: Secret | None
    stores: Mapping[str, Answers]
    unite: Unite | None = None
    forwarding: Forwarding | None = None
    upload_room: Callable[[Pushes], tuple[str, Room]] | None = None


def alone(directory: DataDirectory, local: SqliteMetadata) -> Around:
    """Nobody is around."""
    nobody, stores = Alone(), {"sqlite": answers_of(local)}
    return Around(local, nobody, leases.Leases(directory.leases), nobody, Unshared(), None, stores)


def answers_of(local: SqliteMetadata) -> Answers:
    """Whether the embedded store answers; asking raises `StoreError` when it does not."""

    async def answers() -> bool:
        await local.kept("")
        return True

    return answers


def run_within(stack: AsyncExitStack, work: Coroutine[object, object, None]) -> "asyncio.Task[None]":
    """Have ``work`` done until ``stack`` ends; then stop it. Gives its task."""
    task = asyncio.create_task(work)

    async def stop() -> None:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)

    stack.push_async_callback(stop)
    return task
