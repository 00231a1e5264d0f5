"""What ``docs/authors.md`` tells authors: its commands run, and print what stands there; its refusals are those."""

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from mirror.config.load import load
from mirror.wasm.artifact import DOCKER_LAYER, OCI_LAYER, RAW_CONFIG, RAW_LAYER
from mirror.wasm.functions import ABI_VERSIONS
from tests.documents.blocks import ROOT, block
from tests.documents.world import MODULE, World, world
from tests.inspector.support import layout, told
from tests.support.artifacts import Artifact, cncf, compat, image, index, raw, tar_gz
from tests.support.process import clean_environment
from tests.support.registry import DockerRegistry
from tests.support.tools import require
from tests.test_failures_page import tables
from tests.wasm.modules import COMPONENT, module, plugin

pytestmark = pytest.mark.integration

_PAGE = (ROOT / "docs" / "authors.md").read_text()
_REGISTRY = "docker://registry.corp.example:5000"


_NAME = "docs/authors.md"


def run(reader: World, *markers: str, stdin: str = "", **environment: str) -> None:
    """Run the commands of marked blocks of the page, and hold what they print against what stands there."""
    reader.environment.update(environment)
    for marker in markers:
        reader.check(block(_NAME, f"run: {marker}"), stdin)


def test_what_is_said_of_a_module_is_what_is_printed(tmp_path: Path) -> None:
    with world(tmp_path / "reader") as reader:
        run(reader, "the module", "in a pipeline")


@pytest.mark.needs("crane", "skopeo", "docker-registry")
def test_an_artifact_is_packed_looked_at_pushed_and_looked_at_again_as_the_page_says(tmp_path: Path) -> None:
    with DockerRegistry(tmp_path / "registry") as registry, world(tmp_path / "reader", corp=registry.url) as reader:
        (reader.folder / "plugin.tar.gz").unlink()
        shutil.rmtree(reader.folder / "image")
        reader.replaced[f" {_REGISTRY}"] = f" --dest-tls-verify=false docker://{registry.host}"
        run(reader, "the artifact")
        registry.push("team/cncf", "1.0", cncf(MODULE))
        run(reader, "what was pushed")
        here = told(f"{reader.folder / 'image'}:1.0")
        assert told("corp/team/plugin:1.0", "--mirror", reader.mirror.url) == here


@pytest.mark.needs("crane", "skopeo", "regctl", "helm", "oras", "curl")
def test_what_is_pushed_as_the_page_says_is_hosted(tmp_path: Path) -> None:
    with world(tmp_path / "reader") as reader:
        mirror, folder = reader.mirror, reader.folder
        (folder / "sbom.json").write_text("{}")
        chart = folder / "charted"
        chart.mkdir()
        (chart / "Chart.yaml").write_text("apiVersion: v2\nname: plugins\nversion: 0.1.0\n")
        subprocess.run([require("helm"), "package", "charted"], cwd=folder, check=True, capture_output=True)
        run(reader, "pushed", "pushed in two layers")
        (folder / "push.py").write_text(block(_NAME, "file: push.py").text.replace("127.0.0.1:8080", mirror.host))
        subprocess.run(
            [sys.executable, "push.py"],
            cwd=folder,
            env={**clean_environment(), "HOME": str(folder), "PYTHONPATH": str(require("oras").parents[1])},
            check=True,
        )
        run(reader, "pushed beside it", "warned")
        for pushed in ("plugin:1.0", "plugin:1.1", "plugin:1.2", "raw:1.0", "raw:1.1"):
            assert told(f"hosted/team/{pushed}", "--mirror", mirror.url).accepted


@pytest.mark.needs("skopeo")
def test_users_are_made_and_push_as_the_page_says(tmp_path: Path) -> None:
    users = tmp_path / "reader" / "users"
    rules = yaml.safe_load(block(_NAME, "settings: rights").text)["auth"]["rules"]
    (tmp_path / "users").write_text("")
    with world(tmp_path / "reader") as reader:
        run(reader, "a user", stdin="right as rain\n")
        made = users.read_text()
    (tmp_path / "users").write_text(made)
    with world(tmp_path / "login", {"auth": {"file": str(tmp_path / "users"), "rules": rules}}) as reader:
        login = {"PASSWORD": "right as rain", "REGISTRY_AUTH_FILE": str(tmp_path / "auth.json")}
        run(reader, "with a login", **login)
        assert told("hosted/team-a/plugin:1.0", "--mirror", reader.mirror.url).accepted
        layout(reader.folder / "image", ("1.0", compat(MODULE + b"\0")))
        with pytest.raises(AssertionError, match="overwrite"):
            run(reader, "with a login", **login)


def test_the_settings_of_the_page_are_valid(tmp_path: Path) -> None:
    file = tmp_path / "config.yaml"
    file.write_text(block(_NAME, "settings: rights").text + block(_NAME, "settings: through").text)
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
