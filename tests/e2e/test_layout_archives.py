"""Archives between clusters: what skopeo, crane and regctl write is imported, and they read what is exported."""

import hashlib
import tarfile
from pathlib import Path
from urllib.parse import urlencode

import httpx
import pytest

from mirror.digest import Digest
from tests.e2e.programs import agent, run
from tests.e2e.pushing import Regctl
from tests.support.artifacts import Artifact, cncf, compat, docker, index, publish, raw, wasm_module
from tests.support.layouts import contents
from tests.support.process import MirrorProcess
from tests.support.upstream import FaultyUpstream

MODULE = wasm_module(500_000)
KINDS = {"raw": raw(MODULE), "compat": compat(MODULE), "cncf": cncf(MODULE), "docker": docker(MODULE)}
PLATFORMS = index(raw(MODULE), compat(wasm_module(1000)), platforms=("linux/amd64", "linux/arm64"))
OFFLINE = {"endpoints": ["http://127.0.0.1:9"], "offline": True}
PLACE = "up/team/plugin"


def export(mirror: MirrorProcess, file: Path, *references: str, **query: str) -> Path:
    asked = urlencode({"reference": references, **query}, doseq=True)
    with httpx.stream("GET", f"{mirror.url}/api/v1/export?{asked}", timeout=60) as answer, file.open("wb") as out:
        assert answer.status_code == 200, answer.read()
        for piece in answer.iter_bytes():
            out.write(piece)
    return file


def take_in(mirror: MirrorProcess, file: Path, **query: str) -> list[dict[str, object]]:
    answer = httpx.post(
        f"{mirror.url}/api/v1/import",
        params=query,
        content=file.read_bytes(),
        headers={"Content-Type": "application/x-tar"},
        timeout=60,
    )
    assert answer.status_code == 200, answer.text
    found: list[dict[str, object]] = answer.json()["results"]
    return found


def tarred(folder: Path, file: Path) -> Path:
    with tarfile.open(file, "w") as tar:
        for one in sorted(folder.iterdir()):
            tar.add(one, one.name)
    return file


def holds(mirror: MirrorProcess, tag: str, artifact: Artifact) -> bool:
    """Whether all of an artifact can be pulled from a mirror that has no upstream."""
    target = f"{mirror.url}/v2/{PLACE}"
    named = httpx.get(f"{target}/manifests/{tag}")
    found = {Digest.of(named.content)}
    for one in (artifact, *artifact.children):
        found.add(Digest.of(httpx.get(f"{target}/manifests/{one.digest}").content))
        found |= {Digest.of(httpx.get(f"{target}/blobs/{digest}").content) for digest in one.blobs}
    return found == {digest for digest, _ in contents(artifact)} and named.content == artifact.body


def digests(folder: Path) -> set[Digest]:
    return {Digest.of(file.read_bytes()) for file in folder.rglob("*") if file.is_file()}


@pytest.mark.needs("agent", "skopeo", "crane", "regctl")
def test_what_clients_write_is_imported(tmp_path: Path) -> None:
    artifacts = {**KINDS, "platforms": PLATFORMS}
    with (
        FaultyUpstream() as up,
        MirrorProcess(tmp_path / "a", {"up": up.url}) as first,
        MirrorProcess(tmp_path / "b", {"up": OFFLINE}) as second,
    ):
        for tag, artifact in artifacts.items():
            publish(up, "team/plugin", tag, artifact)
        source = f"{first.host}/{PLACE}"
        regctl = Regctl(first.host, tmp_path / "home")
        for tag, artifact in artifacts.items():
            files: dict[str, tuple[Path, dict[str, str]]] = {}
            if tag != "docker":  # which skopeo turns into an OCI manifest, and so into something else
                copy = ("copy", "--all", "--src-tls-verify=false", "--preserve-digests", f"docker://{source}:{tag}")
                file = tmp_path / f"{tag}-skopeo.tar"
                run("skopeo", *copy, f"oci-archive:{file}:{PLACE}:{tag}")
                files["skopeo, whole"] = file, {}
                file = tmp_path / f"{tag}-skopeo-tag.tar"
                run("skopeo", *copy, f"oci-archive:{file}:{tag}")
                files["skopeo, tag"] = file, {"as": PLACE}
                run("skopeo", *copy, f"oci:{tmp_path / tag}:{tag}")
                files["skopeo, folder"] = tarred(tmp_path / tag, tmp_path / f"{tag}-folder.tar"), {"as": PLACE}
            folder = tmp_path / f"{tag}-crane"
            run("crane", "pull", "--insecure", "--format=oci", f"{source}:{tag}", folder)
            files["crane"] = tarred(folder, tmp_path / f"{tag}-crane.tar"), {"as": f"{PLACE}:{tag}"}
            folder = tmp_path / f"{tag}-regctl"
            regctl.run("image", "copy", f"{source}:{tag}", f"ocidir://{folder}:{tag}")
            files["regctl"] = tarred(folder, tmp_path / f"{tag}-regctl.tar"), {"as": PLACE}
            for who, (file, query) in files.items():
                (done,) = take_in(second, file, **query)
                assert done["reference"] == f"{PLACE}:{tag}", (who, tag, done)
                assert done["result"] in ("imported", "held"), (who, tag, done)
                assert done["digest"] == str(artifact.digest), (who, tag, done)
            assert holds(second, tag, artifact), tag
        for tag in ("raw", "compat", "docker", "platforms"):
            assert agent(f"oci://{second.host}/{PLACE}:{tag}").sha256 == hashlib.sha256(MODULE).hexdigest(), tag


@pytest.mark.needs("crane")
def test_what_crane_calls_by_its_whole_name_needs_no_other(tmp_path: Path) -> None:
    with FaultyUpstream() as up, MirrorProcess(tmp_path / "a", {"up": up.url}) as first:
        publish(up, "team/plugin", "1", KINDS["raw"])
        folder = tmp_path / "crane"
        name = f"{first.host}/{PLACE}:1"
        run("crane", "pull", "--insecure", "--format=oci", "--annotate-ref", name, folder)
        file = tarred(folder, tmp_path / "crane.tar")
        with MirrorProcess(tmp_path / "b", {"up": OFFLINE}, {"names": [first.host]}) as second:
            (done,) = take_in(second, file)
            assert (done["reference"], done["result"]) == (f"{PLACE}:1", "imported"), done


@pytest.mark.needs("skopeo", "crane", "regctl")
def test_what_is_exported_is_read_by_clients(tmp_path: Path) -> None:
    artifacts = {"raw": KINDS["raw"], "compat": KINDS["compat"], "cncf": KINDS["cncf"], "platforms": PLATFORMS}
    with FaultyUpstream() as up, MirrorProcess(tmp_path / "a", {"up": up.url}) as mirror:
        for tag, artifact in artifacts.items():
            publish(up, "team/plugin", tag, artifact)
        names = [f"{PLACE}:{tag}" for tag in artifacts]
        file = export(mirror, tmp_path / "x.tar", *names, platforms="all")
        layout = tmp_path / "layout"
        with tarfile.open(file) as tar:
            tar.extractall(layout, filter="data")
        regctl = Regctl(mirror.host, tmp_path / "home")
        for tag, artifact in artifacts.items():
            wanted = {digest for digest, _ in contents(artifact)}
            folder = tmp_path / f"{tag}-skopeo"
            run("skopeo", "copy", "--all", "--preserve-digests", f"oci-archive:{file}:{PLACE}:{tag}", f"dir:{folder}")
            assert wanted <= digests(folder), tag
            to = f"{mirror.host}/hosted/team/{tag}:skopeo"
            options = ("--all", "--preserve-digests", "--dest-tls-verify=false")
            run("skopeo", "copy", *options, f"oci-archive:{file}:{PLACE}:{tag}", f"docker://{to}")
            regctl.run(
                "image", "copy", f"ocidir://{layout}@{artifact.digest}", f"{mirror.host}/hosted/team/{tag}:regctl"
            )
            single = tmp_path / f"{tag}-layout"
            with tarfile.open(export(mirror, tmp_path / f"{tag}.tar", f"{PLACE}:{tag}", platforms="all")) as tar:
                tar.extractall(single, filter="data")
            run("crane", "push", "--insecure", single, f"{mirror.host}/hosted/team/{tag}:crane")
            for client in ("skopeo", "regctl", "crane"):
                answer = httpx.get(f"{mirror.url}/v2/hosted/team/{tag}/manifests/{client}")
                assert answer.content == artifact.body, (client, tag)


@pytest.mark.needs("skopeo")
def test_skopeo_reads_the_part_of_an_index_that_was_exported(tmp_path: Path) -> None:
    with FaultyUpstream() as up, MirrorProcess(tmp_path / "a", {"up": up.url}) as mirror:
        publish(up, "team/plugin", "1", PLATFORMS)
        file = export(mirror, tmp_path / "x.tar", f"{PLACE}:1", platforms="linux/amd64")
        options = ("--override-os=linux", "--override-arch=amd64", "copy")
        run("skopeo", *options, f"oci-archive:{file}:{PLACE}:1", f"dir:{tmp_path / 'copy'}")
        assert {digest for digest, _ in contents(raw(MODULE))} <= digests(tmp_path / "copy")
