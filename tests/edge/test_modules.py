"""What an address under /modules asks for, and what it is told when it asks for nothing."""

import asyncio
import json
from typing import cast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mirror.answer import Hit, Whole
from mirror.config import Settings
from mirror.digest import Digest
from mirror.edge.auth import Gate
from mirror.edge.modules import ModulesApp
from mirror.errors import ModuleUnknown
from mirror.modules import Modules, OfModule
from mirror.names import Names
from mirror.oci import Reference
from mirror.wasm.description import Description
from mirror.wasm.examine import examine_file
from tests.edge.asgi import asked
from tests.support.artifacts import wasm_module

MODULE = wasm_module(100)
DIGEST = Digest.of(MODULE)
SOME = f"sha256:{'a' * 64}"
HEX = "0123456789abcdef" * 4


class Asked:
    """Modules of which each reference is one; remembers what was asked for."""

    def __init__(self) -> None:
        self.references: list[Reference] = []
        self.sha256: Digest | None = None

    async def module(self, reference: Reference, sha256: Digest | None = None) -> OfModule:
        self.references.append(reference)
        self.sha256 = sha256
        if reference.repository == "absent":
            raise ModuleUnknown("there is none")
        return OfModule("application/wasm", DIGEST, Whole(MODULE), Hit(), manifest=DIGEST)

    async def describe(self, reference: Reference) -> Description:
        self.references.append(reference)
        return examine_file(MODULE)


def app(known: Asked) -> ModulesApp:
    settings = Settings.model_validate({"upstreams": {"ghcr.io": {}, "docker.io": {}}, "names": ["mirror"]})
    return ModulesApp(Names(settings), cast(Modules, known), Gate(settings), lambda *given: None)


def reference(text: str) -> Reference:
    """Of ``upstream repository target``."""
    upstream, repository, target = text.split()
    if ":" in target:
        return Reference(upstream, repository, digest=Digest.parse(target))
    return Reference(upstream, repository, target)


async def refused(path: str, query: str = "", method: str = "GET") -> tuple[int, str, str]:
    sent = await asked(app(Asked()), path, method, query=query)
    (error,) = json.loads(sent.body)["errors"]
    return sent.status, error["code"], error["message"]


@pytest.mark.parametrize(
    ("path", "meant"),
    [
        ("ghcr.io/team/plugin:1.0", "ghcr.io team/plugin 1.0"),
        ("ghcr.io/team/plugin:1.0.wasm", "ghcr.io team/plugin 1.0"),
        ("ghcr.io/team/plugin:1.0.wasm.wasm", "ghcr.io team/plugin 1.0.wasm"),
        ("ghcr.io/team/plugin", "ghcr.io team/plugin latest"),
        ("ghcr.io/team/plugin.wasm", "ghcr.io team/plugin latest"),
        ("ghcr.io/team/plugin.wasm.wasm", "ghcr.io team/plugin.wasm latest"),
        (f"ghcr.io/team/plugin@{SOME}", f"ghcr.io team/plugin {SOME}"),
        (f"ghcr.io/team/plugin@{SOME}.wasm", f"ghcr.io team/plugin {SOME}"),
        (f"ghcr.io/team/plugin:1.0@{SOME}", f"ghcr.io team/plugin {SOME}"),
        ("docker.io/plugin:1", "docker.io library/plugin 1"),
    ],
)
async def test_an_address_names_a_module(path: str, meant: str) -> None:
    known = Asked()
    for method in ("GET", "HEAD"):
        sent = await asked(app(known), f"/modules/{path}", method, query="")
        assert (sent.status, sent.body) == (200, MODULE if method == "GET" else b"")
        assert sent.headers["x-wasm-sha256"] == DIGEST.hex
    assert known.references == [reference(meant)] * 2


@pytest.mark.parametrize(
    ("path", "query", "host", "meant"),
    [
        ("team/plugin:1", "ns=ghcr.io", "mirror", "ghcr.io team/plugin 1"),
        ("team/plugin:1", "", "ghcr.io", "ghcr.io team/plugin 1"),
        ("ghcr.io/team/plugin:1", "", "mirror:8080", "ghcr.io team/plugin 1"),
        ("ghcr.io/team/plugin:1", "ns=mirror", "mirror", "ghcr.io team/plugin 1"),
    ],
)
async def test_host_and_ns_name_the_upstream_as_for_the_registry(path: str, query: str, host: str, meant: str) -> None:
    known = Asked()
    sent = await asked(app(known), f"/modules/{path}", query=query, headers={"host": host})
    assert sent.headers.get("oci-namespace") == ("ghcr.io" if query == "ns=ghcr.io" else None)
    assert known.references == [reference(meant)]


@pytest.mark.parametrize(
    ("path", "status", "code"),
    [
        ("", 404, "UNKNOWN"),
        ("ghcr.io", 400, "NAME_INVALID"),
        ("ghcr.io:1", 400, "NAME_INVALID"),
        ("ghcr.io/:1", 400, "NAME_INVALID"),
        ("ghcr.io/Team/plugin:1", 400, "NAME_INVALID"),
        ("ghcr.io/../plugin:1", 400, "NAME_INVALID"),
        ("ghcr.io//plugin:1", 400, "NAME_INVALID"),
        ("oci://ghcr.io/team/plugin:1", 400, "TAG_INVALID"),
        (".wasm", 400, "NAME_INVALID"),
        ("ghcr.io/team/plugin:", 400, "TAG_INVALID"),
        ("ghcr.io/team/plugin:1:2", 400, "TAG_INVALID"),
        ("ghcr.io/team/plugin:a/b", 400, "TAG_INVALID"),
        ("ghcr.io/team/plugin@", 400, "DIGEST_INVALID"),
        ("ghcr.io/team/plugin@sha256:abc", 400, "DIGEST_INVALID"),
        (f"ghcr.io/team/plugin@{SOME}@{SOME}", 400, "DIGEST_INVALID"),
        ("evil.example/team/plugin:1", 404, "NAME_UNKNOWN"),
        ("169.254.169.254/team/plugin:1", 404, "NAME_UNKNOWN"),
    ],
)
async def test_what_names_no_module_is_told_what_is_wrong(path: str, status: int, code: str) -> None:
    assert (await refused(f"/modules/{path}"))[:2] == (status, code)


@pytest.mark.parametrize("wrong", ["", "abc", HEX[:-1], f"{HEX}0", f"sha256:{HEX}", "g" * 64, f"{HEX[:-1]}é"])
async def test_a_malformed_sha256_is_no_other_module(wrong: str) -> None:
    assert (await refused("/modules/ghcr.io/plugin:1", f"sha256={wrong}"))[:2] == (400, "DIGEST_INVALID")


async def test_a_sha256_may_be_written_in_capitals() -> None:
    known = Asked()
    await asked(app(known), "/modules/ghcr.io/plugin:1", query=f"sha256={HEX.upper()}")
    assert known.sha256 == Digest("sha256", HEX)


@pytest.mark.parametrize("method", ["PUT", "POST", "DELETE", "PATCH", "OPTIONS"])
async def test_modules_are_only_read(method: str) -> None:
    sent = await asked(app(Asked()), "/modules/ghcr.io/plugin:1", method, query="")
    assert (sent.status, sent.headers["allow"]) == (405, "GET, HEAD")
    assert json.loads(sent.body)["errors"][0]["code"] == "UNSUPPORTED"


async def test_with_info_what_is_known_is_told_as_json() -> None:
    known = Asked()
    for query in ("info", "info=1", f"info&sha256={HEX}"):
        sent = await asked(app(known), "/modules/ghcr.io/plugin:1.wasm", query=query)
        assert (sent.status, sent.headers["content-type"]) == (200, "application/json")
        assert json.loads(sent.body)["module"]["sha256"] == DIGEST.hex
    assert known.references == [reference("ghcr.io plugin 1")] * 3


async def test_an_error_on_the_way_is_one_of_the_registrys_kind() -> None:
    sent = await asked(app(Asked()), "/modules/ghcr.io/absent:1", query="ns=mirror", headers={"host": "mirror"})
    assert (sent.status, json.loads(sent.body)["errors"][0]["code"]) == (404, "MODULE_UNKNOWN")
    assert sent.headers["x-content-type-options"] == "nosniff"


@given(st.lists(st.tuples(st.text(max_size=40), st.text(max_size=20)), max_size=20))
def test_whatever_is_asked_for_the_answer_is_one(requests: list[tuple[str, str]]) -> None:
    async def ask_all() -> None:
        for path, query in requests:
            sent = await asked(app(Asked()), f"/modules/{path}", query=query.encode("unicode_escape").decode())
            assert sent.status in (200, 400, 404)
            assert sent.finished

    asyncio.run(ask_all())
