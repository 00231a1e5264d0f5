"""Whether the list of modules is worth fetching anew: a number that grows when something in it has changed.

What only time and hits change in it is left out: who shows that asks again now and then.
"""

import asyncio
import os
from pathlib import Path

from mirror.exposition import Exposition
from mirror.metrics import EVICTIONS, FILLS, PREWARMED, PUSHES, UPSTREAM_REQUESTS, WASM_CHECKS
from mirror.pinned import Book
from mirror.store.directory import DataDirectory
from mirror.store.generation import Generation

_COUNTED = (FILLS, PUSHES, WASM_CHECKS, EVICTIONS, PREWARMED)


class Moved:
    """Looks at all that tells of it: what workers count, pins, the records of what is hosted. Ends by `close`."""

    def __init__(self, exposition: Exposition, book: Book, directory: DataDirectory) -> None:
        self._exposition = exposition
        self._book = book
        self._generations = [Generation(directory.generation), Generation(directory.evictions)]
        self._log_of_hosted = directory.hosted.with_name(f"{directory.hosted.name}-wal")
        self._seen: object = None
        self._changes = 0

    async def changes(self) -> int:
        """How many changes were seen by now, by who looks through this; several at a time count once."""
        seen = await self._now()
        if self._seen is not None and seen != self._seen:
            self._changes += 1
        self._seen = seen
        return self._changes

    def close(self) -> None:
        """Look no more."""
        for generation in self._generations:
            generation.close()

    async def _now(self) -> object:
        numbers = await self._exposition.counted()
        counted = [sum(number for (number,) in numbers.get(one.name, {}).values()) for one in _COUNTED]
        manifests = sum(
            number
            for (_, _, operation, result), (number,) in numbers.get(UPSTREAM_REQUESTS.name, {}).items()
            if operation == "get_manifest" and result == "success"
        )
        hosted = await asyncio.to_thread(_version, self._log_of_hosted)
        generations = [generation.current() for generation in self._generations]
        return counted, manifests, generations, hosted, self._book.records


def _version(path: Path) -> tuple[int, int] | None:
    """What tells a file that was written to from what it was before; None where it is not there."""
    try:
        about = os.stat(path)
    except OSError:
        return None
    return about.st_mtime_ns, about.st_size
