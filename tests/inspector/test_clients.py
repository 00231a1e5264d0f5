"""Layout directories as the usual clients write them."""

import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.inspector.support import inspect, layout, told
from tests.support.artifacts import Artifact, cncf, compat, docker, index, publish, raw
from tests.support.tools import require
from tests.support.upstream import FaultyUpstream
from tests.wasm.modules import plugin

MODULE = plugin()
LAYOUTS: dict[str, Callable[[bytes], Artifact]] = {"raw": raw, "compat": compat, "docker": docker, "cncf": cncf}


def run(program: str, *arguments: str | Path) -> None:
    done = subprocess.run([require(program), *arguments], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr


@pytest.mark.needs("skopeo")
def test_what_skopeo_writes_is_described(tmp_path: Path) -> None:
    source, written = tmp_path / "source", tmp_path / "written"
    kinds = {tag: build(MODULE) for tag, build in LAYOUTS.items() if tag != "docker"}  # which it takes from no layout
    layout(source, *kinds.items())
    for tag, artifact in kinds.items():
        run("skopeo", "copy", f"oci:{source}:{tag}", f"oci:{written}:{tag}")
        assert told(f"oci:{written}:{tag}") == told(f"{source}:{tag}")
        assert told(f"{written}@{artifact.digest}").digest == str(artifact.digest)
    both = index(raw(MODULE), compat(MODULE), platforms=("linux/amd64", "linux/arm64"))
    layout(source, ("index", both))
    run("skopeo", "copy", "--all", f"oci:{source}:index", f"oci:{written}:index")
    assert told(f"{written}:index").digest == str(raw(MODULE).digest)


@pytest.mark.needs("skopeo")
def test_other_ways_in_which_skopeo_keeps_an_image_are_refused_with_the_one_to_use(tmp_path: Path) -> None:
    source = layout(tmp_path / "source", ("1.0", compat(MODULE)))
    for kind in ("dir", "oci-archive"):
        written = tmp_path / kind
        run("skopeo", "copy", f"oci:{source}:1.0", f"{kind}:{written}")
        result = inspect(written)
        assert result.exit_code == 2
        assert "oci:DIR:TAG" in result.stderr


@pytest.mark.needs("crane")
def test_what_crane_pulls_is_described(tmp_path: Path) -> None:
    with FaultyUpstream() as up:
        for tag, build in LAYOUTS.items():
            publish(up, "team/plugin", tag, build(MODULE))
            reference = f"{up.host}/team/plugin:{tag}"
            run("crane", "pull", "--insecure", "--format=oci", reference, tmp_path / tag)
            run("crane", "pull", "--insecure", "--format=oci", "--annotate-ref", reference, tmp_path / "all")
    for tag, build in LAYOUTS.items():
        artifact = build(MODULE)
        assert told(tmp_path / tag).digest == str(artifact.digest)
        assert told(f"{tmp_path / 'all'}:{tag}").digest == str(artifact.digest)
