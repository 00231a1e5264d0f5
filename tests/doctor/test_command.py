"""``wasm-mirror doctor``, as people and programs run it."""

import json
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml
from click.testing import CliRunner, Result

from mirror.cli import main
from tests.support.faults import Fault, Gate
from tests.support.ports import ReservedPort
from tests.support.process import MirrorProcess, clean_environment
from tests.support.redis import RedisServer
from tests.support.upstream import FaultyUpstream

pytestmark = pytest.mark.integration

PASSWORD = "correct-horse-battery-staple"


@pytest.fixture
def up() -> Iterator[FaultyUpstream]:
    with FaultyUpstream() as server:
        yield server


def config(folder: Path, upstreams: object, **more: object) -> Path:
    file = folder / "config.yaml"
    file.write_text(yaml.safe_dump({"data_dir": str(folder / "data"), "upstreams": upstreams, **more}))
    return file


def corp(up: FaultyUpstream | str, **more: object) -> dict[str, object]:
    return {"corp": {"endpoints": [up.url if isinstance(up, FaultyUpstream) else up], **more}}


def doctor(file: Path, *options: str) -> Result:
    return CliRunner(env=clean_environment()).invoke(main, ["doctor", "--config", str(file), *options])


def test_status_0_and_a_table_when_nothing_would_fail(tmp_path: Path, up: FaultyUpstream) -> None:
    result = doctor(config(tmp_path, corp(up)))
    assert result.exit_code == 0, result.output
    assert f"upstreams.corp.endpoints[0]: {up.url}" in result.output
    assert "fail" not in result.output.replace("would fail", "")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["config.yaml"], "data_dir was not there before"


def test_status_1_when_something_would_fail_with_the_advice_beneath_it(tmp_path: Path) -> None:
    with ReservedPort() as port:
        result = doctor(config(tmp_path, corp(f"http://127.0.0.1:{port.number}")))
    assert result.exit_code == 1
    lines = result.output.splitlines()
    row = next(index for index, line in enumerate(lines) if line.strip().startswith("fail  TCP"))
    assert lines[row + 1].strip().startswith("-> check host and port of upstreams.corp.endpoints[0].url")
    assert "1 would fail" in lines[-1]


def test_status_2_when_the_settings_are_wrong(tmp_path: Path) -> None:
    result = doctor(config(tmp_path, {}))
    assert result.exit_code == 2
    assert "upstreams" in result.output


@pytest.mark.needs("redis-server")
def test_json_has_every_part_of_a_mirror(tmp_path: Path, up: FaultyUpstream) -> None:
    with RedisServer(tmp_path / "redis") as redis:
        file = config(
            tmp_path, {**corp(up), "off": {"endpoints": [up.url], "offline": True}}, metadata={"url": redis.url}
        )
        result = doctor(file, "--json")
    assert result.exit_code == 0, result.output
    told = json.loads(result.stdout)
    assert told["mark"] == "warn", "replicas that do not advertise"
    subjects = dict.fromkeys(finding["subject"] for finding in told["findings"])
    assert list(subjects) == [
        "upstreams.corp.endpoints[0]",
        "upstreams.off.endpoints[0]",
        "metadata.url",
        "cluster",
        "data_dir",
        "this machine",
    ]


def test_no_secret_is_ever_printed(tmp_path: Path, up: FaultyUpstream) -> None:
    up.require_basic({"robot": "another"})
    (tmp_path / "password").write_text(PASSWORD)
    credentials = {"username": "robot", "password_file": str(tmp_path / "password")}
    for options in ([], ["--json"]):
        result = doctor(config(tmp_path, corp(up, credentials=credentials)), *options)
        assert result.exit_code == 1
        assert "upstreams.corp.credentials" in result.output
        assert PASSWORD not in result.output
        assert up.matching(path="^/v2/$")[-1].headers["authorization"].startswith("Basic ")


def command(file: Path) -> list[str]:
    return [sys.executable, "-m", "mirror.cli", "doctor", "--config", str(file)]


def test_it_works_while_the_mirror_runs_and_leaves_it_alone(tmp_path: Path, up: FaultyUpstream) -> None:
    with MirrorProcess(tmp_path, {"corp": up.url}) as mirror:

        def content() -> set[Path]:
            """But for what the mirror itself makes sooner or later."""
            own = {"leases", "uploads", "tallies", "scrubbed", "pins", "jobs"}
            found = (path.relative_to(mirror.data_dir) for path in mirror.data_dir.rglob("*"))
            return {path for path in found if ".sqlite" not in path.name and path.parts[0] not in own}

        before, pid, program = content(), mirror.pid, command(mirror.config_file)
        done = subprocess.run(program, capture_output=True, text=True, env=clean_environment(), timeout=60)
        assert content() == before
    assert done.returncode == 0, done.stdout + done.stderr
    assert f"a mirror runs on it (process {pid})" in done.stdout
    assert done.stderr == ""


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_an_interrupted_run_leaves_nothing_behind(tmp_path: Path, up: FaultyUpstream, number: signal.Signals) -> None:
    gate = Gate()
    up.inject(Fault(hold=gate), path="^/v2/$")
    process = subprocess.Popen(command(config(tmp_path, corp(up))), env=clean_environment(), stdout=subprocess.PIPE)
    try:
        gate.wait(within=30)
        process.send_signal(number)
        output, _ = process.communicate(timeout=30)
    finally:
        gate.release()
        process.kill()
    assert process.returncode == 1
    assert output == b"", "half a round tells nothing"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["config.yaml"]
