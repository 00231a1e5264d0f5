"""The process and its place: how many files it may open, and whether others reach the address at which it listens."""

import resource

from mirror.config import Settings
from mirror.config.hosts import is_loopback, split
from mirror.doctor.report import Subject

_FEW_FILES = 4096


class Machine:
    """Examines what a worker of this mirror would be given here."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings

    async def __call__(self, subject: Subject) -> None:
        """Note what is found."""
        self._files(subject)
        self._listen(subject)

    def _files(self, subject: Subject) -> None:
        _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)  # as far as the mirror raises it by itself
        if hard == resource.RLIM_INFINITY:
            subject.ok("open files", "no limit")
        elif hard < _FEW_FILES:
            subject.warn(
                "open files",
                f"{hard} at most, here",
                "each client and each blob that is read takes one; a mesh that starts at once needs thousands: raise "
                f"it to {_FEW_FILES} or more (ulimit -Hn, LimitNOFILE of systemd)",
            )
        else:
            subject.ok("open files", f"{hard} at most")

    def _listen(self, subject: Subject) -> None:
        settings = self._settings
        advertised = settings.cluster.advertise
        if not is_loopback(settings.host):
            subject.ok("listen", settings.listen)
        elif advertised is not None and not is_loopback(_host(advertised)):
            subject.warn(
                "listen",
                f"{settings.listen} is reached from this machine alone, and cluster.advertise promises {advertised}",
                "set listen to 0.0.0.0 or to the address that is advertised, with the same port",
            )
        else:
            subject.ok("listen", f"{settings.listen}, reached from this machine alone")


def _host(url: str) -> str:
    located = split(url.partition("://")[2])
    assert located is not None, "it was parsed when it was set"
    return located[0]
