"""What is pinned, as this worker knows it: in memory, and in the file that all workers on the disk share.

Changes are made to what stands in the file at that moment, by one worker at a time, and are durable when they are
answered; many that come at once are written together. The others see them within a second.
"""

import asyncio
import errno
import json
import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field

from mirror.digest import Digest
from mirror.errors import DiskFull, MirrorError, StoreError
from mirror.flight import Rounds
from mirror.oci import Reference
from mirror.store.directory import DataDirectory, write_durably
from mirror.store.leases import Leases
from mirror.store.pinfile import Loaded, PinFile, Version, version
from mirror.store.pins import Pin, Record, Records
from mirror.writer import to_the_end

log = logging.getLogger(__name__)

LOOK_EVERY = 0.5
"""Seconds between two looks at whether another worker has changed something."""

Decision = Callable[[Records], Iterable[Record]]
"""What to merge into the records as they stand. Pure and quick: it runs in a thread, under the lease."""


@dataclass(frozen=True, slots=True)
class _State:
    """What was read of the file, and all that follows from it. ``failure``: why it could not be read."""

    records: Records = field(default_factory=Records)
    version: Version = None
    damage: str | None = None
    failure: str | None = None
    standing: Mapping[str, Pin] = field(default_factory=dict)
    roots: frozenset[str] = frozenset()

    @classmethod
    def of(cls, loaded: Loaded, found: Version) -> "_State":
        pins = (record for record in loaded.records.all.values() if isinstance(record, Pin) and record.stands)
        standing = {pin.reference: pin for pin in sorted(pins, key=lambda pin: pin.reference)}
        roots = frozenset(str(named.digest) for pin in standing.values() for named in pin.names)
        return cls(loaded.records, found, loaded.damage, None, standing, roots)


class Book:
    """The records of pins and imports. ``now`` gives seconds since the epoch."""

    def __init__(self, directory: DataDirectory, leases: Leases, now: Callable[[], float]) -> None:
        """Reads the file. Blocks."""
        self._file = PinFile(directory.pins, directory.pins_backup)
        self._missing = directory.pins_missing
        self._leases = leases
        self._now = now
        self._turn = asyncio.Lock()
        self._pending: list[tuple[Decision, list[bool]]] = []
        self._commits: Rounds[None] = Rounds(self._commit)
        self._problems: Mapping[str, str] = {}
        self._problems_version: Version = None
        self._state = _State()
        self._take(self._read())
        self._problems, self._problems_version = self._read_problems()

    @property
    def records(self) -> Records:
        """All records; another object whenever one has changed."""
        return self._state.records

    @property
    def is_damaged(self) -> bool:
        """Whether what stands in the file is not what stands here, until it is written anew."""
        return self._state.damage is not None

    def standing(self) -> Sequence[Pin]:
        """What is pinned, in the order of the references."""
        return tuple(self._state.standing.values())

    def pin(self, reference: Reference) -> Pin | None:
        """The pin on just this reference."""
        return self._state.standing.get(str(reference))

    def problem(self, reference: str) -> str | None:
        """Why what is pinned is not all here, as far as was found out."""
        return self._problems.get(reference)

    def covers(self, reference: Reference, digest: Digest | None = None) -> bool:
        """Whether a record that says that ``reference`` names ``digest`` may stand in, however old it is."""
        if str(reference) in self._state.standing:
            return True
        imported = self._state.records.imported(str(reference))
        return imported is not None and digest in (None, imported.digest)

    def is_pinned(self, upstream: str, repository: str, tag: str | None, digest: Digest) -> bool:
        """Whether a manifest is pinned, by a tag, by its digest, or by another reference that names the same."""
        reference = Reference(upstream, repository, tag, None if tag is not None else digest)
        return str(reference) in self._state.standing or str(digest) in self._state.roots

    async def protected(self) -> AbstractSet[str]:
        """The digests of all pinned manifests, as text, as the file has them now. Raises `StoreError`."""
        await self.look()
        if self._state.failure is not None:
            raise StoreError(self._state.failure)
        return self._state.roots

    async def look(self) -> None:
        """Know what other workers have changed. Never raises."""
        async with self._turn:
            try:
                versions = await asyncio.to_thread(lambda: (self._file.version(), version(self._missing)))
            except OSError:
                versions = None, None  # then reading it says why
            if versions[0] != self._state.version or self._state.failure is not None:
                self._take(await asyncio.to_thread(self._read))
            if versions[1] != self._problems_version:
                self._problems, self._problems_version = await asyncio.to_thread(self._read_problems)

    async def change(self, decide: Decision) -> bool:
        """Merge what ``decide`` gives; whether that has changed anything. Durable then. Raises `StoreError`."""
        changed: list[bool] = []
        self._pending.append((decide, changed))
        commit = self._commits.join()
        commit.add_done_callback(_heard)
        await asyncio.shield(commit)
        return any(changed)

    async def tell_problems(self, problems: Mapping[str, str]) -> None:
        """Have all workers know why which of the pins are not all here. A failing disk costs just that."""
        if problems == self._problems:
            return
        self._problems = dict(problems)
        try:
            await asyncio.to_thread(write_durably, self._missing, json.dumps(problems).encode())
            self._problems_version = await asyncio.to_thread(version, self._missing)
        except OSError as error:
            log.warning("the disk fails (%s); what is pinned and missing is not noted", error.strerror or error)

    async def aclose(self) -> None:
        """Write what was asked for."""
        while self._commits.busy:
            await asyncio.gather(self._commits.join(), return_exceptions=True)

    async def _commit(self) -> None:
        pending, self._pending = self._pending, []
        async with self._turn, self._leases.hold("pins"):
            self._state = await to_the_end(asyncio.ensure_future(asyncio.to_thread(self._write, pending)))

    def _write(self, pending: Sequence[tuple[Decision, list[bool]]]) -> _State:
        """Blocks: for a thread. Raises `StoreError`."""
        state = self._state
        try:
            if state.failure is not None or self._file.version() != state.version:
                state = self._read()
                if state.failure is not None:
                    raise StoreError(state.failure)
            records = state.records
            for decide, changed in pending:
                merged = records.with_merged(decide(records))
                changed.append(merged is not records)
                records = merged
            if records is state.records and state.damage is None:
                return state
            records = records.without_old(self._now())
            self._file.save(records)
            return _State.of(Loaded(records), self._file.version())
        except OSError as error:
            kind = DiskFull if error.errno in (errno.ENOSPC, errno.EDQUOT) else StoreError
            raise kind(f"the disk does not take the pins ({error.strerror or error}); nothing was changed") from error

    def _read(self) -> _State:
        """What stands in the file. What was read of it before is not lost with it. Blocks."""
        before = self._state
        try:
            found = self._file.version()
            loaded = self._file.load()
        except (OSError, MirrorError) as error:
            why = error.message if isinstance(error, MirrorError) else f"the pins cannot be read: {_words(error)}"
            return _State(before.records, before.version, None, why, before.standing, before.roots)
        if loaded.damage is not None:
            loaded = Loaded(loaded.records.with_merged(before.records.all.values()), loaded.damage)
        return _State.of(loaded, found)

    def _take(self, state: _State) -> None:
        """Go on with what was read, and say what is wrong with it, once."""
        before, self._state = self._state, state
        for now, then in ((state.damage, before.damage), (state.failure, before.failure)):
            if now is not None and now != then:
                log.error("%s", now)

    def _read_problems(self) -> tuple[Mapping[str, str], Version]:
        """Blocks. What cannot be read says nothing."""
        try:
            found = version(self._missing)
            told = json.loads(self._missing.read_bytes()) if found is not None else {}
        except (OSError, ValueError, RecursionError):
            return {}, None
        if not isinstance(told, dict):
            return {}, found
        return {reference: why for reference, why in told.items() if isinstance(why, str)}, found


def _heard(commit: "asyncio.Task[None]") -> None:
    """Whoever asked for it may have left; a failure that nobody hears is no error of the loop."""
    if not commit.cancelled():
        commit.exception()


def _words(error: OSError) -> str:
    return error.strerror or str(error)
