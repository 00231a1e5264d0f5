"""The other replicas, as they are asked to warm references, and for their jobs. What they answer is signed.

A replica answers within a second or so, if only to say that a reference is on its way: so one that hangs is noticed,
and none is kept busy by somebody who has left.
"""

import asyncio
import logging
import math
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any, Protocol
from urllib.parse import quote, urlencode

from mirror.errors import MirrorError, NotFound, UpstreamInvalid, UpstreamTimeout, UpstreamUnavailable
from mirror.job import Outcome, Summary, Underway, of_warmed, to_warmed
from mirror.jobviews import Portion, unknown
from mirror.oci import Reference
from mirror.warming import Progress, Result, Warmed

log = logging.getLogger(__name__)

ROOM = "warm"
VERSION = 1

_ANSWERS_WITHIN = 5.0
"""Seconds for one answer; a replica takes one second for it, when all is well."""

_GIVEN_UP_AFTER = 20.0
"""Seconds of silence after which a replica that is said to be alive is asked no more about a reference."""

_AGAIN_AFTER = 0.5
_LISTED_WITHIN = 2.0
_MAX_DOCUMENT = 64 << 10
_MAX_PORTION = 8 << 20


class Peers(Protocol):
    """The other replicas: `mirror.peers.Peers`."""

    @property
    def alive(self) -> Sequence[str]: ...

    async def document(self, address: str, target: str, limit: int) -> Mapping[str, Any]: ...


class Fellows:
    """Asks the others. ``clock`` gives seconds that never go back; ``token`` some random letters."""

    def __init__(self, peers: Peers, clock: Callable[[], float], token: Callable[[], str]) -> None:
        self._peers = peers
        self._clock = clock
        self._token = token

    @property
    def alive(self) -> Sequence[str]:
        """The addresses of those that are alive."""
        return self._peers.alive

    async def warm(
        self, address: str, reference: Reference, platforms: Collection[str], progress: Progress | None = None
    ) -> Warmed:
        """Have a reference warm there. What stands against it is in the result, also that the replica is gone."""
        query = {"reference": str(reference), "platforms": ",".join(platforms), "of": self._token()}
        target, began = f"{ROOM}/one?{urlencode(query)}", self._clock()
        silent_since = math.inf
        while True:
            try:
                answer = await self._ask(address, target, _ANSWERS_WITHIN, _MAX_DOCUMENT)
                if answer.get("state") == "done":
                    return to_warmed(answer)
                size, total = int(answer["bytes"]), None if answer["total"] is None else int(answer["total"])
                silent_since = math.inf
                if progress is not None:
                    progress(size, total)
            except NotFound:
                why = f"the replica {address} cannot be asked to warm anything: it runs another release"
                return self._failed(began, why)
            except (MirrorError, KeyError, TypeError, ValueError) as error:
                silent_since = min(silent_since, self._clock())
                if address not in self._peers.alive or self._clock() - silent_since > _GIVEN_UP_AFTER:
                    words = error.message if isinstance(error, MirrorError) else "what it says is not understood"
                    return self._failed(began, f"the replica {address} does not say what became of it: {words}")
                await asyncio.sleep(_AGAIN_AFTER)

    async def summaries(self) -> Sequence[Summary]:
        """The jobs that the others tell of, within 2 s."""
        found: list[Summary] = []
        for answer in await self._of_all(f"{ROOM}/jobs"):
            try:
                found += [to_summary(one) for one in answer["jobs"]]
            except (KeyError, TypeError, ValueError):
                log.warning("what a replica tells of its jobs is not understood")
        return found

    async def holder_of(self, job: str) -> str:
        """The address of the replica whose job this is. Raises `NotFound`."""
        addresses = self._peers.alive
        asked = (self.portion(address, job, 0, peek=True) for address in addresses)
        for address, answer in zip(addresses, await asyncio.gather(*asked, return_exceptions=True), strict=True):
            if isinstance(answer, Portion):
                return address
            if not isinstance(answer, MirrorError):
                raise answer
        raise unknown(job)

    async def portion(self, address: str, job: str, after: int, *, wait: bool = False, peek: bool = False) -> Portion:
        """What is to be told of a job there, as `Views.portion`, perhaps after a second; ``peek``: only how it stands.

        Raises `NotFound`, `UpstreamError`.
        """
        query = urlencode({"after": after, "wait": int(wait), "peek": int(peek)})
        target = f"{ROOM}/jobs/{quote(job, safe='')}?{query}"
        try:
            return to_portion(await self._ask(address, target, _ANSWERS_WITHIN, _MAX_PORTION))
        except NotFound as error:
            raise unknown(job) from error

    async def cancel(self, address: str, job: str) -> Summary:
        """Have it stopped there. Raises `NotFound`, `UpstreamError`."""
        target = f"{ROOM}/jobs/{quote(job, safe='')}/cancel"
        try:
            return to_portion(await self._ask(address, target, 2 * _ANSWERS_WITHIN, _MAX_DOCUMENT)).summary
        except NotFound as error:
            raise unknown(job) from error

    async def _ask(self, address: str, target: str, within: float, limit: int) -> Mapping[str, Any]:
        try:
            async with asyncio.timeout(within):
                answer = await self._peers.document(address, target, limit)
        except TimeoutError as error:
            raise UpstreamTimeout(f"{address} has not answered within {within:g} s") from error
        if answer.get("v") != VERSION:
            raise UpstreamInvalid(f"{address} runs another release, whose answer is not understood")
        return answer

    async def _of_all(self, target: str) -> Sequence[Mapping[str, Any]]:
        asked = [self._ask(address, target, _LISTED_WITHIN, _MAX_PORTION) for address in self._peers.alive]
        answers = await asyncio.gather(*asked, return_exceptions=True)
        for answer in answers:
            if isinstance(answer, BaseException) and not isinstance(answer, MirrorError):
                raise answer
        return [answer for answer in answers if not isinstance(answer, BaseException)]

    def _failed(self, began: float, why: str) -> Warmed:
        return Warmed(Result.FAILED, None, 0, self._clock() - began, why)


def of_progress(size: int, total: int | None) -> dict[str, object]:
    """The answer of a replica that is at it."""
    return {"v": VERSION, "state": "coming", "bytes": size, "total": total}


def of_result(warmed: Warmed) -> dict[str, object]:
    """The answer of a replica that has done it."""
    return {"v": VERSION, "state": "done", **of_warmed(warmed)}


def of_jobs(summaries: Sequence[Summary]) -> dict[str, object]:
    """The answer of a replica that is asked for its jobs."""
    return {"v": VERSION, "jobs": [of_summary(one) for one in summaries]}


def of_portion(portion: Portion) -> dict[str, object]:
    """The answer of a replica that is asked for one of its jobs."""
    return {
        "v": VERSION,
        "job": of_summary(portion.summary),
        "outcomes": [outcome.line() for outcome in portion.outcomes],
        "underway": [[one.reference, one.replica, one.bytes, one.total] for one in portion.underway],
    }


def to_portion(fields: Mapping[str, Any]) -> Portion:
    """Raises `UpstreamInvalid` for what is none."""
    try:
        return Portion(
            to_summary(fields["job"]),
            [Outcome.of(line) for line in fields["outcomes"]],
            [Underway(*one) for one in fields["underway"]],
        )
    except (KeyError, TypeError, ValueError) as error:
        raise UpstreamInvalid("what a replica tells of a job is not understood") from error


def of_summary(one: Summary) -> dict[str, object]:
    """As replicas tell one another how a job stands."""
    return {name: getattr(one, name) for name in Summary.__slots__}


def to_summary(fields: Mapping[str, Any]) -> Summary:
    """Raises `KeyError`, `TypeError` or `ValueError` for what is none."""
    if fields["state"] not in ("running", "done", "cancelled"):
        raise ValueError("it is no state")
    ended_at = fields["ended_at"]
    return Summary(
        str(fields["job"]),
        fields["state"],
        float(fields["began_at"]),
        None if ended_at is None else float(ended_at),
        str(fields["by"]),
        bool(fields["pin"]),
        int(fields["total"]),
        int(fields["done"]),
        {result.value: int(fields["counts"][result.value]) for result in Result},
    )


def refused() -> UpstreamUnavailable:
    """What a replica hears that asks for more than is done at a time."""
    return UpstreamUnavailable("too much is being warmed here; ask again", retry_after=1)
