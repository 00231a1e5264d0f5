"""The beat: through Redis, every worker of every replica tells the others that it lives and which moves it has seen.

Redis keeps one number that changes with each move of a tag (`mirror.shared.keys`). A worker looks at it ten times a
second, and believes the tags in its memory only while it has done so lately; so whoever moves a tag can wait until all
others have seen that it is about to, and a worker that hangs, sleeps or hears nothing is waited for no longer than it
would believe itself. Looking is asking: nothing depends on a message that might be lost.
"""

import asyncio
import contextlib
import logging
import os
import secrets
import socket
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from mirror.errors import StoreError
from mirror.shared import keys
from mirror.shared.client import RedisClient

log = logging.getLogger(__name__)

EVERY = 0.1
"""Seconds between two beats."""

AWAY_EVERY = 0.25
"""The same while Redis does not answer."""

BELIEVES_FOR = 0.75
"""Seconds after a beat for which a worker believes what it has in memory."""

ALIVE_FOR = 3.0
"""Seconds after its last beat for which a worker is taken to be alive, and asked for bytes."""

_WITHIN = 0.5
_RECALLED_FOR = 0.5
"""Seconds for which the others are taken to be there as before, when Redis has forgotten who is: all beat by then."""

_GIVEN_UP_AFTER = 30_000
"""Milliseconds after which a worker that was not heard of is struck off."""

_MEMBERS_LAST = 3_600
_LOOK_AGAIN = 0.01
_WAIT_AT_MOST = 2 * BELIEVES_FOR

_BEAT = """
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
-- Others may write to Redis, too: what makes no sense there goes.
for index, kind in ipairs({'hash', 'string'}) do
  local found = redis.call('TYPE', KEYS[index]).ok
  if found ~= kind and found ~= 'none' then redis.call('DEL', KEYS[index]) end
end
local generation = redis.call('GET', KEYS[2])
if not generation or #generation > 18 or not string.match(generation, '^%d+$') then
  generation = string.format('%.0f', time[1] * 1000000 + time[2])
  redis.call('SET', KEYS[2], generation)
end
local known = redis.call('HEXISTS', KEYS[1], ARGV[1])
redis.call('HSET', KEYS[1], ARGV[1], string.format('%.0f %s %s', now, ARGV[2], ARGV[3]))
redis.call('EXPIRE', KEYS[1], ARGV[5])
local members = redis.call('HGETALL', KEYS[1])
for index = 1, #members, 2 do
  local beat = tonumber(string.match(members[index + 1], '^(%d+) %d+ ') or 0)
  if math.abs(now - beat) > tonumber(ARGV[4]) then
    redis.call('HDEL', KEYS[1], members[index])
  end
end
return {generation, known, string.format('%.0f', now), members}
"""


@dataclass(frozen=True, slots=True)
class Member:
    """A worker of a replica. ``age`` is the seconds since its last beat; ``address`` is empty for one without."""

    name: str
    address: str
    seen: int
    age: float


class Beat:
    """The beat of one worker. ``clock`` gives seconds that never go back.

    ``returned`` is called when Redis answers again, or has forgotten this worker: then it may have lost anything.
    """

    def __init__(
        self, client: RedisClient, address: str, clock: Callable[[], float], returned: Callable[[], None]
    ) -> None:
        self._client = client
        self._script = client.script(_BEAT)
        self._address = address
        self._clock = clock
        self._returned = returned
        self._name = f"{socket.gethostname()}/{os.getpid()}/{secrets.token_hex(4)}"
        self._asked_at = float("-inf")
        self._recalls_until = float("-inf")
        self._members: Sequence[Member] = ()
        self.moves = 0

    @property
    def in_sight(self) -> bool:
        """Whether tags in memory may be believed: the number of moves is known, or there is no Redis to ask."""
        return not self._client.up or self._clock() - self._asked_at <= BELIEVES_FOR

    def addresses(self) -> Sequence[str]:
        """Where other replicas can be asked; while Redis is away, where they were."""
        return sorted({one.address for one in self._members if one.age <= ALIVE_FOR} - {"", self._address})

    async def run(self) -> None:
        """Beat until cancelled."""
        while True:
            before = self.moves
            try:
                await self.once()
            except Exception:  # without its beat a worker would be alone for ever
                log.exception("a beat failed")
                await asyncio.sleep(BELIEVES_FOR)
            if self.moves == before:  # others may wait for word that the move was seen: it is given at once
                await asyncio.sleep(EVERY if self._client.up else AWAY_EVERY)

    async def once(self) -> None:
        """One beat. Never raises: where Redis does not answer, ``up`` of its client says so."""
        was_up, asked_at = self._client.up, self._clock()
        keywords = [keys.members(), keys.generation()]
        arguments = [self._name, str(self.moves), self._address, str(_GIVEN_UP_AFTER), str(_MEMBERS_LAST)]
        try:
            generation, known, now, members = await self._script(keywords, arguments, within=_WITHIN, probe=True)
            moves, found = int(generation), _members(members, int(now))
        except StoreError as error:
            if was_up:
                log.debug("no beat: %s", error)
            return
        if not known:
            self._recalls_until = asked_at + _RECALLED_FOR
        if asked_at < self._recalls_until:
            names = {one.name for one in found}
            recalled = [one for one in self._members if one.name not in names and abs(one.age) <= ALIVE_FOR]
            found = [*found, *recalled]
        if asked_at >= self._asked_at:  # else one that was sent later was answered before
            self.moves, self._members, self._asked_at = moves, found, asked_at
        forgotten = was_up and not known
        if forgotten:
            log.info("Redis has forgotten this replica: what it knows of tags and links is written back")
        if not was_up or forgotten:
            self._returned()

    async def seen_by_all(self) -> None:
        """Wait until every worker that could believe an outdated tag has seen the moves so far."""
        began = self._clock()
        await self.once()
        number = self.moves
        while self._client.up and self._clock() - began < _WAIT_AT_MOST:
            if not any(one.seen < number and one.age <= BELIEVES_FOR for one in self._others()):
                return
            await asyncio.sleep(_LOOK_AGAIN)
            await self.once()

    async def leave(self) -> None:
        """Tell the others that this worker is gone."""
        try:
            await self._client.call("HDEL", keys.members(), self._name)
        except StoreError as error:
            log.debug("no farewell: %s", error)

    def _others(self) -> Sequence[Member]:
        return [one for one in self._members if one.name != self._name]


def _members(fields: Sequence[bytes], now: int) -> Sequence[Member]:
    found = []
    for name, value in zip(fields[::2], fields[1::2], strict=True):
        with contextlib.suppress(ValueError, OverflowError):  # what is none goes with the next beat
            at, seen, address = value.decode().split(" ", 2)
            found.append(Member(name.decode(), address, int(seen), (now - int(at)) / 1000))
    return found
