"""What the doctor says of an endpoint: each case at a real socket."""

import asyncio
import socket
import time
from collections.abc import Sequence
from email.utils import formatdate
from pathlib import Path

import pytest
from pydantic import SecretStr

from mirror.config.upstreams import Credentials
from mirror.doctor.report import Mark
from tests.doctor.support import certificate, endpoint, wanting_certificate
from tests.support.faults import Fault
from tests.support.ports import ReservedPort
from tests.support.tokens import TokenService
from tests.support.upstream import FaultyUpstream

PASSWORD = "correct-horse-battery-staple"
LOGIN = Credentials(username="robot", password=SecretStr(PASSWORD))
V2 = "^/v2/$"


async def test_a_registry_that_anyone_may_read_is_well() -> None:
    with FaultyUpstream() as up:
        found = await endpoint(up)
    assert {finding.mark for finding in found.findings} == {Mark.OK}, found
    assert "127.0.0.1 (private)" in found["DNS"].said
    assert "anyone" in found["auth"].said
    assert "ms" in found["latency"].said
    assert up.count(path=V2) == 4
    assert up.count(path="/manifests/") == 0, "a manifest may count against a limit"


async def test_an_upstream_that_is_offline_is_not_asked() -> None:
    with FaultyUpstream() as up:
        found = await endpoint(up, settings={"offline": True})
        assert up.accepted_connections == 0
    assert "upstreams.corp.offline" in found["offline"].said


# The name and the way.


async def test_a_name_that_does_not_resolve_is_told_with_its_setting() -> None:
    async def resolver(host: str, port: int) -> Sequence[str]:
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    found = await endpoint("http://registry.example", check={"resolver": resolver})
    assert found.mark("DNS") is Mark.FAIL
    assert "registry.example" in found["DNS"].said
    assert "upstreams.corp.endpoints[0].url" in found["DNS"].advice
    assert found.mark("TCP") is None


async def test_a_name_server_that_hangs_is_told_as_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mirror.doctor.reach._RESOLVE_WITHIN", 0.05)

    async def resolver(host: str, port: int) -> Sequence[str]:
        await asyncio.Event().wait()
        return ()

    found = await endpoint("http://registry.example", check={"resolver": resolver})
    assert found.mark("DNS") is Mark.FAIL
    assert "name servers" in found["DNS"].advice


async def test_a_port_that_refuses_connections_is_told_with_its_setting() -> None:
    with ReservedPort() as port:
        found = await endpoint(f"http://127.0.0.1:{port.number}")
    assert found.mark("TCP") is Mark.FAIL
    assert "refuses connections" in found["TCP"].said
    assert "upstreams.corp.endpoints[0].url" in found["TCP"].advice


async def test_one_address_of_two_that_refuses_is_a_warning() -> None:
    with FaultyUpstream() as up:

        async def resolver(host: str, port: int) -> Sequence[str]:
            return ["127.0.0.2", "127.0.0.1"]

        found = await endpoint(f"http://localhost:{up.port}", check={"resolver": resolver})
    assert found.mark("TCP") is Mark.WARN
    assert "1 of 2" in found["TCP"].said
    assert "127.0.0.2 refuses" in found["TCP"].said
    assert found.mark("auth") is Mark.OK


async def test_through_a_proxy_its_policy_is_told_and_it_is_reached_in_the_endpoints_place() -> None:
    with FaultyUpstream() as proxy:
        environment = {"HTTP_PROXY": f"http://somebody:{PASSWORD}@{proxy.host}"}
        found = await endpoint("http://registry.example", check={"environment": environment})
    assert "the proxy's policy" in found["proxy"].said
    assert "HTTP_PROXY" in found["proxy"].said
    assert proxy.requests[-1].path.startswith("http://registry.example")
    assert PASSWORD not in found.text


async def test_a_proxy_that_is_away_is_told_with_its_variable() -> None:
    with ReservedPort() as port:
        environment = {"HTTPS_PROXY": f"http://127.0.0.1:{port.number}"}
        found = await endpoint("https://registry.example", check={"environment": environment})
    assert found.mark("TCP") is Mark.FAIL
    assert "HTTPS_PROXY" in found["TCP"].advice


async def test_a_proxy_that_is_no_url_is_told_with_its_variable() -> None:
    found = await endpoint("https://registry.example", check={"environment": {"HTTPS_PROXY": "ftp://x"}})
    assert found.mark("proxy") is Mark.FAIL
    assert "HTTPS_PROXY" in found["proxy"].said


# TLS.


async def test_a_certificate_is_told_with_its_names_and_its_last_day(tmp_path: Path) -> None:
    made = certificate(tmp_path)
    with FaultyUpstream(tls=made.for_servers) as up:
        found = await endpoint(up, ca_file=made.certificate)
    assert found.mark("TLS") is Mark.OK, found
    for words in ("TLSv1.3", "127.0.0.1", "localhost", "Test Authority", "400 days"):
        assert words in found["TLS"].said
    assert found.mark("auth") is Mark.OK


async def test_a_certificate_that_soon_expires_is_a_warning(tmp_path: Path) -> None:
    made = certificate(tmp_path, days=13)
    with FaultyUpstream(tls=made.for_servers) as up:
        found = await endpoint(up, ca_file=made.certificate)
    assert found.mark("TLS") is Mark.WARN
    assert "expires in 13 days" in found["TLS"].said
    assert "renew" in found["TLS"].advice
    assert found.mark("auth") is Mark.OK


async def test_a_certificate_of_an_unknown_authority_leads_to_ca_file(tmp_path: Path) -> None:
    made, other = certificate(tmp_path / "made"), certificate(tmp_path / "other")
    with FaultyUpstream(tls=made.for_servers) as up:
        for ca_file in (None, other.certificate):
            found = await endpoint(up, ca_file=ca_file)
            assert found.mark("TLS") is Mark.FAIL
            assert "not trusted" in found["TLS"].said
            assert "issued by Test Authority" in found["TLS"].said
            assert "upstreams.corp.endpoints[0].ca_file" in found["TLS"].advice
            assert found.mark("auth") is None
    assert up.count() == 0


async def test_a_certificate_for_another_host_is_told_with_the_hosts_it_is_for(tmp_path: Path) -> None:
    made = certificate(tmp_path, names="DNS:registry.corp.example")
    with FaultyUpstream(tls=made.for_servers) as up:
        found = await endpoint(up, ca_file=made.certificate)
    assert found.mark("TLS") is Mark.FAIL
    assert "not for 127.0.0.1" in found["TLS"].said
    assert "registry.corp.example" in found["TLS"].said
    assert "upstreams.corp.endpoints[0].url" in found["TLS"].advice


async def test_a_certificate_that_has_expired_is_told_with_its_last_day(tmp_path: Path) -> None:
    made = certificate(tmp_path, days=-1)
    with FaultyUpstream(tls=made.for_servers) as up:
        found = await endpoint(up, ca_file=made.certificate)
    assert found.mark("TLS") is Mark.FAIL
    assert "has expired (notAfter " in found["TLS"].said
    assert "renew" in found["TLS"].advice


async def test_names_in_a_strangers_certificate_do_not_steer_a_terminal(tmp_path: Path) -> None:
    made = certificate(tmp_path, names="DNS:\x1b[31mred")
    with FaultyUpstream(tls=made.for_servers) as up:
        found = await endpoint(up)
    assert "red" in found["TLS"].said
    assert found["TLS"].said.isprintable()


async def test_a_server_without_tls_is_told_as_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mirror.doctor.reach._HANDSHAKE_WITHIN", 0.3)  # it waits for the end of a header
    with FaultyUpstream() as up:
        found = await endpoint(f"https://{up.host}")
    assert found.mark("TLS") is Mark.FAIL
    assert "http://" in found["TLS"].advice


async def test_a_server_that_wants_a_client_certificate_leads_to_its_setting(tmp_path: Path) -> None:
    made, ours = certificate(tmp_path / "made"), certificate(tmp_path / "ours")
    with FaultyUpstream(tls=wanting_certificate(made, ours)) as up:
        refused = await endpoint(up, ca_file=made.certificate)
        taken = await endpoint(up, ca_file=made.certificate, client_certificate=ours.certificate, client_key=ours.key)
    failed = [finding for finding in refused.findings if finding.mark is Mark.FAIL]
    assert [finding.check for finding in failed] == ["TLS"], refused
    assert "client_certificate and client_key beside upstreams.corp.endpoints[0].url" in failed[0].advice
    assert taken.mark("auth") is Mark.OK, taken


async def test_a_ca_file_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    with FaultyUpstream() as up:
        found = await endpoint(f"https://{up.host}", ca_file=tmp_path / "absent.pem")
    assert found.mark("TLS") is Mark.FAIL
    assert "upstreams.corp.endpoints[0].ca_file" in found["TLS"].said
    assert "absent.pem" in found["TLS"].said


# Credentials.


async def test_accepted_credentials_are_told_whatever_the_scheme() -> None:
    with FaultyUpstream() as up:
        up.require_basic({"robot": PASSWORD})
        found = await endpoint(up, credentials=LOGIN)
        assert found.mark("auth") is Mark.OK
        assert "Basic; upstreams.corp.credentials is accepted" in found["auth"].said
    with FaultyUpstream() as up:
        up.require_bearer(TokenService({"robot": PASSWORD}, anonymous=False))
        found = await endpoint(up, credentials=LOGIN)
        assert found.mark("auth") is Mark.OK
        assert f"tokens of {up.host}; upstreams.corp.credentials is accepted" in found["auth"].said
        assert up.count(path=V2) == 5, "the token is used again"


async def test_an_anonymous_token_is_told_as_one_and_is_for_no_repository() -> None:
    with FaultyUpstream() as up:
        tokens = up.require_bearer()
        found = await endpoint(up)
    assert found.mark("auth") is Mark.OK
    assert "anonymous" in found["auth"].said
    assert [issued.scopes for issued in tokens.issued] == [()]


@pytest.mark.parametrize("scheme", ["basic", "bearer"])
async def test_refused_credentials_lead_to_their_setting(scheme: str) -> None:
    wrong = Credentials(username="robot", password=SecretStr("WRONG-PASSWORD"))
    with FaultyUpstream() as up:
        if scheme == "basic":
            up.require_basic({"robot": PASSWORD})
        else:
            up.require_bearer(TokenService({"robot": PASSWORD}, anonymous=False))
        found = await endpoint(up, credentials=wrong)
    assert found.mark("auth") is Mark.FAIL
    assert "refuses this mirror's credentials (401)" in found["auth"].said
    assert "upstreams.corp.credentials" in found["auth"].advice
    assert "WRONG-PASSWORD" not in found.text


@pytest.mark.parametrize("scheme", ["basic", "bearer"])
async def test_missing_credentials_lead_to_their_setting(scheme: str) -> None:
    with FaultyUpstream() as up:
        if scheme == "basic":
            up.require_basic({"robot": PASSWORD})
        else:
            up.require_bearer(TokenService({"robot": PASSWORD}, anonymous=False))
        found = await endpoint(up)
    assert found.mark("auth") is Mark.FAIL
    assert "set upstreams.corp.credentials" in found["auth"].advice


@pytest.mark.parametrize("scheme", ["basic", "bearer"])
async def test_where_clients_bring_their_own_credentials_none_are_missing(scheme: str) -> None:
    with FaultyUpstream() as up:
        if scheme == "basic":
            up.require_basic({"robot": PASSWORD})
        else:
            up.require_bearer(TokenService({"robot": PASSWORD}, anonymous=False))
        found = await endpoint(up, check={"clients_decide": True})
    assert found.mark("auth") is Mark.OK
    assert "clients send theirs" in found["auth"].said
    assert found.mark("clients") is None


async def test_a_realm_that_clients_credentials_do_not_go_to_is_told() -> None:
    with FaultyUpstream() as up, FaultyUpstream() as elsewhere:
        elsewhere.tokens = TokenService({"robot": PASSWORD})
        up.require_bearer(elsewhere.tokens, realm=f"{elsewhere.url}/token")
        found = await endpoint(up, check={"clients_decide": True})
        named = await endpoint(up, check={"clients_decide": True}, auth_hosts=(elsewhere.host,))
    assert found.mark("clients") is Mark.WARN
    assert "upstreams.corp.endpoints[0].auth_hosts" in found["clients"].advice
    assert named.mark("clients") is None


async def test_a_realm_elsewhere_leads_to_auth_hosts_and_sees_no_credential() -> None:
    with FaultyUpstream() as up, FaultyUpstream() as elsewhere:
        tokens = TokenService({"robot": PASSWORD})
        elsewhere.tokens = tokens
        up.require_bearer(tokens, realm=f"{elsewhere.url}/token")
        found = await endpoint(up, credentials=LOGIN)
        assert found.mark("auth") is Mark.FAIL
        assert elsewhere.host in found["auth"].said
        assert "upstreams.corp.endpoints[0].auth_hosts" in found["auth"].advice
        assert elsewhere.count() == 0, "it is a private address, and nobody vouches for it"
        named = await endpoint(up, credentials=LOGIN, auth_hosts=(elsewhere.host,))
        assert named.mark("auth") is Mark.OK, named
        assert f"tokens of {elsewhere.host}" in named["auth"].said


async def test_a_password_file_that_is_absent_is_named(tmp_path: Path) -> None:
    with FaultyUpstream() as up:
        found = await endpoint(up, credentials=Credentials(username="robot", password_file=tmp_path / "absent"))
    assert found.mark("auth") is Mark.FAIL
    assert "upstreams.corp.credentials.password_file" in found["auth"].said
    assert "absent" in found["auth"].said
    assert up.count() == 0


async def test_the_error_of_a_credential_helper_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    helper = tmp_path / "docker-credential-broken"
    helper.write_text("#!/bin/sh\necho 'the cloud says no' >&2\nexit 1\n")
    helper.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    with FaultyUpstream() as up:
        up.require_basic({"robot": PASSWORD})
        found = await endpoint(up, credentials=Credentials(helper="broken"))
    assert found.mark("auth") is Mark.FAIL
    assert "the cloud says no" in found["auth"].said
    assert "upstreams.corp.credentials" in found["auth"].advice


# What answers.


async def test_a_registry_that_fails_is_told_with_its_status() -> None:
    with FaultyUpstream() as up:
        up.inject(Fault(status=500), path=V2)
        found = await endpoint(up)
    assert found.mark("/v2/") is Mark.FAIL
    assert "500" in found["/v2/"].said
    assert "upstreams.corp.endpoints" in found["/v2/"].advice


@pytest.mark.parametrize("fault", [Fault(html=True), Fault(status=404), Fault(html=True, status=404)])
async def test_what_is_no_registry_leads_to_the_url(fault: Fault) -> None:
    with FaultyUpstream() as up:
        up.inject(fault, path=V2)
        found = await endpoint(up)
    assert found.mark("/v2/") is Mark.FAIL
    assert "no registry" in found["/v2/"].advice
    assert "upstreams.corp.endpoints[0].url" in found["/v2/"].advice


async def test_a_redirect_is_told_without_its_query() -> None:
    with FaultyUpstream() as up:
        up.inject(Fault(redirect="https://other.example/v2/?secret=hush"), path=V2)
        found = await endpoint(up)
    assert found.mark("/v2/") is Mark.WARN
    assert "https://other.example" in found["/v2/"].said
    assert "upstreams.corp.endpoints[0].url" in found["/v2/"].advice
    assert "hush" not in found.text


async def test_a_registry_that_never_answers_is_told_as_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mirror.doctor.upstreams._ANSWER_WITHIN", 0.1)
    with FaultyUpstream() as up:
        up.inject(Fault(hang=True), path=V2)
        found = await endpoint(up)
    assert found.mark("/v2/") is Mark.FAIL
    assert "sends nothing" in found["/v2/"].said
    assert "says nothing" in found["/v2/"].advice


async def test_an_examination_ends_in_time_with_what_was_found() -> None:
    with FaultyUpstream() as up:
        up.inject(Fault(hang=True), path=V2)
        found = await endpoint(up, within=0.3)
    assert found.mark("TCP") is Mark.OK
    assert found.mark("time") is Mark.FAIL


async def test_a_slow_registry_leads_to_revalidate_for() -> None:
    with FaultyUpstream() as up:
        up.inject(Fault(delay=0.05), path=V2)
        found = await endpoint(up, settings={"revalidate_for": 0.04})
    assert found.mark("latency") is Mark.WARN
    assert "upstreams.corp.revalidate_for" in found["latency"].advice


@pytest.mark.parametrize(("seconds", "mark"), [(-3600, Mark.WARN), (3600, Mark.WARN), (30, Mark.OK)])
async def test_clocks_that_disagree_are_told(seconds: float, mark: Mark) -> None:
    with FaultyUpstream() as up:
        up.inject(Fault(headers={"date": formatdate(time.time() + seconds, usegmt=True)}), path=V2)
        found = await endpoint(up)
    assert found.mark("clock") is mark
    assert ("ahead" if seconds > 0 else "behind") in found["clock"].said
    if mark is Mark.WARN:
        assert "NTP" in found["clock"].advice


# Limits.


async def test_a_limit_that_is_nearly_used_up_leads_to_credentials() -> None:
    with FaultyUpstream() as up:
        up.inject(Fault(headers={"ratelimit-limit": "100;w=21600", "ratelimit-remaining": "4;w=21600"}), path=V2)
        found = await endpoint(up)
    assert found.mark("rate limit") is Mark.WARN
    assert "4% left" in found["rate limit"].said
    assert "upstreams.corp.credentials" in found["rate limit"].advice


async def test_docker_hub_is_asked_for_its_limit_with_a_request_that_does_not_count() -> None:
    async def resolver(host: str, port: int) -> Sequence[str]:
        return ["127.0.0.1"]

    with FaultyUpstream() as up:
        up.require_bearer()
        up.add_manifest("ratelimitpreview/test", b'{"schemaVersion": 2}', tag="latest")
        limit = {"ratelimit-limit": "100;w=21600", "ratelimit-remaining": "76;w=21600"}
        up.inject(Fault(headers=limit), path="/manifests/")
        found = await endpoint(
            f"http://registry-1.docker.io:{up.port}",
            name="docker.io",
            check={"resolver": resolver},
            auth_hosts=(up.host,),
        )
        assert found.mark("rate limit") is Mark.OK, found
        assert "ratelimit-remaining: 76;w=21600" in found["rate limit"].said
        assert {request.method for request in up.matching(path="/manifests/")} == {"HEAD"}
