"""Which proxy a request goes through, and what a proxy sees, may do, and answers."""

import asyncio
import socket
import ssl
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from pathlib import Path

import httpx
import pytest

from mirror.config import EndpointSettings
from mirror.errors import UpstreamError, UpstreamInvalid, UpstreamTimeout, UpstreamUnavailable
from mirror.upstream import transport as transports
from mirror.upstream.proxy import Proxies, may_be_asked_of_a_proxy
from mirror.upstream.transport import Transport
from mirror.upstream.trust import OneTrust
from tests.support.certificates import Certificate, self_signed
from tests.support.faults import Fault
from tests.support.upstream import FaultyUpstream
from tests.upstream.support import (
    BLOB,
    BLOB_DIGEST,
    LOGIN,
    MANIFEST_DIGEST,
    PASSWORD,
    REPOSITORY,
    RecordingProxy,
    Resolver,
    content,
    holding,
    private,
    pulling_from,
    within,
)

HTTPS, HTTP = httpx.URL("https://registry.example"), httpx.URL("http://registry.example")


def way(environment: Mapping[str, str], url: str | httpx.URL = HTTPS) -> str | None:
    proxy = Proxies.of(environment).between(httpx.URL(url))
    return None if proxy is None else f"{'https' if proxy.tls else 'http'}://{proxy.name}"


@pytest.mark.parametrize("name", ["HTTPS_PROXY", "https_proxy"])
def test_https_goes_through_its_proxy_alone(name: str) -> None:
    assert way({name: "http://proxy.example:3128"}) == "http://proxy.example:3128"
    assert way({name: "http://proxy.example:3128"}, HTTP) is None


@pytest.mark.parametrize("name", ["HTTP_PROXY", "http_proxy"])
def test_http_goes_through_its_proxy_alone(name: str) -> None:
    assert way({name: "http://proxy.example:3128"}, HTTP) == "http://proxy.example:3128"
    assert way({name: "http://proxy.example:3128"}) is None


def test_lower_case_wins_and_an_empty_variable_is_none() -> None:
    assert way({"HTTPS_PROXY": "http://a:1", "https_proxy": "http://b:2"}) == "http://b:2"
    assert way({"HTTPS_PROXY": "http://a:1", "https_proxy": ""}) == "http://a:1"
    assert way({"HTTPS_PROXY": ""}) is None
    assert way({}) is None


@pytest.mark.parametrize(
    ("written", "meant"),
    [
        ("http://proxy.example", "http://proxy.example:80"),
        ("https://proxy.example", "https://proxy.example:443"),
        ("proxy.example:3128", "http://proxy.example:3128"),
        ("10.0.0.1:3128", "http://10.0.0.1:3128"),
        ("http://[fd00::1]:3128/", "http://[fd00::1]:3128"),
        ("http://us%40er:p%3Aw@proxy.example:3128", "http://proxy.example:3128"),
    ],
)
def test_a_proxys_url_is_understood(written: str, meant: str) -> None:
    assert way({"HTTPS_PROXY": written}) == meant


@pytest.mark.parametrize("written", ["socks5://hidden@proxy:1080", "http://hid den", "http://:1", "http://a:hidden"])
def test_a_proxy_that_cannot_be_used_is_told_by_its_variable_and_without_its_value(written: str) -> None:
    with pytest.raises(UpstreamUnavailable, match="the environment variable HTTPS_PROXY must be") as failed:
        way({"HTTPS_PROXY": written})
    assert "hid" not in str(failed.value)


@pytest.mark.parametrize(
    ("exception", "url"),
    [
        ("*", "https://registry.example"),
        ("registry.example", "https://registry.example"),
        ("registry.example", "https://registry.example:5000"),
        ("REGISTRY.Example.", "https://registry.example."),
        ("example", "https://registry.example"),
        (".example", "https://registry.example"),
        ("*.example", "https://registry.example"),
        ("other,  registry.example", "https://registry.example"),
        ("other registry.example", "https://registry.example"),
        ("registry.example:5000", "https://registry.example:5000"),
        ("registry.example:443", "https://registry.example"),
        ("10.0.0.0/8", "https://10.1.2.3"),
        ("10.1.2.3", "https://10.1.2.3:5000"),
        ("10.1.2.3:5000", "https://10.1.2.3:5000"),
        ("fd00::/8", "https://[fd00::1]"),
        ("fd00::1", "https://[fd00::1]"),
        ("[fd00::1]:5000", "https://[fd00::1]:5000"),
    ],
)
@pytest.mark.parametrize("variable", ["NO_PROXY", "no_proxy"])
def test_what_is_excepted_is_asked_directly(variable: str, exception: str, url: str) -> None:
    assert way({"HTTPS_PROXY": "http://proxy:1", variable: exception}, url) is None


@pytest.mark.parametrize(
    ("exception", "url"),
    [
        ("", "https://registry.example"),
        ("egistry.example", "https://registry.example"),
        (".registry.example", "https://registry.example"),
        ("registry.example", "https://registry.example.evil"),
        ("registry.example:5000", "https://registry.example"),
        ("10.0.0.0/8", "https://11.0.0.1"),
        ("10.0.0.0/8", "https://10.example"),
        ("10.1.2.3:5000", "https://10.1.2.3"),
        ("!!, /, :5", "https://registry.example"),
    ],
)
def test_what_is_not_excepted_goes_through_the_proxy(exception: str, url: str) -> None:
    assert way({"HTTPS_PROXY": "http://proxy:1", "NO_PROXY": exception}, url) == "http://proxy:1"


@pytest.mark.parametrize("host", ["localhost", "LOCALHOST.", "a.localhost", "127.0.0.1", "127.9.9.9", "[::1]"])
def test_this_machine_is_never_behind_a_proxy(host: str) -> None:
    both = {"HTTPS_PROXY": "http://proxy:1", "HTTP_PROXY": "http://proxy:1"}
    assert way(both, f"https://{host}:5000") is None
    assert way(both, f"http://{host}:5000") is None


def test_a_proxys_credentials_are_not_shown() -> None:
    proxy = Proxies.of({"HTTPS_PROXY": "http://robot:hidden@proxy:1"}).between(HTTPS)
    assert proxy is not None
    assert proxy.authorization is not None
    assert "hidden" not in f"{proxy!r}{proxy}{proxy.name}"
    assert proxy.authorization.get_secret_value() == "Basic cm9ib3Q6aGlkZGVu"


@pytest.mark.parametrize("host", ["storage.example", "a.b.c", "10.example", "xn--bcher-kva.example", "redis"])
def test_a_learnt_name_may_be_asked_of_a_proxy(host: str) -> None:
    assert may_be_asked_of_a_proxy(host)


@pytest.mark.parametrize(
    "host",
    [
        "127.0.0.1", "10.0.0.1", "169.254.169.254", "8.8.8.8", "8.8.8.8.", "::1", "[::1]", "fd00::1", "::ffff:7f00:1",
        "2130706433", "0x7f000001", "0x7f.1", "127.1", "0177.0.0.1", "0", "0x", "a.0x7f", "1.2.3.4.5", "example.1",
        "localhost", "LocalHost", "localhost.", "localhost..", "a.localhost", "a.localhost.", "localhost.localdomain",
        "ip6-localhost", "", ".", "a..b", "%31%32%37.0.0.1", "a b", "a\r\nb", "a:80", "a/b", "a@b",
    ],
)  # fmt: skip
def test_a_learnt_address_or_this_machine_may_not_however_it_is_spelt(host: str) -> None:
    assert not may_be_asked_of_a_proxy(host)


# On the wire.


@pytest.fixture
def stack() -> Iterator[ExitStack]:
    with ExitStack() as entered:
        yield entered


@pytest.fixture
def certificate(tmp_path: Path) -> Certificate:
    return self_signed(tmp_path)


def through(
    proxy: RecordingProxy, *, trust: Certificate | None = None, credentials: str = "", no_proxy: str = "", **more: float
) -> Transport:
    """A transport that asks for everything through ``proxy``, and looks up nothing itself."""
    url = proxy.url(credentials)
    proxies = Proxies.of({"HTTPS_PROXY": url, "HTTP_PROXY": url, "NO_PROXY": no_proxy})
    given = None if trust is None else OneTrust(unnamed(trust))
    return Transport(trust=given, proxies=proxies, resolver=Resolver(), **more)


def unnamed(certificate: Certificate) -> ssl.SSLContext:
    """Trust in ``certificate`` under any name: those of these tests stand in none."""
    context = certificate.for_clients
    context.check_hostname = False
    return context


async def test_tls_goes_through_a_tunnel_and_names_are_left_to_the_proxy(
    stack: ExitStack, certificate: Certificate
) -> None:
    up = private(stack.enter_context(FaultyUpstream(tls=certificate.for_servers)))
    up.require_bearer(up.tokens, realm="https://registry.test:5000/token")
    async with RecordingProxy({"registry.test:5000": up.port}) as proxy:
        transport = through(proxy, trust=certificate)
        endpoint = EndpointSettings(url="https://registry.test:5000")
        async with pulling_from(endpoint, credentials=LOGIN, transport=transport) as upstream:
            assert (await upstream.head_manifest(REPOSITORY, "v1")).digest == MANIFEST_DIGEST
            assert await content(await upstream.open_blob(REPOSITORY, BLOB_DIGEST, deadline=within())) == BLOB
        assert proxy.asked == ["CONNECT registry.test:5000"]  # one tunnel for all
        assert "authorization" not in proxy.heads[0].lower()
    assert not any("proxy" in name for request in up.requests for name in request.headers)


async def test_a_tunnel_is_asked_for_with_the_proxys_credentials(stack: ExitStack, certificate: Certificate) -> None:
    up = holding(stack.enter_context(FaultyUpstream(tls=certificate.for_servers)))
    async with RecordingProxy({"registry.test:443": up.port}, credentials="robot:pass word") as proxy:
        transport = through(proxy, trust=certificate, credentials="robot:pass%20word")
        async with pulling_from(EndpointSettings(url="https://registry.test"), transport=transport) as upstream:
            assert (await upstream.head_manifest(REPOSITORY, "v1")).digest == MANIFEST_DIGEST


async def test_without_tls_requests_are_handed_to_the_proxy(stack: ExitStack) -> None:
    up = holding(stack.enter_context(FaultyUpstream()))
    async with RecordingProxy({"registry.test:5000": up.port}, credentials="robot:pass word") as proxy:
        transport = through(proxy, credentials="robot:pass%20word")
        async with pulling_from(EndpointSettings(url="http://registry.test:5000"), transport=transport) as upstream:
            assert (await upstream.head_manifest(REPOSITORY, "v1")).digest == MANIFEST_DIGEST
            stream = await upstream.open_blob(REPOSITORY, BLOB_DIGEST, offset=1000, deadline=within())
            assert await content(stream) == BLOB[1000:]
        assert proxy.asked[0] == f"HEAD http://registry.test:5000/v2/{REPOSITORY}/manifests/v1"
        assert "\r\nhost: registry.test:5000\r\n" in proxy.heads[0].lower()


async def test_what_is_excepted_does_not_see_the_proxys_credentials(stack: ExitStack) -> None:
    up = holding(stack.enter_context(FaultyUpstream()))
    async with RecordingProxy({}) as proxy:
        proxies = Proxies.of({"HTTP_PROXY": proxy.url("robot:hidden"), "NO_PROXY": "registry.test"})
        transport = Transport(proxies=proxies, resolver=Resolver(**{"registry.test": ["127.0.0.1"]}))
        endpoint = EndpointSettings(url=f"http://registry.test:{up.port}")
        async with pulling_from(endpoint, transport=transport) as upstream:
            await upstream.head_manifest(REPOSITORY, "v1")
        assert proxy.heads == []
    assert not any("proxy" in name for request in up.requests for name in request.headers)


@pytest.mark.parametrize("scheme", ["http", "https"])
@pytest.mark.parametrize(
    ("credentials", "words"),
    [("", r"wants credentials \(407\); write them into the URL in"), ("robot:hidden", "refuses the credentials in")],
)
async def test_a_proxy_that_wants_other_credentials_is_told_by_the_variable(
    scheme: str, credentials: str, words: str
) -> None:
    async with RecordingProxy({}, credentials="robot:right") as proxy:
        transport = through(proxy, credentials=credentials)
        async with pulling_from(EndpointSettings(url=f"{scheme}://registry.test"), transport=transport) as upstream:
            told = f"registry.test cannot be reached: the proxy 127.0.0.1:{proxy.port} {words} {scheme.upper()}_PROXY"
            with pytest.raises(UpstreamUnavailable, match=told) as failed:
                await upstream.head_manifest(REPOSITORY, "v1")
    assert "hidden" not in f"{failed.value}{failed.value.detail}"


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (b"HTTP/1.1 403 Forbidden\r\n\r\n", "answers 403"),
        (b"HTTP/1.1 502 Bad Gateway\r\ncontent-length: 5\r\n\r\nhello", "answers 502"),
        (b"220 mail.example ESMTP\r\n\r\n", "does not answer as one"),
        (b"HTTP/1.1 200 OK\r\n\r\nsurprise", "does not answer as one"),
        (b"HTTP/1.1 200 OK\r\nx: " + b"y" * 20_000, "does not answer as one"),
    ],
)
async def test_a_proxy_that_does_not_connect_is_an_outage(answer: bytes, words: str) -> None:
    endpoint = EndpointSettings(url="https://registry.test")
    told = f"the proxy .* of HTTPS_PROXY {words}"
    async with RecordingProxy({}, answer=answer) as proxy, pulling_from(endpoint, transport=through(proxy)) as upstream:
        with pytest.raises(UpstreamUnavailable, match=told):
            await upstream.head_manifest(REPOSITORY, "v1")


@pytest.mark.shows("the proxy between the mirror and a registry is away")
async def test_a_proxy_that_is_not_there_is_an_outage() -> None:
    proxy = RecordingProxy({})
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        proxy.port = bound.getsockname()[1]
        async with pulling_from(EndpointSettings(url="https://registry.test"), transport=through(proxy)) as upstream:
            with pytest.raises(UpstreamUnavailable, match="of HTTPS_PROXY cannot be connected to"):
                await upstream.head_manifest(REPOSITORY, "v1")


@pytest.mark.shows("the proxy between the mirror and a registry is away")
async def test_a_proxy_that_does_not_answer_is_a_timeout() -> None:
    async with RecordingProxy({}, answer=b"HTTP/1.1 200") as proxy:
        transport = through(proxy, connect_within=0.1)
        async with pulling_from(EndpointSettings(url="https://registry.test"), transport=transport) as upstream:
            with pytest.raises(UpstreamTimeout, match=r"within 0\.1 s through the proxy"):
                await upstream.head_manifest(REPOSITORY, "v1")


async def test_a_proxy_may_itself_be_asked_by_tls(
    stack: ExitStack, certificate: Certificate, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(transports, "usual", lambda: certificate.for_clients)
    up = holding(stack.enter_context(FaultyUpstream(tls=certificate.for_servers)))
    async with RecordingProxy({"registry.test:443": up.port}, tls=certificate.for_servers) as proxy:
        transport = through(proxy, trust=certificate)
        async with pulling_from(EndpointSettings(url="https://registry.test"), transport=transport) as upstream:
            assert await content(await upstream.open_blob(REPOSITORY, BLOB_DIGEST, deadline=within())) == BLOB
        assert proxy.asked == ["CONNECT registry.test:443"]


async def test_a_proxy_whose_certificate_is_not_trusted_is_not_told_anything(certificate: Certificate) -> None:
    async with RecordingProxy({}, tls=certificate.for_servers) as proxy:
        transport = through(proxy, credentials="robot:hidden")
        async with pulling_from(EndpointSettings(url="https://registry.test"), transport=transport) as upstream:
            with pytest.raises(UpstreamUnavailable, match=r"cannot be connected to .*certificate verify failed"):
                await upstream.head_manifest(REPOSITORY, "v1")
        assert proxy.heads == []


@pytest.mark.parametrize(
    "host",
    ["10.0.0.1", "169.254.169.254", "8.8.8.8", "[fd00::1]", "2130706433", "0x7f.1", "127.1", "127.0.0.1", "localhost",
     "localhost.", "a.localhost", "[::1]"],
)  # fmt: skip
@pytest.mark.parametrize("scheme", ["http", "https"])
async def test_a_redirect_to_an_address_or_to_this_machine_is_not_followed_through_a_proxy(
    stack: ExitStack, certificate: Certificate, scheme: str, host: str
) -> None:
    up = holding(stack.enter_context(FaultyUpstream(tls=certificate.for_servers if scheme == "https" else None)))
    up.inject(Fault(redirect=f"{scheme}://{host}{{path}}"))
    async with RecordingProxy({"registry.test:5000": up.port}) as proxy:
        transport = Transport(
            trust=OneTrust(unnamed(certificate)),
            proxies=Proxies.of({"HTTPS_PROXY": proxy.url(), "HTTP_PROXY": proxy.url()}),
        )
        endpoint = EndpointSettings(url=f"{scheme}://registry.test:5000")
        async with pulling_from(endpoint, transport=transport) as upstream:
            with pytest.raises(UpstreamError, match=r"not an address of the public internet|does not resolve"):
                await upstream.head_manifest(REPOSITORY, "v1")
        assert len(proxy.heads) == 1


async def test_a_redirect_to_a_name_is_the_proxys_to_judge_and_sees_no_credential(
    stack: ExitStack, certificate: Certificate
) -> None:
    up = holding(stack.enter_context(FaultyUpstream(tls=certificate.for_servers)))
    storage = holding(stack.enter_context(FaultyUpstream(tls=certificate.for_servers)))
    up.require_basic({"robot": PASSWORD})
    up.inject(Fault(redirect="https://storage.test{path}"), path="/blobs/")
    async with RecordingProxy({"registry.test:443": up.port, "storage.test:443": storage.port}) as proxy:
        transport = through(proxy, trust=certificate)
        endpoint = EndpointSettings(url="https://registry.test")
        async with pulling_from(endpoint, credentials=LOGIN, transport=transport) as upstream:
            await upstream.head_manifest(REPOSITORY, "v1")
            assert await content(await upstream.open_blob(REPOSITORY, BLOB_DIGEST, deadline=within())) == BLOB
        assert proxy.asked == ["CONNECT registry.test:443", "CONNECT storage.test:443"]
    assert "authorization" in up.matching(path="/blobs/")[0].headers
    assert all("authorization" not in request.headers for request in storage.requests)


async def test_a_host_that_is_excepted_is_judged_by_its_address(stack: ExitStack, certificate: Certificate) -> None:
    up = holding(stack.enter_context(FaultyUpstream(tls=certificate.for_servers)))
    inner = holding(stack.enter_context(FaultyUpstream(tls=certificate.for_servers)))
    up.inject(Fault(redirect=f"https://inner.test:{inner.port}{{path}}"))
    async with RecordingProxy({"registry.test:443": up.port}) as proxy:
        transport = Transport(
            trust=OneTrust(unnamed(certificate)),
            proxies=Proxies.of({"HTTPS_PROXY": proxy.url(), "NO_PROXY": "inner.test"}),
            resolver=Resolver(**{"inner.test": ["127.0.0.1"]}),
        )
        async with pulling_from(EndpointSettings(url="https://registry.test"), transport=transport) as upstream:
            with pytest.raises(UpstreamInvalid, match=r"inner\.test.*not an address of the public internet"):
                await upstream.open_blob(REPOSITORY, BLOB_DIGEST, deadline=within())
    assert inner.accepted_connections == 0


async def test_many_tunnels_at_once_are_none_of_each_others_business(
    stack: ExitStack, certificate: Certificate
) -> None:
    up = holding(stack.enter_context(FaultyUpstream(tls=certificate.for_servers)))
    async with RecordingProxy({"registry.test:443": up.port}) as proxy:
        transport = through(proxy, trust=certificate)
        async with pulling_from(EndpointSettings(url="https://registry.test"), transport=transport) as upstream:

            async def pull() -> bytes:
                return await content(await upstream.open_blob(REPOSITORY, BLOB_DIGEST, deadline=within()))

            assert await asyncio.gather(*(pull() for _ in range(20))) == [BLOB] * 20


async def test_a_tunnel_that_died_costs_no_answer(stack: ExitStack, certificate: Certificate) -> None:
    up = holding(stack.enter_context(FaultyUpstream(tls=certificate.for_servers)))
    async with RecordingProxy({"registry.test:443": up.port}) as proxy:
        transport = through(proxy, trust=certificate)
        async with pulling_from(EndpointSettings(url="https://registry.test"), transport=transport) as upstream:
            await upstream.head_manifest(REPOSITORY, "v1")
            up.cut_connections()
            assert (await upstream.head_manifest(REPOSITORY, "v1")).digest == MANIFEST_DIGEST
        assert len(proxy.heads) == 2


async def test_an_endpoints_error_is_not_taken_for_the_proxys(stack: ExitStack, certificate: Certificate) -> None:
    up = holding(stack.enter_context(FaultyUpstream(tls=certificate.for_servers)))
    up.inject(Fault(status=503))
    async with RecordingProxy({"registry.test:443": up.port}) as proxy:
        transport = through(proxy, trust=certificate)
        async with pulling_from(EndpointSettings(url="https://registry.test"), transport=transport) as upstream:
            with pytest.raises(UpstreamError, match=r"^registry\.test answers 503"):
                await upstream.head_manifest(REPOSITORY, "v1")
