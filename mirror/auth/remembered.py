"""What upstreams have said of clients: in memory, where a pull finds it, and in the metadata, for other workers and
replicas, and after a restart.

There a verdict stands under a name that is an HMAC, and is sealed by one: nobody who reads it learns who may pull what,
and nobody who writes there can make one up. Only a yes is written down, and a no that ends one: guesses cost nothing.
"""

import asyncio
import hmac
import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final

from mirror.auth.keyed import Keyed
from mirror.errors import StoreError
from mirror.flight import Flights
from mirror.metadata.base import KeptAnswer, Metadata
from mirror.tags import Lru

log = logging.getLogger(__name__)

NO_FOR: Final = 10.0
"""Seconds for which a no counts."""

_REMEMBERED = 50_000
_STATUSES: Final = {"200": 200, "401": 401, "403": 403}


@dataclass(frozen=True, slots=True)
class Verdict:
    """What upstream said at ``at`` (seconds since the epoch). ``status``: 200, or that of its refusal, 401 or 403."""

    status: int
    at: float

    @property
    def yes(self) -> bool:
        """Whether it lets the client."""
        return self.status == 200


@dataclass(frozen=True, slots=True)
class Subject:
    """What a verdict is about. ``repository`` and ``kind``: "" and "login" for the credentials themselves."""

    upstream: str
    repository: str
    kind: str
    principal: str


class Remembered:
    """Verdicts, and for how long they count. ``now`` gives seconds since the epoch; the durations are in seconds."""

    def __init__(
        self,
        metadata: Metadata,
        keyed: Keyed,
        origins: Mapping[str, str],
        *,
        yes_for: float,
        stands_for: float,
        now: Callable[[], float],
    ) -> None:
        """``origins``: the URL that each upstream is asked at; of another one under its name nothing is believed."""
        self._metadata = metadata
        self._keyed = keyed
        self._origins = origins
        self._yes_for = yes_for
        self._stands_for = stands_for
        self._now = now
        self._known: Lru[Subject, Verdict] = Lru(_REMEMBERED)
        self._loading: Flights[None] = Flights()
        self._writing: Flights[None] = Flights()

    def get(self, subject: Subject) -> Verdict | None:
        """What is in memory, whether it counts or not."""
        return self._known.get(subject)

    def left(self, verdict: Verdict) -> float:
        """Seconds for which it counts; none of one from the future, for the clock was set back since."""
        now, counts = self._now(), self._yes_for if verdict.status == 200 else NO_FOR
        return verdict.at + counts - now if verdict.at <= now else 0.0

    def standing(self, verdict: Verdict) -> float:
        """Seconds for which a yes stands while upstream does not answer."""
        if not verdict.yes or verdict.at > self._now():
            return 0.0
        return verdict.at + self._yes_for + self._stands_for - self._now()

    async def load(self, subject: Subject) -> Verdict | None:
        """What any worker or replica has heard, where that is the later word; then it is in memory."""
        task, _ = self._loading.join(subject, lambda: self._load(subject))
        await asyncio.shield(task)
        return self._known.get(subject)

    async def heard(self, subject: Subject, status: int) -> Verdict:
        """Upstream has just said so. What has to be written down is."""
        before, verdict = self._known.get(subject), Verdict(status, self._now())
        self._known.put(subject, verdict)
        if verdict.yes or (before is not None and before.yes):
            await self._keep(subject, verdict)
        return verdict

    def refuted(self, subject: Subject, status: int) -> None:
        """Upstream has refused what it let: no yes is left, and that is written down behind the caller's back."""
        verdict = Verdict(status, self._now())
        self._known.put(subject, verdict)
        self._writing.join((subject, verdict), lambda: self._keep(subject, verdict))

    async def aclose(self) -> None:
        """Stop reading and writing."""
        await self._loading.aclose()
        await self._writing.aclose()

    async def _load(self, subject: Subject) -> None:
        """Bring what any worker or replica has heard into memory, where that is the later word."""
        try:
            kept = await self._metadata.kept(self._name(subject))
        except StoreError as error:
            log.error("what %s said of a client could not be read: %s", subject.upstream, error)
            return
        status = _STATUSES.get(kept.headers.get("status", "")) if kept is not None else None
        if kept is None or status is None:
            return
        if not hmac.compare_digest(kept.body, self._seal(subject, status, kept.fetched_at)):
            return
        verdict, known = Verdict(status, kept.fetched_at), self._known.get(subject)
        if known is None or known.at < verdict.at:
            self._known.put(subject, verdict)

    async def _keep(self, subject: Subject, verdict: Verdict) -> None:
        body = self._seal(subject, verdict.status, verdict.at)
        try:
            answer = KeptAnswer(body, {"status": str(verdict.status)}, verdict.at)
            await self._metadata.keep(self._name(subject), answer)
        except StoreError as error:
            log.error("what %s said of a client could not be noted: %s", subject.upstream, error)

    def _name(self, subject: Subject) -> str:
        return f"verdict {self._keyed('verdict', *self._parts(subject)).hex()}"

    def _seal(self, subject: Subject, status: int, at: float) -> bytes:
        return self._keyed("seal", *self._parts(subject), str(status), repr(at)).hex().encode()

    def _parts(self, subject: Subject) -> tuple[str, ...]:
        origin = self._origins[subject.upstream]
        return subject.upstream, origin, subject.repository, subject.kind, subject.principal
