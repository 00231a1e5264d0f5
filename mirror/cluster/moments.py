"""Moments: the numbers of changes to hosted content, one greater than the other throughout all replicas.

A moment is the time of Redis in microseconds, or one more than the last; so none comes twice, not even where Redis has
lost all it knew. The last one stands where the beat looks (`mirror.shared.keys.generation`), so that all replicas see
within a tenth of a second that something has changed.
"""

from mirror.errors import LeaseLost, StoreError
from mirror.shared import keys
from mirror.shared.client import RedisClient

_NEXT = """
-- KEYS: generation, lease. ARGV: what stands in the lease, or nothing; how long it lasts from now on, in milliseconds;
-- the greatest number that the replica knows; whether the number is noted. Nothing when the lease is lost.
if ARGV[1] ~= '' then
  if redis.call('TYPE', KEYS[2]).ok ~= 'string' or redis.call('GET', KEYS[2]) ~= ARGV[1] then return false end
  redis.call('PEXPIRE', KEYS[2], ARGV[2])
end
-- Others may write to Redis, too: what makes no sense there counts as nothing.
local kind = redis.call('TYPE', KEYS[1]).ok
local last = kind == 'string' and redis.call('GET', KEYS[1])
last = last and string.match(last, '^%d+$') and tonumber(last) or 0
if last >= 8e15 then last = 0 end -- replicas believe none from there on (`mirror.hosted.entries.MAX_MOMENT`)
local now = redis.call('TIME')
-- Beyond 9e15 the numbers of Lua have gaps.
local number = math.max(now[1] * 1000000 + now[2], last + 1, tonumber(ARGV[3]) + 1)
if number >= 9e15 then return redis.error_reply('a moment that replicas know makes no sense') end
if ARGV[4] == '1' then
  if kind ~= 'string' and kind ~= 'none' then redis.call('DEL', KEYS[1]) end
  redis.call('SET', KEYS[1], string.format('%.0f', number))
end
return string.format('%.0f', number)
"""


class Moments:
    """Asks Redis for moments. ``latest`` is always the greatest one that this replica knows."""

    def __init__(self, client: RedisClient) -> None:
        self._client = client
        self._next = client.script(_NEXT)

    @property
    def up(self) -> bool:
        """Whether Redis is there."""
        return self._client.up

    async def under(self, key: str, token: str, lasts: float, latest: int) -> int:
        """The moment of a change that is made under a lease, which is renewed for ``lasts`` seconds.

        ``token`` is what stands under ``key`` while it is held. Raises `StoreError`, `LeaseLost`.
        """
        found = await self._next([keys.generation(), key], [token, str(round(lasts * 1000)), str(latest), "1"])
        if not found:
            raise LeaseLost(f"the lease {key} is held by another replica now")
        return int(found)

    async def free(self, latest: int) -> int:
        """The moment of a change that stands in nobody's way. The beat does not tell of it. Raises `StoreError`."""
        return await self._number(latest, noted=False)

    async def bump(self, latest: int) -> None:
        """Let all replicas see that something has changed. Raises `StoreError`."""
        await self._number(latest, noted=True)

    async def _number(self, latest: int, *, noted: bool) -> int:
        generation = keys.generation()
        found = await self._next([generation, generation], ["", "0", str(latest), "1" if noted else "0"])
        if not found:
            raise StoreError("Redis gives no number")
        return int(found)
