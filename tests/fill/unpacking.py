"""``python -m tests.fill.unpacking FOLDER LAYER NAME SIZE``: a worker that says ``there`` while it unpacks."""

import asyncio
import os
import sys
import time
from pathlib import Path

from mirror.digest import Digest
from mirror.metadata.sqlite import SqliteMetadata
from mirror.store.blobs import BlobStore
from mirror.store.directory import DataDirectory
from mirror.store.leases import Leases
from mirror.unpack import Unpacker
from mirror.wasm.artifact import Found


def stop_at_the_second_write() -> None:
    """Say so then, and wait to be killed."""
    write, calls = os.write, [0]

    def stopping(fd: int, data: memoryview) -> int:
        calls[0] += 1
        if calls[0] == 2:
            print("there", flush=True)
            time.sleep(60)
        return write(fd, data)

    os.write = stopping  # type: ignore[assignment] # it is called with views only


async def main(folder: Path, layer: str, name: str, size: int) -> None:
    """Unpack the first entry of a layer that is held."""
    directory = DataDirectory.attach(folder)
    store = BlobStore(directory)
    notes = SqliteMetadata.open(directory.database)
    unpacker = Unpacker(directory, store, notes, Leases(directory.leases), size)
    held = store.open(Digest.parse(layer))
    assert held is not None
    await unpacker.module(held, Found(0, name, size, True))


if __name__ == "__main__":
    stop_at_the_second_write()
    asyncio.run(main(Path(sys.argv[1]), sys.argv[2], sys.argv[3], int(sys.argv[4])))
