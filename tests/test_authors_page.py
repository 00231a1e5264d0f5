"""What ``docs/authors.md`` tells authors: its commands run, and print what stands there; its refusals are those."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from mirror.config.load import load
from mirror.wasm.artifact import DOCKER_LAYER, OCI_LAYER, RAW_CONFIG, RAW_LAYER
from mirror.wasm.functions import ABI_VERSIONS
from tests.inspector.support import layout, told
from tests.support.artifacts import Artifact, cncf, compat, image, index, raw, tar_gz
from tests.support.process import MirrorProcess, clean_environment
from tests.support.registry import DockerRegistry
from tests.support.tools import require
from tests.test_documentation import block
from tests.test_failures_page import tables
from tests.wasm.modules import COMPONENT, module, plugin

pytestmark = pytest.mark.integration

_ROOT = Path(__file__).parents[1]
_PAGE = (_ROOT / "docs" / "authors.md").read_text()
_MODULE = (_ROOT / "demo" / "plugin" / "basic_auth.wasm").read_bytes()
_HEX = re.compile(r"\b[0-9a-f]{64}\b")
_REGISTRY = "docker://registry.corp.example:5000"


_MIRROR = "127.0.0.1:8080"
_CLIENTS = ("crane", "skopeo", "regctl", "helm")


def run(
    marker: str, folder: Path, *, registry: str = "", mirror: str = "", stdin: str = "", **environment: str
) -> None:
    """Run the commands of a block in ``folder``, and hold what they print against what stands there.

    ``registry`` is a plain one in place of the one of the page, ``mirror`` the host of one. Digests may be others, for
    archives hold times. An ``…`` of the page stands for anything on its line.
    """
    programs = folder / "programs"
    programs.mkdir(exist_ok=True)
    steps = block(_PAGE, f"run: {marker}").removeprefix("$ ").split("\n$ ")
    for step in steps:
        command, _, said = step.replace("\\\n", "").partition("\n")
        for name in _CLIENTS:
            if name in command.split() and not (programs / name).exists():
                (programs / name).symlink_to(require(name))
        command = command.replace(f" {_REGISTRY}", f" --dest-tls-verify=false docker://{registry}")
        command, said = (text.replace(_MIRROR, mirror or _MIRROR) for text in (command, said))
        done = subprocess.run(
            ["bash", "-uc", command],
            cwd=folder,
            env={
                **clean_environment(),
                "HOME": str(folder),
                "PATH": os.pathsep.join([str(programs), str(Path(sys.executable).parent), os.environ["PATH"]]),
                **environment,
            },
            input=stdin,
            capture_output=True,
            text=True,
            timeout=60,
        )
        assert done.returncode == 0 or "inspect" in command, (command, done.stderr)
        wanted = re.escape(_HEX.sub("…", said.strip())).replace("…", ".*")
        assert re.fullmatch(wanted, done.stdout.replace("\r", "").strip()), (command, done.stdout, done.stderr)


def test_what_is_said_of_a_module_is_what_is_printed(tmp_path: Path) -> None:
    (tmp_path / "plugin.wasm").write_bytes(_MODULE)
    run("the module", tmp_path)
    run("in a pipeline", tmp_path)


@pytest.mark.needs("crane", "skopeo", "docker-registry")
def test_an_artifact_is_packed_looked_at_pushed_and_looked_at_again_as_the_page_says(tmp_path: Path) -> None:
    (tmp_path / "plugin.wasm").write_bytes(_MODULE)
    with DockerRegistry(tmp_path / "registry") as registry:
        run("the artifact", tmp_path, registry=registry.host)
        registry.push("team/cncf", "1.0", cncf(_MODULE))
        with MirrorProcess(tmp_path / "mirror", {"corp": registry.url}) as mirror:
            run("what was pushed", tmp_path, WASM_MIRROR_URL=mirror.url)
            here = told(f"{tmp_path / 'image'}:1.0")
            assert told("corp/team/plugin:1.0", "--mirror", mirror.url) == here


def hosting(folder: Path, **auth: object) -> MirrorProcess:
    """A mirror of nothing, to push to; what is asked for of its upstream is not there."""
    return MirrorProcess(folder / "mirror", {"up": "http://127.0.0.1:1"}, {"auth": auth} if auth else None)


@pytest.mark.needs("crane", "skopeo", "regctl", "helm", "oras", "curl")
def test_what_is_pushed_as_the_page_says_is_hosted(tmp_path: Path) -> None:
    (tmp_path / "plugin.wasm").write_bytes(_MODULE)
    layout(tmp_path / "image", ("1.0", compat(_MODULE)))
    (tmp_path / "sbom.json").write_text("{}")
    (tmp_path / "plugins").mkdir()
    (tmp_path / "plugins" / "Chart.yaml").write_text("apiVersion: v2\nname: plugins\nversion: 0.1.0\n")
    subprocess.run([require("helm"), "package", "plugins"], cwd=tmp_path, check=True, capture_output=True)
    with hosting(tmp_path) as mirror:
        for marker in ("pushed", "pushed in two layers"):
            run(marker, tmp_path, mirror=mirror.host, WASM_MIRROR_URL=mirror.url)
        (tmp_path / "push.py").write_text(block(_PAGE, "file: push.py").replace(_MIRROR, mirror.host))
        subprocess.run(
            [sys.executable, "push.py"],
            cwd=tmp_path,
            env={**clean_environment(), "HOME": str(tmp_path), "PYTHONPATH": str(require("oras").parents[1])},
            check=True,
        )
        run("pushed beside it", tmp_path, mirror=mirror.host)
        run("warned", tmp_path, mirror=mirror.host)
        for pushed in ("plugin:1.0", "plugin:1.1", "plugin:1.2", "raw:1.0", "raw:1.1"):
            assert told(f"hosted/team/{pushed}", "--mirror", mirror.url).accepted


@pytest.mark.needs("skopeo")
def test_users_are_made_and_push_as_the_page_says(tmp_path: Path) -> None:
    layout(tmp_path / "image", ("1.0", compat(_MODULE)))
    run("a user", tmp_path, stdin="right as rain\n")
    rules = yaml.safe_load(block(_PAGE, "settings: rights"))["auth"]["rules"]
    with hosting(tmp_path, file=str(tmp_path / "users"), rules=rules) as mirror:
        login = {"PASSWORD": "right as rain", "REGISTRY_AUTH_FILE": str(tmp_path / "auth.json")}
        run("with a login", tmp_path, mirror=mirror.host, **login)
        assert told("hosted/team-a/plugin:1.0", "--mirror", mirror.url).accepted
        layout(tmp_path / "image", ("1.0", compat(_MODULE + b"\0")))
        with pytest.raises(AssertionError, match="overwrite"):
            run("with a login", tmp_path, mirror=mirror.host, **login)


def test_the_settings_of_the_page_are_valid(tmp_path: Path) -> None:
    file = tmp_path / "config.yaml"
    file.write_text(block(_PAGE, "settings: rights") + block(_PAGE, "settings: through"))
    settings = load(file, {}, {})
    assert settings.upstreams["corp"].push == "through"
    assert [rule.who for rule in settings.auth.rules] == [("release",), ("*",)]


def test_the_layouts_of_the_page_are_those_that_are_taken(tmp_path: Path) -> None:
    rows = tables(_PAGE)["Pack it"][1:]
    assert [re.findall(r"`(application/[^`]+)`", row[1]) for row in rows] == [
        [OCI_LAYER],
        [RAW_LAYER, RAW_CONFIG],
        [DOCKER_LAYER],
    ]
    for version in ABI_VERSIONS:
        assert version.replace(".", "_") in _PAGE


def test_every_refusal_of_the_page_is_said_like_that(tmp_path: Path) -> None:
    good = plugin()
    both = index(raw(good))
    aborts = plugin([("env", "abort", "i32 i32 i32 i32 -> void")])
    archive = (OCI_LAYER, tar_gz({"plugin.wasm": good}))
    pushed: list[tuple[Artifact, str]] = [
        (cncf(good), ""),
        (image([(RAW_LAYER, good)], config=(RAW_CONFIG, b"{}")), ""),
        (image([(OCI_LAYER, tar_gz({"filter.wasm": good}))]), ""),
        (image([archive, (OCI_LAYER, tar_gz({"README.md": b"x"}))]), ""),
        (image([("application/vnd.oci.image.layer.v1.tar", b"x")]), ""),
        (index(raw(good), platforms=("wasip1/wasm32",)), ""),
        (both, f"@{both.digest}"),
        (raw(COMPONENT), ""),
        (raw(module()), ""),
        (raw(aborts), ""),
    ]
    rows = tables(_PAGE)["What is refused"][1:]
    assert len(rows) == len(pushed)
    for number, ((what, says), (artifact, target)) in enumerate(zip(rows, pushed, strict=True)):
        found = told(f"{layout(tmp_path / str(number), (None, artifact))}{target}")
        words = " ".join(verdict.reason for verdict in (found.accepted_by.agents, found.accepted_by.envoy))
        assert not found.accepted, what
        assert says.strip("`") in words, what
