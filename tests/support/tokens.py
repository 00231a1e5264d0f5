"""Who may read at a fake registry: Basic credentials, or Bearer tokens and the service that issues them."""

import base64
import binascii
import json
import secrets
import threading
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Literal
from urllib.parse import parse_qs

from tests.support.contents import Answer, error


@dataclass(frozen=True, slots=True)
class Issued:
    """A token that was given out: for which scopes, to whom (``None`` for anonymous), until when."""

    scopes: tuple[str, ...]
    user: str | None
    expires_at: float


@dataclass
class TokenService:
    """Issues Bearer tokens and knows which are good. Servers may share one: one asks for tokens, another issues them.

    ``users`` maps names to passwords. Every attribute may be changed while it serves. Thread-safe.
    """

    users: dict[str, str] = field(default_factory=dict)
    anonymous: bool = True
    """Whether a token is given to who brings no credentials."""
    token_field: Literal["token", "access_token", "both"] = "token"
    expires_in: int | None = 300
    """Life of a token in seconds; ``None``: not said, and 60 as the specification has it."""
    refresh_token: str | None = None
    """The refresh token that is taken, and given out to who asks for one."""
    accepts_post: bool = True
    rights: Mapping[str, Mapping[str | None, str]] | None = None
    """By repository and user (``None`` for anonymous), the actions that a token may be for; ``None``: all for all."""
    lenient: bool = False
    """Whether wrong credentials get the token of an anonymous client, and are not refused."""
    tells_subject: bool = False
    """Whether tokens are JWTs whose ``sub`` is the user, empty for anonymous."""
    service: str = "fake-registry"
    _issued: dict[str, Issued] = field(default_factory=dict, repr=False)
    _lock: threading.Lock = field(default_factory=threading.Lock, repr=False)

    @property
    def issued(self) -> tuple[Issued, ...]:
        """All tokens that are known, oldest first."""
        with self._lock:
            return tuple(self._issued.values())

    def revoke(self) -> None:
        """Forget all tokens: who brings one gets 401."""
        with self._lock:
            self._issued.clear()

    def allows(self, authorization: str, repository: str | None, actions: str = "pull") -> bool:
        """Whether ``Authorization`` opens ``repository`` for these actions; ``None`` is ``/v2/`` itself, which any good
        token opens.
        """
        kind, _, token = authorization.partition(" ")
        with self._lock:
            issued = self._issued.get(token)
        if kind.lower() != "bearer" or issued is None or time.monotonic() > issued.expires_at:
            return False
        wanted = f"repository:{repository}:"
        return repository is None or any(
            scope.startswith(wanted) and set(actions.split(",")) <= set(scope.removeprefix(wanted).split(","))
            for scope in issued.scopes
        )

    def answer(self, method: str, query: Mapping[str, str], authorization: str, body: bytes) -> Answer:
        """The answer of the token endpoint."""
        if method == "GET":
            user, password = basic(authorization)
            asks_for_refresh = query.get("offline_token") == "true"
            return self._issue(query.get("scope", ""), user, password, asks_for_refresh)
        if method != "POST" or not self.accepts_post:
            return error(405, "UNSUPPORTED")
        form = {name: values[-1] for name, values in parse_qs(body.decode()).items()}
        scope = form.get("scope", "")
        if form.get("grant_type") == "refresh_token":
            if self.refresh_token is None or form.get("refresh_token") != self.refresh_token:
                return error(401, "UNAUTHORIZED", "bad refresh token")
            return self._grant(scope, "<refresh token>", with_refresh=True)
        if form.get("grant_type") == "password":
            return self._issue(scope, form.get("username"), form.get("password"), asks_for_refresh=True)
        return error(400, "UNSUPPORTED", "unknown grant_type")

    def _issue(self, scope: str, user: str | None, password: str | None, asks_for_refresh: bool) -> Answer:
        if user is None and not self.anonymous:
            return error(401, "UNAUTHORIZED", "credentials are needed")
        if user is not None and self.users.get(user) != password:
            if self.lenient:
                return self._grant(scope, None, with_refresh=False)
            return error(401, "UNAUTHORIZED", "wrong credentials")
        return self._grant(scope, user, with_refresh=asks_for_refresh)

    def _grant(self, scope: str, user: str | None, *, with_refresh: bool) -> Answer:
        token = secrets.token_urlsafe(24)
        if self.tells_subject:
            claims = base64.urlsafe_b64encode(json.dumps({"sub": user or ""}).encode()).decode().rstrip("=")
            token = f"e30.{claims}.{token}"
        life = 60 if self.expires_in is None else self.expires_in
        with self._lock:
            self._issued[token] = Issued(tuple(self._granted(scope, user)), user, time.monotonic() + life)
        names = ("token", "access_token") if self.token_field == "both" else (self.token_field,)
        fields: dict[str, object] = dict.fromkeys(names, token)
        if self.expires_in is not None:
            fields["expires_in"] = self.expires_in
        if with_refresh and self.refresh_token is not None:
            fields["refresh_token"] = self.refresh_token
        return Answer(200, {"content-type": "application/json"}, json.dumps(fields).encode())

    def _granted(self, scope: str, user: str | None) -> Iterator[str]:
        """What of the scopes that are asked for this user gets."""
        for one in scope.split():
            kind, name, actions = one.split(":")
            allowed = actions if self.rights is None else self.rights.get(name, {}).get(user, "")
            found = [action for action in actions.split(",") if action in allowed.split(",")]
            if found:
                yield f"{kind}:{name}:{','.join(found)}"


def basic(authorization: str) -> tuple[str | None, str | None]:
    """User and password of a Basic ``Authorization``; ``(None, None)`` for anything else."""
    kind, _, encoded = authorization.partition(" ")
    if kind.lower() != "basic":
        return None, None
    try:
        user, colon, password = base64.b64decode(encoded, validate=True).decode().partition(":")
    except (binascii.Error, UnicodeDecodeError):
        return None, None
    return (user, password) if colon else (None, None)
