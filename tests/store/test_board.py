"""What workers tell one another of endpoints, whatever happens to the file and to who writes it."""

import errno
import functools
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mirror.store import board as module
from mirror.store.board import NUMBERS, TEXT, Board, Note
from tests.store.board_process import same
from tests.store.disk import fail
from tests.support.waiting import wait_until

ROOT = Path(__file__).parents[2]
NOTE = Note(tuple(float(number) for number in range(NUMBERS)), "it refuses connections")


@contextmanager
def worker(what: str, file: Path, *arguments: str) -> Iterator[subprocess.Popen[bytes]]:
    """Another process with the board, which works as soon as it is told to `go`; killed at the end."""
    command = [sys.executable, "-m", "tests.store.board_process", what, str(file), *arguments]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stdin=subprocess.PIPE) as child:
        assert child.stdout is not None
        try:
            assert child.stdout.readline() == b"there\n"
            yield child
        finally:
            child.kill()


def go(child: subprocess.Popen[bytes]) -> None:
    assert child.stdin is not None
    child.stdin.write(b"go\n")
    child.stdin.flush()


def put(board: Board, name: str, note: Note) -> None:
    board.change(name, lambda _: note)


def differs(board: Board, before: Note) -> bool:
    return board.get("a") != before


@contextmanager
def boards(file: Path | None, number: int = 2) -> Iterator[list[Board]]:
    with ExitStack() as stack:
        them = [Board(file) for _ in range(number)]
        for one in them:
            stack.callback(one.close)
        yield them


def test_what_one_notes_all_see_and_those_who_come_later(tmp_path: Path) -> None:
    with boards(tmp_path / "board") as (one, other):
        assert one.get("a") == other.get("a") == Note()
        assert one.change("a", lambda _: NOTE) == NOTE
        assert other.get("a") == NOTE
        assert other.get("b") == Note()
        other.change("a", lambda note: replace(note, text="back"))
        assert one.get("a") == replace(NOTE, text="back")
    with boards(tmp_path / "board") as (later, _):
        assert later.get("a") == replace(NOTE, text="back")


def test_no_change_is_lost_between_processes(tmp_path: Path) -> None:
    with ExitStack() as stack:
        (board,) = stack.enter_context(boards(tmp_path / "board", 1))
        names = ("a", "a", "b")
        children = [stack.enter_context(worker("count", tmp_path / "board", name, "3000")) for name in names]
        for child in children:
            go(child)
        for child in children:
            assert child.stdout is not None
            assert child.stdout.readline() == b"done\n"
        assert (board.get("a").numbers[0], board.get("b").numbers[0]) == (6000, 3000)


def test_nobody_sees_half_a_note(tmp_path: Path) -> None:
    with boards(tmp_path / "board", 1) as (board,), worker("write", tmp_path / "board", "a") as child:
        go(child)
        seen = set()
        wait_until(lambda: board.get("a") != Note(), what="the first note")
        for _ in range(30_000):
            note = board.get("a")
            assert note == same(int(note.numbers[0]))
            seen.add(note.numbers[0])
        assert len(seen) > 10


def test_a_writer_that_is_killed_leaves_a_whole_note_and_no_lock(tmp_path: Path) -> None:
    with boards(tmp_path / "board", 1) as (board,):
        for _ in range(5):
            before = board.get("a")
            with worker("write", tmp_path / "board", "a") as child:
                go(child)
                wait_until(functools.partial(differs, board, before), what="a note")
                child.kill()
                child.wait()
            note = board.get("a")
            assert note == same(int(note.numbers[0]))
            put(board, "a", Note())
            put(board, "a", NOTE)
            assert board.get("a") == NOTE


def test_a_damaged_slot_is_passed_over_and_written_anew(tmp_path: Path) -> None:
    file = tmp_path / "board"
    with boards(file) as (one, other):
        put(one, "a", NOTE)
        content = bytearray(file.read_bytes())
        at = content.index(NOTE.text.encode())
        with file.open("r+b") as raw:
            raw.seek(at)
            raw.write(b"X")
        assert one.get("a") == other.get("a") == Note()
        put(other, "a", NOTE)
        assert one.get("a") == NOTE


def test_names_that_fall_into_one_slot_do_not_meet(tmp_path: Path) -> None:
    first = next(module._places(module._key("a")))
    same_slot = [name for name in map(str, range(5000)) if next(module._places(module._key(name))) == first][:5]
    assert len(same_slot) == 5
    with boards(tmp_path / "board") as (one, other):
        for number, name in enumerate(same_slot):
            put(one, name, same(number))
        for number, name in enumerate(same_slot):
            assert other.get(name) == same(number)
        assert other.get("a") == Note()


def test_more_names_than_slots_are_known_to_this_process_alone(tmp_path: Path) -> None:
    names = [f"name {number}" for number in range(300)]
    with boards(tmp_path / "board") as (one, other):
        for number, name in enumerate(names):
            put(one, name, same(number))
        assert [one.get(name) for name in names] == [same(number) for number in range(300)]
        assert sum(other.get(name) != Note() for name in names) == 255
        assert one.change(names[-1], lambda note: replace(note, text="more")).text == "more"
        assert one.get(names[-1]).text == "more"


def test_after_the_machine_was_started_anew_nothing_is_known(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file, boot = tmp_path / "board", tmp_path / "boot_id"
    monkeypatch.setattr(module, "_BOOT_ID", boot)
    boot.write_text("one\n")
    with boards(file) as (one, _):
        put(one, "a", NOTE)
    with boards(file) as (one, _):
        assert one.get("a") == NOTE
    boot.write_text("two\n")
    with boards(file) as (one, other):
        assert one.get("a") == Note()
        put(one, "a", NOTE)
        assert other.get("a") == NOTE
    boot.unlink()
    with boards(file) as (one, other):
        assert one.get("a") == Note()
        put(one, "a", NOTE)
        assert other.get("a") == NOTE


@pytest.mark.parametrize("content", [b"", b"abc", b"\xff" * 70_000, b"wasm-mirror board 0\n"])
def test_whatever_is_in_its_file_it_works(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "board").write_bytes(content)
    with boards(tmp_path / "board") as (one, other):
        assert one.get("a") == Note()
        put(one, "a", NOTE)
        assert other.get("a") == NOTE


def test_looking_makes_no_system_call(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with boards(tmp_path / "board", 1) as (board,):
        put(board, "a", NOTE)
        for call in ("open", "read", "pread", "stat", "fstat"):
            fail(monkeypatch, call)
        assert board.get("a") == NOTE
        monkeypatch.undo()


@pytest.mark.parametrize("file", [None, Path("missing/board")], ids=["no path", "no folder"])
def test_without_a_file_it_works_for_this_process(tmp_path: Path, file: Path | None) -> None:
    with boards(file and tmp_path / file) as (one, other):
        put(one, "a", NOTE)
        assert one.get("a") == NOTE
        assert other.get("a") == Note()


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EROFS, errno.EIO])
def test_on_a_disk_that_fails_it_goes_on_for_this_process(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    with boards(tmp_path / "board") as (one, other):
        put(one, "a", NOTE)
        with monkeypatch.context() as patch:
            fail(patch, "pwrite", number)
            assert one.change("a", lambda note: replace(note, text="now")) == replace(NOTE, text="now")
        assert one.get("a") == replace(NOTE, text="now")
        assert other.get("a") == NOTE
        put(one, "b", NOTE)
        assert other.get("b") == NOTE, "it has come back"


def test_its_blocks_are_there_from_the_beginning_so_that_no_full_disk_stops_it(tmp_path: Path) -> None:
    with boards(tmp_path / "board", 1):
        status = (tmp_path / "board").stat()
        assert status.st_blocks * 512 >= status.st_size > 60_000


@given(st.text(max_size=200))
def test_any_text_is_kept_as_far_as_there_is_room(tmp_path_factory: pytest.TempPathFactory, text: str) -> None:
    text = text.encode(errors="replace").decode()
    with boards(tmp_path_factory.getbasetemp() / "texts", 1) as (board,):
        put(board, "a", Note(text=text))
        kept = board.get("a").text
        assert text.startswith(kept)
        assert len(kept.encode()) > TEXT - 4 or kept == text
