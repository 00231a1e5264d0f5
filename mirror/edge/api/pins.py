"""``/api/v1/pins``: what stays on every disk, whoever asks for it."""

import asyncio
from collections.abc import Sequence

from pydantic import Field

from mirror.edge.api.operation import Call, Operation, Told
from mirror.edge.api.results import References, Result, Results, results_of
from mirror.errors import (
    DigestInvalid,
    DiskFull,
    NameInvalid,
    NameUnknown,
    NotPinned,
    StoreError,
    TagInvalid,
)
from mirror.holdings import Holdings
from mirror.oci import Reference
from mirror.pinning import Pinned, Pins

_AT_ONCE = 32
"""Pins that are written together, when many come in one call."""


class PinTold(Told):
    """A pin."""

    reference: str
    digests: list[str] = Field(description="What it protects: what the reference names now, and named before.")
    complete: bool = Field(description="Whether what the reference names now is whole on this replica's disk.")
    bytes: int = Field(description="Bytes of what it protects on this replica's disk.")
    pinned_at: float = Field(description="Seconds since the epoch.")
    by: str = Field(description="Who pinned it: the token, or an address.")
    problem: str | None = Field(description="Why it is not whole here, as far as this replica knows.")


class PinsTold(Told):
    """All pins, in the order of their references."""

    pins: list[PinTold]


class Unpinned(Told):
    """What is protected no more."""

    reference: str


def operations(pins: Pins, holdings: Holdings) -> Sequence[Operation]:
    """What can be done here."""

    async def listed(call: Call) -> PinsTold:
        found = pins.listed()
        try:
            told = await asyncio.to_thread(lambda: [_told(pin, holdings) for pin in found])
        except OSError as error:
            raise StoreError(f"the mirror's disk fails: {error.strerror or 'it cannot be read'}") from error
        return PinsTold(pins=told)

    async def pin(call: Call) -> Results:
        async def one(text: str, reference: Reference) -> Result:
            pinned = await pins.pin(reference, call.who)
            result = "already" if pinned.already else "pinned"
            return Result(reference=text, result=result, digest=str(pinned.digests[0]))

        results = await results_of(call.body.references, call.reference, one, _AT_ONCE)
        call.note(_noted(results))
        return results

    async def unpin(call: Call) -> Unpinned:
        reference = _pinned(pins, call)
        if not await pins.unpin(reference, call.who):
            raise NotPinned(f"{reference} is not pinned")
        call.note(f"unpinned {reference}")
        return Unpinned(reference=str(reference))

    return (
        Operation(
            method="GET",
            path="pins",
            summary="List what is pinned, and how much of it is on this replica's disk",
            answer=PinsTold,
            handler=listed,
            errors=(StoreError,),
        ),
        Operation(
            method="POST",
            path="pins",
            summary="Pin references, at all replicas: pinned, already, failed or invalid",
            answer=Results,
            handler=pin,
            body=References,
        ),
        Operation(
            method="DELETE",
            path="pins/{reference:path}",
            summary="Unpin a reference, at all replicas: what it protected may be evicted",
            answer=Unpinned,
            handler=unpin,
            errors=(NameInvalid, TagInvalid, DigestInvalid, NotPinned, StoreError, DiskFull),
        ),
    )


def _pinned(pins: Pins, call: Call) -> Reference:
    """What is to be unpinned; its upstream may be configured no more."""
    text = call.path["reference"]
    try:
        return call.reference(text)
    except NameUnknown:
        return pins.find(text)


def _told(pin: Pinned, holdings: Holdings) -> PinTold:
    """Blocks: for a thread. Raises `OSError`."""
    now = holdings.of(*pin.digests[:1])
    both = holdings.of(*pin.digests) if len(pin.digests) > 1 else now
    return PinTold(
        reference=str(pin.reference),
        digests=[str(digest) for digest in pin.digests],
        complete=now.complete,
        bytes=both.size,
        pinned_at=pin.pinned_at,
        by=pin.by,
        problem=pin.problem if not now.complete else None,
    )


def _noted(results: Results) -> str:
    """In the line of the log that says what was changed."""
    pinned = [result.reference for result in results.results if result.result == "pinned"]
    shown = ", ".join(pinned[:5]) + (f" and {len(pinned) - 5} more" if len(pinned) > 5 else "")
    return f"pinned {shown or 'nothing new'}"
