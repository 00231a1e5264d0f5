"""What is known of public registries, so that nobody has to configure it.

Most registries are at ``https://<name>`` and give out tokens at the same host; those that do otherwise stand here.
"""

from collections.abc import Mapping
from typing import Final

from mirror.config import hosts

DOCKER_HUB: Final = "docker.io"

PUBLIC: Final = ("ghcr.io", DOCKER_HUB, "quay.io", "registry.k8s.io", "gcr.io", "mcr.microsoft.com", "public.ecr.aws")
"""Registries from which anyone may pull: what a mirror has for this machine alone when nobody says otherwise."""

# Docker Hub's API is at another host than the name in its references, which never resolves to a registry.
_ENDPOINTS: Final[Mapping[str, str]] = {DOCKER_HUB: "https://registry-1.docker.io"}

# Other hosts by which clients name an upstream, in ``Host`` and ``ns``: containerd sends its endpoint's or docker.io,
# older tools the index's.
_ALIASES: Final[Mapping[str, tuple[str, ...]]] = {DOCKER_HUB: ("index.docker.io", "registry-1.docker.io")}

# Registry host to the host of its tokens. Both belong to one operator, so the registry's credentials may go there.
_REALMS: Final[Mapping[str, str]] = {
    "docker.elastic.co": "docker-auth.elastic.co",
    "index.docker.io": "auth.docker.io",
    "registry-1.docker.io": "auth.docker.io",
    "registry.digitalocean.com": "api.digitalocean.com",
    "registry.gitlab.com": "gitlab.com",
}


def endpoint(name: str) -> str | None:
    """The URL that follows from an upstream's name; None for an alias, which could be anywhere."""
    if name in _ENDPOINTS:
        return _ENDPOINTS[name]
    is_host = "." in name and hosts.split(name) is not None
    return f"https://{name}" if is_host else None


def aliases(name: str) -> tuple[str, ...]:
    """Other hosts that mean this upstream."""
    return _ALIASES.get(name, ())


def auth_hosts(host: str) -> tuple[str, ...]:
    """Other hosts that may see the credentials of the registry at ``host``."""
    return (_REALMS[host],) if host in _REALMS else ()


def has_library(name: str, origin_host: str) -> bool:
    """Whether a repository of one component is short for ``library/<it>``: at Docker Hub, under whatever name."""
    return DOCKER_HUB in (name, origin_host) or origin_host in _ALIASES[DOCKER_HUB]
