"""What ``/metrics`` tells, read by Prometheus' own parser."""

from collections.abc import Mapping
from dataclasses import dataclass

from prometheus_client.parser import text_string_to_metric_families

PREFIX = "wasm_mirror_"


@dataclass(frozen=True)
class Sample:
    """One line."""

    name: str
    labels: Mapping[str, str]
    value: float


@dataclass(frozen=True)
class Scrape:
    """All samples of an answer. Names are given and asked for without the prefix."""

    samples: tuple[Sample, ...]
    kinds: Mapping[str, str]
    """The type of each metric, by its name; that of a counter ends with _total."""

    @classmethod
    def of(cls, body: bytes) -> "Scrape":
        """Parse; raises when this is not Prometheus' text format, or has a name without our prefix."""
        samples, kinds = [], {}
        for family in text_string_to_metric_families(body.decode()):
            name = family.name + ("_total" if family.type == "counter" else "")
            kinds[_plain(name)] = family.type
            samples += [Sample(_plain(one.name), one.labels, one.value) for one in family.samples]
        keys = [(one.name, *sorted(one.labels.items())) for one in samples]
        assert len(set(keys)) == len(keys), "a sample stands twice"
        return cls(tuple(samples), kinds)

    def sum(self, name: str, **labels: str) -> float:
        """The sum of all samples with these labels; 0 where there are none."""
        return sum(one.value for one in self.samples if one.name == name and labels.items() <= one.labels.items())

    def by(self, label: str, name: str, **labels: str) -> dict[str, float]:
        """The samples with these labels that are not 0, added up for each value of ``label``."""
        values = {one.labels[label] for one in self.samples if one.name == name}
        found = {value: self.sum(name, **labels, **{label: value}) for value in sorted(values)}
        return {value: number for value, number in found.items() if number}


def _plain(name: str) -> str:
    assert name.startswith(PREFIX), name
    return name.removeprefix(PREFIX)
