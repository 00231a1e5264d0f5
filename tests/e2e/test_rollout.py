"""A rollout: 40 modules in 10 files of WasmPlugins, pre-warmed by one command at three replicas; then upstream goes."""

import hashlib
import json
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest
import yaml

from tests.e2e.programs import agents_of
from tests.support.artifacts import Artifact, compat, docker, index, publish, raw
from tests.support.process import clean_environment
from tests.support.redis import RedisServer
from tests.support.replicas import Replicas
from tests.support.upstream import FaultyUpstream
from tests.wasm.modules import custom, plugin

pytestmark = pytest.mark.needs("agent", "redis-server")

REGISTRY = "registry.example"
FILES, OF_EACH = 10, 4
LAYOUTS = (raw, docker, compat)


@dataclass(frozen=True)
class Module:
    """What a WasmPlugin names: as it stands there, by tag and by digest, and what agents must get."""

    url: str
    repository: str
    tag: str
    digest: str
    sha256: str


def published(up: FaultyUpstream, mirror: str) -> list[Module]:
    """40 of them, in each layout and within an index; half of them are named at the mirror, half at their registry."""
    modules = []
    for number in range(FILES * OF_EACH):
        code = plugin(customs=[custom("number", b"%d" % number)])
        artifact: Artifact = LAYOUTS[number % 3](code)
        named = index(artifact) if number % 7 == 0 else artifact
        repository, tag = f"team-{number % 5}/plugin-{number}", f"1.{number}"
        publish(up, repository, tag, named)
        before = f"oci://{mirror}/" if number % 2 else "oci://" if number % 4 else ""
        sha256 = hashlib.sha256(code).hexdigest()
        modules.append(Module(f"{before}{REGISTRY}/{repository}:{tag}", repository, tag, str(artifact.digest), sha256))
    return modules


def written(folder: Path, modules: Sequence[Module]) -> Path:
    """Them, in files as people keep them: several documents each, with others in between."""
    folder.mkdir()
    for number in range(FILES):
        documents: list[object] = [{"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "x"}, "data": {}}]
        documents += [
            {
                "apiVersion": "extensions.istio.io/v1alpha1",
                "kind": "WasmPlugin",
                "metadata": {"name": f"plugin-{number}-{position}", "namespace": "istio-system"},
                "spec": {"selector": {"matchLabels": {"app": "x"}}, "url": module.url, "phase": "AUTHN"},
            }
            for position, module in enumerate(modules[number * OF_EACH : (number + 1) * OF_EACH])
        ]
        (folder / f"plugins-{number}.yaml").write_text(yaml.safe_dump_all(documents))
    return folder


def prewarm(replicas: Replicas, folder: Path) -> Counter[str]:
    """What the command says, each reference at each replica; it must end well."""
    command = [sys.executable, "-m", "mirror.cli", "prewarm", "--json", "-f", str(folder), "--mirror", replicas.urls[0]]
    done = subprocess.run(command, env=clean_environment(), capture_output=True, text=True, timeout=70, check=False)
    assert done.returncode == 0, done.stderr + done.stdout
    return Counter(str(line.get("result")) for line in map(json.loads, done.stdout.splitlines()) if "result" in line)


def two_hundred_agents_get_all(replicas: Replicas, modules: Sequence[Module]) -> None:
    """Each for the first time in its life, all at once: by tag at every replica, by digest at two of them."""
    hosts = [mirror.host for mirror in replicas]
    wanted = {f"oci://{host}/{REGISTRY}/{one.repository}:{one.tag}": one.sha256 for host in hosts for one in modules}
    wanted |= {
        f"oci://{host}/{REGISTRY}/{one.repository}@{one.digest}": one.sha256 for host in hosts[:2] for one in modules
    }
    assert len(wanted) == 200
    got = agents_of(list(wanted))
    assert {url: one.error for url, one in got.items() if not one.ok} == {}
    assert {url: one.sha256 for url, one in got.items()} == wanted


@contextmanager
def mesh(folder: Path) -> Iterator[tuple[FaultyUpstream, Replicas]]:
    """A registry, and three replicas of a mirror of it."""
    with (
        FaultyUpstream() as up,
        RedisServer(folder / "redis") as redis,
        Replicas(folder, {REGISTRY: up.url}, redis) as replicas,
    ):
        yield up, replicas


def test_after_a_prewarm_upstream_stops_and_two_hundred_agents_do_not_notice(tmp_path: Path) -> None:
    with mesh(tmp_path) as (up, replicas):
        modules = published(up, replicas[0].host)
        results = prewarm(replicas, written(tmp_path / "mesh", modules))
        assert results["failed"] == results["refused"] == 0
        blobs = Counter(one.path for one in up.matching(method="GET", path="/blobs/"))
        assert set(blobs.values()) == {1}, "three replicas, and upstream sent each blob once"
        up.reset()
        up.refuse()
        two_hundred_agents_get_all(replicas, modules)
        up.accept()
        two_hundred_agents_get_all(replicas, modules)
        assert up.count(method="GET") == 0


def test_after_a_prewarm_an_offline_upstream_is_not_even_connected_to(tmp_path: Path) -> None:
    with mesh(tmp_path) as (up, replicas):
        modules = published(up, replicas[0].host)
        prewarm(replicas, written(tmp_path / "mesh", modules))
        for mirror in replicas:
            mirror.stop()
            mirror.settings["upstreams"] = {REGISTRY: {"endpoints": [up.url], "offline": True}}
            mirror.write_config()
        replicas.start()
        before = up.accepted_connections
        two_hundred_agents_get_all(replicas, modules)
        assert up.accepted_connections == before
