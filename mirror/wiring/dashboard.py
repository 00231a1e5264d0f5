"""What an open dashboard shows, and who looks at it."""

import asyncio
import contextlib
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass

from pydantic import BaseModel
from starlette.types import Message

from mirror.around import run_within
from mirror.contents import Contents
from mirror.edge.api.events import ModulesMoved
from mirror.edge.api.operation import Call, Operation
from mirror.edge.api.overview import Overview, point_of
from mirror.history import History, PastFile
from mirror.moved import Moved
from mirror.names import Names
from mirror.stock import Stocktaking
from mirror.store.leases import Leases
from mirror.watching import Seen, Subject, Watching
from mirror.wiring.ground import Ground

_SHOWN = ("overview", "upstreams", "fills", "replicas", "prewarm")
"""The operations whose answers are told again when they have changed."""

_MOVED_EVERY = 2.0


@dataclass(frozen=True, slots=True)
class Looks:
    """What is on the disk, and what came in the last hour; ``moved``: whether the list of modules has changed."""

    stock: Stocktaking
    history: History
    moved: Moved


async def looks_of(stack: contextlib.AsyncExitStack, ground: Ground) -> Looks:
    """What is looked at; it ends with ``stack``."""
    clock = asyncio.get_running_loop().time
    directory, leases = ground.directory, Leases(ground.directory.leases)
    file = PastFile(directory.tallies / "history.json") if ground.settings.workers > 1 else None
    history = History(ground.exposition, leases, clock, time.time, file)
    await history.begin()
    run_within(stack, history.run())
    catalogue = ground.catalogue
    stock = Stocktaking(
        directory,
        ground.census,
        Contents(directory),
        ground.book.protected,
        catalogue,
        lambda: None if catalogue is None else catalogue.damage,
        clock,
    )
    stack.push_async_callback(stock.aclose)
    moved = Moved(ground.exposition, ground.book, directory)
    stack.callback(moved.close)
    return Looks(stock, history, moved)


def watching_of(
    stack: contextlib.AsyncExitStack, looks: Looks, operations: Sequence[Operation], names: Names
) -> Watching:
    """Who looks at it for all who listen; ends with ``stack``. ``operations`` are those of the admin API."""
    shown: Mapping[str, Operation] = {one.path: one for one in operations if one.method == "GET"}
    subjects = {kind: Subject(_answer_of(shown[kind], names)) for kind in _SHOWN}

    async def point() -> Seen:
        past = await looks.history.past()
        if not past.steps:
            return Seen(b"", None)
        latest = point_of(past.steps[-1])
        return Seen(latest.model_dump_json().encode(), latest)

    async def modules() -> Seen:
        moved = ModulesMoved(changed=await looks.moved.changes())
        return Seen(moved.model_dump_json().encode(), moved)

    subjects["point"] = Subject(point, at_once=False)
    subjects["modules"] = Subject(modules, every=_MOVED_EVERY, at_once=False)
    watching = Watching(subjects)
    stack.push_async_callback(watching.aclose)
    return watching


def _answer_of(operation: Operation, names: Names) -> Callable[[], Awaitable[Seen]]:
    """What the operation would answer now; the time of day is no news."""
    call = Call({"type": "http", "method": "GET", "headers": []}, _nothing_more, names, {}, "an open page")

    async def look() -> Seen:
        answer = await operation.handler(call)
        assert isinstance(answer, BaseModel), operation.path
        data = answer.model_dump_json(by_alias=True).encode()
        if isinstance(answer, Overview):
            return Seen(data, answer.model_copy(update={"now": 0.0}))
        return Seen(data, data)

    return look


async def _nothing_more() -> Message:
    return {"type": "http.disconnect"}
