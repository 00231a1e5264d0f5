"""What of an archive makes an artifact: a manifest, parsed strictly, and all that it names. Blocks: for threads.

An index is taken with those of its children that are whole, if any is: registries' clients, too, write archives that
have but one platform of an image.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol

from mirror.digest import Digest
from mirror.errors import UpstreamInvalid
from mirror.oci import INDEXES, MANIFEST_TYPES, MAX_MANIFEST_SIZE, Descriptor, Manifest

_MAX_DEPTH = 4
"""Indexes that are followed one to another, as agents' are followed (`mirror.indexes`)."""

_MOST_MANIFESTS = 500
"""Manifests to which one artifact may lead."""

_MOST_BYTES = 64 * 1024 * 1024
"""Bytes that these may have together, while they are in memory."""

_NOT_IN_REGISTRIES = (".foreign.", ".nondistributable.")
"""What the media types of layers have in them that registries need not hold."""


class Incomplete(Exception):
    """An artifact that cannot be made of what is there; the message is a sentence that says why."""


class There(Protocol):
    """What the archive holds, and the disk."""

    def size(self, digest: Digest) -> int | None:
        """Bytes of what has this digest, verified; None where it is nowhere."""
        ...

    def read(self, digest: Digest) -> bytes:
        """All of it. Raises `OSError`."""
        ...

    def fault(self, digest: Digest) -> str | None:
        """Why what the archive holds under this digest does not count; None where it holds nothing, or all is well."""
        ...


@dataclass(frozen=True, slots=True)
class Assembled:
    """An artifact that is whole. ``manifests`` are in the order in which they may be put: the named one is the last.

    ``blobs``: the configs and layers that they name. ``children``: how many the named one has, where it is an index,
    and ``absent``: how many of them are not there.
    """

    manifests: tuple[Manifest, ...]
    blobs: tuple[Descriptor, ...]
    children: int = 0
    absent: int = 0

    @property
    def named(self) -> Manifest:
        """What the archive's index names."""
        return self.manifests[-1]

    def digests(self) -> Iterator[Digest]:
        """Of all that it takes, each once, blobs first."""
        yield from dict.fromkeys((*(one.digest for one in self.blobs), *(one.digest for one in self.manifests)))


class Assembly:
    """Puts one artifact together, each part once, however often it is named."""

    def __init__(self, there: There) -> None:
        self._there = there
        self._known: dict[tuple[Digest, str, int], Assembled | Incomplete] = {}
        self._manifests_left = _MOST_MANIFESTS
        self._bytes_left = _MOST_BYTES

    def artifact(self, named: Descriptor) -> Assembled:
        """The artifact behind a descriptor. Raises `Incomplete`, `OSError`."""
        return self._artifact(named, _MAX_DEPTH)

    def _artifact(self, named: Descriptor, depth: int) -> Assembled:
        key = named.digest, named.media_type, depth
        found = self._known.get(key)
        if found is None:
            try:
                found = self._put_together(named, depth)
            except Incomplete as why:
                found = why
            self._known[key] = found
        if isinstance(found, Incomplete):
            raise Incomplete(*found.args)
        return found

    def _put_together(self, named: Descriptor, depth: int) -> Assembled:
        manifest = self._manifest(named)
        if manifest.media_type in INDEXES:
            return self._of_index(manifest, depth)
        parts = (*((manifest.config,) if manifest.config else ()), *manifest.layers)
        blobs = [one for one in parts if not any(part in one.media_type for part in _NOT_IN_REGISTRIES)]
        for one in blobs:
            self._check(one)
        return Assembled((manifest,), tuple(dict.fromkeys(blobs)))

    def _of_index(self, index: Manifest, depth: int) -> Assembled:
        manifests: dict[tuple[Digest, str], Manifest] = {}
        blobs: dict[Descriptor, None] = {}
        absent, reason = 0, ""
        for child in index.manifests:
            try:
                if child.media_type not in MANIFEST_TYPES:
                    self._check(child)
                    blobs[child] = None
                    continue
                if not depth:
                    raise Incomplete(f"an index leads to more than {_MAX_DEPTH} others")
                part = self._artifact(child, depth - 1)
            except Incomplete as why:
                absent, reason = absent + 1, reason or str(why)
            else:
                manifests.update(((one.digest, one.media_type), one) for one in part.manifests)
                blobs.update(dict.fromkeys(part.blobs))
        if absent and absent == len(index.manifests):
            raise Incomplete(
                f"none of the {absent} manifests in its index is whole: {reason}" if absent > 1 else reason
            )
        manifests.pop((index.digest, index.media_type), None)
        return Assembled((*manifests.values(), index), tuple(blobs), len(index.manifests), absent)

    def _manifest(self, named: Descriptor) -> Manifest:
        if named.media_type not in MANIFEST_TYPES:
            raise Incomplete(f"{named.digest} is of the type {named.media_type!r}, which is not that of a manifest")
        if named.size > MAX_MANIFEST_SIZE:
            raise Incomplete(f"the manifest {named.digest} has {named.size:,} bytes, more than {MAX_MANIFEST_SIZE:,}")
        self._check(named)
        self._manifests_left -= 1
        self._bytes_left -= named.size
        if self._manifests_left < 0 or self._bytes_left < 0:
            raise Incomplete(f"it leads to more than {_MOST_MANIFESTS} manifests, or {_MOST_BYTES:,} bytes of them")
        try:
            return Manifest.parse(self._there.read(named.digest), named.media_type, named.digest)
        except UpstreamInvalid as error:
            raise Incomplete(f"{named.digest} is no manifest that agents could take: {error.message}") from error

    def _check(self, one: Descriptor) -> None:
        """Raise `Incomplete` unless the blob is there, in the size that its descriptor says."""
        size = self._there.size(one.digest)
        if size is None:
            fault = self._there.fault(one.digest)
            raise Incomplete(fault or f"{one.digest} is neither in the archive nor held here")
        if size != one.size:
            raise Incomplete(f"{one.digest} has {size:,} bytes, and what names it says {one.size:,}")
