"""What of this disk goes with manifests that are purged: they, and what nothing else here names.

What is named by another manifest on this disk, by a tag, by a pin, by what is hosted, or held by another repository
stays. With a layer goes what was unpacked of it, and with a manifest what was made of it here.
"""

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Collection, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field, replace
from typing import Protocol

from mirror.digest import Digest
from mirror.errors import StoreError, UpstreamInvalid
from mirror.metadata.base import Link
from mirror.metadata.uses import Tagged
from mirror.oci import MANIFEST_TYPES, Manifest, Reference
from mirror.removal import Removal
from mirror.store.directory import DataDirectory
from mirror.store.eviction import closure
from mirror.store.naming import Naming
from mirror.survey import Found, Survey
from mirror.wasm.repackage import source_of

_LOOKED_FOR = 5.0
"""Seconds for which what was found on the disk is gone by: other replicas send what is purged in many portions. What
comes meanwhile, and names what is about to go, has it fetched again.
"""


class Known(Protocol):
    """What is noted on this disk: `mirror.metadata.sqlite`. Methods may raise `StoreError`."""

    def all_tagged(self) -> AsyncIterator[Sequence[Tagged]]: ...

    def all_links(self) -> AsyncIterator[Sequence[Link]]: ...

    def all_unpacked_from(self) -> AsyncIterator[Sequence[tuple[str, str]]]: ...


@dataclass(frozen=True, slots=True)
class Doomed:
    """A manifest, or a blob, that is purged from a repository. ``tags`` are those by which it was named there."""

    upstream: str
    repository: str
    digest: Digest
    tags: tuple[str, ...] = ()

    @property
    def references(self) -> list[Reference]:
        """All that is purged."""
        return [Reference(self.upstream, self.repository, tag=tag) for tag in self.tags]


@dataclass(frozen=True, slots=True)
class Disposed:
    """What became of it: ``gone`` are the digests that went with it, with their bytes. ``pinned``: it has to stay.
    ``namer`` is a manifest that names it, and for which it stays; ``tagged``: another tag of the repository names it.
    """

    gone: Mapping[Digest, int] = field(default_factory=dict)
    pinned: bool = False
    namer: str | None = None
    tagged: bool = False

    @property
    def size(self) -> int:
        """Bytes that are free."""
        return sum(self.gone.values())


@dataclass(frozen=True, slots=True)
class _Looked:
    """What was found. ``names`` says also what was unpacked and made of what; ``pinned`` are all that pins protect.
    ``tagged``: by its tags, what each digest is named as; ``linked``: which repositories hold a manifest.
    """

    found: Found
    names: Mapping[str, Collection[str]]
    pinned: AbstractSet[str]
    tagged: Mapping[str, AbstractSet[Reference]]
    linked: Mapping[str, AbstractSet[tuple[str, str]]]


class Disposal:
    """Disposes of what is purged, on this disk. ``clock`` gives seconds that never go back."""

    def __init__(
        self,
        directory: DataDirectory,
        survey: Survey,
        known: Known,
        removal: Removal,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._directory = directory
        self._survey = survey
        self._known = known
        self._removal = removal
        self._clock = clock
        self._turn = asyncio.Lock()
        self._looked: tuple[float, _Looked] | None = None

    async def dispose(self, doomed: Sequence[Doomed], *, anew: bool = True) -> list[Disposed]:
        """Take them from this disk; what became of each. ``anew``: look at what is here now, and not lately.

        Raises `StoreError`.
        """
        async with self._turn:
            looked = await self._look(anew=anew)
            taken, fates = await asyncio.to_thread(_plan, looked, doomed)
            gone = await self._removal.remove([digest for digests in taken for digest in digests])
        return [
            replace(fate, gone={digest: gone[digest] for digest in digests if digest in gone})
            for digests, fate in zip(taken, fates, strict=True)
        ]

    async def _look(self, *, anew: bool) -> _Looked:
        if not anew and self._looked is not None and self._clock() - self._looked[0] < _LOOKED_FOR:
            return self._looked[1]
        try:
            looked = await self._all()
        except OSError as error:
            raise StoreError(f"the mirror's disk fails: {error.strerror or error}") from error
        self._looked = self._clock(), looked
        return looked

    async def _all(self) -> _Looked:
        found = await self._survey.look()
        names: dict[str, Collection[str]] = dict(found.names)
        for source, made, named in await asyncio.to_thread(self._made, found.made):
            names[source] = [*names.get(source, ()), made]
            names[made] = named
        async for unpacked in self._known.all_unpacked_from():
            for layer, module in unpacked:
                names[layer] = [*names.get(layer, ()), module]
        tagged: dict[str, set[Reference]] = {}
        async for portion in self._known.all_tagged():
            for one in portion:
                tagged.setdefault(one.digest, set()).add(Reference(one.upstream, one.repository, tag=one.tag))
        linked: dict[str, set[tuple[str, str]]] = {}
        async for links in self._known.all_links():
            for link in links:
                if link.media_type in MANIFEST_TYPES:
                    linked.setdefault(str(link.digest), set()).add((link.upstream, link.repository))
        return _Looked(found, names, closure(found.pinned, names), tagged, linked)

    def _made(self, manifests: Collection[str]) -> list[tuple[str, str, list[str]]]:
        """Of manifests that were made here: of which one, what was made, and what that names. Blocks."""
        found = []
        for text in manifests:
            digest = Digest.parse(text)
            try:
                manifest = Manifest.parse(self._directory.blob(digest).read_bytes(), "", digest)
            except (OSError, UpstreamInvalid):
                continue
            if (source := source_of(manifest)) is not None:
                found.append((str(source), text, [str(named.digest) for named in manifest.named]))
        return found


def _plan(looked: _Looked, doomed: Sequence[Doomed]) -> tuple[list[list[Digest]], list[Disposed]]:
    """What goes with each, and what stands against it."""
    purged = {reference for one in doomed for reference in one.references}
    places: dict[str, set[tuple[str, str]]] = {}
    for one in doomed:
        places.setdefault(str(one.digest), set()).add((one.upstream, one.repository))
    tags = {digest: left for digest, all_of in looked.tagged.items() if (left := all_of - purged)}
    shared = {digest for digest, mine in places.items() if not looked.linked.get(digest, set()) <= mine}
    naming = Naming(looked.names, looked.found.hosted | looked.pinned | tags.keys() | shared)
    taken = []
    for one in doomed:
        with_it = naming.take(str(one.digest))
        taken.append([Digest.parse(each) for each in with_it if each in looked.found.files])

    def fate(one: Doomed) -> Disposed:
        digest, place = str(one.digest), (one.upstream, one.repository)
        namer = None if digest in naming.gone else naming.namer(digest)
        tagged = any((tag.upstream, tag.repository) == place for tag in tags.get(digest, ()))
        return Disposed({}, digest in looked.pinned, namer, tagged)

    return taken, [fate(one) for one in doomed]
