"""A page that is open: the events of a mirror's admin API, as they come.

::

    async with listening(mirror.address) as said:
        told = await heard(said, "fills", lambda told: told["total"] == 1)
"""

import asyncio
import contextlib
import json
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Mapping
from typing import Any

from tests.support.admin import hold_event

WITHIN = 30.0
"""Seconds for something to be heard on a busy machine."""

Told = dict[str, Any]
Fits = Callable[[Told], bool]


@contextlib.asynccontextmanager
async def listening(
    address: tuple[str, int], headers: Mapping[str, str] | None = None
) -> AsyncIterator[AsyncGenerator[tuple[str, Told]]]:
    """The events of the mirror at ``address``, each held against the OpenAPI document; it leaves at the end."""
    reader, writer = await asyncio.open_connection(*address)
    try:
        fields = {"Host": f"{address[0]}:{address[1]}", **(headers or {})}
        lines = [f"{name}: {value}" for name, value in fields.items()]
        writer.write("\r\n".join(["GET /api/v1/events HTTP/1.1", *lines, "", ""]).encode())
        head = await reader.readuntil(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 200 "), head
        assert b"content-type: text/event-stream\r\n" in head, head
        async with contextlib.aclosing(_events(reader)) as events:
            yield events
    finally:
        writer.close()
        with contextlib.suppress(OSError):
            await writer.wait_closed()


async def heard(events: AsyncGenerator[tuple[str, Told]], kind: str, fits: Fits = lambda data: True) -> Told:
    """The data of the next event of a kind for which ``fits`` is true; others are passed over."""
    return (await all_heard(events, {kind: fits}))[kind]


async def all_heard(events: AsyncGenerator[tuple[str, Told]], wanted: Mapping[str, Fits]) -> dict[str, Told]:
    """For each of these kinds the data of the next event that fits, in whatever order they come."""
    found: dict[str, Told] = {}
    last: dict[str, Told] = {}
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(WITHIN):
            async for kind, data in events:
                last[kind] = data
                if kind in wanted and kind not in found and wanted[kind](data):
                    found[kind] = data
                    if len(found) == len(wanted):
                        return found
    raise AssertionError(f"not all of {list(wanted)} came; the last ones were {last}")


async def _events(reader: asyncio.StreamReader) -> AsyncGenerator[tuple[str, Told]]:
    """All of them, until the mirror ends the answer; raises `AssertionError` where it is cut instead."""
    text = b""
    while size := int(await reader.readline() or b"-1", 16):
        assert size > 0, "the connection was cut"
        text += (await reader.readexactly(size + 2))[:-2]
        *whole, text = text.split(b"\n\n")
        for one in whole:
            fields = dict(line.split(b": ", 1) for line in one.split(b"\n"))
            if b"event" in fields:
                kind, data = fields[b"event"].decode(), json.loads(fields[b"data"])
                hold_event("events", kind, data)
                yield kind, data
