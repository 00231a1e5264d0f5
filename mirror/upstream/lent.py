"""What a client's own credentials are good for at the origin of an upstream, and the use of them there.

They are shown to the origin and to the hosts that the settings vouch for, to nobody else: not to the endpoints before
it, nor to where it redirects.
"""

import logging
from collections.abc import Awaitable, Callable

from mirror.digest import Digest
from mirror.errors import ManifestUnknown, UpstreamDenied, UpstreamUnavailable
from mirror.freshness import Policy
from mirror.oci import Resource
from mirror.tags import Lru
from mirror.upstream.client import Endpoint
from mirror.upstream.lenders import Lenders, Loan, not_lent
from mirror.upstream.rounds import Question, Rounds
from mirror.upstream.tokens import Login

log = logging.getLogger(__name__)

_VOUCHED_FOR = 60.0
"""Seconds for which a login that the origin has taken is not held against ``/v2/`` again, for another repository."""

_MOST_VOUCHED = 10_000

_WARN_EVERY = 60.0


class Lent:
    """Asks the origin of one upstream what its clients may do. Every question may raise `UpstreamError`."""

    def __init__(
        self, name: str, origin: Rounds, lenders: Lenders | None, *, policy: Policy, clock: Callable[[], float]
    ) -> None:
        """``origin`` asks the last endpoint alone. ``lenders``: those of an upstream without credentials of its own.

        Each question may take ``hold_for`` of the ``policy``.
        """
        self.name = name
        self._origin = origin
        self._lenders = lenders
        self._policy = policy
        self._clock = clock
        self._warn_at = 0.0
        self._vouched: Lru[Login, float] = Lru(_MOST_VOUCHED)

    def on_refusal(self, call: Callable[[str, str], None]) -> None:
        """Have ``call`` told of each principal whose credentials were refused in a fill, and for which repository."""
        if self._lenders is not None:
            self._lenders.refused = call

    def lend(self, repository: str, principal: str, login: Login | None, until: float) -> Loan:
        """The client may pull from ``repository``, and lends its login until ``until`` (the loop's clock)."""
        if self._lenders is None:
            return not_lent(principal, login, until)
        return self._lenders.lend(repository, principal, login, until)

    async def vouch(self, login: Login) -> None:
        """Whether the origin knows this login, whatever anybody may read: `UpstreamDenied` if not."""
        self._refuse_when_offline()
        await self._ask("login", "", lambda origin: origin.on_trial(login).greet())
        self._vouched.put(login, self._clock() + _VOUCHED_FOR)

    async def may_pull(self, repository: str, resource: Resource, target: str, login: Login | None) -> None:
        """Whether a client with this login, None for an anonymous one, may pull that: nothing is raised if so.

        ``target`` is a tag or digest in text; empty for tags. Raises `UpstreamDenied`, or the `NotFound` of what is not
        there. A wrong password is refused although anybody may pull.
        """
        self._refuse_when_offline()
        if login is not None and self._clock() >= (self._vouched.get(login) or 0.0):
            await self.vouch(login)

        async def ask(origin: Endpoint) -> None:
            await _may_pull(origin.on_trial(login), repository, resource, target)

        await self._ask("may_pull", repository, ask)

    async def _ask(self, operation: str, repository: str, ask: Callable[[Endpoint], Awaitable[None]]) -> None:
        try:
            await self._origin.ask(Question(operation, repository, ask), self._clock() + self._policy.hold_for)
        except UpstreamDenied as denied:
            self._warn(denied)
            raise

    def _warn(self, denied: UpstreamDenied) -> None:
        """Say once in a while what only the settings can change: no client gets in at all."""
        foreign = isinstance(denied.detail, dict) and "realm" in denied.detail
        if foreign and self._clock() >= self._warn_at:
            self._warn_at = self._clock() + _WARN_EVERY
            log.warning("nobody can log in at %s: %s", self.name, denied)

    def _refuse_when_offline(self) -> None:
        if self._policy.offline:
            raise UpstreamUnavailable(f"{self.name} is offline in the mirror's settings, and is not asked")


async def _may_pull(origin: Endpoint, repository: str, resource: Resource, target: str) -> None:
    match resource:
        case Resource.MANIFEST:
            await origin.head_manifest(repository, target)
        case Resource.BLOB:
            await origin.head_blob(repository, Digest.parse(target))
        case Resource.REFERRERS:
            try:
                await origin.referrers(repository, Digest.parse(target), None, None)
            except ManifestUnknown:  # the origin may have no such API
                await origin.list_tags(repository, 1, None)
        case _:
            await origin.list_tags(repository, 1, None)
