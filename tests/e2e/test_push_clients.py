"""The tools that authors have push to ``hosted/…``, pull it again, and agents take what was pushed."""

import hashlib
import json
from pathlib import Path
from urllib.parse import urljoin

import httpx
import pytest

from mirror.oci import DOCKER_MANIFEST, OCI_MANIFEST
from tests.e2e.containerd import Containerd
from tests.e2e.docker import docker_push
from tests.e2e.hosting import LAYOUTS, MODULE, NOWHERE, PLAIN, WITH_PASSWORD, pull_secret, registry, rights, tags
from tests.e2e.programs import agent, attempt, run, run_raw
from tests.e2e.pushing import CLIENTS, PASSWORD, USER, Client
from tests.support.artifacts import image
from tests.support.process import MirrorProcess
from tests.support.registry import DockerRegistry

SHA256 = hashlib.sha256(MODULE).hexdigest()
REFUSED_BY_AGENTS = "cncf"


def hosting(folder: Path, how: str = PLAIN) -> MirrorProcess:
    """A mirror without upstreams, that anyone here may push to, or only `USER`, who may do anything."""
    return MirrorProcess(folder, NOWHERE, rights(folder, how))


@pytest.mark.needs("skopeo", "crane", "regctl", "oras", "agent")
@pytest.mark.parametrize("how", [PLAIN, WITH_PASSWORD])
@pytest.mark.parametrize("kind", CLIENTS.values(), ids=CLIENTS.keys())
def test_a_client_pushes_and_pulls_each_layout_and_agents_take_it(tmp_path: Path, kind: type[Client], how: str) -> None:
    with hosting(tmp_path / "mirror", how) as mirror, registry(mirror.url, how) as http:
        client = kind(mirror.host, tmp_path / "home")
        secret = None
        if how == WITH_PASSWORD:
            assert client.login(PASSWORD).returncode == 0
            secret = pull_secret(tmp_path / "secret.json", mirror.host)
        for layout, artifact in LAYOUTS.items():
            if not client.can_push(artifact):
                continue
            name = f"hosted/team/{layout}:v1"
            client.push(artifact, name)
            assert client.wanted(artifact) <= client.pull(name), layout
            assert tags(http, f"hosted/team/{layout}") == ["v1"]
            got = agent(f"oci://{mirror.host}/{name}", pull_secret=secret)
            assert got.sha256 == (SHA256 if layout != REFUSED_BY_AGENTS else ""), (layout, got.error)
            assert http.get(f"/modules/{name}").content == MODULE


@pytest.mark.needs("skopeo", "crane", "regctl", "oras")
@pytest.mark.parametrize("kind", CLIENTS.values(), ids=CLIENTS.keys())
def test_a_wrong_password_is_told_at_the_login_and_pushes_nothing(tmp_path: Path, kind: type[Client]) -> None:
    artifact = LAYOUTS["raw"]
    with hosting(tmp_path / "mirror", WITH_PASSWORD) as mirror, registry(mirror.url, WITH_PASSWORD) as http:
        client = kind(mirror.host, tmp_path / "home")
        with pytest.raises(AssertionError):
            client.push(artifact, "hosted/team/plugin:v1")  # nobody has logged in
        assert (client.login("wrong").returncode != 0) == client.asks_at_login
        with pytest.raises(AssertionError):
            client.push(artifact, "hosted/team/plugin:v1")
        assert tags(http, "hosted/team/plugin") == []
        assert client.login(PASSWORD).returncode == 0
        client.push(artifact, "hosted/team/plugin:v1")
        assert tags(http, "hosted/team/plugin") == ["v1"]


@pytest.mark.needs("docker-registry", "skopeo", "crane", "regctl", "agent")
@pytest.mark.parametrize("kind", [CLIENTS[name] for name in ("skopeo", "crane", "regctl")])
def test_a_client_pushes_through_to_another_registry(tmp_path: Path, kind: type[Client]) -> None:
    with DockerRegistry(tmp_path / "registry") as origin:
        through = {
            "endpoints": [origin.url],
            "push": "through",
            "credentials": {"username": "robot", "password": "not asked for"},
        }
        with MirrorProcess(tmp_path / "mirror", {"corp": through}) as mirror, registry(mirror.url) as http:
            client, direct = kind(mirror.host, tmp_path / "home"), kind(origin.host, tmp_path / "other")
            for layout, artifact in LAYOUTS.items():
                client.push(artifact, f"corp/team/{layout}:v1")
                assert client.wanted(artifact) <= direct.pull(f"team/{layout}:v1")
            origin.stop()
            for layout, artifact in LAYOUTS.items():
                assert client.wanted(artifact) <= client.pull(f"corp/team/{layout}:v1")
                assert http.get(f"/modules/corp/team/{layout}:v1").content == MODULE
            assert agent(f"oci://{mirror.host}/corp/team/compat:v1").sha256 == SHA256
        origin.start()


@pytest.mark.needs("agent")
def test_agents_with_a_password_pull_what_others_may_not(tmp_path: Path) -> None:
    with hosting(tmp_path / "mirror", WITH_PASSWORD) as mirror, registry(mirror.url, WITH_PASSWORD) as http:
        docker_push(http, "hosted/team/plugin", "v1", LAYOUTS["docker"])
        url = f"oci://{mirror.host}/hosted/team/plugin:v1"
        assert agent(url, pull_secret=pull_secret(tmp_path / "right.json", mirror.host)).sha256 == SHA256
        assert not agent(url).ok
        assert not agent(url, pull_secret=pull_secret(tmp_path / "wrong.json", mirror.host, "wrong")).ok


@pytest.mark.needs("helm")
@pytest.mark.parametrize("how", [PLAIN, WITH_PASSWORD])
def test_helm_pushes_and_pulls_a_chart(tmp_path: Path, how: str) -> None:
    env = {"HOME": str(tmp_path), "HELM_REGISTRY_CONFIG": str(tmp_path / "registry.json")}
    chart = tmp_path / "plugins"
    chart.mkdir()
    (chart / "Chart.yaml").write_text("apiVersion: v2\nname: plugins\nversion: 0.1.0\n")
    (chart / "values.yaml").write_text("digest: sha256:0\n")
    run("helm", "package", chart, "--destination", tmp_path, env=env)
    packed = tmp_path / "plugins-0.1.0.tgz"
    with hosting(tmp_path / "mirror", how) as mirror, registry(mirror.url, how) as http:
        where = f"oci://{mirror.host}/hosted/charts"
        if how == WITH_PASSWORD:
            login = ("registry", "login", mirror.host, "--plain-http", "-u", USER)
            assert attempt("helm", *login, "-p", "wrong", env=env).returncode != 0
            assert attempt("helm", "push", packed, where, "--plain-http", env=env).returncode != 0
            assert tags(http, "hosted/charts/plugins") == []
            run("helm", *login, "-p", PASSWORD, env=env)
        run("helm", "push", packed, where, "--plain-http", env=env)
        (tmp_path / "pulled").mkdir()
        options = ("--version", "0.1.0", "--plain-http", "--destination", tmp_path / "pulled")
        run("helm", "pull", f"{where}/plugins", *options, env=env)
        assert (tmp_path / "pulled" / packed.name).read_bytes() == packed.read_bytes()


@pytest.mark.needs("crane", "cosign")
def test_a_signature_of_cosign_goes_up_and_comes_back(tmp_path: Path) -> None:
    # A proxy that is not there: it asks the internet for nothing. Loopback needs none.
    env = {
        "HOME": str(tmp_path),
        "DOCKER_CONFIG": str(tmp_path),
        "COSIGN_PASSWORD": "",
        "HTTPS_PROXY": "http://127.0.0.1:1",
    }
    key = tmp_path / "key"
    run("cosign", "generate-key-pair", "--output-key-prefix", key, env=env)
    plain = ("--allow-insecure-registry", "--allow-http-registry", "--new-bundle-format=false")
    with hosting(tmp_path / "mirror") as mirror, registry(mirror.url) as http:
        artifact = LAYOUTS["compat"]
        docker_push(http, "hosted/team/plugin", "v1", artifact)
        name = f"{mirror.host}/hosted/team/plugin@{artifact.digest}"
        sign = ("--tlog-upload=false", "--use-signing-config=false", "-y", *plain)
        check = ("--insecure-ignore-tlog=true", "--private-infrastructure=true", *plain)
        assert attempt("cosign", "verify", "--key", f"{key}.pub", *check, name, env=env).returncode != 0
        run("cosign", "sign", "--key", f"{key}.key", *sign, name, env=env)
        assert tags(http, "hosted/team/plugin") == [f"sha256-{artifact.digest.hex}.sig", "v1"]
        run("cosign", "verify", "--key", f"{key}.pub", *check, name, env=env)


@pytest.mark.needs("regctl")
def test_what_refers_to_an_artifact_is_listed_and_comes_back(tmp_path: Path) -> None:
    with hosting(tmp_path / "mirror") as mirror, registry(mirror.url) as http:
        artifact = LAYOUTS["compat"]
        docker_push(http, "hosted/team/plugin", "v1", artifact)
        client = CLIENTS["regctl"](mirror.host, tmp_path / "home")
        name = f"{mirror.host}/hosted/team/plugin"
        for kind in ("application/vnd.example.signature", "application/vnd.example.sbom"):
            (tmp_path / "file").write_text(f"of {kind}")
            put = ("artifact", "put", "--artifact-type", kind, "--subject", f"{name}:v1", "--file", tmp_path / "file")
            client.run(*put)
        assert tags(http, "hosted/team/plugin") == ["v1"], "the API of referrers is known: no tag stands in for it"
        found = json.loads(client.run("artifact", "list", f"{name}:v1", "--format", "{{json .}}"))
        assert len(found["descriptors"]) == 2
        kind = "application/vnd.example.signature"
        got = client.run("artifact", "get", "--subject", f"{name}:v1", "--filter-artifact-type", kind)
        assert got == f"of {kind}"
        listed = http.get(f"/v2/hosted/team/plugin/referrers/{artifact.digest}", params={"artifactType": kind})
        assert listed.headers["oci-filters-applied"] == "artifactType"
        assert [one["artifactType"] for one in listed.json()["manifests"]] == [kind]


@pytest.mark.needs("agent")
@pytest.mark.parametrize("how", [PLAIN, WITH_PASSWORD])
def test_docker_pushes_as_its_code_has_it(tmp_path: Path, how: str) -> None:
    with hosting(tmp_path / "mirror", how) as mirror, registry(mirror.url, how) as http:
        if how == WITH_PASSWORD:  # docker's login is a GET of /v2/
            assert http.get("/v2/", auth=(USER, "wrong")).status_code == 401
        docker_push(http, "hosted/team/base", "v1", LAYOUTS["docker"])
        mounted = docker_push(http, "hosted/team/other", "v1", LAYOUTS["docker"], known_in="hosted/team/base")
        assert mounted == 1
        elsewhere = image(
            [("application/vnd.docker.image.rootfs.diff.tar.gzip", b"x" * 1000)], media_type=DOCKER_MANIFEST
        )
        assert docker_push(http, "hosted/team/third", "v1", elsewhere, known_in="hosted/team/base") == 0
        secret = pull_secret(tmp_path / "secret.json", mirror.host) if how == WITH_PASSWORD else None
        assert agent(f"oci://{mirror.host}/hosted/team/other:v1", pull_secret=secret).sha256 == SHA256


@pytest.mark.parametrize("how", [PLAIN, WITH_PASSWORD])
def test_docker_pushes_with_the_store_of_containerd_as_its_code_has_it(tmp_path: Path, how: str) -> None:
    """Source: containerd, ``core/remotes/docker/pusher.go``."""
    artifact = LAYOUTS["compat"]
    with hosting(tmp_path / "mirror", how) as mirror, registry(mirror.url, how) as http:
        for repository, origin in (("hosted/team/base", None), ("hosted/team/other", "hosted/team/base")):
            for digest, content in artifact.blobs.items():
                assert http.head(f"/v2/{repository}/blobs/{digest}").status_code == 404
                mount = {"mount": str(digest), "from": origin} if origin else {}
                begun = http.post(f"/v2/{repository}/blobs/uploads/", params=mount)
                if origin is not None:
                    assert begun.status_code == 201
                    continue
                assert begun.status_code == 202
                target = httpx.URL(urljoin(str(begun.url), begun.headers["location"]))
                put = http.put(
                    target.copy_merge_params({"digest": str(digest)}),
                    content=content,
                    headers={"content-type": "application/octet-stream"},
                )
                assert put.status_code == 201, put.text
                assert put.headers["docker-content-digest"] == str(digest)
            manifest = f"/v2/{repository}/manifests/v1"
            assert http.head(manifest, headers={"accept": f"{OCI_MANIFEST}, */*"}).status_code == 404
            put = http.put(manifest, content=artifact.body, headers={"content-type": OCI_MANIFEST})
            assert (put.status_code, put.headers["docker-content-digest"]) == (201, str(artifact.digest))
            again = http.head(manifest, headers={"accept": f"{OCI_MANIFEST}, */*"})
            assert again.headers["docker-content-digest"] == str(artifact.digest)


@pytest.mark.needs("containerd", "ctr")
@pytest.mark.parametrize("how", [PLAIN, WITH_PASSWORD])
def test_containerd_pushes_what_it_has_pulled(tmp_path: Path, how: str) -> None:
    artifact = LAYOUTS["compat"]
    with hosting(tmp_path / "mirror", how) as mirror, registry(mirror.url, how) as http:
        docker_push(http, "hosted/team/base", "v1", artifact)
        user = f"{USER}:{PASSWORD}" if how == WITH_PASSWORD else None
        targets = [f"hosted/team/{name}:v1" for name in ("base", "other", "third")]
        with Containerd(tmp_path / "containerd", upstream="registry.example", mirror=mirror.url) as node:
            node.push(*(f"{mirror.host}/{name}" for name in targets), user=user)
        for name in targets:
            assert tags(http, name.removesuffix(":v1")) == ["v1"]
            assert http.get(f"/modules/{name}").content == MODULE


@pytest.mark.needs("crane")
def test_crane_copies_tags_and_deletes_what_was_pushed(tmp_path: Path) -> None:
    artifact = LAYOUTS["raw"]
    with hosting(tmp_path / "mirror") as mirror, registry(mirror.url) as http:
        docker_push(http, "hosted/team/plugin", "v1", artifact)
        name = f"{mirror.host}/hosted/team/plugin"
        run("crane", "tag", "--insecure", f"{name}:v1", "stable")
        run("crane", "copy", "--insecure", f"{name}:v1", f"{mirror.host}/hosted/team/copy:v1")
        assert run("crane", "ls", "--insecure", name).split() == ["stable", "v1"]
        assert run_raw("crane", "manifest", "--insecure", f"{mirror.host}/hosted/team/copy:v1") == artifact.body
        run("crane", "delete", "--insecure", f"{name}:v1")
        assert tags(http, "hosted/team/plugin") in (["stable"], [])
