"""Eviction's hand in a process of its own: started for a round, asked over pipes, and ended with it."""

import asyncio
import contextlib
import json
import subprocess
import sys
import threading
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from mirror.errors import StoreError
from mirror.evicting import Plan, Unlinked, Wanted

_ENDS_WITHIN = 5.0
"""Seconds for it to close its databases; then it is killed, which harms nothing."""


class Apart:
    """A `mirror.evicting.Hand` beside this process. Where it dies, what it was asked raises `OSError`.

    When this process dies, its pipe ends, and with that the other one.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._process: subprocess.Popen[str] | None = None
        self._busy = self._over = False
        self._starting = threading.Lock()

    async def look(self, wanted: Wanted) -> Plan:
        """As `Hand.look`."""
        return Plan(**await asyncio.to_thread(self._ask, {"look": {**asdict(wanted), "pinned": list(wanted.pinned)}}))

    def unlink(self, digests: Sequence[str]) -> Unlinked:
        """As `Hand.unlink`."""
        return Unlinked(**self._ask({"unlink": list(digests)}))

    async def aclose(self) -> None:
        """End it, also in the middle of something, and also where a thread is about to start it."""
        await asyncio.to_thread(self._end)

    def _end(self) -> None:
        with self._starting:
            self._over, process = True, self._process
        if process is not None:
            if self._busy:
                process.kill()
            _end(process)

    def _started(self) -> "subprocess.Popen[str]":
        """The process, which is being asked from now on."""
        with self._starting:
            if self._over:
                raise OSError("the round is over")
            if self._process is None:
                command = [sys.executable, "-P", "-m", "mirror.evicting", str(self._folder)]
                self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
            self._busy = True
            return self._process

    def _ask(self, question: dict[str, object]) -> dict[str, Any]:
        """Raises `StoreError`, `OSError`."""
        process = self._started()
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write(json.dumps(question) + "\n")
        process.stdin.flush()
        line = process.stdout.readline()
        self._busy = False
        if not line.endswith("\n"):
            raise OSError("the process that evicts has ended before its time")
        answer: dict[str, Any] = json.loads(line)
        if "store" in answer:
            raise StoreError(answer["store"])
        if "disk" in answer:
            raise OSError(answer["disk"])
        return answer


def _end(process: subprocess.Popen[str]) -> None:
    assert process.stdin is not None
    assert process.stdout is not None
    with contextlib.suppress(BrokenPipeError):
        process.stdin.close()
    try:
        process.wait(_ENDS_WITHIN)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
    process.stdout.close()
