"""What was begun on this disk and nobody goes on with: spools of fills, and drafts of what was being kept."""

import contextlib
import os
from typing import NamedTuple

from mirror.digest import Digest
from mirror.errors import DigestInvalid
from mirror.store.directory import DataDirectory
from mirror.store.spool import Spool


class Left(NamedTuple):
    """Files that went, and their bytes."""

    files: int
    size: int


def clear(directory: DataDirectory, before: float) -> Left:
    """Drop what nobody has written to since ``before`` (seconds since the epoch), and nobody does now. Blocks.

    What cannot be dropped stays, and does no harm. Raises `OSError` where the disk cannot be read.
    """
    sizes = []
    for name in os.listdir(directory.spool):
        with contextlib.suppress(OSError):
            found = os.stat(directory.spool / name)
            if found.st_mtime < before and _drop(directory, name):
                sizes.append(found.st_size)
    return Left(len(sizes), sum(sizes))


def _drop(directory: DataDirectory, name: str) -> bool:
    """Drop one, unless it is a spool that somebody writes to."""
    algorithm, _, hexadecimal = name.partition("-")
    try:
        digest = Digest.parse(f"{algorithm}:{hexadecimal}")
    except DigestInvalid:
        (directory.spool / name).unlink()
        return True
    spool = Spool.acquire(directory, digest)
    if spool is None:
        return False
    try:
        spool.drop()
    finally:
        spool.close()
    return True
