"""A worker process of the tests: ``python -m tests.metadata.worker write|fill-the-disk FOLDER NAME``."""

import asyncio
import resource
import sys
from dataclasses import replace
from pathlib import Path

from mirror.digest import Digest
from mirror.errors import StoreError
from mirror.metadata.base import KeptAnswer
from tests.metadata.databases import LINK, TAG, opened


async def write(place: Path, name: str) -> None:
    """Put tag after tag, each with its link, and print the number of each that was taken, until told to end."""
    loop = asyncio.get_running_loop()
    told = loop.run_in_executor(None, sys.stdin.read)
    async with opened(place) as store:
        number = 0
        while not told.done():
            digest = Digest.of(f"{name}-{number}".encode())
            try:
                await store.put_links([replace(LINK, digest=digest)])
                await store.put_tag(replace(TAG, tag=f"{name}-{number}", digest=digest))
            except StoreError:
                continue
            print(number, flush=True)
            number += 1


async def fill_the_disk(place: Path, _: str) -> None:
    """Write until there is no more room, then go on reading, then make room and write; print ``ok`` at the end."""
    hard = resource.getrlimit(resource.RLIMIT_FSIZE)[1]
    async with opened(place) as store:
        await store.put_tag(TAG)
        resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 20, hard))
        refused = 0
        for number in range(200):
            try:
                await store.keep(f"key {number}", KeptAnswer(b"x" * 100_000, {}, 1.0))
            except StoreError:
                refused += 1
        assert refused > 100, refused
        assert await store.tag("ghcr.io", "team/filter", "v1") == TAG
        resource.setrlimit(resource.RLIMIT_FSIZE, (hard, hard))
        await store.put_tag(replace(TAG, tag="v2"))
        assert await store.tag("ghcr.io", "team/filter", "v2") is not None
        assert not store.links_incomplete
    print("ok", flush=True)


if __name__ == "__main__":
    task = {"write": write, "fill-the-disk": fill_the_disk}[sys.argv[1]]
    asyncio.run(task(Path(sys.argv[2]), sys.argv[3]))
