"""When a tag is served, and when upstream is asked about it: the table of a record's ages, line by line."""

import asyncio
from pathlib import Path

import pytest

from mirror.digest import Digest
from tests.integration.client import blob, manifest, pull, settled, until
from tests.integration.mirrored import again, mirrored
from tests.support.artifacts import publish, raw, wasm_module
from tests.support.faults import Fault, Gate
from tests.support.tokens import TokenService
from tests.support.upstream import FaultyUpstream

NAME = "up/team/plugin"
ALWAYS_ASK = {"fresh_for": "0s"}

OLD = raw(wasm_module(3000, seed=1))
NEW = raw(wasm_module(3000, seed=2))


def push(up: FaultyUpstream, tag: str = "v1") -> Digest:
    return publish(up, "team/plugin", tag, OLD)


async def test_a_fresh_tag_is_served_without_asking(tmp_path: Path) -> None:
    async with mirrored(tmp_path, defaults={"fresh_for": "1h"}) as (up, url):
        digest = push(up)
        first = await manifest(url, NAME, "v1")
        publish(up, "team/plugin", "v1", NEW)
        for _ in range(10):
            second = await manifest(url, NAME, "v1")
        assert first.cache_status.startswith("fwd=miss; fwd-status=200; stored; ttl=35")
        assert second.cache_status.startswith("hit; ttl=35")
        assert first.body == second.body == OLD.body
        assert second.headers["docker-content-digest"] == str(digest)
        assert up.count(path="/manifests/") == 1


async def test_after_fresh_for_one_head_confirms_the_record(tmp_path: Path) -> None:
    async with mirrored(tmp_path, defaults=ALWAYS_ASK) as (up, url):
        push(up)
        await manifest(url, NAME, "v1")
        got = await manifest(url, NAME, "v1")
        assert (got.status, got.body) == (200, OLD.body)
        assert got.cache_status == "fwd=stale; fwd-status=200; ttl=0; detail=revalidated"
        assert up.count(method="HEAD", path="/manifests/v1") == 1
        assert up.count(method="GET", path="/manifests/") == 1


async def test_one_head_is_asked_for_all_who_wait(tmp_path: Path) -> None:
    settings = {"fresh_for": "0s", "revalidate_for": "20s"}
    async with mirrored(tmp_path, defaults=settings) as (up, url):
        push(up)
        await manifest(url, NAME, "v1")
        gate = Gate()
        up.inject(Fault(hold=gate), method="HEAD")
        waiting = [asyncio.create_task(manifest(url, NAME, "v1")) for _ in range(50)]
        await gate.reached()
        await settled(url)
        gate.release()
        assert {got.status for got in await asyncio.gather(*waiting)} == {200}
        assert up.count(method="HEAD") == 1
        assert up.count(method="GET", path="/manifests/") == 1


async def test_a_registry_that_refuses_head_is_asked_by_get(tmp_path: Path) -> None:
    async with mirrored(tmp_path, defaults=ALWAYS_ASK) as (up, url):
        push(up)
        await manifest(url, NAME, "v1")
        up.inject(Fault(status=405), method="HEAD")
        got = await manifest(url, NAME, "v1")
        assert got.cache_status.endswith("detail=revalidated")


async def test_with_stale_while_revalidate_the_record_is_served_at_once_and_asked_about_behind(tmp_path: Path) -> None:
    settings = {"fresh_for": "0s", "stale_while_revalidate": "1h"}
    async with mirrored(tmp_path, defaults=settings) as (up, url):
        push(up)
        await manifest(url, NAME, "v1")
        publish(up, "team/plugin", "v1", NEW)
        gate = Gate()
        up.inject(Fault(hold=gate), method="HEAD")
        during = [await manifest(url, NAME, "v1") for _ in range(3)]
        assert {got.body for got in during} == {OLD.body}
        assert all(got.cache_status.startswith("hit") for got in during)
        await gate.reached()
        assert gate.arrived == 1
        gate.release()
        await until(lambda: manifest(url, NAME, "v1"), lambda got: got.body == NEW.body)


OUTAGES = {
    "500": Fault(status=500),
    "502": Fault(status=502),
    "503": Fault(status=503, retry_after=60),
    "504": Fault(status=504),
    "429": Fault(status=429, code="TOOMANYREQUESTS", retry_after=60),
    "cut": Fault(drop=True),
    "reset": Fault(drop=True, reset=True),
    "hangs": Fault(hang=True),
    "a page of HTML": Fault(html=True),
}


@pytest.mark.parametrize("outage", OUTAGES.values(), ids=OUTAGES.keys())
async def test_a_failing_upstream_leaves_the_record_in_service(tmp_path: Path, outage: Fault) -> None:
    settings = {"fresh_for": "0s", "revalidate_for": "500ms"}
    async with mirrored(tmp_path, defaults=settings) as (up, url):
        push(up)
        await manifest(url, NAME, "v1")
        up.inject(outage)
        for _ in range(3):
            got = await manifest(url, NAME, "v1")
            assert (got.status, got.body) == (200, OLD.body)
            assert got.cache_status.startswith("fwd=stale; detail=upstream_")
            assert got.seconds < 3
        assert up.count(method="GET", path="/manifests/") <= 1 + 3 * outage.html


async def test_an_upstream_that_refuses_connections_leaves_the_record_in_service(tmp_path: Path) -> None:
    async with mirrored(tmp_path, defaults=ALWAYS_ASK) as (up, url):
        push(up)
        await manifest(url, NAME, "v1")
        up.refuse()
        got = await manifest(url, NAME, "v1")
        assert (got.status, got.body) == (200, OLD.body)
        assert got.cache_status == "fwd=stale; detail=upstream_unavailable"


async def test_an_upstream_that_does_not_resolve_leaves_the_record_in_service(tmp_path: Path) -> None:
    async with mirrored(tmp_path) as (up, url):
        push(up)
        await manifest(url, NAME, "v1")
    async with again(tmp_path, "http://registry.invalid", defaults=ALWAYS_ASK) as url:
        got = await manifest(url, NAME, "v1")
        assert (got.status, got.body) == (200, OLD.body)
        assert got.cache_status.startswith("fwd=stale; detail=upstream_")


@pytest.mark.shows("a token service is down")
async def test_a_token_service_that_is_down_counts_as_an_upstream_that_is_down(tmp_path: Path) -> None:
    tokens = TokenService(expires_in=1)
    async with mirrored(tmp_path, defaults=ALWAYS_ASK) as (up, url):
        push(up)
        up.require_bearer(tokens)
        await manifest(url, NAME, "v1")
        tokens.revoke()
        up.inject(Fault(status=503), path="/token")
        got = await manifest(url, NAME, "v1")
        assert (got.status, got.body) == (200, OLD.body)
        assert got.cache_status == "fwd=stale; detail=upstream_unavailable"


async def test_a_record_older_than_stale_if_error_is_not_served_during_an_outage(tmp_path: Path) -> None:
    settings = {"fresh_for": "0s", "stale_if_error": "0s", "hold_for": "1s"}
    async with mirrored(tmp_path, defaults=settings) as (up, url):
        push(up)
        await manifest(url, NAME, "v1")
        up.inject(Fault(status=503))
        got = await manifest(url, NAME, "v1")
        assert (got.status, got.error[0]) == (503, "UPSTREAM_UNAVAILABLE")
        assert up.host in got.error[1]


async def test_a_record_that_may_not_stand_in_is_waited_for_as_one_that_is_not_held(tmp_path: Path) -> None:
    """Neither ``revalidate_for`` nor an earlier failure may cut the wait short when there is nothing to serve."""
    settings = {"fresh_for": "0s", "stale_if_error": "0s", "revalidate_for": "100ms"}
    async with mirrored(tmp_path, defaults=settings) as (up, url):
        push(up)
        await manifest(url, NAME, "v1")
        for fault in (Fault(status=503), Fault(delay=0.5), Fault(status=503)):
            up.clear()
            up.inject(fault, path="/manifests/", times=2)
            got = await manifest(url, NAME, "v1")
            assert (got.status, got.body) == (200, OLD.body)


@pytest.mark.parametrize("status", [401, 403])
@pytest.mark.shows("a registry refuses the mirror's credentials (401, 403)")
async def test_a_refusal_is_never_hidden_behind_a_stale_record(tmp_path: Path, status: int) -> None:
    async with mirrored(tmp_path, defaults=ALWAYS_ASK) as (up, url):
        push(up)
        await manifest(url, NAME, "v1")
        up.inject(Fault(status=status, headers={"www-authenticate": 'Basic realm="upstream"'}))
        for _ in range(3):
            got = await manifest(url, NAME, "v1")
            assert (got.status, got.error[0]) == (403, "DENIED")
            assert "www-authenticate" not in got.headers
            assert up.host in got.error[1]
            assert "credentials" in got.error[1]
        up.clear()
        back = await manifest(url, NAME, "v1")
        assert back.cache_status.endswith("detail=revalidated")
        assert up.count(method="GET", path="/manifests/") == 1


async def test_a_refusal_that_follows_an_outage_ends_the_stale_record(tmp_path: Path) -> None:
    async with mirrored(tmp_path, defaults=ALWAYS_ASK) as (up, url):
        push(up)
        await manifest(url, NAME, "v1")
        up.inject(Fault(status=503))
        assert (await manifest(url, NAME, "v1")).status == 200
        up.clear()
        up.inject(Fault(status=403))
        await until(lambda: manifest(url, NAME, "v1"), lambda got: got.status == 403)
        assert (await manifest(url, NAME, "v1")).status == 403


@pytest.mark.shows("a registry refuses the mirror's credentials (401, 403)")
async def test_a_refusal_may_be_bridged_where_the_settings_say_so(tmp_path: Path) -> None:
    settings = {"fresh_for": "0s", "stale_if_denied": "1h"}
    async with mirrored(tmp_path, defaults=settings) as (up, url):
        push(up)
        await manifest(url, NAME, "v1")
        up.inject(Fault(status=403))
        got = await manifest(url, NAME, "v1")
        assert (got.status, got.cache_status) == (200, "fwd=stale; detail=denied")


@pytest.mark.shows("a tag is deleted at the registry")
async def test_a_deleted_tag_is_gone_and_remembered_to_be(tmp_path: Path) -> None:
    settings = {"fresh_for": "0s", "negative_for": "1h"}
    async with mirrored(tmp_path, defaults=settings) as (up, url):
        push(up)
        await manifest(url, NAME, "v1")
        up.delete_tag("team/plugin", "v1")
        first = await manifest(url, NAME, "v1")
        assert (first.status, first.error[0]) == (404, "MANIFEST_UNKNOWN")
        up.reset()
        again = await manifest(url, NAME, "v1")
        assert (again.status, again.error[0]) == (404, "MANIFEST_UNKNOWN")
        assert up.requests == []


@pytest.mark.shows("a tag is deleted at the registry")
async def test_a_deleted_tag_is_served_where_the_settings_keep_it(tmp_path: Path) -> None:
    settings = {"fresh_for": "0s", "keep_deleted_tags": True}
    async with mirrored(tmp_path, defaults=settings) as (up, url):
        push(up)
        await manifest(url, NAME, "v1")
        up.delete_tag("team/plugin", "v1")
        for _ in range(2):
            got = await manifest(url, NAME, "v1")
            assert (got.status, got.body) == (200, OLD.body)
            assert got.cache_status == "fwd=stale; detail=manifest_unknown"


async def test_what_upstream_lacks_is_not_asked_for_again_for_a_while(tmp_path: Path) -> None:
    settings = {"negative_for": "1h"}
    async with mirrored(tmp_path, defaults=settings) as (up, url):
        push(up)
        missing = Digest.of(b"nowhere")
        for target in ("v2", missing):
            got = [await manifest(url, NAME, target) for _ in range(3)]
            assert {(one.status, one.error[0]) for one in got} == {(404, "MANIFEST_UNKNOWN")}
        assert up.count(path="/manifests/v2") == 1
        assert up.count(path="/manifests/sha256:") == 1


async def test_what_upstream_lacked_can_be_pulled_once_it_is_there(tmp_path: Path) -> None:
    settings = {"negative_for": "300ms"}
    async with mirrored(tmp_path, defaults=settings) as (up, url):
        assert (await manifest(url, NAME, "v1")).status == 404
        push(up)
        await until(lambda: manifest(url, NAME, "v1"), lambda got: got.status == 200)


async def test_an_upstream_that_hangs_costs_one_client_revalidate_for_and_the_later_ones_nothing(
    tmp_path: Path,
) -> None:
    async with mirrored(tmp_path, defaults=ALWAYS_ASK) as (up, url):
        for tag in ("v1", "v2"):
            push(up, tag)
            await manifest(url, NAME, tag)
        up.inject(Fault(hang=True))
        first = await manifest(url, NAME, "v1")
        assert (first.status, first.cache_status) == (200, "fwd=stale; detail=upstream_timeout")
        assert 0.9 < first.seconds < 3
        for tag in ("v1", "v2", "v1"):
            later = await manifest(url, NAME, tag)
            assert (later.status, later.body) == (200, OLD.body)
            assert later.seconds < 0.9
        assert up.count(method="HEAD", path="/manifests/v1") == 1


async def test_the_question_that_was_not_waited_for_goes_on_and_its_answer_counts(tmp_path: Path) -> None:
    async with mirrored(tmp_path, defaults={"fresh_for": "1s", "revalidate_for": "100ms"}) as (up, url):
        push(up)
        await manifest(url, NAME, "v1")
        publish(up, "team/plugin", "v1", NEW)
        gate = Gate()
        up.inject(Fault(hold=gate), method="HEAD")
        await until(
            lambda: manifest(url, NAME, "v1"), lambda got: got.cache_status == "fwd=stale; detail=upstream_timeout"
        )
        gate.release()
        await until(lambda: manifest(url, NAME, "v1"), lambda got: got.body == NEW.body)
        assert up.count(method="HEAD") == 1


async def test_an_upstream_that_answers_again_is_believed_at_once(tmp_path: Path) -> None:
    async with mirrored(tmp_path, defaults=ALWAYS_ASK) as (up, url):
        push(up)
        await manifest(url, NAME, "v1")
        up.refuse()
        assert (await manifest(url, NAME, "v1")).cache_status == "fwd=stale; detail=upstream_unavailable"
        up.accept()
        await until(lambda: manifest(url, NAME, "v1"), lambda got: got.cache_status.endswith("detail=revalidated"))


async def test_an_upstream_that_is_offline_is_never_asked(tmp_path: Path) -> None:
    with FaultyUpstream() as up:
        push(up)
        async with again(tmp_path, up) as url:
            assert (await pull(url, NAME, "v1")).whole
        up.reset()
        async with again(tmp_path, {"endpoints": [up.url], "offline": True}, defaults=ALWAYS_ASK) as url:
            for target in ("v1", OLD.digest):
                got = await pull(url, NAME, target)
                assert got.whole
                assert got.manifest.cache_status.startswith("hit")
            for target in ("v2", Digest.of(b"nowhere")):
                assert (await manifest(url, NAME, target)).error[0] == "MANIFEST_UNKNOWN"
            missing = await blob(url, NAME, Digest.of(b"nowhere"))
            assert (missing.status, missing.error[0]) == (404, "BLOB_UNKNOWN")
        assert up.requests == []
