"""What watches the mirror: every replica once, the alerts and the dashboard as their files have them; and what keeps
most replicas up while nodes are drained.
"""

import json
from typing import Any

import pytest
import yaml

from tests.support.helm import CHART, Objects, one, rendered

pytestmark = [pytest.mark.needs("helm"), pytest.mark.integration]

MONITORED = {"serviceMonitor": {"enabled": True}}


def file_of(name: str) -> Objects:
    return rendered(file=CHART / "ci" / f"{name}-values.yaml")


def matching(objects: Objects, monitor: dict[str, Any], kind: str) -> Objects:
    """The objects, or their pods, that a monitor selects by their labels."""
    wanted = monitor["spec"]["selector"]["matchLabels"].items()
    found = [value for value in objects if value["kind"] == kind]
    pods = [value["spec"]["template"] for value in objects if "template" in value.get("spec", {})]
    return [value for value in (pods if kind == "Pod" else found) if wanted <= value["metadata"]["labels"].items()]


@pytest.mark.parametrize(
    "values",
    [
        {},
        {"admin": {"port": 9090}},
        {"tls": {"existingSecret": "own"}},
        {"tls": {"existingSecret": "own", "caKey": ""}},
    ],
    ids=["plain", "admin", "tls", "public"],
)
def test_prometheus_finds_each_replica_once_where_metrics_are(values: dict[str, Any]) -> None:
    objects = rendered(values | MONITORED)
    monitor = one(objects, "ServiceMonitor")
    (service,) = matching(objects, monitor, "Service")
    assert service["spec"].get("clusterIP") != "None"
    (endpoint,) = monitor["spec"]["endpoints"]
    (port,) = [port for port in service["spec"]["ports"] if port["name"] == endpoint["port"]]
    assert port["port"] == values.get("admin", {}).get("port", 8080)
    assert (endpoint["path"], endpoint["interval"]) == ("/metrics", "30s")
    if "tls" not in values:
        assert not endpoint.keys() & {"scheme", "tlsConfig"}
        return
    assert endpoint["scheme"] == "https"
    assert endpoint["tlsConfig"]["serverName"] == "mirror-wasm-mirror.mesh.svc"
    authority = {"secret": {"name": "own", "key": "ca.crt"}} if values["tls"].get("caKey", "ca.crt") else None
    assert endpoint["tlsConfig"].get("ca") == authority


def test_a_pod_monitor_finds_the_mirrors_and_no_other_pod() -> None:
    objects = rendered({"replicas": 2, "redis": {"bundled": {"enabled": True}}, **file_values("warmed")})
    monitor = one(objects, "PodMonitor")
    (pod,) = matching(objects, monitor, "Pod")
    (endpoint,) = monitor["spec"]["podMetricsEndpoints"]
    assert endpoint["port"] in [port["name"] for port in pod["spec"]["containers"][0]["ports"]]
    assert (endpoint["interval"], endpoint["scrapeTimeout"]) == ("1m", "20s")
    assert endpoint["relabelings"]
    assert endpoint["metricRelabelings"]
    assert monitor["metadata"]["labels"]["release"] == "kube-prometheus-stack"


def file_values(name: str) -> dict[str, Any]:
    found = yaml.safe_load((CHART / "ci" / f"{name}-values.yaml").read_text())
    assert isinstance(found, dict)
    return found


def test_the_alerts_are_those_of_the_file_word_by_word_but_those_that_are_left_out() -> None:
    ours = yaml.safe_load((CHART / "rules" / "wasm-mirror.yaml").read_text())
    assert one(file_of("everything"), "PrometheusRule")["spec"] == ours
    rule = one(file_of("warmed"), "PrometheusRule")
    (group,) = ours["groups"]
    left = [alert for alert in group["rules"] if alert["alert"] != "WasmMirrorArtifactRefused"]
    assert len(left) == len(group["rules"]) - 1
    assert rule["spec"]["groups"] == [{"name": "wasm-mirror", "rules": left}]
    assert rule["metadata"]["labels"]["release"] == "kube-prometheus-stack"


def test_the_dashboard_is_that_of_the_file_where_the_sidecar_looks() -> None:
    found = one(file_of("warmed"), "ConfigMap", "mirror-wasm-mirror-dashboard")
    assert found["metadata"]["labels"]["grafana_dashboard"] == "1"
    assert found["metadata"]["annotations"] == {"grafana_folder": "Mesh"}
    assert found["metadata"]["namespace"] == "monitoring"
    ((name, text),) = found["data"].items()
    assert name.endswith(".json")
    assert json.loads(text) == json.loads((CHART / "dashboards" / "wasm-mirror.json").read_text())
    assert len(json.dumps(found)) < 1 << 20, "a ConfigMap may have a mebibyte"


def test_a_budget_is_for_several_replicas_and_lets_go_of_one_at_a_time() -> None:
    several = {"replicas": 3, "redis": {"url": "redis://r:6379"}}
    objects = rendered(several)
    budget = one(objects, "PodDisruptionBudget")["spec"]
    pod = one(objects, "StatefulSet")["spec"]["template"]["metadata"]["labels"]
    assert (budget["maxUnavailable"], "minAvailable" in budget) == (1, False)
    assert budget["selector"]["matchLabels"].items() <= pod.items()
    for values in ({}, {**several, "podDisruptionBudget": {"enabled": False}}):
        assert "PodDisruptionBudget" not in {value["kind"] for value in rendered(values)}


def test_what_watches_is_left_out_unless_it_is_asked_for() -> None:
    kinds = {value["kind"] for value in rendered()}
    assert not kinds & {"ServiceMonitor", "PodMonitor", "PrometheusRule"}
    assert len([value for value in rendered() if value["kind"] == "ConfigMap"]) == 1
