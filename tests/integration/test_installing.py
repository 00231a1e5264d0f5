"""What pip and pipx install is whole: the wheel, the source distribution, and the mirror that runs out of them."""

import os
import shutil
import subprocess
import sys
import sysconfig
import venv
import zipfile
from pathlib import Path

import httpx
import pytest

from tests.support.process import MirrorProcess, clean_environment
from tests.support.tools import require
from tests.support.upstream import FaultyUpstream
from tests.test_repository import files

_ROOT = Path(__file__).parents[2]
_PARTS = ("mirror", "README.md", "LICENSE", "pyproject.toml", "tests")
_BUILD = "import sys; from setuptools import build_meta; getattr(build_meta, sys.argv[1])(sys.argv[2])"


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """A copy of what is under version control, for a build to write into."""
    copy = tmp_path / "source"
    for path in files():
        name = path.relative_to(_ROOT)
        if name.parts[0] in _PARTS:
            (copy / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(path, copy / name)
    return copy


def built(source: Path, kind: str, into: Path) -> Path:
    """What the build of ``kind``, wheel or sdist, makes of ``source``."""
    into.mkdir()
    subprocess.run([sys.executable, "-c", _BUILD, f"build_{kind}", str(into)], cwd=source, check=True, timeout=250)
    (made,) = into.iterdir()
    return made


def contents(wheel: Path) -> dict[str, bytes]:
    with zipfile.ZipFile(wheel) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def environment_with(wheel: Path, folder: Path) -> Path:
    """A virtual environment with the wheel, and beside it the packages that it needs; gives its programs."""
    venv.create(folder, with_pip=False)
    python = folder / "bin" / "python"
    pip = [sys.executable, "-m", "pip", "--python", str(python), "install", "--quiet", "--no-deps", "--no-index"]
    subprocess.run([*pip, str(wheel)], check=True, timeout=250)
    (packages,) = folder.glob("lib/python3*/site-packages")
    # Files of this kind are read there alone: the package that is being worked on is not found by way of its own.
    (packages / "beside.pth").write_text(sysconfig.get_path("purelib") + "\n")
    return folder / "bin"


@pytest.mark.integration
@pytest.mark.timeout(300)
def test_a_wheel_serves_from_any_folder_and_the_source_distribution_makes_the_same(
    source: Path, tmp_path: Path
) -> None:
    sdist = built(source, "sdist", tmp_path / "sdist")
    shutil.unpack_archive(sdist, tmp_path / "unpacked", filter="data")
    (unpacked,) = (tmp_path / "unpacked").iterdir()
    again = contents(built(unpacked, "wheel", tmp_path / "again"))
    wheel = built(source, "wheel", tmp_path / "wheel")
    packed = contents(wheel)
    assert again == packed

    wanted = {str(path.relative_to(source)): path.read_bytes() for path in (source / "mirror").rglob("*.*")}
    assert {name: packed.get(name) for name in wanted} == wanted
    assert [name for name in packed if not name.startswith(("mirror/", "wasm_mirror-"))] == []

    programs = environment_with(wheel, tmp_path / "environment")
    with FaultyUpstream() as upstream:
        digest = upstream.add_blob("team/plugin", b"content")
        mirror = MirrorProcess(tmp_path / "mirror", {"corp": upstream.url})
        # Another folder, and none of this repository's files to be found from there.
        elsewhere = ["sh", "-c", 'cd "$1" && shift && exec "$@"', "sh", str(tmp_path)]
        mirror.command[:] = [*elsewhere, str(programs / "wasm-mirror"), *mirror.command[3:]]
        with mirror, httpx.Client(base_url=mirror.url, trust_env=False) as client:
            assert client.get(f"/v2/corp/team/plugin/blobs/{digest}").content == b"content"
            page = client.get("/").raise_for_status()
            assert page.headers["content-type"].startswith("text/html")
            place = subprocess.run(
                [programs / "python", "-c", "import mirror; print(mirror.__file__)"],
                cwd=tmp_path,
                capture_output=True,
                text=True,
                check=True,
            )
            assert place.stdout.startswith(str(tmp_path)), "it was the wheel that served"


@pytest.mark.integration
def test_the_mirror_needs_no_memory_that_it_may_both_write_and_execute(tmp_path: Path) -> None:
    # prctl(PR_SET_MDWE, PR_MDWE_REFUSE_EXEC_GAIN), of which MemoryDenyWriteExecute= of systemd makes use since 256.
    refusing = (
        "import ctypes, os, sys; "
        "status = ctypes.CDLL(None).prctl(65, 1, 0, 0, 0); "
        "assert status == 0 or sys.exit('this kernel cannot refuse it'); "
        "os.execv(sys.argv[1], sys.argv[1:])"
    )
    with FaultyUpstream() as upstream:
        digest = upstream.add_blob("team/plugin", b"content")
        mirror = MirrorProcess(tmp_path / "mirror", {"corp": upstream.url})
        mirror.command[:] = [sys.executable, "-c", refusing, *mirror.command]
        with mirror:
            answer = httpx.get(f"{mirror.url}/v2/corp/team/plugin/blobs/{digest}", trust_env=False)
            assert answer.content == b"content"


@pytest.mark.integration
@pytest.mark.needs("pipx")
@pytest.mark.timeout(400)
def test_pipx_runs_it(source: Path, tmp_path: Path) -> None:
    places = {"PIPX_HOME": str(tmp_path / "pipx"), "PIPX_BIN_DIR": str(tmp_path / "bin"), "HOME": str(tmp_path)}
    done = subprocess.run(
        [sys.executable, "-m", "pipx", "run", "--spec", str(source), "wasm-mirror", "--version"],
        env={
            **clean_environment(),
            **places,
            "PYTHONPATH": str(require("pipx").parents[1]),
            "PIPX_DEFAULT_PYTHON": os.path.realpath(sys.executable),
        },
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=380,
    )
    assert (done.returncode, done.stdout.startswith("wasm-mirror, version ")) == (0, True), done.stderr[-4000:]
