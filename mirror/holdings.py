"""How much of what a manifest names lies on this disk, and whether that is all that agents ask for."""

import contextlib
from dataclasses import dataclass

from mirror.digest import Digest
from mirror.errors import UpstreamInvalid
from mirror.oci import INDEXES, MAX_MANIFEST_SIZE, Manifest
from mirror.store.directory import DataDirectory
from mirror.wasm.artifact import for_agents

_REMEMBERED = 10_000
_MAX_DEPTH = 8

_NOT_IN_REGISTRIES = (".foreign.", ".nondistributable.")
"""What the media types of layers have in them that registries need not hold."""


@dataclass(frozen=True, slots=True)
class Holding:
    """``size``: bytes of a manifest and of all that it names that are here, each digest once. ``complete``: whether the
    image is whole, of an index the one that agents take.
    """

    complete: bool
    size: int


@dataclass(frozen=True, slots=True)
class _Contents:
    """What a manifest names: ``blobs``, of which ``needed`` ones must be here, and manifests; agents go on to
    ``chosen``.
    """

    blobs: tuple[Digest, ...]
    needed: frozenset[Digest]
    manifests: tuple[Digest, ...]
    chosen: Digest | None


class Holdings:
    """Looks at one disk. What manifests name is remembered: it never changes."""

    def __init__(self, directory: DataDirectory) -> None:
        self._directory = directory
        self._known: dict[Digest, _Contents] = {}

    def of(self, *digests: Digest) -> Holding:
        """What is here of these manifests together. Blocks: for a thread. Raises `OSError`."""
        sizes: dict[Digest, int | None] = {}
        complete = [self._is_complete(digest, sizes, 0) for digest in digests]
        return Holding(all(complete), sum(size or 0 for size in sizes.values()))

    def _is_complete(self, digest: Digest, sizes: dict[Digest, int | None], depth: int) -> bool:
        """Whether a manifest is. Notes the sizes of all that is found on the way."""
        if self._size(digest, sizes) is None or (contents := self._contents(digest)) is None:
            return False
        complete = True
        for blob in contents.blobs:
            complete &= self._size(blob, sizes) is not None or blob not in contents.needed
        if depth < _MAX_DEPTH:
            for child in contents.manifests:
                complete &= self._is_complete(child, sizes, depth + 1) or child != contents.chosen
        return complete

    def _size(self, digest: Digest, sizes: dict[Digest, int | None]) -> int | None:
        if digest not in sizes:
            try:
                sizes[digest] = self._directory.blob(digest).stat().st_size
            except FileNotFoundError:
                sizes[digest] = None
        return sizes[digest]

    def _contents(self, digest: Digest) -> _Contents | None:
        """What a manifest that is held names; None where no manifest can be read there."""
        known = self._known.get(digest)
        if known is None:
            with contextlib.suppress(FileNotFoundError, UpstreamInvalid):
                file = self._directory.blob(digest)
                if file.stat().st_size <= MAX_MANIFEST_SIZE:
                    known = _contents_of(Manifest.parse(file.read_bytes(), "", digest))
                    if len(self._known) >= _REMEMBERED:
                        self._known.clear()
                    self._known[digest] = known
        return known


def _contents_of(manifest: Manifest) -> _Contents:
    blobs = (*((manifest.config,) if manifest.config is not None else ()), *manifest.layers)
    needed = (one.digest for one in blobs if not any(part in one.media_type for part in _NOT_IN_REGISTRIES))
    chosen = for_agents(manifest) if manifest.media_type in INDEXES else None
    return _Contents(
        tuple(one.digest for one in blobs),
        frozenset(needed),
        tuple(one.digest for one in manifest.manifests),
        chosen.digest if chosen is not None else None,
    )
