"""An upstream: its endpoints, the credentials for them, and for how long its tags may be believed."""

import dataclasses
import re
from typing import Annotated, Literal, Self

from pydantic import BeforeValidator, Field, PrivateAttr, SecretStr, field_validator, model_validator

from mirror import oci
from mirror.config import hosts, known
from mirror.config.hosts import EndpointUrl, Host
from mirror.config.section import Section
from mirror.config.values import Duration, File, Kind, Switch, Whole, absent_is_empty, shown
from mirror.errors import NameInvalid
from mirror.freshness import Policy

_GLOB = re.compile(r"[a-z0-9._*-]+(?:/[a-z0-9._*-]+)*")
_CONTROL = re.compile(r"[\x00-\x1f\x7f]")
_HELPER = re.compile(r"[a-z0-9._-]{1,64}")


def parse_glob(value: object) -> str:
    """A pattern of repository names: ``*`` stands for any part of one component, ``**`` for any components."""
    if not isinstance(value, str) or not _GLOB.fullmatch(value):
        raise ValueError(f"must be a pattern of repository names such as team-a/** or */proxy, not {shown(value)}")
    return value


def parse_prefix(value: object) -> str:
    """A path in front of every repository, with the slash at its end."""
    try:
        return f"{oci.parse_name(value.removesuffix('/') if isinstance(value, str) else '')}/"
    except NameInvalid:
        raise ValueError(
            f"must be the beginning of a repository's name such as ghcr-proxy/, not {shown(value)}"
        ) from None


def parse_helper(value: object) -> str:
    """What follows ``docker-credential-`` in the name of a program; never a path."""
    if not isinstance(value, str) or not _HELPER.fullmatch(value):
        raise ValueError(
            "must be the end of a program's name, such as ecr-login for docker-credential-ecr-login, not "
            f"{shown(value)}"
        )
    return value


Glob = Annotated[str, Kind("pattern"), BeforeValidator(parse_glob)]
Prefix = Annotated[str, Kind("path"), BeforeValidator(parse_prefix)]
Helper = Annotated[str, Kind("name"), BeforeValidator(parse_helper)]


_SOURCES = ("password", "password_file", "docker_config", "helper")


class Credentials(Section):
    """Who the mirror is for a registry: a user and one source of the password, or who else knows both."""

    username: str | None = Field(None, description="The user, together with `password` or `password_file`.")
    password: SecretStr | None = Field(None, description="The password itself. `password_file` keeps it out of here.")
    password_file: File | None = Field(
        None, description="A file that holds the password, with or without a line break at its end."
    )
    docker_config: File | None = Field(
        None,
        description="A docker `config.json`, such as a Kubernetes pull secret, that has an entry for the endpoint, or "
        "names a helper that does (`credHelpers`, `credsStore`).",
    )
    helper: Helper | None = Field(
        None,
        description="A docker credential helper: `ecr-login` runs `docker-credential-ecr-login`, which must be on "
        "`PATH`.",
    )

    @field_validator("username", "password")
    @classmethod
    def _can_be_sent(cls, value: str | SecretStr | None) -> str | SecretStr | None:
        """Source: RFC 7617 section 2."""
        if value is None:
            return value
        text = value.get_secret_value() if isinstance(value, SecretStr) else value
        if not text:
            raise ValueError("must not be empty; for anonymous access leave credentials out")
        if _CONTROL.search(text):
            raise ValueError("must not hold a line break or another control character")
        if isinstance(value, str) and ":" in value:
            raise ValueError("must not hold a colon, which ends the user name in Basic authentication")
        return value

    @model_validator(mode="after")
    def _from_one_source(self) -> Self:
        sources = [name for name in _SOURCES if getattr(self, name) is not None]
        if len(sources) != 1:
            found = f"has {' and '.join(sources)}" if sources else "has none of them"
            raise ValueError(f"must have exactly one of {', '.join(_SOURCES[:-1])} and {_SOURCES[-1]}, but {found}")
        if (self.username is None) != (sources[0] in ("docker_config", "helper")):
            raise ValueError(
                f"must have a username beside {sources[0]}"
                if self.username is None
                else f"must not have a username beside {sources[0]}, which names the user itself"
            )
        return self


class EndpointSettings(Section):
    """One address of an upstream."""

    url: EndpointUrl = Field(description="`scheme://HOST[:PORT]`. Trusted to be anywhere, private networks too.")
    auth_hosts: Annotated[tuple[Host, ...], BeforeValidator(absent_is_empty)] = Field(
        (),
        description="Other hosts that may see this endpoint's credentials: those of its token service. "
        "Known ones, such as auth.docker.io, need not be written.",
    )
    redirect_hosts: Annotated[tuple[Host, ...], BeforeValidator(absent_is_empty)] = Field(
        (),
        description="Private hosts to which this endpoint may redirect downloads; they never see a credential. "
        "Public hosts need not be written.",
    )
    credentials: Credentials | None = Field(None, description="This endpoint's own credentials.")
    repository_prefix: Prefix | None = Field(
        None,
        description="What stands in front of every repository there: a proxy project of Harbor, a repository of "
        "Artifactory, a pull-through rule of ECR, such as `ghcr-proxy/`.",
    )
    ca_file: File | None = Field(
        None,
        description="PEM certificates of authorities that are trusted beside the usual ones: for this endpoint, its "
        "`auth_hosts` and its `redirect_hosts`. Read again when it changes, as the next two are.",
    )
    client_certificate: File | None = Field(
        None,
        description="The certificate (PEM, followed by those that lead to its root) that this endpoint is shown, and "
        "no other host.",
    )
    client_key: File | None = Field(None, description="Its private key, without a passphrase.")

    @model_validator(mode="before")
    @classmethod
    def _url_alone(cls, value: object) -> object:
        return {"url": value} if isinstance(value, str) else value

    @field_validator("auth_hosts", mode="after")
    @classmethod
    def _once(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        return tuple(dict.fromkeys(value))

    @model_validator(mode="after")
    def _certificate_with_key(self) -> Self:
        if (self.client_certificate is None) != (self.client_key is None):
            missing = "client_certificate" if self.client_certificate is None else "client_key"
            raise ValueError(f"must have both client_certificate and client_key, or none; {missing} is missing")
        if self.client_certificate is not None and not self.url.startswith("https://"):
            raise ValueError("must not have a client_certificate, which is never shown without TLS: the url is http")
        return self

    @property
    def host(self) -> str:
        """The host alone, without brackets."""
        return self._split()[0]

    @property
    def is_plain(self) -> bool:
        """Whether what is sent here can be read on the way."""
        return self.url.startswith("http://") and not hosts.is_loopback(self.host)

    def _split(self) -> tuple[str, int | None]:
        found = hosts.split(self.url.partition("://")[2])
        assert found is not None, "the URL was parsed when it was set"
        return found

    def with_known_hosts(self) -> Self:
        """Itself, with the token hosts that are known of its registry."""
        return self.model_copy(
            update={"auth_hosts": tuple(dict.fromkeys((*self.auth_hosts, *known.auth_hosts(self.host))))}
        )


class Defaults(Section):
    """For how long tags are believed, unless their upstream says otherwise."""

    fresh_for: Duration = Field(10.0, description="How long a tag is served without asking upstream.")
    stale_while_revalidate: Duration = Field(
        0.0, description="How long after that it is served at once while upstream is asked behind the client's back."
    )
    revalidate_for: Duration = Field(
        1.0, description="How long a held tag waits for upstream's word before it is served as stale."
    )
    stale_if_error: Duration = Field(
        30 * 86400.0,
        description="Up to which age a tag is served while upstream is down, too slow, or answers 5xx or 429.",
    )
    stale_if_denied: Duration = Field(
        0.0, description="Up to which age a tag is served although upstream refuses the mirror's credentials."
    )
    negative_for: Duration = Field(10.0, description="How long it is remembered that upstream does not have something.")
    hold_for: Duration = Field(
        25.0,
        gt=0,
        description="How long a request for content that is not held waits, through retries, before it fails. "
        "Istio agents give a pull 30s.",
    )
    keep_deleted_tags: Switch = Field(False, description="Whether a tag is still served once upstream has deleted it.")


class UpstreamSettings(Section):
    """A registry that may be pulled from, under the name of its key."""

    endpoints: Annotated[
        tuple[Annotated[EndpointSettings, Kind("URL or mapping")], ...], BeforeValidator(absent_is_empty)
    ] = Field(
        (),
        description="URLs, or mappings with a `url`, tried in this order; the last is the origin. Without them the "
        "endpoint follows from the name: `ghcr.io` is at `https://ghcr.io`.",
    )
    credentials: Credentials | None = Field(None, description="The credentials for the last endpoint.")
    offline: Switch = Field(False, description="Never ask this upstream; what is held of it is always fresh.")
    allow: tuple[Glob, ...] = Field(
        ("**",),
        description="The repositories that may be pulled: `*` stands for any part of one component of the name, `**` "
        "for any components.",
    )
    max_requests: Whole = Field(
        64,
        ge=1,
        le=100_000,
        description="Requests, of each worker, that may be under way at this upstream at once, those of pushes too; "
        "the rest waits in a queue that is fair to all repositories, what is not held before what is asked about "
        "again.",
    )
    hedge_after: Duration | None = Field(
        None,
        gt=0,
        description="Ask the next endpoint too when the first has not answered after so long; the first good answer "
        "counts. Off without it: it costs upstreams more requests.",
    )
    push: Literal["deny", "through"] = Field(
        "deny",
        description="`through`: what is pushed to a repository of this upstream, by users whom `auth` lets push there, "
        "is pushed on to its last endpoint, with the credentials that the mirror has for it. `deny`: pushes are "
        "refused.",
    )
    fresh_for: Duration | None = Field(None, description="As in `defaults`, for this upstream.")
    stale_while_revalidate: Duration | None = Field(None, description="As in `defaults`, for this upstream.")
    revalidate_for: Duration | None = Field(None, description="As in `defaults`, for this upstream.")
    stale_if_error: Duration | None = Field(None, description="As in `defaults`, for this upstream.")
    stale_if_denied: Duration | None = Field(None, description="As in `defaults`, for this upstream.")
    negative_for: Duration | None = Field(None, description="As in `defaults`, for this upstream.")
    hold_for: Duration | None = Field(None, gt=0, description="As in `defaults`, for this upstream.")
    keep_deleted_tags: Switch | None = Field(None, description="As in `defaults`, for this upstream.")

    _name: str = PrivateAttr("")

    @field_validator("allow", mode="after")
    @classmethod
    def _allows_something(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        if not value:
            raise ValueError("must not be empty, which would allow nothing; without the key everything is allowed")
        return value

    @model_validator(mode="after")
    def _credentials_once(self) -> Self:
        own = self.endpoints[-1].credentials if self.endpoints else None
        if self.credentials is not None and own is not None and own != self.credentials:
            raise ValueError("must not have credentials both for the upstream and for its last endpoint; remove one")
        return self

    @property
    def name(self) -> str:
        """The key under which it stands; empty until it is part of `Settings`."""
        return self._name

    @property
    def policy(self) -> Policy:
        """Its own durations, and the defaults for the others."""
        own = {field.name: getattr(self, field.name) for field in dataclasses.fields(Policy)}
        return Policy(**{name: value for name, value in own.items() if value is not None})

    @property
    def library(self) -> bool:
        """Whether a repository of one component is short for ``library/<it>``."""
        return known.has_library(self._name, self.endpoints[-1].host if self.endpoints else "")

    @property
    def hosts(self) -> tuple[str, ...]:
        """The names by which ``Host`` and ``ns`` may mean it: its own, and known others."""
        return (self._name, *known.aliases(self._name))

    def effective(self, name: str, defaults: Defaults) -> Self:
        """What holds for the upstream ``name``: with its endpoints, their credentials and token hosts, and defaults."""
        url = known.endpoint(name)
        endpoints = self.endpoints or ((EndpointSettings(url=url),) if url else ())
        found = [endpoint.with_known_hosts() for endpoint in endpoints]
        if found and self.credentials is not None:
            found[-1] = found[-1].model_copy(update={"credentials": self.credentials})
        inherited = {key: value for key, value in defaults if getattr(self, key) is None}
        whole = self.model_copy(update={"endpoints": tuple(found), **inherited})
        whole._name = name
        return whole
