"""The origin of an upstream, as each author pushes to it: with the mirror's credentials, or with the author's own."""

from mirror.tags import Lru
from mirror.upstream.lenders import Logins
from mirror.upstream.pushing import Pushing
from mirror.upstream.tokens import Login

_MOST_AUTHORS = 256
"""Authors of whom it is remembered how the origin takes them; each request brings the credentials anew."""


class Authors:
    """Finds the way to an origin for each principal."""

    def __init__(self, origin: Pushing, logins: Logins | None) -> None:
        """``logins`` of the principals, who push with their own (``auth.mode: upstream``); None: with the mirror's."""
        self._origin = origin
        self._logins = logins
        self._theirs: Lru[Login | None, Pushing] = Lru(_MOST_AUTHORS)

    @property
    def host(self) -> str:
        """How messages name the origin."""
        return self._origin.host

    def login(self, principal: str) -> Login | None:
        """The principal's own credentials, where these count. Raises `Unauthorized` when they are not known."""
        return None if self._logins is None else self._logins.of(principal)

    def origin(self, principal: str) -> Pushing:
        """The origin, asked with the credentials of this principal and with tokens of nobody else."""
        if self._logins is None:
            return self._origin
        login = self._logins.of(principal)
        origin = self._theirs.get(login)
        if origin is None:
            origin = self._origin.of_client(login)
            self._theirs.put(login, origin)
        return origin

    async def aclose(self) -> None:
        """Close all connections."""
        await self._origin.aclose()
