"""``auth.mode: upstream``, through the whole mirror: who reads what another has brought here; what stands in an outage.

Three who ask: alice, whom the registry lets pull, bob, whom it knows and does not let, and everybody else.
"""

import asyncio
import base64
import json
import logging
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path

import httpx
import pytest

from mirror.digest import Digest
from mirror.edge.auth import CHALLENGE
from tests.auth.support import basic, users_file
from tests.support.artifacts import cncf, publish, raw, wasm_module
from tests.support.asking import Reply
from tests.support.faults import Fault
from tests.support.process import MirrorProcess
from tests.support.pushing import Author
from tests.support.registry import DockerRegistry
from tests.support.replicas import replicated
from tests.support.running import Running, running
from tests.support.tokens import TokenService
from tests.support.upstream import FaultyUpstream
from tests.support.waiting import wait_until

pytestmark = pytest.mark.integration

MODULE = wasm_module(2000)
ARTIFACT = raw(MODULE)
PASSWORDS = {"alice": "hunter2-of-alice", "bob": "swordfish-of-bob", "robot": "rosebud-of-robot"}
ALICE, BOB = (basic(user, PASSWORDS[user]) for user in ("alice", "bob"))
STRANGER = basic("mallory", "letmein")
NOBODY: Mapping[str, str] = {}
ROBOT = {"username": "robot", "password": PASSWORDS["robot"]}
PLUGIN, OPEN = "up/acme/plugin", "up/acme/open"
MODE = {"mode": "upstream", "allow_plain_http": True}
QUICK = {"hold_for": "1s"}
RIGHTS: Mapping[str, Mapping[str | None, str]] = {
    "acme/plugin": {"alice": "pull", "robot": "pull"},
    "acme/open": dict.fromkeys((None, *PASSWORDS), "pull"),
}


def reads(name: str) -> list[str]:
    """Every address at which something of a repository can be read."""
    return [
        f"/v2/{name}/manifests/1",
        f"/v2/{name}/manifests/{ARTIFACT.digest}",
        f"/v2/{name}/blobs/{ARTIFACT.layers[0]}",
        f"/v2/{name}/tags/list",
        f"/v2/{name}/referrers/{ARTIFACT.digest}",
        f"/modules/{name}:1",
        f"/modules/{name}:1?info",
        f"/modules/{name}@{ARTIFACT.digest}.wasm",
    ]


@asynccontextmanager
async def registry() -> AsyncIterator[FaultyUpstream]:
    """One with tokens: acme/plugin is alice's (and the robot's), acme/open everyone's."""
    with FaultyUpstream() as up:
        up.require_bearer(TokenService(users=dict(PASSWORDS), rights=RIGHTS))
        for repository in ("acme/plugin", "acme/open"):
            publish(up, repository, "1", ARTIFACT)
        yield up


@asynccontextmanager
async def mirrored(
    folder: Path, up: FaultyUpstream, upstream: Mapping[str, object] | None = None, **auth: object
) -> AsyncIterator[Running]:
    of = {"endpoints": [up.url], **QUICK, **(upstream or {})}
    async with running(folder, {"up": of}, {"auth": {**MODE, **auth}}) as mirror:
        yield mirror


def is_challenge(reply: Reply) -> bool:
    return (reply.status, reply.code, reply.header("www-authenticate")) == (401, "UNAUTHORIZED", CHALLENGE)


@pytest.mark.parametrize("credentials", [{}, {"credentials": ROBOT}], ids=["lent", "the mirror's own"])
async def test_nobody_is_served_what_only_another_may_pull(tmp_path: Path, credentials: Mapping[str, object]) -> None:
    async with registry() as up, mirrored(tmp_path, up, credentials) as mirror:
        for target in reads(PLUGIN):
            for who in (BOB, NOBODY, STRANGER):
                before = await mirror.get(target, who)
                assert is_challenge(before), (target, before)
                assert "up" in before.message
            assert (await mirror.get(target, ALICE)).status == 200, target
            for who in (BOB, NOBODY, STRANGER, basic("alice", "wrong")):
                for method in ("GET", "HEAD"):
                    after = await mirror.ask(method, target, who)
                    assert after.status == 401, (target, who)
        for target in reads(OPEN):
            for who in (ALICE, BOB, NOBODY):
                assert (await mirror.get(target, who)).status == 200, (target, who)
            assert (await mirror.get(target, STRANGER)).status == 401, target  # a wrong password is one, even here


async def test_who_may_push_and_not_pull_hears_that_a_blob_is_not_there(tmp_path: Path) -> None:
    layer = f"/v2/{PLUGIN}/blobs/{ARTIFACT.layers[0]}"
    async with registry() as up:
        async with mirrored(tmp_path, up, {"push": "through"}) as mirror:
            assert (await mirror.get(layer, ALICE)).status == 200
            assert (await mirror.head(layer, BOB)).status == 404
            for who in (STRANGER, NOBODY, basic("bob", "wrong")):
                assert (await mirror.head(layer, who)).status == 401
            assert is_challenge(await mirror.get(layer, BOB))
            assert (await mirror.head(f"/v2/{PLUGIN}/manifests/1", BOB)).status == 401
        async with mirrored(tmp_path, up) as mirror:
            assert (await mirror.head(layer, BOB)).status == 401


async def test_the_registrys_own_challenge_reaches_nobody(tmp_path: Path) -> None:
    async with registry() as up, mirrored(tmp_path, up) as mirror:
        for target in ("/v2/", *reads(PLUGIN)):
            for who in (NOBODY, BOB):
                reply = await mirror.get(target, who)
                assert up.host not in repr(reply)
                assert "Bearer" not in repr(reply)


async def test_what_a_registry_forbids_is_forbidden_with_its_name(tmp_path: Path) -> None:
    async with registry() as up, mirrored(tmp_path, up) as mirror:
        assert (await mirror.get(f"/v2/{PLUGIN}/manifests/1", ALICE)).status == 200
        up.inject(Fault(status=403, code="DENIED"), path="/v2/acme/plugin/")
        reply = await mirror.get(f"/v2/{PLUGIN}/manifests/1", BOB)
        assert (reply.status, reply.code, reply.header("www-authenticate")) == (403, "DENIED", None)
        assert "up does not let these credentials pull up/acme/plugin" in reply.message
        assert is_challenge(await mirror.get(f"/v2/{PLUGIN}/manifests/1"))


@pytest.mark.shows("with `auth.mode: upstream`, a registry shuts out a client that it let pull")
async def test_a_right_that_is_taken_away_ends_with_its_verdict(tmp_path: Path) -> None:
    async with registry() as up, mirrored(tmp_path, up, verdict_for="0s") as mirror:
        assert (await mirror.get(f"/v2/{PLUGIN}/manifests/1", ALICE)).status == 200
        assert up.tokens is not None
        up.tokens.rights = {**RIGHTS, "acme/plugin": {"robot": "pull"}}
        for target in reads(PLUGIN):
            assert is_challenge(await mirror.get(target, ALICE))
        up.tokens.users["alice"] = "another"
        assert is_challenge(await mirror.get(f"/v2/{OPEN}/manifests/1", ALICE))


@pytest.mark.shows("with `auth.mode: upstream`, a registry does not answer")
async def test_in_an_outage_whoever_could_pull_still_can_and_nobody_else(tmp_path: Path) -> None:
    target = f"/v2/{PLUGIN}/manifests/1"
    async with registry() as up:
        async with mirrored(tmp_path, up, verdict_for="0s") as mirror:
            assert (await mirror.get(target, ALICE)).status == 200
            assert (await mirror.get(f"/v2/{PLUGIN}/blobs/{ARTIFACT.layers[0]}", ALICE)).status == 200
            assert is_challenge(await mirror.get(target, BOB))
            up.refuse()
            assert is_challenge(await mirror.get(target, BOB))  # for as long as a no counts
            await is_an_outage(mirror)
        async with mirrored(tmp_path, up, verdict_for="0s") as mirror:  # and a restart changes nothing
            await is_an_outage(mirror, BOB)
        async with mirrored(tmp_path, up, verdict_for="0s", stale_verdict_for="0s") as mirror:
            assert (await mirror.get(target, ALICE)).status == 503


async def is_an_outage(mirror: Running, *others: Mapping[str, str]) -> None:
    for target in (f"/v2/{PLUGIN}/manifests/1", f"/v2/{PLUGIN}/blobs/{ARTIFACT.layers[0]}", f"/modules/{PLUGIN}:1"):
        assert (await mirror.get(target, ALICE)).status == 200
    for who in (STRANGER, NOBODY, *others):
        reply = await mirror.get(f"/v2/{PLUGIN}/manifests/1", who)
        assert (reply.status, reply.code) == (503, "UPSTREAM_UNAVAILABLE"), reply
        assert reply.header("retry-after")
        assert "nobody knows whether you may pull up/acme/plugin" in reply.message
        assert reply.header("www-authenticate") is None


async def test_many_pulls_with_one_secret_are_one_question(tmp_path: Path) -> None:
    async with registry() as up, mirrored(tmp_path, up) as mirror:
        target = f"/v2/{PLUGIN}/manifests/1"
        replies = await asyncio.gather(*(mirror.get(target, ALICE) for _ in range(100)))
        assert {reply.status for reply in replies} == {200}
        assert (await mirror.get(f"/v2/{PLUGIN}/blobs/{ARTIFACT.layers[0]}", ALICE)).status == 200
        assert up.count(method="HEAD", path="/v2/acme/plugin/", status=200) == 1


async def test_a_login_tells_the_truth(tmp_path: Path) -> None:
    async with registry() as up, mirrored(tmp_path, up) as mirror:
        assert is_challenge(await mirror.get("/v2/"))
        for who, status in ((ALICE, 200), (BOB, 200), (STRANGER, 401), (basic("alice", "wrong"), 401)):
            assert (await mirror.get("/v2/", who)).status == status
        for malformed in (
            "Bearer x",
            "Basic x",
            basic("alice", "\udcff" * 3)["authorization"] if False else "Basic /w==",
        ):
            assert is_challenge(await mirror.get("/v2/", {"authorization": malformed}))
        up.refuse()
        assert (await mirror.get("/v2/", ALICE)).status == 200
        assert (await mirror.get("/v2/", basic("carol", "x"))).status == 503


async def test_a_login_is_for_the_registry_that_is_named_and_for_any_where_none_is(tmp_path: Path) -> None:
    async with registry() as up, registry() as other:
        assert other.tokens is not None
        other.tokens.users = {"carol": "of-carol"}
        carol = basic("carol", "of-carol")
        upstreams = {"up.example": up, "other.example": other}
        async with running(tmp_path, upstreams, {"auth": MODE}) as mirror:
            assert (await mirror.get("/v2/", STRANGER)).status == 200  # nothing can be said
            assert (await mirror.get("/v2/?ns=other.example", carol)).status == 200
            assert (await mirror.get("/v2/?ns=up.example", carol)).status == 401
            assert (await mirror.get("/v2/", {**carol, "host": "other.example"})).status == 200
            assert (await mirror.get("/v2/", {**carol, "host": "up.example"})).status == 401
        async with running(tmp_path, upstreams, {"auth": MODE, "default_upstream": "up.example"}) as mirror:
            assert (await mirror.get("/v2/", carol)).status == 401
            assert is_challenge(await mirror.get("/v2/"))


async def test_what_is_hosted_has_no_registry_to_ask_so_it_is_everyones_or_the_files(tmp_path: Path) -> None:
    async with registry() as up:
        async with mirrored(tmp_path, up) as mirror:
            await Author(mirror).push(ARTIFACT, "1")
            for who in (NOBODY, STRANGER):
                assert (await mirror.get("/v2/hosted/team/plugin/manifests/1", who)).status == 200
        file = str(users_file(tmp_path, {"anna": "of-anna"}))
        anna = basic("anna", "of-anna")
        rules = [{"who": ["anna"], "repositories": ["hosted/team/*"], "may": ["pull", "push"]}]
        async with mirrored(tmp_path, up, file=file, rules=rules) as mirror:
            target = "/v2/hosted/team/plugin/manifests/1"
            for who in (NOBODY, ALICE):
                assert is_challenge(await mirror.get(target, who))
            assert (await mirror.get(target, anna)).status == 200
            assert (await mirror.get("/v2/hosted/other/plugin/manifests/1", anna)).status == 403
            assert (await mirror.get("/v2/", anna)).status == 200
            assert (await mirror.get("/v2/", ALICE)).status == 200
            assert is_challenge(await mirror.get(f"/v2/{PLUGIN}/manifests/1", anna))
            assert up.count(path="/v2/team") == 0


async def test_a_password_goes_to_the_origin_and_nowhere_else(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    with FaultyUpstream() as first, FaultyUpstream() as storage, FaultyUpstream() as realm:
        async with registry() as up:
            publish(storage, "acme/plugin", "1", ARTIFACT)
            first.inject(Fault(status=503))
            up.inject(Fault(redirect=storage.url + "{path}"), path="/blobs/", method="HEAD")
            upstream = {"endpoints": [first.url, {"url": up.url, "redirect_hosts": [storage.host]}]}
            async with mirrored(tmp_path, up, upstream) as mirror:
                assert (await mirror.get(f"/v2/{PLUGIN}/blobs/{ARTIFACT.layers[0]}", ALICE)).status == 200
                assert (await mirror.get(f"/v2/{PLUGIN}/manifests/1", ALICE)).status == 200
            assert storage.requests
            realm.tokens = up.tokens
            up.require_bearer(up.tokens, realm=f"{realm.url}/token")
            async with mirrored(tmp_path / "foreign", up) as mirror:
                assert (await mirror.get(f"/v2/{PLUGIN}/manifests/1", ALICE)).status == 401
            for other in (first, storage, realm):
                for request in other.requests:
                    assert "authorization" not in request.headers or "Basic" not in request.headers["authorization"]
                    assert PASSWORDS["alice"].encode() not in bytes(request.body)
    assert_untold(caplog.text)


def assert_untold(text: str) -> None:
    for user, password in PASSWORDS.items():
        pair = base64.b64encode(f"{user}:{password}".encode()).decode()
        assert password not in text
        assert pair not in text


async def test_nothing_secret_is_logged_or_written_down_and_a_failed_login_is_said_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    async with registry() as up, mirrored(tmp_path, up) as mirror:
        told = [await mirror.get(target, who) for target in reads(PLUGIN) for who in (ALICE, BOB, STRANGER)]
        told += [await mirror.get("/v2/", basic("alice", PASSWORDS["bob"]))]
        assert_untold(repr(told))
        failed = [line.getMessage() for line in caplog.records if "login" in line.getMessage()]
        assert "a login as 'mallory' from 127.0.0.1 has failed: refused by up" in failed
        assert len([line for line in failed if "'mallory'" in line]) == 1
    assert_untold(caplog.text)
    for file in (tmp_path / "data").rglob("*"):
        if file.is_file():
            content = file.read_bytes()
            assert not [text for text in (*PASSWORDS.values(), "mallory") if text.encode() in content], file


async def test_a_tag_that_is_made_here_is_read_by_whoever_may_read_its_original(tmp_path: Path) -> None:
    async with registry() as up:
        wasm = {"wasm": {"repackage": "agents"}}
        publish(up, "acme/plugin", "2", cncf(MODULE))
        of = {"endpoints": [up.url], **QUICK}
        settings = {"auth": {**MODE, "verdict_for": "0s"}, **wasm}
        async with running(tmp_path, {"up": of}, settings) as mirror:
            reply = await mirror.get(f"/v2/{PLUGIN}/manifests/2-istio", ALICE)
            assert reply.status == 200
            for layer in json.loads(reply.body)["layers"]:
                target = f"/v2/{PLUGIN}/blobs/{layer['digest']}"
                assert (await mirror.get(target, ALICE)).status == 200
                assert is_challenge(await mirror.get(target, BOB))
            assert is_challenge(await mirror.get(f"/v2/{PLUGIN}/manifests/2-istio", BOB))
            pinned = f"/v2/{PLUGIN}/manifests/{Digest.of(reply.body)}"
            assert is_challenge(await mirror.get(pinned, BOB))
        async with running(tmp_path, {"up": of}, settings) as mirror:  # one that has forgotten what it made
            assert (await mirror.get(pinned, ALICE)).status == 200
            assert (await mirror.get(target, ALICE)).status == 200


@pytest.mark.needs("docker-registry")
def test_a_real_registry_decides_for_all_workers_and_after_a_kill(tmp_path: Path) -> None:
    with DockerRegistry(tmp_path / "registry", users={"alice": PASSWORDS["alice"]}) as real:
        real.push("acme/plugin", "1", ARTIFACT)
        upstreams = {"up": {"endpoints": [real.url], **QUICK}}
        settings = {"workers": 2, "auth": {**MODE, "verdict_for": "1s"}}
        target = f"/v2/{PLUGIN}/manifests/1"
        with (
            MirrorProcess(tmp_path / "mirror", upstreams, settings) as mirror,
            httpx.Client(base_url=mirror.url) as client,
        ):
            for who, status in ((ALICE, 200), (BOB, 401), (NOBODY, 401), (basic("alice", "wrong"), 401)):
                assert client.get(target, headers=who).status_code == status
            layer = f"/v2/{PLUGIN}/blobs/{ARTIFACT.layers[0]}"
            assert Digest.of(client.get(layer, headers=ALICE).content) == ARTIFACT.layers[0]
            real.stop()
            mirror.kill()
            mirror.start()
            for _ in range(8):
                assert client.get(target, headers=ALICE).status_code == 200
                assert client.get(layer, headers={**ALICE, "connection": "close"}).status_code == 200
            assert client.get(target, headers=BOB).status_code == 503
            assert (mirror.data_dir / "verdicts.key").stat().st_mode & 0o777 == 0o600


@pytest.mark.needs("redis-server")
def test_a_yes_that_one_replica_has_heard_stands_at_all_of_them(tmp_path: Path) -> None:
    settings = {"auth": {**MODE, "verdict_for": "1s"}, "defaults": {**QUICK, "fresh_for": "1h"}}
    target = f"/v2/{PLUGIN}/manifests/1"
    with replicated(tmp_path, settings=settings) as (up, redis, replicas), httpx.Client() as client:
        up.require_bearer(TokenService(users=dict(PASSWORDS), rights=RIGHTS))
        publish(up, "acme/plugin", "1", ARTIFACT)
        for who, status in ((ALICE, 200), (BOB, 401)):
            assert client.get(replicas.urls[0] + target, headers=who).status_code == status
        layer = f"/v2/{PLUGIN}/blobs/{ARTIFACT.layers[0]}"
        assert client.get(replicas.urls[0] + layer, headers=ALICE).status_code == 200
        up.refuse()

        def are_served() -> bool:
            pulls = [client.get(url + path, headers=ALICE) for url in replicas.urls for path in (target, layer)]
            return {pull.status_code for pull in pulls} == {200}

        wait_until(are_served, what="alice is served by all replicas")
        for url in replicas.urls[1:]:
            assert client.get(url + target, headers=BOB).status_code == 503
        with redis.client() as store:
            kept = [store.hgetall(key) for key in store.scan_iter("*:kept")]
        assert kept
        assert_untold(repr(kept))
