"""The settings themselves: what follows from a name, what is inherited, and that nothing changes or leaks."""

import pickle
from pathlib import Path

import pytest
from pydantic import ValidationError

from mirror.config import Credentials, EndpointSettings, Settings, UpstreamSettings, describe
from mirror.config.upstreams import Defaults
from mirror.freshness import Policy
from tests.config.support import load_text

_SECRET = """\
upstreams:
  corp:
    endpoints: [{url: "https://a.example", credentials: {username: first, password: hunter1}}, "https://b.example"]
    credentials: {username: 0123, password: "hunter2"}
    offline: true
    fresh_for: 1h30m
    allow: [team/**]
"""


def _upstream(name: str, **keys: object) -> UpstreamSettings:
    return Settings.model_validate({"upstreams": {name: keys}}).upstreams[name]


def test_the_defaults_are_those_of_the_policy() -> None:
    assert _upstream("ghcr.io").policy == Policy()
    assert {**dict(Defaults()), "offline": False} == {name: getattr(Policy(), name) for name in Policy.__slots__}


def test_an_upstream_inherits_what_it_does_not_say() -> None:
    settings = Settings.model_validate(
        {
            "defaults": {"fresh_for": "1m", "hold_for": "5s", "keep_deleted_tags": "true"},
            "upstreams": {
                "ghcr.io": {"fresh_for": "0", "keep_deleted_tags": "false", "offline": "true"},
                "quay.io": {},
            },
        }
    )
    assert settings.upstreams["ghcr.io"].policy == Policy(fresh_for=0.0, hold_for=5.0, offline=True)
    assert settings.upstreams["quay.io"].policy == Policy(fresh_for=60.0, hold_for=5.0, keep_deleted_tags=True)


def test_the_endpoint_follows_from_the_name() -> None:
    upstream = _upstream("ghcr.io")
    assert upstream.endpoints == (EndpointSettings(url="https://ghcr.io"),)
    assert (upstream.name, upstream.hosts, upstream.library) == ("ghcr.io", ("ghcr.io",), False)


def test_docker_hub_is_known() -> None:
    upstream = _upstream("docker.io")
    assert upstream.endpoints == (EndpointSettings(url="https://registry-1.docker.io", auth_hosts=("auth.docker.io",)),)
    assert upstream.hosts == ("docker.io", "index.docker.io", "registry-1.docker.io")
    assert upstream.library


@pytest.mark.parametrize(
    ("name", "endpoints", "library"),
    [
        ("docker.io", ["https://mirror.example"], True),
        ("hub", ["https://mirror.example", "https://registry-1.docker.io"], True),
        ("hub", ["https://registry-1.docker.io", "https://mirror.example"], False),
    ],
)
def test_docker_hub_is_known_under_other_names_too(name: str, endpoints: list[str], library: bool) -> None:
    assert _upstream(name, endpoints=endpoints).library is library


def test_the_token_host_of_a_known_registry_is_added_to_those_written() -> None:
    endpoint = {"url": "https://registry.gitlab.com", "auth_hosts": ["login.corp", "LOGIN.corp"]}
    assert _upstream("lab", endpoints=[endpoint]).endpoints[0].auth_hosts == ("login.corp", "gitlab.com")


def test_a_lookalike_of_a_known_registry_gets_no_token_host() -> None:
    for host in ("registry-1.docker.io.example.com", "xregistry-1.docker.io", "registry-1.docker.io:8443.example.com"):
        if ":" not in host:
            assert _upstream("x", endpoints=[f"https://{host}"]).endpoints[0].auth_hosts == ()


def test_credentials_of_the_upstream_are_those_of_the_last_endpoint() -> None:
    keys = {"username": "a", "password": "b"}
    upstream = _upstream("x", endpoints=["https://a.example", "https://b.example"], credentials=keys)
    assert [endpoint.credentials for endpoint in upstream.endpoints] == [None, upstream.credentials]


def test_a_host_names_an_upstream_by_its_name_or_a_known_alias() -> None:
    settings = Settings.model_validate({"upstreams": {"docker.io": {}, "ghcr.io": {}}})
    assert settings.upstream_at("GHCR.io") == "ghcr.io"
    assert settings.upstream_at("index.docker.io") == "docker.io"
    assert settings.upstream_at("quay.io") is None


def test_an_upstream_of_that_name_goes_before_an_alias() -> None:
    settings = Settings.model_validate({"upstreams": {"docker.io": {}, "registry-1.docker.io": {}}})
    assert settings.upstream_at("registry-1.docker.io") == "registry-1.docker.io"


@pytest.mark.parametrize(("listen", "host", "port"), [("127.0.0.1:80", "127.0.0.1", 80), ("[::1]:0", "::1", 0)])
def test_the_address_has_a_host_and_a_port(listen: str, host: str, port: int) -> None:
    settings = Settings.model_validate({"listen": listen, "upstreams": {"ghcr.io": {}}})
    assert (settings.host, settings.port) == (host, port)


def test_an_endpoint_knows_whether_it_can_be_overheard() -> None:
    plain = {
        url: EndpointSettings(url=url).is_plain for url in ("https://a", "http://a", "http://[::1]:5", "http://[::2]")
    }
    assert plain == {"https://a": False, "http://a": True, "http://[::1]:5": False, "http://[::2]": True}
    assert EndpointSettings(url="http://[::2]:5").host == "::2"


def test_code_may_give_numbers_and_paths(tmp_path: Path) -> None:
    settings = Settings(
        data_dir=tmp_path,
        workers=2,
        drain_for=0.5,
        upstreams={"x": {"endpoints": ["http://127.0.0.1:9"], "hold_for": 1}},
    )
    assert (settings.data_dir, settings.workers, settings.drain_for) == (tmp_path, 2, 0.5)
    assert settings.upstreams["x"].policy.hold_for == 1.0


def test_settings_are_frozen(tmp_path: Path) -> None:
    settings = load_text(tmp_path)
    for part in (settings, settings.log, settings.upstreams["ghcr.io"], settings.upstreams["ghcr.io"].endpoints[0]):
        with pytest.raises(ValidationError, match="frozen"):
            setattr(part, next(iter(type(part).model_fields)), None)


def test_settings_reach_another_process_whole(tmp_path: Path) -> None:
    settings = load_text(tmp_path, _SECRET)
    copy = pickle.loads(pickle.dumps(settings))
    assert copy == settings
    upstream = copy.upstreams["corp"]
    assert (upstream.name, upstream.policy) == ("corp", settings.upstreams["corp"].policy)
    assert [e.credentials.password.get_secret_value() for e in upstream.endpoints] == ["hunter1", "hunter2"]


def test_settings_survive_being_taken_apart_and_put_together(tmp_path: Path) -> None:
    settings = load_text(tmp_path, _SECRET)
    assert Settings.model_validate(settings.model_dump()) == settings


def test_a_user_and_a_password_of_digits_are_text(tmp_path: Path) -> None:
    credentials = load_text(tmp_path, _SECRET).upstreams["corp"].credentials
    assert credentials is not None
    assert credentials.username == "0123"


def test_no_way_to_print_settings_shows_a_secret(tmp_path: Path) -> None:
    settings = load_text(tmp_path, _SECRET)
    printed = [
        repr(settings),
        str(settings),
        settings.model_dump_json(),
        repr(settings.model_dump()),
        describe(settings),
    ]
    assert not [text for text in printed if "hunter" in text]


def test_an_error_of_the_models_themselves_shows_no_value() -> None:
    with pytest.raises(ValidationError) as refused:
        Settings.model_validate(
            {"upstreams": {"x.example": {"credentials": {"password": ["hunter2"], "hunter": "hunter2"}}}}
        )
    assert "hunter2" not in str(refused.value)


def test_what_is_described_can_be_loaded_again_and_is_the_same(tmp_path: Path) -> None:
    settings = load_text(tmp_path, f"{_SECRET}  docker.io:\n  quay.io: {{stale_if_denied: 500ms}}\n")
    described = describe(settings)
    assert described.count("password: '**********'") == 2
    assert "username: '0123'" in described
    assert "fresh_for: 90m" in described
    assert "max_module_size: 256MiB" in described
    again = load_text(tmp_path, described)
    assert describe(again) == described
    assert again.upstreams["quay.io"] == settings.upstreams["quay.io"]
    assert again.upstreams["docker.io"] == settings.upstreams["docker.io"]


@pytest.mark.parametrize("written", ["ghcr-proxy", "ghcr-proxy/"])
def test_a_repository_prefix_ends_in_a_slash(written: str) -> None:
    assert EndpointSettings(url="https://harbor.example", repository_prefix=written).repository_prefix == "ghcr-proxy/"


@pytest.mark.parametrize("prefix", ["/a", "a//", "../a", "A", "", "a b", "a?x=", "a%2f", "a:b"])
def test_a_repository_prefix_outside_the_grammar_of_names_is_refused(prefix: str) -> None:
    with pytest.raises(ValidationError, match="beginning of a repository's name"):
        EndpointSettings(url="https://harbor.example", repository_prefix=prefix)


@pytest.mark.parametrize("keys", [{"client_key": "a"}, {"client_certificate": "a"}])
def test_a_client_certificate_and_its_key_go_together(keys: dict[str, str]) -> None:
    with pytest.raises(ValidationError, match="both client_certificate and client_key"):
        EndpointSettings.model_validate({"url": "https://a.example", **keys})


def test_a_client_certificate_is_nothing_for_an_endpoint_without_tls() -> None:
    keys = {"url": "http://a.example", "client_certificate": "a", "client_key": "b"}
    with pytest.raises(ValidationError, match="never shown without TLS"):
        EndpointSettings.model_validate(keys)


@pytest.mark.parametrize("name", ["../evil", "a/b", "", "Ecr", "a b", "$(x)", "a\n", "x" * 65])
def test_a_helper_is_a_name_and_never_a_path(name: str) -> None:
    with pytest.raises(ValidationError, match="end of a program's name"):
        Credentials(helper=name)


def test_a_helper_names_the_user_itself() -> None:
    with pytest.raises(ValidationError, match="must not have a username beside helper"):
        Credentials(username="robot", helper="ecr-login")


def test_what_an_endpoint_has_can_be_shown_and_read_again(tmp_path: Path) -> None:
    endpoint = {
        "url": "https://a.example",
        "repository_prefix": "proxy/",
        "ca_file": "ca.pem",
        "client_certificate": "c.pem",
        "client_key": "k.pem",
        "credentials": {"helper": "ecr-login"},
    }
    settings = Settings.model_validate({"upstreams": {"corp": {"endpoints": [endpoint]}}})
    assert load_text(tmp_path, describe(settings)).upstreams["corp"] == settings.upstreams["corp"]
