"""The data directory: its layout, its format version, and the lock that keeps a second mirror out.

::

    data_dir/
      format               {"format": 1}: what wrote this directory
      lock                 flock: one mirror (with its workers) at a time
      blobs/<algorithm>/<2 hex>/<hex>
      spool/               blobs while they are being filled, unpacked or imported
      uploads/             what is being pushed
      leases/              one file for each piece of work that only one worker may do
      generation           a counter that moves when a tag does, mapped by every worker
      evictions            a counter that moves when content is evicted, mapped by every worker
      board                how upstreams' endpoints stand, mapped by every worker
      tallies/             what each worker has counted, where there are several
      jobs/                what is to be warmed, or was lately, and what became of it
      scrubbed             how far the disk was read again, and what was found
      scrub.wanted         a counter that moves when somebody wants it read now, mapped by every worker
      pins                 what was pinned, and what came by import; twice, for no upstream knows it
      pins.backup
      pins.missing         what is pinned and could not be had
      verdicts.key         under which clients' credentials are remembered, in auth.mode upstream
      metadata.sqlite      what is known of the cache
      hosted.sqlite        what was pushed here: this and blobs/ cannot be had again from elsewhere
      ….sqlite.backup      each of them as it was an hour ago at most
"""

import contextlib
import errno
import fcntl
import json
import os
from pathlib import Path
from typing import Self

from mirror.digest import Digest
from mirror.errors import StartError

FORMAT = 1


class DataDirectory:
    """The paths below ``data_dir``; `open` prepares and checks them, `attach` is for the workers of one mirror."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.blobs = path / "blobs"
        self._blobs = str(self.blobs)
        self.spool = path / "spool"
        self.uploads = path / "uploads"
        self.leases = path / "leases"
        self.generation = path / "generation"
        self.evictions = path / "evictions"
        self.board = path / "board"
        self.tallies = path / "tallies"
        self.jobs = path / "jobs"
        self.scrubbed = path / "scrubbed"
        self.scrub_wanted = path / "scrub.wanted"
        self.pins = path / "pins"
        self.pins_backup = path / "pins.backup"
        self.pins_missing = path / "pins.missing"
        self.verdicts_key = path / "verdicts.key"
        self.database = path / "metadata.sqlite"
        self.hosted = path / "hosted.sqlite"
        self._lock: int | None = None

    @classmethod
    def open(cls, path: Path) -> Self:
        """Create what is missing, check the format, and take the lock until `close`.

        Raises `StartError` when the directory cannot be written, is in use by another mirror, or was written by a
        newer release in a format that this one cannot read.
        """
        self = cls(path)
        try:
            path.mkdir(parents=True, exist_ok=True)
            self._take_lock()
            self._check_format()
            for folder in (self.blobs, self.spool, self.leases):
                folder.mkdir(exist_ok=True)
            with contextlib.suppress(OSError):  # a full disk of an older release; whoever pushes hears of it
                self.uploads.mkdir(exist_ok=True)
        except OSError as error:
            self.close()
            raise StartError(_cannot_use(path, error)) from error
        except StartError:
            self.close()
            raise
        return self

    @classmethod
    def attach(cls, path: Path) -> Self:
        """The same directory for a worker whose supervisor has opened it; takes no lock."""
        return cls(path)

    def blob(self, digest: Digest) -> Path:
        """Where the verified blob lies, if it is held."""
        return self.blobs / digest.algorithm / digest.hex[:2] / digest.hex

    def file_of(self, digest: Digest) -> str:
        """The same as text, for who looks at a hundred thousand of them: paths cost more than the files do."""
        return f"{self._blobs}/{digest.algorithm}/{digest.hex[:2]}/{digest.hex}"

    def identity(self) -> str:
        """What tells this directory from others on this host."""
        found = os.stat(self.path)
        return f"{found.st_dev}-{found.st_ino}"

    def close(self) -> None:
        """Let go of the lock."""
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    def _take_lock(self) -> None:
        self._lock = os.open(self.path / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise StartError(
                f"{self.path} is in use by another wasm-mirror; stop it, or give this one a data_dir of its own"
            ) from error

    def _check_format(self) -> None:
        file = self.path / "format"
        try:
            found = json.loads(file.read_text())["format"]
            if type(found) is not int or found < 1:
                raise ValueError(found)
        except FileNotFoundError:
            write_durably(file, json.dumps({"format": FORMAT}).encode())
            return
        except (ValueError, KeyError, TypeError, RecursionError) as error:
            raise StartError(
                f"{file} is not readable as the format of a data_dir; restore or empty {self.path}"
            ) from error
        if found > FORMAT:
            raise StartError(
                f"{self.path} was written by a newer wasm-mirror (format {found}, this one reads up to {FORMAT}); "
                "run that release, or use another data_dir"
            )


def write_durably(path: Path, content: bytes) -> None:
    """Write a small file so that it is there whole, or as it was before, after a crash. Raises `OSError`."""
    draft = path.with_name(f".{path.name}.draft")
    fd = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
    try:
        write_whole(fd, content)
        os.fsync(fd)
        draft.replace(path)
    except OSError:
        with contextlib.suppress(OSError):
            draft.unlink()
        raise
    finally:
        os.close(fd)
    sync_folder(path.parent)


def write_whole(fd: int, content: bytes) -> None:
    """Write all of ``content``: a disk that is nearly full takes a part of it first. Raises `OSError`."""
    view = memoryview(content)
    while view:
        view = view[os.write(fd, view) :]


def sync_folder(folder: Path) -> None:
    """Make renames in ``folder`` survive a power cut."""
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def _cannot_use(path: Path, error: OSError) -> str:
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return f"no space left for data_dir {path}; free some, or choose another data_dir"
    if error.errno in (errno.EEXIST, errno.ENOTDIR):
        return f"data_dir {path} cannot be used: it is no directory; choose another data_dir"
    return f"data_dir {path} cannot be used: {error.strerror or error}; make it writable, or choose another data_dir"
