"""``/api/v1/replicas``: who is there."""

from collections.abc import Callable, Mapping, Sequence

from pydantic import Field

from mirror.edge.api.operation import Call, Operation, Told


class Replica(Told):
    """Another replica that is alive: its workers have told Redis so within the last seconds."""

    address: str = Field(description="Where the others reach it, `cluster.advertise` of its settings.")
    answers: bool = Field(description="It answered this one when it was asked last, or was not asked yet.")


class Replicas(Told):
    """All replicas, as this one sees them; while Redis is away, as it saw them last."""

    own: str | None = Field(description="Where the others reach this one; null: a mirror that is alone.")
    others: list[Replica]


def operations(own: str | None, heard: Callable[[], Mapping[str, bool]]) -> Sequence[Operation]:
    """What can be asked here. ``own`` is this one's address, ``heard`` says of those of the others who answers."""

    async def listed(call: Call) -> Replicas:
        others = sorted(heard().items())
        return Replicas(own=own, others=[Replica(address=address, answers=answers) for address, answers in others])

    return (
        Operation(
            method="GET",
            path="replicas",
            summary="List the replicas that are alive",
            answer=Replicas,
            handler=listed,
        ),
    )
