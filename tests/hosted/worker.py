"""A worker process of the tests: ``python -m tests.hosted.worker FOLDER NAME``.

It pushes artifacts one after the other, and says so of each once it was taken in.
"""

import asyncio
import sys
from pathlib import Path

from mirror.hosted.catalogue import Catalogue
from mirror.store.blobs import BlobStore
from mirror.store.directory import DataDirectory
from tests.hosted.shelf import REPOSITORY, describe
from tests.support.artifacts import OCI_LAYER, Artifact, image


def artifact(name: str, number: int) -> Artifact:
    """What a worker pushes as its ``number``-th, under the tag ``<name>-<number>``, and under ``latest``."""
    return image([(OCI_LAYER, b"shared by all"), (OCI_LAYER, f"{name} {number}".encode())])


async def write(folder: Path, name: str) -> None:
    """Push until standard input ends."""
    directory = DataDirectory.attach(folder)
    store, catalogue = BlobStore(directory), Catalogue.of(directory)
    ended = asyncio.create_task(asyncio.to_thread(sys.stdin.read))
    number = 0
    while not ended.done():
        pushed = artifact(name, number)
        for digest, content in pushed.blobs.items():
            store.put(digest, content)
            await catalogue.link_blob(REPOSITORY, digest, len(content))
        store.put(pushed.digest, pushed.body)
        await catalogue.put_manifest(REPOSITORY, describe(pushed), [f"{name}-{number}", "latest"])
        print(number, flush=True)
        number += 1
    await catalogue.aclose()


if __name__ == "__main__":
    asyncio.run(write(Path(sys.argv[1]), sys.argv[2]))
