"""Who the mirror is for an endpoint: from the settings, a file with a password, or a docker ``config.json``.

Files are looked at again while the mirror runs, because Kubernetes changes mounted secrets in place.
"""

import binascii
import json
import logging
import re
from base64 import b64decode
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, Protocol, TypeVar

import aiofiles
import aiofiles.os
import httpx
from pydantic import SecretStr

from mirror.config import Credentials
from mirror.errors import UpstreamUnavailable
from mirror.upstream.origins import origin_of
from mirror.upstream.tokens import Login

log = logging.getLogger(__name__)

LOOK_AGAIN_AFTER = 1.0
"""Seconds for which a file is taken to be unchanged."""

_DOCKER_HUB = {"docker.io", "index.docker.io", "registry-1.docker.io"}
_LEGACY_PATHS = {"", "v1", "v2"}

T = TypeVar("T")


class LoginSource(Protocol):
    """Gives the login for a repository, None for anonymous access; raises `UpstreamUnavailable`."""

    async def login(self, repository: str) -> Login | None: ...


def source_of(
    credentials: Credentials | None, endpoint: httpx.URL, setting: str, clock: Callable[[], float]
) -> LoginSource:
    """The source that ``credentials``, which stand at the key ``setting``, describe."""
    if credentials is None:
        return _Fixed(None)
    if credentials.docker_config is not None:
        return _DockerConfig(_Watched(credentials.docker_config, _entries, f"{setting}.docker_config", clock), endpoint)
    username = credentials.username or ""
    if credentials.password_file is not None:
        return _PasswordFile(
            username, _Watched(credentials.password_file, _password, f"{setting}.password_file", clock)
        )
    assert credentials.password is not None
    return _Fixed(Login(username, credentials.password))


@dataclass(frozen=True, slots=True)
class _Fixed:
    known: Login | None

    async def login(self, repository: str) -> Login | None:
        return self.known


class _Watched(Generic[T]):
    """What ``parse`` (which raises `ValueError`) makes of a file, read again after it changed.

    Once there is a good value it stays in force while the file is missing or wrong.
    """

    def __init__(self, path: Path, parse: Callable[[bytes], T], setting: str, clock: Callable[[], float]) -> None:
        self._path = path
        self._parse = parse
        self._setting = setting
        self._clock = clock
        self._value: T | None = None
        self._stamp: tuple[int, int, int] | None = None
        self._look_at = float("-inf")
        self._complaint = ""

    async def get(self) -> T:
        """The value; raises `UpstreamUnavailable` when there was never a good one."""
        if self._value is None or self._clock() >= self._look_at:
            self._look_at = self._clock() + LOOK_AGAIN_AFTER
            await self._look()
        if self._value is None:
            raise UpstreamUnavailable(f"the file of {self._setting} cannot be read; the mirror's log says why")
        return self._value

    async def _look(self) -> None:
        complaint = ""
        try:
            stat = await aiofiles.os.stat(self._path)
            stamp = (stat.st_mtime_ns, stat.st_size, stat.st_ino)
            if stamp != self._stamp:
                async with aiofiles.open(self._path, "rb") as file:
                    content = await file.read()
                self._value = self._parse(content)
                self._stamp = stamp
        except OSError as error:
            complaint = f"{self._path}: {error.strerror}"
        except ValueError as error:
            complaint = f"{self._path}: {error}"
        if complaint and complaint != self._complaint:
            log.error("%s: %s", self._setting, complaint)
        self._complaint = complaint


def _password(content: bytes) -> SecretStr:
    try:
        return SecretStr(content.decode().rstrip("\r\n"))
    except UnicodeDecodeError:
        raise ValueError("it is not UTF-8 text") from None  # whose message would show a part of the password


@dataclass(frozen=True, slots=True)
class _PasswordFile:
    username: str
    password: _Watched[SecretStr]

    async def login(self, repository: str) -> Login | None:
        return Login(self.username, await self.password.get())


@dataclass(frozen=True, slots=True)
class _Entry:
    """An entry of a docker ``config.json``: for repositories under ``path`` at ``host``, which may hold wildcards."""

    host: str
    path: str
    login: Login

    def covers(self, endpoint: httpx.URL, repository: str) -> bool:
        inside = not self.path or f"{repository}/".startswith(f"{self.path}/")
        return inside and _same_host(self.host, endpoint)


class _DockerConfig:
    """A docker ``config.json``; of several entries for an endpoint, the one with the longest path counts.

    Source: https://kubernetes.io/docs/concepts/containers/images/#config-json
    """

    def __init__(self, entries: _Watched[list[_Entry]], endpoint: httpx.URL) -> None:
        self._entries = entries
        self._endpoint = endpoint

    async def login(self, repository: str) -> Login | None:
        found = [entry for entry in await self._entries.get() if entry.covers(self._endpoint, repository)]
        return max(found, key=lambda entry: len(entry.path)).login if found else None


def _same_host(pattern: str, endpoint: httpx.URL) -> bool:
    """Whether a key's host means the endpoint; ``*`` stands for any part of one label, never for a dot."""
    _, host, port = origin_of(endpoint)
    name, _, digits = pattern.rpartition(":") if re.search(r":\d+$", pattern) else (pattern, "", "")
    if (int(digits) != port) if digits else (endpoint.port is not None):
        return False
    if host in _DOCKER_HUB and name in _DOCKER_HUB:
        return True
    labels = "[^.]*".join(map(re.escape, name.strip("[]").split("*")))
    return re.fullmatch(labels, host) is not None


def _entries(content: bytes) -> list[_Entry]:
    try:
        fields = json.loads(content)
    except (ValueError, RecursionError):
        raise ValueError("it is not JSON") from None
    auths = fields.get("auths", {}) if isinstance(fields, dict) else None
    if not isinstance(auths, dict):
        raise ValueError("it has no mapping `auths`")
    found = []
    for key, entry in auths.items():
        login = _login(entry) if isinstance(entry, dict) else None
        if login is not None:
            host, _, path = re.sub(r"^https?://", "", key.lower()).partition("/")
            path = path.strip("/")
            found.append(_Entry(host, "" if path in _LEGACY_PATHS else path, login))
    return found


def _login(entry: Mapping[str, Any]) -> Login | None:
    """The login of one entry, in any of the forms that docker, podman and Kubernetes write."""
    username, password = entry.get("username"), entry.get("password")
    packed, identity = entry.get("auth"), entry.get("identitytoken")
    if isinstance(identity, str) and identity:
        return Login("", SecretStr(identity), is_identity_token=True)
    if isinstance(packed, str) and packed:
        try:
            username, _, password = b64decode(packed).decode().partition(":")
        except (binascii.Error, UnicodeDecodeError):
            raise ValueError("an `auth` in it is not base64 of user:password") from None
        password = password.rstrip("\0")
    if not isinstance(username, str) or not isinstance(password, str) or not username:
        return None
    if username == "<token>":
        return Login("", SecretStr(password), is_identity_token=True)
    return Login(username, SecretStr(password))
