"""Leases: one holder at a time, on the whole disk, and none once it is dead."""

import asyncio
import errno
import fcntl
import os
from contextlib import ExitStack
from pathlib import Path

import pytest

from mirror.store.leases import Leases, try_lock
from tests.fill.workers import settled
from tests.store.disk import fail
from tests.store.process import process
from tests.support.waiting import eventually


def folder_in(path: Path) -> Path:
    """A folder for leases."""
    folder = path / "leases"
    folder.mkdir()
    return folder


async def test_one_holds_it_and_the_others_wait_their_turn(tmp_path: Path) -> None:
    folder = folder_in(tmp_path)
    holding = []
    most = 0

    async def hold(number: int) -> None:
        nonlocal most
        async with Leases(folder).hold("tag"):
            holding.append(number)
            most = max(most, len(holding))
            await settled()
            holding.remove(number)

    await asyncio.gather(*(hold(number) for number in range(10)))
    assert most == 1
    assert not list(folder.iterdir())


async def test_other_names_are_other_leases(tmp_path: Path) -> None:
    leases = Leases(folder_in(tmp_path))
    async with asyncio.timeout(5), leases.hold("tag one"), leases.hold("tag two"), leases.hold("../x/" * 100):
        pass


async def test_an_error_gives_it_back_and_so_does_a_stop(tmp_path: Path) -> None:
    folder = folder_in(tmp_path)
    with pytest.raises(ValueError, match="wrong"):
        async with Leases(folder).hold("tag"):
            raise ValueError("wrong")

    async def hold() -> None:
        async with Leases(folder).hold("tag"):
            await asyncio.Event().wait()

    holder, waiter = asyncio.create_task(hold()), asyncio.create_task(hold())
    await eventually(lambda: len(list(folder.iterdir())) == 1)
    waiter.cancel()
    holder.cancel()
    await asyncio.gather(holder, waiter, return_exceptions=True)
    async with asyncio.timeout(5), Leases(folder).hold("tag"):
        pass
    assert not list(folder.iterdir())


async def test_the_death_of_its_holder_frees_it(tmp_path: Path) -> None:
    folder = folder_in(tmp_path)
    with ExitStack() as stack:
        holder = stack.enter_context(process("hold-lease", folder, "tag"))
        assert try_lock(next(folder.iterdir())) is None
        taken = asyncio.Event()

        async def take() -> None:
            async with Leases(folder).hold("tag"):
                taken.set()

        taking = asyncio.create_task(take())
        await settled()
        assert not taken.is_set()
        holder.kill()
        await asyncio.wait_for(taking, 5)


def test_processes_that_come_and_go_never_hold_it_together(tmp_path: Path) -> None:
    """Each holder unlinks the file at its end, while others wait with the old one open."""
    folder = folder_in(tmp_path)
    (tmp_path / "number").write_text("0")
    with ExitStack() as stack:
        counters = [stack.enter_context(process("count-under-lease", folder, "30")) for _ in range(3)]
        for counter in counters:
            assert counter.stdin is not None
            counter.stdin.close()
            assert counter.wait(30) == 0
    assert (tmp_path / "number").read_text() == "90"


async def test_a_disk_without_leases_costs_no_pull(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    held = []
    async with Leases(tmp_path / "missing").hold("tag"):
        held.append("missing")
    folder = folder_in(tmp_path)
    with monkeypatch.context() as patch:
        fail(patch, "open", errno.EROFS)
        async with Leases(folder).hold("tag"):
            held.append("read-only")

    def no_locks(fd: int, how: int) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    with monkeypatch.context() as patch:
        patch.setattr(fcntl, "flock", no_locks)
        async with Leases(folder).hold("tag"):
            held.append("no locks")
    with monkeypatch.context() as patch:
        async with Leases(folder).hold("tag"):
            fail(patch, "unlink", errno.EROFS)
            held.append("read-only since")
    async with asyncio.timeout(5), Leases(folder).hold("tag"):
        held.append("well again")
    assert held == ["missing", "read-only", "no locks", "read-only since", "well again"]


def test_a_lock_on_a_file_that_has_lost_its_name_does_not_count(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "lock"
    flock = fcntl.flock
    took: list[int] = []

    def late(fd: int, how: int) -> None:
        if not took:
            path.unlink()  # by its last holder, after it was opened here
        took.append(fd)
        flock(fd, how)

    monkeypatch.setattr(fcntl, "flock", late)
    fd = try_lock(path)
    assert fd is not None
    assert len(took) == 2
    assert os.fstat(fd).st_ino == path.stat().st_ino
    os.close(fd)


async def test_a_disk_that_fails_meanwhile_does_not_hide_that_the_work_is_stopped(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    leases, held = Leases(tmp_path), asyncio.Event()

    def failing(path: Path, missing_ok: bool = False) -> None:
        raise OSError(errno.EROFS, "Read-only file system")

    async def work() -> None:
        with leases.attempt("x") as mine:
            assert mine
            held.set()
            await asyncio.Event().wait()

    task = asyncio.create_task(work())
    await held.wait()
    monkeypatch.setattr(Path, "unlink", failing)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    monkeypatch.undo()
    with leases.attempt("x") as mine:
        assert mine, "it is free"
