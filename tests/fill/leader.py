"""A worker process of the tests: ``python -m tests.fill.leader DATA_DIR SIZE UPTO``.

It fills ``some_bytes(SIZE)`` as far as byte ``UPTO``, prints ``there``, and stays until it is killed.
"""

import asyncio
import sys
from pathlib import Path

from mirror.digest import Digest
from mirror.store.directory import DataDirectory
from tests.fill.source import MemorySource, Sending, Tap
from tests.fill.workers import some_bytes, worker
from tests.support.waiting import eventually


async def lead(folder: Path, size: int, upto: int) -> None:
    """Fill, and stand still in the middle."""
    content = some_bytes(size)
    source = MemorySource(content)
    source.script.append(Sending(tap=Tap(upto)))
    async with worker(DataDirectory.attach(folder), source) as one:
        fill = one.start(Digest.of(content), size)
        await eventually(lambda: fill.content.available == upto)
        print("there", flush=True)
        await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(lead(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])))
