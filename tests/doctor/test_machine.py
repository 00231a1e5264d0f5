"""What the doctor says of the files with which a mirror starts."""

from pathlib import Path
from typing import Any

import pytest

from mirror.config import Settings
from mirror.doctor.machine import Machine
from mirror.doctor.report import Mark
from tests.auth.support import users_file
from tests.doctor.support import found_by
from tests.support.certificates import self_signed

TOKEN = "a-token-of-sixteen-signs-and-more"


def settings(folder: Path, **more: Any) -> Settings:
    return Settings.model_validate({"upstreams": {"ghcr.io": {}}, "data_dir": str(folder / "data"), **more})


async def test_without_tls_nothing_is_said_of_it(tmp_path: Path) -> None:
    assert (await found_by(Machine(settings(tmp_path)))).mark("TLS") is None


async def test_a_certificate_and_its_key_are_tried_as_at_the_start(tmp_path: Path) -> None:
    files = self_signed(tmp_path)
    tls = {"certificate": str(files.certificate), "key": str(files.key)}
    assert (await found_by(Machine(settings(tmp_path, tls=tls)))).mark("TLS") is Mark.OK
    files.key.write_text("-----BEGIN NONSENSE-----")
    found = await found_by(Machine(settings(tmp_path, tls=tls)))
    assert found.mark("TLS") is Mark.FAIL
    assert "tls.key" in found["TLS"].said
    assert "the key that belongs to it" in found["TLS"].advice


@pytest.mark.parametrize(
    ("listen", "token", "said"),
    [
        ("127.0.0.1:8080", None, "for this machine"),
        ("0.0.0.0:8080", None, "closed"),
        ("0.0.0.0:8080", TOKEN, "who have the token"),
    ],
)
async def test_who_may_use_the_admin_api_is_said(tmp_path: Path, listen: str, token: str | None, said: str) -> None:
    admin = {}
    if token is not None:
        (tmp_path / "token").write_text(token)
        admin = {"admin": {"token_file": str(tmp_path / "token")}}
    found = await found_by(Machine(settings(tmp_path, listen=listen, **admin)))
    assert found.mark("admin API") is Mark.OK
    assert said in found["admin API"].said


@pytest.mark.parametrize(
    ("listen", "own", "said"),
    [
        ("0.0.0.0:8080", "127.0.0.1:9090", "for this machine"),
        ("127.0.0.1:8080", "0.0.0.0:9090", "closed"),
    ],
)
async def test_an_admin_api_with_a_port_of_its_own_is_who_reaches_that(
    tmp_path: Path, listen: str, own: str, said: str
) -> None:
    found = await found_by(Machine(settings(tmp_path, listen=listen, admin={"listen": own})))
    assert said in found["admin API"].said
    assert own in found["admin.listen"].said
    assert "/metrics" in found["admin.listen"].said


@pytest.mark.parametrize("content", [None, "short"])
async def test_a_token_with_which_it_would_not_start_is_a_failure_without_the_token(
    tmp_path: Path, content: str | None
) -> None:
    file = tmp_path / "token"
    if content is not None:
        file.write_text(content)
    found = await found_by(Machine(settings(tmp_path, admin={"token_file": str(file)})))
    assert found.mark("admin API") is Mark.FAIL
    assert "admin.token_file" in found["admin API"].said
    assert "openssl rand" in found["admin API"].advice
    assert content is None or content not in found.text


@pytest.mark.parametrize(
    ("listen", "mode", "said"),
    [
        ("127.0.0.1:8080", None, "none, so this machine may push"),
        ("0.0.0.0:8080", None, "none, so nobody may push"),
        ("0.0.0.0:8080", "none", "they may push, by auth.rules"),
        ("0.0.0.0:8080", "htpasswd", "they may read and push, by auth.rules"),
    ],
)
async def test_who_may_push_is_said(tmp_path: Path, listen: str, mode: str | None, said: str) -> None:
    auth = {"auth": {"mode": mode, "file": str(users_file(tmp_path, {"anna": "hunter2"}))}} if mode else {}
    found = await found_by(Machine(settings(tmp_path, listen=listen, **auth)))
    assert found.mark("users") is Mark.OK
    assert said in found["users"].said


@pytest.mark.parametrize("content", [None, "anna:hunter2\n"])
async def test_users_with_whom_it_would_not_start_are_a_failure(tmp_path: Path, content: str | None) -> None:
    file = tmp_path / "users"
    if content is not None:
        file.write_text(content)
    found = await found_by(Machine(settings(tmp_path, auth={"file": str(file)})))
    assert found.mark("users") is Mark.FAIL
    assert "auth.file" in found["users"].said
    assert "htpasswd -B" in found["users"].advice
    assert "hunter2" not in found.text


async def test_a_rule_for_nobody_is_told(tmp_path: Path) -> None:
    rule = {"who": ["Anna", "anna", "*"], "repositories": ["**"], "may": ["push"]}
    auth = {"file": str(users_file(tmp_path, {"anna": "hunter2"})), "rules": [rule]}
    found = await found_by(Machine(settings(tmp_path, auth=auth)))
    assert found.mark("users") is Mark.WARN
    assert "for Anna, too" in found["users"].said
