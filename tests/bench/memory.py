"""What a large layer costs in memory while a hundred slow clients and a fast one wait for it."""

import shutil
import threading
import time

from tests.bench.client import Client
from tests.bench.lab import REPOSITORY, Lab, base
from tests.bench.table import Row, seconds
from tests.support.process import MirrorProcess

_SIZE = 2 * 1024**3
_CLIENTS = 100
_GOAL = 150 * 1024**2
_EVERY = 0.1
"""Seconds between two looks at the mirror's memory, and between two reads of a slow client."""


class Slow(Exception):
    """A slow client may leave."""


def measure(lab: Lab, rounds: int | None) -> list[Row]:
    """One round: the fast client takes all, then the slow ones leave at once."""
    free = shutil.disk_usage(lab.folder).free
    if free < 1.5 * _SIZE:
        return [Row(f"memory: skipped, {lab.folder} has {free / 1024**3:.1f} GiB free, and 3 are needed")]
    artifact = lab.artifact(_SIZE)
    with lab.mirror() as mirror:
        at_rest = mirror.private_memory()
        done = threading.Event()
        peaks: list[int] = []
        slow = [threading.Thread(target=_dawdle, args=(mirror, str(artifact.layer), done)) for _ in range(_CLIENTS)]
        sampler = threading.Thread(target=_watch, args=(mirror, done, peaks))
        try:
            for thread in (sampler, *slow):
                thread.start()
            began = time.monotonic()
            with Client(base(mirror)) as client:
                took = client.blob(REPOSITORY, str(artifact.layer)).done_at - began
                quiet = _answer_time(mirror)
                done.set()
                for thread in slow:
                    thread.join()
                stirred = _answer_time(mirror)
        finally:
            done.set()
            for thread in (sampler, *slow):
                thread.join()
    peak = max(peaks)
    return [
        Row(
            f"private memory, 2 GiB layer, {_CLIENTS} slow clients (all of it in {seconds(took)})",
            f"{peak / 1024**2:.0f} MiB at most",
            f"{at_rest / 1024**2:.0f} MiB at rest",
            peak / at_rest,
            f"< {_GOAL // 1024**2} MiB",
            peak < _GOAL,
        ),
        Row("GET /v2/ as those clients leave", seconds(stirred), f"{seconds(quiet)} before", stirred / quiet),
    ]


def _answer_time(mirror: MirrorProcess) -> float:
    """Seconds that a new client waits for the least that the mirror answers."""
    began = time.monotonic()
    with Client(base(mirror)) as client:
        return client.ping().done_at - began


def _dawdle(mirror: MirrorProcess, digest: str, done: threading.Event) -> None:
    """Read 64 KiB every now and then, until told that it is enough."""

    def take(piece: memoryview) -> None:
        if done.wait(_EVERY):
            raise Slow

    try:
        with Client(base(mirror), buffer=64 * 1024, receive_buffer=64 * 1024) as client:
            client.blob(REPOSITORY, digest, take)
    except Slow:
        return


def _watch(mirror: MirrorProcess, done: threading.Event, peaks: list[int]) -> None:
    while True:
        peaks.append(mirror.private_memory())
        if done.wait(_EVERY):
            return
