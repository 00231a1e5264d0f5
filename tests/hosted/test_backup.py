"""The backup of the records of hosted content: made while they are in use, restored by nobody but people."""

import asyncio
import logging
import shutil
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from mirror.errors import StoreError
from mirror.hosted.backup import backups_of
from tests.hosted.shelf import shelf
from tests.support.waiting import eventually

MODULE = b"a module"


def repositories(database: Path) -> list[str]:
    """Those with blobs."""
    with closing(sqlite3.connect(database)) as connection:
        return [name for (name,) in connection.execute("SELECT DISTINCT repository FROM blob ORDER BY repository")]


async def test_a_backup_is_one_sound_file_with_all_that_was_pushed(tmp_path: Path) -> None:
    async with shelf(tmp_path) as hosted:
        await hosted.push_blob("team/plugin", MODULE)
        backup = hosted.directory.path / "hosted.sqlite.backup"
        task = asyncio.ensure_future(backups_of(hosted.directory.hosted).run())
        try:
            await eventually(backup.exists)
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
        await hosted.push_blob("team/other", MODULE)
        assert repositories(backup) == ["team/plugin"]
        assert not list(backup.parent.glob("hosted.sqlite.backup?*wal"))


async def test_a_backup_that_is_restored_is_read_from_the_first_entry_on(tmp_path: Path) -> None:
    async with shelf(tmp_path) as hosted:
        await hosted.push_blob("team/plugin", MODULE)
        await backups_of(hosted.directory.hosted).renew()
        backup = hosted.directory.path / "hosted.sqlite.backup"
        with closing(sqlite3.connect(backup)) as connection:
            (copied,) = connection.execute("SELECT value FROM meta WHERE key = 'identity'").fetchone()
        own = await hosted.catalogue.identity()
        assert len(copied) == len(own)
        assert copied != own, "others would think that they have read what it counts anew"


@pytest.mark.shows("the records of hosted content (`hosted.sqlite`) are damaged or lost")
async def test_what_is_damaged_is_not_backed_up_over_what_was_sound(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async with shelf(tmp_path) as hosted:
        await hosted.push_blob("team/plugin", MODULE)
        database, backup = hosted.directory.hosted, hosted.directory.path / "hosted.sqlite.backup"
        backups = backups_of(database)
        await backups.renew()
    before = backup.read_bytes()
    content = bytearray(database.read_bytes())
    content[4096:] = b"\x5a" * (len(content) - 4096)
    database.write_bytes(content)
    with caplog.at_level(logging.ERROR), pytest.raises(StoreError, match=r"hosted\.sqlite\.backup"):
        await backups.renew()
    assert "are damaged" in caplog.text
    assert backup.read_bytes() == before


@pytest.mark.shows("the records of hosted content (`hosted.sqlite`) are damaged or lost")
async def test_records_that_were_removed_are_not_begun_anew_beside_their_backup_until_it_is_restored(
    tmp_path: Path,
) -> None:
    """Else what was pushed before would be gone, and nobody would have been told; nor would the backup stay."""
    async with shelf(tmp_path) as hosted:
        await hosted.push_blob("team/plugin", MODULE)
        database, backup = hosted.directory.hosted, hosted.directory.path / "hosted.sqlite.backup"
        await backups_of(database).renew()
    database.unlink()
    async with shelf(tmp_path) as hosted:
        assert "restore hosted.sqlite from hosted.sqlite.backup" in (hosted.catalogue.damage or "")
        with pytest.raises(StoreError):
            await hosted.push_blob("team/other", MODULE)
        with pytest.raises(StoreError):
            await backups_of(database).renew()
    assert not database.exists()
    assert repositories(backup) == ["team/plugin"]
    shutil.copy(backup, database)
    async with shelf(tmp_path) as hosted:
        await hosted.push_blob("team/other", MODULE)
    assert repositories(database) == ["team/other", "team/plugin"]
