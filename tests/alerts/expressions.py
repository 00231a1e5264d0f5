"""PromQL, as far as it has to be read to know which metrics and labels it names."""

import re
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass

from mirror.metrics import BUILD_INFO, DECLARED, PREFIX, Declared, Kind
from tests.support.tools import require

BY_PROMETHEUS = frozenset({"job", "instance", "le"})
"""Labels that no declaration has: where a number was scraped, and the bound of a bucket."""

_BY_NAME = {PREFIX + one.name: one for one in DECLARED}
_SELECTED = re.compile(rf"({PREFIX}\w+)(?:\{{([^}}]*)\}})?")
_MATCHER = re.compile(r'(\w+)\s*(=~|!~|!=|=)\s*"([^"]*)"')
_GROUPED = re.compile(r"\b(?:by|on) \(([^)]*)\)")


@dataclass(frozen=True)
class Matcher:
    """``label="value"``; ``values`` are what it names of them."""

    label: str
    values: tuple[str, ...]


def declared(name: str) -> Declared:
    """The metric that a series belongs to; an error where we expose none of that name."""
    found = _BY_NAME.get(name) or _BY_NAME.get(re.sub(r"_(bucket|sum|count)$", "", name))
    assert found is not None, f"{name} does not exist"
    assert found.kind is Kind.HISTOGRAM or name in _BY_NAME, f"{name} is no histogram"
    return found


def selected(expression: str) -> Iterator[tuple[Declared, list[Matcher]]]:
    """Our metrics in an expression, with the labels that each is asked for by."""
    for name, matchers in _SELECTED.findall(expression):
        found = [Matcher(label, tuple(re.split(r"\|", text))) for label, _, text in _MATCHER.findall(matchers)]
        assert len(found) == matchers.count('"') // 2, f"{matchers} cannot be read"
        assert _BY_NAME.get(name, BUILD_INFO).kind is not Kind.HISTOGRAM, f"{name} has no number of its own"
        yield declared(name), found


def check(expression: str) -> None:
    """Every metric, label and value that an expression names is one that we expose."""
    labels = set(BY_PROMETHEUS)
    for metric, matchers in selected(expression):
        labels |= set(metric.labels)
        for one in matchers:
            assert one.label in (*metric.labels, *BY_PROMETHEUS), (
                f"{metric.name} has no label {one.label}: {expression}"
            )
            if metric.values and one.label == metric.labels[-1]:
                assert set(one.values) <= set(metric.values), f"{metric.name} has no {one.label} {one.values}"
    grouped = {label.strip() for by in _GROUPED.findall(expression) for label in by.split(",")}
    assert grouped <= labels, f"{grouped - labels} is no label of what is summed: {expression}"


def promtool(*arguments: str) -> None:
    """Run it; what it complains of is a failure."""
    done = subprocess.run([require("promtool"), *arguments], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stdout + done.stderr
