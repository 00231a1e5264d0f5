"""The demo does what it tells, and its plugin is what its source says."""

import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.support.artifacts import wasm_module
from tests.support.tools import require
from tests.support.waiting import wait_until

_ROOT = Path(__file__).parents[2]
PLUGIN = _ROOT / "demo" / "plugin"
_WITHIN = 60  # seconds


@contextmanager
def demo(folder: Path, **environment: str) -> Iterator[subprocess.Popen[str]]:
    """The demo as a program, in a process group of its own, with its temporary files in ``folder``."""
    with subprocess.Popen(
        [sys.executable, "-m", "demo"],
        cwd=_ROOT,
        env={**os.environ, "TMPDIR": str(folder), **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    ) as program:
        try:
            yield program
        finally:
            program.kill()


def servers(folder: Path) -> list[int]:
    """The programs that run with files of this folder."""
    found = []
    for process in Path("/proc").iterdir():
        try:
            if process.name.isdecimal() and os.fsencode(folder) in (process / "cmdline").read_bytes():
                found.append(int(process.name))
        except OSError:  # it has just ended
            continue
    return found


@pytest.mark.needs("docker-registry", "envoy")
def test_the_demo_shows_an_outage_that_an_envoy_does_not_notice(tmp_path: Path) -> None:
    folder = tmp_path / "with a blank"
    folder.mkdir()
    with demo(folder) as program:
        told, _ = program.communicate(timeout=_WITHIN)
    assert program.returncode == 0, told
    assert "docker-registry" in told
    assert_told(told)
    assert list(folder.iterdir()) == []
    assert servers(folder) == []


@pytest.mark.needs("envoy")
def test_the_demo_needs_no_registry_of_debian(tmp_path: Path) -> None:
    with demo(tmp_path, PATH=str(tmp_path)) as program:
        told, _ = program.communicate(timeout=_WITHIN)
    assert program.returncode == 0, told
    assert "for want of docker-registry" in told
    assert_told(told)


def assert_told(told: str) -> None:
    """The story, in its order."""
    order = ["A registry starts", "is pushed", "The mirror starts", "An Envoy starts", "without credentials: 401"]
    order += ["as demo: 200", "is stopped", "Another Envoy starts", "without credentials: 401", "as demo: 200"]
    order += ["for the second Envoy: 0", "All was as it should be"]
    assert re.search(".*".join(map(re.escape, order)), told, re.DOTALL), told
    assert "FAILED" not in told
    numbers = {name: row.split() for row, name in re.findall(r"^ +([\d ]+)  (wasm\S+)$", told, re.MULTILINE)}
    assert numbers["wasm.remote_load_fetch_successes"] == ["1", "1"]
    fetched = [row for name, row in numbers.items() if 'operation="get_blob"' in name]
    assert fetched
    assert all(before == after for before, after in fetched)


_WITH_ANOTHER_PLUGIN = """
import pathlib, sys
from demo import __main__, story
story.PLUGIN = pathlib.Path(sys.argv[1])
sys.exit(__main__.main())
"""


@pytest.mark.needs("envoy")
def test_the_demo_says_which_step_was_not_as_it_should_be_and_fails(tmp_path: Path) -> None:
    module = tmp_path / "plugin.wasm"
    module.write_bytes(wasm_module())
    command = [sys.executable, "-c", _WITH_ANOTHER_PLUGIN, str(module)]
    done = subprocess.run(command, cwd=_ROOT, capture_output=True, text=True, timeout=_WITHIN)
    assert done.returncode == 1, done.stdout + done.stderr
    *_, failed, _, end = done.stdout.splitlines()
    assert re.match(r"FAILED +GET /productpage without credentials: 5\d\d, where it should be 401$", failed)
    assert end == "This was not as it should be."


@pytest.mark.needs("envoy")
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM], ids=["ctrl-c", "sigterm"])
def test_an_interrupted_demo_leaves_nothing_behind(tmp_path: Path, number: signal.Signals) -> None:
    with demo(tmp_path) as program:
        wait_until(lambda: len(servers(tmp_path)) >= 2, timeout=_WITHIN, what="the servers of the demo")
        program.send_signal(number)
        told, _ = program.communicate(timeout=_WITHIN)
    assert program.returncode == 130, told
    assert "Traceback" not in told
    assert list(tmp_path.iterdir()) == []
    assert servers(tmp_path) == []


@pytest.mark.needs("envoy")
def test_a_demo_whose_reader_has_seen_enough_leaves_nothing_behind(tmp_path: Path) -> None:
    with demo(tmp_path) as program:
        assert program.stdout is not None
        told = program.stdout.readline()
        program.stdout.close()
        program.wait(timeout=_WITHIN)
    assert "A registry starts" in told
    assert program.returncode == 1
    assert list(tmp_path.iterdir()) == []
    assert servers(tmp_path) == []


def test_the_demo_heeds_interrupts_before_it_loads_what_takes_its_time() -> None:
    look = "import sys, demo.__main__; print('httpx' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", look], cwd=_ROOT, capture_output=True, text=True, timeout=_WITHIN)
    assert done.stdout == "False\n", done.stderr


@pytest.mark.needs("asc", "node")
def test_the_plugin_that_lies_beside_its_source_is_made_of_it(tmp_path: Path) -> None:
    compiler = require("asc")
    shutil.copytree(PLUGIN / "assembly", tmp_path / "assembly")
    (tmp_path / "node_modules").symlink_to(compiler.parents[1])
    name, *arguments = shlex.split(json.loads((PLUGIN / "package.json").read_text())["scripts"]["build"])
    assert name == "asc"
    done = subprocess.run([compiler, *arguments], cwd=tmp_path, capture_output=True, text=True, timeout=_WITHIN)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "basic_auth.wasm").read_bytes() == (PLUGIN / "basic_auth.wasm").read_bytes()
