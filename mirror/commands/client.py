"""The client of a mirror's admin API: what is asked, and in one line each what can go wrong. Blocks.

An answer is JSON, or comes piece by piece; so may what is sent.
"""

import contextlib
import json
import os
import re
import ssl
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Final, Self
from urllib.parse import quote, urlsplit

import httpx

import mirror
from mirror.commands.token import HINT
from mirror.config.hosts import is_loopback, parse_endpoint
from mirror.errors import CommandError, MirrorRefused, MirrorUnreachable

WITHIN: Final = 40.0
"""Seconds for an answer: a mirror that has to fetch an artifact first holds a request for up to ``hold_for``."""

TAR: Final = "application/x-tar"
"""The media type of an archive."""

_ROOT = "/api/v1/"
_CONNECT_WITHIN = 10.0
_PIECES_WITHIN = 60.0  # seconds between two pieces of what streams
_MAX_ANSWER = 64 * 1024 * 1024
_MAX_WORDS = 600

Query = Sequence[tuple[str, str]]


def path_of(*parts: str) -> str:
    """An address under ``/api/v1/``, whatever signs are in its parts; slashes stay as they are."""
    return "/".join(quote(part, safe="/:@") for part in parts)


@dataclass(frozen=True, slots=True)
class Incoming:
    """An answer that comes piece by piece. ``length`` in bytes, if it was announced."""

    media_type: str
    length: int | None
    pieces: Iterator[bytes]


class Client:
    """A mirror at ``url``; ``clock``'s seconds never go back. As a context manager it closes its connections."""

    def __init__(
        self, url: str, token: str | None, *, within: float = WITHIN, clock: Callable[[], float] = time.monotonic
    ) -> None:
        """Raises `CommandError` when ``url`` is none. ``within``: seconds for an answer that is JSON."""
        try:
            self.url = parse_endpoint(url)
        except ValueError as error:
            raise CommandError(f"--mirror (WASM_MIRROR_URL) {error}", wrong_use=True) from error
        self.host = urlsplit(self.url).netloc
        self._headers = {"accept-encoding": "identity", "user-agent": f"wasm-mirror/{mirror.__version__}"}
        if token is not None:
            self._headers["authorization"] = f"Bearer {token}"
        self._within = within
        self._clock = clock
        self._opened: httpx.Client | None = None

    def call(
        self, method: str, path: str, *, query: Query = (), body: object = None, within: float | None = None
    ) -> dict[str, object]:
        """The JSON object that an operation answers with; ``body`` is sent as JSON. Raises `CommandError`."""
        content = None if body is None else json.dumps(body).encode()
        headers = {} if body is None else {"content-type": "application/json"}
        return self._answer(method, path, query, headers, content, within or self._within)

    def send(
        self, path: str, pieces: Iterable[bytes], *, media_type: str, length: int | None, query: Query, within: float
    ) -> dict[str, object]:
        """POST what streams, of ``length`` bytes if that is known, and give the JSON of the answer.

        The answer has ``within`` seconds from the last byte on. Raises `CommandError`, and what ``pieces`` raises.
        """
        headers = {"content-type": media_type}
        if length is not None:
            headers["content-length"] = str(length)
        return self._answer("POST", path, query, headers, pieces, within, is_long=True)

    @contextlib.contextmanager
    def receive(
        self,
        path: str,
        *,
        media_type: str,
        query: Query = (),
        last_event: str | None = None,
        within: float | None = None,
    ) -> Iterator[Incoming]:
        """GET what streams. Raises `CommandError`, also while the pieces are read; ``within``: before the first one."""
        headers = {"accept": f"{media_type}, application/json"}
        if last_event is not None:
            headers["last-event-id"] = last_event
        timeout = max(_PIECES_WITHIN, within or self._within)
        with self._stream("GET", path, query, headers, None, timeout) as response:
            if response.status_code != 200:
                raise self._refused("GET", path, response.status_code, self._body(response, self._clock() + timeout))
            announced = response.headers.get("content-type", "").partition(";")[0].strip().lower()
            if announced != media_type:
                raise CommandError(f"{self.url} answered with what is no {media_type}; is it a wasm-mirror?")
            length = response.headers.get("content-length", "")
            yield Incoming(media_type, int(length) if length.isdecimal() else None, response.iter_raw())

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._opened is not None:
            self._opened.close()
            self._opened = None

    def _answer(
        self,
        method: str,
        path: str,
        query: Query,
        headers: Mapping[str, str],
        content: bytes | Iterable[bytes] | None,
        within: float,
        *,
        is_long: bool = False,
    ) -> dict[str, object]:
        deadline = None if is_long else self._clock() + within
        headers = {"accept": "application/json", **headers}
        with self._stream(method, path, query, headers, content, within) as response:
            status = response.status_code
            body = self._body(response, deadline)
        if not 200 <= status < 300:
            raise self._refused(method, path, status, body)
        try:
            found = json.loads(body)
        except (ValueError, RecursionError):
            found = None
        if not isinstance(found, dict):
            raise CommandError(f"{self.url} answered with what is no JSON object; is it a wasm-mirror?")
        return found

    @contextlib.contextmanager
    def _stream(
        self,
        method: str,
        path: str,
        query: Query,
        headers: Mapping[str, str],
        content: bytes | Iterable[bytes] | None,
        within: float,
    ) -> Iterator[httpx.Response]:
        """An answer whose body is yet to come; foreign errors become ours, also those while it comes."""
        timeout = httpx.Timeout(within, connect=min(within, _CONNECT_WITHIN))
        has_begun = False
        try:
            with self._client().stream(
                method,
                f"{self.url}{_ROOT}{path}",
                params=httpx.QueryParams(list(query)) if query else None,
                headers={**self._headers, **headers},
                content=content,
                timeout=timeout,
            ) as response:
                has_begun = True
                yield response
        except httpx.ConnectTimeout as error:
            raise self._unreachable(f"no connection within {_CONNECT_WITHIN:g} s") from error
        except httpx.TimeoutException as error:
            raise MirrorUnreachable(
                f"{self.url} did not answer within {within:g} s; it may still be at work, fetching the artifact: ask "
                "again, and see its log"
            ) from error
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            if has_begun:
                raise MirrorUnreachable(f"{self.url} broke off its answer: {error or type(error).__name__}") from error
            raise self._failed(error) from error

    def _client(self) -> httpx.Client:
        if self._opened is None:
            self._opened = httpx.Client(
                verify=_authorities() if self.url.startswith("https") else False,  # slow, and HTTP has no use for it
                trust_env=not is_loopback(httpx.URL(self.url).host),  # no proxy leads to this machine
            )
        return self._opened

    def _body(self, response: httpx.Response, deadline: float | None) -> bytes:
        body = bytearray()
        for piece in response.iter_raw():
            body += piece
            if len(body) > _MAX_ANSWER:
                raise CommandError(f"{self.url} answered with more than {_MAX_ANSWER:,} bytes")
            if deadline is not None and self._clock() > deadline:
                raise httpx.ReadTimeout("the whole answer")
        return bytes(body)

    def _failed(self, error: Exception) -> CommandError:
        cause: BaseException | None = error
        while cause is not None and not isinstance(cause, ssl.SSLError):
            cause = cause.__cause__ or cause.__context__
        if isinstance(cause, ssl.SSLCertVerificationError):
            return CommandError(
                f"the certificate of {self.url} is not trusted: {cause.verify_message}; name its authority's PEM file "
                "in SSL_CERT_FILE, or use the name that the certificate is for"
            )
        if isinstance(cause, ssl.SSLError):
            return self._unreachable(f"{cause.reason or cause}; does it speak TLS, or is it http://?")
        if isinstance(error, httpx.ConnectError):
            return self._unreachable(re.sub(r"^\[Errno -?\d+\] ", "", str(error)))
        return self._unreachable(f"{error or type(error).__name__}; is it a wasm-mirror, and is it https://?")

    def _unreachable(self, cause: str) -> MirrorUnreachable:
        return MirrorUnreachable(
            f"no mirror answers at {self.url}: {cause}; start it there (wasm-mirror serve), or name another "
            "address with --mirror (WASM_MIRROR_URL)"
        )

    def _refused(self, method: str, path: str, status: int, body: bytes) -> MirrorRefused:
        """What an error of the mirror means to who runs the command."""
        found = _oci_error(body)
        said, detail = (None, None) if found is None else (found[:2], found[2])
        if status == 401:
            given = "the one that was given here is another" if "authorization" in self._headers else f"here: {HINT}"
            words = f"{self.url} answered 401: {(said and said[1]) or 'it asks for a token'} ({given})"
        elif status in (404, 405) and (said is None or said[0] in ("UNKNOWN", "UNSUPPORTED")):
            kind = path.partition("/")[0]
            words = (
                f"{self.url} has no {_ROOT}{kind}{'' if method == 'GET' else ' for ' + method}: it is no wasm-mirror, "
                "or one of an older release, or its admin API has a port of its own; name another address with "
                "--mirror (WASM_MIRROR_URL)"
            )
        elif said is None:
            words = f"{self.url} answered {status}, and not as a wasm-mirror does"
        else:
            words = said[1] or f"{self.url} answered {status} {said[0]}"
        return MirrorRefused(words, answered=status, said=said, detail=detail)


def _authorities() -> ssl.SSLContext:
    try:
        return httpx.create_ssl_context()
    except OSError as error:  # ssl.SSLError is one
        where = os.environ.get("SSL_CERT_FILE") or os.environ.get("SSL_CERT_DIR") or "what it trusts"
        raise CommandError(f"SSL_CERT_FILE: {where} cannot be read: {error.strerror or error}") from error


def _oci_error(body: bytes) -> tuple[str, str, object] | None:
    """Code, message and detail of an OCI error body; None when it is none."""
    try:
        first = json.loads(body)["errors"][0]
        code, message, detail = first["code"], first.get("message", ""), first.get("detail")
    except (ValueError, RecursionError, LookupError, TypeError, AttributeError):
        return None
    if not isinstance(code, str) or not isinstance(message, str):
        return None
    return code, message if len(message) <= _MAX_WORDS else message[:_MAX_WORDS] + "…", detail
