"""How the demo tells what it does: a line for each step, with what was seen; then the numbers."""

import re
from collections.abc import Mapping, Sequence


class Unexpected(Exception):
    """A step did not show what it was to show; it has been told."""


def say(text: str = "") -> None:
    """Tell something that is no step."""
    print(text, flush=True)


def saw(done: str, seen: object, wanted: object = None) -> None:
    """Tell a step and what was seen; raise `Unexpected` where that is not what was ``wanted``, if anything was."""
    if wanted is None or seen == wanted:
        say(f"ok      {done}: {seen}")
        return
    say(f"FAILED  {done}: {seen}, where it should be {wanted}")
    raise Unexpected(done)


def numbers(metrics: str, *names: str) -> dict[str, float]:
    """The numbers of these metrics, in Prometheus' text format, by name with labels."""
    lines = re.findall(rf"^((?:{'|'.join(names)})(?:{{.*}})?) (\S+)$", metrics, re.MULTILINE)
    return {series: float(value) for series, value in lines}


def show(titles: Sequence[str], columns: Sequence[Mapping[str, float]]) -> None:
    """Tell numbers as a table: a column for each of ``titles``, a line for each name with a number that is not 0."""
    say()
    say("  ".join(titles))
    for name in sorted({name for column in columns for name, value in column.items() if value}):
        found = [f"{column.get(name, 0):g}".rjust(len(title)) for title, column in zip(titles, columns, strict=True)]
        say("  ".join([*found, name]))
