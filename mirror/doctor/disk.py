"""The data directory: may it be written, is there room, is it fast, and does its file system do what is needed."""

import asyncio
import json
import os
from collections.abc import Callable
from pathlib import Path

from mirror.doctor import probes
from mirror.doctor.probes import ProbeFolder, System
from mirror.doctor.report import Subject
from mirror.store.directory import FORMAT, DataDirectory

_GIB = 1 << 30
_LITTLE_SPACE = _GIB
_LITTLE_SHARE = 0.05
_NO_SPACE = 64 << 20
_FEW_INODES = 10_000
_SLOW_SYNC = 0.050
_REMOVED_WITHIN = 2.0

_LOCAL_DISK = "put data_dir on a local disk (ext4 or xfs)"
_IN_MEMORY = {"tmpfs", "ramfs"}
_CONTAINERS = {"overlay", "aufs"}
_NETWORKED = {"nfs", "nfs4", "cifs", "smb3", "smbfs", "9p", "ceph", "glusterfs", "lustre", "afs"}


class Disk:
    """Examines ``data_dir``. The lock of the mirror is left alone, so it may run meanwhile."""

    def __init__(self, data_dir: Path, system: System | None = None) -> None:
        self._path = data_dir
        self._system = system or System()

    async def __call__(self, subject: Subject) -> None:
        """Note what is found; whatever happens, the files made for it are removed."""
        folder = ProbeFolder(self._path, self._system)
        try:
            if not await asyncio.to_thread(self._writable, subject, folder):
                return
            for look in (self._state, self._kind, self._room, self._inodes):
                await asyncio.to_thread(look, subject)
            await self._probe(subject, folder.path)
        finally:
            await _bounded(folder.remove)

    def _writable(self, subject: Subject, folder: ProbeFolder) -> bool:
        there = self._path.exists()
        try:
            folder.make()
        except OSError as error:
            subject.fail("access", *self._unwritable(error))
            return False
        if not there:
            subject.ok("access", "it is not there yet, and can be made")
        elif os.geteuid() == 0 and self._path.stat().st_uid != 0:
            subject.warn(
                "access",
                "it can be written, but doctor runs as root, and root may write anywhere",
                f"run doctor as the user that runs the mirror (the folder belongs to uid {self._path.stat().st_uid})",
            )
        else:
            subject.ok("access", f"uid {os.geteuid()} can write")
        return True

    def _unwritable(self, error: OSError) -> tuple[str, str]:
        why = error.strerror or str(error)
        if probes.out_of_space(error):
            return f"nothing can be written: {why}", "free some space, or set data_dir to a larger disk"
        if isinstance(error, PermissionError):
            return (
                f"uid {os.geteuid()} cannot write: {why}",
                f"make it writable for that user (chown {os.geteuid()} {self._path}; in Kubernetes: fsGroup), or set "
                "data_dir to a folder that is",
            )
        return f"nothing can be written: {why}", "mount it for writing, or set data_dir to a folder on another disk"

    def _state(self, subject: Subject) -> None:
        directory = DataDirectory.attach(self._path)
        file = directory.path / "format"
        if file.exists():
            try:
                found = int(json.loads(file.read_text())["format"])
            except (OSError, ValueError, LookupError, TypeError, RecursionError):
                subject.fail(
                    "format",
                    "the file `format` in it cannot be read as one",
                    "the mirror refuses to start: restore the folder from a copy, or empty it",
                )
            else:
                self._format(subject, found)
        holder = probes.holder_of(directory.path / "lock", self._system)
        if holder is not None:
            subject.ok("use", f"a mirror runs on it (process {holder})")
        else:
            subject.ok("use", "no mirror runs on it, as far as this process can see")

    def _format(self, subject: Subject, found: int) -> None:
        if found > FORMAT:
            subject.fail(
                "format",
                f"a newer release wrote it: format {found}, this one reads up to {FORMAT}",
                "run that release, or set data_dir to another folder",
            )
        else:
            subject.ok("format", f"{found}, which this release reads")

    def _kind(self, subject: Subject) -> None:
        kind = probes.file_system(self._path, self._system)
        if kind in _IN_MEMORY:
            subject.warn(
                "file system",
                f"{kind}: it lies in memory, and is lost at a restart of the machine or of the pod",
                "what was cached is downloaded again then, if upstream answers; to outlive an outage together with a "
                f"restart, {_LOCAL_DISK}",
            )
        elif kind in _CONTAINERS:
            subject.warn(
                "file system",
                f"{kind}: it belongs to the container, and is lost together with it",
                "mount a volume at data_dir",
            )
        elif kind in _NETWORKED or kind.startswith("fuse"):
            subject.warn(
                "file system",
                f"{kind}: locks and maps work there at the pleasure of a server, and a pull waits for it",
                f"{_LOCAL_DISK}; replicas share Redis (metadata.url), never a disk",
            )
        elif kind:
            subject.ok("file system", kind)

    def _room(self, subject: Subject) -> None:
        about = self._system.statvfs(self._path)
        free, whole = about.f_bavail * about.f_frsize, about.f_blocks * about.f_frsize
        said = f"{free / _GIB:.1f} GiB free of {whole / _GIB:.1f} GiB"
        advice = (
            "free some space or give data_dir a larger disk: when it is full, new content is passed through to clients "
            "and not kept, so that it is gone when upstream is"
        )
        if free < _NO_SPACE:
            subject.fail("space", said, advice)
        elif free < _LITTLE_SPACE or free < _LITTLE_SHARE * whole:
            subject.warn("space", said, advice)
        else:
            subject.ok("space", said)

    def _inodes(self, subject: Subject) -> None:
        about = self._system.statvfs(self._path)
        if about.f_files == 0:
            subject.ok("inodes", "this file system makes as many as it needs")
        elif about.f_favail < _FEW_INODES:
            subject.warn(
                "inodes",
                f"{about.f_favail} free of {about.f_files}",
                "each blob needs one: remove small files from that disk, or make its file system with more (mkfs -i)",
            )
        else:
            subject.ok("inodes", f"{about.f_favail} free of {about.f_files}")

    async def _probe(self, subject: Subject, folder: Path) -> None:
        try:
            seconds = await asyncio.to_thread(probes.sync_seconds, folder, self._system)
            said = f"{seconds * 1000:.1f} ms (median)"
            if seconds > _SLOW_SYNC:
                subject.warn(
                    "fsync",
                    said,
                    "each blob is synced before it is kept, and each move of a tag: put data_dir on a faster disk "
                    "(SSD), or give the volume more operations a second",
                )
            else:
                subject.ok("fsync", said)
            for name, probe, need in _NEEDS:
                problem = await asyncio.to_thread(probe, folder, self._system)
                if problem is None:
                    subject.ok(name, "works")
                else:
                    subject.fail(name, problem, f"{need}: {_LOCAL_DISK}")
        except OSError as error:
            subject.fail("writing", *self._unwritable(error))


_NEEDS: tuple[tuple[str, Callable[[Path, System], str | None], str], ...] = (
    ("rename", probes.renames, "a blob becomes visible by a rename"),
    ("flock", probes.locks, "it keeps a second mirror out, and makes one download of many"),
    ("mmap", probes.maps, "workers tell each other of moved tags, and serve blobs, through maps"),
)


async def _bounded(work: Callable[[], None]) -> None:
    """Do it in a thread, and wait for it a moment only: the disk may hang."""
    task = asyncio.create_task(asyncio.to_thread(work))
    await asyncio.wait([task], timeout=_REMOVED_WITHIN)
