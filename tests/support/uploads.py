"""What a fake registry does with what is pushed to it. No sockets, no faults.

Source: OCI distribution specification 1.1, "Push" and "Content Management".
"""

import json
import re
import secrets
from collections.abc import Mapping

from mirror.digest import Digest
from mirror.errors import DigestInvalid
from tests.support.contents import Answer, Contents, error

_UPLOADS = re.compile(r"/v2/(?P<name>.+)/blobs/uploads/(?P<id>[^/]*)")
_CONTENT = re.compile(r"/v2/(?P<name>.+)/(?P<kind>manifests|blobs)/(?P<last>[^/]+)")
_RANGE = re.compile(r"(\d+)-(\d+)")


class Uploads:
    """The uploads of a registry, and what else changes its `Contents`. For its one loop.

    The ``Location`` of an upload changes with every chunk, and the one before it is worth nothing any more.
    """

    def __init__(self, contents: Contents) -> None:
        self.base = ""
        """What stands in front of the path of each ``Location``: another host, for example."""
        self.mounts = True
        """Whether blobs are mounted."""
        self.tells_range = True
        """Whether it says how much of an upload has come."""
        self.open: dict[str, bytearray] = {}
        """The bytes of each upload."""
        self._contents = contents

    def repository_of(self, path: str) -> str | None:
        """The repository of an upload's path."""
        match = _UPLOADS.fullmatch(path)
        return match["name"] if match else None

    def answer(
        self, method: str, path: str, query: Mapping[str, str], headers: Mapping[str, str], body: bytes
    ) -> Answer | None:
        """The right answer, where the request is for an upload or would change something."""
        match = _UPLOADS.fullmatch(path)
        if match:
            if not match["id"]:
                return self._begin(match["name"], query) if method == "POST" else error(405, "UNSUPPORTED")
            return self._proceed(method, match["name"], match["id"], query, headers, body)
        match = _CONTENT.fullmatch(path)
        if match and method == "PUT" and match["kind"] == "manifests":
            return self._put(match["name"], match["last"], headers.get("content-type", ""), body)
        if match and method == "DELETE":
            return self._delete(match["name"], match["kind"], match["last"])
        return None

    def _begin(self, name: str, query: Mapping[str, str]) -> Answer:
        digest = query.get("mount")
        if digest and self.mounts and "from" in query:
            found = self._contents.answer(f"/v2/{query['from']}/blobs/{digest}", {})
            if found.status == 200:
                self._contents.add_blob(name, found.content)
                return Answer(201, {"location": f"/v2/{name}/blobs/{digest}", "docker-content-digest": digest})
        upload = secrets.token_hex(8)
        self.open[upload] = bytearray()
        return self._standing(202, name, upload)

    def _proceed(
        self, method: str, name: str, upload: str, query: Mapping[str, str], headers: Mapping[str, str], body: bytes
    ) -> Answer:
        held = self.open.get(upload)
        if held is None:
            return error(404, "BLOB_UPLOAD_UNKNOWN", "no such upload")
        if method == "DELETE":
            del self.open[upload]
            return Answer(204)
        if method == "GET":
            return self._standing(204, name, upload)
        if query.get("state") != str(len(held)):
            return error(400, "BLOB_UPLOAD_INVALID", "this is not where the upload goes on")
        asked = _RANGE.fullmatch(headers.get("content-range", ""))
        if asked and (int(asked[1]) != len(held) or int(asked[2]) - int(asked[1]) + 1 != len(body)):
            return error(416, "BLOB_UPLOAD_INVALID", "this is not the next chunk")
        if method == "PATCH":
            held += body
            return self._standing(202, name, upload)
        return self._finish(name, upload, bytes(held + body), query.get("digest", ""))

    def _finish(self, name: str, upload: str, content: bytes, named: str) -> Answer:
        try:
            digest = Digest.parse(named)
        except DigestInvalid:
            return error(400, "DIGEST_INVALID", "no digest")
        if Digest.of(content, digest.algorithm) != digest:
            return error(400, "DIGEST_INVALID", "the bytes are others")
        del self.open[upload]
        self._contents.add_blob(name, content, digest=digest)
        return Answer(201, {"location": f"/v2/{name}/blobs/{digest}", "docker-content-digest": named})

    def _standing(self, status: int, name: str, upload: str) -> Answer:
        size = len(self.open[upload])
        location = f"{self.base}/v2/{name}/blobs/uploads/{upload}?state={size}"
        told = {"range": f"0-{max(0, size - 1)}"} if self.tells_range else {}
        return Answer(status, {"location": location, "docker-upload-uuid": upload, **told})

    def _put(self, name: str, target: str, media_type: str, body: bytes) -> Answer:
        try:
            digest = Digest.parse(target) if ":" in target else Digest.of(body)
        except DigestInvalid:
            return error(400, "DIGEST_INVALID", "no digest")
        if Digest.of(body, digest.algorithm) != digest:
            return error(400, "DIGEST_INVALID", "the bytes are others")
        fields = json.loads(body)
        for blob in [*fields.get("layers", []), *([fields["config"]] if "config" in fields else [])]:
            if self._contents.answer(f"/v2/{name}/blobs/{blob['digest']}", {}).status != 200:
                return error(404, "MANIFEST_BLOB_UNKNOWN", f"{blob['digest']} is not here")
        self._contents.add_manifest(name, body, media_type, None if ":" in target else target, digest=digest)
        headers = {"location": f"/v2/{name}/manifests/{digest}", "docker-content-digest": str(digest)}
        if self._contents.referrers_api and isinstance(fields.get("subject"), dict):
            headers["oci-subject"] = fields["subject"]["digest"]
        return Answer(201, headers)

    def _delete(self, name: str, kind: str, target: str) -> Answer:
        found = self._contents.answer(f"/v2/{name}/{kind}/{target}", {})
        if found.status != 200:
            return error(found.status, "MANIFEST_UNKNOWN" if kind == "manifests" else "BLOB_UNKNOWN")
        if ":" in target:
            self._contents.delete(name, Digest.parse(target))
        else:
            self._contents.delete_tag(name, target)
        return Answer(202)
