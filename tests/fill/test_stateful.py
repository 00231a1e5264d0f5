"""Any order of pieces, cuts, wrong bytes, ranges, disconnects, restarts and disk errors, with two workers on a disk.

Whatever happens, a client gets the exact bytes or a visible cut, and never a whole body that is wrong; it is cut only
for a reason; what lies under ``blobs/`` is right; and when all is well again, so are the pulls.

The threads are played by the loop itself and its timers do not wait, so that a failure can be repeated.
"""

import asyncio
import contextlib
import errno
import os
import shutil
import tempfile
from collections.abc import Callable
from concurrent.futures import Executor, Future
from dataclasses import dataclass, replace
from pathlib import Path
from typing import ParamSpec, TypeVar

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    Bundle,
    MultipleResults,
    RuleBasedStateMachine,
    initialize,
    invariant,
    multiple,
    precondition,
    rule,
)

from mirror import download, fill
from mirror.digest import Digest
from mirror.errors import MirrorError, UpstreamDenied, UpstreamUnavailable
from mirror.store import growing
from mirror.store.growing import Growing
from mirror.upstream.backoff import Backoff
from tests.fill.source import MemorySource, MemoryStream, Sending, Tap
from tests.fill.workers import Client, Worker, some_bytes
from tests.store.disk import data_in

WITHHELD = 100
P = ParamSpec("P")
T = TypeVar("T")

sizes = st.sampled_from([0, 1, WITHHELD - 1, WITHHELD, WITHHELD + 1, 3000]) | st.integers(0, 3000)
spans = st.none() | st.tuples(sizes, st.integers(1, 2 * WITHHELD) | sizes)
turns = st.integers(0, 30)


@dataclass(frozen=True, slots=True)
class Plan:
    """What becomes of one GET. Positions lie between 0 and 3000; beyond the end of the blob they mean nothing."""

    host: str = "mirror.test"
    upto: int | None = None
    cut_at: int | None = None
    wrong_at: int | None = None
    refusal: MirrorError | None = None
    length: int = 0
    tells: int | None = 0
    ignores_range: bool = False
    piece: int = 100

    def honestly(self) -> "Plan":
        """The same with right answers, as far as they go."""
        return replace(self, wrong_at=None, refusal=None, length=0, tells=None if self.tells is None else 0)

    def sending(self, content: bytes) -> Sending:
        """With the blob's content at hand."""
        sent = bytearray(content[: self.length] if self.length < 0 else content + bytes(self.length))
        if self.wrong_at is not None and self.wrong_at < len(sent):
            sent[self.wrong_at] ^= 1
        return Sending(
            self.host,
            bytes(sent),
            None if self.tells is None else max(0, len(content) + self.tells),
            self.cut_at,
            self.ignores_range,
            self.refusal,
            self.piece,
            Tap(None if self.refusal else self.upto),
        )


plans = st.builds(
    Plan,
    host=st.sampled_from(["mirror.test", "origin.test"]),
    upto=st.just(0) | sizes | st.none(),
    cut_at=st.none() | sizes,
    wrong_at=st.none() | sizes,
    refusal=st.sampled_from([None, None, None, None, UpstreamUnavailable("away"), UpstreamDenied("no")]),
    length=st.sampled_from([0, 0, 0, 0, -1, 1]),
    tells=st.sampled_from([0, 0, 0, 0, None, None, -1, 1, 500]),
    ignores_range=st.booleans(),
    piece=st.integers(1, 700),
)
disks = st.sets(st.sampled_from(["fsync", "unlink", "replace", "open"]), max_size=2)


@dataclass(frozen=True, slots=True)
class Ask:
    """A client of one of the workers: for a range, as start and length, or for all."""

    which: int
    span: tuple[int, int] | None
    told: bool
    paused: bool


workers = st.sampled_from([0, 0, 1])
asks = st.builds(Ask, workers, spans, st.booleans(), st.sampled_from([False, False, True]))


class AtOnce(Executor):
    """Does in `submit` what a thread would do later."""

    def submit(self, call: Callable[P, T], /, *arguments: P.args, **options: P.kwargs) -> Future[T]:
        """Call it."""
        future: Future[T] = Future()
        try:
            future.set_result(call(*arguments, **options))
        except BaseException as error:
            future.set_exception(error)
        return future


class Disk:
    """Errors on demand."""

    def __init__(self, patch: pytest.MonkeyPatch) -> None:
        self.room: int | None = None
        self.broken: set[str] = set()
        write = os.pwrite

        def pwrite(fd: int, data: memoryview, offset: int) -> int:
            if self.room is None:
                return write(fd, data, offset)
            if self.room == 0:
                raise OSError(errno.ENOSPC, "No space left on device")
            written = write(fd, data[: self.room], offset)
            self.room -= written
            return written

        patch.setattr(os, "pwrite", pwrite)
        patch.setattr(os, "fsync", lambda fd: self._check("fsync"))
        for name in ("unlink", "replace", "open"):
            self._watch(patch, name)

    def heal(self) -> None:
        """All is well again."""
        self.room = None
        self.broken.clear()

    def _check(self, name: str) -> None:
        if name in self.broken:
            raise OSError(errno.EIO, "Input/output error")

    def _watch(self, patch: pytest.MonkeyPatch, name: str) -> None:
        call = getattr(os, name)

        def checked(path: object, *arguments: object, **options: object) -> object:
            if "spool" in str(path):
                self._check(name)
            return call(path, *arguments, **options)

        patch.setattr(os, name, checked)


class Reading:
    """A client, and what it has to get of ``content``, from ``start`` to ``end``."""

    def __init__(self, growing: Growing, content: bytes, start: int, end: int | None, *, paused: bool) -> None:
        self.client = Client(growing, start, end, paused=paused)
        self.expected = content[start:end]
        self._growing = growing
        self._size = len(content)
        self._end = end

    def check(self, excuses: set[str]) -> None:
        """The guarantee. ``excuses`` are words of what may be said to a client that is cut."""
        received, expected = self.client.received, self.expected
        if self.client.done and not self.client._task.cancelled():
            error = self.client._task.exception()
            assert error is None or any(excuse in str(error) for excuse in excuses), repr(error)
            assert error is not None or received == expected, "it ended well with other bytes"
        # What is withheld of a whole body is the end of the size that was told: upstream's word, while nobody knows.
        told = self._end is not None or self._growing.size == self._size
        if told and len(received) > max(0, len(expected) - WITHHELD):
            assert received == expected[: len(received)], "the end of a wrong body was sent"


class Fills(RuleBasedStateMachine):
    """Two workers, their clients, and an upstream."""

    readings = Bundle[Reading]("readings")

    def __init__(self) -> None:
        super().__init__()
        self.patch = pytest.MonkeyPatch()
        self.folder = Path(tempfile.mkdtemp())
        self.loop = asyncio.new_event_loop()
        self.loop.set_exception_handler(lambda loop, context: self.lost.append(str(context)))
        self.lost: list[str] = []
        self.all: list[Reading] = []
        self.excuses: set[str] = set()
        self.taps: list[Tap] = []

    @initialize(
        target=readings,
        size=st.sampled_from([0, 1, WITHHELD, 1000, 2000, 3000]) | sizes,
        plans=st.lists(plans, min_size=1, max_size=6),
        honest=st.sampled_from([True, True, False]),
        room=st.none() | sizes,
        asks=st.lists(asks, min_size=1, max_size=5),
    )
    def begin(
        self, size: int, plans: list[Plan], honest: bool, room: int | None, asks: list[Ask]
    ) -> MultipleResults[Reading]:
        """A blob, a disk, the first clients, and an upstream that has its moods, which the GETs get one by one."""
        if honest:
            plans = [plan.honestly() for plan in plans]
        else:
            self.excuses.add("")
        self.patch.setattr(growing, "WITHHELD", WITHHELD)
        self.patch.setattr(growing, "CHUNK", 300)
        self.patch.setattr(growing, "WINDOW", 500)
        self.patch.setattr(growing, "_LAGGARD_AFTER", 0)
        self.patch.setattr(growing, "_LOOK_EVERY", 0)
        self.patch.setattr(fill, "_REHASH", 200)
        self.patch.setattr(download, "_MAX_PENDING", 400)
        self.patch.setattr(Backoff, "pause", lambda backoff: 0.0)
        self.disk = Disk(self.patch)
        self.directory = data_in(self.folder)
        self.content = some_bytes(size)
        self.digest = Digest.of(self.content)
        self.source = MemorySource(self.content, hosts=("mirror.test", "origin.test"))
        self.source.script.extend(plan.sending(self.content) for plan in plans)
        self.taps = [sending.tap for sending in self.source.script]
        self.workers = [self._worker(), self._worker()]
        if room is not None:
            self.break_disk_now(room, set())
        return multiple(*(self.come(ask) for ask in asks))

    def _worker(self) -> Worker:
        async def start() -> Worker:
            return Worker(self.directory, self.source, threads=AtOnce())

        return self.loop.run_until_complete(start())

    def run(self, turns: int) -> None:
        """Let the loop go on."""

        async def turn() -> None:
            for _ in range(turns):
                await asyncio.sleep(0)

        self.loop.run_until_complete(turn())

    def come(self, ask: Ask) -> Reading:
        """A client comes, for a range or for all."""
        size = len(self.content)
        start, end = (0, None) if ask.span is None else (min(ask.span[0], size), min(sum(ask.span), size))

        async def begin() -> Reading:
            one = self.workers[ask.which].start(self.digest, size if ask.told else None)
            return Reading(one.content, self.content, start, end, paused=ask.paused)

        reading = self.loop.run_until_complete(begin())
        self.all.append(reading)
        return reading

    @rule(target=readings, asks=st.lists(asks, min_size=1, max_size=3), turns=turns)
    def ask(self, asks: list[Ask], turns: int) -> MultipleResults[Reading]:
        """Clients come."""
        come = [self.come(ask) for ask in asks]
        self.run(turns)
        return multiple(*come)

    @rule(reading=readings)
    def leave(self, reading: Reading) -> None:
        """A client disconnects."""
        reading.client.leave()

    @rule(reading=readings, turns=turns)
    def stand_still(self, reading: Reading, turns: int) -> None:
        """A client takes nothing for a while."""
        reading.client.pause()
        self.run(turns)

    @rule(reading=readings, turns=turns)
    def go_on(self, reading: Reading, turns: int) -> None:
        """It takes what has come."""
        reading.client.resume()
        self.run(turns)

    @rule(more=st.integers(1, 700), turns=turns)
    def flow(self, more: int, turns: int) -> None:
        """More comes from upstream."""
        for stream in self.streams():
            stream.sending.tap.open(stream.sending.tap.reached + more)
        self.run(turns)

    @rule(turns=turns)
    def flow_to_the_end(self, turns: int) -> None:
        """All comes that is on its way."""
        for stream in self.streams():
            stream.sending.tap.open()
        self.run(turns)

    @rule(turns=turns)
    def cut(self, turns: int) -> None:
        """The connections to upstream break where they are."""
        for stream in self.streams():
            stream.sending.cut_at = stream.sending.tap.reached
            stream.sending.tap.open()
        self.run(turns)

    def streams(self) -> list[MemoryStream]:
        """The bodies that are on their way."""
        return [stream for stream in self.source.streams if not stream.closed]

    @rule(room=st.none() | st.integers(0, 3000), broken=disks)
    def break_disk(self, room: int | None, broken: set[str]) -> None:
        """The disk is full soon, or fails."""
        self.break_disk_now(room, broken)

    def break_disk_now(self, room: int | None, broken: set[str]) -> None:
        """In memory, bytes do not stay for ever."""
        self.excuses.add("this client was too slow")
        self.disk.room, self.disk.broken = room, broken

    @rule()
    def heal_disk(self) -> None:
        """The disk is well again."""
        self.disk.heal()

    @rule(which=workers)
    def restart(self, which: int) -> None:
        """A worker stops in order, and another takes its place."""
        self.excuses.add("the mirror is stopping")
        self.loop.run_until_complete(self.workers[which].fills.aclose())
        self.workers[which] = self._worker()

    @rule()
    def evict(self) -> None:
        """The blob goes."""
        self.workers[0].store.delete(self.digest)

    @precondition(lambda self: all(reading.client.done for reading in self.all))
    @precondition(lambda self: not any(worker.fills._fills for worker in self.workers))
    @rule(at=sizes)
    def spoil(self, at: int) -> None:
        """Bytes that wait to be resumed are hit by a cosmic ray."""
        self.excuses.add("")
        for file in self.directory.spool.iterdir():
            content = bytearray(file.read_bytes())
            if at < len(content):
                content[at] ^= 1
                file.write_bytes(content)

    @invariant()
    def nobody_is_deceived(self) -> None:
        """What this test is about."""
        for reading in self.all:
            reading.check(self.excuses)
        assert not self.lost

    @precondition(lambda self: hasattr(self, "digest"))
    @invariant()
    def the_disk_is_right(self) -> None:
        """What lies under ``blobs/`` is whole."""
        blob = self.directory.blob(self.digest)
        assert not blob.exists() or blob.read_bytes() == self.content

    def teardown(self) -> None:
        """Everything heals: all clients come to an end, and all workers can be pulled from."""
        try:
            if hasattr(self, "digest"):
                self.loop.run_until_complete(self._end())
                self.nobody_is_deceived()
                self.the_disk_is_right()
        finally:
            self.loop.close()
            self.patch.undo()
            shutil.rmtree(self.folder)

    async def _end(self) -> None:
        self.disk.heal()
        for tap in self.taps:
            tap.open()
        self.source.script.clear()
        for reading in self.all:
            reading.client.resume()
        async with asyncio.timeout(10):
            await asyncio.gather(*(reading.client._task for reading in self.all), return_exceptions=True)
            for worker in self.workers:
                await self._pull(worker)
                await worker.fills.aclose()

    async def _pull(self, worker: Worker) -> None:
        """A fill that is under way may still end badly, and so may the next one, with wrong bytes out of a spool."""
        for _ in range(4):
            one = worker.start(self.digest, len(self.content))
            with contextlib.suppress(MirrorError):
                assert await Client(one.content).body() == self.content
            await asyncio.gather(*worker.fills._tasks)
            if worker.held(self.digest) is not None:
                break
        assert worker.held(self.digest) == self.content
        assert worker.spools() == []


TestFills = pytest.mark.integration(Fills.TestCase)
TestFills.settings = settings(
    max_examples=200,
    stateful_step_count=30,
    derandomize=True,
    database=None,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.filter_too_much],
)
