"""What is wrong between keys, seen before they are read one by one, so that both kinds of errors are told at once."""

import contextlib
from collections.abc import Callable, Iterable, Mapping
from typing import TypeVar

from pydantic import ValidationError
from pydantic_core import ErrorDetails, InitErrorDetails, PydanticCustomError

from mirror import oci
from mirror.config import hosts, known
from mirror.config.hosted import HostedSettings
from mirror.config.prewarm import fault_of
from mirror.config.redis import SQLITE
from mirror.config.values import parse_switch, shown
from mirror.errors import NameInvalid

Location = tuple[str | int, ...]
Model = TypeVar("Model")

_HOSTED: str = HostedSettings.model_fields["prefix"].default


def contradictions(settings: object) -> list[tuple[Location, str]]:
    """The location and the words for each contradiction in ``settings``, which may be wrong in any other way too."""
    if not isinstance(settings, Mapping):
        return []
    return [
        *_between_replicas(settings),
        *_between_upstreams(settings),
        *_between_ports(settings),
        *_between_rights(settings),
        *_between_references(settings),
    ]


def _between_replicas(settings: Mapping[object, object]) -> Iterable[tuple[Location, str]]:
    advertise, url = _key(settings.get("cluster"), "advertise"), _key(settings.get("metadata"), "url")
    if advertise is not None and url in (None, SQLITE):
        yield (
            ("cluster", "advertise"),
            "needs metadata.url, such as `metadata: {url: redis://redis:6379}`: replicas meet through Redis",
        )


def _between_ports(settings: Mapping[object, object]) -> Iterable[tuple[Location, str]]:
    listen, admin = settings.get("listen", hosts.DEFAULT_LISTEN), _key(settings.get("admin"), "listen")
    located = hosts.split(admin) if isinstance(admin, str) else None
    same = isinstance(listen, str) and located is not None and located == hosts.split(listen)
    if same and located is not None and located[1]:
        yield ("admin", "listen"), "must be another address than `listen`; leave it out to have both at one port"


def _between_rights(settings: Mapping[object, object]) -> Iterable[tuple[Location, str]]:
    auth = settings.get("auth")
    if _key(auth, "mode") == "upstream" and not _key(settings.get("tls"), "certificate") and not _may_be_plain(auth):
        yield (
            ("auth", "mode"),
            "needs tls.certificate, for clients send the passwords that they have for registries; where something in "
            "front of the mirror has TLS, or the network is trusted, set auth.allow_plain_http: true",
        )
    if _key(auth, "file") is not None:
        return
    if _key(auth, "rules"):
        yield ("auth", "rules"), "needs auth.file beside it, an htpasswd file: rules are for its users"
    if _key(auth, "mode") == "htpasswd":
        yield ("auth", "mode"), "needs auth.file beside it, an htpasswd file with the users who may read"


def _between_upstreams(settings: Mapping[object, object]) -> list[tuple[Location, str]]:
    upstreams = settings.get("upstreams")
    if upstreams is None or upstreams == {}:
        return [
            (
                ("upstreams",),
                "must name at least one registry to pull from, such as `upstreams: {ghcr.io: {}}`; "
                "without one there is nothing to mirror",
            )
        ]
    if not isinstance(upstreams, Mapping):
        return []
    found: list[tuple[Location, str]]
    found = [(("upstreams", name), words) for name, entry in upstreams.items() for words in _name_faults(name, entry)]
    prefix = _key(settings.get("hosted"), "prefix") or _HOSTED
    if isinstance(prefix, str) and prefix in upstreams:
        words = f"must not have the name under which pushed content is hosted, {shown(prefix)}: rename it, or set "
        found.append((("upstreams", prefix), f"{words}hosted.prefix to another"))
    default = settings.get("default_upstream")
    if isinstance(default, str) and default not in upstreams:
        words = f"must be one of the upstreams, {', '.join(map(str, upstreams))}, not {shown(default)}"
        found.append((("default_upstream",), words))
    return found


def _between_references(settings: Mapping[object, object]) -> Iterable[tuple[Location, str]]:
    """References are to upstreams that there are; those that are no text are told of as such."""
    references, upstreams = _key(settings.get("prewarm"), "references"), settings.get("upstreams")
    if not isinstance(references, list | tuple) or not isinstance(upstreams, Mapping) or not upstreams:
        return
    names, default = settings.get("names"), settings.get("default_upstream")
    own = [str(name).lower() for name in names] if isinstance(names, list | tuple) else []
    known_here = [str(name) for name in upstreams]
    hosted = settings.get("hosted")
    if _key(hosted, "enabled") in (None, True):
        known_here.append(str(_key(hosted, "prefix") or _HOSTED))
    addresses = {address for name, entry in upstreams.items() for address in _addresses(str(name), entry)}
    for number, text in enumerate(references):
        if isinstance(text, str):
            fault = fault_of(text, own, known_here, addresses, default if isinstance(default, str) else None)
            if fault is not None:
                yield ("prewarm", "references", number), fault


def _addresses(name: str, entry: object) -> Iterable[str]:
    """How clients call a registry, in lower case: by its name, known aliases, and by where it is."""
    yield name
    yield from known.aliases(name)
    endpoints = _key(entry, "endpoints")
    last = endpoints[-1] if isinstance(endpoints, list | tuple) and endpoints else known.endpoint(name)
    if _key(last, "repository_prefix") is None:
        url = last if isinstance(last, str) else _key(last, "url")
        if isinstance(url, str):
            with contextlib.suppress(ValueError):
                yield hosts.parse_endpoint(url).partition("://")[2]


def _name_faults(name: object, entry: object) -> Iterable[str]:
    """An upstream's name is the first component of a path; its endpoint follows from it, or is written down."""
    if not isinstance(name, str) or "/" in name or not _is_component(name):
        located = hosts.split(name) if isinstance(name, str) else None
        if located is not None and located[1] is not None:
            yield (
                "the name of an upstream cannot hold a port: choose another, such as "
                f"{located[0].partition('.')[0]}, with `endpoints: [https://{name}]`"
            )
        else:
            yield (
                "the name of an upstream is the first component of a path: lower-case letters and digits, with single "
                ". _ __ or - between them"
            )
    elif known.endpoint(name) is None and not _key(entry, "endpoints"):
        yield "must have endpoints, such as `endpoints: [https://registry.example.com]`: the name is no host name"


def _is_component(name: str) -> bool:
    try:
        oci.parse_name(name)
    except NameInvalid:
        return False
    return True


def _may_be_plain(auth: object) -> bool:
    """Whether plain HTTP is allowed. Of a value that can be neither, no more is said than that."""
    value = _key(auth, "allow_plain_http")
    try:
        return value is not None and parse_switch(value)
    except ValueError:
        return True


def _key(section: object, name: str) -> object:
    """The value of a key that may stand in a mapping, or in a section that was read already."""
    return section.get(name) if isinstance(section, Mapping) else getattr(section, name, None)


def with_contradictions(found: list[tuple[Location, str]], value: object, handler: Callable[[object], Model]) -> Model:
    """What ``handler`` makes of ``value``; or one `ValidationError` of all that it finds and of ``found``."""
    details = [_detail(location, words) for location, words in found]
    try:
        model = handler(value)
    except ValidationError as error:
        if not details:
            raise
        details = [*map(_again, error.errors(include_url=False, include_input=False)), *details]
    else:
        if not details:
            return model
    raise ValidationError.from_exception_data("Settings", details, hide_input=True)


def _detail(location: Location, words: str) -> InitErrorDetails:
    # A custom error's words are a template with {…} for its context.
    return InitErrorDetails(
        type=PydanticCustomError("contradiction", "{words}", {"words": words}), loc=location, input=None
    )


def _again(error: ErrorDetails) -> InitErrorDetails:
    return InitErrorDetails(type=error["type"], loc=error["loc"], input=None, ctx=error.get("ctx", {}))
