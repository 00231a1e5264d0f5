"""What to do when an endpoint does not answer ``/v2/`` as a registry does. Pure."""

from mirror.doctor.asking import Seen
from mirror.errors import MirrorError, UpstreamDenied, UpstreamInvalid, UpstreamTimeout


def remedy(failure: MirrorError, seen: Seen, endpoint: str, credentials: str) -> tuple[str, str]:
    """What has failed, in a word, and the advice. ``endpoint`` and ``credentials`` are the keys of the settings."""
    if not seen.knows_login:
        return "auth", f"mend {credentials}: without it this endpoint is not asked at all"
    if "client_certificate" in failure.message:
        return "TLS", f"set {endpoint}.client_certificate and client_key to a pair that the server takes"
    if isinstance(failure, UpstreamDenied):
        return "auth", _let_in(seen, endpoint, credentials)
    if seen.token is not None:
        return "auth", _token(failure, seen, endpoint)
    if isinstance(failure, UpstreamTimeout):
        return "/v2/", "it accepts connections and says nothing: see to that server, or to what stands before it"
    if failure.status == 503:
        upstream = endpoint.rpartition(".")[0]
        return (
            "/v2/",
            f"see to that server; with another endpoint beside it in {upstream}.endpoints pulls go on meanwhile",
        )
    if seen.schemes:
        return "auth", "the registry sends clients to a token service that cannot be right: see to its settings"
    return (
        "/v2/",
        f"what answers there is no registry: check {endpoint}.url, and whether a proxy or a login page answers instead",
    )


def _let_in(seen: Seen, endpoint: str, credentials: str) -> str:
    if seen.token is not None and seen.token.withheld:
        return (
            f"if {seen.realm} is the token service of this registry, write it into {endpoint}.auth_hosts; if you do "
            "not know it, ask who runs the registry first: your password goes there"
        )
    if seen.login is None:
        return f"set {credentials}; without it only what anyone may read there can be pulled, if anything"
    return (
        f"see whether {credentials} still holds: a password may have been changed, a token may have expired or been "
        "revoked"
    )


def _token(failure: MirrorError, seen: Seen, endpoint: str) -> str:
    if isinstance(failure, UpstreamInvalid) and seen.token is not None and not seen.token.trusted:
        return (
            f"if {seen.realm} is the token service of this registry, write it into {endpoint}.auth_hosts: then it may "
            "be at a private address too"
        )
    return f"see to {seen.realm}: without its tokens nothing can be pulled from this endpoint"
