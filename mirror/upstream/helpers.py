"""Docker's credential helpers: programs that are asked who we are for a server.

The program gets the word ``get`` as its argument and the server's URL on standard input, and prints a JSON object with
``Username`` and ``Secret``. The name ``<token>`` says that the secret is an identity token.
Source: https://github.com/docker/docker-credential-helpers#development
"""

import asyncio
import contextlib
import logging
import os
import re
import shutil
import signal
from asyncio.subprocess import PIPE, Process
from collections.abc import AsyncIterator, Mapping

from pydantic import SecretStr

from mirror.errors import UpstreamError, UpstreamUnavailable
from mirror.oci import parse_object
from mirror.upstream.tokens import Login

log = logging.getLogger(__name__)

ANSWER_WITHIN = 10.0
"""Seconds for a helper's whole life."""

_LAST_WORDS = 1.0

_MAX_ANSWER = 256 * 1024
_MAX_COMPLAINT = 300
_NONE_FOUND = b"credentials not found in native keychain"
_FOLDERS = re.compile(r"(?<![\w/:.~-])~?(?:/[^\s/:'\"]+)+/(?=[^\s/])")


class Helper:
    """The program ``docker-credential-<name>``, asked about ``server``.

    ``setting`` is the key that named it, for messages. ``environment`` is what it is given; its ``PATH`` is searched.
    """

    def __init__(
        self, name: str, server: str, setting: str, environment: Mapping[str, str], within: float = ANSWER_WITHIN
    ) -> None:
        self._program = f"docker-credential-{name}"
        self._server = server
        self._setting = setting
        self._environment = dict(environment)
        self._within = within
        self._had_none = False

    async def ask(self) -> Login | None:
        """Run it. None when it has no credentials for the server; raises `UpstreamUnavailable`."""
        path = await asyncio.to_thread(self._find)
        if path is None:
            raise self._failed("is not on PATH")
        try:
            async with asyncio.timeout(self._within):
                async with self._running(path) as process:
                    output, complaint = await _talk(process, self._server)
                    status = await process.wait()
        except TimeoutError as error:
            raise self._failed(f"does not answer within {self._within:g} s") from error
        except OSError as error:
            raise self._failed(f"cannot be run: {error.strerror}") from error
        if status != 0 and _NONE_FOUND in output + complaint:
            if not self._had_none:
                log.warning("%s: %s has no login for %s%s", *self._named, self._server, _quoted(complaint))
            self._had_none = True
            return None
        if status != 0:
            raise self._failed(f"fails ({_meaning(status)}){_quoted(complaint)}")
        self._had_none = False
        return self._read(output)

    def _read(self, output: bytes) -> Login | None:
        try:
            fields = parse_object(output, "it")
        except UpstreamError:  # whose words might show a part of the secret
            raise self._failed("does not print a JSON object") from None
        username, secret = fields.get("Username"), fields.get("Secret")
        if not isinstance(username, str) or not isinstance(secret, str):
            raise self._failed("prints an object without Username and Secret")
        if not secret:
            return None
        if username == "<token>":
            return Login("", SecretStr(secret), is_identity_token=True)
        return Login(username, SecretStr(secret))

    def _find(self) -> str | None:
        path = shutil.which(self._program, path=self._environment.get("PATH", os.defpath))
        return None if path is None else os.path.abspath(path)

    @property
    def _named(self) -> tuple[str, str]:
        return self._setting, self._program

    def _failed(self, what: str) -> UpstreamUnavailable:
        setting, program = self._named
        return UpstreamUnavailable(f"the credential helper {program} of {setting} {what}")

    @contextlib.asynccontextmanager
    async def _running(self, path: str) -> AsyncIterator[Process]:
        """The program, at the head of a group of its own, which is killed when it is left before its end."""
        process = await asyncio.create_subprocess_exec(
            path, "get", stdin=PIPE, stdout=PIPE, stderr=PIPE, env=self._environment, start_new_session=True
        )
        try:
            yield process
        except BaseException:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            raise
        finally:
            with contextlib.suppress(TimeoutError):  # who left the group may hold on to what it printed to
                await asyncio.wait_for(process.wait(), _LAST_WORDS)


async def _talk(process: Process, server: str) -> tuple[bytes, bytes]:
    """What it prints to standard output and standard error, when it was told ``server``."""
    assert process.stdin is not None
    assert process.stdout is not None
    assert process.stderr is not None
    with contextlib.suppress(ConnectionError):  # it need not listen
        process.stdin.write(f"{server}\n".encode())
        await process.stdin.drain()
    process.stdin.close()
    output, complaint = await asyncio.gather(_bounded(process.stdout), _bounded(process.stderr))
    return output, complaint


async def _bounded(reader: asyncio.StreamReader) -> bytes:
    """All that comes, of which the first `_MAX_ANSWER` bytes are kept: who cannot print waits for ever."""
    kept = bytearray()
    while piece := await reader.read(65536):
        kept += piece[: _MAX_ANSWER - len(kept)]
    return bytes(kept)


def _meaning(status: int) -> str:
    return f"signal {-status}" if status < 0 else f"exit status {status}"


def _quoted(complaint: bytes) -> str:
    """The end of what it wrote to standard error, on one line, folders of this host left out."""
    words = " ".join(complaint.decode(errors="replace").split())
    words = _FOLDERS.sub("…/", "".join(sign if sign.isprintable() else "?" for sign in words))
    if len(words) > _MAX_COMPLAINT:
        words = f"…{words[-_MAX_COMPLAINT:]}"
    return f": {words}" if words else ", and says nothing on standard error"
