"""Which process of a mirror has what: its workers, their connections, their spools. Linux's /proc knows."""

import contextlib
from pathlib import Path

from tests.support.process import MirrorProcess


def workers(mirror: MirrorProcess) -> list[int]:
    """The workers of a mirror that has several."""
    return [pid for pid in mirror.pids if pid != mirror.pid]


def server_of(mirror: MirrorProcess, client_port: int) -> int | None:
    """The worker that has accepted the connection from this port; None while none has."""
    mirror_port = int(mirror.host.rpartition(":")[2])
    wanted = (f"0100007F:{mirror_port:04X}", f"0100007F:{client_port:04X}")
    for line in Path("/proc/net/tcp").read_text().splitlines()[1:]:
        fields = line.split()
        if tuple(fields[1:3]) == wanted:
            socket = f"socket:[{fields[9]}]"
            return next((pid for pid in workers(mirror) if socket in _descriptors(pid)), None)
    return None


def writer_of(mirror: MirrorProcess, spool: Path) -> int | None:
    """The worker that holds the lock of a spool; None when nobody does."""
    inode = spool.stat().st_ino
    for line in Path("/proc/locks").read_text().splitlines():
        fields = line.split()
        if fields[1] == "FLOCK" and fields[5].endswith(f":{inode}") and int(fields[4]) in workers(mirror):
            return int(fields[4])
    return None


def _descriptors(pid: int) -> list[str]:
    found = []
    with contextlib.suppress(OSError):
        for link in Path(f"/proc/{pid}/fd").iterdir():
            with contextlib.suppress(OSError):
                found.append(str(link.readlink()))
    return found
