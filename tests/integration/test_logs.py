"""What is written to the log: a line for a fill, none for a hit, and no secret at any level."""

import base64
import json
from datetime import datetime
from pathlib import Path

import pytest

from mirror.digest import Digest
from tests.integration.client import get, manifest, pull
from tests.support.artifacts import OCI_LAYER, image, publish, raw, tar_gz, wasm_module
from tests.support.faults import Fault
from tests.support.process import MirrorProcess
from tests.support.tokens import TokenService
from tests.support.upstream import FaultyUpstream
from tests.support.waiting import eventually

pytestmark = pytest.mark.integration

NAME = "up/team/plugin"
ARTIFACT = raw(wasm_module(100_000))


async def test_a_fill_is_worth_a_line_and_a_hit_is_not(tmp_path: Path) -> None:
    with FaultyUpstream() as up, MirrorProcess(tmp_path, {"up": up.url}) as mirror:
        publish(up, "team/plugin", "v1", ARTIFACT)
        assert (await pull(mirror.url, NAME, "v1")).whole
        what = "a line that it serves, one a fill, and one that Envoy will not run what is no plugin"
        lines = await eventually(lambda: as_many(5, mirror.log_text()), what=what)
        for digest in ARTIFACT.layers:
            assert sum(f"filled {digest} from up/team/plugin at {up.host}" in line for line in lines) == 1
        assert sum(f"fetched {NAME} v1 from upstream: {ARTIFACT.digest}" in line for line in lines) == 1
        for _ in range(5):
            assert (await pull(mirror.url, NAME, "v1")).whole
            assert (await pull(mirror.url, NAME, ARTIFACT.digest)).whole
        assert mirror.log_text().splitlines() == lines


def as_many(number: int, text: str) -> list[str]:
    """The lines of ``text`` once there are as many."""
    lines = text.splitlines()
    return lines if len(lines) >= number else []


async def test_every_request_is_worth_a_line_where_the_settings_say_so(tmp_path: Path) -> None:
    with FaultyUpstream() as up, MirrorProcess(tmp_path, {"up": up.url}, {"log": {"access": "all"}}) as mirror:
        publish(up, "team/plugin", "v1", ARTIFACT)
        await manifest(mirror.url, NAME, "v1")
        assert f"127.0.0.1 GET /v2/{NAME}/manifests/v1 200 " in mirror.log_text()
        await get(mirror.url, "/v2/up/team/plugin%0aforged/manifests/v1?token=secret")
        assert "\nforged" not in mirror.log_text()
        assert "secret" not in mirror.log_text()


async def test_no_name_that_an_author_chose_steers_the_terminal(tmp_path: Path) -> None:
    named = image([(OCI_LAYER, tar_gz({"a\x1b[31m\nb.wasm": wasm_module()}))])
    with FaultyUpstream() as up, MirrorProcess(tmp_path, {"up": up.url}) as mirror:
        publish(up, "team/plugin", "v1", named)
        assert (await pull(mirror.url, NAME, "v1")).whole
        await eventually(lambda: "but a\\x1b[31m\\nb.wasm" in mirror.log_text(), what="a warning of the file's name")
        assert "\x1b" not in mirror.log_text()


async def test_lines_in_json_can_be_parsed(tmp_path: Path) -> None:
    settings = {"log": {"format": "json", "level": "debug", "access": "all"}, "workers": 2, "drain_for": "100ms"}
    with FaultyUpstream() as up, MirrorProcess(tmp_path, {"up": up.url}, settings) as mirror:
        publish(up, "team/plugin", "v1", ARTIFACT)
        assert (await pull(mirror.url, NAME, "v1")).whole
        up.inject(Fault(status=403))
        await manifest(mirror.url, "up/team/other", "v1")
        assert mirror.stop() == 0
        entries = [json.loads(line) for line in mirror.log_text().splitlines()]
        assert len(entries) > 5
        for entry in entries:
            assert datetime.fromisoformat(entry["time"]).tzinfo is not None
            assert entry["level"] in ("debug", "info", "warning", "error")
            assert entry["message"]


async def test_no_secret_is_in_the_log_or_in_an_answer_at_any_level(tmp_path: Path) -> None:
    password, other = "Tr0ub4dor-und-3", "correct-horse-battery"
    signature = "X-Amz-Signature=0123456789abcdef0123456789abcdef"
    basic = base64.b64encode(f"robot:{password}".encode()).decode()
    (tmp_path / "password").write_text(other + "\n")
    tokens = TokenService(users={"robot": password}, anonymous=False)
    with FaultyUpstream() as up, FaultyUpstream() as second, FaultyUpstream() as storage:
        for registry in (up, second):
            publish(registry, "team/plugin", "v1", ARTIFACT)
        for content in ARTIFACT.blobs.values():
            storage.add_blob("team/plugin", content)
        up.require_bearer(tokens)
        up.inject(Fault(redirect=storage.url + "{path}?" + signature), path="/blobs/")
        second.require_basic({"robot": other})
        upstreams: dict[str, dict[str, object]] = {
            "up": {
                "endpoints": [{"url": up.url, "redirect_hosts": [storage.host]}],
                "credentials": {"username": "robot", "password": password},
            },
            "second": {
                "endpoints": [second.url],
                "credentials": {"username": "robot", "password_file": str(tmp_path / "password")},
            },
        }
        log = {"level": "debug", "access": "all"}
        settings = {"log": log, "defaults": {"fresh_for": "0s", "hold_for": "1s"}}
        with MirrorProcess(tmp_path / "mirror", upstreams, settings) as mirror:
            assert (await pull(mirror.url, NAME, "v1")).whole
            assert (await pull(mirror.url, "second/team/plugin", "v1")).whole
            answers = []
            for fault in (Fault(status=401), Fault(status=403), Fault(status=503), Fault(html=True), Fault(drop=True)):
                for registry in (up, second, storage):
                    registry.inject(fault, times=3)
                for name in (NAME, "second/team/plugin", "up/team/other", "second/team/other"):
                    answers.append(await manifest(mirror.url, name, "v1"))
                    answers.append(await get(mirror.url, f"/v2/{name}/blobs/{Digest.of(b'elsewhere')}"))
            mirror.stop()
            said = mirror.log_text() + "".join(str(got) for got in answers)
        sent = [request.headers.get("authorization", "") for request in (*up.requests, *storage.requests)]
        issued = {value.removeprefix("Bearer ") for value in sent if value.startswith("Bearer ")}
        assert issued, "tokens were used"
        assert any("authorization" in request.headers for request in second.requests)
        assert storage.count(path="/blobs/") > 0
        for secret in (password, other, basic, signature, *issued):
            assert secret not in said
