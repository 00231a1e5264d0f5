"""What Helm prints after an install: the agent's URL, the next command, and what one has to know."""

import json
import re
import shutil
from pathlib import Path
from typing import Any

import pytest
import yaml
from click.testing import CliRunner

from mirror.cli import main
from tests.support.helm import CHART, NAMESPACE, RELEASE, helm
from tests.support.tools import KUBERNETES

pytestmark = [pytest.mark.needs("helm"), pytest.mark.integration]

# Helm prints notes only of what it installs; this has it render them into an object.
_NOTES = """\
apiVersion: v1
kind: ConfigMap
data:
  notes: {{ include "wasm-mirror/templates/NOTES.txt" . | toJson }}
"""


@pytest.fixture(scope="module")
def chart(tmp_path_factory: pytest.TempPathFactory) -> Path:
    copy = tmp_path_factory.mktemp("chart") / "wasm-mirror"
    shutil.copytree(CHART, copy)
    (copy / "templates" / "notes.yaml").write_text(_NOTES)
    return copy


def notes(chart: Path, values: dict[str, Any]) -> str:
    where = ("--namespace", NAMESPACE, "--kube-version", KUBERNETES, "--show-only", "templates/notes.yaml")
    done = helm("template", RELEASE, chart, *where, "--values", "-", stdin=json.dumps(values))
    assert done.returncode == 0, done.stderr
    found: str = yaml.safe_load(done.stdout)["data"]["notes"]
    return found


def test_they_say_the_agents_url_the_next_command_and_that_an_upgrade_is_a_gap(chart: Path) -> None:
    words = notes(chart, {})
    assert "oci://mirror-wasm-mirror.mesh:8080/ghcr.io/team/plugin:1.0" in words
    (command,) = re.findall(r"-- wasm-mirror (\w+) ghcr\.io/team/plugin:1\.0", words)
    assert CliRunner().invoke(main, [command, "--help"]).exit_code == 0
    assert "There is one replica: while it is upgraded, or its node is, nothing answers." in words
    assert "get secret mirror-wasm-mirror-admin -o go-template='{{index .data \"token\" | base64decode}}'" in words
    assert "on one disk, and nowhere else" in words
    assert "Nobody may push" in words
    assert "set admin.existingSecret.\n" in words


def test_they_say_only_what_is_so(chart: Path) -> None:
    words = notes(
        chart,
        {
            "replicas": 2,
            "redis": {"url": "redis://redis.databases"},
            "cluster": {"existingSecret": "peers"},
            "admin": {"existingSecret": "admin", "port": 9090},
            "auth": {"existingSecret": "users"},
            "tls": {"existingSecret": "tls"},
            "service": {"port": 443},
            "config": {"upstreams": {"corp.example": {}}},
        },
    )
    assert "oci://mirror-wasm-mirror.mesh/corp.example/team/plugin:1.0" in words
    assert "https://127.0.0.1:9090/" in words
    assert "SSL_CERT_FILE=/run/secrets/wasm-mirror/tls/ca.crt" in words
    assert "*.mirror-wasm-mirror-peers.mesh.svc.cluster.local" in words
    for absent in ("one replica", "one disk", "Nobody may push", "public registries", "Secrets were made", "8080"):
        assert absent not in words


def test_they_say_how_users_get_their_passwords_and_what_goes_with_a_pod(chart: Path) -> None:
    words = notes(chart, {"auth": {"users": ["ci"]}, "persistence": {"enabled": False}})
    assert 'index .data "password-ci" | base64decode' in words
    assert "There is no volume: what a replica holds goes with its pod" in words
    assert "admin.existingSecret, auth.existingSecret" in words


def test_replicas_without_a_redis_are_told_that_each_is_for_itself(chart: Path) -> None:
    words = notes(chart, {"replicas": 2, "config": {"hosted": {"enabled": False}}})
    assert "The 2 replicas have no Redis: each fetches for itself" in words
    assert "pushed" not in words
