"""What the settings name is kept warm, and only what is new is said."""

import asyncio
import logging
from pathlib import Path

import pytest

from mirror.digest import Digest
from mirror.oci import Reference
from mirror.prewarming import Named
from mirror.store.leases import Leases
from mirror.warming import Result, Warmed
from tests.store.disk import data_in
from tests.support.artifacts import publish, raw, wasm_module
from tests.support.running import running
from tests.support.upstream import FaultyUpstream
from tests.support.waiting import eventually

REFERENCES = [Reference("up", f"team/plugin-{n}", tag="v1") for n in range(8)]


class Rounds:
    """What becomes of each reference in a round; a turn ends with a sleep, which the test counts."""

    def __init__(self, folder: Path, interval: float = 300.0) -> None:
        self.results = {one: Warmed(Result.HELD, Digest.of(b"1"), 0, 0.0) for one in REFERENCES}
        self.warmed: list[Reference] = []
        self.slept: list[float] = []
        self.go_on = asyncio.Semaphore(0)
        self.named = Named(REFERENCES, interval, self._warm, Leases(data_in(folder).leases), self._sleep)

    async def _warm(self, reference: Reference) -> Warmed:
        self.warmed.append(reference)
        return self.results[reference]

    async def _sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        await self.go_on.acquire()


async def test_only_what_is_new_is_said(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "mirror.prewarming")
    rounds = Rounds(tmp_path)

    async def said() -> list[tuple[str, str]]:
        caplog.clear()
        await rounds.named.turn()
        return [(record.levelname, record.getMessage()) for record in caplog.records]

    assert await said() == [("INFO", "prewarm.references: 8 of 8 are warm, 8 changed")]
    assert await said() == []
    rounds.results[REFERENCES[0]] = Warmed(Result.FETCHED, Digest.of(b"1"), 10, 0.1, "Envoy will not run it")
    assert await said() == []  # it was evicted, and is here again
    rounds.results[REFERENCES[1]] = Warmed(Result.FETCHED, Digest.of(b"2"), 10, 0.1)
    assert await said() == [("INFO", "prewarm.references: 8 of 8 are warm, 1 changed")]
    rounds.results[REFERENCES[2]] = Warmed(Result.FAILED, None, 0, 0.1, "upstream is down since 1 s")
    ((level, words),) = await said()
    assert level == "WARNING"
    assert words.endswith(f"7 of 8 are warm, 1 changed; {REFERENCES[2]} failed (upstream is down since 1 s)")
    rounds.results[REFERENCES[2]] = Warmed(Result.FAILED, None, 0, 0.1, "upstream is down since 2 s")
    assert await said() == []
    for one in REFERENCES:
        rounds.results[one] = Warmed(Result.REFUSED, Digest.of(b"3"), 0, 0.1, "they will")
    ((level, words),) = await said()
    assert words.count("refused (they will)") == 5
    assert words.endswith("and 3 more")


async def test_one_worker_does_it_at_the_start_and_every_interval(tmp_path: Path) -> None:
    first, second = Rounds(tmp_path), Rounds(tmp_path)
    working = asyncio.create_task(first.named.run())
    await eventually(lambda: first.slept, what="the end of the first round")
    waiting = asyncio.create_task(second.named.run())
    await eventually(lambda: second.slept, what="the other worker has looked")
    assert (first.slept, second.slept) == ([300.0], [1.0])
    assert (sorted(map(str, first.warmed)), second.warmed) == (sorted(map(str, REFERENCES)), [])
    first.go_on.release()
    await eventually(lambda: len(first.slept) == 2, what="the end of the next one")
    assert len(first.warmed) == 2 * len(REFERENCES)
    working.cancel()
    await asyncio.gather(working, return_exceptions=True)
    second.go_on.release()
    await eventually(lambda: second.warmed, what="the other worker takes over")
    waiting.cancel()
    await asyncio.gather(waiting, return_exceptions=True)


async def test_without_an_interval_it_is_done_once(tmp_path: Path) -> None:
    once, other = Rounds(tmp_path, 0.0), Rounds(tmp_path, 0.0)
    working = asyncio.create_task(once.named.run())
    await eventually(lambda: len(once.warmed) == len(REFERENCES), what="the round")
    waiting = asyncio.create_task(other.named.run())
    await eventually(lambda: other.slept, what="the other worker has looked")
    assert (once.slept, other.warmed) == ([], [])
    for task in (working, waiting):
        task.cancel()
    await asyncio.gather(working, waiting, return_exceptions=True)


async def test_what_the_settings_name_is_warm_from_the_start_and_its_tags_are_followed(tmp_path: Path) -> None:
    before, after = raw(wasm_module(1_000)), raw(wasm_module(1_000, seed=1))
    settings = {
        "names": ["mirror.example:5000"],
        "defaults": {"fresh_for": "0s"},
        "prewarm": {
            "references": ["oci://mirror.example:5000/up/team/plugin:v1", "up/team/absent:v1"],
            "interval": "1s",
        },
    }
    with FaultyUpstream() as up:
        publish(up, "team/plugin", "v1", before)
        async with running(tmp_path, {"up": up}, settings) as mirror:
            await mirror.until_held(before.layers[0])
            publish(up, "team/plugin", "v1", after)
            await mirror.until_held(after.layers[0])
