"""A manifest that is put, out of its request: the body, its type, and the tags that it gets beside that of its address.

Source: OCI distribution specification 1.1, "Pushing Manifests".
"""

import asyncio
from urllib.parse import parse_qs

from starlette.types import Receive, Scope

from mirror.digest import Digest
from mirror.edge.body import whole_of
from mirror.edge.respond import header
from mirror.errors import DigestInvalid, ManifestInvalid, UpstreamInvalid
from mirror.oci import MANIFEST_TYPES, Manifest, parse_tag

_MAX_TAGS = 20
_LARGE = 64 * 1024
"""Bytes of a manifest from which on it is parsed in a thread."""

_TELLS_NOTHING = frozenset({"", "application/json", "application/octet-stream", "text/plain"})
_SCHEMA_1 = "application/vnd.docker.distribution.manifest.v1"


async def manifest_of(scope: Scope, receive: Receive, limit: int, named: Digest | None) -> Manifest:
    """The manifest, of ``limit`` bytes at most and with the digest that its address has ``named``, if that is one.

    Raises `RequestError` for another one, and `BodyCut`.
    """
    kind = _media_type(header(scope, b"content-type") or "")
    too_large = f"a manifest may have hosted.max_manifest_size, {limit:,} bytes, at most"
    body = await whole_of(scope, receive, limit, too_large)
    algorithm = named.algorithm if named is not None else "sha256"
    if len(body) > _LARGE:
        manifest = await asyncio.to_thread(_parsed, body, kind, algorithm)
    else:
        manifest = _parsed(body, kind, algorithm)
    if named is not None and named != manifest.digest:
        raise DigestInvalid(
            f"the manifest that was sent has the digest {manifest.digest}, and not the one of its address"
        )
    return manifest


def tags_of(scope: Scope) -> list[str]:
    """The tags of ``?tag=``, each once. Raises `TagInvalid`."""
    found = parse_qs(scope["query_string"].decode("latin-1"), max_num_fields=_MAX_TAGS).get("tag", [])
    return [parse_tag(tag) for tag in dict.fromkeys(found)]


def _media_type(text: str) -> str:
    """The type that a manifest is sent as; one that says nothing leaves it to the manifest itself."""
    essence = text.partition(";")[0].strip().lower()
    if essence in MANIFEST_TYPES or essence in _TELLS_NOTHING or essence.startswith(_SCHEMA_1):
        return essence
    raise ManifestInvalid(f"the Content-Type is not that of a manifest, which is one of {', '.join(MANIFEST_TYPES)}")


def _parsed(body: bytes, kind: str, algorithm: str) -> Manifest:
    try:
        return Manifest.parse(body, kind, Digest.of(body, algorithm))
    except UpstreamInvalid as error:
        raise ManifestInvalid(error.message) from error
