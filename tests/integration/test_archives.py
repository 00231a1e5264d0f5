"""Export and import through the admin API: a cluster without a network has what another mirror held, byte for byte."""

import asyncio
import gzip
import io
import json
import logging
import tarfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlencode

import pytest

from mirror.digest import Digest
from tests.support.artifacts import (
    Artifact,
    compat,
    docker,
    entry,
    image,
    index,
    publish,
    raw,
    wasm_module,
)
from tests.support.asking import Reply
from tests.support.layouts import MARK, archive, blob_path, contents, files_of, index_of, tar_of
from tests.support.pushing import Author, whole
from tests.support.running import Running, running
from tests.support.upstream import FaultyUpstream

TAR = {"Content-Type": "application/x-tar"}
ONE = raw(wasm_module(300_000, seed=1))
OTHER = compat(wasm_module(seed=2))
BOTH = index(ONE, OTHER, platforms=("linux/amd64", "linux/arm64"))
NAME = "up/team/plugin:1"
OFFLINE: Mapping[str, object] = {"endpoints": ["http://127.0.0.1:9"], "offline": True}


async def export(mirror: Running, *references: str, **query: str | list[str]) -> Reply:
    asked = urlencode({"reference": references, **query}, doseq=True)
    return await mirror.get(f"/api/v1/export?{asked}")


async def take_in(mirror: Running, content: bytes, **query: str) -> Reply:
    target = f"/api/v1/import?{urlencode(query)}" if query else "/api/v1/import"
    return await mirror.ask("POST", target, TAR, content)


async def results(mirror: Running, content: bytes, **query: str) -> list[dict[str, Any]]:
    reply = await take_in(mirror, content, **query)
    assert reply.status == 200, reply
    found: list[dict[str, Any]] = reply.json["results"]
    return found


async def only(mirror: Running, content: bytes, **query: str) -> dict[str, Any]:
    (one,) = await results(mirror, content, **query)
    return one


async def agents_pull(mirror: Running, artifact: Artifact, name: str = NAME) -> None:
    """All that an agent asks for, and the rest."""
    repository, _, tag = name.rpartition(":")
    assert await whole(mirror, repository, tag) == artifact.body
    for one in artifact.children or (artifact,):
        assert await whole(mirror, repository, str(one.digest)) == one.body
        for digest, content in one.blobs.items():
            reply = await mirror.get(f"/v2/{repository}/blobs/{digest}")
            assert (reply.status, reply.body) == (200, content), reply


def drafts(mirror: Running) -> list[str]:
    return [file for file in mirror.files() if "import" in file]


@pytest.mark.parametrize("artifact", [ONE, OTHER, docker(wasm_module()), BOTH, index(index(ONE))])
async def test_what_one_mirror_held_another_one_without_a_network_serves(tmp_path: Path, artifact: Artifact) -> None:
    with FaultyUpstream() as up:
        publish(up, "team/plugin", "1", artifact)
        async with running(tmp_path / "a", {"up": up.url}) as first:
            out = await export(first, f"oci://{NAME}", platforms=["all"])
            assert (out.status, out.header("content-type"), out.whole) == (200, "application/x-tar", True), out
    async with running(tmp_path / "b", {"up": OFFLINE}) as second:
        done = await only(second, out.body)
        assert done["result"] == "imported", done
        assert (done["reference"], done["digest"], done["why"]) == (NAME, str(artifact.digest), None)
        await agents_pull(second, artifact)
        assert (await export(second, NAME, platforms=["all"])).body == out.body, "byte for byte"
        again = await only(second, out.body)
        assert (again["result"], again["bytes"]) == ("held", 0)
        assert drafts(second) == []
