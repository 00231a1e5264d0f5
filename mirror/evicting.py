"""The part of eviction that touches each of a hundred thousand files: what goes is decided and unlinked here.

``python -m mirror.evicting FOLDER`` does it in a process of its own (`mirror.apart`), line by line as JSON: beside the
loop that serves, each system call and each row would wait for the interpreter's lock, a hundred times longer than for
the disk.
"""

import asyncio
import gc
import json
import os
import sys
import time
from collections.abc import Callable, Collection, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Protocol

from mirror.digest import Digest
from mirror.errors import StoreError
from mirror.hosted.catalogue import Catalogue
from mirror.metadata.sqlite import SqliteMetadata
from mirror.store.census import Census
from mirror.store.directory import DataDirectory
from mirror.store.eviction import batches
from mirror.survey import Hosts, Known, Survey


@dataclass(frozen=True, slots=True)
class Wanted:
    """How many bytes must go, about how many blobs at once, and for how many seconds a blob stays that has just come.
    What is ``pinned`` stays, and all that it names; digests are text.
    """

    need: int
    most: int
    young: float
    pinned: Collection[str] = ()


@dataclass(frozen=True, slots=True)
class Plan:
    """What is to go, in its order, as digests' text; and how many bytes stay, each for its reason."""

    batches: Sequence[Sequence[str]]
    hosted: int
    pinned: int
    young: int


@dataclass(slots=True)
class Unlinked:
    """What went, what was not there any more, the bytes of both as they were looked at, and what ended it."""

    gone: list[str] = field(default_factory=list)
    absent: list[str] = field(default_factory=list)
    bytes: int = 0
    failure: str | None = None


class Hand(Protocol):
    """Who decides and unlinks, in this process or beside it; for one round."""

    async def look(self, wanted: Wanted) -> Plan:
        """What is held, and what of it is to go. Raises `StoreError`, `OSError`."""
        ...

    def unlink(self, digests: Sequence[str]) -> Unlinked:
        """Let a part of the plan go, but for what has come again meanwhile. Blocks: for a thread. Raises `OSError`."""
        ...

    async def aclose(self) -> None:
        """The round is over."""
        ...


class Here:
    """A `Hand` in this process. ``now`` gives seconds since the epoch, as the disk does."""

    def __init__(
        self,
        directory: DataDirectory,
        known: Known,
        hosted: Hosts | None,
        now: Callable[[], float] = time.time,
        unlink: Callable[[str], None] = os.unlink,
    ) -> None:
        self._directory = directory
        self._survey = Survey(directory, Census(directory), known, hosted, now)
        self._unlink = unlink
        self._sizes: dict[str, int] = {}

    async def look(self, wanted: Wanted) -> Plan:
        """As `Hand.look`."""
        found = await self._survey.look(wanted.young, frozenset(wanted.pinned))
        stays = found.hosted | found.pinned
        plan = await asyncio.to_thread(
            lambda: list(batches(found.held(), found.names, stays, wanted.need, wanted.most))  # seconds, where all goes
        )
        self._sizes = {digest: found.files[digest].size for batch in plan for digest in batch}
        return Plan(
            plan, found.bytes_of(found.hosted), found.bytes_pinned(), found.bytes_of(found.young - found.hosted)
        )

    def unlink(self, digests: Sequence[str]) -> Unlinked:
        """As `Hand.unlink`."""
        done = Unlinked()
        for text in digests:
            file = self._directory.file_of(Digest.parse(text))
            try:
                if self._survey.is_young(os.stat(file).st_ctime):
                    continue
                self._unlink(file)
            except FileNotFoundError:
                done.absent.append(text)
                continue
            except OSError as error:
                done.failure = error.strerror or str(error)
                break
            done.gone.append(text)
            done.bytes += self._sizes.get(text, 0)
        return done

    async def aclose(self) -> None:
        """As `Hand.aclose`."""


async def _serve(folder: Path) -> None:
    """Answer the lines that come, until none does."""
    gc.disable()  # it makes a million objects that all stay, and ends
    directory = DataDirectory.attach(folder)
    known = SqliteMetadata.open(directory.database)
    hosted = Catalogue.of(directory) if directory.hosted.exists() else None
    try:
        hand = Here(directory, known, hosted)
        while line := sys.stdin.readline():
            sys.stdout.write(json.dumps(await _answer(hand, json.loads(line))) + "\n")
            sys.stdout.flush()
    finally:
        if hosted is not None:
            await hosted.aclose()
        await known.aclose()


async def _answer(hand: Here, asked: dict[str, object]) -> dict[str, object]:
    try:
        if isinstance(digests := asked.get("unlink"), list):
            return asdict(hand.unlink(digests))
        return asdict(await hand.look(Wanted(**asked["look"])))  # type: ignore[arg-type]  # as `mirror.apart` wrote it
    except StoreError as error:
        return {"store": error.message}
    except OSError as error:
        return {"disk": error.strerror or str(error)}


if __name__ == "__main__":
    asyncio.run(_serve(Path(sys.argv[1])))
