"""The clients whose credentials are used at the origin of an upstream: in memory, and for no longer than their verdict.

A mirror without credentials of its own fetches with those of a client that may pull from the repository. Whose are
refused lends no longer, and hears so; for the others the question is asked again.
"""

import functools
from collections.abc import Awaitable, Callable
from typing import TypeVar

from mirror.errors import Unauthorized, UpstreamDenied, UpstreamUnavailable
from mirror.tags import Lru
from mirror.upstream.tokens import Login

MOST_LENDERS = 16
"""Clients whose credentials are kept for one repository: those that asked last."""

_MOST_REPOSITORIES = 10_000
_MOST_LOGINS = 10_000

_TURNS = 5
"""Times that something is asked for again after the refusal of others' credentials."""

T = TypeVar("T")


class Logins:
    """Which login a principal stands for: the names are opaque, and given by `mirror.auth`."""

    def __init__(self) -> None:
        self._known: Lru[str, Login] = Lru(_MOST_LOGINS)

    def introduce(self, principal: str, login: Login) -> None:
        """The principal has proved to be, or says to be, who this login is for."""
        self._known.put(principal, login)

    def of(self, principal: str) -> Login | None:
        """The principal's login, None for anonymous (``""``). Raises `Unauthorized` when it is not known any more."""
        if not principal:
            return None
        login = self._known.get(principal)
        if login is None:
            raise Unauthorized("your credentials are not known here any more: send them again")
        return login


class Loan:
    """What one client lends for one repository; where the mirror has credentials of its own, nothing.

    It stands ``until`` its verdict ends, and for the requests that were let in by then. ``refusal`` is set once the
    credentials were refused.
    """

    def __init__(self, renew: "Callable[[Loan], None]", principal: str, login: Login | None, until: float) -> None:
        """``renew`` makes it the latest one."""
        self._renew = renew
        self._at_work = 0
        self.principal = principal
        self.login = login
        self.until = until
        self.refusal: UpstreamDenied | None = None

    def stands(self, now: float) -> bool:
        """Whether its login may be used."""
        return self.refusal is None and (self._at_work > 0 or now < self.until)

    def check(self) -> None:
        """Raise the refusal of this client's credentials, if they were refused in the meantime."""
        if self.refusal is not None:
            raise UpstreamDenied(self.refusal.message, detail=self.refusal.detail)

    async def persist(self, work: Callable[[], Awaitable[T]]) -> T:
        """Do ``work``, which may be shared with others; again, where it met the refusal of another's credentials.

        Raises what ``work`` raises; `UpstreamDenied` is the refusal of this client's own credentials, or the mirror's.
        """
        self._at_work += 1
        try:
            for _ in range(_TURNS):
                self.check()
                self._renew(self)
                try:
                    return await work()
                except UpstreamDenied as denied:
                    self.check()
                    if isinstance(denied.detail, dict) and "setting" in denied.detail:  # the mirror's
                        raise
        finally:
            self._at_work -= 1
        raise UpstreamUnavailable("the credentials of others were refused, time and again; ask again", retry_after=1)


class Lenders:
    """The loans for the repositories of one upstream, as a `mirror.upstream.credentials.LoginSource` for its origin.

    ``prefix`` stands in front of each repository there. ``clock`` gives seconds. ``refused`` is called with the
    principal whose credentials were refused, and the repository.
    """

    def __init__(self, prefix: str, clock: Callable[[], float]) -> None:
        self._prefix = prefix
        self._clock = clock
        self._loans: Lru[str, dict[str, Loan]] = Lru(_MOST_REPOSITORIES)
        self.refused: Callable[[str, str], None] = _nobody_listens

    def lend(self, repository: str, principal: str, login: Login | None, until: float) -> Loan:
        """Use this login from now on, until its verdict ends at ``until``."""
        loan = self._of(repository).get(principal)
        if loan is None or loan.login != login:
            loan = Loan(functools.partial(self._renew, repository), principal, login, until)
        loan.until = max(loan.until, until)
        self._renew(repository, loan)
        return loan

    async def login(self, repository: str) -> Login | None:
        """The latest lender's; nobody's while an anonymous client may pull: what is not needed is not shown."""
        lending = self._lending(repository)
        return None if any(loan.login is None for loan in lending) else _latest(lending)

    async def instead_of(
        self, refused: Login | None, repository: str, failure: UpstreamDenied | None = None
    ) -> Login | None:
        """The latest lender's of those that are left. Who lent what was ``refused`` is told."""
        name = repository.removeprefix(self._prefix)
        loans = self._of(name)
        for loan in [loan for loan in loans.values() if loan.login == refused]:
            del loans[loan.principal]
            loan.refusal = failure or UpstreamDenied("your credentials were refused")
            self.refused(loan.principal, name)
        return _latest(self._lending(repository))

    async def aclose(self) -> None:
        """Nothing is under way."""

    def _of(self, repository: str) -> dict[str, Loan]:
        loans = self._loans.get(repository)
        if loans is None:
            loans = {}
            self._loans.put(repository, loans)
        return loans

    def _renew(self, repository: str, loan: Loan) -> None:
        loans = self._of(repository)
        loans.pop(loan.principal, None)
        loans[loan.principal] = loan
        if len(loans) > MOST_LENDERS:
            del loans[next(iter(loans))]

    def _lending(self, there: str) -> list[Loan]:
        """The loans that stand, the latest last; ``there`` is what the origin calls the repository."""
        now = self._clock()
        return [loan for loan in self._of(there.removeprefix(self._prefix)).values() if loan.stands(now)]


def not_lent(principal: str, login: Login | None, until: float) -> Loan:
    """What a client has to lend where the mirror has credentials of its own."""
    return Loan(lambda _: None, principal, login, until)


def _latest(lending: list[Loan]) -> Login | None:
    return lending[-1].login if lending else None


def _nobody_listens(principal: str, repository: str) -> None:
    pass
