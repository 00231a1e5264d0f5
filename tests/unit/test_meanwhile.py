"""While upstream keeps silent others are asked; what it says, also that it refuses, is its word."""

import asyncio

import pytest

from mirror import meanwhile
from mirror.errors import (
    BlobUnknown,
    MirrorError,
    UpstreamDenied,
    UpstreamInvalid,
    UpstreamTimeout,
    UpstreamUnavailable,
)
from mirror.meanwhile import first_of
from tests.support.waiting import eventually


class Elsewhere:
    """Others that know something from the ``knows_from``-th question on; with 0 never."""

    def __init__(self, knows_from: int = 0) -> None:
        self.asked = 0
        self._knows_from = knows_from

    async def __call__(self) -> str | None:
        self.asked += 1
        return "theirs" if 0 < self._knows_from <= self.asked else None


class Upstream:
    """Says something, or never; ``ended`` tells whether it is still being waited for."""

    def __init__(self, says: str | MirrorError | None = None) -> None:
        self.says = says
        self.ended = False

    async def __call__(self) -> str:
        try:
            if self.says is None:
                await asyncio.Event().wait()
            if isinstance(self.says, MirrorError):
                raise self.says
            assert self.says is not None
            return self.says
        finally:
            self.ended = True


@pytest.fixture(autouse=True)
def _impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(meanwhile, "_LOOK_EVERY", 0.01)


async def test_nobody_else_is_asked_when_upstream_answers() -> None:
    elsewhere = Elsewhere(knows_from=1)
    assert await first_of(Upstream("upstream's")(), elsewhere) == "upstream's"
    assert elsewhere.asked == 0


@pytest.mark.parametrize("refusal", [BlobUnknown("not there"), UpstreamDenied("refused"), UpstreamInvalid("wrong")])
async def test_a_refusal_is_upstreams_word_and_nobody_else_is_asked(refusal: MirrorError) -> None:
    elsewhere = Elsewhere(knows_from=1)
    with pytest.raises(type(refusal)):
        await first_of(Upstream(refusal)(), elsewhere)
    assert elsewhere.asked == 0


@pytest.mark.parametrize("outage", [UpstreamUnavailable("away"), UpstreamTimeout("silent")])
async def test_when_upstream_has_failed_others_are_asked_once_and_else_its_failure_is_told(outage: MirrorError) -> None:
    assert await first_of(Upstream(outage)(), Elsewhere(knows_from=1)) == "theirs"
    elsewhere = Elsewhere()
    with pytest.raises(type(outage)):
        await first_of(Upstream(outage)(), elsewhere)
    assert elsewhere.asked == 1


async def test_while_upstream_keeps_silent_others_are_asked_again_and_again_and_then_it_is_not_waited_for() -> None:
    upstream, elsewhere = Upstream(), Elsewhere(knows_from=4)
    async with asyncio.timeout(5):
        assert await first_of(upstream(), elsewhere) == "theirs"
    assert elsewhere.asked == 4
    assert upstream.ended


async def test_who_is_stopped_stops_asking_upstream() -> None:
    upstream, elsewhere = Upstream(), Elsewhere()
    asking = asyncio.create_task(first_of(upstream(), elsewhere))
    await eventually(lambda: elsewhere.asked >= 2)
    asking.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asking
    assert upstream.ended
