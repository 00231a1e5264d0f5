"""How long it takes to evict 10,000 of 100,000 blobs, and what who pulls meanwhile sees of it."""

import asyncio
import contextlib
import http.client
import os
import re
import statistics
import time
from pathlib import Path
from urllib.parse import urlsplit

from mirror.digest import Digest
from mirror.metadata.base import Link
from mirror.metadata.sqlite import SqliteMetadata
from mirror.store.directory import DataDirectory
from mirror.survey import YOUNG
from tests.bench.lab import REPOSITORY, UPSTREAM, Lab
from tests.bench.table import Row, seconds
from tests.support.artifacts import OCI_CONFIG, RAW_LAYER, Artifact, image, wasm_module
from tests.support.process import MirrorProcess

_BLOBS = 100_000
_GOES = 0.1
_OF_ARTIFACT = 3
_GOAL = 10.0
_AT_ONCE = 1_000
_WITHIN = 120.0
_SAMPLED = 3.0
"""Seconds for which pulls are timed when nothing is evicted any more."""

_SAID = re.compile(r"evicted (\d+) blobs \(\d+ bytes\) in ([\d.]+) s")


def measure(lab: Lab, rounds: int | None) -> list[Row]:
    """One round. The artifact that is pulled meanwhile was used last."""
    mirror = lab.mirror()
    hot, size = asyncio.run(_fill(mirror.data_dir))
    mirror.settings["cache"] = {"max_size": size, "high_water": 1 - _GOES / 2, "low_water": 1 - _GOES}
    mirror.write_config()
    time.sleep(YOUNG + 1)
    with mirror:
        meanwhile, (went, took) = _pull_until_evicted(mirror, hot)
        after = _pull_for(mirror, hot, _SAMPLED)
    return [
        Row(
            f"evicting {went:,} of {_BLOBS:,} blobs while serving",
            seconds(took),
            "",
            None,
            f"< {_GOAL:.0f} s",
            took < _GOAL and went >= 0.99 * _GOES * _BLOBS,
        ),
        Row(
            "a pull of a held manifest meanwhile, median",
            seconds(statistics.median(meanwhile)),
            f"{seconds(statistics.median(after))} else",
            statistics.median(meanwhile) / statistics.median(after),
        ),
        Row(
            "the slowest of a thousand",
            seconds(_slow(meanwhile)),
            f"{seconds(_slow(after))} else",
            _slow(meanwhile) / _slow(after),
        ),
        Row("the slowest of all", seconds(max(meanwhile)), f"{seconds(max(after))} else"),
    ]


async def _fill(folder: Path) -> tuple[Digest, int]:
    """Have that many blobs on a disk, all known; gives a manifest that was used last, and the bytes of all."""
    DataDirectory.open(folder).close()
    directory = DataDirectory.attach(folder)
    metadata = SqliteMetadata.open(directory.database)
    size, now = 0, time.time()
    made: list[Artifact] = []
    for number in range(_BLOBS // _OF_ARTIFACT):
        config = (OCI_CONFIG, b'{"number":%d}' % number)
        made.append(image([(RAW_LAYER, wasm_module(1000, number))], config=config))
        if len(made) == _AT_ONCE or number + 1 == _BLOBS // _OF_ARTIFACT:
            links, used = [], {}
            for one in made:
                for digest, content in {one.digest: one.body, **one.blobs}.items():
                    size += _put(directory.blob(digest), content)
                    kind = one.media_type if digest == one.digest else "application/octet-stream"
                    links.append(Link(UPSTREAM, REPOSITORY, digest, kind, len(content)))
                    used[digest] = now + 3600 + len(links) / 1000
            await metadata.put_links(links)
            await metadata.touch(used)
            hot, made = made[-1].digest, []
    await metadata.aclose()
    os.sync()
    return hot, size


def _put(path: Path, content: bytes) -> int:
    path.parent.mkdir(parents=True, exist_ok=True)
    return path.write_bytes(content)


def _pull_until_evicted(mirror: MirrorProcess, hot: Digest) -> tuple[list[float], tuple[int, float]]:
    """Seconds that each pull took until the mirror says that it has evicted; how many blobs, and in which time."""
    found: list[float] = []
    until = time.monotonic() + _WITHIN
    while time.monotonic() < until:
        found += _pull_for(mirror, hot, 0.2)
        if said := _SAID.search(mirror.log_text()):
            return found, (int(said[1]), float(said[2]))
    raise AssertionError(f"nothing was evicted within {_WITHIN:g} s")


def _pull_for(mirror: MirrorProcess, hot: Digest, duration: float) -> list[float]:
    found: list[float] = []
    where = urlsplit(mirror.url)
    with contextlib.closing(http.client.HTTPConnection(where.hostname or "", where.port)) as connection:
        until = time.monotonic() + duration
        while (began := time.monotonic()) < until:
            connection.request("GET", f"/v2/{UPSTREAM}/{REPOSITORY}/manifests/{hot}")
            reply = connection.getresponse()
            assert (reply.status, Digest.of(reply.read())) == (200, hot)
            found.append(time.monotonic() - began)
    return found


def _slow(found: list[float]) -> float:
    """What one of a thousand takes longer than."""
    return sorted(found)[-1 - len(found) // 1000]
