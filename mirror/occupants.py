"""Who listens at a port of this machine, as far as this user may see it. Linux; elsewhere nobody is known.

Source: proc(5), ``/proc/net/tcp`` and ``/proc/PID/fd``.
"""

import contextlib
from collections.abc import Iterator
from pathlib import Path

_LISTENING = "0A"
_TABLES = ("tcp", "tcp6")


def occupant(port: int, proc: Path = Path("/proc")) -> str | None:
    """The program that listens at ``port``, such as ``nginx (process 4711)``; None when it cannot be known."""
    sockets = {f"socket:[{inode}]" for table in _TABLES for inode in _inodes(proc / "net" / table, port)}
    if not sockets:
        return None
    for process in _processes(proc):
        with contextlib.suppress(OSError):  # it has just ended, or belongs to another user
            if any(str(link.readlink()) in sockets for link in (process / "fd").iterdir()):
                return f"{_name(process)} (process {process.name})"
    return None


def _inodes(table: Path, port: int) -> Iterator[str]:
    try:
        lines = table.read_text().splitlines()[1:]
    except OSError:
        return
    for line in lines:
        fields = line.split()
        if len(fields) > 9 and fields[3] == _LISTENING and int(fields[1].rpartition(":")[2], 16) == port:
            yield fields[9]


def _processes(proc: Path) -> list[Path]:
    with contextlib.suppress(OSError):
        return sorted((folder for folder in proc.iterdir() if folder.name.isdecimal()), key=lambda one: int(one.name))
    return []


def _name(process: Path) -> str:
    """What a person calls it: a script by its own name, and not by that of its interpreter."""
    words = (process / "cmdline").read_bytes().decode(errors="replace").split("\0")
    if any(Path(word).name == "wasm-mirror" or word == "mirror.cli" for word in words):
        return "another wasm-mirror"
    return Path(words[0]).name or (process / "comm").read_text().strip()
