"""Rights through the whole mirror: who reads what, who pushes where, and that a right ends when it is taken away.

The lines are those of the design's list on security; line 26 has its tests in `tests/auth`.
"""

import json
import logging
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from urllib.parse import quote

import pytest

from mirror.digest import Digest
from mirror.edge.auth import CHALLENGE
from tests.auth.support import basic, users_file
from tests.support.artifacts import Artifact, publish, raw, wasm_module
from tests.support.asking import Reply
from tests.support.running import Running, running
from tests.support.upstream import FaultyUpstream
from tests.support.waiting import eventually

MODULE = wasm_module(2000)
ARTIFACT = raw(MODULE)
OTHER = raw(wasm_module(2000, seed=1))
ANNA = basic("anna", "hunter2")
BEN = basic("ben", "swordfish")
USERS = {"anna": "hunter2", "ben": "swordfish"}
RULES = [
    {"who": ["anna"], "repositories": ["hosted/team-a/**"], "may": ["pull", "push"]},
    {"who": ["ben"], "repositories": ["hosted/team-b/**"], "may": ["pull", "push", "overwrite", "delete"]},
    {"who": ["*"], "repositories": ["ghcr.io/acme/*"], "may": ["pull"]},
]
PLUGIN = "ghcr.io/acme/plugin"
SECRET = "ghcr.io/secret/plugin"


def reads(name: str, artifact: Artifact = ARTIFACT) -> list[str]:
    """Every address at which something of a repository can be read."""
    return [
        f"/v2/{name}/manifests/1",
        f"/v2/{name}/manifests/{artifact.digest}",
        f"/v2/{name}/blobs/{artifact.layers[0]}",
        f"/v2/{name}/tags/list",
        f"/v2/{name}/referrers/{artifact.digest}",
        f"/modules/{name}:1",
        f"/modules/{name}:1?info",
        f"/modules/{name}@{artifact.digest}.wasm",
    ]


@asynccontextmanager
async def mirrored(folder: Path, mode: str, rules: object = ()) -> AsyncIterator[Running]:
    """A mirror with two users, of a registry with the same artifact in two repositories."""
    auth = {"mode": mode, "file": str(users_file(folder, USERS)), "rules": rules}
    with FaultyUpstream() as up:
        for repository in ("acme/plugin", "secret/plugin"):
            publish(up, repository, "1", ARTIFACT)
        async with running(folder, {"ghcr.io": up}, {"auth": auth}) as mirror:
            yield mirror


async def push(mirror: Running, name: str, tag: str, artifact: Artifact, headers: Mapping[str, str]) -> Reply:
    """The last answer of a push: the first refusal, or that to the manifest."""
    for digest, content in artifact.blobs.items():
        reply = await push_blob(mirror, name, digest, content, headers)
        if reply.status != 201:
            return reply
    kind = {"content-type": artifact.media_type}
    return await mirror.ask("PUT", f"/v2/{name}/manifests/{tag}", {**headers, **kind}, artifact.body)


async def push_blob(mirror: Running, name: str, digest: Digest, content: bytes, headers: Mapping[str, str]) -> Reply:
    target = f"/v2/{name}/blobs/uploads/?digest={quote(str(digest))}"
    kind = {"content-type": "application/octet-stream"}
    return await mirror.ask("POST", target, {**headers, **kind}, content)


async def test_anyone_reads_where_nobody_is_asked_though_a_login_tells_the_truth(tmp_path: Path) -> None:
    async with mirrored(tmp_path, "none", RULES) as mirror:
        for headers, status in (({}, 401), (basic("", ""), 401), (basic("anna", "wrong"), 401), (ANNA, 200)):
            reply = await mirror.get("/v2/", headers)
            assert reply.status == status
            assert reply.header("www-authenticate") == (CHALLENGE if status == 401 else None)
            for target in [*reads(PLUGIN), *reads(SECRET)]:
                assert (await mirror.get(target, headers)).status == 200, target


async def test_users_read_what_the_rules_let_them_and_others_nothing(tmp_path: Path) -> None:
    async with mirrored(tmp_path, "htpasswd", RULES) as mirror:
        for target in reads(PLUGIN):  # which brings all of it here
            assert (await mirror.get(target, ANNA)).status == 200, target
        for headers in ({}, basic("", ""), basic("anna", "wrong"), basic("nobody", "hunter2")):
            for target in [*reads(PLUGIN), *reads(SECRET), "/v2/", "/v2/nothing.example/a/manifests/1"]:
                for method in ("GET", "HEAD"):
                    reply = await mirror.ask(method, target, headers)
                    assert (reply.status, reply.header("www-authenticate")) == (401, CHALLENGE), target
            assert reply.header("docker-content-digest") is None
        for target in reads(SECRET):
            reply = await mirror.get(target, ANNA)
            assert (reply.status, reply.code) == (403, "DENIED"), target
            assert reply.header("www-authenticate") is None
            assert "auth.rules" in reply.message
        query = reads("acme/plugin")[0]
        assert (await mirror.get(f"{query}?ns=ghcr.io", ANNA)).status == 200
        query = reads("secret/plugin")[0]
        assert (await mirror.get(f"{query}?ns=ghcr.io", ANNA)).status == 403
        assert (await mirror.get(query, {**ANNA, "host": "ghcr.io"})).status == 403


async def test_nobody_overwrites_a_tag_by_the_right_to_create_one(tmp_path: Path) -> None:
    """Line 12: each right is one of its own."""
    async with mirrored(tmp_path, "none", RULES) as mirror:
        mine, theirs = "hosted/team-a/plugin", "hosted/team-b/plugin"
        assert (await push(mirror, mine, "1", ARTIFACT, ANNA)).status == 201
        again = await push(mirror, mine, "1", OTHER, ANNA)
        assert (again.status, again.code) == (403, "DENIED")
        assert (await mirror.get(f"/v2/{mine}/manifests/1")).body == ARTIFACT.body
        assert (await push(mirror, mine, "1", ARTIFACT, ANNA)).status == 201  # the same again changes nothing
        for target in (f"manifests/{ARTIFACT.digest}", "manifests/1", f"blobs/{ARTIFACT.layers[0]}"):
            reply = await mirror.ask("DELETE", f"/v2/{mine}/{target}", ANNA)
            assert (reply.status, reply.code) == (403, "DENIED")
        assert (await push(mirror, theirs, "1", ARTIFACT, BEN)).status == 201
        assert (await push(mirror, theirs, "1", OTHER, BEN)).status == 201
        assert (await mirror.ask("DELETE", f"/v2/{theirs}/manifests/1", BEN)).status == 202


@pytest.mark.parametrize(
    ("headers", "status", "code"),
    [({}, 401, "UNAUTHORIZED"), (basic("ben", "hunter2"), 401, "UNAUTHORIZED"), (BEN, 403, "DENIED")],
)
async def test_nobody_else_changes_anything(tmp_path: Path, headers: Mapping[str, str], status: int, code: str) -> None:
    name = "hosted/team-a/plugin"
    async with mirrored(tmp_path, "none", RULES) as mirror:
        assert (await push(mirror, name, "1", ARTIFACT, ANNA)).status == 201
        upload = (await mirror.ask("POST", f"/v2/{name}/blobs/uploads/", {**ANNA, "content-length": "0"})).header(
            "location"
        )
        assert upload is not None
        digest = quote(str(OTHER.layers[0]))
        for method, target in (
            ("POST", f"/v2/{name}/blobs/uploads/"),
            ("POST", f"/v2/{name}/blobs/uploads/?digest={digest}"),
            ("POST", f"/v2/{name}/blobs/uploads/?mount={quote(str(ARTIFACT.layers[0]))}&from=hosted/team-a/plugin"),
            ("GET", upload),
            ("PATCH", upload),
            ("PUT", f"{upload}?digest={digest}"),
            ("DELETE", upload),
            ("PUT", f"/v2/{name}/manifests/2"),
            ("DELETE", f"/v2/{name}/manifests/1"),
            ("DELETE", f"/v2/{name}/blobs/{ARTIFACT.layers[0]}"),
        ):
            reply = await mirror.ask(method, target, {**headers, "content-length": "0"})
            assert (reply.status, reply.code) == (status, code), (method, target)
            assert reply.header("www-authenticate") == (CHALLENGE if status == 401 else None)
        assert (await mirror.ask("GET", upload, ANNA)).status == 204
        assert (await mirror.get(f"/v2/{name}/tags/list")).json["tags"] == ["1"]


async def test_a_blob_is_not_mounted_from_where_the_user_may_not_read(tmp_path: Path) -> None:
    """Line 11: the upload goes on as if there were no such blob."""
    async with mirrored(tmp_path, "htpasswd", RULES) as mirror:
        assert (await push(mirror, "hosted/team-a/plugin", "1", ARTIFACT, ANNA)).status == 201
        layer = quote(str(ARTIFACT.layers[0]))
        for origin in ("&from=hosted/team-a/plugin", ""):
            target = f"/v2/hosted/team-b/plugin/blobs/uploads/?mount={layer}{origin}"
            assert (await mirror.ask("POST", target, {**BEN, "content-length": "0"})).status == 202
        target = f"/v2/hosted/team-a/other/blobs/uploads/?mount={layer}&from=hosted/team-a/plugin"
        assert (await mirror.ask("POST", target, {**ANNA, "content-length": "0"})).status == 201
        assert (await mirror.get(f"/v2/hosted/team-b/plugin/blobs/{ARTIFACT.layers[0]}", BEN)).status == 404


@pytest.mark.shows("a user leaves `auth.file`, or gets another password there")
async def test_a_user_who_leaves_the_file_is_out(tmp_path: Path) -> None:
    """Line 12: rights that are taken away do not persist in what is remembered."""
    async with mirrored(tmp_path, "htpasswd") as mirror:
        assert (await mirror.get(f"/v2/{PLUGIN}/manifests/1", BEN)).status == 200
        users_file(tmp_path, {"anna": "hunter2"})

        async def is_out() -> bool:
            return (await mirror.get(f"/v2/{PLUGIN}/manifests/1", BEN)).status == 401

        out: bool = await eventually(is_out, what="the user is out")
        assert out
        assert (await mirror.get(f"/v2/{PLUGIN}/manifests/1", ANNA)).status == 200


async def test_without_users_a_mirror_on_this_machine_takes_pushes_and_no_web_page_pushes(tmp_path: Path) -> None:
    with FaultyUpstream() as up:
        async with running(tmp_path, {"ghcr.io": up}) as mirror:
            assert (await mirror.get("/v2/")).status == 200
            assert (await mirror.get("/v2/", ANNA)).status == 200
            for headers in ({"host": "rebound.example"}, {"origin": "https://page.example"}):
                reply = await push(mirror, "hosted/plugin", "1", ARTIFACT, headers)
                assert (reply.status, reply.code) == (401, "UNAUTHORIZED")
                assert "auth.file" in reply.message
            assert (await push(mirror, "hosted/plugin", "1", ARTIFACT, {})).status == 201
            assert (await push(mirror, "hosted/plugin", "1", OTHER, ANNA)).status == 201
            assert (await mirror.get("/modules/hosted/plugin:1")).body == wasm_module(2000, seed=1)


async def test_no_password_gets_out(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Line 25: not into a log of whatever level, an error, or a metric."""
    caplog.set_level(logging.DEBUG)
    wrong = basic("ben", "hunter2-wrong")
    async with mirrored(tmp_path, "htpasswd", RULES) as mirror:
        told = [await mirror.get(target, headers) for headers in (ANNA, wrong) for target in (*reads(SECRET), "/v2/")]
        told.append(await push(mirror, "hosted/team-a/plugin", "1", ARTIFACT, ANNA))
        told.append(await push(mirror, "hosted/team-b/plugin", "1", ARTIFACT, ANNA))
        told.append(await push(mirror, "hosted/team-b/plugin", "1", ARTIFACT, wrong))
        told.append(await mirror.get("/metrics"))
        text = caplog.text + "".join(f"{reply.headers} {reply.body!r}" for reply in told)
    for secret in ("hunter2", ANNA["authorization"].split()[1], wrong["authorization"].split()[1]):
        assert secret not in text
    assert json.dumps([reply.status for reply in told if reply.status >= 500]) == "[]"
