"""Several workers: processes that share one port and one disk, started again when they die."""

import logging
import os
import signal
import time
from collections.abc import Callable

log = logging.getLogger(__name__)

_TOO_SOON = 1.0
_TOO_OFTEN = 5


class Supervisor:
    """Runs ``workers`` copies of ``work`` in children. To be used before any thread or loop has been started."""

    def __init__(self, workers: int, work: Callable[[int], int]) -> None:
        """``work`` gets a descriptor that becomes readable when the supervisor has died, and gives an exit status."""
        self._workers = workers
        self._work = work
        self._children: dict[int, float] = {}
        self._stopping = False
        self._lifeline, self._held = os.pipe()

    def run(self) -> int:
        """Until a signal, or until workers die again and again as soon as they are started; the exit status."""
        for sig in (signal.SIGTERM, signal.SIGINT):
            signal.signal(sig, self._forward)
        for _ in range(self._workers):
            self._start()
        early = 0
        failed = False
        while self._children:
            pid, status = os.wait()
            began = self._children.pop(pid, 0.0)
            code = os.waitstatus_to_exitcode(status)
            if self._stopping:
                failed |= code != 0
                continue
            log.error("a worker has ended with status %d; starting another", code)
            early = early + 1 if time.monotonic() - began < _TOO_SOON else 0
            if early >= _TOO_OFTEN:
                log.error("workers end as soon as they are started; giving up")
                failed = True
                self._forward(signal.SIGTERM, None)
            else:
                self._start()
        return 1 if failed else 0

    def _start(self) -> None:
        pid = os.fork()
        if pid:
            self._children[pid] = time.monotonic()
            if self._stopping:
                os.kill(pid, signal.SIGTERM)
            return
        status = 1
        try:
            os.close(self._held)
            for sig in (signal.SIGTERM, signal.SIGINT):
                signal.signal(sig, signal.SIG_DFL)
            status = self._work(self._lifeline)
        except BaseException:
            log.exception("a worker failed")
        finally:
            os._exit(status)

    def _forward(self, sig: int, frame: object) -> None:
        self._stopping = True
        for pid in list(self._children):
            try:
                os.kill(pid, sig)
            except ProcessLookupError:
                continue
