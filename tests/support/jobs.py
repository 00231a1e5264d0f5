"""Jobs of a mirror, as operators see them: begun, followed, and waited for through its admin API."""

import asyncio
import contextlib
import json
from collections.abc import AsyncGenerator, Iterable
from dataclasses import dataclass
from typing import Any

from tests.integration.client import ask
from tests.support.admin import hold_event
from tests.support.pushing import At

WITHIN = 60.0
"""Seconds for a job on a busy machine."""


@dataclass(frozen=True, slots=True)
class Event:
    """A server-sent event."""

    kind: str
    data: dict[str, Any]
    id: str | None = None


async def begin(url: str, references: Iterable[str], **more: object) -> str:
    """Have a job begun at the mirror at ``url``; gives its id."""
    body = json.dumps({"references": list(references), **more}).encode()
    reply = await At(url).ask("POST", "/api/v1/prewarm", {"content-type": "application/json"}, body)
    assert reply.status == 202, reply
    assert reply.header("location") == f"/api/v1/prewarm/{reply.json['id']}"
    return str(reply.json["id"])


async def shown(url: str, job: str) -> dict[str, Any]:
    """How a job stands, with its results."""
    reply = await At(url).ask("GET", f"/api/v1/prewarm/{job}")
    assert reply.status == 200, reply
    found: dict[str, Any] = reply.json
    return found


async def following(url: str, job: str, last: str | None = None) -> AsyncGenerator[Event]:
    """The events of a job as they come, after the one with the id ``last``; the client leaves with the iterator."""
    headers = {} if last is None else {"last-event-id": last}
    async with ask(url, f"/api/v1/prewarm/{job}/events", headers=headers) as exchange:
        await exchange.head()
        assert exchange.status == 200
        text = b""
        while data := await exchange.read():
            text += data
            *whole, text = text.split(b"\n\n")
            for one in whole:
                fields = dict(line.split(b": ", 1) for line in one.split(b"\n"))
                if b"event" in fields:
                    number = fields.get(b"id")
                    kind, content = fields[b"event"].decode(), json.loads(fields[b"data"])
                    hold_event(f"prewarm/{job}/events", kind, content)
                    yield Event(kind, content, None if number is None else number.decode())


async def followed(url: str, job: str, last: str | None = None) -> list[Event]:
    """All events of a job until its end."""
    async with asyncio.timeout(WITHIN), contextlib.aclosing(following(url, job, last)) as events:
        return [event async for event in events]


async def warmed(url: str, references: Iterable[str], **more: object) -> list[dict[str, Any]]:
    """The results of a job that warms these references."""
    job = await begin(url, references, **more)
    events = await followed(url, job)
    assert [event.kind for event in events][-1:] == ["end"], events
    assert events[-1].data["state"] == "done"
    return [event.data for event in events if event.kind == "result"]


async def warm(url: str, reference: str, **more: object) -> dict[str, Any]:
    """The one result of a job with one reference."""
    (result,) = await warmed(url, [reference], **more)
    return result
