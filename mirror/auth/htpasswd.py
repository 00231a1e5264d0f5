"""The users of an htpasswd file, with bcrypt entries. The file is read again when it changes.

bcrypt takes some 70 ms by design: it runs in threads, few at a time, once for all who send the same pair at the same
time, and what came out is remembered: under a hash of the pair with a key that only this process has, never under the
password. The hash is over the user's entry too, so that a verdict ends when the entry changes or goes.

Sources: Apache's htpasswd(1); the formats ``$2a$``, ``$2b$`` and ``$2y$`` of crypt(5), which mean the same today.
"""

import asyncio
import collections
import hmac
import os
import re
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import bcrypt

from mirror.config import Settings
from mirror.errors import StartError, TooMany, Unauthorized
from mirror.flight import Flights
from mirror.upstream.watched import Watched

SETTING: Final = "auth.file"

WRONG_FOR: Final = 10.0
"""Seconds for which a wrong pair is remembered, so that a client that repeats it costs nothing."""

LONGEST: Final = 72
"""Bytes of a password: bcrypt looks at no more."""

_AT_ONCE = 2
_MOST_WAITING = 256
_MOST_REMEMBERED = 10_000
_MAX_FILE = 4 << 20

_BCRYPT = re.compile(rb"\$2[aby]\$(0[4-9]|1[0-7])\$[./A-Za-z0-9]{21}[.Oeu][./A-Za-z0-9]{31}")
_NAME = re.compile(r"[^\x00-\x1f\x7f:]{1,255}")


@dataclass(frozen=True, slots=True)
class Table:
    """What the file holds: each user's entry, and those that unknown users are held against, to take as long."""

    entries: Mapping[str, bytes] = field(repr=False)
    decoys: tuple[bytes, ...] = field(repr=False)


class Users:
    """Tells whether a user's password is right. ``verdict_for`` is in seconds.

    ``clock`` gives seconds that never go back; ``check`` compares a password with an entry.
    """

    def __init__(
        self,
        file: Path,
        *,
        verdict_for: float,
        clock: Callable[[], float] = time.monotonic,
        check: Callable[[bytes, bytes], bool] = bcrypt.checkpw,
    ) -> None:
        self._table = Watched({SETTING: file}, read_table, clock)
        self._check = check
        self._key = os.urandom(32)
        self._right = _Remembered(verdict_for, clock)
        self._wrong = _Remembered(WRONG_FOR, clock)
        self._flights = Flights[bool]()
        self._free = asyncio.Semaphore(_AT_ONCE)
        self._waiting = 0

    async def verify(self, name: str, password: bytes) -> bool:
        """Whether there is such a user, with this password; as long in coming if there is none.

        Raises `Unauthorized` for a password that is longer than bcrypt takes, `TooMany` when too many wait already,
        and `UpstreamUnavailable` when the file could never be read.
        """
        if len(password) > LONGEST:
            raise Unauthorized(f"a password may have {LONGEST} bytes at most: bcrypt does not look at what follows")
        table = await self._table.get()
        entry = table.entries.get(name)
        against = entry if entry is not None else self._decoy(table, name)
        pair = self._hash(name.encode("utf-8", "surrogatepass"), against, password)
        if pair in self._right:
            return True
        if pair in self._wrong:
            return False
        if self._waiting >= _MOST_WAITING and not self._flights.under_way(pair):
            raise TooMany("too many passwords are being checked; ask again", retry_after=1)
        is_user = entry is not None
        task, joined = self._flights.join(pair, lambda: self._find_out(pair, against, password, is_user))
        if not joined:  # counted now, and not once it runs: all of a flood may come before that
            self._waiting += 1
            task.add_done_callback(self._one_less)
        return await asyncio.shield(task)

    async def aclose(self) -> None:
        """Stop what is under way."""
        await self._flights.aclose()

    async def _find_out(self, pair: bytes, against: bytes, password: bytes, is_user: bool) -> bool:
        async with self._free:
            fits = await asyncio.to_thread(self._check, password, against)
        right = fits and is_user
        (self._right if right else self._wrong).add(pair)
        return right

    def _one_less(self, done: asyncio.Task[bool]) -> None:
        self._waiting -= 1

    def _decoy(self, table: Table, name: str) -> bytes:
        """An entry that no password fits; the same each time, and as costly as one of the real ones."""
        number = int.from_bytes(self._hash(name.encode("utf-8", "surrogatepass"))[:8], "big")
        return table.decoys[number % len(table.decoys)]

    def _hash(self, *parts: bytes) -> bytes:
        return hmac.digest(self._key, b"".join(len(part).to_bytes(4, "big") + part for part in parts), "sha256")


class _Remembered:
    """Hashes of pairs, each for some seconds; of too many, the oldest go first."""

    def __init__(self, seconds: float, clock: Callable[[], float]) -> None:
        self._seconds = seconds
        self._clock = clock
        self._until: collections.OrderedDict[bytes, float] = collections.OrderedDict()

    def __contains__(self, pair: bytes) -> bool:
        until = self._until.get(pair)
        return until is not None and self._clock() < until

    def add(self, pair: bytes) -> None:
        self._until[pair] = self._clock() + self._seconds
        self._until.move_to_end(pair)
        while len(self._until) > _MOST_REMEMBERED:
            self._until.popitem(last=False)


def check_users(settings: Settings) -> frozenset[str]:
    """The users that there are: the file is read once, before anything serves. Raises `StartError`."""
    file = settings.auth.file
    users: frozenset[str] = frozenset()
    if file is not None:
        try:
            users = frozenset(read_table(file).entries)
        except (OSError, ValueError) as error:
            words = getattr(error, "strerror", None) or error
            raise StartError(
                f"{SETTING} {file} cannot be used: {words}; `htpasswd -B -c FILE USER` makes one, and "
                "`htpasswd -B FILE USER` adds a user"
            ) from None  # a cause might show what was read
    return users


def read_table(path: Path) -> Table:
    """The users in a file. Raises `OSError`, and `ValueError` whose words show nothing of it but users' names."""
    with path.open("rb") as file:
        data = file.read(_MAX_FILE + 1)
    if len(data) > _MAX_FILE:
        raise ValueError(f"it has more than {_MAX_FILE >> 20} MiB")
    entries: dict[str, bytes] = {}
    for number, line in enumerate(data.splitlines(), 1):
        if line.strip() and not line.startswith(b"#"):
            name, entry = _parse(number, line)
            if name in entries:
                raise ValueError(f"the user {name} stands in it twice, in line {number} again")
            entries[name] = entry
    if not entries:
        raise ValueError("it has no user in it")
    costs = [int(entry[4:6]) for entry in entries.values()]
    decoys = {cost: bcrypt.gensalt(cost) + b"." * 31 for cost in costs}
    return Table(entries, tuple(decoys[cost] for cost in costs))


def _parse(number: int, line: bytes) -> tuple[str, bytes]:
    """The user and the entry of a line. Source: htpasswd(1)."""
    user, colon, entry = line.partition(b":")
    try:
        name = user.decode()
    except UnicodeDecodeError:
        name = ""
    if not colon or not _NAME.fullmatch(name):
        raise ValueError(f"line {number} is not <user>:<entry>")
    entry = entry.strip()
    if not _BCRYPT.fullmatch(entry):
        raise ValueError(
            f"the entry of {name} in line {number} is not bcrypt with a cost from 4 to 17; make it anew with "
            f"`htpasswd -B`"
        )
    return name, entry
