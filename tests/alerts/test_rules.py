"""The rules of alerts are Prometheus', fire when they should, name what we expose; each has a section of its page."""

import re
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import yaml

from mirror.metrics import PREFIX
from tests.alerts.expressions import check, declared, promtool

_ROOT = Path(__file__).parents[2]
_FILE = _ROOT / "charts" / "wasm-mirror" / "rules" / "wasm-mirror.yaml"
_UNIT_TESTS = Path(__file__).with_name("rules_test.yaml")
_PAGE = (_ROOT / "docs" / "alerts.md").read_text()
_RULES: list[dict[str, Any]] = [
    rule for group in yaml.safe_load(_FILE.read_text())["groups"] for rule in group["rules"]
]
_NAMES = [rule["alert"] for rule in _RULES]
_SECTIONS = {name: text for name, text in re.findall(r"^## (\w+)\n(.*?)(?=^## |\Z)", _PAGE, re.MULTILINE | re.DOTALL)}


@cache
def expected() -> list[dict[str, str]]:
    """The labels of what the unit tests see firing."""
    tests = yaml.safe_load(_UNIT_TESTS.read_text())["tests"]
    samples = [one for test in tests for asked in test["promql_expr_test"] for one in asked.get("exp_samples", [])]
    return [dict(re.findall(r'(\w+)="([^"]*)"', sample["labels"])) for sample in samples]


@pytest.mark.needs("promtool")
def test_prometheus_takes_the_rules_and_finds_no_fault_with_them() -> None:
    promtool("check", "rules", "--lint-fatal", str(_FILE))


@pytest.mark.needs("promtool")
def test_each_alert_fires_when_it_should_and_no_other_one_does() -> None:
    promtool("test", "rules", str(_UNIT_TESTS))


def test_every_alert_is_seen_firing_by_a_unit_test() -> None:
    assert {one["alertname"] for one in expected()} == set(_NAMES)
    assert len(set(_NAMES)) == len(_NAMES)


@pytest.mark.parametrize("rule", _RULES, ids=_NAMES)
def test_a_rule_names_metrics_labels_and_values_that_we_expose(rule: dict[str, Any]) -> None:
    check(rule["expr"])


@pytest.mark.parametrize("rule", _RULES, ids=_NAMES)
def test_what_an_alert_says_is_filled_in_by_labels_that_it_has(rule: dict[str, Any]) -> None:
    fired = [set(one) for one in expected() if one["alertname"] == rule["alert"]]
    assert rule["annotations"].keys() == {"summary", "description", "runbook"}
    assert set(rule["labels"]) == {"severity"}
    assert rule["labels"]["severity"] in ("critical", "warning")
    for text in rule["annotations"].values():
        for label in re.findall(r"\$labels\.(\w+)", text):
            assert all(label in labels for labels in fired), f"{rule['alert']} has no label {label}"


def test_the_page_has_a_section_for_each_alert_and_none_for_others() -> None:
    assert list(_SECTIONS) == _NAMES
    for name, text in _SECTIONS.items():
        assert re.findall(r"^\*\*([^*]+)\.\*\*", text, re.MULTILINE) == ["Means", "Look at", "Mend"], name


def test_the_page_lists_the_alerts_with_their_severity_and_alerts_lead_to_the_page() -> None:
    listed = re.findall(r"^\| \[(\w+)\]\(#(\w+)\) \| (\w+) \|", _PAGE, re.MULTILINE)
    assert listed == [(rule["alert"], rule["alert"].lower(), rule["labels"]["severity"]) for rule in _RULES]
    for rule in _RULES:
        assert rule["annotations"]["runbook"] == f"docs/alerts.md#{rule['alert'].lower()}"


def test_every_metric_that_the_page_names_is_one_that_we_expose() -> None:
    for name in re.findall(rf"{PREFIX}\w+", _PAGE):
        declared(name)
