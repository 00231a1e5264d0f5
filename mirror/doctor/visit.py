"""The round: all subjects at once, each bounded in time, whatever hangs."""

import asyncio
import concurrent.futures
import logging
import signal
import threading
from collections.abc import Awaitable, Callable, Sequence
from typing import ParamSpec, TypeVar

from mirror.doctor.report import Subject
from mirror.errors import MirrorError

log = logging.getLogger(__name__)

WITHIN = 10.0
"""Seconds for each subject."""

P = ParamSpec("P")
T = TypeVar("T")

Examination = Callable[[Subject], Awaitable[None]]
"""Looks at its subject and notes what it finds. What it raises becomes a finding."""


class _Threads(concurrent.futures.ThreadPoolExecutor):
    """A thread for each call, and nobody waits for it at the end: a disk or a resolver may hang for minutes."""

    def submit(self, fn: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> "concurrent.futures.Future[T]":
        """Begin the call."""
        future: concurrent.futures.Future[T] = concurrent.futures.Future()

        def work() -> None:
            if not future.set_running_or_notify_cancel():
                return
            try:
                future.set_result(fn(*args, **kwargs))
            except BaseException as error:
                future.set_exception(error)

        threading.Thread(target=work, name="doctor", daemon=True).start()
        return future

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """Nothing to do: each thread ends by itself."""


def visit(examinations: Sequence[tuple[Subject, Examination]], *, within: float = WITHIN) -> None:
    """Examine all subjects at once. Raises `KeyboardInterrupt` after Ctrl-C and SIGTERM, once all has been put away."""
    try:
        asyncio.run(_visit(examinations, within))
    except asyncio.CancelledError:
        raise KeyboardInterrupt from None


async def _visit(examinations: Sequence[tuple[Subject, Examination]], within: float) -> None:
    loop, round_ = asyncio.get_running_loop(), asyncio.current_task()
    assert round_ is not None
    loop.set_default_executor(_Threads())
    if threading.current_thread() is threading.main_thread():  # asyncio itself sees to SIGINT, there too
        loop.add_signal_handler(signal.SIGTERM, round_.cancel)
    async with asyncio.TaskGroup() as looks:  # which waits for all of them, when it is cancelled too: they tidy up
        for subject, look in examinations:
            looks.create_task(examine(subject, look, within=within))


async def examine(subject: Subject, look: Examination, *, within: float = WITHIN) -> None:
    """One of them. What took too long, and what the examination did not foresee, is a finding like others."""
    try:
        async with asyncio.timeout(within):
            await look(subject)
    except TimeoutError:
        subject.fail(
            "time",
            f"not done after {within:g} s: it hangs, or is too slow to be of use",
            "begin with the last line above this one; what comes after it was not looked at",
        )
    except MirrorError as error:
        subject.fail("error", error.message, "mend this first, and run doctor again: the rest was not looked at")
    except Exception as error:
        log.debug("doctor: %s", subject.name, exc_info=True)
        # The words of a foreign error might repeat a secret.
        subject.fail("error", f"failed in a way that doctor does not know: {type(error).__name__}", "run it again")
