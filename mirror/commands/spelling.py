"""References as people have them to references as a mirror is asked for them. Pure."""

from collections.abc import Iterable

from mirror.config.hosts import split

_SCHEME = "oci"


def asked_for(text: str, mirror: str) -> str:
    """What to ask the mirror at the host ``mirror`` for, where ``text`` names a mirror before the upstream.

    Its first part is a host, and not an upstream, when it is that of the mirror, or has a port, as no upstream's name
    has: then it is the mirror, as it is called elsewhere. The rest the mirror judges.
    """
    scheme, separator, rest = text.partition("://")
    if separator and scheme.lower() in ("http", "https"):
        path = rest.partition("?")[0].partition("/")[2]
        return path.removeprefix("modules/").removesuffix(".wasm") if path.startswith("modules/") else text
    if separator and scheme.lower() != _SCHEME:
        return text
    name = rest if separator else text
    _, behind = beyond_the_host(name, mirror)
    return behind


def beyond_the_host(name: str, mirror: str) -> tuple[str | None, str]:
    """The host of a mirror with which ``name`` begins, if it does, and what stands behind it."""
    first, slash, behind = name.partition("/")
    found = split(first) if slash else None
    if found is not None and (first.lower() == mirror.lower() or found[1] is not None):
        return first, behind
    return None, name


def all_asked_for(texts: Iterable[str], mirror: str) -> list[str]:
    """`asked_for` of each of ``texts``, once."""
    return list(dict.fromkeys(asked_for(text, mirror) for text in texts))
