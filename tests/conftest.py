"""How tests run here.

Coroutine tests: each in an event loop of its own, with a limit in time, failing when a task died unnoticed. Tests that
are skipped: their reasons stand at the end of the run; where nothing may be left out, they fail it.
"""

import asyncio
import functools
import inspect
import signal
from collections import Counter
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import pytest
from xdist.scheduler import LoadScopeScheduling  # type: ignore[import-untyped]  # it has no types

from tests.support import tools

# The beginnings of reasons for which a test may be skipped even where nothing may be left out.
EXPECTED_SKIPS: tuple[str, ...] = ("only root may ",)

AsyncTest = Callable[..., Coroutine[Any, Any, None]]


def pytest_configure() -> None:
    """Have the programs of tests obey Ctrl-C: what a script puts into the background ignores it, as do its children."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


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


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Skip or fail a test whose programs are not here."""
    for marker in item.iter_markers("needs"):
        for name in marker.args:
            tools.require(name)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    """Say what was left out, and why."""
    reasons = _skips(config)
    if reasons:
        terminalreporter.section("left out")
        for reason, count in sorted(reasons.items()):
            terminalreporter.line(f"{count} × {reason}")
    if tools.must_be_complete() and _unexpected(reasons):
        terminalreporter.line("Nothing may be left out of this run, so it has failed.", red=True)


@pytest.hookimpl(trylast=True)
def pytest_sessionfinish(session: pytest.Session) -> None:
    """Fail a run that left out what it should not."""
    if tools.must_be_complete() and _unexpected(_skips(session.config)):
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


def _skips(config: pytest.Config) -> Counter[str]:
    """The reasons of all skips, in the process that reports; empty in a worker, which reports to it."""
    reporter: pytest.TerminalReporter | None = config.pluginmanager.get_plugin("terminalreporter")
    reports = reporter.stats.get("skipped", []) if reporter else []
    return Counter(_reason(report) for report in reports)


def _reason(report: pytest.TestReport | pytest.CollectReport) -> str:
    where = report.longrepr
    return str(where[2] if isinstance(where, tuple) else where).removeprefix("Skipped: ")


def _unexpected(reasons: Counter[str]) -> list[str]:
    return [reason for reason in reasons if not reason.startswith(EXPECTED_SKIPS)]


class _InOneProcess(LoadScopeScheduling):  # type: ignore[misc]  # for the same reason
    """Tests of a file that marks an ``xdist_group`` run in one process, all others wherever there is room.

    That is what ``--dist loadgroup`` is for; but pytest-xdist 3.8 writes the group into a test's ``_nodeid``, which
    pytest 9.2 does not read any more.
    """

    def _split_scope(self, nodeid: str) -> str:
        file = nodeid.partition("::")[0]
        return file if _is_marked(self.config.rootpath / file) else nodeid


@functools.cache
def _is_marked(file: Path) -> bool:
    return "mark.xdist_group(" in file.read_text()


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: object) -> _InOneProcess | None:
    """Who says which process runs which test; pytest-xdist itself unless groups were asked for."""
    return _InOneProcess(config, log) if config.getvalue("dist") == "loadgroup" else None
