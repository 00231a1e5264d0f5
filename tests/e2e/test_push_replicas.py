"""Authors' tools push to three replicas behind a balancer: any step may reach any of them, and all then serve it.

``WASM_MIRROR_TEST_SEED`` repeats what the balancers drew in a run that failed, as far as connections come in the same
order.
"""

import json
import os
import random
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest

from tests.e2e.docker import docker_push
from tests.e2e.hosting import LAYOUTS, MODULE, NOWHERE, PLAIN, WITH_PASSWORD, registry, rights, tags
from tests.e2e.programs import attempt, run
from tests.e2e.pushing import CLIENTS, PASSWORD, USER
from tests.support.artifacts import Artifact
from tests.support.balancer import Balancer
from tests.support.redis import RedisServer
from tests.support.replicas import Replicas

pytestmark = [pytest.mark.integration, pytest.mark.needs("redis-server")]

EACH_CONNECTION, EACH_REQUEST = "each connection", "each request"
ALL = [*((kind, EACH_REQUEST) for kind in CLIENTS), ("skopeo", EACH_CONNECTION)]
FEW = {layout: LAYOUTS[layout] for layout in ("compat", "index")}
"""What is pushed over connections that are kept: few steps of such a push reach another replica."""


@dataclass(frozen=True)
class Mesh:
    """Three replicas, and the two balancers in front of them. ``how`` says whether they want a password."""

    how: str
    replicas: Replicas
    balancers: dict[str, Balancer]

    def served_by_all(self, repository: str, tag: str, artifact: Artifact) -> None:
        """Assert that each replica lists the tag, and gives the manifest and all that it names."""
        for url in self.replicas.urls:
            with registry(url, self.how) as http:
                assert tag in tags(http, repository)
                assert_served(http, repository, tag, artifact)


def assert_served(http: httpx.Client, repository: str, target: str, artifact: Artifact) -> None:
    """Whether all that an artifact is made of comes from there."""
    manifest = http.get(f"/v2/{repository}/manifests/{target}", headers={"accept": "*/*"})
    assert (manifest.status_code, manifest.content) == (200, artifact.body), manifest.text
    for digest, content in artifact.blobs.items():
        blob = http.get(f"/v2/{repository}/blobs/{digest}")
        assert (blob.status_code, blob.content == content) == (200, True), blob.text[:1000]
    for child in artifact.children:
        assert_served(http, repository, str(child.digest), child)


@pytest.fixture(scope="module", params=[PLAIN, WITH_PASSWORD])
def mesh(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Mesh]:
    """Replicas to which anyone here may push, or only `USER`."""
    folder = tmp_path_factory.mktemp("mesh")
    seed = int(os.environ.get("WASM_MIRROR_TEST_SEED") or random.SystemRandom().randrange(1 << 32))
    print(f"WASM_MIRROR_TEST_SEED={seed}")
    with ExitStack() as stack:
        redis = stack.enter_context(RedisServer(folder / "redis"))
        settings = rights(folder, request.param)
        replicas = stack.enter_context(Replicas(folder, NOWHERE, redis, settings=settings))
        backends = [mirror.host for mirror in replicas]
        draws = random.Random(seed)
        balancers = {
            step: stack.enter_context(
                Balancer(backends, at_random=random.Random(draws.random()), each_request=step == EACH_REQUEST)
            )
            for step in (EACH_CONNECTION, EACH_REQUEST)
        }
        yield Mesh(request.param, replicas, balancers)
        for balancer in balancers.values():
            assert balancer.turned_away == 0


@pytest.mark.needs("skopeo", "crane", "regctl", "oras")
@pytest.mark.parametrize(("kind", "step"), ALL, ids=str)
def test_a_client_pushes_and_pulls_each_layout(mesh: Mesh, tmp_path: Path, kind: str, step: str) -> None:
    client = CLIENTS[kind](mesh.balancers[step].host, tmp_path / "home")
    if mesh.how == WITH_PASSWORD:
        assert (client.login("wrong").returncode != 0) == client.asks_at_login
        assert client.login(PASSWORD).returncode == 0
    for layout, artifact in (LAYOUTS if step == EACH_REQUEST else FEW).items():
        if client.can_push(artifact):
            repository = f"hosted/{kind}-{step.replace(' ', '-')}/{layout}"
            client.push(artifact, f"{repository}:v1")
            assert client.wanted(artifact) <= client.pull(f"{repository}:v1"), layout
            for url in mesh.replicas.urls:
                with registry(url, mesh.how) as http:
                    assert tags(http, repository) == ["v1"]
                    assert http.get(f"/modules/{repository}:v1").content == MODULE


@pytest.mark.parametrize("step", [EACH_CONNECTION, EACH_REQUEST])
def test_docker_pushes_each_layout_that_it_makes_and_mounts_what_it_knows(mesh: Mesh, step: str) -> None:
    artifact, place = LAYOUTS["docker"], f"hosted/docker-{step.replace(' ', '-')}"
    with registry(mesh.balancers[step].url, mesh.how) as http:
        for number in range(2):
            docker_push(http, f"{place}/base-{number}", "v1", artifact)
            mesh.served_by_all(f"{place}/base-{number}", "v1", artifact)
            assert docker_push(http, f"{place}/other-{number}", "v1", artifact, known_in=f"{place}/base-{number}") == 1
            mesh.served_by_all(f"{place}/other-{number}", "v1", artifact)


@pytest.mark.needs("helm")
def test_helm_pushes_and_pulls_a_chart(mesh: Mesh, tmp_path: Path) -> None:
    env = {"HOME": str(tmp_path), "HELM_REGISTRY_CONFIG": str(tmp_path / "registry.json")}
    host = mesh.balancers[EACH_REQUEST].host
    chart = tmp_path / "plugins"
    chart.mkdir()
    (chart / "Chart.yaml").write_text("apiVersion: v2\nname: plugins\nversion: 0.1.0\n")
    (chart / "values.yaml").write_text("digest: sha256:0\n")
    run("helm", "package", chart, "--destination", tmp_path, env=env)
    packed = tmp_path / "plugins-0.1.0.tgz"
    if mesh.how == WITH_PASSWORD:
        run("helm", "registry", "login", host, "--plain-http", "-u", USER, "-p", PASSWORD, env=env)
    where = f"oci://{host}/hosted/charts"
    run("helm", "push", packed, where, "--plain-http", env=env)
    for number in range(2):
        target = tmp_path / str(number)
        target.mkdir()
        run("helm", "pull", f"{where}/plugins", "--version", "0.1.0", "--plain-http", "--destination", target, env=env)
        assert (target / packed.name).read_bytes() == packed.read_bytes()


@pytest.mark.needs("cosign")
def test_a_signature_of_cosign_goes_up_and_comes_back(mesh: Mesh, tmp_path: Path) -> None:
    # A proxy that is not there: it asks the internet for nothing. Loopback needs none.
    env = {
        "HOME": str(tmp_path),
        "DOCKER_CONFIG": str(tmp_path),
        "COSIGN_PASSWORD": "",
        "HTTPS_PROXY": "http://127.0.0.1:1",
    }
    balancer, artifact, repository = mesh.balancers[EACH_REQUEST], LAYOUTS["compat"], "hosted/signed"
    if mesh.how == WITH_PASSWORD:
        run("cosign", "login", balancer.host, "-u", USER, "-p", PASSWORD, env=env)
    key = tmp_path / "key"
    run("cosign", "generate-key-pair", "--output-key-prefix", key, env=env)
    plain = ("--allow-insecure-registry", "--allow-http-registry", "--new-bundle-format=false")
    sign = ("--tlog-upload=false", "--use-signing-config=false", "-y", *plain)
    check = ("--insecure-ignore-tlog=true", "--private-infrastructure=true", *plain)
    with registry(balancer.url, mesh.how) as http:
        docker_push(http, repository, "v1", artifact)
        name = f"{repository}@{artifact.digest}"
        verify = ("verify", "--key", f"{key}.pub", *check)
        assert attempt("cosign", *verify, f"{balancer.host}/{name}", env=env).returncode != 0
        run("cosign", "sign", "--key", f"{key}.key", *sign, f"{balancer.host}/{name}", env=env)
        run("cosign", *verify, f"{balancer.host}/{name}", env=env)
    for url in mesh.replicas.urls:
        with registry(url, mesh.how) as http:
            assert tags(http, repository) == [f"sha256-{artifact.digest.hex}.sig", "v1"]


@pytest.mark.needs("regctl")
def test_what_refers_to_an_artifact_is_listed_by_every_replica_at_once(mesh: Mesh, tmp_path: Path) -> None:
    balancer, artifact, repository = mesh.balancers[EACH_REQUEST], LAYOUTS["compat"], "hosted/referred-to"
    client = CLIENTS["regctl"](balancer.host, tmp_path / "home")
    if mesh.how == WITH_PASSWORD:
        assert client.login(PASSWORD).returncode == 0
    with registry(balancer.url, mesh.how) as http:
        docker_push(http, repository, "v1", artifact)
    name = f"{balancer.host}/{repository}"
    for number, kind in enumerate(("application/vnd.example.signature", "application/vnd.example.sbom"), 1):
        (tmp_path / "file").write_text(f"of {kind}")
        put = ("artifact", "put", "--artifact-type", kind, "--subject", f"{name}:v1", "--file", tmp_path / "file")
        client.run(*put)
        for url in mesh.replicas.urls:
            with registry(url, mesh.how) as http:
                assert tags(http, repository) == ["v1"]
                listed = http.get(f"/v2/{repository}/referrers/{artifact.digest}").json()["manifests"]
                assert len(listed) == number
        found = json.loads(client.run("artifact", "list", f"{name}:v1", "--format", "{{json .}}"))
        assert len(found["descriptors"]) == number
        got = client.run("artifact", "get", "--subject", f"{name}:v1", "--filter-artifact-type", kind)
        assert got == f"of {kind}"


@pytest.mark.needs("crane")
def test_what_is_copied_tagged_and_deleted_through_one_replica_is_so_at_all(mesh: Mesh, tmp_path: Path) -> None:
    balancer, artifact = mesh.balancers[EACH_REQUEST], LAYOUTS["raw"]
    client = CLIENTS["crane"](balancer.host, tmp_path / "home")
    if mesh.how == WITH_PASSWORD:
        assert client.login(PASSWORD).returncode == 0
    client.push(artifact, "hosted/tagged/plugin:v1")
    name = f"{balancer.host}/hosted/tagged/plugin"
    for number in range(3):
        client.run("tag", "--insecure", f"{name}:v1", f"stable-{number}")
        client.run("copy", "--insecure", f"{name}:v1", f"{balancer.host}/hosted/tagged/copy:{number}")
        mesh.served_by_all("hosted/tagged/plugin", f"stable-{number}", artifact)
        mesh.served_by_all("hosted/tagged/copy", str(number), artifact)
    for number in range(3):
        with registry(balancer.url, mesh.how) as http:
            assert http.delete(f"/v2/hosted/tagged/copy/manifests/{number}").status_code == 202
        for url in mesh.replicas.urls:
            with registry(url, mesh.how) as http:
                assert http.get(f"/v2/hosted/tagged/copy/manifests/{number}").status_code == 404
                assert tags(http, "hosted/tagged/copy") == [str(left) for left in range(number + 1, 3)]
