"""The log of a job has whole lines only, whatever befell who wrote it."""

import errno
import os
from pathlib import Path

import pytest

from mirror.store.jobs import JobFolder, JobLog, line_of
from tests.store.disk import fail

LINES = [line_of({"n": n, "text": "ä" * n}) for n in range(6)]


def folder_in(path: Path) -> JobFolder:
    return JobFolder(path / "jobs")


def begun(folder: JobFolder, job: str = "1") -> JobLog:
    return folder.create(job, LINES[0])


def numbers(folder: JobFolder, job: str = "1") -> list[int]:
    """What stands in a log."""
    found, offset = [], 0
    while (portion := folder.read(job, offset, 20)) is not None and portion[0]:
        found += [line["n"] for line in portion[0]]
        offset = portion[1]
    return found


def test_what_was_appended_is_read_in_portions(tmp_path: Path) -> None:
    folder = folder_in(tmp_path)
    log = begun(folder)
    assert numbers(folder) == [0]
    log.append(LINES[1:3])
    log.append(LINES[3:])
    log.close()
    assert numbers(folder) == list(range(6))
    assert folder.last("1") == {"n": 5, "text": "ä" * 5}
    assert folder.ids() == ["1"]


@pytest.mark.parametrize("torn", [1, 5, len(LINES[2]) - 1])
def test_a_torn_last_line_is_passed_over_and_cut_off_by_who_goes_on(tmp_path: Path, torn: int) -> None:
    folder = folder_in(tmp_path)
    log = begun(folder)
    log.append(LINES[1:2])
    log.close()
    with (tmp_path / "jobs" / "1.jsonl").open("ab") as file:
        file.write(LINES[2][:torn])
    assert numbers(folder) == [0, 1]
    assert folder.last("1")["n"] == 1
    again = folder.resume("1")
    again.append(LINES[3:4])
    again.close()
    assert numbers(folder) == [0, 1, 3]


def test_a_first_line_that_is_torn_is_no_line(tmp_path: Path) -> None:
    folder = folder_in(tmp_path)
    begun(folder).close()
    path = tmp_path / "jobs" / "1.jsonl"
    path.write_bytes(path.read_bytes()[:-1])
    assert folder.read("1", 0) == ([], 0)
    assert folder.last("1") == {}
    log = folder.resume("1")
    log.append(LINES[:1])
    log.close()
    assert numbers(folder) == [0]


def test_a_long_first_line_is_read_whole_and_found_by_who_goes_on(tmp_path: Path) -> None:
    folder = folder_in(tmp_path)
    long = line_of({"n": 0, "references": [f"ghcr.io/team/plugin-{n:06}" for n in range(100_000)]})
    log = folder.create("1", long)
    log.close()
    portion = folder.read("1", 0)
    assert portion is not None
    assert portion[1] == len(long)
    again = folder.resume("1")
    again.append(LINES[1:2])
    again.close()
    assert folder.read("1", len(long)) == ([{"n": 1, "text": "ä"}], len(long) + len(LINES[1]))


def test_what_a_full_disk_took_a_part_of_is_written_again_whole(tmp_path: Path) -> None:
    folder = folder_in(tmp_path)
    log = begun(folder)
    with pytest.MonkeyPatch.context() as patch:
        write = os.write
        patch.setattr(os, "write", lambda fd, content: write(fd, content[:5]))
        fail(patch, "fsync", errno.ENOSPC)
        with pytest.raises(OSError, match="space"):
            log.append(LINES[1:3])
    log.append(LINES[1:3])
    log.close()
    assert numbers(folder) == [0, 1, 2]


def test_a_log_that_cannot_be_begun_leaves_nothing_behind(tmp_path: Path) -> None:
    folder = folder_in(tmp_path)
    with pytest.MonkeyPatch.context() as patch:
        fail(patch, "fsync", errno.ENOSPC, after=1)  # the folder is there by then
        with pytest.raises(OSError, match="space"):
            begun(folder)
    assert list((tmp_path / "jobs").iterdir()) == []


@pytest.mark.parametrize("job", ["../secret", "a/b", "", ".", "A", "x" * 65])
def test_what_is_no_id_is_no_file(tmp_path: Path, job: str) -> None:
    (tmp_path / "secret.jsonl").write_bytes(LINES[0])
    folder = folder_in(tmp_path)
    begun(folder).close()
    assert folder.read(job, 0) is None
    assert folder.last(job) == {}
    assert folder.size(job) == 0


def test_lines_that_are_damaged_are_empty(tmp_path: Path) -> None:
    folder = folder_in(tmp_path)
    begun(folder).close()
    with (tmp_path / "jobs" / "1.jsonl").open("ab") as file:
        file.write(b'{"n":\n[1]\n\xff\n' + LINES[4])
    portion = folder.read("1", len(LINES[0]))
    assert portion is not None
    assert [dict(line) for line in portion[0]] == [{}, {}, {}, {"n": 4, "text": "ä" * 4}]
