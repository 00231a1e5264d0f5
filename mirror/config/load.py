"""From a file, the environment and the command line to settings: the later wins, and all faults are told at once."""

from collections.abc import Mapping
from pathlib import Path

from pydantic import ValidationError

from mirror.config import document as documents
from mirror.config import environment, problems
from mirror.config.document import Document
from mirror.config.hosted import LACKING
from mirror.config.hosts import DEFAULT_LISTEN, is_loopback, split
from mirror.config.known import PUBLIC
from mirror.config.models import Settings
from mirror.config.problems import ConfigurationError, Origin

_NO_FILE = "the settings"


def load(
    path: Path | None,
    environ: Mapping[str, str],
    overrides: Mapping[str, object],
    warnings: list[str] | None = None,
    *,
    alone: bool = False,
) -> Settings:
    """The settings of the file at ``path``, under those of ``environ``, under ``overrides``.

    ``overrides`` maps top-level keys to what an option of the command line says; None is an option that was not given.
    ``warnings`` receives a line for each thing that is odd, but not wrong. ``alone``: without a file, and where nothing
    names upstreams, a mirror for this machine alone has the public registries. Raises `ConfigurationError`.
    """
    document = documents.read(path) if path is not None else Document({}, {(): Origin(_NO_FILE)})
    odd = environment.apply(environ, document)
    for key, value in overrides.items():
        if value is not None:
            document.put((key,), value, Origin(f"--{key.replace('_', '-')}"))
    if alone and path is None and document.values.get("upstreams") is None and _is_for_this_machine(document):
        document.put(("upstreams",), dict.fromkeys(PUBLIC), Origin(_NO_FILE))
    settings = _validated(document)
    if warnings is not None:
        warnings += [*odd, *_oddities(settings)]
    return settings


def _is_for_this_machine(document: Document) -> bool:
    located = split(str(document.values.get("listen") or DEFAULT_LISTEN))
    return located is not None and is_loopback(located[0])


def _validated(document: Document) -> Settings:
    found = list(document.problems)
    try:
        settings = Settings.model_validate(document.values)
    except ValidationError as error:
        found += problems.of(error, document.origins)
    if found:  # raised here, where no ValidationError is its context: that one knows the values, secrets too
        raise ConfigurationError(found)
    return settings


def _oddities(settings: Settings) -> list[str]:
    """What works, but was perhaps not meant."""
    auth, found = settings.auth, []
    asks_upstream = auth.mode == "upstream"
    if (auth.file is not None or asks_upstream) and settings.tls.certificate is None and not is_loopback(settings.host):
        found.append(
            f"auth: clients send passwords to {settings.listen} in plain text; set tls.certificate, unless something "
            "in front of this mirror has TLS"
        )
    admin = settings.admin
    if admin.token_file is not None and settings.tls.certificate is None and not is_loopback(settings.admin_host):
        found.append(
            f"admin: the token travels to {admin.listen or settings.listen} in plain text; set tls.certificate, unless "
            "something in front of this mirror has TLS, or admin.listen to a loopback address"
        )
    for name, upstream in settings.upstreams.items():
        secret = [endpoint for endpoint in upstream.endpoints if endpoint.credentials is not None]
        found += [
            f"upstreams.{name}: credentials go to {endpoint.url} in plain text; use https"
            for endpoint in secret
            if endpoint.is_plain
        ]
        if secret and settings.auth.mode == "none" and not is_loopback(settings.host):
            found.append(
                f"upstreams.{name}: everyone who reaches this mirror may read whatever its credentials may read; "
                "auth.mode: htpasswd keeps that to the users of auth.file, auth.mode: upstream to those whom the "
                "registry itself lets pull"
            )
        if upstream.offline and asks_upstream:
            found.append(
                f"upstreams.{name}: it is offline, and with auth.mode: upstream only it can say who may pull: what it "
                "said last stands for auth.stale_verdict_for, and after that nobody may"
            )
        has_own = bool(upstream.endpoints) and upstream.endpoints[-1].credentials is not None
        if upstream.push == "through" and not asks_upstream and not has_own:
            found.append(f"upstreams.{name}: nothing can be pushed through without credentials for its last endpoint")
    if settings.cannot_host:
        found.append(
            f"hosted: nothing can be pushed to {settings.hosted.prefix}/: {LACKING}; set them, or hosted.enabled: false"
        )
    return found
