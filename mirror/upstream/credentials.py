"""Who the mirror is for an endpoint: from the settings, a password file, a docker ``config.json``, or a helper."""

import binascii
import json
import os
import re
from base64 import b64decode
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import httpx
from pydantic import SecretStr

from mirror.config import Credentials
from mirror.config.upstreams import parse_helper
from mirror.errors import UpstreamDenied
from mirror.upstream.helpers import Helper
from mirror.upstream.origins import host_of, origin_of
from mirror.upstream.renewal import KeptLogin
from mirror.upstream.tokens import Login
from mirror.upstream.watched import Watched

_DOCKER_HUB = {"docker.io", "index.docker.io", "registry-1.docker.io"}
_DOCKER_HUB_SERVER = "https://index.docker.io/v1/"
_LEGACY_PATHS = {"", "v1", "v2"}


class LoginSource(Protocol):
    """Gives the login for a repository, None for anonymous access; raises `UpstreamUnavailable`."""

    async def login(self, repository: str) -> Login | None: ...

    async def instead_of(
        self, refused: Login | None, repository: str, failure: UpstreamDenied | None = None
    ) -> Login | None:
        """Another login than ``refused``, which the endpoint refused just now with ``failure``; None: there is none."""
        ...

    async def aclose(self) -> None: ...


def source_of(
    credentials: Credentials | None,
    endpoint: httpx.URL,
    setting: str,
    clock: Callable[[], float],
    environment: Mapping[str, str] = os.environ,
) -> LoginSource:
    """The source that ``credentials``, which stand at the key ``setting``, describe.

    ``environment`` is what helpers are run with.
    """

    def helper(name: str, key: str) -> KeptLogin:
        server = _DOCKER_HUB_SERVER if endpoint.host in _DOCKER_HUB else host_of(endpoint)
        return KeptLogin(Helper(name, server, f"{setting}.{key}", environment).ask, clock)

    if credentials is None:
        return OnlyOne(None)
    if credentials.helper is not None:
        return _FromHelper(helper(credentials.helper, "helper"))
    if credentials.docker_config is not None:
        key = f"{setting}.docker_config"
        config = Watched({key: credentials.docker_config}, _docker_config, clock)
        return _DockerConfig(config, endpoint, lambda name: helper(name, "docker_config"))
    username = credentials.username or ""
    if credentials.password_file is not None:
        key = f"{setting}.password_file"
        return _PasswordFile(username, Watched({key: credentials.password_file}, _password, clock))
    assert credentials.password is not None
    return OnlyOne(Login(username, credentials.password))


@dataclass(frozen=True, slots=True)
class OnlyOne:
    """One login, or none, for every repository."""

    known: Login | None

    async def login(self, repository: str) -> Login | None:
        return self.known

    async def instead_of(
        self, refused: Login | None, repository: str, failure: UpstreamDenied | None = None
    ) -> Login | None:
        return None

    async def aclose(self) -> None:
        pass


@dataclass(frozen=True, slots=True)
class _FromHelper:
    helper: KeptLogin

    async def login(self, repository: str) -> Login | None:
        return await self.helper.login()

    async def instead_of(
        self, refused: Login | None, repository: str, failure: UpstreamDenied | None = None
    ) -> Login | None:
        return await self.helper.instead_of(refused)

    async def aclose(self) -> None:
        await self.helper.aclose()


def _password(path: Path) -> SecretStr:
    try:
        return SecretStr(path.read_bytes().decode().rstrip("\r\n"))
    except UnicodeDecodeError:
        raise ValueError("it is not UTF-8 text") from None  # whose message would show a part of the password


@dataclass(frozen=True, slots=True)
class _PasswordFile:
    username: str
    password: Watched[SecretStr]

    async def login(self, repository: str) -> Login | None:
        return Login(self.username, await self.password.get())

    async def instead_of(
        self, refused: Login | None, repository: str, failure: UpstreamDenied | None = None
    ) -> Login | None:
        fresh = await self.login(repository)
        return None if fresh == refused else fresh

    async def aclose(self) -> None:
        pass


@dataclass(frozen=True, slots=True)
class _Entry:
    """An entry of a docker ``config.json``: for repositories under ``path`` at ``host``, which may hold wildcards."""

    host: str
    path: str
    login: Login

    def covers(self, endpoint: httpx.URL, repository: str) -> bool:
        inside = not self.path or f"{repository}/".startswith(f"{self.path}/")
        return inside and _same_host(self.host, endpoint)


@dataclass(frozen=True, slots=True)
class _Config:
    """What counts of a docker ``config.json``: entries, helpers by host, and the helper for all other hosts."""

    entries: tuple[_Entry, ...] = ()
    helpers: Mapping[str, str] = field(default_factory=dict)
    store: str | None = None


class _DockerConfig:
    """A docker ``config.json``: a host's own helper, else an entry that holds a login, else the helper for all hosts.

    Of several entries for an endpoint, the one with the longest path counts.
    Sources: https://docs.docker.com/reference/cli/docker/login/#credential-helpers,
    https://kubernetes.io/docs/concepts/containers/images/#config-json
    """

    def __init__(self, config: Watched[_Config], endpoint: httpx.URL, helper: Callable[[str], KeptLogin]) -> None:
        self._config = config
        self._endpoint = endpoint
        self._helper = helper
        self._helpers: dict[str, KeptLogin] = {}

    async def login(self, repository: str) -> Login | None:
        config = await self._config.get()
        helper = self._asked(config, repository)
        return self._entry(config, repository) if helper is None else await helper.login()

    async def instead_of(
        self, refused: Login | None, repository: str, failure: UpstreamDenied | None = None
    ) -> Login | None:
        helper = self._asked(await self._config.get(), repository)
        if helper is not None:
            return await helper.instead_of(refused)
        fresh = await self.login(repository)
        return None if fresh == refused else fresh

    async def aclose(self) -> None:
        for helper in self._helpers.values():
            await helper.aclose()

    def _asked(self, config: _Config, repository: str) -> KeptLogin | None:
        """The helper that knows, None where an entry does, or nobody."""
        own = next((name for host, name in config.helpers.items() if _same_host(host, self._endpoint)), None)
        name = own or (None if self._entry(config, repository) else config.store)
        if name is None:
            return None
        if name not in self._helpers:
            self._helpers[name] = self._helper(name)
        return self._helpers[name]

    def _entry(self, config: _Config, repository: str) -> Login | None:
        found = [entry for entry in config.entries if entry.covers(self._endpoint, repository)]
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


def _docker_config(path: Path) -> _Config:
    try:
        fields = json.loads(path.read_bytes())
    except (ValueError, RecursionError):
        raise ValueError("it is not JSON") from None
    auths = fields.get("auths") or {} if isinstance(fields, dict) else None
    helpers = fields.get("credHelpers") or {} if isinstance(fields, dict) else None
    if not isinstance(auths, dict) or not isinstance(helpers, dict):
        raise ValueError("it has no mapping `auths` or `credHelpers`")
    store = fields.get("credsStore") or None
    return _Config(
        tuple(_entries(auths)),
        {_host_and_path(key)[0]: parse_helper(name) for key, name in helpers.items()},
        None if store is None else parse_helper(store),
    )


def _entries(auths: Mapping[str, Any]) -> Iterator[_Entry]:
    for key, entry in auths.items():
        login = _login(entry) if isinstance(entry, dict) else None
        if login is not None:
            yield _Entry(*_host_and_path(key), login)


def _host_and_path(key: str) -> tuple[str, str]:
    """Host and path of a key, as docker and podman write them; docker's API version is no path."""
    host, _, path = re.sub(r"^https?://", "", key.lower()).partition("/")
    path = path.strip("/")
    return host, "" if path in _LEGACY_PATHS else path


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
