"""docs/metrics.md says of the metrics what is so: all of them, none that is not, with labels that they have."""

import re
from pathlib import Path

from mirror.metrics import DECLARED, PREFIX, Declared, Kind

_PAGE = (Path(__file__).parents[2] / "docs" / "metrics.md").read_text()
_BY_NAME = {PREFIX + one.name: one for one in DECLARED}
_EXPRESSIONS = re.findall(r"```promql\n(.*?)```", _PAGE, re.DOTALL)


def row(one: Declared) -> str:
    """A metric's line in the table of all."""
    cells = [f"`{PREFIX}{one.name}`", one.kind.value, ", ".join(f"`{label}`" for label in one.labels), one.help]
    return "| " + " | ".join(cells).replace("|  |", "| |") + " |"


def declared(name: str) -> Declared:
    """The metric that a series belongs to."""
    found = _BY_NAME.get(name) or _BY_NAME.get(re.sub(r"_(bucket|sum|count)$", "", name))
    assert found is not None, f"docs/metrics.md names {name}, which does not exist"
    assert found.kind is Kind.HISTOGRAM or name in _BY_NAME, f"{name} is no histogram"
    return found


def test_the_page_lists_all_metrics_as_they_are_declared() -> None:
    listed = re.findall(rf"^\| `{PREFIX}\w+` \| .*", _PAGE, re.MULTILINE)
    assert listed == [row(one) for one in DECLARED]


def test_every_metric_that_the_page_names_exists() -> None:
    for name in re.findall(rf"{PREFIX}\w+", _PAGE):
        declared(name)


def test_every_label_in_the_page_is_one_and_has_such_a_value() -> None:
    selected = re.findall(rf'({PREFIX}\w+)\{{(\w+)(?:(?:=~?|!=)"([^"]*)")?\}}', _PAGE)
    assert len(selected) >= 10
    for name, label, values in selected:
        one = declared(name)
        assert label in one.labels, f"{name} has no label {label}"
        if one.values:
            assert set(filter(None, values.split("|"))) <= set(one.values), f"{name} has no {label} {values}"


def test_expressions_join_by_labels_that_their_metrics_have() -> None:
    assert len(_EXPRESSIONS) >= 10
    for text in _EXPRESSIONS:
        assert text.count("(") == text.count(")")
        assert text.count("{") == text.count("}")
        labels = {label for name in re.findall(rf"{PREFIX}\w+", text) for label in declared(name).labels} | {"le"}
        joined = {label for by in re.findall(r"\bby \(([^)]*)\)", text) for label in re.split(r",\s*", by)}
        assert joined <= labels or "istio_agent_" in text, text
