"""What a reference names on this machine, a ``.wasm`` file or an OCI layout directory; described without a mirror.

Blocks. Of no file more is read than agents would read.
"""

import os
from dataclasses import dataclass
from pathlib import Path

from mirror.errors import InspectError
from mirror.inspector.layout import ACCEPTED, Directory, opened
from mirror.wasm.agents import MAX_SIZE
from mirror.wasm.description import Description
from mirror.wasm.examine import examine_file

_TAR_MAGIC = slice(257, 262)
_GZIP_MAGIC = b"\x1f\x8b"


@dataclass(frozen=True, slots=True)
class Place:
    """Something on this machine: a file, or a directory and which of its artifacts: a tag, a digest, or None."""

    path: Path
    target: str | None = None


def place(reference: str) -> Place | None:
    """What ``reference`` names on this machine; None when it looks like a name for a mirror.

    ``PATH``, ``DIR:TAG``, ``DIR@DIGEST``, and these behind ``oci:``, as skopeo writes them. It is a path when something
    is there, when it begins with ``/``, ``./`` or ``../``, or ends with ``.wasm``.
    """
    if "://" in reference:
        return None
    layout = reference.startswith("oci:")
    path = reference.removeprefix("oci:")
    if path and os.path.lexists(path):
        return Place(Path(path))
    for at, sign in enumerate(path):
        if sign in ":@" and os.path.isdir(path[:at]):
            return Place(Path(path[:at]), path[at + 1 :])
    if layout or path in (".", "..") or path.startswith(("/", "./", "../")) or path.endswith(".wasm"):
        return Place(Path(path))
    return None


def describe(place: Place) -> Description:
    """Describe what is there; raise `InspectError`."""
    try:
        if place.path.is_dir():
            return Directory(place.path).describe(place.target)
        return _file(place.path)
    except FileNotFoundError:
        raise InspectError(
            f"there is no {place.path}; the name of an artifact behind a mirror may be written with oci:// before it"
        ) from None
    except (OSError, ValueError) as error:  # a name with a null byte is a ValueError
        words = getattr(error, "strerror", None) or str(error)
        raise InspectError(f"{place.path} cannot be read: {words}") from error


def _file(path: Path) -> Description:
    with opened(path) as (descriptor, size):
        head = os.pread(descriptor, _TAR_MAGIC.stop, 0)
        if head[_TAR_MAGIC] == b"ustar" or head.startswith(_GZIP_MAGIC):
            kind = "a gzipped file" if head.startswith(_GZIP_MAGIC) else "a tar archive"
            raise InspectError(
                f"{path} is {kind}; {ACCEPTED}: unpack it, or, if it is an image that was saved, let skopeo copy it: "
                f"skopeo copy docker-archive:{path} oci:DIR:TAG (oci-archive: in place of docker-archive:, if it is "
                "that)"
            )
        if size > MAX_SIZE:
            raise InspectError(
                f"{path} has {size:,} bytes, and agents read {MAX_SIZE:,} of a module; leave out what it does not "
                "need, such as debug information",
                broken=True,
            )
        content = bytearray()  # read, not mapped: a compiler may be about to write the file anew
        while piece := os.read(descriptor, min(MAX_SIZE - len(content), 1 << 20)):
            content += piece
    return examine_file(memoryview(content))
