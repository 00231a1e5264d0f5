"""What became of many references: a line for each as soon as it is known, and all of them in one at the end."""

from collections import Counter
from collections.abc import Collection, Iterable, Mapping

import click

from mirror.commands import text
from mirror.commands.answers import Result, read
from mirror.commands.screen import DONE, FAILED, Screen

_WIDE = 9  # signs of the longest word for a result
_WIDEST = 64  # signs of a reference, beyond which the next column moves


class Outcomes:
    """Results as they come. ``good``: the words for what was asked for; ``references``: those that will be shown, and
    ``where`` each of them was found, which is said of those that are not good.
    """

    def __init__(
        self,
        screen: Screen,
        good: Collection[str],
        references: Iterable[str] = (),
        where: Mapping[str, str] | None = None,
    ) -> None:
        self.counts: Counter[str] = Counter()
        self.bytes = 0
        self.replicas: set[str] = set()
        self._screen = screen
        self._good = frozenset(good)
        self._where = where or {}
        self._width = min(_WIDEST, max((len(text.escaped(one)) for one in references), default=0))

    def add(self, document: Mapping[str, object]) -> Result:
        """Take in a result, as the mirror sent it, and print it."""
        result = self.count(document)
        self._screen.tell(
            document if (where := self._where.get(result.reference)) is None else {**document, "where": where}
        )
        self._screen.say(self.line(result))
        return result

    def count(self, document: Mapping[str, object]) -> Result:
        """Take in a result without printing it."""
        result = read(Result, document)
        self.counts[result.result] += 1
        self.bytes += result.bytes or 0
        if result.replica is not None:
            self.replicas.add(result.replica)
        return result

    def failed(self, reference: str, why: str, result: str) -> None:
        """Note and print what no mirror was asked about."""
        self.add({"reference": reference, "result": result, "why": why})

    def line(self, result: Result) -> str:
        """A result in words."""
        word = click.style(f"{text.escaped(result.result):<{_WIDE}}", fg=self.colour(result))
        reference = f"{text.escaped(result.reference):<{self._width}}"
        where = None if result.result in self._good else self._where.get(result.reference)
        found = f" [{text.escaped(where)}]" if where else ""
        return f"{word}  {reference}  {_details(result)}{found}".rstrip()

    def colour(self, result: Result) -> str:
        """How to take it."""
        if result.result in self._good:
            return "green"
        return "red" if result.result in ("failed", "invalid") else "yellow"

    def summary(self) -> str:
        """How many there were of each, such as ``28 held, 12 fetched (31.4 MiB)``."""
        parts = [f"{number:,} {text.escaped(word)}" for word, number in self.counts.items()]
        size = f" ({text.size(self.bytes)})" if self.bytes else ""
        where = f", at {text.count(len(self.replicas) + 1, 'replica')}" if self.replicas else ""
        return f"{', '.join(parts) or 'nothing'}{size}{where}"

    @property
    def status(self) -> int:
        """The exit status."""
        return DONE if self.counts.keys() <= self._good else FAILED


def _details(result: Result) -> str:
    parts = []
    if result.bytes:
        took = "" if result.seconds is None else f" in {text.seconds(result.seconds)}"
        parts.append(f"{text.size(result.bytes)}{took}")
    if result.why:
        parts.append(text.escaped(result.why))
    elif result.digest and not result.bytes:
        parts.append(text.escaped(result.digest))
    if result.replica:
        parts.append(f"at {text.escaped(result.replica)}")
    return ", ".join(parts)
