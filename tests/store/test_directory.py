"""The data directory: one mirror at a time, and no format that is not understood."""

import errno
import os
import resource
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from mirror.digest import Digest
from mirror.errors import StartError
from mirror.store import directory as module
from mirror.store.directory import FORMAT, DataDirectory, write_durably
from tests.store.disk import fail, record
from tests.store.process import process
from tests.support.waiting import wait_until


def refusal(path: Path) -> str:
    """The one line with which it is refused; no lock stays behind."""
    with pytest.raises(StartError) as refused:
        DataDirectory.open(path)
    message = refused.value.message
    assert "\n" not in message
    assert str(path) in message
    return message


def test_what_is_missing_is_made(tmp_path: Path) -> None:
    directory = DataDirectory.open(tmp_path / "some" / "where")
    assert {file.name for file in directory.path.iterdir()} == {"blobs", "format", "leases", "lock", "spool", "uploads"}
    assert (directory.path / "format").read_text() == '{"format": 1}'
    assert stat.S_IMODE((directory.path / "lock").stat().st_mode) == 0o600
    directory.close()
    DataDirectory.open(directory.path).close()


def test_a_blob_lies_under_its_algorithm_and_the_beginning_of_its_hash(tmp_path: Path) -> None:
    digest = Digest.of(b"")
    assert DataDirectory.attach(tmp_path).blob(digest) == tmp_path / "blobs" / "sha256" / "e3" / digest.hex


def test_a_second_mirror_is_refused_and_a_worker_is_not(tmp_path: Path) -> None:
    first = DataDirectory.open(tmp_path)
    assert "in use by another wasm-mirror" in refusal(tmp_path)
    DataDirectory.attach(tmp_path).close()
    assert "in use by another wasm-mirror" in refusal(tmp_path)
    first.close()
    DataDirectory.open(tmp_path).close()


def test_a_mirror_in_another_process_is_noticed_and_its_death_too(tmp_path: Path) -> None:
    with process("hold-directory", tmp_path) as other:
        assert "in use" in refusal(tmp_path)
        other.kill()
        other.wait()
        DataDirectory.open(tmp_path).close()


def test_a_worker_that_outlives_its_supervisor_still_has_the_directory(tmp_path: Path) -> None:
    with process("outlive", tmp_path) as supervisor:
        assert supervisor.stdout is not None
        worker = int(supervisor.stdout.readline())
        supervisor.kill()
        supervisor.wait()
        assert "in use" in refusal(tmp_path)
        os.kill(worker, 9)

        def free() -> bool:
            try:
                DataDirectory.open(tmp_path).close()
            except StartError:
                return False
            return True

        wait_until(free, what="a free directory")


def test_a_newer_format_is_refused_and_left_alone(tmp_path: Path) -> None:
    DataDirectory.open(tmp_path).close()
    (tmp_path / "format").write_text(f'{{"format": {FORMAT + 1}, "with": "more"}}')
    message = refusal(tmp_path)
    assert "newer" in message
    assert f"format {FORMAT + 1}" in message
    assert (tmp_path / "format").read_text() == f'{{"format": {FORMAT + 1}, "with": "more"}}'
    (tmp_path / "format").write_text(f'{{"format": {FORMAT}}}')
    DataDirectory.open(tmp_path).close()


def test_an_older_format_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    DataDirectory.open(tmp_path).close()
    monkeypatch.setattr(module, "FORMAT", FORMAT + 1)
    DataDirectory.open(tmp_path).close()


@pytest.mark.parametrize(
    "content",
    [b"", b"1", b"[]", b"{}", b'{"format": null}', b'{"format": "1"}', b'{"format": true}', b'{"format": 0}',
     b'{"format": 1.0}', b"\xff\xfe", b"[" * 100_000],
)  # fmt: skip
def test_garbage_in_the_place_of_the_format_is_refused(tmp_path: Path, content: bytes) -> None:
    DataDirectory.open(tmp_path).close()
    (tmp_path / "format").write_bytes(content)
    assert "not readable as the format" in refusal(tmp_path)


def test_the_format_appears_whole_and_durably(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    events = record(monkeypatch, tmp_path)
    DataDirectory.open(tmp_path).close()
    assert events == ["sync .format.draft", "rename .format.draft -> format", "sync ."]


def test_a_start_that_was_interrupted_can_be_repeated(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        fail(patch, "replace", errno.ENOSPC)
        assert "no space left" in refusal(tmp_path)
    DataDirectory.open(tmp_path).close()
    assert not list(tmp_path.glob(".*"))


@pytest.mark.parametrize(
    ("number", "says"),
    [
        (errno.ENOSPC, "no space left"),
        (errno.EDQUOT, "no space left"),
        (errno.EROFS, "Read-only file system; make it writable"),
        (errno.EACCES, "Permission denied; make it writable"),
    ],
)
@pytest.mark.parametrize("call", ["open", "mkdir"])
def test_a_directory_that_cannot_be_written_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: str, number: int, says: str
) -> None:
    fail(monkeypatch, call, number)
    assert says in refusal(tmp_path / "data")


def test_a_file_in_the_place_of_the_directory_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    refusal(tmp_path / "file")
    refusal(tmp_path / "file" / "below")


def test_a_file_of_which_the_disk_takes_a_part_stays_as_it_was(tmp_path: Path) -> None:
    file = tmp_path / "notes"
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    write_durably(file, b"as it was")
    resource.setrlimit(resource.RLIMIT_FSIZE, (100, before[1]))
    try:
        with pytest.raises(OSError, match="File too large"):
            write_durably(file, b"x" * 101)
        write_durably(file, b"x" * 100)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert file.read_bytes() == b"x" * 100
    assert list(tmp_path.iterdir()) == [file]


def test_what_the_disk_takes_in_parts_is_written_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write = os.write
    monkeypatch.setattr(os, "write", lambda fd, content: write(fd, content[:3]))
    write_durably(tmp_path / "notes", b"more than three bytes")
    monkeypatch.undo()
    assert (tmp_path / "notes").read_bytes() == b"more than three bytes"


def test_a_file_in_the_place_of_a_folder_is_refused(tmp_path: Path) -> None:
    (tmp_path / "blobs").touch()
    refusal(tmp_path)


def test_the_lock_is_not_handed_to_programs_that_are_started(tmp_path: Path) -> None:
    directory = DataDirectory.open(tmp_path)
    with subprocess.Popen(["sleep", "60"], close_fds=False) as program:
        try:
            directory.close()
            DataDirectory.open(tmp_path).close()
        finally:
            program.kill()


def test_each_directory_on_a_host_has_an_identity_that_all_its_processes_see(tmp_path: Path) -> None:
    one, other = tmp_path / "a", tmp_path / "b"
    for path in (one, other):
        DataDirectory.open(path).close()
    identity = DataDirectory.attach(one).identity()
    assert identity != DataDirectory.attach(other).identity()
    told = "from mirror.store.directory import *; import sys; print(DataDirectory.attach(Path(sys.argv[1])).identity())"
    seen = subprocess.run([sys.executable, "-c", told, one], capture_output=True, text=True, check=True, timeout=30)
    assert seen.stdout.strip() == identity
    (tmp_path / "a").rename(tmp_path / "c")
    assert DataDirectory.attach(tmp_path / "c").identity() == identity, "it is the disk's, not the path's"
