"""The settings: every key, with its default and its help in one place. Frozen; can be pickled, secrets included."""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import BeforeValidator, Field, ModelWrapValidatorHandler, ValidationInfo, field_validator, model_validator

from mirror.config.cache import CacheSettings
from mirror.config.contradictions import contradictions, with_contradictions
from mirror.config.hosted import HostedSettings
from mirror.config.hosts import DEFAULT_LISTEN, Host, Listen, split
from mirror.config.prewarm import PrewarmSettings
from mirror.config.redis import SQLITE, Advertised, RedisPlace, StoreUrl, parse_place
from mirror.config.rights import AuthSettings
from mirror.config.section import Section
from mirror.config.tracing import TracingSettings
from mirror.config.upstreams import Defaults, UpstreamSettings
from mirror.config.values import Duration, File, Kind, Size, Whole, absent_is_empty, not_switched_on, shown

_SUFFIX = re.compile(r"[A-Za-z0-9._-]{1,64}", re.ASCII)


class MetadataSettings(Section):
    """Where tags, links and negative answers are kept."""

    url: StoreUrl = Field(
        SQLITE,
        description="`sqlite`: a database inside `data_dir`, for one replica. Replicas share a Redis, and each keeps "
        "what it learnt in its own database too: `redis://HOST[:PORT][/DB]`, "
        "`redis+sentinel://HOST[:PORT],…/SERVICE[/DB]` or `redis+cluster://HOST[:PORT],…`; `rediss` for TLS.",
    )
    username: str | None = Field(None, description="The ACL user at the Redis, if it is not the default one.")
    username_file: File | None = Field(
        None, description="A file that holds the user, instead of `username`. Read again when it changes."
    )
    password_file: File | None = Field(
        None, description="A file that holds the password for the Redis. Read again when it changes."
    )
    ca_file: File | None = Field(
        None, description="With TLS: PEM certificates that sign the Redis's, in place of the system's."
    )
    client_certificate: File | None = Field(
        None, description="With TLS: the PEM certificate that the mirror shows to the Redis."
    )
    client_key: File | None = Field(None, description="Its private key, without a passphrase.")

    @field_validator("username")
    @classmethod
    def _is_a_user(cls, value: str | None) -> str | None:
        if value is not None and (not value or any(sign.isspace() for sign in value)):
            raise ValueError("must be the name of a user, without blanks")
        return value

    @model_validator(mode="after")
    def _whole(self) -> Self:
        if self.username is not None and self.username_file is not None:
            raise ValueError("must not have both username and username_file; remove one")
        if self.password_file is None and (self.username is not None or self.username_file is not None):
            raise ValueError("must have a password_file beside the user")
        if (self.client_certificate is None) != (self.client_key is None):
            missing = "client_certificate" if self.client_certificate is None else "client_key"
            raise ValueError(f"must have both client_certificate and client_key, or none of them; {missing} is missing")
        if not self.shared and self.password_file is not None:
            raise ValueError(
                "must have the URL of a Redis beside a password_file; with url sqlite there is no password"
            )
        if not self._tls and (self.ca_file is not None or self.client_certificate is not None):
            raise ValueError("must have a url that begins with rediss beside ca_file or client_certificate")
        return self

    @property
    def _tls(self) -> bool:
        return self.place is not None and self.place.tls

    @property
    def place(self) -> RedisPlace | None:
        """Where the Redis is; None without one."""
        return parse_place(self.url)

    @property
    def shared(self) -> bool:
        """Whether replicas share a Redis."""
        return self.url != SQLITE


class ClusterSettings(Section):
    """How replicas reach one another. They meet in the Redis of `metadata.url`."""

    advertise: Advertised | None = Field(
        None,
        description="The URL at which other replicas reach this one, such as `http://10.0.0.5:8080`: its own address, "
        "not that of a balancer. Without it nothing is fetched from this replica.",
    )
    secret_file: File | None = Field(
        None, description="A file with the secret that all replicas share, by which they know one another."
    )
    ca_file: File | None = Field(
        None,
        description="PEM file with the authorities that sign the replicas' own certificates, where `advertise` is an "
        "https URL. They are trusted beside the usual ones.",
    )

    @model_validator(mode="after")
    def _both_or_none(self) -> Self:
        if (self.advertise is None) != (self.secret_file is None):
            missing = "advertise" if self.advertise is None else "secret_file"
            raise ValueError(f"must have both advertise and secret_file, or none of them; {missing} is missing")
        return self


class AdminSettings(Section):
    """Who may use the admin API, `/api/v1`."""

    token_file: File | None = Field(
        None,
        description="A file with the token that `/api/v1` asks for, 16 characters or more. Read again when it changes. "
        "Without one, `/api/v1` answers only while it listens on a loopback address, and only requests whose `Host` is "
        "one; behind a proxy on the same machine, set one.",
    )
    listen: Listen | None = Field(
        None,
        description="A port of their own for the dashboard, `/api/v1` and `/metrics`, which are then nowhere else; all "
        "else stays at the registry's, and `/healthz` and `/readyz` answer at both. TLS is for both. Without it they "
        "are at `listen`.",
    )


class WasmSettings(Section):
    """What is special about Wasm modules."""

    max_module_size: Size = Field(
        256 << 20,
        gt=0,
        description="Up to this size a tar+gzip layer is sent only once it is verified whole; larger ones stream, "
        "and are not looked into. Nor are larger modules given out at `/modules/`. 256MiB is what agents accept.",
    )
    check: Annotated[Literal["off", "warn", "enforce"], BeforeValidator(not_switched_on)] = Field(
        "warn",
        description="What is pushed is held against what agents and Envoy take. `warn`: a push that they would refuse "
        "is taken in, with a `Warning` header that says why, and a line in the log. `enforce`: it is refused, with the "
        "same words.",
    )
    repackage: Annotated[Literal["off", "agents"], BeforeValidator(not_switched_on)] = Field(
        "off",
        description="`agents`: where agents would refuse an artifact, and it holds one good module, the same module is "
        "served in a layout that they take, under the artifact's tag with `repackage_suffix`. The tag itself is left "
        "as it is.",
    )
    repackage_suffix: str = Field(
        "-istio",
        description="What stands behind an artifact's tag to ask for that: `1.2.0-istio`. A tag that the registry has "
        "wins over one that is made.",
    )

    @field_validator("repackage_suffix")
    @classmethod
    def _is_the_end_of_a_tag(cls, value: str) -> str:
        if not _SUFFIX.fullmatch(value):
            raise ValueError(
                f"must be the end of a tag: 1 to 64 letters, digits, dots, dashes and underscores, not {shown(value)}"
            )
        return value


class ScrubSettings(Section):
    """Reading the disk again, to find bytes that have rotted on it."""

    every: Duration = Field(
        7 * 86400.0,
        description="How often each blob on the disk is read and held against what was noted when it came. What has "
        "rotted is taken out of service, and fetched again. 0: only when somebody asks for it.",
    )
    rate: Size = Field(20 << 20, ge=1 << 10, description="How many bytes a second are read for it at most.")


class TlsSettings(Section):
    """Serving HTTPS. Both files are PEM."""

    certificate: File | None = Field(None, description="The certificate, followed by those that lead to its root.")
    key: File | None = Field(None, description="Its private key, without a passphrase.")

    @model_validator(mode="after")
    def _both_or_none(self) -> Self:
        if (self.certificate is None) != (self.key is None):
            missing = "certificate" if self.certificate is None else "key"
            raise ValueError(f"must have both certificate and key, or none of them; {missing} is missing")
        return self


class LogSettings(Section):
    """What is written to standard error, and how."""

    format: Literal["text", "json"] = Field("text", description="Lines for people, or a JSON object a line.")
    level: Literal["debug", "info", "warning", "error"] = Field("info", description="The least that is worth a line.")
    access: Literal["none", "all"] = Field("none", description="Whether every request gets a line.")


class Settings(Section):
    """All settings of one mirror."""

    listen: Listen = Field(DEFAULT_LISTEN, description="The address to serve at. Port 0 takes any free port.")
    names: Annotated[tuple[Host, ...], BeforeValidator(absent_is_empty)] = Field(
        (),
        description="This mirror's own hosts, as agents and WasmPlugins write them. They never name an upstream, "
        "whatever `Host` or `ns` says.",
    )
    drain_for: Duration = Field(
        5.0, description="After a SIGTERM: how long connections are still accepted while `/readyz` says 503."
    )
    stop_within: Duration = Field(35.0, description="After that: how long running requests may take to finish.")
    data_dir: File = Field(
        Path("data"), description="The directory for blobs, downloads under way and the database. Made when absent."
    )
    workers: Whole = Field(1, ge=1, le=256, description="Processes that share the port and the disk.")
    default_upstream: str | None = Field(
        None,
        description="The upstream for clients that send neither a prefix nor `ns`, such as Docker's "
        "`registry-mirrors`. It must be one of `upstreams`.",
    )
    metadata: MetadataSettings = Field(
        MetadataSettings(), description="Where tags, links and negative answers are kept."
    )
    cluster: ClusterSettings = Field(ClusterSettings(), description="How replicas reach one another.")
    defaults: Defaults = Field(Defaults(), description="For how long tags are believed.")
    upstreams: Annotated[Mapping[str, UpstreamSettings], Kind("mapping of names to mappings")] = Field(
        default_factory=dict,
        description="The registries that may be pulled from, by name; at least one. What is not named here is never "
        "contacted. A registry with a port, or with several endpoints, gets a name of your choice and `endpoints`.",
    )
    cache: CacheSettings = Field(CacheSettings(), description="How much of the disk the mirror may take.")
    hosted: HostedSettings = Field(HostedSettings(), description="What may be pushed here.")
    auth: AuthSettings = Field(AuthSettings(), description="Who may read, and who may push.")
    admin: AdminSettings = Field(AdminSettings(), description="Who may use the admin API, `/api/v1`.")
    wasm: WasmSettings = Field(WasmSettings(), description="What is special about Wasm modules.")
    prewarm: PrewarmSettings = Field(PrewarmSettings(), description="What is pulled before anybody asks for it.")
    scrub: ScrubSettings = Field(
        ScrubSettings(), description="Reading the disk again, to find bytes that have rotted on it."
    )
    tls: TlsSettings = Field(TlsSettings(), description="Serving HTTPS.")
    log: LogSettings = Field(LogSettings(), description="What is written to standard error.")
    tracing: TracingSettings = Field(TracingSettings(), description="Where traces of requests are sent.")

    @model_validator(mode="wrap")
    @classmethod
    def _consistent(cls, value: object, handler: ModelWrapValidatorHandler[Self]) -> Self:
        return with_contradictions(contradictions(value), value, handler)

    @field_validator("upstreams", mode="before")
    @classmethod
    def _nothing_is_none(cls, value: object) -> object:
        return {} if value is None else value

    @field_validator("upstreams", mode="after")
    @classmethod
    def _effective(cls, value: Mapping[str, UpstreamSettings], info: ValidationInfo) -> Mapping[str, UpstreamSettings]:
        defaults = info.data.get("defaults", Defaults())
        return {name: upstream.effective(name, defaults) for name, upstream in value.items()}

    @property
    def host(self) -> str:
        """The host of `listen`, without the brackets of IPv6."""
        return self._split()[0]

    @property
    def admin_host(self) -> str:
        """The host on which the admin API is reached, as `host` is written."""
        found = split(self.admin.listen or self.listen)
        assert found is not None, "it was parsed when it was set"
        return found[0]

    @property
    def port(self) -> int:
        """The port of `listen`; 0 is any free one."""
        return self._split()[1] or 0

    def _split(self) -> tuple[str, int | None]:
        found = split(self.listen)
        assert found is not None, "it was parsed when it was set"
        return found

    @property
    def cannot_host(self) -> bool:
        """Whether replicas that are to host together have no address and secret, by which they ask one another."""
        return self.hosted.enabled and self.metadata.shared and self.cluster.secret_file is None

    def upstream_at(self, host: str) -> str | None:
        """The name of the upstream that a client means by ``host`` (in ``Host`` without the port, or in ``ns``)."""
        host = host.lower()
        if host in self.upstreams:
            return host
        return next((name for name, upstream in self.upstreams.items() if host in upstream.hosts), None)
