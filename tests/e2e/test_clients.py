"""The usual clients pull through the mirror from a real registry, and go on when that registry is gone."""

import json
from pathlib import Path

import pytest

from mirror.digest import Digest
from tests.e2e.containerd import Containerd
from tests.e2e.programs import attempt, run, run_raw
from tests.support.artifacts import Artifact, cncf, compat, docker, image, index, raw, wasm_module
from tests.support.process import MirrorProcess
from tests.support.registry import DockerRegistry

MODULE = wasm_module(2_000_000)
LAYOUTS = {"raw": raw(MODULE), "docker": docker(MODULE), "compat": compat(MODULE), "cncf": cncf(MODULE)}
TWO_PLATFORMS = index(compat(MODULE), compat(wasm_module(1000)), platforms=("linux/amd64", "linux/arm64"))
CONTAINER = image([("application/vnd.oci.image.layer.v1.tar+gzip", layer) for layer in (b"one", b"two", b"three")] * 2)
NAME = "up/team/plugin"


def holds(folder: Path, artifact: Artifact) -> bool:
    """Whether skopeo's directory holds the artifact, byte for byte."""
    blobs = {digest: (folder / digest.hex).read_bytes() for digest in artifact.blobs}
    return blobs == artifact.blobs and (folder / "manifest.json").read_bytes() == artifact.body


@pytest.mark.needs("docker-registry", "skopeo")
@pytest.mark.parametrize("artifact", LAYOUTS.values(), ids=LAYOUTS.keys())
def test_skopeo_copies_what_was_pushed_also_when_the_registry_is_gone(tmp_path: Path, artifact: Artifact) -> None:
    with (
        DockerRegistry(tmp_path / "registry") as registry,
        MirrorProcess(tmp_path / "mirror", {"up": registry.url}, {"defaults": {"fresh_for": "0s"}}) as mirror,
    ):
        registry.push("team/plugin", "v1", artifact)
        source = f"docker://{mirror.host}/{NAME}"
        run("skopeo", "copy", "--src-tls-verify=false", f"{source}:v1", f"dir:{tmp_path / 'cold'}")
        assert holds(tmp_path / "cold", artifact)
        assert run("skopeo", "inspect", "--tls-verify=false", "--raw", f"{source}:v1").encode() == artifact.body
        tags = json.loads(run("skopeo", "list-tags", "--tls-verify=false", source))
        assert tags["Tags"] == ["v1"]
        registry.stop()
        for number, target in enumerate((":v1", f"@{artifact.digest}")):
            folder = tmp_path / f"held-{number}"
            run("skopeo", "copy", "--src-tls-verify=false", f"{source}{target}", f"dir:{folder}")
            assert holds(folder, artifact)
        tags = json.loads(run("skopeo", "list-tags", "--tls-verify=false", source))
        assert tags["Tags"] == ["v1"]
        registry.start()


@pytest.mark.needs("docker-registry", "skopeo")
def test_skopeo_copies_an_index_with_all_its_children(tmp_path: Path) -> None:
    with (
        DockerRegistry(tmp_path / "registry") as registry,
        MirrorProcess(tmp_path / "mirror", {"up": registry.url}) as mirror,
    ):
        registry.push("team/plugin", "v1", TWO_PLATFORMS)
        source = f"docker://{mirror.host}/{NAME}:v1"
        run("skopeo", "copy", "--all", "--src-tls-verify=false", source, f"dir:{tmp_path / 'copy'}")
        assert (tmp_path / "copy" / "manifest.json").read_bytes() == TWO_PLATFORMS.body
        for child in TWO_PLATFORMS.children:
            for digest, content in child.blobs.items():
                assert (tmp_path / "copy" / digest.hex).read_bytes() == content


@pytest.mark.needs("docker-registry", "crane")
@pytest.mark.parametrize("artifact", LAYOUTS.values(), ids=LAYOUTS.keys())
def test_crane_reads_manifests_digests_and_blobs(tmp_path: Path, artifact: Artifact) -> None:
    with (
        DockerRegistry(tmp_path / "registry") as registry,
        MirrorProcess(tmp_path / "mirror", {"up": registry.url}, {"defaults": {"fresh_for": "0s"}}) as mirror,
    ):
        registry.push("team/plugin", "v1", artifact)
        source = f"{mirror.host}/{NAME}"
        for round_ in ("cold", "held"):
            for target in (f"{source}:v1", f"{source}@{artifact.digest}"):
                assert run("crane", "manifest", "--insecure", target).encode() == artifact.body, round_
                assert run("crane", "digest", "--insecure", target).strip() == str(artifact.digest)
            for digest, content in artifact.blobs.items():
                assert run_raw("crane", "blob", "--insecure", f"{source}@{digest}") == content
            assert run("crane", "ls", "--insecure", source).split() == ["v1"]
            run("crane", "pull", "--insecure", "--format", "oci", f"{source}:v1", tmp_path / round_)
            for digest, content in artifact.blobs.items():
                assert (tmp_path / round_ / "blobs" / "sha256" / digest.hex).read_bytes() == content
            if round_ == "cold":
                registry.stop()
        registry.start()


@pytest.mark.needs("docker-registry", "crane")
def test_crane_is_told_what_is_not_there(tmp_path: Path) -> None:
    with (
        DockerRegistry(tmp_path / "registry") as registry,
        MirrorProcess(tmp_path / "mirror", {"up": registry.url}) as mirror,
    ):
        registry.push("team/plugin", "v1", CONTAINER)
        for target, code in (
            (f"{NAME}:v2", "MANIFEST_UNKNOWN"),
            ("up/team/other:v1", "MANIFEST_UNKNOWN"),
            ("nowhere.example/team/plugin:v1", "NAME_UNKNOWN"),
        ):
            failed = attempt("crane", "manifest", "--insecure", f"{mirror.host}/{target}")
            assert failed.returncode != 0
            assert code in failed.stderr.decode()


@pytest.mark.needs("docker-registry", "containerd", "ctr")
def test_containerd_pulls_by_the_name_of_the_upstream_also_when_it_is_gone(tmp_path: Path) -> None:
    """Containerd's mirror protocol: ``?ns=registry.example`` at the mirror, in place of the registry itself."""
    artifact = LAYOUTS["compat"]
    wanted = {str(Digest.of(content)): len(content) for content in (artifact.body, *artifact.blobs.values())}
    with (
        DockerRegistry(tmp_path / "registry") as registry,
        MirrorProcess(tmp_path / "mirror", {"registry.example": registry.url}) as mirror,
    ):
        registry.push("team/plugin", "v1", artifact)
        reference = "registry.example/team/plugin:v1"
        for number in range(2):
            with Containerd(tmp_path / f"containerd-{number}", upstream="registry.example", mirror=mirror.url) as node:
                assert node.fetch(reference) == wanted
            registry.kill()
        registry.start()
