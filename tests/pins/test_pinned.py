"""What is pinned is known to all workers, and lost by none, whoever dies."""

import asyncio
import errno
import gc
import json
import logging
import os
import subprocess
import sys
from pathlib import Path

import pytest

from mirror.digest import Digest
from mirror.errors import DiskFull, StoreError
from mirror.oci import Reference
from mirror.pinned import Book
from mirror.store.pinfile import PinFile
from mirror.store.pins import Imported, Pin, Records
from tests.pins.book import book_in, pin

ROOT = Path(__file__).parents[2]
NAME = "up/team/plugin:1"
REFERENCE = Reference("up", "team/plugin", "1")


def names(book: Book) -> list[str]:
    return [pin.reference for pin in book.standing()]


async def test_two_workers_pin_at_once_and_lose_nothing(tmp_path: Path) -> None:
    one, other = book_in(tmp_path), book_in(tmp_path)
    mine, theirs = [f"up/one:{n}" for n in range(20)], [f"up/other:{n}" for n in range(20)]
    await asyncio.gather(*(pin(one, name) for name in mine), *(pin(other, name) for name in theirs))
    for book in (one, other):
        await book.look()
        assert names(book) == sorted(mine + theirs)


async def test_many_changes_at_once_are_written_together(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    written = 0

    def save(self: PinFile, records: Records) -> None:
        nonlocal written
        written += 1
        real(self, records)

    real = PinFile.save
    monkeypatch.setattr(PinFile, "save", save)
    book = book_in(tmp_path)
    await asyncio.gather(*(pin(book, f"up/one:{n}") for n in range(100)))
    assert len(names(book)) == 100
    assert written <= 3


async def test_other_workers_see_a_change_when_they_look(tmp_path: Path) -> None:
    one, other = book_in(tmp_path), book_in(tmp_path)
    await pin(one, NAME, b"content")
    assert names(other) == []
    assert await other.protected() == {str(Digest.of(b"content"))}
    assert names(other) == [NAME]
    assert other.covers(REFERENCE)
    assert other.is_pinned("up", "team/plugin", "1", Digest.of(b"else"))
    assert other.is_pinned("up", "elsewhere", None, Digest.of(b"content"))
    assert not other.is_pinned("up", "team/plugin", "2", Digest.of(b"else"))


async def test_what_was_imported_stands_in_as_long_as_it_is_that(tmp_path: Path) -> None:
    book, digest = book_in(tmp_path), Digest.of(b"1")
    await book.change(lambda _: [Imported(NAME, 1, digest)])
    assert book.covers(REFERENCE)
    assert book.covers(REFERENCE, digest)
    assert not book.covers(REFERENCE, Digest.of(b"2"))
    assert await book.protected() == set()


@pytest.mark.integration
def test_what_was_pinned_is_there_after_a_kill_at_any_moment(tmp_path: Path) -> None:
    """Two workers, killed in the middle; each has said what it was told to be pinned."""
    said = {"one": -1, "other": -1}
    workers = {
        name: subprocess.Popen(
            [sys.executable, "-m", "tests.pins.book", str(tmp_path), name, "1000"], cwd=ROOT, stdout=subprocess.PIPE
        )
        for name in said
    }
    for worker in workers.values():
        assert worker.stdout is not None
        for _ in range(15):
            worker.stdout.readline()
    for name, worker in workers.items():
        worker.kill()
        rest, _ = worker.communicate()
        said[name] = 14 + len(rest.splitlines())

    async def found() -> list[str]:
        return names(book_in(tmp_path))

    there = asyncio.run(found())
    for name, last in said.items():
        assert {f"up/{name}:{number}" for number in range(last + 1)} <= set(there)
        assert len([one for one in there if one.startswith(f"up/{name}:")]) <= last + 2


@pytest.mark.shows("the file of the pins is damaged or lost")
async def test_a_damaged_file_is_told_of_and_written_anew(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    book = book_in(tmp_path)
    await pin(book, NAME)
    (tmp_path / "pins").write_bytes(b"")
    (tmp_path / "pins.backup").write_bytes(b"damaged")
    await book.look()
    await book.look()
    assert names(book) == [NAME]  # this worker knows it
    assert [one.levelno for one in caplog.records] == [logging.ERROR]
    assert "is damaged, and so is its backup" in caplog.text
    assert book.is_damaged
    await book.change(lambda _: ())
    assert not book.is_damaged
    assert names(book_in(tmp_path)) == [NAME]


@pytest.mark.shows("the file of the pins is damaged or lost")
async def test_pins_that_cannot_be_read_let_nothing_be_evicted(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    book = book_in(tmp_path)
    await pin(book, NAME)
    (tmp_path / "pins").unlink()
    (tmp_path / "pins").mkdir()
    with pytest.raises(StoreError, match="cannot be read"):
        await book.protected()
    with pytest.raises(StoreError):
        await pin(book, "up/other:1")
    assert names(book) == [NAME]
    assert len(caplog.records) == 1
    (tmp_path / "pins").rmdir()
    assert len(await book.protected()) == 1
    await pin(book, "up/other:1")
    assert names(book_in(tmp_path)) == ["up/other:1", NAME]


async def test_a_full_disk_is_said_and_nothing_is_changed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    book = book_in(tmp_path)

    def save(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patched:
        patched.setattr(PinFile, "save", save)
        with pytest.raises(DiskFull, match="No space left"):
            await pin(book, NAME)
    assert names(book) == []
    await pin(book, NAME)
    assert names(book) == [NAME]


async def test_what_fails_after_its_caller_has_left_troubles_nobody(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    book = book_in(tmp_path)

    def save(*_: object) -> None:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    monkeypatch.setattr(PinFile, "save", save)
    leaving = asyncio.create_task(pin(book, NAME))
    await asyncio.sleep(0)
    leaving.cancel()
    await asyncio.gather(leaving, return_exceptions=True)
    await book.aclose()
    assert names(book) == []
    gc.collect()


async def test_what_is_missing_is_told_by_all_workers(tmp_path: Path) -> None:
    one, other = book_in(tmp_path), book_in(tmp_path)
    await one.tell_problems({NAME: "upstream is away"})
    await other.look()
    assert other.problem(NAME) == "upstream is away"
    (tmp_path / "pins.missing").write_text(json.dumps([1]))
    await other.look()
    assert other.problem(NAME) is None


async def test_old_tombstones_go_with_the_next_change(tmp_path: Path) -> None:
    book = book_in(tmp_path)
    await book.change(lambda _: [Pin(NAME, 1, "anna", stands=False)])
    await pin(book, "up/other:1")
    assert list(book.records.all) == ["pin up/other:1"]
