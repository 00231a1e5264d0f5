"""Clients' own credentials at work, through the whole mirror: what is fetched with them, and what authors push.

Alice and bob may pull; alice pushes to her repository, bob to his. The mirror has no credentials of its own.
"""

import asyncio
import contextlib
import random
from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from mirror.digest import Digest
from mirror.freshness import Policy
from mirror.names import Place
from mirror.through import Here, Through
from mirror.upstream.authors import Authors
from mirror.upstream.failover import Upstream
from mirror.upstream.pushing import Progress
from tests.auth.support import basic
from tests.support.artifacts import compat, publish, raw, wasm_module
from tests.support.faults import Fault, Gate
from tests.support.pushing import OCTETS, Author
from tests.support.registry import DockerRegistry
from tests.support.running import Running, running
from tests.support.tokens import TokenService
from tests.support.upstream import FaultyUpstream
from tests.support.waiting import eventually
from tests.support.wire import Request

PASSWORDS = {"alice": "hunter2-of-alice", "bob": "swordfish-of-bob", "robot": "rosebud-of-robot"}
ALICE, BOB = (basic(user, PASSWORDS[user]) for user in ("alice", "bob"))
STRANGER = basic("mallory", "letmein")
MODE = {"mode": "upstream", "allow_plain_http": True}
ALL, PULL = "pull,push,delete", "pull"
RIGHTS: Mapping[str, Mapping[str | None, str]] = {
    "team/plugin": {"alice": ALL, "bob": PULL},
    "bobs/plugin": {"bob": ALL},
}
NAME = "up/team/plugin"
BLOB = random.Random(6).randbytes(300_000)
DIGEST = Digest.of(BLOB)


@contextlib.asynccontextmanager
async def lending(
    folder: Path, upstream: Mapping[str, object] | None = None, **settings: object
) -> AsyncIterator[tuple[FaultyUpstream, Running]]:
    """A registry with tokens, and a mirror of it that pushes through."""
    with FaultyUpstream() as up:
        up.take_pushes()
        up.require_bearer(TokenService(users=dict(PASSWORDS), rights=RIGHTS))
        async with mirroring(folder, up, upstream, **settings) as mirror:
            yield up, mirror


def mirroring(
    folder: Path, up: FaultyUpstream, upstream: Mapping[str, object] | None = None, **settings: object
) -> contextlib.AbstractAsyncContextManager[Running]:
    of = {"endpoints": [up.url], "push": "through", "hold_for": "10s", **(upstream or {})}
    return running(folder, {"up": of}, {"auth": MODE, **settings})


def who(up: FaultyUpstream, request: Request) -> str | None:
    """Whose token a request brought, "" for none."""
    assert up.tokens is not None
    token = request.headers.get("authorization", "").removeprefix("Bearer ")
    issued = up.tokens._issued.get(token)
    return "" if issued is None else issued.user


def askers(up: FaultyUpstream, method: str, path: str) -> set[str | None]:
    """Whose tokens the requests that were answered well have brought."""
    asked = up.matching(method=method, path=path)
    return {who(up, request) for request in asked if (request.status or 500) < 300}


# What is fetched.


@pytest.mark.parametrize("artifact", [raw(wasm_module(300_000)), compat(wasm_module(300_000))], ids=["raw", "archive"])
async def test_whose_password_is_changed_during_a_fill_hears_it_and_the_next_client_gets_the_blob(
    tmp_path: Path, artifact: Any
) -> None:
    layer = artifact.layers[0]
    target = f"/v2/{NAME}/blobs/{layer}"
    async with lending(tmp_path, {"push": "deny"}) as (up, mirror):
        publish(up, "team/plugin", "1", artifact)
        gate = Gate()
        up.inject(Fault(hold=gate, drop=True), method="GET", path="/blobs/", times=1)
        first = asyncio.create_task(mirror.get(target, ALICE))
        await gate.reached()
        second = asyncio.create_task(mirror.get(target, BOB))
        await eventually(lambda: "bob" in askers(up, "HEAD", "/blobs/"), what="bob was let in")
        assert (await mirror.get(f"/v2/{NAME}/tags/list", ALICE)).status == 200  # she is the latest lender
        assert up.tokens is not None
        up.tokens.users["alice"] = "another"
        up.tokens.revoke()
        gate.release()
        refused, got = await asyncio.gather(first, second)
        assert (got.status, got.body) == (200, artifact.blobs[layer])
        assert (refused.status, refused.code) == (401, "UNAUTHORIZED")
        assert "up does not let" in refused.message
        assert askers(up, "GET", "/blobs/") == {"bob"}
        assert (await mirror.get(target, ALICE)).status == 401
        assert (await mirror.get(target, basic("alice", "another"))).status == 200


async def test_a_body_that_was_cut_goes_on_with_anothers_credentials(tmp_path: Path) -> None:
    artifact = raw(wasm_module(900_000))
    layer = artifact.layers[0]
    target = f"/v2/{NAME}/blobs/{layer}"
    async with lending(tmp_path, {"push": "deny"}) as (up, mirror):
        publish(up, "team/plugin", "1", artifact)
        gate = Gate()
        up.inject(Fault(gate=gate, gate_at=200_000, cut_after=300_000), method="GET", path="/blobs/", times=1)
        first = asyncio.create_task(mirror.get(target, ALICE))
        await gate.reached()
        second = asyncio.create_task(mirror.get(target, BOB))
        await eventually(lambda: "bob" in askers(up, "HEAD", "/blobs/"), what="bob was let in")
        assert up.tokens is not None
        up.tokens.users["alice"] = "another"
        up.tokens.revoke()
        gate.release()
        for reply in await asyncio.gather(first, second):
            assert (reply.status, reply.whole, reply.body) == (200, True, artifact.blobs[layer])


async def test_the_next_client_gets_the_manifest_when_the_first_ones_credentials_are_refused(tmp_path: Path) -> None:
    artifact = raw(wasm_module(100))
    target = f"/v2/{NAME}/manifests/1"
    async with lending(tmp_path, {"push": "deny", "fresh_for": "0s"}) as (up, mirror):
        publish(up, "team/plugin", "1", artifact)
        assert (await mirror.get(target, BOB)).status == 200
        assert (await mirror.get(target, ALICE)).status == 200  # the latest lender
        assert up.tokens is not None
        up.tokens.users["alice"] = "another"
        up.tokens.revoke()
        replies = await asyncio.gather(*(mirror.get(target, one) for one in (BOB, ALICE, BOB, ALICE)))
        assert [reply.status for reply in replies] == [200, 401, 200, 401]


# What is pushed.


async def test_two_authors_push_at_once_each_with_their_own_credentials(tmp_path: Path) -> None:
    artifacts = {"team/plugin": compat(wasm_module(50_000)), "bobs/plugin": raw(wasm_module(60_000))}
    async with lending(tmp_path) as (up, mirror):
        authors = [Author(mirror, "up/team/plugin", ALICE), Author(mirror, "up/bobs/plugin", BOB)]
        replies = await asyncio.gather(
            *(author.push(artifact, "1") for author, artifact in zip(authors, artifacts.values(), strict=True))
        )
        assert [reply.status for reply in replies] == [201, 201]
        for method in ("POST", "PATCH", "PUT"):
            assert askers(up, method, "/v2/team/") <= {"alice"}
            assert askers(up, method, "/v2/bobs/") <= {"bob"}
        assert askers(up, "PUT", "/manifests/") == {"alice", "bob"}
        pushed = artifacts["team/plugin"]
        up.reset()
        for target in (f"manifests/{pushed.digest}", f"blobs/{pushed.layers[0]}"):
            assert (await mirror.get(f"/v2/{NAME}/{target}", BOB)).status == 200
            assert (await mirror.get(f"/v2/up/bobs/plugin/{target}", ALICE)).status in (401, 404)
        assert not up.matching(method="GET", path="/(manifests|blobs)/")  # all of it was kept here


async def test_the_mirrors_own_credentials_push_nothing_where_the_authors_count(tmp_path: Path) -> None:
    own = {"credentials": {"username": "robot", "password": PASSWORDS["robot"]}}
    async with lending(tmp_path, own) as (up, mirror):
        assert up.tokens is not None
        up.tokens.rights = {"team/plugin": {"robot": ALL, "alice": ALL}}
        assert (await Author(mirror, NAME, BOB).ask("POST", "blobs/uploads/")).status == 401
        assert (await Author(mirror, NAME, ALICE).push(raw(wasm_module(100)), "1")).status == 201
        for method in ("POST", "PATCH", "PUT"):
            assert askers(up, method, "/v2/") <= {"alice"}


async def test_a_refused_author_gets_upstreams_words_and_nothing_is_kept(tmp_path: Path) -> None:
    artifact = raw(wasm_module(1000))
    async with lending(tmp_path) as (up, mirror):
        for headers in (BOB, STRANGER, {}):
            reply = await Author(mirror, NAME, headers).ask("POST", "blobs/uploads/")
            assert (reply.status, reply.code) == (401, "UNAUTHORIZED"), reply
            assert reply.header("www-authenticate") == "Basic realm=wasm-mirror"
        publish(up, "team/plugin", "0", artifact)
        for headers in (BOB, STRANGER, {}):
            assert (await Author(mirror, NAME, headers).manifest(artifact, "1")).status == 401
        reply = await Author(mirror, NAME, BOB).ask("POST", "blobs/uploads/")
        assert "the fake registry says so" in reply.message
        assert "credentials" in reply.message
        assert "upstreams.up.credentials" not in reply.message
        up.inject(Fault(status=403, code="DENIED"), method="POST")
        reply = await Author(mirror, NAME, ALICE).ask("POST", "blobs/uploads/")
        assert (reply.status, reply.code) == (403, "DENIED")
        up.clear()
        assert (await mirror.get(f"/v2/{NAME}/manifests/1", ALICE)).status == 404
        for target in ("manifests/0", f"manifests/{artifact.digest}", f"blobs/{artifact.layers[0]}"):
            assert (await Author(mirror, NAME, BOB).ask("DELETE", target)).status == 401
        for target in (f"manifests/{artifact.digest}", f"blobs/{artifact.layers[0]}"):
            assert (await mirror.get(f"/v2/{NAME}/{target}", BOB)).status == 200
            assert (await Author(mirror, NAME, ALICE).ask("DELETE", target)).status == 202


async def test_one_who_is_refused_does_not_disturb_another_who_pushes(tmp_path: Path) -> None:
    async with lending(tmp_path) as (_, mirror):
        alice, wrong = Author(mirror, NAME, ALICE), Author(mirror, NAME, basic("alice", "wrong"))
        upload = await alice.begin()
        for start in range(0, 5000, 1000):
            assert (await wrong.ask("POST", "blobs/uploads/")).status == 401
            assert (await wrong.ask("PATCH", upload, OCTETS, b"x")).status in (401, 404)
            reply = await alice.ask("PATCH", upload, OCTETS, BLOB[start : start + 1000])
            assert reply.status == 202, reply
            upload = reply.header("location") or ""
        assert (await alice.finish(upload, Digest.of(BLOB[:5000]))).status == 201


async def test_an_upload_goes_on_after_a_restart_for_its_author_and_for_nobody_else(tmp_path: Path) -> None:
    with FaultyUpstream() as up:
        up.take_pushes()
        up.require_bearer(TokenService(users=dict(PASSWORDS), rights={"team/plugin": {"alice": ALL, "bob": ALL}}))
        async with mirroring(tmp_path, up) as mirror:
            alice, bob = (Author(mirror, NAME, headers) for headers in (ALICE, BOB))
            upload = await alice.begin()
            assert (await alice.ask("PATCH", upload, OCTETS, BLOB[:1000])).status == 202
        up.reset()
        async with mirroring(tmp_path, up) as mirror:
            alice, bob = (Author(mirror, NAME, headers) for headers in (ALICE, BOB))
            for method, body in (("GET", b""), ("PATCH", BLOB[1000:2000]), ("DELETE", b"")):
                reply = await bob.ask(method, upload, OCTETS if body else {}, body)
                assert (reply.status, reply.code) == (404, "BLOB_UPLOAD_UNKNOWN")
            reply = await alice.ask("PATCH", upload, OCTETS, BLOB[1000:2000])
            assert reply.status == 202, reply
            assert (await alice.finish(upload, DIGEST, BLOB[2000:])).status == 201
            assert (await mirror.get(f"/v2/{NAME}/blobs/{DIGEST}", BOB)).body == BLOB
        assert (askers(up, "PATCH", "/uploads/"), askers(up, "PUT", "/uploads/")) == ({"alice"}, {"alice"})


class Origins:
    """Stands in for `Authors`, an origin that mounts nothing; for the uploads of this disk too: ``begun`` are they."""

    def __init__(self) -> None:
        self.begun: list[tuple[str, str]] = []
        self._who = ""

    def origin(self, principal: str) -> "Origins":
        self._who = principal
        return self

    async def mount(self, *_: object) -> Progress:
        return Progress(f"mount of {self._who}", 0)

    async def begin(self, room: str, principal: str = "", notes: Mapping[str, str] | None = None, **_: str) -> Any:
        if notes is not None:
            self.begun.append((principal, notes["location"]))
        return Progress(f"upload of {self._who}", 0)


async def test_what_upstream_began_for_one_author_is_not_given_to_another() -> None:
    origins = Origins()
    upstream = SimpleNamespace(allows=lambda _: True, policy=Policy())
    nothing = dict.fromkeys(("tags", "manifests", "metadata", "leases", "disk"))
    here = SimpleNamespace(uploads=origins, now=lambda: 0.0, max_blob_size=1, **nothing)
    through = Through(cast(Upstream, upstream), cast(Authors, origins), cast(Here, here), may_push=True)
    place, source = Place("up", "team/plugin"), Place("up", "team/base")
    await through.mount(place, "alice", DIGEST, source, lambda _: True)
    for who in ("bob", "alice", "alice"):
        await through.begin(place, who, algorithm="sha256")
    assert origins.begun == [("bob", "upload of bob"), ("alice", "mount of alice"), ("alice", "upload of alice")]


async def test_what_agents_would_say_of_a_layer_is_not_told_to_who_could_not_pull_it(tmp_path: Path) -> None:
    artifact = raw(b"\0asm\1\0\0\0" + b"\xff" * 100)
    async with lending(tmp_path, wasm={"check": "enforce"}) as (up, mirror):
        publish(up, "team/plugin", "1", artifact)
        assert (await mirror.get(f"/v2/{NAME}/blobs/{artifact.layers[0]}", ALICE)).status == 200
        for headers in (STRANGER, {}):
            reply = await Author(mirror, NAME, headers).manifest(artifact, "2")
            assert (reply.status, reply.code) == (401, "UNAUTHORIZED"), reply
        reply = await Author(mirror, NAME, ALICE).manifest(artifact, "2")
        assert (reply.status, reply.code) == (400, "MANIFEST_INVALID")


@pytest.mark.integration
async def test_authors_of_a_real_registry_push_and_pull_with_their_own_passwords(tmp_path: Path) -> None:
    artifact = compat(wasm_module(2_000_000))
    with DockerRegistry(tmp_path / "registry", users={"alice": "a-secret", "bob": "b-secret"}) as real:
        of = {"endpoints": [real.url], "push": "through"}
        async with running(tmp_path, {"up": of}, {"auth": MODE}) as mirror:
            for headers in (basic("alice", "b-secret"), basic("mallory", "a-secret"), {}):
                assert (await Author(mirror, NAME, headers).ask("POST", "blobs/uploads/")).status == 401
                assert (await mirror.get(f"/v2/{NAME}/manifests/1", headers)).status == 401
            replies = await asyncio.gather(
                Author(mirror, NAME, basic("alice", "a-secret")).push(artifact, "1"),
                Author(mirror, "up/bobs/plugin", basic("bob", "b-secret")).push(artifact, "1"),
            )
            assert [reply.status for reply in replies] == [201, 201]
            for headers in (basic("alice", "a-secret"), basic("bob", "b-secret")):
                reply = await mirror.get(f"/v2/{NAME}/blobs/{artifact.layers[0]}", headers)
                assert (reply.status, reply.body) == (200, artifact.blobs[artifact.layers[0]])
