"""A worker process of the tests: ``python -m tests.hosted.worker FOLDER NAME [hear]``.

It pushes artifacts one after the other, and says so of each once it was taken in; or takes in portions of what it heard
of another replica.
"""

import asyncio
import sys
from pathlib import Path

from mirror.hosted.catalogue import Catalogue
from mirror.hosted.entries import Cursor, Entry, OfBlob, OfManifest, OfTag
from mirror.store.blobs import BlobStore
from mirror.store.directory import DataDirectory
from tests.hosted.shelf import REPOSITORY, describe
from tests.support.artifacts import OCI_LAYER, Artifact, image

IN_PORTION = 200
"""Tags, so that a portion takes a while."""


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


def portion(name: str, number: int) -> list[Entry]:
    """What is heard as the ``number``-th: a manifest, what it names, and many tags of it."""
    heard = describe(artifact(name, number))
    digest, moment = heard.manifest.digest, number + 1
    blobs = [OfBlob(REPOSITORY, to.digest, moment, False, to.size, 1.0) for to in heard.blobs]
    tags = [OfTag(REPOSITORY, f"{name}-{number}-{tag}", moment, digest, 1.0, 1) for tag in range(IN_PORTION)]
    return [*blobs, OfManifest(REPOSITORY, digest, moment, heard, 1.0), *tags]


async def hear(folder: Path, name: str) -> None:
    """Take in portions until standard input ends."""
    directory = DataDirectory.attach(folder)
    store, catalogue = BlobStore(directory), Catalogue.of(directory)
    ended = asyncio.create_task(asyncio.to_thread(sys.stdin.read))
    number = 0
    while not ended.done():
        pushed = artifact(name, number)
        store.put(pushed.digest, pushed.body)
        await catalogue.merge(portion(name, number), Cursor(name, number + 1, 1.0))
        print(number, flush=True)
        number += 1
    await catalogue.aclose()


if __name__ == "__main__":
    asyncio.run((hear if "hear" in sys.argv[3:] else write)(Path(sys.argv[1]), sys.argv[2]))
