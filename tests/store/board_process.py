"""A worker with a board: ``python -m tests.store.board_process WHAT FILE …``; says ``there``, works when told to."""

import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from mirror.store.board import NUMBERS, Board, Note


def same(number: int) -> Note:
    """A note of which one sees when it is torn."""
    return Note((float(number),) * NUMBERS, str(number) * 5)


def count(board: Board, name: str, times: str) -> None:
    """Add to a number, so many times."""
    for _ in range(int(times)):
        board.change(name, lambda note: replace(note, numbers=(note.numbers[0] + 1, *note.numbers[1:])))


def write(board: Board, name: str) -> None:
    """Write until killed."""
    while True:
        board.change(name, lambda note: same(int(note.numbers[0]) + 1))


if __name__ == "__main__":
    tasks: dict[str, Callable[..., None]] = {"count": count, "write": write}
    board = Board(Path(sys.argv[2]))
    print("there", flush=True)
    sys.stdin.readline()
    tasks[sys.argv[1]](board, *sys.argv[3:])
    print("done", flush=True)
    sys.stdin.read()
