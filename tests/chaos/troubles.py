"""What goes wrong, each as something that lasts for a while; and who brings it about, at random."""

import asyncio
import random
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager

from tests.chaos.library import Library
from tests.chaos.replica import Replica
from tests.support.faults import Fault
from tests.support.redis import RedisServer
from tests.support.upstream import FaultyUpstream

Trouble = AbstractAsyncContextManager[None]
Say = Callable[[str], None]
Draw = Callable[[random.Random], tuple[str, Trouble]]
"""Gives the next trouble, with its name."""

_LONGEST = 4.0
"""Seconds that a trouble lasts at most: more than the 3 s of a lease."""

_FAULTS = {
    "never answers": Fault(hang=True),
    "answers 500": Fault(status=500),
    "answers 429": Fault(status=429, retry_after=1),
    "answers 503 in HTML": Fault(status=503, html=True),
    "drops requests": Fault(drop=True),
    "is slow to answer": Fault(delay=0.7),
}
_BLOB_FAULTS = {
    "cuts blobs": Fault(cut_after=100_000),
    "resets in mid-blob": Fault(cut_after=300_000, reset=True),
    "stalls in mid-blob": Fault(stall_after=200_000),
}
_MANIFEST_FAULTS = {
    "sends manifests with a wrong bit": Fault(flip_at=20),
    "cuts manifests": Fault(cut_after=10),
}
_LIES = {
    "sends blobs with a wrong bit at their end": Fault(flip_at=-1),
    "sends blobs with a wrong bit": Fault(flip_at=500),
    "sends wrong blobs": Fault(tamper_from=500),
    "says that blobs are shorter": Fault(length_off_by=-10),
    "has the beginning of each blob": Fault(truncate_to=900),
}
_WAYS: Sequence[tuple[Mapping[str, Fault], str | None]] = (
    (_FAULTS, None),
    (_BLOB_FAULTS, "/blobs/"),
    (_MANIFEST_FAULTS, "/manifests/"),
    (_LIES, "/blobs/"),
    (_LIES, "/blobs/"),
)


def of_replicas(replicas: Sequence[Replica]) -> Draw:
    """A replica to which nothing happens just now is killed, stopped or left hanging."""

    def draw(chance: random.Random) -> tuple[str, Trouble]:
        replica = chance.choice(replicas)
        what = chance.choice(["is killed", "is killed in its start", "hangs", "is stopped"])
        if replica.busy:
            return f"{replica.name} is left alone", _nothing()
        trouble = {
            "is killed": replica.killed,
            "is killed in its start": replica.killed_in_its_start,
            "hangs": replica.hanging,
            "is stopped": replica.stopped,
        }[what]
        return f"{replica.name} {what}", trouble()

    return draw


def of_upstream(endpoints: Sequence[FaultyUpstream]) -> Draw:
    """One of the endpoints refuses, hangs, fails, cuts or lies; or all do."""

    def draw(chance: random.Random) -> tuple[str, Trouble]:
        number = chance.randrange(len(endpoints) + 1)
        those = endpoints if number == len(endpoints) else [endpoints[number]]
        who = "upstream" if number == len(endpoints) else f"endpoint {number}"
        if chance.random() < 0.2:
            return f"{who} refuses", _refusing(those)
        faults, path = chance.choice(_WAYS)
        name = chance.choice(list(faults))
        return f"{who} {name}", _injected(those, faults[name], path)

    return draw


def of_redis(server: RedisServer) -> Draw:
    """Redis is killed and comes back empty, hangs, forgets everything, or takes no writes."""

    def draw(chance: random.Random) -> tuple[str, Trouble]:
        what = chance.choice(["is killed", "hangs", "forgets everything", "takes no writes"])
        trouble = {
            "is killed": _killed,
            "hangs": _hanging,
            "forgets everything": _flushed,
            "takes no writes": _read_only,
        }[what]
        return f"Redis {what}", trouble(server)

    return draw


def of_authors(library: Library) -> Draw:
    """No trouble at all: somebody pushes."""

    def draw(chance: random.Random) -> tuple[str, Trouble]:
        return (library.add() if chance.random() < 0.2 else library.move()), _nothing()

    return draw


async def stir(draw: Draw, chance: random.Random, pause: float, over: asyncio.Event, say: Say) -> None:
    """One trouble after the other until it is ``over``, with a random pause of about ``pause`` seconds between them."""
    while not await _over_within(over, chance.uniform(0.2, 2.0) * pause):
        name, trouble = draw(chance)
        lasting = chance.uniform(0.1, _LONGEST)
        say(name)
        async with trouble:
            if not isinstance(trouble, _Nothing):
                await _over_within(over, lasting)
                say(f"{name}: no more")


async def _over_within(over: asyncio.Event, seconds: float) -> bool:
    try:
        async with asyncio.timeout(seconds):
            await over.wait()
    except TimeoutError:
        return False
    return True


class _Nothing(AbstractAsyncContextManager[None]):
    async def __aexit__(self, *_: object) -> None:
        pass


def _nothing() -> Trouble:
    return _Nothing()


@asynccontextmanager
async def _refusing(endpoints: Sequence[FaultyUpstream]) -> AsyncIterator[None]:
    for up in endpoints:
        up.refuse()
    try:
        yield
    finally:
        for up in endpoints:
            up.accept()


@asynccontextmanager
async def _injected(endpoints: Sequence[FaultyUpstream], fault: Fault, path: str | None) -> AsyncIterator[None]:
    rules = [up.inject(fault, path=path) for up in endpoints]
    try:
        yield
    finally:
        for rule in rules:
            rule.remove()


@asynccontextmanager
async def _killed(server: RedisServer) -> AsyncIterator[None]:
    await asyncio.to_thread(server.kill)
    try:
        yield
    finally:
        await asyncio.to_thread(server.start)


@asynccontextmanager
async def _hanging(server: RedisServer) -> AsyncIterator[None]:
    server.pause()
    try:
        yield
    finally:
        server.resume()


@asynccontextmanager
async def _flushed(server: RedisServer) -> AsyncIterator[None]:
    await asyncio.to_thread(server.flush)
    yield


@asynccontextmanager
async def _read_only(server: RedisServer) -> AsyncIterator[None]:
    await asyncio.to_thread(server.read_only, True)
    try:
        yield
    finally:
        await asyncio.to_thread(server.read_only, False)
