"""Commands to the Redis that replicas share, and the one answer to the question whether it is there.

Nobody waits long: a command that is not answered in time is given up, and from then on all fail at once until a probe
succeeds (`mirror.cluster.beat` sends one a few times a second).
"""

import asyncio
import functools
import hashlib
import logging
import re
from collections.abc import AsyncIterator, Callable, Coroutine, Sequence
from typing import Any, Self, TypeVar

from redis.exceptions import ClusterDownError, NoScriptError, OutOfMemoryError, ReadOnlyError, RedisError, ResponseError
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import TimeoutError as RedisTimeoutError

from mirror.config.models import MetadataSettings
from mirror.errors import StoreError
from mirror.shared.connect import Command, Server, Word
from mirror.shared.patience import limit
from mirror.shared.topology import Topology, topology_of

log = logging.getLogger(__name__)

_WITHIN = 0.5
_PORTION = 500

# Answers that mean: not this server, or not now. Older ones put the code into the middle of a script's error.
_AWAY = re.compile(r"\b(READONLY|LOADING|MASTERDOWN|CLUSTERDOWN|NOREPLICAS|OOM|MISCONF|NOAUTH|WRONGPASS)\b")
_PLACE_IN_SCRIPT = re.compile(r" script: [0-9a-f]{40}, on @user_script:\d+")  # tells an operator nothing
_AWAY_TYPES = (
    RedisConnectionError,
    RedisTimeoutError,
    OSError,
    ReadOnlyError,
    ClusterDownError,
    OutOfMemoryError,
)

T = TypeVar("T")


class RedisClient:
    """Commands to the Redis that replicas share. Every failure is a `StoreError`; ``up`` says whether it answers.

    Answers are bytes, numbers, None and lists of these. ``within`` is in seconds.
    """

    def __init__(self, topology: Topology, where: str) -> None:
        self._topology = topology
        self._where = where
        self._returns = 0  # how often it came back: a failure from before says nothing about now
        self._said = False
        self._running = 0
        self._idle = asyncio.Event()
        self._closed = False
        self.up = False

    @classmethod
    def of(cls, settings: MetadataSettings) -> Self:
        """For the Redis that ``settings`` name; connects when it is first asked."""
        return cls(topology_of(settings), settings.url)

    async def call(self, *command: Word, within: float = _WITHIN) -> Any:
        """The answer to one command. Its key is its first argument."""
        (answer,) = await self.pipeline([command], within)
        return answer

    async def pipeline(self, commands: Sequence[Command], within: float = _WITHIN) -> list[Any]:
        """The answers to several commands, sent together; not atomic, their keys may lie in any slots."""
        return await self._run(functools.partial(self._exchange, commands), within)

    def script(self, source: str) -> "Script":
        """A script that runs atomically at the server."""
        return Script(self, source)

    async def scan(self, pattern: str, kind: str = "hash", within: float = _WITHIN) -> AsyncIterator[list[str]]:
        """All keys of a ``kind`` (a type of Redis) that match ``pattern``, in portions.

        One may come twice, and new ones be left out.
        """
        for server in self._topology.masters():
            cursor: bytes = b"0"
            while True:
                command = ("SCAN", cursor, "MATCH", pattern, "COUNT", _PORTION, "TYPE", kind)
                cursor, found = await self._run(functools.partial(_single, server, command), within)
                if found:
                    yield [key.decode(errors="replace") for key in found]
                if cursor == b"0":
                    break

    async def aclose(self) -> None:
        """Finish what is under way, and close all connections."""
        while self._running:
            self._idle.clear()
            await self._idle.wait()
        self._closed, self.up = True, False
        await self._topology.aclose()

    async def evaluate(self, script: "Script", tail: Sequence[Word], within: float, probe: bool) -> Any:
        """Run ``script`` with what follows its name in a command; see `Script`."""

        async def work() -> Any:
            if not self.up:
                await self._topology.renew()
            try:
                (answer,) = await self._exchange([("EVALSHA", script.sha, *tail)])
            except NoScriptError:
                (answer,) = await self._exchange([("EVAL", script.source, *tail)])
            return answer

        return await self._run(work, within, probe=probe)

    async def _exchange(self, commands: Sequence[Command]) -> list[Any]:
        answers = await self._topology.exchange(commands)
        for answer in answers:
            if isinstance(answer, ResponseError):
                raise answer
        return answers

    async def _run(self, work: Callable[[], Coroutine[Any, Any, T]], within: float, *, probe: bool = False) -> T:
        """Do ``work`` if Redis is there, or as a probe whether it is; what its outcome says about that is noted."""
        if self._closed or not (self.up or probe):
            raise StoreError(f"Redis at {self._where} does not answer")
        returns, began = self._returns, asyncio.get_running_loop().time()
        self._running += 1
        try:
            async with limit(within):
                result = await work()
        except TimeoutError as error:
            silent = probe or any(server.silent_since(began) for server in self._topology.masters())
            raise self._failed(f"no answer within {within:g} s", returns, away=silent) from error
        except (RedisError, OSError) as error:
            away = probe or isinstance(error, _AWAY_TYPES) or _AWAY.search(str(error)) is not None
            reason = _PLACE_IN_SCRIPT.sub("", str(error)).strip(" .")
            raise self._failed(reason or type(error).__name__, returns, away=away) from error
        finally:
            self._running -= 1
            if not self._running:
                self._idle.set()
        if probe and not self.up and not self._closed:
            self._returned()
        return result

    def _returned(self) -> None:
        self.up = True
        self._returns += 1
        log.info("Redis at %s answers%s", self._where, " again" if self._said else "")
        self._said = True

    def _failed(self, reason: str, returns: int, *, away: bool) -> StoreError:
        if away and returns == self._returns and not self._closed:
            if self.up or not self._said:
                log.warning("Redis at %s is not there: %s; this replica goes on alone", self._where, reason)
            self.up, self._said = False, True
        return StoreError(f"Redis at {self._where}: {reason}")


class Script:
    """A Lua script: the server is told its hash, and its text when it does not know it."""

    def __init__(self, client: RedisClient, source: str) -> None:
        self._client = client
        self.source = source
        self.sha = hashlib.sha1(source.encode(), usedforsecurity=False).hexdigest()

    async def __call__(
        self, keys: Sequence[str], args: Sequence[Word], within: float = _WITHIN, probe: bool = False
    ) -> Any:
        """Its answer; ``keys`` lie in one slot. A ``probe`` is sent even while Redis is away, to see whether it is."""
        return await self._client.evaluate(self, [len(keys), *keys, *args], within, probe)


async def _single(server: Server, command: Command) -> Any:
    (answer,) = await server.exchange([command])
    if isinstance(answer, ResponseError):
        raise answer
    return answer
