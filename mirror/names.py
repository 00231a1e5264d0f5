"""Which upstream and repository a request names: by path, by ``?ns=`` or by ``Host``.

Sources: OCI distribution specification, "Registry Proxying" (``ns``, ``OCI-Namespace``); containerd's registry hosts.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from mirror.config import Settings
from mirror.errors import NameInvalid, NameUnknown
from mirror.oci import Reference, parse_name, parse_reference

_SCHEME = "oci://"
_LONGEST = 1024  # characters of a text that may be a reference; a name has 255 at most, and so has a digest


@dataclass(frozen=True, slots=True)
class Place:
    """A repository at an upstream. ``by_namespace``: the request named the upstream by ``ns``.

    Of hosted content ``upstream`` is `hosted.prefix` of the settings, which no upstream is named as.
    """

    upstream: str
    repository: str
    by_namespace: bool = False


class Names:
    """The closed world: only configured upstreams have names, and what is hosted."""

    def __init__(self, settings: Settings) -> None:
        self._own = frozenset(name.lower() for name in settings.names)
        self._default = settings.default_upstream
        self._hosted = settings.hosted
        self._library = {name: upstream.library for name, upstream in settings.upstreams.items()}
        self._hosts: Mapping[str, str] = {
            host: name for name, upstream in settings.upstreams.items() for host in upstream.hosts
        }
        self._origins = _origins(settings)

    def place(self, name: str, *, ns: str | None, host: str) -> Place:
        """Where ``name`` (a parsed repository name) lies; raise `NameUnknown` when no upstream is configured for it.

        ``ns`` is the query parameter; a port in it is part of the registry's name. ``host`` is the ``Host`` header,
        whose port is that of this mirror.
        """
        if ns is not None and (named := self._hosts.get(ns.lower().removesuffix(":443"))) is not None:
            return self._in(named, name, by_namespace=True)
        if ns is not None and not self._is_own(ns):
            raise _unknown(ns)
        if not self._is_own(host) and (named := self._hosts.get(_without_port(host.lower()))) is not None:
            return self._in(named, name)
        first, slash, rest = name.partition("/")
        if first == self._hosted.prefix and not self._hosted.enabled:
            raise NameUnknown(
                f"nothing is hosted under {first}/: hosted.enabled is false in the mirror's settings",
                detail={"setting": "hosted.enabled"},
            )
        if first == self._hosted.prefix or first in self._library:
            if not slash:
                raise NameInvalid(f"{name!r} names an upstream only; append a repository, such as {name}/<repository>")
            return Place(first, rest) if first == self._hosted.prefix else self._in(first, rest)
        if self._default is not None:
            return self._in(self._default, name)
        raise _unknown(first)

    def of_text(self, text: str) -> Reference:
        """What an operator means by a reference: what an agent would use, with or without ``oci://``.

        The upstream comes first, by its name or by where it is; or one of this mirror's own names, and then the rest
        as the mirror would understand it. Raises `NameInvalid`, `TagInvalid`, `DigestInvalid` and `NameUnknown`.
        """
        if len(text) > _LONGEST:
            raise NameInvalid(f"{text[:80]!r}… is no reference: it has {len(text)} characters")
        if text[: len(_SCHEME)].lower() == _SCHEME:
            text = text[len(_SCHEME) :]
        first, slash, rest = text.partition("/")
        if slash and self._is_own(first) and (first not in self._library or self._begins(rest)):
            text = rest
            first, slash, rest = text.partition("/")
        if slash and not self._begins(text) and (named := self._at(first.lower())) is not None:
            text = f"{named}/{rest}"
        elif self._may_be_a_mirror(first) and not self._begins(text) and self._begins(rest):
            raise NameUnknown(
                f"no upstream {first[:80]!r} is configured; if that is this mirror, add it to `names` in its settings",
                detail={"upstream": first[:80], "setting": "names"},
            )
        parsed = parse_reference(text)
        place = self.place(parsed.name, ns=None, host="")
        return Reference(place.upstream, place.repository, parsed.tag, parsed.digest)

    def _may_be_a_mirror(self, first: str) -> bool:
        """Whether it looks like a host, and is no part of a repository's name."""
        return ":" in first or ("." in first and self._default is None)

    def _begins(self, text: str) -> bool:
        """Whether a reference begins with the name of an upstream, or with that of what is hosted."""
        first = text.partition("/")[0]
        return first in self._library or first == self._hosted.prefix

    def _at(self, host: str) -> str | None:
        """The upstream that is at ``host``, or that clients name so."""
        host = host.removesuffix(":443")
        return self._hosts.get(host) or self._origins.get(host)

    def upstream(self, *, ns: str | None, host: str) -> str | None:
        """The upstream that a request without a repository is for; None where it could be any, or none of them."""
        if ns is not None and (named := self._hosts.get(ns.lower().removesuffix(":443"))) is not None:
            return named
        if ns is not None and not self._is_own(ns):
            return None
        if not self._is_own(host) and (named := self._hosts.get(_without_port(host.lower()))) is not None:
            return named
        if self._default is not None:
            return self._default
        return next(iter(self._library)) if len(self._library) == 1 else None

    def _in(self, upstream: str, repository: str, *, by_namespace: bool = False) -> Place:
        if self._library[upstream] and "/" not in repository:
            repository = parse_name(f"library/{repository}")
        return Place(upstream, repository, by_namespace)

    def _is_own(self, host: str) -> bool:
        host = host.lower()
        return host in self._own or _without_port(host) in self._own


def _origins(settings: Settings) -> Mapping[str, str]:
    """Upstreams by the ``host[:port]`` of the registry that they mirror, where repositories have the same names there.

    Of two at one address, the first is meant.
    """
    found: dict[str, str] = {}
    for name, upstream in settings.upstreams.items():
        for endpoint in upstream.endpoints[-1:]:
            if endpoint.repository_prefix is None:
                found.setdefault(endpoint.url.partition("://")[2], name)
    return found


def _without_port(host: str) -> str:
    name, colon, port = host.rpartition(":")
    return name if colon and port.isdigit() else host


def not_allowed(upstream: str, repository: str) -> NameUnknown:
    """What a client gets for a repository outside of the upstream's ``allow``."""
    return NameUnknown(
        f"{repository} is not among the repositories that may be pulled from {upstream}; "
        f"see upstreams.{upstream}.allow in the mirror's settings"
    )


def _unknown(name: str) -> NameUnknown:
    shown = name if len(name) <= 80 else name[:80] + "…"
    return NameUnknown(
        f"no upstream {shown!r} is configured; add it under `upstreams` in the mirror's settings, "
        "or start the name with one that is",
        detail={"upstream": shown, "setting": "upstreams"},
    )
