"""``refresh``, ``pin``, ``unpin`` and ``purge``: one thing done to each of many references."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from mirror.commands import text
from mirror.commands.answers import items
from mirror.commands.client import Client, path_of
from mirror.commands.options import Asked
from mirror.commands.outcomes import Outcomes
from mirror.commands.screen import FAILED, INTERRUPTED, Screen, run
from mirror.commands.spelling import all_asked_for, batches
from mirror.errors import CommandError, MirrorRefused

_WITHIN = 600.0  # seconds for the answer to a batch, each of whose references may wait for upstream


@dataclass(frozen=True, slots=True)
class Chore:
    """What is asked for: the name of its command, its operation, and the results that are what was asked for.

    ``batch`` references are asked for at once: the fewer, the sooner there is something to see.
    """

    name: str
    path: str
    good: frozenset[str]
    batch: int


REFRESH: Final = Chore("refresh", "refresh", frozenset({"unchanged", "moved", "held", "fetched"}), 50)
PIN: Final = Chore("pin", "pins", frozenset({"pinned", "already"}), 20)
PURGE: Final = Chore("purge", "purge", frozenset({"purged"}), 500)
_UNPIN: Final = Chore("unpin", "pins", frozenset({"unpinned"}), 1)


Ask = Callable[[Client, Sequence[str]], Iterable[Mapping[str, object]]]


def do(asked: Asked, chore: Chore, references: Sequence[str]) -> int:
    """Do it, and say what became of each; gives the exit status."""

    def ask(client: Client, batch: Sequence[str]) -> Iterable[Mapping[str, object]]:
        return items(client.call("POST", chore.path, body={"references": batch}, within=_WITHIN), "results")

    return run(asked, lambda client, screen: _done(client, screen, chore, references, ask))


def unpin(asked: Asked, references: Sequence[str]) -> int:
    """Take away the pins of ``references``, and say what became of each; gives the exit status."""
    return run(asked, lambda client, screen: _done(client, screen, _UNPIN, references, _unpinned))


def _unpinned(client: Client, batch: Sequence[str]) -> Iterator[Mapping[str, object]]:
    for reference in batch:
        try:
            client.call("DELETE", path_of("pins", reference))
        except MirrorRefused as refused:
            if refused.is_of_all:
                raise
            yield {"reference": reference, "result": "failed", "why": refused.message}
        else:
            yield {"reference": reference, "result": "unpinned"}


def _done(client: Client, screen: Screen, chore: Chore, references: Sequence[str], ask: Ask) -> int:
    names, faults = all_asked_for(references, client.host)
    outcomes = Outcomes(screen, chore.good, names)
    for name, words in faults:
        outcomes.failed(name, words, "invalid")
    asked = 0
    try:
        for batch in batches(names, chore.batch):
            for result in ask(client, batch):
                outcomes.add(result)
                asked += 1
    except KeyboardInterrupt:
        screen.note("")  # behind the ^C
        screen.complain(f"interrupted; {_so_far(outcomes, asked, len(names))}")
        return INTERRUPTED
    except CommandError as error:
        screen.complain(error.message)
        if asked:
            screen.complain(_so_far(outcomes, asked, len(names)))
        return FAILED
    if outcomes.counts.total() > 1:
        screen.say(f"{outcomes.summary()}.")
    return outcomes.status


def _so_far(outcomes: Outcomes, asked: int, total: int) -> str:
    return f"of {text.count(total, 'reference')} {asked:,} are answered for: {outcomes.summary()}"
