"""``/api/v1/prewarm``: references brought to the disks of all replicas before anybody asks for them."""

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from typing import Annotated, Any, Final, Literal

from pydantic import BaseModel, Field

from mirror.desk import Desk, Event
from mirror.edge.api.operation import ROOT, Asked, Call, Operation, Streamed, Told
from mirror.edge.api.results import ReferenceTexts, Result
from mirror.errors import (
    DiskFull,
    NotFound,
    RequestInvalid,
    StoreError,
    TooMany,
    UpstreamInvalid,
    UpstreamTimeout,
)
from mirror.job import Outcome, Summary, Underway
from mirror.warming import AGENTS, ALL

_EVENTS: Final = "text/event-stream"
_BEAT_EVERY = 10.0
"""Seconds after which a client that follows a job hears that the connection stands."""

_ELSEWHERE = (UpstreamInvalid, UpstreamTimeout)


class Prewarm(Asked):
    """What is to be warmed."""

    references: ReferenceTexts
    pin: bool = Field(False, description="Pin them, too.")
    parallel: int = Field(8, ge=1, le=64, description="So many references at a time.")
    platforms: list[Annotated[str, Field(pattern=r"^(all|[a-z0-9]+/[a-z0-9_.-]+)$", max_length=64)]] = Field(
        [AGENTS],
        min_length=1,
        max_length=16,
        description=f"What of an index is warmed; agents take `{AGENTS}`, whatever they run on. `{ALL}`: everything.",
    )


class Counts(Told):
    """How many results of each kind there are, those of other replicas included."""

    held: int
    fetched: int
    refused: int
    failed: int


class Job(Told):
    """A job. Times are in seconds since the epoch."""

    id: str
    state: Literal["running", "done", "cancelled"]
    began_at: float
    ended_at: float | None
    by: str = Field(description="Who asked for it: the token, or an address.")
    pin: bool
    total: int = Field(description="References.")
    done: int = Field(description="References that were warmed wherever they were to be.")
    counts: Counts


class Warmed(Result):
    """What became of one reference, at one replica."""

    result: Literal["held", "fetched", "refused", "failed"] = Field(
        description="`held`: all of it was there. `fetched`. `refused`: it is there, and agents will not take it. "
        "`failed`: not all of it is there. `why` says more, also of what agents take and Envoy will not run."
    )


class JobInFull(Job):
    """A job, and its results by now, in the order in which they came."""

    results: list[Warmed]


class JobList(Told):
    """Jobs of all replicas, the latest first: those that run, and the last hundred of each replica."""

    jobs: list[Job]


class Progress(Told):
    """How far a reference is that is on its way: so many bytes of all that it names are there."""

    reference: str
    replica: str | None
    bytes: int
    total: int | None


def operations(desk: Desk, clock: Callable[[], float]) -> Sequence[Operation]:
    """What can be done here. ``clock`` gives seconds that never go back."""

    async def begin(call: Call) -> Job:
        asked: Prewarm = call.body
        summary = await desk.begin(
            asked.references,
            call.who,
            pin=asked.pin,
            parallel=asked.parallel,
            platforms=list(dict.fromkeys(asked.platforms)),
        )
        call.headers.append(("location", f"{ROOT}prewarm/{summary.job}"))
        call.note(f"the job {summary.job}, with {summary.total} references")
        return _job(summary)

    async def listed(call: Call) -> JobList:
        return JobList(jobs=[_job(summary) for summary in await desk.all()])

    async def shown(call: Call) -> JobInFull:
        summary, outcomes = await desk.job(call.path["job"])
        return await asyncio.to_thread(
            lambda: JobInFull(**_fields(summary), results=[_result(outcome) for outcome in outcomes])
        )

    async def followed(call: Call) -> Streamed:
        job, after = call.path["job"], _after(call)
        place = await desk.place(job)
        return Streamed(_told(desk.follow(place, job, after), clock), _EVENTS)

    async def cancel(call: Call) -> Job:
        return _job(await desk.cancel(call.path["job"]))

    one = "prewarm/{job}"
    return (
        Operation(
            method="POST",
            path="prewarm",
            summary="Warm references at all replicas: gives a job, which goes on whoever leaves, and after a restart",
            answer=Job,
            handler=begin,
            body=Prewarm,
            status=202,
            tells={"Location": "Where the job is."},
            errors=(TooMany, DiskFull),
        ),
        Operation(method="GET", path="prewarm", summary="List jobs", answer=JobList, handler=listed),
        Operation(
            method="GET",
            path=one,
            summary="Show a job and its results by now",
            answer=JobInFull,
            handler=shown,
            errors=(NotFound, *_ELSEWHERE),
        ),
        Operation(
            method="GET",
            path=f"{one}/events",
            summary="Follow a job: an event `progress` now and then, a `result` for each reference and replica, which "
            "has an id, and an `end`, which is the job",
            answer=None,
            handler=followed,
            gives=_EVENTS,
            events={"progress": Progress, "result": Warmed, "end": Job},
            reads={"Last-Event-ID": "The id of the last result that came before: go on after it."},
            errors=(RequestInvalid, NotFound, *_ELSEWHERE),
        ),
        Operation(
            method="DELETE",
            path=one,
            summary="Cancel a job; what was begun to be downloaded still comes",
            answer=Job,
            handler=cancel,
            errors=(NotFound, StoreError, *_ELSEWHERE),
        ),
    )


async def _told(events: AsyncIterator[Event], clock: Callable[[], float]) -> AsyncIterator[bytes]:
    """Server-sent events. Source: HTML standard, "Server-sent events"."""
    yield b"retry: 1000\n\n"
    told_at = clock()
    async for event in events:
        match event:
            case (number, outcome):
                yield _event("result", _result(outcome), number)
            case Underway(reference, replica, size, total):
                yield _event("progress", Progress(reference=reference, replica=replica, bytes=size, total=total))
            case Summary():
                yield _event("end", _job(event))
            case None:
                if clock() - told_at < _BEAT_EVERY:
                    continue
                yield b": nothing new\n\n"
        told_at = clock()


def _event(kind: str, data: BaseModel, number: int | None = None) -> bytes:
    named = "" if number is None else f"id: {number}\n"
    return f"{named}event: {kind}\ndata: {data.model_dump_json()}\n\n".encode()


def _after(call: Call) -> int:
    """How many results the client has had."""
    text = (call.header("last-event-id") or "0").strip()
    if not (text.isascii() and text.isdecimal() and len(text) <= 9):
        raise RequestInvalid("Last-Event-ID is not the id of an event of this job: a number")
    return int(text)


def _job(summary: Summary) -> Job:
    return Job(**_fields(summary))


def _fields(summary: Summary) -> dict[str, Any]:
    return {
        "id": summary.job,
        "state": summary.state,
        "began_at": summary.began_at,
        "ended_at": summary.ended_at,
        "by": summary.by,
        "pin": summary.pin,
        "total": summary.total,
        "done": summary.done,
        "counts": Counts(**summary.counts),
    }


def _result(outcome: Outcome) -> Warmed:
    warmed = outcome.warmed
    return Warmed(
        reference=outcome.reference,
        result=warmed.result.value,
        digest=None if warmed.digest is None else str(warmed.digest),
        bytes=warmed.bytes,
        seconds=round(warmed.seconds, 3),
        why=warmed.why,
        replica=outcome.replica,
    )
