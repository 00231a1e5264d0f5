"""``/api/v1/refresh``, ``purge``, ``gc`` and ``scrub``: what operators have a mirror do with what it holds."""

from collections.abc import Awaitable, Sequence
from typing import Literal

from pydantic import Field

from mirror.collecting import Collecting
from mirror.edge.api.operation import Call, Operation, Told
from mirror.edge.api.results import References, Result, Results, results_of
from mirror.errors import MirrorError, StoreError
from mirror.oci import Reference
from mirror.purging import Purged, Purging
from mirror.refreshing import Refreshing
from mirror.scrubbing import Progress, Scrubber

_AT_ONCE = 16
"""References that are refreshed at a time."""

_NOTED = 5
"""References that the line in the log names."""


class Collected(Told):
    """What went from this replica's disk."""

    blobs: int = Field(description="Files that nothing names, those included that were never finished.")
    bytes: int
    uploads: int = Field(description="Uploads that nobody went on with.")
    records: int = Field(description="Records of what is not here, or not needed.")


class ScrubTold(Told):
    """How the last look at all blobs on this replica's disk goes, or went. Times are in seconds since the epoch."""

    state: Literal["idle", "running"]
    began_at: float | None = Field(description="null: none has begun yet.")
    ended_at: float | None
    blobs: int = Field(description="How many there were when it began.")
    read: int = Field(description="How many of them were read so far.")
    bytes_read: int
    damaged: list[str] = Field(description="What was found to have rotted, by this look.")
    restored: int = Field(description="How many of these were had again.")
    missing: list[str] = Field(description="What was taken out of service, at any time, and could not be had again.")


def operations(
    refreshing: Refreshing, purging: Purging, collecting: Collecting, scrubber: Scrubber
) -> Sequence[Operation]:
    """What can be done here."""

    async def refresh(call: Call) -> Results:
        async def one(text: str, reference: Reference) -> Result:
            found = await refreshing.refresh(reference)
            digest = str(found.digest) if found.digest is not None else None
            return Result(reference=text, result=found.result, digest=digest, why=found.why)

        results = await results_of(call.body.references, call.reference, one, _AT_ONCE)
        call.note(_noted("moved", results))
        return results

    async def purge(call: Call) -> Results:
        results = await _purged(purging, call)
        call.note(_noted("purged", results))
        return results

    async def collect(call: Call) -> Collected:
        swept = await collecting.once()
        call.note(f"{swept.blobs} blobs, {swept.size} bytes")
        return Collected(blobs=swept.blobs, bytes=swept.size, uploads=swept.uploads, records=swept.records)

    async def scrub(call: Call) -> ScrubTold:
        return _of(await _from_disk(scrubber.begin()))

    async def scrubbed(call: Call) -> ScrubTold:
        return _of(await _from_disk(scrubber.progress()))

    return (
        Operation(
            method="POST",
            path="refresh",
            summary="Ask upstream now what references name, however fresh that is: unchanged, moved, gone, held, "
            "fetched, failed or invalid",
            answer=Results,
            handler=refresh,
            body=References,
        ),
        Operation(
            method="POST",
            path="purge",
            summary="Let go of what references name, at all replicas; the next pull has it anew: purged, absent, "
            "pinned, failed or invalid",
            answer=Results,
            handler=purge,
            body=References,
        ),
        Operation(
            method="POST",
            path="gc",
            summary="Let go of what nothing names on this replica's disk, now",
            answer=Collected,
            handler=collect,
            errors=(StoreError,),
        ),
        Operation(
            method="POST",
            path="scrub",
            summary="Have every blob on this replica's disk read now, and what has rotted be had again; nothing new "
            "while that is under way",
            answer=ScrubTold,
            handler=scrub,
            status=202,
            errors=(StoreError,),
        ),
        Operation(
            method="GET",
            path="scrub",
            summary="Say how far that is, and what was found",
            answer=ScrubTold,
            handler=scrubbed,
            errors=(StoreError,),
        ),
    )


async def _purged(purging: Purging, call: Call) -> Results:
    """All that parses is purged together; what does not is said where it stood."""
    parsed: dict[int, Reference] = {}
    told: dict[int, Result] = {}
    texts: Sequence[str] = call.body.references
    for number, text in enumerate(texts):
        try:
            parsed[number] = call.reference(text)
        except MirrorError as error:
            told[number] = Result(reference=text, result="invalid", why=error.message)
    purged = await purging.purge(list(parsed.values()))
    for number, found in zip(parsed, purged, strict=True):
        told[number] = _result(texts[number], found)
    return Results(results=[told[number] for number in range(len(texts))])


def _result(text: str, purged: Purged) -> Result:
    digest = str(purged.digest) if purged.digest is not None else None
    return Result(
        reference=text,
        result=purged.result,
        digest=digest,
        bytes=purged.size,
        why=purged.why,
        replica=purged.replica,
    )


async def _from_disk(asking: Awaitable[Progress]) -> Progress:
    try:
        return await asking
    except OSError as error:
        raise StoreError(f"the mirror's disk fails: {error.strerror or 'it cannot be read'}") from error


def _of(progress: Progress) -> ScrubTold:
    look = progress.look
    return ScrubTold(
        state="running" if progress.running else "idle",
        began_at=look.began or None,
        ended_at=look.ended_at,
        blobs=look.blobs,
        read=look.read,
        bytes_read=look.bytes_read,
        damaged=list(map(str, look.damaged)),
        restored=look.restored,
        missing=sorted(map(str, look.missing)),
    )


def _noted(result: str, results: Results) -> str:
    """In the line of the log that says what was changed."""
    names = [one.reference for one in results.results if one.result == result]
    more = f" and {len(names) - _NOTED} more" if len(names) > _NOTED else ""
    return f"{result} {', '.join(names[:_NOTED]) or 'nothing'}{more}"
