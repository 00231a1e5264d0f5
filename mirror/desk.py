"""The jobs of all replicas, as operators see them: whichever replica a request comes to, it knows them all."""

import asyncio
import contextlib
import dataclasses
from collections.abc import AsyncIterator, Callable, Sequence

from mirror.errors import MirrorError, NotFound
from mirror.fellows import Fellows
from mirror.job import Outcome, Summary, Underway
from mirror.jobs import Jobs
from mirror.jobviews import Portion, unknown

_WAIT = 1.0
"""Seconds that a follower waits at most, before it hears that there is nothing to hear."""

_TELL_EVERY = 0.25
"""Seconds between two words about what is under way."""

_AGAIN_AFTER = 0.5
_SILENT_FOR = 15.0
"""Seconds for which another replica may be silent about its job."""

Event = tuple[int, Outcome] | Underway | Summary | None
"""The n-th outcome, from 1 on; how far something is; the end of the job; or that nothing has happened for a second."""


class Desk:
    """``own`` is the address by which the others know this replica; ``clock`` gives seconds that never go back."""

    def __init__(self, jobs: Jobs, fellows: Fellows | None, own: str, clock: Callable[[], float]) -> None:
        self._jobs = jobs
        self._fellows = fellows
        self._own = own
        self._clock = clock

    async def begin(
        self, references: Sequence[str], by: str, *, pin: bool, parallel: int, platforms: Sequence[str]
    ) -> Summary:
        """As `Jobs.begin`: a job is done by the replica that is asked."""
        return await self._jobs.begin(references, by, pin=pin, parallel=parallel, platforms=platforms)

    async def all(self) -> Sequence[Summary]:
        """All jobs, the latest first; of replicas that do not answer, none."""
        own, others = await asyncio.gather(self._jobs.views.all(), self._others())
        return sorted((*own, *others), key=lambda one: (one.began_at, one.job), reverse=True)

    async def job(self, job: str) -> tuple[Summary, Sequence[Outcome]]:
        """How a job stands, and what has become of its references by now. Raises `NotFound`, `UpstreamError`."""
        place = await self.place(job)
        found: list[Outcome] = []
        while True:
            portion = await self._portion(place, job, len(found), 0.0)
            found += portion.outcomes
            if not portion.outcomes or portion.summary.state != "running":
                return portion.summary, found

    async def place(self, job: str) -> str | None:
        """The address of the replica whose job it is, None for this one. Raises `NotFound`."""
        with contextlib.suppress(NotFound):
            await self._jobs.views.summary(job)
            return None
        if self._fellows is None:
            raise unknown(job)
        return await self._fellows.holder_of(job)

    async def follow(self, place: str | None, job: str, after: int) -> AsyncIterator[Event]:
        """What becomes of a job that is at ``place``, after so many outcomes, until its end.

        Raises `NotFound` when it is forgotten meanwhile, `UpstreamError` when its replica stays silent.
        """
        told: dict[tuple[str, str | None], Underway] = {}
        told_at = heard_at = self._clock()
        while True:
            try:
                portion = await self._portion(place, job, after, _WAIT)
                heard_at = self._clock()
            except NotFound:
                raise
            except MirrorError:
                if self._clock() - heard_at > _SILENT_FOR:
                    raise
                yield None
                await asyncio.sleep(_AGAIN_AFTER)
                continue
            for outcome in portion.outcomes:
                after += 1
                told.pop((outcome.reference, outcome.replica), None)
                yield after, outcome
            if portion.summary.state != "running":
                yield portion.summary
                return
            if self._clock() - told_at >= _TELL_EVERY or not portion.outcomes:
                told_at = self._clock()
                for one in portion.underway:
                    if told.get(key := (one.reference, one.replica)) != one:
                        told[key] = one
                        yield one
            yield None

    async def cancel(self, job: str) -> Summary:
        """Stop it, wherever it is done. Raises `NotFound`, `UpstreamError`, `StoreError`."""
        place = await self.place(job)
        if place is None or self._fellows is None:
            return await self._jobs.cancel(job)
        return await self._fellows.cancel(place, job)

    async def _others(self) -> Sequence[Summary]:
        return [] if self._fellows is None else await self._fellows.summaries()

    async def _portion(self, place: str | None, job: str, after: int, within: float) -> Portion:
        if place is None or self._fellows is None:
            return await self._jobs.views.portion(job, after, within)
        portion = await self._fellows.portion(place, job, after, wait=within > 0)
        return Portion(
            portion.summary,
            [dataclasses.replace(one, replica=self._from(place, one.replica)) for one in portion.outcomes],
            [dataclasses.replace(one, replica=self._from(place, one.replica)) for one in portion.underway],
        )

    def _from(self, place: str, replica: str | None) -> str | None:
        """Who says something, seen from here; ``replica`` is seen from ``place``."""
        return place if replica is None else (None if replica == self._own else replica)
