"""Tokens: what is good for which, how one is asked for, and what a token service's answer says. Does no I/O.

Sources: Distribution's token authentication (https://distribution.github.io/distribution/spec/auth/token/) and OAuth2
(…/auth/oauth/); RFC 7617 (Basic); RFC 6750 (Bearer).
"""

import json
import re
from base64 import b64encode, urlsafe_b64decode
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from email.utils import parsedate_to_datetime
from typing import Any

import httpx
from pydantic import SecretStr

from mirror.errors import UpstreamInvalid

_DEFAULT_LIFE = 60.0
_MAX_LIFE = 86400.0
_PRINTABLE = re.compile(r"[\x21-\x7e]{1,65536}")
_CLIENT_ID = "wasm-mirror"


@dataclass(frozen=True, slots=True)
class Login:
    """What proves who the mirror is: a name and its password, or an identity token (``username`` is then empty)."""

    username: str = field(repr=False)
    secret: SecretStr
    is_identity_token: bool = False

    def basic(self) -> SecretStr:
        """The value of a Basic ``Authorization`` (RFC 7617); an identity token goes by docker's name for it."""
        username = "<token>" if self.is_identity_token else self.username
        pair = f"{username}:{self.secret.get_secret_value()}".encode()
        return SecretStr(f"Basic {b64encode(pair).decode('ascii')}")


@dataclass(frozen=True, slots=True)
class TokenKey:
    """What a token is good for."""

    realm: str
    service: str
    scope: str


@dataclass(frozen=True, slots=True)
class Token:
    """A Bearer token, and until when it is good by the clock of its `Authenticator`."""

    value: SecretStr
    refresh_at: float

    @property
    def is_nobodys(self) -> bool:
        """Whether it says that the token service did not recognise who asked for it.

        Source: Distribution's token authentication, "JWT", ``sub``: empty if the client did not authenticate.
        """
        parts = self.value.get_secret_value().split(".")
        if len(parts) != 3:
            return False
        try:
            claims = json.loads(urlsafe_b64decode(parts[1] + "=" * (-len(parts[1]) % 4)))
        except (ValueError, RecursionError):
            return False
        return isinstance(claims, dict) and claims.get("sub") == ""

    def bearer(self) -> SecretStr:
        """The value of ``Authorization``."""
        return SecretStr(f"Bearer {self.value.get_secret_value()}")


@dataclass(frozen=True, slots=True)
class TokenRequest:
    """A step: get this token.

    ``trusted``: the settings vouch for the realm's host. Only then is there a ``login``; who is not vouched for is
    asked anonymously (CVE-2026-33540), and credentials that there are, are ``withheld``.
    """

    key: TokenKey
    login: Login | None
    trusted: bool
    withheld: bool = False

    def request(self, *, without_oauth: bool = False) -> httpx.Request:
        """The request to the token service: for an identity token OAuth2's, unless the service has none.

        That is what Distribution's documentation of OAuth2 asks for where the POST is answered with 404.
        """
        realm = httpx.URL(self.key.realm)
        scopes = self.key.scope.split()
        if self.login is not None and self.login.is_identity_token and not without_oauth:
            form = {
                "grant_type": "refresh_token",
                "service": self.key.service,
                "scope": " ".join(scopes),
                "client_id": _CLIENT_ID,
                "refresh_token": self.login.secret.get_secret_value(),
            }
            return httpx.Request("POST", realm, data=form)
        parameters: dict[str, str | list[str]] = {"service": self.key.service} if self.key.service else {}
        parameters["scope"] = scopes
        headers = {}
        if self.login is not None:
            if self.login.username:
                parameters["account"] = self.login.username
            headers["authorization"] = self.login.basic().get_secret_value()
        return httpx.Request("GET", realm.copy_merge_params(parameters), headers=headers)


def read_token(fields: Mapping[str, Any], date: str | None, now: float, host: str) -> Token:
    """The token in a token service's answer (``fields``), whose ``Date`` was ``date``, received at ``now``.

    Its age counts from ``issued_at`` by the service's own clock: ours may differ. It is renewed when a tenth of its
    life, at most 10 s, is left. Raises `UpstreamInvalid`.
    """
    value = fields.get("token") or fields.get("access_token")
    if not isinstance(value, str) or not _PRINTABLE.fullmatch(value):
        raise UpstreamInvalid(f"the token service {host} sends no token", detail={"host": host})
    life = fields.get("expires_in")
    if isinstance(life, bool) or not isinstance(life, int | float) or life <= 0:
        life = _DEFAULT_LIFE
    life = min(life, _MAX_LIFE)
    left = life - min(life, _age(fields.get("issued_at"), date))
    return Token(SecretStr(value), now + left - min(10.0, life / 10))


def _age(issued_at: object, date: str | None) -> float:
    if not isinstance(issued_at, str) or date is None:
        return 0.0
    try:
        return max(0.0, (parsedate_to_datetime(date) - datetime.fromisoformat(issued_at)).total_seconds())
    except (ValueError, TypeError):
        return 0.0
