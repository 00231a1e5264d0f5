"""A blob's body on its way from an endpoint: raw bytes, never more than announced, and an error when there are less."""

import time
from collections.abc import AsyncIterator, Callable

import httpx

from mirror.errors import UpstreamCutShort, UpstreamInvalid, UpstreamTimeout
from mirror.upstream.answers import content_range, length

LEAST_RATE = 1024
"""Bytes a second. What gives less is given up, so that the next endpoint is asked for the rest."""

RATE_OVER = 30.0
"""Seconds of waiting, of which an average is taken."""


class BlobStream:
    """Iterate once, and close.

    ``offset`` is where in the blob the first byte lies: 0 when the endpoint passed over the range that was asked for.
    ``size`` is that of the whole blob, None when the endpoint does not tell. ``endpoint`` is its host, for messages and
    for `mirror.upstream.failover.Upstream.cool_down`. ``clock`` gives seconds.
    """

    def __init__(
        self,
        response: httpx.Response,
        *,
        endpoint: str,
        offset: int,
        size: int | None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.offset = offset
        self.size = size
        self.endpoint = endpoint
        self._response = response
        self._clock = clock

    @classmethod
    def of(
        cls, response: httpx.Response, *, endpoint: str, asked: int, clock: Callable[[], float] = time.monotonic
    ) -> "BlobStream":
        """The stream of a 200 or 206, when bytes from ``asked`` on were asked for; raises `UpstreamInvalid`."""
        if response.status_code == 200:
            return cls(response, endpoint=endpoint, offset=0, size=length(response), clock=clock)
        told = content_range(response)
        if told is None or told[0] != asked:
            raise UpstreamInvalid(
                f"{endpoint} was asked for the bytes from {asked} on, and sends others", detail={"endpoint": endpoint}
            )
        return cls(response, endpoint=endpoint, offset=asked, size=told[1], clock=clock)

    async def __aiter__(self) -> AsyncIterator[bytes]:
        """What comes; raises `UpstreamUnavailable` when it ends early, `UpstreamTimeout` when too little does."""
        position = self.offset
        ends_by_itself = length(self._response) is not None
        async for chunk in self._at_least(self._response.aiter_raw()):
            if self.size is not None:
                chunk = chunk[: self.size - position]
            position += len(chunk)
            if chunk:
                yield chunk
            if position == self.size and not ends_by_itself:
                return  # whether its sender ever says so is of no interest
        if self.size is not None and position < self.size:
            raise UpstreamCutShort(
                f"{self.endpoint} ended a blob of {self.size} bytes after {position}",
                received=position - self.offset,
                detail={"endpoint": self.endpoint, "size": self.size, "received": position},
            )

    async def _at_least(self, chunks: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
        """The same chunks, as long as they come fast enough. The time that a chunk's taker takes does not count."""
        waited, came = 0.0, 0
        while True:
            began = self._clock()
            try:
                chunk = await anext(chunks)
            except StopAsyncIteration:
                return
            waited += self._clock() - began
            came += len(chunk)
            if waited >= RATE_OVER:
                if came < LEAST_RATE * waited:
                    raise UpstreamTimeout(
                        f"{self.endpoint} sends a blob too slowly: {came} bytes in {waited:.0f} s",
                        detail={"endpoint": self.endpoint},
                    )
                waited, came = 0.0, 0
            yield chunk

    async def aclose(self) -> None:
        """Stop reading. A connection with bytes yet to come is closed."""
        await self._response.aclose()
