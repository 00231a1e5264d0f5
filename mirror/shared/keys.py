"""The keys in the Redis that replicas share, and for how long they last; docs/redis.md lists them.

``wm1`` is this mirror and the format of its keys. What stands in braces decides on which server of a Cluster a key lies
(its slot): scripts may only touch keys with the same there. Hosts, repositories, tags and digests hold no braces.
"""

from mirror.digest import Digest

TAG_LASTS = 90 * 86400.0
"""Seconds from the last time that upstream confirmed a tag, or said that it is deleted; each replica keeps its own."""

LINK_LASTS = 90 * 86400.0
KEPT_LASTS = 30 * 86400.0
BLOB_LASTS = 90 * 86400.0
HOLDER_LASTS = 86400.0

ALL_TAGS = "wm1:{tags}:tag:*"
ALL_LINKS = "wm1:{*}:link:*"


def tag(upstream: str, repository: str, tag: str) -> str:
    """The entry of a tag."""
    return f"wm1:{{tags}}:tag:{upstream}/{repository}:{tag}"


def generation() -> str:
    """A number that moves whenever a tag does."""
    return "wm1:{tags}:generation"


def members() -> str:
    """The workers of all replicas, each with its last beat."""
    return "wm1:{tags}:members"


def tag_lease(name: str) -> str:
    """Who alone may write about a tag, or ask for a manifest."""
    return f"wm1:{{tags}}:lease:{name}"


def link(upstream: str, repository: str, digest: Digest | str) -> str:
    """That a repository holds a digest."""
    return f"wm1:{{{upstream}/{repository}}}:link:{digest}"


def negative(upstream: str, repository: str, reference: str) -> str:
    """That upstream does not have a tag or digest."""
    return f"wm1:{{{upstream}/{repository}}}:negative:{reference}"


def kept(question: str) -> str:
    """The last good answer to ``question``, a hash of all that was asked."""
    return f"wm1:{{{question}}}:kept"


def blob(digest: Digest | str) -> str:
    """What was noted of a blob."""
    return f"wm1:{{{digest}}}:blob"


def access(digest: Digest | str) -> str:
    """When a blob was last asked for."""
    return f"wm1:{{{digest}}}:access"


def holders(digest: Digest | str) -> str:
    """The addresses of the replicas that hold a blob."""
    return f"wm1:{{{digest}}}:holders"


def fill_lease(digest: Digest | str) -> str:
    """Who alone downloads a blob."""
    return f"wm1:{{{digest}}}:lease"


def parse_tag(key: str) -> tuple[str, str, str]:
    """Upstream, repository and tag of an entry's key; raises `ValueError`."""
    name = key.removeprefix("wm1:{tags}:tag:")
    path, colon, tag = name.rpartition(":")
    upstream, slash, repository = path.partition("/")
    if name == key or not colon or not slash:
        raise ValueError(f"{key!r} is no key of a tag")
    return upstream, repository, tag


def parse_link(key: str) -> tuple[str, str, str]:
    """Upstream, repository and digest of a link's key; raises `ValueError`."""
    path, middle, digest = key.removeprefix("wm1:{").partition("}:link:")
    upstream, slash, repository = path.partition("/")
    if not key.startswith("wm1:{") or not middle or not slash:
        raise ValueError(f"{key!r} is no key of a link")
    return upstream, repository, digest
