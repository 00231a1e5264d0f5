"""Settings from environment variables."""

from pathlib import Path

import pytest

from mirror.config import environment, schema
from mirror.config.document import Document
from mirror.config.problems import Origin
from tests.config.support import faults, load_text

_INJECTED = """
    SERVICE_HOST SERVICE_PORT SERVICE_PORT_HTTP PORT PORT_8080_TCP PORT_8080_TCP_PROTO PORT_8080_TCP_PORT
    PORT_8080_TCP_ADDR ADMIN_SERVICE_HOST ADMIN_SERVICE_PORT_HTTPS ADMIN_PORT ADMIN_PORT_443_TCP
"""
_OF_COMMANDS = "URL TOKEN TOKEN_FILE"
_OF_LATER_RELEASES = """
    TRUSTED_PROXIES FAST_LANE
    VERIFY
"""


def test_every_key_has_a_variable() -> None:
    values = {"duration": "7s", "size": "7MiB", "whole number": "7", "share": "0.7", "true or false": "true"}
    for key in schema.all_keys():
        if schema.ANY in key.path:
            continue
        document = Document({}, {(): Origin("mirror.yaml")})
        variable = "WASM_MIRROR_" + "__".join(key.path).upper()
        text = "{}" if key.is_structure else values.get(key.kind, "text")
        assert environment.apply({variable: text}, document) == []
        value: object = document.values
        for step in key.path:
            assert isinstance(value, dict)
            value = value[step]
        assert value == ({} if key.is_structure else text)
        assert document.origins[key.path] == Origin(variable)


def test_the_environment_wins_over_the_file(tmp_path: Path) -> None:
    settings = load_text(
        tmp_path,
        "listen: 127.0.0.1:1\nlog: {level: debug, format: json}\nupstreams: {ghcr.io: {}}\n",
        {"WASM_MIRROR_LISTEN": "127.0.0.1:2", "WASM_MIRROR_LOG__LEVEL": "error"},
    )
    assert (settings.port, settings.log.level, settings.log.format) == (2, "error", "json")


def test_a_mapping_as_json_replaces_that_of_the_file(tmp_path: Path) -> None:
    settings = load_text(
        tmp_path,
        "upstreams: {quay.io: {}}\ndefaults: {fresh_for: 1m, hold_for: 5s}\n",
        {
            "WASM_MIRROR_UPSTREAMS": '{"ghcr.io": {"offline": true, "allow": ["a/**"], "credentials": null}}',
            "WASM_MIRROR_DEFAULTS": '{"hold_for": "7s"}',
        },
    )
    assert list(settings.upstreams) == ["ghcr.io"]
    assert settings.upstreams["ghcr.io"].offline
    assert settings.upstreams["ghcr.io"].allow == ("a/**",)
    assert (settings.defaults.fresh_for, settings.defaults.hold_for) == (10.0, 7.0)


def test_a_part_wins_over_the_whole_whatever_their_order(tmp_path: Path) -> None:
    settings = load_text(
        tmp_path,
        environ={"WASM_MIRROR_LOG__LEVEL": "error", "WASM_MIRROR_LOG": '{"level": "debug", "access": "all"}'},
    )
    assert (settings.log.level, settings.log.access) == ("error", "all")


def test_a_list_is_json(tmp_path: Path) -> None:
    settings = load_text(tmp_path, environ={"WASM_MIRROR_NAMES": '["Mirror.example:8080", "[::1]"]'})
    assert settings.names == ("mirror.example:8080", "[::1]")


@pytest.mark.parametrize("text", ["a", "a,b", "[a]", "['a']", '["a"', "[NaN]", '{"a": 1, "a": 2}', "[" * 100_000])
def test_a_list_that_is_no_json_is_refused_without_being_shown(tmp_path: Path, text: str) -> None:
    assert faults(tmp_path, environ={"WASM_MIRROR_NAMES": text}) == [
        'WASM_MIRROR_NAMES: names: must be valid JSON, such as ["a", "b"] or {"a": "b"}'
    ]


def test_a_scalar_in_place_of_a_list_is_refused(tmp_path: Path) -> None:
    assert faults(tmp_path, environ={"WASM_MIRROR_NAMES": "5"}) == ["WASM_MIRROR_NAMES: names: must be a list"]


def test_numbers_in_json_are_read_as_in_the_file(tmp_path: Path) -> None:
    settings = load_text(tmp_path, environ={"WASM_MIRROR_WASM": '{"max_module_size": 1048576}'})
    assert settings.wasm.max_module_size == 1 << 20
    assert "write 5s" in faults(tmp_path, environ={"WASM_MIRROR_DEFAULTS": '{"hold_for": 5}'})[0]


def test_an_empty_variable_is_null(tmp_path: Path) -> None:
    settings = load_text(
        tmp_path,
        "default_upstream: ghcr.io\nupstreams: {ghcr.io: {}}\n",
        {"WASM_MIRROR_DEFAULT_UPSTREAM": "", "WASM_MIRROR_TLS": "", "WASM_MIRROR_NAMES": ""},
    )
    assert (settings.default_upstream, settings.tls.key, settings.names) == (None, None, ())
    assert faults(tmp_path, environ={"WASM_MIRROR_WORKERS": ""}) == [
        "WASM_MIRROR_WORKERS: workers: must be a whole number, not nothing"
    ]


def test_an_error_names_the_variable(tmp_path: Path) -> None:
    text = "defaults: {fresh_for: 1s, hold_for: 1}\nupstreams: {ghcr.io: {}}\n"
    assert faults(tmp_path, text, {"WASM_MIRROR_DEFAULTS": '{"fresh_for": "x", "nope": 1}'}) == [
        "WASM_MIRROR_DEFAULTS: defaults.fresh_for: must be a duration such as 500ms, 10s, 1h30m, 30d or 0, not 'x'",
        "WASM_MIRROR_DEFAULTS: defaults.nope: unknown key; known here: fresh_for, stale_while_revalidate, "
        "revalidate_for, stale_if_error, stale_if_denied, negative_for, hold_for, keep_deleted_tags",
    ]


def test_a_key_of_an_upstream_is_set_by_its_name(tmp_path: Path) -> None:
    settings = load_text(
        tmp_path,
        "upstreams: {ghcr.io: {}, my-corp: {endpoints: [http://10.0.0.5:5000]}}\n",
        {
            "WASM_MIRROR_UPSTREAMS__GHCR_IO__CREDENTIALS__USERNAME": "robot",
            "WASM_MIRROR_UPSTREAMS__GHCR_IO__CREDENTIALS__PASSWORD": "12345",
            "WASM_MIRROR_UPSTREAMS__MY_CORP__FRESH_FOR": "1m",
            "WASM_MIRROR_UPSTREAMS__MY_CORP__ALLOW": '["a/*"]',
        },
    )
    credentials = settings.upstreams["ghcr.io"].credentials
    assert credentials is not None
    assert credentials.password is not None
    assert (credentials.username, credentials.password.get_secret_value()) == ("robot", "12345")
    assert settings.upstreams["my-corp"].policy.fresh_for == 60
    assert settings.upstreams["my-corp"].allow == ("a/*",)


def test_a_whole_upstream_is_replaced_by_its_name(tmp_path: Path) -> None:
    text = "upstreams: {ghcr.io: {offline: true, fresh_for: 1m}}\n"
    settings = load_text(tmp_path, text, {"WASM_MIRROR_UPSTREAMS__GHCR_IO": '{"fresh_for": "2m"}'})
    assert not settings.upstreams["ghcr.io"].offline
    assert settings.upstreams["ghcr.io"].fresh_for == 120


def test_the_longest_name_of_an_upstream_is_meant(tmp_path: Path) -> None:
    endpoints = "endpoints: [http://127.0.0.1:1]"
    text = f"upstreams: {{a: {{{endpoints}}}, a__offline: {{{endpoints}}}}}\n"
    settings = load_text(tmp_path, text, {"WASM_MIRROR_UPSTREAMS__A__OFFLINE__OFFLINE": "true"})
    assert [upstream.offline for upstream in settings.upstreams.values()] == [False, True]


def test_a_variable_that_could_mean_two_upstreams_is_refused(tmp_path: Path) -> None:
    text = "upstreams: {a.example: {}, a-example: {endpoints: [http://127.0.0.1:1]}}\n"
    assert faults(tmp_path, text, {"WASM_MIRROR_UPSTREAMS__A_EXAMPLE__OFFLINE": "true"}) == [
        "WASM_MIRROR_UPSTREAMS__A_EXAMPLE__OFFLINE: could mean each of the upstreams a.example, a-example; "
        "set it in the file"
    ]


def test_a_variable_for_an_upstream_that_is_not_configured_is_refused(tmp_path: Path) -> None:
    assert faults(tmp_path, environ={"WASM_MIRROR_UPSTREAMS__QUAY_IO__OFFLINE": "true"}) == [
        "WASM_MIRROR_UPSTREAMS__QUAY_IO__OFFLINE: names no configured upstream; add it in the file, or set "
        "WASM_MIRROR_UPSTREAMS as a whole"
    ]


@pytest.mark.parametrize(
    ("name", "meant"),
    [
        ("METADATA_URL", "METADATA__URL"),
        ("DATADIR", "DATA_DIR"),
        ("data_dir", "DATA_DIR"),
        ("TLS__CERT", "TLS__CERTIFICATE"),
        ("DEFAULTS__HOLDFOR", "DEFAULTS__HOLD_FOR"),
        ("UPSTREAMS__GHCR_IO__OFLINE", "UPSTREAMS__GHCR_IO__OFFLINE"),
    ],
)
def test_a_near_miss_is_an_error_that_names_the_key_meant(tmp_path: Path, name: str, meant: str) -> None:
    assert faults(tmp_path, environ={f"WASM_MIRROR_{name}": "x"}) == [
        f"WASM_MIRROR_{name}: unknown variable; did you mean WASM_MIRROR_{meant}?"
    ]


@pytest.mark.parametrize("name", _OF_LATER_RELEASES.split())
def test_a_variable_of_a_later_release_is_a_warning_without_its_value(tmp_path: Path, name: str) -> None:
    warnings: list[str] = []
    load_text(tmp_path, environ={f"WASM_MIRROR_{name}": "hunter2"}, warnings=warnings)
    assert warnings == [f"WASM_MIRROR_{name}: unknown variable, passed over; it is no setting of this release"]


@pytest.mark.parametrize("name", [*_INJECTED.split(), *_OF_COMMANDS.split()])
def test_variables_of_kubernetes_and_of_the_commands_are_passed_over(tmp_path: Path, name: str) -> None:
    warnings: list[str] = []
    load_text(tmp_path, environ={f"WASM_MIRROR_{name}": "tcp://10.0.0.1:80"}, warnings=warnings)
    assert warnings == []


def test_other_variables_are_none_of_its_business(tmp_path: Path) -> None:
    warnings: list[str] = []
    load_text(tmp_path, environ={"WASM_MIRRORS_LISTEN": "x", "LISTEN": "x", "PATH": "/bin"}, warnings=warnings)
    assert warnings == []


def test_a_variable_does_not_hide_that_the_file_has_no_mapping_there(tmp_path: Path) -> None:
    text = "log: loud\nupstreams: {ghcr.io: {}}\n"
    assert faults(tmp_path, text, {"WASM_MIRROR_LOG__LEVEL": "error"}) == ["mirror.yaml:1: log: must be a mapping"]
