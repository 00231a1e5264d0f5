"""Many references warmed: those of a job, here and then at all other replicas; and those that the settings name.

What another replica is asked for is here by then, and it takes it from here (`mirror.sharing`): upstream is asked once.
"""

import asyncio
import contextlib
import logging
from collections.abc import Awaitable, Callable, Collection, Sequence
from typing import Protocol

from mirror.digest import Digest
from mirror.errors import MirrorError
from mirror.fellows import Fellows
from mirror.job import Outcome, Underway
from mirror.metrics import Metrics
from mirror.oci import Reference
from mirror.running import Running
from mirror.store.leases import Leases
from mirror.warming import AGENTS, Progress, Result, Warmed, Warmer

log = logging.getLogger(__name__)

_OUR_FAULT = "the mirror failed; its log says why"
_PARALLEL = 8
_SHOWN = 5
_LEAD_EVERY = 1.0
"""Seconds between two looks at whether the worker that warms what the settings name is still there."""


class Pins(Protocol):
    """Who pins: `mirror.pinning.Pins`."""

    async def pin(self, reference: Reference, by: str) -> object:
        """Protect what ``reference`` names. Raises `MirrorError`."""
        ...


class Prewarming:
    """Does the work of jobs. ``parse`` has references out of texts; ``fellows`` are the other replicas, if any."""

    def __init__(
        self,
        warmer: Warmer,
        pins: Pins,
        parse: Callable[[str], Reference],
        fellows: Fellows | None,
        metrics: Metrics,
    ) -> None:
        self._warmer = warmer
        self._pins = pins
        self._parse = parse
        self._fellows = fellows
        self._metrics = metrics

    async def here(
        self, reference: Reference, platforms: Collection[str] = (AGENTS,), progress: Progress | None = None
    ) -> Warmed:
        """Warm a reference on this replica, and count what became of it."""
        try:
            warmed = await self._warmer.warm(reference, platforms, progress)
        except Exception:
            log.exception("%s could not be warmed", reference)
            warmed = Warmed(Result.FAILED, None, 0, 0.0, _OUR_FAULT)
        self._metrics.prewarmed[(warmed.result.value,)] += 1
        return warmed

    async def work(self, running: Running) -> None:
        """Do what is left of a job."""
        left = iter([n for n in range(len(running.order.references)) if n not in running.account.finished])

        async def take() -> None:
            for number in left:
                try:
                    await self._one(running, number)
                except Exception:
                    log.exception("%s could not be warmed everywhere", running.order.references[number])
                    failed = Warmed(Result.FAILED, None, 0, 0.0, _OUR_FAULT)
                    running.add(Outcome(number, running.order.references[number], failed))
                running.done(number)

        async with asyncio.TaskGroup() as group:
            for _ in range(running.order.parallel):
                group.create_task(take())

    async def _one(self, running: Running, number: int) -> None:
        order, text = running.order, running.order.references[number]
        heard = running.account.heard.get(number, set())
        try:
            reference = self._parse(text)
        except MirrorError as error:
            if None not in heard:
                running.add(Outcome(number, text, Warmed(Result.FAILED, None, 0, 0.0, error.message)))
            return
        if None not in heard:
            warmed = await self.here(reference, order.platforms, _tells(running, number, None))
            if order.pin and warmed.result is not Result.FAILED:
                warmed = await self._pinned(reference, order.by, warmed)
            running.add(Outcome(number, text, warmed))
        if self._fellows is not None:
            others = [address for address in self._fellows.alive if address not in heard]
            await asyncio.gather(*(self._there(running, number, reference, address) for address in others))

    async def _there(self, running: Running, number: int, reference: Reference, address: str) -> None:
        assert self._fellows is not None
        progress = _tells(running, number, address)
        warmed = await self._fellows.warm(address, reference, running.order.platforms, progress)
        running.add(Outcome(number, running.order.references[number], warmed, address))

    async def _pinned(self, reference: Reference, by: str, warmed: Warmed) -> Warmed:
        try:
            await self._pins.pin(reference, by)
        except MirrorError as error:
            why = f"it is here, and could not be pinned: {error.message}"
            return Warmed(Result.FAILED, warmed.digest, warmed.bytes, warmed.seconds, why)
        return warmed


def _tells(running: Running, number: int, replica: str | None) -> Progress:
    """Says in ``running`` how far a reference is."""
    text = running.order.references[number]

    def progress(size: int, total: int | None) -> None:
        running.underway[number, replica] = Underway(text, replica, size, total)

    return progress


class Named:
    """Keeps warm what the settings name, in one worker of a disk. ``interval``: seconds, 0 for only at the start."""

    def __init__(
        self,
        references: Sequence[Reference],
        interval: float,
        warm: Callable[[Reference], Awaitable[Warmed]],
        leases: Leases,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self._references = references
        self._interval = interval
        self._warm = warm
        self._leases = leases
        self._sleep = sleep
        self._told: dict[Reference, tuple[str, Digest | None]] = {}

    async def run(self) -> None:
        """Until cancelled. Runs in every worker, and works in one of them."""
        while True:
            with contextlib.suppress(OSError), self._leases.attempt("prewarm.references") as mine:
                while mine:
                    await self.turn()
                    if not self._interval:
                        await asyncio.Event().wait()
                    await self._sleep(self._interval)
            await self._sleep(_LEAD_EVERY)

    async def turn(self) -> None:
        """Warm all of them, a few at a time; one line says what is new."""
        turns = asyncio.Semaphore(_PARALLEL)

        async def one(reference: Reference) -> tuple[Reference, Warmed]:
            async with turns:
                return reference, await self._warm(reference)

        self._tell(await asyncio.gather(*map(one, self._references)))

    def _tell(self, found: Sequence[tuple[Reference, Warmed]]) -> None:
        now = {reference: (_standing(warmed), warmed.digest) for reference, warmed in found}
        if now != self._told:
            against = [
                f"{reference} {_standing(warmed)} ({warmed.why})"
                for reference, warmed in found
                if warmed.why is not None and now[reference] != self._told.get(reference) and not _is_good(warmed)
            ]
            moved = sum(now[one] != self._told.get(one) for one in now)
            words = f"{sum(_is_good(warmed) for _, warmed in found)} of {len(found)} are warm, {moved} changed"
            more = f"; and {len(against) - _SHOWN} more" if len(against) > _SHOWN else ""
            log.log(
                logging.WARNING if against else logging.INFO,
                "prewarm.references: %s",
                "; ".join([words, *against[:_SHOWN]]) + more,
            )
            self._told = now


def _is_good(warmed: Warmed) -> bool:
    return warmed.result in (Result.HELD, Result.FETCHED)


def _standing(warmed: Warmed) -> str:
    """The result, but that it does not matter whether it had to come."""
    return "warm" if _is_good(warmed) else warmed.result.value
