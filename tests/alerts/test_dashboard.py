"""The dashboard can be imported into any Grafana, and asks for what we expose."""

import itertools
import json
import re
from pathlib import Path
from typing import Any

import pytest

from mirror.metrics import DECLARED, PREFIX
from tests.alerts.expressions import check, promtool

_FILE = Path(__file__).parents[2] / "charts" / "wasm-mirror" / "dashboards" / "wasm-mirror.json"
_DASHBOARD: dict[str, Any] = json.loads(_FILE.read_text())
_PANELS: list[dict[str, Any]] = _DASHBOARD["panels"]
_SHOWN = [panel for panel in _PANELS if panel["type"] != "row"]
_SOURCE = {"type": "prometheus", "uid": "${datasource}"}
_VARIABLES = {variable["name"]: variable for variable in _DASHBOARD["templating"]["list"]}
_BUILT_IN = {"__rate_interval", "__all"}


def expressions(panel: dict[str, Any]) -> list[str]:
    """What a panel asks Prometheus, its variables filled in."""
    return [re.sub(r"\$__rate_interval", "5m", target["expr"]) for target in panel["targets"]]


def test_panels_have_ids_of_their_own_and_titles() -> None:
    ids = [panel["id"] for panel in _PANELS]
    assert sorted(ids) == list(range(1, len(ids) + 1))
    assert len({panel["title"] for panel in _SHOWN if panel["type"] == "timeseries"}) == sum(
        panel["type"] == "timeseries" for panel in _SHOWN
    )


def test_no_panel_lies_over_another_or_beside_the_page() -> None:
    places = [(panel["title"], panel["gridPos"]) for panel in _PANELS]
    for title, place in places:
        assert place["x"] >= 0, title
        assert place["x"] + place["w"] <= 24, title
    for (one, a), (other, b) in itertools.combinations(places, 2):
        beside = a["x"] + a["w"] <= b["x"] or b["x"] + b["w"] <= a["x"]
        above = a["y"] + a["h"] <= b["y"] or b["y"] + b["h"] <= a["y"]
        assert beside or above, f"{one} and {other}"


def test_every_panel_and_target_asks_the_prometheus_that_was_chosen() -> None:
    assert _VARIABLES["datasource"]["type"] == "datasource"
    assert _VARIABLES["datasource"]["query"] == "prometheus"
    asked = [*_SHOWN, *(target for panel in _SHOWN for target in panel["targets"])]
    asked += [variable for variable in _VARIABLES.values() if variable["type"] == "query"]
    asked += _DASHBOARD["annotations"]["list"]
    assert [one for one in asked if one["datasource"] != _SOURCE] == []
    assert "__inputs" not in _DASHBOARD  # it names no data source of whoever has made it


def test_only_variables_that_exist_are_used() -> None:
    used = set(re.findall(r"\$\{?(\w+)", _FILE.read_text()))
    assert used == set(_VARIABLES) | _BUILT_IN


@pytest.mark.parametrize("panel", _SHOWN, ids=lambda panel: panel["title"])
def test_a_panel_names_metrics_labels_and_values_that_we_expose(panel: dict[str, Any]) -> None:
    assert len({target["refId"] for target in panel["targets"]}) == len(panel["targets"])
    for expression in expressions(panel):
        assert PREFIX in expression
        check(expression)


@pytest.mark.needs("promtool")
def test_prometheus_can_read_what_it_is_asked(tmp_path: Path) -> None:
    asked = [expression for panel in _SHOWN for expression in expressions(panel)]
    rules = [{"record": f"asked:{number}", "expr": expression} for number, expression in enumerate(asked)]
    file = tmp_path / "asked.yaml"
    file.write_text(json.dumps({"groups": [{"name": "asked", "rules": rules}]}))
    promtool("check", "rules", str(file))


@pytest.mark.parametrize("panel", _SHOWN, ids=lambda panel: panel["title"])
def test_a_legend_names_labels_that_are_left(panel: dict[str, Any]) -> None:
    for target in panel["targets"]:
        grouped = re.findall(r"by \(([^)]*)\)", target["expr"])
        left = {label.strip() for by in grouped for label in by.split(",")} - {"le"}
        if grouped or target["expr"].startswith("sum("):
            assert set(re.findall(r"\{\{(\w+)\}\}", target["legendFormat"])) <= left, target["expr"]


def test_every_metric_is_on_the_dashboard() -> None:
    text = _FILE.read_text()
    assert [one.name for one in DECLARED if PREFIX + one.name not in text] == []
