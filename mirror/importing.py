"""Archives taken in: what `mirror.exporting` and registries' clients write becomes content of its upstreams, as if it
had been pulled from them, and stands in for them however old it gets.

An archive is read to its end, and all of it verified, before anything of it can be seen. Then each reference is taken
in by itself, whatever becomes of the others.
"""

import asyncio
import logging
import re
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Protocol

from mirror.arriving import Arrivals, Arrived, Here
from mirror.callings import Onto, reference_of
from mirror.digest import Digest
from mirror.errors import MirrorError, NameInvalid, StoreError
from mirror.layouts.assembly import Assembled, Assembly, Incomplete
from mirror.layouts.layout import Named, blob_name
from mirror.layouts.source import Limits
from mirror.names import Names
from mirror.oci import Reference
from mirror.shelving import Shelved, Shelves
from mirror.store.directory import DataDirectory
from mirror.store.staging import Staging

log = logging.getLogger(__name__)

_DIGEST = re.compile(r"sha(?:256|512):[0-9a-f]+")


class Result(StrEnum):
    """What has become of a reference."""

    IMPORTED = "imported"
    HELD = "held"  # all of it was here, under this name
    INVALID = "invalid"  # it is no reference of this mirror, or nothing says which one is meant
    FAILED = "failed"  # not all of it came, or could be kept


@dataclass(frozen=True, slots=True)
class Taken:
    """What became of one artifact, or of a blob that is not what its name says: then ``reference`` is that name.

    ``reference`` is canonical, or as the archive has it where it means nothing here. ``bytes``: how many came to this
    disk for it. ``why``: what went wrong, or is missing of it, in words.
    """

    reference: str
    result: Result
    digest: Digest | None = None
    bytes: int | None = None
    why: str | None = None


@dataclass(frozen=True, slots=True)
class Import:
    """What became of an archive. ``ignored``: names of its files, up to a hundred, that are no part of a layout."""

    taken: Sequence[Taken]
    ignored: Sequence[str]


class Pins(Protocol):
    """What stands in without a limit of age, and what must stay: `mirror.pinning`. Raises `MirrorError`."""

    async def pin(self, reference: Reference, by: str) -> object:
        """Protect what ``reference`` names."""
        ...

    async def note_imported(self, reference: Reference, digest: Digest) -> None:
        """``reference`` came by import, and named this."""
        ...


@dataclass(frozen=True, slots=True)
class Wish:
    """How an archive is to be taken in: called as ``onto`` says, and pinned with ``pin``. ``by`` is who asks."""

    onto: Onto | None
    pin: bool
    by: str


class Importer:
    """Takes in archives, any number at a time."""

    def __init__(self, directory: DataDirectory, shelves: Shelves, names: Names, pins: Pins, max_size: int) -> None:
        """``max_size``: bytes that an archive may hold."""
        self._directory = directory
        self._shelves = shelves
        self._names = names
        self._pins = pins
        self._arrivals = Arrivals(Limits(total=max_size))

    async def take_in(self, stream: AsyncIterator[bytes], wish: Wish) -> Import:
        """Read an archive to its end, and take in what it names.

        Raises `ArchiveInvalid`, before anything was taken in, and what ``stream`` raises.
        """
        async with Staging(self._directory, self._shelves.store) as staging:
            arrived = await self._arrivals.receive(stream, staging)
            taken: list[Taken] = []
            given: dict[Reference, Digest] = {}
            for named in arrived.named:
                try:
                    reference = self._called(named, wish, given, alone=len(arrived.named) == 1)
                except MirrorError as error:
                    called = named.name or str(named.descriptor.digest)
                    taken.append(Taken(called, Result.INVALID, named.descriptor.digest, why=error.message))
                else:
                    taken.append(await self._one(reference, named, arrived, staging, wish))
        told = {found for one in taken for found in _DIGEST.findall(one.why or "")}
        for digest, why in arrived.lying.items():
            if str(digest) not in told:
                taken.append(Taken(blob_name(digest), Result.INVALID, digest, why=why))
        return Import(taken, arrived.ignored)

    def _called(self, named: Named, wish: Wish, given: dict[Reference, Digest], *, alone: bool) -> Reference:
        """What an artifact is called here. Raises `MirrorError`, also where another one has that name already."""
        reference, digest = reference_of(named, wish.onto, self._names, alone=alone), named.descriptor.digest
        self._shelves.refuse(reference)
        if given.setdefault(reference, digest) != digest:
            raise NameInvalid(f"the archive holds two artifacts that are to be {reference}; the other one was taken")
        return reference

    async def _one(self, reference: Reference, named: Named, arrived: Arrived, staging: Staging, wish: Wish) -> Taken:
        """Take in one artifact, and have it stay. What stands against it is in what is given back."""
        digest = named.descriptor.digest
        try:
            artifact = await self._assembled(named, arrived)
            shelved = await self._shelves.put(reference, artifact, arrived, staging, wish.by)
            await self._have_it_stay(reference, digest, wish)
        except Incomplete as why:
            return Taken(str(reference), Result.FAILED, digest, why=str(why))
        except MirrorError as error:
            return Taken(str(reference), Result.FAILED, digest, why=error.message)
        result = Result.HELD if shelved.held else Result.IMPORTED
        log.info("%s is %s: %s, %d bytes", reference, result, digest, shelved.bytes)
        return Taken(str(reference), result, digest, shelved.bytes, _remarks(artifact, shelved))

    async def _assembled(self, named: Named, arrived: Arrived) -> Assembled:
        assembly = Assembly(Here(arrived, self._directory, self._shelves.store))
        try:
            return await asyncio.to_thread(assembly.artifact, named.descriptor)
        except OSError as error:
            log.error("the disk fails (%s); %s is not imported", error.strerror or error, named.descriptor.digest)
            raise StoreError("the mirror's disk cannot be read; its log says why") from error

    async def _have_it_stay(self, reference: Reference, digest: Digest, wish: Wish) -> None:
        """Hosted content stays anyway; pinned, it comes to lie on all replicas' disks."""
        try:
            if reference.upstream != self._shelves.prefix:
                await self._pins.note_imported(reference, digest)
            if wish.pin:
                await self._pins.pin(reference, wish.by)
        except MirrorError as error:
            raise StoreError(f"it is here, but may not stay, for it could not be pinned: {error.message}") from error


def _remarks(artifact: Assembled, shelved: Shelved) -> str | None:
    """What is to be said of an artifact that was taken in."""
    words = list(shelved.warnings)
    if artifact.absent:
        words.insert(
            0, f"{artifact.absent} of the {artifact.children} manifests in its index did not come, and are not held"
        )
    return "; ".join(words) or None
