"""A job goes on whatever befalls who does it, is known to all workers, and does nothing twice."""

import asyncio
import contextlib
import errno
import itertools
import json
import logging
import os
from collections.abc import AsyncIterator, Sequence
from pathlib import Path

import pytest

from mirror.desk import Desk, Event
from mirror.errors import DiskFull, NotFound, TooMany
from mirror.job import Outcome, Summary, Underway
from mirror.jobs import MOST_RUNNING, Jobs
from mirror.running import Running
from mirror.store.jobs import JobFolder
from mirror.store.leases import Leases
from mirror.warming import Result, Warmed
from tests.store.disk import data_in, fail
from tests.support.waiting import eventually

GOOD = Warmed(Result.FETCHED, None, 10, 0.1)


class Worker:
    """A worker of a mirror at ``folder``: does one reference after the other, each when it may."""

    def __init__(self, folder: Path, tells: bool = True) -> None:
        self.directory = data_in(folder)
        self.did: list[str] = []
        self.may = asyncio.Semaphore(0)
        self.jobs = Jobs(
            JobFolder(self.directory.jobs),
            Leases(self.directory.leases),
            self._work,
            lambda: f"{next(_TOKENS):04x}",
            lambda: 1_000_000.0 + next(_TOKENS),
            tells=tells,
        )
        self.desk = Desk(self.jobs, None, "", asyncio.get_running_loop().time)

    async def begin(self, *references: str) -> str:
        """A job, by its id."""
        summary = await self.jobs.begin(references, "somebody", pin=False, parallel=1, platforms=["all"])
        assert (summary.state, summary.total, summary.done) == ("running", len(references), 0)
        return summary.job

    def let(self, count: int = 1) -> None:
        """Let so many more references be done."""
        for _ in range(count):
            self.may.release()

    async def state(self, job: str) -> tuple[str, int]:
        summary = await self.jobs.views.summary(job)
        return summary.state, summary.done

    async def until(self, job: str, state: str, done: int) -> None:
        async def is_so() -> bool:
            return await self.state(job) == (state, done)

        found: bool = await eventually(is_so, what=f"{job} is {state}, {done} are done")
        assert found

    async def outcomes(self, job: str) -> list[str]:
        return [outcome.reference for outcome in (await self.desk.job(job))[1]]

    async def _work(self, running: Running) -> None:
        for number, text in enumerate(running.order.references):
            if number not in running.account.finished:
                running.underway[number, None] = Underway(text, None, 5, 10)
                await self.may.acquire()
                self.did.append(text)
                if None not in running.account.heard.get(number, ()):
                    running.add(Outcome(number, text, GOOD))
                running.done(number)


_TOKENS = itertools.count()


@contextlib.asynccontextmanager
async def worker(folder: Path) -> AsyncIterator[Worker]:
    one = Worker(folder)
    try:
        yield one
    finally:
        await one.jobs.aclose()


async def told(events: AsyncIterator[Event]) -> list[Event]:
    return [event async for event in events if event is not None]


def results(events: Sequence[Event]) -> list[tuple[int, str]]:
    return [(event[0], event[1].reference) for event in events if isinstance(event, tuple)]


async def test_what_is_not_done_is_done_by_the_next_worker_and_nothing_twice(tmp_path: Path) -> None:
    async with worker(tmp_path) as first:
        job = await first.begin("a", "b", "c")
        first.let(1)
        await first.until(job, "running", 1)
    async with worker(tmp_path) as second:
        assert await second.state(job) == ("running", 1)
        await second.jobs.turn()
        second.let(5)
        await second.until(job, "done", 3)
        assert (first.did, second.did) == (["a"], ["b", "c"])
        assert await second.outcomes(job) == ["a", "b", "c"]
        await second.jobs.turn()
    assert second.did == ["b", "c"]


async def test_of_what_is_half_done_only_the_rest_is_done(tmp_path: Path) -> None:
    async with worker(tmp_path) as first:
        job = await first.begin("a", "b")
        first.let(1)
        await first.until(job, "running", 1)
    path = first.directory.jobs / f"{job}.jsonl"
    path.write_text("".join(line for line in path.read_text().splitlines(keepends=True) if "done" not in line))
    async with worker(tmp_path) as second:
        await second.jobs.turn()
        second.let(2)
        await second.until(job, "done", 2)
        assert await second.outcomes(job) == ["a", "b"]  # what came of "a" here is not said again


async def test_a_job_is_done_by_one_worker_at_a_time(tmp_path: Path) -> None:
    async with worker(tmp_path) as first, worker(tmp_path) as second:
        job = await first.begin("a", "b")
        await second.jobs.turn()
        first.let(2)
        second.let(2)
        await second.until(job, "done", 2)
        assert (first.did, second.did) == (["a", "b"], [])


async def test_another_worker_follows_a_job_and_hears_what_is_under_way(tmp_path: Path) -> None:
    async with worker(tmp_path) as first, worker(tmp_path) as second:
        job = await first.begin("a", "b", "c")
        followers = [asyncio.create_task(told(one.desk.follow(None, job, 0))) for one in (first, second)]
        late = asyncio.create_task(told(second.desk.follow(None, job, 2)))
        underway = second.desk.follow(None, job, 0)
        async for event in underway:
            if isinstance(event, Underway):
                assert event == Underway("a", None, 5, 10)
                break
        first.let(3)
        for events in await asyncio.gather(*followers):
            assert results(events) == [(1, "a"), (2, "b"), (3, "c")]
            assert isinstance(events[-1], Summary)
            assert (events[-1].state, events[-1].counts["fetched"]) == ("done", 3)
        assert results(await late) == [(3, "c")]


async def test_any_worker_cancels_a_job_and_what_is_cancelled_stays_so(tmp_path: Path) -> None:
    async with worker(tmp_path) as first, worker(tmp_path) as second:
        jobs = [await first.begin("a", "b") for _ in range(2)]
        assert [(await one.jobs.cancel(job)).state for one, job in zip((first, second), jobs, strict=True)] == [
            "cancelled"
        ] * 2
        assert (await second.jobs.cancel(jobs[0])).state == "cancelled"
        with pytest.raises(NotFound, match="no job 'nothing'"):
            await second.jobs.cancel("nothing")
    async with worker(tmp_path) as third:
        await third.jobs.turn()
        third.let(2)
        assert [(await third.state(job))[0] for job in jobs] == ["cancelled"] * 2
    assert third.did == []


async def test_who_is_asked_to_cancel_while_nobody_works_is_heard_by_who_goes_on(tmp_path: Path) -> None:
    async with worker(tmp_path) as first:
        job = await first.begin("a")
    first.directory.jobs.joinpath(f"{job}.cancel").touch()
    async with worker(tmp_path) as second:
        await second.jobs.turn()
        await second.until(job, "cancelled", 0)


async def test_a_full_disk_does_not_stop_a_job_and_those_who_follow_hear_of_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("mirror.running._AGAIN_AFTER", 0.01)
    async with worker(tmp_path) as one:
        job = await one.begin("a", "b")
        with monkeypatch.context() as patch:
            fail(patch, "ftruncate", errno.ENOSPC)
            events: list[Event] = []
            async for event in one.desk.follow(None, job, 0):
                if not events or isinstance(event, tuple):  # one after the other
                    one.let()
                if event is not None:
                    events.append(event)
            assert results(events) == [(1, "a"), (2, "b")]
            assert isinstance(events[-1], Summary)
            with pytest.raises(DiskFull, match="make room"):
                await one.begin("c")
        path = one.directory.jobs / f"{job}.jsonl"
        await eventually(lambda: '"end":"done"' in path.read_text(), what="the end is written down")
        assert await one.outcomes(job) == ["a", "b"]
        assert [line.get("n") for line in map(json.loads, path.read_text().splitlines())] == [
            None,
            0,
            None,
            1,
            None,
            None,
        ]


async def test_so_many_jobs_run_at_a_time_and_no_more(tmp_path: Path) -> None:
    async with worker(tmp_path) as one, worker(tmp_path) as other:
        jobs = [await one.begin("a") for _ in range(MOST_RUNNING)]
        with pytest.raises(TooMany, match="cancel one"):
            await other.begin("a")
        await one.jobs.cancel(jobs[0])
        await other.begin("a")


async def test_the_last_jobs_are_kept_and_no_running_one_is_let_go(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("mirror.jobs._KEPT", 3)
    async with worker(tmp_path) as one:
        runs = await one.begin("runs")
        ended = []
        for _ in range(6):
            job = await one.begin("a")
            await one.jobs.cancel(job)
            ended.append(job)

        async def the_first_are_gone() -> bool:
            return [summary.job for summary in await one.jobs.views.all()] == [*reversed(ended[-3:]), runs]

        gone: bool = await eventually(the_first_are_gone, what="only the last ones are kept")
        assert gone
        with pytest.raises(NotFound):
            await one.jobs.views.summary(ended[0])


async def test_what_a_crash_left_of_a_first_line_is_no_job(tmp_path: Path) -> None:
    async with worker(tmp_path) as one:
        one.directory.jobs.mkdir()
        (one.directory.jobs / "20260101-000000-aa.jsonl").write_bytes(b'{"v":1,"job":')
        await one.jobs.turn()
        assert list(one.directory.jobs.iterdir()) == []


async def test_a_job_of_a_release_to_come_is_left_alone(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.WARNING, "mirror.jobs")
    async with worker(tmp_path) as one:
        one.directory.jobs.mkdir()
        file = one.directory.jobs / "20260101-000000-aa.jsonl"
        file.write_bytes(b'{"v":2,"job":"20260101-000000-aa"}\n')
        for _ in range(3):
            await one.jobs.turn()
        assert file.read_bytes().endswith(b"\n")
        assert await one.jobs.views.all() == []
        assert len(caplog.messages) == 1


async def test_lines_are_durable_before_anybody_hears_of_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async with worker(tmp_path) as one:
        job = await one.begin("a")
        synced: list[int] = []
        fsync = os.fsync

        def recorded(fd: int) -> None:
            fsync(fd)
            synced.append(os.fstat(fd).st_size)

        monkeypatch.setattr(os, "fsync", recorded)
        one.let()
        async for event in one.desk.follow(None, job, 0):
            if isinstance(event, tuple):
                break
        path = one.directory.jobs / f"{job}.jsonl"
        lines = path.read_bytes().splitlines(keepends=True)
        assert synced
        assert synced[-1] >= len(b"".join(lines[:2]))
