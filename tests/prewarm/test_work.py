"""A job's references are warmed so many at a time, here and then elsewhere; what fails, fails alone."""

import asyncio
from collections.abc import Collection
from pathlib import Path
from typing import Any, cast

import pytest

from mirror.digest import Digest
from mirror.errors import NameInvalid, StoreError
from mirror.fellows import Fellows
from mirror.job import Account, Line, Order
from mirror.metrics import Metrics
from mirror.oci import Reference
from mirror.prewarming import Prewarming
from mirror.running import Running
from mirror.store.jobs import JobFolder, line_of, parsed
from mirror.warming import Result, Warmed, Warmer

GOOD = Warmed(Result.FETCHED, Digest.of(b"1"), 1, 0.1)


class World:
    """A replica, those around it, and its pins."""

    def __init__(self, *alive: str) -> None:
        self.alive = list(alive)
        self.did: list[str] = []
        self.at_once = self.most = 0
        self.results: dict[str, Warmed | Exception] = {}

    async def warm(self, *arguments: object) -> Warmed:
        """As `Warmer.warm`, or as `Fellows.warm`, whose first argument is an address."""
        *address, reference, _, _ = arguments
        where = f"{reference}{f' at {address[0]}' if address else ''}"
        self.at_once += 1
        self.most = max(self.most, self.at_once)
        await asyncio.sleep(0)
        self.at_once -= 1
        self.did.append(where)
        result = self.results.get(where, GOOD)
        if isinstance(result, Exception):
            raise result
        return result

    async def pin(self, reference: Reference, by: str) -> None:
        self.did.append(f"pin {reference} by {by}")
        if isinstance(result := self.results.get(f"pin {reference}"), Exception):
            raise result

    async def work(self, folder: Path, *references: str, done: Collection[Line] = (), **more: Any) -> list[Line]:
        """The lines that the log of a job has after its first one, and those in ``done``."""
        account = Account(Order("1", 1.0, "me", references, **more))
        for line in done:
            account.read(line)
        jobs = JobFolder(folder / "jobs")
        running = Running(account, jobs.create("1", line_of(account.order.line())), 1)
        prewarming = Prewarming(cast(Warmer, self), self, _parse, cast(Fellows, self), Metrics())
        saving = asyncio.create_task(running.save())
        await prewarming.work(running)
        assert not running.underway
        running.end("done", 2.0)
        await saving
        running.close()
        lines = [parsed(line) for line in (folder / "jobs" / "1.jsonl").read_bytes().splitlines()]
        return lines[1:-1]


def _parse(text: str) -> Reference:
    if not text.startswith("up/"):
        raise NameInvalid("it is none")
    return Reference("up", text[3:], tag="1")


def told(lines: list[Line]) -> list[tuple[int, str | None, str]]:
    return [(line["n"], line["replica"], line["result"]) for line in lines if "n" in line]


async def test_each_is_warm_here_before_the_others_are_asked(tmp_path: Path) -> None:
    world = World("a", "b")
    lines = await world.work(tmp_path, "up/x", parallel=1)
    assert world.did == ["up/x:1", "up/x:1 at a", "up/x:1 at b"]
    assert told(lines) == [(0, None, "fetched"), (0, "a", "fetched"), (0, "b", "fetched")]
    assert lines[-1] == {"done": 0}


@pytest.mark.parametrize("parallel", [1, 3])
async def test_no_more_are_warmed_at_a_time_than_was_asked_for(tmp_path: Path, parallel: int) -> None:
    world = World()
    lines = await world.work(tmp_path, *(f"up/{n}" for n in range(10)), parallel=parallel)
    assert world.most == parallel
    assert sorted(told(lines)) == [(n, None, "fetched") for n in range(10)]


async def test_what_is_held_is_pinned_and_what_is_not_is_not(tmp_path: Path) -> None:
    world = World()
    for name, result in (("refused", Result.REFUSED), ("held", Result.HELD), ("failed", Result.FAILED)):
        world.results[f"up/{name}:1"] = Warmed(result, None, 0, 0.1)
    world.results["pin up/full:1"] = StoreError("there is no room")
    lines = await world.work(tmp_path, *(f"up/{name}" for name in ("refused", "held", "failed", "full")), pin=True)
    assert [did for did in world.did if "pin" in did] == [
        f"pin up/{one}:1 by me" for one in ("refused", "held", "full")
    ]
    assert sorted(told(lines)) == [(0, None, "refused"), (1, None, "held"), (2, None, "failed"), (3, None, "failed")]
    (why,) = [line["why"] for line in lines if line.get("n") == 3]
    assert why == "it is here, and could not be pinned: there is no room"


async def test_what_fails_fails_alone_a_fault_of_the_mirror_too(tmp_path: Path) -> None:
    world = World("a")
    world.results["up/bug:1"] = RuntimeError("a bug")
    world.results["up/worse:1 at a"] = RuntimeError("another")
    lines = await world.work(tmp_path, "none", "up/bug", "up/worse", "up/good", parallel=2)
    assert set(told(lines)) == {
        (0, None, "failed"),
        (1, None, "failed"),
        (1, "a", "fetched"),
        (2, None, "fetched"),
        (2, None, "failed"),
        (3, None, "fetched"),
        (3, "a", "fetched"),
    }
    assert sorted(line["done"] for line in lines if "done" in line) == [0, 1, 2, 3]


async def test_who_goes_on_does_what_is_left_and_asks_who_has_not_answered(tmp_path: Path) -> None:
    world = World("a", "b", "c")
    first = World("a", "b")
    (tmp_path / "first").mkdir()
    lines = await first.work(tmp_path / "first", "up/x", "up/y", parallel=1)
    left = [line for line in lines if line != {"done": 1} and (line.get("n"), line.get("replica")) != (1, "b")]
    again = await world.work(tmp_path, "up/x", "up/y", done=left, parallel=1)
    assert world.did == ["up/y:1 at b", "up/y:1 at c"]
    assert [line for line in again if "done" in line] == [{"done": 1}]
