"""Replicas that host: each with its records and its disk, behind a real socket in the test's loop, on one Redis."""

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Literal

from starlette.types import ASGIApp, Receive, Scope, Send

from mirror.cluster.beat import Beat
from mirror.cluster.leases import SharedLeases
from mirror.cluster.moments import Moments
from mirror.config.models import MetadataSettings
from mirror.digest import Digest
from mirror.edge.peerhosted import HostedRoom
from mirror.edge.peers import PeerApp
from mirror.errors import BlobUnknown
from mirror.peers import Peers
from mirror.replication import Replication
from mirror.shared.client import RedisClient
from mirror.store.leases import Leases
from mirror.upstream.transport import Transport
from tests.cluster.replica import SECRET, Known, secret_in, serving
from tests.hosted.shelf import REPOSITORY, Shelf, describe
from tests.support.artifacts import Artifact
from tests.support.redis import RedisServer


class Host:
    """A replica that hosts. ``front``, if set, answers in place of it; ``asked`` are the targets that came."""

    def __init__(
        self, folder: Path, redis: RedisServer, url: str, replicas: int, ack: Literal["one", "all"], secret: bytes
    ) -> None:
        self.shelf = Shelf(folder / "data")
        self.store, self.catalogue = self.shelf.store, self.shelf.catalogue
        self.secret = secret_in(folder / "secret", secret)
        self.url = url
        self.front: ASGIApp | None = None
        self.asked: list[str] = []
        self.brings = 0
        clock = asyncio.get_running_loop().time
        self.client = RedisClient.of(MetadataSettings(url=redis.url))
        self.beat = Beat(self.client, url, clock, lambda: None)
        self.peers = Peers(self.beat.addresses, url, self.secret, Transport(), clock, time.time)
        local = Leases(self.shelf.directory.leases)
        self.replication = Replication(
            self.catalogue,
            self.store,
            self.peers,
            self.beat,
            Moments(self.client),
            SharedLeases(self.client, local, url, url),
            local,
            url,
            replicas,
            ack,
            self.bring,
            clock,
        )
        rooms = {"hosted": HostedRoom(self.replication, self.secret)}
        self.app = PeerApp(self.secret, self.store, lambda digest: None, Known(), url, rooms=rooms)

    async def bring(self, digest: Digest, size: int) -> None:
        """The bytes of a blob, from whichever replica has them."""
        self.brings += 1
        content = await self.peers.content(digest, size)
        if content is None:
            raise BlobUnknown(f"no replica gives {digest}")
        self.store.put(digest, content)

    async def push_blob(self, content: bytes, repository: str = REPOSITORY) -> Digest:
        """Push a blob, as far as the records go."""
        digest = Digest.of(content)
        self.store.put(digest, content)
        turn = await self.replication.numbered()
        await self.catalogue.link_blob(repository, digest, len(content), moment=turn.moment)
        await self.replication.told()
        return digest

    async def push(self, artifact: Artifact, *tags: str, repository: str = REPOSITORY) -> None:
        """Push an artifact with its blobs; all replicas know of it."""
        for content in artifact.blobs.values():
            await self.push_blob(content, repository)
        self.store.put(artifact.digest, artifact.body)
        async with self.replication.changing(repository) as turn:
            await self.catalogue.put_manifest(repository, describe(artifact), tags, moment=turn.moment)
            await self.replication.told()

    async def delete_tag(self, tag: str, repository: str = REPOSITORY) -> None:
        """Delete a tag; all replicas know of it."""
        async with self.replication.changing(repository) as turn:
            await self.catalogue.delete_tag(repository, tag, moment=turn.moment)
            await self.replication.told()

    async def named(self, tag: str, repository: str = REPOSITORY) -> Digest | None:
        """What a tag names, as far as the records here say."""
        found = await self.catalogue.tag(repository, tag)
        return found.digest if found is not None else None

    def lose(self, digest: Digest) -> None:
        """The disk loses the bytes."""
        self.store.delete(digest)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self.asked.append(scope["path"])
        await (self.front or self.app)(scope, receive, send)


@contextlib.asynccontextmanager
async def host(
    folder: Path,
    redis: RedisServer,
    *,
    replicas: int = 2,
    ack: Literal["one", "all"] = "one",
    secret: bytes = SECRET,
) -> AsyncIterator[Host]:
    """One replica that hosts, with its disk under ``folder``. The others know of it when this begins."""
    found: Host | None = None

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        assert found is not None
        await found(scope, receive, send)

    async with serving(app) as url:
        found = Host(folder, redis, url, replicas, ack, secret)
        await found.beat.once()
        beating = asyncio.create_task(found.beat.run())
        try:
            yield found
        finally:
            beating.cancel()
            await asyncio.gather(beating, return_exceptions=True)
            await found.beat.leave()
            await found.replication.aclose()
            await found.peers.aclose()
            await found.client.aclose()
            await found.catalogue.aclose()


@contextlib.asynccontextmanager
async def hosts(
    folder: Path, count: int = 2, *, replicas: int = 2, ack: Literal["one", "all"] = "one"
) -> AsyncIterator[tuple[RedisServer, list[Host]]]:
    """So many replicas that host, each of which knows of the others; and their Redis."""
    with RedisServer(folder / "redis") as redis:
        async with contextlib.AsyncExitStack() as stack:
            found = [
                await stack.enter_async_context(host(folder / str(number), redis, replicas=replicas, ack=ack))
                for number in range(count)
            ]
            for one in found:
                await one.beat.once()
            yield redis, found
