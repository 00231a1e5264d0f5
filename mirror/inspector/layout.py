"""An artifact in an OCI layout directory, described. Blocks.

Nothing is believed that a digest names until it has been read against it, and nothing is followed out of the directory.
Source: OCI image specification 1.1, image-layout.md.
"""

import hashlib
import mmap
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from mirror.digest import Digest
from mirror.errors import InspectError, UpstreamInvalid
from mirror.oci import INDEXES, MAX_MANIFEST_SIZE, OCI_INDEX, Descriptor, Manifest, parse_object
from mirror.wasm.agents import MAX_SIZE
from mirror.wasm.artifact import for_agents, layers_to_open
from mirror.wasm.description import Description
from mirror.wasm.examine import examine

ACCEPTED = "inspect reads .wasm files and OCI layout directories"

_REF_NAME = "org.opencontainers.image.ref.name"
_LISTED = 10  # of the artifacts in a directory, when none was named


class Directory:
    """An OCI layout directory."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._root = path.resolve()

    def describe(self, target: str | None) -> Description:
        """The artifact that ``target`` names, a tag or a digest; with None, the only one that there is."""
        if not (self._path / "oci-layout").exists():
            what = (
                "it holds a manifest.json" if (self._path / "manifest.json").exists() else "it has no file oci-layout"
            )
            raise InspectError(
                f"{self._path} is no OCI layout directory, for {what}; {ACCEPTED}, such as skopeo copy … oci:DIR:TAG "
                "and crane pull --format=oci write them"
            )
        descriptor = self._choose(target)
        found = self._manifest(descriptor)
        if found.media_type not in INDEXES:
            return self._examine(found, None, pinned=False)
        pinned = target == str(found.digest)
        child = for_agents(found)
        if child is None:
            return examine(found, {})
        return self._examine(self._manifest(child), found, pinned=pinned)

    def _choose(self, target: str | None) -> Descriptor:
        entries = self._entries()
        if target is None:
            fitting = entries
        else:
            fitting = [
                (name, one) for name, one in entries if target in (str(one.digest), name, name.rpartition(":")[2])
            ]
        if target is not None and not fitting:
            fitting = [("", one) for one in self._children(entries) if str(one.digest) == target]
        if len({one.digest for _, one in fitting}) == 1:
            return fitting[0][1]
        if not entries:
            raise InspectError(f"{self._path} is empty: its index.json names nothing")
        listed = ", ".join(f":{name}" if name else f"@{one.digest}" for name, one in entries[:_LISTED])
        listed += f" and {len(entries) - _LISTED} more" if len(entries) > _LISTED else ""
        if target is None:
            raise InspectError(
                f"{self._path} holds {len(entries)} artifacts: say which, as in {self._path}:TAG or "
                f"{self._path}@DIGEST; there are {listed}"
            )
        several = "more than one artifact" if fitting else "nothing"
        raise InspectError(f"{several} in {self._path} is called {target}; there are {listed}")

    def _entries(self) -> list[tuple[str, Descriptor]]:
        """What index.json names: each with its tag, which may be empty."""
        file = self._path / "index.json"
        with self._inside(file) as (handle, size):
            body = self._whole(file, handle, size)
        try:
            index = Manifest.parse(body, OCI_INDEX, Digest.of(body))
            raw = parse_object(body, "the manifest").get("manifests") or []
        except UpstreamInvalid as error:
            raise InspectError(f"{file}: {error.message}", broken=True) from error
        notes = [entry.get("annotations") for entry in raw]
        names = [note.get(_REF_NAME) if isinstance(note, dict) else None for note in notes]
        return [(name if isinstance(name, str) else "", one) for name, one in zip(names, index.manifests, strict=True)]

    def _children(self, entries: list[tuple[str, Descriptor]]) -> Iterator[Descriptor]:
        for _, one in entries:
            if one.media_type in INDEXES:
                yield from self._manifest(one).manifests

    def _manifest(self, descriptor: Descriptor) -> Manifest:
        file = self._blob(descriptor.digest)
        with self._inside(file) as (handle, size):
            body = self._whole(file, handle, size)
        _check(file, body, descriptor)
        try:
            return Manifest.parse(body, descriptor.media_type, descriptor.digest)
        except UpstreamInvalid as error:
            raise InspectError(f"{file}: {error.message}", broken=True) from error

    def _examine(self, manifest: Manifest, index: Manifest | None, *, pinned: bool) -> Description:
        """All that the manifest names has to be there, for a push would fail; what agents would open is read."""
        for one in manifest.named if manifest.media_type not in INDEXES else ():
            with self._inside(self._blob(one.digest)) as (_, size):
                _check_size(self._blob(one.digest), size, one)
        contents = {}
        for number in layers_to_open(manifest, MAX_SIZE):
            layer = manifest.layers[number]
            file = self._blob(layer.digest)
            with self._inside(file) as (handle, size):
                content = mmap.mmap(handle, size, access=mmap.ACCESS_READ) if size else b""
            _check(file, content, layer)
            contents[layer.digest] = memoryview(content)
        return examine(manifest, contents, index=index, pinned_index=pinned)

    def _blob(self, digest: Digest) -> Path:
        return self._path / "blobs" / digest.algorithm / digest.hex

    def _whole(self, file: Path, handle: int, size: int) -> bytes:
        if size > MAX_MANIFEST_SIZE:
            raise InspectError(
                f"{file} has {size:,} bytes; a manifest or index has {MAX_MANIFEST_SIZE:,} at most", broken=True
            )
        return os.pread(handle, MAX_MANIFEST_SIZE, 0)

    @contextmanager
    def _inside(self, file: Path) -> Iterator[tuple[int, int]]:
        """`opened`, for a file of this directory; raise `InspectError` for one that is elsewhere or not there."""
        try:
            actual = Path(os.path.realpath(file, strict=True))
        except FileNotFoundError:
            raise InspectError(
                f"{file} is missing: the directory is not complete; write it anew", broken=True
            ) from None
        if not actual.is_relative_to(self._root):
            raise InspectError(
                f"{file} is a link that leads out of the directory, and is not followed; inspect a copy made with "
                "cp -rL",
            )
        with opened(actual, file) as found:
            yield found


@contextmanager
def opened(path: Path, shown: Path | None = None) -> Iterator[tuple[int, int]]:
    """A file descriptor and the file's size; raise `InspectError` for what is no plain file, which might never end."""
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode):
            raise InspectError(f"{shown or path} is no plain file; {ACCEPTED}")
        yield descriptor, status.st_size
    finally:
        os.close(descriptor)


def _check_size(file: Path, size: int, descriptor: Descriptor) -> None:
    if size != descriptor.size:
        raise InspectError(
            f"{file} has {size:,} bytes, and {descriptor.size:,} are said where it is named; write the directory anew",
            broken=True,
        )


def _check(file: Path, content: bytes | mmap.mmap, descriptor: Descriptor) -> None:
    """Hold what was read against what names it; raise `InspectError`."""
    _check_size(file, len(content), descriptor)
    actual = hashlib.new(descriptor.digest.algorithm, content).hexdigest()
    if actual != descriptor.digest.hex:
        raise InspectError(
            f"{file} does not hold what its name says: its digest is {descriptor.digest.algorithm}:{actual}; write the "
            "directory anew",
            broken=True,
        )
