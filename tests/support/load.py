"""A steady load: pulls that start at fixed times, whatever becomes of those before, each held against what is right.

::

    with Load(replicas.urls, [Want(path, body)], per_second=50) as load:
        …                                        # what is to go unnoticed
        load.go_on(100)                          # until 100 more pulls have ended
    assert not load.failures

It runs in a thread and a loop of its own, so that a test that blocks holds no pull up.
"""

import asyncio
import itertools
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Self

from mirror.digest import Digest
from tests.integration.client import Exchange, ask
from tests.support.waiting import wait_until

_WITHIN = 30.0  # seconds for one request, as an agent has them for a pull


@dataclass(frozen=True, slots=True)
class Want:
    """What a request is for. ``body``: what must come; None: any body that is what ``Docker-Content-Digest`` says."""

    path: str
    body: bytes | None = None


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of one request. Times are those of `time.monotonic`, the end is that of the last byte.

    ``status`` is 0 where no status line came. ``whole``: the body came to its end. ``right``: it was status 200 with
    the body that was wanted. ``digest`` is what the answer calls itself.
    """

    url: str
    path: str
    began: float
    ended: float
    status: int
    whole: bool
    right: bool
    digest: str
    error: str

    @property
    def seconds(self) -> float:
        """From the connection's beginning to the last byte."""
        return self.ended - self.began

    @property
    def wrong(self) -> bool:
        """Whether a body came whole that was not the right one: what must never happen."""
        return self.status == 200 and self.whole and not self.right


async def fetch(url: str, want: Want) -> Outcome:
    """One request on a connection of its own, its body compared while it comes. Never raises for what a server does."""
    began = time.monotonic()
    status, whole, right, digest, error = 0, False, False, "", ""
    try:
        async with asyncio.timeout(_WITHIN), ask(url, want.path) as exchange:
            await exchange.head()
            status, digest = exchange.status, exchange.headers.get("docker-content-digest", "")
            right, error = await (_hashed(exchange, digest) if want.body is None else _compared(exchange, want.body))
            whole = exchange.whole
    except TimeoutError:
        error = f"not done within {_WITHIN:g} s"
    except OSError as problem:
        error = repr(problem)
    return Outcome(url, want.path, began, time.monotonic(), status, whole, right, digest, error)


async def _compared(exchange: Exchange, body: bytes) -> tuple[bool, str]:
    """Whether this body comes, and otherwise what came instead."""
    if exchange.status != 200:
        return await _hashed(exchange, "")
    read, alike = 0, True
    while data := await exchange.read():
        alike = alike and body.startswith(data, read)
        read += len(data)
    right = alike and exchange.whole and read == len(body)
    return right, "" if right else f"{read} of {len(body)} bytes came, {'alike' if alike else 'and other ones'}"


async def _hashed(exchange: Exchange, digest: str) -> tuple[bool, str]:
    """Whether a body with this digest comes, and otherwise what came instead."""
    got = await exchange.rest()
    right = got.status == 200 and got.whole and str(Digest.of(got.body)) == digest
    return right, "" if right else f"{len(got.body)} bytes came: {got.body[:300]!r}"


class Load:
    """So many pulls a second over ``urls`` by turns; a pull is one request for each of ``wants``, one after another.

    At the end of the ``with`` statement no more start, and those under way are waited for.
    """

    def __init__(self, urls: Sequence[str], wants: Sequence[Want], *, per_second: float = 50.0) -> None:
        self._urls = tuple(urls)
        self._wants = tuple(wants)
        self._interval = 1 / per_second
        self._outcomes: list[Outcome] = []
        self._ended = 0
        self._lateness = 0.0
        self._stopping = threading.Event()
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._work, name="load", daemon=True)

    @property
    def results(self) -> list[Outcome]:
        """All requests that have ended so far, in the order in which they did."""
        return self._outcomes.copy()

    @property
    def failures(self) -> list[Outcome]:
        """Those that did not bring what was wanted."""
        return [outcome for outcome in self.results if not outcome.right]

    @property
    def slowest(self) -> float:
        """The seconds of the slowest request."""
        return max((outcome.seconds for outcome in self.results), default=0.0)

    @property
    def lateness(self) -> float:
        """The most seconds by which a pull began too late: so long this machine gave the load no time to run."""
        return self._lateness

    def go_on(self, pulls: int, within: float = 30.0) -> None:
        """Wait until so many more pulls have ended."""
        before = self._ended
        wait_until(lambda: self._failed() or self._ended >= before + pulls, timeout=within, what=f"{pulls} more pulls")

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stopping.set()
        self._thread.join()
        if error is None:
            self._failed()

    def _failed(self) -> bool:
        if self._error is not None:
            raise AssertionError("the load itself failed") from self._error
        return False

    def _work(self) -> None:
        try:
            asyncio.run(self._run())
        except BaseException as problem:  # shown to the test, in its own thread
            self._error = problem

    async def _run(self) -> None:
        began = time.monotonic()
        async with asyncio.TaskGroup() as pulls:
            for number in itertools.count():
                due = began + number * self._interval
                await asyncio.sleep(max(0.0, due - time.monotonic()))
                if self._stopping.is_set():
                    return
                self._lateness = max(self._lateness, time.monotonic() - due)
                pulls.create_task(self._pull(self._urls[number % len(self._urls)]))

    async def _pull(self, url: str) -> None:
        for want in self._wants:
            self._outcomes.append(await fetch(url, want))
        self._ended += 1
