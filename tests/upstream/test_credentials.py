"""Who the mirror is for which endpoint, and that files are read again."""

import base64
import json
import logging
import os
from pathlib import Path

import httpx
import pytest
from pydantic import SecretStr

from mirror.config import Credentials
from mirror.errors import UpstreamUnavailable
from mirror.upstream.credentials import source_of
from mirror.upstream.tokens import Login
from mirror.upstream.watched import LOOK_AGAIN_AFTER
from tests.upstream.support import Clock, helper, says

SETTING = "upstreams.corp.credentials"


async def login(
    credentials: Credentials | None, endpoint: str = "https://registry.example", repository: str = "team/a"
) -> Login | None:
    return await source_of(credentials, httpx.URL(endpoint), SETTING, Clock()).login(repository)


async def login_by(folder: Path, fields: object, endpoint: str = "https://registry.example") -> Login | None:
    """The login of a docker config with these fields, where the helpers ``own`` and ``all`` say who they are."""
    path = folder / "config.json"
    path.write_text(json.dumps(fields))
    environment = {**helper(folder / "bin", "own", says("own", "s")), **helper(folder / "bin", "all", says("all", "s"))}
    source = source_of(Credentials(docker_config=path), httpx.URL(endpoint), SETTING, Clock(), environment)
    try:
        return await source.login("team/a")
    finally:
        await source.aclose()


def auth(user: str, password: str) -> dict[str, str]:
    return {"auth": base64.b64encode(f"{user}:{password}".encode()).decode()}


def config(folder: Path, auths: object) -> Credentials:
    path = folder / "config.json"
    path.write_text(json.dumps({"auths": auths, "HttpHeaders": {}}))
    return Credentials(docker_config=path)


async def test_without_credentials_access_is_anonymous() -> None:
    assert await login(None) is None


async def test_a_password_in_the_settings_is_used() -> None:
    given = Credentials(username="robot", password=SecretStr("pw"))
    assert await login(given) == Login("robot", SecretStr("pw"))


@pytest.mark.parametrize("written", ["pw", "pw\n", "pw\r\n"])
async def test_a_password_file_may_end_with_a_line_break(tmp_path: Path, written: str) -> None:
    path = tmp_path / "password"
    path.write_bytes(written.encode())
    assert await login(Credentials(username="robot", password_file=path)) == Login("robot", SecretStr("pw"))


@pytest.mark.shows("a file with credentials changes")
async def test_a_file_is_read_again_after_it_changed(tmp_path: Path) -> None:
    path = tmp_path / "password"
    path.write_text("old")
    clock = Clock()
    source = source_of(Credentials(username="robot", password_file=path), httpx.URL("https://x"), SETTING, clock)
    assert await source.login("a") == Login("robot", SecretStr("old"))
    fresh = tmp_path / "fresh"
    fresh.write_text("new")
    os.replace(fresh, path)
    clock.now += LOOK_AGAIN_AFTER
    assert await source.login("a") == Login("robot", SecretStr("new"))


@pytest.mark.shows("a file with credentials is absent or cannot be read")
async def test_a_file_that_goes_away_leaves_what_it_said(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = tmp_path / "password"
    path.write_text("pw")
    clock = Clock()
    source = source_of(Credentials(username="robot", password_file=path), httpx.URL("https://x"), SETTING, clock)
    await source.login("a")
    path.unlink()
    for _ in range(3):
        clock.now += LOOK_AGAIN_AFTER
        assert await source.login("a") == Login("robot", SecretStr("pw"))
    assert len(caplog.records) == 1


@pytest.mark.shows("a file with credentials is absent or cannot be read")
async def test_a_file_that_was_never_there_is_an_outage_and_its_path_stays_in_the_log(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "password"
    with pytest.raises(UpstreamUnavailable) as failed:
        await login(Credentials(username="robot", password_file=path))
    assert f"{SETTING}.password_file" in failed.value.message
    assert str(path) not in failed.value.message
    assert str(path) in caplog.text


@pytest.mark.parametrize(
    ("key", "endpoint"),
    [
        ("registry.example", "https://registry.example"),
        ("Registry.Example", "https://registry.example"),
        ("https://registry.example", "https://registry.example"),
        ("https://registry.example/v1/", "https://registry.example"),
        ("http://registry.example/v2/", "https://registry.example"),
        ("registry.example:443", "https://registry.example"),
        ("registry.example:5000", "http://registry.example:5000"),
        ("10.0.0.5:5000", "https://10.0.0.5:5000"),
        ("[::1]:5000", "http://[::1]:5000"),
        ("*.example", "https://registry.example"),
        ("registry.example/team", "https://registry.example"),
        ("registry.example/team/a", "https://registry.example"),
        ("https://index.docker.io/v1/", "https://registry-1.docker.io"),
        ("docker.io", "https://registry-1.docker.io"),
        ("index.docker.io", "https://registry-1.docker.io"),
        ("registry-1.docker.io", "https://registry-1.docker.io"),
    ],
)
async def test_every_spelling_of_a_host_in_a_docker_config_is_understood(
    tmp_path: Path, key: str, endpoint: str
) -> None:
    assert await login(config(tmp_path, {key: auth("u", "p")}), endpoint) == Login("u", SecretStr("p"))


@pytest.mark.parametrize(
    ("key", "endpoint"),
    [
        ("other.example", "https://registry.example"),
        ("example", "https://registry.example"),
        ("registry.example.evil.example", "https://registry.example"),
        ("registry.example", "https://registry.example.evil.example"),
        ("registryXexample", "https://registry.example"),
        ("registry.example", "https://registry.example:5000"),
        ("registry.example:5000", "https://registry.example"),
        ("*", "https://registry.example"),
        ("*.example", "https://a.registry.example"),
        ("registry.example/tea", "https://registry.example"),
        ("registry.example/other", "https://registry.example"),
        ("docker.io", "https://registry.example"),
    ],
)
async def test_the_entry_of_another_host_is_never_used(tmp_path: Path, key: str, endpoint: str) -> None:
    assert await login(config(tmp_path, {key: auth("u", "p")}), endpoint) is None


async def test_the_longest_path_counts(tmp_path: Path) -> None:
    given = config(
        tmp_path,
        {
            "registry.example/team/a": auth("u", "deep"),
            "registry.example": auth("u", "all"),
            "registry.example/team": auth("u", "team"),
        },
    )
    assert await login(given, repository="team/a/x") == Login("u", SecretStr("deep"))
    assert await login(given, repository="team/b") == Login("u", SecretStr("team"))
    assert await login(given, repository="other") == Login("u", SecretStr("all"))


@pytest.mark.parametrize(
    ("entry", "expected"),
    [
        (auth("u", "p:with:colons"), Login("u", SecretStr("p:with:colons"))),
        (auth("u", "p\0\0"), Login("u", SecretStr("p"))),
        ({"username": "u", "password": "p"}, Login("u", SecretStr("p"))),
        ({"username": "u", "password": "x", **auth("u", "p")}, Login("u", SecretStr("p"))),
        ({**auth("<token>", ""), "identitytoken": "I"}, Login("", SecretStr("I"), is_identity_token=True)),
        ({"identitytoken": "I"}, Login("", SecretStr("I"), is_identity_token=True)),
        ({"username": "<token>", "password": "I"}, Login("", SecretStr("I"), is_identity_token=True)),
        ({}, None),
        ({"auth": ""}, None),
        ("nonsense", None),
    ],
)
async def test_every_form_of_an_entry_is_understood(tmp_path: Path, entry: object, expected: Login | None) -> None:
    assert await login(config(tmp_path, {"registry.example": entry})) == expected


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"{",
        b"[]",
        b'{"auths": 5}',
        b'{"auths": {"registry.example": {"auth": "secret-not-base64!"}}}',
        b'{"auths": {"registry.example": {"auth": "/////w=="}}}',
        b'{"secret": "' + b"[" * 100_000,
    ],
)
async def test_a_docker_config_that_is_none_is_told_without_its_content(
    tmp_path: Path, content: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "config.json"
    path.write_bytes(content)
    caplog.set_level(logging.DEBUG)
    with pytest.raises(UpstreamUnavailable, match=rf"{SETTING}\.docker_config") as failed:
        await login(Credentials(docker_config=path))
    assert str(path) in caplog.text
    assert "secret" not in caplog.text
    assert failed.value.__cause__ is None


def test_a_login_does_not_print_its_secret() -> None:
    shown = repr(Login("robot", SecretStr("hidden"))) + str(Login("robot", SecretStr("hidden")).basic())
    assert "hidden" not in shown
    assert base64.b64encode(b"robot:hidden").decode() not in shown


@pytest.mark.parametrize(
    ("fields", "user"),
    [
        ({"credHelpers": {"registry.example": "own"}}, "own"),
        ({"credHelpers": {"https://registry.example/v1/": "own"}}, "own"),
        ({"credHelpers": {"registry.example": "own"}, "credsStore": "all"}, "own"),
        ({"credHelpers": {"registry.example": "own"}, "auths": {"registry.example": auth("entry", "s")}}, "own"),
        ({"credHelpers": {"other.example": "own"}}, None),
        ({"credHelpers": {"other.example": "own"}, "credsStore": "all"}, "all"),
        ({"credsStore": "all"}, "all"),
        ({"credsStore": "all", "auths": {"registry.example": {}}}, "all"),
        ({"credsStore": "all", "auths": {"registry.example": auth("entry", "s")}}, "entry"),
        ({"credsStore": "", "auths": None, "credHelpers": None}, None),
    ],
)
async def test_a_docker_config_may_name_helpers(tmp_path: Path, fields: object, user: str | None) -> None:
    found = await login_by(tmp_path, fields)
    assert (found.username if found else None) == user


@pytest.mark.parametrize(
    ("endpoint", "server"),
    [
        ("https://registry.example", "registry.example"),
        ("http://registry.example:5000", "registry.example:5000"),
        ("https://registry-1.docker.io", "https://index.docker.io/v1/"),
    ],
)
async def test_a_helper_is_asked_for_the_server_by_dockers_name(tmp_path: Path, endpoint: str, server: str) -> None:
    environment = helper(tmp_path, "echo", 'read server; printf \'{"Username": "u", "Secret": "%s"}\' "$server"')
    source = source_of(Credentials(helper="echo"), httpx.URL(endpoint), SETTING, Clock(), environment)
    assert await source.login("team/a") == Login("u", SecretStr(server))


@pytest.mark.parametrize("fields", [{"credsStore": "../evil"}, {"credHelpers": {"x": "/bin/sh"}}, {"credHelpers": [1]}])
async def test_a_docker_config_cannot_name_any_program(
    tmp_path: Path, fields: object, caplog: pytest.LogCaptureFixture
) -> None:
    with pytest.raises(UpstreamUnavailable, match=rf"{SETTING}\.docker_config"):
        await login_by(tmp_path, fields)
    assert str(tmp_path) in caplog.text


async def test_a_helper_that_is_missing_is_told_by_the_key_that_names_it(tmp_path: Path) -> None:
    told = rf"docker-credential-desktop of {SETTING}\.docker_config is not on PATH"
    with pytest.raises(UpstreamUnavailable, match=told):
        await login_by(tmp_path, {"credsStore": "desktop"})


async def test_a_helper_is_asked_once_however_often_the_config_is_read(tmp_path: Path) -> None:
    path = tmp_path / "config.json"
    environment = helper(tmp_path / "bin", "own", f"echo asked >> {tmp_path}/asked; {says('u', 's')}")
    clock = Clock()
    source = source_of(
        Credentials(docker_config=path), httpx.URL("https://registry.example"), SETTING, clock, environment
    )
    for number in range(3):
        path.write_text(json.dumps({"credsStore": "own", "HttpHeaders": {"x": "y" * number}}))
        clock.now += LOOK_AGAIN_AFTER
        assert await source.login("team/a") == Login("u", SecretStr("s"))
    assert (tmp_path / "asked").read_text() == "asked\n"


async def test_a_password_that_was_replaced_is_tried_in_the_place_of_the_refused_one(tmp_path: Path) -> None:
    path = tmp_path / "password"
    path.write_text("old")
    clock = Clock()
    source = source_of(Credentials(username="u", password_file=path), httpx.URL("https://x"), SETTING, clock)
    old = await source.login("a")
    assert await source.instead_of(old, "a") is None
    path.write_text("newer")
    clock.now += LOOK_AGAIN_AFTER
    assert await source.instead_of(old, "a") == Login("u", SecretStr("newer"))


async def test_a_file_that_comes_late_is_found(tmp_path: Path) -> None:
    path = tmp_path / "password"
    clock = Clock()
    source = source_of(Credentials(username="u", password_file=path), httpx.URL("https://x"), SETTING, clock)
    with pytest.raises(UpstreamUnavailable):
        await source.login("a")
    path.write_text("pw")
    clock.now += LOOK_AGAIN_AFTER
    assert await source.login("a") == Login("u", SecretStr("pw"))


def test_an_identity_token_goes_by_dockers_name_where_there_is_no_other() -> None:
    basic = Login("", SecretStr("I"), is_identity_token=True).basic().get_secret_value()
    assert base64.b64decode(basic.removeprefix("Basic ")) == b"<token>:I"
