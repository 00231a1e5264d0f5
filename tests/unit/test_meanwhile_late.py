"""What upstream says while others are being asked is its word, and nobody waits for theirs then."""

import asyncio

import pytest

from mirror import meanwhile
from mirror.errors import UpstreamUnavailable
from mirror.meanwhile import first_of
from tests.support.waiting import eventually


class Person:
    """Who is asked, and answers when ``says`` is set."""

    def __init__(self) -> None:
        self.says: asyncio.Future[str | None] = asyncio.get_running_loop().create_future()
        self.asked = False
        self.ended = False

    async def __call__(self) -> str | None:
        self.asked = True
        try:
            return await self.says
        finally:
            self.ended = True


@pytest.fixture(autouse=True)
def _impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(meanwhile, "_LOOK_EVERY", 0.01)


async def test_others_that_hang_hold_up_nobody_once_upstream_has_answered() -> None:
    upstream, elsewhere = Person(), Person()
    asking = asyncio.create_task(first_of(upstream(), elsewhere))
    await eventually(lambda: elsewhere.asked)
    upstream.says.set_result("the new version")
    assert await asyncio.wait_for(asking, 5) == "the new version"
    assert elsewhere.ended


async def test_upstreams_word_counts_when_both_answer_at_once() -> None:
    upstream, elsewhere = Person(), Person()
    asking = asyncio.create_task(first_of(upstream(), elsewhere))
    await eventually(lambda: elsewhere.asked)
    elsewhere.says.set_result("the old version")
    upstream.says.set_result("the new version")
    assert await asyncio.wait_for(asking, 5) == "the new version"


async def test_others_are_heard_out_when_upstream_fails_meanwhile() -> None:
    upstream, elsewhere = Person(), Person()
    asking = asyncio.create_task(first_of(upstream(), elsewhere))
    await eventually(lambda: elsewhere.asked)
    upstream.says.set_exception(UpstreamUnavailable("it broke off"))
    await eventually(lambda: upstream.ended)
    assert not asking.done()
    elsewhere.says.set_result("theirs")
    assert await asyncio.wait_for(asking, 5) == "theirs"
