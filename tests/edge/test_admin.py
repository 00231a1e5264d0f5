"""The admin API is for who has the token; without one, for who sits at the machine."""

import json
import logging
from collections.abc import Mapping
from pathlib import Path
from typing import cast

import pytest

from mirror.auth.failures import ONCE_IN
from mirror.config import Settings
from mirror.edge.api import modules
from mirror.edge.api.admin import Admin
from mirror.edge.api.guard import Guard, check_token
from mirror.errors import StartError
from mirror.inventory import Inventory
from mirror.modules import Modules
from mirror.names import Names
from mirror.oci import Reference
from mirror.upstream.watched import LOOK_AGAIN_AFTER
from mirror.wasm.description import Description
from mirror.wasm.examine import examine_file
from mirror.wiring import check_secrets
from tests.cluster.replica import Clock
from tests.edge import asgi
from tests.edge.asgi import Sent
from tests.support.artifacts import compat, publish, wasm_module
from tests.support.running import running
from tests.support.upstream import FaultyUpstream

OLD = "an-old-token-of-some-length"
NEW = "the-new-token-of-some-length"
PATH = "/api/v1/modules/ghcr.io/team/plugin:1"


class Described:
    """Modules that are all alike; remembers what was asked for."""

    def __init__(self) -> None:
        self.references: list[Reference] = []

    async def describe(self, reference: Reference) -> Description:
        self.references.append(reference)
        return examine_file(wasm_module(100))


def settings(listen: str = "0.0.0.0:8080", token_file: Path | None = None) -> Settings:
    admin = {} if token_file is None else {"token_file": str(token_file)}
    return Settings.model_validate({"listen": listen, "admin": admin, "upstreams": {"ghcr.io": {}}})


def admin(of: Settings, known: Described | None = None, clock: Clock | None = None) -> Admin:
    operations = modules.operations(cast(Modules, known or Described()), cast(Inventory, None))
    return Admin(Guard(of, clock or Clock()), operations, Names(of))


def token_file(folder: Path, token: str = OLD) -> Path:
    file = folder / "token"
    file.write_text(f"{token}\n")
    return file


async def asked(
    one: Admin, path: str, method: str = "GET", *, query: str = "", headers: Mapping[str, str] | None = None
) -> Sent:
    return await asgi.asked(one, path, method, query=query, headers=headers)


async def with_token(one: Admin, token: str, path: str = PATH) -> Sent:
    return await asked(one, path, headers={"authorization": f"Bearer {token}"})


async def test_who_has_the_token_is_answered(tmp_path: Path) -> None:
    known = Described()
    one = admin(settings(token_file=token_file(tmp_path)), known)
    sent = await with_token(one, OLD)
    assert (sent.status, sent.headers["content-type"]) == (200, "application/json")
    assert json.loads(sent.body)["layout"] == "file"
    assert known.references == [Reference("ghcr.io", "team/plugin", "1")]
    head = await asked(one, PATH, "HEAD", headers={"authorization": f"bearer  {OLD}"})
    assert (head.status, head.body) == (200, b"")


@pytest.mark.parametrize(
    "header", ["", OLD, f"Basic {OLD}", "Bearer", "Bearer ", f"Bearer {OLD}x", f"Bearer {OLD[:-1]}", "Bearer \xff\xfe"]
)
@pytest.mark.parametrize("listen", ["0.0.0.0:8080", "127.0.0.1:8080"])
async def test_who_has_not_is_told_which_setting_it_is(tmp_path: Path, header: str, listen: str) -> None:
    known = Described()
    one = admin(settings(listen, token_file(tmp_path)), known)
    for path in (PATH, "/api/v1/nothing"):
        sent = await asked(one, path, headers={"authorization": header} if header else {})
        assert (sent.status, sent.headers["www-authenticate"]) == (401, "Bearer")
        (error,) = json.loads(sent.body)["errors"]
        assert error["code"] == "UNAUTHORIZED"
        assert "admin.token_file" in error["message"]
        assert OLD not in sent.body.decode()
    assert known.references == []


@pytest.mark.parametrize(
    ("listen", "status"),
    [
        ("127.0.0.1:8080", 200),
        ("127.1.2.3:8080", 200),
        ("[::1]:8080", 200),
        ("localhost:8080", 200),
        ("0.0.0.0:8080", 401),
        ("[::]:8080", 401),
        ("10.0.0.5:8080", 401),
        ("mirror.example:8080", 401),
    ],
)
async def test_without_a_token_only_a_mirror_on_loopback_answers(listen: str, status: int) -> None:
    sent = await asked(admin(settings(listen)), PATH)
    assert sent.status == status
    if status == 401:
        assert "admin.token_file" in json.loads(sent.body)["errors"][0]["message"]


@pytest.mark.parametrize(
    ("host", "status"),
    [
        ("127.0.0.1:8080", 200),
        ("127.0.0.1", 200),
        ("localhost:8080", 200),
        ("LocalHost", 200),
        ("[::1]:8080", 200),
        ("rebound.attacker.example:8080", 401),
        ("localhost.attacker.example", 401),
        ("127.0.0.1.attacker.example", 401),
        ("127.0.0.1@attacker.example", 401),
        ("10.0.0.5:8080", 401),
        ("\x1b[2J\n<script>" * 1000, 401),
        ("", 401),
    ],
)
async def test_without_a_token_a_web_page_whose_name_resolves_to_loopback_is_not_answered(
    tmp_path: Path, host: str, status: int
) -> None:
    known = Described()
    sent = await asked(admin(settings("127.0.0.1:8080"), known), PATH, headers={"host": host})
    assert (sent.status, len(known.references)) == (status, status == 200)
    if status == 401:
        assert len(sent.body) < 1000
        assert "admin.token_file" in json.loads(sent.body)["errors"][0]["message"]
    trusted = admin(settings("127.0.0.1:8080", token_file(tmp_path)))
    authorized = await asked(trusted, PATH, headers={"host": host, "authorization": f"Bearer {OLD}"})
    assert authorized.status == 200


async def test_a_token_that_changes_counts_at_once_and_a_broken_file_changes_nothing(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    clock = Clock()
    file = token_file(tmp_path)
    one = admin(settings(token_file=file), clock=clock)
    assert (await with_token(one, OLD)).status == 200
    file.write_text(NEW)
    clock.seconds += LOOK_AGAIN_AFTER
    assert (await with_token(one, NEW)).status == 200
    assert (await with_token(one, OLD)).status == 401
    for broken in ("", "short", "two tokens in one file, with blanks"):
        file.write_text(broken)
        clock.seconds += LOOK_AGAIN_AFTER
        assert (await with_token(one, NEW)).status == 200
        assert (await with_token(one, broken)).status == 401
    file.unlink()
    clock.seconds += LOOK_AGAIN_AFTER
    assert (await with_token(one, NEW)).status == 200
    errors = [record.message for record in caplog.records if record.levelno == logging.ERROR]
    assert len(errors) == 3
    assert all("admin.token_file" in message for message in errors)
    assert NEW not in caplog.text


@pytest.mark.parametrize(
    "content", [None, "", "\n", "fifteen-letters", "a token with blanks in it", "größer als ASCII"]
)
def test_a_token_that_cannot_be_used_stops_the_start(tmp_path: Path, content: str | None) -> None:
    file = tmp_path / "token"
    if content is not None:
        file.write_text(content)
    with pytest.raises(StartError, match=r"admin\.token_file .* `openssl rand") as failure:
        check_token(settings(token_file=file))
    assert not content or content.strip() not in failure.value.message or not content.strip()


def test_a_good_token_or_none_does_not(tmp_path: Path) -> None:
    check_token(settings())
    check_token(settings(token_file=token_file(tmp_path)))


@pytest.mark.parametrize(
    ("path", "status", "code"),
    [
        ("/api/v1/", 404, "UNKNOWN"),
        ("/api/v1/module", 404, "UNKNOWN"),
        ("/api/v1/modules/", 404, "UNKNOWN"),
        ("/api/v1/pins", 404, "UNKNOWN"),
        ("/api/v1/modules/ghcr.io/Team:1", 400, "NAME_INVALID"),
        ("/api/v1/modules/other.example/team:1", 404, "NAME_UNKNOWN"),
    ],
)
async def test_other_addresses_are_not_there(path: str, status: int, code: str) -> None:
    sent = await asked(admin(settings("127.0.0.1:8080")), path)
    assert (sent.status, json.loads(sent.body)["errors"][0]["code"]) == (status, code)


async def test_descriptions_are_only_read() -> None:
    sent = await asked(admin(settings("127.0.0.1:8080")), PATH, "DELETE")
    assert (sent.status, sent.headers["allow"]) == (405, "GET, HEAD")


async def test_the_upstream_stands_in_the_reference_alone() -> None:
    known = Described()
    one = admin(Settings.model_validate({"upstreams": {"ghcr.io": {}, "quay.io": {}}}), known)
    refused = await asked(one, PATH, query="ns=quay.io", headers={"host": "localhost"})
    assert (refused.status, known.references) == (400, [])
    assert (await asked(one, PATH, headers={"host": "localhost"})).status == 200
    assert known.references == [Reference("ghcr.io", "team/plugin", "1")]


async def test_a_mirror_describes_what_it_can_pull(tmp_path: Path) -> None:
    token = {"Authorization": f"Bearer {OLD}"}
    guarded = {"admin": {"token_file": str(token_file(tmp_path))}}
    with FaultyUpstream() as up:
        publish(up, "team/plugin", "1", compat(wasm_module()))
        async with running(tmp_path, {"ghcr.io": up.url}, guarded) as mirror:
            assert (await mirror.get(PATH)).status == 401
            described = await mirror.get(PATH, token)
            assert described.json == (await mirror.get("/modules/ghcr.io/team/plugin:1?info")).json
            assert described.json["accepted_by"]["agents"]["accepted"]


async def test_wrong_tokens_are_logged_and_not_without_end(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    clock = Clock()
    one = admin(settings(token_file=token_file(tmp_path)), clock=clock)
    await asked(one, PATH)
    assert caplog.messages == []
    for number in range(100):
        await with_token(one, f"{NEW}{number}")
    assert caplog.messages == ["a request from 192.0.2.7 to the admin API was refused: it does not bring the token"]
    clock.seconds += ONCE_IN
    await with_token(one, NEW)
    assert len(caplog.messages) == 2
    assert NEW not in caplog.text


def test_a_mirror_whose_token_cannot_be_read_does_not_start(tmp_path: Path) -> None:
    with pytest.raises(StartError, match=r"admin\.token_file"):
        check_secrets(settings(token_file=tmp_path / "absent"))
