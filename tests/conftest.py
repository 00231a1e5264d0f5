"""Runs coroutine tests: each in an event loop of its own, with a limit in time, failing when a task died unnoticed."""

import asyncio
import inspect
from collections.abc import Callable, Coroutine
from typing import Any

import pytest

AsyncTest = Callable[..., Coroutine[Any, Any, None]]


@pytest.hookimpl(tryfirst=True)
def pytest_pyfunc_call(pyfuncitem: pytest.Function) -> bool | None:
    """Run a test that is a coroutine function; leave every other to pytest."""
    test: AsyncTest = pyfuncitem.obj
    if not inspect.iscoroutinefunction(test):
        return None
    arguments = {name: pyfuncitem.funcargs[name] for name in inspect.signature(test).parameters}
    asyncio.run(_watched(test, arguments, _time_limit(pyfuncitem)))
    return True


def _time_limit(item: pytest.Function) -> float:
    """Seconds for a coroutine: less than pytest-timeout's, since cancelling lets ``async with`` clean up."""
    marker = item.get_closest_marker("timeout")
    seconds = float(marker.args[0] if marker else item.config.getini("timeout"))
    return 0.8 * seconds


async def _watched(test: AsyncTest, arguments: dict[str, Any], seconds: float) -> None:
    lost: list[str] = []

    def remember(_: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        lost.append(f"{context['message']}: {context.get('exception')!r}")

    asyncio.get_running_loop().set_exception_handler(remember)
    async with asyncio.timeout(seconds):
        await test(**arguments)
    assert not lost, f"the test passed, but the loop saw errors that nobody handled: {lost}"
