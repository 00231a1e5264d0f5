"""Redis stores for tests: a client that has just been found to be there, and the metadata behind it."""

import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from mirror.config.models import MetadataSettings
from mirror.errors import StoreError
from mirror.metadata.redis import RedisMetadata
from mirror.shared.client import RedisClient
from tests.support.waiting import eventually

PATIENCE = 10.0
"""Seconds to wait for an answer, where the test is not about waiting: machines that run tests are busy."""

_PROBE = "return redis.call('SET', KEYS[1], '1', 'PX', '10000')"


async def probe(client: RedisClient, within: float = 0.5) -> bool:
    """Whether Redis is there, as the beat of a mirror finds out: by a script that writes."""
    try:
        await client.script(_PROBE)(["wm1:{tags}:members"], [], within=within, probe=True)
    except StoreError:
        return False
    return client.up


async def until_up(client: RedisClient) -> None:
    """Probe until Redis is there."""

    async def is_up() -> bool:
        return await probe(client)

    found: bool = await eventually(is_up, timeout=30, what="Redis is there")
    assert found


@asynccontextmanager
async def connected(settings: MetadataSettings) -> AsyncIterator[RedisClient]:
    """A client of a Redis that is there."""
    client = RedisClient.of(settings)
    try:
        await until_up(client)
        yield client
    finally:
        await client.aclose()


@asynccontextmanager
async def opened(url: str) -> AsyncIterator[RedisMetadata]:
    """The store at ``url``."""
    async with connected(MetadataSettings(url=url)) as client:
        store = RedisMetadata(client, time.time, PATIENCE)
        try:
            yield store
        finally:
            await store.aclose()
