"""Hosts, ports and the URLs of endpoints."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mirror.config import hosts


@pytest.mark.parametrize(
    ("text", "host", "port"),
    [
        ("ghcr.io", "ghcr.io", None),
        ("GHCR.io:443", "ghcr.io", 443),
        ("wasm-mirror.istio-system.svc:8080", "wasm-mirror.istio-system.svc", 8080),
        ("my_registry", "my_registry", None),
        ("10.0.0.5:5000", "10.0.0.5", 5000),
        ("[::1]:0", "::1", 0),
        ("[2001:DB8::1]", "2001:db8::1", None),
    ],
)
def test_a_host_is_split_from_its_port(text: str, host: str, port: int | None) -> None:
    assert hosts.split(text) == (host, port)
    assert hosts.split(hosts.join(host, port)) == (host, port)


@pytest.mark.parametrize(
    "text",
    [
        "",
        ":80",
        "a:",
        "a:b",
        "a:65536",
        "a:-1",
        "a:1:2",
        "a b",
        "a/b",
        "a..b",
        ".a",
        "a.",
        "-a",
        "a" * 64,
        "1.2.3",
        "1.2.3.256",
        "::1",
        "[::1",
        "[1.2.3.4]",
        "[fe80::1%eth0]",
        "[::1]80",
        "ä.example",
        "a\n",
        ".".join(["a" * 60] * 5),
    ],
)
def test_what_is_no_host_is_refused(text: str) -> None:
    assert hosts.split(text) is None


@given(st.text(max_size=40))
def test_whatever_is_taken_for_a_host_can_be_joined_and_split_again(text: str) -> None:
    found = hosts.split(text)
    assert found is None or hosts.split(hosts.join(*found)) == found


@pytest.mark.parametrize("text", ["127.0.0.1:8080", "0.0.0.0:0", "[::]:8080", "localhost:80"])
def test_an_address_to_listen_at_needs_a_host_and_a_port(text: str) -> None:
    assert hosts.parse_listen(text) == text


@pytest.mark.parametrize("value", ["8080", ":8080", "localhost", "[::]", "http://a:80", "::1:80", 8080, None, ["a:1"]])
def test_what_is_no_address_to_listen_at_is_refused(value: object) -> None:
    with pytest.raises(ValueError, match="must be HOST:PORT"):
        hosts.parse_listen(value)


@pytest.mark.parametrize("value", ["https://login.corp", "login.corp/", "*.corp", "a:0", "", None, {}])
def test_what_is_no_host_name_is_refused(value: object) -> None:
    with pytest.raises(ValueError, match="must be HOST or HOST:PORT"):
        hosts.parse_host(value)


@pytest.mark.parametrize(
    ("text", "url"),
    [
        ("https://ghcr.io", "https://ghcr.io"),
        ("HTTPS://GHCR.IO/", "https://ghcr.io"),
        ("https://a.example:443", "https://a.example"),
        ("http://a.example:443", "http://a.example:443"),
        ("http://127.0.0.1:5000", "http://127.0.0.1:5000"),
        ("http://[::1]:80", "http://[::1]"),
    ],
)
def test_an_endpoint_is_a_scheme_a_host_and_a_port(text: str, url: str) -> None:
    assert hosts.parse_endpoint(text) == url


@pytest.mark.parametrize(
    "value",
    [
        "ghcr.io",
        "ftp://a.example",
        "https://",
        "https://a.example/v2",
        "https://a.example//",
        "https://a.example#x",
        "https:/a.example",
        "https://a.example:0",
        "https://a b",
        "unix:///run/x",
        5,
        None,
    ],
)
def test_what_is_no_endpoint_is_refused(value: object) -> None:
    with pytest.raises(ValueError, match="must be "):
        hosts.parse_endpoint(value)


@pytest.mark.parametrize("value", ["https://robot:hunter2@a.example", "https://hunter2@a", "https://a/?token=hunter2"])
def test_a_secret_in_an_endpoint_is_refused_without_showing_it(value: str) -> None:
    with pytest.raises(ValueError, match="must not hold a user name") as refused:
        hosts.parse_endpoint(value)
    assert "hunter2" not in str(refused.value)


@pytest.mark.parametrize(
    ("host", "expected"),
    [
        ("127.0.0.1", True),
        ("127.8.8.8", True),
        ("::1", True),
        ("localhost", True),
        ("a.localhost", True),
        ("10.0.0.1", False),
        ("0.0.0.0", False),
        ("localhost.example", False),
        ("127.0.0.1.example", False),
    ],
)
def test_loopback_is_known_by_name_and_number(host: str, expected: bool) -> None:
    assert hosts.is_loopback(host) is expected
