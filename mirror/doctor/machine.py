"""The process and its place: the files that it starts with, how many it may open, and who reaches where it listens."""

import asyncio
import resource

from mirror.auth.htpasswd import check_users
from mirror.config import Settings
from mirror.config.hosts import is_loopback, split
from mirror.config.rights import ANYONE
from mirror.doctor.report import Subject
from mirror.edge.api.guard import check_token
from mirror.errors import StartError
from mirror.tls import Tls

_FEW_FILES = 4096


class Machine:
    """Examines what a worker of this mirror would be given here."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings

    async def __call__(self, subject: Subject) -> None:
        """Note what is found."""
        self._files(subject)
        self._listen(subject)
        await asyncio.to_thread(self._secrets, subject)

    def _secrets(self, subject: Subject) -> None:
        """The files without which it does not start."""
        settings = self._settings
        try:
            if Tls.load(settings) is not None:
                subject.ok("TLS", f"{settings.tls.certificate} and its key can be used")
        except StartError as error:
            advice = "they must be PEM files, a certificate and the key that belongs to it, which this user may read"
            subject.fail("TLS", error.message, advice)
        try:
            check_token(settings)
        except StartError as error:
            said, _, advice = error.message.partition("; ")
            subject.fail("admin API", said, advice)
        else:
            subject.ok("admin API", self._admin())
        self._users(subject)

    def _users(self, subject: Subject) -> None:
        auth = self._settings.auth
        try:
            users = check_users(self._settings)
        except StartError as error:
            said, _, advice = error.message.partition("; ")
            subject.fail("users", said, advice)
            return
        if auth.file is None:
            here = is_loopback(self._settings.host)
            subject.ok("users", "none, so this machine may push" if here else "none, so nobody may push")
        elif unknown := {name for rule in auth.rules for name in rule.who} - users - {ANYONE}:
            subject.warn(
                "users",
                f"auth.rules are for {', '.join(sorted(unknown))}, too, who cannot log in",
                f"`htpasswd -B {auth.file} USER` adds a user, whose name is that of the rule to the letter",
            )
        else:
            subject.ok("users", f"they may {'read and ' * (auth.mode == 'htpasswd')}push, by auth.rules")

    def _admin(self) -> str:
        if self._settings.admin.token_file is not None:
            return "for those who have the token"
        here = is_loopback(self._settings.admin_host)
        return "for this machine" if here else "closed, for there is no admin.token_file"

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
        if settings.admin.listen is not None:
            reached = ", reached from this machine alone" if is_loopback(settings.admin_host) else ""
            subject.ok("admin.listen", f"{settings.admin.listen}, with /metrics{reached}")
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
