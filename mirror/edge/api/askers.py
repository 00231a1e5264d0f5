"""``/api/v1/askers``: who asked for a manifest lately."""

from collections.abc import Awaitable, Callable, Sequence

from pydantic import Field

from mirror.askers import LONGEST_AGENT, Askers
from mirror.digest import Digest
from mirror.edge.api.operation import Asked, Call, Operation, Told
from mirror.errors import DigestInvalid, ManifestUnknown, NameInvalid, NameUnknown, StoreError, TagInvalid
from mirror.metadata.seen import MOST_OF_ONE, Asker
from mirror.oci import Reference

Named = Callable[[Reference], Awaitable[Digest | None]]
"""Gives what a tag names as far as this replica knows; upstream is not asked."""


class AskersQuery(Asked):
    """Of which manifest."""

    reference: str = Field(min_length=1, max_length=1024, description="By a tag or a digest, as an agent would use it.")


class AskerTold(Told):
    """A client that asked for it, as one program and one user of that address."""

    client: str = Field(description="Its address, as the access log says it.")
    agent: str | None = Field(
        description=f"Its User-Agent, {LONGEST_AGENT} characters of it at most; null: it sent none."
    )
    user: str | None = Field(description="Who it was, where it had to say so.")
    count: int = Field(description="How often it asked.")
    first_at: float = Field(description="When it asked first, in seconds since the epoch.")
    last_at: float = Field(description="When it asked last.")


class AskersTold(Told):
    """Those that asked last at this replica, under `/v2` or `/modules`, the latest of them first."""

    askers: list[AskerTold] = Field(max_length=MOST_OF_ONE)
    total: int = Field(description="How many they are; of more, those who asked the longest ago are forgotten.")


def operations(askers: Askers, named: Named) -> Sequence[Operation]:
    """What can be asked here."""

    async def listed(call: Call) -> AskersTold:
        reference = call.reference(call.query.reference)
        digest = reference.digest or await named(reference)
        if digest is None:
            raise ManifestUnknown(f"{reference} is not known here: nobody has pulled it through this mirror")
        found = await askers.of(digest)
        return AskersTold(askers=list(map(_told, found)), total=len(found))

    return (
        Operation(
            method="GET",
            path="askers",
            summary="List who asked for a manifest lately at this replica: of a tag, for what it names now",
            answer=AskersTold,
            handler=listed,
            query=AskersQuery,
            errors=(NameInvalid, TagInvalid, DigestInvalid, NameUnknown, ManifestUnknown, StoreError),
        ),
    )


def _told(asker: Asker) -> AskerTold:
    return AskerTold(
        client=asker.client,
        agent=asker.agent or None,
        user=asker.user or None,
        count=asker.times,
        first_at=asker.first_at,
        last_at=asker.last_at,
    )
