"""What a running mirror says of an artifact, over its admin API. Blocks."""

import json
import os
import re
import ssl
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from urllib.parse import urlsplit

import httpx

import mirror
from mirror.config.hosts import is_loopback, parse_endpoint, split
from mirror.errors import InspectError, RequestError
from mirror.oci import parse_reference

WITHIN = 40.0
"""Seconds for an answer: a mirror that has to fetch the artifact first holds a request for up to ``hold_for``."""

_CONNECT_WITHIN = 10.0
_MAX_ANSWER = 64 * 1024 * 1024
_MAX_TOKEN = 4096
_MAX_WORDS = 600
_TOKEN = re.compile(r"[\x21-\x7e]+")
_HINT = "--token-file, WASM_MIRROR_TOKEN or WASM_MIRROR_TOKEN_FILE"


def token_of(file: Path | None, environment: Mapping[str, str]) -> str | None:
    """The token for the admin API: from ``file``, or else as the environment has it; None without any.

    Raises `InspectError`, whose words never show what was read.
    """
    setting = "--token-file"
    if file is None and (given := environment.get("WASM_MIRROR_TOKEN", "").strip()):
        return _token(given, "WASM_MIRROR_TOKEN")
    if file is None and (path := environment.get("WASM_MIRROR_TOKEN_FILE", "")):
        file, setting = Path(path), "WASM_MIRROR_TOKEN_FILE"
    if file is None:
        return None
    try:
        with file.open("rb") as opened:
            content = opened.read(_MAX_TOKEN)
    except (OSError, ValueError) as error:
        words = getattr(error, "strerror", None) or "it is no path"
        raise InspectError(f"{setting} {file} cannot be read: {words}") from None
    return _token(content.decode("latin-1").strip(), f"{setting} {file}")


def _token(text: str, where: str) -> str:
    if not _TOKEN.fullmatch(text) or len(text) >= _MAX_TOKEN:
        raise InspectError(f"{where} holds no token, which is one word of printable ASCII characters")
    return text


def name_of(reference: str, mirror: str) -> tuple[str, str | None]:
    """The name, tag or digest for which a mirror at the host ``mirror`` is asked, and the host that ``reference`` has.

    Its first part is a host, and not an upstream, when it is that of the mirror, or has a port, as no upstream's name
    has: then it is the mirror, as it is called elsewhere. Raises `InspectError`.
    """
    scheme, separator, rest = reference.partition("://")
    host = None
    if separator and scheme.lower() in ("http", "https"):
        rest = _plain(reference, rest)
    elif separator and scheme.lower() != "oci":
        raise InspectError(f"{reference} is not understood: a reference begins with oci://, or with its upstream")
    else:
        rest = rest if separator else reference
        first, slash, behind = rest.partition("/")
        found = split(first) if slash else None
        if found is not None and (first.lower() == mirror or found[1] is not None):
            host, rest = first, behind
    try:
        named = parse_reference(rest)
    except RequestError as error:
        raise InspectError(f"{reference} is no reference: {error.message}") from error
    return f"{named.name}:{named.tag}" if named.tag is not None else f"{named.name}@{named.digest}", host


class Mirror:
    """A mirror at ``url``, which has ``within`` seconds for an answer; ``clock``'s seconds never go back."""

    def __init__(
        self, url: str, token: str | None, *, within: float = WITHIN, clock: Callable[[], float] = time.monotonic
    ) -> None:
        """Raises `InspectError` when ``url`` is none."""
        try:
            self.url = parse_endpoint(url)
        except ValueError as error:
            raise InspectError(f"--mirror (WASM_MIRROR_URL) {error}") from error
        self._host = urlsplit(self.url).netloc
        self._headers = {
            "accept": "application/json",
            "accept-encoding": "identity",
            "user-agent": f"wasm-mirror/{mirror.__version__}",
        }
        if token is not None:
            self._headers["authorization"] = f"Bearer {token}"
        self._within = within
        self._clock = clock

    def describe(self, reference: str) -> dict[str, object]:
        """The JSON that the mirror gives for ``reference``; raise `InspectError`."""
        name, host = name_of(reference, self._host)
        status, body = self._get(f"{self.url}/api/v1/modules/{name}")
        if status != 200:
            raise self._refused(status, body, name, host, may_be_here="://" not in reference)
        try:
            found = json.loads(body)
        except (ValueError, RecursionError):
            found = None
        if not isinstance(found, dict):
            raise InspectError(f"{self.url} answered with what is no description; is it a wasm-mirror?")
        return found

    def _get(self, url: str) -> tuple[int, bytes]:
        """Status and body; raise `InspectError` when there is no whole answer in time."""
        deadline = self._clock() + self._within
        client = httpx.Client(
            verify=_authorities() if url.startswith("https") else False,  # which takes time, and HTTP has no use for it
            timeout=httpx.Timeout(self._within, connect=min(self._within, _CONNECT_WITHIN)),
            trust_env=not is_loopback(httpx.URL(url).host),  # no proxy leads to this machine
        )
        body = bytearray()
        try:
            with client, client.stream("GET", url, headers=self._headers) as response:
                for piece in response.iter_raw():
                    body += piece
                    if len(body) > _MAX_ANSWER:
                        raise InspectError(f"{self.url} answered with more than {_MAX_ANSWER:,} bytes")
                    if self._clock() > deadline:
                        raise httpx.ReadTimeout("the whole answer")
                return response.status_code, bytes(body)
        except httpx.ConnectTimeout as error:
            raise self._unreachable(f"no connection within {_CONNECT_WITHIN:g} s") from error
        except httpx.TimeoutException as error:
            raise InspectError(
                f"{self.url} did not answer within {self._within:g} s; it may still be fetching the artifact: "
                "ask again, and see its log"
            ) from error
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            raise self._failed(error) from error

    def _failed(self, error: Exception) -> InspectError:
        cause: BaseException | None = error
        while cause is not None and not isinstance(cause, ssl.SSLError):
            cause = cause.__cause__ or cause.__context__
        if isinstance(cause, ssl.SSLCertVerificationError):
            return InspectError(
                f"the certificate of {self.url} is not trusted: {cause.verify_message}; name its authority's PEM file "
                "in SSL_CERT_FILE, or use the name that the certificate is for"
            )
        if isinstance(cause, ssl.SSLError):
            return self._unreachable(f"{cause.reason or cause}; does it speak TLS, or is it http://?")
        if isinstance(error, httpx.ConnectError):
            return self._unreachable(re.sub(r"^\[Errno -?\d+\] ", "", str(error)))
        return self._unreachable(f"{error or type(error).__name__}; is it a wasm-mirror, and is it https://?")

    def _unreachable(self, cause: str) -> InspectError:
        return InspectError(
            f"no mirror answers at {self.url}: {cause}; start it there, or name another address with --mirror "
            "(WASM_MIRROR_URL)"
        )

    def _refused(self, status: int, body: bytes, name: str, host: str | None, *, may_be_here: bool) -> InspectError:
        """What an error of the mirror means to who runs the command, and perhaps meant a file (``may_be_here``)."""
        code, message = _oci_error(body)
        if status == 401:
            given = "the one that was given here is another" if "authorization" in self._headers else f"here: {_HINT}"
            return InspectError(
                f"{self.url} answered 401: {message or 'it asks for a token'} ({given}); the same is said to all, as "
                f"JSON, at {self.url}/modules/{name}?info"
            )
        if code in (None, "UNKNOWN") and status == 404:
            return InspectError(
                f"{self.url} has no /api/v1/modules: it is no wasm-mirror, or one of an older release; name another "
                "address with --mirror (WASM_MIRROR_URL)"
            )
        if code is None:
            return InspectError(f"{self.url} answered {status}, and not as a wasm-mirror does")
        hint = ""
        if code == "NAME_UNKNOWN" and host is not None:
            hint = (
                f" (asked for {name}: {host} was taken for the mirror's own address; a registry with a port needs an "
                "alias under `upstreams`)"
            )
        elif code == "NAME_UNKNOWN" and may_be_here:
            hint = " (nor is there such a file or directory here)"
        elif code in ("UPSTREAM_UNAVAILABLE", "UPSTREAM_TIMEOUT"):
            hint = f"; so says the mirror at {self.url}, where `wasm-mirror doctor` says more"
        return InspectError(f"{name}: {message}{hint}", broken=code == "UPSTREAM_INVALID")


def _plain(reference: str, rest: str) -> str:
    """The reference in the address of a plain module, as Envoys and WasmPlugins have it, at whatever host."""
    _, _, path = rest.partition("?")[0].partition("/")
    if not path.startswith("modules/"):
        raise InspectError(
            f"{reference} is not understood: of plain addresses only those of a mirror's /modules/ are; a file can be "
            "inspected once it is here"
        )
    return path.removeprefix("modules/").removesuffix(".wasm")


def _authorities() -> ssl.SSLContext:
    try:
        return httpx.create_ssl_context()
    except OSError as error:  # ssl.SSLError is one
        where = os.environ.get("SSL_CERT_FILE") or os.environ.get("SSL_CERT_DIR") or "what it trusts"
        raise InspectError(f"SSL_CERT_FILE: {where} cannot be read: {error.strerror or error}") from error


def _oci_error(body: bytes) -> tuple[str | None, str]:
    """Code and message of an OCI error body; no code when it is none."""
    try:
        first = json.loads(body)["errors"][0]
        code, message = first["code"], first.get("message", "")
    except (ValueError, RecursionError, LookupError, TypeError, AttributeError):
        return None, ""
    if not isinstance(code, str) or not isinstance(message, str):
        return None, ""
    return code, message if len(message) <= _MAX_WORDS else message[:_MAX_WORDS] + "…"
