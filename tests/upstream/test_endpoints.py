"""From the settings of an upstream to its endpoints: prefix, TLS files, proxies, helpers, each for one endpoint."""

import asyncio
import json
import shutil
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import ExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

from mirror.config import Credentials, Defaults, EndpointSettings, UpstreamSettings, hosts
from mirror.errors import ManifestUnknown, UpstreamDenied, UpstreamUnavailable
from mirror.upstream.client import Endpoint
from mirror.upstream.endpoints import endpoints_of
from mirror.upstream.transport import Transport
from mirror.upstream.watched import LOOK_AGAIN_AFTER
from tests.support.certificates import Certificate, self_signed
from tests.support.faults import Fault
from tests.support.tokens import TokenService
from tests.support.upstream import FaultyUpstream
from tests.upstream.support import (
    BLOB,
    BLOB_DIGEST,
    MANIFEST,
    MANIFEST_DIGEST,
    PASSWORD,
    REPOSITORY,
    Clock,
    RecordingProxy,
    content,
    helper,
    holding,
    private,
    says,
    showing,
)


@pytest.fixture
def stack() -> Iterator[ExitStack]:
    with ExitStack() as entered:
        yield entered


def made(folder: Path, name: str) -> Certificate:
    (folder / name).mkdir()
    return self_signed(folder / name)


@asynccontextmanager
async def asking(
    *endpoints: EndpointSettings,
    credentials: Credentials | None = None,
    transport: Transport | None = None,
    clock: Callable[[], float] | None = None,
    environment: Mapping[str, str] | None = None,
    observe: Callable[[str, httpx.Response], None] | None = None,
) -> AsyncIterator[Endpoint]:
    """The last of these endpoints of the upstream ``corp``."""
    written = UpstreamSettings(endpoints=endpoints, credentials=credentials)
    found = endpoints_of(
        "corp",
        written.effective("corp", Defaults()),
        transport=transport,
        clock=clock or asyncio.get_running_loop().time,
        environment=environment or {},
        observe=observe,
    )
    try:
        yield found[-1]
    finally:
        for endpoint in found:
            await endpoint.aclose()


# The prefix.


async def test_a_prefix_stands_in_front_of_every_repository_there(stack: ExitStack) -> None:
    up = stack.enter_context(FaultyUpstream())
    up.add_manifest(f"ghcr-proxy/{REPOSITORY}", MANIFEST, tag="v1")
    up.add_blob(f"ghcr-proxy/{REPOSITORY}", BLOB)
    async with asking(EndpointSettings(url=up.url, repository_prefix="ghcr-proxy")) as endpoint:
        assert (await endpoint.head_manifest(REPOSITORY, "v1")).digest == MANIFEST_DIGEST
        assert (await endpoint.get_manifest(REPOSITORY, "v1")).digest == MANIFEST_DIGEST
        assert await endpoint.head_blob(REPOSITORY, BLOB_DIGEST) == len(BLOB)
        assert await content(await endpoint.open_blob(REPOSITORY, BLOB_DIGEST, 0)) == BLOB
        assert (await endpoint.list_tags(REPOSITORY, None, None)).tags == ("v1",)
        await endpoint.referrers(REPOSITORY, MANIFEST_DIGEST, None, None)
        with pytest.raises(ManifestUnknown, match=f"does not have ghcr-proxy/{REPOSITORY}:v2"):
            await endpoint.get_manifest(REPOSITORY, "v2")
    assert all(request.path.startswith(f"/v2/ghcr-proxy/{REPOSITORY}/") for request in up.requests)


@pytest.mark.parametrize("fault", [Fault(status=405), Fault(headers={"docker-content-digest": None})])
async def test_a_prefix_is_put_there_once_where_head_needs_a_get(stack: ExitStack, fault: Fault) -> None:
    up = stack.enter_context(FaultyUpstream())
    up.add_manifest(f"ghcr-proxy/{REPOSITORY}", MANIFEST, tag="v1")
    up.inject(fault, method="HEAD")
    async with asking(EndpointSettings(url=up.url, repository_prefix="ghcr-proxy/")) as endpoint:
        assert (await endpoint.head_manifest(REPOSITORY, "v1")).digest == MANIFEST_DIGEST


async def test_tokens_are_for_the_repository_with_its_prefix(stack: ExitStack) -> None:
    up = stack.enter_context(FaultyUpstream())
    tokens = up.require_bearer()
    for repository in ("team/a", "team/b"):
        up.add_manifest(f"ghcr-proxy/{repository}", MANIFEST, tag="v1")
    async with asking(EndpointSettings(url=up.url, repository_prefix="ghcr-proxy/")) as endpoint:
        await endpoint.head_manifest("team/a", "v1")
        await endpoint.head_manifest("team/b", "v1")
    assert up.count(status=401) == 1  # the second one's scope is foreseen
    scopes = [issued.scopes for issued in tokens.issued]
    assert scopes == [(f"repository:ghcr-proxy/team/{name}:pull",) for name in "ab"]


async def test_credentials_are_chosen_by_the_repository_with_its_prefix(stack: ExitStack, tmp_path: Path) -> None:
    up, path = stack.enter_context(FaultyUpstream()), tmp_path / "config.json"
    for project in ("ghcr-proxy", "other"):
        up.add_manifest(f"{project}/{REPOSITORY}", MANIFEST, tag="v1")
        up.add_blob(f"{project}/{REPOSITORY}", BLOB)
    up.require_basic({"robot": PASSWORD})
    entry = {"username": "robot", "password": PASSWORD}
    path.write_text(json.dumps({"auths": {f"{up.host}/ghcr-proxy": entry}}))
    login = Credentials(docker_config=path)
    async with asking(EndpointSettings(url=up.url, repository_prefix="ghcr-proxy"), credentials=login) as endpoint:
        await endpoint.head_manifest(REPOSITORY, "v1")
        await endpoint.get_manifest(REPOSITORY, "v1")
        await endpoint.head_blob(REPOSITORY, BLOB_DIGEST)
        await content(await endpoint.open_blob(REPOSITORY, BLOB_DIGEST, 0))
        await endpoint.list_tags(REPOSITORY, None, None)
        await endpoint.referrers(REPOSITORY, MANIFEST_DIGEST, None, None)
    async with asking(EndpointSettings(url=up.url, repository_prefix="other"), credentials=login) as endpoint:
        with pytest.raises(UpstreamDenied):
            await endpoint.head_manifest(REPOSITORY, "v1")


# TLS.


async def test_the_authority_of_a_ca_file_is_trusted(stack: ExitStack, tmp_path: Path) -> None:
    certificate = self_signed(tmp_path)
    up = holding(stack.enter_context(FaultyUpstream(tls=certificate.for_servers)))
    async with asking(EndpointSettings(url=up.url, ca_file=certificate.certificate)) as endpoint:
        assert (await endpoint.head_manifest(REPOSITORY, "v1")).digest == MANIFEST_DIGEST


async def test_another_certificate_is_an_outage_that_names_the_setting(stack: ExitStack, tmp_path: Path) -> None:
    shown, trusted = made(tmp_path, "shown"), made(tmp_path, "trusted")
    up = holding(stack.enter_context(FaultyUpstream(tls=shown.for_servers)))
    async with asking(EndpointSettings(url=up.url, ca_file=trusted.certificate)) as endpoint:
        with pytest.raises(UpstreamUnavailable, match=r"certificate that is not trusted: self-signed.* ca_file"):
            await endpoint.head_manifest(REPOSITORY, "v1")
    async with asking(EndpointSettings(url=up.url)) as endpoint:
        with pytest.raises(UpstreamUnavailable, match=r"certificate that is not trusted: self-signed.* ca_file"):
            await endpoint.head_manifest(REPOSITORY, "v1")
    assert up.count() == 0


async def test_the_certificate_of_another_host_is_an_outage(stack: ExitStack, tmp_path: Path) -> None:
    certificate = self_signed(tmp_path)
    up = stack.enter_context(FaultyUpstream(host="127.0.0.2", tls=certificate.for_servers))
    async with asking(EndpointSettings(url=up.url, ca_file=certificate.certificate)) as endpoint:
        with pytest.raises(UpstreamUnavailable, match=r"not trusted, for it is another host's: .*127\.0\.0\.2"):
            await endpoint.head_manifest(REPOSITORY, "v1")


async def test_a_client_certificate_is_shown_to_the_endpoint(stack: ExitStack, tmp_path: Path) -> None:
    server, client = made(tmp_path, "server"), made(tmp_path, "client")
    up = holding(stack.enter_context(FaultyUpstream(tls=showing(server, to=client))))
    files = {"client_certificate": client.certificate, "client_key": client.key}
    async with asking(EndpointSettings(url=up.url, ca_file=server.certificate, **files)) as endpoint:
        assert (await endpoint.head_manifest(REPOSITORY, "v1")).digest == MANIFEST_DIGEST
    async with asking(EndpointSettings(url=up.url, ca_file=server.certificate)) as endpoint:
        with pytest.raises(UpstreamUnavailable):
            await endpoint.head_manifest(REPOSITORY, "v1")
    assert up.count() == 1


async def test_new_connections_have_the_client_certificate_that_was_rotated_in(
    stack: ExitStack, tmp_path: Path
) -> None:
    server, old, new = (made(tmp_path, name) for name in ("server", "old", "new"))
    before = holding(stack.enter_context(FaultyUpstream(tls=showing(server, to=old))))
    clock, used = Clock(), tmp_path / "used"
    shutil.copytree(old.certificate.parent, used)
    endpoint_settings = EndpointSettings(
        url=before.url,
        ca_file=server.certificate,
        client_certificate=used / "certificate.pem",
        client_key=used / "key.pem",
    )
    async with asking(endpoint_settings, clock=clock) as endpoint:
        await endpoint.head_manifest(REPOSITORY, "v1")
        clock.now += LOOK_AGAIN_AFTER
        shutil.copy(new.certificate, used)
        await endpoint.head_manifest(REPOSITORY, "v1")  # the two do not fit yet
        clock.now += LOOK_AGAIN_AFTER
        shutil.copy(new.key, used)
        await endpoint.head_manifest(REPOSITORY, "v1")
        assert before.accepted_connections == 1
        before.cut_connections()
        with pytest.raises(UpstreamUnavailable):  # it knows the old one
            await endpoint.head_manifest(REPOSITORY, "v1")
        before.refuse()
    after = holding(stack.enter_context(FaultyUpstream(tls=showing(server, to=new))))
    moved = endpoint_settings.model_copy(update={"url": after.url})
    async with asking(moved, clock=clock) as endpoint:
        await endpoint.head_manifest(REPOSITORY, "v1")


async def test_a_ca_file_that_was_replaced_counts_for_new_connections(stack: ExitStack, tmp_path: Path) -> None:
    one, other = made(tmp_path, "one"), made(tmp_path, "other")
    up = holding(stack.enter_context(FaultyUpstream(tls=one.for_servers)))
    clock, used = Clock(), tmp_path / "ca.pem"
    shutil.copy(one.certificate, used)
    async with asking(EndpointSettings(url=up.url, ca_file=used), clock=clock) as endpoint:
        await endpoint.head_manifest(REPOSITORY, "v1")
        shutil.copy(other.certificate, used)
        clock.now += LOOK_AGAIN_AFTER
        up.cut_connections()
        with pytest.raises(UpstreamUnavailable, match="not trusted"):
            await endpoint.head_manifest(REPOSITORY, "v1")


@pytest.mark.parametrize("missing", ["ca_file", "client_certificate", "client_key"])
async def test_a_file_that_is_missing_is_an_outage_until_it_comes(
    stack: ExitStack, tmp_path: Path, missing: str, caplog: pytest.LogCaptureFixture
) -> None:
    server, client = made(tmp_path, "server"), made(tmp_path, "client")
    up = holding(stack.enter_context(FaultyUpstream(tls=showing(server, to=client))))
    files = {"ca_file": server.certificate, "client_certificate": client.certificate, "client_key": client.key}
    real, late, clock = files[missing], tmp_path / "late.pem", Clock()
    endpoints = [EndpointSettings(url="https://other.test"), EndpointSettings(url=up.url, **{**files, missing: late})]
    async with asking(*endpoints, clock=clock) as endpoint:
        for _ in range(2):
            with pytest.raises(UpstreamUnavailable, match=rf"upstreams\.corp\.endpoints\[1\]\.{missing}") as failed:
                await endpoint.head_manifest(REPOSITORY, "v1")
            assert str(tmp_path) not in str(failed.value)
        assert f"upstreams.corp.endpoints[1].{missing}: {late}: No such file or directory" in caplog.text
        shutil.copy(real, late)
        clock.now += LOOK_AGAIN_AFTER
        assert (await endpoint.head_manifest(REPOSITORY, "v1")).digest == MANIFEST_DIGEST


@pytest.mark.parametrize("key", ["ca_file", "client_certificate"])
async def test_a_file_that_is_no_certificate_is_an_outage(
    stack: ExitStack, tmp_path: Path, key: str, caplog: pytest.LogCaptureFixture
) -> None:
    up, garbage = stack.enter_context(FaultyUpstream()), tmp_path / "garbage.pem"
    garbage.write_text("nothing of the kind")
    files: dict[str, Any] = {key: garbage}
    if key == "client_certificate":
        files["client_key"] = garbage
    async with asking(EndpointSettings(url=up.url.replace("http:", "https:"), **files)) as endpoint:
        with pytest.raises(UpstreamUnavailable, match=f"endpoints.0..{key}.* cannot be read"):
            await endpoint.head_manifest(REPOSITORY, "v1")
    assert str(garbage) in caplog.text
    assert "nothing of the kind" not in caplog.text


async def test_a_missing_file_does_not_concern_other_endpoints(stack: ExitStack, tmp_path: Path) -> None:
    up = holding(stack.enter_context(FaultyUpstream()))
    broken = EndpointSettings(url="https://a.test", ca_file=tmp_path / "missing.pem")
    async with asking(broken, EndpointSettings(url=up.url)) as endpoint:
        await endpoint.head_manifest(REPOSITORY, "v1")


async def test_tls_files_are_added_to_a_transport_that_is_given(stack: ExitStack, tmp_path: Path) -> None:
    certificate = self_signed(tmp_path)
    up = holding(stack.enter_context(FaultyUpstream(tls=certificate.for_servers)))
    transport = Transport()
    async with asking(EndpointSettings(url=up.url, ca_file=certificate.certificate), transport=transport) as endpoint:
        await endpoint.head_manifest(REPOSITORY, "v1")
    await transport.aclose()
    assert up.accepted_connections == 1


# The environment.


async def test_the_environment_names_the_proxy(stack: ExitStack, tmp_path: Path) -> None:
    up = holding(stack.enter_context(FaultyUpstream()))
    async with RecordingProxy({"registry.test": up.port}) as proxy:
        settings = EndpointSettings(url="http://registry.test")
        async with asking(settings, environment={"http_proxy": proxy.url()}) as endpoint:
            assert (await endpoint.head_manifest(REPOSITORY, "v1")).digest == MANIFEST_DIGEST
        assert proxy.asked == [f"HEAD http://registry.test/v2/{REPOSITORY}/manifests/v1"]


async def test_tls_files_count_through_a_proxy(
    stack: ExitStack, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hosts, "is_loopback", lambda host: False)  # for which the certificates are
    server, client = made(tmp_path, "server"), made(tmp_path, "client")
    up = holding(stack.enter_context(FaultyUpstream(tls=showing(server, to=client))))
    files = {"client_certificate": client.certificate, "client_key": client.key, "ca_file": server.certificate}
    async with RecordingProxy({up.host: up.port}) as proxy:
        async with asking(EndpointSettings(url=up.url, **files), environment={"HTTPS_PROXY": proxy.url()}) as endpoint:
            assert (await endpoint.head_manifest(REPOSITORY, "v1")).digest == MANIFEST_DIGEST
        assert proxy.asked == [f"CONNECT {up.host}"]


# Helpers.


async def test_a_helper_opens_what_is_private(stack: ExitStack, tmp_path: Path) -> None:
    up = private(stack.enter_context(FaultyUpstream()))
    environment = helper(tmp_path, "fake", says("robot", PASSWORD))
    async with asking(
        EndpointSettings(url=up.url), credentials=Credentials(helper="fake"), environment=environment
    ) as endpoint:
        assert (await endpoint.head_manifest(REPOSITORY, "v1")).digest == MANIFEST_DIGEST


@pytest.mark.parametrize("scheme", ["basic", "bearer"])
@pytest.mark.parametrize("status", [None, 403])
async def test_a_helper_is_asked_again_when_what_it_said_is_refused(
    stack: ExitStack, tmp_path: Path, scheme: str, status: int | None
) -> None:
    """As a token of ECR that has ended: the registry answers 401, or 403."""
    up, users, clock = holding(stack.enter_context(FaultyUpstream())), {"robot": "first"}, Clock()
    tokens = TokenService(users, anonymous=False)
    up.require_basic(users) if scheme == "basic" else up.require_bearer(tokens)
    secret = tmp_path / "secret"
    secret.write_text("first")
    script = f'printf \'{{"Username": "robot", "Secret": "%s"}}\' "$(cat {secret})"; echo x >> {tmp_path}/asked'
    async with asking(
        EndpointSettings(url=up.url),
        credentials=Credentials(helper="fake"),
        environment=helper(tmp_path / "bin", "fake", script),
        clock=clock,
    ) as endpoint:
        await endpoint.head_manifest(REPOSITORY, "v1")
        secret.write_text("second")
        clock.now += 60
        if status is None:
            users["robot"] = "second"
            tokens.revoke()
        else:
            users["robot"] = "second"
            up.inject(Fault(status=status), path="/manifests/", times=1)
        assert (await endpoint.head_manifest(REPOSITORY, "v1")).digest == MANIFEST_DIGEST
    assert (tmp_path / "asked").read_text() == "x\nx\n"
    assert len(tokens.issued) == (0 if scheme == "basic" else 2 if status else 1)  # none is used on of the first login


async def test_a_refusal_asks_a_helper_again_once_and_not_each_time(stack: ExitStack, tmp_path: Path) -> None:
    up, clock = holding(stack.enter_context(FaultyUpstream())), Clock()
    up.inject(Fault(status=403), path="/manifests/")
    script = f"{says('robot', PASSWORD)}; echo x >> {tmp_path}/asked"
    async with asking(
        EndpointSettings(url=up.url),
        credentials=Credentials(helper="fake"),
        environment=helper(tmp_path / "bin", "fake", script),
        clock=clock,
    ) as endpoint:
        for _ in range(5):
            clock.now += 10
            with pytest.raises(UpstreamDenied, match=r"check upstreams\.corp\.credentials"):
                await endpoint.head_manifest(REPOSITORY, "v1")
    assert (tmp_path / "asked").read_text() == "x\nx\n"


# What else there is to know of each.


async def test_each_answer_of_the_endpoint_itself_is_observed(stack: ExitStack) -> None:
    up, storage = holding(stack.enter_context(FaultyUpstream())), holding(stack.enter_context(FaultyUpstream()))
    up.inject(Fault(redirect=f"{storage.url}{{path}}", headers={"ratelimit-remaining": "7;w=60"}), path="/blobs/")
    seen: list[tuple[str, int, str | None]] = []

    def observe(host: str, response: httpx.Response) -> None:
        seen.append((host, response.status_code, response.headers.get("ratelimit-remaining")))

    settings = EndpointSettings(url=up.url, redirect_hosts=(storage.host,))
    async with asking(settings, observe=observe) as endpoint:
        await endpoint.head_manifest(REPOSITORY, "v1")
        await endpoint.head_blob(REPOSITORY, BLOB_DIGEST)
    assert seen == [(up.host, 200, None), (up.host, 307, "7;w=60")]


async def test_a_transport_that_is_given_outlives_the_endpoints_and_one_of_their_own_does_not(
    stack: ExitStack,
) -> None:
    up, transport = holding(stack.enter_context(FaultyUpstream())), Transport()
    for _ in range(2):
        async with asking(EndpointSettings(url=up.url), transport=transport) as endpoint:
            await endpoint.head_manifest(REPOSITORY, "v1")
    assert up.accepted_connections == 1
    await transport.aclose()
    async with asking(EndpointSettings(url=up.url)) as endpoint:
        await endpoint.head_manifest(REPOSITORY, "v1")
    async with asking(EndpointSettings(url=up.url)) as endpoint:
        await endpoint.head_manifest(REPOSITORY, "v1")
    assert up.accepted_connections == 3
