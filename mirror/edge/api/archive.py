"""``/api/v1/export`` and ``/api/v1/import``: artifacts as a tar archive of an OCI image layout, out of one mirror and
into another, for clusters without a network.
"""

import contextlib
from collections.abc import AsyncIterator, Sequence

from pydantic import Field

from mirror.callings import Onto
from mirror.edge.api.operation import Asked, Call, Operation, Streamed, Told
from mirror.edge.api.results import ReferenceTexts, Result
from mirror.errors import (
    ArchiveInvalid,
    BlobUnknown,
    DigestInvalid,
    ManifestUnknown,
    NameInvalid,
    NameUnknown,
    RequestError,
    SizeInvalid,
    StoreError,
    TagInvalid,
    UploadStalled,
    UpstreamDenied,
    UpstreamInvalid,
    UpstreamTimeout,
    UpstreamUnavailable,
)
from mirror.exporting import Exporter
from mirror.exporting import Wish as Exported
from mirror.importing import Importer, Taken
from mirror.importing import Wish as Imported
from mirror.publish import BodyCut

TAR = "application/x-tar"

_FILE_NAME = "wasm-mirror-export.tar"
_READ_ON = 64 * 1024 * 1024
"""Bytes that are read of an archive which was refused: a client that is still sending hears nothing until then."""

_NOTED = 5
"""References that the line in the log names."""


_OF_REFERENCES = (NameInvalid, TagInvalid, DigestInvalid, NameUnknown)
_OF_PULLS = (ManifestUnknown, BlobUnknown, UpstreamDenied, UpstreamInvalid, UpstreamUnavailable, UpstreamTimeout)


class ExportQuery(Asked):
    """What is to be in the archive."""

    reference: ReferenceTexts
    platforms: list[str] = Field(
        [],
        max_length=20,
        description="Of an index: the children for these, such as `linux/amd64`, or `all`. Without: those that are "
        "held, or else the one that agents take.",
    )
    referrers: bool = Field(False, description="Signatures, and what else is held that refers to it, come too.")


class ImportQuery(Asked):
    """How the archive is to be taken in."""

    pin: bool = Field(False, description="Have what was imported stay, until it is unpinned.")
    as_: str | None = Field(
        None,
        alias="as",
        max_length=1024,
        description="`<upstream>/<repository>`: what the archive holds is called this, with the tags that it says. "
        "Needed where it says no more than tags. With `:<tag>`: what its only artifact is called.",
    )


class ImportResults(Told):
    """What became of an archive."""

    results: list[Result] = Field(
        description="For each artifact, in the archive's order: imported, held, invalid, failed."
    )
    ignored: list[str] = Field(description="Files of the archive that are no part of an OCI image layout; up to 100.")


def operations(exporter: Exporter, importer: Importer) -> Sequence[Operation]:
    """What can be asked here."""

    async def export(call: Call) -> Streamed:
        query: ExportQuery = call.query
        references = [call.reference(text) for text in query.reference]
        archive = await exporter.export(Exported(references, query.platforms, query.referrers))
        headers = [
            ("content-length", str(archive.size)),
            ("content-disposition", f'attachment; filename="{_FILE_NAME}"'),
        ]
        return Streamed(archive.content, TAR, headers)

    async def take_in(call: Call) -> ImportResults:
        query: ImportQuery = call.query
        onto = Onto.of(query.as_, call.reference(query.as_)) if query.as_ is not None else None
        stream = call.stream()
        try:
            done = await importer.take_in(stream, Imported(onto, query.pin, call.who))
        except ArchiveInvalid:
            await _read_on(stream)
            raise
        except UploadStalled as error:
            raise UploadStalled("no byte of the archive has come for a minute; send it again") from error
        call.note(_noted(done.taken))
        return ImportResults(results=[_result(one) for one in done.taken], ignored=list(done.ignored))

    return (
        Operation(
            method="GET",
            path="export",
            summary="Get artifacts as a tar archive of an OCI image layout; what is not held is fetched first",
            answer=None,
            handler=export,
            query=ExportQuery,
            gives=TAR,
            errors=(*_OF_REFERENCES, *_OF_PULLS, SizeInvalid, StoreError),
        ),
        Operation(
            method="POST",
            path="import",
            summary="Take in a tar archive of an OCI image layout, plain or gzipped, as content of its upstreams",
            answer=ImportResults,
            handler=take_in,
            query=ImportQuery,
            takes=TAR,
            errors=(*_OF_REFERENCES, ArchiveInvalid, UploadStalled),
        ),
    )


def _result(taken: Taken) -> Result:
    digest = str(taken.digest) if taken.digest is not None else None
    return Result(reference=taken.reference, result=taken.result, digest=digest, bytes=taken.bytes, why=taken.why)


def _noted(taken: Sequence[Taken]) -> str:
    words = [f"{one.result} {one.reference}" for one in taken[:_NOTED]]
    return ", ".join(words) + (f" and {len(taken) - _NOTED} more" if len(taken) > _NOTED else "")


async def _read_on(stream: AsyncIterator[bytes]) -> None:
    """Read some of what is left of a body that nobody wants. Who has left, or sends nothing, is not waited for."""
    left = _READ_ON
    with contextlib.suppress(BodyCut, RequestError):
        async for piece in stream:
            left -= len(piece)
            if left < 0:
                return
