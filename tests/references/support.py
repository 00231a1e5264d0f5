"""An API server that says what a test tells it to, over HTTP on a real socket."""

import json
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, Self
from urllib.parse import parse_qsl, urlsplit

import yaml

Answer = tuple[int, Any]
"""Status and body: bytes, or what becomes JSON."""


ENDLESS = b"\0endless"
"""A body that goes on for 64 MiB, or until nobody reads it any more."""


@dataclass(frozen=True, slots=True)
class Question:
    """A request to the API server."""

    path: str
    query: Mapping[str, str]
    authorization: str | None


def refusal(status: int, message: str = "no") -> Answer:
    """As Kubernetes refuses."""
    return status, {"kind": "Status", "status": "Failure", "message": message, "code": status}


@dataclass(slots=True)
class FakeApi:
    """Answers each path with what stands in ``answers``, 404 where nothing does; notes what it was asked."""

    answers: dict[str, Answer | Callable[[Question], Answer]] = field(default_factory=dict)
    asked: list[Question] = field(default_factory=list)
    cut: bool = False
    """Somebody has gone in the middle of an answer."""
    _server: ThreadingHTTPServer = field(init=False)
    _thread: threading.Thread = field(init=False)

    @property
    def url(self) -> str:
        """Where it is."""
        return f"http://127.0.0.1:{self._server.server_address[1]}"

    def kubeconfig(self, file: Path, user: Mapping[str, Any], **named: str) -> Path:
        """A kubeconfig with the context ``name``, by default ``here``; ``current`` is the one that it says is meant."""
        name = named.get("name", "here")
        value: dict[str, Any] = {
            "clusters": [{"name": name, "cluster": {"server": self.url}}],
            "users": [{"name": name, "user": dict(user)}],
            "contexts": [{"name": name, "context": {"cluster": name, "user": name}}],
        }
        if current := named.get("current", name):
            value["current-context"] = current
        file.write_text(yaml.safe_dump(value))
        return file

    def __enter__(self) -> Self:
        fake = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                target = urlsplit(self.path)
                question = Question(target.path, dict(parse_qsl(target.query)), self.headers["authorization"])
                fake.asked.append(question)
                answer = fake.answers.get(target.path, refusal(404))
                status, body = answer(question) if callable(answer) else answer
                content = body if isinstance(body, bytes) else json.dumps(body).encode()
                self.send_response(status)
                self.send_header("content-type", "application/json")
                if 300 <= status < 400:
                    self.send_header("location", f"{fake.url}/elsewhere")
                endless = content == ENDLESS
                self.send_header("content-length", str(64 << 20 if endless else len(content)))
                self.end_headers()
                try:
                    for piece in [b" " * 65536] * 1024 if endless else [content]:
                        self.wfile.write(piece)
                except OSError:
                    fake.cut = self.close_connection = True

            def log_message(self, *_: object) -> None:
                """Nobody reads it."""

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.02,))
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()
