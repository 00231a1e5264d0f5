"""What it costs a warm request to be counted: the same mirror with its metrics and without them, in turns.

Both are one process, whose loop goes over from one to the other every hundred requests or so: so neither has the better
addresses, hashes or neighbours. What counts is the processor time of the loop's thread, sockets included.
"""

import asyncio
import contextlib
import re
import shutil
import statistics
import time
from collections.abc import AsyncIterator, Awaitable, Iterator

import uvicorn
import uvloop
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from mirror.config import Settings
from mirror.edge.app import App
from mirror.metrics import SORTED_AT_ONCE
from mirror.store.directory import DataDirectory
from mirror.wiring import wired
from tests.bench.client import ACCEPT
from tests.bench.lab import REPOSITORY, UPSTREAM, Lab
from tests.bench.table import Row
from tests.support.asking import ask
from tests.support.waiting import eventually

_BLOCK = 2 * SORTED_AT_ONCE
"""Requests of a turn: so many that all of them sort equally often."""

_SECONDS = 10
_ROUNDS = 3
_GOAL = 1.02


def measure(lab: Lab, rounds: int | None) -> list[Row]:
    """Each round is ten seconds of load."""
    if shutil.which("wrk") is None:
        return [Row("metrics: skipped, wrk is not installed (Debian: apt-get install wrk)")]
    counted, uncounted, ratios = [], [], []
    for _ in range(rounds or _ROUNDS):
        turns = uvloop.run(_loaded(lab))
        counted += turns.costs[0]
        uncounted += turns.costs[1]
        ratios += list(turns.ratios())
    ratio = statistics.median(ratios)
    return [
        Row(
            "processor time of a warm manifest by tag, counted",
            f"{statistics.median(counted) / 1000:.0f} µs",
            f"{statistics.median(uncounted) / 1000:.0f} µs without metrics",
            ratio,
            f"< {_GOAL} ×",
            ratio < _GOAL,
        )
    ]


class Uncounted(App):
    """The application, its requests counted by nobody; in all else it does what the other one does."""

    def __init__(self, app: App) -> None:
        vars(self).update(vars(app))

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["type"] != "http":
            return
        if self._log_access or self._draining():
            raise AssertionError("it has not been told to do either")
        status = 0

        def watched(message: Message) -> Awaitable[None]:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            return send(message)

        try:
            await self._room(scope)(scope, receive, watched)
        except asyncio.CancelledError:
            assert status
            raise


class Turns:
    """Two applications, each for `_BLOCK` requests. ``costs``: nanoseconds of a request, for each block."""

    def __init__(self, *applications: ASGIApp) -> None:
        self.costs: tuple[list[float], list[float]] = ([], [])
        self._applications = applications
        self._turn = 0
        self._left = _BLOCK
        self._began = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if not self._left:
            now = time.thread_time_ns()
            self.costs[self._turn].append((now - self._began) / _BLOCK)
            self._turn, self._left, self._began = 1 - self._turn, _BLOCK, now
        self._left -= 1
        await self._applications[self._turn](scope, receive, send)

    def ratios(self) -> Iterator[float]:
        """Of each block of the second one, what those before and after it cost against it."""
        counted, uncounted = self.costs
        for before, between, after in zip(
            counted[1:], uncounted[1:], counted[2:], strict=False
        ):  # the first began cold
            yield (before + after) / 2 / between


async def _loaded(lab: Lab) -> Turns:
    """What each block cost while the mirror was asked as fast as it could answer."""
    artifact = lab.artifact(1024)
    target = f"/v2/{UPSTREAM}/{REPOSITORY}/manifests/{artifact.tag}"
    settings = Settings.model_validate(
        {
            "data_dir": str(lab.folder / f"metrics-{artifact.tag}"),
            "upstreams": {UPSTREAM: {"endpoints": [lab.upstream.url], "fresh_for": "1h"}},
        }
    )
    directory = DataDirectory.open(settings.data_dir)
    try:
        async with wired(settings, directory, lambda: False) as app:
            assert isinstance(app, App)
            turns = Turns(app, Uncounted(app))
            async with _serving(turns) as address:
                assert (await ask(address, target)).status == 200
                await _load(address, target)
    finally:
        directory.close()
    return turns


class _Server(uvicorn.Server):
    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """None: they are the benchmark's."""
        yield


@contextlib.asynccontextmanager
async def _serving(app: ASGIApp) -> AsyncIterator[tuple[str, int]]:
    """Serve as `mirror.server` does; gives the address."""
    config = uvicorn.Config(
        app, port=0, http="httptools", lifespan="off", interface="asgi3", log_config=None, access_log=False
    )
    server = _Server(config)
    serving = asyncio.create_task(server.serve())
    await eventually(lambda: server.started, what="the server listens")
    try:
        yield server.servers[0].sockets[0].getsockname()[:2]
    finally:
        server.should_exit = True
        await serving


async def _load(address: tuple[str, int], target: str) -> None:
    url = f"http://{address[0]}:{address[1]}{target}"
    command = ["wrk", "-t1", "-c16", f"-d{_SECONDS}s", "-H", f"Accept: {ACCEPT}", url]
    process = await asyncio.create_subprocess_exec(*command, stdout=asyncio.subprocess.PIPE)
    said, _ = await process.communicate()
    assert not re.search(b"Non-2xx|Socket errors", said), f"{url} failed under load:\n{said.decode()}"
