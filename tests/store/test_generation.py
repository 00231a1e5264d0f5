"""The number that tells all workers on a disk that a tag has moved."""

import errno
from contextlib import ExitStack
from pathlib import Path

import pytest

from mirror.store.generation import Generation
from tests.store.disk import fail
from tests.store.process import process


def test_it_moves_for_all_who_look(tmp_path: Path) -> None:
    one, two = Generation(tmp_path / "generation"), Generation(tmp_path / "generation")
    seen = one.current()
    assert two.current() == seen
    one.advance()
    assert one.current() == two.current() != seen
    two.advance()
    assert one.current() == two.current() == seen + 2
    one.close()
    two.close()
    three = Generation(tmp_path / "generation")
    assert three.current() == seen + 2
    three.close()


def test_it_is_seen_across_processes_and_no_step_is_lost(tmp_path: Path) -> None:
    generation = Generation(tmp_path / "generation")
    before = generation.current()
    with ExitStack() as stack:
        others = [stack.enter_context(process("advance", tmp_path, "5000")) for _ in range(3)]
        for other in others:
            assert other.stdin is not None
            other.stdin.write(b"go\n")
            other.stdin.close()
        for other in others:
            assert other.wait(30) == 0
        assert generation.current() == before + 15_000
    generation.close()


def test_looking_makes_no_system_call(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    generation = Generation(tmp_path / "generation")
    for call in ("open", "read", "pread", "stat", "fstat"):
        fail(monkeypatch, call)
    assert generation.current() == generation.current()
    monkeypatch.undo()
    generation.close()


@pytest.mark.parametrize("content", [b"", b"abc", b"x" * 8, b"\xff" * 8, b"y" * 100])
def test_whatever_is_in_its_file_it_moves(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "generation").write_bytes(content)
    one, two = Generation(tmp_path / "generation"), Generation(tmp_path / "generation")
    for _ in range(3):
        before = two.current()
        one.advance()
        assert two.current() != before
        assert two.current() == one.current()
    one.close()
    two.close()


def test_without_a_file_it_counts_for_this_process(tmp_path: Path) -> None:
    generation = Generation(tmp_path / "missing" / "generation")
    before = generation.current()
    generation.advance()
    generation.advance()
    assert generation.current() == before + 2
    generation.close()


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EROFS, errno.EIO])
def test_on_a_disk_that_fails_it_still_moves_here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int) -> None:
    one, two = Generation(tmp_path / "generation"), Generation(tmp_path / "generation")
    before = one.current()
    with monkeypatch.context() as patch:
        fail(patch, "pwrite", number)
        one.advance()
    assert one.current() == before + 1
    assert two.current() == before
    one.advance()
    assert one.current() == before + 2
    assert two.current() == before + 1
    one.close()
    two.close()
