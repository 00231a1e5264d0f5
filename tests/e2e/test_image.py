"""The image: what is in it, and what a container of it does. `tests.support.image` says what stands in for an engine.

It is built on a base that is made of Debian's packages as the official image of Python is, and is as large: the whole
of it counts against the limit.
"""

import json
import os
import stat
import threading
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from tests.references.support import FakeApi
from tests.support.artifacts import compat, publish, wasm_module
from tests.support.faults import Fault, Gate
from tests.support.image import Buildah, Container, Image
from tests.support.registry import DockerRegistry
from tests.support.tools import require
from tests.support.upstream import FaultyUpstream
from tests.support.waiting import wait_until

pytestmark = [
    pytest.mark.needs("buildah", "runc", "image-base", "docker-registry"),
    pytest.mark.skipif(os.geteuid() != 0, reason="only root may build and run the image as these tests do"),
    pytest.mark.xdist_group("image"),  # all in one process: it is built once
    pytest.mark.timeout(600),
]

_LARGEST = 200_000_000  # bytes
_WANTED = {"VERSION": "1.2.3", "REVISION": "0123abc", "SOURCE": "https://git.example/wasm-mirror"}


@pytest.fixture(scope="module")
def image(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Image]:
    with Buildah(tmp_path_factory.mktemp("image") / "buildah") as buildah:
        yield buildah.build(require("image-base"), **_WANTED)


def upstreams(**endpoints: str) -> dict[str, str]:
    """What a user gives ``docker run``: these upstreams, and no long goodbye."""
    named = {name: {"endpoints": [url]} for name, url in endpoints.items()}
    return {"WASM_MIRROR_UPSTREAMS": json.dumps(named), "WASM_MIRROR_DRAIN_FOR": "0s"}


def test_it_has_all_that_is_needed_and_nothing_to_build_or_install_with(image: Image) -> None:
    paths = image.paths()
    assert image.size < _LARGEST
    programs = {Path(path).name for path in paths if "/bin/" in path or "/sbin/" in path}
    assert {"wasm-mirror", "python3"} <= programs
    assert not programs & {"as", "c++", "cc", "curl", "g++", "gcc", "ld", "make", "pip", "pip3", "wget"}
    folders = {Path(path).name for path in paths if Path(path).parent.name in ("site-packages", "dist-packages")}
    assert {"mirror", "kubernetes", "opentelemetry"} <= folders
    assert not folders & {"pip", "setuptools", "wheel", "pkg_resources", "pytest", "mypy", "tests"}
    assert not [path for path in paths if path.endswith(("/pip.conf", "/ca.pem"))]


def test_everything_in_it_is_compiled(image: Image) -> None:
    modules = image.root / "opt" / "wasm-mirror" / "lib"
    sources = [path for path in modules.rglob("*.py") if "lib64" not in path.parts]
    assert len(sources) > 1000
    bare = [path for path in sources if not list((path.parent / "__pycache__").glob(f"{path.stem}.cpython-*.pyc"))]
    assert bare == []


def test_nothing_in_it_makes_a_user_another_one(image: Image) -> None:
    modes = ((path, (image.root / path.lstrip("/")).lstat().st_mode) for path in image.paths())
    assert [path for path, mode in modes if stat.S_ISREG(mode) and mode & (stat.S_ISUID | stat.S_ISGID)] == []


def test_its_settings_are_those_of_a_careful_image(image: Image) -> None:
    config = image.config
    assert config["User"] == "65532:65532"
    assert config["StopSignal"] == "SIGTERM"
    assert config["Entrypoint"] == ["wasm-mirror"]
    assert config["Cmd"] == ["serve"]
    assert config["Healthcheck"]["Test"] == ["CMD", "wasm-mirror", "health"]
    assert list(config["Volumes"]) == ["/var/lib/wasm-mirror"]
    labels = {name.removeprefix("org.opencontainers.image."): value for name, value in config["Labels"].items()}
    assert labels.items() >= {
        ("title", "wasm-mirror"),
        ("licenses", "Apache-2.0"),
        ("version", "1.2.3"),
        ("revision", "0123abc"),
        ("source", "https://git.example/wasm-mirror"),
        ("base.name", "localhost/base"),
    }
    assert labels["description"]


def test_it_serves_a_miss_and_a_hit_from_a_real_registry_with_a_read_only_root(image: Image, tmp_path: Path) -> None:
    artifact = compat(wasm_module())
    with DockerRegistry(tmp_path / "registry") as registry:
        registry.push("team/plugin", "1.0", artifact)
        with Container(image, tmp_path / "mirror", upstreams(corp=registry.url)) as mirror:
            address = f"{mirror.url}/v2/corp/team/plugin/manifests/1.0"
            answers = [httpx.get(address, trust_env=False).raise_for_status() for _ in range(2)]
            assert [answer.content for answer in answers] == [artifact.body] * 2
            assert ["hit" in answer.headers["cache-status"] for answer in answers] == [False, True]
            health = mirror.execute("wasm-mirror", "health")
            assert (health.returncode, health.stdout) == (0, "ready\n"), health.stderr
            seen = mirror.execute("python3", "-c", "open('/opt/written', 'w')")
            assert "Read-only file system" in seen.stderr
            assert mirror.stop() == 0


def test_its_first_run_needs_no_settings(image: Image, tmp_path: Path) -> None:
    with Container(image, tmp_path / "mirror", {}) as mirror:
        assert "serves ghcr.io" in mirror.log_text()
        answer = httpx.get(f"{mirror.url}/api/v1/modules", trust_env=False)
        assert answer.status_code == 401, "others can reach it, and it has no token"


@pytest.mark.parametrize("workers", [1, 2])
def test_a_pull_that_runs_when_it_is_told_to_stop_is_finished_and_the_status_is_0(
    image: Image, tmp_path: Path, workers: int
) -> None:
    gate = Gate()
    content = bytes(range(256)) * 4096
    got: list[bytes] = []
    with FaultyUpstream() as upstream:
        digest = upstream.add_blob("team/plugin", content)
        upstream.inject(Fault(gate=gate, gate_at=len(content) // 2), path="/blobs/")
        settings = {**upstreams(corp=upstream.url), "WASM_MIRROR_WORKERS": str(workers)}
        with Container(image, tmp_path / "mirror", settings) as mirror:

            def pull() -> None:
                address = f"{mirror.url}/v2/corp/team/plugin/blobs/{digest}"
                got.append(httpx.get(address, trust_env=False, timeout=60).raise_for_status().content)

            puller = threading.Thread(target=pull)
            puller.start()
            gate.wait(within=60)
            stopped: list[int] = []
            stopper = threading.Thread(target=lambda: stopped.append(mirror.stop(within=60)))
            stopper.start()
            wait_until(lambda: "stopping" in mirror.log_text(), timeout=60, what="it was told to stop")
            gate.release()
            puller.join(60)
            stopper.join(60)
    assert got == [content]
    assert stopped == [0]


def test_it_stops_with_status_0_though_it_has_hardly_begun(image: Image, tmp_path: Path) -> None:
    mirror = Container(image, tmp_path / "mirror", {"WASM_MIRROR_DRAIN_FOR": "0s"})
    try:
        mirror.start(wait=False)
        wait_until(lambda: "serves ghcr.io" in mirror.log_text(), timeout=60, what="it is about to serve")
        assert mirror.stop(within=60) == 0
    finally:
        mirror.close()


def test_it_runs_as_whatever_user_a_platform_chooses(image: Image, tmp_path: Path) -> None:
    with FaultyUpstream() as upstream:
        digest = upstream.add_blob("team/plugin", b"content")
        with Container(image, tmp_path / "mirror", upstreams(corp=upstream.url), user="1000730000:0") as mirror:
            address = f"{mirror.url}/v2/corp/team/plugin/blobs/{digest}"
            assert [httpx.get(address, trust_env=False).content for _ in range(2)] == [b"content"] * 2
            assert upstream.count(method="GET", path="/blobs/") == 1
            assert mirror.stop() == 0
        assert (tmp_path / "mirror" / "volume" / "blobs").stat().st_uid == 1000730000


def test_its_other_commands_run_in_it_too(image: Image, tmp_path: Path) -> None:
    checked = Container(image, tmp_path / "checked", {}, arguments=["check-config"]).run()
    assert (checked.returncode, "ghcr.io" in checked.stdout) == (0, True), checked.stderr
    unwell = Container(image, tmp_path / "unwell", {}, arguments=["health"]).run()
    assert (unwell.returncode, "does not answer" in unwell.stderr) == (1, True)


def test_it_warms_what_a_cluster_names(image: Image, tmp_path: Path) -> None:
    place = "/var/lib/wasm-mirror"
    plugin = {
        "metadata": {"name": "auth", "namespace": "mesh"},
        "spec": {"url": "oci://mirror:8080/corp/team/plugin:1.0"},
    }
    answers = {
        "/apis/extensions.istio.io": {"versions": [{"version": "v1alpha1"}]},
        "/apis/extensions.istio.io/v1alpha1/wasmplugins": {"items": [plugin]},
    }
    with FakeApi({path: (200, answer) for path, answer in answers.items()}) as api, FaultyUpstream() as upstream:
        artifact = compat(wasm_module())
        publish(upstream, "team/plugin", "1.0", artifact)
        settings = {**upstreams(corp=upstream.url), "WASM_MIRROR_ADMIN__TOKEN_FILE": f"{place}/token"}
        settings["WASM_MIRROR_NAMES"] = '["mirror:8080"]'
        mirror = Container(image, tmp_path / "mirror", settings)
        (mirror.volume / "token").write_text("0123456789abcdef0123456789abcdef\n")
        api.kubeconfig(mirror.volume / "cluster", {"token": "of a test"})
        with mirror:
            whom = ["--mirror", mirror.url, "--token-file", f"{place}/token"]
            warmed = mirror.execute("wasm-mirror", "prewarm", "--cluster", "--kubeconfig", f"{place}/cluster", *whom)
            assert answers.keys() <= {question.path for question in api.asked}, warmed.stderr
            assert warmed.returncode == 0, warmed.stdout + warmed.stderr
            shown = mirror.execute("wasm-mirror", "ls", "--json", *whom)
            assert "corp/team/plugin:1.0" in shown.stdout, shown.stderr
