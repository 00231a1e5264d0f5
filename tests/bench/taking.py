"""A registry that takes in uploads and keeps none: it notes when the first byte of each came."""

import http.server
import threading
import time
from types import TracebackType
from typing import Self

_PIECE = 64 * 1024


class Taking:
    """Serves at ``url`` in threads of this process; ``first_bytes`` are times of the monotonic clock, in order."""

    def __init__(self) -> None:
        self.first_bytes: list[float] = []
        self._server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), _handler(self))
        self._server.daemon_threads = True
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.05})
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()


def _handler(taking: Taking) -> type[http.server.BaseHTTPRequestHandler]:
    class Handler(http.server.BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            self._say(200 if self.path == "/v2/" else 404)

        do_HEAD = do_GET

        def do_POST(self) -> None:
            self._take()
            self._say(202, location=f"{self.path.partition('?')[0]}one")

        def do_PATCH(self) -> None:
            self._say(202, location=self.path, range=f"0-{self._take() - 1}")

        def do_PUT(self) -> None:
            self._take()
            self._say(201, location=self.path)

        def _take(self) -> int:
            """Read the body; its size."""
            took = 0
            if self.headers.get("transfer-encoding") == "chunked":
                while size := int(self.rfile.readline().split(b";")[0], 16):
                    took += self._read(size, first=took == 0)
                    self.rfile.readline()
                self.rfile.readline()
            elif size := int(self.headers.get("content-length", "0")):
                took = self._read(size, first=True)
            return took

        def _read(self, size: int, *, first: bool) -> int:
            left = size
            while left:
                piece = self.rfile.read1(min(left, _PIECE))
                if not piece:
                    raise ConnectionError("the body was cut")
                if first and left == size:
                    taking.first_bytes.append(time.monotonic())
                left -= len(piece)
            return size

        def _say(self, status: int, **headers: str) -> None:
            self.send_response_only(status)
            for name, value in {**headers, "content-length": "0"}.items():
                self.send_header(name, value)
            self.end_headers()

    return Handler
