"""The push: who takes in what clients publish. `Publisher` is what the edge knows; `mirror.hosting` reads it back.

Source: OCI distribution specification 1.1, "Push" and "Content management".
"""

from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

from mirror.digest import Digest
from mirror.names import Place
from mirror.oci import Manifest


class BodyCut(Exception):
    """Raised by an iterator of a request's body: the client left before its end. What came before was true."""


@dataclass(frozen=True, slots=True)
class Chunk:
    """A request's body, on its way. Whoever takes it in reads it as fast as it can write, and never holds it whole.

    ``start`` is the first byte's position in the blob as the client says (``Content-Range``), None: wherever the
    upload stands. ``implied``: the client has not said it, but another replica, to which the request came. ``length``
    in bytes as announced, None: not announced. ``content`` raises `BodyCut` when the client leaves, and `RequestError`
    when it sends more or less than it announced; what it gave out before stands.
    """

    content: AsyncIterator[bytes]
    start: int | None = None
    length: int | None = None
    implied: bool = False


class Upload(Protocol):
    """A blob on its way in: found again by its id, from any worker. All calls raise `MirrorError`.

    One request at a time; a second one that comes while bytes are being taken in gets `UploadInvalid` or waits.
    """

    @property
    def id(self) -> str:
        """Not to be guessed; of letters, digits, ``-`` and ``_``."""
        ...

    @property
    def size(self) -> int:
        """Bytes taken in so far: where the next chunk begins."""
        ...

    @property
    def min_chunk(self) -> int:
        """Bytes that each chunk but the last must have at least; 0: any number will do."""
        ...

    async def append(self, chunk: Chunk) -> int:
        """Take in a chunk; the size after it. Raises `ChunkInvalid` for one that does not begin where the upload
        stands, `SizeInvalid` above the limit, and what ``chunk.content`` raises; then bytes may have been taken in.
        """
        ...

    async def finish(self, digest: Digest, last: Chunk | None) -> None:
        """The blob is whole, after ``last``. When this returns it is durable, and can be pulled by ``digest``.

        Raises `DigestInvalid` when the bytes are others (then the upload is over), and what `append` raises.
        """
        ...

    async def cancel(self) -> None:
        """Forget it."""
        ...


@dataclass(frozen=True, slots=True)
class Pushed:
    """What became of a manifest. ``warnings`` are words for the author; ``subject`` is what it refers to."""

    digest: Digest
    subject: Digest | None = None
    warnings: tuple[str, ...] = ()


class Publisher(Protocol):
    """Takes in blobs and manifests for the repositories of one upstream of `Names.place`, or of hosted content.

    Rights have been asked before. ``principal`` is who asks, "" for anonymous. All calls raise `MirrorError`.
    """

    async def begin(self, place: Place, principal: str, *, algorithm: str) -> Upload:
        """A new upload, whose digest is likely to be of ``algorithm``. Raises `TooMany`."""
        ...

    async def find(self, place: Place, principal: str, upload: str) -> Upload:
        """The upload of that id, of this repository and principal. Raises `UploadUnknown`."""
        ...

    async def mount(
        self, place: Place, principal: str, digest: Digest, source: Place | None, readable: Callable[[Place], bool]
    ) -> bool:
        """Have the blob that is in ``source`` in ``place`` too; without ``source``, from wherever it is.

        ``readable`` says whether the client may read a repository; ``source`` has been asked for already. False: there
        is no such blob, so it must be uploaded.
        """
        ...

    async def put_manifest(
        self, place: Place, principal: str, manifest: Manifest, tags: Sequence[str], *, overwrite: bool
    ) -> Pushed:
        """Take in a manifest whose bytes, type and digest are right, and let ``tags`` name it; none: by digest only.

        Without ``overwrite`` a tag that names another digest is `Denied`. Raises `ManifestBlobUnknown`,
        `ManifestInvalid`. All of it happens, or nothing; when it returns, the next pull anywhere sees it.
        """
        ...

    async def delete_tag(self, place: Place, principal: str, tag: str) -> None:
        """Delete the tag, not what it names. Raises `ManifestUnknown`."""
        ...

    async def delete_manifest(self, place: Place, principal: str, digest: Digest) -> None:
        """Delete the manifest, and all tags that name it. Raises `ManifestUnknown`."""
        ...

    async def delete_blob(self, place: Place, principal: str, digest: Digest) -> None:
        """Delete the blob from this repository. Raises `BlobUnknown`."""
        ...
