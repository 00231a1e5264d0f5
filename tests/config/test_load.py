"""Loading: what wins, what is refused, and how it is said."""

import traceback
from pathlib import Path

import pytest

from mirror.config import ConfigurationError, load
from mirror.errors import StartError
from tests.config.support import faults, load_text

_PLAIN = "{mode: upstream, allow_plain_http: true}"
_WRONG = """\
listen: 8080
wrokers: 3
workers: zero
tls: {key: k}
upstreams:
  corp:5000: {}
  corp:
    endpoints: [{urk: 1}, 5, "https://robot:hunter2@c"]
    credentials: {username: a, password: hunter2, docker_config: x}
    fresh_for: 1
  a.example:
    credentials: {username:robot, password:hunter2}
    offline: maybe
    offline: true
  alias: {}
log: {level: loud}
default_upstream: nope
defaults: {hold_for: 0}
"""
_ALL_THAT_IS_WRONG = """\
--data-dir: data_dir: must be a path, not ''
WASM_MIRROR_DRAIN_FOR: drain_for: must be a duration such as 500ms, 10s, 1h30m, 30d or 0, not '5'; write 5s for seconds
WASM_MIRROR_METADATA_URL: unknown variable; did you mean WASM_MIRROR_METADATA__URL?
mirror.yaml:1: listen: must be HOST:PORT such as 127.0.0.1:8080, 0.0.0.0:8080 or [::]:8080, not '8080'
mirror.yaml:2: wrokers: unknown key; did you mean workers?
mirror.yaml:3: workers: must be a whole number, not 'zero'
mirror.yaml:4: tls: must have both certificate and key, or none of them; certificate is missing
mirror.yaml:6: upstreams.corp:5000: the name of an upstream cannot hold a port: choose another, such as corp, with `endpoints: [https://corp:5000]`
mirror.yaml:8: upstreams.corp.endpoints[0].urk: unknown key; did you mean url?
mirror.yaml:8: upstreams.corp.endpoints[0].url: is missing
mirror.yaml:8: upstreams.corp.endpoints[1].url: must be scheme://HOST or scheme://HOST:PORT, with http or https and without a path, not '5'
mirror.yaml:8: upstreams.corp.endpoints[2].url: must not hold a user name, password or query; put these under credentials
mirror.yaml:9: upstreams.corp.credentials: must have exactly one of password, password_file, docker_config and helper, but has password and docker_config
mirror.yaml:10: upstreams.corp.fresh_for: must be a duration such as 500ms, 10s, 1h30m, 30d or 0, not '1'; write 1s for seconds
mirror.yaml:12: upstreams.a.example.credentials.password: needs a space behind its colon
mirror.yaml:12: upstreams.a.example.credentials.username: needs a space behind its colon
mirror.yaml:13: upstreams.a.example.offline: must be true or false, not 'maybe'
mirror.yaml:14: upstreams.a.example.offline: stands twice; first on line 13
mirror.yaml:15: upstreams.alias: must have endpoints, such as `endpoints: [https://registry.example.com]`: the name is no host name
mirror.yaml:16: log.level: must be debug, info, warning or error
mirror.yaml:17: default_upstream: must be one of the upstreams, corp:5000, corp, a.example, alias, not 'nope'
mirror.yaml:18: defaults.hold_for: must be more than 0
"""  # noqa: E501 - what a person sees, as it is seen


def test_all_that_is_wrong_is_told_at_once_with_key_line_and_what_is_allowed(tmp_path: Path) -> None:
    environ = {"WASM_MIRROR_METADATA_URL": "sqlite", "WASM_MIRROR_DRAIN_FOR": "5"}
    assert sorted(faults(tmp_path, _WRONG, environ, {"data_dir": ""})) == sorted(_ALL_THAT_IS_WRONG.splitlines())


def test_faults_of_a_file_come_in_the_order_of_its_lines(tmp_path: Path) -> None:
    lines = [int(line.split(":")[1]) for line in faults(tmp_path, _WRONG)]
    assert lines == sorted(lines)


def test_no_secret_is_in_an_error_or_its_traceback(tmp_path: Path) -> None:
    with pytest.raises(StartError) as refused:
        load_text(tmp_path, _WRONG)
    assert "hunter2" not in "".join(traceback.format_exception(refused.value))
    assert "hunter2" not in repr(refused.value)
    assert refused.value.__context__ is None


def test_the_command_line_wins_over_the_environment_and_the_file(tmp_path: Path) -> None:
    settings = load_text(
        tmp_path,
        "workers: 2\nlisten: 127.0.0.1:1\nupstreams: {ghcr.io: {}}\n",
        {"WASM_MIRROR_WORKERS": "3", "WASM_MIRROR_LISTEN": "127.0.0.1:2"},
        {"workers": 4, "data_dir": tmp_path / "other", "listen": None},
    )
    assert (settings.workers, settings.data_dir, settings.port) == (4, tmp_path / "other", 2)


def test_a_fault_on_the_command_line_names_the_option(tmp_path: Path) -> None:
    assert faults(tmp_path, overrides={"workers": 0, "listen": "x"}) == [
        "--listen: listen: must be HOST:PORT such as 127.0.0.1:8080, 0.0.0.0:8080 or [::]:8080, not 'x'",
        "--workers: workers: must be at least 1",
    ]


@pytest.mark.parametrize("text", ["", "# nothing\n", "upstreams:\n", "upstreams: {}\n"])
def test_without_an_upstream_there_is_nothing_to_mirror(tmp_path: Path, text: str) -> None:
    (line,) = faults(tmp_path, text)
    assert line.endswith(
        "upstreams: must name at least one registry to pull from, such as `upstreams: {ghcr.io: {}}`; "
        "without one there is nothing to mirror"
    )


@pytest.mark.parametrize("listen", ["listen: 0.0.0.0:9090\n", 'listen: "0.0.0.0:9090"\n'])
def test_the_admin_api_has_another_port_than_the_registry_or_none(tmp_path: Path, listen: str) -> None:
    known = "upstreams: {ghcr.io: {}}\n"
    words = "admin.listen: must be another address than `listen`; leave it out to have both at one port"
    (line,) = faults(tmp_path, f"{known}{listen}admin: {{listen: 0.0.0.0:9090}}\n")
    assert line.endswith(words)
    (line,) = faults(tmp_path, f"{known}admin: {{listen: 127.0.0.1:8080}}\n")
    assert line.endswith(words)
    for other in ("127.0.0.1:9091", "127.0.0.1:9090"):
        settings = load_text(tmp_path, f"{known}{listen}admin: {{listen: '{other}'}}\n")
        assert (settings.admin.listen, settings.admin_host, settings.host) == (other, "127.0.0.1", "0.0.0.0")


def test_an_empty_file_takes_all_from_the_environment(tmp_path: Path) -> None:
    settings = load_text(tmp_path, "", {"WASM_MIRROR_UPSTREAMS": '{"ghcr.io": {}}'})
    assert list(settings.upstreams) == ["ghcr.io"]


def test_no_file_at_all_is_an_empty_one() -> None:
    assert list(load(None, {"WASM_MIRROR_UPSTREAMS": '{"ghcr.io": null}'}, {}).upstreams) == ["ghcr.io"]
    with pytest.raises(ConfigurationError, match=r"^the settings: upstreams: must name"):
        load(None, {}, {})


def test_sections_whose_keys_are_all_commented_out_have_their_defaults(tmp_path: Path) -> None:
    text = "tls:\nlog:\ndefaults:\nmetadata:\nwasm:\nnames:\nupstreams:\n  ghcr.io:\n  quay.io:\n    endpoints:\n"
    settings = load_text(tmp_path, text)
    assert settings.model_dump(exclude={"upstreams"}) == load_text(tmp_path).model_dump(exclude={"upstreams"})
    assert [upstream.endpoints[0].url for upstream in settings.upstreams.values()] == [
        "https://ghcr.io",
        "https://quay.io",
    ]


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("workers: 0", "workers: must be at least 1"),
        ("workers: 257", "workers: must be at most 256"),
        ("workers: 1.5", "workers: must be a whole number, not '1.5'"),
        ("workers:", "workers: must be a whole number, not nothing"),
        ("workers: [1]", "workers: must be a whole number, not a list"),
        ("listen: localhost", "listen: must be HOST:PORT"),
        ("names: mirror", "names: must be a list"),
        ("names: {a: b}", "names: must be a list"),
        ("names: [a, https://b]", "names[1]: must be HOST or HOST:PORT"),
        ("drain_for: -1s", "drain_for: must be a duration"),
        ("metadata: {url: postgres://r}", "metadata.url: must be sqlite, redis://HOST"),
        ("metadata: [sqlite]", "metadata: must be a mapping"),
        ("wasm: {max_module_size: 0}", "wasm.max_module_size: must be more than 0"),
        ("wasm: {max_module_size: 256Mi}", "wasm.max_module_size: must be a size such as 256MiB"),
        ("wasm: {check: yes}", "wasm.check: must be off, warn or enforce"),
        ("tls: {certificate: c.pem}", "tls: must have both certificate and key, or none of them; key is missing"),
        ("log: {format: xml}", "log.format: must be text or json"),
        ("log: {access: ~}", "log.access: must be none or all"),
        ("default_upstream: {a: b}", "default_upstream: must be text"),
        ("verify: []", "verify: unknown key; known here: listen, names, "),
        ("hosted: {prefix: a/b}", "hosted.prefix: must be the first component of repositories' names"),
        ("hosted: {prefix: }", "hosted.prefix: must be the first component of repositories' names"),
        ("hosted: {max_uploads: 0}", "hosted.max_uploads: must be at least 1"),
        ("hosted: {upload_expires: 0}", "hosted.upload_expires: must be more than 0"),
        ("auth: {mode: upstream}", "auth.mode: needs tls.certificate, for clients send the passwords that they have"),
        ("auth: {mode: upstream, allow_plain_http: no}", "auth.mode: needs tls.certificate"),
        ("auth: {mode: upstream, allow_plain_http: maybe}", "auth.allow_plain_http: must be true or false"),
        ("auth: {mode: basic}", "auth.mode: must be none, htpasswd or upstream"),
        ("auth: {mode: htpasswd}", "auth.mode: needs auth.file beside it"),
        ("auth: {rules: [{who: [a], repositories: [b], may: []}]}", "auth.rules: needs auth.file beside it"),
        ("auth: {file: f, rules: [{who: a, repositories: [b], may: []}]}", "auth.rules[0].who: must be a list"),
        ("auth: {file: f, rules: [{who: ['a:b'], repositories: [b], may: []}]}", "auth.rules[0].who: must be names of"),
        ("auth: {file: f, rules: [{who: [], repositories: [b], may: []}]}", "auth.rules[0].who: must not be empty"),
        (
            "auth: {file: f, rules: [{who: [a], repositories: [/b], may: []}]}",
            "auth.rules[0].repositories[0]: must be a ",
        ),
        (
            "auth: {file: f, rules: [{who: [a], repositories: [], may: []}]}",
            "auth.rules[0].repositories: must not be e",
        ),
        (
            "auth: {file: f, rules: [{who: [a], repositories: [b], may: [read]}]}",
            "auth.rules[0].may[0]: must be pull, ",
        ),
        ("auth: {file: f, rules: [{who: [a], repositories: [b]}]}", "auth.rules[0].may: is missing"),
        ("defaults: {fresh: 1s}", "defaults.fresh: unknown key; did you mean fresh_for?"),
    ],
)
def test_a_wrong_value_is_told_with_what_is_allowed(tmp_path: Path, text: str, fault: str) -> None:
    (line,) = faults(tmp_path, f"upstreams: {{ghcr.io: {{}}}}\n{text}\n")
    assert line.startswith(f"mirror.yaml:2: {fault}")


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("Corp: {}", "Corp: the name of an upstream is the first component of a path"),
        ("a/b: {}", "a/b: the name of an upstream is the first component of a path"),
        ("a..b: {}", "a..b: the name of an upstream is the first component of a path"),
        ("'': {}", ": the name of an upstream is the first component of a path"),
        ("10.0.0.5:5000: {}", "10.0.0.5:5000: the name of an upstream cannot hold a port"),
        ("corp: {}", "corp: must have endpoints"),
        ("corp: {endpoints: []}", "corp: must have endpoints"),
        ("ghcr.io: yes", "ghcr.io: must be a mapping"),
        ("ghcr.io: {dest: deny}", "ghcr.io.dest: unknown key; known here: endpoints, "),
        ("ghcr.io: {push: yes}", "ghcr.io.push: must be deny or through"),
        (
            "hosted: {endpoints: [https://a.example]}",
            "hosted: must not have the name under which pushed content is hosted",
        ),
        ("ghcr.io: {endpoints: https://a.example}", "ghcr.io.endpoints: must be a list"),
        ("ghcr.io: {endpoints: [https://a.example/x]}", "ghcr.io.endpoints[0].url: must be scheme://HOST"),
        ("ghcr.io: {endpoints: [[a]]}", "ghcr.io.endpoints[0]: must be a mapping"),
        ("ghcr.io: {allow: []}", "ghcr.io.allow: must not be empty"),
        ("ghcr.io: {allow: }", "ghcr.io.allow: must be a list"),
        ("ghcr.io: {allow: [/a]}", "ghcr.io.allow[0]: must be a pattern of repository names"),
        ("ghcr.io: {allow: [A]}", "ghcr.io.allow[0]: must be a pattern of repository names"),
        ("ghcr.io: {hold_for: 0s}", "ghcr.io.hold_for: must be more than 0"),
        ("ghcr.io: {credentials: robot}", "ghcr.io.credentials: must be a mapping"),
        ("ghcr.io: {credentials: {username: a}}", "ghcr.io.credentials: must have exactly one of password, "),
        ("ghcr.io: {credentials: {password: a}}", "ghcr.io.credentials: must have a username beside password"),
        ("ghcr.io: {credentials: {password_file: a}}", "ghcr.io.credentials: must have a username beside password_f"),
        (
            "ghcr.io: {credentials: {username: a, password: b, password_file: c}}",
            "ghcr.io.credentials: must have exactly one of password, password_file, docker_config and helper, but has "
            "password and password_file",
        ),
        (
            "ghcr.io: {credentials: {username: a, docker_config: c}}",
            "ghcr.io.credentials: must not have a username beside docker_config",
        ),
        (
            "ghcr.io: {credentials: {username: 'a:b', password: c}}",
            "ghcr.io.credentials.username: must not hold a colon",
        ),
        (
            'ghcr.io: {credentials: {username: a, password: "hunter2\\n"}}',
            "ghcr.io.credentials.password: must not hold a line break",
        ),
        ("ghcr.io: {credentials: {username: a, password: ''}}", "ghcr.io.credentials.password: must not be empty"),
        ("ghcr.io: {credentials: {username: a, password: [b]}}", "ghcr.io.credentials.password: must be text"),
        (
            "ghcr.io: {endpoints: [{url: https://a.example, credentials: {docker_config: a}}], "
            "credentials: {docker_config: b}}",
            "ghcr.io: must not have credentials both for the upstream and for its last endpoint",
        ),
    ],
)
def test_a_wrong_upstream_is_told_with_what_is_allowed(tmp_path: Path, text: str, fault: str) -> None:
    (line,) = faults(tmp_path, f"upstreams:\n  {text}\n")
    assert line.startswith(f"mirror.yaml:2: upstreams.{fault}")
    assert "hunter2" not in line


def test_credentials_over_plain_http_are_a_warning(tmp_path: Path) -> None:
    warnings: list[str] = []
    text = """\
upstreams:
  far: {endpoints: [http://10.0.0.5:5000], credentials: {username: a, password: b}}
  near: {endpoints: [http://127.0.0.1:5000], credentials: {username: a, password: b}}
  open: {endpoints: [http://10.0.0.5:5000]}
"""
    load_text(tmp_path, text, warnings=warnings)
    assert warnings == ["upstreams.far: credentials go to http://10.0.0.5:5000 in plain text; use https"]


def test_credentials_that_everyone_may_use_are_a_warning(tmp_path: Path) -> None:
    warnings: list[str] = []
    text = "listen: 0.0.0.0:80\nupstreams: {ghcr.io: {credentials: {docker_config: c.json}}, quay.io: {}}\n"
    load_text(tmp_path, text, warnings=warnings)
    assert warnings == [
        "upstreams.ghcr.io: everyone who reaches this mirror may read whatever its credentials may read; "
        "auth.mode: htpasswd keeps that to the users of auth.file, auth.mode: upstream to those whom the registry "
        "itself lets pull"
    ]


@pytest.mark.parametrize("auth", ["{mode: htpasswd, file: users}", "{mode: upstream}"])
def test_credentials_that_not_everyone_may_use_are_none(tmp_path: Path, auth: str) -> None:
    warnings: list[str] = []
    text = f"auth: {auth}\nupstreams: {{ghcr.io: {{credentials: {{docker_config: c.json}}}}}}\n"
    tls = "tls: {certificate: c.pem, key: k.pem}\n"
    load_text(tmp_path, f"listen: 0.0.0.0:80\n{tls}{text}", warnings=warnings)
    assert warnings == []


@pytest.mark.parametrize(
    ("cluster", "enabled", "told"),
    [
        ("{}", "true", True),
        ("{}", "false", False),
        ("{advertise: 'http://10.0.0.5:8080', secret_file: secret}", "true", False),
    ],
)
def test_replicas_that_cannot_host_for_want_of_a_setting_are_a_warning(
    tmp_path: Path, cluster: str, enabled: str, told: bool
) -> None:
    warnings: list[str] = []
    redis = "metadata: {url: 'redis://redis:6379'}"
    text = f"upstreams: {{ghcr.io: {{}}}}\n{redis}\ncluster: {cluster}\nhosted: {{enabled: {enabled}}}\n"
    load_text(tmp_path, text, warnings=warnings)
    assert len(warnings) == int(told)
    if told:
        assert warnings[0].startswith("hosted: nothing can be pushed to hosted/")
        assert "cluster.advertise" in warnings[0]
        assert "cluster.secret_file" in warnings[0]


@pytest.mark.parametrize("auth", ["{file: users}", "{mode: htpasswd, file: users}", _PLAIN])
@pytest.mark.parametrize(("listen", "far"), [("0.0.0.0:80", True), ("127.0.0.1:80", False), ("localhost:80", False)])
def test_passwords_that_can_be_read_on_the_way_are_a_warning(tmp_path: Path, auth: str, listen: str, far: bool) -> None:
    warnings: list[str] = []
    load_text(tmp_path, f"listen: {listen}\nauth: {auth}\nupstreams: {{ghcr.io: {{}}}}\n", warnings=warnings)
    told = (
        f"auth: clients send passwords to {listen} in plain text; set tls.certificate, unless something in front of "
        "this mirror has TLS"
    )
    assert warnings == [told] * far


@pytest.mark.parametrize(
    ("listen", "admin", "more", "to"),
    [
        ("0.0.0.0:80", "token_file: token", "", "0.0.0.0:80"),
        ("127.0.0.1:80", "token_file: token, listen: '0.0.0.0:90'", "", "0.0.0.0:90"),
        ("0.0.0.0:80", "token_file: token, listen: '127.0.0.1:90'", "", None),
        ("127.0.0.1:80", "token_file: token", "", None),
        ("0.0.0.0:80", "listen: '0.0.0.0:90'", "", None),
        ("0.0.0.0:80", "token_file: token", "tls: {certificate: c, key: k}\n", None),
    ],
)
def test_a_token_that_can_be_read_on_the_way_is_a_warning(
    tmp_path: Path, listen: str, admin: str, more: str, to: str | None
) -> None:
    warnings: list[str] = []
    load_text(
        tmp_path, f"listen: {listen}\nadmin: {{{admin}}}\n{more}upstreams: {{ghcr.io: {{}}}}\n", warnings=warnings
    )
    told = [f"admin: the token travels to {to} in plain text"] if to is not None else []
    assert [warning.partition(";")[0] for warning in warnings] == told


def test_an_upstream_that_is_never_asked_cannot_say_who_may_pull(tmp_path: Path) -> None:
    warnings: list[str] = []
    text = f"auth: {_PLAIN}\nupstreams: {{ghcr.io: {{offline: true, push: through}}, quay.io: {{}}}}\n"
    load_text(tmp_path, text, warnings=warnings)
    assert [warning.partition(":")[0] for warning in warnings] == ["upstreams.ghcr.io"]
    assert "it is offline" in warnings[0]


def test_a_push_through_without_credentials_for_the_origin_is_a_warning(tmp_path: Path) -> None:
    warnings: list[str] = []
    text = "upstreams: {ghcr.io: {push: through}, quay.io: {push: through, credentials: {docker_config: c.json}}}\n"
    load_text(tmp_path, text, warnings=warnings)
    assert warnings == ["upstreams.ghcr.io: nothing can be pushed through without credentials for its last endpoint"]


def test_an_upstream_may_be_called_hosted_where_hosted_content_is_elsewhere(tmp_path: Path) -> None:
    upstreams = "upstreams: {hosted: {endpoints: [https://a.example]}}\n"
    assert load_text(tmp_path, f"hosted: {{prefix: here}}\n{upstreams}").hosted.prefix == "here"
