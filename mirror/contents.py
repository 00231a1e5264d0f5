"""What the manifests on this disk name, read once for each, and how much of it is here.

Everything here blocks on the disk, and is for threads, of which any may call. A disk that fails holds nothing.
"""

import json
import os
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple

from mirror.digest import Digest
from mirror.errors import DigestInvalid, UpstreamInvalid
from mirror.indexes import MAX_DEPTH
from mirror.oci import MAX_MANIFEST_SIZE, Manifest
from mirror.store.directory import DataDirectory
from mirror.wasm.artifact import for_agents

_REMEMBERED = 50_000
"""Manifests whose names are kept in memory: some hundred bytes each."""


@dataclass(frozen=True, slots=True)
class Naming:
    """What a manifest names: ``all`` of it, and of that what agents ask for next (of an index: one child, if they take
    any). ``images``: what it names are manifests.
    """

    all: tuple[Digest, ...]
    needed: tuple[Digest, ...]
    images: bool = False


class Here(NamedTuple):
    """Bytes of a manifest and all that it leads to which are on this disk, and whether agents lack nothing of it."""

    size: int
    complete: bool


class Contents:
    """Looks into manifests. They never change, so what was found of one is remembered."""

    def __init__(self, directory: DataDirectory) -> None:
        self._blobs = str(directory.blobs)
        self._known: dict[str, Naming] = {}  # by the digests' hex digits, which are looked up faster

    def naming(self, digest: Digest) -> Naming | None:
        """What the manifest names; None where it is not here, or is none."""
        known = self._known.get(digest.hex)
        if known is not None:
            return known
        body = self._body(digest)
        naming = None if body is None else _naming(body, digest)
        if naming is not None:
            if len(self._known) >= _REMEMBERED:
                self._known = {}
            self._known[digest.hex] = naming
        return naming

    def here(self, manifest: Digest) -> Here:
        """How much of what ``manifest`` leads to is here, it included."""
        naming, own = self.naming(manifest), self.size_of(manifest)
        if naming is None or naming.images:
            sizes = {digest: self.size_of(digest) for digest in self.led_to(manifest)}
            return Here(sum(size or 0 for size in sizes.values()), self._is_complete(manifest, sizes, MAX_DEPTH))
        total, complete = own or 0, own is not None
        for digest in naming.all:
            size = self.size_of(digest)
            if size is not None:
                total += size
            elif digest in naming.needed:
                complete = False
        return Here(total, complete)

    def led_to(self, manifest: Digest) -> Iterator[Digest]:
        """The manifest, and all that it names, and what that names, as far as that is here to be read; each once."""
        seen = {manifest}
        level = [manifest]
        yield manifest
        for _ in range(MAX_DEPTH + 1):
            below: list[Digest] = []
            for one in level:
                naming = self.naming(one)
                if naming is None:
                    continue
                fresh = [child for child in dict.fromkeys(naming.all) if child not in seen]
                seen.update(fresh)
                yield from fresh
                if naming.images:
                    below += fresh
            level = below

    def size_of(self, digest: Digest) -> int | None:
        """Bytes of a blob; None where it is not here."""
        try:
            return os.stat(self._path(digest)).st_size
        except OSError:
            return None

    def stored_at(self, digest: Digest) -> float | None:
        """When a blob came here, in seconds since the epoch; None where it is not here."""
        try:
            return os.stat(self._path(digest)).st_mtime
        except OSError:
            return None

    def _is_complete(self, manifest: Digest, sizes: dict[Digest, int | None], depth: int) -> bool:
        naming = self.naming(manifest)
        if naming is None or sizes.get(manifest) is None:
            return False
        if not naming.images:
            return all(sizes.get(digest) is not None for digest in naming.needed)
        return depth > 0 and all(self._is_complete(child, sizes, depth - 1) for child in naming.needed)

    def _body(self, digest: Digest) -> bytes | None:
        """The bytes of what may be a manifest; None where nothing is here, or more than that can be."""
        try:
            fd = os.open(self._path(digest), os.O_RDONLY | os.O_CLOEXEC)
        except OSError:
            return None
        try:
            size = os.fstat(fd).st_size
            return os.read(fd, size) if size <= MAX_MANIFEST_SIZE else None
        except OSError:
            return None
        finally:
            os.close(fd)

    def _path(self, digest: Digest) -> str:
        return f"{self._blobs}/{digest.algorithm}/{digest.hex[:2]}/{digest.hex}"


def _naming(body: bytes, digest: Digest) -> Naming | None:
    """It was parsed strictly before it was kept: here it is enough to find the digests."""
    try:
        fields = json.loads(body)
        if not isinstance(fields, dict):
            return None
        if "manifests" in fields:
            index = Manifest.parse(body, "", digest)
            every = tuple(dict.fromkeys(child.digest for child in index.manifests))
            taken = for_agents(index)
            return Naming(every, every if taken is None else (taken.digest,), images=True)
        layers = tuple(map(_digest, fields["layers"]))
        return Naming(tuple(dict.fromkeys((_digest(fields["config"]), *layers))), layers)
    except (ValueError, KeyError, TypeError, RecursionError, DigestInvalid, UpstreamInvalid):
        return None


def _digest(descriptor: Any) -> Digest:
    return Digest.parse(descriptor["digest"])
