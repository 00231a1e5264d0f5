"""Which server of a Redis has a key: the only one, the master that Sentinels name, or one of a Cluster.

`Topology.renew` is called whenever the Redis is looked for after a failure, and says by its errors, those of redis-py,
what is still missing.
"""

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Sequence
from typing import Any, Protocol, TypeVar

from redis.crc import REDIS_CLUSTER_HASH_SLOTS, key_slot
from redis.exceptions import AskError, AuthenticationError, MovedError, RedisError, ResponseError
from redis.exceptions import ConnectionError as RedisConnectionError

from mirror.config import redis as places
from mirror.config.models import MetadataSettings
from mirror.shared.connect import Command, Contexts, Server

_REDIRECTED_AT_MOST = 4

Address = tuple[str, int]
T = TypeVar("T")


class Topology(Protocol):
    """Where commands go. Raises the errors of redis-py."""

    async def exchange(self, commands: Sequence[Command]) -> list[Any]:
        """The answers to ``commands``, in their order, a `ResponseError` among them as a value."""
        ...

    def masters(self) -> Sequence[Server]:
        """The servers that together have all keys."""
        ...

    async def renew(self) -> None:
        """Look anew which servers there are, and make sure that they answer."""
        ...

    async def aclose(self) -> None:
        """Close all connections."""
        ...


def topology_of(settings: MetadataSettings) -> Topology:
    """What the URL in ``settings`` says; connects to nothing yet."""
    place = settings.place
    assert place is not None, "there is a Redis"
    match place.topology:
        case places.Topology.ALONE:
            return Alone(settings, place)
        case places.Topology.SENTINEL:
            return Watched(settings, place)
        case places.Topology.CLUSTER:
            return Cluster(settings, place)


async def _first(asked: Iterable[Awaitable[T | None]], otherwise: str) -> T:
    """The first answer of several servers that is not None: one that hangs holds nobody up.

    Without one, raises the last error, or one that says ``otherwise``.
    """
    failure: Exception = RedisConnectionError(otherwise)
    tasks = [asyncio.ensure_future(one) for one in asked]
    try:
        for answer in asyncio.as_completed(tasks):
            try:
                found = await answer
            except (RedisError, OSError) as error:
                failure = error
                continue
            if found is not None:
                return found
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
    raise failure


def _understood(parse: Callable[..., T], *answer: Any) -> T:
    """What ``parse`` makes of an answer; one that it cannot read is no Redis's."""
    try:
        return parse(*answer)
    except (ValueError, TypeError, AttributeError, LookupError):
        raise RedisConnectionError("what says where the servers are makes no sense") from None


def _named(answer: Any) -> Address:
    """The host and the port that a Sentinel names."""
    return answer[0].decode(), _port(int(answer[1]))


def _owners(rows: Any, asked: str) -> dict[int, Address]:
    """The master of each slot. One that does not know its own host is at the one that was ``asked``."""
    found: dict[int, Address] = {}
    for first, last, (host, port, *_), *_ in rows:
        name = host.decode() if host else ""
        slots = range(first, min(last, REDIS_CLUSTER_HASH_SLOTS - 1) + 1)
        found.update(dict.fromkeys(slots, (asked if name in ("", "?") else name, _port(port))))
    return found


def _port(number: int) -> int:
    if not 0 < number < 1 << 16:
        raise ValueError("that is no port")
    return number


class _Servers:
    """The servers that are known now. After a failure all begin anew: old connections may be dead, or lead astray."""

    def __init__(self, settings: MetadataSettings, place: places.RedisPlace) -> None:
        self._settings = settings
        self._contexts = Contexts(settings) if place.tls else None
        self._known: dict[tuple[Address, bool, int], Server] = {}
        self._closing: set[asyncio.Task[None]] = set()

    def at(self, address: Address, *, login: bool = True, database: int = 0) -> Server:
        """The server at ``address``."""
        key = (address, login, database)
        if key not in self._known:
            self._known[key] = Server(address, self._settings, self._contexts, login=login, database=database)
        return self._known[key]

    def begin_anew(self) -> None:
        """Forget all servers; what was under way there fails."""
        for server in self._known.values():
            closing = asyncio.create_task(server.aclose())
            self._closing.add(closing)
            closing.add_done_callback(self._closing.discard)
        self._known.clear()

    async def aclose(self) -> None:
        """Close all connections."""
        self.begin_anew()
        await asyncio.gather(*self._closing)


class Alone:
    """One server, or a name that leads to the one that is the master now."""

    def __init__(self, settings: MetadataSettings, place: places.RedisPlace) -> None:
        self._servers = _Servers(settings, place)
        self._place = place

    async def exchange(self, commands: Sequence[Command]) -> list[Any]:
        """See `Topology`."""
        (server,) = self.masters()
        return await server.exchange(commands)

    def masters(self) -> Sequence[Server]:
        """See `Topology`."""
        return [self._servers.at(self._place.servers[0], database=self._place.database)]

    async def renew(self) -> None:
        """See `Topology`."""
        self._servers.begin_anew()

    async def aclose(self) -> None:
        """See `Topology`."""
        await self._servers.aclose()


class Watched:
    """The master of a service that Sentinels watch.

    Source: https://redis.io/docs/latest/develop/reference/sentinel-clients/
    """

    def __init__(self, settings: MetadataSettings, place: places.RedisPlace) -> None:
        self._servers = _Servers(settings, place)
        self._place = place
        # A Sentinel may want the same login as Redis, or none; to one that wants none it would be an error.
        self._logins = (False, True) if settings.password_file is not None else (False,)
        self._master: Address | None = None

    async def exchange(self, commands: Sequence[Command]) -> list[Any]:
        """See `Topology`."""
        for server in self.masters():
            return await server.exchange(commands)
        raise RedisConnectionError("no Sentinel has named a master yet")

    def masters(self) -> Sequence[Server]:
        """See `Topology`."""
        return [] if self._master is None else [self._servers.at(self._master, database=self._place.database)]

    async def renew(self) -> None:
        """Ask all Sentinels at once who the master is."""
        self._servers.begin_anew()
        unknown = f"no Sentinel knows a master of the name {self._place.service}"
        self._master = await _first(map(self._ask, self._place.servers), unknown)

    async def aclose(self) -> None:
        """See `Topology`."""
        await self._servers.aclose()

    async def _ask(self, sentinel: Address) -> Address | None:
        question = ("SENTINEL", "GET-MASTER-ADDR-BY-NAME", self._place.service)
        for login in self._logins:
            try:
                (answer,) = await self._servers.at(sentinel, login=login).exchange([question])
            except AuthenticationError:
                if login is self._logins[-1]:
                    raise
                continue
            if isinstance(answer, ResponseError):
                raise answer
            return None if answer is None else _understood(_named, answer)
        return None


class Cluster:
    """A Redis Cluster: each master has a part of the 16384 slots.

    Source: https://redis.io/docs/latest/operate/oss_and_stack/reference/cluster-spec/
    """

    def __init__(self, settings: MetadataSettings, place: places.RedisPlace) -> None:
        self._servers = _Servers(settings, place)
        self._seeds = place.servers
        self._masters: dict[int, Address] = {}

    async def exchange(self, commands: Sequence[Command]) -> list[Any]:
        """See `Topology`. Commands for one server go there together, those for several at the same time."""
        parts: dict[Address, list[int]] = {}
        for number, command in enumerate(commands):
            parts.setdefault(self._address(command), []).append(number)
        answers: list[Any] = [None] * len(commands)

        async def part(address: Address, numbers: Sequence[int]) -> None:
            found = await self._servers.at(address).exchange([commands[number] for number in numbers])
            for number, answer in zip(numbers, found, strict=True):
                answers[number] = await self._followed(commands[number], answer)

        for outcome in await asyncio.gather(*(part(*one) for one in parts.items()), return_exceptions=True):
            if isinstance(outcome, BaseException):
                raise outcome
        return answers

    def masters(self) -> Sequence[Server]:
        """See `Topology`."""
        return [self._servers.at(address) for address in dict.fromkeys(self._masters.values())]

    async def renew(self) -> None:
        """Read the table of slots from any server, and see that each master answers."""
        self._servers.begin_anew()
        known = dict.fromkeys([*self._masters.values(), *self._seeds])
        self._masters = await _first(map(self._table, known), "no server of the Cluster has a slot")
        await asyncio.gather(*(server.exchange([("PING",)]) for server in self.masters()))

    async def aclose(self) -> None:
        """See `Topology`."""
        await self._servers.aclose()

    async def _followed(self, command: Command, answer: Any) -> Any:
        """The answer of the server that has the slot now, when another one was asked."""
        for _ in range(_REDIRECTED_AT_MOST):
            if isinstance(answer, AskError):  # the slot is on its way there; only this once
                _, answer = await self._servers.at((answer.host, answer.port)).exchange([("ASKING",), command])
            elif isinstance(answer, MovedError):
                self._masters[answer.slot_id] = (answer.host, answer.port)
                (answer,) = await self._servers.at((answer.host, answer.port)).exchange([command])
            else:
                break
        return answer

    def _address(self, command: Command) -> Address:
        key = command[3] if command[0] in ("EVALSHA", "EVAL") else command[1]
        slot = key_slot(key if isinstance(key, bytes) else str(key).encode())
        try:
            return self._masters[slot]
        except KeyError:
            raise RedisConnectionError(f"no server of the Cluster has slot {slot}") from None

    async def _table(self, address: Address) -> dict[int, Address] | None:
        """Which master has each slot, as one server says; None when it knows of none.

        Source: https://redis.io/docs/latest/commands/cluster-slots/
        """
        (rows,) = await self._servers.at(address).exchange([("CLUSTER", "SLOTS")])
        if isinstance(rows, ResponseError):
            raise rows
        return _understood(_owners, rows, address[0]) or None
