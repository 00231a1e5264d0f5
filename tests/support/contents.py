"""What a fake registry holds, and its right answers: manifests, blobs, tags, referrers. No sockets, no faults."""

import json
import re
import threading
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlencode

from mirror.digest import Digest
from mirror.oci import OCI_INDEX, OCI_MANIFEST


@dataclass(slots=True)
class Answer:
    """A right answer, before anything goes wrong. ``content`` is whole, also where a range was asked for."""

    status: int
    headers: dict[str, str] = field(default_factory=dict)
    content: bytes = b""
    ranges: bool = False
    """Whether a ``Range`` of the content may be asked for."""


@dataclass(slots=True)
class Repository:
    """Blobs and manifests (media type, bytes), and tags, of one repository; digests as text."""

    blobs: dict[str, tuple[str, bytes]] = field(default_factory=dict)
    manifests: dict[str, tuple[str, bytes]] = field(default_factory=dict)
    tags: dict[str, str] = field(default_factory=dict)


_ROUTE = re.compile(r"/v2/(?P<name>.+)/(?P<kind>manifests|blobs|referrers)/(?P<last>[^/]+)|/v2/(?P<tags>.+)/tags/list")


def error(status: int, code: str, message: str = "the fake registry says so") -> Answer:
    """An error with the body that the distribution specification wants."""
    body = json.dumps({"errors": [{"code": code, "message": message, "detail": None}]}).encode()
    return Answer(status, {"content-type": "application/json; charset=utf-8"}, body)


class Contents:
    """The repositories of a fake registry. Thread-safe."""

    def __init__(self) -> None:
        self.referrers_api = True
        """Whether there is a referrers API; without one it answers 404."""
        self.filters_referrers = True
        """Whether ``artifactType`` is applied, and said to be."""
        self.page_size: int | None = None
        """The largest page of tags or referrers that is given out."""
        self._repositories: dict[str, Repository] = {}
        self._lock = threading.RLock()

    def add_blob(
        self,
        repository: str,
        content: bytes,
        media_type: str = "application/octet-stream",
        *,
        digest: Digest | None = None,
    ) -> Digest:
        """Hold a blob, to be sent as ``media_type``; under a wrong ``digest``, if one is given."""
        digest = digest or Digest.of(content)
        with self._lock:
            self._repository(repository).blobs[str(digest)] = (media_type, content)
        return digest

    def add_manifest(
        self,
        repository: str,
        manifest: bytes | Mapping[str, object],
        media_type: str = OCI_MANIFEST,
        tag: str | None = None,
        *,
        digest: Digest | None = None,
    ) -> Digest:
        """Hold a manifest, under ``tag`` too; under a wrong ``digest``, if one is given."""
        body = manifest if isinstance(manifest, bytes) else json.dumps(manifest).encode()
        digest = digest or Digest.of(body)
        with self._lock:
            self._repository(repository).manifests[str(digest)] = (media_type, body)
            if tag is not None:
                self._repository(repository).tags[tag] = str(digest)
        return digest

    def tag(self, repository: str, tag: str, digest: Digest) -> None:
        """Let ``tag`` name ``digest`` from now on."""
        with self._lock:
            self._repository(repository).tags[tag] = str(digest)

    def delete_tag(self, repository: str, tag: str) -> None:
        """Forget a tag; the manifest stays."""
        with self._lock:
            del self._repository(repository).tags[tag]

    def delete(self, repository: str, digest: Digest) -> None:
        """Forget a blob or manifest, and the tags that name it."""
        with self._lock:
            held = self._repository(repository)
            held.blobs.pop(str(digest), None)
            held.manifests.pop(str(digest), None)
            held.tags = {tag: named for tag, named in held.tags.items() if named != str(digest)}

    def repository_of(self, path: str) -> str | None:
        """The repository that a path names, known or not."""
        match = _ROUTE.fullmatch(path)
        return (match["name"] or match["tags"]) if match else None

    def answer(self, path: str, query: Mapping[str, str]) -> Answer:
        """The right answer to a ``GET`` of ``path``."""
        if path in ("/v2/", "/v2"):
            return Answer(200, {"content-type": "application/json"}, b"{}")
        match = _ROUTE.fullmatch(path)
        if match is None:
            return error(404, "UNSUPPORTED", "no such address")
        with self._lock:
            repository = self._repositories.get(match["name"] or match["tags"])
            if repository is None:
                return error(404, "NAME_UNKNOWN")
            if match["tags"]:
                return self._tags(match["tags"], repository, query)
            if match["kind"] == "manifests":
                return _manifest(repository, match["last"])
            if match["kind"] == "blobs":
                return _blob(repository, match["last"])
            return self._referrers(path, repository, match["last"], query)

    def _repository(self, name: str) -> Repository:
        return self._repositories.setdefault(name, Repository())

    def _tags(self, name: str, repository: Repository, query: Mapping[str, str]) -> Answer:
        tags = sorted(tag for tag in repository.tags if tag > query.get("last", ""))
        asked = int(query["n"]) if "n" in query else None
        limit = min((size for size in (asked, self.page_size) if size is not None), default=len(tags))
        page = tags[:limit]
        headers = {"content-type": "application/json"}
        if page and len(page) < len(tags):
            target = urlencode({"n": limit, "last": page[-1]})
            headers["link"] = f'</v2/{name}/tags/list?{target}>; rel="next"'
        return Answer(200, headers, json.dumps({"name": name, "tags": page}).encode())

    def _referrers(self, path: str, repository: Repository, subject: str, query: Mapping[str, str]) -> Answer:
        if not self.referrers_api:
            return error(404, "UNSUPPORTED", "there is no referrers API")
        found = [
            descriptor
            for digest, (media_type, body) in repository.manifests.items()
            if (descriptor := _referrer(digest, media_type, body, subject)) is not None
        ]
        headers = {"content-type": OCI_INDEX}
        wanted = query.get("artifactType")
        if wanted and self.filters_referrers:
            found = [descriptor for descriptor in found if descriptor["artifactType"] == wanted]
            headers["oci-filters-applied"] = "artifactType"
        start = int(query.get("page", "0"))
        page = found[start:] if self.page_size is None else found[start : start + self.page_size]
        if start + len(page) < len(found):
            target = urlencode({**query, "page": start + len(page)})
            headers["link"] = f'<{path}?{target}>; rel="next"'
        index = {"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": page}
        return Answer(200, headers, json.dumps(index).encode())


def _manifest(repository: Repository, target: str) -> Answer:
    digest = target if ":" in target else repository.tags.get(target, "")
    if digest not in repository.manifests:
        return error(404, "MANIFEST_UNKNOWN")
    media_type, body = repository.manifests[digest]
    return Answer(200, {"content-type": media_type, "docker-content-digest": digest}, body)


def _blob(repository: Repository, digest: str) -> Answer:
    if digest not in repository.blobs:
        return error(404, "BLOB_UNKNOWN")
    media_type, content = repository.blobs[digest]
    headers = {"content-type": media_type, "docker-content-digest": digest, "accept-ranges": "bytes"}
    return Answer(200, headers, content, ranges=True)


def _referrer(digest: str, media_type: str, body: bytes, subject: str) -> dict[str, Any] | None:
    """The descriptor of a manifest whose ``subject`` is the one asked for."""
    try:
        fields = json.loads(body)
    except ValueError:
        return None
    if not isinstance(fields, dict) or (fields.get("subject") or {}).get("digest") != subject:
        return None
    artifact_type = fields.get("artifactType") or (fields.get("config") or {}).get("mediaType")
    return {
        "mediaType": media_type,
        "digest": digest,
        "size": len(body),
        "artifactType": artifact_type,
        "annotations": fields.get("annotations") or {},
    }
