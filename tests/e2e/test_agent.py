"""The Istio agent's own code pulls through the mirror."""

import base64
import hashlib
import json
import random
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from mirror.wasm.examine import examine
from tests.auth.support import users_file
from tests.e2e.programs import agent, agents, agents_of
from tests.support.artifacts import (
    DOCKER_CONFIG,
    DOCKER_LAYER,
    OCI_LAYER,
    Artifact,
    cncf,
    compat,
    docker,
    image,
    index,
    publish,
    raw,
    tar_gz,
    wasm_module,
)
from tests.support.certificates import self_signed
from tests.support.faults import Fault
from tests.support.process import MirrorProcess
from tests.support.upstream import FaultyUpstream
from tests.support.waiting import wait_until
from tests.wasm.modules import custom, plugin
from tests.wasm.verdicts import parsed

pytestmark = pytest.mark.needs("agent")

MODULE = plugin(customs=[custom("pad", random.Random(1).randbytes(300_000))])
SHA256 = hashlib.sha256(MODULE).hexdigest()
LAYOUTS = {"raw": raw, "docker": docker, "compat": compat}
Layout = Callable[[bytes], Artifact]


def oci(mirror: MirrorProcess, target: object = ":v1") -> str:
    """What a WasmPlugin names."""
    return f"oci://{mirror.host}/up/team/plugin{target}"


@pytest.mark.parametrize("layout", LAYOUTS.values(), ids=LAYOUTS.keys())
def test_an_agent_pulls_each_layout_by_tag_and_by_digest_and_upstream_is_asked_once(
    tmp_path: Path, layout: Layout
) -> None:
    artifact = layout(MODULE)
    with FaultyUpstream() as up, MirrorProcess(tmp_path, {"up": up.url}) as mirror:
        publish(up, "team/plugin", "v1", artifact)
        by_tag, by_digest = oci(mirror), oci(mirror, f"@{artifact.digest}")
        for url in (by_tag, by_digest, by_tag, by_digest):
            assert agent(url).sha256 == SHA256
        assert agent(by_tag, checksum=artifact.digest.hex).sha256 == SHA256
        assert up.count(path="/manifests/") == 1
        for digest in artifact.layers:
            assert up.count(path=f"/blobs/{digest}") == 1
        assert "warning" not in mirror.log_text(), "its TLS attempt on the plain port is worth no line"


def test_an_agent_pulls_the_child_of_an_index(tmp_path: Path) -> None:
    child = compat(MODULE)
    with FaultyUpstream() as up, MirrorProcess(tmp_path, {"up": up.url}) as mirror:
        publish(up, "team/plugin", "v1", index(child))
        for _ in range(2):
            assert agent(oci(mirror)).sha256 == SHA256
        assert up.count(path="/manifests/") == 2


def test_an_agent_pulls_over_tls(tmp_path: Path) -> None:
    files = self_signed(tmp_path)
    settings = {"tls": {"certificate": str(files.certificate), "key": str(files.key)}}
    with FaultyUpstream() as up, MirrorProcess(tmp_path / "mirror", {"up": up.url}, settings) as mirror:
        publish(up, "team/plugin", "v1", raw(MODULE))
        assert agent(oci(mirror)).sha256 == SHA256


def test_an_agent_that_verifies_certificates_takes_the_mirrors_by_its_ca_file_alone(tmp_path: Path) -> None:
    """Go's own variable is the only setting that there is."""
    files = self_signed(tmp_path)
    settings = {"tls": {"certificate": str(files.certificate), "key": str(files.key)}}
    with FaultyUpstream() as up, MirrorProcess(tmp_path / "mirror", {"up": up.url}, settings) as mirror:
        publish(up, "team/plugin", "v1", compat(MODULE))
        refused = agent(oci(mirror), verify=True)
        assert "certificate signed by unknown authority" in refused.error
        assert up.count() == 0
        assert agent(oci(mirror), verify=True, env={"SSL_CERT_FILE": str(files.certificate)}).sha256 == SHA256


@pytest.mark.parametrize("tls", [False, True], ids=["plain", "tls"])
def test_a_pull_secret_for_the_mirrors_host_is_not_needed_and_goes_no_further(tmp_path: Path, tls: bool) -> None:
    files = self_signed(tmp_path)
    settings = {"tls": {"certificate": str(files.certificate), "key": str(files.key)}} if tls else {}
    with FaultyUpstream() as up, MirrorProcess(tmp_path / "mirror", {"up": up.url}, settings) as mirror:
        publish(up, "team/plugin", "v1", raw(MODULE))
        for number, host in enumerate([mirror.host, "elsewhere.example"]):
            secret = tmp_path / f"secret-{number}.json"
            login = base64.b64encode(b"anna:nobody checks this").decode()
            secret.write_text(json.dumps({"auths": {host: {"auth": login}}}))
            assert agent(oci(mirror), pull_secret=secret).sha256 == SHA256
        assert agent(oci(mirror)).sha256 == SHA256
        assert up.count(path="/blobs/") == 2
        assert not any("authorization" in request.headers for request in up.requests)


def test_where_only_pushes_need_a_user_every_agent_gets_through(tmp_path: Path) -> None:
    """`/v2/` challenges then, for the sake of docker and skopeo; agents go on as they are."""
    auth = {"auth": {"file": str(users_file(tmp_path, {"anna": "hunter2"}))}}
    with FaultyUpstream() as up, MirrorProcess(tmp_path / "mirror", {"up": up.url}, auth) as mirror:
        publish(up, "team/plugin", "v1", raw(MODULE))
        assert agent(oci(mirror)).sha256 == SHA256
        for password in ("hunter2", "wrong"):
            secret = tmp_path / f"{password}.json"
            secret.write_text(json.dumps({"auths": {mirror.host: {"username": "anna", "password": password}}}))
            assert agent(oci(mirror), pull_secret=secret).sha256 == SHA256


def test_a_mirrored_module_for_users_goes_to_agents_with_their_secret_only(tmp_path: Path) -> None:
    auth = {"auth": {"mode": "htpasswd", "file": str(users_file(tmp_path, {"anna": "hunter2"}))}}
    with FaultyUpstream() as up, MirrorProcess(tmp_path / "mirror", {"up": up.url}, auth) as mirror:
        publish(up, "team/plugin", "v1", raw(MODULE))
        secret = tmp_path / "secret.json"
        secret.write_text(json.dumps({"auths": {mirror.host: {"username": "anna", "password": "hunter2"}}}))
        assert [one.sha256 for one in agents(oci(mirror), n=20, pull_secret=secret)] == [SHA256] * 20
        assert not agent(oci(mirror)).ok
        assert up.count(path="/manifests/") == 1


def test_pinning_the_digest_of_an_index_fails_and_the_childs_works_as_we_say(tmp_path: Path) -> None:
    child = compat(MODULE)
    above = index(child)
    described = examine(parsed(child), child.blobs, index=parsed(above), pinned_index=True)
    with FaultyUpstream() as up, MirrorProcess(tmp_path, {"up": up.url}) as mirror:
        publish(up, "team/plugin", "v1", above)
        for _ in range(2):
            refused = agent(oci(mirror, f"@{above.digest}"))
            assert not refused.ok
            assert f"has checksum {child.digest.hex}, which does not match: {above.digest.hex}" in refused.error
        assert "checksum mismatch" in described.agent.reason
        (_, _, instead) = described.agent.remedy.partition(": ")
        assert agent(oci(mirror, instead)).sha256 == SHA256
        assert agent(oci(mirror), checksum=child.digest.hex).sha256 == SHA256


@pytest.mark.parametrize(("policy", "asked"), [("IfNotPresent", 1), ("Always", 3), ("UNSPECIFIED_POLICY", 1)])
def test_an_agent_asks_again_as_often_as_its_pull_policy_says(tmp_path: Path, policy: str, asked: int) -> None:
    """With Always a new version of the WasmPlugin costs the manifest alone, and also while upstream is away."""
    settings = {"log": {"access": "all"}, "defaults": {"fresh_for": "0s"}}
    with FaultyUpstream() as up, MirrorProcess(tmp_path, {"up": up.url}, settings) as mirror:
        publish(up, "team/plugin", "v1", raw(MODULE))
        assert agent(oci(mirror)).ok
        up.refuse()
        before = mirror.log_text()
        assert agents_of([oci(mirror)], pull_policy=policy, gets=3)[oci(mirror)].sha256 == SHA256
        lines = mirror.log_text().removeprefix(before)
        assert lines.count("/manifests/v1") == asked
        assert lines.count("/blobs/") == 1


def test_an_agent_gets_a_new_version_of_a_tag(tmp_path: Path) -> None:
    new = wasm_module(200_000, seed=2)
    with FaultyUpstream() as up, MirrorProcess(tmp_path, {"up": up.url}, {"defaults": {"fresh_for": "0s"}}) as mirror:
        publish(up, "team/plugin", "v1", raw(MODULE))
        assert agent(oci(mirror)).sha256 == SHA256
        publish(up, "team/plugin", "v1", raw(new))
        assert agent(oci(mirror)).sha256 == hashlib.sha256(new).hexdigest()


@pytest.mark.parametrize("workers", [1, 2])
@pytest.mark.parametrize("layout", [raw, compat], ids=["raw", "compat"])
def test_two_hundred_agents_cost_upstream_one_get_of_each(tmp_path: Path, workers: int, layout: Layout) -> None:
    module = wasm_module(2 * 1024 * 1024)
    artifact = layout(module)
    with FaultyUpstream() as up, MirrorProcess(tmp_path, {"up": up.url}, {"workers": workers}) as mirror:
        publish(up, "team/plugin", "v1", artifact)
        up.inject(Fault(delay=0.05, bandwidth=20e6))
        got = agents(oci(mirror), n=200)
        assert [one.error for one in got if not one.ok] == []
        assert {one.sha256 for one in got} == {hashlib.sha256(module).hexdigest()}
        assert up.count(method="GET", path="/manifests/") == 1
        for digest in artifact.layers:
            assert up.count(method="GET", path=f"/blobs/{digest}") == 1


@pytest.mark.parametrize("layout", LAYOUTS.values(), ids=LAYOUTS.keys())
def test_an_outage_is_not_noticed_by_agents_that_pull_what_was_pulled_before(tmp_path: Path, layout: Layout) -> None:
    with FaultyUpstream() as up, MirrorProcess(tmp_path, {"up": up.url}, {"defaults": {"fresh_for": "0s"}}) as mirror:
        publish(up, "team/plugin", "v1", layout(MODULE))
        assert agent(oci(mirror)).ok
        up.refuse()
        assert {one.sha256 for one in agents(oci(mirror), n=20)} == {SHA256}
        mirror.restart()
        assert {one.sha256 for one in agents(oci(mirror), n=20)} == {SHA256}


def test_an_agents_pull_is_held_over_a_short_outage(tmp_path: Path) -> None:
    """Three tries within 4 s are all that an agent makes, so failing fast would cost its traffic."""
    with FaultyUpstream() as up, MirrorProcess(tmp_path, {"up": up.url}) as mirror:
        publish(up, "team/plugin", "v1", raw(MODULE))
        up.refuse()
        back = threading.Timer(6.0, up.accept)
        back.start()
        got = agent(oci(mirror))
        back.join()
        assert got.sha256 == SHA256
        assert 5 < got.seconds < 15


def test_what_agents_do_not_take_they_are_given_all_the_same(tmp_path: Path) -> None:
    """The mirror mirrors; it is the agent that says no."""
    with FaultyUpstream() as up, MirrorProcess(tmp_path, {"up": up.url}) as mirror:
        publish(up, "team/plugin", "v1", cncf(MODULE))
        assert not agent(oci(mirror)).ok
        assert up.count(path="/manifests/v1") == 1


def plugin_first(layer_type: str) -> Artifact:
    """An image whose ``plugin.wasm`` comes first in the layer's archive, and much else after it."""
    layer = tar_gz({"plugin.wasm": MODULE, "filler": random.Random(1).randbytes(1_000_000)})
    if layer_type == DOCKER_LAYER:
        return image(
            [(layer_type, layer)],
            config=(DOCKER_CONFIG, b"{}"),
            media_type="application/vnd.docker.distribution.manifest.v2+json",
        )
    return image([(layer_type, layer)])


# Slow enough for an agent to have the module before the wrong bytes come.
TAMPERED = {
    "behind the module": Fault(tamper_from=900_000, bandwidth=3e6),
    "in the last 64 KiB": Fault(tamper_from=-30_000, bandwidth=3e6),
    "the last byte": Fault(flip_at=-1, bandwidth=3e6),
}


@pytest.mark.parametrize("tampered", TAMPERED.values(), ids=TAMPERED.keys())
@pytest.mark.parametrize("layer_type", [OCI_LAYER, DOCKER_LAYER], ids=["oci", "docker"])
def test_a_tampered_layer_that_an_agent_would_accept_is_never_given_to_one(
    tmp_path: Path, tampered: Fault, layer_type: str
) -> None:
    artifact = plugin_first(layer_type)
    layer = artifact.layers[0]
    with FaultyUpstream() as up, MirrorProcess(tmp_path, {"up": up.url}) as mirror:
        publish(up, "team/plugin", "v1", artifact)
        with up.inject(tampered, path=f"/blobs/{layer}"):
            assert agent(f"oci://{up.host}/team/plugin:v1").ok, "the agent itself does not notice"
            cold = agents(oci(mirror), n=3)
            assert [one.ok for one in cold] == [False] * 3
            assert "502" in cold[0].error or "UPSTREAM_INVALID" in cold[0].error
        assert agent(oci(mirror)).sha256 == SHA256, "the repaired upstream"
        with up.inject(tampered, path=f"/blobs/{layer}"):
            assert {one.sha256 for one in agents(oci(mirror), n=3)} == {SHA256}, "what is held is not tampered with"
            mirror.restart()
            assert agent(oci(mirror)).sha256 == SHA256


def test_a_tampered_module_is_never_given_to_an_agent(tmp_path: Path) -> None:
    artifact = raw(MODULE)
    with FaultyUpstream() as up, MirrorProcess(tmp_path, {"up": up.url}) as mirror:
        publish(up, "team/plugin", "v1", artifact)
        with up.inject(Fault(flip_at=-1), path=f"/blobs/{artifact.layers[0]}"):
            assert not agent(oci(mirror)).ok
        wait_until(lambda: agent(oci(mirror)).sha256 == SHA256, what="the repaired upstream")
