"""``/api/v1/fills``: the blobs that are on their way here."""

import asyncio
import time
from collections.abc import Callable, Sequence

from pydantic import Field

from mirror.edge.api.operation import Call, Operation, Told
from mirror.errors import StoreError
from mirror.fill import Fill
from mirror.fills import Fills
from mirror.store.spool import recently_written

MOST = 1000
"""Fills in one answer."""

_RECENTLY = 30.0
"""Seconds after its last byte for which a download of another worker is taken to go on."""


class OneFill(Told):
    """A download that is under way. Of one that only another worker of this replica knows, its file says less."""

    digest: str
    repository: str | None = Field(description="The upstream and repository that it comes from; null: not known here.")
    bytes: int = Field(description="Bytes that have come.")
    total: int | None = Field(description="Bytes of the whole; null while nobody knows.")
    waiters: int | None = Field(description="Requests of this worker that wait for it or read it; null: not known.")
    since: float | None = Field(description="When it was asked for here, in seconds since the epoch; null: not known.")


class AllFills(Told):
    """The downloads of all workers of this replica: those of the worker that answers first, its oldest first."""

    fills: list[OneFill] = Field(max_length=MOST)
    total: int = Field(description="How many there are; more than are listed where there are too many.")


def operations(fills: Fills, now: Callable[[], float] = time.time) -> Sequence[Operation]:
    """What can be asked here. ``now`` gives seconds since the epoch."""

    async def listed(call: Call) -> AllFills:
        own = fills.under_way()
        try:
            written = await asyncio.to_thread(recently_written, fills.directory, _RECENTLY, now())
        except OSError as error:
            raise StoreError("the mirror's disk fails, and what is on its way cannot be seen there") from error
        known = {fill.digest for fill in own}
        others = [(digest, size) for digest, size in written.items() if digest not in known]
        told = [_own(fill) for fill in own[:MOST]]
        for digest, size in others[: MOST - len(told)]:
            told.append(OneFill(digest=str(digest), repository=None, bytes=size, total=None, waiters=None, since=None))
        return AllFills(fills=told, total=len(own) + len(others))

    return (
        Operation(
            method="GET",
            path="fills",
            summary="List the downloads of blobs that are under way",
            answer=AllFills,
            handler=listed,
        ),
    )


def _own(fill: Fill) -> OneFill:
    content = fill.content
    return OneFill(
        digest=str(fill.digest),
        repository=fill.repository,
        bytes=content.available,
        total=content.size,
        waiters=content.waiters,
        since=fill.since,
    )
