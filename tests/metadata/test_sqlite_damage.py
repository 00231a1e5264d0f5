"""A damaged database: found, set aside with a loud error, restored or salvaged, and never the end of a request."""

import asyncio
import logging
import os
import random
import sqlite3
import subprocess
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from mirror.digest import Digest
from mirror.errors import StoreError
from mirror.metadata import recovery, schema, sqlite
from mirror.metadata.base import Unpacked
from mirror.metadata.schema import Damaged
from mirror.metadata.sqlite import SqliteMetadata
from tests.metadata.databases import (
    LINK,
    NAME,
    TAG,
    damage_in_service,
    files,
    fill,
    opened,
    overwrite,
    raw,
    root_page,
    set_aside,
    surviving,
    take_in_log,
)

COUNT = 2000
OTHER = Digest.of(b"other")
OLD_ROW = (TAG.upstream, TAG.repository, TAG.tag, str(TAG.digest), TAG.media_type, TAG.size, TAG.fetched_at)


def garbage_header(path: Path) -> None:
    """Not recognized as a database."""
    overwrite(path, 0, random.Random(1).randbytes(100))


def zero_first_page(path: Path) -> None:
    """The schema is gone."""
    overwrite(path, 0, bytes(4096))


def truncate_to_half(path: Path) -> None:
    """Pages are missing."""
    os.truncate(path, path.stat().st_size // 2 // 4096 * 4096)


def truncate_to_a_few_bytes(path: Path) -> None:
    """Less than a header."""
    os.truncate(path, 10)


def truncate_to_nothing(path: Path) -> None:
    """To SQLite, an empty file is an empty database."""
    os.truncate(path, 0)


def zero_root_of_tags(path: Path) -> None:
    """All tags are out of reach, and nothing else."""
    overwrite(path, root_page(path, "tag"), bytes(4096))


def garbage_in_the_middle(path: Path) -> None:
    """Some pages are noise."""
    overwrite(path, path.stat().st_size // 2 // 4096 * 4096, random.Random(2).randbytes(8192))


def another_file(path: Path) -> None:
    """Something else was put there."""
    path.write_text("not a database\n" * 1000)


HARMS = [
    garbage_header,
    zero_first_page,
    truncate_to_half,
    truncate_to_a_few_bytes,
    truncate_to_nothing,
    zero_root_of_tags,
    garbage_in_the_middle,
    another_file,
]


@pytest.fixture(autouse=True)
def _patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """On a busy machine a recovery may take longer than a caller waits: not what is tested here."""
    monkeypatch.setattr(sqlite, "_READ_LIMIT", 60.0)
    monkeypatch.setattr(sqlite, "_WRITE_LIMIT", 60.0)


async def prepare(place: Path, *, backup: bool) -> Path:
    """A closed database with tags, all of it in its one file. It is made once in a process, then copied."""
    if backup not in _PREPARED:
        async with opened(place) as store:
            await fill(store, COUNT)
            if backup:
                await store.backup()
        take_in_log(place / NAME)
        _PREPARED[backup] = contents(place)
    for name, content in _PREPARED[backup].items():
        (place / name).write_bytes(content)
    return place / NAME


_PREPARED: dict[bool, dict[str, bytes]] = {}


def contents(folder: Path) -> dict[str, bytes]:
    """What it holds, by the names."""
    return {file.name: file.read_bytes() for file in folder.iterdir() if file.is_file()}


async def works(store: SqliteMetadata) -> None:
    """Assert that records are put and come back."""
    await store.put_tag(replace(TAG, tag="new"))
    await store.put_links([LINK])
    assert await store.tag("ghcr.io", "team/filter", "new") == replace(TAG, tag="new")
    assert await store.link("ghcr.io", "team/filter", LINK.digest) == LINK


@pytest.mark.parametrize("harm", HARMS)
@pytest.mark.shows("the database is damaged or lost")
async def test_with_a_backup_nothing_that_it_holds_is_lost(
    tmp_path: Path, harm: Callable[[Path], None], caplog: pytest.LogCaptureFixture
) -> None:
    """Whatever happened to the file; one loud error says so, and that links may be missing is remembered."""
    harm(await prepare(tmp_path, backup=True))
    async with opened(tmp_path) as store:
        assert await surviving(store, COUNT) == COUNT
        assert store.links_incomplete
        await works(store)
    assert len(set_aside(tmp_path)) == 1
    assert [record.levelno for record in caplog.records if "set aside" in record.getMessage()] == [logging.ERROR]
    async with opened(tmp_path) as store:
        assert store.links_incomplete
        assert await surviving(store, COUNT) == COUNT
    assert len(set_aside(tmp_path)) == 1


@pytest.mark.parametrize("harm", HARMS)
@pytest.mark.shows("the database is damaged or lost")
async def test_without_a_backup_what_can_be_read_is_salvaged(tmp_path: Path, harm: Callable[[Path], None]) -> None:
    """Which may be nothing; but what is there is right."""
    harm(await prepare(tmp_path, backup=False))
    async with opened(tmp_path) as store:
        found = await surviving(store, COUNT)
        assert store.links_incomplete
        await works(store)
    if harm is garbage_in_the_middle:
        assert found > COUNT // 2
    assert len(set_aside(tmp_path)) == 1


async def test_damage_to_one_table_costs_no_other(tmp_path: Path) -> None:
    """Links are salvaged whole when the tags are gone."""
    zero_root_of_tags(await prepare(tmp_path, backup=False))
    async with opened(tmp_path) as store:
        assert await surviving(store, COUNT) == 0
        for number in range(COUNT):
            assert await store.link("ghcr.io", "team/filter", Digest.of(str(number).encode())) is not None


def leaves(path: Path) -> list[int]:
    """The byte offsets of the pages that hold tags; 10 marks a leaf of an index, which such a table is."""
    data = path.read_bytes()
    pages = range(0, len(data), 4096)
    return [at for at in pages if data[at] == 10 and data.count(b"team/filterv", at, at + 4096) > 3]


@pytest.mark.parametrize("count", [1, 3, 10])
async def test_a_bad_page_costs_only_what_it_held(tmp_path: Path, count: int) -> None:
    """Rows are read up to it and from beyond it, however many there are."""
    path = await prepare(tmp_path, backup=False)
    pages = leaves(path)
    for offset in random.Random(count).sample(pages, count):
        overwrite(path, offset, bytes(4096))
    most = 40  # rows of this kind in a page
    async with opened(tmp_path) as store:
        assert COUNT - most * count < await surviving(store, COUNT) < COUNT


@pytest.mark.parametrize(
    "seed", [pytest.param(seed, marks=() if seed < 4 else pytest.mark.integration) for seed in range(16)]
)
async def test_flipped_bytes_never_give_a_foreign_error(tmp_path: Path, seed: int) -> None:
    """A flip inside a value cannot be told; any other leads to recovery, and every call gives an answer."""
    path = await prepare(tmp_path, backup=seed % 2 == 0)
    chance = random.Random(seed)
    for _ in range(30):
        offset = chance.randrange(100, path.stat().st_size)
        overwrite(path, offset, chance.randbytes(chance.choice((1, 1, 1, 50))))
    async with opened(tmp_path) as store:
        for number in range(0, COUNT, 3):
            await store.tag("ghcr.io", "team/filter", f"v{number}")
            await store.link("ghcr.io", "team/filter", Digest.of(str(number).encode()))
        await works(store)


async def test_a_record_that_cannot_be_one_is_damage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A digest that is none, a number that is a text: such a row is not salvaged, the others are."""
    monkeypatch.setattr(sqlite, "_CHECKED_AT_START", 0)
    path = await prepare(tmp_path, backup=False)
    with raw(path) as connection:
        connection.execute("PRAGMA ignore_check_constraints = ON")
        connection.execute("UPDATE tag SET digest = 'sha256:' || hex(randomblob(32)) WHERE tag = 'v7'")
        connection.execute("UPDATE tag SET size = 'much' WHERE tag = 'v8'")
        connection.execute("UPDATE tag SET media_type = CAST(x'ff' AS TEXT) WHERE tag = 'v9'")
    async with opened(tmp_path) as store:
        assert await store.tag("ghcr.io", "team/filter", "v7") is None
        assert await store.tag("ghcr.io", "team/filter", "v8") is None
        assert await store.tag("ghcr.io", "team/filter", "v6") is not None
        assert store.links_incomplete
    assert len(set_aside(tmp_path)) == 1


async def test_damage_in_the_middle_of_service_is_repaired_behind_the_call(tmp_path: Path) -> None:
    """The call that meets it gets the backup's answer."""
    async with opened(tmp_path) as store:
        await fill(store, COUNT)
        await store.backup()
        await asyncio.to_thread(damage_in_service, tmp_path / NAME)
        assert await surviving(store, COUNT) == COUNT
        assert store.links_incomplete
        await works(store)
    assert len(set_aside(tmp_path)) == 1


async def test_a_write_that_meets_damage_is_made_after_the_repair(tmp_path: Path) -> None:
    """Its caller sees nothing of it; readers see the repaired database."""
    async with opened(tmp_path) as store:
        await fill(store, COUNT)
        await asyncio.to_thread(damage_in_service, tmp_path / NAME)
        await works(store)
        assert store.links_incomplete
    assert len(set_aside(tmp_path)) == 1


async def test_the_backup_finds_damage_that_nobody_met_and_does_not_take_it_in(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A large database is not checked whole at start; the sound backup must outlive the damage."""
    monkeypatch.setattr(sqlite, "_CHECKED_AT_START", 0)
    path = await prepare(tmp_path, backup=True)
    overwrite(path, leaves(path)[20], bytes(4096))
    async with opened(tmp_path) as store:
        assert not store.links_incomplete
        await store.backup()
        assert len(set_aside(tmp_path)) == 1
        assert await surviving(store, COUNT) == COUNT
        assert store.links_incomplete


async def test_a_copy_that_comes_out_damaged_is_no_backup_and_no_reason_to_give_up_the_database(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The fault may lie where the copy was written."""
    await prepare(tmp_path, backup=True)
    before = recovery.backup_of(tmp_path / NAME).stat().st_ino
    copy = recovery._copy

    def copy_badly(source: sqlite3.Connection, target: Path) -> None:
        copy(source, target)
        zero_root_of_tags(target)

    async with opened(tmp_path) as store:
        monkeypatch.setattr(recovery, "_copy", copy_badly)
        with pytest.raises(StoreError, match="the database is sound"):
            await store.backup()
        assert not store.links_incomplete
    assert recovery.backup_of(tmp_path / NAME).stat().st_ino == before
    assert not set_aside(tmp_path)


async def test_what_is_newer_than_the_backup_is_salvaged_if_the_disk_holds_it(tmp_path: Path) -> None:
    """A salvaged record may be damaged itself; one whose manifest lies on the disk under its digest is not."""
    moved = replace(TAG, digest=OTHER, fetched_at=2000.0, serial=1)
    for holds, expected in ((lambda digest: digest != OTHER, TAG), (lambda _: True, moved)):
        place = tmp_path / f"{expected.fetched_at}"
        place.mkdir()
        async with opened(place) as store:
            await store.put_tag(TAG)
            await store.backup()
            await store.put_tag(replace(moved, serial=0))
            await store.put_links([LINK])
        overwrite(place / NAME, root_page(place / NAME, "access"), bytes(4096))
        async with opened(place, holds) as store:
            assert await store.tag("ghcr.io", "team/filter", "v1") == expected
            assert await store.link("ghcr.io", "team/filter", LINK.digest) == LINK
            assert len(set_aside(place)) == 1


async def test_what_a_module_was_kept_as_is_salvaged_if_the_disk_holds_it(tmp_path: Path) -> None:
    """The others are unpacked again."""
    held = Unpacked(TAG.digest, 10, Digest.of(b"held"), 4)
    lost = Unpacked(TAG.digest, 9, OTHER, 5)
    async with opened(tmp_path) as store:
        await store.put_unpacked(lost)
        await store.put_unpacked(held)
    take_in_log(tmp_path / NAME)
    overwrite(tmp_path / NAME, root_page(tmp_path / NAME, "access"), bytes(4096))
    async with opened(tmp_path, lambda digest: digest != OTHER) as store:
        assert await store.unpacked(TAG.digest, 10) == held
        assert await store.unpacked(TAG.digest, 9) is None
        assert len(set_aside(tmp_path)) == 1


async def test_of_a_salvaged_tag_and_its_backup_the_later_one_counts(tmp_path: Path) -> None:
    """By the serial, not by the clock; a tombstone is salvaged too, and no tag comes back to life."""
    moved = replace(TAG, digest=OTHER, fetched_at=10.0, serial=1)
    async with opened(tmp_path) as store:
        await store.put_tag(TAG)
        await store.put_tag(replace(TAG, tag="v2"))
        await store.backup()
        assert await store.put_tag(replace(moved, serial=0)) == moved
        gone = await store.delete_tag("ghcr.io", "team/filter", "v2", 2000.0)
    overwrite(tmp_path / NAME, root_page(tmp_path / NAME, "access"), bytes(4096))
    async with opened(tmp_path) as store:
        assert await store.tag("ghcr.io", "team/filter", "v1") == moved
        assert await store.tag("ghcr.io", "team/filter", "v2") == gone
        assert [entry async for entries in store.all_tags() for entry in entries] == [moved, gone]
        assert len(set_aside(tmp_path)) == 1


async def test_a_backup_that_the_release_before_made_is_restored(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """It lacks tables that this release knows, and is sound all the same."""
    backup = recovery.backup_of(tmp_path / NAME)
    with raw(backup) as connection:
        schema.migrate(connection, schema.STEPS[:1])
        connection.execute("INSERT INTO tag VALUES (?, ?, ?, ?, ?, ?, ?)", OLD_ROW)
    async with opened(tmp_path) as store:
        assert await store.tag("ghcr.io", "team/filter", "v1") == TAG
    assert "damaged" not in caplog.text


async def test_what_the_release_before_left_damaged_is_salvaged(tmp_path: Path) -> None:
    """Tags without serials."""
    with raw(tmp_path / NAME) as connection:
        schema.migrate(connection, schema.STEPS[:1])
        connection.execute("INSERT INTO tag VALUES (?, ?, ?, ?, ?, ?, ?)", OLD_ROW)
    overwrite(tmp_path / NAME, root_page(tmp_path / NAME, "access"), bytes(4096))
    async with opened(tmp_path) as store:
        assert await store.tag("ghcr.io", "team/filter", "v1") == TAG
    assert len(set_aside(tmp_path)) == 1


async def test_a_serial_that_cannot_be_one_is_damage(tmp_path: Path) -> None:
    """It would win over all that other replicas know."""
    path = await prepare(tmp_path, backup=False)
    with raw(path) as connection:
        connection.execute("PRAGMA ignore_check_constraints = ON")
        connection.execute("UPDATE tag SET serial = ? WHERE tag = 'v7'", (1 << 60,))
    async with opened(tmp_path) as store:
        assert await store.tag("ghcr.io", "team/filter", "v7") is None
        assert await store.tag("ghcr.io", "team/filter", "v6") is not None


async def test_a_database_that_was_removed_with_its_backup_has_lost_links_if_there_are_blobs(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """At start, and while it serves; that it was so is remembered."""
    held = False
    store = SqliteMetadata.open(tmp_path / NAME, holds_any=lambda: held)
    try:
        assert not store.links_incomplete
        held = True
        for path in files(tmp_path):
            path.unlink()
        await works(store)
        assert store.links_incomplete
    finally:
        await store.aclose()
    assert "without the links" in caplog.text
    for path in files(tmp_path):
        path.unlink()
    await SqliteMetadata.open(tmp_path / NAME, holds_any=lambda: True).aclose()
    async with opened(tmp_path) as again:
        assert again.links_incomplete


async def test_a_first_start_has_lost_nothing(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Nor has a restart with blobs."""
    for held in (False, True):
        store = SqliteMetadata.open(tmp_path / NAME, holds_any=lambda: held)  # noqa: B023 - asked at once, or never
        assert not store.links_incomplete
        await store.aclose()
    assert not caplog.records


async def test_a_damaged_backup_gives_what_can_be_read_of_it(tmp_path: Path) -> None:
    """And is not an obstacle."""
    path = await prepare(tmp_path, backup=True)
    backup = recovery.backup_of(path)
    overwrite(backup, root_page(backup, "link"), bytes(4096))
    another_file(path)
    async with opened(tmp_path) as store:
        assert await surviving(store, COUNT) == COUNT
        await works(store)


@pytest.mark.integration
@pytest.mark.parametrize("moment", ["before the new one is made", "while the new one is made"])
async def test_a_recovery_that_is_killed_is_done_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, moment: str
) -> None:
    """The damaged file is gone, its place is empty; the next start must not take this for a first start."""
    garbage_in_the_middle(await prepare(tmp_path, backup=False))

    class Killed(BaseException):
        """What no handler catches."""

    def die(*_: object) -> None:
        raise Killed

    with monkeypatch.context() as patched:
        patched.setattr(recovery, "build" if moment.startswith("before") else "_put", die)
        with pytest.raises(Killed):
            SqliteMetadata.open(tmp_path / NAME)
    assert not (tmp_path / NAME).exists()
    async with opened(tmp_path) as store:
        assert await surviving(store, COUNT) > COUNT // 2
        assert store.links_incomplete


async def test_a_lost_database_is_restored_from_its_backup(tmp_path: Path) -> None:
    """Also when somebody removed it, and left its log behind, which must not be replayed into the new one."""
    path = await prepare(tmp_path, backup=True)
    log = path.with_name(f"{NAME}-wal")
    async with opened(tmp_path) as store:
        await store.put_tag(replace(TAG, tag="later"))
        data = await asyncio.to_thread(read_elsewhere, log)
    path.unlink()
    log.write_bytes(data)
    async with opened(tmp_path) as store:
        assert await surviving(store, COUNT) == COUNT
        assert await store.tag("ghcr.io", "team/filter", "later") is None
        assert store.links_incomplete


@pytest.mark.parametrize("suffix", ["-wal", "-shm"])
@pytest.mark.parametrize("harm", ["deleted", "garbage", "cut"])
async def test_a_log_that_is_lost_costs_its_last_commits_and_no_more(tmp_path: Path, suffix: str, harm: str) -> None:
    """After a kill, the log and its index lie there; whatever happens to them, the rest is right."""
    place, crashed = tmp_path / "running", tmp_path / "crashed"
    place.mkdir()
    crashed.mkdir()
    async with opened(place) as store:
        await fill(store, 100)
        with raw(place / NAME) as connection:
            connection.execute("PRAGMA wal_checkpoint(PASSIVE)")
        await store.put_tag(replace(TAG, tag="last"))
        for side in ("", "-wal", "-shm"):  # what a killed process leaves
            data = await asyncio.to_thread(read_elsewhere, place / f"{NAME}{side}")
            (crashed / f"{NAME}{side}").write_bytes(data)
    path = crashed / f"{NAME}{suffix}"
    if harm == "deleted":
        path.unlink()
    elif harm == "garbage":
        path.write_bytes(random.Random(3).randbytes(path.stat().st_size))
    else:
        os.truncate(path, path.stat().st_size // 2)
    async with opened(crashed) as store:
        assert await surviving(store, 100) == 100
        if suffix == "-shm":
            assert await store.tag("ghcr.io", "team/filter", "last") is not None
        await works(store)


def read_elsewhere(path: Path) -> bytes:
    """The bytes of a file that this process has open as a database: read by another process, for its locks' sake."""
    return subprocess.run(["cat", path], check=True, capture_output=True).stdout


async def test_a_log_deleted_in_service_stops_nobody(tmp_path: Path) -> None:
    """The open file goes on, and is taken in at the end."""
    async with opened(tmp_path) as store:
        await store.put_tag(TAG)
        (tmp_path / f"{NAME}-wal").unlink()
        await works(store)
    async with opened(tmp_path) as store:
        await works(store)
        assert await store.tag("ghcr.io", "team/filter", "v1") == TAG


async def test_only_the_newest_damaged_databases_are_kept(tmp_path: Path) -> None:
    """A disk that damages file after file is not filled by them."""
    for _ in range(4):
        async with opened(tmp_path):
            pass
        another_file(tmp_path / NAME)
    async with opened(tmp_path) as store:
        await works(store)
    assert len(set_aside(tmp_path)) == 2


async def test_a_database_that_is_damaged_again_at_once_is_an_error_and_no_endless_loop(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A call has it repaired once; then it fails."""

    def damaged(*_: object) -> None:
        raise Damaged("again")

    async with opened(tmp_path) as store:
        monkeypatch.setattr("mirror.metadata.statements.tag", damaged)
        with pytest.raises(StoreError, match="again"):
            await store.tag("ghcr.io", "team/filter", "v1")


@pytest.mark.parametrize(
    "name", ["SQLITE_FULL", "SQLITE_BUSY", "SQLITE_CANTOPEN", "SQLITE_READONLY", "SQLITE_IOERR_WRITE"]
)
def test_what_is_not_damage_is_not_taken_for_it(name: str) -> None:
    """A full or busy disk is no reason to set a sound database aside."""
    error = sqlite3.OperationalError("words")
    error.sqlite_errorcode = getattr(sqlite3, name)
    assert not recovery.is_damage(error)


@pytest.mark.parametrize(
    "name", ["SQLITE_CORRUPT_VTAB", "SQLITE_NOTADB", "SQLITE_IOERR_READ", "SQLITE_IOERR_SHORT_READ"]
)
def test_what_cannot_be_read_is_damage(name: str) -> None:
    """A page that the disk does not give back is lost, too."""
    error = sqlite3.DatabaseError("words")
    error.sqlite_errorcode = getattr(sqlite3, name)
    assert recovery.is_damage(error)
