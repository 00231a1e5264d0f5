"""Connections to a server of Redis: who the mirror is for it, TLS, and commands on the wire.

Commands that are asked for at the same time travel together: redis-py takes a tenth of a millisecond for each journey.
A caller that gives up leaves its command to end by itself, so that no connection is handed on in the middle of an
answer. Nothing here tries again. Files are read again for each new connection, since Kubernetes changes mounted
secrets in place.
"""

import asyncio
import contextlib
import ssl
from collections import deque
from collections.abc import AsyncIterator, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import aiofiles
from redis.asyncio.connection import Connection, ConnectionPool, SSLConnection
from redis.asyncio.connection import RedisSSLContext as SslContexts
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.credentials import CredentialProvider
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import RedisError, ResponseError
from redis.exceptions import TimeoutError as RedisTimeoutError

from mirror.config.models import MetadataSettings
from mirror.shared.patience import limit

Word = str | bytes | int | float
Command = Sequence[Word]

_SILENT_FOR = 2.0  # seconds after which a connection is given up; its callers have gone on before
_CONNECT_WITHIN = 1.0
_CARRIERS = 2  # connections at work: the second carries on while the first brings something large
_TOGETHER = 256
_CLOSED = RedisConnectionError("the connection was closed")
_NO_REDIS = RedisConnectionError("what answers there does not speak as a Redis")


class Server:
    """One server of Redis. Raises the errors of redis-py, and `OSError`."""

    def __init__(
        self,
        address: tuple[str, int],
        settings: MetadataSettings,
        contexts: "Contexts | None",
        *,
        login: bool = True,
        database: int = 0,
    ) -> None:
        options: dict[str, Any] = {} if contexts is None else {"contexts": contexts}
        if login and settings.password_file is not None:
            options["credential_provider"] = FileCredentials(settings)
        self.address = address
        self._pool = ConnectionPool(
            connection_class=Connection if contexts is None else _TlsConnection,
            host=address[0],
            port=address[1],
            db=database,
            protocol=2,
            retry=Retry(NoBackoff(), 0),
            socket_timeout=None,  # `limit` counts more fairly
            socket_connect_timeout=_CONNECT_WITHIN,
            socket_keepalive=True,
            **options,
        )
        self._waiting: deque[_Journey] = deque()
        self._carriers: set[asyncio.Task[None]] = set()
        self._heard_at = float("-inf")
        self._closed = False

    def silent_since(self, moment: float) -> bool:
        """Whether it was asked for something, and has said nothing since ``moment`` of the loop's clock."""
        return bool(self._carriers) and self._heard_at < moment

    async def exchange(self, commands: Sequence[Command]) -> list[Any]:
        """Send ``commands`` one behind the other; the answers as they come, a `ResponseError` among them as a value."""
        if self._closed:
            raise _CLOSED
        journey = _Journey(commands, asyncio.get_running_loop().create_future())
        self._waiting.append(journey)
        if len(self._carriers) < _CARRIERS:
            self._carriers.add(asyncio.create_task(self._carry()))
        return await journey.answers

    async def aclose(self) -> None:
        """Close all connections; whoever still waits gets an error."""
        self._closed = True
        carriers = list(self._carriers)
        for carrier in carriers:
            carrier.cancel()
        await asyncio.gather(*carriers, return_exceptions=True)
        _fail(self._waiting, _CLOSED)
        with contextlib.suppress(RedisError, OSError):
            await self._pool.aclose()

    async def _carry(self) -> None:
        """Send what waits, all that has come together at once, until nothing waits."""
        try:
            while self._waiting:
                await self._take_along()
        finally:  # in the same step in which nothing waited, so that nobody relies on a carrier that stops
            self._carriers.discard(cast("asyncio.Task[None]", asyncio.current_task()))

    async def _take_along(self) -> None:
        batch: list[_Journey] = []
        while self._waiting and sum(len(journey.commands) for journey in batch) < _TOGETHER:
            journey = self._waiting.popleft()
            if not journey.answers.done():  # its caller has not given up
                batch.append(journey)
        try:
            if batch:
                await self._travel(batch)
        except (RedisError, OSError) as error:
            _fail(batch, error)
        except (ValueError, RecursionError):  # of redis-py's parser, which has closed the connection
            _fail(batch, _NO_REDIS)
        except BaseException:
            _fail(batch, _CLOSED)
            raise

    async def _travel(self, batch: Sequence["_Journey"]) -> None:
        """Send all of ``batch`` at once, and hand out each answer as it comes."""
        async with _patience():
            connection: Connection = await self._pool.get_connection()  # type: ignore[no-untyped-call]  # as redis-py left it
        try:
            commands = [command for journey in batch for command in journey.commands]
            async with _patience():
                await connection.send_packed_command(connection.pack_commands(commands))
            for journey in batch:
                async with _patience():
                    answers = [await _answer(connection) for _ in journey.commands]
                self._heard_at = asyncio.get_running_loop().time()
                if not journey.answers.done():
                    journey.answers.set_result(answers)
        finally:
            await self._pool.release(connection)


@dataclass(frozen=True, slots=True)
class _Journey:
    """Commands on their way, and the answers that are waited for."""

    commands: Sequence[Command]
    answers: "asyncio.Future[list[Any]]"


def _fail(journeys: Iterable[_Journey], error: Exception) -> None:
    for journey in journeys:
        if not journey.answers.done():
            journey.answers.set_exception(error)


@contextlib.asynccontextmanager
async def _patience() -> AsyncIterator[None]:
    """Raise redis-py's error after `_SILENT_FOR`; redis-py closes a connection that is left in the middle of a word."""
    try:
        async with limit(_SILENT_FOR):
            yield
    except TimeoutError:
        raise RedisTimeoutError(f"it says nothing for {_SILENT_FOR:g} s") from None


async def _answer(connection: Connection) -> Any:
    try:
        return await connection.read_response()
    except ResponseError as error:
        return error


class FileCredentials(CredentialProvider):
    """The ACL user, if any, and the password, as their files say now."""

    def __init__(self, settings: MetadataSettings) -> None:
        self._settings = settings

    async def get_credentials_async(self) -> tuple[str] | tuple[str, str]:
        """``(password,)`` or ``(user, password)``."""
        assert self._settings.password_file is not None
        user = self._settings.username
        if self._settings.username_file is not None:
            user = await _line(self._settings.username_file, "metadata.username_file")
        password = await _line(self._settings.password_file, "metadata.password_file")
        return (password,) if user is None else (user, password)


async def _line(path: Path, setting: str) -> str:
    """The text of a file without the line break at its end; raises redis-py's error, which cleans up after it."""
    try:
        async with aiofiles.open(path, encoding="utf-8") as file:
            return (await file.read()).rstrip("\r\n")
    except OSError as error:
        raise RedisConnectionError(f"the file of {setting} cannot be read: {error.strerror}") from None
    except UnicodeDecodeError:
        raise RedisConnectionError(f"the file of {setting} is not UTF-8 text") from None


class Contexts(SslContexts):
    """What TLS is done with: made of its files, anew after they changed."""

    def __init__(self, settings: MetadataSettings) -> None:
        super().__init__()
        self._ca_file = settings.ca_file
        self._certificate, self._key = settings.client_certificate, settings.client_key
        self._stamps: list[tuple[int, int, int]] = []

    def get(self) -> ssl.SSLContext:
        """Raises redis-py's error, with what is wrong with which file."""
        try:
            return self._get()
        except OSError as error:
            why = str(error.reason if isinstance(error, ssl.SSLError) else error.strerror)
            raise RedisConnectionError(
                "the files of metadata.ca_file, client_certificate and client_key cannot be used: "
                + (why if error.filename is None else f"{error.filename}: {why}")
            ) from None

    def _get(self) -> ssl.SSLContext:
        files = [file for file in (self._ca_file, self._certificate, self._key) if file is not None]
        stamps = [(stat.st_mtime_ns, stat.st_size, stat.st_ino) for stat in (file.stat() for file in files)]
        if self.context is None or stamps != self._stamps:
            context = ssl.create_default_context(cafile=self._ca_file)
            if self._certificate is not None:
                context.load_cert_chain(self._certificate, self._key, password="")  # none is asked for at a terminal
            self.context, self._stamps = context, stamps
        return self.context


class _TlsConnection(SSLConnection):
    """TLS by the contexts of the server's pool, in place of those that each connection makes once for itself."""

    def __init__(self, *, contexts: Contexts, **options: Any) -> None:
        super().__init__(**options)
        self.ssl_context = contexts
