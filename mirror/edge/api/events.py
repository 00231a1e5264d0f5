"""``/api/v1/events``: what a page shows that is open, kept up to date."""

from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from typing import Final

from pydantic import BaseModel, Field

from mirror.edge.api.fills import AllFills
from mirror.edge.api.operation import Call, Operation, Streamed, Told
from mirror.edge.api.overview import Overview, Point
from mirror.edge.api.prewarm import JobList
from mirror.edge.api.replicas import Replicas
from mirror.edge.api.upstreams import Upstreams
from mirror.errors import TooMany

EVENTS: Final = "text/event-stream"


class ModulesMoved(Told):
    """The list of modules is worth fetching anew."""

    changed: int = Field(description="A number that grows with each change that was seen.")


KINDS: Final[Mapping[str, type[BaseModel]]] = {
    "overview": Overview,
    "upstreams": Upstreams,
    "fills": AllFills,
    "replicas": Replicas,
    "prewarm": JobList,
    "point": Point,
    "modules": ModulesMoved,
}


def operations(listen: Callable[[], AsyncIterator[bytes]]) -> Sequence[Operation]:
    """What can be asked here. ``listen`` gives a stream of events; raises `TooMany`."""

    async def followed(call: Call) -> Streamed:
        return Streamed(listen(), EVENTS)

    return (
        Operation(
            method="GET",
            path="events",
            summary="Follow this replica: at first one event each of overview, upstreams, fills, replicas and prewarm, "
            "with what the operation of that name gives, then each again when it has changed; a point for each new "
            "step of the history; modules when their list has changed. Ends when the mirror is about to stop",
            answer=None,
            handler=followed,
            gives=EVENTS,
            events=KINDS,
            errors=(TooMany,),
        ),
    )
