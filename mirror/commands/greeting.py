"""What somebody who has just started a mirror at a terminal wants to know next. Pure."""

from collections.abc import Iterator, Sequence
from typing import Final

from mirror.config.hosts import join, split

EXAMPLE: Final = "istio-ecosystem/wasm-extensions/basic_auth"
"""A module that anyone may pull, at ghcr.io."""

_TAG = "1.12.0"
_EVERYWHERE = ("0.0.0.0", "::")


def greeting(url: str, admin: str, upstreams: Sequence[str]) -> Iterator[str]:
    """Lines: where the dashboard is, how to see a pull, what agents write, how to stop.

    ``url`` is where the registry is, ``admin`` where the dashboard and the API are.
    """
    name = "ghcr.io" if "ghcr.io" in upstreams else upstreams[0]
    repository, tag = (EXAMPLE, _TAG) if name == "ghcr.io" else ("REPOSITORY", "TAG")
    here = reached(url)
    yield f"dashboard   {reached(admin)}/"
    yield f"try         curl -sI {here}/v2/{name}/{repository}/manifests/{tag} | grep -i cache-status"
    yield f"agents      oci://{here.partition('://')[2]}/{name}/{repository}:{tag}"
    yield "stop        Ctrl-C"


def reached(url: str) -> str:
    """``url`` as this machine reaches it: where the mirror listens everywhere, that is its loopback address too."""
    scheme, _, rest = url.partition("://")
    located = split(rest)
    if located is None or located[0] not in _EVERYWHERE:
        return url
    return f"{scheme}://{join('127.0.0.1' if located[0] == _EVERYWHERE[0] else '::1', located[1])}"
