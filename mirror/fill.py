"""The fill: one download for all who wait.

A fill belongs to its own task. It goes on when every client has left, and a disk that fails costs the copy, not the
clients. In each worker there is one for a digest (`mirror.fills`); among the workers on a disk, the one that holds the
spool's lock downloads, and the others follow its file. Where it downloads from, among replicas, is `mirror.sharing`'s
to say.
"""

import asyncio
import contextlib
import logging
import time
from collections.abc import Callable, Mapping
from concurrent.futures import Executor
from dataclasses import dataclass
from typing import TypeVar, TypeVarTuple

from mirror.digest import Digest, Verifier
from mirror.download import Download, Patience, Source
from mirror.errors import DigestMismatch, MirrorError, StoreError, UpstreamInvalid, UpstreamUnavailable
from mirror.metadata.base import BlobRecord, Metadata
from mirror.metrics import Metrics
from mirror.oci import Reference
from mirror.sharing import Sharing, Turn
from mirror.store.blobs import BlobStore
from mirror.store.directory import DataDirectory
from mirror.store.growing import Growing
from mirror.store.overflow import Overflow
from mirror.store.spool import Spool, Standing
from mirror.tracing import Span
from mirror.writer import to_the_end

log = logging.getLogger(__name__)

_REHASH = 1024 * 1024

_T = TypeVar("_T")
_Arguments = TypeVarTuple("_Arguments")


@dataclass(frozen=True, slots=True)
class Means:
    """What all fills of a worker work with. ``sources`` are by the upstream's name; ``threads`` write and hash."""

    directory: DataDirectory
    store: BlobStore
    metadata: Metadata
    sources: Mapping[str, Source]
    sharing: Sharing
    threads: Executor
    metrics: Metrics


class Fill:
    """One download. ``content`` is what its readers see; ``leads``: it is not another worker that downloads.

    ``since`` is when it was asked for, in seconds since the epoch; ``span`` is what it is in the traces of those who
    ask for it, where there are any.
    """

    def __init__(self, means: Means, origin: Reference, digest: Digest, size: int | None, patience: float) -> None:
        self.digest = digest
        self.content = Growing(digest, size)
        self.leads = False
        self.since = time.time()
        self.span: Span | None = None
        self._means = means
        self._origins = [origin]
        self._tried = 0
        self._believed: set[str] = set()
        self._senders: set[str] = set()
        self._expected = size
        self._attempts_left = self._sources()
        self._patience = Patience(patience)
        self._disk_fails = False
        self._goes_on = "resumed"
        self._result = "success"
        self._loop = asyncio.get_running_loop()

    def join(self, origin: Reference, patience: float) -> None:
        """Somebody asks for it: go on trying for at least ``patience`` seconds from now.

        Where it cannot be had from the repository that was asked for it first, that of ``origin`` is tried.
        """
        self._patience.renew(patience)
        if all(_repository(origin) != _repository(one) for one in self._origins):
            self._origins.append(origin)

    async def run(self) -> None:
        """Bring the content here; its failure is told to the readers, never raised."""
        began = time.monotonic()
        try:
            while not (self.content.verified or self._adopt()):
                await self._attempt()
        except asyncio.CancelledError:
            self.content.fail(stopping())
            raise
        except MirrorError as failure:
            log.warning("fill of %s from %s failed: %s", self.digest, self.repository, failure)
            if not isinstance(failure, DigestMismatch):  # counted when it came
                self._count("download_failure")
            self.content.fail(failure)
            if self.span is not None:
                self.span.fail(type(failure).__name__, failure.message)
        except Exception as error:
            if self.span is not None:
                self.span.fail(type(error).__name__)
            log.exception("fill of %s from %s failed", self.digest, self.repository)
            self._count("download_failure")
            self.content.fail(StoreError(f"{self.digest} could not be fetched; the mirror's log says why"))
        else:
            self._count(self._result)
            if self.span is not None:
                self.span.say({"wasm_mirror.result": self._result, "wasm_mirror.size": self.content.size or 0})
            log.info(
                "filled %s from %s%s: %d bytes in %.2f s",
                self.digest,
                self.repository,
                f" at {', '.join(sorted(self._senders))}" if self._senders else "",
                self.content.size,
                time.monotonic() - began,
            )

    def _count(self, result: str) -> None:
        """Where several workers follow one download, it is counted once."""
        if self.leads:
            self._means.metrics.fills[self._origin.upstream, result] += 1

    def close(self) -> None:
        """After `run`: readers go on from the blob, where the disk has it now."""
        blob = None
        if self.content.verified:
            with contextlib.suppress(OSError):
                blob = self._means.store.open(self.digest)
        self.content.close(blob)

    @property
    def repository(self) -> str:
        """The upstream and the repository that it comes from now."""
        return _repository(self._origin)

    @property
    def _origin(self) -> Reference:
        return self._origins[self._tried]

    @property
    def _source(self) -> Source:
        return self._means.sources[self._origin.upstream]

    def _sources(self) -> int:
        """How many there are that may each send wrong bytes once."""
        return len(self._source.hosts) + self._means.sharing.more_sources

    def _turn_elsewhere(self) -> bool:
        """Try the next repository that holds the content, if somebody has asked for it through another one."""
        if self._tried + 1 == len(self._origins):
            return False
        self._tried += 1
        self._attempts_left = self._sources()
        self._patience.renew()
        return True

    def _adopt(self) -> bool:
        """Take the blob, when another worker has committed it since this fill was asked for."""
        if self.content.consumed:
            return False
        try:
            blob = self._means.store.open(self.digest)
        except OSError:
            return False
        if blob is None or self._expected not in (None, blob.size):
            return False
        self.leads = False
        self.content.blob = blob
        self.content.verify()
        return True

    async def _attempt(self) -> None:
        """Lead when the spool is free, follow when another worker leads, go without a disk when there is none."""
        if self._disk_fails:
            self.content.overflow = Overflow(0)
            leads = True
        else:
            try:
                leads = await self._join()
            except OSError as error:
                self._lose_disk(error)
                leads = True
        self.leads = leads
        if leads:
            await self._lead()

    async def _join(self) -> bool:
        """Get hold of the spool, or follow another worker's to its end; whether it is now for this fill to lead."""
        spool = await self._in_thread(Spool.acquire, self._means.directory, self.digest)
        if spool is None:
            return await self._follow()
        if spool.size == 0 and self._adopt():  # committed by who had the lock just before
            with contextlib.suppress(OSError):
                spool.drop()
            spool.close()
            return False
        if self.content.size is not None and spool.size > self.content.size:
            spool.drop()
            spool.close()
            return False
        self.content.spool = spool
        return True

    async def _follow(self) -> bool:
        """Watch another worker's spool; True when that worker has died or given up, and it is for this fill to lead."""
        spool = Spool.follow(self._means.directory, self.digest)
        if spool is None:
            return False
        standing = await self.content.watch(spool, self._patience.renew)
        if standing is Standing.GROWING:
            self._goes_on = "taken_over"
            return True
        if standing is Standing.VERIFIED:
            self.content.verify()
        elif self.content.consumed:
            self.content.overflow = Overflow(spool.size)
            return True
        else:
            self.content.begin_anew(self._expected)
        return False

    async def _lead(self) -> None:
        """Download what is missing, verify all, and commit."""
        verifier = Verifier(self.digest)
        inherited = self.content.available
        self._result = self._goes_on if inherited else "success"
        try:
            await self._rehash(verifier, inherited)
        except OSError as error:
            self._lose_disk(error)
            if self.content.consumed:
                raise StoreError(f"what was there of {self.digest} can no longer be read") from error
            self.content.begin_anew(self._expected)
            return
        async with self._means.sharing.turn(self.digest, self._believed) as turn:
            try:
                await self._bring(verifier, turn)
            except UpstreamInvalid as failure:
                if isinstance(failure, DigestMismatch):
                    self._count("digest_mismatch")
                await self._drop()
                if not self._may_begin_anew(inherited):
                    raise
                log.warning("%s; beginning anew", failure)
                self.content.begin_anew(self._expected)
                return
            except (MirrorError, asyncio.CancelledError):
                self._leave()
                raise
            self.content.verify()
            if await self._commit(verifier):
                await self._means.sharing.announce(self.digest)

    async def _bring(self, verifier: Verifier, turn: Turn) -> None:
        """Download what is missing, from whichever repository gives it."""
        while True:
            source = turn.through(self._source)
            download = Download(source, self._origin, self.content, verifier, self._patience, self._take_in)
            inherited = verifier.size
            try:
                await download.run()
                self._senders |= download.senders
                return
            except UpstreamInvalid:
                if not inherited and len(download.senders) == 1:  # bytes that were there tell nothing of who sent them
                    source.cool_down(*download.senders)
                raise
            except MirrorError as failure:
                if not self._turn_elsewhere():
                    raise
                log.warning("%s; %s is asked", failure, self.repository)

    def _may_begin_anew(self, inherited: int) -> bool:
        """After wrong bytes that no client has seen: whether someone else may have the right ones."""
        if self.content.consumed:
            return False
        if not inherited:
            self._attempts_left -= 1
        return self._attempts_left > 0 or self._turn_elsewhere()

    async def _take_in(self, chunks: list[bytes], verifier: Verifier) -> None:
        """Hash and keep what has come, then let the readers have it."""
        if self.content.overflow is None:
            kept, error = await self._in_thread(self._append, chunks, verifier)
            if error is not None:
                self._lose_disk(error)
                chunks = chunks[kept:]
        if self.content.overflow is not None:
            await self._in_thread(_hash, chunks, verifier)
            for chunk in chunks:
                self.content.overflow.append(chunk)
        self.content.moved()

    def _append(self, chunks: list[bytes], verifier: Verifier) -> tuple[int, OSError | None]:
        """Write and hash; how many chunks were taken, and the error that stopped the disk."""
        spool = self.content.spool
        assert spool is not None
        for index, chunk in enumerate(chunks):
            try:
                spool.append(chunk)
            except OSError as error:
                return index, error
            verifier.update(chunk)
        return len(chunks), None

    async def _rehash(self, verifier: Verifier, size: int) -> None:
        """Take in what is there already, a part at a time, so that this can be stopped. Raises `OSError`."""
        spool = self.content.spool
        while spool is not None and verifier.size < size:
            part = min(size, verifier.size + _REHASH)
            await self._in_thread(_read_back, spool, verifier, part)

    def _lose_disk(self, error: OSError) -> None:
        """Go on without the disk: what comes from now on stays in memory while clients need it, and is not kept."""
        log.error("the disk fails (%s); %s is passed through and not kept", error.strerror or error, self.digest)
        self._disk_fails = True
        self.content.overflow = Overflow(self.content.available)
        spool = self.content.spool
        if spool is not None:
            with contextlib.suppress(OSError):
                spool.drop()
            with contextlib.suppress(OSError):
                spool.leave()

    async def _commit(self, verifier: Verifier) -> bool:
        """Note and keep the blob; whether it is held now."""
        spool, size = self.content.spool, verifier.size
        try:
            await self._means.metadata.put_blob(BlobRecord(self.digest, size, verifier.blake3(), time.time()))
        except StoreError as error:
            log.error("%s was filled, but could not be noted: %s", self.digest, error)
        if self.content.overflow is None and spool is not None:
            try:
                await self._in_thread(spool.commit, self._means.store)
                return True
            except OSError as error:
                log.error("the disk fails (%s); %s was passed on and not kept", error.strerror or error, self.digest)
                await self._drop()
        return False

    def _leave(self) -> None:
        """Stop for now; bytes that are there are for whoever goes on."""
        spool = self.content.spool
        if spool is not None and spool.writable and self.content.overflow is None:
            with contextlib.suppress(OSError):
                if spool.size == 0:
                    spool.drop()
                spool.leave()

    async def _drop(self) -> None:
        if self.content.spool is not None:
            try:
                await self._in_thread(self.content.spool.drop)
            except OSError as error:
                log.error("the disk fails (%s); bytes of %s stay in a spool", error.strerror or error, self.digest)
                self._disk_fails = True

    async def _in_thread(self, call: Callable[[*_Arguments], _T], *arguments: *_Arguments) -> _T:
        """Wait for the call in any case: a file may not be closed while a thread works on it."""
        return await to_the_end(self._loop.run_in_executor(self._means.threads, call, *arguments))


def _repository(origin: Reference) -> str:
    return f"{origin.upstream}/{origin.repository}"


def stopping() -> MirrorError:
    """What the readers of a fill hear that is left to be resumed."""
    return UpstreamUnavailable("the mirror is stopping; ask again", retry_after=1)


def _read_back(spool: Spool, verifier: Verifier, end: int) -> None:
    verifier.update(spool.read(verifier.size, end))


def _hash(chunks: list[bytes], verifier: Verifier) -> None:
    for chunk in chunks:
        verifier.update(chunk)
