"""Who may read of an upstream: whom it lets read. It is asked with the client's own credentials, by the request that
the client makes, and what it says is remembered for these credentials and this repository.

=======================  ============================================================================================
yes                      counts for `auth.verdict_for`; then it is asked again. While nobody answers, the last yes
                         stands for another `auth.stale_verdict_for`
no (401, 403)            counts for `NO_FOR`, and ends every yes before it
it is not there (404)    is neither, and is the client's answer
no answer, or nonsense   503, or 502, where no yes stands
=======================  ============================================================================================

A yes to what a repository holds says nothing about its lists (tags, referrers), nor these about that: registries have
separate rights for them. Whether credentials are right at all (``/v2/``) is the third kind of question.

Source: RFC 9110, section 11 (what 401 and 403 mean).
"""

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from random import random as any_number
from typing import NoReturn, Protocol

from mirror.auth.keyed import Keyed
from mirror.auth.remembered import Remembered, Subject, Verdict
from mirror.digest import Digest
from mirror.errors import (
    Denied,
    MirrorError,
    NotFound,
    TooMany,
    Unauthorized,
    UpstreamDenied,
    UpstreamInvalid,
    UpstreamTimeout,
    UpstreamUnavailable,
)
from mirror.flight import Flights
from mirror.names import Place, not_allowed
from mirror.oci import Reference, Resource
from mirror.suspicion import Suspicion
from mirror.upstream.backoff import Backoff
from mirror.upstream.failover import Upstream
from mirror.upstream.tokens import Login

_STAND_IN_AFTER = 2.0
"""Seconds for which upstream's word is waited for, where an earlier yes may stand in."""

_ANSWER_WITHIN = 10.0
"""The same, where none may; `Policy.hold_for` may give less. A client has 30 s for all of its pull."""

_AT_ONCE = 32
_MOST_WAITING = 1024
"""Questions that may wait at one upstream: who sends many passwords must not have it flooded in this mirror's name."""

_LISTS = frozenset({Resource.TAGS, Resource.REFERRERS})


class Asking(Protocol):
    """One upstream's origin, asked as somebody else: `mirror.upstream.lent`. What is neither yes nor no is raised."""

    async def vouch(self, login: Login) -> None:
        """Whether these credentials are right: raises `UpstreamDenied` where they are not."""
        ...

    async def may_pull(self, repository: str, resource: Resource, target: str, login: Login | None) -> None:
        """Whether they let somebody read that: raises `UpstreamDenied` where they do not, and `NotFound`."""
        ...


@dataclass(frozen=True, slots=True)
class _Heard:
    """What became of a question: a verdict on all that it is about, or that what was asked for is not there."""

    what: tuple[Resource, str]
    verdict: Verdict | None
    absence: NotFound | None = None


class Verdicts:
    """Asks, once for all who bring the same credentials at the same time, and remembers."""

    def __init__(
        self,
        upstreams: Mapping[str, Upstream],
        asking: Mapping[str, Asking],
        remembered: Remembered,
        keyed: Keyed,
        suspicion: Suspicion,
        *,
        original: Callable[[Reference], Awaitable[Reference | None]] | None = None,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
        random: Callable[[], float] = any_number,
    ) -> None:
        """``original`` gives what upstream has in place of what is made here."""
        self._upstreams = upstreams
        self._asking = asking
        self._remembered = remembered
        self._keyed = keyed
        self._suspicion = suspicion
        self._original = original
        self._sleep = sleep
        self._random = random
        self._flights: Flights[_Heard] = Flights()
        self._turns = {name: asyncio.Semaphore(_AT_ONCE) for name in upstreams}
        self._waiting = dict.fromkeys(upstreams, 0)

    def principal(self, login: Login | None) -> str:
        """A name for who has these credentials, and for nobody else; "" for anonymous."""
        if login is None:
            return ""
        return self._keyed("principal", login.username, login.secret.get_secret_value()).hex()

    async def may_pull(
        self, place: Place, resource: Resource, target: str, login: Login | None, principal: str
    ) -> float:
        """Seconds for which it may be read; ``target`` is a tag, a digest in text, or "" for the list of tags.

        Raises `Unauthorized` or `Denied` where it may not, `NotFound`, and `UpstreamError` where that is not known.
        """
        if not self._upstreams[place.upstream].allows(place.repository):
            raise not_allowed(place.upstream, place.repository)
        kind = "lists" if resource in _LISTS else "content"
        subject = Subject(place.upstream, place.repository, kind, principal)
        known = self._remembered.get(subject)
        if known is None or (left := self._remembered.left(known)) <= 0:
            try:
                known, left = await self._find_out(subject, (resource, target), login)
            except NotFound:
                instead = await self._instead(place, target) if kind == "content" else None
                if instead is None:
                    raise
                known, left = await self._find_out(subject, (Resource.MANIFEST, instead), login)
        if not known.yes:
            self._refuse(subject, known.status)
        return left

    async def vouch(self, upstream: str, login: Login, principal: str) -> None:
        """Return if the credentials are right; raises as `may_pull` does."""
        subject = Subject(upstream, "", "login", principal)
        known = self._remembered.get(subject)
        if known is None or self._remembered.left(known) <= 0:
            known, _ = await self._find_out(subject, (Resource.BASE, ""), login)
        if not known.yes:
            self._refuse(subject, known.status)

    def refuted(self, upstream: str, repository: str, principal: str, status: int = 401) -> None:
        """Upstream has refused these credentials in the middle of something: a yes that it gave is over."""
        self._remembered.refuted(Subject(upstream, repository, "content", principal), status)

    async def aclose(self) -> None:
        """Stop asking."""
        await self._flights.aclose()
        await self._remembered.aclose()

    async def _instead(self, place: Place, target: str) -> str | None:
        """A manifest to be asked about where what is asked for is made here, and nothing that upstream has."""
        if self._original is None:
            return None
        digest = Digest.parse(target) if ":" in target else None
        tag = target if digest is None else None
        found = await self._original(Reference(place.upstream, place.repository, tag, digest))
        return found.target if found is not None else None

    async def _find_out(
        self, subject: Subject, what: tuple[Resource, str], login: Login | None
    ) -> tuple[Verdict, float]:
        """A verdict that counts now, or stands, and for how long."""
        known = await self._remembered.load(subject)
        while known is None or (left := self._remembered.left(known)) <= 0:
            heard = await self._heard(subject, what, login, known)
            if heard is None:
                assert known is not None
                return known, self._remembered.standing(known)
            if heard.verdict is not None:
                return heard.verdict, self._remembered.left(heard.verdict)
            if heard.what == what:
                assert heard.absence is not None
                raise heard.absence.__class__(heard.absence.message, detail=heard.absence.detail)
            known = self._remembered.get(subject)
        return known, left

    async def _heard(
        self, subject: Subject, what: tuple[Resource, str], login: Login | None, known: Verdict | None
    ) -> _Heard | None:
        """What upstream says; None where it does not, and an earlier yes stands. The question goes on then."""
        stands = known is not None and self._remembered.standing(known) > 0
        upstream = self._upstreams[subject.upstream]
        patience = min(upstream.policy.hold_for, _ANSWER_WITHIN)
        task, _ = self._flights.join(subject, lambda: self._ask(subject, what, login, patience, persist=not stands))
        if stands and not task.done() and self._suspicion.rests_on(subject.upstream):
            return None
        try:
            async with asyncio.timeout(min(patience, _STAND_IN_AFTER) if stands else patience + 1):
                return await asyncio.shield(task)
        except TimeoutError:
            self._suspicion.failed(subject.upstream)
            if stands:
                return None
            raise _nobody_knows(subject, f"{subject.upstream} has not answered in time", None) from None
        except (UpstreamUnavailable, UpstreamTimeout) as failure:
            if isinstance(failure, UpstreamTimeout):
                self._suspicion.failed(subject.upstream)
            if stands:
                return None
            raise _nobody_knows(subject, failure.message, failure.retry_after) from failure
        except UpstreamInvalid as failure:
            if stands and not _is_about_the_client(failure):
                return None
            raise

    async def _ask(
        self, subject: Subject, what: tuple[Resource, str], login: Login | None, patience: float, *, persist: bool
    ) -> _Heard:
        """Ask upstream; with ``persist`` again and again, until it answers or ``patience`` is over."""
        name = subject.upstream
        if self._upstreams[name].policy.offline:
            raise UpstreamUnavailable(f"{name} is offline in the mirror's settings")
        if persist and self._waiting[name] >= _MOST_WAITING:
            raise TooMany(f"too many credentials are being tried at {name}; ask again", retry_after=1)
        self._waiting[name] += persist
        # Whom upstream has let before does not wait behind those who try passwords.
        turn = self._turns[name] if persist else contextlib.nullcontext()
        try:
            async with asyncio.timeout(patience), turn:
                status = await self._said(subject, what, login, patience if persist else 0.0)
        except TimeoutError:
            raise UpstreamTimeout(f"{name} has not answered within {patience:g} s") from None
        except NotFound as absence:
            self._suspicion.answered(name)
            return _Heard(what, None, absence)
        finally:
            self._waiting[name] -= persist
        self._suspicion.answered(name)
        return _Heard(what, await self._remembered.heard(subject, status))

    async def _said(self, subject: Subject, what: tuple[Resource, str], login: Login | None, patience: float) -> int:
        """200, or the status of a refusal."""
        asking, clock, backoff = self._asking[subject.upstream], asyncio.get_running_loop().time, Backoff(self._random)
        until = clock() + patience
        while True:
            try:
                if what[0] is Resource.BASE:
                    assert login is not None
                    await asking.vouch(login)
                else:
                    await asking.may_pull(subject.repository, *what, login)
            except UpstreamDenied as refusal:
                return _status(refusal)
            except (UpstreamUnavailable, UpstreamTimeout) as failure:
                pause = max(backoff.pause(), failure.retry_after or 0.0)
                if clock() + pause >= until:
                    raise
                await self._sleep(pause)
            else:
                return 200

    def _refuse(self, subject: Subject, status: int) -> NoReturn:
        raise refusal(subject.upstream, subject.repository, status, anonymous=not subject.principal)


def refusal(upstream: str, repository: str, status: int, *, anonymous: bool) -> MirrorError:
    """The error for a client whom upstream does not let read; ``repository`` is "" where its credentials are wrong."""
    what = f"{upstream}/{repository}" if repository else upstream
    if anonymous:
        return Unauthorized(
            f"{upstream} does not let everyone pull {what}: send credentials that you have for {upstream}"
        )
    if not repository:
        return Unauthorized(f"{upstream} does not take these credentials ({status}): send those that you have for it")
    words = f"{upstream} does not let these credentials pull {what} ({status})"
    return Denied(words) if status == 403 else Unauthorized(f"{words}; send others that you have for {upstream}")


def _status(refusal: UpstreamDenied) -> int:
    detail = refusal.detail
    return 403 if isinstance(detail, dict) and detail.get("status") == 403 else 401


def _is_about_the_client(failure: UpstreamInvalid) -> bool:
    """Whether upstream understood the question, and does not like it: there are registries that refuse so."""
    status = failure.detail.get("status") if isinstance(failure.detail, dict) else None
    return isinstance(status, int) and 400 <= status < 500


def _nobody_knows(subject: Subject, why: str, retry_after: float | None) -> UpstreamUnavailable:
    what = f"pull {subject.upstream}/{subject.repository}" if subject.repository else "log in"
    return UpstreamUnavailable(
        f"nobody knows whether you may {what}: {why}, and it has not let you lately; ask again",
        retry_after=retry_after or 5.0,
    )
