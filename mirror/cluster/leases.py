"""Leases among replicas: in Redis, for a few seconds, renewed while the work goes on.

Whoever sleeps longer than its lease lasts has lost it; what it would publish then is refused by its `Fence`. Workers on
one disk settle among themselves first, by an flock (`mirror.store.leases`, `mirror.store.spool`), so in Redis a replica
is one holder, and one of its workers goes on at once where another has died.
"""

import asyncio
import contextlib
import logging
import secrets
from collections.abc import AsyncIterator
from types import TracebackType
from typing import Self

from mirror.digest import Digest
from mirror.errors import StoreError
from mirror.metadata.base import Fence
from mirror.shared import keys
from mirror.shared.client import RedisClient
from mirror.store.leases import Leases

log = logging.getLogger(__name__)

LASTS = 3.0
"""Seconds after which the lease of a holder that died is free."""

RENEWED_EVERY = 0.75
_POLL = 0.03
_WITHIN = 1.5

_TAKE = """
-- A lease that has no holder, or would last far longer than ours do, none of us has written.
local left = redis.call('PTTL', KEYS[1])
local sound = redis.call('TYPE', KEYS[1]).ok == 'string' and left >= 0 and left <= 10 * ARGV[3]
local found = sound and redis.call('GET', KEYS[1])
local holder = found and string.match(found, '^%S+ (.*)$')
if holder and holder ~= ARGV[2] then return found end
redis.call('SET', KEYS[1], ARGV[1] .. ' ' .. ARGV[2], 'PX', ARGV[3])
return false
"""
_RENEW = "return redis.call('GET', KEYS[1]) == ARGV[1] and redis.call('PEXPIRE', KEYS[1], ARGV[2]) or 0"
_RELEASE = "return redis.call('GET', KEYS[1]) == ARGV[1] and redis.call('DEL', KEYS[1]) or 0"


class SharedLeases:
    """The leases of one replica: ``address`` is where others read from it, empty if nowhere.

    ``identity`` tells it from all others, also from one that says by mistake that it is at the same address.
    """

    def __init__(self, client: RedisClient, local: Leases, address: str, identity: str) -> None:
        self._client = client
        self._local = local
        self.holder = f"{address} {identity}"
        self._take = client.script(_TAKE)
        self._renew = client.script(_RENEW)
        self._release = client.script(_RELEASE)

    @contextlib.asynccontextmanager
    async def hold(self, name: str) -> AsyncIterator[Fence]:
        """Wait for the lease of a piece of work on tags or manifests, and hold it; gives the proof of it.

        Where Redis does not answer the work is done all the same. Should it answer again before that has ended, the
        proof is worth nothing, for another replica may have done the work since.
        """
        async with self._local.hold(name), self.lease(keys.tag_lease(name)) as lease:
            while (holder := await lease.take()) is not None:
                log.debug("%s has the lease of %s", holder, name)
                await asyncio.sleep(_POLL)
            yield Fence(name, lease.value)

    def fill(self, digest: Digest) -> "Lease":
        """The lease of the right to download a blob, not yet taken."""
        return self.lease(keys.fill_lease(digest))

    def lease(self, key: str) -> "Lease":
        """A lease, not yet taken."""
        return Lease(self, key)

    async def take(self, key: str, token: str) -> str | None:
        """The address of who holds the lease, or None when it is taken now. Raises `StoreError`."""
        arguments = [token, self.holder, str(round(LASTS * 1000))]
        found = await self._take([key], arguments, within=_WITHIN)
        return None if not found else found.decode(errors="replace").split(" ")[1]

    async def renew(self, key: str, value: str) -> bool:
        """Hold it for as long again; whether it was still held. Raises `StoreError`."""
        return bool(await self._renew([key], [value, str(round(LASTS * 1000))], within=_WITHIN))

    async def release(self, key: str, value: str) -> None:
        """Let go of it, if it is still held. Raises `StoreError`."""
        await self._release([key], [value], within=_WITHIN)


class Lease:
    """One lease; as a context manager it is let go of at the end. ``held`` says whether it was taken."""

    def __init__(self, leases: SharedLeases, key: str) -> None:
        self._leases = leases
        self._key = key
        self._token = secrets.token_hex(8)
        self._renewing: asyncio.Task[None] | None = None
        self._may_stand = False
        self.held = False

    @property
    def value(self) -> str:
        """What stands in Redis while it is held."""
        return f"{self._token} {self._leases.holder}"

    async def take(self) -> str | None:
        """Take it; the address of the holder, if another replica has it.

        None too where Redis does not answer: ``held`` tells.
        """
        if self.held:
            return None
        self._may_stand = True  # also when nobody is there any more to hear that it was taken
        try:
            holder = await self._leases.take(self._key, self._token)
        except StoreError as error:
            log.debug("no lease of %s: %s", self._key, error)
            return None
        if holder is None:
            self.held = True
            self._renewing = asyncio.create_task(self._renew())
        else:
            self._may_stand = False
        return holder

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._renewing is not None:
            self._renewing.cancel()
            await asyncio.gather(self._renewing, return_exceptions=True)
        self.held = False
        if self._may_stand:
            with contextlib.suppress(StoreError):  # it ends by itself
                await asyncio.shield(self._leases.release(self._key, self.value))

    async def _renew(self) -> None:
        while self.held:
            await asyncio.sleep(RENEWED_EVERY)
            try:
                self.held = await self._leases.renew(self._key, self.value)
            except StoreError as error:
                log.debug("the lease of %s could not be renewed: %s", self._key, error)
        log.warning("the lease of %s was lost: this replica stood still, or Redis has forgotten it", self._key)
