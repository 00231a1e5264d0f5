"""What replicas do together. Of a mirror that is alone nothing here is loaded, nor the client of Redis."""

import asyncio
import contextlib
import socket
import time

from mirror.around import Around, Hosts, answers_of, run_within
from mirror.cluster.alone import Alone
from mirror.cluster.beat import Beat
from mirror.cluster.leases import SharedLeases
from mirror.cluster.moments import Moments
from mirror.cluster.secret import Secret
from mirror.config import Settings
from mirror.copies import Copies
from mirror.edge.forward import Forward
from mirror.edge.peerhosted import HostedRoom
from mirror.edge.peers import Room
from mirror.edge.peeruploads import PeerUploads
from mirror.edge.push import Pushes
from mirror.fills import Fills
from mirror.hosted.catalogue import Catalogue
from mirror.metadata.redis import RedisMetadata
from mirror.metadata.resilient import ResilientMetadata
from mirror.metadata.sqlite import SqliteMetadata
from mirror.passing import ROOM, Passing
from mirror.peers import Peers
from mirror.replication import Replication
from mirror.shared.client import RedisClient
from mirror.sharing import Shared, Unshared
from mirror.store.blobs import BlobStore
from mirror.store.directory import DataDirectory
from mirror.store.leases import Leases
from mirror.upstream.transport import Transport
from mirror.upstream.trust import trust_in

_PEER_CONNECTS_WITHIN = 1.0
_PEER_IDLE_FOR = 2.0
"""Seconds after which another replica that sends nothing is asked anew, or, when its lease has ended, no more."""


async def replicated(
    stack: contextlib.AsyncExitStack, settings: Settings, directory: DataDirectory, local: SqliteMetadata
) -> Around:
    """Those whom the Redis of `metadata.url` brings together; what is begun for them ends with ``stack``."""
    clock = asyncio.get_running_loop().time
    client = RedisClient.of(settings.metadata)
    stack.push_async_callback(client.aclose)

    async def shared_answers() -> bool:
        return client.up

    stores = {"sqlite": answers_of(local), "redis": shared_answers}
    redis = RedisMetadata(client, time.time)
    metadata = ResilientMetadata(local, redis, lambda: client.up)
    stack.push_async_callback(metadata.aclose)
    address = settings.cluster.advertise or ""
    beat = Beat(client, address, clock, metadata.returned)
    await beat.once()
    stack.push_async_callback(beat.leave)
    run_within(stack, beat.run())
    own = Leases(directory.leases)
    leases = SharedLeases(client, own, address, f"{socket.gethostname()}/{directory.identity()}")
    if settings.cluster.secret_file is None:
        return Around(metadata, beat, leases, Alone(), Unshared(), None, stores)
    secret = Secret(settings.cluster.secret_file)
    peers = Peers(
        beat.addresses,
        address,
        secret,
        Transport(
            trust=trust_in(settings.cluster.ca_file, "cluster.ca_file", clock),
            connect_within=_PEER_CONNECTS_WITHIN,
            idle_for=_PEER_IDLE_FOR,
        ),
        clock,
        time.time,
    )
    stack.push_async_callback(peers.aclose)
    sharing = Shared(leases, peers, redis, address)

    def unite(stack: contextlib.AsyncExitStack, catalogue: Catalogue, store: BlobStore, fills: Fills) -> Hosts:
        hosted = settings.hosted
        copies = Copies(hosted.prefix, store, fills, peers, settings.wasm.max_module_size)
        stack.push_async_callback(copies.aclose)
        replication = Replication(
            catalogue,
            store,
            peers,
            beat,
            Moments(client),
            leases,
            own,
            address,
            hosted.replicas,
            hosted.ack,
            copies.bring,
            clock,
        )
        stack.push_async_callback(replication.aclose)
        run_within(stack, replication.run())
        beginning = run_within(stack, replication.begin())
        return Hosts(replication, copies, {"hosted": HostedRoom(replication, secret)}, beginning.done)

    def upload_room(pushes: Pushes) -> tuple[str, Room]:
        return ROOM, PeerUploads(secret, pushes)

    trust = trust_in(settings.cluster.ca_file, "cluster.ca_file", clock)
    passing = Passing(beat.addresses, address, secret, trust, clock, time.time)
    forward = Forward(passing, with_credentials=settings.auth.mode == "upstream")
    united = unite if address else None
    return Around(metadata, beat, leases, peers, sharing, secret, stores, united, forward, upload_room)
