"""The admin API of a mirror in the test's own loop, asked as operators' commands ask it."""

import json
from typing import Any

from mirror.digest import Digest
from tests.support.artifacts import Artifact
from tests.support.running import Running

Row = dict[str, Any]


async def call(mirror: Running, method: str, path: str, body: object = None, status: int = 200) -> Any:
    """The answer, as JSON."""
    headers = {"Host": "localhost", **({"Content-Type": "application/json"} if body is not None else {})}
    raw = json.dumps(body).encode() if body is not None else b""
    reply = await mirror.ask(method, f"/api/v1/{path}", headers, raw)
    assert reply.status == status, reply
    return reply.json


async def act(mirror: Running, operation: str, *references: str) -> list[Row]:
    """The results of ``refresh``, ``purge`` or ``pins``."""
    answer = await call(mirror, "POST", operation, {"references": list(references)})
    results: list[Row] = answer["results"]
    assert [result["reference"] for result in results] == list(references)
    return results


async def rows(mirror: Running, query: str = "", after: str | None = None) -> list[Row]:
    """All rows of ``GET modules``, page by page; those ``after`` a page."""
    found: list[Row] = []
    while True:
        page = await call(mirror, "GET", f"modules?{query}" + (f"&after={after}" if after is not None else ""))
        found += page["modules"]
        if (after := page["next"]) is None:
            return found


def names(found: list[Row]) -> list[str]:
    """By what rows are called."""
    return [row["reference"] for row in found]


async def pull(mirror: Running, name: str, artifact: Artifact) -> None:
    """Have a tag and all that it names here, as a client that takes all of it."""
    repository, _, tag = name.rpartition(":")
    reply = await mirror.get(f"/v2/{repository}/manifests/{tag}")
    assert (reply.status, reply.body) == (200, artifact.body), reply
    for digest, content in artifact.blobs.items():
        reply = await mirror.get(f"/v2/{repository}/blobs/{digest}")
        assert (reply.status, reply.body) == (200, content), reply
        await mirror.until_held(digest)
    await mirror.until_held(artifact.digest)


def held(mirror: Running, *artifacts: Artifact) -> set[Digest]:
    """What of artifacts lies on the disk."""
    digests = {digest for artifact in artifacts for digest in (artifact.digest, *artifact.blobs)}
    return {digest for digest in digests if mirror.holds(digest)}
