"""The last hour is the same whichever worker tells it, and whatever becomes of one of them."""

import asyncio
from collections.abc import Mapping
from pathlib import Path
from typing import cast

import pytest

from mirror import history
from mirror.exposition import Exposition
from mirror.history import History, PastFile, ends_after
from mirror.metrics import LOOKUPS, Snapshot
from mirror.steps import STEP
from mirror.store.leases import Leases
from tests.support.waiting import eventually

BEGAN = 1_700_000_000.0


class Mirror:
    """Workers that have looked up so much each, and a clock."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        (folder / "leases").mkdir()
        self.clock = 1000.0
        self.hits: dict[str, int] = {"0": 0, "1": 0}

    def worker(self, *, alone: bool = False) -> History:
        file = None if alone else PastFile(self.folder / "tallies" / "history.json")
        leases = Leases(self.folder / "leases")
        return History(cast(Exposition, self), leases, lambda: self.clock, lambda: BEGAN + self.clock, file)

    async def by_worker(self) -> Mapping[str, Snapshot]:
        return {name: {LOOKUPS.name: {("ghcr.io", "hit"): (float(hits),)}} for name, hits in self.hits.items()}


async def begun(worker: History) -> History:
    await worker.begin()
    return worker


async def told(worker: History) -> list[tuple[float, int]]:
    return [(step.at, step.counts.hit) for step in (await worker.past()).steps]


async def test_whichever_worker_ends_a_step_all_tell_it_alike(tmp_path: Path) -> None:
    mirror = Mirror(tmp_path)
    one, other = [await begun(mirror.worker()) for _ in range(2)]
    for ends_it in (one, other, other):
        mirror.clock += STEP
        mirror.hits["1"] += 3
        await ends_it.step()
    assert await told(one) == await told(other)
    assert await told(one) == [(BEGAN + 1000.0 + number * STEP, 3) for number in (1, 2, 3)]


async def test_workers_that_wake_up_together_end_the_step_once(tmp_path: Path) -> None:
    mirror = Mirror(tmp_path)
    workers = [await begun(mirror.worker()) for _ in range(4)]
    mirror.clock += STEP
    mirror.hits["0"] = 5
    for worker in workers:
        mirror.clock += 0.1
        await worker.step()
    assert [await told(worker) for worker in workers] == [[(BEGAN + 1030.1, 5)]] * 4


async def test_a_worker_that_is_started_anew_knows_the_hour_and_when_the_mirror_began(tmp_path: Path) -> None:
    mirror = Mirror(tmp_path)
    one = await begun(mirror.worker())
    mirror.clock += STEP
    mirror.hits["0"] = 5
    await one.step()
    mirror.clock += 10
    again = await begun(mirror.worker())
    assert await told(again) == await told(one)
    assert (await again.past()).began_at == (await one.past()).began_at == BEGAN + 1000.0
    mirror.clock += 20
    mirror.hits = {"0": 5, "1": 2}
    await again.step()
    assert [hits for _, hits in await told(one)] == [5, 2]


async def test_the_last_hour_has_what_came_a_moment_ago(tmp_path: Path) -> None:
    mirror = Mirror(tmp_path)
    one = await begun(mirror.worker(alone=True))
    mirror.hits = {"0": 2}
    assert (await one.last_hour()).hit == 2
    mirror.clock += STEP
    await one.step()
    mirror.hits = {"0": 7}
    assert (await one.last_hour()).hit == 7
    assert [hits for _, hits in await told(one)] == [2]


async def test_a_worker_alone_writes_nothing(tmp_path: Path) -> None:
    mirror = Mirror(tmp_path)
    one = await begun(mirror.worker(alone=True))
    mirror.clock += STEP
    await one.step()
    assert len(await told(one)) == 1
    assert not (tmp_path / "tallies").exists()


async def test_a_step_is_not_ended_again_at_once(tmp_path: Path) -> None:
    mirror = Mirror(tmp_path)
    one = await begun(mirror.worker(alone=True))
    for seconds in (STEP, 0.001, STEP / 3):
        mirror.clock += seconds
        await one.step()
    assert len(await told(one)) == 1


async def test_a_disk_that_fails_leaves_each_worker_its_own_hour_until_it_is_well_again(tmp_path: Path) -> None:
    mirror = Mirror(tmp_path)
    one, other = [await begun(mirror.worker()) for _ in range(2)]
    mirror.clock += STEP
    mirror.hits["0"] = 1
    await one.step()
    await other.past()
    folder = tmp_path / "tallies"
    folder.rename(tmp_path / "away")
    folder.write_text("no folder")
    mirror.clock += STEP
    mirror.hits["0"] = 3
    for worker in (one, other):
        await worker.step()
    assert [[hits for _, hits in await told(worker)] for worker in (one, other)] == [[1, 2], [1, 2]]
    folder.unlink()
    mirror.clock += STEP
    mirror.hits["0"] = 6
    await other.step()
    assert await told(one) == await told(other)
    assert [hits for _, hits in await told(one)] == [1, 2, 3]


async def test_a_worker_that_hangs_in_the_middle_of_it_holds_up_no_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(history, "_TURN_WITHIN", 0.01)
    mirror = Mirror(tmp_path)
    with Leases(tmp_path / "leases").attempt("history") as held:
        assert held
        one = await begun(mirror.worker())
        mirror.clock += STEP
        await one.step()
    assert len(await told(one)) == 1


@pytest.mark.parametrize("content", ["", "[]", "{", '{"began_at": 5, "looked": 9e9, "seen": {}, "steps": []}'])
async def test_a_file_that_means_nothing_is_begun_anew(tmp_path: Path, content: str) -> None:
    mirror = Mirror(tmp_path)
    (tmp_path / "tallies").mkdir()
    (tmp_path / "tallies" / "history.json").write_text(content)
    one = await begun(mirror.worker())
    assert await told(one) == []
    mirror.clock += STEP
    await one.step()
    assert await told(one) == await told(await begun(mirror.worker())) != []


@pytest.mark.parametrize(("now", "end"), [(0.0, 30.0), (29.999, 30.0), (30.0, 60.0), (1000.0, 1020.0)])
def test_steps_end_at_the_same_moment_for_all(now: float, end: float) -> None:
    assert ends_after(now) == end


async def test_it_goes_on_by_itself_until_it_is_stopped(tmp_path: Path) -> None:
    mirror = Mirror(tmp_path)
    mirror.clock = 1019.999
    one = await begun(mirror.worker(alone=True))
    mirror.clock = 1049.999  # so that what is slept is a thousandth of a second
    running = asyncio.create_task(one.run())

    async def ended() -> bool:
        return bool(await told(one))

    found: bool = await eventually(ended)
    assert found
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)
