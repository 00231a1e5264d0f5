"""What agents will refuse is said to who pushes it, or kept out; what is no Wasm artifact is nobody's business."""

import json
import logging
from pathlib import Path

import pytest

from mirror.digest import Digest
from tests.support.artifacts import (
    OCI_CONFIG,
    OCI_LAYER,
    RAW_LAYER,
    Artifact,
    cncf,
    compat,
    docker,
    image,
    index,
    raw,
    tar_gz,
    wasm_module,
)
from tests.support.pushing import Author
from tests.support.running import running
from tests.support.scrape import Scrape
from tests.wasm.modules import plugin

UP = {"ghcr.io": "http://127.0.0.1:9"}
CORRECT = plugin()

REFUSED: dict[str, tuple[Artifact, str]] = {
    "cncf": (cncf(CORRECT), "agents will refuse this: the module's layer is of type application/wasm"),
    "one raw layer": (image([(RAW_LAYER, CORRECT)], config=(OCI_CONFIG, b"{}")), "agents will refuse this"),
    "a module that is no tar": (
        image([("application/vnd.oci.image.layer.v1.tar", CORRECT)]),
        "agents will refuse this: its layer is of type application/vnd.oci.image.layer.v1.tar",
    ),
    "no module": (raw(b"no module at all"), "agents will refuse this"),
    "not for Envoy": (raw(wasm_module()), "agents take this, and Envoy will not run it"),
}
PASSED: dict[str, Artifact] = {
    "raw": raw(CORRECT),
    "compat": compat(CORRECT),
    "docker": docker(CORRECT),
    "chart": image(
        [("application/vnd.cncf.helm.chart.content.v1.tar+gzip", tar_gz({"chart/Chart.yaml": b"name: x"}))],
        config=("application/vnd.cncf.helm.config.v1+json", b"{}"),
    ),
    "signature": image([("application/vnd.dev.cosign.simplesigning.v1+json", b"{}")]),
    "container": image([(OCI_LAYER, tar_gz({"bin/sh": b"#!"}))]),
    "index": index(raw(CORRECT)),
}
"""What nothing is said of."""


@pytest.mark.parametrize("check", ["warn", "enforce"])
async def test_only_what_agents_refuse_is_spoken_of(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, check: str
) -> None:
    caplog.set_level(logging.WARNING, "mirror.admission")
    async with running(tmp_path, UP, {"wasm": {"check": check}}) as mirror:
        for name, artifact in PASSED.items():
            reply = await Author(mirror, "hosted/good").push(artifact, "v1")
            assert (reply.status, reply.header("warning")) == (201, None), name
        assert not caplog.messages
        for name, (artifact, words) in REFUSED.items():
            author = Author(mirror, "hosted/bad")
            reply = await author.push(artifact, "v1")
            there = await author.ask("GET", "manifests/v1")
            if check == "warn":
                assert (reply.status, there.body) == (201, artifact.body), name
                warning = reply.header("warning") or ""
                assert warning.startswith(f'299 - "{words}'), (name, warning)
                assert "to mend it: " in warning
                (line,) = caplog.messages
                assert line.startswith(f"hosted/bad:v1 ({artifact.digest}) is pushed: {words}")
                caplog.clear()
            else:
                assert (reply.status, reply.code, there.status) == (400, "MANIFEST_INVALID", 404), name
                assert reply.message.startswith(words)
                assert reply.detail.keys() == {"reason", "remedy"}
                assert reply.detail["remedy"] in reply.message
                assert "wasm.check" in reply.message
                assert not mirror.holds(artifact.digest)
        counted = Scrape.of((await mirror.get("/metrics")).body)
        result = "warned" if check == "warn" else "refused"
        assert counted.sum("pushes_total", repository_kind="hosted", result=result) == len(REFUSED)


async def test_nothing_is_looked_at_where_that_is_off(tmp_path: Path) -> None:
    async with running(tmp_path, UP, {"wasm": {"check": "off"}}) as mirror:
        for artifact, _ in REFUSED.values():
            reply = await Author(mirror).push(artifact, "v1")
            assert (reply.status, reply.header("warning")) == (201, None)


async def test_what_is_in_another_repository_is_not_told(tmp_path: Path) -> None:
    """Who knows a digest must not learn from a refusal what is in it."""
    secret = cncf(CORRECT)
    async with running(tmp_path, UP) as mirror:
        assert (await Author(mirror, "hosted/secret").push(secret, "v1")).status == 201
        other = Author(mirror, "hosted/other")
        await other.blob(next(content for digest, content in secret.blobs.items() if digest not in secret.layers))
        reply = await other.manifest(secret, "v1")
        assert (reply.status, reply.code, reply.header("warning")) == (404, "MANIFEST_BLOB_UNKNOWN", None)
        foreign = json.loads(secret.body)
        foreign["layers"][0]["mediaType"] = "application/vnd.oci.image.layer.nondistributable.v1.tar+gzip"
        body = json.dumps(foreign).encode()
        reply = await other.manifest(Artifact(body, secret.media_type), "v1")
        assert (reply.status, reply.header("warning")) == (201, None)  # such a layer need not be here
        assert (await other.ask("GET", f"blobs/{Digest.of(CORRECT)}")).status == 404
