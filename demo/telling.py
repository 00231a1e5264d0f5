"""How the demo tells what it does: a line for each step, with what was seen."""

import re
from collections.abc import Mapping


class Unexpected(Exception):
    """A step did not show what it was to show; it has been told."""


def saw(done: str, seen: object, *wanted: object) -> None:
    """Tell a step and what was seen; raise `Unexpected` unless that is one of ``wanted``, or none are named."""
    right = not wanted or seen in wanted
    told = f"{seen}" if right else f"{seen}, where it should be {' or '.join(map(str, wanted))}"
    print(f"{'ok' if right else 'FAILED':<8}{done}: {told}", flush=True)
    if not right:
        raise Unexpected(done)


def numbers(metrics: str, *names: str) -> dict[str, float]:
    """The numbers of these metrics in Prometheus' text format that are not 0, by name with labels."""
    lines = re.findall(rf"^((?:{'|'.join(names)})(?:{{.*}})?) (\S+)$", metrics, re.MULTILINE)
    return {series: float(value) for series, value in lines if float(value)}


def show(title: str, found: Mapping[str, float]) -> None:
    """Tell numbers, one a line."""
    print(f"\n{title}")
    for series, value in sorted(found.items()):
        print(f"  {series} {value:g}")
    print(end="", flush=True)
