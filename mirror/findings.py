"""What was found of manifests, noted on this disk: all workers and the next start know what one of them has looked at.

Whoever looks does not wait: what it found is written a moment later. What cannot be written is lost, and looked at
again (`mirror.looking`).
"""

import asyncio
import logging
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from typing import Protocol

from mirror.digest import Digest
from mirror.errors import StoreError
from mirror.metadata.seen import Looked
from mirror.wasm.facts import Facts

log = logging.getLogger(__name__)


class Known(Protocol):
    """Where it is noted: `mirror.metadata.sqlite`. Methods may raise `StoreError`."""

    async def facts(self, digests: Sequence[str]) -> Mapping[str, Facts]: ...

    async def put_facts(self, found: Mapping[Digest, Facts], rules: str) -> None: ...

    def all_looked(self) -> AsyncIterator[Sequence[Looked]]: ...


class Findings:
    """Notes what is found. ``rules`` name how artifacts are judged now: what was found by others is looked at again,
    and told until then.
    """

    def __init__(self, known: Known, rules: str) -> None:
        self._known = known
        self._rules = rules
        self._noted: dict[Digest, Facts] = {}
        self._some = asyncio.Event()

    def note(self, digests: Iterable[Digest], facts: Facts) -> None:
        """Have it noted what was found of these manifests."""
        for digest in digests:
            self._noted[digest] = facts
        self._some.set()

    async def of(self, digests: Iterable[Digest]) -> dict[Digest, Facts]:
        """What was found of these; without those that nobody has looked at. Raises `StoreError`."""
        wanted = {str(digest): digest for digest in digests}
        return {wanted[text]: facts for text, facts in (await self._known.facts(list(wanted))).items()}

    async def verdicts(self) -> dict[str, str]:
        """What agents make of all that was looked at, by the digests' text. Raises `StoreError`."""
        return {one.digest: one.verdict async for portion in self._known.all_looked() for one in portion}

    async def looked(self) -> dict[str, bool]:
        """All that was looked at, by the digests' text, and whether that was by the rules of now. Raises
        `StoreError`.
        """
        return {one.digest: one.rules == self._rules async for portion in self._known.all_looked() for one in portion}

    async def run(self) -> None:
        """Write down what is noted, until cancelled."""
        while True:
            await self._some.wait()
            await self.flush()

    async def flush(self) -> None:
        """Write down what was noted."""
        self._some.clear()
        noted, self._noted = self._noted, {}
        if noted:
            try:
                await self._known.put_facts(noted, self._rules)
            except StoreError as error:
                log.info("what was found of %d manifests could not be noted: %s", len(noted), error)
