"""The attacks that an upstream, or who answers in its place, can try on the mirror. Numbers are those of the threats
that the project defends against; each test fails without the defence.
"""

import base64
import json
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from pydantic import SecretStr

from mirror.config import Credentials, EndpointSettings
from mirror.errors import MirrorError, UpstreamDenied, UpstreamError, UpstreamInvalid, UpstreamUnavailable
from mirror.upstream import dial
from mirror.upstream.transport import Transport
from mirror.upstream.trust import OneTrust
from tests.support.certificates import Certificate, self_signed
from tests.support.faults import Fault
from tests.support.tokens import TokenService
from tests.support.upstream import FaultyUpstream
from tests.support.wire import Request
from tests.upstream.support import (
    BLOB,
    BLOB_DIGEST,
    IDENTITY_TOKEN,
    LOGIN,
    MANIFEST_DIGEST,
    PASSWORD,
    REPOSITORY,
    SECRETS,
    Resolver,
    content,
    helper,
    holding,
    manifest,
    private,
    pulling_from,
    says,
    showing,
    within,
)


@pytest.fixture
def stack() -> Iterator[ExitStack]:
    with ExitStack() as entered:
        yield entered


@pytest.fixture
def everything_is_public(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let loopback stand for the internet, so that a test sees what would reach an attacker there."""
    monkeypatch.setattr(dial, "is_public", lambda address: True)


def identity(folder: Path, up: FaultyUpstream) -> Credentials:
    path = folder / "config.json"
    path.write_text(json.dumps({"auths": {up.host: {"identitytoken": IDENTITY_TOKEN}}}))
    return Credentials(docker_config=path)


def seen(request: Request) -> str:
    return repr((request.path, request.query, request.headers, request.body))


def assert_no_secret_came(up: FaultyUpstream) -> None:
    for request in up.requests:
        assert "authorization" not in request.headers
        assert not any(secret in seen(request) for secret in SECRETS)


# 1: a realm at the attacker's is not told who we are.


@pytest.mark.usefixtures("everything_is_public")
async def test_a_realm_elsewhere_gets_no_password(stack: ExitStack) -> None:
    up, attacker = private(stack.enter_context(FaultyUpstream())), stack.enter_context(FaultyUpstream())
    attacker.tokens = TokenService()
    up.require_bearer(up.tokens, realm=f"{attacker.url}/token")
    async with pulling_from(up, credentials=LOGIN) as upstream:
        with pytest.raises(UpstreamDenied, match=f"{attacker.host}; they went nowhere.*auth_hosts"):
            await upstream.head_manifest(REPOSITORY, "v1")
    assert attacker.count(path="/token") == 1  # asked anonymously
    assert_no_secret_came(attacker)


@pytest.mark.usefixtures("everything_is_public")
async def test_a_realm_elsewhere_gets_no_identity_token(stack: ExitStack, tmp_path: Path) -> None:
    up, attacker = private(stack.enter_context(FaultyUpstream())), stack.enter_context(FaultyUpstream())
    attacker.tokens = TokenService()
    up.require_bearer(up.tokens, realm=f"{attacker.url}/token")
    async with pulling_from(up, credentials=identity(tmp_path, up)) as upstream:
        with pytest.raises(UpstreamDenied):
            await upstream.head_manifest(REPOSITORY, "v1")
    assert attacker.count(path="/token") == 1
    assert_no_secret_came(attacker)


@pytest.mark.usefixtures("everything_is_public")
@pytest.mark.parametrize(
    "realm",
    [
        "http://registry.test:{other}/token",  # another port
        "http://registry.test.evil.test:{other}/token",
        "http://evil.test:{other}/token#@registry.test",
        "http://registry.test@evil.test:{other}/token",
        "http://evil.test:{other}/token?registry.test",
        "http://login.test:{other}/token",  # auth_hosts names the host with its own port alone
    ],
)
async def test_a_realm_that_resembles_the_endpoint_gets_no_password(stack: ExitStack, realm: str) -> None:
    up, attacker = private(stack.enter_context(FaultyUpstream())), stack.enter_context(FaultyUpstream())
    attacker.tokens = TokenService()
    names = ("registry.test", "registry.test.evil.test", "evil.test", "login.test")
    resolver = Resolver(**{name: ["127.0.0.1"] for name in names})
    endpoint = EndpointSettings(url=f"http://registry.test:{up.port}", auth_hosts=("login.test",))
    up.require_bearer(up.tokens, realm=realm.format(other=attacker.port))
    async with pulling_from(endpoint, credentials=LOGIN, transport=Transport(resolver=resolver)) as upstream:
        with pytest.raises(UpstreamDenied):
            await upstream.head_manifest(REPOSITORY, "v1")
    assert attacker.count(path="/token") == 1
    assert_no_secret_came(attacker)


async def test_a_realm_that_the_settings_name_gets_the_password(stack: ExitStack) -> None:
    up, login = private(stack.enter_context(FaultyUpstream())), stack.enter_context(FaultyUpstream())
    login.tokens = up.tokens
    up.require_bearer(up.tokens, realm=f"{login.url}/token")
    endpoint = EndpointSettings(url=up.url, auth_hosts=(login.host,))
    async with pulling_from(endpoint, credentials=LOGIN) as upstream:
        assert (await upstream.head_manifest(REPOSITORY, "v1")).digest == MANIFEST_DIGEST


async def test_a_realm_without_tls_gets_nothing_of_an_endpoint_with_tls(stack: ExitStack, tmp_path: Path) -> None:
    certificate = self_signed(tmp_path)
    up = private(stack.enter_context(FaultyUpstream(tls=certificate.for_servers)))
    plain = stack.enter_context(FaultyUpstream())
    up.require_bearer(up.tokens, realm=f"{plain.url}/token")
    endpoint = EndpointSettings(url=up.url, auth_hosts=(plain.host,))
    transport = Transport(trust=OneTrust(certificate.for_clients))
    async with pulling_from(endpoint, credentials=LOGIN, transport=transport) as upstream:
        with pytest.raises(UpstreamInvalid, match="not https"):
            await upstream.head_manifest(REPOSITORY, "v1")
    assert plain.count() == 0


@pytest.mark.usefixtures("everything_is_public")
async def test_a_token_service_that_redirects_takes_no_password_along(stack: ExitStack) -> None:
    up, attacker = private(stack.enter_context(FaultyUpstream())), stack.enter_context(FaultyUpstream())
    attacker.tokens = TokenService()
    up.inject(Fault(redirect=f"{attacker.url}/token"), path="/token")
    async with pulling_from(up, credentials=LOGIN) as upstream:
        with pytest.raises(UpstreamDenied):
            await upstream.head_manifest(REPOSITORY, "v1")
    assert attacker.count(path="/token") == 1
    assert_no_secret_came(attacker)


@pytest.mark.usefixtures("everything_is_public")
async def test_a_token_service_that_redirects_a_post_gets_no_second_one(stack: ExitStack, tmp_path: Path) -> None:
    up, attacker = private(stack.enter_context(FaultyUpstream())), stack.enter_context(FaultyUpstream())
    up.inject(Fault(redirect=f"{attacker.url}/token"), path="/token")
    async with pulling_from(up, credentials=identity(tmp_path, up)) as upstream:
        with pytest.raises(UpstreamError):
            await upstream.head_manifest(REPOSITORY, "v1")
    assert attacker.count() == 0


# 2: hosts learnt from an answer are public ones, at each hop.


async def test_a_realm_inside_the_network_is_not_asked(stack: ExitStack) -> None:
    up, inner = private(stack.enter_context(FaultyUpstream())), stack.enter_context(FaultyUpstream())
    up.require_bearer(up.tokens, realm=f"{inner.url}/latest/meta-data")
    async with pulling_from(up) as upstream:
        with pytest.raises(UpstreamInvalid, match=f"{inner.host}, which is not an address of the public internet"):
            await upstream.head_manifest(REPOSITORY, "v1")
    assert inner.accepted_connections == 0


@pytest.mark.parametrize("host", ["127.0.0.1", "inner.test", "[::ffff:127.0.0.1]", "2130706433"])
async def test_a_redirect_into_the_network_is_not_followed(stack: ExitStack, host: str) -> None:
    up, inner = holding(stack.enter_context(FaultyUpstream())), holding(stack.enter_context(FaultyUpstream()))
    up.inject(Fault(redirect=f"http://{host}:{inner.port}{{path}}"))
    resolver = Resolver(**{"inner.test": ["127.0.0.1"], "2130706433": ["127.0.0.1"]})
    async with pulling_from(up, transport=Transport(resolver=resolver)) as upstream:
        with pytest.raises(UpstreamInvalid, match=r"not an address of the public internet.*redirect_hosts"):
            await upstream.open_blob(REPOSITORY, BLOB_DIGEST, deadline=within())
    assert inner.accepted_connections == 0


async def test_each_hop_of_a_redirect_is_judged(stack: ExitStack) -> None:
    up, storage = holding(stack.enter_context(FaultyUpstream())), stack.enter_context(FaultyUpstream())
    inner = holding(stack.enter_context(FaultyUpstream()))
    up.inject(Fault(redirect=f"{storage.url}{{path}}"))
    storage.inject(Fault(redirect=f"{inner.url}{{path}}"))
    async with pulling_from(EndpointSettings(url=up.url, redirect_hosts=(storage.host,))) as upstream:
        with pytest.raises(UpstreamInvalid, match=inner.host):
            await upstream.open_blob(REPOSITORY, BLOB_DIGEST, deadline=within())
    assert storage.count() == 1
    assert inner.accepted_connections == 0


async def test_a_redirect_to_a_host_that_the_settings_name_is_followed(stack: ExitStack) -> None:
    up, storage = holding(stack.enter_context(FaultyUpstream())), holding(stack.enter_context(FaultyUpstream()))
    up.inject(Fault(redirect=f"{storage.url}{{path}}"))
    async with pulling_from(EndpointSettings(url=up.url, redirect_hosts=(storage.host,))) as upstream:
        stream = await upstream.open_blob(REPOSITORY, BLOB_DIGEST, offset=1000, deadline=within())
        assert stream.endpoint == up.host
        assert await content(stream) == BLOB[1000:]
        assert await upstream.head_blob(REPOSITORY, BLOB_DIGEST, deadline=within()) == len(BLOB)


async def test_a_host_named_for_tokens_is_not_one_for_redirects_nor_the_reverse(stack: ExitStack) -> None:
    up, other = holding(stack.enter_context(FaultyUpstream())), stack.enter_context(FaultyUpstream())
    rule = up.inject(Fault(redirect=f"{other.url}{{path}}"))
    async with pulling_from(EndpointSettings(url=up.url, auth_hosts=(other.host,))) as upstream:
        with pytest.raises(UpstreamInvalid):
            await upstream.head_manifest(REPOSITORY, "v1")
    rule.remove()
    up.require_bearer(realm=f"{other.url}/token")
    async with pulling_from(EndpointSettings(url=up.url, redirect_hosts=(other.host,))) as upstream:
        with pytest.raises(UpstreamInvalid):
            await upstream.head_manifest(REPOSITORY, "v1")
    assert other.accepted_connections == 0


async def test_a_connection_of_a_named_host_is_not_lent_to_one_that_is_not(stack: ExitStack) -> None:
    """The other endpoint of the same upstream may name a host, and keeps a connection to it open."""
    first, second = holding(stack.enter_context(FaultyUpstream())), holding(stack.enter_context(FaultyUpstream()))
    storage = holding(stack.enter_context(FaultyUpstream()))
    for up in (first, second):
        up.inject(Fault(redirect=f"{storage.url}{{path}}"))
    naming = EndpointSettings(url=first.url, redirect_hosts=(storage.host,))
    async with pulling_from(naming, second) as upstream:
        await upstream.head_manifest(REPOSITORY, "v1")
        first.refuse()
        with pytest.raises(UpstreamInvalid, match=storage.host):
            await upstream.head_manifest(REPOSITORY, "v1")
    assert storage.count() == 1


@pytest.mark.parametrize("location", ["file:///etc/passwd", "ftp://x/y", "gopher://x", "http://", "//[::1"])
async def test_a_redirect_to_what_is_not_http_is_refused(stack: ExitStack, location: str) -> None:
    up = holding(stack.enter_context(FaultyUpstream()))
    up.inject(Fault(redirect=location))
    async with pulling_from(up) as upstream:
        with pytest.raises(UpstreamInvalid, match="redirects"):
            await upstream.open_blob(REPOSITORY, BLOB_DIGEST, deadline=within())


async def test_redirects_in_a_circle_end(stack: ExitStack) -> None:
    up = holding(stack.enter_context(FaultyUpstream()))
    up.inject(Fault(redirect="{path}"))
    async with pulling_from(up) as upstream:
        with pytest.raises(UpstreamInvalid, match="more than 5 times"):
            await upstream.open_blob(REPOSITORY, BLOB_DIGEST, deadline=within())
    assert up.count() == 6


# 3: credentials stay behind.


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
async def test_a_redirect_to_another_port_carries_no_authorization(stack: ExitStack, status: int) -> None:
    up, storage = private(stack.enter_context(FaultyUpstream())), holding(stack.enter_context(FaultyUpstream()))
    async with pulling_from(
        EndpointSettings(url=up.url, redirect_hosts=(storage.host,)), credentials=LOGIN
    ) as upstream:
        await upstream.head_manifest(REPOSITORY, "v1")
        up.inject(Fault(redirect=f"{storage.url}{{path}}", status=status), path="/blobs/")
        assert await content(await upstream.open_blob(REPOSITORY, BLOB_DIGEST, deadline=within())) == BLOB
    assert "authorization" in up.matching(path="/blobs/")[0].headers
    assert_no_secret_came(storage)


async def test_a_redirect_to_another_name_of_the_same_address_carries_no_authorization(stack: ExitStack) -> None:
    up = holding(stack.enter_context(FaultyUpstream()))
    up.require_basic({"robot": PASSWORD})
    up.inject(Fault(redirect=f"http://other.test:{up.port}/elsewhere"), path="/blobs/")
    endpoint = EndpointSettings(url=f"http://registry.test:{up.port}", redirect_hosts=(f"other.test:{up.port}",))
    resolver = Resolver(**{"registry.test": ["127.0.0.1"], "other.test": ["127.0.0.1"]})
    async with pulling_from(endpoint, credentials=LOGIN, transport=Transport(resolver=resolver)) as upstream:
        await upstream.head_manifest(REPOSITORY, "v1")
        with pytest.raises(UpstreamError):
            await upstream.open_blob(REPOSITORY, BLOB_DIGEST, deadline=within(0.1))
    elsewhere = up.matching(path="/elsewhere")
    assert elsewhere
    assert all("authorization" not in request.headers for request in elsewhere)


async def test_a_redirect_there_and_back_carries_no_authorization(stack: ExitStack) -> None:
    up, storage = private(stack.enter_context(FaultyUpstream())), stack.enter_context(FaultyUpstream())
    up.inject(Fault(redirect=f"{storage.url}{{path}}"), path="/blobs/")
    storage.inject(Fault(redirect=f"{up.url}/v2/other/secret"))
    async with pulling_from(
        EndpointSettings(url=up.url, redirect_hosts=(storage.host,)), credentials=LOGIN
    ) as upstream:
        await upstream.head_manifest(REPOSITORY, "v1")
        with pytest.raises(MirrorError):
            await upstream.open_blob(REPOSITORY, BLOB_DIGEST, deadline=within())
    there_again = up.matching(path="/v2/other/secret")
    assert there_again
    assert all("authorization" not in request.headers for request in there_again)


async def test_a_redirect_from_tls_to_none_is_refused(stack: ExitStack, tmp_path: Path) -> None:
    certificate = self_signed(tmp_path)
    up = holding(stack.enter_context(FaultyUpstream(tls=certificate.for_servers)))
    plain = holding(stack.enter_context(FaultyUpstream()))
    up.inject(Fault(redirect=f"{plain.url}{{path}}"))
    endpoint = EndpointSettings(url=up.url, redirect_hosts=(plain.host,))
    async with pulling_from(endpoint, transport=Transport(trust=OneTrust(certificate.for_clients))) as upstream:
        with pytest.raises(UpstreamInvalid, match="without TLS"):
            await upstream.open_blob(REPOSITORY, BLOB_DIGEST, deadline=within())
    assert plain.accepted_connections == 0


async def test_storage_has_no_say_in_how_we_prove_who_we_are(stack: ExitStack) -> None:
    """Its challenge is not answered, and its refusal is no word on our credentials: signed addresses expire."""
    up, storage = holding(stack.enter_context(FaultyUpstream())), stack.enter_context(FaultyUpstream())
    storage.require_basic({"robot": PASSWORD})
    up.inject(Fault(redirect=f"{storage.url}{{path}}"))
    async with pulling_from(
        EndpointSettings(url=up.url, redirect_hosts=(storage.host,)), credentials=LOGIN
    ) as upstream:
        with pytest.raises(UpstreamError) as failed:
            await upstream.open_blob(REPOSITORY, BLOB_DIGEST, deadline=within(0.1))
        assert not isinstance(failed.value, UpstreamDenied)
    assert_no_secret_came(storage)
    assert_no_secret_came(up)


async def test_one_endpoints_credentials_do_not_go_to_another(stack: ExitStack) -> None:
    mirror, origin = stack.enter_context(FaultyUpstream()), holding(stack.enter_context(FaultyUpstream()))
    for up in (mirror, origin):
        up.require_basic({"robot": PASSWORD})
    mirror.inject(Fault(status=503), skip=1)
    mirror_login = Credentials(username="other", password=SecretStr("another password"))
    endpoint = EndpointSettings(url=mirror.url, credentials=mirror_login)
    async with pulling_from(endpoint, origin, credentials=LOGIN) as upstream:
        await upstream.head_manifest(REPOSITORY, "v1")
    assert all(PASSWORD not in basic_of(request) for request in mirror.requests)
    assert all("another password" not in basic_of(request) for request in origin.requests)


def basic_of(request: Request) -> str:
    return base64.b64decode(request.headers.get("authorization", "").partition(" ")[2]).decode()


async def test_cookies_are_not_kept(stack: ExitStack) -> None:
    up = holding(stack.enter_context(FaultyUpstream()))
    up.inject(Fault(headers={"set-cookie": "session=1; Path=/"}))
    async with pulling_from(up) as upstream:
        for _ in range(2):
            await upstream.head_manifest(REPOSITORY, "v1")
    assert all("cookie" not in request.headers for request in up.requests)


# 4: addresses inside a manifest are never fetched.


async def test_the_urls_of_a_foreign_layer_are_never_fetched(stack: ExitStack) -> None:
    up, foreign = stack.enter_context(FaultyUpstream()), stack.enter_context(FaultyUpstream())
    layer = {
        "mediaType": "application/vnd.docker.image.rootfs.foreign.diff.tar.gzip",
        "digest": str(BLOB_DIGEST),
        "size": len(BLOB),
        "urls": [f"{foreign.url}/layer"],
    }
    up.add_manifest(REPOSITORY, manifest(layers=[layer]), tag="v1")
    async with pulling_from(EndpointSettings(url=up.url, redirect_hosts=(foreign.host,))) as upstream:
        found = await upstream.get_manifest(REPOSITORY, "v1", deadline=within())
        with pytest.raises(MirrorError):
            await upstream.open_blob(REPOSITORY, found.layers[0].digest, deadline=within())
    assert foreign.accepted_connections == 0


# What an endpoint has of its own stays its own: client certificate, authorities, helpers, prefix.


def two_certificates(folder: Path) -> tuple[Certificate, Certificate]:
    for name in ("server", "client"):
        (folder / name).mkdir()
    return self_signed(folder / "server"), self_signed(folder / "client")


async def test_a_client_certificate_is_shown_to_no_host_that_the_endpoint_sends_us_to(
    stack: ExitStack, tmp_path: Path
) -> None:
    """Neither to storage nor to a token service, though the settings name them: each wants one, and gets none."""
    server, client = two_certificates(tmp_path)
    up = holding(stack.enter_context(FaultyUpstream(tls=showing(server, to=client))))
    other = holding(stack.enter_context(FaultyUpstream(tls=showing(server, to=client))))
    endpoint = EndpointSettings(
        url=up.url,
        ca_file=server.certificate,
        client_certificate=client.certificate,
        client_key=client.key,
        redirect_hosts=(other.host,),
        auth_hosts=(other.host,),
    )
    up.inject(Fault(redirect=f"{other.url}{{path}}"))
    async with pulling_from(endpoint) as upstream:
        with pytest.raises(UpstreamError, match=other.host):
            await upstream.head_manifest(REPOSITORY, "v1")
    assert up.count() == 1
    up.clear()
    other.tokens = up.require_bearer(realm=f"{other.url}/token")
    async with pulling_from(endpoint) as upstream:
        with pytest.raises(UpstreamError, match=other.host):
            await upstream.head_manifest(REPOSITORY, "v1")
    assert other.count() == 0


async def test_a_connection_with_a_client_certificate_is_not_lent_to_another_endpoint(
    stack: ExitStack, tmp_path: Path
) -> None:
    """Two endpoints at one host, as two mirrors of a Harbor: what one may see the other may not."""
    server, client = two_certificates(tmp_path)
    up = holding(stack.enter_context(FaultyUpstream(tls=showing(server, to=client))))
    files = {"client_certificate": client.certificate, "client_key": client.key}
    first = EndpointSettings(url=up.url, ca_file=server.certificate, repository_prefix="nothing/", **files)
    second = EndpointSettings(url=up.url, ca_file=server.certificate)
    async with pulling_from(first, second) as upstream:
        with pytest.raises(UpstreamError):
            await upstream.head_manifest(REPOSITORY, "v1")
    assert all("/nothing/" in request.path for request in up.requests)
    assert up.count() > 0


@pytest.mark.usefixtures("everything_is_public")
async def test_a_private_authority_counts_for_the_hosts_that_the_settings_name_alone(
    stack: ExitStack, tmp_path: Path
) -> None:
    certificate = self_signed(tmp_path)
    up, storage = (holding(stack.enter_context(FaultyUpstream(tls=certificate.for_servers))) for _ in range(2))
    up.inject(Fault(redirect=f"{storage.url}{{path}}"))
    named = EndpointSettings(url=up.url, ca_file=certificate.certificate, redirect_hosts=(storage.host,))
    async with pulling_from(named) as upstream:
        assert (await upstream.head_manifest(REPOSITORY, "v1")).digest == MANIFEST_DIGEST
    learnt = EndpointSettings(url=up.url, ca_file=certificate.certificate)
    async with pulling_from(learnt) as upstream:
        with pytest.raises(UpstreamUnavailable, match=f"{storage.host}, to which .* not trusted"):
            await upstream.head_manifest(REPOSITORY, "v1")
    assert storage.count() == 1


async def test_the_authority_of_one_endpoint_is_not_trusted_for_another(stack: ExitStack, tmp_path: Path) -> None:
    certificate = self_signed(tmp_path)
    first, second = (holding(stack.enter_context(FaultyUpstream(tls=certificate.for_servers))) for _ in range(2))
    first.inject(Fault(status=500))
    async with pulling_from(
        EndpointSettings(url=first.url, ca_file=certificate.certificate), EndpointSettings(url=second.url)
    ) as upstream:
        with pytest.raises(UpstreamUnavailable, match=f"{second.host} has a certificate that is not trusted"):
            await upstream.head_manifest(REPOSITORY, "v1")
    assert second.count() == 0


@pytest.mark.usefixtures("everything_is_public")
@pytest.mark.parametrize("username", ["robot", "<token>"])
async def test_what_a_helper_says_goes_where_credentials_may_go_alone(
    stack: ExitStack, tmp_path: Path, username: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in helper(tmp_path, "fake", says(username, PASSWORD)).items():
        monkeypatch.setenv(name, value)
    login = Credentials(helper="fake")
    up, attacker = private(stack.enter_context(FaultyUpstream())), stack.enter_context(FaultyUpstream())
    attacker.tokens = TokenService()
    up.require_bearer(up.tokens, realm=f"{attacker.url}/token")
    async with pulling_from(up, credentials=login) as upstream:
        with pytest.raises(UpstreamDenied, match="they went nowhere"):
            await upstream.head_manifest(REPOSITORY, "v1")
    other = holding(stack.enter_context(FaultyUpstream()))
    other.require_basic({"robot": PASSWORD})
    other.inject(Fault(redirect=f"{attacker.url}{{path}}"))
    async with pulling_from(other, credentials=login) as upstream:
        with pytest.raises(MirrorError):
            await upstream.head_manifest(REPOSITORY, "v1")
    assert attacker.count() > 0
    assert_no_secret_came(attacker)


@pytest.mark.usefixtures("everything_is_public")
async def test_an_identity_token_that_is_not_taken_by_post_goes_nowhere_else_by_get(
    stack: ExitStack, tmp_path: Path
) -> None:
    up, attacker = private(stack.enter_context(FaultyUpstream())), stack.enter_context(FaultyUpstream())
    attacker.tokens = TokenService()
    up.inject(Fault(status=404), method="POST", path="/token")
    up.inject(Fault(redirect=f"{attacker.url}/token"), method="GET", path="/token")
    async with pulling_from(up, credentials=identity(tmp_path, up)) as upstream:
        with pytest.raises(UpstreamDenied):
            await upstream.head_manifest(REPOSITORY, "v1")
    assert attacker.count(path="/token") == 1
    assert_no_secret_came(attacker)


async def test_a_prefix_opens_no_way_to_another_endpoints_repositories(stack: ExitStack) -> None:
    """The token of a repository with a prefix is not used for one without, nor the reverse."""
    up = stack.enter_context(FaultyUpstream())
    tokens = up.require_bearer()
    for repository in ("proxy/team/a", "team/a"):
        up.add_manifest(repository, manifest(), tag="v1")
    prefixed = EndpointSettings(url=up.url, repository_prefix="proxy")
    for endpoint in (prefixed, EndpointSettings(url=up.url)):
        async with pulling_from(endpoint) as upstream:
            await upstream.head_manifest("team/a", "v1")
    assert [issued.scopes for issued in tokens.issued] == [
        ("repository:proxy/team/a:pull",),
        ("repository:team/a:pull",),
    ]
