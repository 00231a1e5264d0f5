"""What is installed, and by which ways: locks, the Dockerfile, the unit of systemd, the file for compose.

The image itself is built and run in tests/e2e/test_image.py, the package in tests/integration/test_installing.py.
"""

import configparser
import json
import os
import re
import shlex
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml

from mirror.config import Settings, load
from mirror.config.values import parse_duration
from tests.support.tools import require

_ROOT = Path(__file__).parents[1]
_UNIT = _ROOT / "config" / "wasm-mirror.service"
_COMPOSE = _ROOT / "config" / "compose.yaml"
_MOST_EXPOSED = 20  # tenths, as systemd reckons: 0 is shut away, 100 is open


def locked(name: str) -> dict[str, str]:
    """The requirements of a lock by name, each as it stands there with its hashes."""
    text = re.sub(r"^#.*\n", "", (_ROOT / name).read_text(), flags=re.MULTILINE)
    return {one.partition("==")[0]: one for one in re.split(r"\n(?=[a-z])", text.strip())}


def test_what_runs_is_locked_as_it_is_tested() -> None:
    runtime = locked("runtime.lock")
    assert runtime.items() <= locked("requirements.lock").items()
    assert not runtime.keys() & {"pytest", "mypy", "ruff", "setuptools"}


def test_the_lock_of_what_runs_has_everything_that_the_package_and_the_extras_of_the_image_ask_for() -> None:
    project = tomllib.loads((_ROOT / "pyproject.toml").read_text())["project"]
    extras = project["optional-dependencies"]
    asked = [*project["dependencies"], *extras["cluster"], *extras["tracing"]]
    names = {re.split(r"[<>=!~\[; ]", requirement)[0].lower() for requirement in asked}
    assert names - locked("runtime.lock").keys() == set()


@pytest.mark.needs("hadolint")
def test_the_linter_has_nothing_against_the_dockerfile() -> None:
    done = subprocess.run([require("hadolint"), "--no-color", _ROOT / "Dockerfile"], capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (0, "")


def test_the_image_is_built_of_what_its_build_may_see() -> None:
    seen = {line[1:] for line in (_ROOT / ".dockerignore").read_text().splitlines() if line.startswith("!")}
    copied = re.findall(r"^COPY (?!--)(.*) \S+$", (_ROOT / "Dockerfile").read_text(), re.MULTILINE)
    assert {name for line in copied for name in line.split()} == seen


# The unit of systemd.


@pytest.fixture
def unit(tmp_path: Path) -> Path:
    """The unit, with a program that is there."""
    text = _UNIT.read_text()
    assert "ExecStart=/opt/wasm-mirror/bin/wasm-mirror serve" in text
    place = tmp_path / _UNIT.name
    place.write_text(text.replace("/opt/wasm-mirror/bin/", f"{Path(sys.executable).parent}/"))
    return place


def analyzed(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [require("systemd-analyze"), *arguments],
        capture_output=True,
        text=True,
        env={**os.environ, "LC_ALL": "C", "SYSTEMD_COLORS": "0"},
    )


@pytest.mark.needs("systemd-analyze")
def test_systemd_has_nothing_against_the_unit(unit: Path) -> None:
    done = analyzed("verify", "--man=no", unit)
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.needs("systemd-analyze")
def test_the_unit_shuts_the_mirror_away(unit: Path) -> None:
    done = analyzed("security", "--offline=true", f"--threshold={_MOST_EXPOSED}", unit)
    assert done.returncode == 0, done.stdout[-500:]


def test_systemd_waits_longer_for_the_mirror_than_the_mirror_for_its_clients() -> None:
    parser = configparser.ConfigParser(strict=False, interpolation=None)
    parser.optionxform = str  # type: ignore[assignment,method-assign] # keys of systemd have capitals
    parser.read(_UNIT)
    assert float(parser["Service"]["TimeoutStopSec"]) > goodbye(load(_ROOT / "config" / "minimal.yaml", {}, {}))


# The file for compose.


def compose() -> dict[str, Any]:
    loaded: dict[str, Any] = yaml.safe_load(_COMPOSE.read_text())
    return loaded


def goodbye(settings: Settings) -> float:
    """Seconds that the mirror takes at most to stop."""
    return settings.drain_for + settings.stop_within


@pytest.mark.needs("compose-schema")
def test_the_compose_file_is_one() -> None:
    schema = json.loads(require("compose-schema").read_text())
    validator = jsonschema.Draft202012Validator(schema)
    assert [error.message for error in validator.iter_errors(compose())] == []


def test_the_mirror_takes_the_settings_of_the_compose_file() -> None:
    mirror = compose()["services"]["mirror"]
    warnings: list[str] = []
    image = {"WASM_MIRROR_LISTEN": "0.0.0.0:8080", "WASM_MIRROR_DATA_DIR": "/var/lib/wasm-mirror"}
    settings = load(_ROOT / "config" / "minimal.yaml", {**image, **mirror["environment"]}, {}, warnings)
    assert settings.metadata.url == "redis://redis:6379"
    assert settings.admin.token_file is not None
    assert not settings.cannot_host
    assert [words for words in warnings if "token travels" not in words] == []
    assert parse_duration(mirror["stop_grace_period"]) > goodbye(settings)


def test_what_the_compose_file_names_is_in_it() -> None:
    whole = compose()
    services = whole["services"]
    mirror = services["mirror"]
    files = {f"/run/secrets/{name}" for name in mirror["secrets"]}
    named = {value for name, value in mirror["environment"].items() if name.endswith("_FILE")}
    assert named == files
    assert set(mirror["secrets"]) == whole["secrets"].keys()
    volumes = {volume.partition(":")[0] for service in services.values() for volume in service["volumes"]}
    assert volumes == whole["volumes"].keys()
    assert mirror["volumes"] == ["blobs:/var/lib/wasm-mirror"]


@pytest.mark.parametrize("name", ["mirror", "redis"])
def test_its_containers_may_do_nothing_that_they_need_not(name: str) -> None:
    service = compose()["services"][name]
    assert service["read_only"] is True
    assert service["cap_drop"] == ["ALL"]
    assert service["security_opt"] == ["no-new-privileges:true"]


def test_the_steps_to_its_secrets_give_the_files_that_it_names(tmp_path: Path) -> None:
    steps = list(_steps())
    assert steps[-1].startswith("docker compose --file config/compose.yaml up")
    (tmp_path / "config").mkdir()
    subprocess.run(["sh", "-euc", "\n".join(steps[:-1])], cwd=tmp_path, check=True)
    for secret in compose()["secrets"].values():
        assert len((tmp_path / "config" / secret["file"]).read_text().strip()) == 64
    assert (tmp_path / "config" / "secrets").stat().st_mode & 0o777 == 0o700, "only its owner finds them"


def _steps() -> Iterator[str]:
    """The commands in the comment that the file begins with."""
    for line in _COMPOSE.read_text().splitlines():
        if match := re.fullmatch(r"#   (.+)", line):
            assert shlex.split(match[1])
            yield match[1]


@pytest.mark.needs("systemd-analyze")
def test_systemd_takes_the_drop_in_that_the_page_shows(unit: Path) -> None:
    page = (_ROOT / "docs" / "installing.md").read_text()
    (shown,) = re.findall(r"<!-- unit: a drop-in -->\n```ini\n(.*?)```", page, re.DOTALL)
    unit.write_text(f"{unit.read_text()}\n{shown}")
    done = analyzed("verify", "--man=no", unit)
    assert (done.returncode, done.stderr) == (0, "")
