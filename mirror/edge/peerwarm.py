"""``GET`` under ``/peer/v1/warm/``: what replicas ask one another about warming, and about jobs. All answers are JSON,
and signed.

=============================================  =========================================================================
``one?reference=…&platforms=…&of=<token>``     have the reference warm here; answered within a second, if only to say
                                               how much of it is here by then. Who asks again with the same token asks
                                               about the same work
``jobs``                                       the jobs of this disk
``jobs/<id>?after=<n>&wait=<0|1>``             what came of one after so many outcomes; with ``wait``, waited for for
                                               up to a second. With ``peek=1``: only how it stands
``jobs/<id>/cancel``                           stop it
=============================================  =========================================================================

A question that somebody repeats has a reference warmed once more, which is what the job has asked for, or stops a job
that its replica was told to stop.
"""

import asyncio
import json
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Final

from starlette.types import Receive, Scope, Send

from mirror.cluster.secret import Secret
from mirror.edge.respond import send_json
from mirror.errors import MirrorError, NameInvalid, NotFound, Unsupported
from mirror.fellows import ROOM, of_jobs, of_portion, of_progress, of_result, refused
from mirror.jobs import Jobs
from mirror.jobviews import Portion
from mirror.names import Names
from mirror.oci import Reference
from mirror.peers import ROOT
from mirror.prewarming import Prewarming
from mirror.warming import Result, Warmed

_ANSWER_WITHIN: Final = 1.0
_AT_ONCE: Final = 64
_MOST: Final = 2_000
"""References that others wait for here."""

_REMEMBERED_FOR: Final = 60.0
"""Seconds in which who has asked asks again; after that nobody is waiting any more."""


@dataclass(slots=True)
class _Work:
    """``left_at``: when nobody will ask for it any more, by the loop's clock."""

    task: "asyncio.Task[Warmed]"
    left_at: float
    here: tuple[int, int | None] = 0, None


class WarmRoom:
    """A `Room`, to stand in `PeerApp` under the name `ROOM`."""

    def __init__(self, prewarming: Prewarming, jobs: Jobs, names: Names, secret: Secret) -> None:
        self._prewarming = prewarming
        self._jobs = jobs
        self._names = names
        self._secret = secret
        self._work: dict[tuple[str, Reference, Collection[str]], _Work] = {}
        self._turns = asyncio.Semaphore(_AT_ONCE)

    async def answer(self, scope: Scope, receive: Receive, send: Send, query: Mapping[str, str], nonce: str) -> None:
        """As `Room.answer`."""
        if scope["method"] != "GET":
            raise Unsupported("replicas ask one another about warming by GET", allow=("GET",))
        match scope["path"].removeprefix(f"{ROOT}{ROOM}/").split("/"):
            case ["one"]:
                document = await self._one(query)
            case ["jobs"]:
                document = of_jobs(await self._jobs.views.all())
            case ["jobs", job]:
                document = await self._portion(job, query)
            case ["jobs", job, "cancel"]:
                document = of_portion(Portion(await self._jobs.cancel(job), (), ()))
            case _:
                raise NotFound("replicas have nothing for one another at this address")
        body = await asyncio.to_thread(lambda: json.dumps(document).encode())
        signature = [("x-signature", self._secret.sign_answer(nonce, body))]
        await send_json(send, "GET", body, signature, "application/json")

    async def aclose(self) -> None:
        """Stop what others wait for."""
        tasks = [work.task for work in self._work.values()]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _one(self, query: Mapping[str, str]) -> dict[str, object]:
        try:
            reference = self._names.of_text(query.get("reference", ""))
        except MirrorError as error:  # this replica has other settings
            return of_result(Warmed(Result.FAILED, None, 0, 0.0, error.message))
        platforms = tuple(sorted({one for one in query.get("platforms", "").split(",") if one}))
        now = asyncio.get_running_loop().time()
        self._forget(now)
        key = query.get("of", ""), reference, platforms
        work = self._work.get(key)
        if work is None:
            if len(self._work) >= _MOST:
                raise refused()
            work = self._work[key] = self._begin(reference, platforms)
        work.left_at = now + _REMEMBERED_FOR
        await asyncio.wait([work.task], timeout=_ANSWER_WITHIN)
        return of_result(work.task.result()) if work.task.done() else of_progress(*work.here)

    def _begin(self, reference: Reference, platforms: Collection[str]) -> _Work:
        def progress(size: int, total: int | None) -> None:
            work.here = size, total

        async def warmed() -> Warmed:
            async with self._turns:
                return await self._prewarming.here(reference, platforms, progress)

        work = _Work(asyncio.create_task(warmed(), name=f"warm {reference}"), 0.0)
        return work

    def _forget(self, now: float) -> None:
        """Let go of what nobody asks for any more."""
        for key in [key for key, work in self._work.items() if work.left_at <= now]:
            self._work.pop(key).task.cancel()

    async def _portion(self, job: str, query: Mapping[str, str]) -> dict[str, object]:
        if query.get("peek") == "1":
            return of_portion(Portion(await self._jobs.views.summary(job), (), ()))
        after = query.get("after", "")
        if not (after.isascii() and after.isdecimal() and len(after) <= 9):
            raise NameInvalid("after is not a number")
        within = _ANSWER_WITHIN if query.get("wait") == "1" else 0.0
        return of_portion(await self._jobs.views.portion(job, int(after), within))
