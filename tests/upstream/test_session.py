"""Tokens, credentials and kept-alive connections, against a registry on a real socket."""

import asyncio
import json
from pathlib import Path

import pytest

from mirror.config import Credentials
from mirror.digest import Digest
from mirror.errors import (
    MirrorError,
    UpstreamDenied,
    UpstreamInvalid,
    UpstreamUnavailable,
)
from mirror.upstream.renewal import REFUSED_AFTER
from mirror.upstream.watched import LOOK_AGAIN_AFTER
from tests.support.faults import Fault, Gate
from tests.support.tokens import TokenService
from tests.support.upstream import FaultyUpstream
from tests.support.waiting import eventually
from tests.upstream.support import (
    BLOB,
    IDENTITY_TOKEN,
    LOGIN,
    MANIFEST,
    MANIFEST_DIGEST,
    PASSWORD,
    REPOSITORY,
    Clock,
    content,
    helper,
    holding,
    pulling_from,
    says,
    within,
)


async def test_a_kept_alive_connection_that_died_costs_no_answer() -> None:
    with FaultyUpstream() as up:
        holding(up)
        async with pulling_from(up) as upstream:
            await upstream.head_manifest(REPOSITORY, "v1")
            with up.inject(Fault(drop=True), times=1):  # the connection is cut as the next request arrives
                assert (await upstream.head_manifest(REPOSITORY, "v1")).digest == MANIFEST_DIGEST
            up.cut_connections()
            assert (await upstream.head_manifest(REPOSITORY, "v1")).digest == MANIFEST_DIGEST


async def test_a_fresh_connection_that_is_dropped_is_a_failure() -> None:
    with FaultyUpstream() as up:
        holding(up).inject(Fault(drop=True))
        async with pulling_from(up) as upstream:
            with pytest.raises(UpstreamUnavailable):
                await upstream.head_manifest(REPOSITORY, "v1")
        assert up.count() == 1


async def test_a_token_is_asked_for_once_and_then_goes_along() -> None:
    with FaultyUpstream() as up:
        holding(up).require_bearer()
        up.add_manifest("other/b", MANIFEST, tag="v1")
        async with pulling_from(up) as upstream:
            await upstream.head_manifest(REPOSITORY, "v1")
            await upstream.get_manifest(REPOSITORY, "v1", deadline=within())
            await content(await upstream.open_blob(REPOSITORY, Digest.of(BLOB), deadline=within()))
            await upstream.get_manifest("other/b", "v1", deadline=within())
        assert up.count(status=401) == 1  # the first; the second repository's scope is foreseen
        assert up.count(path="/token") == 2
        assert up.accepted_connections == 1


async def test_many_questions_at_once_ask_for_one_token() -> None:
    with FaultyUpstream() as up:
        holding(up).require_bearer()
        gate = Gate()
        up.inject(Fault(hold=gate), path="/token")
        async with pulling_from(up) as upstream:
            tasks = [asyncio.ensure_future(upstream.head_manifest(REPOSITORY, "v1")) for _ in range(20)]
            await gate.reached()
            tasks[0].cancel()  # the one that asks may leave
            await eventually(lambda: up.count(status=401) == 20)
            gate.release()
            results = await asyncio.gather(*tasks, return_exceptions=True)
        assert isinstance(results[0], asyncio.CancelledError)
        assert all(not isinstance(result, BaseException) for result in results[1:])
        assert up.count(path="/token") == 1


async def test_a_token_that_was_revoked_is_replaced() -> None:
    with FaultyUpstream() as up:
        tokens = holding(up).require_bearer()
        async with pulling_from(up) as upstream:
            await upstream.head_manifest(REPOSITORY, "v1")
            tokens.revoke()
            await upstream.head_manifest(REPOSITORY, "v1")
        assert up.count(path="/token") == 2


@pytest.mark.parametrize("field", ["token", "access_token", "both"])
async def test_credentials_open_what_is_private(field: str) -> None:
    with FaultyUpstream() as up:
        holding(up).require_bearer(
            TokenService({"robot": PASSWORD}, anonymous=False, token_field=field, expires_in=None)  # type: ignore[arg-type]  # of the three
        )
        async with pulling_from(up, credentials=LOGIN) as upstream:
            assert (await upstream.head_manifest(REPOSITORY, "v1")).digest == MANIFEST_DIGEST
        async with pulling_from(up) as upstream:
            with pytest.raises(UpstreamDenied, match=r"set upstreams\.corp\.credentials"):
                await upstream.head_manifest(REPOSITORY, "v1")


async def test_basic_credentials_are_sent_where_basic_is_asked_for() -> None:
    with FaultyUpstream() as up:
        holding(up).require_basic({"robot": PASSWORD})
        async with pulling_from(up, credentials=LOGIN) as upstream:
            await upstream.head_manifest(REPOSITORY, "v1")
            await upstream.get_manifest(REPOSITORY, "v1", deadline=within())
        assert [request.status for request in up.requests] == [401, 200, 200]


@pytest.mark.parametrize("refused", [404, 405])
async def test_an_identity_token_opens_what_is_private_where_oauth_is_not_spoken(tmp_path: Path, refused: int) -> None:
    path = tmp_path / "config.json"
    with FaultyUpstream() as up:
        holding(up).require_bearer(TokenService({"<token>": IDENTITY_TOKEN}, anonymous=False, accepts_post=False))
        up.inject(Fault(status=refused), method="POST")
        path.write_text(json.dumps({"auths": {up.host: {"identitytoken": IDENTITY_TOKEN}}}))
        async with pulling_from(up, credentials=Credentials(docker_config=path)) as upstream:
            assert (await upstream.head_manifest(REPOSITORY, "v1")).digest == MANIFEST_DIGEST
        assert [request.method for request in up.matching(path="/token")] == ["POST", "GET"]


async def test_an_identity_token_that_is_refused_is_not_tried_in_another_way(tmp_path: Path) -> None:
    path = tmp_path / "config.json"
    with FaultyUpstream() as up:
        holding(up).require_bearer(TokenService(anonymous=False, refresh_token="another"))
        path.write_text(json.dumps({"auths": {up.host: {"identitytoken": IDENTITY_TOKEN}}}))
        async with pulling_from(up, credentials=Credentials(docker_config=path)) as upstream:
            with pytest.raises(UpstreamDenied):
                await upstream.head_manifest(REPOSITORY, "v1")
        assert [request.method for request in up.matching(path="/token")] == ["POST"]


@pytest.mark.parametrize("scheme", ["basic", "bearer"])
async def test_a_password_that_was_rotated_costs_no_answer(tmp_path: Path, scheme: str) -> None:
    path = tmp_path / "password"
    path.write_text("before")
    login, clock = Credentials(username="robot", password_file=path), Clock()
    with FaultyUpstream() as up:
        holding(up)
        users = {"robot": "before"}
        tokens = TokenService(users, anonymous=False)
        up.require_basic(users) if scheme == "basic" else up.require_bearer(tokens)
        async with pulling_from(up, credentials=login, wiring={"clock": clock}) as upstream:
            await upstream.head_manifest(REPOSITORY, "v1")
            path.write_text("afterwards")
            users["robot"] = "afterwards"
            tokens.revoke()
            clock.now += LOOK_AGAIN_AFTER
            assert (await upstream.head_manifest(REPOSITORY, "v1")).digest == MANIFEST_DIGEST


@pytest.mark.parametrize("status", [400, 403])
async def test_a_login_that_has_ended_costs_no_answer_where_the_registry_says_so_as_ecr_does(
    tmp_path: Path, status: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """ECR answers 403 to a helper's login after 12 hours, ECR Public 400 to a token."""
    for name, value in helper(tmp_path, "ecr-login", says("AWS", "first")).items():
        monkeypatch.setenv(name, value)
    clock, users = Clock(), {"AWS": "first"}
    with FaultyUpstream() as up:
        holding(up)
        up.require_basic(users) if status == 403 else up.require_bearer(TokenService(users, anonymous=False))
        async with pulling_from(up, credentials=Credentials(helper="ecr-login"), wiring={"clock": clock}) as upstream:
            await upstream.head_manifest(REPOSITORY, "v1")
            clock.now += REFUSED_AFTER + 1
            if status == 403:
                helper(tmp_path, "ecr-login", says("AWS", "second"))
                users["AWS"] = "second"
            up.inject(Fault(status=status), path="/manifests/", times=1)
            assert (await upstream.head_manifest(REPOSITORY, "v1")).digest == MANIFEST_DIGEST


@pytest.mark.parametrize(
    ("fault", "expected"),
    [
        (Fault(status=500), UpstreamUnavailable),
        (Fault(status=429), UpstreamUnavailable),
        (Fault(drop=True), UpstreamUnavailable),
        (Fault(status=401), UpstreamDenied),
        (Fault(status=403), UpstreamDenied),
        (Fault(status=400), UpstreamInvalid),
        (Fault(html=True), UpstreamInvalid),
        (Fault(gzip=True), UpstreamInvalid),
        (Fault(pad_to=10_000_000), UpstreamInvalid),
    ],
)
async def test_what_the_token_service_does_counts_as_the_upstreams_doing(
    fault: Fault, expected: type[MirrorError]
) -> None:
    with FaultyUpstream() as up:
        holding(up).require_bearer()
        up.inject(fault, path="/token")
        async with pulling_from(up) as upstream:
            with pytest.raises(expected) as failed:
                await upstream.head_manifest(REPOSITORY, "v1")
            assert type(failed.value) is expected
            up.clear()
            assert (await upstream.head_manifest(REPOSITORY, "v1")).digest == MANIFEST_DIGEST
