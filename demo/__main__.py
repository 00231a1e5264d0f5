"""Run the demo. Exit status: 0, all was as it should be; 1, something was not; 130, it was interrupted."""

import os
import signal
import sys
from types import FrameType

_INTERRUPTS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


def main() -> int:
    """Play it, until it ends or somebody has seen enough."""
    for number in _INTERRUPTS:
        signal.signal(number, _interrupt)
    try:
        from demo.playing import play  # here, for it takes a second in which an interrupt is to be one as well

        return play()
    except KeyboardInterrupt:
        print("\nInterrupted; all that was started is stopped.", flush=True)
        return 130
    except BrokenPipeError:  # who reads has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1


def _interrupt(number: int, frame: FrameType | None) -> None:
    """Stop at the first signal; a second one does not disturb the tidying up."""
    for each in _INTERRUPTS:
        signal.signal(each, signal.SIG_IGN)
    raise KeyboardInterrupt


if __name__ == "__main__":
    sys.exit(main())
