"""Several workers: processes that share one port and one disk, started again when they die."""

import contextlib
import logging
import os
import signal
import time
from collections.abc import Callable

log = logging.getLogger(__name__)

_TOO_SOON = 1.0
_TOO_OFTEN = 5
_SIGNALS = (signal.SIGTERM, signal.SIGINT)


class Supervisor:
    """Runs ``workers`` copies of ``work`` in children. To be used before any thread or loop has been started."""

    def __init__(self, workers: int, work: Callable[[int], int], let_go: Callable[[], None]) -> None:
        """``work`` gets a descriptor that becomes readable when the supervisor has died, and gives an exit status.

        ``let_go`` is called once no further worker will be started: a port that the supervisor kept open would take
        connections that nobody answers.
        """
        self._workers = workers
        self._work = work
        self._let_go = let_go
        self._children: dict[int, float] = {}
        self._stopping = False
        self._lifeline, self._held = os.pipe()

    def run(self) -> int:
        """Until a signal, or until workers die again and again as soon as they are started; the exit status."""
        for sig in _SIGNALS:
            signal.signal(sig, self._stop)
        for _ in range(self._workers):
            self._start()
        early = 0
        failed = False
        while self._children:
            pid, status = os.wait()
            if pid not in self._children:  # an orphan: as a container's first process the supervisor inherits them
                continue
            began = self._children.pop(pid)
            code = os.waitstatus_to_exitcode(status)
            if self._stopping:
                failed |= code not in (
                    0,
                    -signal.SIGTERM,
                    -signal.SIGQUIT,
                )  # killed before it began to serve: no failure
                continue
            log.error("a worker has ended with status %d; starting another", code)
            early = early + 1 if time.monotonic() - began < _TOO_SOON else 0
            if early >= _TOO_OFTEN:
                log.error("workers end as soon as they are started; giving up")
                failed = True
                self._stop(signal.SIGTERM, None)
            else:
                self._start()
        return 1 if failed else 0

    def _start(self) -> None:
        signal.pthread_sigmask(signal.SIG_BLOCK, _SIGNALS)  # until this child is known, or has forgotten its siblings
        pid = os.fork()
        if pid:
            self._children[pid] = time.monotonic()
            signal.pthread_sigmask(signal.SIG_UNBLOCK, _SIGNALS)
            return
        status = 1
        try:
            os.close(self._held)
            signal.signal(signal.SIGTERM, signal.SIG_DFL)
            signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the whole group; the supervisor passes it on
            signal.pthread_sigmask(signal.SIG_UNBLOCK, _SIGNALS)
            status = self._work(self._lifeline)
        except BaseException:
            log.exception("a worker failed")
        finally:
            os._exit(status)

    def _stop(self, sig: int, frame: object) -> None:
        """Let the workers stop in order, and at once when this is called again (see `mirror.server`)."""
        how = signal.SIGQUIT if self._stopping else signal.SIGTERM
        self._stopping = True
        self._let_go()
        for pid in list(self._children):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, how)
