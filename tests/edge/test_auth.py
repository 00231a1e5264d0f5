"""Who asks, and what the gate lets them do; before any repository is looked at."""

import logging
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, cast

import pytest
from starlette.types import Scope

from mirror.auth.rules import Action
from mirror.config import Settings
from mirror.digest import Digest
from mirror.edge.auth import CHALLENGE, Gate, send_refusal
from mirror.edge.basic import basic
from mirror.edge.passthrough import Passage, PassThrough, login_of
from mirror.errors import Denied, MirrorError, Unauthorized, UpstreamDenied
from mirror.names import Place
from mirror.oci import Resource
from tests.auth.support import basic as as_user
from tests.auth.support import users_file
from tests.cluster.replica import Clock
from tests.edge.asgi import Sent

HOSTED = Place("hosted", "team-a/plugin")
MIRRORED = Place("ghcr.io", "acme/plugin")
WRITING = (Action.PUSH, Action.DELETE, Action.OVERWRITE)
HERE = "127.0.0.1:8080"
RULES = [
    {"who": ["anna"], "repositories": ["hosted/team-a/**"], "may": ["pull", "push", "overwrite"]},
    {"who": ["*"], "repositories": ["ghcr.io/acme/**"], "may": ["pull"]},
]


def settings(listen: str = "0.0.0.0:8080", names: tuple[str, ...] = (), **auth: object) -> Settings:
    upstreams: Mapping[str, object] = {"ghcr.io": {}}
    return Settings.model_validate({"listen": listen, "names": names, "auth": auth, "upstreams": upstreams})


@asynccontextmanager
async def gate_of(of: Settings) -> AsyncIterator[Gate]:
    gate = Gate(of, Clock())
    try:
        yield gate
    finally:
        await gate.aclose()


@asynccontextmanager
async def guarded(folder: Path, mode: str = "none", **auth: Any) -> AsyncIterator[Gate]:
    """A gate with two users, reached from everywhere."""
    file = users_file(folder, {"anna": "hunter2", "ben": "b"})
    async with gate_of(settings(mode=mode, file=str(file), **auth)) as gate:
        yield gate


def request(headers: Mapping[str, str] | None = None) -> Scope:
    return {"headers": [(name.encode("latin-1"), value.encode("latin-1")) for name, value in (headers or {}).items()]}


def may(gate: Gate, principal: str, place: Place) -> set[Action]:
    found = set()
    for action in Action:
        try:
            gate.allow(principal, action, place)
        except (Denied, Unauthorized):
            continue
        found.add(action)
    return found


@pytest.mark.parametrize("headers", [{}, as_user("anna", "whatever"), {"authorization": "Bearer x"}])
async def test_without_users_nothing_is_asked_for_to_read(headers: Mapping[str, str]) -> None:
    async with gate_of(settings()) as gate:
        await gate.greet(request(headers))
        assert await gate.reader(request(headers)) == ""
        gate.allow("", Action.PULL, HOSTED)
        gate.allow("", Action.PULL, MIRRORED)


@pytest.mark.parametrize(
    "headers",
    [
        {},
        as_user("", ""),
        as_user("anna", "hunter3"),
        as_user("nobody", "hunter2"),
        as_user("", "hunter2"),
        as_user("anna", ""),
        {"authorization": "Basic"},
        {"authorization": "Basic !"},
        {"authorization": "Basic YW5uYQ=="},
        {"authorization": "Bearer hunter2"},
        {"authorization": "\xff"},
        {"authorization": as_user("anna", "hunter2")["authorization"] + ", Basic eDp5"},
    ],
)
@pytest.mark.parametrize("mode", ["none", "htpasswd"])
async def test_once_there_are_users_v2_asks_for_one_and_believes_no_other(
    tmp_path: Path, headers: Mapping[str, str], mode: str
) -> None:
    async with guarded(tmp_path, mode) as gate:
        for asked in (gate.greet, gate.principal):
            with pytest.raises(Unauthorized, match=r"auth\.file") as refused:
                await asked(request(headers))
            assert "hunter" not in refused.value.message


@pytest.mark.parametrize("scheme", ["Basic", "basic", "BASIC "])
async def test_a_user_is_told_by_name_and_password(tmp_path: Path, scheme: str) -> None:
    async with guarded(tmp_path) as gate:
        header = as_user("anna", "hunter2")["authorization"].replace("Basic", scheme)
        await gate.greet(request({"authorization": header}))
        assert await gate.principal(request({"authorization": header})) == "anna"


async def test_where_anyone_may_read_credentials_that_come_along_are_not_looked_at(tmp_path: Path) -> None:
    async with guarded(tmp_path) as gate:
        for headers in ({}, as_user("anna", "wrong"), {"authorization": "nonsense"}):
            assert await gate.reader(request(headers)) == ""
        for place in (HOSTED, MIRRORED):
            gate.allow("", Action.PULL, place)


async def test_where_users_read_they_read_by_the_rules_mirrored_registries_too(tmp_path: Path) -> None:
    async with guarded(tmp_path, "htpasswd", rules=RULES) as gate:
        for headers in ({}, as_user("", ""), as_user("ben", "wrong")):
            with pytest.raises(Unauthorized):
                await gate.reader(request(headers))
        assert await gate.reader(request(as_user("ben", "b"))) == "ben"
        assert may(gate, "ben", MIRRORED) == {Action.PULL}
        assert may(gate, "ben", HOSTED) == set()
        assert may(gate, "anna", HOSTED) == {Action.PULL, Action.PUSH, Action.OVERWRITE}
        assert may(gate, "", MIRRORED) == set()
        with pytest.raises(Denied, match=r"ben may not pull hosted/team-a/plugin: auth\.rules"):
            gate.allow("ben", Action.PULL, HOSTED)


async def test_who_may_only_create_may_not_overwrite_or_delete(tmp_path: Path) -> None:
    rules = [{"who": ["anna"], "repositories": ["hosted/**"], "may": ["push"]}]
    async with guarded(tmp_path, rules=rules) as gate:
        assert may(gate, "anna", HOSTED) & set(WRITING) == {Action.PUSH}
    async with guarded(tmp_path) as gate:
        assert may(gate, "anna", HOSTED) & set(WRITING) == {Action.PUSH}


async def test_users_write_from_anywhere_and_nobody_else_does(tmp_path: Path) -> None:
    async with guarded(tmp_path) as gate:
        abroad = {"host": "mirror.example", "origin": "https://page.example"}
        assert await gate.principal(request({**abroad, **as_user("ben", "b")})) == "ben"
        for action in WRITING:
            with pytest.raises(Unauthorized):
                gate.allow("", action, HOSTED)


@pytest.mark.parametrize("listen", ["0.0.0.0:8080", "[::]:8080", "10.0.0.5:8080", "mirror.example:8080"])
async def test_without_users_nobody_writes_to_a_mirror_that_others_reach(listen: str) -> None:
    async with gate_of(settings(listen)) as gate:
        for headers in ({"host": HERE}, as_user("anna", "hunter2")):
            with pytest.raises(Unauthorized, match=r"set auth\.file"):
                await gate.principal(request(headers))
        for action in WRITING:
            with pytest.raises(Unauthorized, match=r"set auth\.file"):
                gate.allow("", action, HOSTED)


@pytest.mark.parametrize("listen", ["127.0.0.1:8080", "[::1]:0", "localhost:8080"])
@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"host": HERE},
        {"host": "localhost"},
        {"host": "[::1]:8080"},
        {"host": "registry.localhost:8080"},
        {"host": "Mirror.test:8080"},
        {"host": "mirror.test"},
        {"host": "other.test:99"},
        {"host": HERE, "origin": "http://localhost:3000"},
        {"host": HERE, **as_user("anna", "whatever")},
    ],
)
async def test_without_users_who_is_at_the_machine_may_do_all(listen: str, headers: Mapping[str, str]) -> None:
    async with gate_of(settings(listen, ("mirror.test", "other.test:99"))) as gate:
        principal = await gate.principal(request(headers))
        assert principal == ""
        assert may(gate, principal, HOSTED) == set(Action)


@pytest.mark.parametrize(
    "headers",
    [
        {"host": "rebound.attacker.example:8080"},
        {"host": "localhost.attacker.example"},
        {"host": "127.0.0.1@attacker.example"},
        {"host": "other.test:98"},
        {"host": ""},
        {"host": "x" * 10_000},
        {"host": HERE, "origin": "https://attacker.example"},
        {"host": HERE, "origin": "null"},
        {"host": HERE, "origin": "http://localhost.attacker.example"},
        {"host": HERE, "origin": ""},
    ],
)
async def test_without_users_no_web_page_writes(headers: Mapping[str, str]) -> None:
    async with gate_of(settings("127.0.0.1:8080", ("other.test:99",))) as gate:
        with pytest.raises(Unauthorized, match=r"set auth\.file") as refused:
            await gate.principal(request(headers))
        assert len(refused.value.message) < 500


@pytest.mark.parametrize(
    ("text", "user", "password"),
    [
        ("Basic YW5uYTpodW50ZXIy", "anna", b"hunter2"),
        ("Basic YW5uYTphOmI6", "anna", b"a:b:"),
        ("Basic w6RubmE6w58=", "änna", "ß".encode()),
        ("Basic YW5uYTo=", "anna", b""),
        ("Basic OmE=", "", b"a"),
        ("Basic /zr/", "�", b"\xff"),
    ],
)
def test_basic_credentials_are_read_as_they_were_sent(text: str, user: str, password: bytes) -> None:
    found = basic(text)
    assert found is not None
    assert (found.user, found.password) == (user, password)
    assert "password" not in repr(found)


@pytest.mark.parametrize("text", [None, "", "Basic Og=="])
def test_empty_credentials_are_none(text: str | None) -> None:
    assert basic(text) is None


async def test_a_failed_login_of_the_file_is_logged_without_the_password(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    scope: Scope = {**request(as_user("anna", "hunter3")), "client": ("10.0.0.7", 1234)}
    async with guarded(tmp_path, "htpasswd") as gate:
        for _ in range(3):
            with pytest.raises(Unauthorized):
                await gate.reader(scope)
        assert await gate.reader(request(as_user("anna", "hunter2"))) == "anna"
    said = [record.getMessage() for record in caplog.records]
    assert said == ["a login as 'anna' from 10.0.0.7 has failed: refused by auth.file"]


WAY = cast(Passage, object())


class Told:
    """What upstreams say, in place of `PassThrough`: yes to ann only."""

    def __init__(self) -> None:
        self.asked: list[object] = []

    async def greet(self, scope: Scope, upstream: str | None) -> None:
        self.asked.append(upstream)
        self._let(scope)

    async def reader(self, scope: Scope, place: Place, *what: object) -> Passage:
        self.asked.append((place, *what))
        self._let(scope)
        return WAY

    def writer(self, scope: Scope) -> str:
        login = login_of(scope)
        return "" if login is None else f"opaque {login.username}"

    async def aclose(self) -> None:
        pass

    def _let(self, scope: Scope) -> None:
        login = login_of(scope)
        if login is None or login.username != "ann":
            raise Unauthorized("upstream says no")


@asynccontextmanager
async def upstreams_decide(listen: str = "0.0.0.0:8080", **auth: Any) -> AsyncIterator[tuple[Gate, Told]]:
    told = Told()
    of = settings(listen, mode="upstream", allow_plain_http=True, **auth)
    gate = Gate(of, Clock(), passthrough=cast(PassThrough, told))
    try:
        yield gate, told
    finally:
        await gate.aclose()


ANN = as_user("ann", "of-ann")


async def test_where_upstreams_decide_they_are_asked_about_what_is_theirs_only() -> None:
    async with upstreams_decide() as (gate, told):
        digest = Digest.of(b"")
        assert await gate.reader(request()) == ""
        assert await gate.pull(request(ANN), "", MIRRORED, Resource.BLOB, None, digest) is WAY
        with pytest.raises(Unauthorized):
            await gate.pull(request(), "", MIRRORED, Resource.MANIFEST, "1")
        assert told.asked == [(MIRRORED, Resource.BLOB, None, digest), (MIRRORED, Resource.MANIFEST, "1", None)]
        assert await gate.pull(request(), "", HOSTED, Resource.MANIFEST, "1") is None
        assert len(told.asked) == 2


async def test_where_upstreams_decide_the_file_is_for_hosted_content(tmp_path: Path) -> None:
    file = str(users_file(tmp_path, {"anna": "hunter2", "ben": "b"}))
    async with upstreams_decide(file=file, rules=RULES) as (gate, told):
        for headers in ({}, ANN):
            with pytest.raises(Unauthorized):
                await gate.pull(request(headers), "", HOSTED, Resource.MANIFEST, "1")
        with pytest.raises(Denied):
            await gate.pull(request(as_user("ben", "b")), "", HOSTED, Resource.MANIFEST, "1")
        anna = request(as_user("anna", "hunter2"))
        assert await gate.pull(anna, "", HOSTED, Resource.MANIFEST, "1") is None
        assert await gate.principal(anna, HOSTED) == "anna"
        with pytest.raises(Unauthorized):
            await gate.principal(request(ANN), HOSTED)
        await gate.greet(anna, "ghcr.io")
        assert told.asked == []
        await gate.greet(request(as_user("ann", "p" * 5000)), "ghcr.io")  # longer than bcrypt takes: an upstream's
        for headers in ({}, as_user("carol", "x")):
            with pytest.raises(Unauthorized):
                await gate.greet(request(headers), "ghcr.io")


async def test_where_upstreams_decide_rules_say_nothing_of_pushes_to_them(tmp_path: Path) -> None:
    file = str(users_file(tmp_path, {"anna": "hunter2"}))
    async with upstreams_decide(file=file, rules=RULES) as (gate, _):
        for headers in (ANN, as_user("anna", "hunter2")):
            principal = await gate.principal(request(headers), MIRRORED)
            assert principal.startswith("opaque ")
            assert may(gate, principal, MIRRORED) == set(Action)
            assert may(gate, principal, HOSTED) == set()


async def test_who_pushes_to_an_upstream_without_credentials_is_asked_for_them_unless_at_the_machine() -> None:
    async with upstreams_decide() as (gate, _):
        with pytest.raises(Unauthorized, match="send yours"):
            await gate.principal(request({"host": HERE}), MIRRORED)
    async with upstreams_decide("127.0.0.1:8080") as (gate, _):
        assert await gate.principal(request({"host": HERE}), MIRRORED) == ""
        with pytest.raises(Unauthorized):
            await gate.principal(request({"host": "attacker.example"}), MIRRORED)


async def test_a_refused_push_asks_for_credentials_only_where_they_are_the_clients() -> None:
    denied = UpstreamDenied("ghcr.io refuses your credentials (401)", detail={"status": 401})
    async with upstreams_decide() as (gate, _):
        assert isinstance(gate.refused(denied), Unauthorized)
        assert isinstance(gate.refused(UpstreamDenied("no", detail={"status": 403})), Denied)
    async with gate_of(settings()) as gate:
        assert gate.refused(denied) is denied


def test_a_gate_that_could_ask_nobody_is_not_made() -> None:
    with pytest.raises(ValueError, match="upstream"):
        Gate(settings(mode="upstream", allow_plain_http=True))


async def _refused(error: MirrorError) -> Sent:
    sent = Sent()
    await send_refusal(sent.send, "GET", error)
    return sent


async def test_a_401_has_the_challenge_that_agents_take_and_nothing_else_has() -> None:
    assert CHALLENGE == "Basic realm=wasm-mirror"  # a quoted realm that is no URL ends an agent's pull
    assert (await _refused(Unauthorized("x"))).headers["www-authenticate"] == CHALLENGE
    assert "www-authenticate" not in (await _refused(Denied("x"))).headers


async def test_no_credential_gets_into_an_error_or_the_log(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    attempts = [
        as_user("anna", "hunter3"),
        as_user("nobody", "hunter3"),
        as_user("anna", "hunter3" * 20),
        {"authorization": "Bearer hunter3"},
        {"authorization": "Basic hunter3"},
        {"authorization": "hunter3"},
    ]
    async with guarded(tmp_path, "htpasswd") as gate:
        for headers in attempts:
            with pytest.raises(Unauthorized) as refused:
                await gate.reader(request(headers))
            told = repr(refused.value) + (await _refused(refused.value)).body.decode()
            assert "hunter3" not in told
            assert headers["authorization"].split()[-1] not in told
    assert "hunter3" not in caplog.text
