"""The uploads under way on this disk: begun, found again, counted, and dropped when nobody goes on with them.

::

    uploads/
      lock                 flock: who begins an upload
      <owner>.<id>         the bytes of one; when it was used last: the file's own time
      <owner>.<id>.json    its repository, when it was begun, and notes

``owner`` is a hash of the principal: who asks with another one does not find it. An id is 43 characters that nobody can
guess, after 12 that name the replica, where there are several: each has a disk of its own.
"""

import asyncio
import base64
import contextlib
import fcntl
import hashlib
import logging
import os
import re
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

from mirror.errors import MirrorError, TooMany
from mirror.store.directory import DataDirectory
from mirror.store.intake import Intake
from mirror.store.session import Desk, Session, State, state_of, told, unknown

log = logging.getLogger(__name__)

_REPLICA = r"[0-9a-f]{12}"
_SECRET = r"[A-Za-z0-9_-]{43}"
_ID = re.compile(rf"(?:{_REPLICA})?{_SECRET}")
_NAMED = re.compile(rf"({_REPLICA}){_SECRET}")
_NAME = re.compile(rf"[0-9a-f]{{32}}\.(?:{_REPLICA})?{_SECRET}")
_COME_BACK = 5.0
_LOOK_EVERY = 60.0


class Uploads:
    """Gives out sessions. Wired once in each worker, on one folder."""

    def __init__(
        self,
        directory: DataDirectory,
        clock: Callable[[], float],
        *,
        expires: float,
        max_uploads: int,
        replica: str = "",
        random: Callable[[int], bytes] = os.urandom,
        desk: Desk | None = None,
    ) -> None:
        """``clock`` gives seconds since the epoch; an upload that was not used for ``expires`` seconds is dropped.

        ``max_uploads``: so many may be open for one principal. ``replica``: the `name_of` this one, where there are
        others. ``random`` gives so many bytes that nobody can guess.
        """
        self._folder = directory.uploads
        self._clock = clock
        self._expires = expires
        self._max_uploads = max_uploads
        self._replica = replica
        self._random = random
        self._desk = desk or Desk(clock)

    async def begin(
        self, repository: str, principal: str, *, algorithm: str = "sha256", notes: Mapping[str, str] | None = None
    ) -> Session:
        """A new upload; what it is noted as is durable. ``algorithm``: that of the digest which is likely to be asked
        for at the end. Raises `TooMany`, `StoreError`.
        """
        state = State(repository, algorithm, self._clock(), dict(notes or {}))
        return await self._desk.run(self._begin, principal, state)

    async def find(self, repository: str, principal: str, upload: str) -> Session:
        """The upload of this id, repository and principal; its size is durable.

        Raises `UploadUnknown`, `StoreError`.
        """
        if not _ID.fullmatch(upload):
            raise unknown()
        return await self._desk.run(self._find, repository, self._path(principal, upload), upload)

    async def expire(self) -> int:
        """Drop what was not used for too long; how many uploads that were. Raises `StoreError`."""
        return await self._desk.run(self._expire)

    async def run(self) -> None:
        """Do so every now and then."""
        while True:
            try:
                dropped = await self.expire()
                if dropped:
                    log.info("dropped %d uploads that were not used for %g s", dropped, self._expires)
            except MirrorError as error:
                log.warning("uploads that nobody goes on with cannot be dropped: %s", error)
            await asyncio.sleep(min(_LOOK_EVERY, self._expires / 4))

    def close(self) -> None:
        """Let go of the threads; what is under way must have ended."""
        self._desk.threads.shutdown()

    def _path(self, principal: str, upload: str) -> Path:
        return self._folder / f"{_owner(principal)}.{upload}"

    def _begin(self, principal: str, state: State) -> Session:
        upload = self._replica + base64.urlsafe_b64encode(self._random(32)).decode().rstrip("=")
        path = self._path(principal, upload)
        try:
            self._folder.mkdir(exist_ok=True)
            with self._alone():
                self._make_room(_owner(principal))
                os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))
            try:
                state.write(state_of(path))
            except OSError:
                with contextlib.suppress(OSError):
                    path.unlink()
                raise
        except OSError as error:
            raise told(error, "no upload was begun") from error
        return Session(self._desk, path, upload, state, 0)

    @contextlib.contextmanager
    def _alone(self) -> Iterator[None]:
        """While no other worker begins an upload."""
        fd = os.open(self._folder / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX)
            yield
        finally:
            os.close(fd)

    def _make_room(self, owner: str) -> None:
        """Raise `TooMany` where ``owner`` may not begin another one."""
        if len(self._open(owner)) >= self._max_uploads:
            self._expire()
        count = len(self._open(owner))
        if count >= self._max_uploads:
            raise TooMany(
                f"{count} uploads are open, and hosted.max_uploads allows no more; finish or cancel some",
                retry_after=_COME_BACK,
            )

    def _open(self, owner: str) -> list[str]:
        return [name for name in os.listdir(self._folder) if name.startswith(owner) and _NAME.fullmatch(name)]

    def _find(self, repository: str, path: Path, upload: str) -> Session:
        try:
            state = State.read(state_of(path))
            if state.repository != repository:
                raise unknown()
            fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        except (FileNotFoundError, ValueError) as error:
            raise unknown() from error
        except OSError as error:
            raise told(error, "ask again") from error
        try:
            size = os.fstat(fd).st_size
            if size:
                os.fdatasync(fd)
        except OSError as error:
            with contextlib.suppress(OSError):  # what a disk did not write once it may have forgotten
                path.unlink()
            raise told(error, "the upload is over, begin a new one") from error
        finally:
            os.close(fd)
        now = self._clock()
        with contextlib.suppress(OSError):
            os.utime(path, (now, now))
        return Session(self._desk, path, upload, state, size)

    def _expire(self) -> int:
        try:
            names = os.listdir(self._folder)
        except FileNotFoundError:
            return 0
        except OSError as error:
            raise told(error, "uploads cannot be listed") from error
        dropped = 0
        for name in names:
            if name != "lock":
                with contextlib.suppress(OSError):
                    dropped += self._drop_idle(self._folder / name)
        return dropped

    def _is_idle(self, path: Path) -> bool:
        return path.stat().st_mtime + self._expires < self._clock()

    def _drop_idle(self, path: Path) -> bool:
        """Drop an upload, or what is left of one, if nobody uses it; whether it was one. Raises `OSError`."""
        if not self._is_idle(path):
            return False
        if not _NAME.fullmatch(path.name):
            if path.suffix != ".json" or not path.with_suffix("").exists():
                path.unlink()
            return False
        intake = Intake.open(path)
        if intake is None:
            return False
        try:
            if not self._is_idle(path):
                return False
            intake.drop()
            self._desk.forget(path.name.partition(".")[2])
            state_of(path).unlink(missing_ok=True)
            return True
        finally:
            intake.close()


def name_of(address: str) -> str:
    """What the ids of a replica's uploads begin with; ``address`` is the URL at which the others ask it."""
    return hashlib.blake2b(address.encode(), digest_size=6).hexdigest()


def replica_in(upload: str) -> str | None:
    """The name of the replica in the id of an upload; None in one that names none."""
    found = _NAMED.fullmatch(upload)
    return found[1] if found is not None else None


def _owner(principal: str) -> str:
    return hashlib.blake2b(principal.encode(), digest_size=16).hexdigest()
