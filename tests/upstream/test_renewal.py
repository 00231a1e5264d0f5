"""A login that a helper gives out: kept, renewed behind everybody's back, asked for again when it is refused."""

import asyncio
import base64
import json
from collections.abc import Callable

import pytest
from pydantic import SecretStr

from mirror.errors import UpstreamUnavailable
from mirror.upstream.renewal import KEPT_FOR, REFUSED_AFTER, KeptLogin
from mirror.upstream.tokens import Login
from tests.support.waiting import eventually
from tests.upstream.support import Clock


def named(secret: str) -> Login:
    return Login("robot", SecretStr(secret))


def jwt(**claims: object) -> str:
    body = base64.urlsafe_b64encode(json.dumps(claims).encode()).decode().rstrip("=")
    return f"e30.{body}.signature"


class Program:
    """What is asked. ``says`` is its answer, or its failure; ``takes`` moves the clock."""

    def __init__(self, clock: Clock) -> None:
        self.says: Login | Exception | None = named("first")
        self.takes = 0.0
        self.asked = 0
        self.gate: asyncio.Event | None = None
        self._clock = clock

    async def __call__(self) -> Login | None:
        self.asked += 1
        if self.gate is not None:
            await self.gate.wait()
        self._clock.now += self.takes
        if isinstance(self.says, Exception):
            raise self.says
        return self.says


FAILURE = UpstreamUnavailable("the helper fails: no network")


def kept(wall: Callable[[], float] = lambda: 0.0) -> tuple[KeptLogin, Program, Clock]:
    clock = Clock()
    program = Program(clock)
    return KeptLogin(program, clock, wall), program, clock


async def test_many_who_need_it_ask_once() -> None:
    login, program, clock = kept()
    program.gate = asyncio.Event()
    tasks = [asyncio.ensure_future(login.login()) for _ in range(20)]
    await eventually(lambda: program.asked)
    tasks[0].cancel()  # the one that asks may leave
    program.gate.set()
    await asyncio.gather(*tasks, return_exceptions=True)
    assert [task.result() for task in tasks[1:]] == [named("first")] * 19
    clock.now += KEPT_FOR - 0.1
    assert await login.login() == named("first")
    assert program.asked == 1


async def test_it_is_renewed_behind_everybodys_back() -> None:
    login, program, clock = kept()
    await login.login()
    program.says, program.gate = named("second"), asyncio.Event()
    clock.now += KEPT_FOR
    assert await login.login() == named("first")  # nobody waits
    await eventually(lambda: program.asked == 2)
    assert await login.login() == named("first")
    program.gate.set()
    await eventually(lambda: login._known is not None and login._known.login == named("second"))
    assert await login.login() == named("second")
    assert program.asked == 2


@pytest.mark.shows("a credential helper fails, or hangs")
async def test_one_that_cannot_be_renewed_stays_in_force_and_the_log_says_so_once(
    caplog: pytest.LogCaptureFixture,
) -> None:
    login, program, clock = kept()
    await login.login()
    program.says = FAILURE
    clock.now += KEPT_FOR
    for asked in range(2, 6):
        assert await login.login() == named("first")
        await eventually(lambda: not login._asking.under_way("login"))
        assert program.asked == asked
        assert await login.login() == named("first")  # left alone for a while
        assert program.asked == asked
        clock.now += 5
    assert len(caplog.records) == 1


async def test_a_failure_is_remembered_for_the_longer_the_longer_it_took() -> None:
    login, program, clock = kept()
    program.says, program.takes = FAILURE, 10.0  # it hangs, and is killed
    for _ in range(5):
        with pytest.raises(UpstreamUnavailable, match="no network"):
            await login.login()
        clock.now += 5.9
    assert program.asked == 1
    clock.now += 0.6
    program.says, program.takes = named("first"), 0.0
    assert await login.login() == named("first")


async def test_that_there_is_none_is_kept_too() -> None:
    login, program, _ = kept()
    program.says = None
    assert [await login.login() for _ in range(3)] == [None] * 3
    assert program.asked == 1


async def test_one_that_was_refused_is_asked_for_again_once() -> None:
    login, program, clock = kept()
    first = await login.login()
    clock.now += REFUSED_AFTER
    program.says = named("second")
    assert await login.instead_of(first) == named("second")
    assert await login.instead_of(first) == named("second")  # who was late with the refusal
    assert await login.instead_of(named("second")) is None  # it is fresh: the refusal stands
    assert program.asked == 2


async def test_a_refusal_of_what_the_helper_goes_on_to_say_stands() -> None:
    login, program, clock = kept()
    first = await login.login()
    clock.now += REFUSED_AFTER
    for _ in range(10):
        assert await login.instead_of(first) is None
    assert program.asked == 2


async def test_a_refusal_stands_while_the_helper_fails_unless_it_was_due_to_be_renewed() -> None:
    login, program, clock = kept()
    first = await login.login()
    program.says = FAILURE
    clock.now += REFUSED_AFTER
    assert await login.instead_of(first) is None
    clock.now += KEPT_FOR
    with pytest.raises(UpstreamUnavailable, match="no network"):
        await login.instead_of(first)


async def test_a_token_that_says_when_it_ends_is_kept_until_shortly_before() -> None:
    login, program, clock = kept(wall=lambda: 5000.0)
    program.says = named(jwt(exp=5000 + 3600))
    first = await login.login()
    clock.now += 3600 - 61
    assert await login.login() == first
    assert program.asked == 1
    program.says = named(jwt(exp=5000 + 7200))
    clock.now += 2
    assert await login.login() == first
    await eventually(lambda: program.asked == 2 and not login._asking.under_way("login"))
    assert await login.login() == program.says


async def test_a_token_that_has_ended_is_not_used() -> None:
    login, program, clock = kept(wall=lambda: 5000.0)
    program.says = named(jwt(exp=5000 + 3600))
    await login.login()
    program.says = FAILURE
    clock.now += 3600
    with pytest.raises(UpstreamUnavailable, match="no network"):
        await login.login()


@pytest.mark.parametrize(
    "secret",
    [jwt(), jwt(exp="soon"), jwt(exp=1), jwt(exp=float("inf")), jwt(exp=None), jwt(exp=[]), "a.b.c", "a.é.c", "a.W10.c",
     "..", "a.Im5vdCBhbiBvYmplY3Qi.c"],
)  # fmt: skip
async def test_what_says_nothing_of_its_end_is_kept_as_any_other(secret: str) -> None:
    login, program, clock = kept(wall=lambda: 5000.0)
    program.says = named(secret)
    await login.login()
    clock.now += KEPT_FOR - 0.1
    assert await login.login() == named(secret)
    assert program.asked == 1


async def test_closing_stops_what_is_under_way() -> None:
    login, program, _ = kept()
    program.gate = asyncio.Event()
    task = asyncio.ensure_future(login.login())
    await eventually(lambda: program.asked)
    await login.aclose()
    with pytest.raises(asyncio.CancelledError):
        await task
