"""All jobs of this disk: begun, read, followed and cancelled by any worker, and gone on with after whatever befell who
did them.

A job belongs to the worker that has its lease; when that one dies, another goes on where its log ends.
"""

import asyncio
import contextlib
import logging
import time
from collections.abc import Awaitable, Callable, Sequence
from typing import TypeVar, TypeVarTuple

from mirror.errors import DiskFull, NotFound, StoreError, TooMany
from mirror.job import Account, Line, Order, State, Summary, Underway, has_ended
from mirror.jobviews import Foreign, Views
from mirror.running import Running
from mirror.store.jobs import JobFolder, line_of
from mirror.store.leases import Leases

log = logging.getLogger(__name__)

MOST_RUNNING = 20
"""Jobs under way on a disk."""

_KEPT = 100
_KEPT_BYTES = 64 << 20
"""Of jobs that have ended, the last ones are kept: so many, whose logs have no more bytes than that together."""

_LOOK_EVERY = 1.0
"""Seconds between two looks for jobs that nobody does any more."""

_TELL_EVERY = 0.5
_CANCELLED_WITHIN = 5.0
_LOOKED_AT_EVERY = 0.05

_T = TypeVar("_T")
_Arguments = TypeVarTuple("_Arguments")


class Jobs:
    """The jobs of one disk. ``work`` does one, as far as it is not done; ``now``: seconds since the epoch.

    ``token`` gives a few random letters; ``tells``: there are other workers, who hear what is under way.
    """

    def __init__(
        self,
        folder: JobFolder,
        leases: Leases,
        work: Callable[[Running], Awaitable[None]],
        token: Callable[[], str],
        now: Callable[[], float],
        *,
        tells: bool = True,
    ) -> None:
        self._folder = folder
        self._leases = leases
        self._work = work
        self._token = token
        self._now = now
        self._tells = tells
        self._running: dict[str, Running] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._ended: set[str] = set()
        self._foreign: set[str] = set()
        self.views = Views(folder, self._running.get)

    async def begin(
        self, references: Sequence[str], by: str, *, pin: bool, parallel: int, platforms: Sequence[str]
    ) -> Summary:
        """Do this from now on. Raises `TooMany`, and `DiskFull` where the disk does not take it."""
        now = self._now()
        if len(await _in_thread(self._unfinished)) >= MOST_RUNNING:
            raise TooMany(
                f"{MOST_RUNNING} jobs are under way; wait for one of them, or cancel one: DELETE /api/v1/prewarm/<job>",
                retry_after=5,
            )
        job = f"{time.strftime('%Y%m%d-%H%M%S', time.gmtime(now))}-{self._token()}"
        account = Account(Order(job, now, by, tuple(references), pin, parallel, tuple(platforms)))
        with contextlib.ExitStack() as stack:
            try:
                stack.enter_context(self._leases.attempt(f"job {job}"))
                first = line_of(account.order.line())
                running = Running(account, await _in_thread(self._folder.create, job, first), 1)
            except OSError as error:
                raise DiskFull(
                    f"the mirror's disk does not take the job ({error.strerror or error}): make room, and ask again"
                ) from error
            self._start(running, stack.pop_all())
        return account.summary()

    async def cancel(self, job: str) -> Summary:
        """Stop a job, whoever does it; what is on its way here goes on coming. Raises `NotFound`, `StoreError`."""
        if (await self.views.summary(job)).state == "running":
            if (running := self._running.get(job)) is not None:
                running.cancelled.set()
            else:
                try:
                    await _in_thread(self._folder.ask_to_cancel, job)
                except OSError as error:
                    raise StoreError(
                        f"the mirror's disk fails, and {job} cannot be cancelled now; try again"
                    ) from error
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_CANCELLED_WITHIN):
                    while (await self.views.summary(job)).state == "running":  # noqa: ASYNC110 - perhaps elsewhere
                        await asyncio.sleep(_LOOKED_AT_EVERY)
        return await self.views.summary(job)

    async def run(self) -> None:
        """Go on with what nobody does any more, until cancelled. Runs in every worker."""
        while True:
            try:
                await self.turn()
            except Exception as error:
                log.error("jobs cannot be looked for, which is tried again: %s", error or type(error).__name__)
            await asyncio.sleep(_LOOK_EVERY)

    async def turn(self) -> None:
        """Look once. Raises `OSError`."""
        for job in await _in_thread(self._unfinished):
            if job not in self._running and job not in self._foreign:
                with contextlib.ExitStack() as stack:
                    if stack.enter_context(self._leases.attempt(f"job {job}")):
                        await self._resume(job, stack)

    async def aclose(self) -> None:
        """Stop working; what is not done is gone on with later."""
        for task in (tasks := list(self._tasks)):
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _resume(self, job: str, stack: contextlib.ExitStack) -> None:
        """Go on with a job whose lease is in ``stack``, which is emptied when that is so."""
        reader = self.views.reader(job)
        try:
            await reader.to_the_end()
            account = reader.account
        except Foreign as error:
            self._foreign.add(job)
            log.warning("%s; it is left alone", error)
            return
        except NotFound:  # a crash has left the beginning of its first line, before anybody was told of it
            await _in_thread(self._folder.delete, job)
            return
        if account.state == "running":
            log.info(
                "going on with the job %s: %d of %d references are done",
                job,
                len(account.finished),
                len(account.order.references),
            )
            running = Running(account, await _in_thread(self._folder.resume, job), reader.lines)
            self._start(running, stack.pop_all())

    def _start(self, running: Running, stack: contextlib.ExitStack) -> None:
        job = running.order.job
        self._running[job] = running
        task = asyncio.create_task(self._do(running, stack), name=f"job {job}")
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _do(self, running: Running, stack: contextlib.ExitStack) -> None:
        job = running.order.job
        stack.callback(running.close)
        with stack:
            saving = asyncio.create_task(running.save())
            looking = asyncio.create_task(self._look_after(running))
            try:
                state = await self._worked(running)
                running.end(state, self._now())
                await saving
                log.info("the job %s is %s", job, state)
            finally:
                for task in (saving, looking):
                    task.cancel()
                await asyncio.gather(saving, looking, return_exceptions=True)
                del self._running[job]
            with contextlib.suppress(OSError):
                await _in_thread(self._folder.tidy, job)
                await _in_thread(self._prune)

    async def _worked(self, running: Running) -> State:
        """Work until all is done, or somebody has had enough."""
        work = asyncio.ensure_future(self._work(running))
        enough = asyncio.ensure_future(running.cancelled.wait())
        try:
            await asyncio.wait((work, enough), return_when=asyncio.FIRST_COMPLETED)
            if work.done():
                work.result()
                return "done"
            return "cancelled"
        except Exception:
            log.exception("the job %s ends early", running.order.job)
            return "cancelled"
        finally:
            work.cancel()
            enough.cancel()
            await asyncio.gather(work, enough, return_exceptions=True)

    async def _look_after(self, running: Running) -> None:
        """Hear of other workers who are asked to cancel it, and let them know what is under way."""
        job, told = running.order.job, None
        while True:
            with contextlib.suppress(OSError):
                if await _in_thread(self._folder.is_to_be_cancelled, job):
                    running.cancelled.set()
                now: Line = {"now": [_fields(one) for one in running.underway.values()]}
                if self._tells and now != told:
                    await _in_thread(self._folder.tell_now, job, now)
                    told = now
            await asyncio.sleep(_TELL_EVERY)

    def _unfinished(self) -> list[str]:
        """Jobs that have not ended, the first one first. Blocks."""
        ids = self._folder.ids()
        self._ended &= set(ids)
        found = [job for job in reversed(ids) if job not in self._ended]
        self._ended |= (ended := {job for job in found if has_ended(self._folder.last(job))})
        return [job for job in found if job not in ended]

    def _prune(self) -> None:
        """Let go of jobs that ended long ago. Blocks."""
        unfinished, size = set(self._unfinished()), 0
        for number, job in enumerate(job for job in self._folder.ids() if job not in unfinished):
            size += self._folder.size(job)
            if number and (number >= _KEPT or size > _KEPT_BYTES):
                self._folder.delete(job)


def _fields(one: Underway) -> list[object]:
    return [one.reference, one.replica, one.bytes, one.total]


async def _in_thread(call: Callable[[*_Arguments], _T], *arguments: *_Arguments) -> _T:
    return await asyncio.to_thread(call, *arguments)
