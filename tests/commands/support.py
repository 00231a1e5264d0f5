"""The commands as people run them: in this process, as a process of its own, or on a terminal; and a mirror that says
what a test tells it to.
"""

import contextlib
import functools
import json
import os
import pty
import signal
import subprocess
import sys
import termios
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, Self
from urllib.parse import parse_qsl, unquote, urlsplit

import pytest
from click.testing import CliRunner, Result

from mirror.cli import main
from tests.support.process import clean_environment
from tests.support.waiting import wait_until

ROOT = Path(__file__).parents[2]


def command(*words: str | Path, stdin: bytes | None = None, **environment: str) -> Result:
    """``wasm-mirror`` in this process, its output in a pipe."""
    unset: dict[str, str | None] = {name: None for name in os.environ if name not in clean_environment()}
    return CliRunner(env={**unset, **environment}).invoke(main, [str(word) for word in words], input=stdin)


def lines(result: Result) -> list[dict[str, object]]:
    """What a command told a program."""
    found = [json.loads(line) for line in result.stdout.splitlines()]
    assert all(isinstance(line, dict) for line in found)
    return found


def complaints(result: Result) -> list[str]:
    """The lines on standard error, without the program's name."""
    found = result.stderr.splitlines()
    assert all(line.startswith("wasm-mirror: ") for line in found if line), result.stderr
    return [line.removeprefix("wasm-mirror: ") for line in found if line]


def started(
    *words: str | Path, stdout: int = subprocess.PIPE, stdin: int = subprocess.DEVNULL
) -> subprocess.Popen[bytes]:
    """``wasm-mirror`` as a process, in a group of its own."""
    return subprocess.Popen(
        [sys.executable, "-m", "mirror.cli", *map(str, words)],
        stdin=stdin,
        stdout=stdout,
        stderr=subprocess.PIPE,
        env=clean_environment(),
        cwd=ROOT,
        start_new_session=True,
    )


@dataclass(frozen=True, slots=True)
class Drawn:
    """What a command has drawn on a terminal, with its control sequences, and its exit status."""

    status: int
    seen: str


def drawn(*words: str | Path, columns: int = 100, environment: Mapping[str, str] | None = None) -> Drawn:
    """``wasm-mirror`` in this process, on a terminal of ``columns``."""
    own, theirs = pty.openpty()
    seen = bytearray()
    reader = threading.Thread(target=_read_all, args=(own, seen), daemon=True)
    reader.start()
    unset = {name: None for name in os.environ if name not in clean_environment()}
    settings = {**unset, "TERM": "xterm-256color", "COLUMNS": str(columns), "NO_COLOR": None, **(environment or {})}
    with pytest.MonkeyPatch.context() as patch:
        for name, value in settings.items():
            patch.delenv(name, raising=False) if value is None else patch.setenv(name, value)
        with open(os.dup(theirs)) as stdin, open(os.dup(theirs), "w") as stdout, open(theirs, "w") as stderr:
            for name, stream in (("stdin", stdin), ("stdout", stdout), ("stderr", stderr)):
                patch.setattr(sys, name, stream)
            try:
                main([str(word) for word in words])
                status: object = 0
            except SystemExit as end:
                status = end.code
    reader.join(timeout=30)
    os.close(own)
    assert isinstance(status, int)
    return Drawn(status, seen.decode(errors="replace"))


def _read_all(descriptor: int, into: bytearray) -> None:
    with contextlib.suppress(OSError):  # its end, once nobody has it open any more
        while piece := os.read(descriptor, 65536):
            into += piece


class Terminal:
    """``wasm-mirror`` as a process of its own, on a terminal of ``columns``.

    As a context manager it is killed at the end, if it still runs.
    """

    def __init__(self, *words: str | Path, columns: int = 100) -> None:
        self._own, theirs = pty.openpty()
        termios.tcsetwinsize(theirs, (24, columns))
        self._process = subprocess.Popen(
            [sys.executable, "-m", "mirror.cli", *map(str, words)],
            stdin=theirs,
            stdout=theirs,
            stderr=theirs,
            env={**clean_environment(), "TERM": "xterm-256color"},
            cwd=ROOT,
            start_new_session=True,
        )
        os.close(theirs)
        self._seen = bytearray()
        self._reader = threading.Thread(target=_read_all, args=(self._own, self._seen), daemon=True)
        self._reader.start()

    @property
    def seen(self) -> str:
        """All that was drawn so far, with its control sequences."""
        return self._seen.decode(errors="replace")

    def until(self, text: str) -> None:
        """Wait until ``text`` was drawn."""
        wait_until(lambda: text in self.seen, timeout=30, what=f"{text!r} on the terminal, which has {self.seen!r}")

    def interrupt(self) -> None:
        """What Ctrl-C does."""
        self._process.send_signal(signal.SIGINT)

    def end(self) -> int:
        """Wait for the end; gives the exit status."""
        status = self._process.wait(timeout=30)
        self._reader.join(timeout=30)
        return status

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        self._process.wait()
        self._reader.join(timeout=30)
        os.close(self._own)


@dataclass(frozen=True, slots=True)
class Request:
    """What a command asked for. ``path`` is decoded, and without ``/api/v1/``."""

    method: str
    path: str
    query: Sequence[tuple[str, str]]
    headers: Mapping[str, str]
    body: bytes

    @property
    def document(self) -> dict[str, object]:
        """The body as JSON."""
        found = json.loads(self.body)
        assert isinstance(found, dict)
        return found


@dataclass(frozen=True, slots=True)
class Answer:
    """What the fake mirror answers: a ``document``, or ``pieces`` as they come, after which the connection is cut where
    ``is_cut``.
    """

    document: object = None
    status: int = 200
    media_type: str = "application/json"
    pieces: Callable[[Request], Iterator[bytes]] | None = None
    is_cut: bool = False


def refusal(status: int, code: str, message: str, detail: object = None) -> Answer:
    """An error as the admin API answers it."""
    return Answer({"errors": [{"code": code, "message": message, "detail": detail}]}, status)


def event(kind: str, data: object, identity: int | None = None) -> bytes:
    """A server-sent event."""
    named = "" if identity is None else f"id: {identity}\n"
    return f"{named}event: {kind}\ndata: {json.dumps(data)}\n\n".encode()


@dataclass(slots=True)
class FakeMirror:
    """A mirror that answers as it was told; the last answer for an address is given again. A context manager."""

    requests: list[Request] = field(default_factory=list)
    _answers: dict[tuple[str, str], list[Answer | Callable[[Request], Answer]]] = field(default_factory=dict)
    _server: ThreadingHTTPServer | None = None

    @property
    def url(self) -> str:
        """Where it is."""
        assert self._server is not None
        return f"http://127.0.0.1:{self._server.server_address[1]}"

    @property
    def host(self) -> str:
        """The same without a scheme."""
        return self.url.removeprefix("http://")

    def on(self, method: str, path: str, *answers: Answer | Callable[[Request], Answer]) -> None:
        """Answer so, one after the other."""
        self._answers[method, path] = list(answers)

    def asked(self, method: str, path: str) -> list[Request]:
        """The requests for an address."""
        return [one for one in self.requests if (one.method, one.path) == (method, path)]

    def answer_to(self, request: Request) -> Answer:
        """What it says to a request."""
        self.requests.append(request)
        answers = self._answers.get((request.method, request.path))
        if answers is None:
            return refusal(404, "UNKNOWN", "there is nothing at this address; there is /api/v1/modules")
        answer = answers.pop(0) if len(answers) > 1 else answers[0]
        return answer if isinstance(answer, Answer) else answer(request)

    def __enter__(self) -> Self:
        self._server = _Server(("127.0.0.1", 0), functools.partial(_Handler, self))
        threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        assert self._server is not None
        self._server.shutdown()
        self._server.server_close()


class _Server(ThreadingHTTPServer):
    def handle_error(self, request: object, client_address: object) -> None:
        """Say nothing of clients that leave; `sys.stderr` is the command's."""
        if not isinstance(sys.exc_info()[1], ConnectionError):
            super().handle_error(request, client_address)  # type: ignore[arg-type]  # as it came


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def __init__(self, mirror: FakeMirror, *connection: Any) -> None:
        self._mirror = mirror
        super().__init__(*connection)

    def do_GET(self) -> None:
        with contextlib.suppress(ConnectionError):
            self._answer()

    do_POST = do_GET
    do_DELETE = do_GET

    def log_message(self, format: str, *args: object) -> None:
        """Say nothing."""

    def _answer(self) -> None:
        parts = urlsplit(self.path)
        headers = {name.lower(): value for name, value in self.headers.items()}
        path = unquote(parts.path).removeprefix("/api/v1/")
        request = Request(self.command, path, parse_qsl(parts.query), headers, self._body(headers))
        answer = self._mirror.answer_to(request)
        self.send_response(answer.status)
        self.send_header("content-type", answer.media_type)
        if answer.pieces is None:
            body = answer.document if isinstance(answer.document, bytes) else json.dumps(answer.document).encode()
            self.send_header("content-length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)
            return
        self.send_header("transfer-encoding", "chunked")
        self.end_headers()
        for piece in answer.pieces(request):
            self.wfile.write(f"{len(piece):x}\r\n".encode() + piece + b"\r\n")
            self.wfile.flush()
        if answer.is_cut:
            self.close_connection = True
        else:
            self.wfile.write(b"0\r\n\r\n")

    def _body(self, headers: Mapping[str, str]) -> bytes:
        if headers.get("transfer-encoding") == "chunked":
            body = bytearray()
            while length := int(self.rfile.readline(), 16):
                body += self.rfile.read(length)
                self.rfile.readline()
            self.rfile.readline()
            return bytes(body)
        return self.rfile.read(int(headers.get("content-length", "0")))
