"""A request names one upstream and one repository, or nothing at all: the world is closed."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mirror.config import Settings
from mirror.errors import NameInvalid, NameUnknown, RequestError
from mirror.names import Names, Place

HOST = "127.0.0.1:8080"

UPSTREAMS = {
    "ghcr.io": {},
    "docker.io": {},
    "corp": {"endpoints": ["https://10.0.0.5:5000"]},
    "hub": {"endpoints": ["https://registry-1.docker.io"]},
    "mirror.example": {},
}


def names(**settings: object) -> Names:
    return Names(Settings.model_validate({"upstreams": UPSTREAMS, **settings}))


@pytest.mark.parametrize(
    ("name", "place"),
    [
        ("ghcr.io/team/plugin", Place("ghcr.io", "team/plugin")),
        ("ghcr.io/plugin", Place("ghcr.io", "plugin")),
        ("corp/a/b/c", Place("corp", "a/b/c")),
        ("ghcr.io/docker.io/x", Place("ghcr.io", "docker.io/x")),
        ("docker.io/busybox", Place("docker.io", "library/busybox")),
        ("docker.io/library/busybox", Place("docker.io", "library/busybox")),
        ("docker.io/envoyproxy/envoy", Place("docker.io", "envoyproxy/envoy")),
        ("hub/busybox", Place("hub", "library/busybox")),
    ],
)
def test_the_first_component_names_the_upstream(name: str, place: Place) -> None:
    assert names().place(name, ns=None, host=HOST) == place


@pytest.mark.parametrize(
    ("name", "ns", "place"),
    [
        ("team/plugin", "ghcr.io", Place("ghcr.io", "team/plugin", by_namespace=True)),
        ("team/plugin", "GHCR.io", Place("ghcr.io", "team/plugin", by_namespace=True)),
        ("team/plugin", "ghcr.io:443", Place("ghcr.io", "team/plugin", by_namespace=True)),
        ("busybox", "docker.io", Place("docker.io", "library/busybox", by_namespace=True)),
        ("busybox", "registry-1.docker.io", Place("docker.io", "library/busybox", by_namespace=True)),
        ("docker.io/x", "ghcr.io", Place("ghcr.io", "docker.io/x", by_namespace=True)),
        ("ghcr.io/team/plugin", "ghcr.io", Place("ghcr.io", "ghcr.io/team/plugin", by_namespace=True)),
    ],
)
def test_with_ns_the_path_is_the_whole_repository(name: str, ns: str, place: Place) -> None:
    assert names().place(name, ns=ns, host="docker.io") == place


@pytest.mark.parametrize(
    "ns",
    ["", " ", "quay.io", "ghcr.io.evil.example", "http://169.254.169.254", "169.254.169.254", "https://ghcr.io",
     "ghcr.io/", "ghcr.io/team", "user@ghcr.io", "..", "%67hcr.io", "ghcr.io\n", "ghcr.io:5000", "ghcr.io:80",
     "x" * 5000],
)  # fmt: skip
def test_an_ns_that_is_no_upstream_is_not_found(ns: str) -> None:
    with pytest.raises(NameUnknown) as caught:
        names(default_upstream="ghcr.io").place("ghcr.io/team/plugin", ns=ns, host="ghcr.io")
    assert caught.value.detail["setting"] == "upstreams"  # type: ignore[index]  # detail is any JSON
    assert "upstreams" in caught.value.message
    assert len(caught.value.message) < 500


def test_an_ns_that_is_the_mirror_itself_is_passed_over() -> None:
    known = names(names=["mirror.corp:5000", "wasm"])
    for ns in ("mirror.corp:5000", "MIRROR.corp:5000", "wasm", "wasm:8080"):
        assert known.place("ghcr.io/x", ns=ns, host=HOST) == Place("ghcr.io", "x")
    with pytest.raises(NameUnknown):
        known.place("ghcr.io/x", ns="mirror.corp:5001", host=HOST)


@pytest.mark.parametrize("host", ["ghcr.io", "ghcr.io:443", "GHCR.IO:8080"])
def test_a_host_that_is_an_upstream_makes_the_path_the_whole_repository(host: str) -> None:
    assert names().place("team/plugin", ns=None, host=host) == Place("ghcr.io", "team/plugin")
    assert names().place("docker.io/x", ns=None, host=host) == Place("ghcr.io", "docker.io/x")


@pytest.mark.parametrize(
    "host", ["", HOST, "[::1]:8080", "evil.example", "ghcr.io, docker.io", "ghcr.io/x", "ghcr.io:x"]
)
def test_any_other_host_changes_nothing(host: str) -> None:
    assert names().place("ghcr.io/x", ns=None, host=host) == Place("ghcr.io", "x")


def test_the_mirrors_own_name_is_no_upstream_even_when_one_is_called_so() -> None:
    known = names(names=["mirror.example"])
    assert known.place("ghcr.io/x", ns=None, host="mirror.example:8080") == Place("ghcr.io", "x")
    assert known.place("x", ns="mirror.example", host=HOST) == Place("mirror.example", "x", by_namespace=True)


def test_ns_comes_before_host_before_path_before_the_default() -> None:
    known = names(default_upstream="corp")
    name = "docker.io/team/x"
    assert known.place(name, ns="mirror.example", host="ghcr.io") == Place("mirror.example", name, by_namespace=True)
    assert known.place(name, ns=None, host="ghcr.io") == Place("ghcr.io", name)
    assert known.place(name, ns=None, host=HOST) == Place("docker.io", "team/x")
    assert known.place("team/x", ns=None, host=HOST) == Place("corp", "team/x")


def test_the_default_upstream_is_off_unless_it_is_set() -> None:
    with pytest.raises(NameUnknown, match=r"'team'.*`upstreams`"):
        names().place("team/x", ns=None, host=HOST)


def test_the_default_upstream_gets_its_library_too() -> None:
    assert names(default_upstream="docker.io").place("busybox", ns=None, host=HOST).repository == "library/busybox"


def test_an_upstream_without_a_repository_is_malformed() -> None:
    with pytest.raises(NameInvalid, match="append a repository"):
        names().place("ghcr.io", ns=None, host=HOST)


def test_a_name_that_library_makes_too_long_is_malformed() -> None:
    with pytest.raises(NameInvalid):
        names().place("a" * 250, ns="docker.io", host=HOST)


@settings(deadline=None)
@given(st.text(max_size=50), st.none() | st.text(max_size=50), st.text(max_size=50))
def test_nothing_but_a_configured_upstream_ever_comes_out(name: str, ns: str | None, host: str) -> None:
    try:
        place = names().place(name, ns=ns, host=host)
    except (NameUnknown, RequestError):
        return
    assert place.upstream in UPSTREAMS


@pytest.mark.parametrize(
    ("ns", "host", "settings", "upstream"),
    [
        (None, HOST, {}, None),
        ("corp", HOST, {}, "corp"),
        ("docker.io:443", HOST, {}, "docker.io"),
        ("nowhere.example", HOST, {}, None),
        (None, "ghcr.io:8080", {}, "ghcr.io"),
        (None, "mirror.example", {"names": ["mirror.example"]}, None),
        ("mirror.example", "ghcr.io", {"names": ["mirror.example"]}, "mirror.example"),
        (None, HOST, {"default_upstream": "corp"}, "corp"),
        ("corp", "ghcr.io", {"default_upstream": "hub"}, "corp"),
        (None, HOST, {"upstreams": {"quay.io": {}}}, "quay.io"),
        ("nowhere.example", HOST, {"upstreams": {"quay.io": {}}}, None),
    ],
)
def test_a_request_without_a_repository_is_for_the_upstream_that_it_names_or_the_only_one(
    ns: str | None, host: str, settings: dict[str, object], upstream: str | None
) -> None:
    assert names(**settings).upstream(ns=ns, host=host) == upstream


D = "sha256:" + "0" * 64


@pytest.mark.parametrize(
    ("text", "canonical"),
    [
        ("ghcr.io/team/plugin:1", "ghcr.io/team/plugin:1"),
        ("oci://ghcr.io/team/plugin:1", "ghcr.io/team/plugin:1"),
        ("OCI://ghcr.io/team/plugin", "ghcr.io/team/plugin:latest"),
        (f"ghcr.io/team/plugin:1@{D}", f"ghcr.io/team/plugin@{D}"),
        ("oci://wasm.mesh:5000/ghcr.io/team/plugin:1", "ghcr.io/team/plugin:1"),
        ("wasm.mesh:5000/ghcr.io/team/plugin:1", "ghcr.io/team/plugin:1"),
        ("Wasm.Mesh/ghcr.io/team/plugin:1", "ghcr.io/team/plugin:1"),
        ("any.port:8443/ghcr.io/team/plugin:1", "ghcr.io/team/plugin:1"),
        ("oci://mirror.example/ghcr.io/team/plugin:1", "ghcr.io/team/plugin:1"),
        ("oci://mirror.example/team/plugin:1", "mirror.example/team/plugin:1"),
        ("docker.io/busybox:1", "docker.io/library/busybox:1"),
        ("index.docker.io/busybox:1", "docker.io/library/busybox:1"),
        ("registry-1.docker.io:443/envoyproxy/envoy:1", "docker.io/envoyproxy/envoy:1"),
        ("oci://10.0.0.5:5000/team/plugin:1", "corp/team/plugin:1"),
        ("oci://wasm.mesh:5000/10.0.0.5:5000/team/plugin:1", "corp/team/plugin:1"),
        ("oci://hosted/team/plugin:1", "hosted/team/plugin:1"),
        ("wasm.mesh:5000/hosted/team/plugin:1", "hosted/team/plugin:1"),
    ],
)
def test_what_agents_use_means_the_same_to_operators(text: str, canonical: str) -> None:
    one = names(names=["wasm.mesh:5000", "wasm.mesh", "any.port", "mirror.example"])
    assert str(one.of_text(text)) == canonical
    assert str(one.of_text(canonical)) == canonical


def test_without_an_upstream_the_default_one_is_meant() -> None:
    one = names(names=["wasm.mesh"], default_upstream="corp")
    assert str(one.of_text("wasm.mesh/team/plugin:1")) == str(one.of_text("team/plugin:1")) == "corp/team/plugin:1"


def test_an_address_whose_repositories_have_other_names_means_no_upstream() -> None:
    proxied = {"endpoints": [{"url": "https://harbor.corp:8443", "repository_prefix": "ghcr-proxy/"}]}
    one = names(upstreams={"ghcr": proxied})
    with pytest.raises(NameInvalid, match="alias"):
        one.of_text("harbor.corp:8443/team/plugin:1")


@pytest.mark.parametrize(
    "text",
    [
        "",
        "/",
        "oci://",
        "oci://oci://ghcr.io/a/b:1",
        "https://ghcr.io/a/b:1",
        "ghcr.io",
        "ghcr.io/",
        "ghcr.io/../../etc/passwd",
        "ghcr.io/a//b",
        "ghcr.io/a\0b:1",
        "ghcr.io/a/b:1\n",
        " ghcr.io/a/b:1",
        "ghcr.io/a/b:%2e",
        "ghcr.io/a/b@sha256:0",
        "ghcr.io/a/b@",
        "other.example/a/b:1",
        "wasm.mesh/wasm.mesh/ghcr.io/a/b:1",
        "wasm.mesh",
        "user:password@ghcr.io/a/b:1",
        "ghcr.io/a/b:1?x=1",
        "ghcr.io/" + "a" * 1_000_000,
        "/" * 1_000_000,
        "\ud800/a",
    ],
)
def test_what_is_no_reference_has_one_short_line(text: str) -> None:
    with pytest.raises((RequestError, NameUnknown)) as refused:
        names(names=["wasm.mesh"]).of_text(text)
    assert len(refused.value.message) < 400
    assert refused.value.message.isprintable()


@given(st.text(max_size=80))
def test_any_text_is_a_reference_or_is_refused(text: str) -> None:
    one = names(names=["wasm.mesh"])
    try:
        found = one.of_text(text)
    except (RequestError, NameUnknown):
        return
    assert one.of_text(str(found)) == found


@pytest.mark.parametrize("host", ["wasm-mirror.istio-system:8080", "wasm-mirror.corp.example", "localhost:8080"])
def test_a_mirror_whose_name_is_not_set_is_told_where_to_set_it(host: str) -> None:
    with pytest.raises(NameUnknown, match="if that is this mirror, add it to `names`") as caught:
        names().of_text(f"oci://{host}/ghcr.io/team/plugin:1.0")
    assert caught.value.detail == {"upstream": host, "setting": "names"}
    assert str(names(names=[host]).of_text(f"oci://{host}/ghcr.io/team/plugin:1.0")) == "ghcr.io/team/plugin:1.0"
