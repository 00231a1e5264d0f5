"""Headers that tell where an answer came from. Sources: RFC 9211 (Cache-Status), RFC 9111 section 5.1 (Age)."""

from collections.abc import Iterable

from mirror.answer import Answer, Collapsed, Filled, Hit, Outcome, Passed, Revalidated, Stale

_CACHE = "wasm-mirror"

_MAX_WARNINGS = 4096
"""Bytes of warnings in one answer, as the distribution specification has it."""

Headers = list[tuple[bytes, bytes]]


def cache_status(outcome: Outcome) -> str:
    """The value of ``Cache-Status``."""
    match outcome:
        case Hit(ttl):
            return f"{_CACHE}; hit{_ttl(ttl)}"
        case Revalidated(ttl):
            return f"{_CACHE}; fwd=stale; fwd-status=200{_ttl(ttl)}; detail=revalidated"
        case Stale(failure):
            return f"{_CACHE}; fwd=stale; detail={failure.code.lower()}"
        case Filled(ttl):
            return f"{_CACHE}; fwd=miss; fwd-status=200; stored{_ttl(ttl)}"
        case Collapsed(ttl):
            return f"{_CACHE}; fwd=miss; fwd-status=200; stored; collapsed{_ttl(ttl)}"
        case Passed():
            return f"{_CACHE}; fwd=request; fwd-status=200"


def describing(answer: Answer, now: float, namespace: str | None) -> Headers:
    """The headers of an answer, but for those that depend on its length."""
    headers = [
        ("content-type", answer.media_type),
        ("docker-content-digest", str(answer.digest)),
        ("etag", etag(answer)),
        ("cache-status", cache_status(answer.outcome)),
        ("age", str(max(0, int(now - answer.fetched_at)) if answer.fetched_at is not None else 0)),
        *always(namespace),
    ]
    return encode(headers)


def always(namespace: str | None) -> list[tuple[str, str]]:
    """What every answer of the registry carries. ``namespace``: the upstream, where the request named it by ``ns``."""
    own = [("docker-distribution-api-version", "registry/2.0"), ("x-content-type-options", "nosniff")]
    return own if namespace is None else [*own, ("oci-namespace", namespace)]


def etag(answer: Answer) -> str:
    """The entity tag: the digest."""
    return f'"{answer.digest}"'


def warnings(words: Iterable[str]) -> list[str]:
    """The values of ``Warning``, as many as may be sent.

    Sources: RFC 7234, section 5.5; OCI distribution specification 1.1, "Warnings".
    """
    values = []
    left = _MAX_WARNINGS
    for text in words:
        plain = text.replace("…", "...").encode("ascii", "replace").decode()
        plain = "".join(letter if letter.isprintable() else " " for letter in plain)
        room = left - len('299 - ""')
        quoted = ""
        for letter in plain:
            escaped = f"\\{letter}" if letter in '"\\' else letter
            if len(quoted) + len(escaped) > room:
                break
            quoted += escaped
        if not quoted:
            break
        values.append(f'299 - "{quoted}"')
        left -= len(values[-1])
    return values


def encode(headers: Iterable[tuple[str, str]]) -> Headers:
    """As ASGI wants them."""
    return [(name.encode("latin-1"), value.encode("latin-1", "replace")) for name, value in headers]


def _ttl(ttl: float | None) -> str:
    return "" if ttl is None else f"; ttl={int(ttl)}"
