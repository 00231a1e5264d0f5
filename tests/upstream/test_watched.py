"""Files that are read again."""

import asyncio
import os
import threading
from pathlib import Path

import pytest

from mirror.errors import UpstreamUnavailable
from mirror.upstream.watched import LOOK_AGAIN_AFTER, Watched
from tests.support.waiting import eventually
from tests.upstream.support import Clock


class Loader:
    """Reads files; ``fails`` lets it raise."""

    def __init__(self) -> None:
        self.calls = 0
        self.fails = False
        self.gate: threading.Event | None = None

    def __call__(self, *paths: Path) -> str:
        self.calls += 1
        if self.gate is not None:
            self.gate.wait(10)
        if self.fails:
            raise ValueError("it is not what it should be")
        return " ".join(path.read_text() for path in paths)


async def test_files_are_loaded_again_when_one_of_them_changed(tmp_path: Path) -> None:
    one, other, load, clock = tmp_path / "one", tmp_path / "other", Loader(), Clock()
    one.write_text("a")
    other.write_text("b")
    watched = Watched({"x": one, "y": other}, load, clock)
    for _ in range(3):
        assert await watched.get() == "a b"
        clock.now += LOOK_AGAIN_AFTER
    assert load.calls == 1
    fresh = tmp_path / "fresh"
    fresh.write_text("c")
    os.replace(fresh, other)
    assert await watched.get() == "a c"
    assert load.calls == 2


async def test_what_could_not_be_loaded_is_tried_again_though_no_file_changed(tmp_path: Path) -> None:
    """As a file that is there and may not be read yet, or two of which one was read too early."""
    path, load, clock = tmp_path / "file", Loader(), Clock()
    path.write_text("a")
    load.fails = True
    watched = Watched({"x": path}, load, clock)
    with pytest.raises(UpstreamUnavailable, match=r"the file of x cannot be read; the mirror's log says why"):
        await watched.get()
    load.fails = False
    with pytest.raises(UpstreamUnavailable):  # not more than once a second
        await watched.get()
    clock.now += LOOK_AGAIN_AFTER
    assert await watched.get() == "a"
    assert load.calls == 2


async def test_many_who_need_it_load_it_once_and_nobody_waits_for_what_is_known(tmp_path: Path) -> None:
    path, load, clock = tmp_path / "file", Loader(), Clock()
    path.write_text("a")
    watched = Watched({"x": path}, load, clock)
    assert await asyncio.gather(*(watched.get() for _ in range(20))) == ["a"] * 20
    assert load.calls == 1
    path.write_text("bb")
    clock.now += LOOK_AGAIN_AFTER
    load.gate = threading.Event()
    looking = asyncio.ensure_future(watched.get())
    await eventually(lambda: load.calls == 2)
    assert await watched.get() == "a"
    load.gate.set()
    assert await looking == "bb"
