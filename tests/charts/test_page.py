"""docs/kubernetes.md: its values are taken, its commands name what there is, and its figures are the chart's."""

import re
import shlex
from pathlib import Path
from typing import Any

import pytest
import yaml
from click.testing import CliRunner

from mirror.cli import main
from mirror.config.values import parse_size
from tests.charts.settings import container, effective, secret_paths
from tests.support.helm import CHART, Objects, helm, one, rendered
from tests.support.tools import KUBERNETES

pytestmark = [pytest.mark.needs("helm"), pytest.mark.integration]

PAGE = (CHART.parents[1] / "docs" / "kubernetes.md").read_text()
VALUES: dict[str, Any] = {
    name: yaml.safe_load(text)
    for name, text in re.findall(r"<!-- values: (.*?) -->\n```yaml\n(.*?)```", PAGE, re.DOTALL)
}
COMMANDS = [
    shlex.split(line, comments=True)
    for block in re.findall(r"```sh\n(.*?)```", PAGE, re.DOTALL)
    for line in block.splitlines()
]
RELEASE = {"fullnameOverride": "wasm-mirror"}  # what Helm makes of a release of that name


@pytest.mark.parametrize("name", VALUES)
def test_the_values_that_it_shows_are_taken_by_the_chart_and_by_the_mirror(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert effective(rendered(VALUES[name]), tmp_path, monkeypatch)


def test_its_helm_commands_are_understood(tmp_path: Path) -> None:
    (tmp_path / "values.yaml").write_text(yaml.safe_dump(VALUES["a mesh that depends on it"]))
    shown = [words for words in COMMANDS if words[0] == "helm"]
    assert len(shown) == 4
    for _, verb, *words in shown:
        if verb == "test":
            assert helm("test", "--help", *words[1:]).returncode == 0
            continue
        assert verb in ("install", "upgrade")
        rest = [str(tmp_path / word) if word == "values.yaml" else word for word in words]
        rest = [
            str(CHART) if word == "charts/wasm-mirror" else word for word in rest if word not in ("--install", "--wait")
        ]
        done = helm("template", *rest, "--kube-version", KUBERNETES)
        assert done.returncode == 0, done.stderr
        assert "name: wasm-mirror-admin" in done.stdout


def test_its_kubectl_commands_name_what_the_chart_makes() -> None:
    objects = rendered(RELEASE, namespace="istio-system")
    shown = [words for words in COMMANDS if words[0] == "kubectl"]
    assert len(shown) + 4 == len(COMMANDS)
    for words in shown:
        assert words[1:3] == ["-n", "istio-system"]
        match [word for word in words[3:] if word != "-i"]:
            case ["exec", "wasm-mirror-0", "-c", "mirror", "--", "wasm-mirror", command, *_]:
                assert container(objects)["name"] == "mirror"
                assert CliRunner().invoke(main, [command, "--help"]).exit_code == 0
            case ["create", "secret", "generic", name, literal]:
                key = literal.removeprefix("--from-literal=").partition("=")[0]
                assert (name, key) in secret_paths(rendered(VALUES["existing Secrets"])).values()
            case ["patch", "pvc", claim, *_]:
                (template,) = one(objects, "StatefulSet")["spec"]["volumeClaimTemplates"]
                assert claim == f"{template['metadata']['name']}-wasm-mirror-0"
            case ["delete", "statefulset", name, "--cascade=orphan"]:
                assert one(objects, "StatefulSet")["metadata"]["name"] == name
            case ["logs", name]:
                job = one(rendered(VALUES["warmed"] | RELEASE, namespace="istio-system"), "Job")
                assert name == f"job/{job['metadata']['name']}"
            case other:
                pytest.fail(f"nothing holds {other} against the chart")


def test_with_existing_secrets_nothing_is_made() -> None:
    assert [each for each in rendered(VALUES["existing Secrets"]) if each["kind"] == "Secret"] == []


def test_on_openshift_the_platform_chooses_the_user() -> None:
    for workload in with_pods(rendered(VALUES["OpenShift"])):
        context = workload["spec"]["template"]["spec"]["securityContext"]
        assert context["runAsNonRoot"] is True
        assert not {"runAsUser", "runAsGroup", "fsGroup"} & context.keys()


def with_pods(objects: Objects) -> Objects:
    found = [each for each in objects if "template" in each.get("spec", {})]
    assert found
    return found


def test_its_figures_are_the_defaults(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    objects = rendered(RELEASE, namespace="istio-system")
    (claim,) = one(objects, "StatefulSet")["spec"]["volumeClaimTemplates"]
    assert claim["spec"]["resources"]["requests"]["storage"] == "20Gi"
    assert "a volume of 20 GiB" in PAGE
    settings = effective(objects, tmp_path, monkeypatch)
    assert parse_size(settings["cache"]["max_size"]) == 0.85 * parse_size("20GiB")
    assert "The mirror takes 85 % of it" in PAGE
    resources = container(objects)["resources"]
    assert (resources["requests"], resources["limits"]) == ({"cpu": "100m", "memory": "256Mi"}, {"memory": "512Mi"})
    assert "| 256 MiB, limit 512 MiB |" in PAGE
    assert "wasm-mirror.istio-system:8080" in settings["names"]
    assert "oci://wasm-mirror.istio-system:8080/ghcr.io/" in PAGE
    assert "ten seconds more to end" in PAGE
    assert one(objects, "StatefulSet")["spec"]["template"]["spec"]["terminationGracePeriodSeconds"] == 15 + 35 + 10


def test_the_name_that_it_uses_is_that_of_a_release_called_so() -> None:
    done = helm(
        "template", "wasm-mirror", CHART, "--kube-version", KUBERNETES, "--show-only", "templates/statefulset.yaml"
    )
    assert yaml.safe_load(done.stdout)["metadata"]["name"] == RELEASE["fullnameOverride"]
